"""Node: a machine, or what stands for one, that pods run on."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from . import addresses, checks, fields, names, shape
from .checks import items, part, texts
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed


class Taint(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("key", "effect")

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
    always: ClassVar[tuple[str, ...]] = ("type", "address")

    type: str = ""
    address: str = ""


class DaemonEndpoint(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    port: int = field(default=0, name="Port")


class NodeDaemonEndpoints(Struct, frozen=True):
    kubelet_endpoint: DaemonEndpoint = DaemonEndpoint()


class NodeSystemInfo(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = (
        "machine_id", "system_uuid", "boot_id", "kernel_version", "os_image", "container_runtime_version",
        "kubelet_version", "kube_proxy_version", "operating_system", "architecture",
    )  # fmt: skip

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


class NodeCondition(Condition, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_heartbeat_time", "last_transition_time")


class NodeStatus(Struct, frozen=True):
    capacity: ResourceList | None = None
    allocatable: ResourceList | None = None
    phase: str = ""
    conditions: list[NodeCondition] | None = None
    addresses: list[NodeAddress] | None = None
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()
    node_info: NodeSystemInfo = NodeSystemInfo()

    def condition(self, type_: str) -> NodeCondition | None:
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


SPEC = Path("spec")
NONE, UNKNOWN = "<none>", "<unknown>"
ROLE_PREFIX, ROLE_LABEL = "node-role.kubernetes.io/", "kubernetes.io/role"


def default(obj: Object) -> None:
    """What can be allocated is what there is; podCIDR is the first of podCIDRs (NODE-1)."""
    shape.normalize(obj, Node)
    status, spec = part(obj, "status"), part(obj, "spec")
    if "capacity" in status and "allocatable" not in status:
        status["allocatable"] = dict(status["capacity"])
    first = next(iter(items(spec, "podCIDRs")), None)
    if spec.get("podCIDR") and spec["podCIDR"] != first:
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif first:
        spec["podCIDR"] = first


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_taints(items(spec, "taints"))
    cidrs = items(spec, "podCIDRs")
    for i, cidr in enumerate(cidrs):
        errors += texts(SPEC / "podCIDRs" @ i, cidr, addresses.cidr_errors(cidr))
    families = [addresses.family_of(c.partition("/")[0]) for c in cidrs]
    if len(cidrs) > 2 or len(set(families)) != len(families):
        errors.append(fields.invalid(SPEC / "podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
    return errors


def validate_taints(taints: list[Object]) -> Errors:
    errors: Errors = []
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(taints):
        here = SPEC / "taints" @ i
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        errors += texts(here / "key", key, names.label_key(key))
        if found := names.label_value(value):
            errors.append(fields.invalid(here / "value", value, ";".join(found)))
        errors += checks.one_of(effect, ("NoSchedule", "PreferNoSchedule", "NoExecute"), here / "effect", in_order=True)
        if (key, effect) in seen:
            go = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            duplicate = fields.duplicate(here, go)
            errors.append(
                fields.FieldError(duplicate.path, duplicate.type, go, "taints must be unique by key and effect pair")
            )
        seen.add((key, effect))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Ranges and the provider's name, once known, stay (NODE-1)."""
    now, before = part(new, "spec"), part(old, "spec")
    errors = validate_taints(items(now, "taints"))
    if items(before, "podCIDRs") and items(now, "podCIDRs") != items(before, "podCIDRs"):
        errors.append(
            fields.forbidden(SPEC / "podCIDRs", 'node updates may not change podCIDR except from "" to valid')
        )
    elif not items(before, "podCIDRs"):
        errors += [e for e in validate(new, situation) if e.path.startswith("spec.podCIDRs")]
    if before.get("providerID") and now.get("providerID") != before["providerID"]:
        errors.append(
            fields.forbidden(SPEC / "providerID", 'node updates may not change providerID except from "" to valid')
        )
    return errors


def status_text(node: Node) -> str:
    """KCTL-53."""
    ready = node.status.condition("Ready")
    text = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    return f"{text},SchedulingDisabled" if node.spec.unschedulable else text


def roles(node: Node) -> str:
    labels = node.metadata.labels or {}
    found = {k.removeprefix(ROLE_PREFIX) for k in labels if k.startswith(ROLE_PREFIX)}
    found.add(labels.get(ROLE_LABEL, ""))
    return ",".join(sorted(found - {""})) or NONE


def kernel(node: Node) -> str:
    info = node.status.node_info
    if not info.kernel_version:
        return UNKNOWN
    return f"{info.kernel_version} ({info.architecture})" if info.architecture else info.kernel_version


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
        Column("Status", status_text),  # KCTL-15
        Column("Roles", roles),
        Column("Age", lambda n: Since(n.metadata.creation_timestamp)),
        Column("Version", lambda n: n.status.node_info.kubelet_version),
        Column("Internal-IP", lambda n: n.status.address("InternalIP") or NONE, wide=True),
        Column("External-IP", lambda n: n.status.address("ExternalIP") or NONE, wide=True),
        Column("OS-Image", lambda n: n.status.node_info.os_image or UNKNOWN, wide=True),
        Column("Kernel-Version", kernel, wide=True),
        Column("Container-Runtime", lambda n: n.status.node_info.container_runtime_version or UNKNOWN, wide=True),
    ),
    fields={"spec.unschedulable": lambda n: "true" if n.spec.unschedulable else "false"},
    default=default,
    validate=validate,
    validate_update=validate_update,
    has_status=True,
)
