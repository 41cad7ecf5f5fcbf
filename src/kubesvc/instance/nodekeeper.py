"""The nodes of an instance, seen from its control process: made, kept running, waited for, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from kubesvc.api.kinds import NODE
from kubesvc.api.node import Node
from kubesvc.client.interface import Client
from kubesvc.clock import parse_rfc3339

from . import ground
from .leftovers import remove_groups
from .options import NodePlan, NodeProcess, UpOptions
from .paths import InstancePaths
from .record import InstanceRecord, NodeRecord, ProcessId, end_processes
from .wiring import API_ADDRESS, Host, Wiring

log = logging.getLogger(__name__)

READY_SECONDS = 30.0
RESTART_SECONDS = 1.0
DOOR_SOCKET = "node.sock"
HOST_RESOLVER = "resolv.host.conf"
"""The host's resolver file, kept beside the one that is laid over it inside the node."""


class NodesFailed(Exception):
    """The nodes did not come up. The text says what was found and what to do next."""


class NodeKeeper:
    """Everything about the nodes that the control process does.

    record: what is running; changed here, and written by `save` as soon as something new exists
    """

    def __init__(
        self, options: UpOptions, paths: InstancePaths, record: InstanceRecord, save: Callable[[], None]
    ) -> None:
        self.options = options
        self.paths = paths
        self.record = record
        self.save = save

    def node(self, name: str) -> NodeRecord:
        return next(n for n in self.record.nodes if n.name == name)

    def doors(self) -> Mapping[str, tuple[Path, str]]:
        """By name, door and address of the nodes whose process runs."""
        return {
            n.name: (self.paths.node(n.name) / DOOR_SOCKET, n.address)
            for n in self.record.nodes
            if n.agent is not None and not n.simulated
        }

    def make_grounds(self, plans: Sequence[NodePlan]) -> None:
        """Namespaces of the fabric and of every node, wired together; each recorded as soon as it exists.

        Blocks for as long as it takes; meant for a thread. Raises NodesFailed.
        """
        record, root = self.record, self.paths.root
        try:
            record.fabric = ground.spawn_fabric(root)
            self.save()
            hosts = [self.make_ground(plan, record.fabric) for plan in plans]
            ground.wire(root, record.fabric, Wiring(bridge=True, connect=tuple(hosts)))
        except ground.GroundFailed as error:
            raise NodesFailed(
                f"the nodes' namespaces cannot be made: {error}\n"
                "next: kubesvc doctor, or kubesvc up --nodes 0 for the API and the controllers alone"
            ) from None

    def make_ground(self, plan: NodePlan, fabric: ProcessId) -> Host:
        """The ground of one node; returns how it is to be connected."""
        node = NodeRecord(plan.name, plan.address, "", zone=plan.zone, simulated=plan.simulated)
        self.record.nodes.append(node)
        directory = self.paths.node(plan.name)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / HOST_RESOLVER).unlink(missing_ok=True)  # of an earlier ground
        node.ground = ground.spawn_host(self.paths.root, fabric, plan.name)
        self.save()
        return Host(
            node.ground.pid,
            plan.name,
            (f"{plan.address}/24",),
            local=(API_ADDRESS,),
            forward=True,
            # A route must exist before a rule can send a packet elsewhere.
            routes=tuple((r, "") for r in self.options.service_cluster_ip_range if ":" not in r),
        )

    async def keep(self, plan: NodePlan) -> None:
        """Keep a node's process running: started again when it ends, as an init system would."""
        node = self.node(plan.name)
        assert node.ground is not None and self.record.fabric is not None
        directory = self.paths.node(plan.name)
        told = directory / "node.json"
        told.write_bytes(msgspec.json.encode(self.process(plan)))
        program = [sys.executable, "-m", "kubesvc.nodeprocess", str(told)]
        while True:
            node.agent = await asyncio.to_thread(
                ground.spawn_inside,
                self.paths.root,
                self.record.fabric,
                node.ground,
                program,
                directory / "node.log",
            )
            self.save()
            await ended(node.agent)
            log.warning("node %s: its process ended; see %s", plan.name, directory / "node.log")
            await asyncio.sleep(RESTART_SECONDS)

    def process(self, plan: NodePlan) -> NodeProcess:
        """What the process of this node is told."""
        options, paths = self.options, self.paths
        return NodeProcess(
            node_name=plan.name,
            address=plan.address,
            state_dir=str(paths.node(plan.name)),
            api_socket=str(paths.api_socket),
            api_tls_socket=str(paths.api_tls_socket),
            api_port=self.record.port,
            zone=plan.zone,
            simulated=plan.simulated,
            cluster_dns=options.dns_address,
            cluster_domain=options.cluster_domain,
            cluster_cidrs=options.cluster_cidr,
            service_ranges=options.service_cluster_ip_range,
            images_map=options.images_map,
            instance_root=str(paths.root),
            dns_socket=str(paths.dns_socket),
        )

    async def ready(self, client: Client, plans: Sequence[NodePlan]) -> None:
        """Wait until every node says Ready and has its pod addresses. Raises NodesFailed naming those that did not."""
        missing = {p.name for p in plans}
        decoder = msgspec.json.Decoder(Node)
        try:
            async with (
                asyncio.timeout(READY_SECONDS),
                contextlib.aclosing(client.watch(NODE, initial_events=True)) as events,
            ):
                async for event in events:
                    if event.type == "BOOKMARK":
                        continue
                    node = decoder.decode(event.object)
                    if node.name in missing and node.spec.pod_cidr and self.says_ready(node):
                        self.node(node.name).pod_cidr = node.spec.pod_cidr
                        missing.discard(node.name)
                    if not missing:
                        return
        except TimeoutError:
            logs = ", ".join(str(self.paths.node(n) / "node.log") for n in sorted(missing))
            raise NodesFailed(
                f"not ready after {READY_SECONDS:.0f} s: {', '.join(sorted(missing))}\nnext: see {logs}"
            ) from None

    def says_ready(self, node: Node) -> bool:
        """Whether Ready was said by the process running now, and not by one before it."""
        condition = node.status.condition("Ready")
        if condition is None or condition.status != "True":
            return False
        beat = condition.last_heartbeat_time or condition.last_transition_time
        return beat is not None and parse_rfc3339(beat) >= int(self.record.started)

    async def end(self) -> None:
        """End every process of every node, with all that runs there, and of hosts outside."""
        control = self.record.control
        doomed = [p for p in self.record.processes() if control is None or p.pid != control.pid]
        await asyncio.to_thread(end_processes, doomed)
        left = await asyncio.to_thread(ground.marked_processes, self.paths.root)
        if left:
            await asyncio.to_thread(end_processes, left)
        await asyncio.to_thread(remove_groups, self.paths)
        for door in self.paths.root.glob("nodes/*/*.sock"):
            door.unlink(missing_ok=True)


async def ended(process: ProcessId) -> None:
    """Wait until a process, child or not, has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        if process.alive():
            await done.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
