"""The bad weather between the parts and the API server: what may go wrong on the way, and the server's own deaths.

A part's client is a `TroubledClient`: its calls may be slow, may fail before or after they were done, may meet a
conflict; its watches may be dropped, held up or late. All of it follows one `Weather`, whose fields the story sets.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from kubesvc.api.errors import Conflict, Expired, InternalError, ServiceUnavailable, TooManyRequests
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client, RawList, Unreachable, WatchEvent
from kubesvc.store import Change, Entry, Operation, Page, Store, StoreError, Unavailable

FAILURES: tuple[Callable[[], Exception], ...] = (
    lambda: Unreachable("cut off"),
    lambda: InternalError("trouble inside"),
    lambda: ServiceUnavailable("overloaded"),
    lambda: TooManyRequests("slow down"),
)


@dataclass
class Weather:
    """How bad it is now. Odds are per call or event; seconds are the most that is drawn.

    fails:   chance that a write is refused or cut off before it is done
    lost:    chance that a write is done and its answer lost
    races:   chance that an update meets a conflict that its writer does not find when it looks again
    unread:  chance that a list or get fails
    drops:   chance, per event, that a watch is dropped before it; half of them because history is gone
    slow:    seconds a call may take
    late:    seconds events may be late, by the part's name
    cut:     parts that reach no server at all
    held:    parts whose watches stay open and silent
    """

    fails: float = 0.0
    lost: float = 0.0
    races: float = 0.0
    unread: float = 0.0
    drops: float = 0.0
    slow: float = 0.01
    late: dict[str, float] = field(default_factory=dict)
    cut: dict[str, None] = field(default_factory=dict)
    held: dict[str, None] = field(default_factory=dict)

    def clear(self) -> None:
        """The sky clears, and what was held up comes through."""
        self.fails = self.lost = self.races = self.unread = self.drops = 0.0
        self.slow = 0.01
        self.late.clear()
        self.cut.clear()
        self.held.clear()


class MortalStore:
    """One server's way to a store that outlives it: dead, it answers nothing more. May die at a commit to come."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.dead = False
        self.dies_in_commits: int | None = None
        self.dies_after = False
        """Whether that last commit is still done."""

    def alive(self) -> Store:
        if self.dead:
            raise Unavailable("the server has died")
        return self.inner

    async def start(self) -> None:
        """The inner store is started."""

    async def close(self) -> None:
        """And stays open."""

    async def revision(self) -> int:
        return await self.alive().revision()

    @property
    def shared(self) -> bool:
        return self.inner.shared

    @property
    def newest(self) -> int:
        return self.inner.newest

    @property
    def trouble(self) -> str:
        return "the server has died" if self.dead else self.inner.trouble

    @property
    def compacted(self) -> int:
        return self.inner.compacted

    async def commit(self, *operations: Operation) -> int:
        store = self.alive()
        if self.dies_in_commits is not None:
            self.dies_in_commits -= 1
            if self.dies_in_commits < 0:
                self.dead = True
                if self.dies_after:
                    await store.commit(*operations)
                raise Unavailable("the server dies")
        return await store.commit(*operations)

    async def get(self, key: str) -> Entry | None:
        return await self.alive().get(key)

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        return await self.alive().scan(prefix, start=start, limit=limit, at=at)

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        return self.alive().subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        return self.alive().watch(prefix, after)

    async def compact(self, revision: int) -> None:
        await self.alive().compact(revision)


class Stream:
    """One watch on its way to a part: events wait here until the weather lets them through."""

    def __init__(self, source: AsyncGenerator[WatchEvent, None]) -> None:
        self.source = source
        self.waiting: deque[WatchEvent] = deque()
        self.news = asyncio.Event()
        self.end: Exception | None = None
        self.ended = False
        self.task = asyncio.create_task(self.pump())

    async def pump(self) -> None:
        try:
            async with aclosing(self.source) as events:
                async for event in events:
                    self.waiting.append(event)
                    self.news.set()
        except StoreError:
            self.end = Unreachable("the server died")
        except Exception as error:
            self.end = error
        self.ended = True
        self.news.set()

    def cut(self) -> None:
        """The connection breaks; what was on its way is lost, and nothing comes after it."""
        self.task.cancel()
        self.waiting.clear()
        self.end, self.ended = Unreachable("the server is gone"), True
        self.news.set()


class Way:
    """The way from all parts to whichever server is there now. `client` is None while none is."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.client: Client | None = None
        self.streams: dict[Stream, None] = {}
        self.writes: dict[str, int] = {}
        """Writes tried so far, by part."""
        self.calm = asyncio.Event()
        """Set when held watches may go on; made anew when some are held."""

    def cut_streams(self) -> None:
        for stream in list(self.streams):
            stream.cut()

    def part(self, name: str, seed: str) -> Client:
        """A client for one part; `seed` draws its troubles."""
        return cast(Client, TroubledClient(self, name, random.Random(seed), "kubesvc"))


class TroubledClient:
    """A part's client: the server's own, with the weather in between."""

    def __init__(self, way: Way, name: str, random: random.Random, manager: str) -> None:
        self.way = way
        self.weather = way.weather
        self.name = name
        self.random = random
        self.manager = manager

    def as_manager(self, manager: str) -> Client:
        return cast(Client, TroubledClient(self.way, self.name, self.random, manager))

    def strikes(self, odds: float) -> bool:
        return odds > 0 and self.random.random() < odds

    async def server(self) -> Client:
        """Travel to the server."""
        await asyncio.sleep(self.random.random() * self.weather.slow)
        if self.way.client is None or self.name in self.weather.cut:
            raise Unreachable("connection refused")
        return self.way.client.as_manager(self.manager)

    async def write(self, call: Callable[[Client], Awaitable[Object]], *, races: bool = False) -> Object:
        self.way.writes[self.name] = self.way.writes.get(self.name, 0) + 1
        client = await self.server()
        if self.strikes(self.weather.fails):
            raise self.random.choice(FAILURES)()
        if races and self.strikes(self.weather.races):
            raise Conflict("somebody was faster")
        lost = self.strikes(self.weather.lost)
        try:
            answer = await call(client)
        except StoreError as error:
            raise Unreachable("the server died") from error
        if self.way.client is None or lost:
            raise Unreachable("the answer is lost")
        return answer

    async def create(self, *words: Any, **more: Any) -> Object:
        return await self.write(lambda client: client.create(*words, **more))

    async def update(self, *words: Any, **more: Any) -> Object:
        return await self.write(lambda client: client.update(*words, **more), races=True)

    async def patch(self, *words: Any, **more: Any) -> Object:
        return await self.write(lambda client: client.patch(*words, **more))

    async def delete(self, *words: Any, **more: Any) -> Object:
        return await self.write(lambda client: client.delete(*words, **more))

    async def delete_collection(self, *words: Any, **more: Any) -> None:
        async def call(client: Client) -> Object:
            await client.delete_collection(*words, **more)
            return {}

        await self.write(call)

    async def get(self, *words: Any, **more: Any) -> Object:
        client = await self.server()
        if self.strikes(self.weather.unread):
            raise Unreachable("cut off")
        try:
            return await client.get(*words, **more)
        except StoreError as error:
            raise Unreachable("the server died") from error

    async def list_raw(self, *words: Any, **more: Any) -> RawList:
        client = await self.server()
        if self.strikes(self.weather.unread):
            raise Unreachable("cut off")
        try:
            found = await client.list_raw(*words, **more)
        except StoreError as error:
            raise Unreachable("the server died") from error
        await asyncio.sleep(self.random.random() * self.weather.slow)  # the world moves on before the list arrives
        return found

    async def watch(self, kind: Kind, *words: Any, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        client = await self.server()
        stream = Stream(client.watch(kind, *words, **more))
        self.way.streams[stream] = None
        try:
            while True:
                while not stream.waiting and not stream.ended:
                    stream.news.clear()
                    await stream.news.wait()
                if late := self.weather.late.get(self.name, 0.0):
                    await asyncio.sleep(self.random.random() * late)
                while self.name in self.weather.held and not stream.ended:
                    self.way.calm.clear()
                    await self.way.calm.wait()
                if self.name in self.weather.cut:
                    raise Unreachable("cut off")
                if not stream.waiting:
                    if stream.ended:
                        if stream.end is not None:
                            raise stream.end
                        return
                    continue
                if self.strikes(self.weather.drops):
                    raise self.random.choice((Unreachable("cut off"), Expired("too old")))
                yield stream.waiting.popleft()
        finally:
            self.way.streams.pop(stream, None)
            stream.task.cancel()
