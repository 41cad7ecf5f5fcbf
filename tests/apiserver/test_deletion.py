"""What a DELETE plans (DEL-3 to DEL-8, WRITE-8)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CONFIG_MAP, NAMESPACE, POD
from kubesvc.apiserver.deletion import gone_with_update, plan_deletion
from kubesvc.apiserver.options import DeleteOptions

NOW = 1_767_225_600.0
BOUND = {"nodeName": "n1", "terminationGracePeriodSeconds": 30}
GOING = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}


@dataclass(frozen=True)
class Case:
    name: str
    kind: Kind
    meta: dict[str, Any]
    body: dict[str, Any]
    options: DeleteOptions
    action: str
    marks: dict[str, Any]


CASES = (
    Case("DEL-4: a config map goes at once", CONFIG_MAP, {}, {}, DeleteOptions(), "remove", {}),
    Case(
        "DEL-7: a finalizer holds it", CONFIG_MAP, {"finalizers": ["a/b"]}, {}, DeleteOptions(), "mark",
        {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "finalizers": ["a/b"]},
    ),
    Case(
        "DEL-7: deleting again changes nothing", CONFIG_MAP,
        {"finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}, {},
        DeleteOptions(), "wait", {},
    ),
    Case(
        "DEL-8: Foreground holds it by a finalizer", CONFIG_MAP, {}, {}, DeleteOptions(propagation="Foreground"),
        "mark", {"finalizers": ["foregroundDeletion"]},
    ),
    Case(
        "DEL-8: Background on a second delete takes the policy's finalizer away", CONFIG_MAP,
        {"finalizers": ["orphan"], "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}, {},
        DeleteOptions(propagation="Background"), "remove", {},
    ),
    Case(
        "DEL-5: a bound pod gets its grace and a generation", POD, {"generation": 1}, {"spec": BOUND},
        DeleteOptions(), "mark",
        {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30, "generation": 2},
    ),
    Case(
        "DEL-5: an unbound pod gets none", POD, {}, {"spec": {}}, DeleteOptions(), "mark-and-remove",
        {"deletionGracePeriodSeconds": 0},
    ),
    Case(
        "DEL-5: nor does a finished one", POD, {}, {"spec": BOUND, "status": {"phase": "Failed"}}, DeleteOptions(),
        "mark-and-remove", {"deletionGracePeriodSeconds": 0},
    ),
    Case(
        "DEL-5: negative grace is 1", POD, {}, {"spec": BOUND}, DeleteOptions(grace_seconds=-1), "mark",
        {"deletionGracePeriodSeconds": 1},
    ),
    Case("DEL-6: a longer grace is ignored", POD, GOING, {"spec": BOUND}, DeleteOptions(grace_seconds=60), "wait", {}),
    Case(
        "DEL-6: a shorter one moves the time", POD, GOING, {"spec": BOUND}, DeleteOptions(grace_seconds=5), "mark",
        {"deletionTimestamp": "2026-01-01T00:00:05Z", "deletionGracePeriodSeconds": 5},
    ),
    Case(
        "DEL-6: grace 0 removes it", POD, GOING, {"spec": BOUND}, DeleteOptions(grace_seconds=0), "mark-and-remove",
        {"deletionGracePeriodSeconds": 0},
    ),
    Case(
        "NS-2: a namespace turns Terminating", NAMESPACE, {}, {"spec": {"finalizers": ["kubernetes"]}},
        DeleteOptions(), "mark", {"deletionTimestamp": "2026-01-01T00:00:00Z"},
    ),
    Case(
        "NS-3: and waits for its finalizer", NAMESPACE, {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"spec": {"finalizers": ["kubernetes"]}}, DeleteOptions(), "wait", {},
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_plan(case: Case) -> None:
    obj = {"metadata": {"name": "x", **copy.deepcopy(case.meta)}, **copy.deepcopy(case.body)}
    plan = plan_deletion(case.kind, obj, case.options, NOW)
    assert plan.action == case.action
    if case.marks:
        assert plan.marked is not None
        assert {k: plan.marked["metadata"].get(k) for k in case.marks} == case.marks


def test_an_object_goes_with_its_last_finalizer() -> None:
    old = {"metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 0, "finalizers": ["a/b"]}}
    assert gone_with_update(CONFIG_MAP, {"metadata": {}}, old)  # WRITE-8
    assert not gone_with_update(CONFIG_MAP, {"metadata": {"finalizers": ["a/b"]}}, old)
    waiting = {"metadata": {**GOING, "finalizers": ["a/b"]}}
    assert not gone_with_update(POD, {"metadata": {}}, waiting)  # its node agent still has time
    assert not gone_with_update(CONFIG_MAP, {"metadata": {}}, {"metadata": {"finalizers": ["a/b"]}})
