"""What befalls a simulated cluster: each is a thing that happens at a moment, lasts, and passes or is put right."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

from kubesvc.api.kinds import SERVICE
from kubesvc.kernel.nft import NftError

from .machines import Controllers, Part
from .users import SHOP, Users
from .world import World

Blow = Callable[["Fate"], Awaitable[None]]


class Fate:
    """Strikes a world, by its chance. What lasts runs beside, in tasks that `end` ends."""

    def __init__(self, world: World, users: Users) -> None:
        self.world = world
        self.users = users
        self.random = world.random
        self.tasks: list[asyncio.Task[None]] = []

    def tell(self, text: str) -> None:
        self.world.story.tell("fate", text)

    def beside(self, lasting: Awaitable[None]) -> None:
        async def run() -> None:
            await lasting

        self.tasks.append(asyncio.create_task(run()))

    async def end(self) -> None:
        """Everything passes."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for task in self.tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        self.tasks.clear()
        world = self.world
        world.weather.clear()
        world.way.calm.set()
        for other in world.others:
            await other.stop()
        world.others.clear()
        if world.server is not None and (world.way.client is None or (world.door is not None and world.door.dead)):
            await world.crash_server()
        if world.server is None:
            await world.start_server()
        assert world.door is not None
        world.door.dies_in_commits = None
        for clock in (world.clock, *(part.clock for part in world.parts)):
            clock.set_off(0.0)
        for part in world.parts:
            if not part.running:
                part.start()
        self.tell("all is calm")

    # ---------------------------------------------------------------- the way

    async def foul_weather(self) -> None:
        """Writes fail, answers are lost, watches drop, calls are slow."""
        r, weather = self.random, self.world.weather
        weather.fails, weather.lost, weather.races = (r.choice((0.0, 0.05, 0.2)) for _ in range(3))
        weather.unread, weather.drops = r.choice((0.0, 0.2)), r.choice((0.0, 0.02, 0.1))
        weather.slow = r.choice((0.01, 0.3, 2.0))
        self.tell(
            f"foul weather: fails {weather.fails}, lost {weather.lost}, races {weather.races}, "
            f"unread {weather.unread}, drops {weather.drops}, slow {weather.slow} s"
        )

    async def fair_weather(self) -> None:
        weather = self.world.weather
        weather.fails = weather.lost = weather.races = weather.unread = weather.drops = 0.0
        weather.slow = 0.01
        self.tell("fair weather")

    def some_part(self) -> str:
        return self.random.choice([p.name for p in self.world.parts])

    async def late_events(self) -> None:
        name, seconds = self.some_part(), self.random.choice((0.5, 3.0, 15.0))
        self.world.weather.late[name] = seconds
        self.tell(f"events reach {name} up to {seconds} s late")

    async def cut_off(self) -> None:
        self.beside(self.lasting_cut(self.some_part(), self.random.uniform(1, 40)))

    async def lasting_cut(self, name: str, seconds: float) -> None:
        self.tell(f"{name} is cut off for {seconds:.1f} s")
        self.world.weather.cut[name] = None
        await asyncio.sleep(seconds)
        self.world.weather.cut.pop(name, None)

    async def hold(self) -> None:
        """A watch stays open and says nothing."""
        self.beside(self.lasting_hold(self.some_part(), self.random.uniform(1, 40)))

    async def lasting_hold(self, name: str, seconds: float) -> None:
        self.tell(f"watches of {name} fall silent for {seconds:.1f} s")
        self.world.weather.held[name] = None
        await asyncio.sleep(seconds)
        self.world.weather.held.pop(name, None)
        self.world.way.calm.set()

    # ---------------------------------------------------------------- the server

    async def restart_server(self) -> None:
        if self.world.server is None:
            return
        crash = self.random.random() < 0.6
        seconds = self.random.choice((0.0, 0.2, 3.0, 15.0))
        self.tell(f"the server {'crashes' if crash else 'stops'}, for {seconds} s")
        await (self.world.crash_server() if crash else self.world.stop_server())
        self.beside(self.back_later(seconds))

    async def back_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.world.server is None:
            await self.world.start_server()
            self.tell("the server is back")

    async def crash_in_commit(self) -> None:
        """The server dies in the middle of a request, with its write done or not."""
        door = self.world.door
        if self.world.server is None or door is None or door.dead:
            return
        door.dies_after = self.random.random() < 0.5
        door.dies_in_commits = self.random.randint(0, 12)
        self.beside(self.bury())

    async def bury(self) -> None:
        for _ in range(600):
            await asyncio.sleep(0.1)
            door = self.world.door
            if self.world.server is None or door is None:
                return
            if door.dead:
                self.tell(f"the server died in a commit, {'done' if door.dies_after else 'not done'}")
                await self.world.crash_server()
                await self.back_later(self.random.choice((0.0, 1.0, 5.0)))
                return

    async def compact(self) -> None:
        if self.world.server is not None and self.world.door is not None and not self.world.door.dead:
            self.tell("history is compacted")
            await self.world.server.compact()

    # ---------------------------------------------------------------- parts

    async def restart_part(self) -> None:
        world = self.world
        part = self.random.choice([world.controllers, *world.standby, *world.proxies, world.names, *world.machines])
        if not part.running:
            return
        seconds = self.random.choice((0.0, 1.0, 10.0))
        self.tell(f"{part.name} dies, for {seconds} s")
        await part.stop()
        self.beside(self.start_later(part, seconds))

    async def start_later(self, part: Part, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not part.running:
            part.start()
            self.tell(f"{part.name} is back")

    async def second_leader(self) -> None:
        """Controllers that do not know that they were replaced go on for a while."""
        if self.world.others:
            return
        other = Controllers("old-leader", self.world.way, f"{self.world.seed}/{self.users.number()}")
        self.world.others.append(other)
        other.start()
        # A write of the other that reaches a leader's cache after its own sync looks to it like a hand edit, and hand
        # edits of Endpoints stay (EP-1): leases, not caches, keep leaders from writing side by side.
        for service in await self.world.all(SERVICE, SHOP):
            if service["spec"].get("selector"):
                self.users.edited_endpoints[SHOP, service["metadata"]["name"]] = None
        seconds = self.random.uniform(1, 30)
        self.tell(f"two leaders for {seconds:.1f} s")
        self.beside(self.abdicate(other, seconds))

    async def abdicate(self, other: Controllers, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if other in self.world.others:
            self.world.others.remove(other)
            await other.stop()
            self.tell("one leader is left")

    async def lose_node(self) -> None:
        """A node falls silent; perhaps somebody deletes it; it may come back."""
        running = [m for m in self.world.machines if m.running]
        if len(running) < 2:
            return
        machine = self.random.choice(running)
        seconds = self.random.choice((5.0, 30.0, 90.0, 400.0))
        self.tell(f"node {machine.name} is lost, for {seconds} s")
        await machine.stop()
        self.beside(self.node_returns(machine.name, seconds, deleted=self.random.random() < 0.3))

    async def node_returns(self, name: str, seconds: float, deleted: bool) -> None:
        machine = next(m for m in self.world.machines if m.name == name)
        if deleted:
            await asyncio.sleep(seconds / 2)
            await self.users.lose_node(name)
            seconds /= 2
        await asyncio.sleep(seconds)
        if not machine.running:
            machine.start()
            self.tell(f"node {name} is back")

    async def step_clock(self) -> None:
        part = self.random.choice([*self.world.parts, None])
        seconds = self.random.choice((-3600.0, -60.0, -3.0, 3.0, 60.0, 3600.0))
        clock = part.clock if part is not None else self.world.clock
        clock.set_off(seconds)
        self.tell(f"the clock of {part.name if part else 'the server'} is {seconds:+.0f} s off")

    async def kernel_refuses(self) -> None:
        proxy = self.random.choice(self.world.proxies)
        proxy.nft.fail_next = NftError(errno.ENOBUFS, "no buffer space")
        self.tell(f"the kernel refuses the next rules of {proxy.name}")


BLOWS: tuple[tuple[int, Blow], ...] = (
    (5, Fate.foul_weather),
    (2, Fate.fair_weather),
    (3, Fate.late_events),
    (3, Fate.cut_off),
    (2, Fate.hold),
    (3, Fate.restart_server),
    (3, Fate.crash_in_commit),
    (2, Fate.compact),
    (4, Fate.restart_part),
    (2, Fate.second_leader),
    (3, Fate.lose_node),
    (2, Fate.step_clock),
    (1, Fate.kernel_refuses),
)
