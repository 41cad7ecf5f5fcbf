"""The parts of a simulated cluster that live beside the API server: nodes with their proxies, controllers, DNS."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, cast

from kubesvc.api.errors import ApiError
from kubesvc.api.kinds import ENDPOINT_SLICE, NAMESPACE, POD, SERVICE
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.client import Informer, Unreachable
from kubesvc.client.informer import InformerFactory
from kubesvc.client.interface import Client
from kubesvc.client.leader import LeaderElector, LeaderSettings, LeadershipLost
from kubesvc.clock import LoopClock
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.dns.records import Zone
from kubesvc.dns.responder import Responder
from kubesvc.dns.snapshot import Snapshot
from kubesvc.kernel.nft import FakeNft
from kubesvc.node.context import NodeContext
from kubesvc.node.events import NodeEvents
from kubesvc.node.ipam import AddressPool
from kubesvc.node.nodestatus import NodeKeeper
from kubesvc.node.settings import NodeSettings
from kubesvc.node.simulated import SimulatedPod
from kubesvc.proxy import NftBackends, Proxy, ProxySettings

from .story import Story
from .trouble import Way

MOST_ENDPOINTS = 4
"""Endpoints in a slice: few, so that packing matters."""
CAPACITY = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "64Gi"}


class StepClock(LoopClock):
    """A wall clock that can be set wrong; its monotonic time never is."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.right = self.epoch

    def set_off(self, seconds: float) -> None:
        self.epoch = self.right + seconds


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


class Part:
    """Something that runs, dies and is started again; each life has chance of its own."""

    def __init__(self, name: str, way: Way, seed: str) -> None:
        self.name = name
        self.way = way
        self.seed = f"{seed}/{name}"
        self.lives = 0
        self.clock = StepClock()
        self.task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self.task is not None

    def start(self) -> None:
        assert self.task is None
        self.lives += 1
        self.task = asyncio.create_task(self.run(), name=self.name)

    async def stop(self) -> None:
        task, self.task = self.task, None
        await ended(task)

    async def run(self) -> None:
        raise NotImplementedError

    def informers(self) -> list[Informer[Any]]:
        """The caches of the present life."""
        return []

    @property
    def life(self) -> str:
        return f"{self.seed}/{self.lives}"


class Election:
    """What candidates of one Lease agree on, seen from outside: who works now, and whether ever two did."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.working: list[str] = []
        self.broken = ""

    def begins(self, name: str) -> None:
        self.story.tell(name, "leads")
        if self.working:
            self.broken = f"{name} begins to lead while {', '.join(self.working)} does"
        self.working.append(name)

    def ends(self, name: str) -> None:
        self.story.tell(name, "leads no more")
        self.working.remove(name)


class Controllers(Part):
    """All controllers over one set of caches; of several candidates with an election, those of the one that leads."""

    factory: InformerFactory | None = None

    def __init__(self, name: str, way: Way, seed: str, election: Election | None = None) -> None:
        super().__init__(name, way, seed)
        self.election = election

    async def run(self) -> None:
        client = self.way.part(self.name, self.life)
        chance = random.Random(self.life + "/own")
        if self.election is None:
            await self.work(client, chance)
            return
        settings = LeaderSettings(name="kubesvc-controllers")
        while True:  # who loses the Lease ends, and is started again
            elector = LeaderElector(client, settings, f"{self.name}-{self.lives}", self.clock, chance)
            try:
                await elector.run(lambda: self.lead(client, chance))
            except LeadershipLost:
                await asyncio.sleep(1.0)

    async def lead(self, client: Client, chance: random.Random) -> None:
        assert self.election is not None
        self.election.begins(self.name)
        try:
            await self.work(client, chance)
        finally:
            self.factory = None
            self.election.ends(self.name)

    async def work(self, client: Client, chance: random.Random) -> None:
        self.factory = InformerFactory(client, self.clock, chance)
        settings = ControllerSettings(max_endpoints_per_slice=MOST_ENDPOINTS)
        await run_controllers(client, clock=self.clock, random=chance, settings=settings, informers=self.factory)

    def informers(self) -> list[Informer[Any]]:
        return list(self.factory._informers.values()) if self.factory is not None else []


class Names(Part):
    """The cluster's DNS without sockets."""

    def __init__(self, name: str, way: Way, seed: str) -> None:
        super().__init__(name, way, seed)
        self.responder = Responder(Snapshot(), Zone())
        self.factory: InformerFactory | None = None

    async def run(self) -> None:
        client = self.way.part(self.name, self.life)
        self.factory = factory = InformerFactory(client, self.clock, random.Random(self.life + "/own"))
        snapshot, now = Snapshot(), self.clock.now
        self.responder = Responder(snapshot, Zone())
        factory.of(NAMESPACE).on_change(lambda old, new: snapshot.namespace_changed(old, new, now()))
        factory.of(SERVICE).on_change(lambda old, new: snapshot.service_changed(old, new, now()))
        factory.of(ENDPOINT_SLICE).on_change(lambda old, new: snapshot.slice_changed(old, new, now()))
        async with asyncio.TaskGroup() as group:
            group.create_task(factory.run())
            await factory.synced()
            snapshot.mark_synced(now())

    def informers(self) -> list[Informer[Any]]:
        return list(self.factory._informers.values()) if self.factory is not None else []


class NodeProxy(Part):
    """A node's proxy on a pretend kernel, which outlives it."""

    def __init__(
        self, node: str, way: Way, seed: str, families: tuple[str, ...], service_cidrs: tuple[str, ...]
    ) -> None:
        super().__init__(f"proxy-{node}", way, seed)
        self.node = node
        self.nft = FakeNft()
        self.settings = ProxySettings(
            families=cast(Any, families),
            service_cidrs=service_cidrs,
            cluster_cidrs=("10.244.0.0/16", "fd00:244::/32"),
            health_port=0,
        )
        self.proxy: Proxy | None = None

    async def run(self) -> None:
        client = self.way.part(self.name, self.life)
        chance = random.Random(self.life + "/own")
        self.proxy = Proxy(client, self.node, NftBackends(self.nft), self.clock, chance, self.settings)
        await self.proxy.run()

    def informers(self) -> list[Informer[Any]]:
        p = self.proxy
        return [p.services, p.slices, p.nodes, p.cidrs] if p is not None else []


class Machine(Part):
    """A node's agent whose pods are simulated. The pods' processes end with it."""

    def __init__(self, number: int, way: Way, seed: str, families: tuple[str, ...]) -> None:
        super().__init__(f"n{number}", way, seed)
        cidrs = {"IPv4": f"10.244.{number}.0/24", "IPv6": f"fd00:244:{number}::/64"}
        addresses = {"IPv4": f"172.30.0.{10 + number}", "IPv6": f"fd00:172:30::{10 + number}"}
        self.settings = NodeSettings(
            node_name=self.name,
            state_dir=Path("/nonexistent"),
            pod_cidrs=tuple(cidrs[f] for f in families),
            node_addresses=tuple(addresses[f] for f in families),
            zone=f"z{number % 2 + 1}",
            simulated=True,
            lease_renew_seconds=20.0,
            status_seconds=20.0,
        )
        self.pods: Informer[Pod] | None = None
        self.workers: dict[str, SimulatedPod] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.context: NodeContext | None = None

    async def run(self) -> None:
        client = self.way.part(self.name, self.life).as_manager("kubelet")
        chance = random.Random(self.life + "/own")
        keeper = NodeKeeper(client, self.settings, self.clock)
        keeper.capacity, keeper.system = dict(CAPACITY), {"kubeletVersion": "v1.36.0"}
        events = NodeEvents(client, self.name, self.clock)
        self.pods = Informer(client, POD, field_selector=f"spec.nodeName={self.name}", clock=self.clock, random=chance)
        nobody = cast(Any, None)
        self.context = NodeContext(
            client=client,
            settings=self.settings,
            clock=self.clock,
            random=chance,
            spawner=nobody,
            sandboxes=nobody,
            records=nobody,
            events=events,
            services=tuple,
            pools=[AddressPool(cidr) for cidr in self.settings.pod_cidrs],
        )
        self.workers, self.tasks = {}, {}
        try:
            while True:
                try:
                    await keeper.register()
                    break
                except (ApiError, Unreachable):
                    await asyncio.sleep(1.0)
            async with asyncio.TaskGroup() as group:
                group.create_task(events.run())
                self.pods.on_change(self.on_pod)
                group.create_task(self.pods.run())
                await self.pods.synced.wait()
                group.create_task(keeper.run())
        finally:
            tasks = list(self.tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """As the agent does: each uid has a worker."""
        if new is None:
            assert old is not None
            if (worker := self.workers.get(old.metadata.uid)) is not None:
                worker.removed()
            return
        uid = new.metadata.uid
        if uid in self.workers:
            self.workers[uid].update(new)
            return
        assert self.context is not None
        worker = self.workers[uid] = SimulatedPod(self.context, new)
        task = self.tasks[uid] = asyncio.create_task(worker.run())
        task.add_done_callback(lambda done: self.on_done(uid, done))

    def on_done(self, uid: str, task: asyncio.Task[None]) -> None:
        self.tasks.pop(uid, None)
        self.workers.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def informers(self) -> list[Informer[Any]]:
        return [self.pods] if self.pods is not None else []

    def used_addresses(self) -> list[str]:
        """What the present life believes to be in use."""
        if self.context is None:
            return []
        return sorted(str(pool.network.network_address + offset) for pool in self.context.pools for offset in pool.used)


def pod_template(app: str, script: str, **labels: str) -> Object:
    """A pod's template: port 8080 under the name `main`, and how it behaves."""
    return {
        "metadata": {"labels": {"app": app, **labels}, "annotations": {"kubesvc.dev/simulate": script}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "main", "containerPort": 8080}]}],
        },
    }
