"""ConfigMap: named values for pods to read."""

from __future__ import annotations

from . import fields, names, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Typed


class ConfigMap(Typed, frozen=True):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, ConfigMap)


def validate(obj: Object, _: Situation) -> Errors:
    """Keys are file names, each in one of the two maps only."""
    errors: Errors = []
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for part, keys in (("data", data), ("binaryData", binary)):
        for key in keys:
            path = Path(part).key(key)
            errors += [fields.invalid(path, key, text) for text in names.config_key(key)]
            if part == "data" and key in binary:
                errors.append(fields.invalid(path, key, "duplicate of key present in binaryData"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """What validate finds, and that an immutable map stays as it is."""
    errors: Errors = []
    if old.get("immutable"):
        if not new.get("immutable"):
            errors.append(fields.forbidden("immutable", "field is immutable when `immutable` is set"))
        for part in ("data", "binaryData"):
            if (new.get(part) or {}) != (old.get(part) or {}):
                errors.append(fields.forbidden(part, "field is immutable when `immutable` is set"))
    return errors + validate(new, situation)


CONFIG_MAP = Kind(
    group="",
    version="v1",
    name="ConfigMap",
    plural="configmaps",
    short_names=("cm",),
    namespaced=True,
    type=ConfigMap,
    schema="io.k8s.api.core.v1.ConfigMap",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda c: c.name, format="name"),
        Column("Data", lambda c: len(c.data or {}) + len(c.binary_data or {})),  # KCTL-24, KCTL-55
        Column("Age", lambda c: Since(c.metadata.creation_timestamp)),
    ),
)
