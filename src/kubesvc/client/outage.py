"""What to do while the API server is away: ask for it ever more rarely, once for everybody, and say so once.

Informers, workers and the search for a leader each try again by themselves; against a server that is away they would
ask it several times a second, and each would complain. A `PatientClient` lets one look at the server for all of them:
the first request that fails has it looked for; lists and watches wait until it is back, everything else fails at once,
as it would have anyway. A connection that only broke is not told of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.clock import Clock, Random

from .interface import Client, PatchType, RawList, Unreachable, WatchEvent

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_SECONDS, LONGEST_SECONDS = 0.8, 30.0
"""Between two looks, doubling, and each up to twice as long by chance: as upstream's reflectors."""
CALM_SECONDS = 120.0
"""A server that goes again sooner than this after it came back is looked for as rarely as before."""
MOST_WATCH_WAIT_SECONDS = 240.0
"""A watch waits no longer than this for the server: whoever watches takes long silence for a dead connection."""


class Outage:
    """Whether one server can be reached; shared by all its clients."""

    def __init__(self, reach: Callable[[], Awaitable[None]], clock: Clock, random: Random) -> None:
        """reach: returns when the server answered anything, Unreachable when it did not"""
        self.reach = reach
        self.clock = clock
        self.random = random
        self.up = asyncio.Event()
        """Set while nothing speaks against the server."""
        self.up.set()
        self.known = asyncio.Event()
        """Not set while the server is looked for the first time after a failure."""
        self.known.set()
        self.why = ""
        self._looks = 0
        self._back_since = 0.0
        self._looking: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """A request failed: look whether the server is there."""
        if self.up.is_set():
            self.up.clear()
            self.known.clear()
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="look for the server")

    async def _look(self) -> None:
        began = self.clock.monotonic()
        if began - self._back_since > CALM_SECONDS:
            self._looks = 0
        try:
            while not await self._answers():
                if not self.known.is_set():
                    log.warning("the server cannot be reached: %s; trying again, in the end every 30 to 60 s", self.why)
                    self.known.set()
                wait = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._looks, 20)) * (1 + self.random.random())
                self._looks += 1
                await asyncio.sleep(wait)
            if self.known.is_set():
                self._back_since = self.clock.monotonic()
                log.warning("the server is back, after %.0f s", self._back_since - began)
        finally:
            self.up.set()
            self.known.set()

    async def _answers(self) -> bool:
        try:
            await self.reach()
        except Unreachable as error:
            self.why = str(error)
            return False
        return True

    def refuse(self) -> Unreachable:
        """What requests get that do not wait."""
        error = Unreachable(f"{self.why}; not asked again yet")
        error.told = True
        return error

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


class PatientClient(Client):
    """`inner`, whose server may go away and come back."""

    def __init__(self, inner: Client, outage: Outage) -> None:
        self.inner = inner
        self.outage = outage

    def as_manager(self, manager: str) -> Client:
        return PatientClient(self.inner.as_manager(manager), self.outage)

    async def _now(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask unless the server is known to be away."""
        await self.outage.known.wait()
        if not self.outage.up.is_set():
            raise self.outage.refuse()
        return await self._asked(call)

    async def _asked(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await call()
        except Unreachable:
            self.outage.doubt()
            raise

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        return await self._now(lambda: self.inner.get(kind, name, namespace, subresource=subresource))

    async def list_raw(self, kind: Kind, namespace: str = "", **more: Any) -> RawList:
        """Waits while the server is away."""
        await self.outage.up.wait()
        return await self._asked(lambda: self.inner.list_raw(kind, namespace, **more))

    async def watch(self, kind: Kind, namespace: str = "", **more: Any) -> AsyncGenerator[WatchEvent, None]:
        """Waits while the server is away, though not for ever."""
        try:
            async with asyncio.timeout(MOST_WATCH_WAIT_SECONDS):
                await self.outage.up.wait()
        except TimeoutError:
            raise self.outage.refuse() from None
        try:
            async with aclosing(self.inner.watch(kind, namespace, **more)) as events:
                async for event in events:
                    yield event
        except Unreachable:
            self.outage.doubt()
            raise

    async def create(self, kind: Kind, obj: Object, namespace: str = "", **more: Any) -> Object:
        return await self._now(lambda: self.inner.create(kind, obj, namespace, **more))

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        return await self._now(lambda: self.inner.update(kind, obj, subresource=subresource))

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Any, type: PatchType, **more: Any) -> Object:
        return await self._now(lambda: self.inner.patch(kind, name, namespace, patch, type, **more))

    async def delete(self, kind: Kind, name: str, namespace: str = "", **more: Any) -> Object:
        return await self._now(lambda: self.inner.delete(kind, name, namespace, **more))

    async def delete_collection(self, kind: Kind, namespace: str, **more: Any) -> None:
        return await self._now(lambda: self.inner.delete_collection(kind, namespace, **more))
