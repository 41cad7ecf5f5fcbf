"""Say what becomes of one new connection: the rules in words, every endpoint with the reason why it is in or out, and
how likely each is.

  kubesvc trace 10.96.3.4:80                        from the first node
  kubesvc trace svc/web:http --from pod/client      as a Pod's connection
  kubesvc trace 172.31.0.1:80 --from 192.168.49.1   as a client outside, arriving at the first node (or --node)
  kubesvc trace svc/web --from node/n2 --live       make one real connection too, and compare

Without --live nothing is sent; nothing is ever written. Exit status: 0 it is answered, 1 it is refused or dropped, or
--live found something else than was said, 2 cannot tell, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from . import WRONG_USAGE, Failure
from .cluster import CANNOT_TELL, Cluster, asking_cluster
from .target import add_target, no_service

if TYPE_CHECKING:
    from kubesvc.api.endpointslice import EndpointSlice
    from kubesvc.api.node import Node
    from kubesvc.api.pod import Pod
    from kubesvc.api.service import Service
    from kubesvc.proxy.decision import NewFlow
    from kubesvc.proxy.trace import Source, Trace
    from kubesvc.proxy.traffic import Place

    from .peek import Reply


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="IP:PORT|svc/NAME[:PORT]", help="where the connection goes")
    parser.add_argument("--from", dest="source", default="", metavar="POD|NODE|IP", help="where it comes from")
    parser.add_argument("--node", default="", metavar="NODE", help="the node at which a client outside arrives")
    parser.add_argument("--udp", action="store_true", help="a UDP flow instead of a TCP connection")
    parser.add_argument("--live", action="store_true", help="make one real connection, and compare")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="where names are looked up")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(follow(args))


@dataclass
class Seen:
    """What was read of the cluster."""

    services: list[Service]
    nodes: list[Node]
    slices: dict[tuple[str, str], list[EndpointSlice]]
    service_ranges: tuple[str, ...]


async def follow(args: argparse.Namespace) -> int:
    async with asking_cluster(args, "kubesvc-trace") as cluster:
        return await answer(args, cluster)


async def answer(args: argparse.Namespace, cluster: Cluster) -> int:
    from kubesvc.proxy.decision import Surroundings
    from kubesvc.proxy.sync import place_of
    from kubesvc.proxy.trace import as_json, render, trace

    protocol = "UDP" if args.udp else "TCP"
    seen = await read(cluster)
    destination, port, protocol = target_of(args, protocol, seen.services, cluster.namespace)
    places = [place_of(n.name, n) for n in sorted(seen.nodes, key=lambda n: n.name)]
    if not places:
        raise Failure("the cluster has no nodes, so nothing steers its traffic", status=CANNOT_TELL)
    source, pod = await source_of(args, cluster, places, destination)
    from kubesvc.proxy.decision import NewFlow

    flow = NewFlow(source.address, destination, port, protocol)
    await read_slices(cluster, seen, flow, places)
    at = Surroundings(pod_cidr=pod_range(source, seen.nodes), service_cidrs=seen.service_ranges)
    found = trace(source, flow, seen.services, lambda s: seen.slices.get((s.namespace, s.name), []), places, at)
    report: dict[str, Any] = as_json(found)
    text = render(found)
    status = 0 if found.answered else 1
    if args.live:
        live = await try_live(cluster, found, pod)
        report["live"] = live
        text += "\n" + live["text"]
        status = 0 if live["agrees"] and found.answered else 1
    print(json.dumps(report, indent=2) if args.json else text)
    return status


# ---------------------------------------------------------------- reading


async def read(cluster: Cluster) -> Seen:
    """Services, nodes and service ranges; slices follow once it is known whose are needed."""
    from kubesvc.api.kinds import NODE, SERVICE
    from kubesvc.api.servicecidr import SERVICE_CIDR
    from kubesvc.why.collect import Reader

    reader = Reader(cluster.client)
    services = [o for _, o in await reader.read(SERVICE)]
    nodes, cidrs = await asyncio.gather(reader.read(NODE), reader.read(SERVICE_CIDR, needed=False))
    for kind in (SERVICE, NODE):
        if kind in reader.gaps:
            raise Failure(str(reader.gaps[kind]), status=CANNOT_TELL)
    ranges = [c for _, o in cidrs for c in o.spec.cidrs or ()]  # type: ignore[attr-defined]
    ranges = ranges or list(cluster.record.service_ranges if cluster.record else ())
    return Seen(cast("list[Service]", services), cast("list[Node]", [o for _, o in nodes]), {}, tuple(ranges))


async def read_slices(cluster: Cluster, seen: Seen, flow: NewFlow, places: list[Place]) -> None:
    """The slices of every Service that the flow could be meant for."""
    from kubesvc.api.kinds import ENDPOINT_SLICE
    from kubesvc.proxy.traffic import LABEL_HEADLESS, LABEL_SERVICE_NAME, plan_service
    from kubesvc.why.collect import Reader

    reader = Reader(cluster.client)
    for service in seen.services:
        planned = [p for f in ("IPv4", "IPv6") for p in plan_service(service, (), places[0], f)]
        addresses = {a for p in planned for a in (p.cluster_ip, *p.load_balancer_ips, *p.external_ips)}
        if flow.destination not in addresses and flow.port not in {p.node_port for p in planned}:
            continue
        labels = f"{LABEL_SERVICE_NAME}={service.name},!{LABEL_HEADLESS}"
        found = await reader.read(ENDPOINT_SLICE, service.namespace, labels=labels)
        seen.slices[(service.namespace, service.name)] = [o for _, o in found]  # type: ignore[misc]
    if reader.gaps:
        raise Failure("; ".join(map(str, reader.gaps.values())), status=CANNOT_TELL)


def target_of(args: argparse.Namespace, protocol: str, services: list[Service], namespace: str) -> tuple[str, int, str]:
    """Address, port and protocol that the words mean; Failure if they mean none."""
    from kubesvc.why.subject import BadSubject, parse_place

    text: str = args.target
    kind, slash, rest = text.partition("/")
    if slash and kind in ("svc", "service", "services"):
        name, _, wanted = rest.partition(":")
        service = next((s for s in services if (s.namespace, s.name) == (namespace, name)), None)
        if service is None:
            raise no_service(args, name, namespace, status=CANNOT_TELL)
        if not service.addresses:
            raise Failure(
                f"svc/{name} has no cluster IP: its clients go where its name leads\nnext: kubesvc resolve {name}",
                status=CANNOT_TELL,
            )
        ports = [p for p in service.spec.ports or () if not wanted or wanted in (p.name, str(p.port))]
        if args.udp or len({p.protocol for p in ports}) > 1:
            ports = [p for p in ports if p.protocol == protocol] or ports
        if len(ports) != 1:
            there = ", ".join(f"{p.name or p.port}/{p.protocol}" for p in service.spec.ports or ())
            raise Failure(f"{text}: which port? svc/{name} has {there or 'none'}", status=WRONG_USAGE)
        return service.addresses[0], ports[0].port, ports[0].protocol or "TCP"
    try:
        subject = parse_place(text)
    except BadSubject as error:
        raise Failure(f"{text}: must be IP:PORT or svc/NAME[:PORT]", status=WRONG_USAGE) from error
    if not subject.address or not subject.port:
        hint = "\nnext: kubesvc resolve NAME says which address a name has" if subject.name else ""
        raise Failure(f"{text}: must be IP:PORT or svc/NAME[:PORT]{hint}", status=WRONG_USAGE)
    return subject.address, subject.port, protocol


async def source_of(
    args: argparse.Namespace, cluster: Cluster, places: list[Place], destination: str
) -> tuple[Source, Pod | None]:
    """Who connects, and the Pod if it is one."""
    from kubesvc.proxy.trace import Source
    from kubesvc.why.subject import BadSubject, parse_place

    by_name = {p.node: p for p in places}
    text = args.source
    if args.node and args.node not in by_name:
        raise Failure(f"no node {args.node!r}; there are {', '.join(by_name)}", status=WRONG_USAGE)
    kind, slash, name = text.partition("/")
    if not text or (slash and kind in ("node", "nodes")) or text in by_name:
        chosen = name if slash else text or args.node or first_real(cluster, places)
        if chosen not in by_name:
            raise Failure(f"no node {chosen!r}; there are {', '.join(by_name)}", status=WRONG_USAGE)
        place = by_name[chosen]
        return Source(
            "node", f"node/{chosen}", same_family(place.addresses, destination, f"node {chosen}"), place
        ), None
    try:
        outsider = "" if slash else parse_place(text).address
    except BadSubject:
        outsider = ""
    if outsider:
        there = next((p for p in places if destination in p.addresses), None)
        place = by_name[args.node] if args.node else there or by_name[first_real(cluster, places)]
        return Source("outside", "a client outside", outsider, place), None
    if slash and kind not in ("pod", "pods", "po"):
        raise Failure(f"--from {text}: must be pod/NAME, node/NAME or an IP address", status=WRONG_USAGE)
    pod = await read_pod(cluster, name if slash else text)
    place = by_name.get(pod.spec.node_name or "") or next(iter(by_name.values()))
    if not pod.spec.node_name or not pod.ips:
        raise Failure(f"pod/{pod.name} has no address yet, so it cannot connect", status=CANNOT_TELL)
    address = same_family(pod.ips, destination, f"pod/{pod.name}")
    return Source("node" if pod.spec.host_network else "pod", f"pod/{pod.name}", address, place), pod


def first_real(cluster: Cluster, places: list[Place]) -> str:
    if cluster.record is not None:
        real = [n.name for n in cluster.record.nodes if not n.simulated]
        return next((p.node for p in places if p.node in real), places[0].node)
    return places[0].node


def same_family(addresses: Any, destination: str, who: str) -> str:
    found = next((a for a in addresses if (":" in a) == (":" in destination)), None)
    if found is None:
        raise Failure(f"{who} has no address of the family of {destination}", status=CANNOT_TELL)
    return str(found)


async def read_pod(cluster: Cluster, name: str) -> Pod:
    from kubesvc.api.errors import NotFound
    from kubesvc.api.kinds import POD
    from kubesvc.api.meta import typed
    from kubesvc.api.pod import Pod

    try:
        return typed(await cluster.client.get(POD, name, cluster.namespace), Pod)
    except NotFound:
        raise Failure(
            f"there is neither a Pod {name!r} in namespace {cluster.namespace} nor a node of that name",
            status=CANNOT_TELL,
        ) from None


def pod_range(source: Source, nodes: list[Node]) -> str:
    """A range by which the proxy tells that the source is a Pod or is none; "" where nodes have no Pod ranges, so that
    nobody can tell (PROXY-52)."""
    ranges = [c for n in nodes for c in n.spec.pod_cidrs or () if (":" in c) == (":" in source.address)]
    if not ranges:
        return ""
    return f"{source.address}/{128 if ':' in source.address else 32}" if source.kind == "pod" else ranges[0]


# ---------------------------------------------------------------- one real connection


async def try_live(cluster: Cluster, found: Trace, pod: Pod | None) -> dict[str, Any]:
    """Connect once from where the source is, and compare. {"result", "endpoint", "agrees", "text"}"""
    from .peek import Dial, Find, Request
    from .peeking import ask_node, pause_of

    if cluster.instance is None or cluster.record is None:
        raise Failure("--live connects from inside a node, which only instances of this machine let us", status=2)
    if found.source.kind == "outside":
        raise Failure("--live connects from a Pod or a node, not from outside", status=WRONG_USAGE)
    flow, node = found.flow, found.source.place.node
    pid = pause_of(cluster.instance, node, pod) if pod is not None and found.source.kind == "pod" else 0
    dial = Dial(flow.destination, flow.port, flow.protocol, pid)
    reply = await ask_node(cluster.instance, cluster.record, node, Request(dial=dial))
    if reply.error:
        raise Failure(f"no connection could be tried on node {node}: {reply.error}", status=CANNOT_TELL)
    if not reply.endpoint and len(found.legs) > 1:
        find = Find(flow.protocol, reply.source, reply.source_port, flow.destination, flow.port)
        there = await ask_node(cluster.instance, cluster.record, found.last.node, Request(find=find))
        reply = replace_endpoint(reply, there)
    return compare(found, reply)


def replace_endpoint(reply: Reply, other: Reply) -> Reply:
    import msgspec

    return msgspec.structs.replace(reply, endpoint=other.endpoint, endpoint_port=other.endpoint_port)


def compare(found: Trace, reply: Reply) -> dict[str, Any]:
    """What was seen, and whether that is what was said; and whether the kernel has no room for connections.

    A connection to a chosen endpoint agrees whatever the endpoint itself answered: that is not the proxy's doing.
    """
    from kubesvc.kernel.room import REMEDY
    from kubesvc.proxy.traffic import Target

    decision = found.last.decision
    endpoint = Target(reply.endpoint, reply.endpoint_port) if reply.endpoint else None
    match decision.verdict:
        case "endpoint":
            agrees = endpoint in decision.targets
        case "refuse":
            agrees = endpoint is None and reply.result in ("refused", "unreachable")
        case "drop":
            agrees = endpoint is None and reply.result in ("timeout", "sent")
        case "pass":
            agrees = endpoint is None
    went = f", to {endpoint}" if endpoint else ""
    words = {
        "connected": "connected" if found.flow.protocol == "TCP" else "answered",
        "refused": "refused" + (" by the endpoint itself" if endpoint else ""),
        "timeout": "no answer within 3 s",
        "unreachable": "unreachable",
        "sent": "sent; nothing came back within 1 s",
    }
    verdict = "as said" if agrees else "NOT as said"
    text = f"live: {words[reply.result]}{went}, from port {reply.source_port}: {verdict}"
    if not agrees and endpoint is not None:
        text += "\nnext: kubesvc rules on its Service shows what the kernel has; another program may steer traffic too"
    if reply.crowded:
        text += f"\n{reply.crowded}\nnext: {REMEDY}"
    return {
        "result": reply.result,
        "source": f"{reply.source}:{reply.source_port}",
        "endpoint": str(endpoint) if endpoint else None,
        "agrees": agrees,
        "crowded": reply.crowded,
        "text": text,
    }
