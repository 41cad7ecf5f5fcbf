"""What a StatefulSet does next, given its pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import Pod
from kubesvc.api.statefulset import StatefulSet
from kubesvc.clock import parse_rfc3339
from kubesvc.controllers.statefulset_plan import ordinal_of, plan_pods, plan_status, render_claims, render_pod

READY_SINCE = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(READY_SINCE) + 5


def stateful_set(replicas: int, policy: str = "OrderedReady", start: int = 0, **spec: Any) -> StatefulSet:
    whole = {
        "replicas": replicas, "podManagementPolicy": policy, "ordinals": {"start": start}, "serviceName": "dns",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, **spec,
    }  # fmt: skip
    return typed(
        {"metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 3}, "spec": whole}, StatefulSet
    )


def pod(name: str, state: str = "ready", revision: str = "new") -> Pod:
    """state: ready, unready, pending, failed, terminating."""
    ordinal = name.rpartition("-")[2]
    labels = {
        "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": ordinal,
        "controller-revision-hash": revision,
    }  # fmt: skip
    meta: dict[str, Any] = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "labels": labels}
    if state == "terminating":
        meta["deletionTimestamp"] = READY_SINCE
    phase = {"pending": "Pending", "failed": "Failed"}.get(state, "Running")
    ready = "True" if state in ("ready", "terminating") else "False"
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": READY_SINCE}]
    return typed({"metadata": meta, "status": {"phase": phase, "conditions": conditions}}, Pod)


def pods(*words: str) -> list[Pod]:
    """`0`, `1/unready`, `2/ready/old`."""
    found = []
    for word in words:
        ordinal, state, revision = (*word.split("/"), "", "")[:3]
        found.append(pod(f"web-{ordinal}", state or "ready", revision or "new"))
    return found


def steps(found: StatefulSet, there: list[Pod], current: str = "old") -> list[str]:
    plan = plan_pods(found, there, current, "new", NOW)
    made = [f"make {m.ordinal} {m.revision}" for m in plan.make]
    removed = [f"{'renew' if r.failed else 'remove'} {r.pod.name.removeprefix('web-')}" for r in plan.remove]
    return made + removed + [f"mend {ordinal}" for ordinal, _ in plan.mend]


@dataclass(frozen=True)
class Case:
    name: str
    set: StatefulSet
    pods: tuple[str, ...]
    steps: list[str]


PARTITION: dict[str, Any] = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
TWO_AT_ONCE: dict[str, Any] = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}
HALF: dict[str, Any] = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}}
ON_DELETE: dict[str, Any] = {"updateStrategy": {"type": "OnDelete"}}

CASES = (
    Case("in order: the first missing one is made, no other", stateful_set(3), (), ["make 0 new"]),
    Case("in order: the second after the first is ready", stateful_set(3), ("0",), ["make 1 new"]),
    Case("in order: an unready one is waited for", stateful_set(3), ("0/unready",), []),
    Case("in order: a pending one is waited for", stateful_set(3), ("0", "1/pending"), []),
    Case("in order: one on its way out is waited for", stateful_set(3), ("0/terminating", "1"), []),
    Case("in order: a hole is filled first", stateful_set(3), ("0", "2"), ["make 1 new"]),
    Case("in order: minReadySeconds not over yet", stateful_set(2, minReadySeconds=6), ("0",), []),
    Case("in order: minReadySeconds over", stateful_set(2, minReadySeconds=5), ("0",), ["make 1 new"]),
    Case("an ended one is deleted to be made anew", stateful_set(2), ("0/failed", "1"), ["renew 0"]),
    Case("ordinals start where they are told to", stateful_set(2, start=5), ("5",), ["make 6 new"]),
    Case("those before the start are beyond", stateful_set(1, start=5), ("4", "5"), ["remove 4"]),
    Case(
        "parallel: all missing ones at once", stateful_set(3, "Parallel"), ("1/unready",), ["make 0 new", "make 2 new"]
    ),
    Case("in order: the highest goes first", stateful_set(1), ("0", "1", "2"), ["remove 2"]),
    Case("in order: one goes at a time", stateful_set(1), ("0", "1", "2/terminating"), []),
    Case("in order: an unhealthy lower one holds up the highest", stateful_set(1), ("0", "1/unready", "2/unready"), []),
    Case("in order: the lowest unhealthy one may go", stateful_set(1), ("0", "1", "2/unready"), ["remove 2"]),
    Case(
        "parallel: all beyond go at once",
        stateful_set(1, "Parallel"),
        ("0", "1", "2/unready"),
        ["remove 2", "remove 1"],
    ),
    Case("update: the highest old one goes", stateful_set(3), ("0//old", "1//old", "2//old"), ["remove 2"]),
    Case("update: waits for the renewed one", stateful_set(3, "Parallel"), ("0//old", "1//old", "2/unready/new"), []),
    Case("update: then the next", stateful_set(3), ("0//old", "1//old", "2"), ["remove 1"]),
    Case("update: not below the partition", stateful_set(2, **PARTITION), ("0//old", "1"), []),
    Case(
        "update: a missing one below the partition is of the old", stateful_set(2, **PARTITION), ("1",), ["make 0 old"]
    ),
    Case("update: only on deletion", stateful_set(2, **ON_DELETE), ("0//old", "1//old"), []),
    Case(
        "update: two may be away",
        stateful_set(4, **TWO_AT_ONCE),
        ("0//old", "1//old", "2//old", "3//old"),
        ["remove 3", "remove 2"],
    ),
    Case(
        "update: of two that may be away one is already",
        stateful_set(4, "Parallel", **TWO_AT_ONCE),
        ("0//old", "1//old", "2//old", "3/unready"),
        ["remove 2"],
    ),
    Case(
        "update: a share rounds up", stateful_set(3, **HALF), ("0//old", "1//old", "2//old"), ["remove 2", "remove 1"]
    ),
    Case("names of others are not looked at", stateful_set(1), ("0", "00"), []),
    Case("none wanted, none there", stateful_set(0), (), []),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_steps(case: Case) -> None:
    assert steps(case.set, pods(*case.pods)) == case.steps


def test_labels_that_were_taken_are_given_back() -> None:
    bare = typed({"metadata": {"name": "web-0"}, "status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True"}]}}, Pod)  # fmt: skip
    assert plan_pods(stateful_set(1, **ON_DELETE), [bare], "new", "new", NOW).mend == [(0, bare)]


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("web-0", 0), ("web-12", 12), ("web-01", None), ("web", None), ("web-", None), ("web-x", None), ("other-1", None),
     ("web-1-2", None)],
)  # fmt: skip
def test_ordinal_of(name: str, ordinal: int | None) -> None:
    assert ordinal_of("web", name) == ordinal


def test_a_pod_mounts_its_own_claims_in_place_of_the_templates_volumes() -> None:
    claim = {"metadata": {"name": "data", "labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    found = stateful_set(1, volumeClaimTemplates=[claim], selector={"matchLabels": {"app": "web"}})
    template: Object = {"metadata": {"labels": {"app": "web"}},
                "spec": {"volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}  # fmt: skip
    spec = render_pod(found, template, 4, "web-1")["spec"]
    assert spec["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-4"}}, {"name": "tmp", "emptyDir": {}},
    ]  # fmt: skip
    assert (spec["hostname"], spec["subdomain"]) == ("web-4", "dns")
    assert template["spec"]["volumes"][0] == {"name": "data", "emptyDir": {}}
    [made] = render_claims(found, 4)
    assert made["metadata"] == {"name": "data-web-4", "labels": {"a": "b", "app": "web"}}
    deleting = stateful_set(1, volumeClaimTemplates=[claim],
                            persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete"})  # fmt: skip
    assert render_claims(deleting, 0)[0]["metadata"]["ownerReferences"][0]["name"] == "web"


def test_status_counts_by_revision_and_moves_on_when_all_are_renewed() -> None:
    half = plan_status(stateful_set(2), pods("0//old", "1/unready/new"), "old", "new", NOW)
    assert {k: half[k] for k in ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas")} == {
        "replicas": 2, "readyReplicas": 1, "currentReplicas": 1, "updatedReplicas": 1,
    }  # fmt: skip
    assert half["currentRevision"] == "old"
    whole = plan_status(stateful_set(2), pods("0", "1"), "old", "new", NOW)
    assert (whole["currentRevision"], whole["currentReplicas"]) == ("new", 2)


STATES = st.sampled_from(["ready", "unready", "pending", "failed", "terminating"])


@given(
    st.integers(0, 5), st.integers(0, 2), st.sampled_from(["OrderedReady", "Parallel"]),
    st.dictionaries(st.integers(0, 7), st.tuples(STATES, st.sampled_from(["old", "new"])), max_size=8),
    st.booleans(),
)  # fmt: skip
def test_plans_keep_their_promises(
    replicas: int, start: int, policy: str, there: dict[int, tuple[str, str]], backwards: bool
) -> None:
    """In order at most one step; no pod is made twice or deleted twice; the order of the input does not matter."""
    found = stateful_set(replicas, policy, start)
    listed = [pod(f"web-{o}", *words) for o, words in there.items()]
    plan = plan_pods(found, listed, "old", "new", NOW)
    if policy == "OrderedReady":
        assert len(plan.make) + len(plan.remove) <= 1
    assert all(m.ordinal not in there and start <= m.ordinal < start + replicas for m in plan.make)
    names = [r.pod.name for r in plan.remove]
    assert len(set(names)) == len(names)
    assert not any(r.pod.terminating for r in plan.remove)
    again = plan_pods(found, listed[::-1] if backwards else sorted(listed, key=lambda p: p.name), "old", "new", NOW)
    assert again == plan
