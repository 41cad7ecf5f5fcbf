"""RuntimeClass: how the containers of a Pod are run, what that costs besides, and where it is possible.

Admission copies cost and place into Pods; which handler runs them is up to the container runtime.
"""

from __future__ import annotations

from typing import Any, ClassVar

from . import fields, names, shape
from .checks import immutable, items, part, texts
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed
from .placementcheck import validate_tolerations
from .pod import Toleration
from .podcheck import amount_of


class Overhead(Struct, frozen=True):
    pod_fixed: ResourceList | None = None


class Scheduling(Struct, frozen=True):
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None


class RuntimeClass(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("handler",)

    handler: str = ""
    overhead: Overhead | None = None
    scheduling: Scheduling | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, RuntimeClass)


def validate(obj: Object, _: Situation) -> Errors:
    handler = obj.get("handler") or ""
    errors = texts(Path("handler"), handler, names.dns_label(handler))
    fixed, path = part(part(obj, "overhead"), "podFixed"), Path("overhead") / "podFixed"
    for resource, amount in fixed.items():
        found = amount_of(amount)
        if found is not None and found.nanos < 0:
            errors.append(fields.invalid(path.key(resource), amount, "must be greater than or equal to 0"))
    scheduling, path = part(obj, "scheduling"), Path("scheduling")
    for key, value in part(scheduling, "nodeSelector").items():
        errors += texts(path / "nodeSelector", key, names.qualified_name(key))
        errors += texts(path / "nodeSelector", value, names.label_value(value))
    tolerations = items(scheduling, "tolerations")
    errors += validate_tolerations(tolerations, path / "tolerations")
    return errors + [
        fields.duplicate(path / "tolerations" @ i, one) for i, one in enumerate(tolerations) if one in tolerations[:i]
    ]


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return immutable(new, old, "handler", Path()) or validate(new, situation)


def complete_pod(pod: Object, found: Object) -> str:
    """Give a Pod, in place, what its class says of cost and place; what they disagree about, "" if nothing."""
    spec: dict[str, Any] = pod["spec"]
    fixed = part(part(found, "overhead"), "podFixed")
    if fixed:
        if spec.get("overhead") and not same_amounts(spec["overhead"], fixed):
            return "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        spec["overhead"] = dict(fixed)
    elif spec.get("overhead"):
        return "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    scheduling = part(found, "scheduling")
    selector = spec.get("nodeSelector") or {}
    for key, value in part(scheduling, "nodeSelector").items():
        if selector.get(key, value) != value:
            return (
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = "
                f"{selector[key]}"
            )
        selector = {**selector, key: value}
    if selector:
        spec["nodeSelector"] = selector
    own = spec.get("tolerations") or []
    added = [t for t in items(scheduling, "tolerations") if t not in own]
    if added:
        spec["tolerations"] = [*own, *added]
    return ""


def same_amounts(one: Object, other: Object) -> bool:
    return one.keys() == other.keys() and all(amount_of(one[k]) == amount_of(other[k]) for k in one)


RUNTIME_CLASS = Kind(
    group="node.k8s.io",
    version="v1",
    name="RuntimeClass",
    plural="runtimeclasses",
    namespaced=False,
    type=RuntimeClass,
    schema="io.k8s.api.node.v1.RuntimeClass",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda r: r.name, format="name"),
        Column("Handler", lambda r: r.handler),
        Column("Age", lambda r: Since(r.metadata.creation_timestamp)),
    ),
)
