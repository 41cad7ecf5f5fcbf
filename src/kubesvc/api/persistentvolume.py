"""PersistentVolume: storage that is there."""

from __future__ import annotations

from . import checks, fields, shape
from .checks import items, part
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, ObjectReference, Struct, Typed
from .persistentvolumeclaim import OLD_CLASS, modes_text, validate_modes
from .podspec import VOLUME_SOURCES
from .volume import HostPathVolumeSource

SPEC = Path("spec")


class PersistentVolumeSpec(Struct, frozen=True):
    capacity: ResourceList | None = None
    host_path: HostPathVolumeSource | None = None
    access_modes: list[str] | None = None
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str = ""
    storage_class_name: str = ""
    mount_options: list[str] | None = None
    volume_mode: str | None = None
    volume_attributes_class_name: str | None = None


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


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_modes(items(spec, "accessModes"), SPEC / "accessModes")
    capacity = part(spec, "capacity")
    if not capacity:
        errors.append(fields.required(SPEC / "capacity"))
    elif list(capacity) != ["storage"]:
        errors.append(fields.not_supported(SPEC / "capacity", capacity, ("storage",)))
    if not any(spec.get(s) is not None for s in (*VOLUME_SOURCES, "local")):
        errors.append(fields.required(SPEC, "must specify a volume type"))
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in ("Delete", "Recycle", "Retain"):
        errors.append(
            fields.not_supported(SPEC / "persistentVolumeReclaimPolicy", policy or "", ("Delete", "Recycle", "Retain"))
        )
    mode = spec.get("volumeMode")
    if mode not in ("Filesystem", "Block"):
        errors.append(fields.not_supported(SPEC / "volumeMode", mode or "", ("Block", "Filesystem")))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Where the storage is does not change."""
    errors = validate(new, situation)
    now, before = part(new, "spec"), part(old, "spec")
    sources = [{s: spec.get(s) for s in (*VOLUME_SOURCES, "local")} for spec in (now, before)]
    if sources[0] != sources[1]:
        errors.append(
            fields.forbidden(SPEC / "persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    return errors + checks.immutable(now, before, "volumeMode", SPEC)


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
