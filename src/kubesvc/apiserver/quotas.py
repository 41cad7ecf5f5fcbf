"""ResourceQuotas enforced: exactly, whatever is under way at the same moment.

A namespace with a quota has a ledger: the footprint of each of its objects, kept by the cache's events, and what
writes under way will add. A write is judged against both and holds its share until the cache shows it or it failed, so
many at once cannot slip past a limit together. Namespaces without quotas cost one lookup. The figures in a quota's
status follow a moment later; they are for people to read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import RESOURCE_QUOTA
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client

from . import refusals
from .cache import Cache, Event, KindCache
from .quota import Amounts, Footprint, add, footprint_of, hard_of, matches, refusal_of, subtract, used_by
from .storage import decode

log = logging.getLogger("kubesvc.apiserver")

STATUS_SECONDS = 0.05
"""How long changes gather before a status is written."""
AGAIN_SECONDS = 1.0
"""How long after a refusal that may pass it is tried again."""

Place = tuple[str, str]
"""A resource (`foos.example.com`) and the name of one of its objects."""
Release = Callable[[], None]


def nothing_held() -> None:
    """What is given back where nothing was held."""


class Ledger:
    """What one namespace uses. `totals` are sums that are kept up instead of being added up again."""

    def __init__(self) -> None:
        self.footprints: dict[Place, Footprint] = {}
        self.pending: dict[Place, Footprint] = {}
        self.totals: dict[str, tuple[Object, Amounts]] = {}

    def change(self, place: Place, new: Footprint | None) -> None:
        """An object has a new footprint, or is gone."""
        self.pending.pop(place, None)
        old = self.footprints.pop(place, None)
        if new is not None:
            self.footprints[place] = new
        for quota, total in self.totals.values():
            if old is not None and matches(quota, old):
                subtract(total, {k: v for k, v in old.amounts.items() if k in total})
            if new is not None and matches(quota, new):
                add(total, {k: v for k, v in new.amounts.items() if k in total})

    def stored(self, quota: Object) -> Amounts:
        """What stored objects use of a quota."""
        name = quota["metadata"]["name"]
        known = self.totals.get(name)
        if known is None or known[0].get("spec") != quota.get("spec"):
            known = self.totals[name] = (quota, used_by(quota, self.footprints.values()))
        return known[1]

    def expected(self, quota: Object) -> Amounts:
        """What will be used when everything under way is stored."""
        used = dict(self.stored(quota))
        for place, footprint in self.pending.items():
            if matches(quota, footprint):
                before = self.footprints.get(place)
                had = before.amounts if before is not None else {}
                for name in used.keys() & footprint.amounts.keys():
                    more = footprint.amounts[name] - had[name] if name in had else footprint.amounts[name]
                    if more.nanos > 0:
                        used[name] = used[name] + more
        return used


class Quotas:
    """All quotas of a server. Make it before the cache starts."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.ledgers: dict[str, Ledger] = {}
        self.dirty: dict[tuple[str, str], None] = {}
        self.wake = asyncio.Event()
        self.followed: dict[str, KindCache] = {}
        for of_kind in cache.kinds.values():
            self.follow(of_kind)
        cache.adopted.append(self.follow)

    # ------------------------------------------------------------------ following what is stored

    def follow(self, of_kind: KindCache) -> None:
        """Count the objects of a kind; of a custom kind that only changed, go on counting."""
        if not of_kind.kind.namespaced or self.followed.get(of_kind.prefix) is of_kind:
            return
        self.followed[of_kind.prefix] = of_kind
        of_kind.sinks.append(self.sink(of_kind.kind))
        for namespace, ledger in self.ledgers.items():
            self.count_all(of_kind, namespace, ledger)
            self.mark(namespace)

    def count_all(self, of_kind: KindCache, namespace: str, ledger: Ledger) -> None:
        """Enter the objects of one kind that are stored already."""
        for item in of_kind.select(namespace):
            footprint = footprint_of(of_kind.kind, decode(item.value, item.revision))
            ledger.footprints[of_kind.kind.resource, item.name] = footprint

    def sink(self, kind: Kind) -> Callable[[list[Event]], None]:
        def follow(events: list[Event]) -> None:
            if not self.ledgers and kind is not RESOURCE_QUOTA:
                return
            for event in events:
                namespace, _, name = event.key.partition("/")
                ledger = self.ledgers.get(namespace)
                gone = event.type == "DELETED"
                if ledger is not None:
                    obj = None if gone else decode(event.new.value, event.new.revision)
                    ledger.change((kind.resource, name), footprint_of(kind, obj) if obj is not None else None)
                if kind is RESOURCE_QUOTA:
                    self.quota_changed(namespace, name, gone=gone)
                elif ledger is not None:
                    self.mark(namespace)

        return follow

    def quota_changed(self, namespace: str, name: str, *, gone: bool) -> None:
        ledger = self.ledgers.get(namespace)
        if gone:
            if ledger is not None:
                ledger.totals.pop(name, None)
            if not self.quotas_in(namespace):
                self.ledgers.pop(namespace, None)
            return
        self.ledger_of(namespace)
        self.mark(namespace)

    def mark(self, namespace: str) -> None:
        """The figures of a namespace's quotas may have changed."""
        for item in self.cache.of(RESOURCE_QUOTA).select(namespace):
            self.dirty[namespace, item.name] = None
        self.wake.set()

    def quotas_in(self, namespace: str) -> list[Object]:
        return [decode(i.value, i.revision) for i in self.cache.of(RESOURCE_QUOTA).select(namespace)]

    def ledger_of(self, namespace: str) -> Ledger:
        ledger = self.ledgers.get(namespace)
        if ledger is None:
            ledger = self.ledgers[namespace] = Ledger()
            for of_kind in self.cache.kinds.values():
                if of_kind.kind.namespaced:
                    self.count_all(of_kind, namespace, ledger)
        return ledger

    def start(self) -> None:
        """Open the ledgers of all namespaces that have quotas already."""
        for item in self.cache.of(RESOURCE_QUOTA).select():
            self.ledger_of(item.namespace)
            self.mark(item.namespace)

    # ------------------------------------------------------------------ judging writes

    def hold(self, kind: Kind, namespace: str, new: Object, old: Object | None, *, dry_run: bool) -> Release:
        """Judge a write and hold its share until the returned function is called or the cache shows it; Forbidden."""
        if namespace not in self.ledgers or (kind is RESOURCE_QUOTA and old is not None):
            return nothing_held
        ledger = self.ledgers[namespace]
        name = new["metadata"]["name"]
        wanted = footprint_of(kind, new)
        before = footprint_of(kind, old) if old is not None else None
        if before is not None and before == wanted:
            return nothing_held
        for quota in self.quotas_in(namespace):
            if refusal := refusal_of(quota, ledger.expected(quota), wanted, before):
                raise refusals.forbidden(kind, name, refusal)
        if dry_run:
            return nothing_held
        place = (kind.resource, name)
        ledger.pending[place] = wanted

        def release() -> None:
            if ledger.pending.get(place) is wanted:
                del ledger.pending[place]

        return release

    # ------------------------------------------------------------------ the figures

    async def run(self, client: Client) -> None:
        """Keep the statuses up, for ever."""
        while True:
            await self.wake.wait()
            await asyncio.sleep(STATUS_SECONDS)
            self.wake.clear()
            dirty, self.dirty = self.dirty, {}
            refused = 0
            for namespace, name in dirty:
                try:
                    await self.tell(client, namespace, name)
                except ApiError as e:
                    if e.status_code in (404, 409):  # gone, or another by that name, which tells of itself
                        continue
                    log.warning("quota %s/%s: %s; tried again in %g s", namespace, name, e, AGAIN_SECONDS)
                    self.dirty[namespace, name] = None
                    refused += 1
            if refused:
                await asyncio.sleep(AGAIN_SECONDS)
                self.wake.set()

    async def tell(self, client: Client, namespace: str, name: str) -> None:
        """Write what a quota limits and what is used of it into its status, if that changed."""
        item = self.cache.of(RESOURCE_QUOTA).get(namespace, name)
        if item is None:
            return
        quota = decode(item.value, item.revision)
        used = self.ledger_of(namespace).stored(quota)
        status = {"hard": spelled(hard_of(quota)), "used": spelled(used)}
        if quota.get("status") != status:
            patch = {
                "metadata": {"uid": quota["metadata"]["uid"]},
                "status": replaced(quota.get("status") or {}, status),
            }
            await client.patch(RESOURCE_QUOTA, name, namespace, patch, "merge", subresource="status")


def spelled(amounts: Amounts) -> dict[str, str]:
    return {n: str(amounts[n]) for n in sorted(amounts)}


def replaced(old: Object, new: Object) -> Object:
    """The merge patch from one status to the other."""
    return {part: {**dict.fromkeys(old.get(part) or {}), **new[part]} for part in new}
