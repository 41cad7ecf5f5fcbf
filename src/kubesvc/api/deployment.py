"""Deployment: like pods, replaced in order when their template changes."""

from __future__ import annotations

from . import checks, fields, podwarnings, shape, workload
from .checks import part
from .container import IntOrString
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .pod import LabelSelector, PodTemplateSpec


class RollingUpdateDeployment(Struct, frozen=True):
    max_unavailable: IntOrString | None = None
    max_surge: IntOrString | None = None


class DeploymentStrategy(Struct, frozen=True):
    type: str = ""
    rolling_update: RollingUpdateDeployment | None = None


class DeploymentSpec(Struct, frozen=True):
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None


class DeploymentStatus(Struct, frozen=True):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: list[Condition] | None = None
    collision_count: int | None = None


class Deployment(Typed, frozen=True):
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


STRATEGY = workload.SPEC / "strategy"
ROLLING = STRATEGY / "rollingUpdate"


def default(obj: Object) -> None:
    """DEPLOY-1."""
    shape.normalize(obj, Deployment)
    spec = part(obj, "spec")
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = part(spec, "strategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    workload.default_template(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    """DEPLOY-1, DEPLOY-3."""
    spec = part(obj, "spec")
    errors = checks.nonnegative(spec, "replicas", workload.SPEC)
    errors += workload.validate_selector(spec, "deployment")
    errors += workload.validate_template(spec)
    errors += validate_strategy(part(spec, "strategy"))
    errors += checks.nonnegative(spec, "minReadySeconds", workload.SPEC)
    errors += checks.nonnegative(spec, "revisionHistoryLimit", workload.SPEC)
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        errors += checks.nonnegative(spec, "progressDeadlineSeconds", workload.SPEC)
        if deadline <= (spec.get("minReadySeconds") or 0):
            errors.append(
                fields.invalid(
                    workload.SPEC / "progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"
                )
            )
    return errors


def validate_strategy(strategy: Object) -> Errors:
    """How old pods make way for new ones."""
    type_, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if type_ == "Recreate":
        if rolling is None:
            return []
        return [fields.forbidden(ROLLING, "may not be specified when strategy `type` is 'Recreate'")]
    if type_ != "RollingUpdate":
        value = {
            "Type": type_,
            "RollingUpdate": None
            if rolling is None
            else {"MaxUnavailable": rolling.get("maxUnavailable", 0), "MaxSurge": rolling.get("maxSurge", 0)},
        }
        return [fields.not_supported(STRATEGY, value, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [fields.required(ROLLING, "this should be defaulted and never be nil")]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors = checks.percent_or_number(unavailable, ROLLING / "maxUnavailable")
    errors += checks.percent_or_number(surge, ROLLING / "maxSurge")
    if nothing(unavailable) and nothing(surge):
        errors.append(fields.invalid(ROLLING / "maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    return errors + checks.at_most_all(unavailable, ROLLING / "maxUnavailable")


def nothing(value: IntOrString | None) -> bool:
    """Whether it stands for no pod at all."""
    return value == 0 or checks.percent(value) == 0


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """The selector is for ever."""
    errors = validate(new, situation)
    return errors + checks.immutable(part(new, "spec"), part(old, "spec"), "selector", workload.SPEC)


def validate_status(new: Object, old: Object, _: Situation) -> Errors:
    """Counts are not negative, and parts are not more than the whole."""
    now, before = part(new, "status"), part(old, "status")
    errors = workload.validate_counts(
        now,
        (
            "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
            "unavailableReplicas", "collisionCount",
        ),
        (
            ("updatedReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ),
    )  # fmt: skip
    if (now.get("collisionCount") or 0) < (before.get("collisionCount") or 0):
        errors.append(
            fields.invalid(workload.STATUS / "collisionCount", now.get("collisionCount") or 0, "cannot be decremented")
        )
    return errors


def raises_generation(new: Object, old: Object) -> bool:
    """META-7: annotations count too, since the controller copies them."""
    annotations = [(part(o, "metadata").get("annotations") or {}) for o in (new, old)]
    return workload.spec_changed(new, old) or annotations[0] != annotations[1]


DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    name="Deployment",
    plural="deployments",
    namespaced=True,
    type=Deployment,
    schema="io.k8s.api.apps.v1.Deployment",
    short_names=("deploy",),
    categories=("all",),
    subresources=(
        Subresource(name="scale", kind="Scale", group="autoscaling", version="v1"),
        Subresource(name="status"),
    ),
    columns=(
        Column("Name", lambda d: d.name, format="name"),
        Column("Ready", lambda d: f"{d.status.ready_replicas}/{d.spec.replicas or 0}"),  # KCTL-16, KCTL-54
        Column("Up-to-date", lambda d: d.status.updated_replicas),
        Column("Available", lambda d: d.status.available_replicas),
        Column("Age", lambda d: Since(d.metadata.creation_timestamp)),
        workload.CONTAINERS,
        workload.IMAGES,
        workload.SELECTOR,
    ),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    warn=podwarnings.template_warnings,
    generation=raises_generation,
    has_status=True,
)
