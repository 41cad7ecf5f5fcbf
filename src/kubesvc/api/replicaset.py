"""ReplicaSet: a number of like pods."""

from __future__ import annotations

from typing import ClassVar

from . import checks, podwarnings, shape, workload
from .checks import part
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .pod import LabelSelector, PodTemplateSpec


class ReplicaSetSpec(Struct, frozen=True):
    replicas: int | None = None
    min_ready_seconds: int = 0
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()


class ReplicaSetStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("replicas",)

    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int | None = None
    observed_generation: int = 0
    conditions: list[Condition] | None = None


class ReplicaSet(Typed, frozen=True):
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


def default(obj: Object) -> None:
    """One replica, unless told otherwise."""
    shape.normalize(obj, ReplicaSet)
    part(obj, "spec").setdefault("replicas", 1)
    workload.default_template(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"replicas": 0}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = checks.nonnegative(spec, "replicas", workload.SPEC)
    errors += checks.nonnegative(spec, "minReadySeconds", workload.SPEC)
    errors += workload.validate_selector(spec, "ReplicaSet")
    return errors + workload.validate_template(spec)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """The selector is for ever."""
    errors = validate(new, situation)
    return errors + checks.immutable(part(new, "spec"), part(old, "spec"), "selector", workload.SPEC)


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    """Counts are not negative, and parts are not more than the whole."""
    return workload.validate_counts(
        part(new, "status"),
        ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"),
        (
            ("fullyLabeledReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ),
    )


REPLICA_SET = Kind(
    group="apps",
    version="v1",
    name="ReplicaSet",
    plural="replicasets",
    namespaced=True,
    type=ReplicaSet,
    schema="io.k8s.api.apps.v1.ReplicaSet",
    short_names=("rs",),
    categories=("all",),
    subresources=(
        Subresource(name="scale", kind="Scale", group="autoscaling", version="v1"),
        Subresource(name="status"),
    ),
    columns=(
        Column("Name", lambda r: r.name, format="name"),
        Column("Desired", lambda r: r.spec.replicas or 0, type="integer"),  # KCTL-17
        Column("Current", lambda r: r.status.replicas, type="integer"),
        Column("Ready", lambda r: r.status.ready_replicas, type="integer"),
        Column("Age", lambda r: Since(r.metadata.creation_timestamp)),
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
    generation=workload.spec_changed,
    has_status=True,
)
