"""LimitRange: how much one pod or container may use, and what it gets if it does not say."""

from __future__ import annotations

from typing import ClassVar

from . import fields, names, shape
from .checks import items, part, texts
from .container import ResourceList
from .fields import Errors, Path
from .kind import Kind, Situation
from .meta import Object, Struct, Typed
from .podcheck import STANDARD_RESOURCES, amount_of, validate_resource_name
from .quantity import NANO, Quantity

LIMITS = Path("spec") / "limits"
TYPES = ("Container", "PersistentVolumeClaim", "Pod")
RATIO = "maxLimitRequestRatio"
AMOUNTS = ("max", "min", "default", "defaultRequest", RATIO)
ORDER = (
    # what must not be more than what; the field that is blamed and the one that is shown; their words
    ("min", "max", "min", "min", ("min", "max")),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", ("min", "default request")),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", ("default request", "max")),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", ("default request", "default limit")),
    ("min", "default", "default", "min", ("min", "default")),
    ("default", "max", "default", "max", ("default", "max")),
)


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
        errors += validate_type(type_, here / "type")
        if type_ in seen:
            errors.append(fields.duplicate(here / "type", type_))
        seen.add(type_)
        errors += validate_names(entry, type_, here)
        errors += validate_order(entry, here)
    return errors


def validate_type(type_: str, path: Path) -> Errors:
    if wrong := texts(path, type_, names.qualified_name(type_)):
        return wrong
    if "/" in type_ or type_ in TYPES:
        return []
    return [fields.invalid(path, type_, "must be a standard limit type or fully qualified")]


def validate_names(entry: Object, type_: str, path: Path) -> Errors:
    """What is limited, and where a Pod as a whole or a claim is, what makes no sense or is needed."""
    errors: Errors = []
    for field in AMOUNTS:
        if type_ == "Pod" and field.startswith("default"):
            if part(entry, field):
                errors.append(fields.forbidden(path / field, "may not be specified when `type` is 'Pod'"))
            continue
        bounded = "storage" in part(entry, "min") or "storage" in part(entry, "max")
        if field == RATIO and type_ == "PersistentVolumeClaim" and not bounded:
            text = "either minimum or maximum storage value is required, but neither was provided"
            errors.append(fields.required(path / "limits", text))
        for name in sorted(part(entry, field)):
            errors += validate_name(name, type_, (path / field).key(name))
    return errors


def validate_name(name: str, type_: str, path: Path) -> Errors:
    if type_ in ("Pod", "Container"):
        return validate_resource_name(name, path)
    wrong = texts(path, name, names.qualified_name(name))
    if wrong or "/" in name or name in STANDARD_RESOURCES or name.startswith("hugepages-"):
        return wrong
    return [fields.invalid(path, name, "must be a standard resource type or fully qualified")]


def validate_order(entry: Object, path: Path) -> Errors:
    """The least, what is requested if nothing is said, the limit likewise, the most: in this order."""
    errors: Errors = []
    for name in sorted({name for field in AMOUNTS for name in part(entry, field)}):
        found = {field: amount_of(part(entry, field)[name]) for field in AMOUNTS if name in part(entry, field)}
        for low, high, at, shown, text in ORDER:
            less, more, value = found.get(low), found.get(high), found.get(shown)
            if less is not None and more is not None and less > more:
                said = f"{text[0]} value {less} is greater than {text[1]} value {more}"
                errors.append(fields.invalid((path / at).key(name), str(value), said))
        if (ratio := found.get(RATIO)) is not None:
            errors += validate_ratio(ratio, found.get("min"), found.get("max"), (path / RATIO).key(name))
        limit, request = found.get("default"), found.get("defaultRequest")
        shared = "/" not in name and not name.startswith("hugepages-")
        if limit is not None and request is not None and limit != request and not shared:
            text_ = f"default value {limit} must equal to defaultRequest value {request} in {name}"
            errors.append(fields.invalid((path / "defaultRequest").key(name), str(request), text_))
    return errors


def validate_ratio(ratio: Quantity, least: Quantity | None, most: Quantity | None, path: Path) -> Errors:
    errors: Errors = []
    if ratio.nanos < NANO:
        errors.append(fields.invalid(path, str(ratio), f"ratio {ratio} is less than 1"))
    if least is not None and most is not None and least.nanos and ratio.nanos * least.nanos > most.nanos * NANO:
        text = f"ratio {ratio} is greater than max/min = {most.nanos / least.nanos:f}"
        errors.append(fields.invalid(path, str(ratio), text))
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
