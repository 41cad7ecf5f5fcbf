"""Deployment: like pods, replaced in order when their template changes."""

from __future__ import annotations

from .container import IntOrString
from .kind import Column, Kind, Since, Subresource
from .meta import Condition, Struct, Typed
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
        Column("Age", lambda d: Since(d.metadata.creation_timestamp)),
    ),
    has_status=True,
)
