"""Looks into the nodes of an instance of this machine, for `why` and `wait`: what `kubesvc.why.sight` holds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from kubesvc.api.endpointslice import ENDPOINT_SLICE, EndpointSlice
from kubesvc.api.service import Service
from kubesvc.instance.options import second_address
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.proxyreport import ProxyReport, read_ports, read_report
from kubesvc.instance.record import InstanceRecord, NodeRecord, ProcessId
from kubesvc.kernel.conntrack import Flow
from kubesvc.proxy.flows import plan_stale
from kubesvc.why import naming, reach, witness
from kubesvc.why.listing import list_service
from kubesvc.why.ports import declared_ports
from kubesvc.why.sight import NodeState, Reply, Sight
from kubesvc.why.snapshot import Snapshot

from .asking import ask_inside
from .insight import Answers, Front, Questions, place, seen_of

PATIENCE_SECONDS = 15.0
"""How long a look into one node may take, all in all; on a busy machine its program needs seconds to begin."""
MOST_NODES = 8
"""Nodes that are looked into for one answer: each costs a process of a few tenths of a second."""
MOST_CONNECTIONS = 60
FAILURES: dict[str, Literal["", "off", "cut off"]] = {"running": "", "stopped": "off", "partitioned": "cut off"}
"""What a node's state in the record means for what is seen there."""


def state_of(process: ProcessId | None) -> NodeState:
    """Whether a process runs, is stopped, or is gone."""
    if process is None or not process.alive():
        return "gone"
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        if stat[stat.rindex(")") + 2] in "Tt":
            return "stopped"
    return "running"


async def look_into(
    paths: InstancePaths,
    record: InstanceRecord,
    service: Service,
    snapshot: Snapshot,
    node: str = "",
    *,
    knock: bool = False,
    patience_seconds: float = 0.7,
    most_seconds: float = PATIENCE_SECONDS,
) -> Snapshot:
    """The snapshot with what was seen in the instance's real nodes about one Service.

    patience_seconds: how long each answer is waited for
    most_seconds: how long each look may take, all in all
    knock: from every node also connect to the Service's own ClusterIP and TCP ports
    Nodes that cannot be looked into are left out; nothing is changed anywhere.
    """
    real = [n for n in record.nodes if not n.simulated and (not node or n.name == node)][:MOST_NODES]
    asker = next((n for n in real if n.state == "running"), None)
    slices = stored(service, snapshot)

    def asked(node: NodeRecord) -> Questions:
        found = questions_for(service, slices, snapshot, node, connects=node is asker, knock=knock)
        return msgspec.structs.replace(found, seconds=patience_seconds)

    seen = await asyncio.gather(
        *(look_into_one(paths, record, n, asked(n), service, slices, most_seconds) for n in real)
    )
    return dataclasses.replace(snapshot, sights=tuple(seen))


def stored(service: Service, snapshot: Snapshot) -> list[EndpointSlice]:
    return list(snapshot.slices.get((service.namespace, service.name), ()))


def questions_for(
    service: Service,
    slices: Sequence[EndpointSlice],
    snapshot: Snapshot,
    node: NodeRecord,
    *,
    connects: bool,
    knock: bool = False,
) -> Questions:
    """What to ask in one node; connections are tried from one node only, since the others would say the same."""
    knows = snapshot.knows(ENDPOINT_SLICE)
    ports = reach.planned_ports(service, slices, reach.place_of(snapshot.nodes.get(node.name))) if knows else []
    fronts = [Front(p.cluster_ip, p.port, p.name.protocol) for p in ports]
    connect: dict[tuple[str, int], None] = {}
    if connects:
        targets = [t for _, t in witness.targets_of(service, slices, snapshot)]
        connect |= dict.fromkeys((t.address, t.port) for t in targets)
        if service.spec.selector:
            for pod in list_service(service, snapshot).pods:
                mine = [t for t in targets if t.address in pod.ips]
                connect |= dict.fromkeys(
                    (t.address, p.container_port)
                    for t in mine for p in declared_ports(pod) if (p.protocol or "TCP") == "TCP"
                )  # fmt: skip
    if knock:
        connect |= dict.fromkeys((f.address, f.port) for f in fronts if f.protocol == "TCP")
    external = service.spec.type == "ExternalName"
    return Questions(
        own=node.address,
        own_6=second_address(node.address),
        connect=list(connect)[:MOST_CONNECTIONS],
        fronts=fronts,
        name="" if external else f"{service.name}.{service.namespace}.svc.{naming.ZONE.text}.",
        type_=witness.record_type(service),
        flows=[f for f in fronts if f.protocol == "UDP"],
    )


async def look_into_one(
    paths: InstancePaths,
    record: InstanceRecord,
    node: NodeRecord,
    questions: Questions,
    service: Service,
    slices: Sequence[EndpointSlice],
    most_seconds: float,
) -> Sight:
    """One node; where nobody can look into it, at least how its process is."""
    state = state_of(node.agent)
    report = read_report(paths.node(node.name))
    if report is not None and report.mode != "nftables":  # other modes' rules are not read; connections tell as much
        questions = msgspec.structs.replace(questions, fronts=[])
    refused = refusal(paths, node, report, f"{service.namespace}/{service.name}")
    pid = node.agent.pid if node.agent and state != "gone" else 0
    answers = await ask_node(paths, record, node, questions, most_seconds)
    if answers is None:
        there = node.ground is not None and node.ground.alive()
        unseen = f"no whole answer within {most_seconds:g} s" if there else ""
        return Sight(node.name, state, pid, refused=refused, failure=FAILURES[node.state], unseen=unseen)
    replies: dict[str, Reply] = {p: r for p, r in answers.connect.items() if r in ("open", "refused", "silent")}  # type: ignore[misc]
    dns = answers.dns if state == "running" else ""
    return Sight(
        node.name,
        state,
        pid,
        replies,
        None if answers.rules is None else {f: tuple(t) for f, t in answers.rules.items()},
        dns if dns in ("silent", "answers") else "",  # type: ignore[arg-type]
        tuple(answers.records),
        tuple(map(flow_text, stale_flows(service, slices, answers))),
        refused,
        FAILURES[node.state],
    )


def refusal(paths: InstancePaths, node: NodeRecord, report: ProxyReport | None, key: str) -> str:
    """Why the node's proxy has not what a Service, `namespace/name`, wants; "" if it has."""
    if report is None:
        return ""
    if report.mode == "userspace":
        failed = [p for p in read_ports(paths.node(node.name)) if p.get("service") == key and p.get("error")]
        return "; ".join(f"{p['front']}/{p['protocol']}: {p['error']}" for p in failed)
    return next((t for k, t in report.refused.items() if k.partition(" ")[2] == key), "")


async def ask_node(
    paths: InstancePaths,
    record: InstanceRecord,
    node: NodeRecord,
    questions: Questions,
    seconds: float = PATIENCE_SECONDS,
) -> Answers | None:
    """Ask the questions inside a node's namespaces; None if that fails or takes too long."""
    if record.fabric is None or node.ground is None or not node.ground.alive():
        return None
    asked = msgspec.json.encode(questions)
    try:
        said, _ = await ask_inside(paths, record, node.ground, "kubesvc.cli.insight", asked, seconds)
        return msgspec.json.decode(said, type=Answers)
    except (TimeoutError, msgspec.MsgspecError):
        return None


def stale_flows(service: Service, slices: Sequence[EndpointSlice], answers: Answers) -> list[Flow]:
    """UDP flows whose answers come from no endpoint (PROXY-73)."""
    flows = [
        Flow(f.source, f.source_port, f.destination, f.destination_port, f.reply_source, f.reply_source_port)
        for f in answers.flows
    ]
    by_family: dict[int, list[Flow]] = {}
    for f in flows:
        by_family.setdefault(socket.AF_INET6 if ":" in f.source else socket.AF_INET, []).append(f)
    ports = reach.planned_ports(service, slices, reach.place_of(None))
    return [f for listed in by_family.values() for f in plan_stale(listed, ports)]


def flow_text(flow: Flow) -> str:
    """Who sends to which front, and where it arrives."""
    ends = (flow.source, flow.source_port), (flow.destination, flow.destination_port)
    said, asked, arrived = (place(*end) for end in (*ends, (flow.reply_source, flow.reply_source_port)))
    return f"{said} to {asked} goes to {arrived}"


async def forget_stale(
    paths: InstancePaths, record: InstanceRecord, service: Service, slices: Sequence[EndpointSlice], node: str = ""
) -> dict[str, list[str]]:
    """Have the kernels of the real nodes, or of one, forget the UDP flows of a Service that go to no endpoint of it.

    Returns what was forgotten, in words, by node; nodes where that failed, or that nobody can look into, are left out.
    """
    found: dict[str, list[str]] = {}
    for n in record.nodes:
        if n.simulated or (node and n.name != node):
            continue
        ports = reach.planned_ports(service, slices, reach.place_of(None))
        fronts = [Front(p.cluster_ip, p.port, p.name.protocol) for p in ports if p.name.protocol == "UDP"]
        answers = await ask_node(
            paths, record, n, Questions(own=n.address, own_6=second_address(n.address), flows=fronts)
        )
        if answers is None or record.fabric is None or n.ground is None:
            continue
        stale = stale_flows(service, slices, answers)
        if stale:
            asked = msgspec.json.encode([seen_of(f) for f in stale])
            said, _ = await ask_inside(paths, record, n.ground, "kubesvc.cli.forgetting", asked, PATIENCE_SECONDS)
            if not said:
                continue
        found[n.name] = [flow_text(f) for f in stale]
    return found
