"""From container states to phase and conditions (NODE-1 to NODE-18)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.container import ContainerStatus
from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.node.podstatus import OWNED, Observed, patch_of, plan_phase, plan_status

NOW = "2026-01-02T03:04:05Z"


def status(name: str, word: str) -> ContainerStatus:
    """`run`, `ready` (running and ready), `wait`, `exit0`, `exit1`, `crash` (waiting after exit 1), `done` (init)."""
    end = {"exitCode": 1 if word in ("exit1", "crash") else 0}
    state: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}} if word in ("wait", "crash") else {}
    if word in ("run", "ready"):
        state = {"running": {}}
    elif word.startswith("exit") or word == "done":
        state = {"terminated": end}
    plain = {"name": name, "state": state, "ready": word in ("ready", "done"), "started": word in ("run", "ready")}
    if word == "crash":
        plain["lastState"] = {"terminated": end}
    return typed(plain, ContainerStatus)


def pod(containers: str, policy: str = "Always", init: str = "", **extra: Any) -> Pod:
    """A Pod with these containers; init ones that begin with `+` are sidecars."""
    spec: dict[str, Any] = {"restartPolicy": policy, "containers": [{"name": n} for n in containers.split()]}
    if init:
        spec["initContainers"] = [
            {"name": n.lstrip("+"), **({"restartPolicy": "Always"} if n[0] == "+" else {})} for n in init.split()
        ]
    return typed({"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": {**spec, **extra}}, Pod)


def seen(words: str, **fields: Any) -> Observed:
    """`a=run b=exit0`."""
    pairs = [pair.split("=") for pair in words.split()]
    return Observed(statuses={n: status(n, w) for n, w in pairs}, **fields)


class Case(NamedTuple):
    name: str
    pod: Pod
    seen: Observed
    phase: str


CASES = (
    Case("NODE-1: nothing is known yet", pod("a"), seen(""), "Pending"),
    Case("NODE-1: one container still waits", pod("a b"), seen("a=run b=wait"), "Pending"),
    Case("NODE-1: an init container runs", pod("a", init="i"), seen("i=run a=wait"), "Pending"),
    Case("NODE-2: all run", pod("a b"), seen("a=run b=run"), "Running"),
    Case("NODE-2: one runs, one ended for good", pod("a b", "Never"), seen("a=run b=exit1"), "Running"),
    Case("NODE-2: all ended, one will run again", pod("a b", "OnFailure"), seen("a=exit0 b=exit1"), "Running"),
    Case("NODE-2: Always comes back even after success", pod("a"), seen("a=exit0"), "Running"),
    Case("NODE-3: all ended well", pod("a b", "Never"), seen("a=exit0 b=exit0"), "Succeeded"),
    Case("NODE-3: OnFailure and all ended well", pod("a", "OnFailure"), seen("a=exit0"), "Succeeded"),
    Case("NODE-3: one ended badly", pod("a b", "Never"), seen("a=exit0 b=exit1"), "Failed"),
    Case("NODE-3: an init container failed for good", pod("a", "Never", "i"), seen("i=exit1 a=wait"), "Failed"),
    Case("NODE-3: an init container tries again", pod("a", "Always", "i"), seen("i=crash a=wait"), "Pending"),
    Case("NODE-4: deleted, all well, though Always", pod("a"), seen("a=exit0", stopped=True), "Succeeded"),
    Case("NODE-4: deleted, one badly", pod("a b"), seen("a=exit0 b=exit1", stopped=True), "Failed"),
    Case("NODE-5: not terminal while one runs", pod("a b"), seen("a=exit0 b=run", stopped=True), "Running"),
    Case("NODE-6: a crash loop keeps it Running", pod("a"), seen("a=crash"), "Running"),
    Case("NODE-7: a sidecar not started holds it back", pod("a", init="+s"), seen("s=wait a=wait"), "Pending"),
    Case("NODE-7: a sidecar's end counts for nothing", pod("a", "Never", "+s"), seen("s=exit1 a=exit0"), "Succeeded"),
    Case("NODE-73: too long", pod("a"), seen("a=exit1", stopped=True, reason="DeadlineExceeded"), "Failed"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_phase(case: Case) -> None:
    assert plan_phase(case.pod, case.seen) == case.phase


def conditions(p: Pod, observed: Observed) -> dict[str, tuple[str, str, str]]:
    found = plan_status(p, observed, NOW)["conditions"]
    return {c["type"]: (c["status"], c["reason"] or "", c["message"] or "") for c in found}


GATE: dict[str, Any] = {"readinessGates": [{"conditionType": "x"}]}
UNREADY = "containers with unready status: [a]"


@pytest.mark.parametrize(
    ("what", "p", "observed", "name", "expected"),
    [
        ("NODE-12: unready", pod("a"), seen("a=run"), "Ready", ("False", "ContainersNotReady", UNREADY)),
        ("NODE-12: ready", pod("a"), seen("a=ready"), "ContainersReady", ("True", "", "")),
        (
            "NODE-14: both named", pod("a b"), seen("a=run b=run"), "ContainersReady",
            ("False", "ContainersNotReady", "containers with unready status: [a b]"),
        ),
        (
            "NODE-12: a sidecar counts", pod("a", init="+s"), seen("a=ready s=run"), "Ready",
            ("False", "ContainersNotReady", "containers with unready status: [s]"),
        ),
        (
            "NODE-13: a gate without condition", pod("a", **GATE), seen("a=ready"), "Ready",
            ("False", "ReadinessGatesNotReady", 'corresponding condition of pod readiness gate "x" does not exist.'),
        ),
        ("NODE-13: but its containers are", pod("a", **GATE), seen("a=ready"), "ContainersReady", ("True", "", "")),
        ("NODE-17", pod("a", "Never"), seen("a=exit0"), "Ready", ("False", "PodCompleted", "")),
        ("NODE-17", pod("a", "Never"), seen("a=exit0"), "Initialized", ("True", "PodCompleted", "")),
        ("NODE-17", pod("a", "Never"), seen("a=exit1"), "ContainersReady", ("False", "PodFailed", "")),
        ("NODE-11: no init containers", pod("a"), seen("a=wait"), "Initialized", ("True", "", "")),
        (
            "NODE-11: still initialising", pod("a", init="i"), seen("i=run a=wait"), "Initialized",
            ("False", "ContainersNotInitialized", "containers with incomplete status: [i]"),
        ),
        ("NODE-11: done", pod("a", init="i"), seen("i=done a=wait"), "Initialized", ("True", "", "")),
        ("NODE-11: once started", pod("a", init="i"), seen("i=run a=run"), "Initialized", ("True", "", "")),
        ("NODE-10: no sandbox", pod("a"), seen("a=wait"), "PodReadyToStartContainers", ("False", "", "")),
        ("NODE-10", pod("a"), seen("a=wait", networked=True), "PodReadyToStartContainers", ("True", "", "")),
    ],
)  # fmt: skip
def test_conditions(what: str, p: Pod, observed: Observed, name: str, expected: tuple[str, str, str]) -> None:
    assert conditions(p, observed)[name] == expected, what


def merged(value: Any) -> Any:
    """What a merge of `value` into nothing stores: null removes."""
    if isinstance(value, dict):
        return {k: merged(v) for k, v in value.items() if v is not None}
    return [merged(v) for v in value] if isinstance(value, list) else value


def with_status(plain: dict[str, Any], generation: int = 3) -> Pod:
    """The Pod as read after the status was written."""
    meta = {"name": "p", "uid": "u", "generation": generation}
    spec = {"containers": [{"name": "a"}]}
    return typed({"metadata": meta, "spec": spec, "status": merged(plain)}, Pod)


def test_times_change_with_the_status_alone() -> None:
    """NODE-15, NODE-8."""
    first = plan_status(pod("a"), seen("a=run", ips=("10.0.0.1",)), NOW)
    later = plan_status(with_status(first, 4), seen("a=ready"), "2027-01-01T00:00:00Z")
    second = {c["type"]: c for c in later["conditions"]}
    assert second["Ready"]["lastTransitionTime"] == "2027-01-01T00:00:00Z"
    assert second["PodScheduled"]["lastTransitionTime"] == NOW
    assert {c["observedGeneration"] for c in second.values()} == {4}


def test_a_written_status_is_not_written_again() -> None:
    """NODE-18: the patch names the uid, holds only what changed, and is nothing when nothing did."""
    p, observed = pod("a"), seen("a=run", ips=("10.0.0.1",), host_ips=("172.30.0.11",), networked=True)
    wanted = plan_status(p, observed, NOW)
    patch = patch_of(p, wanted, None)
    assert patch is not None and patch["metadata"] == {"uid": "u"}
    order = [{"type": name} for name in OWNED]
    assert patch["status"]["$setElementOrder/conditions"] == order
    assert patch_of(with_status(wanted), wanted, None) is None
    changed = plan_status(p, seen("a=ready", ips=("10.0.0.2",), networked=True), NOW)
    patch = patch_of(with_status(wanted), changed, None)
    assert patch is not None
    assert [c["type"] for c in patch["status"]["conditions"]] == ["Ready", "ContainersReady"]
    assert patch["status"]["podIPs"] == [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}]
    assert "phase" not in patch["status"]


WORDS = st.sampled_from(["run", "ready", "wait", "exit0", "exit1", "crash"])


@given(WORDS, WORDS, st.sampled_from(["Always", "OnFailure", "Never"]), st.booleans(), st.booleans())
def test_whatever_is_seen(a: str, b: str, policy: str, stopped: bool, networked: bool) -> None:
    """A terminal phase is never Ready (NODE-17) and never has a running container (NODE-5); planning is stable."""
    p, observed = pod("a b", policy), seen(f"a={a} b={b}", stopped=stopped, networked=networked)
    planned = plan_status(p, observed, NOW)
    ready = next(c for c in planned["conditions"] if c["type"] == "Ready")["status"]
    if planned["phase"] in ("Succeeded", "Failed"):
        assert ready == "False"
        assert not {a, b} & {"run", "ready"}
    assert (ready == "True") == (a == b == "ready")
    assert plan_status(p, observed, NOW) == planned
