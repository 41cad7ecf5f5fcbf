"""The way of one new connection, in words: what its address is, which rules decide, and every endpoint with the reason
why it is in or out and how likely it is. Pure; decided by `decision` and `traffic`, explained here.

A flow may be decided twice: a node that has no business with it passes it on, and the node it arrives at decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service

from .decision import Decision, NewFlow, Surroundings, decide, within
from .traffic import (
    Endpoint,
    Family,
    Place,
    PortTraffic,
    Target,
    canonical,
    endpoints_by_port,
    is_of,
    near,
    plan_service,
)

FrontKind = Literal["cluster IP", "load balancer address", "external IP", "node port", ""]
SlicesOf = Callable[[Service], Sequence[EndpointSlice]]


@dataclass(frozen=True, slots=True)
class Source:
    """Who connects, and from which node the connection leaves (or at which it arrives, for a client outside).

    kind: "pod" keeps its own network, "node" is a process of the node, a Pod with hostNetwork is one as well
    """

    kind: Literal["pod", "node", "outside"]
    name: str
    address: str
    place: Place

    def __str__(self) -> str:
        where = {"pod": f"on node {self.place.node}", "node": "itself", "outside": f"arriving at {self.place.node}"}
        return f"{self.name} ({self.address}) {where[self.kind]}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint of the service port.

    name:        what stands behind it, "pod/web-1" or "pod/web-1 (other-namespace)", "" if the slice does not say
    probability: 0 to 1, for a connection of which nothing is remembered; 0 if it is out
    masquerade:  whether it would see the node as its client
    """

    target: Target
    name: str
    node: str
    probability: float
    reason: str
    masquerade: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """What one node's proxy makes of the flow."""

    node: str
    flow: NewFlow
    decision: Decision
    front: FrontKind
    words: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()
    affinity_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way; the last leg decides."""

    source: Source
    flow: NewFlow
    legs: tuple[Leg, ...]

    @property
    def last(self) -> Leg:
        return self.legs[-1]

    @property
    def answered(self) -> bool:
        return self.last.decision.verdict in ("endpoint", "pass")


def trace(
    source: Source,
    flow: NewFlow,
    services: Iterable[Service],
    slices_of: SlicesOf,
    places: Sequence[Place],
    surroundings: Surroundings,
) -> Trace:
    """Follow a flow from its source to the last node that has a say.

    places:       all nodes, for flows that are passed on to another one
    surroundings: of the source's node; the addresses are replaced by those of each node that decides
    """
    family: Family = "IPv6" if ":" in flow.destination else "IPv4"
    listed = list(services)
    legs = [_leg(source.place, flow, listed, slices_of, family, surroundings)]
    first = legs[0]
    if first.decision.verdict == "pass" and flow.destination not in source.place.addresses:
        there = next((p for p in places if flow.destination in p.addresses), None)
        if there is not None:
            words = (*first.words, f"{flow.destination} is node {there.node}: its proxy decides")
            legs[0] = replace(first, words=words)
            legs.append(_leg(there, flow, listed, slices_of, family, surroundings))
    return Trace(source, flow, tuple(legs))


def _leg(
    place: Place,
    flow: NewFlow,
    services: Sequence[Service],
    slices_of: SlicesOf,
    family: Family,
    surroundings: Surroundings,
) -> Leg:
    own = tuple(a for a in place.addresses if is_of(family, a))
    at = replace(surroundings, own_addresses=own, node_addresses=own[:1])
    owners: dict[tuple[str, str], Service] = {(s.namespace, s.name): s for s in services}
    ports = [p for s in services for p in plan_service(s, slices_of(s), place, family)]
    decision = decide(ports, flow, at)
    port = next((p for p in ports if p.name == decision.port), None)
    if port is None:
        return Leg(place.node, flow, decision, "", (_no_port_words(flow, ports, decision, at),))
    front = _front(port, flow)
    service = owners[port.name[:2]]
    slices = slices_of(service)
    words = _words(port, front, flow, decision)
    candidates = _candidates(port, decision, front, flow, slices, place, family)
    return Leg(place.node, flow, decision, front, words, candidates, port.affinity_seconds)


def _no_port_words(flow: NewFlow, ports: Sequence[PortTraffic], decision: Decision, at: Surroundings) -> str:
    front = f"{flow.destination}:{flow.port}/{flow.protocol}"
    owners = sorted({f"svc/{p.name.name} ({p.name.namespace})" for p in ports if p.cluster_ip == flow.destination})
    if decision.verdict == "refuse":
        known = sorted({f"{p.port}/{p.name.protocol}" for p in ports if p.cluster_ip == flow.destination})
        return (
            f"{flow.destination} is the cluster IP of {', '.join(owners)}, which has no port "
            f"{flow.port}/{flow.protocol}: it has {', '.join(known)}"
        )
    if decision.verdict == "drop":
        return f"{flow.destination} lies in the service range {', '.join(at.service_cidrs)}, and no Service owns it"
    return f"{front} is no address of a Service: the proxy leaves it alone"


def _front(port: PortTraffic, flow: NewFlow) -> FrontKind:
    """By which of its fronts a service port is reached, in the order in which they win."""
    if flow.port == port.port:
        if flow.destination == port.cluster_ip:
            return "cluster IP"
        if flow.destination in port.load_balancer_ips:
            return "load balancer address"
        if flow.destination in port.external_ips:
            return "external IP"
    return "node port"


def _words(port: PortTraffic, front: FrontKind, flow: NewFlow, decision: Decision) -> tuple[str, ...]:
    """The rules that speak, in the order in which they do."""
    name, number = port.name, f"{flow.port}/{flow.protocol}"
    named = f", port {name.port!r}" if name.port else ""
    found = [f"{flow.destination}:{number} is a {front} of svc/{name.name} ({name.namespace}){named}"]
    if front == "load balancer address" and port.source_ranges is not None:
        inside = within(flow.source, port.source_ranges)
        said = "lies in" if inside else "lies in none of"
        found.append(f"loadBalancerSourceRanges: {flow.source} {said} {', '.join(port.source_ranges)} (PROXY-50)")
    found.append(decision.reason)
    if decision.verdict == "endpoint":
        if decision.masquerade:
            found.append("the endpoint sees the node as its client: the source address is rewritten")
        else:
            found.append(f"the endpoint sees {flow.source} as its client")
        if port.affinity_seconds is not None:
            found.append(
                f"sessionAffinity ClientIP: a client that connected within {port.affinity_seconds} s goes where it "
                "went before (PROXY-59)"
            )
    return tuple(found)


def _candidates(
    port: PortTraffic,
    decision: Decision,
    front: FrontKind,
    flow: NewFlow,
    slices: Sequence[EndpointSlice],
    place: Place,
    family: Family,
) -> tuple[Candidate, ...]:
    """Every endpoint of the service port, those that may be chosen first."""
    group = endpoints_by_port(slices, place, family).get((port.name.port, port.name.protocol), [])
    behind = _behind(slices, port, family)
    chosen = set(decision.targets)
    local_only = _local_only(port, decision, front)
    found = []
    for e in group:
        name, node = behind.get(e.target, ("", ""))
        inside = e.target in chosen
        reason = _reason(e, group, place, node, inside=inside, local_only=local_only)
        if inside and e.target.address == flow.source:
            reason += "; the client itself, so its source is rewritten (PROXY-56)"
        probability = 1 / len(chosen) if inside else 0.0
        masquerade = inside and decision.masquerades(e.target, flow.source)
        found.append(Candidate(e.target, name, node, probability, reason, masquerade))
    return tuple(sorted(found, key=lambda c: (c.probability == 0, str(c.target))))


def _local_only(port: PortTraffic, decision: Decision, front: FrontKind) -> bool:
    """Whether only endpoints of this node count for this flow."""
    if front == "cluster IP":
        return port.internal_local
    if not port.external_local:
        return False
    return decision.verdict == "drop" or decision.targets is port.local


def _behind(slices: Sequence[EndpointSlice], port: PortTraffic, family: Family) -> dict[Target, tuple[str, str]]:
    """What stands behind each target: a name and a node, as the slices say."""
    found: dict[Target, tuple[str, str]] = {}
    for s in slices:
        if s.address_type != family:
            continue
        numbers = [p.port for p in s.ports or () if (p.name or "", p.protocol or "TCP") == port.name[2:] and p.port]
        for e in s.endpoints or ():
            ref = e.target_ref
            name = f"{ref.kind.lower()}/{ref.name}" if ref is not None and ref.kind else ""
            for number in numbers:
                if e.addresses and (address := canonical(e.addresses[0])):
                    found[Target(address, number)] = (name, e.node_name or "")
    return found


def _reason(e: Endpoint, group: Sequence[Endpoint], place: Place, node: str, *, inside: bool, local_only: bool) -> str:
    """Why an endpoint is in or out."""
    if inside:
        if not e.ready:
            return "terminating and still serving, used because none is ready (PROXY-25, 26)"
        hinted = not local_only and len(near([x for x in group if x.ready], place)) < sum(x.ready for x in group)
        return "ready" + (", and its hints lead here (PROXY-35)" if hinted else "")
    if not e.usable:
        return "terminating, and no longer serving (PROXY-28)" if e.terminating else "not ready (PROXY-28)"
    if local_only and not e.local:
        return f"on {f'node {node}' if node else 'no node'}, and the policy Local wants one of {place.node} (PROXY-26)"
    if not e.ready:
        return "terminating; used only when none is ready (PROXY-25, 26)"
    if e.nodes and place.node not in e.nodes:
        return f"ready, but hints lead its traffic to nodes {', '.join(e.nodes)} (PROXY-35)"
    if e.zones:
        return f"ready, but hints lead its traffic to zones {', '.join(e.zones)}, not {place.zone} (PROXY-35)"
    return "ready, but this connection is not let through"


# Rendering.


def verdict_text(leg: Leg) -> str:
    """What becomes of the connection, in one line."""
    count = len(leg.decision.targets)
    match leg.decision.verdict:
        case "endpoint":
            return f"goes to {leg.decision.targets[0]}" if count == 1 else f"goes to one of {count} endpoints"
        case "refuse":
            return "is refused: the client sees `connection refused` at once"
        case "drop":
            return "is dropped without an answer: the client times out"
    return "is not steered by the proxy: it goes where routes lead"


def render(found: Trace) -> str:
    """For people."""
    flow = found.flow
    lines = [f"from {found.source} to {flow.destination}:{flow.port}/{flow.protocol}"]
    for leg in found.legs:
        lines.append(f"at node {leg.node}:")
        lines += [f"  {i}. {words}" for i, words in enumerate(leg.words, 1)]
        if leg.candidates:
            width = max(len(str(c.target)) for c in leg.candidates)
            lines.append("  endpoints:")
            for c in leg.candidates:
                share = f"{100 * c.probability:5.1f} %" if c.probability else "    out"
                who = " on ".join(filter(None, (c.name, c.node))) or "unnamed"
                lines.append(f"    {c.target!s:<{width}}  {share}  {who}: {c.reason}")
    lines.append(f"the connection {verdict_text(found.last)}")
    return "\n".join(lines)


def as_json(found: Trace) -> dict[str, Any]:
    """For programs."""
    return {
        "from": {"kind": found.source.kind, "name": found.source.name, "address": found.source.address,
                 "node": found.source.place.node},
        "to": {"address": found.flow.destination, "port": found.flow.port, "protocol": found.flow.protocol},
        "legs": [
            {
                "node": leg.node,
                "verdict": leg.decision.verdict,
                "reason": leg.decision.reason,
                "service": str(leg.decision.port) if leg.decision.port else None,
                "front": leg.front or None,
                "masquerade": leg.decision.masquerade,
                "affinitySeconds": leg.affinity_seconds,
                "rules": list(leg.words),
                "endpoints": [
                    {"address": c.target.address, "port": c.target.port, "name": c.name, "node": c.node,
                     "probability": c.probability, "masquerade": c.masquerade, "reason": c.reason}
                    for c in leg.candidates
                ],
            }
            for leg in found.legs
        ],
        "verdict": found.last.decision.verdict,
    }  # fmt: skip
