"""PodDisruptionBudget: how many pods of a group may be missing on purpose."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, shape, workload
from .checks import part
from .container import IntOrString
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, StandardCondition, Struct, Typed
from .pod import LabelSelector

SPEC = Path("spec")


class PodDisruptionBudgetSpec(Struct, frozen=True):
    min_available: IntOrString | None = None
    selector: LabelSelector | None = None
    max_unavailable: IntOrString | None = None
    unhealthy_pod_eviction_policy: str | None = None


class PodDisruptionBudgetStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = (
        "disruptions_allowed", "current_healthy", "desired_healthy", "expected_pods",
    )  # fmt: skip

    observed_generation: int = 0
    disrupted_pods: dict[str, str | None] | None = None
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: list[StandardCondition] | None = None


class PodDisruptionBudget(Typed, frozen=True):
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, PodDisruptionBudget)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    errors: Errors = []
    if least is not None and most is not None:
        shown = {
            "MinAvailable": least,
            "Selector": spec.get("selector"),
            "MaxUnavailable": most,
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        errors.append(fields.invalid(SPEC, shown, "minAvailable and maxUnavailable cannot be both set"))
    for field, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            errors += checks.percent_or_number(value, SPEC / field)
            errors += checks.at_most_all(value, SPEC / field)
    errors += checks.label_selector(spec.get("selector"), SPEC / "selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in ("IfHealthyBudget", "AlwaysAllow"):
        errors.append(
            fields.not_supported(SPEC / "unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))
        )
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


def text(value: IntOrString | None) -> str:
    return "N/A" if value is None else str(value)


POD_DISRUPTION_BUDGET = Kind(
    group="policy",
    version="v1",
    name="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    namespaced=True,
    type=PodDisruptionBudget,
    schema="io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names=("pdb",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    columns=(  # KCTL-31a
        Column("Name", lambda p: p.name, format="name"),
        Column("Min Available", lambda p: text(p.spec.min_available)),
        Column("Max Unavailable", lambda p: text(p.spec.max_unavailable)),
        Column("Allowed Disruptions", lambda p: p.status.disruptions_allowed, type="integer"),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
    has_status=True,
    unversioned_update=False,
)
