"""Which UDP flows must be forgotten, so that a client that keeps its socket reaches an endpoint that lives. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.kernel.conntrack import Flow

from .traffic import PortTraffic, Target


def plan_stale(flows: Iterable[Flow], ports: Iterable[PortTraffic]) -> list[Flow]:
    """The flows whose front is a UDP service port and whose answers come from none of its serving endpoints.

    flows: of one family; ports: all service ports of that family
    Policy, topology, readiness and termination do not count (PROXY-74); a service port without any serving endpoint
    keeps its flows (PROXY-75). Follows PROXY-73.
    """
    fronts: dict[Target, frozenset[Target]] = {}
    node_ports: dict[int, frozenset[Target]] = {}
    for port in ports:
        if port.name.protocol != "UDP" or not port.serving:
            continue
        serving = frozenset(port.serving)
        for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
            fronts.setdefault(Target(address, port.port), serving)
        if port.node_port:
            node_ports.setdefault(port.node_port, serving)
    stale = []
    for flow in flows:
        serving_ = fronts.get(Target(flow.destination, flow.destination_port))
        if serving_ is None:
            serving_ = node_ports.get(flow.destination_port)
        if serving_ is not None and Target(flow.reply_source, flow.reply_source_port) not in serving_:
            stale.append(flow)
    return stale


LEAST_FLOWS, MOST_FLOWS, FLOWS_PER_CORE = 131_072, 1_048_576, 32_768


def plan_limits(cores: int) -> tuple[tuple[str, int], ...]:
    """Kernel settings for as many connections as a proxy's node has (PROXY-80), as (path below /proc/sys, value)."""
    most = min(max(FLOWS_PER_CORE * cores, LEAST_FLOWS), MOST_FLOWS)
    return (
        ("net/netfilter/nf_conntrack_max", most),
        ("net/netfilter/nf_conntrack_tcp_timeout_established", 86_400),
        ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", 3_600),
    )
