"""ReplicaSet: a number of like pods."""

from __future__ import annotations

from .kind import Column, Kind, Since, Subresource
from .meta import Condition, Struct, Typed
from .pod import LabelSelector, PodTemplateSpec


class ReplicaSetSpec(Struct, frozen=True):
    replicas: int | None = None
    min_ready_seconds: int = 0
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()


class ReplicaSetStatus(Struct, frozen=True):
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
        Column("Age", lambda r: Since(r.metadata.creation_timestamp)),
    ),
    has_status=True,
)
