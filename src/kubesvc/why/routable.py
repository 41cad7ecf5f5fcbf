"""How far a Service has come: listed, programmed, answering. Pure, over a snapshot and what was seen in the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.service import Service
from kubesvc.proxy.traffic import PortTraffic, Target

from . import reach, witness
from .commands import some
from .snapshot import Snapshot

Stage = Literal["listed", "programmed", "routable"]
STAGES: tuple[Stage, ...] = ("listed", "programmed", "routable")
"""Each includes those before it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """done: whether the stage asked for is reached; text: what is so, or what is still missing.

    blind: what is missing cannot be seen from here, so that waiting will not help by itself
    why: the verdict of `kubesvc why`, where somebody asked for it; "" if it knows no cause
    """

    done: bool
    text: str
    blind: bool = False
    why: str = ""


def judge(service: Service | None, snapshot: Snapshot, stage: Stage, knocked: dict[str, str] | None = None) -> Progress:
    """Whether a Service has reached a stage.

    knocked: what connections from here to the Service's own address met, by `ADDRESS:PORT`, where nobody can look into
             the nodes; None if nobody knocked
    """
    if service is None:
        return Progress(False, "it does not exist")
    if service.spec.type == "ExternalName":
        return Progress(False, "it is an alias (ExternalName), which nothing lists and no rule leads to", True)
    slices = list(snapshot.slices.get((service.namespace, service.name), ()))
    if not snapshot.knows(ENDPOINT_SLICE):
        return Progress(False, "endpointslices may not be listed", True)
    if service.headless:
        ready = sorted({e.address for s in slices for e in s.endpoints or () if e.ready})
        if not ready:
            return Progress(False, "no ready endpoint is listed")
        return answering(service, snapshot, stage, f"listed: {some(ready)}")
    ports = reach.planned_ports(service, slices, reach.place_of(None))
    bare = [front_text(p) for p in ports if not p.usable]
    if not ports or bare:
        return Progress(False, f"no ready endpoint is listed for port {', '.join(bare) or 'any'}")
    listed = f"listed: {some(sorted({str(t) for p in ports for t in p.cluster or p.serving}))}"
    if not any(e.ready for s in slices for e in s.endpoints or ()):
        listed += " (all of them terminating, none ready)"
    if stage == "listed":
        return Progress(True, listed)
    if not snapshot.sights:
        return from_here(ports, stage, listed, knocked)
    for sight in snapshot.sights:
        if sight.state != "running":
            return Progress(False, f"the process of node {sight.node} does not run")
        if sight.unseen:
            return Progress(False, f"node {sight.node} could not be looked into: {sight.unseen}")
        if sight.refused:
            return Progress(False, f"the kernel of node {sight.node} does not take its rules: {sight.refused}")
        if sight.rules is None and stage == "programmed":
            return Progress(False, f"the rules of node {sight.node} are not read in its mode; try --routable", True)
        if witness.differences(service, slices, snapshot, sight):
            return Progress(False, f"the rules of node {sight.node} do not lead there yet")
    programmed = f"{listed}; programmed on {some([s.node for s in snapshot.sights])}"
    if stage == "programmed":
        return Progress(True, programmed)
    return answering(service, snapshot, stage, programmed, ports)


def front_text(port: PortTraffic) -> str:
    return f"{port.port}/{port.name.protocol}"


def answering(
    service: Service, snapshot: Snapshot, stage: Stage, so_far: str, ports: list[PortTraffic] | None = None
) -> Progress:
    """The last stage: every TCP target and, from every node, every TCP front accepts connections."""
    if stage != "routable":
        return Progress(True, so_far)
    if not snapshot.sights:
        return Progress(False, f"{so_far}; whether they answer cannot be seen from here", True)
    slices = list(snapshot.slices.get((service.namespace, service.name), ()))
    heard = witness.replies(snapshot)
    wanted = {str(t) for _, t in witness.targets_of(service, slices, snapshot)}
    unseen = [f"node {s.node} ({s.unseen})" for s in snapshot.sights if s.unseen]
    if unseen or (wanted and not wanted & heard.keys()):
        return Progress(False, f"{so_far}; nobody could look into {some(unseen) or 'any node'}")
    mute = sorted(t for t in wanted if t in heard and heard[t] != "open")
    if mute:
        return Progress(False, f"{so_far}; {some([f'{t} is {heard[t]}' for t in mute])}")
    fronts = {str(Target(p.cluster_ip, p.port)) for p in ports or () if p.name.protocol == "TCP"}
    for sight in snapshot.sights:
        closed = sorted(f for f in fronts if sight.answers.get(f) != "open")
        if closed:
            return Progress(False, f"{so_far}; {some(closed)} does not answer from node {sight.node}")
    if not wanted:
        return Progress(True, f"{so_far}; no TCP port to try")
    return Progress(True, f"{so_far}; answers")


def from_here(ports: list[PortTraffic], stage: Stage, listed: str, knocked: dict[str, str] | None) -> Progress:
    """Where nobody can look into nodes: the address itself was tried from here, and an answer proves all."""
    fronts = sorted(str(Target(p.cluster_ip, p.port)) for p in ports if p.name.protocol == "TCP")
    if knocked and fronts and all(knocked.get(f) == "open" for f in fronts):
        return Progress(True, f"{listed}; {some(fronts)} answers from here")
    return Progress(False, f"{listed}; whether it is {stage} cannot be seen from here", True)
