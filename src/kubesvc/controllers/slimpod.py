"""What controllers see of a Pod: the fields that some plan reads, so that a hundred thousand of them fit in memory.

The shared cache of Pods holds these in place of whole ones. They have the names of `Pod`'s fields, and whoever reads
one takes it for a `Pod`; a field that no controller reads is not there at all, so that reading it fails in a test
rather than finding nothing. A controller that comes to need a field adds it here.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import field

from kubesvc.api.container import ContainerPort, ResourceRequirements
from kubesvc.api.meta import Struct, Typed
from kubesvc.api.pod import (
    POD,
    Affinity,
    LocalObjectReference,
    Pod,
    PodCondition,
    PodIP,
    PodSpec,
    PodStatus,
    Toleration,
)
from kubesvc.api.volume import PersistentVolumeClaimVolumeSource
from kubesvc.client.informer import Informer, InformerFactory


class SlimContainer(Struct, frozen=True):
    name: str = ""
    ports: list[ContainerPort] | None = None
    resources: ResourceRequirements = ResourceRequirements()
    restart_policy: str | None = None

    @property
    def sidecar(self) -> bool:
        return self.restart_policy == "Always"


class SlimTerminated(Struct, frozen=True):
    exit_code: int = 0
    finished_at: str | None = None


class SlimState(Struct, frozen=True):
    terminated: SlimTerminated | None = None


class SlimContainerStatus(Struct, frozen=True):
    name: str = ""
    state: SlimState = SlimState()
    restart_count: int = 0


class SlimVolume(Struct, frozen=True):
    name: str = ""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: dict[str, Any] | None = None


class SlimPodSpec(Struct, frozen=True):
    volumes: list[SlimVolume] | None = None
    init_containers: list[SlimContainer] | None = None
    containers: list[SlimContainer] | None = None
    node_selector: dict[str, str] | None = None
    node_name: str = ""
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    affinity: Affinity | None = None
    scheduler_name: str = ""
    tolerations: list[Toleration] | None = None
    scheduling_gates: list[LocalObjectReference] | None = None

    sidecars = PodSpec.sidecars

    def __post_init__(self) -> None:
        """Only volumes that have a claim behind them are kept: every pod has one with its token."""
        if self.volumes:
            kept = [v for v in self.volumes if v.persistent_volume_claim is not None or v.ephemeral is not None]
            msgspec.structs.force_setattr(self, "volumes", kept or None)


class SlimPodStatus(Struct, frozen=True):
    phase: str = ""
    conditions: list[PodCondition] | None = None
    pod_ip: str = field(default="", name="podIP")
    pod_ips: list[PodIP] | None = field(default=None, name="podIPs")
    init_container_statuses: list[SlimContainerStatus] | None = None
    container_statuses: list[SlimContainerStatus] | None = None

    condition = PodStatus.condition

    def __post_init__(self) -> None:
        """Of the only address, said twice, one is kept: `ips` finds it either way."""
        if self.pod_ips and len(self.pod_ips) == 1 and self.pod_ips[0].ip == self.pod_ip:
            msgspec.structs.force_setattr(self, "pod_ips", None)


class SlimPod(Typed, frozen=True):
    spec: SlimPodSpec = SlimPodSpec()
    status: SlimPodStatus = SlimPodStatus()

    terminal = Pod.terminal
    terminating = Pod.terminating
    ready = Pod.ready
    ips = Pod.ips


def pods_of(informers: InformerFactory) -> Informer[Pod]:
    """The one cache of Pods that all controllers of a process share."""
    return cast("Informer[Pod]", informers.of(POD, decoded_as=SlimPod))
