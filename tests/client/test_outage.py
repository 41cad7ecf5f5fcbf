"""A server that goes away: looked for by one for all, ever more rarely, and told of once; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubesvc.api.configmap import CONFIG_MAP
from kubesvc.api.lease import LEASE
from kubesvc.client.informer import Informer
from kubesvc.client.interface import Client, Unreachable
from kubesvc.client.leader import LeaderElector, LeaderSettings
from kubesvc.client.outage import CALM_SECONDS, LONGEST_SECONDS, Outage, PatientClient
from kubesvc.clock import LoopClock, run_virtual

from .scripted import ScriptedServer, refused

INFORMERS = 5


class Away(ScriptedServer):
    """A server that can be switched off; `asked` are the times at which anybody tried to reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.there = False
        self.asked: list[float] = []
        self.looked: list[float] = []

    def check(self) -> None:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if not self.there:
            raise Unreachable("https://192.0.2.1:6443: Connection refused")

    def go(self) -> None:
        """With all its connections."""
        self.there = False
        self.watch_failures = [Unreachable("cut")] * INFORMERS
        self.drop()

    async def reach(self) -> None:
        self.looked.append(asyncio.get_running_loop().time())
        self.check()

    async def list_raw(self, *args: Any, **options: Any) -> Any:
        self.check()
        return await super().list_raw(*args, **options)

    async def watch(self, *args: Any, **options: Any) -> Any:
        self.check()
        async for event in super().watch(*args, **options):
            yield event

    async def get(self, *args: Any, **options: Any) -> Any:
        self.check()
        raise refused(403)

    async def create(self, *args: Any, **options: Any) -> Any:
        self.check()
        return {}

    def as_manager(self, manager: str) -> Client:
        return self.client


class World:
    def __init__(self) -> None:
        self.server = Away()
        self.server.put("a", data={"v": "1"})
        self.clock = LoopClock(asyncio.get_running_loop())
        self.outage = Outage(self.server.reach, self.clock, random.Random(1))
        self.client = PatientClient(self.server.client, self.outage)
        self.informers = [
            Informer[Any](self.client, CONFIG_MAP, clock=self.clock, random=random.Random(n)) for n in range(INFORMERS)
        ]

    async def synced(self) -> None:
        for informer in self.informers:
            await informer.synced.wait()

    def gaps(self) -> list[float]:
        """Between looks at the server, in seconds; forgets them."""
        looked, self.server.looked = self.server.looked, []
        return [b - a for a, b in itertools.pairwise(looked)]


def world(story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        w = World()
        tasks = [asyncio.create_task(informer.run()) for informer in w.informers]
        try:
            async with asyncio.timeout(24 * 3600):
                await story(w)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await w.outage.close()

    run_virtual(main())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What users see of it; forgets it."""
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return found


def test_one_looks_for_all_ever_more_rarely_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Two hours in which watches run into their own time-outs as well."""

    async def story(w: World) -> None:
        await asyncio.sleep(7200)
        gaps = w.gaps()
        assert 0.8 <= gaps[0] <= 1.6 and 1.6 <= gaps[1] <= 3.2 and 3.2 <= gaps[2] <= 6.4
        assert all(LONGEST_SECONDS <= gap <= 2 * LONGEST_SECONDS for gap in gaps[6:]) and len(set(gaps)) > 100
        assert len(w.server.asked) <= len(gaps) + 1 + INFORMERS, "besides the looks only what was under way at first"
        words = "https://192.0.2.1:6443: Connection refused; trying again, in the end every 30 to 60 s"
        assert told(caplog) == [f"the server cannot be reached: {words}"]
        w.server.there = True
        before = asyncio.get_running_loop().time()
        await w.synced()
        assert asyncio.get_running_loop().time() - before <= 2 * LONGEST_SECONDS + 1
        (back,) = told(caplog)
        assert back.startswith("the server is back, after 72")

    world(story)


def test_those_that_watched_wait_as_well(caplog: pytest.LogCaptureFixture) -> None:
    async def story(w: World) -> None:
        w.server.there = True
        await w.synced()
        w.server.asked.clear()
        w.server.looked.clear()
        w.server.go()
        await asyncio.sleep(7200)
        assert len(w.server.asked) - len(w.server.looked) <= INFORMERS
        assert len(w.server.looked) < 7200 / LONGEST_SECONDS
        assert len(told(caplog)) == 1
        w.server.put("b", data={"v": "1"})
        w.server.watch_failures.clear()
        w.server.there = True
        await asyncio.sleep(2 * LONGEST_SECONDS + 10)
        assert all(informer.get(("ns", "b")) for informer in w.informers)
        assert len(told(caplog)) == 1

    world(story)


def test_a_connection_that_only_broke_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def story(w: World) -> None:
        w.server.there = True
        await w.synced()
        w.server.looked.clear()
        w.server.watch_failures = [Unreachable("the connection was reset")] * INFORMERS
        w.server.drop()
        await asyncio.sleep(10)
        assert 1 <= len(w.server.looked) <= INFORMERS
        w.server.put("b", data={"v": "1"})
        await asyncio.sleep(1)
        assert all(informer.get(("ns", "b")) for informer in w.informers)
        assert told(caplog) == []

    world(story)


def test_other_requests_fail_at_once_but_wait_for_the_first_look() -> None:
    async def story(w: World) -> None:
        await asyncio.sleep(0.1)
        asked = len(w.server.asked)
        for call in (w.client.get(LEASE, "x", "ns"), w.client.create(CONFIG_MAP, {}, "ns")):
            with pytest.raises(Unreachable, match="refused; not asked again yet") as caught:
                await call
            assert caught.value.told
        assert len(w.server.asked) == asked
        w.server.there = True
        await w.synced()
        w.server.list_failures = [Unreachable("broken")]
        with pytest.raises(Unreachable, match="broken"):
            await w.client.list_raw(CONFIG_MAP)
        assert not w.outage.up.is_set()
        assert await w.client.create(CONFIG_MAP, {}, "ns") == {}

    world(story)


def test_who_flaps_is_looked_for_as_rarely_as_before() -> None:
    async def story(w: World) -> None:
        await asyncio.sleep(600)
        w.gaps()
        for calm, rarely in ((CALM_SECONDS / 2, True), (CALM_SECONDS * 2, False)):
            w.server.there = True
            await w.synced()
            await w.outage.up.wait()
            await asyncio.sleep(calm)
            w.server.looked.clear()
            w.server.go()
            await asyncio.sleep(300)
            gaps = w.gaps()
            assert (gaps[0] >= LONGEST_SECONDS) == rarely, gaps

    world(story)


def test_who_waits_for_the_lead_asks_as_rarely(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        w = World()
        settings = LeaderSettings(name="lease")
        elector = LeaderElector(w.client.as_manager("x"), settings, "me", w.clock, random.Random(1))
        waiting = asyncio.create_task(elector.acquire())
        await asyncio.sleep(3600)
        assert len(w.server.asked) <= 3600 / LONGEST_SECONDS + 10
        assert len(told(caplog)) == 1
        waiting.cancel()
        await w.outage.close()

    run_virtual(main())
