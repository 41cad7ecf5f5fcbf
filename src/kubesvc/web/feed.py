"""Keeps pictures up to date and tells whoever watches what has changed.

Nothing is read, and no cache is kept, before somebody watches. Changes are not queued: each watcher compares what it
was told last with what is so now, at most sixty times a second, so that one that is slow is told less often and never
more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from kubesvc.api.daemonset import DAEMON_SET
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import ApiError, Unauthorized
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed
from kubesvc.api.pod import POD
from kubesvc.api.service import SERVICE, Service
from kubesvc.client import Unreachable
from kubesvc.client.informer import Informer, InformerFactory
from kubesvc.clock import Clock
from kubesvc.why.collect import SYSTEM, reason_of
from kubesvc.why.diagnose import diagnose_service
from kubesvc.why.diagnosis import Diagnosis
from kubesvc.why.snapshot import READ, Gap, Snapshot

from . import model
from .moves import Moves

log = logging.getLogger(__name__)

MOST_PER_SECOND = 60
OVERVIEW_SECONDS = 0.5
TRAFFIC_SECONDS = 0.25
RATE_SECONDS = 2.0
"""A rate is the mean of about so long."""
PATIENCE = 6
"""How often a busy server is asked whether a kind may be read."""
CONTACT_SECONDS = 3.0
AGEING_SECONDS = 5.0
"""What is so may change with time alone: pictures are looked over again after this."""
SHARE = 0.34
"""Of one core, at most, goes into pictures."""

Key = tuple[str, str]
"""Namespace and name of a Service."""


class Traffic(Protocol):
    """Counts connections; `run` is called once somebody watches. `totals` by node; `partial`: there were more.
    `trouble` says why nobody can count after all, "" if somebody can."""

    @property
    def partial(self) -> bool: ...
    @property
    def totals(self) -> Mapping[str, Mapping[model.FlowKey, int]]: ...
    async def run(self) -> None: ...
    def trouble(self) -> str: ...


class Lines(Protocol):
    """New lines of the journals: see `instance.journals`."""

    def moves(self) -> list[bytes]: ...
    def hops(self) -> dict[str, list[bytes]]: ...


@dataclass
class Rates:
    """Connections per second of each row, from totals that only grow."""

    known: dict[str, tuple[float, int]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def take(self, totals: Mapping[str, int], now: float) -> None:
        """Take in totals; `now` in seconds of a clock that never goes back."""
        for name, total in totals.items():
            before, had = self.known.get(name, (now, total))
            if now <= before:
                self.known[name] = (now, total)
                continue
            weight = min(1.0, (now - before) / RATE_SECONDS)
            rate = max(0, total - had) / (now - before)
            smooth = self.rates.get(name, 0.0) * (1 - weight) + rate * weight
            self.rates[name] = smooth if smooth >= 0.05 else 0.0
            self.known[name] = (now, total)
        for name in [n for n in self.known if n not in totals]:
            del self.known[name]
            self.rates.pop(name, None)


@dataclass
class Shown:
    """A picture that somebody watches."""

    watchers: int = 0
    picture: model.Picture | None = None
    items: dict[str, model.Item] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)


class Feed:
    """The pictures of one cluster.

    informers: somebody else runs them
    traffic:   None where connections cannot be counted; `uncounted` then says why
    lines:     None where nobody keeps journals; then moves are told from when somebody watches
    kubectl:   how it is called to ask this cluster
    """

    def __init__(
        self,
        informers: InformerFactory,
        clock: Clock,
        label: str,
        *,
        traffic: Traffic | None = None,
        uncounted: str = "",
        lines: Lines | None = None,
        kubectl: str = "kubectl",
    ) -> None:
        self.informers = informers
        self.clock = clock
        self.label = label
        self.kubectl = kubectl
        self.traffic = traffic
        self.uncounted = "" if traffic is not None else uncounted or "nobody counts connections here"
        self.moves = Moves(clock, lines)
        self.gaps: tuple[Gap, ...] = ()
        self.caches: dict[Kind, Informer[Any]] = {}
        self.shown: dict[Key, Shown] = {}
        self.overview: dict[str, model.Summary] = {}
        self.ready = asyncio.Event()
        """Set once the first overview is complete."""
        self.wanted = asyncio.Event()
        self.lost = ""
        """Said while the cluster does not answer, so that nobody takes what was for what is."""
        self.version = 0
        self.watchers = 0
        self._watched = asyncio.Event()
        """Set while somebody watches."""
        self._changed = asyncio.Event()
        self._dirty: set[str] = set()
        self._stale: set[str] = set()
        self._wake = asyncio.Event()

    # ---------------------------------------------------------------- watching

    async def changes(self, key: Key | None) -> AsyncGenerator[dict[str, Any], None]:
        """What a watcher is to be told: the first message is everything, each further one what has changed since.

        key: the Service to show; None for the one that most needs a look
        """
        self.wanted.set()
        await self.ready.wait()
        key = key or self.choose()
        shown = self.shown.setdefault(key, Shown()) if key else Shown()
        shown.watchers += 1
        self.watchers += 1
        self._watched.set()
        if key and shown.picture is None:
            self._dirty.add(key[0])
            self._wake.set()
            self.draw(key)
        told: dict[str, dict[str, Any]] = {"items": {}, "services": {}, "entries": {}}
        first, seen, uncounted, lost = True, -1, self.uncounted, self.lost
        try:
            while True:
                if seen != self.version:
                    seen = self.version
                    now = self.state(key)
                    message: dict[str, Any] = {"at": self.clock.now()}
                    for part, before in told.items():
                        changed, dropped = model.difference(before, now[part])
                        if changed:
                            message[part] = changed
                        if dropped:
                            message[f"{part}Gone"] = dropped
                    told = now
                    if lost != self.lost:
                        message["lost"] = lost = self.lost
                    if uncounted != self.uncounted:
                        message["uncounted"] = uncounted = self.uncounted
                    if first:
                        yield self.heading(key) | message
                        first = False
                    elif len(message) > 1:
                        yield message
                pause = asyncio.create_task(asyncio.sleep(1 / MOST_PER_SECOND))
                while seen == self.version:
                    self._changed.clear()
                    await self._changed.wait()
                await pause
        finally:
            shown.watchers -= 1
            self.watchers -= 1
            if not self.watchers:
                self._watched.clear()
            if key and not shown.watchers:
                self.shown.pop(key, None)

    def heading(self, key: Key | None) -> dict[str, Any]:
        """What stands above a picture."""
        return {
            "whole": True,
            "label": self.label,
            "key": "/".join(key) if key else "",
            "uncounted": self.uncounted,
            "lost": self.lost,
            "gaps": [str(g) for g in self.gaps],
        }

    def state(self, key: Key | None) -> dict[str, dict[str, Any]]:
        """All that a watcher of this Service knows."""
        shown = self.shown.get(key) if key else None
        return {
            "items": dict(shown.items) if shown else {},
            "services": dict(self.overview),
            "entries": self.moves.entries(key) if key else {},
        }

    def choose(self) -> Key | None:
        """The Service to show when none is named: one that is broken, and of those of users first."""
        worst = {"broken": 0, "unknown": 1, "degraded": 2, "healthy": 3}

        def rank(item: tuple[str, model.Summary]) -> tuple[bool, int, str]:
            s = item[1]
            own = s.namespace == SYSTEM or (s.namespace, s.name) == ("default", "kubernetes")
            return own, worst.get(s.status, 1), item[0]

        best = min(self.overview.items(), key=rank, default=None)
        return (best[1].namespace, best[1].name) if best else None

    async def export(self) -> dict[str, Any]:
        """Everything at this moment, for a file: the list, and the picture of every Service."""
        self.wanted.set()
        await self.ready.wait()
        pictures, entries = {}, {}
        for text in list(self.overview):
            namespace, _, name = text.partition("/")
            key = (namespace, name)
            if key in self.shown and self.shown[key].items:
                pictures[text] = dict(self.shown[key].items)
            elif (service := self.service(key)) is not None:
                picture, _ = self.picture(key, service, self.snapshot(namespace))
                totals = model.totals_of(picture, self.traffic.totals.values()) if self.traffic else {}
                pictures[text] = model.with_traffic(picture, totals, {})
                await asyncio.sleep(0)
            entries[text] = self.moves.entries(key)
        return {
            **self.heading(self.choose()),
            "at": self.clock.now(),
            "services": dict(self.overview),
            "pictures": pictures,
            "timelines": entries,
        }

    # ---------------------------------------------------------------- keeping up

    async def run(self) -> None:
        """Keep everything up to date until cancelled; idle until somebody watches."""
        await self.wanted.wait()
        await self.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keep_overview())
            group.create_task(self.keep_pictures())
            group.create_task(self.keep_numbers())
            group.create_task(self.keep_contact())
            if self.traffic is not None:
                group.create_task(self.traffic.run())

    async def begin(self) -> None:
        """Open the caches of all kinds that may be read; the others are gaps."""
        gaps = []
        for kind in READ:
            if refusal := await self.refusal(kind):
                gaps.append(Gap(kind, refusal))
            else:
                self.caches[kind] = self.informers.of(kind)
        self.gaps = tuple(gaps)
        for kind, cache in self.caches.items():
            await cache.synced.wait()
            cache.on_change(self._note if kind.namespaced else self._note_all)

    async def refusal(self, kind: Kind) -> str:
        """Why a kind may not be read, "" if it may. A server that is busy, or not there, is asked again; Unreachable if
        it stays away."""
        away: Unreachable | None = None
        reason = ""
        for _ in range(PATIENCE):
            away = None
            try:
                await self.informers.client.list_raw(kind, limit=1)
                return ""
            except Unauthorized:
                raise
            except Unreachable as error:
                away = error
            except ApiError as error:
                reason = reason_of(error)
                if error.status_code not in (429, 500, 503, 504):
                    break
            await asyncio.sleep(0.5)
        if away is not None:
            raise away
        return reason

    def _note(self, old: Typed | None, new: Typed | None) -> None:
        namespace = (new or old).namespace  # type: ignore[union-attr]
        self._dirty.add(namespace)
        self._stale.add(namespace)
        self._wake.set()

    def _note_all(self, old: Typed | None, new: Typed | None) -> None:
        """A Node or Namespace. A node's heartbeat changes nothing that is shown."""
        if old is not None and new is not None and bare(old) == bare(new):
            return
        every = {s.namespace for s in self.services()}
        self._dirty |= every
        self._stale |= every
        self._wake.set()

    def services(self) -> list[Service]:
        return list(self.caches[SERVICE].values()) if SERVICE in self.caches else []

    def service(self, key: Key) -> Service | None:
        return self.caches[SERVICE].get(key) if SERVICE in self.caches else None

    def snapshot(self, namespace: str) -> Snapshot:
        """One namespace as the caches have it, with the parts of kube-system that every diagnosis looks at."""
        objects: dict[Kind, Sequence[Typed]] = {}
        for kind, cache in self.caches.items():
            if not kind.namespaced:
                objects[kind] = list(cache.values())
            else:
                objects[kind] = list(cache.in_namespace(namespace))
                if namespace != SYSTEM and kind in (SERVICE, ENDPOINT_SLICE, DAEMON_SET):
                    objects[kind] = [*objects[kind], *cache.in_namespace(SYSTEM)]
                elif namespace != SYSTEM and kind is POD:
                    proxies = [p for p in cache.in_namespace(SYSTEM) if p.metadata.label("k8s-app") == "kube-proxy"]
                    objects[kind] = [*objects[kind], *proxies]
        return Snapshot(objects, self.clock.now(), gaps=self.gaps, scope=namespace)

    def publish(self) -> None:
        """Let the watchers look."""
        self.version += 1
        self._changed.set()

    def picture(self, key: Key, service: Service, snapshot: Snapshot) -> tuple[model.Picture, Diagnosis]:
        """The picture of a Service as this feed shows it."""
        on = self.moves.rules_on(key) if self.traffic is not None else ()
        return model.picture_of(service, snapshot, counted=self.uncounted, rules_on=on, kubectl=self.kubectl)

    def summary(self, service: Service, snapshot: Snapshot) -> model.Summary:
        """A Service's line in the list."""
        try:
            return model.summary_of(service, diagnose_service(service, snapshot), snapshot)
        except Exception:
            log.exception("svc/%s in namespace %s cannot be judged", service.name, service.namespace)
            return model.Summary(service.name, service.namespace, service.spec.type, "unknown", "cannot be judged")

    def draw(self, key: Key, snapshot: Snapshot | None = None) -> None:
        """Work out one picture anew."""
        shown = self.shown.get(key)
        if shown is None:
            return
        service = self.service(key)
        if service is None:
            shown.picture, shown.items = None, {}
        else:
            snapshot = snapshot or self.snapshot(key[0])
            try:
                picture, diagnosis = self.picture(key, service, snapshot)
            except Exception:  # an odd object must not end the process that also serves the API
                log.exception("the picture of svc/%s in namespace %s is left as it was", key[1], key[0])
                return
            self.moves.compare(key, shown.picture, picture)
            shown.picture = picture
            shown.items = self.counted(shown, picture)
            self.overview["/".join(key)] = model.summary_of(service, diagnosis, snapshot)
        self.publish()

    def counted(self, shown: Shown, picture: model.Picture) -> dict[str, model.Item]:
        """The picture's items with the numbers that are known now."""
        partial = self.traffic is not None and self.traffic.partial
        return model.with_traffic(picture, shown.totals, shown.rates.rates, partial=partial)

    async def keep_pictures(self) -> None:
        """Draw what has changed, and use no more of the processor than agreed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(AGEING_SECONDS):
                    await self._wake.wait()
            aged = not self._wake.is_set()
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            started = self.clock.monotonic()
            snapshots: dict[str, Snapshot] = {}
            for key in sorted(self.shown):
                if aged or key[0] in dirty:
                    if key[0] not in snapshots:
                        snapshots[key[0]] = self.snapshot(key[0])
                    self.draw(key, snapshots[key[0]])
            spent = self.clock.monotonic() - started
            await asyncio.sleep(max(1 / MOST_PER_SECOND, spent / SHARE))

    async def keep_overview(self) -> None:
        """Judge every Service of the namespaces that have changed, a few at a time."""
        self._stale |= {s.namespace for s in self.services()}
        while True:
            stale, self._stale = sorted(self._stale), set()
            for namespace in stale:
                snapshot = self.snapshot(namespace)
                there = {"/".join((s.namespace, s.name)): s for s in snapshot.services.values()}
                there = {k: s for k, s in there.items() if s.namespace == namespace}
                for gone in [k for k, v in self.overview.items() if v.namespace == namespace and k not in there]:
                    del self.overview[gone]
                for text, service in there.items():
                    started = self.clock.monotonic()
                    self.overview[text] = self.summary(service, snapshot)
                    if self.ready.is_set():
                        await asyncio.sleep((self.clock.monotonic() - started) / SHARE)
            if stale:
                self.overview = dict(sorted(self.overview.items()))
                self.publish()
            self.ready.set()
            await asyncio.sleep(OVERVIEW_SECONDS)

    async def keep_contact(self) -> None:
        """Notice when the cluster does not answer any more, and when it does again. Nobody watches: nobody asks."""
        while True:
            await self._watched.wait()
            await asyncio.sleep(CONTACT_SECONDS)
            if not self.watchers:
                continue
            lost = ""
            try:
                async with asyncio.timeout(CONTACT_SECONDS):
                    await self.informers.client.list_raw(SERVICE, limit=1)
            except ApiError:
                pass  # it answers
            except (Unreachable, TimeoutError):
                lost = "The cluster does not answer; this is how it was"
            if lost != self.lost:
                self.lost = lost
                self.publish()

    async def keep_numbers(self) -> None:
        """Connections, and the lines of the timeline."""
        while True:
            now, changed = self.clock.monotonic(), self.moves.read()
            if self.traffic is not None and (trouble := self.traffic.trouble()) != self.uncounted:
                self.uncounted = trouble
                for key in list(self.shown):
                    self.draw(key)
            for shown in list(self.shown.values()):
                if shown.picture is not None and self.traffic is not None:
                    shown.totals = model.totals_of(shown.picture, self.traffic.totals.values())
                    shown.rates.take(shown.totals, now)
                    items = self.counted(shown, shown.picture)
                    changed |= items != shown.items
                    shown.items = items
            if changed:
                self.publish()
            await asyncio.sleep(TRAFFIC_SECONDS)


def bare(obj: Typed) -> object:
    """A Node without what its heartbeat changes, or any other object without its revision."""
    status = getattr(obj, "status", None)
    conditions = [(c.type, c.status) for c in getattr(status, "conditions", None) or ()]
    return (
        obj.metadata.labels, obj.metadata.deletion_timestamp, conditions, getattr(status, "addresses", None),
        getattr(obj, "spec", None),
    )  # fmt: skip
