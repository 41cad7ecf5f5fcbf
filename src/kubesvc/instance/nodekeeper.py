"""The nodes of an instance, seen from its control process: made, kept running, waited for, ended."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from kubesvc.api.kinds import NODE
from kubesvc.api.node import Node
from kubesvc.client.interface import Client
from kubesvc.clock import parse_rfc3339

from . import ground
from .leftovers import RUNTIME_RECORD, remove_containers, remove_groups
from .options import NodePlan, NodeProcess, UpOptions, addresses_of
from .paths import InstancePaths
from .record import InstanceRecord, NodeRecord, NodeState, ProcessId, end_processes, read_outside
from .wiring import Balanced, Host, Wiring, api_addresses, router_addresses

T = TypeVar("T")

log = logging.getLogger(__name__)

READY_SECONDS = 90.0
"""How long nodes may take, which on a busy machine is long; one that never comes says why in its log."""
RESTART_SECONDS = 1.0
DOOR_SOCKET = "node.sock"
API_SOCKET, API_TLS_SOCKET = "api.sock", "api-tls.sock"
PROXY_API_SOCKET, DNS_API_SOCKET = "api-net.sock", "api-dns.sock"
"""A node's own ways to the API server, so that one node can be cut off from it; one for each part of it, which is known
by it for what it is."""
HOST_RESOLVER = "resolv.host.conf"
"""The host's resolver file, kept beside the one that is laid over it inside the node."""


class NodesFailed(Exception):
    """The nodes did not come up. The text says what was found and what to do next."""


class Uplinks(Protocol):
    """The nodes' ways to the API server."""

    async def open(self, name: str) -> None:
        """Let this node in, by the sockets in its directory; nothing if it already is."""
        ...

    async def cut(self, name: str) -> None:
        """Let it in no more, and end what it has open, without a word to it."""
        ...


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
        self.uplinks: Uplinks | None = None
        self.powered: dict[str, asyncio.Event] = {}
        self.turn = asyncio.Lock()
        self.threads: set[asyncio.Future[Any]] = set()
        """What makes processes at this moment."""

    def node(self, name: str) -> NodeRecord:
        return next(n for n in self.record.nodes if n.name == name)

    def doors(self) -> Mapping[str, tuple[Path, str]]:
        """By name, door and address of the nodes whose process runs."""
        return {
            n.name: (self.paths.node(n.name) / DOOR_SOCKET, n.address)
            for n in self.record.nodes
            if n.agent is not None and not n.simulated and n.state == "running"
        }

    async def in_thread(self, make: Callable[..., T], *given: Any) -> T:
        """Call what makes processes and blocks. Who is cancelled meanwhile leaves it to `end`: the thread goes on, and
        what it makes must be known before everything can be ended."""
        making = asyncio.ensure_future(asyncio.to_thread(make, *given))
        self.threads.add(making)
        making.add_done_callback(self.threads.discard)
        return await asyncio.shield(making)

    def make_grounds(self, plans: Sequence[NodePlan]) -> None:
        """Namespaces of the fabric and of every node, wired together; each recorded as soon as it exists.

        Blocks for as long as it takes; meant for a thread. Raises NodesFailed.
        """
        record, root = self.record, self.paths.root
        router = router_addresses(six=any(":" in cidr for cidr in self.options.cluster_cidr))
        try:
            record.fabric = ground.spawn_fabric(root)
            self.save()
            hosts = [self.make_ground(plan, record.fabric) for plan in plans]
            ground.wire(root, record.fabric, Wiring(bridge=router, connect=tuple(hosts)))
        except ground.GroundFailed as error:
            raise NodesFailed(
                f"the nodes' namespaces cannot be made: {error}\n"
                "next: kubesvc doctor, or kubesvc up --nodes 0 for the API and the controllers alone"
            ) from None

    def make_ground(self, plan: NodePlan, fabric: ProcessId) -> Host:
        """The ground of one node; returns how it is to be connected."""
        node = next((n for n in self.record.nodes if n.name == plan.name), None)
        if node is None:
            node = NodeRecord(plan.name, plan.address, "", zone=plan.zone, simulated=plan.simulated)
            self.record.nodes.append(node)
        own = addresses_of(plan.address, self.options.cluster_cidr)
        outside = [str(ipaddress.ip_interface(a).ip) for o in read_outside(self.paths.outside) for a in o.addresses]
        directory = self.paths.node(plan.name)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / HOST_RESOLVER).unlink(missing_ok=True)  # of an earlier ground
        node.ground = ground.spawn_host(self.paths.root, fabric, plan.name)
        self.save()
        return Host(
            node.ground.pid,
            plan.name,
            tuple(f"{a}/64" if ":" in a else f"{a}/24" for a in own),
            local=api_addresses(six=len(own) > 1),
            forward=True,
            # A route must exist before a rule can send a packet elsewhere.
            routes=tuple(
                (r, "")
                for r in (*self.options.service_cluster_ip_range, *self.options.load_balancer_range, *outside)
                if ":" not in r or len(own) > 1
            ),
        )

    def balance(self, balanced: tuple[Balanced, ...]) -> None:
        """Route load balancers' addresses to nodes. Blocks; raises GroundFailed, a RuntimeError, if it cannot."""
        assert self.record.fabric is not None
        ground.wire(self.paths.root, self.record.fabric, Wiring(balance=balanced))

    async def keep(self, plan: NodePlan) -> None:
        """Keep a node's process running while the node has power, started again when it ends."""
        node = self.node(plan.name)
        assert self.record.fabric is not None and self.uplinks is not None
        power = self.powered.setdefault(plan.name, asyncio.Event())
        power.set()
        await self.uplinks.open(plan.name)
        directory = self.paths.node(plan.name)
        told = directory / "node.json"
        told.write_bytes(msgspec.json.encode(self.process(plan)))
        program = [sys.executable, "-m", "kubesvc.nodeprocess", str(told)]
        while True:
            await power.wait()
            assert node.ground is not None
            here = node.ground
            try:
                node.agent = await self.in_thread(self.spawn_agent, node, program, directory)
            except ground.GroundFailed as error:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESTART_SECONDS):
                        await ended(here)
                if node.state != "stopped" and node.ground == here:
                    if here.alive():
                        raise
                    # Somebody killed it. Such a node is as one without power, which `start` gives it again.
                    log.warning("node %s: its namespaces are gone; next: kubesvc nodes start %s", node.name, node.name)
                    log.info("node %s: %s", node.name, error)
                    power.clear()
                    self.become(node, "stopped")
                continue
            self.save()
            if node.state == "stopped" or node.ground != here:  # meanwhile; a process beside its ground outlives that
                await asyncio.to_thread(end_processes, [node.agent])
            await ended(node.agent)
            if node.state == "stopped":
                continue
            log.warning("node %s: its process ended; see %s", plan.name, directory / "node.log")
            await asyncio.sleep(RESTART_SECONDS)

    def spawn_agent(self, node: NodeRecord, program: Sequence[str], directory: Path) -> ProcessId:
        """Start a node's process: inside the node, or beside it where a container runtime of the host must be seen."""
        root, fabric, log_file = self.paths.root, self.record.fabric, directory / "node.log"
        assert node.ground is not None and fabric is not None
        if not self.options.runtime or node.simulated:
            return ground.spawn_inside(root, fabric, node.ground, program, log_file)
        (directory / RUNTIME_RECORD).write_text(self.options.runtime)
        return ground.spawn_beside(root, node.ground, [*program, str(node.ground.pid)], log_file)

    def process(self, plan: NodePlan) -> NodeProcess:
        """What the process of this node is told."""
        options, paths = self.options, self.paths
        return NodeProcess(
            node_name=plan.name,
            address=plan.address,
            addresses=addresses_of(plan.address, options.cluster_cidr),
            state_dir=str(paths.node(plan.name)),
            api_socket=str(paths.node(plan.name) / API_SOCKET),
            proxy_api_socket=str(paths.node(plan.name) / PROXY_API_SOCKET),
            dns_api_socket=str(paths.node(plan.name) / DNS_API_SOCKET),
            api_tls_socket=str(paths.node(plan.name) / API_TLS_SOCKET),
            api_port=self.record.port,
            zone=plan.zone,
            simulated=plan.simulated,
            cluster_dns=options.dns_address,
            cluster_domain=options.cluster_domain,
            cluster_cidrs=options.cluster_cidr,
            service_ranges=options.service_cluster_ip_range,
            proxy_mode=options.proxy_mode,
            images_map=options.images_map,
            instance_root=str(paths.root),
            dns_socket=str(paths.dns_socket),
            pull_socket="" if options.images == "offline" else str(paths.pull_socket),
            registries_first=options.images == "registries",
            runtime=options.runtime,
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
                        here = self.node(node.name)
                        here.pod_cidr, here.pod_cidrs = node.spec.pod_cidr, list(node.spec.pod_cidrs or ())
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

    # -- what somebody does to a node ---------------------------------------------------------------------------------

    async def stop(self, name: str) -> str:
        """Take a node's power: every process of it is gone at once, and its network with it. Says what that means."""
        async with self.turn:
            node = self.must_be(name, "running", "partitioned")
            self.powered[name].clear()
            self.become(node, "stopped")
            await asyncio.to_thread(end_processes, [p for p in (node.ground, node.agent) if p is not None])
            if self.uplinks is not None:
                await self.uplinks.cut(name)
            await asyncio.to_thread(remove_containers, self.paths, name)
            await asyncio.to_thread(remove_groups, self.paths, name)
        return f"node {name} has no power; its Pods are gone, and the cluster will learn it by missing heartbeats"

    async def start(self, name: str) -> str:
        """Give a stopped node power again: it boots, and runs what is still bound to it."""
        async with self.turn:
            node = self.must_be(name, "stopped")
            assert self.record.fabric is not None and self.uplinks is not None
            plan = NodePlan(node.name, node.address, node.zone, node.simulated)
            await self.uplinks.open(name)
            try:
                host = await asyncio.to_thread(self.make_ground, plan, self.record.fabric)
            except ground.GroundFailed as error:
                raise NodesFailed(f"the namespaces of node {name} cannot be made: {error}") from None
            try:
                await self.wire(Wiring(connect=(host,)))
            except NodesFailed:  # without a network it is as good as off, and may be started again
                await asyncio.to_thread(end_processes, [p for p in (node.ground,) if p is not None])
                raise
            self.become(node, "running")
            self.powered[name].set()
        return f"node {name} has power; it boots and takes up the Pods that are bound to it"

    async def partition(self, name: str) -> str:
        """Cut a node off from the others and from the API; what runs there goes on."""
        async with self.turn:
            node = self.must_be(name, "running")
            await self.wire(Wiring(cut=(name,)))
            self.become(node, "partitioned")
            if self.uplinks is not None:
                await self.uplinks.cut(name)
        return f"node {name} is cut off from the other nodes and from the API; its Pods go on running"

    async def heal(self, name: str) -> str:
        """Undo `partition`."""
        async with self.turn:
            node = self.must_be(name, "partitioned")
            await self.wire(Wiring(join=(name,)))
            self.become(node, "running")
            if self.uplinks is not None:
                await self.uplinks.open(name)
        return f"node {name} is connected again"

    def must_be(self, name: str, *states: NodeState) -> NodeRecord:
        """The node, which must be in one of these states. NodesFailed if it is not, or if there is no such node."""
        node = next((n for n in self.record.nodes if n.name == name), None)
        if node is None or name not in self.powered:
            there = ", ".join(n.name for n in self.record.nodes) or "none"
            raise NodesFailed(f"there is no node {name!r}; the nodes are: {there}")
        if node.state not in states:
            step = {"stopped": "start", "partitioned": "heal"}.get(node.state)
            raise NodesFailed(f"node {name} is {node.state}" + (f"\nnext: kubesvc nodes {step} {name}" if step else ""))
        return node

    def become(self, node: NodeRecord, state: NodeState) -> None:
        node.state = state
        self.save()

    async def wire(self, wiring: Wiring) -> None:
        assert self.record.fabric is not None
        try:
            await asyncio.to_thread(ground.wire, self.paths.root, self.record.fabric, wiring)
        except ground.GroundFailed as error:
            raise NodesFailed(f"the network between the nodes could not be changed: {error}") from None

    async def end(self) -> None:
        """End every process of every node, with all that runs there, and of hosts outside."""
        control = self.record.control
        doomed = [p for p in self.record.processes() if control is None or p.pid != control.pid]
        await asyncio.to_thread(end_processes, doomed)
        await asyncio.gather(*self.threads, return_exceptions=True)
        left = await asyncio.to_thread(ground.marked_processes, self.paths.root)
        if left:
            await asyncio.to_thread(end_processes, left)
        await asyncio.to_thread(remove_containers, self.paths)
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
