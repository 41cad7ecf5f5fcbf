"""The node agent: accepts the Pods that are bound to its node and gives each a worker; keeps Node and routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable

from kubesvc.api.errors import ApiError
from kubesvc.api.kinds import NODE, POD, SERVICE
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client import Client, Informer, Unreachable, loudness
from kubesvc.clock import Clock, Random
from kubesvc.kernel.cgroups import Cgroups, explain_limits, find_hierarchies
from kubesvc.kernel.ids import read_ids
from kubesvc.kernel.links import Links, Route
from kubesvc.kernel.mounts import overlay_options, read_carried_mounts
from kubesvc.kernel.nft import KernelNft
from kubesvc.kernel.process import Spawner, StillRunning, WatchedProcess, end_for_good

from .context import NodeContext
from .door import SOCKET_NAME, NodeDoor
from .events import NodeEvents
from .hostports import HostPorts
from .ipam import AddressPool
from .localvolumes import DIRECTORY, LocalVolumes
from .metrics import NodeState, render_node, render_probes
from .native import NativeRuntime
from .nodestatus import NodeKeeper
from .podworker import PodWorker
from .records import PodRecord, Records
from .runtime import Runtime
from .sandbox import LinuxSandboxes
from .settings import NodeSettings
from .simulated import SimulatedPod

log = logging.getLogger(__name__)

REGISTER_RETRY_SECONDS = 0.5
RUNTIME_RETRY_SECONDS = 1.0
GROUPS_RECORD = "cgroups"
"""The file in a node's state directory that names the control groups which may exist for it."""
WORKER_RETRY_SECONDS = 2.0
NETWORK_PATIENCE_SECONDS = 1.0
"""How long the control plane may take to give a node its range before that is called trouble."""
NO_RANGE = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: the node has no pod CIDR yet"
)

Worker = PodWorker | SimulatedPod


class NodeAgent:
    """One node's agent.

    agent = NodeAgent(client, settings, clock, random)
    task = asyncio.create_task(agent.run())
    await agent.ready.wait()      # the Node is registered and Pods are accepted
    await agent.stop()            # Pods go on running; the next agent adopts them
    """

    def __init__(
        self, client: Client, settings: NodeSettings, clock: Clock, random: Random, network: Client | None = None
    ) -> None:
        """network: reads all Nodes, whose pods are routed to; None: `client` does, and then must be more than a node"""
        self.network = network or client
        self.client = client.as_manager("kubelet")
        self.settings = settings
        self.clock = clock
        self.random = random
        self.ready = asyncio.Event()
        self.workers: dict[str, Worker] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.records: dict[str, PodRecord] = {}
        self.context: NodeContext | None = None
        self.verdict_told: Callable[[str, str, str], None] | None = None
        """As in NodeContext; to be set before `run`."""
        self.main: asyncio.Task[None] | None = None
        self.pods: Informer[Pod]
        self.services: Informer[Service]
        self.nodes: Informer[Node]
        self.routes: dict[str, Route] = {}

    async def run(self) -> None:
        """Run until stopped or cancelled."""
        self.main = asyncio.ensure_future(self.work())
        with contextlib.suppress(asyncio.CancelledError):
            await self.main
        if (current := asyncio.current_task()) is not None and current.cancelling():
            raise asyncio.CancelledError

    async def stop(self) -> None:
        """End the agent and leave its Pods running."""
        if self.main is not None:
            self.main.cancel()
            await asyncio.wait([self.main])

    async def work(self) -> None:
        settings = self.settings
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        keeper = NodeKeeper(self.client, settings, self.clock)
        events = NodeEvents(self.client, settings.node_name, self.clock)
        spawner = Spawner()
        sandboxes = LinuxSandboxes(spawner, self.random, settings.node_addresses, settings.mtu, settings.own_network)
        selector = f"spec.nodeName={settings.node_name}"
        self.pods = Informer(self.client, POD, field_selector=selector, clock=self.clock, random=self.random)
        self.services = Informer(self.client, SERVICE, clock=self.clock, random=self.random)
        all_nodes = settings.own_network or settings.routed  # a node may read no other without being allowed to
        only = "" if all_nodes else f"metadata.name={settings.node_name}"
        self.nodes = Informer(self.network, NODE, field_selector=only, clock=self.clock, random=self.random)
        context = self.context = NodeContext(
            client=self.client,
            settings=settings,
            clock=self.clock,
            random=self.random,
            spawner=spawner,
            sandboxes=sandboxes,
            records=Records(settings.state_dir),
            events=events,
            services=self.services.values,
            allocatable=keeper.capacity,
            verdict_told=self.verdict_told,
            ids=read_ids(),
        )
        context.runtime = make_runtime(context)
        volumes = LocalVolumes(settings.state_dir / DIRECTORY)
        door = NodeDoor(settings.state_dir / SOCKET_NAME, self, spawner, self.clock, volumes)
        try:
            async with asyncio.TaskGroup() as group:
                for run in (events.run, self.services.run, self.nodes.run):
                    group.create_task(run())
                if not settings.simulated:
                    await self.prepare(context)
                    await self.open_runtime(context.runtime)
                    keeper.system["containerRuntimeVersion"] = context.runtime.version
                    keeper.trouble = lambda: context.runtime.trouble or context.network_trouble
                await self.register(keeper)
                for record in context.records.load():
                    self.records[record.uid] = record
                network = group.create_task(self.open_network(context, keeper))
                await asyncio.wait([network], timeout=None if settings.simulated else NETWORK_PATIENCE_SECONDS)
                events.node("Normal", "Starting", "Starting kubelet.")
                for state in ("NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"):
                    events.node("Normal", state, f"Node {settings.node_name} status is now: {state}")
                if keeper.rebooted:
                    text = f"Node {settings.node_name} has been rebooted, boot id: {keeper.system['bootID']}"
                    events.node("Warning", "Rebooted", text)
                await self.services.synced.wait()  # NODE-75
                await context.runtime.clean_up(list(self.records.values()))
                self.pods.on_change(self.on_pod)
                group.create_task(self.pods.run())
                await self.pods.synced.wait()
                if context.host_ports is not None:
                    await asyncio.sleep(0)  # each worker tells of the Pod that it takes over as the first thing it does
                    await context.host_ports.begin()
                await self.clean_up(context)
                if (settings.own_network or settings.routed) and not settings.simulated:
                    self.nodes.on_change(lambda old, new: self.sync_routes(sandboxes.links))
                self.nodes.on_change(lambda old, new: self.tell_schedulable(events, old, new))
                group.create_task(keeper.run())
                await door.start()
                self.ready.set()
                events.node("Normal", "NodeReady", f"Node {settings.node_name} status is now: NodeReady")
        finally:
            await door.close()
            for task in self.tasks.values():
                task.cancel()
            if self.tasks:
                await asyncio.wait(self.tasks.values())
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await events.flush()
            await context.runtime.close()
            if context.groups is not None:
                context.groups.close()
            await sandboxes.close()
            spawner.close()

    async def prepare(self, context: NodeContext) -> None:
        """What the kernel allows here, and the node's network."""
        place = self.settings.state_dir / "trial"
        place.mkdir(exist_ok=True)
        try:
            context.overlay = await context.spawner.call(lambda: overlay_options(str(place)), new=("mnt",))
        except OSError as error:
            log.warning("no mount namespace: %s", error)
        place.rmdir()
        hidden = (*self.settings.hidden_paths, str(self.settings.state_dir))
        context.carried = read_carried_mounts(hidden)
        await context.sandboxes.prepare_node()
        if self.settings.own_network or self.settings.routed:
            context.host_ports = HostPorts(KernelNft())
        record = self.settings.state_dir / GROUPS_RECORD
        context.groups = Cgroups(await asyncio.to_thread(find_hierarchies), self.settings.group_path, record)
        await asyncio.to_thread(context.groups.prepare)
        if words := explain_limits(context.groups.controllers):
            context.events.node("Warning", "LimitsNotHeld", f"Resource limits of containers: {words}")

    async def open_runtime(self, runtime: Runtime) -> None:
        """Open it, however long it takes until it can be."""
        said = ""
        while True:
            try:
                await runtime.open()
                return
            except OSError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("no Pods can run yet: %s", error)
            await asyncio.sleep(RUNTIME_RETRY_SECONDS)

    async def register(self, keeper: NodeKeeper) -> None:
        """Register the Node, however long the server takes to answer."""
        while True:
            try:
                await keeper.register()
                return
            except (ApiError, Unreachable) as error:
                log.log(loudness(error), "node %s not registered: %s", self.settings.node_name, error)
            await asyncio.sleep(REGISTER_RETRY_SECONDS)

    async def open_network(self, context: NodeContext, keeper: NodeKeeper) -> None:
        """Addresses for Pods, as soon as the node has a range; while it has none, it is not ready (NODE-60)."""
        waiting = asyncio.create_task(self.pod_cidrs())
        try:
            done, _ = await asyncio.wait([waiting], timeout=NETWORK_PATIENCE_SECONDS)
            if not done:
                context.network_trouble = NO_RANGE
                await self.register(keeper)
            pools = [AddressPool(cidr) for cidr in await waiting]
        finally:
            waiting.cancel()
        held = [*self.records.values(), *(w.record for w in self.workers.values() if isinstance(w, PodWorker))]
        for pool in pools:
            for ip in (ip for record in held for ip in record.ips):
                pool.take(ip)
        context.pools = pools
        if context.network_trouble:
            context.network_trouble = ""
            await self.register(keeper)

    async def pod_cidrs(self) -> tuple[str, ...]:
        """The ranges of this node: as told, else as the control plane gives them."""
        while not self.settings.pod_cidrs:
            node = self.nodes.get(("", self.settings.node_name))
            if node is not None and node.spec.pod_cidr:
                return tuple(node.spec.pod_cidrs or [node.spec.pod_cidr])
            await asyncio.sleep(0.02)
        return self.settings.pod_cidrs

    def tell_schedulable(self, events: NodeEvents, old: Node | None, new: Node | None) -> None:
        """An Event when this node is cordoned or uncordoned (NODE-93)."""
        if old is None or new is None or new.name != self.settings.node_name:
            return
        if old.spec.unschedulable != new.spec.unschedulable:
            state = "NodeNotSchedulable" if new.spec.unschedulable else "NodeSchedulable"
            events.node("Normal", state, f"Node {new.name} status is now: {state}")

    # -- Pods ---------------------------------------------------------------------------------------------------------

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """A Pod of this node came, changed or went; each uid has a worker of its own."""
        if new is None:
            assert old is not None
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.removed()
            return
        uid = new.metadata.uid
        if uid in self.workers:
            self.workers[uid].update(new)
            return
        assert self.context is not None
        if self.settings.simulated:
            worker = SimulatedPod(self.context, new)
        else:
            worker = PodWorker(self.context, new, self.records.pop(uid, None))
        self.workers[uid] = worker
        task = asyncio.create_task(worker.run())
        self.tasks[uid] = task
        task.add_done_callback(lambda done: self.on_done(uid, done))

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a Pod by its name; None for a Pod that is not here or only simulated."""
        pod = self.pods.get((namespace, name))
        found = self.workers.get(pod.metadata.uid) if pod is not None else None
        return found if isinstance(found, PodWorker) else None

    def page(self, path: str) -> str | None:
        """The agent's own pages, as monitoring asks for them (NODE-55)."""
        workers = [w for w in self.workers.values() if isinstance(w, PodWorker)]
        match path:
            case "/healthz":
                return "ok"
            case "/metrics/probes":
                uids = {(w.pod.namespace, w.pod.name): w.uid for w in workers}
                return render_probes(self.context.probe_results if self.context is not None else {}, uids)
            case "/metrics":
                states = Counter(
                    "running" if r.running else "exited" if r.state.terminated is not None else "created"
                    for w in workers
                    for r in w.runners.values()
                )
                running = sum(w.held_sandbox is not None for w in workers)
                return render_node(NodeState(self.settings.node_name, running, states))
        return None

    def on_done(self, uid: str, task: asyncio.Task[None]) -> None:
        self.tasks.pop(uid, None)
        self.workers.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("worker of pod %s failed", uid, exc_info=error)
            asyncio.get_running_loop().call_later(WORKER_RETRY_SECONDS, self.work_again, uid)

    def work_again(self, uid: str) -> None:
        """Give a Pod a new worker after the first one failed; what it left running is found by its record."""
        pod = next((p for p in self.pods.values() if p.metadata.uid == uid), None)
        if pod is None or self.context is None or uid in self.workers:
            return
        for record in self.context.records.load():
            if record.uid == uid:
                self.records[uid] = record
        self.on_pod(None, pod)

    async def clean_up(self, context: NodeContext) -> None:
        """Remove what is recorded of Pods that the API knows no more."""
        for record in list(self.records.values()):
            try:
                for name, container in record.containers.items():
                    left = WatchedProcess.adopt(container.pid, container.start_time) if container.pid else None
                    if left is not None:
                        await end_for_good(left, f"container {name} of pod {record.namespace}/{record.name}")
                await context.runtime.end_sandbox(record)
            except StillRunning as error:  # its record stays, and the agent that comes next tries again
                log.error("%s", error)
                del self.records[record.uid]
                continue
            except OSError as error:
                log.info("pod %s/%s: %s", record.namespace, record.name, error)
            with contextlib.suppress(OSError):
                context.sandboxes.disconnect(record.device, record.ips)
            for pool in context.pools:
                for ip in record.ips:
                    pool.release(ip)
            context.records.remove(record.uid)
            del self.records[record.uid]
        if context.groups is not None:
            known = {pod.metadata.uid for pod in self.pods.values()}
            for uid in [name for name in context.groups.names() if name not in known]:
                await asyncio.to_thread(context.groups.remove, uid)

    # -- routes between nodes -----------------------------------------------------------------------------------------

    def sync_routes(self, links: Links) -> None:
        """One route per other node's range, through that node's address."""
        wanted = plan_routes(self.nodes.values(), self.settings.node_name)
        for destination in [d for d in self.routes if d not in wanted]:
            with contextlib.suppress(OSError):
                links.delete_route(self.routes[destination])
            del self.routes[destination]
        for destination, route in wanted.items():
            if self.routes.get(destination) == route:
                continue
            try:
                links.replace_route(route)
                self.routes[destination] = route
            except OSError as error:
                log.warning("%s", error)


def make_runtime(context: NodeContext) -> Runtime:
    """What makes the containers of this node, as its settings say."""
    if context.settings.runtime_socket is None:
        return NativeRuntime(context)
    from .cri.runtime import CriRuntime

    return CriRuntime(context, context.settings.runtime_socket)


def plan_routes(nodes: Iterable[Node], own_name: str) -> dict[str, Route]:
    """The routes to the other nodes' Pods, by destination. Pure."""
    found: dict[str, Route] = {}
    for node in nodes:
        if node.name == own_name:
            continue
        addresses = [a.address for a in node.status.addresses or () if a.type == "InternalIP"]
        for cidr in node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else []):
            gateway = next((a for a in addresses if (":" in a) == (":" in cidr)), "")
            if gateway:
                found[cidr] = Route(cidr, gateway=gateway)
    return found


__all__ = ["NodeAgent", "plan_routes"]
