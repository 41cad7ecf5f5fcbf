"""A whole control plane in one virtual-time loop: server on a store, controllers, nodes, proxies, DNS, and their users.

A seed decides everything: how large the cluster is, what its users do, what goes wrong and when. Nothing here reads a
clock or draws a number elsewhere, so a seed is a history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TypeVar

import msgspec

from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.client.interface import Client, Unreachable
from kubesvc.store import Change, StoreError
from kubesvc.store.memory import MemoryStore

from .machines import Controllers, Election, Machine, Names, NodeProxy, Part, StepClock
from .story import QUIET_KINDS, Story
from .trouble import MortalStore, Way, Weather

T = TypeVar("T")

RANGES = {"IPv4": "10.96.0.0/16", "IPv6": "fd00:96::/112"}


class World:
    """Everything there is in one history."""

    def __init__(self, seed: int, story: Story) -> None:
        self.seed = f"sim/{seed}"
        self.story = story
        self.random = random.Random(self.seed)
        self.families: tuple[str, ...] = ("IPv4", "IPv6") if self.random.random() < 0.25 else ("IPv4",)
        self.store = MemoryStore()
        self.weather = Weather()
        self.way = Way(self.weather)
        self.clock = StepClock()
        self.settings = ApiServerSettings(
            service_ranges=tuple(RANGES[f] for f in self.families),
            disabled_admission=frozenset({"ServiceAccount"}),
            history_seconds=float(self.random.choice((20, 60, 300))),
        )
        self.server: ApiServer | None = None
        self.door: MortalStore | None = None
        self.servers = 0
        elected = random.Random(f"{self.seed}/elected").random() < 0.4
        self.election = Election(story) if elected else None
        self.controllers = Controllers("controllers", self.way, self.seed, self.election)
        self.standby = [Controllers("standby", self.way, self.seed, self.election)] if elected else []
        """Controllers that work when the others do not."""
        self.others: list[Controllers] = []
        """Controllers that run though they should not: a leader that does not know it was replaced."""
        count = self.random.randint(2, 3)
        ranges = tuple(self.settings.service_ranges)
        self.machines = [Machine(i, self.way, self.seed, self.families) for i in range(1, count + 1)]
        self.proxies = [NodeProxy(m.name, self.way, self.seed, self.families, ranges) for m in self.machines]
        self.names = Names("dns", self.way, self.seed)
        self.last_write = 0.0
        """When something was last written that nobody writes in a quiet cluster."""
        self.last_written = ""
        self.emptied: dict[str, None] = {}
        """Slices that somebody emptied: such a one stays until newcomers need room (SLICE-21)."""
        self.observers: list[Callable[[list[Change]], None]] = []

    @property
    def parts(self) -> list[Part]:
        return [self.controllers, *self.standby, *self.others, *self.machines, *self.proxies, self.names]

    async def start(self) -> None:
        await self.store.start()
        self.store.subscribe("", self._changed)
        await self.start_server()
        for part in self.parts:
            part.start()

    async def close(self) -> None:
        for part in self.parts:
            await part.stop()
        if self.server is not None:
            await self.stop_server()
        await self.store.close()

    def _changed(self, changes: list[Change]) -> None:
        self.story.changed(changes)
        for change in changes:
            if is_notable(change):
                self.last_write = asyncio.get_running_loop().time()
                self.last_written = change.key
        for observer in self.observers:
            observer(changes)

    # ---------------------------------------------------------------- the server's lives

    async def start_server(self) -> None:
        """Start a server, which may be stopped, or die, before it has started."""
        assert self.server is None
        self.servers += 1
        self.door = door = MortalStore(self.store)
        chance = random.Random(f"{self.seed}/server/{self.servers}")
        self.server = server = ApiServer(door, self.settings, self.clock, chance)
        try:
            await server.start()
        except (ApiError, StoreError):
            if not door.dead and self.server is server:
                raise
        if self.server is not server:
            await self.end_tasks(server)
        elif not door.dead:
            self.way.client = server.client

    async def stop_server(self) -> None:
        """An orderly end."""
        server, self.server = self.server, None
        assert server is not None
        self.way.client = None
        self.way.cut_streams()
        await server.stop()

    async def crash_server(self) -> None:
        """Death at whatever it was doing."""
        server, self.server = self.server, None
        assert server is not None and self.door is not None
        self.door.dead = True
        self.way.client = None
        self.way.cut_streams()
        await self.end_tasks(server)

    async def end_tasks(self, server: ApiServer) -> None:
        for task in server._tasks:
            task.cancel()
        if server._tasks:
            await asyncio.wait(server._tasks)
        server.cache.stop()

    # ---------------------------------------------------------------- users

    async def act(self, what: str, call: Callable[[Client], Awaitable[T]]) -> T | None:
        """A user does something, again and again until a server answers; a refusal is accepted."""
        for _ in range(300):
            if self.server is None or self.way.client is None or self.door is None or self.door.dead:
                await asyncio.sleep(0.5)
                continue
            try:
                answer = await call(self.server.client.as_manager("user"))
                self.story.tell("user", what)
                return answer
            except (Unreachable, StoreError):
                await asyncio.sleep(0.5)
            except ApiError as error:
                if error.status_code >= 500:
                    await asyncio.sleep(0.5)
                    continue
                self.story.tell("user", f"{what}: refused: {error.status_reason}")
                return None
        raise AssertionError(f"no server answers {what!r}")

    async def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Every object of a kind as stored, in order; asked until a server answers."""
        while True:
            if self.server is not None and self.way.client is not None:
                try:
                    found = await self.server.client.list_raw(kind, namespace)
                    return [msgspec.json.decode(raw) for raw in found.items]
                except (ApiError, StoreError):
                    pass
            await asyncio.sleep(0.5)

    # ---------------------------------------------------------------- passing of time

    async def quiet(self, seconds: float, most: float) -> bool:
        """Let time pass until nothing notable was written for so long; False if that never came within `most`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + most
        start = loop.time()
        while loop.time() < end:
            self.check_parts()
            silent = loop.time() - max(self.last_write, start)
            if silent >= seconds:
                return True
            await asyncio.sleep(min(seconds - silent + 0.001, 10.0))
        return False

    def check_parts(self) -> None:
        """A part that ended by itself has a bug; and nobody leads beside another."""
        assert self.election is None or not self.election.broken, self.election.broken
        for part in self.parts:
            if part.task is not None and part.task.done():
                part.task.result()
                raise AssertionError(f"{part.name} ended by itself")


def is_notable(change: Change) -> bool:
    """Whether this write counts against a quiet cluster: heartbeats and Events do not."""
    plural = change.key.split("/", 4)[3]
    if plural in QUIET_KINDS:
        return False
    if plural == "nodes" and change.value is not None and change.previous is not None:
        return beatless(change.value) != beatless(change.previous.value)
    return True


@lru_cache(64)
def beatless(value: bytes) -> object:
    """A Node without what every heartbeat changes; only to be compared."""
    node = msgspec.json.decode(value)
    for condition in (node.get("status") or {}).get("conditions") or ():
        condition.pop("lastHeartbeatTime", None)
    node["metadata"].pop("managedFields", None)
    return node
