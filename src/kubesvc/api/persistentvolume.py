"""PersistentVolume: storage that is there."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, names, shape
from .checks import items, part
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, ObjectReference, Struct, Typed
from .persistentvolumeclaim import OLD_CLASS, modes_text, storage_amount, validate_modes
from .placementcheck import validate_node_selector
from .pod import NodeSelector
from .podcheck import validate_host_path
from .podspec import VOLUME_SOURCES
from .volume import HostPathVolumeSource

SPEC = Path("spec")
SOURCES = tuple(s for s in (*VOLUME_SOURCES, "local") if s not in ("emptyDir", "persistentVolumeClaim"))


class LocalVolumeSource(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("path",)

    path: str = ""
    fs_type: str | None = None


class VolumeNodeAffinity(Struct, frozen=True):
    required: NodeSelector | None = None


class PersistentVolumeSpec(Struct, frozen=True):
    capacity: ResourceList | None = None
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None
    access_modes: list[str] | None = None
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str = ""
    storage_class_name: str = ""
    mount_options: list[str] | None = None
    volume_mode: str | None = None
    volume_attributes_class_name: str | None = None
    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolumeStatus(Struct, frozen=True):
    phase: str = ""
    message: str = ""
    reason: str = ""
    last_phase_transition_time: str | None = None


class PersistentVolume(Typed, frozen=True):
    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()


def default(obj: Object) -> None:
    """Kept when its claim goes; a file system."""
    shape.normalize(obj, PersistentVolume)
    part(obj, "status").setdefault("phase", "Pending")
    spec = part(obj, "spec")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if isinstance(path := spec.get("hostPath"), dict):
        path.setdefault("type", "")


def prepare_create(obj: Object) -> None:
    obj["status"] = {"phase": "Pending"}
    if made := part(obj, "metadata").get("creationTimestamp"):
        obj["status"]["lastPhaseTransitionTime"] = made


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    modes = items(spec, "accessModes")
    errors = validate_modes(modes, SPEC / "accessModes") if modes else [fields.required(SPEC / "accessModes")]
    capacity = part(spec, "capacity")
    if not capacity:
        errors.append(fields.required(SPEC / "capacity"))
    elif list(capacity) != ["storage"]:
        errors.append(fields.not_supported(SPEC / "capacity", capacity, ("storage",)))
    else:
        errors += storage_amount(capacity["storage"], (SPEC / "capacity").key("storage"))
    errors += validate_source(spec)
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in ("Delete", "Recycle", "Retain"):
        errors.append(
            fields.not_supported(SPEC / "persistentVolumeReclaimPolicy", policy or "", ("Delete", "Recycle", "Retain"))
        )
    if policy == "Recycle" and part(spec, "hostPath").get("path") == "/":
        errors.append(
            fields.forbidden(SPEC / "persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'")
        )
    if chosen := spec.get("storageClassName"):
        errors += checks.texts(SPEC / "storageClassName", chosen, names.dns_subdomain(chosen))
    mode = spec.get("volumeMode")
    if mode not in ("Filesystem", "Block"):
        errors.append(fields.not_supported(SPEC / "volumeMode", mode or "", ("Block", "Filesystem")))
    return errors


def validate_source(spec: Object) -> Errors:
    """Where the storage is, and from which nodes it can be reached."""
    errors: Errors = []
    here = SPEC / "nodeAffinity"
    if (affinity := spec.get("nodeAffinity")) is not None:
        if affinity.get("required") is None:
            errors.append(fields.required(here / "required", "must specify required node constraints"))
        else:
            errors += validate_node_selector(affinity["required"], here / "required")
    given = [s for s in SOURCES if spec.get(s) is not None]
    errors += [fields.forbidden(SPEC / s, "may not specify more than 1 volume type") for s in given[1:]]
    if not given:
        errors.append(fields.required(SPEC, "must specify a volume type"))
    elif given[0] == "hostPath":
        errors += validate_host_path(spec["hostPath"], SPEC / "hostPath")
    elif given[0] == "local":
        place = part(spec, "local").get("path") or ""
        if not place:
            errors.append(fields.required(SPEC / "local" / "path"))
        errors += checks.not_upwards(place, SPEC / "local" / "path")
        if not affinity:
            errors.append(fields.required(here, "Local volume requires node affinity"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Where the storage is does not change."""
    errors = validate(new, situation)
    now, before = part(new, "spec"), part(old, "spec")
    sources = [{s: spec.get(s) for s in SOURCES} for spec in (now, before)]
    if sources[0] != sources[1]:
        errors.append(
            fields.forbidden(SPEC / "persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    errors += checks.immutable(now, before, "volumeMode", SPEC)
    if before.get("nodeAffinity"):
        errors += checks.immutable(now, before, "nodeAffinity", SPEC)
    return errors


def phase(volume: PersistentVolume) -> str:
    return "Terminating" if volume.metadata.deletion_timestamp is not None else volume.status.phase


def claim(volume: PersistentVolume) -> str:
    found = volume.spec.claim_ref
    return f"{found.namespace}/{found.name}" if found is not None else ""


PERSISTENT_VOLUME = Kind(
    group="",
    version="v1",
    name="PersistentVolume",
    plural="persistentvolumes",
    namespaced=False,
    type=PersistentVolume,
    schema="io.k8s.api.core.v1.PersistentVolume",
    short_names=("pv",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Capacity", lambda p: str((p.spec.capacity or {}).get("storage", "0"))),
        Column("Access Modes", lambda p: modes_text(p.spec.access_modes)),
        Column("Reclaim Policy", lambda p: p.spec.persistent_volume_reclaim_policy),
        Column("Status", phase),
        Column("Claim", claim),
        Column("StorageClass", lambda p: p.metadata.annotation(OLD_CLASS) or p.spec.storage_class_name),
        Column("VolumeAttributesClass", lambda p: p.spec.volume_attributes_class_name or "<unset>"),
        Column("Reason", lambda p: p.status.reason),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
        Column("VolumeMode", lambda p: p.spec.volume_mode or "<unset>", wide=True),
    ),
    has_status=True,
    delete_returns_object=True,
)
