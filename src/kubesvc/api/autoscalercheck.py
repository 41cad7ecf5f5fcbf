"""What is refused in a HorizontalPodAutoscaler's spec.

Plain objects in, field errors out, in the order in which the API finds them. Defaults were applied before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import checks, fields, names
from .checks import items, part, texts
from .fields import Errors, Path
from .meta import Object
from .podcheck import amount_of, validate_resource_name

SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
TARGETS = ("Utilization", "Value", "AverageValue")
SELECT_POLICIES = ("Disabled", "Max", "Min")
POLICY_TYPES = ("Percent", "Pods")
MOST_WINDOW_SECONDS = 3600
MOST_PERIOD_SECONDS = 1800


def validate_spec(spec: Object, path: Path) -> Errors:
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    errors: Errors = []
    if least is not None and least < 1:
        errors.append(fields.invalid(path / "minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(fields.invalid(path / "maxReplicas", most, checks.POSITIVE))
    if least is not None and most < least:
        errors.append(fields.invalid(path / "maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    errors += validate_reference(part(spec, "scaleTargetRef"), path / "scaleTargetRef")
    metrics = items(spec, "metrics")
    for i, metric in enumerate(metrics):
        errors += validate_metric(metric, path / "metrics" @ i)
    if least == 0 and not any(m.get("type") in ("Object", "External") for m in metrics):
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(fields.forbidden(path / "metrics", text))
    behavior = part(spec, "behavior")
    for side in ("scaleUp", "scaleDown"):
        if (rules := behavior.get(side)) is not None:
            errors += validate_rules(rules, path / "behavior" / side)
    return errors


def validate_reference(reference: Object, path: Path) -> Errors:
    """A kind and a name that fit into a path."""
    errors: Errors = []
    for field in ("kind", "name"):
        errors += path_segment(reference.get(field) or "", path / field)
    return errors


def path_segment(value: str, path: Path, detail: str = "") -> Errors:
    """A required text without slashes and the like."""
    if not value:
        return [fields.required(path, detail)]
    return texts(path, value, names.path_segment(value))


# ---------------------------------------------------------------- what is measured


class Source(NamedTuple):
    """A sort of metric: the field that holds it, and the check of that."""

    type: str
    field: str
    check: Callable[[Object, Path], Errors]


def validate_metric(metric: Object, path: Path) -> Errors:
    """Exactly one source, of the type that is named; of several only the first is looked into."""
    type_ = metric.get("type") or ""
    errors: Errors = []
    if not type_:
        errors.append(fields.required(path / "type", "must specify a metric source type"))
    if type_ not in SOURCES:
        errors.append(fields.not_supported(path / "type", type_, SOURCES))
    given = [s for s in CHECKS if metric.get(s.field) is not None]
    if given:
        errors += given[0].check(metric[given[0].field], path / given[0].field)
    expected = next((s.field for s in CHECKS if s.type == type_), "")
    if not expected:
        errors.append(fields.not_supported(path / "type", type_, SOURCES))
    elif metric.get(expected) is None:
        errors.append(fields.required(path / expected, "must populate information for the given metric source"))
    if len(given) != 1:
        errors += [
            fields.forbidden(path / s.field, "must populate the given metric source only")
            for s in given
            if s.field != expected
        ]
    return errors


def validate_object(source: Object, path: Path) -> Errors:
    errors = validate_reference(part(source, "describedObject"), path / "describedObject")
    errors += validate_identifier(part(source, "metric"), path / "metric")
    target = part(source, "target")
    errors += validate_target(target, path / "target")
    if target.get("value") is None and target.get("averageValue") is None:
        text = "must set either a target value or averageValue"
        errors.append(fields.required(path / "target" / "averageValue", text))
    return errors


def validate_external(source: Object, path: Path) -> Errors:
    errors = validate_identifier(part(source, "metric"), path / "metric")
    target = part(source, "target")
    errors += validate_target(target, path / "target")
    given = [f for f in ("value", "averageValue") if target.get(f) is not None]
    if not given:
        text = "must set either a target value for metric or a per-pod target"
        errors.append(fields.required(path / "target" / "averageValue", text))
    elif len(given) == 2:
        text = "may not set both a target value for metric and a per-pod target"
        errors.append(fields.forbidden(path / "target" / "value", text))
    return errors


def validate_pods(source: Object, path: Path) -> Errors:
    errors = validate_identifier(part(source, "metric"), path / "metric")
    target = part(source, "target")
    errors += validate_target(target, path / "target")
    average = amount_of(target.get("averageValue", "0"))
    if average is None or average.nanos <= 0:
        text = "must specify a positive target averageValue"
        errors.append(fields.required(path / "target" / "averageValue", text))
    return errors


def validate_resource(source: Object, path: Path) -> Errors:
    return named_resource(source, path / "name") + validate_usage(part(source, "target"), path / "target")


def validate_container_usage(source: Object, path: Path) -> Errors:
    errors = named_resource(source, path / "name")
    if not source.get("container"):
        errors.append(fields.required(path / "container", "must specify a container"))
    return errors + validate_usage(part(source, "target"), path / "target")


def named_resource(source: Object, path: Path) -> Errors:
    """The name of a resource of containers, which must be there."""
    if not (name := source.get("name")):
        return [fields.required(path, "must specify a resource name")]
    return validate_resource_name(name, path)


def validate_usage(target: Object, path: Path) -> Errors:
    """Of a resource either how much is used or how much of what was requested."""
    errors = validate_target(target, path)
    given = [f for f in ("averageUtilization", "averageValue") if target.get(f) is not None]
    if not given:
        text = "must set either a target raw value or a target utilization"
        errors.append(fields.required(path / "averageUtilization", text))
    elif len(given) == 2:
        text = "may not set both a target raw value and a target utilization"
        errors.append(fields.forbidden(path / "averageValue", text))
    return errors


CHECKS = (
    Source("Object", "object", validate_object),
    Source("External", "external", validate_external),
    Source("Pods", "pods", validate_pods),
    Source("Resource", "resource", validate_resource),
    Source("ContainerResource", "containerResource", validate_container_usage),
)


def validate_identifier(identifier: Object, path: Path) -> Errors:
    return path_segment(identifier.get("name") or "", path / "name", "must specify a metric name")


def validate_target(target: Object, path: Path) -> Errors:
    type_ = target.get("type") or ""
    errors: Errors = []
    if not type_:
        errors.append(fields.required(path / "type", "must specify a metric target type"))
    if type_ not in TARGETS:
        errors.append(fields.invalid(path / "type", type_, "must be either Utilization, Value, or AverageValue"))
    for field in ("value", "averageValue"):
        amount = amount_of(target[field]) if target.get(field) is not None else None
        if amount is not None and amount.nanos <= 0:
            errors.append(fields.invalid(path / field, str(amount), "must be positive"))
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        errors.append(fields.invalid(path / "averageUtilization", used, checks.POSITIVE))
    return errors


# ---------------------------------------------------------------- how it is scaled


def validate_rules(rules: Object, path: Path) -> Errors:
    window, select = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy")
    errors: Errors = []
    here = path / "stabilizationWindowSeconds"
    if window is not None and window < 0:
        errors.append(fields.invalid(here, window, "must be greater than or equal to zero"))
    if window is not None and window > MOST_WINDOW_SECONDS:
        errors.append(fields.invalid(here, window, f"must be less than or equal to {MOST_WINDOW_SECONDS}"))
    if select is not None and select not in SELECT_POLICIES:
        errors.append(fields.not_supported(path / "selectPolicy", select, SELECT_POLICIES))
    policies = items(rules, "policies")
    if not policies:
        errors.append(fields.required(path / "policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies):
        errors += validate_policy(policy, path / "policies" @ i)
    tolerance = amount_of(rules["tolerance"]) if rules.get("tolerance") is not None else None
    if tolerance is not None and tolerance.nanos < 0:
        errors.append(fields.invalid(path / "tolerance", str(tolerance), "must be greater or equal to zero"))
    return errors


def validate_policy(policy: Object, path: Path) -> Errors:
    errors: Errors = []
    if (type_ := policy.get("type") or "") not in POLICY_TYPES:
        errors.append(fields.not_supported(path / "type", type_, POLICY_TYPES))
    for field in ("value", "periodSeconds"):
        if (amount := policy.get(field) or 0) <= 0:
            errors.append(fields.invalid(path / field, amount, "must be greater than zero"))
    if (seconds := policy.get("periodSeconds") or 0) > MOST_PERIOD_SECONDS:
        text = f"must be less than or equal to {MOST_PERIOD_SECONDS}"
        errors.append(fields.invalid(path / "periodSeconds", seconds, text))
    return errors
