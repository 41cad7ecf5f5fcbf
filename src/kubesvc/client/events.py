"""Events: what a part has to say about an object, written as core/v1 Events (EVENT-1, EVENT-2).

`EventRecorder.event` only puts the event into a bounded queue and returns; `run` writes. A repeat of the same event
raises `count` and `lastTimestamp` of the first by PATCH. Many different messages about one object for one reason are
folded into one, and an object that is talked about without end is silenced for a while. Failing to write an event is
logged and never fails, or delays, the sync that reported it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Literal

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.event import EVENT
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, Typed
from kubesvc.clock import Clock, Random, rfc3339

from .interface import Client, Unreachable
from .workqueue import TokenBucket

EventSeverity = Literal["Normal", "Warning"]

log = logging.getLogger(__name__)

QUEUED = 1000
"""Events waiting to be written; more are dropped, and the drop is logged."""
REMEMBERED = 4096
"""Events, and objects, kept in mind for repeats."""
SIMILAR = 10
"""Different messages of one kind within SIMILAR_SECONDS before they are folded into one."""
SIMILAR_SECONDS = 600.0
BURST = 25
PER_SECOND = 1 / 300
"""One source may write BURST events about one object at once, then one in five minutes."""
MESSAGE_BYTES = 1024
"""Longest message an Event may carry."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One call of `event`: the object as involvedObject, and what is said about it."""

    component: str
    host: str
    about: tuple[tuple[str, str], ...]
    severity: EventSeverity
    reason: str
    message: str
    at: float


@dataclass(slots=True)
class _Written:
    """An Event that exists on the server, to be counted up."""

    namespace: str
    name: str
    count: int


@dataclass(slots=True)
class _Similar:
    """Messages seen of one (object, source, severity, reason) since `since`."""

    since: float
    messages: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Desk:
    """What recorders of one process share: the queue, and the memory of what was written."""

    client: Client
    clock: Clock
    random: Random
    queue: deque[_Told] = field(default_factory=deque)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    written: OrderedDict[tuple[Any, ...], _Written] = field(default_factory=OrderedDict)
    similar: OrderedDict[tuple[Any, ...], _Similar] = field(default_factory=OrderedDict)
    buckets: OrderedDict[tuple[Any, ...], TokenBucket] = field(default_factory=OrderedDict)
    dropped: int = 0
    last_moment: int = 0

    def moment(self, at: float) -> int:
        """Nanoseconds for an Event's name, never the same twice: by name, Events are in the order they were told."""
        self.last_moment = max(int(at * 1e9), self.last_moment + 1)
        return self.last_moment


class EventRecorder:
    """Says things about objects in the name of one component.

        events = EventRecorder(client, "endpoint-slice-controller", clock=clock, random=random)
        events.event(SERVICE, service, "Warning", "FailedToListPods", "...")
        asyncio.create_task(events.run())          # once for a recorder and all made from it by `by`

    component: what `source.component` says, and the field manager of the writes
    host:      what `source.host` says, the node's name for parts that belong to one
    """

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock, random: Random) -> None:
        self.component = component
        self.host = host
        self._desk = _Desk(client, clock, random)

    def by(self, component: str) -> EventRecorder:
        """The same desk, speaking as another component."""
        other = object.__new__(EventRecorder)
        other.component = component
        other.host = self.host
        other._desk = self._desk
        return other

    def event(self, kind: Kind, obj: Typed | Object, severity: EventSeverity, reason: str, message: str) -> None:
        """Report something about `obj`, an object of `kind`; returns at once and never raises."""
        desk = self._desk
        if len(desk.queue) >= QUEUED:
            desk.dropped += 1
            log.warning("event dropped, %d are waiting to be written: %s: %s", QUEUED, reason, message)
            return
        told = _Told(self.component, self.host, _involved(kind, obj), severity, reason, _cut(message), desk.clock.now())
        desk.queue.append(told)
        desk.waiting.set()

    async def run(self) -> None:
        """Write what was reported, in order, until cancelled."""
        desk = self._desk
        while True:
            await desk.waiting.wait()
            while desk.queue:
                told = desk.queue.popleft()
                try:
                    await self._write(told)
                except (ApiError, Unreachable) as error:
                    closing = isinstance(error, ApiError) and error.has_cause("NamespaceTerminating")
                    level = logging.DEBUG if closing else logging.WARNING
                    log.log(level, "event not written: %s: %s: %s", told.reason, told.message, error)
                except Exception:
                    log.exception("event not written: %s: %s", told.reason, told.message)
            desk.waiting.clear()

    async def _write(self, told: _Told) -> None:
        desk = self._desk
        source = (told.component, told.about)
        bucket = _remember(desk.buckets, source, lambda: TokenBucket(PER_SECOND, BURST))
        message = self._folded(told, source)
        if not bucket.take(desk.clock.monotonic()):
            log.debug("event held back, too many about this object: %s: %s", told.reason, told.message)
            return
        client = desk.client.as_manager(told.component)
        # The resourceVersion of the object takes no part: the same complaint about a newer state is a repeat.
        same = (told.component, _without_version(told.about), told.severity, told.reason, message)
        before = desk.written.get(same)
        if before is not None and await self._count_up(client, before, told):
            desk.written.move_to_end(same)
            return
        event = self._event(told, message)
        meta = event["metadata"]
        desk.written[same] = _Written(meta["namespace"], meta["name"], 1)
        while len(desk.written) > REMEMBERED:
            desk.written.popitem(last=False)
        try:
            await client.create(EVENT, event, meta["namespace"])
        except ApiError:
            del desk.written[same]
            raise

    def _folded(self, told: _Told, source: tuple[Any, ...]) -> str:
        """The message, or the one text that stands for many different ones."""
        desk = self._desk
        group = (*source[:1], _without_version(told.about), told.severity, told.reason)
        seen = _remember(desk.similar, group, lambda: _Similar(told.at))
        if told.at - seen.since > SIMILAR_SECONDS:
            seen.messages.clear()
        seen.since = told.at
        if told.message not in seen.messages and len(seen.messages) < SIMILAR:
            seen.messages[told.message] = None
        if told.message in seen.messages and len(seen.messages) < SIMILAR:
            return told.message
        return _cut(f"(combined from similar events): {told.message}")

    async def _count_up(self, client: Client, before: _Written, told: _Told) -> bool:
        """Raise the count of an Event we wrote; False if it is gone."""
        patch = {"count": before.count + 1, "lastTimestamp": rfc3339(told.at)}
        try:
            await client.patch(EVENT, before.name, before.namespace, patch, "merge")
        except NotFound:
            return False  # events live for an hour only
        before.count += 1
        return True

    def _event(self, told: _Told, message: str) -> Object:
        about = dict(told.about)
        when = rfc3339(told.at)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about['name']}.{self._desk.moment(told.at):x}",
                "namespace": about.get("namespace") or "default",
            },
            "involvedObject": about,
            "reason": told.reason,
            "message": message,
            "source": {"component": told.component} | ({"host": told.host} if told.host else {}),
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "type": told.severity,
            "reportingComponent": told.component,
            "reportingInstance": told.host,
        }


def _involved(kind: Kind, obj: Typed | Object) -> tuple[tuple[str, str], ...]:
    """The object as `involvedObject`, empty fields left out."""
    if isinstance(obj, Typed):
        meta = obj.metadata
        found = (meta.namespace, meta.name, meta.uid, meta.resource_version)
    else:
        plain = obj.get("metadata") or {}
        found = tuple(str(plain.get(f) or "") for f in ("namespace", "name", "uid", "resourceVersion"))  # type: ignore[assignment]
    namespace, name, uid, version = found
    fields = (
        ("kind", kind.name),
        ("namespace", namespace),
        ("name", name),
        ("uid", uid),
        ("apiVersion", kind.api_version),
        ("resourceVersion", version),
    )
    return tuple((f, value) for f, value in fields if value)


def _without_version(about: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in about if pair[0] != "resourceVersion")


def _remember(memory: OrderedDict[tuple[Any, ...], Any], key: tuple[Any, ...], make: Any) -> Any:
    """The remembered value, made if there is none; the least recently used ones are forgotten."""
    if key in memory:
        memory.move_to_end(key)
    else:
        memory[key] = make()
        while len(memory) > REMEMBERED:
            memory.popitem(last=False)
    return memory[key]


def _cut(message: str) -> str:
    raw = message.encode()
    return message if len(raw) <= MESSAGE_BYTES else raw[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
