"""What a DaemonSet does next, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.daemonset import DaemonSet
from kubesvc.api.meta import Object, typed
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.clock import parse_rfc3339
from kubesvc.controllers.daemonset_plan import (
    Fit,
    limits,
    meant_for,
    plan_fit,
    plan_places,
    plan_pods,
    plan_status,
    render_pod,
)

READY_SINCE = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(READY_SINCE) + 5


def daemon_set(strategy: Object | None = None, pod_spec: Object | None = None, **spec: Any) -> DaemonSet:
    rolling = {"maxUnavailable": 1, "maxSurge": 0} if strategy is None else strategy
    type_ = "RollingUpdate" if rolling else "OnDelete"
    update = {"type": type_, "rollingUpdate": rolling or None}
    whole = {"updateStrategy": update, "template": {"spec": pod_spec or {}}, **spec}
    return typed({"metadata": {"name": "d", "namespace": "ns", "uid": "u", "generation": 4}, "spec": whole}, DaemonSet)


def node(name: str, *taints: str, labels: Mapping[str, str] | None = None) -> Node:
    listed = [{"key": t.split(":")[0], "effect": t.split(":")[1]} for t in taints]
    return typed({"metadata": {"name": name, "labels": dict(labels or {})}, "spec": {"taints": listed}}, Node)


FITS: tuple[tuple[str, Object, Node, Fit], ...] = (
    ("a plain node", {}, node("a"), Fit(True, True)),
    ("another node's name is in the template", {"nodeName": "b"}, node("a"), Fit(False, False)),
    ("a label the selector asks for is missing", {"nodeSelector": {"disk": "ssd"}}, node("a"), Fit(False, False)),
    ("a label the selector asks for", {"nodeSelector": {"disk": "ssd"}}, node("a", labels={"disk": "ssd"}),
     Fit(True, True)),
    ("a taint that keeps newcomers out", {}, node("a", "k:NoSchedule"), Fit(False, True)),
    ("a taint that drives out", {}, node("a", "k:NoExecute"), Fit(False, False)),
    ("a taint that is only a preference", {}, node("a", "k:PreferNoSchedule"), Fit(True, True)),
    ("a taint the template tolerates", {"tolerations": [{"key": "k", "operator": "Exists"}]},
     node("a", "k:NoExecute"), Fit(True, True)),
    ("a cordoned node", {}, node("a", "node.kubernetes.io/unschedulable:NoSchedule"), Fit(True, True)),
    ("a silent node", {}, node("a", "node.kubernetes.io/unreachable:NoExecute"), Fit(True, True)),
    ("a node without network", {}, node("a", "node.kubernetes.io/network-unavailable:NoSchedule"), Fit(False, True)),
    ("a node without network, and none needed", {"hostNetwork": True},
     node("a", "node.kubernetes.io/network-unavailable:NoSchedule"), Fit(True, True)),
)  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "where", "fit"), FITS, ids=[f[0] for f in FITS])
def test_fit(name: str, spec: Object, where: Node, fit: Fit) -> None:
    assert plan_fit(daemon_set(pod_spec=spec), where) == fit


def pod(word: str) -> Pod:
    """`a/ready/new`: on node a; state ready, unready, failed, terminating; of the new or the old template. A further
    word is its name."""
    where, state, revision, name = (*word.split("/"), "", "", "")[:4]
    state = state or "ready"
    meta: dict[str, Any] = {
        "name": name or f"{where}-{state}-{revision or 'new'}",
        "labels": {"controller-revision-hash": revision or "new"},
    }
    if state == "terminating":
        meta["deletionTimestamp"] = READY_SINCE
    ready = "True" if state in ("ready", "terminating") else "False"
    status = {
        "phase": "Failed" if state == "failed" else "Running",
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": READY_SINCE}],
    }
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [where]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return typed({"metadata": meta, "spec": {"affinity": {"nodeAffinity": required}}, "status": status}, Pod)


PLAIN = daemon_set()
NODES = (node("a"), node("b"), node("c"))


@dataclass(frozen=True)
class Case:
    name: str
    pods: tuple[str, ...]
    create: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    set: DaemonSet = PLAIN
    nodes: tuple[Node, ...] = NODES


SURGE = daemon_set({"maxSurge": 1, "maxUnavailable": 0})
ALL = ("a/ready/old", "b/ready/old", "c/ready/old")

CASES = (
    Case("every node gets one", (), ["a", "b", "c"]),
    Case("only where one is missing", ("b",), ["a", "c"]),
    Case("one on its way out still takes its place", ("a/terminating", "b", "c")),
    Case("one that ended makes room", ("a/failed", "b", "c"), [], ["a-failed-new"]),
    Case("of two on a node the older one by name stays", ("a///1", "a///2", "b", "c"), [], ["2"]),
    Case("none where none may stay", ("a", "b"), [], ["a-ready-new"],
         nodes=(node("a", "k:NoExecute"), node("b"))),
    Case("a taint against newcomers lets stay, and makes none", ("a",), [], [],
         nodes=(node("a", "k:NoSchedule"), node("b", "k:NoSchedule"))),
    Case("one meant for a node that is no more goes", ("z", "a", "b", "c"), [], ["z-ready-new"]),
    Case("update: one node at a time", ALL, [], ["a-ready-old"]),
    Case("update: waits for one that is being replaced", ("a/unready/new", *ALL[1:])),
    Case("update: waits for one that is going", ("a/terminating/old", *ALL[1:])),
    Case("update: broken old ones go beside the count", ("a/unready/old", "b/unready/old", "c/ready/old"), [],
         ["a-unready-old", "b-unready-old"]),
    Case("update: two thirds, rounded up", ALL, [], ["a-ready-old", "b-ready-old"],
         daemon_set({"maxUnavailable": "66%", "maxSurge": 0})),
    Case("update: old ones that are not ready for long enough go at once", ("a/ready/new", *ALL[1:]), [],
         ["b-ready-old", "c-ready-old"], daemon_set(minReadySeconds=6)),
    Case("update: only on deletion", ALL, set=daemon_set({})),
    Case("surge: a new one beside the old one", ALL, ["a"], [], SURGE),
    Case("surge: waits until it is available", (*ALL, "a/unready/new"), set=SURGE),
    Case("surge: then the old one goes", (*ALL, "a/ready/new"), [], ["a-ready-old"], SURGE),
    Case("surge: a broken old one goes as soon as there is a new one", ("a/unready/old", *ALL[1:], "a/unready/new"),
         [], ["a-unready-old"], SURGE),
    Case("surge: the next node after that", ("a/ready/new", *ALL[1:]), ["b"], [], SURGE),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_steps(case: Case) -> None:
    places, strays = plan_places(case.set, case.nodes, [pod(w) for w in case.pods])
    plan = plan_pods(case.set, places, strays, "new", NOW)
    assert (plan.create, [p.name for p in plan.delete]) == (case.create, case.delete)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [({"maxUnavailable": "10%", "maxSurge": 0}, (0, 1)), ({"maxUnavailable": 0, "maxSurge": "10%"}, (1, 0)),
     ({"maxUnavailable": "50%", "maxSurge": 0}, (0, 5)), ({"maxUnavailable": "0%", "maxSurge": "0%"}, (0, 1)),
     ({}, (0, 1))],
)  # fmt: skip
def test_limits(strategy: Object, expected: tuple[int, int]) -> None:
    assert limits(daemon_set(strategy), 10) == expected


def test_a_pod_is_meant_for_its_node_and_tolerates_what_daemons_tolerate() -> None:
    template: Object = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"affinity": {"podAffinity": {}}, "tolerations": [{"key": "own", "operator": "Exists"}]},
    }
    made = render_pod(daemon_set(), template, "a", "hash", "3")
    assert made["metadata"]["labels"] == {
        "app": "d", "controller-revision-hash": "hash", "pod-template-generation": "3",
    }  # fmt: skip
    assert meant_for(typed(made, Pod).spec) == "a"
    assert "podAffinity" in made["spec"]["affinity"]
    assert [(t["key"].removeprefix("node.kubernetes.io/"), t.get("effect")) for t in made["spec"]["tolerations"]] == [
        ("own", None), ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
    ]  # fmt: skip
    assert template["metadata"]["labels"] == {"app": "d"}


def test_status_counts_nodes() -> None:
    found = daemon_set()
    nodes = (node("a"), node("b"), node("c"), node("x", "k:NoSchedule"))
    places, _ = plan_places(found, nodes, [pod("a"), pod("b/unready/old"), pod("x")])
    assert plan_status(found, places, "new", NOW) == {
        "currentNumberScheduled": 2, "numberMisscheduled": 1, "desiredNumberScheduled": 3, "numberReady": 1,
        "updatedNumberScheduled": 1, "numberAvailable": 1, "numberUnavailable": 2, "observedGeneration": 4,
    }  # fmt: skip


WORDS = st.builds(
    "{}/{}/{}/{}".format,
    st.sampled_from("abc"), st.sampled_from(["ready", "unready", "failed", "terminating"]),
    st.sampled_from(["new", "old"]), st.integers(0, 3),
)  # fmt: skip


@given(st.lists(WORDS, max_size=8, unique_by=lambda w: w[0]), st.sampled_from([None, 1, 2, "99%"]))
def test_never_more_away_than_allowed(words: list[str], most: int | str | None) -> None:
    """A rolling update never deletes an available pod beyond maxUnavailable, and never the same pod twice."""
    found = daemon_set({"maxUnavailable": 1 if most is None else most, "maxSurge": 0})
    listed = [pod(w) for w in words]
    places, strays = plan_places(found, (node("a"), node("b"), node("c")), listed)
    plan = plan_pods(found, places, strays, "new", NOW)
    assert len({id(p) for p in plan.delete}) == len(plan.delete)
    assert not any(p.terminating for p in plan.delete)
    deleted = {id(p) for p in plan.delete}
    left = {place.name for place in places for p in place.pods
            if p.ready and not p.terminal and not p.terminating and id(p) not in deleted}  # fmt: skip
    before = {place.name for place in places for p in place.pods if p.ready and not p.terminal and not p.terminating}
    assert len(before - left) <= limits(found, 3)[1]
