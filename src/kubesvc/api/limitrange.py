"""LimitRange: how much one pod or container may use, and what it gets if it does not say."""

from __future__ import annotations

from typing import ClassVar

from . import fields, names, shape
from .checks import items, part, texts
from .container import ResourceList
from .fields import Errors, Path
from .kind import Kind, Situation
from .meta import Object, Struct, Typed
from .podcheck import amount_of

LIMITS = Path("spec") / "limits"


class LimitRangeItem(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type",)

    type: str = ""
    max: ResourceList | None = None
    min: ResourceList | None = None
    default: ResourceList | None = None
    default_request: ResourceList | None = None
    max_limit_request_ratio: ResourceList | None = None


class LimitRangeSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("limits",)

    limits: list[LimitRangeItem] | None = None


class LimitRange(Typed, frozen=True):
    spec: LimitRangeSpec = LimitRangeSpec()


def default(obj: Object) -> None:
    """For containers: the limit defaults to the most, the request to the limit or else the least."""
    shape.normalize(obj, LimitRange)
    for entry in items(part(obj, "spec"), "limits"):
        if entry.get("type") != "Container":
            continue
        limits = {**part(entry, "max"), **part(entry, "default")}
        requests = {**part(entry, "min"), **limits, **part(entry, "defaultRequest")}
        if limits:
            entry["default"] = limits
        if requests:
            entry["defaultRequest"] = requests


def validate(obj: Object, _: Situation) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, entry in enumerate(items(part(obj, "spec"), "limits")):
        here, type_ = LIMITS @ i, entry.get("type") or ""
        errors += texts(here / "type", type_, names.qualified_name(type_))
        if type_ in seen:
            errors.append(fields.duplicate(here / "type", type_))
        seen.add(type_)
        least, most = part(entry, "min"), part(entry, "max")
        for name in sorted(least.keys() & most.keys()):
            low, high = amount_of(least[name]), amount_of(most[name])
            if low is not None and high is not None and low > high:
                errors.append(
                    fields.invalid(
                        (here / "min").key(name), str(low), f"min value {low} is greater than max value {high}"
                    )
                )
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


LIMIT_RANGE = Kind(
    group="",
    version="v1",
    name="LimitRange",
    plural="limitranges",
    namespaced=True,
    type=LimitRange,
    schema="io.k8s.api.core.v1.LimitRange",
    short_names=("limits",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    create_on_put=True,
)
