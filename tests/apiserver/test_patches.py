"""JSON and merge patches, and what becomes of results that are no object of the kind (PATCH-1 to 6, OPT-3)."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.decode import Target
from kubesvc.api.errors import ApiError
from kubesvc.api.mergepatch import merge
from kubesvc.apiserver.jsonpatch import PatchFailed, apply
from kubesvc.apiserver.patches import PatchType, patch_object

SERVICE = Target("", "v1", "Service", "io.k8s.api.core.v1.Service")
LIVE: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"a": "1"}},
    "spec": {"ports": [{"port": 80}], "type": "ClusterIP"},
}  # fmt: skip


class Operation(NamedTuple):
    name: str
    before: Any
    operations: list[Any]
    after: Any


OPERATIONS = (
    Operation("add a key", {"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
    Operation("add replaces", {"a": 1}, [{"op": "add", "path": "/a", "value": 2}], {"a": 2}),
    Operation("add into a list", {"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
    Operation("add at the end", {"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
    Operation("remove", {"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
    Operation("replace", {"a": {"b": 1}}, [{"op": "replace", "path": "/a/b", "value": 2}], {"a": {"b": 2}}),
    Operation("move", {"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
    Operation("copy", {"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
    Operation("test, then change", {"a": 1}, [{"op": "test", "path": "/a", "value": 1},
                                             {"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
    Operation("test that nothing is there", {}, [{"op": "test", "path": "/a", "value": None}], {}),
    Operation("escapes in a path", {"x/y": {"~": 1}}, [{"op": "replace", "path": "/x~1y/~0", "value": 2}],
              {"x/y": {"~": 2}}),
)  # fmt: skip


@pytest.mark.parametrize("case", OPERATIONS, ids=lambda c: c.name)
def test_operations(case: Operation) -> None:
    before = copy.deepcopy(case.before)
    assert apply(before, case.operations) == case.after
    assert before == case.before


def test_copies_do_not_fill_the_memory() -> None:
    """Forty copies of a document into itself would make a thousand billion of it."""
    bomb = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(40)]
    with pytest.raises(PatchFailed, match="copies add up"):
        apply({"a": {"k": "v" * 100}}, bomb)
    many = [{"op": "copy", "from": "/a", "path": f"/{i}"} for i in range(1000)]
    assert len(apply({"a": {"k": "v" * 100}}, many)) == 1001


FAILING: tuple[tuple[str, Any], ...] = (
    ("a failing test", {"op": "test", "path": "/kind", "value": "x"}),
    ("true is not 1", {"op": "test", "path": "/n", "value": True}),
    ("an unknown operation", {"op": "frob", "path": "/kind"}),
    ("removing what is not there", {"op": "remove", "path": "/nosuch"}),
    ("replacing what is not there", {"op": "replace", "path": "/nosuch", "value": 1}),
    ("a missing parent", {"op": "add", "path": "/no/such", "value": 1}),
    ("past the end of a list", {"op": "add", "path": "/list/9", "value": 1}),
    ("an index that is none", {"op": "remove", "path": "/list/x"}),
    ("the whole document", {"op": "remove", "path": ""}),
    ("no path", {"op": "add", "value": 1}),
    ("no object", 1),
)


@pytest.mark.parametrize(("name", "operation"), FAILING, ids=lambda x: x if isinstance(x, str) else "")
def test_failing_operations(name: str, operation: Any) -> None:
    with pytest.raises(PatchFailed):
        apply({"kind": "K", "n": 1, "list": [1]}, [operation])


class Refusal(NamedTuple):
    name: str
    type: PatchType
    patch: bytes
    code: int
    message: str
    validation: str = "Warn"


REFUSALS = (
    Refusal("PATCH-5: malformed", "json", b"[", 400, "error decoding patch: unexpected end of JSON input"),
    Refusal("PATCH-5: malformed merge patch", "merge", b"{", 400, "error decoding patch: unexpected end of JSON input"),
    Refusal("PATCH-7: malformed strategic patch", "strategic", b"{", 400, "unexpected end of JSON input"),
    Refusal("a list for an object", "merge", b"[]", 400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
    Refusal("PATCH-5: a failing test", "json", b'[{"op":"test","path":"/kind","value":"x"}]', 422,
            "the server rejected our request due to an error in our request"),
    Refusal("PATCH-5: too many operations", "json", json.dumps([{"op": "test", "path": "/x"}] * 10_001).encode(), 413,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"),
    Refusal("PATCH-7: an item without its key", "strategic", b'{"spec":{"ports":[{"name":"q"}]}}', 500,
            "map: map[name:q] does not contain declared merge key: port"),
    Refusal("OPT-3: unknown field of a strategic patch", "strategic", b'{"bogus":1}', 422,
            ' "" is invalid: patch: Invalid value: "map[bogus:1]": strict decoding error: unknown field "bogus"',
            "Strict"),
    Refusal("a wrong type in a strategic patch", "strategic", b'{"spec":{"ports":[{"port":80,"nodePort":"x"}]}}', 422,
            ' "" is invalid: patch: Invalid value: "map[spec:map[ports:[map[nodePort:x port:80]]]]": '
            "unrecognized type: int32"),
    Refusal("PATCH-4: another kind", "merge", b'{"kind":"Pod"}', 422,
            ' "" is invalid: patch: Invalid value: "{\\"apiVersion\\":\\"v1\\",\\"kind\\":\\"Pod\\",\\"metadata\\":'
            '{\\"name\\":\\"web\\",\\"labels\\":{\\"a\\":\\"1\\"}},\\"spec\\":{\\"ports\\":[{\\"port\\":80}],'
            '\\"type\\":\\"ClusterIP\\"}}": converting (v1.Pod) to (core.Service): unknown conversion'),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.name)
def test_refused(case: Refusal) -> None:
    before = copy.deepcopy(LIVE)
    with pytest.raises(ApiError) as e:
        patch_object(LIVE, case.patch, case.type, SERVICE, case.validation)
    assert (e.value.status_code, e.value.message) == (case.code, case.message)
    assert before == LIVE


@pytest.mark.parametrize(
    ("type", "patch"),
    [
        ("json", b'[{"op":"add","path":"/metadata/labels/b","value":"2"},{"op":"add","path":"/spec/x","value":1}]'),
        ("merge", b'{"metadata":{"labels":{"b":"2"}},"spec":{"x":1}}'),
        ("strategic", b'{"metadata":{"labels":{"b":"2"}},"spec":{"x":1}}'),
    ],
)
def test_every_kind_of_patch(type: PatchType, patch: bytes) -> None:
    """The same change in three languages; the unknown field is dropped and told (OPT-3)."""
    before = copy.deepcopy(LIVE)
    found = patch_object(LIVE, patch, type, SERVICE)
    assert found.obj["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert "x" not in found.obj["spec"]
    assert found.warnings == ('unknown field "spec.x"',)
    assert before == LIVE


def test_keys_given_twice_are_told() -> None:
    found = patch_object(LIVE, b'{"metadata":{"labels":{"b":"1","b":"2"}}}', "merge", SERVICE)
    assert found.warnings == ('duplicate field "metadata.labels.b"',)
    assert found.obj["metadata"]["labels"]["b"] == "2"


def test_managed_fields_can_be_reset() -> None:
    """APPLY-6: an empty list survives decoding."""
    found = patch_object(LIVE, b'{"metadata":{"managedFields":[]}}', "merge", SERVICE)
    assert found.obj["metadata"]["managedFields"] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(document=JSON, patch=JSON)
def test_a_merge_patch_applied_twice_is_applied_once(document: Any, patch: Any) -> None:
    once = merge(document, patch)
    assert merge(once, patch) == once


@given(document=JSON, operations=st.lists(st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
     "path": st.sampled_from(["", "/a", "/b/0", "/a/b", "/c/-", "/x"])},
    optional={"value": JSON, "from": st.sampled_from(["/a", "/b", "/a/b"])}), max_size=4))  # fmt: skip
def test_operations_fail_or_leave_the_document_alone(document: Any, operations: Any) -> None:
    before = copy.deepcopy(document)
    try:
        apply(document, operations)
    except PatchFailed:
        pass
    assert document == before


PORTS = st.lists(
    st.fixed_dictionaries({"port": st.integers(1, 4)}, optional={"name": st.sampled_from("ab")}), max_size=3
)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": st.dictionaries(st.sampled_from("abc"), st.none() | st.sampled_from("12"))}
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "ports": st.none() | PORTS,
                "selector": st.dictionaries(st.sampled_from(["a", "b", "$patch"]), st.sampled_from(["x", "replace"])),
                "$setElementOrder/ports": PORTS,
            },
        ),
    },
)


@given(patch=PATCHES, type=st.sampled_from(["merge", "strategic"]))
def test_the_stored_object_is_never_changed(patch: Any, type: PatchType) -> None:
    live = copy.deepcopy(LIVE)
    live["spec"]["selector"] = {"a": "1"}
    live["spec"]["ports"] = [{"port": 1, "name": "a"}, {"port": 2}]
    before = copy.deepcopy(live)
    try:
        found = patch_object(live, json.dumps(patch).encode(), type, SERVICE)
        found.obj["metadata"].setdefault("labels", {})["mine"] = "x"
        for port in found.obj["spec"].get("ports", []):
            port["name"] = "changed"
    except ApiError:
        pass
    assert live == before
