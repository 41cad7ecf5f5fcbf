"""DaemonSet: one pod on every node."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, podwarnings, shape, workload
from .checks import part
from .container import IntOrString
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .pod import LabelSelector, PodTemplateSpec

STRATEGY = workload.SPEC / "updateStrategy"


class RollingUpdateDaemonSet(Struct, frozen=True):
    max_unavailable: IntOrString | None = None
    max_surge: IntOrString | None = None


class DaemonSetUpdateStrategy(Struct, frozen=True):
    type: str = ""
    rolling_update: RollingUpdateDaemonSet | None = None


class DaemonSetSpec(Struct, frozen=True):
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    update_strategy: DaemonSetUpdateStrategy = DaemonSetUpdateStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class DaemonSetStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = (
        "current_number_scheduled", "number_misscheduled", "desired_number_scheduled", "number_ready",
    )  # fmt: skip

    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    observed_generation: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None
    conditions: list[Condition] | None = None


class DaemonSet(Typed, frozen=True):
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


def default(obj: Object) -> None:
    """Updated rolling, one node after the other."""
    shape.normalize(obj, DaemonSet)
    spec = part(obj, "spec")
    strategy = part(spec, "updateStrategy")
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    workload.default_template(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {
        "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
    }  # fmt: skip


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = workload.validate_selector(spec, "daemonset")
    errors += workload.validate_template(spec, name="DaemonSet")
    errors += checks.nonnegative(spec, "minReadySeconds", workload.SPEC)
    strategy = part(spec, "updateStrategy")
    if (type_ := strategy.get("type", "")) == "RollingUpdate":
        errors += validate_rolling(strategy.get("rollingUpdate"))
    elif type_ != "OnDelete":
        errors.append(fields.not_supported(STRATEGY / "type", type_, ("OnDelete", "RollingUpdate")))
    return errors + checks.nonnegative(spec, "revisionHistoryLimit", workload.SPEC)


def validate_rolling(rolling: Object | None) -> Errors:
    """Either surge or unavailability, not both and not neither."""
    path = STRATEGY / "rollingUpdate"
    if rolling is None:
        return [fields.required(path)]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors = checks.percent_or_number(unavailable, path / "maxUnavailable")
    errors += checks.at_most_all(unavailable, path / "maxUnavailable")
    errors += checks.percent_or_number(surge, path / "maxSurge")
    errors += checks.at_most_all(surge, path / "maxSurge")
    empty = [value in (0, None) or checks.percent(value) == 0 for value in (unavailable, surge)]
    if not any(empty):
        errors.append(fields.invalid(path / "maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    elif all(empty):
        errors.append(fields.required(path / "maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    errors = validate(new, situation)
    return errors + checks.immutable(part(new, "spec"), part(old, "spec"), "selector", workload.SPEC)


DAEMON_SET = Kind(
    group="apps",
    version="v1",
    name="DaemonSet",
    plural="daemonsets",
    namespaced=True,
    type=DaemonSet,
    schema="io.k8s.api.apps.v1.DaemonSet",
    short_names=("ds",),
    categories=("all",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    warn=podwarnings.template_warnings,
    generation=workload.spec_changed,
    columns=(  # KCTL-20
        Column("Name", lambda d: d.name, format="name"),
        Column("Desired", lambda d: d.status.desired_number_scheduled, type="integer"),
        Column("Current", lambda d: d.status.current_number_scheduled, type="integer"),
        Column("Ready", lambda d: d.status.number_ready, type="integer"),
        Column("Up-to-date", lambda d: d.status.updated_number_scheduled, type="integer"),
        Column("Available", lambda d: d.status.number_available, type="integer"),
        Column("Node Selector", lambda d: workload.label_text(d.spec.template.spec.node_selector)),
        Column("Age", lambda d: Since(d.metadata.creation_timestamp)),
        workload.CONTAINERS,
        workload.IMAGES,
        workload.SELECTOR,
    ),
    has_status=True,
)
