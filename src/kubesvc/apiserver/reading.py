"""The verbs that read: get and list, now or as it was at a revision, whole or page by page (READ, LIST)."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest
from kubesvc.api.kind import Kind
from kubesvc.store import Compacted, FutureRevision, Store

from . import refusals
from .cache import Cache, Item, KindCache
from .continuation import continue_token, parse_continue_token
from .conversion import Conversions
from .options import ListOptions
from .results import ListPage, base_of
from .streams import Selection

SCAN_PAGE = 500


class Reading:
    """Verbs that read the objects of one store, mostly from its cache."""

    def __init__(self, cache: Cache, store: Store, conversions: Conversions) -> None:
        self.cache = cache
        self.store = store
        self.conversions = conversions

    def of(self, kind: Kind) -> KindCache:
        return self.cache.of(base_of(kind))

    async def fresh(self) -> None:
        """Wait until the cache has everything that was committed before now, by any server (consistent reads)."""
        revision = await self.store.revision()
        if revision > self.cache.revision and not await self.cache.seen(revision):
            raise refusals.too_large_version(revision, self.cache.revision)

    async def current(self) -> None:
        """Before a write: where others write too, what it is judged by must not be older than what they have done."""
        if self.store.shared:
            await self.fresh()

    async def not_older_than(self, text: str, *, listing: bool) -> None:
        """Wait until the cache is as new as a resourceVersion parameter asks (READ-1, LIST-8)."""
        if text == "0":
            return None
        if not text:
            return await self.fresh()
        wanted = refusals.version_of(text, listing=listing)
        if wanted > self.cache.revision:
            await self.store.revision()
        if wanted > self.cache.revision and not await self.cache.seen(wanted):
            raise refusals.too_large_version(wanted, self.cache.revision)
        return None

    async def get(self, kind: Kind, namespace: str, name: str, resource_version: str = "") -> Item:
        """One object; NotFound."""
        await self.not_older_than(resource_version, listing=False)
        item = self.of(kind).get(namespace, name)
        if item is None:
            raise refusals.not_found(kind, name)
        await self.conversions.ready(kind, (item.value,))
        return item

    async def list_page(self, kind: Kind, namespace: str, options: ListOptions) -> ListPage:
        """A page of a list (LIST-1 to LIST-9)."""
        page = await self._list_page(kind, namespace, options)
        if kind.custom is not None:
            await self.conversions.ready(kind, (i.value for i in page.items))
        return page

    async def _list_page(self, kind: Kind, namespace: str, options: ListOptions) -> ListPage:
        cache = self.of(kind)
        selection = Selection(cache, namespace, options.labels, options.fields)
        version, limit = options.resource_version, options.limit
        if options.continue_token:
            return await self._continue(kind, cache, selection, options)
        await self.not_older_than(version, listing=True)
        if options.match == "Exact" or (version not in ("", "0") and limit and not options.match):
            return await self._list_at(kind, cache, selection, int(version), "", limit, None)
        if version == "0":
            limit = 0
        return await self._list_now(kind, cache, selection, "", limit, self.cache.revision)

    async def _list_now(
        self, kind: Kind, cache: KindCache, selection: Selection, start: str, limit: int, revision: int
    ) -> ListPage:
        if not limit:
            return ListPage(kind, revision, await selection.among(selection.candidates(cache, start)))
        items: list[Item] = []
        left = 0
        for item in selection.items(cache, start):
            if len(items) == limit:
                left = 1 if selection.selective else cache.count(selection.namespace, start) - limit
                break
            items.append(item)
        if not left:
            return ListPage(kind, revision, items)
        token = continue_token(revision, items[-1].key)
        return ListPage(kind, revision, items, token, None if selection.selective else left)

    async def _continue(self, kind: Kind, cache: KindCache, selection: Selection, options: ListOptions) -> ListPage:
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        revision, start = parse_continue_token(options.continue_token)
        if revision < 0:
            await self.fresh()
            return await self._list_now(kind, cache, selection, start, options.limit, self.cache.revision)
        await self.not_older_than(str(revision), listing=True)
        return await self._list_at(kind, cache, selection, revision, start, options.limit, options.continue_token)

    async def _list_at(
        self,
        kind: Kind,
        cache: KindCache,
        selection: Selection,
        revision: int,
        start: str,
        limit: int,
        token: str | None,
    ) -> ListPage:
        """The state at a revision: from the cache if the kind has not changed since, else from the store's history."""
        if revision < self.store.compacted:
            raise refusals.expired_token(continue_token(-1, start[:-1])) if token else refusals.expired_list()
        if cache.changed <= revision:
            return await self._list_now(kind, cache, selection, start, limit, revision)
        prefix = cache.prefix + selection.prefix
        cursor = cache.prefix + start if start else ""
        items: list[Item] = []
        try:
            while True:
                page = await self.store.scan(prefix, start=cursor, limit=SCAN_PAGE, at=revision)
                for at, entry in enumerate(page.entries):
                    item = Item(cache.kind, entry.key[len(cache.prefix) :], entry.value, entry.modified)
                    if selection.selective and not selection.holds(item):
                        continue
                    if limit and len(items) == limit:
                        left = len(page.entries) - at + page.remaining
                        more = continue_token(revision, items[-1].key)
                        return ListPage(kind, revision, items, more, None if selection.selective else left)
                    items.append(item)
                if not page.more:
                    return ListPage(kind, revision, items)
                cursor = page.entries[-1].key + "\0"
        except Compacted:
            raise (
                refusals.expired_token(continue_token(-1, start[:-1])) if token else refusals.expired_list()
            ) from None
        except FutureRevision as e:
            raise refusals.too_large_version(e.asked, e.newest) from None
