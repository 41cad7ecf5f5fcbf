"""What a StatefulSet does about its pods: one step at a time in order, or all at once. Pure.

A pod is its ordinal: `<set>-<i>` with `start <= i < start + replicas`. A plan is what to do now; the next sync, woken
by what this one changed, plans anew. In order (OrderedReady) a plan touches one pod at most, and only when every pod
before it is available; Parallel plans touch all that need it. Updates follow in either case from the highest ordinal
down, each waiting for the one before, or several at a time with maxUnavailable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.meta import Object, controller_reference
from kubesvc.api.persistentvolumeclaim import PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.api.statefulset import StatefulSet

from .deployment_plan import resolve
from .replicaset_plan import is_available
from .revisions import POD_REVISION

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
ORDINAL = re.compile(r"(.*)-([0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Make:
    """Create the pod of this ordinal from this revision, its claims first."""

    ordinal: int
    revision: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete this pod. failed: because it ended, so that it can be made anew."""

    pod: Pod
    failed: bool = False


@dataclass(slots=True)
class StatefulSetPlan:
    """Steps to take now, in this order. `mend` are pods whose identity labels were taken away."""

    make: list[Make] = field(default_factory=list)
    remove: list[Remove] = field(default_factory=list)
    mend: list[tuple[int, Pod]] = field(default_factory=list)


def ordinal_of(stateful_set: str, pod: str) -> int | None:
    """The ordinal in a pod's name, None if the name is not one of this set's."""
    found = ORDINAL.fullmatch(pod)
    return int(found[2]) if found and found[1] == stateful_set and str(int(found[2])) == found[2] else None


def start_of(stateful_set: StatefulSet) -> int:
    return stateful_set.spec.ordinals.start if stateful_set.spec.ordinals else 0


def replicas_of(stateful_set: StatefulSet) -> int:
    return 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas


def revision_of(pod: Pod) -> str:
    return pod.metadata.label(POD_REVISION)


def running_and_ready(pod: Pod) -> bool:
    return pod.status.phase == "Running" and pod.ready


def healthy(stateful_set: StatefulSet, pod: Pod, now: float) -> bool:
    """Running and available for minReadySeconds, and not on its way out."""
    available = running_and_ready(pod) and is_available(pod, stateful_set.spec.min_ready_seconds, now)
    return available and not pod.terminating


def revision_for_new(stateful_set: StatefulSet, ordinal: int, current: str, update: str) -> str:
    """The revision a missing pod is made from: below the partition the current one."""
    strategy = stateful_set.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return update
    rolling = strategy.rolling_update
    if rolling is None:
        below = stateful_set.status.current_replicas
    else:
        below = rolling.partition or 0
    return current if ordinal < start_of(stateful_set) + below else update


def plan_pods(stateful_set: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: float) -> StatefulSetPlan:
    """The next steps.

    pods:            those the set manages, any order, ones on their way out included
    current, update: names of the revisions rolled from and to, the same when nothing rolls
    now:             seconds since 1970
    """
    plan = StatefulSetPlan()
    ordered = stateful_set.spec.pod_management_policy != "Parallel"
    start, count = start_of(stateful_set), replicas_of(stateful_set)
    by_ordinal: dict[int, Pod] = {}
    for pod in pods:
        ordinal = ordinal_of(stateful_set.name, pod.name)
        if ordinal is not None:
            by_ordinal[ordinal] = pod
    wanted = range(start, start + count)
    for ordinal in wanted:
        there = by_ordinal.get(ordinal)
        if there is None:
            plan.make.append(Make(ordinal, revision_for_new(stateful_set, ordinal, current, update)))
        elif there.terminal:
            if not there.terminating:
                plan.remove.append(Remove(there, failed=True))
        elif healthy(stateful_set, there, now):
            if not has_identity(stateful_set, there, ordinal):
                plan.mend.append((ordinal, there))
            continue
        if ordered:
            return plan
    if not condemn(stateful_set, plan, by_ordinal, wanted, now, ordered=ordered):
        return plan
    roll(stateful_set, plan, by_ordinal, wanted, update, now)
    return plan


def condemn(
    stateful_set: StatefulSet,
    plan: StatefulSetPlan,
    by_ordinal: Mapping[int, Pod],
    wanted: range,
    now: float,
    *,
    ordered: bool,
) -> bool:
    """Plan the end of pods beyond the count, the highest first; whether the plan may go on to updates."""
    beyond = [by_ordinal[o] for o in sorted(by_ordinal, reverse=True) if o not in wanted]
    unhealthy = [p for p in beyond if not healthy(stateful_set, p, now)]
    for pod in beyond:
        if pod.terminating:
            if ordered:
                return False
            continue
        if ordered and pod in unhealthy and pod is not unhealthy[-1]:
            return False  # the lowest unhealthy one may go; a higher one is waited for
        plan.remove.append(Remove(pod))
        if ordered:
            return False
    return True


def roll(
    stateful_set: StatefulSet,
    plan: StatefulSetPlan,
    by_ordinal: Mapping[int, Pod],
    wanted: range,
    update: str,
    now: float,
) -> None:
    """Plan the end of pods that are not of the update revision, from the highest ordinal down to the partition."""
    strategy = stateful_set.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return
    rolling = strategy.rolling_update
    partition = (rolling.partition if rolling else None) or 0
    targets = [o for o in reversed(wanted) if o >= wanted.start + partition]
    gone = {id(step.pod) for step in plan.remove}
    if rolling is None or rolling.max_unavailable is None:
        for ordinal in targets:
            pod = by_ordinal.get(ordinal)
            if pod is None or id(pod) in gone:
                return
            if revision_of(pod) != update and not pod.terminating:
                plan.remove.append(Remove(pod))
                return
            if not healthy(stateful_set, pod, now):
                return
        return
    most = max(resolve(rolling.max_unavailable, len(wanted), round_up=True), 1)
    missing = sum(o not in by_ordinal or not healthy(stateful_set, by_ordinal[o], now) for o in wanted)
    for ordinal in targets:
        pod = by_ordinal.get(ordinal)
        if missing >= most:
            return
        if pod is not None and id(pod) not in gone and revision_of(pod) != update and not pod.terminating:
            plan.remove.append(Remove(pod))
            missing += 1


def has_identity(stateful_set: StatefulSet, pod: Pod, ordinal: int) -> bool:
    """Whether the pod still bears the labels that say which one it is."""
    return identity_labels(stateful_set.name, ordinal).items() <= (pod.metadata.labels or {}).items()


def identity_labels(stateful_set: str, ordinal: int) -> dict[str, str]:
    return {POD_NAME_LABEL: f"{stateful_set}-{ordinal}", POD_INDEX_LABEL: str(ordinal)}


# ---------------------------------------------------------------- what is made


def render_pod(stateful_set: StatefulSet, template: Object, ordinal: int, revision: str) -> Object:
    """The plain pod of an ordinal: stable name, its labels, host name under the governing Service, its own claims.

    template: the plain template of the revision; not mutated
    """
    name = f"{stateful_set.name}-{ordinal}"
    source, spec = template.get("metadata") or {}, dict(template.get("spec") or {})
    meta: Object = {
        "name": name,
        "generateName": f"{stateful_set.name}-",
        "labels": {
            **(source.get("labels") or {}),
            **identity_labels(stateful_set.name, ordinal),
            POD_REVISION: revision,
        },
        "ownerReferences": [controller_reference(stateful_set, "apps/v1", "StatefulSet")],
    }
    if source.get("annotations"):
        meta["annotations"] = dict(source["annotations"])
    if source.get("finalizers"):
        meta["finalizers"] = list(source["finalizers"])
    spec["hostname"] = name
    if stateful_set.spec.service_name:
        spec["subdomain"] = stateful_set.spec.service_name
    claims = {c["metadata"]["name"]: claim_name(stateful_set, c, ordinal) for c in claim_templates(stateful_set)}
    if claims:
        own = [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in sorted(claims.items())
        ]
        spec["volumes"] = own + [v for v in spec.get("volumes") or () if v.get("name") not in claims]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def claim_templates(stateful_set: StatefulSet) -> list[Object]:
    return stateful_set.spec.volume_claim_templates or []


def claim_name(stateful_set: StatefulSet, claim: Object, ordinal: int) -> str:
    """`<claim>-<set>-<i>`: a pod that comes back finds its own storage again."""
    return f"{claim['metadata']['name']}-{stateful_set.name}-{ordinal}"


def render_claims(stateful_set: StatefulSet, ordinal: int) -> list[Object]:
    """The plain PersistentVolumeClaims of an ordinal, labelled so that the set's selector finds them."""
    selector = stateful_set.spec.selector
    labels = (selector.match_labels if selector else None) or {}
    policy = stateful_set.spec.persistent_volume_claim_retention_policy
    found = []
    for template in claim_templates(stateful_set):
        source = template["metadata"]
        meta: Object = {
            "name": claim_name(stateful_set, template, ordinal),
            "labels": {**(source.get("labels") or {}), **labels},
        }
        if source.get("annotations"):
            meta["annotations"] = dict(source["annotations"])
        if policy is not None and policy.when_deleted == "Delete":
            meta["ownerReferences"] = [controller_reference(stateful_set, "apps/v1", "StatefulSet")]
        found.append(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template.get("spec") or {}}
        )
    return found


def in_range(stateful_set: StatefulSet, ordinal: int) -> bool:
    """Whether the set wants a pod of this ordinal."""
    return 0 <= ordinal - start_of(stateful_set) < replicas_of(stateful_set)


def claim_owners(stateful_set: StatefulSet, pod: Pod, ordinal: int, claim: PersistentVolumeClaim) -> list[Object]:
    """The owners of a pod's claim by the set's retention policy, as a plain list.

    A claim that goes with the set is the set's; one that goes when the set shrinks becomes the pod's as soon as the pod
    is to go. One that somebody else manages belongs to neither.
    """
    policy = stateful_set.spec.persistent_volume_claim_retention_policy
    when_deleted = policy is not None and policy.when_deleted == "Delete"
    when_scaled = policy is not None and policy.when_scaled == "Delete"
    own = {("StatefulSet", stateful_set.name): stateful_set.metadata.uid, ("Pod", pod.name): pod.metadata.uid}
    kept: list[Object] = []
    foreign = False
    for reference in claim.metadata.owner_references or ():
        uid = own.get((reference.kind, reference.name))
        if uid is None:
            kept.append(msgspec.to_builtins(reference))
            foreign = foreign or bool(reference.controller)
        elif uid != reference.uid:
            foreign = True  # of an earlier bearer of the name: not ours to take over
    if foreign and (when_deleted or when_scaled):
        return kept
    if when_scaled and not in_range(stateful_set, ordinal):
        return [*kept, controller_reference(pod, "v1", "Pod")]
    if when_deleted:
        return [*kept, controller_reference(stateful_set, "apps/v1", "StatefulSet")]
    return kept


# ---------------------------------------------------------------- what its status says


def plan_status(stateful_set: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: float) -> Object:
    """The plain status; when every pod is of the update revision and ready, that becomes the current one."""
    created = [p for p in pods if p.status.phase]
    counted = [p for p in created if not p.terminating]
    ready = [p for p in pods if running_and_ready(p)]
    of_current = sum(revision_of(p) == current for p in counted)
    of_update = sum(revision_of(p) == update for p in counted)
    wanted = replicas_of(stateful_set)
    rolled = stateful_set.spec.update_strategy.type == "RollingUpdate" and of_update == len(created) == len(ready)
    if rolled and of_update == wanted:
        current, of_current = update, of_update
    status: Object = {
        "observedGeneration": stateful_set.metadata.generation,
        "replicas": len(created),
        "readyReplicas": len(ready),
        "currentReplicas": of_current,
        "updatedReplicas": of_update,
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": stateful_set.status.collision_count or 0,
        "availableReplicas": sum(is_available(p, stateful_set.spec.min_ready_seconds, now) for p in ready),
    }
    return status
