"""Service: one name and address for a changing set of endpoints.

Here are the struct, the defaults and the columns. What changes with a type is in `service_update`, addresses' families
are in `service_families`, what is refused in `service_validation`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from . import names, service_update, service_validation, shape
from .kind import Column, Kind, Since, Subresource
from .meta import Object, StandardCondition, Struct, Typed

HEADLESS = "None"
"""The clusterIP of a Service that wants none."""


class ClientIPConfig(Struct, frozen=True):
    timeout_seconds: int | None = None


class SessionAffinityConfig(Struct, frozen=True):
    client_ip: ClientIPConfig | None = msgspec.field(default=None, name="clientIP")


class ServicePort(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    port: int = 0
    target_port: int | str | None = None
    node_port: int = 0


class ServiceSpec(Struct, frozen=True):
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    type: str = "ClusterIP"
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    session_affinity: str = "None"
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: list[str] | None = None
    external_name: str = ""
    external_traffic_policy: str = ""
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    session_affinity_config: SessionAffinityConfig | None = None
    ip_families: list[str] | None = None
    ip_family_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    load_balancer_class: str | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None


class PortStatus(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port", "protocol")

    port: int = 0
    protocol: str = ""
    error: str | None = None


class LoadBalancerIngress(Struct, frozen=True):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None
    ports: list[PortStatus] | None = None


class LoadBalancerStatus(Struct, frozen=True):
    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(Struct, frozen=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: list[StandardCondition] | None = None


class Service(Typed, frozen=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == HEADLESS

    @property
    def addresses(self) -> tuple[str, ...]:
        """The cluster addresses, the primary first; none for headless and ExternalName Services (SVC-33)."""
        if self.spec.type == "ExternalName" or self.headless:
            return ()
        listed = self.spec.cluster_ips or ([self.spec.cluster_ip] if self.spec.cluster_ip else [])
        return tuple(a for a in listed if a and a != HEADLESS)


EXTERNAL_TYPES = ("NodePort", "LoadBalancer")
AFFINITY_SECONDS = 10800
"""Three hours: how long ClientIP affinity lasts unless said otherwise (SVC-15)."""


def default(obj: Object) -> None:
    """Defaults that need nothing but the object itself (SVC-2 to SVC-20)."""
    shape.normalize(obj, Service)
    spec = obj["spec"]
    spec.setdefault("sessionAffinity", "None")
    default_affinity(spec)
    kind = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port["port"]
    if kind in EXTERNAL_TYPES or (kind == "ClusterIP" and spec.get("externalIPs")):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind in (*EXTERNAL_TYPES, "ClusterIP"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in obj["status"]["loadBalancer"].get("ingress") or ():
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def default_affinity(spec: Object) -> None:
    """The config goes without affinity and is completed with it (SVC-15)."""
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if config.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}


def shown(value: bytes) -> bytes:
    """A stored Service as it is sent: one of type ExternalName keeps the internalTrafficPolicy it was written with, and
    does not show it (SVC-33)."""
    if b'"type":"ExternalName"' not in value or b'"internalTrafficPolicy":' not in value:
        return value
    obj: Object = msgspec.json.decode(value)
    if obj["spec"].get("type") == "ExternalName":
        obj["spec"].pop("internalTrafficPolicy", None)
    return msgspec.json.encode(obj)


# Columns


def selector_text(selector: dict[str, str] | None) -> str:
    """KCTL-35."""
    return ",".join(f"{k}={v}" for k, v in sorted((selector or {}).items())) or "<none>"


def cluster_ip_text(service: Service) -> str:
    """KCTL-46."""
    listed = service.spec.cluster_ips or []
    return (listed[0] if listed else service.spec.cluster_ip) or "<none>"


def external_ip_text(service: Service) -> str:
    """KCTL-47."""
    spec = service.spec
    external = list(spec.external_ips or ())
    match spec.type:
        case "ClusterIP" | "NodePort":
            return ",".join(external) or "<none>"
        case "LoadBalancer":
            ingress = {i.ip or i.hostname for i in service.status.load_balancer.ingress or ()} - {""}
            return ",".join(sorted(ingress) + external) or "<pending>"
        case "ExternalName":
            return spec.external_name
    return "<unknown>"


def ports_text(service: Service) -> str:
    """KCTL-48."""
    return (
        ",".join(
            f"{p.port}:{p.node_port}/{p.protocol}" if p.node_port > 0 else f"{p.port}/{p.protocol}"
            for p in service.spec.ports or ()
        )
        or "<none>"
    )


SERVICE = Kind(
    group="",
    version="v1",
    name="Service",
    plural="services",
    short_names=("svc",),
    categories=("all",),
    namespaced=True,
    type=Service,
    schema="io.k8s.api.core.v1.Service",
    subresources=(
        Subresource(name="status"),
        Subresource(name="proxy", verbs=("create", "delete", "get", "patch", "update"), kind="ServiceProxyOptions"),
    ),
    has_status=True,
    create_on_put=True,
    delete_returns_object=True,
    default=default,
    prepare_create=service_update.prepare_create,
    prepare_update=service_update.prepare_update,
    validate=service_validation.validate,
    validate_update=service_validation.validate_update,
    validate_status=service_validation.validate_status,
    warn=service_validation.warn,
    name_errors=names.dns_label,
    shown=shown,
    columns=(
        Column("Name", lambda s: s.name, format="name"),
        Column("Type", lambda s: s.spec.type),
        Column("Cluster-IP", cluster_ip_text),
        Column("External-IP", external_ip_text),
        Column("Port(s)", ports_text),
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
        Column("Selector", lambda s: selector_text(s.spec.selector), wide=True),
    ),
    fields={"spec.clusterIP": lambda s: s.spec.cluster_ip, "spec.type": lambda s: s.spec.type},
)
