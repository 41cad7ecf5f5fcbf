"""What an instance, and each node's process, was asked to be: the options of `kubesvc up`, as values."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

NODE_ADDRESS_BASE = ipaddress.IPv4Address("172.30.0.10")
NODE_PREFIX_6 = "fd00:172:30::"
"""Of the nodes' network, a /64, in clusters whose Pods have IPv6 addresses."""
MOST_NODES = 200


ImageSource = Literal["stand-ins", "registries", "offline"]
"""Where images come from that are neither mapped nor loaded: what this machine can stand in for before registries,
registries first, or no registry at all."""


ProxyMode = Literal["auto", "nftables", "iptables", "userspace"]
"""How nodes steer packets; "auto": the first of the others that works."""


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """store: "" for the instance's own durable file, "memory", a path, or an etcd's address. port: 0 for any free one.
    bind_address: where the API answers; "" for the instance's own loopback address, of which each instance has another.
    advertise_address: of the API server in Endpoints `kubernetes`; "" for the one that nodes reach it by.

    zones: one per node, repeated in turn when there are fewer; empty for none. controllers: selection as
    `run_controllers` takes it; () for none at all. load_balancer_range: where Services of type LoadBalancer get
    their addresses from, a network of each family at most; () for nowhere. runtime: the socket of a container runtime
    that makes the nodes' containers; "" for none.
    """

    nodes: int = 1
    zones: tuple[str, ...] = ()
    store: str = ""
    port: int = 0
    bind_address: str = ""
    advertise_address: str = ""
    simulated_nodes: int = 0
    controllers: tuple[str, ...] = ("*",)
    authorization_mode: str = "Node,RBAC"
    token_auth_file: str = ""
    anonymous_auth: bool | None = None
    service_cluster_ip_range: tuple[str, ...] = ("10.96.0.0/16",)
    service_node_port_range: tuple[int, int] = (30000, 32767)
    cluster_cidr: tuple[str, ...] = ("10.244.0.0/16",)
    load_balancer_range: tuple[str, ...] = ("172.31.0.0/24",)
    proxy_mode: ProxyMode = "auto"
    node_monitor_grace_period: float = 50.0
    cluster_domain: str = "cluster.local"
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    audit_log: str = ""
    audit_level: Literal["Metadata", "Request", "RequestResponse"] = "Metadata"
    audit_policy_file: str = ""
    audit_log_max_size: int = 0
    audit_log_max_backup: int = 0
    audit_log_max_age: int = 0
    service_account_issuer: tuple[str, ...] = ()
    most_token_seconds: int = 0
    enable_admission_plugins: tuple[str, ...] = ()
    disable_admission_plugins: tuple[str, ...] = ()
    images: ImageSource = "stand-ins"
    registry_mirrors: tuple[tuple[str, str], ...] = ()
    images_map: str = ""
    runtime: str = ""
    service_warnings: bool = True
    explain_slices: bool = False
    web: int | None = None
    """The port of the live picture's page on loopback, 0 for any free one; None for no page."""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def reachable(self) -> bool:
        """Whether other machines may reach the API, and so join."""
        return bool(self.bind_address) and not ipaddress.ip_address(self.bind_address).is_loopback

    @property
    def dns_address(self) -> str:
        """The tenth address of the primary service range (DNS-56)."""
        return str(ipaddress.ip_network(self.service_cluster_ip_range[0])[10])


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node to be: n1, n2, … with the addresses 172.30.0.11, .12, …"""

    name: str
    address: str
    zone: str
    simulated: bool


def plan_nodes(options: UpOptions) -> list[NodePlan]:
    """The nodes of an instance, real ones first."""
    plans = []
    for i in range(options.nodes + options.simulated_nodes):
        zone = options.zones[i % len(options.zones)] if options.zones else ""
        address = str(NODE_ADDRESS_BASE + i + 1)
        plans.append(NodePlan(f"n{i + 1}", address, zone, i >= options.nodes))
    return plans


def second_address(address: str) -> str:
    """A node's IPv6 address, by its IPv4 address: 172.30.0.11 has fd00:172:30::11."""
    return f"{NODE_PREFIX_6}{address.rpartition('.')[2]}"


def addresses_of(address: str, cluster_cidrs: Sequence[str]) -> tuple[str, ...]:
    """A node's addresses, the cluster's primary family first: IPv6 only where Pods have it too."""
    six = [":" in cidr for cidr in cluster_cidrs]
    if not any(six):
        return (address,)
    return (second_address(address), address) if six[0] else (address, second_address(address))


class NodeProcess(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's process is told, as JSON in its state directory: where to find what, and what to be.

    api_socket, proxy_api_socket, dns_api_socket: the API, for the agent, the proxy and the DNS, without TLS
    api_tls_socket:             the API for everybody, with TLS
    pull_socket:                where images are pulled, in the host's network; "" for nowhere
    registries_first:           pull also what something here could stand in for
    dns_socket:                 where names outside the cluster are looked up, in the host's network; "" for nowhere
    runtime:                    the socket of a container runtime that makes the containers; "" for none
    ground:                     a process inside the node, for a process that runs beside it; 0 for one inside
    instance_root:              the instance's directory, which Pods must not see
    addresses:                  all of the node's own, the cluster's primary family first
    """

    node_name: str
    address: str
    addresses: tuple[str, ...]
    state_dir: str
    api_socket: str
    proxy_api_socket: str
    dns_api_socket: str
    api_tls_socket: str
    api_port: int
    zone: str = ""
    simulated: bool = False
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    cluster_cidrs: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ()
    proxy_mode: ProxyMode = "auto"
    images_map: str = ""
    instance_root: str = ""
    dns_socket: str = ""
    pull_socket: str = ""
    registries_first: bool = False
    runtime: str = ""
    ground: int = 0
