"""PersistentVolumeClaim: storage that pods ask for."""

from __future__ import annotations

from . import checks, fields, shape
from .checks import items, part
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, ObjectReference, Struct, Typed
from .pod import LabelSelector

SPEC = Path("spec")
MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


class VolumeResources(Struct, frozen=True):
    limits: ResourceList | None = None
    requests: ResourceList | None = None


class PersistentVolumeClaimSpec(Struct, frozen=True):
    access_modes: list[str] | None = None
    selector: LabelSelector | None = None
    resources: VolumeResources = VolumeResources()
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    data_source: ObjectReference | None = None
    data_source_ref: ObjectReference | None = None
    volume_attributes_class_name: str | None = None


class PersistentVolumeClaimStatus(Struct, frozen=True):
    phase: str = ""
    access_modes: list[str] | None = None
    capacity: ResourceList | None = None
    conditions: list[Condition] | None = None
    current_volume_attributes_class_name: str | None = None


class PersistentVolumeClaim(Typed, frozen=True):
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


def default_claim(obj: Object) -> None:
    """A file system, waiting for its volume."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")


def default(obj: Object) -> None:
    shape.normalize(obj, PersistentVolumeClaim)
    default_claim(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"phase": "Pending"}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    modes = items(spec, "accessModes")
    errors = validate_modes(modes, SPEC / "accessModes")
    errors += checks.label_selector(spec.get("selector"), SPEC / "selector")
    if "storage" not in part(part(spec, "resources"), "requests"):
        errors.append(fields.required((SPEC / "resources").key("storage")))
    mode = spec.get("volumeMode")
    if mode not in ("Filesystem", "Block"):
        errors.append(fields.not_supported(SPEC / "volumeMode", mode or "", ("Block", "Filesystem")))
    return errors


def validate_modes(modes: list[str], path: Path) -> Errors:
    if not modes:
        return [fields.required(path, "at least 1 access mode is required")]
    errors = [fields.not_supported(path, mode, MODES) for mode in modes if mode not in MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        errors.append(fields.forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """What was asked for stays, but for the size of a bound claim."""
    errors = validate(new, situation)
    now, before = dict(part(new, "spec")), dict(part(old, "spec"))
    free = ["volumeAttributesClassName"]
    if part(old, "status").get("phase") == "Bound":
        free.append("resources")
    if not before.get("volumeName"):
        free.append("volumeName")
    if {k: v for k, v in now.items() if k not in free} != {k: v for k, v in before.items() if k not in free}:
        errors.append(
            fields.forbidden(
                SPEC,
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
                "claims",
            )
        )
    return errors


def modes_text(modes: list[str] | None) -> str:
    order = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
    return ",".join(SHORT_MODES[m] for m in order if m in (modes or ()))


def phase(claim: PersistentVolumeClaim) -> str:
    return "Terminating" if claim.metadata.deletion_timestamp is not None else claim.status.phase


def class_name(claim: PersistentVolumeClaim) -> str:
    return claim.metadata.annotation(OLD_CLASS) or claim.spec.storage_class_name or ""


def capacity(claim: PersistentVolumeClaim) -> str:
    return str((claim.status.capacity or {}).get("storage", "")) if claim.spec.volume_name else ""


PERSISTENT_VOLUME_CLAIM = Kind(
    group="",
    version="v1",
    name="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    namespaced=True,
    type=PersistentVolumeClaim,
    schema="io.k8s.api.core.v1.PersistentVolumeClaim",
    short_names=("pvc",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Status", phase),
        Column("Volume", lambda p: p.spec.volume_name),
        Column("Capacity", capacity),
        Column("Access Modes", lambda p: modes_text(p.status.access_modes) if p.spec.volume_name else ""),
        Column("StorageClass", class_name),
        Column("VolumeAttributesClass", lambda p: p.spec.volume_attributes_class_name or "<unset>"),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
        Column("VolumeMode", lambda p: p.spec.volume_mode or "<unset>", wide=True),
    ),
    has_status=True,
    delete_returns_object=True,
)
