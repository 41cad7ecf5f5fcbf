"""Show the kernel's rules of one Service on one node, each with what it means.

  kubesvc rules svc/web                 on the first node
  kubesvc rules svc/web --node n2
  kubesvc rules svc/web --json
  kubesvc rules svc/web --forget-stale  let the kernels forget UDP flows to endpoints that are none any more

On a cluster whose nodes are not on this machine the kernel cannot be read; then the rules are shown that kubesvc's own
proxy would write there. Exit status: 0 rules are shown, 1 the kernel has none of this Service though it should, 2
cannot tell, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING

from . import WRONG_USAGE, Failure
from .cluster import CANNOT_TELL, Cluster, asking_cluster
from .target import add_target, no_service

if TYPE_CHECKING:
    from kubesvc.api.endpointslice import EndpointSlice
    from kubesvc.api.service import Service
    from kubesvc.proxy.rules import Line
    from kubesvc.proxy.traffic import Place, PortTraffic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="svc/NAME", help="whose rules")
    parser.add_argument("--node", default="", metavar="NODE", help="on which node (default: the first)")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="where the Service is")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--forget-stale", action="store_true",
        help="on every node, or that of --node, forget UDP flows of the Service to what is none of its endpoints",
    )  # fmt: skip
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(show(args))


async def show(args: argparse.Namespace) -> int:
    async with asking_cluster(args, "kubesvc-rules") as cluster:
        return await answer(args, cluster)


async def answer(args: argparse.Namespace, cluster: Cluster) -> int:
    from kubesvc.proxy.rules import render

    kind, slash, name = args.service.partition("/")
    if slash and kind not in ("svc", "service", "services"):
        raise Failure(f"{args.service}: must be svc/NAME", status=WRONG_USAGE)
    service, slices, place = await read(args, cluster, name if slash else kind)
    if args.forget_stale:
        return await forget(args, cluster, service, slices)
    ports = ports_of(service, slices, place)
    if not ports:
        raise Failure(f"svc/{service.name} has no cluster IP, so no proxy has rules for it", status=CANNOT_TELL)
    fronts = fronts_of(ports, place)
    lines, source = await kernel_lines(cluster, place, fronts)
    if lines is None:
        lines, source = planned_lines(service, ports, place, fronts), "planned"
        if not args.json:
            print(
                f"kubesvc rules: the kernel of node {place.node} cannot be read from here; these are the rules that "
                "kubesvc's own proxy would write there",
                file=sys.stderr,
            )
    missing = [f"{a}:{p}/{proto}" for a, p, proto in fronts if f"{a}:{p}/{proto}" not in {x.front for x in lines}]
    if args.json:
        listed = [{"front": x.front, "place": x.place, "text": x.text, "meaning": x.meaning} for x in lines]
        print(json.dumps({"node": place.node, "source": source, "rules": listed, "missing": missing}, indent=2))
    else:
        if lines:
            print(render(lines))
        for front in missing:
            print(f"{front}: the kernel has no rule\nnext: kubesvc why svc/{service.name} -n {service.namespace}")
    return 1 if missing else 0


async def forget(args: argparse.Namespace, cluster: Cluster, service: Service, slices: list[EndpointSlice]) -> int:
    """Forget stale flows, and say which."""
    from .sights import forget_stale

    if cluster.instance is None or cluster.record is None:
        raise Failure("flows can be forgotten only on nodes of an instance of this machine", status=CANNOT_TELL)
    found = await forget_stale(cluster.instance, cluster.record, service, slices, args.node)
    wanted = [args.node] if args.node else [n.name for n in cluster.record.nodes if not n.simulated]
    if args.json:
        print(json.dumps({"forgotten": found}, indent=2))
    else:
        for node, flows in found.items():
            print(f"node {node}: {'; '.join(flows) + ': forgotten' if flows else 'no stale flow'}")
    if missing := [node for node in wanted if node not in found]:
        print(f"kubesvc rules: the flows of node {', '.join(missing)} could not be changed from here", file=sys.stderr)
        return CANNOT_TELL
    return 0


async def read(args: argparse.Namespace, cluster: Cluster, name: str) -> tuple[Service, list[EndpointSlice], Place]:
    """The Service, its slices, and where the node stands."""
    from kubesvc.api.errors import NotFound
    from kubesvc.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
    from kubesvc.api.meta import typed
    from kubesvc.api.service import Service
    from kubesvc.proxy.sync import place_of
    from kubesvc.proxy.traffic import LABEL_HEADLESS, LABEL_SERVICE_NAME
    from kubesvc.why.collect import Reader

    try:
        service = typed(await cluster.client.get(SERVICE, name, cluster.namespace), Service)
    except NotFound:
        raise no_service(args, name, cluster.namespace, status=CANNOT_TELL) from None
    reader = Reader(cluster.client)
    labels = f"{LABEL_SERVICE_NAME}={name},!{LABEL_HEADLESS}"
    slices = [o for _, o in await reader.read(ENDPOINT_SLICE, cluster.namespace, labels=labels)]
    nodes = {o.name: o for _, o in await reader.read(NODE)}
    if reader.gaps:
        raise Failure("; ".join(map(str, reader.gaps.values())), status=CANNOT_TELL)
    real = [n.name for n in cluster.record.nodes if not n.simulated] if cluster.record else []
    node = args.node or next((n for n in (*real, *sorted(nodes)) if n in nodes), "")
    if node not in nodes:
        raise Failure(f"no node {node!r}; there are {', '.join(sorted(nodes)) or 'none'}", status=WRONG_USAGE)
    return service, slices, place_of(node, nodes[node])  # type: ignore[return-value, arg-type]


def ports_of(service: Service, slices: list[EndpointSlice], place: Place) -> list[PortTraffic]:
    from kubesvc.proxy.traffic import plan_service

    return [p for family in ("IPv4", "IPv6") for p in plan_service(service, slices, place, family)]


def fronts_of(ports: list[PortTraffic], place: Place) -> list[tuple[str, int, str]]:
    """Every front once: cluster IPs, then the addresses outsiders use, then node ports at the node's own address."""
    from kubesvc.proxy.fronts import claims_of

    found: dict[tuple[str, int, str], None] = {}
    for port in ports:
        own = [a for a in place.addresses if (":" in a) == (":" in port.cluster_ip)][:1]
        found |= {(claim.address, claim.port, port.name.protocol): None for claim in claims_of(port, own)}
    return list(found)


async def kernel_lines(
    cluster: Cluster, place: Place, fronts: list[tuple[str, int, str]]
) -> tuple[list[Line] | None, str]:
    """What the kernel of the node has, None where it cannot be read."""
    import msgspec

    from kubesvc.proxy.rules import Line

    from .peek import Request
    from .peeking import ask_node

    record = cluster.record
    if cluster.instance is None or record is None:
        return None, ""
    if place.node not in {n.name for n in record.nodes if not n.simulated}:
        return None, ""
    reply = await ask_node(cluster.instance, record, place.node, Request(rules=fronts))
    if reply.error:
        raise Failure(f"the rules of node {place.node} cannot be read: {reply.error}", status=CANNOT_TELL)
    return msgspec.convert(reply.rules, list[Line]), "kernel"


def planned_lines(
    service: Service, ports: list[PortTraffic], place: Place, fronts: list[tuple[str, int, str]]
) -> list[Line]:
    """What our own proxy would write."""
    from kubesvc.proxy.frame import FrameOptions
    from kubesvc.proxy.nftables import Ruleset
    from kubesvc.proxy.rules import lines_of

    tables = []
    for family in ("IPv4", "IPv6"):
        mine = [p for p in ports if (":" in p.cluster_ip) == (family == "IPv6")]
        own = [a for a in place.addresses if (":" in a) == (family == "IPv6")][:1]
        ruleset = Ruleset(FrameOptions(family), own)
        ruleset.change({(service.namespace, service.name): mine})
        tables.append(ruleset.table())
    return lines_of(tables, fronts)
