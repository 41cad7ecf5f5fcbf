"""What a proxy can be told."""

from __future__ import annotations

from typing import Literal

import msgspec

AskedMode = Literal["auto", "nftables", "iptables", "userspace"]
MODES: tuple[AskedMode, ...] = ("auto", "nftables", "iptables", "userspace")
METRICS_PORT = 10249
"""Where kube-proxy has its metrics."""


class ProxySettings(msgspec.Struct, frozen=True):
    """Settings of one node's proxy; the defaults suit a node that kubesvc made.

    mode:                 how packets are steered; "auto": the first that works of nftables, iptables, userspace
    families:             "IPv4", "IPv6": each has a table and syncs for itself (PROXY-118)
    cluster_cidrs:        ranges of all pods; a source outside them is no pod (PROXY-52). None in a family: no test
    node_cidrs:           whether cluster_cidrs are the podCIDRs of this node alone (detector mode NodeCIDR)
    pod_interface:        test pods by the interface they come in by instead; a trailing * makes it a prefix
    masquerade_all:       rewrite the source of all ClusterIP traffic (PROXY-54)
    masquerade_bit:       the bit of the packet mark that carries the decision (PROXY-57)
    node_port_addresses:  "primary": the Node's own addresses; or CIDRs, of which the interfaces' addresses that lie
                          in one accept node ports; "default": primary, with iptables all addresses (PROXY-67 to 69)
    loopback_node_ports:  with iptables, whether node ports are reached at 127.0.0.1 too (PROXY-70)
    connection_limits:    whether the kernel's room for connections and their timeouts are set at start (PROXY-80)
    external_ips:         whether spec.externalIPs counts (PROXY-45)
    service_cidrs:        service ranges known beforehand; those of ServiceCIDR objects join them
    min_sync_seconds:     least time from the end of one sync to the start of the next; a change after a quiet time
                          is applied at once
    retry_seconds:        after a failed sync, the longest time until the next (PROXY-117)
    audit_seconds:        how often the kernel's table is compared with what it should be, and repaired
    full_sync_seconds:    how often everything is planned anew and compared (PROXY-106)
    health_address:       where /healthz and /livez are answered (PROXY-86, 87)
    health_port:          and the port; 0: nowhere
    metrics_address:      where /metrics and /proxyMode are answered (PROXY-90)
    metrics_port:         and the port; 0: nowhere
    cleanup:              remove the tables at the end; otherwise rules stay (PROXY-120)
    table:                name of the tables; nobody else may write them
    """

    mode: AskedMode = "auto"
    families: tuple[Literal["IPv4", "IPv6"], ...] = ("IPv4", "IPv6")
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    node_cidrs: bool = False
    pod_interface: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    node_port_addresses: Literal["default", "primary"] | tuple[str, ...] = "default"
    loopback_node_ports: bool = True
    connection_limits: bool = False
    external_ips: bool = True
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    min_sync_seconds: float = 0.002
    retry_seconds: float = 30.0
    audit_seconds: float = 60.0
    full_sync_seconds: float = 3600.0
    health_address: str = "0.0.0.0"
    health_port: int = 10256
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 0
    cleanup: bool = False
    table: str = "kubesvc"
