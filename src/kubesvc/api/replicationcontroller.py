"""ReplicationController: what ReplicaSets were before (RS-6)."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, shape, workload
from .checks import part
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .pod import PodTemplateSpec


class ReplicationControllerSpec(Struct, frozen=True):
    replicas: int | None = None
    min_ready_seconds: int = 0
    selector: dict[str, str] | None = None
    template: PodTemplateSpec | None = None


class ReplicationControllerStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("replicas",)

    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0
    conditions: list[Condition] | None = None


class ReplicationController(Typed, frozen=True):
    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: ReplicationControllerStatus = ReplicationControllerStatus()


def default(obj: Object) -> None:
    """One replica; labels and selector are those of the template unless given."""
    shape.normalize(obj, ReplicationController)
    spec = part(obj, "spec")
    spec.setdefault("replicas", 1)
    labels = part(part(spec, "template"), "metadata").get("labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        meta = obj.setdefault("metadata", {})
        meta.setdefault("labels", dict(labels))
    workload.default_template(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {"replicas": 0}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = checks.nonnegative(spec, "minReadySeconds", workload.SPEC)
    selector = spec.get("selector")
    if not selector:
        errors.append(fields.required(workload.SPEC / "selector"))
    errors += checks.nonnegative(spec, "replicas", workload.SPEC)
    if spec.get("template") is None:
        return [*errors, fields.required(workload.TEMPLATE)]
    as_labels = {**spec, "selector": {"matchLabels": selector or {}}}
    return errors + workload.validate_template(as_labels, name="ReplicationController")


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


REPLICATION_CONTROLLER = Kind(
    group="",
    version="v1",
    name="ReplicationController",
    plural="replicationcontrollers",
    namespaced=True,
    type=ReplicationController,
    schema="io.k8s.api.core.v1.ReplicationController",
    short_names=("rc",),
    categories=("all",),
    subresources=(
        Subresource(name="scale", kind="Scale", group="autoscaling", version="v1"),
        Subresource(name="status"),
    ),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    columns=(  # KCTL-18
        Column("Name", lambda r: r.name, format="name"),
        Column("Desired", lambda r: r.spec.replicas or 0, type="integer"),
        Column("Current", lambda r: r.status.replicas, type="integer"),
        Column("Ready", lambda r: r.status.ready_replicas, type="integer"),
        Column("Age", lambda r: Since(r.metadata.creation_timestamp)),
        Column("Containers", lambda r: workload.containers(r.spec.template or PodTemplateSpec()), wide=True),
        Column("Images", lambda r: workload.images(r.spec.template or PodTemplateSpec()), wide=True),
        Column("Selector", lambda r: workload.label_text(r.spec.selector), wide=True),
    ),
    fields={"status.replicas": lambda r: str(r.status.replicas)},
    has_status=True,
)
