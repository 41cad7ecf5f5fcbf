"""PersistentVolumeClaim: storage that pods ask for."""

from __future__ import annotations

from . import checks, fields, names, shape
from .checks import items, part
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, ObjectReference, Struct, Typed
from .pod import LabelSelector
from .podcheck import amount_of
from .quantity import ZERO

SPEC = Path("spec")
MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
SELECTED_NODE = "volume.kubernetes.io/selected-node"


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
    return validate_spec(part(obj, "spec"), SPEC)


def validate_spec(spec: Object, path: Path) -> Errors:
    """What is wrong with what a claim, or a template of one, asks for."""
    errors = validate_modes(items(spec, "accessModes"), path / "accessModes")
    errors += checks.label_selector(spec.get("selector"), path / "selector")
    requests = part(part(spec, "resources"), "requests")
    if "storage" not in requests:
        errors.append(fields.required((path / "resources").key("storage")))
    else:
        errors += storage_amount(requests["storage"], (path / "resources").key("storage"))
    if chosen := spec.get("storageClassName"):
        errors += checks.texts(path / "storageClassName", chosen, names.dns_subdomain(chosen))
    mode = spec.get("volumeMode")
    if mode not in ("Filesystem", "Block"):
        errors.append(fields.not_supported(path / "volumeMode", mode or "", ("Block", "Filesystem")))
    return errors


def storage_amount(value: object, path: Path) -> Errors:
    """What is wrong with an amount of storage, which must be some."""
    found = amount_of(value)
    if found is not None and not found.nanos > 0:
        return [fields.invalid(path, str(found), "must be greater than zero")]
    return []


def validate_modes(modes: list[str], path: Path) -> Errors:
    if not modes:
        return [fields.required(path, "at least 1 access mode is required")]
    errors = [fields.not_supported(path, mode, MODES) for mode in modes if mode not in MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        errors.append(fields.forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """What was asked for stays, but for the size of a bound claim, which grows, and a class that nobody had named."""
    errors = validate(new, situation)
    now, before = dict(part(new, "spec")), dict(part(old, "spec"))
    free = ["volumeAttributesClassName"]
    bound = part(old, "status").get("phase") == "Bound"
    if bound:
        free.append("resources")
    if not before.get("volumeName"):
        free.append("volumeName")
        if before.get("storageClassName") is None and OLD_CLASS not in part(part(old, "metadata"), "annotations"):
            free.append("storageClassName")
    if {k: v for k, v in now.items() if k not in free} != {k: v for k, v in before.items() if k not in free}:
        errors.append(
            fields.forbidden(
                SPEC,
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
                "claims",
            )
        )
    if bound:
        errors += validate_size(now, before, part(part(old, "status"), "capacity").get("storage"))
    return errors


def validate_size(now: Object, before: Object, held: object) -> Errors:
    """A claim does not shrink, but may take back growth that did not happen.

    held: the capacity in its status
    """
    sizes = [part(part(spec, "resources"), "requests").get("storage") for spec in (now, before)]
    wanted, had, given = amount_of(sizes[0]), amount_of(sizes[1]) or ZERO, amount_of(held)
    if wanted is None or not wanted < had:
        return []
    here = SPEC / "resources" / "requests" / "storage"
    if given is None or not given < had:
        return [fields.forbidden(here, "field can not be less than previous value")]
    if not given < wanted:
        return [fields.forbidden(here, "field can not be less than status.capacity")]
    return []


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
