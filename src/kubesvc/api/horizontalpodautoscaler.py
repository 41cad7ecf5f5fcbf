"""HorizontalPodAutoscaler: as many replicas as there is work. Stored as v2, served as v1 too: one kind, so both of its
versions stand here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from . import checks, shape
from .autoscalercheck import validate_spec
from .checks import items, part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed, copied

SPEC = Path("spec")


SCALE_UP: Object = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
SCALE_DOWN: Object = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
"""How it is scaled, if something is said of that but not this."""


class CrossVersionObjectReference(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: str = ""
    name: str = ""
    api_version: str = ""


class AutoscalerSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("max_replicas",)

    scale_target_ref: CrossVersionObjectReference = CrossVersionObjectReference()
    min_replicas: int | None = None
    max_replicas: int = 0
    metrics: list[dict[str, Any]] | None = None
    behavior: dict[str, Any] | None = None


class AutoscalerStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("desired_replicas",)

    observed_generation: int | None = None
    last_scale_time: str | None = None
    current_replicas: int = 0
    desired_replicas: int = 0
    current_metrics: list[dict[str, Any]] | None = None
    conditions: list[Condition] | None = None


class HorizontalPodAutoscaler(Typed, frozen=True):
    spec: AutoscalerSpec = AutoscalerSpec()
    status: AutoscalerStatus = AutoscalerStatus()


class AutoscalerSpecV1(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("max_replicas",)

    scale_target_ref: CrossVersionObjectReference = CrossVersionObjectReference()
    min_replicas: int | None = None
    max_replicas: int = 0
    target_cpu_utilization_percentage: int | None = field(default=None, name="targetCPUUtilizationPercentage")


class HorizontalPodAutoscalerV1(Typed, frozen=True):
    """The older form: one metric, the CPU."""

    spec: AutoscalerSpecV1 = AutoscalerSpecV1()


def cpu_metric(percentage: int) -> Object:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percentage}},
    }


def to_v2(obj: Object) -> Object:
    """The CPU percentage of v1 is one metric of v2."""
    result = copied(obj)
    result["apiVersion"] = "autoscaling/v2"
    spec = part(result, "spec")
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        spec["metrics"] = [cpu_metric(percentage)]
    part(result, "status").pop("currentCPUUtilizationPercentage", None)
    return result


def to_v1(obj: Object) -> Object:
    """What v1 has no words for is not shown."""
    result = copied(obj)
    result["apiVersion"] = "autoscaling/v1"
    spec, status = part(result, "spec"), part(result, "status")
    for metric in spec.pop("metrics", None) or ():
        resource = part(metric, "resource")
        if metric.get("type") == "Resource" and resource.get("name") == "cpu":
            spec["targetCPUUtilizationPercentage"] = part(resource, "target").get("averageUtilization")
    spec.pop("behavior", None)
    status.setdefault("currentReplicas", 0)
    for name in ("conditions", "currentMetrics"):
        status.pop(name, None)
    return result


def default(obj: Object) -> None:
    """At least one replica; without metrics, 80 % of the CPU."""
    shape.normalize(obj, HorizontalPodAutoscaler)
    spec = part(obj, "spec")
    spec.setdefault("minReplicas", 1)
    if not items(spec, "metrics"):
        spec["metrics"] = [cpu_metric(80)]
    if isinstance(behavior := spec.get("behavior"), dict):
        default_behavior(behavior)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}


def default_behavior(behavior: Object) -> None:
    """Who says something of how to scale gets the rest said: what is given takes the place of what is usual."""
    for side, usual in (("scaleUp", SCALE_UP), ("scaleDown", SCALE_DOWN)):
        given = behavior.get(side) or {}
        behavior[side] = copied(usual) | {k: v for k, v in given.items() if v is not None}


def validate(obj: Object, _: Situation) -> Errors:
    return validate_spec(part(obj, "spec"), SPEC)


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    status, here = part(new, "status"), Path("status")
    errors = checks.nonnegative(status, "currentReplicas", here)
    return errors + checks.nonnegative(status, "desiredReplicas", here)


def targets(hpa: HorizontalPodAutoscaler) -> str:
    """`cpu: <unknown>/80%`, metric by metric."""
    found = []
    current = hpa.status.current_metrics or []
    for i, metric in enumerate(hpa.spec.metrics or ()):
        now = current[i] if i < len(current) else {}
        word = {"Resource": "resource", "ContainerResource": "containerResource"}.get(metric.get("type", ""))
        if word is None:
            name = {"Pods": "pods", "Object": "object", "External": "external"}.get(metric.get("type", ""), "")
            target = part(part(metric, name), "target")
            value = part(part(now, name), "current")
            wanted = target.get("averageValue") or target.get("value") or "<auto>"
            average = " (avg)" if target.get("averageValue") and name != "pods" else ""
            found.append(f"{value.get('averageValue') or value.get('value') or '<unknown>'}/{wanted}{average}")
            continue
        resource = part(metric, word)
        target, value = part(resource, "target"), part(part(now, word), "current")
        if (amount := target.get("averageValue")) is not None:
            found.append(f"{resource.get('name')}: {value.get('averageValue', '<unknown>')}/{amount}")
        else:
            used = value.get("averageUtilization")
            shown = "<unknown>" if used is None else f"{used}%"
            wanted = target.get("averageUtilization")
            found.append(f"{resource.get('name')}: {shown}/{'<auto>' if wanted is None else f'{wanted}%'}")
    return ", ".join(found) or "<none>"


COLUMNS = (
    Column("Name", lambda h: h.name, format="name"),
    Column("Reference", lambda h: f"{h.spec.scale_target_ref.kind}/{h.spec.scale_target_ref.name}"),
    Column("Targets", targets),
    Column("MinPods", lambda h: "<unset>" if h.spec.min_replicas is None else str(h.spec.min_replicas)),
    Column("MaxPods", lambda h: h.spec.max_replicas),
    Column("Replicas", lambda h: h.status.current_replicas),
    Column("Age", lambda h: Since(h.metadata.creation_timestamp)),
)

HORIZONTAL_POD_AUTOSCALER = Kind(
    group="autoscaling",
    version="v2",
    name="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    namespaced=True,
    type=HorizontalPodAutoscaler,
    schema="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    columns=COLUMNS,
    has_status=True,
)

HORIZONTAL_POD_AUTOSCALER_V1 = Kind(
    group="autoscaling",
    version="v1",
    name="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    namespaced=True,
    type=HorizontalPodAutoscalerV1,
    schema="io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    subresources=(Subresource(name="status"),),
    columns=COLUMNS,
    has_status=True,
    stored=HORIZONTAL_POD_AUTOSCALER,
    to_stored=to_v2,
    from_stored=to_v1,
)
