"""Pod: the smallest thing that runs, and what Services send traffic to."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from . import podcolumns, podstrategy, podwarnings, shape
from .container import Container, ContainerStatus, ProfileSource, ResourceList, ResourceRequirements, SELinuxOptions
from .kind import Kind, Subresource
from .meta import Condition, Object, ObjectMeta, Struct, Typed
from .volume import Volume


class Toleration(Struct, frozen=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class HostAlias(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("ip",)

    ip: str = ""
    hostnames: list[str] | None = None


class PodDNSConfigOption(Struct, frozen=True):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Struct, frozen=True):
    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[PodDNSConfigOption] | None = None


class PodReadinessGate(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("condition_type",)

    condition_type: str = ""


class LocalObjectReference(Struct, frozen=True):
    name: str = ""


class Sysctl(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name", "value")

    name: str = ""
    value: str = ""


class PodSecurityContext(Struct, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] | None = None
    supplemental_groups_policy: str | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    sysctls: list[Sysctl] | None = None
    se_linux_options: SELinuxOptions | None = None
    se_linux_change_policy: str | None = None
    seccomp_profile: ProfileSource | None = None
    app_armor_profile: ProfileSource | None = None


class NodeSelectorRequirement(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("key", "operator")

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class NodeSelectorTerm(Struct, frozen=True):
    match_expressions: list[NodeSelectorRequirement] | None = None
    match_fields: list[NodeSelectorRequirement] | None = None


class NodeSelector(Struct, frozen=True):
    node_selector_terms: list[NodeSelectorTerm] | None = None


class PreferredSchedulingTerm(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("weight",)

    weight: int = 0
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(Struct, frozen=True):
    required: NodeSelector | None = field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredSchedulingTerm] | None = field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class LabelSelectorRequirement(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("key", "operator")

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(Struct, frozen=True):
    """A selector as objects hold it; `kubesvc.api.selectors` decides what it matches."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelSelectorRequirement] | None = None


class PodAffinityTerm(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("topology_key",)

    label_selector: LabelSelector | None = None
    namespaces: list[str] | None = None
    topology_key: str = ""
    namespace_selector: LabelSelector | None = None
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class WeightedPodAffinityTerm(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("weight",)

    weight: int = 0
    pod_affinity_term: PodAffinityTerm = PodAffinityTerm()


class PodAffinity(Struct, frozen=True):
    """Affinity or anti-affinity to other pods."""

    required: list[PodAffinityTerm] | None = field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[WeightedPodAffinityTerm] | None = field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Struct, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("max_skew", "topology_key", "when_unsatisfiable")

    max_skew: int = 0
    topology_key: str = ""
    when_unsatisfiable: str = ""
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: list[str] | None = None


class PodSpec(Struct, frozen=True):
    volumes: list[Volume] | None = None
    init_containers: list[Container] | None = None
    containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    dns_policy: str = ""
    node_selector: dict[str, str] | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""
    host_network: bool = False
    host_pid: bool = field(default=False, name="hostPID")
    host_ipc: bool = field(default=False, name="hostIPC")
    share_process_namespace: bool | None = None
    security_context: PodSecurityContext | None = None
    image_pull_secrets: list[LocalObjectReference] | None = None
    hostname: str = ""
    subdomain: str = ""
    affinity: Affinity | None = None
    scheduler_name: str = ""
    tolerations: list[Toleration] | None = None
    host_aliases: list[HostAlias] | None = None
    priority_class_name: str = ""
    priority: int | None = None
    dns_config: PodDNSConfig | None = None
    readiness_gates: list[PodReadinessGate] | None = None
    runtime_class_name: str | None = None
    enable_service_links: bool | None = None
    preemption_policy: str | None = None
    overhead: ResourceList | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] | None = None
    set_hostname_as_fqdn: bool | None = field(default=None, name="setHostnameAsFQDN")
    os: LocalObjectReference | None = None
    host_users: bool | None = None
    scheduling_gates: list[LocalObjectReference] | None = None
    resource_claims: list[dict[str, Any]] | None = None
    resources: ResourceRequirements | None = None
    hostname_override: str | None = None

    @property
    def sidecars(self) -> list[Container]:
        """Init containers that go on running."""
        return [c for c in self.init_containers or () if c.sidecar]


class PodIP(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("ip",)

    ip: str = ""


class PodCondition(Condition, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_probe_time", "last_transition_time")


class PodStatus(Struct, frozen=True):
    phase: str = ""
    conditions: list[PodCondition] | None = None
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = field(default="", name="hostIP")
    host_ips: list[PodIP] | None = field(default=None, name="hostIPs")
    pod_ip: str = field(default="", name="podIP")
    pod_ips: list[PodIP] | None = field(default=None, name="podIPs")
    start_time: str | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None
    qos_class: str = ""
    resize: str = ""
    observed_generation: int = 0

    def condition(self, type_: str) -> PodCondition | None:
        return next((c for c in self.conditions or () if c.type == type_), None)


class Pod(Typed, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def terminal(self) -> bool:
        """Whether it has run to its end (POD-7)."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True (POD-7)."""
        condition = self.status.condition("Ready")
        return condition is not None and condition.status == "True"

    @property
    def ips(self) -> list[str]:
        """Its addresses, the primary first."""
        found = [p.ip for p in self.status.pod_ips or () if p.ip]
        return found or ([self.status.pod_ip] if self.status.pod_ip else [])


class PodTemplateSpec(Struct, frozen=True):
    """What a controller makes pods from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


def default(obj: Object) -> None:
    """The spelling of a pod, then POD-1."""
    shape.normalize(obj, Pod)
    podstrategy.default(obj)


POD = Kind(
    group="",
    version="v1",
    name="Pod",
    plural="pods",
    namespaced=True,
    type=Pod,
    schema="io.k8s.api.core.v1.Pod",
    short_names=("po",),
    categories=("all",),
    subresources=(
        Subresource(name="attach", verbs=("create", "get"), kind="PodAttachOptions"),
        Subresource(name="binding", verbs=("create",), kind="Binding"),
        Subresource(name="ephemeralcontainers"),
        Subresource(name="eviction", verbs=("create",), kind="Eviction", group="policy", version="v1"),
        Subresource(name="exec", verbs=("create", "get"), kind="PodExecOptions"),
        Subresource(name="log", verbs=("get",)),
        Subresource(name="portforward", verbs=("create", "get"), kind="PodPortForwardOptions"),
        Subresource(name="proxy", verbs=("create", "delete", "get", "patch", "update"), kind="PodProxyOptions"),
        Subresource(name="resize"),
        Subresource(name="status"),
    ),
    default=default,
    prepare_create=podstrategy.prepare_create,
    prepare_update=podstrategy.prepare_update,
    validate=podstrategy.validate,
    validate_update=podstrategy.validate_update,
    validate_status=podstrategy.validate_status,
    warn=podwarnings.pod_warnings,
    columns=podcolumns.COLUMNS,
    row_conditions=podcolumns.row_conditions,
    fields={  # SEL-3
        "spec.nodeName": lambda p: p.spec.node_name,
        "spec.restartPolicy": lambda p: p.spec.restart_policy,
        "spec.schedulerName": lambda p: p.spec.scheduler_name,
        "spec.serviceAccountName": lambda p: p.spec.service_account_name,
        "spec.hostNetwork": lambda p: "true" if p.spec.host_network else "false",
        "status.phase": lambda p: p.status.phase,
        "status.podIP": lambda p: next(iter(p.ips), ""),
        "status.podIPs": lambda p: ",".join(p.ips),
        "status.nominatedNodeName": lambda p: p.status.nominated_node_name,
    },
    generation=lambda new, old: new.get("spec") != old.get("spec"),
    has_status=True,
    graceful=True,
    delete_returns_object=True,
)
