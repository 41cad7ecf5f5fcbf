"""StorageClass: how storage is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from . import checks, fields, names, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Typed

DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
MODES = ("Immediate", "WaitForFirstConsumer")


class StorageClass(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("provisioner",)

    provisioner: str = ""
    parameters: dict[str, str] | None = None
    reclaim_policy: str | None = None
    mount_options: list[str] | None = None
    allow_volume_expansion: bool | None = None
    volume_binding_mode: str | None = None
    allowed_topologies: list[dict[str, Any]] | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, StorageClass)
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def validate(obj: Object, _: Situation) -> Errors:
    provisioner = obj.get("provisioner") or ""
    if not provisioner:
        errors: Errors = [fields.required("provisioner", "")]
    else:
        errors = checks.texts(Path("provisioner"), provisioner, names.qualified_name(provisioner.lower()))
    if (policy := obj.get("reclaimPolicy")) not in ("Delete", "Retain"):
        errors.append(fields.not_supported("reclaimPolicy", policy or "", ("Delete", "Retain")))
    if (mode := obj.get("volumeBindingMode")) not in MODES:
        errors.append(fields.not_supported("volumeBindingMode", mode or "", MODES))
    return errors


def validate_update(new: Object, old: Object, _: Situation) -> Errors:
    """Storage made earlier was made like this."""
    errors: Errors = []
    if new.get("parameters") != old.get("parameters"):
        errors.append(fields.forbidden("parameters", "updates to parameters are forbidden."))
    if new.get("provisioner") != old.get("provisioner"):
        errors.append(fields.forbidden("provisioner", "updates to provisioner are forbidden."))
    if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
        errors.append(fields.forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
    return errors + checks.immutable(new, old, "volumeBindingMode", Path())


def newest_default(classes: Iterable[Object]) -> Object | None:
    """Of plain classes the one that claims get which name none: of several that say so the youngest, then the first by
    name."""
    found = [c for c in classes if is_default(c["metadata"].get("annotations") or {})]
    found.sort(key=lambda c: c["metadata"]["name"])
    return max(found, key=lambda c: c["metadata"].get("creationTimestamp") or "", default=None)


def is_default(annotations: Mapping[str, str]) -> bool:
    return any(annotations.get(a) == "true" for a in DEFAULT_CLASS)


def name(storage_class: StorageClass) -> str:
    chosen = is_default(storage_class.metadata.annotations or {})
    return f"{storage_class.name} (default)" if chosen else storage_class.name


STORAGE_CLASS = Kind(
    group="storage.k8s.io",
    version="v1",
    name="StorageClass",
    plural="storageclasses",
    namespaced=False,
    type=StorageClass,
    schema="io.k8s.api.storage.v1.StorageClass",
    short_names=("sc",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", name, format="name"),
        Column("Provisioner", lambda s: s.provisioner),
        Column("ReclaimPolicy", lambda s: s.reclaim_policy or "Delete"),
        Column("VolumeBindingMode", lambda s: s.volume_binding_mode or "<unset>"),
        Column("AllowVolumeExpansion", lambda s: bool(s.allow_volume_expansion)),
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
    ),
    delete_returns_object=True,
)
