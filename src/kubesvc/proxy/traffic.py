"""Who may be reached: from a Service, its slices and a node's place to the endpoints of every service port. Pure.

Knows nothing of nftables; every backend renders from these values, and `why` explains by them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

import msgspec

from kubesvc.api.endpointslice import Endpoint as SliceEndpoint
from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service, ServicePort

Family = Literal["IPv4", "IPv6"]
ServiceKey = tuple[str, str]
"""Namespace and name."""

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_ZONE = "topology.kubernetes.io/zone"
DEFAULT_AFFINITY_SECONDS, LONGEST_AFFINITY_SECONDS = 10_800, 86_400
PROTOCOLS = ("TCP", "UDP", "SCTP")


class ServicePortName(NamedTuple):
    """The identity of a service port: port name and protocol tell ports of one Service apart (PROXY-17, 18)."""

    namespace: str
    name: str
    port: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}/{self.protocol}"


class Place(NamedTuple):
    """Where this proxy stands: its node's name, its zone ("" if unknown), and the node's own addresses."""

    node: str
    zone: str = ""
    addresses: tuple[str, ...] = ()


class Target(NamedTuple):
    """One address and port that connections can be sent to."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Endpoint(msgspec.Struct, frozen=True):
    """One pair of address and port behind a service port, its conditions with nil made plain (PROXY-12)."""

    target: Target
    ready: bool
    serving: bool
    terminating: bool
    local: bool
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def last_resort(self) -> bool:
        """Used only when nothing is ready (PROXY-25, 26)."""
        return self.serving and self.terminating

    @property
    def usable(self) -> bool:
        return self.ready or self.last_resort


class PortTraffic(msgspec.Struct, frozen=True):
    """One service port in one address family: where it is reached, and whom it reaches.

    cluster, local:   the Cluster and the Local list in order of "ip:port"; a list that nobody needs is empty
    usable:           whether any endpoint anywhere could be used (PROXY-29)
    serving:          targets that may keep UDP flows, whatever policy says (PROXY-74)
    local_targets:    those of both lists that run on this node: they may reach themselves (PROXY-56)
    local_ready:      addresses of ready endpoints on this node, for health checks (PROXY-82, 83)
    source_ranges:    who may use the load balancer's addresses; None: everyone (PROXY-50)
    affinity_seconds: how long clients stay with their endpoint; None: no affinity
    health_port:      where a balancer asks whether this node has endpoints; 0: nowhere (PROXY-81, 85)
    """

    name: ServicePortName
    port: int
    cluster_ip: str
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] | None = None
    internal_local: bool = False
    external_local: bool = False
    affinity_seconds: int | None = None
    health_port: int = 0
    cluster: tuple[Target, ...] = ()
    local: tuple[Target, ...] = ()
    usable: bool = False
    serving: tuple[Target, ...] = ()
    local_targets: tuple[Target, ...] = ()
    local_ready: tuple[str, ...] = ()

    @property
    def external(self) -> bool:
        """Whether it can be reached by anything but its ClusterIP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def internal_targets(self) -> tuple[Target, ...]:
        """The list that ClusterIP traffic uses (PROXY-41)."""
        return self.local if self.internal_local else self.cluster


def canonical(address: str) -> str:
    """An IP address in its one spelling; "" if it is none. Leading zeros are decimal, as upstream reads them
    (PROXY-13)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        found = socket.inet_ntop(family, socket.inet_pton(family, address))
        return address if found == address else found  # one text of the two is enough to keep
    except (OSError, ValueError):
        parts = address.split(".")
        if len(parts) == 4 and all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
            return ".".join(str(int(p)) for p in parts)
        return ""


def is_port(number: int | None) -> TypeGuard[int]:
    """Whether there is such a port. Servers let no other in; who watches any cluster relies on nobody's check."""
    return number is not None and 0 < number < 65536


def is_of(family: Family, address: str) -> bool:
    return (":" in address) == (family == "IPv6")


def of_family(family: Family, addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses of a family, canonical, each once, in their order."""
    found = (canonical(a) for a in addresses)
    return tuple(dict.fromkeys(a for a in found if a and is_of(family, a)))


def cluster_ip_of(service: Service, family: Family) -> str:
    """The Service's address in a family, "" if it has none or is not for proxies (PROXY-6, 7)."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return ""
    for address, named in zip(spec.cluster_ips or (), spec.ip_families or (), strict=False):
        if named == family:
            return canonical(address)
    if not spec.ip_families and is_of(family, spec.cluster_ip):
        return canonical(spec.cluster_ip)
    return ""


def service_of(endpoint_slice: EndpointSlice) -> tuple[str, str] | None:
    """Key of the Service whose endpoints a slice lists; None if it names none (PROXY-9)."""
    name = endpoint_slice.metadata.label(LABEL_SERVICE_NAME)
    return (endpoint_slice.namespace, name) if name else None


def endpoints_by_port(
    slices: Iterable[EndpointSlice], place: Place, family: Family
) -> dict[tuple[str, str], list[Endpoint]]:
    """Endpoints of one Service by (slice port name, protocol), each pair once, in order of "ip:port".

    Follows PROXY-8 and 11 to 16. A pair listed twice: not terminating beats terminating, else the later slice by
    name wins.
    """
    found: dict[tuple[str, str], dict[Target, Endpoint]] = {}
    for s in sorted(slices, key=lambda s: s.name):
        if s.address_type != family:
            continue
        ports = [(p.name, p.protocol or "TCP", p.port) for p in s.ports or () if p.name is not None and is_port(p.port)]
        for e in s.endpoints or ():
            address = canonical(e.addresses[0]) if e.addresses else ""
            if not address or not is_of(family, address):
                continue
            for name, protocol, port in ports:
                endpoint = _endpoint(e, Target(address, port), place)
                group = found.setdefault((name, protocol), {})
                known = group.get(endpoint.target)
                if known is None or known.terminating or not endpoint.terminating:
                    group[endpoint.target] = endpoint
    return {key: sorted(group.values(), key=lambda e: str(e.target)) for key, group in found.items()}


def _endpoint(e: SliceEndpoint, target: Target, place: Place) -> Endpoint:
    c, hints = e.conditions, e.hints
    return Endpoint(
        target,
        ready=c is None or c.ready is not False,
        serving=c is None or c.serving is not False,
        terminating=c is not None and bool(c.terminating),
        local=bool(e.node_name) and e.node_name == place.node,
        zones=tuple(z.name for z in hints.for_zones or ()) if hints else (),
        nodes=tuple(n.name for n in hints.for_nodes or ()) if hints else (),
    )


def near(ready: Sequence[Endpoint], place: Place) -> Sequence[Endpoint]:
    """The ready endpoints that hints leave for this node: by node, else by zone, else all (PROXY-34 to 37)."""
    if ready and all(e.nodes for e in ready):
        chosen = [e for e in ready if place.node in e.nodes]
        if chosen:
            return chosen
    if ready and place.zone and all(e.zones for e in ready):
        chosen = [e for e in ready if place.zone in e.zones]
        if chosen:
            return chosen
    return ready


def cluster_list(endpoints: Sequence[Endpoint], place: Place) -> tuple[Target, ...]:
    """Ready endpoints that pass the topology filter; if none is ready anywhere, those serving while they terminate
    (PROXY-25)."""
    ready = [e for e in endpoints if e.ready]
    chosen = near(ready, place) if ready else [e for e in endpoints if e.last_resort]
    return tuple(e.target for e in chosen)


def local_list(endpoints: Sequence[Endpoint]) -> tuple[Target, ...]:
    """The same for this node alone, without topology (PROXY-26, 27)."""
    here = [e for e in endpoints if e.local]
    return tuple(e.target for e in [e for e in here if e.ready] or [e for e in here if e.last_resort])


def plan_service(
    service: Service, slices: Iterable[EndpointSlice], place: Place, family: Family, *, external_ips: bool = True
) -> tuple[PortTraffic, ...]:
    """Every service port of a Service in one family, in the Service's order; () if the proxy has no business with it.

    slices: those that name the Service, any order
    Follows PROXY-2, 6 to 8, 11 to 37, 41, 44, 45, 49, 50.
    """
    spec = service.spec
    cluster_ip = cluster_ip_of(service, family)
    if not cluster_ip or LABEL_PROXY_NAME in (service.metadata.labels or {}):
        return ()
    by_port = endpoints_by_port(slices, place, family)
    externals = of_family(family, spec.external_ips or ()) if external_ips else ()
    ingress = service.status.load_balancer.ingress or ()
    balancers = of_family(family, (i.ip for i in ingress if i.ip and i.ip_mode in (None, "", "VIP")))
    if spec.type != "LoadBalancer":
        balancers = ()
    ranges = source_ranges(spec.load_balancer_source_ranges or (), family, place, balancers) if balancers else None
    seen: set[ServicePortName] = set()
    planned = []
    for port in spec.ports or ():
        name = ServicePortName(service.namespace, service.name, port.name, port.protocol or "TCP")
        if name in seen or name.protocol not in PROTOCOLS or not is_port(port.port):
            continue
        seen.add(name)
        endpoints = by_port.get((port.name, name.protocol), [])
        planned.append(_plan_port(service, port, name, cluster_ip, externals, balancers, ranges, endpoints, place))
    return tuple(planned)


def _plan_port(
    service: Service,
    port: ServicePort,
    name: ServicePortName,
    cluster_ip: str,
    externals: tuple[str, ...],
    balancers: tuple[str, ...],
    ranges: tuple[str, ...] | None,
    endpoints: list[Endpoint],
    place: Place,
) -> PortTraffic:
    spec = service.spec
    internal_local = spec.internal_traffic_policy == "Local"
    node_port = port.node_port if spec.type in ("NodePort", "LoadBalancer") and is_port(port.node_port) else 0
    external = bool(node_port or externals or balancers)
    # PROXY-24: the policy counts only where something external exists to which it can apply.
    external_local = spec.external_traffic_policy == "Local" and external
    cluster = cluster_list(endpoints, place) if external or not internal_local else ()  # PROXY-22
    local = local_list(endpoints) if internal_local or external_local else ()  # PROXY-23
    used = {*cluster, *local}
    affinity = None
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
        affinity = min(seconds, LONGEST_AFFINITY_SECONDS) if seconds and seconds > 0 else DEFAULT_AFFINITY_SECONDS
    asked = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    health = spec.health_check_node_port if asked else 0
    return PortTraffic(
        name=name,
        port=port.port,
        cluster_ip=cluster_ip,
        node_port=node_port,
        external_ips=externals,
        load_balancer_ips=balancers,
        source_ranges=ranges,
        internal_local=internal_local,
        external_local=external_local,
        affinity_seconds=affinity,
        health_port=health if is_port(health) else 0,
        cluster=cluster,
        local=local,
        usable=any(e.usable for e in endpoints),
        serving=_same(tuple(e.target for e in endpoints if e.serving), cluster),
        local_targets=tuple(e.target for e in endpoints if e.local and e.target in used),
        local_ready=tuple(dict.fromkeys(e.target.address for e in endpoints if e.local and e.ready)),
    )


def _same(targets: tuple[Target, ...], known: tuple[Target, ...]) -> tuple[Target, ...]:
    """The targets, as the known list if it is equal: most lists are, and are kept for long."""
    return known if targets == known else targets


def source_ranges(
    ranges: Iterable[str], family: Family, place: Place, balancers: Sequence[str]
) -> tuple[str, ...] | None:
    """Who may use the load balancer's addresses, as networks of the family that do not overlap (the kernel's intervals
    may not); None: everyone, as when no range is of this family (PROXY-50, 51).

    When the node itself lies in a range, the balancer's addresses may be sources as well: a process of this node that
    talks to an address bound here uses it as its own.
    """
    networks: list[Any] = []  # all of one family
    for text in (r.strip() for r in ranges):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if is_of(family, text):
            if network.prefixlen == 0:
                return None
            networks.append(network)
    if not networks:
        return None
    own = [ipaddress.ip_address(a) for a in of_family(family, place.addresses)]
    if any(address in network for address in own for network in networks):
        networks += [ipaddress.ip_network(a) for a in balancers]
    return tuple(str(n) for n in ipaddress.collapse_addresses(networks))
