"""What a ReplicaSet does about its pods, and what its status says. Pure; follows RS-1 to RS-6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.meta import Condition
from kubesvc.api.pod import LabelSelector, Pod, PodTemplateSpec
from kubesvc.api.replicaset import ReplicaSet, ReplicaSetSpec, ReplicaSetStatus
from kubesvc.api.replicationcontroller import ReplicationController
from kubesvc.clock import parse_rfc3339

BURST = 500
"""Most pods made or deleted in one sync (RS-3)."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True)
class PodPlan:
    """Make this many pods, or delete these."""

    create: int = 0
    delete: tuple[Pod, ...] = ()


def as_replica_set(controller: ReplicationController) -> ReplicaSet:
    """A ReplicationController as the ReplicaSet it amounts to (RS-6)."""
    spec, status = controller.spec, controller.status
    return ReplicaSet(
        metadata=controller.metadata,
        spec=ReplicaSetSpec(
            replicas=spec.replicas,
            min_ready_seconds=spec.min_ready_seconds,
            selector=LabelSelector(match_labels=spec.selector) if spec.selector else None,
            template=spec.template or PodTemplateSpec(),
        ),
        status=ReplicaSetStatus(
            replicas=status.replicas,
            fully_labeled_replicas=status.fully_labeled_replicas,
            ready_replicas=status.ready_replicas,
            available_replicas=status.available_replicas,
            observed_generation=status.observed_generation,
            conditions=status.conditions,
        ),
    )


def is_active(pod: Pod) -> bool:
    """Neither ended nor on its way out (RS-5)."""
    return not pod.terminal and not pod.terminating


def is_available(pod: Pod, min_ready_seconds: int, now: float) -> bool:
    """Ready for at least min_ready_seconds (RS-5). now: seconds since 1970."""
    condition = pod.status.condition("Ready")
    if condition is None or condition.status != "True":
        return False
    if min_ready_seconds == 0:
        return True
    since = condition.last_transition_time
    return since is not None and parse_rfc3339(since) + min_ready_seconds <= now


def seconds_to_next_availability(pods: Iterable[Pod], min_ready_seconds: int, now: float) -> float | None:
    """When a ready pod will next become available; None if none is waiting for that."""
    waits = []
    for pod in pods:
        condition = pod.status.condition("Ready")
        if condition and condition.status == "True" and condition.last_transition_time:
            left = parse_rfc3339(condition.last_transition_time) + min_ready_seconds - now
            if left > 0:
                waits.append(left)
    return min(waits, default=None)


def plan_pods(replica_set: ReplicaSet, active: Sequence[Pod], related: Iterable[Pod]) -> PodPlan:
    """How many pods to make, or which to delete, so that spec.replicas active ones remain.

    active:  the active pods this ReplicaSet controls
    related: all pods of the same owner's ReplicaSets, to see how crowded each node is (RS-4)
    """
    target = 1 if replica_set.spec.replicas is None else replica_set.spec.replicas
    missing = target - len(active)
    if missing >= 0:
        return PodPlan(create=min(missing, BURST))
    surplus = min(-missing, BURST)
    crowd = Counter(p.spec.node_name for p in related if p.spec.node_name and is_active(p))
    return PodPlan(delete=tuple(sorted(active, key=deletion_rank(crowd))[:surplus]))


def deletion_rank(crowd: Counter[str]) -> Callable[[Pod], tuple[object, ...]]:
    """Sort key under which the pods to delete first come first (RS-4)."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}

    def rank(pod: Pod) -> tuple[object, ...]:
        ready = pod.ready
        condition = pod.status.condition("Ready")
        since = (condition.last_transition_time if condition and ready else None) or ""
        restarts = max((s.restart_count for s in pod.status.container_statuses or ()), default=0)
        return (
            bool(pod.spec.node_name),
            phases.get(pod.status.phase, 2),
            ready,
            deletion_cost(pod),
            -crowd[pod.spec.node_name] if pod.spec.node_name else 0,
            Descending(since),
            -restarts,
            Descending(pod.metadata.creation_timestamp or ""),
            pod.name,
        )

    return rank


@dataclass(frozen=True, slots=True)
class Descending:
    """Text that sorts the later before the earlier."""

    text: str

    def __lt__(self, other: Descending) -> bool:
        return self.text > other.text


def deletion_cost(pod: Pod) -> int:
    """The pod-deletion-cost annotation; 0 if absent or no 32-bit integer."""
    try:
        cost = int(pod.metadata.annotation(DELETION_COST) or 0)
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0


def plan_status(
    replica_set: ReplicaSet, pods: Sequence[Pod], now: float, failure: Condition | None
) -> dict[str, object]:
    """The plain status: counts over active pods (printed even when 0: replicas and terminatingReplicas, DEPLOY-6).

    pods: all pods this ReplicaSet controls, terminating ones included. failure: the ReplicaFailure condition to show.
    """
    active = [p for p in pods if is_active(p)]
    terminating = [p for p in pods if p.terminating and not p.terminal]
    wanted_labels = (replica_set.spec.template.metadata.labels or {}).items()
    ready = [p for p in active if p.ready]
    counts = {
        "fullyLabeledReplicas": sum(wanted_labels <= (p.metadata.labels or {}).items() for p in active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(is_available(p, replica_set.spec.min_ready_seconds, now) for p in ready),
    }
    status: dict[str, object] = {"replicas": len(active)}
    status |= {name: value for name, value in counts.items() if value}
    status["terminatingReplicas"] = len(terminating)
    status["observedGeneration"] = replica_set.metadata.generation
    kept = [c for c in replica_set.status.conditions or () if c.type != "ReplicaFailure"]
    if failure is not None:
        kept.append(failure)
    if kept:
        status["conditions"] = [msgspec.to_builtins(c) for c in kept]
    return status
