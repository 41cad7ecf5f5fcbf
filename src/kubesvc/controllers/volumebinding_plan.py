"""Which volume a claim gets, and what claims and volumes are told to be. Pure.

A claim and a volume are bound when both name the other: the volume's `claimRef`, with the claim's uid, is written
first, the claim's `volumeName` last, so that whatever breaks off in between is taken up again and never given twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.api.persistentvolume import PersistentVolume
from kubesvc.api.persistentvolumeclaim import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    OLD_CLASS,
    SELECTED_NODE,
    PersistentVolumeClaim,
)
from kubesvc.api.quantity import Quantity, parse
from kubesvc.api.storageclass import StorageClass, is_default

from .ownership import matcher_of
from .scheduler_plan import term_matches

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
OLD_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
BUILT_IN = "kubernetes.io/"
"""What the names of provisioners begin with that the control plane itself would have to bring."""

Said = tuple[Literal["Normal", "Warning"], str, str]
"""An event: severity, reason, message."""
Classes = Mapping[str, StorageClass]


# ---------------------------------------------------------------- which volume fits


def claim_class(claim: PersistentVolumeClaim) -> str:
    """The class that a claim names, "" for none."""
    return claim.metadata.annotation(OLD_CLASS) or claim.spec.storage_class_name or ""


def names_class(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim says anything of a class; "" says that it wants none."""
    return OLD_CLASS in (claim.metadata.annotations or {}) or claim.spec.storage_class_name is not None


def volume_class(volume: PersistentVolume) -> str:
    return volume.metadata.annotation(OLD_CLASS) or volume.spec.storage_class_name


def waits_for_consumer(claim: PersistentVolumeClaim, classes: Classes) -> bool:
    """Whether a claim's class leaves the choice of a volume to the scheduler."""
    found = classes.get(claim_class(claim))
    return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"


def requested(claim: PersistentVolumeClaim) -> Quantity:
    return parse((claim.spec.resources.requests or {}).get("storage", 0))


def capacity(volume: PersistentVolume) -> Quantity:
    return parse((volume.spec.capacity or {}).get("storage", 0))


def meant_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume names the claim as its own, by hand (without a uid) or bound."""
    ref = volume.spec.claim_ref
    return (
        ref is not None
        and (ref.namespace, ref.name) == (claim.namespace, claim.name)
        and ref.uid in ("", claim.metadata.uid)
    )


def same_mode(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return (volume.spec.volume_mode or "Filesystem") == (claim.spec.volume_mode or "Filesystem")


def same_attributes(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return (volume.spec.volume_attributes_class_name or "") == (claim.spec.volume_attributes_class_name or "")


def offers_modes(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return set(claim.spec.access_modes or ()) <= set(volume.spec.access_modes or ())


def reached_from(volume: PersistentVolume, node: Node) -> bool:
    """Whether a volume can be used on a node."""
    affinity = volume.spec.node_affinity
    required = affinity.required if affinity is not None else None
    return required is None or any(term_matches(t, node) for t in required.node_selector_terms or ())


def find_volume(
    claim: PersistentVolumeClaim,
    volumes: Iterable[PersistentVolume],
    *,
    delayed: bool,
    node: Node | None = None,
    taken: Collection[str] = (),
) -> PersistentVolume | None:
    """The volume for an unbound claim; None if none will do.

    volumes: any order; never mutated
    delayed: the class waits for a consumer, so that without a node only a volume is taken that names the claim
    node:    where the consumer is to run
    taken:   names of volumes that other claims of the same pod get

    A volume that names the claim goes before all others. Of the others those with the fewest access modes beyond what
    is asked for come first, then the smallest, then the first by name; none is smaller than what is asked for.
    """
    wanted, selector = requested(claim), claim.spec.selector
    matcher = matcher_of(selector) if selector is not None else None
    fitting: list[PersistentVolume] = []
    for volume in volumes:
        if volume.name in taken or (volume.spec.claim_ref is not None and not meant_for(volume, claim)):
            continue
        if capacity(volume) < wanted or not same_mode(volume, claim) or not same_attributes(volume, claim):
            continue
        if volume.metadata.deletion_timestamp is not None:
            continue
        reachable = node is None or reached_from(volume, node)
        if meant_for(volume, claim):
            if node is None and not offers_modes(volume, claim):
                continue
            return volume if reachable else None
        if (node is None and delayed) or volume.status.phase != "Available" or not reachable:
            continue
        if matcher is not None and not matcher.matches(volume.metadata.labels):
            continue
        if volume_class(volume) == claim_class(claim) and offers_modes(volume, claim):
            fitting.append(volume)
    return min(fitting, key=lambda v: (len(v.spec.access_modes or ()), capacity(v), v.name), default=None)


def objection(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Why a volume that a claim asks for by name will not do, "" if it will."""
    if volume.metadata.deletion_timestamp is not None:
        return f'the volume is marked for deletion "{volume.name}"'
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if volume_class(volume) != claim_class(claim):
        return "storageClassName does not match"
    if not same_attributes(volume, claim):
        return "volumeAttributesClassName does not match"
    if not same_mode(volume, claim):
        return "incompatible volumeMode"
    if not offers_modes(volume, claim):
        return "incompatible accessMode"
    return ""


# ---------------------------------------------------------------- claims


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """What to do about a claim.

    bind:        to this volume
    phase:       what its status is to say, "" to leave it; Pending and Lost claims hold nothing
    said:        an event on it
    provisioner: who is asked to make a volume for it
    assign:      the class that it gets because it names none
    """

    bind: PersistentVolume | None = None
    phase: str = ""
    said: Said | None = None
    provisioner: str = ""
    assign: str = ""


def bind_completed(claim: PersistentVolumeClaim) -> bool:
    return BIND_COMPLETED in (claim.metadata.annotations or {})


def plan_claim(
    claim: PersistentVolumeClaim,
    named: PersistentVolume | None,
    volumes: Iterable[PersistentVolume],
    classes: Classes,
    waiting: Sequence[str],
) -> ClaimPlan:
    """The next step of a claim.

    named:   the volume of its `volumeName`, None if there is none of that name
    volumes: all that are free or name the claim
    classes: by name
    waiting: names of the pods that use the claim and have no node yet
    """
    if bind_completed(claim):
        return plan_bound(claim, named)
    if claim.spec.volume_name:
        return plan_named(claim, named)
    delayed = waits_for_consumer(claim, classes)
    found = find_volume(claim, volumes, delayed=delayed)
    if found is not None:
        return ClaimPlan(bind=found)
    if not names_class(claim) and (default := default_of(classes)):
        return ClaimPlan(assign=default)
    if delayed and SELECTED_NODE not in (claim.metadata.annotations or {}):
        return ClaimPlan(phase="Pending", said=("Normal", *waiting_words(waiting)))
    if claim_class(claim):
        return plan_provision(claim, classes)
    words = "no persistent volumes available for this claim and no storage class is set"
    return ClaimPlan(phase="Pending", said=("Normal", "FailedBinding", words))


def default_of(classes: Classes) -> str:
    """The class of claims that name none, "" if there is none."""
    found = [c for c in classes.values() if is_default(c.metadata.annotations or {})]
    found.sort(key=lambda c: c.name)
    newest = max(found, key=lambda c: c.metadata.creation_timestamp or "", default=None)
    return newest.name if newest is not None else ""


def waiting_words(waiting: Sequence[str]) -> tuple[str, str]:
    """(reason, message) for a claim whose volume is chosen when a pod that uses it is."""
    if not waiting:
        return "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
    pods = f"pods {','.join(waiting)}" if len(waiting) > 1 else f"pod {waiting[0]}"
    return "WaitForPodScheduled", f"waiting for {pods} to be scheduled"


def plan_provision(claim: PersistentVolumeClaim, classes: Classes) -> ClaimPlan:
    """Ask whom the class names for a volume."""
    found = classes.get(claim_class(claim))
    problem = ""
    if found is None:
        problem = f'storageclass.storage.k8s.io "{claim_class(claim)}" not found'
    elif found.provisioner.startswith(BUILT_IN):
        problem = f"no volume plugin matched name: {found.provisioner}"
    if found is None or problem:
        return ClaimPlan(phase="Pending", said=("Warning", "ProvisioningFailed", problem))
    words = (
        f"Waiting for a volume to be created either by the external provisioner '{found.provisioner}' or manually by "
        "the system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered."
    )
    said: Said = ("Normal", "ExternalProvisioning", words)
    return ClaimPlan(phase="Pending", said=said, provisioner=found.provisioner)


def plan_named(claim: PersistentVolumeClaim, named: PersistentVolume | None) -> ClaimPlan:
    """A claim that asks for a volume by name."""
    if named is None:
        return ClaimPlan(phase="Pending")
    if named.spec.claim_ref is None:
        if problem := objection(named, claim):
            words = f'Cannot bind to requested volume "{named.name}": {problem}'
            return ClaimPlan(phase="Pending", said=("Warning", "VolumeMismatch", words))
        return ClaimPlan(bind=named)
    if meant_for(named, claim):
        return ClaimPlan(bind=named)
    words = f'volume "{named.name}" already bound to a different claim.'
    return ClaimPlan(phase="Pending", said=("Warning", "FailedBinding", words))


def plan_bound(claim: PersistentVolumeClaim, named: PersistentVolume | None) -> ClaimPlan:
    """A claim that was bound once: its volume is still there and its own, or what it held is lost."""
    if not claim.spec.volume_name:
        words = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return ClaimPlan(phase="Lost", said=("Warning", "ClaimLost", words))
    if named is None:
        words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return ClaimPlan(phase="Lost", said=("Warning", "ClaimLost", words))
    if named.spec.claim_ref is None or named.spec.claim_ref.uid == claim.metadata.uid:
        return ClaimPlan(bind=named)
    words = "Two claims are bound to the same volume, this one is bound incorrectly"
    return ClaimPlan(phase="Lost", said=("Warning", "ClaimMisbound", words))


# ---------------------------------------------------------------- volumes


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What to do about a volume.

    phase, message: what its status is to say, "" to leave it
    said:           an event on it when its phase changes
    wake:           look at its claim, which does not know of it yet
    unbind:         let it forget the claim, which has another volume
    """

    phase: str = ""
    message: str = ""
    said: Said | None = None
    wake: bool = False
    unbind: bool = False


def plan_volume(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> VolumePlan:
    """The next step of a volume.

    claim: the one that the volume names, of the same uid if it says one; None if there is none
    """
    ref = volume.spec.claim_ref
    if ref is None or not ref.uid:
        return VolumePlan(phase="Available")
    if claim is None or claim.metadata.uid != ref.uid:
        return plan_release(volume)
    if not claim.spec.volume_name:
        if not same_mode(volume, claim):
            words = (
                f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{claim.name}" due to incompatible '
                "volumeMode."
            )
            return VolumePlan(said=("Warning", "VolumeMismatch", words))
        return VolumePlan(wake=True)
    if claim.spec.volume_name == volume.name:
        return VolumePlan(phase="Bound")
    annotations = volume.metadata.annotations or {}
    if PROVISIONED_BY in annotations and volume.spec.persistent_volume_reclaim_policy == "Delete":
        return plan_release(volume)  # made for the claim, which took another
    return VolumePlan(phase="Available", unbind=True)


def plan_release(volume: PersistentVolume) -> VolumePlan:
    """A volume whose claim is gone. Whoever provisioned it removes it; by hand it is kept."""
    released = "" if volume.status.phase in ("Released", "Failed") else "Released"
    policy, provisioner = volume.spec.persistent_volume_reclaim_policy, volume.metadata.annotation(PROVISIONED_BY)
    if policy == "Retain" or (policy == "Delete" and provisioner and not provisioner.startswith(BUILT_IN)):
        return VolumePlan(phase=released)
    if policy == "Delete":
        words = f'error getting deleter volume plugin for volume "{volume.name}": no deletable volume plugin matched'
        return VolumePlan("Failed", words, ("Warning", "VolumeFailedDelete", words))
    words = "No recycler plugin found for the volume!"
    return VolumePlan("Failed", words, ("Warning", "VolumeFailedRecycle", words))


# ---------------------------------------------------------------- both sides of a bond


def claim_reference(claim: PersistentVolumeClaim) -> Object:
    """The plain `claimRef` of a volume that is this very claim's."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
    }


def volume_bond(volume: PersistentVolume, claim: PersistentVolumeClaim) -> Object:
    """What the volume's side lacks, as a merge patch without identity; {} if nothing."""
    ref = volume.spec.claim_ref
    patch: Object = {}
    if ref is None or (ref.namespace, ref.name, ref.uid) != (claim.namespace, claim.name, claim.metadata.uid):
        patch["spec"] = {"claimRef": claim_reference(claim)}
    if not meant_for(volume, claim) and BOUND_BY_CONTROLLER not in (volume.metadata.annotations or {}):
        patch["metadata"] = {"annotations": {BOUND_BY_CONTROLLER: "yes"}}
    return patch


def claim_bond(claim: PersistentVolumeClaim, volume: str) -> Object:
    """What the claim's side lacks, as a merge patch without identity; {} if nothing."""
    annotations: dict[str, str] = {}
    patch: Object = {}
    held = claim.metadata.annotations or {}
    if claim.spec.volume_name != volume:
        patch["spec"] = {"volumeName": volume}
        if BOUND_BY_CONTROLLER not in held:
            annotations[BOUND_BY_CONTROLLER] = "yes"
    if BIND_COMPLETED not in held:
        annotations[BIND_COMPLETED] = "yes"
    if annotations:
        patch["metadata"] = {"annotations": annotations}
    return patch


def claim_status(claim: PersistentVolumeClaim, phase: str, volume: PersistentVolume | None) -> Object:
    """What the claim's status lacks, as a merge patch of it; {} if nothing. volume: the one it is bound to."""
    status: Object = {}
    if claim.status.phase != phase:
        status["phase"] = phase
    if volume is None:
        for name, held in (("accessModes", claim.status.access_modes), ("capacity", claim.status.capacity)):
            if held:
                status[name] = None
        return status
    if claim.status.access_modes != volume.spec.access_modes:
        status["accessModes"] = volume.spec.access_modes
    known = (claim.status.capacity or {}).get("storage", 0)
    becomes = claim.status.phase != phase or not known  # later on it is for whoever lets it grow to say
    if becomes and parse(known) != capacity(volume):
        status["capacity"] = {"storage": str(capacity(volume))}
    return status
