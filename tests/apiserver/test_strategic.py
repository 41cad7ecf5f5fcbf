"""Strategic merge patches: every directive, the order of lists, and what is refused (PATCH-7, 3.3)."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.apiserver.strategic import BadStrategicPatch, merge, spell

SERVICE = "io.k8s.api.core.v1.Service"
POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


class Case(NamedTuple):
    name: str
    before: Any
    patch: Any
    after: Any
    schema: str = SERVICE


def ports(*numbers: int) -> dict[str, Any]:
    return {"spec": {"ports": [{"port": n} for n in numbers]}}


CASES = (
    Case("maps merge", {"metadata": {"labels": {"a": "1", "b": "2"}}}, {"metadata": {"labels": {"a": "3"}}},
         {"metadata": {"labels": {"a": "3", "b": "2"}}}),
    Case("null deletes a key", {"metadata": {"labels": {"a": "1", "b": "2"}}}, {"metadata": {"labels": {"a": None}}},
         {"metadata": {"labels": {"b": "2"}}}),
    Case("null for what is not there changes nothing", {"spec": {}}, {"spec": {"ports": None}}, {"spec": {}}),
    Case("items merge by their key", {"spec": {"ports": [{"port": 1, "name": "a"}]}},
         {"spec": {"ports": [{"port": 1, "targetPort": 5}]}},
         {"spec": {"ports": [{"port": 1, "name": "a", "targetPort": 5}]}}),
    Case("new items come before the old ones", ports(1, 2), ports(3), ports(3, 1, 2)),
    Case("an item to delete", ports(1, 2), {"spec": {"ports": [{"$patch": "delete", "port": 1}]}}, ports(2)),
    Case("deleting what is not there", ports(1), {"spec": {"ports": [{"$patch": "delete", "port": 9}]}}, ports(1)),
    Case("a list replaced", ports(1, 2), {"spec": {"ports": [{"$patch": "replace"}, {"port": 9}]}}, ports(9)),
    Case("a list replaced by one that has a key twice keeps both",
         {"status": {"addresses": [{"type": "InternalIP", "address": "1"}]}},
         {"status": {"addresses": [{"type": "InternalIP", "address": "2"}, {"type": "InternalIP", "address": "3"},
                                   {"$patch": "replace"}]}},
         {"status": {"addresses": [{"type": "InternalIP", "address": "2"}, {"type": "InternalIP", "address": "3"}]}},
         "io.k8s.api.core.v1.Node"),
    Case("a list emptied", ports(1, 2), {"spec": {"ports": [{"$patch": "replace"}]}}, {"spec": {"ports": []}}),
    Case("a map replaced", {"spec": {"selector": {"a": "b"}}}, {"spec": {"selector": {"$patch": "replace", "q": "r"}}},
         {"spec": {"selector": {"q": "r"}}}),
    Case("a map emptied", {"spec": {"selector": {"a": "b"}}}, {"spec": {"selector": {"$patch": "delete"}}},
         {"spec": {"selector": {}}}),
    Case("merging said aloud", {"spec": {"selector": {"a": "b"}, "ports": [{"port": 1, "name": "x"}]}},
         {"spec": {"selector": {"$patch": "merge", "c": "d"},
                   "ports": [{"$patch": "merge", "port": 1, "nodePort": 2}]}},
         {"spec": {"selector": {"a": "b", "c": "d"}, "ports": [{"port": 1, "name": "x", "nodePort": 2}]}}),
    Case("an order for the whole list", ports(1, 2, 3),
         {"spec": {"$setElementOrder/ports": [{"port": 3}, {"port": 1}, {"port": 2}]}}, ports(3, 1, 2)),
    Case("an order with a new item", ports(1, 2),
         {"spec": {"$setElementOrder/ports": [{"port": 2}, {"port": 3}, {"port": 1}], "ports": [{"port": 3}]}},
         ports(2, 3, 1)),
    Case("what the order leaves out keeps its place", ports(1, 2, 3),
         {"spec": {"$setElementOrder/ports": [{"port": 3}, {"port": 2}]}}, ports(1, 3, 2)),
    Case("a deletion beside an order", ports(1, 2, 3),
         {"spec": {"$setElementOrder/ports": [{"port": 3}, {"port": 1}], "ports": [{"$patch": "delete", "port": 2}]}},
         ports(3, 1)),
    Case("a new list loses its directives", {"spec": {}},
         {"spec": {"$setElementOrder/ports": [{"port": 1}], "ports": [{"port": 1}, {"$patch": "delete", "port": 2}]}},
         ports(1)),
    Case("primitives merge as a set", {"metadata": {"finalizers": ["a/x", "b/y"]}},
         {"metadata": {"finalizers": ["c/z"]}},
         {"metadata": {"finalizers": ["c/z", "a/x", "b/y"]}}),
    Case("primitives to delete", {"metadata": {"finalizers": ["a/x", "b/y"]}},
         {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}}, {"metadata": {"finalizers": ["b/y"]}}),
    Case("primitives deleted, added and ordered", {"metadata": {"finalizers": ["a/x", "b/y"]}},
         {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["c/z"],
                       "$setElementOrder/finalizers": ["b/y", "c/z"]}},
         {"metadata": {"finalizers": ["b/y", "c/z"]}}),
    Case("an atomic list is replaced", {"spec": {"externalIPs": ["192.0.2.1"]}},
         {"spec": {"externalIPs": ["192.0.2.2"]}},
         {"spec": {"externalIPs": ["192.0.2.2"]}}),
    Case("only the listed keys stay", {"spec": {"selector": {"a": "1", "b": "2"}}},
         {"spec": {"selector": {"$retainKeys": ["a", "c"], "c": "3"}}}, {"spec": {"selector": {"a": "1", "c": "3"}}}),
    Case("a strategy changes its type",
         {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}},
         {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
         {"spec": {"strategy": {"type": "Recreate"}}},
         DEPLOYMENT),
    Case("a volume changes its source", {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
         {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}},
         {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}, POD),
    Case("lists inside items", {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}},
         {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}},
         {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]}},
         POD),
    Case("conditions by type", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
         {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]}},
         {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]}}, POD),
    Case("PATCH-10: equal numbers of two protocols cannot be told apart",
         {"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}},
         {"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 5}]}},
         {"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 5}, {"port": 53, "protocol": "TCP"}]}}),
    Case("a value of another type is replaced", {"spec": {"selector": "x"}}, {"spec": {"selector": {"a": "b"}}},
         {"spec": {"selector": {"a": "b"}}}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_merge(case: Case) -> None:
    assert merge(copy.deepcopy(case.before), copy.deepcopy(case.patch), case.schema) == case.after


class Bad(NamedTuple):
    name: str
    patch: Any
    message: str
    client: bool = False


BAD = (
    Bad("an item without its key", {"spec": {"ports": [{"name": "q"}]}},
        "map: map[name:q] does not contain declared merge key: port"),
    Bad("an unknown directive in a map", {"spec": {"selector": {"$patch": "frob"}}},
        "unknown patch type: frob in map: map[$patch:frob]"),
    Bad("an unknown directive in an item", {"spec": {"ports": [{"$patch": "frob", "port": 1}]}},
        "unknown patch type: frob in map: map[$patch:frob port:1]"),
    Bad("a patch beyond its own keys", {"spec": {"selector": {"$retainKeys": ["a"], "b": "c"}}},
        "invalid patch format of retainKeys", True),
    Bad("an order against the patch's own",
        {"spec": {"$setElementOrder/ports": [{"port": 2}, {"port": 1}], "ports": [{"port": 1}, {"port": 2}]}},
        "The order in patch list:\n[map[port:1] map[port:2]]\n doesn't match $setElementOrder list:\n"
        "[map[port:2] map[port:1]]\n"),
    Bad("a mixed list", {"spec": {"ports": [1]}}, "list element types are not identical: number, object"),
)  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_refused(case: Bad) -> None:
    before = {"spec": {"ports": [{"port": 1}], "selector": {"a": "b"}}}
    with pytest.raises(BadStrategicPatch) as e:
        merge(before, copy.deepcopy(case.patch), SERVICE)
    assert (str(e.value), e.value.client) == (case.message, case.client)


def test_values_are_spelled_as_go_does() -> None:
    value = {"b": [1, True, None], "a": {"x": "y"}, "c": 1.5}
    assert spell(value) == "map[a:map[x:y] b:[1 true <nil>] c:1.5]"


# What clients compute: a patch that turns one object into another


def diff_maps(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {k: None for k in old if k not in new}
    for key, value in new.items():
        if key == "ports":
            patch.update(diff_ports(old.get(key), value))
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := diff_maps(old[key], value):
                patch[key] = inner
        elif old.get(key) != value:
            patch[key] = value
    return patch


def diff_ports(old: list[Any] | None, new: list[Any]) -> dict[str, Any]:
    before = {p["port"]: p for p in old or []}
    wanted = {p["port"]: p for p in new}
    items = [{"port": n, **diff_maps(before.get(n, {}), p)} for n, p in wanted.items() if p != before.get(n)]
    items += [{"$patch": "delete", "port": n} for n in before if n not in wanted]
    if not items and list(before) == list(wanted):
        return {}
    return {"ports": items, "$setElementOrder/ports": [{"port": n} for n in wanted]}


PORT = st.fixed_dictionaries(
    {"port": st.integers(1, 6)}, optional={"name": st.sampled_from("abc"), "targetPort": st.integers(1, 3)}
)
SPEC = st.fixed_dictionaries(
    {"ports": st.lists(PORT, min_size=1, max_size=5, unique_by=lambda p: p["port"])},
    optional={
        "selector": st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), min_size=1, max_size=3),
        "type": st.sampled_from(["ClusterIP", "NodePort"]),
    },
)


@settings(max_examples=200, deadline=None)
@given(old=SPEC, new=SPEC)
def test_the_difference_of_two_objects_turns_one_into_the_other(old: Any, new: Any) -> None:
    patch = diff_maps({"spec": old}, {"spec": new})
    assert merge({"spec": copy.deepcopy(old)}, copy.deepcopy(patch), SERVICE) == {"spec": new}
    again = merge({"spec": copy.deepcopy(new)}, copy.deepcopy(patch), SERVICE)
    assert again == {"spec": new}  # a patch applied twice changes nothing the second time
