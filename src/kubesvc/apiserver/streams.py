"""Watch streams: from the cache's changes to the events one watcher sees.

A `Watcher` is fed by the cache in the very moment of a commit and never makes it wait: it only notes the change, in a
bounded queue. Its reader takes everything that has gathered at once. A watcher whose reader is too slow is cut off
(WATCH-18), which its client answers by watching again from where it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kubesvc.api.selectors import FieldSelector, LabelSelector

from .cache import ChangeType, Event, Item, KindCache

JOIN_EACH_SECONDS = 0.0002
JOIN_MOST_SECONDS = 0.01
"""Writes of a busy stream come at least so far apart for each stream of its kind, and at most that: what fifty watchers
see goes out in fewer, larger writes. A lone event goes out at once."""
LOOK_AT = 200
"""Objects that are asked whether they are selected before others have their turn: a millisecond, if each is decoded
for it."""


class Selection:
    """Which objects of a kind are looked at: a namespace, a label selector and a field selector."""

    __slots__ = ("everything", "fields", "labels", "name", "namespace", "prefix")

    def __init__(self, cache: KindCache, namespace: str, labels: LabelSelector, fields: FieldSelector) -> None:
        self.namespace = namespace if cache.kind.namespaced else ""
        self.prefix = f"{self.namespace}/" if self.namespace else ""
        self.labels = None if labels.empty else labels
        self.name = fields.exact("metadata.name")
        self.fields = fields if fields.requirements else None
        self.everything = not self.prefix and self.labels is None and self.fields is None

    @property
    def selective(self) -> bool:
        """Whether a label or field selector is used (LIST-3)."""
        return self.labels is not None or self.fields is not None

    def holds(self, item: Item) -> bool:
        """Whether the object is selected; its namespace included."""
        if self.prefix and not item.key.startswith(self.prefix):
            return False
        if self.name is not None and item.name != self.name:
            return False
        if self.labels is not None and not self.labels.matches(item.labels):
            return False
        return self.fields is None or self.fields.matches(item.field)

    def items(self, cache: KindCache, start: str = "") -> Iterable[Item]:
        """The selected objects in list order; use them up before awaiting."""
        if self.name is not None and (self.namespace or not cache.kind.namespaced):
            item = cache.get(self.namespace, self.name)
            return [item] if item is not None and item.key >= start and self.holds(item) else []
        found = cache.select(self.namespace, start)
        if self.labels is None and self.fields is None:
            return found
        return (i for i in found if self.holds(i))

    def candidates(self, cache: KindCache, start: str = "") -> list[Item]:
        """The objects of this moment among which the selected ones are (`among`)."""
        if self.name is not None and (self.namespace or not cache.kind.namespaced):
            return list(self.items(cache, start))
        return cache.listed(self.namespace, start)

    async def among(self, found: list[Item]) -> list[Item]:
        """Those of these that are selected; looking through very many lets others have their turn."""
        if self.labels is None and self.fields is None:
            return found
        holds = self.holds
        kept: list[Item] = []
        for at in range(0, len(found), LOOK_AT):
            if at:
                await asyncio.sleep(0)
            kept += [item for item in found[at : at + LOOK_AT] if holds(item)]
        return kept

    def seen_as(self, event: Event) -> ChangeType | None:
        """How a watcher with this selection sees a change, None if not at all (WATCH-12)."""
        if self.everything:
            return event.type
        if self.prefix and not event.key.startswith(self.prefix):
            return None
        if self.labels is None and self.fields is None:
            return event.type
        now = event.type != "DELETED" and self.holds(event.new)
        before = event.old is not None and self.holds(event.old)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None


class Seen(NamedTuple):
    """One event as one watcher sees it."""

    type: ChangeType
    event: Event

    def line(self) -> bytes:
        return self.event.line(self.type)

    def object(self) -> bytes:
        return self.event.object(self.type)


class Watcher:
    """One stream's place in the cache: what it has yet to send. Close it when done."""

    def __init__(self, cache: KindCache, selection: Selection, most: int) -> None:
        self.cache = cache
        self.selection = selection
        self.most = most
        self.queue: deque[Seen] = deque()
        self.overrun = False
        self.closed = False
        self.cut: Callable[[], None] | None = None
        """Ends the reader's connection: one that reads so slowly may wait in the middle of a write (WATCH-18)."""
        self.awake = False
        self._waiter: asyncio.Future[None] | None = None
        self.after = 0
        """Events up to this revision its reader has had from another server, which was ahead of this one."""
        cache.sinks.append(self._sink)
        cache.ends.append(self.stop)

    def _sink(self, events: list[Event]) -> None:
        seen_as = self.selection.seen_as
        added = False
        for event in events:
            type = seen_as(event)
            if type is not None and event.revision > self.after:
                self.queue.append(Seen(type, event))
                added = True
        if added:
            if len(self.queue) > self.most:
                self.overrun = True
                self.queue.clear()
                if self.cut is not None:
                    self.cut()
            self.wake()

    def replay(self, revision: int) -> bool:
        """Put the known events after `revision` in front; False if some of them are forgotten. Call at once after
        making the watcher, before any await."""
        self.after = revision
        events = self.cache.since(revision)
        if events is None:
            return False
        seen_as = self.selection.seen_as
        self.queue.extend(Seen(type, e) for e in events if (type := seen_as(e)) is not None)
        if self.queue:
            self.wake()
        return True

    def take(self) -> list[Seen]:
        """All waiting events."""
        taken = list(self.queue)
        self.queue.clear()
        self.awake = False
        return taken

    @property
    def join_seconds(self) -> float:
        """How far apart this stream's writes should be."""
        return min(JOIN_MOST_SECONDS, JOIN_EACH_SECONDS * len(self.cache.sinks))

    def wake(self) -> None:
        """Tell the reader to look."""
        self.awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to look at, at most so long. For one reader."""
        if self.awake or seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._tire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    @staticmethod
    def _tire(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def stop(self) -> None:
        """End the stream from the server's side (WATCH-15): the reader sees the end once it has taken the rest."""
        self.closed = True
        self.wake()

    def close(self) -> None:
        """Leave the cache. Later calls do nothing."""
        if self._sink in self.cache.sinks:
            self.cache.sinks.remove(self._sink)
        if self.stop in self.cache.ends:
            self.cache.ends.remove(self.stop)
