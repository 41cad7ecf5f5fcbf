"""PriorityClass: which pods matter more."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Typed

HIGHEST_USER = 1_000_000_000
SYSTEM_PREFIX = "system-"
SYSTEM_VALUES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class PriorityClass(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("value",)

    value: int = 0
    global_default: bool = False
    description: str = ""
    preemption_policy: str | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, PriorityClass)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def validate(obj: Object, _: Situation) -> Errors:
    """Names and values of the system are its own."""
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    errors: Errors = []
    if name.startswith(SYSTEM_PREFIX):
        if SYSTEM_VALUES.get(name) != value:
            errors.append(
                fields.forbidden(
                    "metadata.name",
                    "priority class names with 'system-' prefix are reserved for system use only. error: "
                    f"{name} is not a known system priority class",
                )
            )
    elif value > HIGHEST_USER:
        errors.append(fields.forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST_USER}"))
    if (policy := obj.get("preemptionPolicy")) not in ("PreemptLowerPriority", "Never"):
        errors.append(
            fields.not_supported("preemptionPolicy", policy or "", ("PreemptLowerPriority", "Never"), in_order=True)
        )
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Priorities were copied into pods, so they stay."""
    errors: Errors = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        errors.append(fields.forbidden("value", "may not be changed in an update."))
    return errors + checks.immutable(new, old, "preemptionPolicy", Path())


PRIORITY_CLASS = Kind(
    group="scheduling.k8s.io",
    version="v1",
    name="PriorityClass",
    plural="priorityclasses",
    namespaced=False,
    type=PriorityClass,
    schema="io.k8s.api.scheduling.v1.PriorityClass",
    short_names=("pc",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=lambda new, old: False,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Value", lambda p: p.value, type="integer"),
        Column("Global-Default", lambda p: p.global_default, type="boolean"),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
        Column("PreemptionPolicy", lambda p: p.preemption_policy or ""),
    ),
)
