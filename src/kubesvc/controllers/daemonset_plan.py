"""What a DaemonSet does about its pods, node by node. Pure.

A pod belongs to a node through its node affinity on the field metadata.name, from the moment it is made; the scheduler
binds it there. A node is *eligible* when it matches the template's node name, selector and affinity and the pod
tolerates its taints; a pod that is there already may *stay* under taints that merely keep newcomers out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.daemonset import DaemonSet
from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod, PodSpec, Toleration

from .deployment_plan import resolve
from .podowner import pod_from_template
from .replicaset_plan import BURST, is_available
from .revisions import POD_REVISION
from .scheduler_plan import affine, tolerated

GENERATION_LABEL = "pod-template-generation"
GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
NODE_FIELD = "metadata.name"


def own_tolerations(*, host_network: bool) -> list[Toleration]:
    """What every daemon puts up with, whatever its template says."""
    found = [
        Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
        Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
        Toleration(key="node.kubernetes.io/disk-pressure", operator="Exists", effect="NoSchedule"),
        Toleration(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule"),
        Toleration(key="node.kubernetes.io/pid-pressure", operator="Exists", effect="NoSchedule"),
        Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule"),
    ]
    if host_network:
        found.append(Toleration(key="node.kubernetes.io/network-unavailable", operator="Exists", effect="NoSchedule"))
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a node is to have a pod, and whether one that is there may stay."""

    eligible: bool
    stays: bool


def plan_fit(daemon_set: DaemonSet, node: Node) -> Fit:
    spec = daemon_set.spec.template.spec
    labels = node.metadata.labels or {}
    if spec.node_name and spec.node_name != node.name:
        return Fit(False, False)
    if not (spec.node_selector or {}).items() <= labels.items() or not affine(Pod(spec=spec), node):
        return Fit(False, False)
    tolerations = [*(spec.tolerations or ()), *own_tolerations(host_network=spec.host_network)]
    bad = [t for t in node.spec.taints or () if not tolerated(t, tolerations)]
    if any(t.effect in ("NoSchedule", "NoExecute") for t in bad):
        return Fit(False, not any(t.effect == "NoExecute" for t in bad))
    return Fit(True, True)


def node_of(pod: Pod) -> str:
    """The node a pod runs on or is meant for; "" if nobody knows."""
    return pod.spec.node_name or meant_for(pod.spec)


def meant_for(spec: PodSpec) -> str:
    affinity = spec.affinity.node_affinity if spec.affinity else None
    for term in (affinity.required.node_selector_terms or ()) if affinity and affinity.required else ():
        for requirement in term.match_fields or ():
            if requirement.key == NODE_FIELD and requirement.operator == "In" and len(requirement.values or ()) == 1:
                return (requirement.values or [""])[0]
    return ""


@dataclass(slots=True)
class DaemonSetPlan:
    """Nodes to make a pod for; pods to delete; and of those the ones that ended, each with the reason to tell."""

    create: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    ended: list[Pod] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """A node, whether it is to have a pod, and the pods of the set that are there."""

    name: str
    fit: Fit
    pods: tuple[Pod, ...]


def plan_places(daemon_set: DaemonSet, nodes: Iterable[Node], pods: Iterable[Pod]) -> tuple[list[Place], list[Pod]]:
    """Each node with its pods, oldest first; and the pods meant for nodes that are no more and bound to none."""
    there: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=oldest_first):
        there.setdefault(node_of(pod), []).append(pod)
    places = [Place(n.name, plan_fit(daemon_set, n), tuple(there.pop(n.name, ()))) for n in nodes]
    return places, [p for left in there.values() for p in left if not p.spec.node_name]


def oldest_first(pod: Pod) -> tuple[str, str]:
    return (pod.metadata.creation_timestamp or "", pod.name)


def plan_pods(
    daemon_set: DaemonSet, places: Sequence[Place], strays: Sequence[Pod], digest: str, now: float
) -> DaemonSetPlan:
    """Make what is missing, delete what is too much, then take one step of a rolling update.

    strays: pods that will never find their node. digest: the hash of today's template. now: seconds since 1970
    At most BURST pods are made, and as many deleted.
    """
    plan = DaemonSetPlan(delete=[p for p in strays if not p.terminating])
    surge, unavailable = limits(daemon_set, sum(p.fit.eligible for p in places))
    for place in places:
        look_after(daemon_set, plan, place, digest, now, surging=surge > 0)
    if daemon_set.spec.update_strategy.type == "RollingUpdate" and not plan.create and not plan.delete:
        if surge:
            roll_with_surge(daemon_set, plan, places, digest, now, surge)
        else:
            roll_in_place(daemon_set, plan, places, digest, now, unavailable)
    plan.create, plan.delete = plan.create[:BURST], plan.delete[:BURST]
    return plan


def limits(daemon_set: DaemonSet, wanted: int) -> tuple[int, int]:
    """How many nodes may have a second pod, and how many may lack one, during an update; shares round up."""
    strategy = daemon_set.spec.update_strategy
    rolling = strategy.rolling_update
    if strategy.type != "RollingUpdate" or rolling is None:
        return 0, 1
    surge = resolve(rolling.max_surge, wanted, round_up=True)
    unavailable = resolve(1 if rolling.max_unavailable is None else rolling.max_unavailable, wanted, round_up=True)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def look_after(
    daemon_set: DaemonSet, plan: DaemonSetPlan, place: Place, digest: str, now: float, *, surging: bool
) -> None:
    """One pod on an eligible node, none on one where none may stay."""
    if not place.fit.stays:
        plan.delete += [p for p in place.pods if not p.terminating]
        return
    if not place.pods:
        if place.fit.eligible:
            plan.create.append(place.name)
        return
    running = []
    for pod in place.pods:
        if pod.terminating:
            continue
        if pod.terminal:
            plan.ended.append(pod)
            plan.delete.append(pod)
        else:
            running.append(pod)
    if len(running) <= 1:
        return
    if not surging:
        running.sort(key=lambda p: (not p.spec.node_name, *oldest_first(p)))
        plan.delete += running[1:]
        return
    new, old = split(running, digest)
    plan.delete += new[1:] + old[1:]
    if new and old and (not old[0].ready or available(daemon_set, new[0], now)):
        plan.delete.append(old[0])


def split(pods: Iterable[Pod], digest: str) -> tuple[list[Pod], list[Pod]]:
    """Pods of today's template, and of older ones."""
    new: list[Pod] = []
    old: list[Pod] = []
    for pod in pods:
        (new if pod.metadata.label(POD_REVISION) == digest else old).append(pod)
    return new, old


def available(daemon_set: DaemonSet, pod: Pod, now: float) -> bool:
    return is_available(pod, daemon_set.spec.min_ready_seconds, now)


def lasting(place: Place) -> list[Pod]:
    return [p for p in place.pods if not p.terminating]


def roll_in_place(
    daemon_set: DaemonSet, plan: DaemonSetPlan, places: Sequence[Place], digest: str, now: float, most: int
) -> None:
    """Delete old pods as long as no more than `most` nodes are without an available one; broken old ones at once."""
    missing = 0
    broken: list[Pod] = []
    candidates: list[Pod] = []
    for place in places:
        if not place.fit.eligible:
            continue
        new, old = split(lasting(place), digest)
        if len(new) + len(old) != 1:
            missing += 1
        elif new:
            missing += not available(daemon_set, new[0], now)
        elif not available(daemon_set, old[0], now):
            broken.append(old[0])
            missing += 1
        else:
            candidates.append(old[0])
    plan.delete += broken + candidates[: max(most - missing, 0)]


def roll_with_surge(
    daemon_set: DaemonSet, plan: DaemonSetPlan, places: Sequence[Place], digest: str, now: float, most: int
) -> None:
    """Make new pods beside old ones on `most` nodes at a time; the old one goes once the new one is available."""
    surging = 0
    broken: list[str] = []
    candidates: list[str] = []
    for place in places:
        if not place.fit.eligible:
            continue
        new, old = split(lasting(place), digest)
        if not old:
            continue
        if new:
            surging += 1
        elif not available(daemon_set, old[0], now):
            broken.append(place.name)
        else:
            candidates.append(place.name)
    plan.create += broken + candidates[: max(most - surging, 0)]


# ---------------------------------------------------------------- what is made


def render_pod(daemon_set: DaemonSet, template: Object, node: str, digest: str, generation: str) -> Object:
    """The plain pod for a node. template: as the server has it; not mutated."""
    pod = pod_from_template(template, daemon_set, "apps/v1", "DaemonSet")
    labels = {**pod["metadata"].get("labels", {}), POD_REVISION: digest}
    if generation:
        labels[GENERATION_LABEL] = generation
    pod["metadata"]["labels"] = labels
    spec = pod["spec"] = dict(pod["spec"])
    affinity = dict(spec.get("affinity") or {})
    field_is_node = {"key": NODE_FIELD, "operator": "In", "values": [node]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field_is_node]}]},
    }
    spec["affinity"] = affinity
    own = [msgspec.to_builtins(t) for t in own_tolerations(host_network=bool(spec.get("hostNetwork")))]
    listed = spec.get("tolerations") or []
    spec["tolerations"] = [*listed, *(t for t in own if t not in listed)]
    return pod


# ---------------------------------------------------------------- what its status says


def plan_status(daemon_set: DaemonSet, places: Sequence[Place], digest: str, now: float) -> Object:
    """The plain status; of several pods on a node the oldest counts."""
    counts: dict[str, int] = dict.fromkeys(
        ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady",
         "updatedNumberScheduled", "numberAvailable", "numberUnavailable"), 0,
    )  # fmt: skip
    for place in places:
        if not place.fit.eligible:
            counts["numberMisscheduled"] += bool(place.pods)
            continue
        counts["desiredNumberScheduled"] += 1
        if place.pods:
            pod = place.pods[0]
            counts["currentNumberScheduled"] += 1
            counts["numberReady"] += pod.ready
            counts["numberAvailable"] += available(daemon_set, pod, now)
            counts["updatedNumberScheduled"] += pod.metadata.label(POD_REVISION) == digest
    counts["numberUnavailable"] = counts["desiredNumberScheduled"] - counts["numberAvailable"]
    return {**counts, "observedGeneration": daemon_set.metadata.generation}
