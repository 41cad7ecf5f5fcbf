"""The watch cache: every object of every kind as bytes, and the latest changes, each encoded once.

One `Cache` follows a store; it holds one `KindCache` per kind. Objects stay the very bytes the store has; of each only
what selection needs is decoded, when first asked for. Keys are kept sorted in blocks, so that a write costs the same
in a large cluster as in a small one. Changes are kept in a bounded window from which watches resume; a change is
encoded once and all watchers send the same bytes.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import Literal, cast

import msgspec

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed
from kubesvc.clock import Clock
from kubesvc.store import Change, Store

from .storage import ROOT, answer, kind_prefix

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


class _Labels(msgspec.Struct, frozen=True, rename="camel"):
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _Labelled(msgspec.Struct, frozen=True):
    metadata: _Labels = _Labels()


_labels_decoder = msgspec.json.Decoder(_Labelled)
_NO_LABELS: dict[str, str] = {}


class Item:
    """One object: its key below the kind's prefix, stored bytes and revision, and what was decoded of it so far."""

    __slots__ = ("_fields", "_meta", "key", "kind", "revision", "value")

    def __init__(self, kind: Kind, key: str, value: bytes, revision: int) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.revision = revision
        self._meta: _Labels | None = None
        self._fields: tuple[str, ...] | None = None

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0] if self.kind.namespaced else ""

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def labels(self) -> Mapping[str, str]:
        return self._metadata().labels or _NO_LABELS

    @property
    def terminating(self) -> bool:
        """Whether metadata.deletionTimestamp is set."""
        return self._metadata().deletion_timestamp is not None

    def _metadata(self) -> _Labels:
        if self._meta is None:
            self._meta = _labels_decoder.decode(self.value).metadata
        return self._meta

    def typed(self) -> Typed:
        """The object in its kind's typed form, freshly decoded."""
        return _typed_decoder(self.kind).decode(self.value)

    def field(self, label: str) -> str:
        """The value that a field selector compares (SEL-3)."""
        if label == "metadata.name":
            return self.name
        if label == "metadata.namespace":
            return self.namespace
        known = self.kind.fields if self.kind.custom is None else self.kind.custom.readers
        if self._fields is None:
            obj = self.typed()
            self._fields = tuple([intern(read(obj)) for read in known.values()])
        return next((value for name, value in zip(known, self._fields, strict=True) if name == label), "")

    def answer(self) -> bytes:
        """The object as it is sent alone."""
        return answer(self.kind, self.value, self.revision)


_decoders: dict[Kind, msgspec.json.Decoder[Typed]] = {}


def _typed_decoder(kind: Kind) -> msgspec.json.Decoder[Typed]:
    if kind.custom is not None:
        return cast("msgspec.json.Decoder[Typed]", kind.custom.decoder)
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind.type)
    return found


class StaleItem(Item):
    """An object that was perhaps written under an older schema of its custom kind: brought up to date when first
    looked at."""

    __slots__ = ("_current", "_kept")
    _current: bool
    _kept: bytes

    @property
    def value(self) -> bytes:
        if not self._current:
            assert self.kind.custom is not None
            self._kept = self.kind.custom.refreshed(self._kept)
            self._current = True
        return self._kept

    @value.setter
    def value(self, value: bytes) -> None:
        self._kept, self._current = value, False


def kept_bytes(item: Item) -> bytes:
    """An object's bytes as they are at hand, without bringing them up to date."""
    return item._kept if isinstance(item, StaleItem) else item.value


class Event(msgspec.Struct, gc=False, eq=False):
    """One change of one object. `new` is the object after it (of a deletion: the last state with the deletion's
    revision, WATCH-13), `old` the one before, None for a new object; `at`: monotonic seconds.

    Tens of thousands are kept, and they are part of no cycle: the collector need not look at them (`gc`).
    """

    type: ChangeType
    revision: int
    key: str
    new: Item
    old: Item | None
    at: float
    lines: dict[str, bytes] | None = None
    """What watchers get, by the type that they see it as."""

    def line(self, type: ChangeType) -> bytes:
        """The event as a watcher that sees it as `type` gets it: one JSON line, encoded on first use."""
        if self.lines is None:
            self.lines = {}
        line = self.lines.get(type)
        if line is None:
            line = self.lines[type] = b'{"type":"%s","object":%s}\n' % (type.encode(), self.object(type))
        return line

    def object(self, type: ChangeType) -> bytes:
        """The object of the event: after DELETED by ceasing to match it is the old content with the new revision
        (WATCH-12)."""
        if type == "DELETED" and self.type != "DELETED" and self.old is not None:
            return answer(self.old.kind, self.old.value, self.revision)
        return self.new.answer()


class SortedKeys:
    """A sorted set of texts in blocks of bounded size: adding and removing moves at most one block."""

    MOST = 1024

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(keys)
        half = self.MOST // 2
        self.blocks: list[list[str]] = [ordered[i : i + half] for i in range(0, len(ordered), half)]
        self.firsts: list[str] = [b[0] for b in self.blocks]

    def add(self, key: str) -> None:
        """Add a key that is not there yet."""
        if not self.blocks:
            self.blocks.append([key])
            self.firsts.append(key)
            return
        at = max(bisect_left(self.firsts, key) - 1, 0)
        block = self.blocks[at]
        insort(block, key)
        if len(block) > self.MOST:
            half = len(block) // 2
            self.blocks[at : at + 1] = [block[:half], block[half:]]
            self.firsts[at : at + 1] = [block[0], block[half]]
        else:
            self.firsts[at] = block[0]

    def remove(self, key: str) -> None:
        """Remove a key that is there."""
        at = bisect_left(self.firsts, key)
        if at == len(self.firsts) or self.firsts[at] != key:
            at -= 1
        block = self.blocks[at]
        del block[bisect_left(block, key)]
        if block:
            self.firsts[at] = block[0]
        else:
            del self.blocks[at], self.firsts[at]

    def slices(self, prefix: str, start: str = "") -> Iterator[list[str]]:
        """The same keys as `range`, in lists."""
        low = max(prefix, start)
        high = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
        at = bisect_left(self.firsts, low)
        at = at - 1 if at and (at == len(self.firsts) or self.firsts[at] != low) else at
        for index in range(at, len(self.blocks)):
            block = self.blocks[index]
            begin = bisect_left(block, low) if block[0] < low else 0
            if not high or block[-1] < high:
                yield block[begin:] if begin else block
                continue
            if block[0] < high:
                yield block[begin : bisect_left(block, high)]
            return

    def range(self, prefix: str, start: str = "") -> Iterator[str]:
        """Keys that begin with `prefix` and are >= `start`, in order. The set must not change meanwhile."""
        for keys in self.slices(prefix, start):
            yield from keys


Sink = Callable[[list[Event]], None]


class KindCache:
    """The objects and latest changes of one kind. `oldest`: a watch may resume from this revision or a later one."""

    def __init__(self, kind: Kind, history_events: int) -> None:
        self.kind = kind
        self.prefix = kind_prefix(kind)
        self.items: dict[str, Item] = {}
        self.keys = SortedKeys()
        self.events: deque[Event] = deque()
        self.history_events = history_events
        self.oldest = 0
        self.changed = 0  # revision of the newest change of this kind
        self.sinks: list[Sink] = []
        self.ends: list[Callable[[], None]] = []
        """What ends the streams of those who watch this kind."""

    def become(self, kind: Kind) -> None:
        """The objects here are of this kind from now on: the definition that they follow came, or changed. Watchers
        are ended, so that they see what follows in its new form."""
        self.kind = kind
        self.items = {k: StaleItem(kind, k, kept_bytes(i), i.revision) for k, i in self.items.items()}
        self.end_watches()

    def end_watches(self) -> None:
        for end in tuple(self.ends):
            end()

    def load(self, items: Sequence[Item], revision: int) -> None:
        """Begin with these objects, in any order, as of `revision`."""
        self.items = {i.key: i for i in items}
        self.keys = SortedKeys(self.items)
        self.oldest = self.changed = revision

    def get(self, namespace: str, name: str) -> Item | None:
        return self.items.get(f"{namespace}/{name}" if self.kind.namespaced else name)

    def select(self, namespace: str = "", start: str = "") -> Iterator[Item]:
        """Objects in list order, of one namespace or all, from key `start` on. Must be used up before awaiting."""
        items = self.items
        prefix = f"{namespace}/" if namespace and self.kind.namespaced else ""
        for key in self.keys.range(prefix, start):
            yield items[key]

    def listed(self, namespace: str = "", start: str = "") -> list[Item]:
        """As `select`, all at once: a moment even for very many."""
        items = self.items
        prefix = f"{namespace}/" if namespace and self.kind.namespaced else ""
        found: list[Item] = []
        for keys in self.keys.slices(prefix, start):
            found += [items[key] for key in keys]
        return found

    def count(self, namespace: str = "", start: str = "") -> int:
        """How many objects `select` gives."""
        prefix = f"{namespace}/" if namespace and self.kind.namespaced else ""
        return sum(map(len, self.keys.slices(prefix, start)))

    def apply(self, change: Change, at: float) -> Event | None:
        """Move to the state after a change of one of this kind's keys; the event it makes, None if there is none."""
        key = change.key[len(self.prefix) :]
        old = self.items.get(key)
        event: Event
        if change.value is None:
            if old is None:
                return None
            del self.items[key]
            self.keys.remove(key)
            event = Event("DELETED", change.revision, key, Item(self.kind, key, old.value, change.revision), old, at)
        else:
            new = Item(self.kind, key, change.value, change.revision)
            if old is None:
                self.keys.add(key)
            self.items[key] = new
            event = Event("MODIFIED" if old else "ADDED", change.revision, key, new, old, at)
        self.changed = change.revision
        self.events.append(event)
        if len(self.events) > self.history_events:
            self._forget_one()
        return event

    def since(self, revision: int) -> list[Event] | None:
        """Events after `revision` in order, or None if some of them are no longer known."""
        if revision < self.oldest:
            return None
        newer: list[Event] = []
        for event in reversed(self.events):
            if event.revision <= revision:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def forget_before(self, at: float) -> None:
        """Drop events made before this time (monotonic seconds)."""
        while self.events and self.events[0].at < at:
            self._forget_one()

    def _forget_one(self) -> None:
        gone = self.events.popleft()
        self.oldest = gone.revision
        # Events of one transaction share a revision: they go together.
        while self.events and self.events[0].revision == gone.revision:
            self.events.popleft()

    def forget_all(self, revision: int) -> None:
        """Drop all history: after a compaction no older state may be told."""
        self.events.clear()
        self.oldest = max(self.oldest, revision)


class Cache:
    """All kinds of one store. `revision` is the newest revision seen; every KindCache is up to date with it."""

    def __init__(self, kinds: Iterable[Kind], store: Store, clock: Clock, history_events: int) -> None:
        self.store = store
        self.clock = clock
        self.history_events = history_events
        self.kinds: dict[Kind, KindCache] = {}
        self.adopted: list[Callable[[KindCache], None]] = []
        """Told of the objects of each custom kind that comes or changes."""
        self.by_prefix: dict[str, KindCache] = {}
        for kind in kinds:
            if kind.group == "events.k8s.io":
                continue  # a view of the core kind
            cache = KindCache(kind, history_events)
            self.kinds[kind] = cache
            self.by_prefix[cache.prefix] = cache
        self.loaded = False
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._early: list[Change] = []
        self._end: Callable[[], None] | None = None

    @property
    def revision(self) -> int:
        """Also moves when others write to the same store what is no object."""
        return self.store.newest if self.loaded else 0

    def of(self, kind: Kind) -> KindCache:
        if kind.custom is None:
            return self.kinds[kind]
        return self.place(kind_prefix(kind))

    def place(self, prefix: str) -> KindCache:
        """The objects below a prefix, `/registry/<group>/<plural>/`, whether or not their kind is known by now."""
        found = self.by_prefix.get(prefix)
        if found is None:
            _, _, group, plural, _ = prefix.split("/")
            nameless = Kind(group=group, version="", name="", plural=plural, namespaced=False, type=Typed, schema="")
            found = self.by_prefix[prefix] = KindCache(nameless, self.history_events)
            found.load((), self.revision)
        return found

    def adopt(self, kind: Kind) -> None:
        """Objects of a custom kind are served from now on, in the form of this version of it."""
        cache = self.of(kind)
        self.kinds.pop(cache.kind, None)
        cache.become(kind)
        self.kinds[kind] = cache
        for told in self.adopted:
            told(cache)

    def abandon(self, kind: Kind) -> None:
        """A custom kind is gone; what is left of its objects, if anything, waits for a definition to come back."""
        cache = self.of(kind)
        cache.end_watches()
        cache.sinks.clear()
        self.kinds.pop(cache.kind, None)
        if not cache.items:
            self.by_prefix.pop(cache.prefix, None)

    async def start(self) -> None:
        """Load everything and follow the store from there."""
        self._end = self.store.subscribe("", self._sink)
        page = await self.store.scan(ROOT)
        found: dict[str, list[Item]] = {}
        for entry in page.entries:
            cache = self._cache_of(entry.key)
            if cache is not None:
                item = Item(cache.kind, entry.key[len(cache.prefix) :], entry.value, entry.modified)
                found.setdefault(cache.prefix, []).append(item)
        for cache in self.by_prefix.values():
            cache.load(found.get(cache.prefix, []), page.revision)
        self.loaded = True
        early, self._early = self._early, []
        self._sink([c for c in early if c.revision > page.revision])

    def stop(self) -> None:
        if self._end:
            self._end()
            self._end = None

    def _cache_of(self, key: str) -> KindCache | None:
        parts = key.split("/", 4)
        if len(parts) != 5:
            return None
        prefix = "/".join(parts[:4]) + "/"
        found = self.by_prefix.get(prefix)
        if found is None and "." in parts[2]:
            found = self.place(prefix)  # of a custom kind, whose definition may come later
        return found

    def _sink(self, changes: list[Change]) -> None:
        if not self.loaded:
            self._early += changes
            return
        if not changes:
            return
        at = self.clock.monotonic()
        told: dict[KindCache, list[Event]] = {}
        for change in changes:
            cache = self._cache_of(change.key)
            if cache is not None:
                event = cache.apply(change, at)
                if event is not None:
                    told.setdefault(cache, []).append(event)
        for cache, events in told.items():
            for sink in tuple(cache.sinks):
                sink(events)
        if self._waiters:
            ready = [f for r, f in self._waiters if r <= self.revision]
            self._waiters = [(r, f) for r, f in self._waiters if r > self.revision]
            for future in ready:
                if not future.done():
                    future.set_result(None)

    async def seen(self, revision: int, timeout_seconds: float = 3.0) -> bool:
        """Wait until the cache has reached a revision; whether it did in time."""
        if revision <= self.revision:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, future))
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            self._waiters = [w for w in self._waiters if w[1] is not future]
            return False
        return True

    def forget_before(self, at: float) -> None:
        for cache in self.by_prefix.values():
            cache.forget_before(at)

    def forget_all(self) -> None:
        for cache in self.by_prefix.values():
            cache.forget_all(self.revision)
