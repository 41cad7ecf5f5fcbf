"""A page whose cluster is made up: the real feed, server and files, over a snapshot that the test changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubesvc.api.service import Service
from kubesvc.clock import RealClock
from kubesvc.web import model
from kubesvc.web.feed import Feed, Key
from kubesvc.web.server import PageServer
from kubesvc.why.diagnose import diagnose_service
from kubesvc.why.snapshot import Snapshot
from tests.why import planted

TOKEN = "0123456789abcdef" * 3


class Counted:
    """Connections that the test sets."""

    def __init__(self) -> None:
        self.totals: dict[str, dict[model.FlowKey, int]] = {"n1": {}}

    partial = False

    async def run(self) -> None:
        await asyncio.Event().wait()

    def trouble(self) -> str:
        return ""

    def add(self, address: str, number: int, front: str = "10.96.0.7", port: int = 8080) -> None:
        key = (6, front, 80, address, port)
        self.totals["n1"][key] = self.totals["n1"].get(key, 0) + number


class MadeUpFeed(Feed):
    """A feed over one snapshot, which `show` replaces."""

    def __init__(self, snapshot: Snapshot, counted: Counted | None = None) -> None:
        super().__init__(None, RealClock(), "made up", traffic=counted)  # type: ignore[arg-type]
        self.now = snapshot
        self.judge()

    def judge(self) -> None:
        self.overview = {
            "/".join(key): model.summary_of(s, diagnose_service(s, self.now), self.now)
            for key, s in sorted(self.now.services.items())
        }

    def show(self, snapshot: Snapshot) -> None:
        """Things have changed."""
        self.now = snapshot
        self.judge()
        for key in list(self.shown):
            self.draw(key, snapshot)
        self.publish()

    def services(self) -> list[Service]:
        return list(self.now.services.values())

    def service(self, key: Key) -> Service | None:
        return self.now.services.get(key)

    def snapshot(self, namespace: str) -> Snapshot:
        return self.now

    async def begin(self) -> None:
        self.ready.set()

    async def keep_contact(self) -> None:
        """There is no cluster to lose, unless a test has given one."""
        if self.informers is not None:
            await super().keep_contact()


class Page:
    """A page that is served by a thread of its own."""

    def __init__(self, feed: MadeUpFeed) -> None:
        self.feed = feed
        self.server = PageServer(feed, TOKEN)
        self.loop = asyncio.new_event_loop()
        self.up = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.run(),), daemon=True)

    async def run(self) -> None:
        self.task = asyncio.ensure_future(
            asyncio.wait(
                [
                    asyncio.ensure_future(self.feed.run()),
                    asyncio.ensure_future(self.server.serve("127.0.0.1", 0, lambda _: self.up.set())),
                ],
                return_when=asyncio.FIRST_EXCEPTION,
            )
        )
        try:
            await self.task
        except asyncio.CancelledError:
            pass
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0.1)

    @property
    def link(self) -> str:
        return self.server.link

    def do(self, action: Any, *args: Any) -> None:
        """Call something in the page's thread, and wait."""
        done = threading.Event()

        def call() -> None:
            action(*args)
            done.set()

        self.loop.call_soon_threadsafe(call)
        assert done.wait(60)

    def every(self, seconds: float, action: Any) -> None:
        """Call something in the page's thread again and again."""

        def call() -> None:
            action()
            self.loop.call_later(seconds, call)

        self.loop.call_soon_threadsafe(call)


@contextmanager
def serving(made: Snapshot | MadeUpFeed, counted: Counted | None = None) -> Iterator[Page]:
    """A page of this snapshot, or of a feed, until the end of the block."""
    page = Page(made if isinstance(made, MadeUpFeed) else MadeUpFeed(made, counted))
    page.thread.start()
    assert page.up.wait(60)
    try:
        yield page
    finally:
        page.loop.call_soon_threadsafe(page.task.cancel)
        page.thread.join(60)
        page.loop.close()


def pods(count: int, out: Mapping[int, Mapping[str, Any]] = {}) -> list[Any]:
    """So many Pods of app=web on two nodes; `out`: by number, what is different with some."""
    return [
        planted.pod(f"web-{i}", **{"ip": f"10.244.{1 + i % 2}.{2 + i // 2}", "node": f"n{1 + i % 2}", **out.get(i, {})})
        for i in range(count)
    ]


class BusyFeed(MadeUpFeed):
    """A feed that tells, so many times a second, new numbers of every Pod and now and then one Pod that turns.

    It is made before it is told, so that what is measured is the page and not the making.
    """

    def __init__(self, ready: Snapshot, one_out: Snapshot, key: Key, per_second: int) -> None:
        super().__init__(ready, Counted())
        self.per_second = per_second
        self.key = key
        self.told = 0
        before, after = (self.items(s) for s in (ready, one_out))
        there, back = model.difference(before, after)[0], model.difference(after, before)[0]
        self.messages = []
        rows = [id_ for id_ in before if id_.startswith("traffic/")]
        for number in range(120):
            items: dict[str, Any] = {
                row: model.TrafficItem(True, 1000 + number * (1 + i % 9), float((i * 7 + number * 3) % 40) / 2)
                for i, row in enumerate(rows)
            }
            if number % 20 in (0, 10):
                items |= there if number % 20 == 0 else back
            self.messages.append({"at": 1.0 + number, "items": items})

    def items(self, snapshot: Snapshot) -> dict[str, model.Item]:
        return model.with_traffic(model.picture_of(snapshot.services[self.key], snapshot)[0], {}, {})

    async def changes(self, key: Key | None) -> AsyncGenerator[dict[str, Any], None]:
        whole = {"items": self.items(self.now), "services": self.overview, "at": 1.0}
        yield self.heading(self.key) | whole
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / self.per_second
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield self.messages[self.told % len(self.messages)]
            self.told += 1
