"""Controllers need no right that upstream's role for them does not give.

Every story that is played in a house is judged (`house.TroubledClient`); here is what that judgement rests on, and how
changes are put where patches are not allowed.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import ENDPOINTS, JOB, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE
from kubesvc.api.mergepatch import merge
from kubesvc.api.meta import Object, typed
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.apiserver.defaultroles import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLES
from kubesvc.client.interface import Client
from kubesvc.controllers.registry import CONTROLLERS, load
from kubesvc.controllers.versioned import MOST_TRIES, put_change, put_version

from .rights import MANAGER, OURS, may, role_names


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_has_a_role_or_is_ours(name: str) -> None:
    """AUTH-4: the role is among those that the API server makes, and somebody is bound to it."""
    kind = load(name)
    component = kind.component or kind.name
    names = role_names(component)
    assert names or component in OURS
    for found in names:
        namespace, _, role = found.rpartition("/")
        assert role in CLUSTER_ROLES or (namespace, role) in ROLES, found
        if role.startswith("system:controller:") and not namespace:
            account = role.removeprefix("system:controller:")
            assert CLUSTER_ROLE_BINDINGS[role] == (role, (f"ServiceAccount kube-system/{account}",))


JUDGED: tuple[tuple[str, str, str, Kind, str, str, bool], ...] = (
    # sentence, who, verb, kind, subresource, namespace, allowed
    ("Endpoints are its own", "endpoint-controller", "update", ENDPOINTS, "", "ns", True),
    ("and are never patched", "endpoint-controller", "patch", ENDPOINTS, "", "ns", False),
    ("Services are only read", "endpoint-controller", "update", SERVICE, "", "ns", False),
    ("the manager lists for all", "service-account-controller", "watch", POD, "", "", True),
    ("and gets nothing for them", "service-account-controller", "get", POD, "", "ns", False),
    ("of a Job the status is put", "job-controller", "update", JOB, "status", "ns", True),
    ("and not patched", "job-controller", "patch", JOB, "status", "ns", False),
    ("tokens are cleaned in one namespace", "token-cleaner-controller", "delete", SECRET, "", "kube-system", True),
    ("and in no other", "token-cleaner-controller", "delete", SECRET, "", "ns", False),
    ("whoever tells of Services writes none", "service-events", "update", SERVICE, "", "ns", False),
    ("the manager itself deletes no Pods", MANAGER, "delete", POD, "", "ns", False),
)


@pytest.mark.parametrize(
    ("sentence", "who", "verb", "kind", "subresource", "namespace", "allowed"), JUDGED, ids=[j[0] for j in JUDGED]
)
def test_what_is_allowed(
    sentence: str, who: str, verb: str, kind: Kind, subresource: str, namespace: str, allowed: bool
) -> None:
    assert may(who, verb, kind, subresource, namespace) is allowed


MERGED: tuple[tuple[str, Object, Object, Object], ...] = (
    ("a field is set, others stay", {"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
    ("null removes, also what lacks", {"a": 1, "b": {"c": 2}}, {"a": None, "b": {"c": None, "x": None}}, {"b": {}}),
    ("lists are replaced whole", {"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ("an object replaces what was none", {"a": "x"}, {"a": {"b": {"c": 1, "d": None}}}, {"a": {"b": {"c": 1}}}),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "target", "change", "expected"), MERGED, ids=[m[0] for m in MERGED])
def test_a_change_is_merged_as_a_server_does(sentence: str, target: Object, change: Object, expected: Object) -> None:
    before = repr(target)
    assert merge(target, change) == expected
    assert repr(target) == before, "the one it was made from is as it was"


class Shelf:
    """One object; others may write it between a read and a write."""

    def __init__(self, obj: Object, disturbances: int = 0) -> None:
        self.obj = obj
        self.disturbances = disturbances

    async def get(self, kind: Kind, name: str, namespace: str = "", **_: Any) -> Object:
        return dict(self.obj, metadata=dict(self.obj["metadata"]))

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        meta = self.obj["metadata"]
        if self.disturbances:
            self.disturbances -= 1
            meta["resourceVersion"] += "1"
        if obj["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise Conflict("somebody was faster")
        self.obj = dict(obj, metadata={**obj["metadata"], "resourceVersion": meta["resourceVersion"] + "0"})
        return self.obj


def claim(uid: str = "u", version: str = "7") -> Object:
    return {"metadata": {"name": "c", "namespace": "ns", "uid": uid, "resourceVersion": version}, "spec": {"odd": 1}}


async def put(shelf: Shelf, seen: Object, *, exact: bool = False) -> Object:
    writer = put_version if exact else put_change
    obj = typed(seen, PersistentVolumeClaim)
    return await writer(cast(Client, shelf), PERSISTENT_VOLUME_CLAIM, obj, {"status": {"phase": "Bound"}})


def test_a_change_is_put_on_what_others_made_of_it() -> None:
    shelf = Shelf(claim(version="9"), disturbances=MOST_TRIES - 1)
    made = asyncio.run(put(shelf, claim()))
    assert made["status"] == {"phase": "Bound"} and made["spec"] == {"odd": 1}, "what the cache knows nothing of stays"
    with pytest.raises(Conflict):
        asyncio.run(put(Shelf(claim(), disturbances=MOST_TRIES), claim()))
    with pytest.raises(NotFound, match=r'persistentvolumeclaims "c" not found'):
        asyncio.run(put(Shelf(claim(uid="another")), claim()))


def test_a_change_meant_for_one_version_is_put_on_no_other() -> None:
    assert asyncio.run(put(Shelf(claim()), claim(), exact=True))["status"] == {"phase": "Bound"}
    with pytest.raises(Conflict, match="newer version"):
        asyncio.run(put(Shelf(claim(version="8")), claim(), exact=True))
    with pytest.raises(Conflict, match="faster"):
        asyncio.run(put(Shelf(claim(), disturbances=1), claim(), exact=True))
