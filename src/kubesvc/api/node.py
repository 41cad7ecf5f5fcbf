"""Node: a machine, or what stands for one, that pods run on."""

from __future__ import annotations

from msgspec import field

from .container import ResourceList
from .kind import Column, Kind, Since, Subresource
from .meta import Condition, Struct, Typed


class Taint(Struct, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(Struct, frozen=True):
    pod_cidr: str = field(default="", name="podCIDR")
    pod_cidrs: list[str] | None = field(default=None, name="podCIDRs")
    provider_id: str = field(default="", name="providerID")
    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeAddress(Struct, frozen=True):
    type: str = ""
    address: str = ""


class DaemonEndpoint(Struct, frozen=True):
    port: int = field(default=0, name="Port")


class NodeDaemonEndpoints(Struct, frozen=True):
    kubelet_endpoint: DaemonEndpoint = DaemonEndpoint()


class NodeSystemInfo(Struct, frozen=True):
    machine_id: str = field(default="", name="machineID")
    system_uuid: str = field(default="", name="systemUUID")
    boot_id: str = field(default="", name="bootID")
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    kube_proxy_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class NodeStatus(Struct, frozen=True):
    capacity: ResourceList | None = None
    allocatable: ResourceList | None = None
    phase: str = ""
    conditions: list[Condition] | None = None
    addresses: list[NodeAddress] | None = None
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()
    node_info: NodeSystemInfo = NodeSystemInfo()

    def condition(self, type_: str) -> Condition | None:
        return next((c for c in self.conditions or () if c.type == type_), None)

    def address(self, type_: str) -> str:
        """The first address of a type such as InternalIP, "" if there is none."""
        return next((a.address for a in self.addresses or () if a.type == type_), "")


class Node(Typed, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        condition = self.status.condition("Ready")
        return condition is not None and condition.status == "True"


NODE = Kind(
    group="",
    version="v1",
    name="Node",
    plural="nodes",
    namespaced=False,
    type=Node,
    schema="io.k8s.api.core.v1.Node",
    short_names=("no",),
    subresources=(
        Subresource(name="proxy", verbs=("create", "delete", "get", "patch", "update"), kind="NodeProxyOptions"),
        Subresource(name="status"),
    ),
    columns=(
        Column("Name", lambda n: n.name, format="name"),
        Column("Age", lambda n: Since(n.metadata.creation_timestamp)),
    ),
    fields={"spec.unschedulable": lambda n: "true" if n.spec.unschedulable else "false"},
    has_status=True,
)
