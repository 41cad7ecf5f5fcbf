"""What becomes of one new flow, decided from service ports alone, without any rules. Pure.

The backends must come to the same answers; `why` explains by these.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .traffic import PortTraffic, ServicePortName, Target

Verdict = Literal["endpoint", "refuse", "drop", "pass"]
"""To one of the targets; answered with RST or ICMP; lost without an answer; none of our business."""


@dataclass(frozen=True, slots=True)
class NewFlow:
    """The first packet of a flow as it reaches or leaves this node."""

    source: str
    destination: str
    port: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the decision depends on besides Services.

    pod_cidr:        where pods' addresses lie; "": nobody can tell a pod (PROXY-52)
    own_addresses:   all addresses of this node: who has one of them as source is the node itself
    node_addresses:  where node ports are reached (PROXY-67)
    service_cidrs:   ranges whose unowned addresses are dropped (PROXY-42)
    guarded:         whether ports that a ClusterIP does not have are refused, and such addresses dropped; iptables does
                     neither (PROXY-42), nor refuses the node itself at external addresses (PROXY-108)
    """

    pod_cidr: str = ""
    own_addresses: tuple[str, ...] = ()
    node_addresses: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, the service port it comes from, and the rule that gave it, in words."""

    verdict: Verdict
    reason: str
    port: ServicePortName | None = None
    targets: tuple[Target, ...] = ()
    masquerade: bool = False
    """Whether the source is rewritten whatever target is drawn; a target that is the source itself always has it
    (PROXY-56)."""

    def masquerades(self, target: Target, source: str) -> bool:
        return self.masquerade or target.address == source


def within(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of the networks; those of the other family never match."""
    ip = ipaddress.ip_address(address)
    return any(ip.version == n.version and ip in n for n in (ipaddress.ip_network(t, strict=False) for t in networks))


def decide(ports: Sequence[PortTraffic], flow: NewFlow, at: Surroundings) -> Decision:
    """What becomes of a flow. `ports` are all service ports of its family, one front each; of several that claim a
    front, ClusterIPs win over balancers' addresses, those over external ones, those over node ports, then by name."""
    for kind in ("cluster IP", "load balancer address", "external IP", "node port"):
        claimants = [p for p in ports if p.name.protocol == flow.protocol and _claims(p, kind, flow, at)]
        if claimants:
            port = min(claimants, key=lambda p: p.name)
            if kind == "cluster IP":
                return _internal(port, flow, at)
            return _external(port, kind, flow, at)
    if at.guarded and any(flow.destination == p.cluster_ip for p in ports):
        return Decision("refuse", "the Service has no such port (PROXY-42)")
    if at.guarded and within(flow.destination, at.service_cidrs):
        return Decision("drop", "no Service owns this address of the service range (PROXY-42)")
    return Decision("pass", "not an address of a Service")


def _claims(port: PortTraffic, kind: str, flow: NewFlow, at: Surroundings) -> bool:
    if kind == "node port":
        return port.node_port != 0 and flow.port == port.node_port and flow.destination in at.node_addresses
    addresses = {
        "cluster IP": (port.cluster_ip,),
        "load balancer address": port.load_balancer_ips,
        "external IP": port.external_ips,
    }[kind]
    return flow.port == port.port and flow.destination in addresses


def _internal(port: PortTraffic, flow: NewFlow, at: Surroundings) -> Decision:
    targets = port.internal_targets
    if not targets and port.usable:
        return Decision("drop", "internalTrafficPolicy Local, and no endpoint on this node (PROXY-39)", port.name)
    if not targets:
        return Decision("refuse", "no usable endpoint anywhere (PROXY-38)", port.name)
    outside = bool(at.pod_cidr) and not within(flow.source, (at.pod_cidr,))
    reason = "the source is no pod (PROXY-53)" if outside else "pods keep their address (PROXY-55)"
    return Decision("endpoint", reason, port.name, targets, outside or at.masquerade_all)


def _external(port: PortTraffic, kind: str, flow: NewFlow, at: Surroundings) -> Decision:
    if not port.usable:
        if not at.guarded and kind != "node port" and flow.source in at.own_addresses:
            return Decision("pass", "iptables refuses the node itself nothing at such addresses (PROXY-108)", port.name)
        return Decision("refuse", "no usable endpoint anywhere (PROXY-38)", port.name)
    if (
        kind == "load balancer address"
        and port.source_ranges is not None
        and not within(flow.source, port.source_ranges)
    ):
        return Decision("drop", "the source is in none of loadBalancerSourceRanges (PROXY-51)", port.name)
    if not port.external_local:
        return Decision("endpoint", "externalTrafficPolicy Cluster (PROXY-47)", port.name, port.cluster, True)
    if at.pod_cidr and within(flow.source, (at.pod_cidr,)):
        return Decision("endpoint", "pods are inside: any endpoint (PROXY-46)", port.name, port.cluster)
    if flow.source in at.own_addresses:
        return Decision("endpoint", "the node is inside: any endpoint (PROXY-46)", port.name, port.cluster, True)
    if not port.local:
        return Decision("drop", "externalTrafficPolicy Local, and no endpoint on this node (PROXY-39)", port.name)
    return Decision("endpoint", "externalTrafficPolicy Local (PROXY-46)", port.name, port.local)
