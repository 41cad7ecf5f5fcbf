"""What a pod's claims mean for where it may run, and what becomes of them once its node is chosen. Pure.

Claims whose class waits for a consumer get their volumes only now: one that is there and can be reached from the node,
or a new one, which their provisioner makes for that node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kubesvc.api.node import Node
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import SELECTED_NODE, PersistentVolumeClaim
from kubesvc.api.pod import Pod

from .podclaims import claim_name, made_for
from .volumebinding_plan import (
    NO_PROVISIONER,
    Classes,
    bind_completed,
    claim_class,
    find_volume,
    reached_from,
    requested,
    waits_for_consumer,
)

UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
ELSEWHERE = "node(s) didn't match PersistentVolume's node affinity"
GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
HELD_ALONE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


@dataclass(frozen=True, slots=True)
class PodClaims:
    """The claims of one pod, divided.

    bound:   those that have their volume
    waiting: those that get one when the pod's node is known
    problem: why no node will do now, "" if some may
    """

    bound: list[PersistentVolumeClaim] = field(default_factory=list)
    waiting: list[PersistentVolumeClaim] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class VolumeChoice:
    """What the waiting claims get on one node: volumes that are there, by the claim's name, and new ones.

    problems: why the node will not do; the rest is void then
    """

    taken: list[tuple[PersistentVolumeClaim, PersistentVolume]] = field(default_factory=list)
    made: list[PersistentVolumeClaim] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def divide_claims(
    pod: Pod, claims: Mapping[str, PersistentVolumeClaim], classes: Classes, users: Mapping[str, Sequence[Pod]]
) -> PodClaims:
    """Look at the claims of a pod.

    claims: those of its namespace that it names and that exist, by name
    users:  by claim, the other pods that use it, have a node and have not ended
    """
    found = PodClaims()
    immediate = False
    for volume in pod.spec.volumes or ():
        name = claim_name(pod, volume)
        if not name:
            continue
        claim = claims.get(name)
        if problem := problem_of(pod, name, claim, ephemeral=volume.ephemeral is not None):
            return PodClaims(problem=problem)
        assert claim is not None
        if "ReadWriteOncePod" in (claim.spec.access_modes or ()) and users.get(name):
            return PodClaims(problem=HELD_ALONE)
        if claim.spec.volume_name and bind_completed(claim):
            found.bound.append(claim)
        elif waits_for_consumer(claim, classes) and not claim.spec.volume_name:
            found.waiting.append(claim)
        else:
            immediate = True
    return PodClaims(problem=UNBOUND) if immediate else found


def problem_of(pod: Pod, name: str, claim: PersistentVolumeClaim | None, *, ephemeral: bool) -> str:
    """Why a claim keeps its pod from every node, "" if it does not."""
    if claim is None:
        if ephemeral:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if claim.status.phase == "Lost":
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
    if claim.metadata.deletion_timestamp is not None:
        return f'persistentvolumeclaim "{name}" is being deleted'
    if ephemeral and not made_for(pod, claim):
        where = pod.namespace
        return f"PVC {where}/{name} was not created for pod {where}/{pod.name} (pod is not owner)"
    return ""


def choose_volumes(
    claims: PodClaims,
    node: Node,
    named: Mapping[str, PersistentVolume],
    free: Sequence[PersistentVolume],
    classes: Classes,
) -> VolumeChoice:
    """What a pod's claims would get on a node.

    named: the volumes of bound claims that exist, by name
    free:  all volumes that are free or name one of the waiting claims
    """
    choice = VolumeChoice()
    for claim in claims.bound:
        volume = named.get(claim.spec.volume_name)
        reason = GONE if volume is None else "" if reached_from(volume, node) else ELSEWHERE
        if reason and reason not in choice.problems:
            choice.problems.append(reason)
    wanting: list[PersistentVolumeClaim] = []
    taken: set[str] = set()
    # The smallest first, so that it does not take what only a larger one needs.
    for claim in sorted(claims.waiting, key=lambda c: (requested(c), c.name)):
        chosen = claim.metadata.annotation(SELECTED_NODE)
        found = None
        if not chosen:
            found = find_volume(claim, free, delayed=True, node=node, taken=taken)
        if found is not None:
            taken.add(found.name)
            choice.taken.append((claim, found))
        elif chosen and chosen != node.name:
            wanting.append(claim)
        elif provisionable(claim, node, classes):
            choice.made.append(claim)
        else:
            wanting.append(claim)
    if wanting:
        choice.problems.append(NO_VOLUME)
    return choice


def provisionable(claim: PersistentVolumeClaim, node: Node, classes: Classes) -> bool:
    """Whether somebody makes volumes for the claim's class, and does so for this node."""
    found = classes.get(claim_class(claim))
    if found is None or found.provisioner in ("", NO_PROVISIONER):
        return False
    labels = node.metadata.labels or {}
    terms = found.allowed_topologies or []
    return not terms or any(
        all(labels.get(e.get("key", "")) in (e.get("values") or ()) for e in term.get("matchLabelExpressions") or ())
        for term in terms
    )
