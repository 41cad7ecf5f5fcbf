"""How many pods of a group may be taken away on purpose right now: a PodDisruptionBudget's status. Pure.

Evictions read what this writes (SUB-4): an eviction lowers `disruptionsAllowed` and notes the pod in `disruptedPods`,
and the next status counts that pod as gone until it is, or for two minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.meta import Object, StandardCondition
from kubesvc.api.pod import Pod
from kubesvc.api.poddisruptionbudget import PodDisruptionBudget
from kubesvc.clock import parse_rfc3339, rfc3339

from .deployment_plan import resolve

DISRUPTION_ALLOWED = "DisruptionAllowed"
DELETION_SECONDS = 120.0
"""How long an evicted pod may take to show a deletionTimestamp before it counts as there again."""


@dataclass(frozen=True, slots=True)
class Expected:
    """pods: how many there should be; healthy: how many of them must stay healthy."""

    pods: int
    healthy: int


@dataclass(frozen=True, slots=True)
class Disrupted:
    """Pods of the budget that were evicted and are not gone yet.

    pods:    name to the time of the eviction, RFC 3339
    overdue: names of pods that should have been deleted by now and are not
    recheck: seconds until the next of `pods` is overdue; None if there is none
    """

    pods: dict[str, str]
    overdue: tuple[str, ...]
    recheck: float | None


def needs_scale(budget: PodDisruptionBudget) -> bool:
    """Whether the budget is a share of what the pods' owners want, rather than a number of pods."""
    return budget.spec.max_unavailable is not None or isinstance(budget.spec.min_available, str)


def plan_expected(budget: PodDisruptionBudget, pods: Sequence[Pod], wanted: int) -> Expected:
    """wanted: sum of the sizes that the pods' owners ask for; looked at only if `needs_scale`. Shares round up."""
    if budget.spec.max_unavailable is not None:
        return Expected(wanted, max(wanted - resolve(budget.spec.max_unavailable, wanted, round_up=True), 0))
    least = budget.spec.min_available
    if isinstance(least, str):
        return Expected(wanted, resolve(least, wanted, round_up=True))
    return Expected(len(pods), least or 0)


def plan_disrupted(budget: PodDisruptionBudget, pods: Sequence[Pod], now: float) -> Disrupted:
    """Which evictions are still under way. now: seconds since 1970."""
    noted = budget.status.disrupted_pods or {}
    kept: dict[str, str] = {}
    overdue: list[str] = []
    waits: list[float] = []
    for pod in pods:
        since = noted.get(pod.name)
        if since is None or pod.terminating:
            continue
        left = parse_rfc3339(since) + DELETION_SECONDS - now
        if left < 0:
            overdue.append(pod.name)
        else:
            kept[pod.name] = since
            waits.append(left)
    return Disrupted(kept, tuple(overdue), min(waits, default=None))


def plan_status(
    budget: PodDisruptionBudget, pods: Sequence[Pod], expected: Expected, disrupted: Disrupted, now: float
) -> Object:
    """The whole status. pods: all that the budget selects; healthy ones are Ready and not on their way out."""
    healthy = sum(p.ready and not p.terminating and p.name not in disrupted.pods for p in pods)
    allowed = max(healthy - expected.healthy, 0) if expected.pods > 0 else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    return {
        "observedGeneration": budget.metadata.generation,
        **({"disruptedPods": disrupted.pods} if disrupted.pods else {}),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "expectedPods": expected.pods,
        "conditions": plan_conditions(budget, "True" if allowed else "False", reason, "", now),
    }


def plan_failure(budget: PodDisruptionBudget, message: str, now: float) -> Object:
    """The part of the status to write when the expected number cannot be known: nothing may be disrupted."""
    return {
        "disruptionsAllowed": 0,
        "observedGeneration": budget.metadata.generation,
        "conditions": plan_conditions(budget, "False", "SyncFailed", message, now),
    }


def plan_conditions(budget: PodDisruptionBudget, status: str, reason: str, message: str, now: float) -> list[Object]:
    """The budget's conditions with this state of DisruptionAllowed, whose time moves with `status` alone."""
    before = next((c for c in budget.status.conditions or () if c.type == DISRUPTION_ALLOWED), None)
    since = before.last_transition_time if before is not None and before.status == status else None
    condition = StandardCondition(
        type=DISRUPTION_ALLOWED,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since or rfc3339(now),
        observed_generation=budget.metadata.generation,
    )
    conditions = [condition if c.type == DISRUPTION_ALLOWED else c for c in budget.status.conditions or ()]
    if before is None:
        conditions.append(condition)
    return [{"reason": "", "message": "", **msgspec.to_builtins(c)} for c in conditions]
