"""What a Deployment wants of its ReplicaSets, and what its status says. Pure; follows DEPLOY-1 to DEPLOY-9.

The reconciler calls these functions one after the other, writes what they ask for, and starts again when the caches
show it. `ReplicaSets` are typed values from the cache and never mutated; a ReplicaSet is *new* when its template is
the Deployment's, *old* otherwise, *active* while it wants any pod.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kubesvc.api.deployment import Deployment
from kubesvc.api.meta import Condition
from kubesvc.api.pod import PodTemplateSpec
from kubesvc.api.replicaset import ReplicaSet
from kubesvc.clock import parse_rfc3339, rfc3339

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words by accident


@dataclass(frozen=True, slots=True)
class Scale:
    """Set a ReplicaSet to a number of replicas."""

    replica_set: ReplicaSet
    replicas: int

    @property
    def event_message(self) -> str:
        """DEPLOY-9."""
        before = wanted(self.replica_set)
        direction = "up" if self.replicas > before else "down"
        return f"Scaled {direction} replica set {self.replica_set.name} from {before} to {self.replicas}"


def wanted(replica_set: ReplicaSet) -> int:
    """spec.replicas, which defaults to 1."""
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def replicas_of(deployment: Deployment) -> int:
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def age_order(replica_set: ReplicaSet) -> tuple[str, str]:
    """Sorts older before younger, by name where the second is the same."""
    return (replica_set.metadata.creation_timestamp or "", replica_set.name)


def same_template(template: PodTemplateSpec, of_replica_set: PodTemplateSpec) -> bool:
    """Whether two templates are equal but for the hash label that a ReplicaSet's carries."""
    labels = {k: v for k, v in (of_replica_set.metadata.labels or {}).items() if k != HASH_LABEL}
    meta = msgspec.structs.replace(of_replica_set.metadata, labels=labels or None)
    bare = msgspec.structs.replace(of_replica_set, metadata=meta)
    own = template.metadata
    if own.labels is not None and not own.labels:
        template = msgspec.structs.replace(template, metadata=msgspec.structs.replace(own, labels=None))
    return bare == template


def find_new(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The ReplicaSet with the Deployment's template; of several the oldest."""
    same = (r for r in sorted(replica_sets, key=age_order) if same_template(deployment.spec.template, r.spec.template))
    return next(same, None)


def template_hash(template: PodTemplateSpec, collision_count: int | None) -> str:
    """The pod-template-hash of a template: FNV-1a of its canonical JSON, in letters that make no words.

    collision_count changes the hash after another template was found under the same name (DEPLOY-2).
    """
    data = msgspec.json.encode(msgspec.to_builtins(template), order="deterministic")
    if collision_count is not None:
        data += collision_count.to_bytes(8, "little")
    return short_hash(data)


def short_hash(data: bytes) -> str:
    """32 bits of FNV-1a, their decimal digits as letters that make no words."""
    state = 0x811C9DC5
    for byte in data:
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(SAFE_LETTERS[ord(digit) % len(SAFE_LETTERS)] for digit in str(state))


def resolve(value: int | str | None, total: int, *, round_up: bool) -> int:
    """A count given as a number or as a percentage of `total`; unreadable texts count as 0."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    try:
        share = int(value.removesuffix("%")) * total / 100
    except ValueError:
        return 0
    return math.ceil(share) if round_up else math.floor(share)


def surge_and_unavailable(deployment: Deployment) -> tuple[int, int]:
    """How many pods may exist above, and be missing below, spec.replicas during a rolling update (DEPLOY-3)."""
    strategy = deployment.spec.strategy
    total = replicas_of(deployment)
    if strategy.type != "RollingUpdate" or strategy.rolling_update is None or total == 0:
        return 0, 0
    surge = resolve(strategy.rolling_update.max_surge, total, round_up=True)
    unavailable = resolve(strategy.rolling_update.max_unavailable, total, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # otherwise nothing could ever move
    return surge, min(unavailable, total)


def plan_new_replicas(deployment: Deployment, every: Sequence[ReplicaSet], new: ReplicaSet | None) -> int:
    """How many replicas the new ReplicaSet should have now. `new` None: it is about to be made."""
    total = replicas_of(deployment)
    if deployment.spec.strategy.type != "RollingUpdate":
        return total
    surge, _ = surge_and_unavailable(deployment)
    most = total + surge
    current = sum(map(wanted, every))
    have = 0 if new is None else wanted(new)
    if have > total:
        return total  # somebody who knew an older Deployment sized it
    if current >= most:
        return have  # no room for one more
    return have + min(most - current, total - have)


def plan_old_scale_down(deployment: Deployment, old: Sequence[ReplicaSet], new: ReplicaSet) -> list[Scale]:
    """Which old ReplicaSets shrink now: unhealthy pods first, then as far as availability allows (DEPLOY-3)."""
    every = [*old, new]
    total_old = sum(map(wanted, old))
    if total_old == 0:
        return []
    _, unavailable = surge_and_unavailable(deployment)
    least = replicas_of(deployment) - unavailable
    new_missing = wanted(new) - new.status.available_replicas
    may_go = sum(map(wanted, every)) - least - new_missing
    if may_go <= 0:
        return []
    sizes = {r.name: wanted(r) for r in old}
    gone = 0
    for r in sorted(old, key=age_order):  # pods that do no work anyway
        unhealthy = wanted(r) - r.status.available_replicas
        take = min(may_go - gone, max(unhealthy, 0))
        sizes[r.name] -= take
        gone += take
    available = sum(r.status.available_replicas for r in every)
    spare = available - least
    for r in sorted(old, key=age_order):
        take = min(sizes[r.name], max(spare, 0))
        sizes[r.name] -= take
        spare -= take
    return [Scale(r, sizes[r.name]) for r in old if sizes[r.name] != wanted(r)]


def plan_proportional(deployment: Deployment, every: Sequence[ReplicaSet]) -> list[Scale]:
    """Spread a change of spec.replicas in the middle of a rollout over all active ReplicaSets (DEPLOY-5)."""
    active = [r for r in every if wanted(r) > 0]
    if len(active) < 2 or deployment.spec.strategy.type != "RollingUpdate":
        return []
    surge, _ = surge_and_unavailable(deployment)
    total = replicas_of(deployment)
    allowed = total + surge if total > 0 else 0
    to_add = allowed - sum(map(wanted, every))
    if to_add == 0:
        return []
    # Growing: the biggest first, then the newest; shrinking: the biggest first, then the oldest.
    order = sorted(active, key=age_order, reverse=to_add > 0)
    order.sort(key=lambda r: -wanted(r))
    sizes: dict[str, int] = {}
    added = 0
    for r in order:
        left = to_add - added
        share = proportion(r, total, surge, left) if left else 0
        sizes[r.name] = max(wanted(r) + share, 0)
        added += share
    biggest = order[0].name
    sizes[biggest] = max(sizes[biggest] + to_add - added, 0)
    return [Scale(r, sizes[r.name]) for r in order if sizes[r.name] != wanted(r)]


def proportion(replica_set: ReplicaSet, total: int, surge: int, left: int) -> int:
    """A ReplicaSet's share of a change: its part of the size the Deployment had before."""
    before = number(replica_set, MAX_REPLICAS)
    size = wanted(replica_set)
    if not before:
        before = replica_set.status.replicas or size
    target = round_half_up(size * (total + surge) / before) if before else size
    share = target - size
    return max(min(share, left), 0) if left > 0 else min(max(share, left), 0)


def round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


def number(replica_set: ReplicaSet, annotation: str) -> int | None:
    """A count kept in an annotation; None if absent or unreadable."""
    text = replica_set.metadata.annotation(annotation)
    return int(text) if text.isdigit() else None


def was_rescaled(deployment: Deployment, every: Iterable[ReplicaSet]) -> bool:
    """Whether spec.replicas changed since the active ReplicaSets were last sized."""
    return any(
        (recorded := number(r, DESIRED_REPLICAS)) is not None and recorded != replicas_of(deployment)
        for r in every
        if wanted(r) > 0
    )


def plan_annotations(
    deployment: Deployment, replica_set: ReplicaSet | None, revision: int, *, is_new: bool = False
) -> dict[str, str]:
    """The annotations the new ReplicaSet should have: the Deployment's, its revision, and its sizes (DEPLOY-2)."""
    current = dict((replica_set.metadata.annotations if replica_set else None) or {})
    for key, value in (deployment.metadata.annotations or {}).items():
        if key not in NOT_COPIED:
            current[key] = value
    before = current.get(REVISION, "")
    if not before.isdigit() or int(before) < revision:
        if before.isdigit() and not is_new:
            history = [h for h in current.get(REVISION_HISTORY, "").split(",") if h]
            current[REVISION_HISTORY] = ",".join([*history, before])
        current[REVISION] = str(revision)
    return current | plan_sizes(deployment)


def plan_sizes(deployment: Deployment) -> dict[str, str]:
    """The two annotations by which a ReplicaSet remembers the Deployment's size."""
    surge, _ = surge_and_unavailable(deployment)
    total = replicas_of(deployment)
    return {DESIRED_REPLICAS: str(total), MAX_REPLICAS: str(total + surge)}


def highest_revision(replica_sets: Iterable[ReplicaSet]) -> int:
    return max((number(r, REVISION) or 0 for r in replica_sets), default=0)


def plan_cleanup(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Old ReplicaSets beyond revisionHistoryLimit, the oldest first; only ones that have and want no pods."""
    limit = deployment.spec.revision_history_limit
    if limit is None:
        return []
    done = [r for r in old if r.metadata.deletion_timestamp is None]
    surplus = len(done) - limit
    if surplus <= 0:
        return []
    done.sort(key=lambda r: (number(r, REVISION) or 0, age_order(r)))
    return [
        r
        for r in done[:surplus]
        if r.status.replicas == 0 and wanted(r) == 0 and (r.metadata.generation <= r.status.observed_generation)
    ]


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a Deployment's status, over its ReplicaSets."""

    replicas: int
    updated: int
    ready: int
    available: int
    unavailable: int
    terminating: int


def count(every: Sequence[ReplicaSet], new: ReplicaSet | None) -> Counts:
    """DEPLOY-6."""
    total = sum(map(wanted, every))
    available = sum(r.status.available_replicas for r in every)
    return Counts(
        replicas=sum(r.status.replicas for r in every),
        updated=new.status.replicas if new else 0,
        ready=sum(r.status.ready_replicas for r in every),
        available=available,
        unavailable=max(total - available, 0),
        terminating=sum(r.status.terminating_replicas or 0 for r in every),
    )


def complete(deployment: Deployment, counts: Counts) -> bool:
    """Whether every pod is of the new template and available, and no other is left."""
    total = replicas_of(deployment)
    return counts.updated == total and counts.replicas == total and counts.available == total


def plan_status(
    deployment: Deployment, every: Sequence[ReplicaSet], new: ReplicaSet | None, now: float, *, rolling: bool = True
) -> dict[str, object]:
    """The plain status this Deployment should have: counts and conditions (DEPLOY-6, DEPLOY-7).

    now:     seconds since 1970; becomes the times of conditions that change
    rolling: whether a rollout may go on; paused or merely resized, it says nothing about progress
    """
    counts = count(every, new)
    conditions = {c.type: c for c in deployment.status.conditions or ()}
    available_enough = counts.available >= replicas_of(deployment) - surge_and_unavailable(deployment)[1]
    set_condition(
        conditions,
        "Available",
        "True" if available_enough else "False",
        "MinimumReplicasAvailable" if available_enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability." if available_enough else MISSING_AVAILABILITY,
        now,
    )
    if rolling:
        plan_progress(deployment, counts, new, conditions, now)
    failure = next(
        (c for r in every for c in r.status.conditions or () if c.type == "ReplicaFailure" and c.status == "True"), None
    )
    if failure is None:
        conditions.pop("ReplicaFailure", None)
    else:
        set_condition(conditions, "ReplicaFailure", "True", failure.reason, failure.message, now)
    status: dict[str, object] = {"observedGeneration": deployment.metadata.generation}
    for name, value in (
        ("replicas", counts.replicas),
        ("updatedReplicas", counts.updated),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
        ("unavailableReplicas", counts.unavailable),
    ):
        if value:
            status[name] = value
    status["terminatingReplicas"] = counts.terminating
    if deployment.status.collision_count is not None:
        status["collisionCount"] = deployment.status.collision_count
    status["conditions"] = [msgspec.to_builtins(c) for c in conditions.values()]
    return status


MISSING_AVAILABILITY = "Deployment does not have minimum availability."


def plan_progress(
    deployment: Deployment, counts: Counts, new: ReplicaSet | None, conditions: dict[str, Condition], now: float
) -> None:
    """Set the condition Progressing in `conditions` (DEPLOY-7); without a deadline there is none."""
    if deployment.spec.progress_deadline_seconds is None or deployment.spec.progress_deadline_seconds == 2**31 - 1:
        conditions.pop("Progressing", None)
        return
    current = conditions.get("Progressing")
    named = f'ReplicaSet "{new.name}"' if new else f'Deployment "{deployment.name}"'
    if current is None or current.reason != "NewReplicaSetAvailable" or not complete(deployment, counts):
        if complete(deployment, counts):
            text = f"{named} has successfully progressed."
            set_condition(conditions, "Progressing", "True", "NewReplicaSetAvailable", text, now)
        elif progressing(deployment, counts):
            conditions.pop("Progressing", None) if current and current.status != "True" else None
            set_condition(
                conditions, "Progressing", "True", "ReplicaSetUpdated", f"{named} is progressing.", now, touch=True
            )
        elif timed_out(deployment, current, now):
            text = f"{named} has timed out progressing."
            set_condition(conditions, "Progressing", "False", "ProgressDeadlineExceeded", text, now)


def progressing(deployment: Deployment, counts: Counts) -> bool:
    """Whether the counts moved towards the goal since the status was last written."""
    before = deployment.status
    return (
        counts.updated > before.updated_replicas
        or counts.replicas - counts.updated < before.replicas - before.updated_replicas
        or counts.ready > before.ready_replicas
        or counts.available > before.available_replicas
    )


def timed_out(deployment: Deployment, current: Condition | None, now: float) -> bool:
    """Whether nothing moved for progressDeadlineSeconds."""
    if current is None or current.reason in ("NewReplicaSetAvailable", "DeploymentPaused"):
        return False
    if current.reason == "ProgressDeadlineExceeded":
        return True
    deadline = deployment.spec.progress_deadline_seconds or 0
    return current.last_update_time is not None and now > parse_rfc3339(current.last_update_time) + deadline


def set_condition(
    conditions: dict[str, Condition],
    type: str,
    status: str,
    reason: str,
    message: str,
    now: float,
    *,
    touch: bool = False,
) -> None:
    """Put a condition in place; its transition time moves only with its status, its update time with its reason.

    touch: move the update time even if the reason is the same (progress was made).
    """
    current = conditions.get(type)
    if current and current.status == status and current.reason == reason and not touch:
        return
    kept = current.last_transition_time if current and current.status == status else None
    conditions.pop(type, None)
    conditions[type] = Condition(
        type=type,
        status=status,
        last_update_time=rfc3339(now),
        last_transition_time=kept or rfc3339(now),
        reason=reason,
        message=message,
    )


def seconds_to_deadline(status: Mapping[str, Any], deadline_seconds: int, now: float) -> float | None:
    """How long until a rollout that makes no more progress counts as failed; None if it does so already.

    status: plain, as planned. From the last progress, not from now: news of other kinds do not put
    the deadline off.
    """
    progressing = next((c for c in status.get("conditions") or () if c.get("type") == "Progressing"), None)
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return None
    since = (progressing or {}).get("lastUpdateTime")
    left = (parse_rfc3339(since) if since else now) + deadline_seconds - now
    return min(max(0.0, left), float(deadline_seconds))  # never longer, should the clock have been set back
