"""Field managers and server-side apply: who owns what after which write (APPLY-1 to APPLY-8)."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.decode import Target
from kubesvc.api.errors import ApiError, BadRequest, Conflict
from kubesvc.apiserver.apply import BEFORE_APPLY, LAST_APPLIED, apply_patch
from kubesvc.apiserver.managers import ANCIENT, equal_but_for_times, update_managed_fields

SERVICE = Target("", "v1", "Service", "io.k8s.api.core.v1.Service")
CONFIG_MAP = Target("", "v1", "ConfigMap", "io.k8s.api.core.v1.ConfigMap")
POD = Target("", "v1", "Pod", "io.k8s.api.core.v1.Pod")
Object = dict[str, Any]


def at(second: int) -> str:
    return f"2026-01-02T03:04:{second:02d}Z"


def service(**spec: Any) -> Object:
    out: Object = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    return {**out, "spec": spec} if spec else out


def config_map(data: Any = None, **meta: Any) -> Object:
    out: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **meta}}
    if data is not None:
        out["data"] = data
    return out


def written(
    old: Object | None, new: Object, manager: str, second: int, target: Target = CONFIG_MAP, **kw: Any
) -> Object:
    """What a PUT (or POST) of `new` leaves."""
    out = copy.deepcopy(new)
    if old is not None:
        out["metadata"].setdefault("uid", "u")
    update_managed_fields(old, out, target, manager, at(second), **kw)
    return out


def applied(
    live: Object | None, config: Object, manager: str, second: int, target: Target = SERVICE, **kw: Any
) -> Object:
    return apply_patch(live, config, target, manager, at(second), name=config["metadata"]["name"], **kw).obj


def owners(obj: Object) -> list[tuple[Any, ...]]:
    return [
        (e["manager"], e["operation"], e.get("time", ""), e["fieldsV1"])
        for e in obj["metadata"].get("managedFields") or []
    ]


DATA_K: Object = {"f:data": {".": {}, "f:k": {}}}


def test_a_write_owns_what_it_changed() -> None:
    """APPLY-6, APPLY-7: on create everything but identity; later only what differs."""
    first = written(None, config_map({"k": "1"}, labels={"a": "b"}), "one", 1)
    everything = {**DATA_K, "f:metadata": {"f:labels": {".": {}, "f:a": {}}}}
    assert owners(first) == [("one", "Update", at(1), everything)]
    second = written(first, config_map({"k": "2", "x": "3"}, labels={"a": "b"}), "two", 2)
    assert owners(second) == [
        ("one", "Update", at(1), {"f:data": {}, "f:metadata": {"f:labels": {".": {}, "f:a": {}}}}),
        ("two", "Update", at(2), {"f:data": {"f:k": {}, "f:x": {}}}),
    ]
    third = written(second, config_map(labels={"a": "b"}), "one", 3)
    assert owners(third) == [("one", "Update", at(1), {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})]


def test_a_write_that_changes_nothing_changes_no_entry() -> None:
    """META-8, OPT: not even the time."""
    first = written(None, config_map({"k": "1"}), "one", 1)
    assert owners(written(first, config_map({"k": "1"}), "two", 2)) == owners(first)


def test_status_and_spec_have_owners_of_their_own() -> None:
    """APPLY-7: through /status nobody owns spec, through the object nobody owns status."""
    live: Object = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}}
    live = written(None, live, "kubectl", 1, POD)
    new = copy.deepcopy(live)
    new["spec"]["hostname"] = "x"
    new["status"] = {"conditions": [{"type": "Ready", "lastProbeTime": None}]}
    found = written(live, new, "agent", 2, POD, subresource="status")["metadata"]["managedFields"][1]
    assert found["subresource"] == "status"
    ready: Object = {".": {}, "f:lastProbeTime": {}, "f:type": {}}
    assert found["fieldsV1"] == {"f:status": {"f:conditions": {".": {}, 'k:{"type":"Ready"}': ready}}}
    main = [e for e in written(live, new, "agent", 2, POD)["metadata"]["managedFields"] if e["manager"] == "agent"]
    assert [e["fieldsV1"] for e in main] == [{"f:spec": {"f:hostname": {}}}]


def test_managed_fields_in_a_write() -> None:
    """APPLY-6, APPLY-8: absent keeps, empty resets, after a reset nothing is tracked; a list of one's own counts."""
    first = written(None, config_map({"k": "1"}), "one", 1)
    resets: list[list[Object]] = [[], [{}]]
    for reset in resets:
        gone = written(first, config_map({"k": "1"}, managedFields=reset), "two", 2)
        assert "managedFields" not in gone["metadata"]
        assert "managedFields" not in written(gone, config_map({"k": "2"}), "two", 3)["metadata"]
    mine = [{"manager": "me", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": DATA_K}]
    assert owners(written(first, config_map({"k": "1"}, managedFields=mine), "x", 2)) == [("me", "Update", "", DATA_K)]
    broken = [{"manager": "me", "operation": "Frob"}]
    assert owners(written(first, config_map({"k": "1"}, managedFields=broken), "x", 2)) == owners(first)


def test_only_ten_updaters_are_kept() -> None:
    """APPLY-6: the oldest are gathered."""
    obj = written(None, config_map({"k0": "0"}), "m0", 0)
    for i in range(1, 13):
        obj = written(obj, config_map({f"k{j}": str(j) for j in range(i + 1)}), f"m{i}", i)
    names = [e["manager"] for e in obj["metadata"]["managedFields"]]
    assert names == [ANCIENT, *(f"m{i}" for i in range(4, 13))]
    gathered = obj["metadata"]["managedFields"][0]
    assert gathered["fieldsV1"] == {"f:data": {".": {}, **{f"f:k{i}": {} for i in range(4)}}}
    assert gathered["time"] == at(3)


PORT_80 = 'k:{"port":80,"protocol":"TCP"}'


def test_apply_shares_conflicts_and_takes() -> None:
    """APPLY-4, APPLY-5."""
    live = applied(
        None, service(selector={"a": "1"}, ports=[{"port": 80, "protocol": "TCP", "targetPort": 1}]), "m1", 1
    )
    same = applied(live, service(ports=[{"port": 80, "protocol": "TCP", "targetPort": 1}]), "m2", 2)
    port: Object = {PORT_80: {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}}
    assert owners(same)[0] == ("m2", "Apply", "", {"f:spec": {"f:ports": port}})  # shared, and without a time
    with pytest.raises(Conflict) as e:
        applied(same, service(selector={"a": "2"}, ports=[{"port": 80, "targetPort": 9}]), "m3", 3)
    assert e.value.message == (
        'Apply failed with 3 conflicts: conflicts with "m1":\n- .spec.selector\n'
        '- .spec.ports[port=80,protocol="TCP"].targetPort\nconflicts with "m2":\n'
        '- .spec.ports[port=80,protocol="TCP"].targetPort'
    )
    assert e.value.causes[0] == {
        "reason": "FieldManagerConflict", "message": 'conflict with "m1"', "field": ".spec.selector",
    }  # fmt: skip
    forced = applied(same, service(selector={"a": "2"}), "m3", 3, force=True)
    assert forced["spec"]["selector"] == {"a": "2"}
    assert [o[0] for o in owners(forced) if "f:selector" in o[3]["f:spec"]] == ["m3"]


def test_conflicts_name_updaters_with_their_version_and_endpoint() -> None:
    """APPLY-4."""
    live = written(None, service(selector={"a": "1"}), "golden", 1, SERVICE)
    with pytest.raises(Conflict) as e:
        applied(live, service(selector={"a": "2"}), "m1", 2)
    assert e.value.message == 'Apply failed with 1 conflict: conflict with "golden" using v1: .spec.selector'
    status = copy.deepcopy(live)
    status["metadata"]["labels"] = {"x": "1"}
    update_managed_fields(live, status, SERVICE, "lb", at(2), subresource="status")
    config = service()
    config["metadata"]["labels"] = {"x": "2"}
    with pytest.raises(Conflict) as e:
        applied(status, config, "m1", 3)
    assert e.value.causes[0]["message"] == 'conflict with "lb" with subresource "status" using v1'


def test_what_is_applied_no_more_goes() -> None:
    """APPLY-3: unless somebody else owns it."""
    first = service(selector={"a": "1"}, ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}], type="NodePort")
    live = applied(None, first, "m1", 1)
    live["spec"]["ports"][0]["nodePort"] = 30000  # allocated, owned by nobody
    live = applied(live, service(ports=[{"name": "c", "port": 82}]), "m2", 2)
    found = applied(live, service(ports=[{"name": "b", "port": 81}]), "m1", 3)
    assert found["spec"] == {"ports": [{"name": "b", "port": 81}, {"name": "c", "port": 82}]}
    assert [o[0] for o in owners(found)] == ["m2", "m1"]  # the older first
    shared = applied(live, service(selector={"a": "1"}), "m3", 3)
    assert applied(shared, service(), "m1", 4)["spec"]["selector"] == {"a": "1"}


def test_an_untracked_object_belongs_to_whoever_was_before() -> None:
    """APPLY-6."""
    live = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": {"k": "1"}}
    found = applied(live, config_map({"x": "2"}), "m", 1, CONFIG_MAP)
    assert owners(found) == [
        ("m", "Apply", at(1), {"f:data": {"f:x": {}}}),
        (BEFORE_APPLY, "Update", "", DATA_K),
    ]


def test_kubectl_may_take_what_its_client_side_apply_set() -> None:
    config = config_map({"k": "1"})
    text = json.dumps(config)
    live = written(None, config_map({"k": "1"}, annotations={LAST_APPLIED: text}), "kubectl-client-side-apply", 1)
    found = applied(live, config_map({"k": "2"}), "kubectl", 2, CONFIG_MAP)
    assert found["data"] == {"k": "2"}
    assert json.loads(found["metadata"]["annotations"][LAST_APPLIED])["data"] == {"k": "2"}
    with pytest.raises(Conflict):
        applied(live, config_map({"k": "2"}), "another", 2, CONFIG_MAP)


class Bad(NamedTuple):
    name: str
    body: Any
    code: int
    message: str
    validation: str = "Warn"


TYPED = "failed to create typed patch object (/web; /v1, Kind=Service): "
HEAD: Object = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
BAD = (
    Bad("no apiVersion", {"kind": "Service", "metadata": {"name": "web"}}, 400, "invalid object type: /, Kind=Service"),
    Bad("another kind", {**HEAD, "kind": "Pod"}, 400, "invalid object type: /v1, Kind=Pod"),
    Bad("managedFields", {**HEAD, "metadata": {"name": "web", "managedFields": []}}, 400,
        "metadata.managedFields must be nil"),
    Bad("another name", {**HEAD, "metadata": {"name": "x"}}, 400,
        "the name of the object (x) does not match the name on the URL (web)"),
    Bad("an unknown field", {**HEAD, "spec": {"bogus": 1}}, 500, TYPED + ".spec.bogus: field not declared in schema"),
    Bad("two unknown fields", {**HEAD, "spec": {"bogus": 1, "cogus": 1}}, 500,
        TYPED + "errors:\n  .spec.bogus: field not declared in schema\n  .spec.cogus: field not declared in schema"),
    Bad("a key twice", {**HEAD, "spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}}, 500,
        TYPED + '.spec.ports: duplicate entries for key [port=80,protocol="TCP"]'),
    Bad("an item without an optional key", {**HEAD, "metadata": {"name": "web", "ownerReferences": [{"uid": {}}]}}, 500,
        TYPED + '.metadata.ownerReferences: element 0: associative list with keys has an element whose key field "uid" '
        "is no scalar"),
    Bad("a text for a number", {**HEAD, "spec": {"healthCheckNodePort": "x"}}, 500,
        TYPED + ".spec.healthCheckNodePort: expected numeric (int or float), got string"),
    Bad("no YAML", b"a: [", 400, "error decoding YAML: error converting YAML to JSON: yaml: line 1: did not find "
        "expected node content"),
    Bad("OPT-3: keys given twice", b"apiVersion: v1\nkind: Service\nmetadata: {name: web, name: web}\n", 400,
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 3: key "name" already set in map', "Strict"),
)  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_refused(case: Bad) -> None:
    """APPLY-2."""
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    with pytest.raises(ApiError) as e:
        apply_patch(None, body, SERVICE, "m", at(1), name="web", field_validation=case.validation)
    assert (e.value.status_code, e.value.message) == (case.code, case.message)
    assert isinstance(e.value, BadRequest) == (case.code == 400)


def test_a_required_key_left_out_is_its_zero_value() -> None:
    """So that validation may say what is wrong with it."""
    found = applied(None, service(ports=[{"name": "x"}]), "m", 1)
    assert owners(found)[0][3] == {"f:spec": {"f:ports": {'k:{"port":0,"protocol":"TCP"}': {".": {}, "f:name": {}}}}}


def test_nothing_changed_but_times() -> None:
    """META-8."""
    one = written(None, config_map({"k": "1"}), "m", 1)
    two = written(None, config_map({"k": "1"}), "m", 2)
    two["metadata"]["resourceVersion"] = "5"
    assert equal_but_for_times(one, two)
    assert not equal_but_for_times(one, written(None, config_map({"k": "1"}), "n", 1))
    assert not equal_but_for_times(one, {**one, "data": {"k": "2"}})


PORTS: st.SearchStrategy[Object] = st.fixed_dictionaries(
    {"port": st.integers(1, 3), "protocol": st.sampled_from(["TCP", "UDP"])}, optional={"name": st.sampled_from("ab")}
)
CONFIGS: st.SearchStrategy[Object] = st.fixed_dictionaries(
    {},
    optional={
        "selector": st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), min_size=1, max_size=2),
        "ports": st.lists(PORTS, min_size=1, max_size=4, unique_by=lambda p: (p["port"], p["protocol"])),
        "type": st.sampled_from(["ClusterIP", "NodePort"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(configs=st.lists(CONFIGS, min_size=1, max_size=5))
def test_the_last_config_is_all_that_one_manager_leaves(configs: list[Object]) -> None:
    """APPLY-3, and an apply repeated changes nothing."""
    live: Object | None = None
    for i, spec in enumerate(configs):
        live = applied(live, service(**spec), "m", i)
        again = apply_patch(live, service(**spec), SERVICE, "m", at(50), name="web")
        assert not again.changed
        assert again.obj == live
        found = live.get("spec") or {}
        by_key = {(p["port"], p["protocol"]): p for p in found.get("ports", [])}
        assert {k: v for k, v in found.items() if k != "ports"} == {k: v for k, v in spec.items() if k != "ports"}
        assert by_key == {(p["port"], p["protocol"]): p for p in spec.get("ports", [])}


@settings(max_examples=150, deadline=None)
@given(first=CONFIGS, second=CONFIGS)
def test_two_managers_end_with_both_wills_or_a_conflict(first: Object, second: Object) -> None:
    live = applied(None, service(**first), "m1", 1)
    before = copy.deepcopy(live)
    try:
        both = applied(live, service(**second), "m2", 2)
    except Conflict as e:
        assert e.causes
        both = applied(live, service(**second), "m2", 2, force=True)
    assert live == before
    assert both.get("spec", {}).get("selector") == second.get("selector", first.get("selector"))
    alone = applied(both, service(), "m1", 3)
    assert owners(alone) == [o for o in owners(both) if o[0] == "m2"]
