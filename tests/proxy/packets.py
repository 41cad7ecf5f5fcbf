"""The packet table: what becomes of a packet? Each row is a sentence; every backend must make it true.

Subtle faults of node proxies that these rows would show: BUG-1 (PROXY-11), BUG-2 (PROXY-18), BUG-3 (PROXY-38, 39),
BUG-5 (PROXY-12), BUG-6 (PROXY-26), BUG-7 (PROXY-27, 35), BUG-9 (PROXY-14), BUG-10 (PROXY-56), BUG-11 (PROXY-55, 58),
BUG-12 (PROXY-46).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.proxy.traffic import Family, PortTraffic, plan_service

from .objects import (
    ADDRESSES,
    ALSO_HERE,
    BALANCERS,
    EXTERNALS,
    HERE,
    LOOPBACK,
    OUTSIDE,
    A,
    At,
    B,
    C,
    balanced,
    draining,
    gone,
    place,
    ready,
    service,
    slice_of,
    vip,
)

REFUSED, DROPPED, PASSED = "refused", "dropped", "passed"
"""Answered with RST or ICMP; lost; left alone, though it is no pod's address: then it depends on the network."""
UDP_PORTS = ({"name": "dns", "port": 53, "protocol": "UDP"},)
UDP_SLICE = ({"name": "dns", "port": 8080, "protocol": "UDP"},)

Make = Callable[[Family], tuple[Sequence[Service], Sequence[EndpointSlice]]]


@dataclass(frozen=True)
class Case:
    """One packet: who sends it where, and the set of what may become of it.

    `fate` is a set of names of endpoints, with ` masqueraded` if they do not see the sender's address; or REFUSED,
    DROPPED or PASSED. `differs` has another fate by backend, or by backend and family; the sentence says by which rule.
    """

    name: str
    make: Make
    sender: str
    to: Callable[[Family], str]
    port: int
    fate: frozenset[str]
    protocol: str = "TCP"
    zone: str = ""
    families: tuple[Family, ...] = ("IPv4", "IPv6")
    tags: tuple[str, ...] = field(default=())
    differs: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def fate_by(self, mode: str, family: Family) -> frozenset[str]:
        """What becomes of it with a backend."""
        return self.differs.get(f"{mode} {family}", self.differs.get(mode, self.fate))


def plain(endpoints: Sequence[At] = (), **spec: Any) -> Make:
    """One Service `web`, port 80 to 8080."""

    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        return [service(family=family, **spec)], [slice_of(endpoints=endpoints, family=family)]

    return make


def node_port(endpoints: Sequence[At] = (), **spec: Any) -> Make:
    ports = ({"name": "http", "port": 80, "nodePort": 30080},)
    return plain(endpoints, type="NodePort", ports=ports, **spec)


def balanced_node_port(endpoints: Sequence[At] = ()) -> Make:
    return balancer(endpoints, ports=({"name": "http", "port": 80, "nodePort": 30080},))


def balancer(endpoints: Sequence[At] = (), *, ipMode: str | None = None, **spec: Any) -> Make:
    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        given = {k: v[family] if isinstance(v, dict) else v for k, v in spec.items()}
        status = balanced(family, **({"ipMode": ipMode} if ipMode else {}))
        made = service(family=family, type="LoadBalancer", status=status, **given)
        return [made], [slice_of(endpoints=endpoints, family=family)]

    return make


def external(endpoints: Sequence[At] = (), **spec: Any) -> Make:
    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        return [service(family=family, externalIPs=[EXTERNALS[family]], **spec)], [
            slice_of(endpoints=endpoints, family=family)
        ]

    return make


def udp(endpoints: Sequence[At] = (), **spec: Any) -> Make:
    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        return [service(family=family, ports=UDP_PORTS, **spec)], [
            slice_of(endpoints=endpoints, family=family, ports=UDP_SLICE)
        ]

    return make


def sctp(endpoints: Sequence[At] = ()) -> Make:
    ports = ({"name": "x", "port": 80, "protocol": "SCTP"},)
    in_slice = ({"name": "x", "port": 8080, "protocol": "SCTP"},)

    def make(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
        return [service(family=family, ports=ports)], [slice_of(endpoints=endpoints, family=family, ports=in_slice)]

    return make


def both_protocols(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """Port 53 by TCP and UDP, each with an endpoint of its own (PROXY-18)."""
    ports = ({"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"})
    slices = [
        slice_of(endpoints=ready(A), suffix="t", family=family, ports=[{"name": "tcp", "port": 8080}]),
        slice_of(
            endpoints=ready(B), suffix="u", family=family, ports=[{"name": "udp", "port": 8080, "protocol": "UDP"}]
        ),
    ]
    return [service(family=family, ports=ports)], slices


def named_ports(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """A named target port that is 8080 on a and 9090 on b (PROXY-19)."""
    slices = [
        slice_of(endpoints=ready(A), suffix="1", family=family, ports=[{"name": "http", "port": 8080}]),
        slice_of(endpoints=ready(B), suffix="2", family=family, ports=[{"name": "http", "port": 9090}]),
    ]
    return [service(family=family, ports=[{"name": "http", "port": 80, "targetPort": "web"}])], slices


def renamed(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """The Service's port got another name, its slice not yet (PROXY-17)."""
    return [service(family=family, ports=[{"name": "web", "port": 80}])], [slice_of(endpoints=ready(A), family=family)]


def moved(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """One pair in two slices, terminating in one of them (PROXY-14)."""
    return [service(family=family)], [
        slice_of(endpoints=[gone(A)], suffix="old", family=family),
        slice_of(endpoints=ready(A), suffix="new", family=family),
    ]


def somebody_elses(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """A Service that names another proxy, if only by an empty word (PROXY-2)."""
    labels = {"service.kubernetes.io/service-proxy-name": ""}
    return [service(family=family, labels=labels)], [slice_of(endpoints=ready(B), family=family)]


def no_slice(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """Slices of the other family, and one that names no Service (PROXY-8, 9)."""
    other: Family = "IPv6" if family == "IPv4" else "IPv4"
    return [service(family=family)], [
        slice_of(endpoints=ready(B), family=other),
        slice_of("", ready(B), suffix="nobody", family=family),
    ]


def spelled(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """An address in another spelling, and a second one that nobody may use (PROXY-13)."""
    odd = {"IPv4": "010.244.001.003", "IPv6": "FD00:0244:1:0::3"}[family]
    one = slice_of(endpoints=[At(B, address=odd)], family=family)
    assert one.endpoints
    both = msgspec.structs.replace(one.endpoints[0], addresses=[odd, ADDRESSES[family][C]])
    return [service(family=family)], [msgspec.structs.replace(one, endpoints=[both])]


def split(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """Two slices that share an endpoint (PROXY-15)."""
    return [service(family=family)], [
        slice_of(endpoints=ready(A, B), suffix="1", family=family),
        slice_of(endpoints=ready(B, C), suffix="2", family=family),
    ]


def two_services(family: Family) -> tuple[Sequence[Service], Sequence[EndpointSlice]]:
    """Two Services that claim one external address and port."""
    address = [EXTERNALS[family]]
    return [
        service("beta", number=1, family=family, externalIPs=address),
        service("alpha", number=2, family=family, externalIPs=address),
    ], [slice_of("beta", ready(B), family=family), slice_of("alpha", ready(A), family=family)]


def web(family: Family) -> str:
    return vip(family)


def unowned(family: Family) -> str:
    return vip(family, 99)


def node(family: Family) -> str:
    return ADDRESSES[family][HERE]


def balancer_ip(family: Family) -> str:
    return BALANCERS[family]


def external_ip(family: Family) -> str:
    return EXTERNALS[family]


def also_node(family: Family) -> str:
    return ALSO_HERE[family]


def loopback(family: Family) -> str:
    return LOOPBACK[family]


def pod(who: str) -> Callable[[Family], str]:
    return lambda family: ADDRESSES[family][who]


def fates(*texts: str) -> frozenset[str]:
    return frozenset(texts)


M = " masqueraded"
LOCAL = {"externalTrafficPolicy": "Local"}
INTERNAL = {"internalTrafficPolicy": "Local"}
RANGES_OUTSIDE = {"IPv4": ["172.30.0.96/28"], "IPv6": ["fd00:172:30::100/124"]}
RANGES_ELSEWHERE = {"IPv4": [" 198.51.100.0/24 "], "IPv6": ["fd00:5::/64"]}
RANGES_NODE = {"IPv4": ["172.30.0.11/32"], "IPv6": ["fd00:172:30::11/128"]}
RANGES_OVERLAP = {"IPv4": ["172.30.0.0/16", "172.30.0.96/28"], "IPv6": ["fd00:172:30::/64", "fd00:172:30::100/124"]}
EXTERNAL_LIST = {f: [EXTERNALS[f]] for f in EXTERNALS}
RANGES_ALL = {"IPv4": ["0.0.0.0/0"], "IPv6": ["::/0"]}
RANGES_PODS = {"IPv4": ["10.244.0.0/16"], "IPv6": ["fd00:244::/32"]}
AFFINITY: dict[str, Any] = {
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100}},
}

PASSED_BY_IPTABLES = {"iptables": fates(PASSED)}

CASES = (
    # ClusterIP.
    Case("PROXY-32: a pod's connection goes to any ready endpoint", plain(ready(B, C)), A, web, 80, fates(B, C)),
    Case("PROXY-55: the endpoint on the same node sees the pod's own address", plain(ready(B)), A, web, 80, fates(B)),
    Case("PROXY-56: a pod that reaches itself is masqueraded", plain(ready(A)), A, web, 80, fates(A + M)),
    Case(
        "PROXY-56: of two endpoints only the pod itself is masqueraded",
        plain(ready(A, B)), A, web, 80, fates(A + M, B),
    ),
    Case("PROXY-53: the node's own processes reach pods", plain(ready(A, C)), HERE, web, 80, fates(A + M, C + M)),
    Case("PROXY-53: a host outside is masqueraded", plain(ready(A, C)), OUTSIDE, web, 80, fates(A + M, C + M)),
    Case("PROXY-11: the slice's port counts, not the Service's targetPort",
         plain(ready(B), ports=[{"name": "http", "port": 80, "targetPort": 1}]), A, web, 80, fates(B)),
    Case("PROXY-19: a named port that differs from pod to pod", named_ports, C, web, 80, fates(A, B)),
    Case("PROXY-18: TCP 53 goes to the TCP endpoint", both_protocols, C, web, 53, fates(A)),
    Case("PROXY-18: UDP 53 goes to the UDP endpoint", both_protocols, C, web, 53, fates(B), "UDP"),
    Case("PROXY-17: a renamed port has no endpoints and refuses", renamed, A, web, 80, fates(REFUSED)),
    Case("PROXY-14: a terminating record does not hide the running one", moved, B, web, 80, fates(A)),
    Case("PROXY-12: no conditions at all means ready", plain([At(B, ready=None)]), A, web, 80, fates(B)),
    Case("a UDP datagram goes to an endpoint", udp(ready(B, C)), A, web, 53, fates(B, C), "UDP"),
    Case("PROXY-56: UDP to itself is masqueraded", udp(ready(A)), A, web, 53, fates(A + M), "UDP"),
    Case("a host-network endpoint on this node", plain(ready(HERE)), A, web, 80, fates(HERE)),
    Case("SCTP goes to an endpoint", sctp(ready(B, C)), A, web, 80, fates(B, C), "SCTP"),
    Case("SCTP without endpoints is refused", sctp(), A, web, 80, fates(REFUSED), "SCTP"),
    Case("PROXY-2: an address that another proxy serves is nobody's here; by iptables passed", somebody_elses, A, web,
         80, fates(DROPPED), differs=PASSED_BY_IPTABLES),
    Case("PROXY-6: an old address of an ExternalName is nobody's; by iptables passed",
         plain(ready(B), type="ExternalName", externalName="elsewhere.example"), A, web, 80, fates(DROPPED),
         differs=PASSED_BY_IPTABLES),
    Case("PROXY-8, 9: slices of another family or of no Service count for nothing", no_slice, A, web, 80,
         fates(REFUSED)),
    Case("PROXY-13: an address counts in its one spelling, and only the first", spelled, A, web, 80, fates(B)),
    Case("PROXY-15: an endpoint of two slices is one", split, HERE, web, 80, fates(A + M, B + M, C + M)),
    Case("PROXY-22: from outside internalTrafficPolicy Local counts for nothing", node_port(ready(C), **INTERNAL),
         OUTSIDE, node, 30080, fates(C + M)),
    Case("PROXY-30: an endpoint published as ready is used, even as it terminates",
         plain([At(B, ready=True, serving=False, terminating=True)]), A, web, 80, fates(B)),
    # No endpoints.
    Case("PROXY-38: no endpoints: TCP is refused", plain(), A, web, 80, fates(REFUSED)),
    Case("PROXY-38: no endpoints: UDP is refused", udp(), A, web, 53, fates(REFUSED), "UDP"),
    Case("PROXY-38: the node is refused too", plain(), HERE, web, 80, fates(REFUSED)),
    Case("PROXY-38: a host outside is refused too", plain(), OUTSIDE, web, 80, fates(REFUSED)),
    Case("PROXY-28: an unready endpoint gets nothing", plain([At(B, ready=False)]), A, web, 80, fates(REFUSED)),
    Case("PROXY-42: a port the Service does not have is refused; by iptables passed", plain(ready(B)), A, web, 81,
         fates(REFUSED), differs=PASSED_BY_IPTABLES),
    Case("PROXY-42: an address of the range that nobody owns is dropped; by iptables passed", plain(ready(B)), A,
         unowned, 80, fates(DROPPED), differs=PASSED_BY_IPTABLES),
    Case("PROXY-42: the node is dropped there too; by iptables passed", plain(ready(B)), HERE, unowned, 80,
         fates(DROPPED), differs=PASSED_BY_IPTABLES),
    # Terminating endpoints.
    Case("PROXY-25: draining endpoints are used when nothing is ready", plain([draining(A), draining(C)]), B, web, 80,
         fates(A, C)),
    Case("PROXY-25: draining endpoints are left alone while one is ready", plain([draining(A), At(C)]), B, web, 80,
         fates(C)),
    Case("PROXY-28: what no longer serves is never used", plain([gone(A), gone(C)]), B, web, 80, fates(REFUSED)),
    # internalTrafficPolicy.
    Case("PROXY-33a: Local uses ready endpoints here", plain([At(A), At(C), draining(C)], **INTERNAL), B, web, 80,
         fates(A)),
    Case("PROXY-33b: Local falls back to a draining one here", plain([draining(A), At(C)], **INTERNAL), B, web, 80,
         fates(A)),
    Case("PROXY-33d: Local drops when the endpoints are elsewhere", plain(ready(C), **INTERNAL), A, web, 80,
         fates(DROPPED)),
    Case("PROXY-33e: Local refuses when nothing serves anywhere", plain([gone(A), gone(C)], **INTERNAL), B, web, 80,
         fates(REFUSED)),
    Case("PROXY-33f: Local drops when only a draining one elsewhere is left",
         plain([gone(A), draining(C)], **INTERNAL), B, web, 80, fates(DROPPED)),
    Case("PROXY-33g: Local without endpoints refuses", plain((), **INTERNAL), A, web, 80, fates(REFUSED)),
    Case("PROXY-41: the internal policy does not touch node ports", node_port(ready(C), **INTERNAL), OUTSIDE, node,
         30080, fates(C + M)),
    # Topology.
    Case("PROXY-35: hints for this zone keep traffic in it",
         plain([At(A, zones=["z1"]), At(C, zones=["z2"])]), B, web, 80, fates(A), zone="z1"),
    Case("PROXY-36: one endpoint without hint switches them off",
         plain([At(A, zones=["z1"]), At(C)]), B, web, 80, fates(A, C), zone="z1"),
    Case("PROXY-35: hints for this node win over zones",
         plain([At(A, zones=["z2"], nodes=["n2"]), At(B, zones=["z1"], nodes=["n1"])]), C, web, 80, fates(B),
         zone="z1"),
    Case("PROXY-37: a node without zone uses all", plain([At(A, zones=["z1"]), At(C, zones=["z2"])]), B, web, 80,
         fates(A, C)),
    # Node ports.
    Case("PROXY-58: from outside, masqueraded even to a pod here", node_port(ready(A)), OUTSIDE, node, 30080,
         fates(A + M)),
    Case("PROXY-47: from outside to a pod elsewhere", node_port(ready(C)), OUTSIDE, node, 30080, fates(C + M)),
    Case("PROXY-38: a node port without endpoints refuses", node_port(), OUTSIDE, node, 30080, fates(REFUSED)),
    Case("PROXY-46: Local keeps the client's address", node_port(ready(A, C), **LOCAL), OUTSIDE, node, 30080,
         fates(A)),
    Case("PROXY-39: Local without an endpoint here drops", node_port(ready(C), **LOCAL), OUTSIDE, node, 30080,
         fates(DROPPED)),
    Case("PROXY-40: pods still reach it, unmasqueraded", node_port(ready(C), **LOCAL), A, node, 30080, fates(C)),
    Case("PROXY-40: so does the node", node_port(ready(C), **LOCAL), HERE, node, 30080, fates(C + M)),
    Case("PROXY-26: Local falls back to a draining one here", node_port([draining(A), At(C)], **LOCAL), OUTSIDE,
         node, 30080, fates(A)),
    Case("PROXY-41: the external policy does not touch the ClusterIP", node_port(ready(C), **LOCAL), A, web, 80,
         fates(C)),
    Case("PROXY-49: the port number alone is no front elsewhere", node_port(ready(B)), A, web, 30080, fates(REFUSED),
         differs=PASSED_BY_IPTABLES),
    Case("PROXY-68: node ports are at the node's first address alone; with iptables at all", node_port(ready(A)),
         OUTSIDE, also_node, 30080, fates(PASSED), differs={"iptables": fates(A + M), "userspace": fates(A)}),
    Case("PROXY-70: node ports are not at the loopback address; with iptables for IPv4 they are", node_port(ready(A)),
         HERE, loopback, 30080, fates(PASSED),
         differs={"iptables IPv4": fates(A + M), "userspace": fates(A)}),
    Case("PROXY-49: a balanced Service has node ports too", balanced_node_port(ready(A)), OUTSIDE, node, 30080,
         fates(A + M)),
    Case("PROXY-46: pods reach a Local node port by any endpoint, unmasqueraded", node_port(ready(B, C), **LOCAL), A,
         node, 30080, fates(B, C)),
    Case("PROXY-26: a ready endpoint elsewhere does not end the fall-back here",
         node_port([draining(A), At(C)], **LOCAL), OUTSIDE, node, 30080, fates(A)),
    Case("PROXY-27: hints do not count for Local",
         node_port([At(A, zones=["z2"]), At(C, zones=["z1"])], **LOCAL), OUTSIDE, node, 30080, fates(A), zone="z1"),
    # External addresses.
    Case("PROXY-44: an external IP, masqueraded", external(ready(A)), OUTSIDE, external_ip, 80, fates(A + M)),
    Case("PROXY-48: a pod reaches it without leaving the node", external(ready(B)), A, external_ip, 80, fates(B + M)),
    Case("PROXY-24: a ClusterIP Service's external IP knows the policy", external(ready(C), **LOCAL), OUTSIDE,
         external_ip, 80, fates(DROPPED)),
    Case("the first Service by name keeps a front that two claim", two_services, OUTSIDE, external_ip, 80,
         fates(A + M)),
    Case("PROXY-50: ranges do not filter external IPs",
         balancer(ready(A), externalIPs=EXTERNAL_LIST, loadBalancerSourceRanges=RANGES_ELSEWHERE), OUTSIDE, external_ip,
         80, fates(A + M)),
    Case("PROXY-38: an external IP without endpoints refuses", external(), OUTSIDE, external_ip, 80, fates(REFUSED)),
    Case("PROXY-108: the node as well; by iptables it is passed", external(), HERE, external_ip, 80, fates(REFUSED),
         differs=PASSED_BY_IPTABLES),
    # Load balancers.
    Case("PROXY-44: with ipMode Proxy the address is not served here", balancer(ready(A), ipMode="Proxy"), OUTSIDE,
         balancer_ip, 80, fates(PASSED)),
    Case("PROXY-44: with ipMode VIP it is", balancer(ready(A), ipMode="VIP"), OUTSIDE, balancer_ip, 80, fates(A + M)),
    Case("PROXY-38: a balancer's address without endpoints refuses", balancer(), OUTSIDE, balancer_ip, 80,
         fates(REFUSED)),
    Case("PROXY-39: Local without an endpoint here drops there too", balancer(ready(C), **LOCAL), OUTSIDE, balancer_ip,
         80, fates(DROPPED)),
    Case("PROXY-48: a pod reaches a Local balancer's address by any endpoint", balancer(ready(C), **LOCAL), A,
         balancer_ip, 80, fates(C)),
    Case("PROXY-51: overlapping ranges are one", balancer(ready(A), loadBalancerSourceRanges=RANGES_OVERLAP), OUTSIDE,
         balancer_ip, 80, fates(A + M)),
    Case("PROXY-51: ranges and Local: who may keeps its address",
         balancer(ready(A, C), loadBalancerSourceRanges=RANGES_OUTSIDE, **LOCAL), OUTSIDE, balancer_ip, 80, fates(A)),
    Case("PROXY-44: a balancer's address is served here", balancer(ready(A)), OUTSIDE, balancer_ip, 80, fates(A + M)),
    Case("PROXY-46: Local keeps the client's address there", balancer(ready(A, C), **LOCAL), OUTSIDE, balancer_ip, 80,
         fates(A)),
    Case("PROXY-51: a source in the ranges may", balancer(ready(A), loadBalancerSourceRanges=RANGES_OUTSIDE), OUTSIDE,
         balancer_ip, 80, fates(A + M)),
    Case("PROXY-51: any other source is dropped", balancer(ready(A), loadBalancerSourceRanges=RANGES_ELSEWHERE),
         OUTSIDE, balancer_ip, 80, fates(DROPPED)),
    Case("PROXY-51: pods as well", balancer(ready(B), loadBalancerSourceRanges=RANGES_OUTSIDE), A, balancer_ip, 80,
         fates(DROPPED)),
    Case("PROXY-51: pods may when their range is named", balancer(ready(B), loadBalancerSourceRanges=RANGES_PODS), A,
         balancer_ip, 80, fates(B + M)),
    Case("PROXY-51: the node may when it is named", balancer(ready(A), loadBalancerSourceRanges=RANGES_NODE), HERE,
         balancer_ip, 80, fates(A + M)),
    Case("PROXY-50: a range of /0 lets everyone in", balancer(ready(A), loadBalancerSourceRanges=RANGES_ALL), OUTSIDE,
         balancer_ip, 80, fates(A + M)),
    Case("PROXY-50: ranges do not filter the ClusterIP", balancer(ready(B), loadBalancerSourceRanges=RANGES_ELSEWHERE),
         A, web, 80, fates(B)),
    # Affinity: the first packet of a client.
    Case("PROXY-59: affinity changes nothing for a new client", plain(ready(B, C), **AFFINITY), A, web, 80,
         fates(B, C), tags=("affinity",)),
    Case("PROXY-56: affinity and hairpin", plain(ready(A), **AFFINITY), A, web, 80, fates(A + M)),
    Case("PROXY-59: affinity at a Local node port", node_port(ready(A, C), **AFFINITY, **LOCAL), OUTSIDE, node, 30080,
         fates(A)),
    # Not ours.
    Case("a pod's own address is left alone", plain(ready(B)), A, pod(B), 8080, fates(B)),
    Case("a pod elsewhere is left alone", plain(ready(B)), A, pod(C), 8080, fates(C)),
)  # fmt: skip


def planned(case: Case, family: Family) -> dict[tuple[str, str], tuple[PortTraffic, ...]]:
    """The service ports of a case by Service."""
    services, slices = case.make(family)
    found = {}
    for s in services:
        own = [e for e in slices if e.metadata.label("kubernetes.io/service-name") == s.name]
        found[(s.namespace, s.name)] = plan_service(s, own, place(case.zone), family)
    return found
