"""Informers: a cache of all objects of one kind, kept up by a list and a watch, shared by whoever reads it.

    factory = InformerFactory(client, clock, random)
    pods = factory.of(POD)                                # the same informer for everybody who asks
    by_node = pods.index("node", lambda pod: [pod.spec.node_name])
    pods.on_change(lambda old, new: ...)                  # (None, new) added, (old, new) changed, (old, None) gone
    async with asyncio.TaskGroup() as group:
        group.create_task(factory.run())
        await factory.synced()
        pods.get(("default", "web")); by_node.get("n1")

An informer lists once and then watches. A stream that ends is resumed at the last resourceVersion seen (bookmarks
count, WATCH-9). When the server has forgotten that version (410, WATCH-10) it lists again and reports the difference
between cache and list, so a handler sees every object that came, changed or went, though not every state between. An
object that was deleted and made anew under the same name is reported as gone and then as new.

One object that does not decode is logged and skipped: the cache keeps the state it had. An informer that `salvages`
keeps what it can read of it instead, and tells what it could not. Handlers are called in the loop after the cache and
its indexes moved; they must not wait; one that raises is logged and the others go on, and so it is with indexes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

import msgspec

from kubesvc.api.errors import ApiError, Expired
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Struct, Typed
from kubesvc.clock import Clock, Random

from .interface import Client, RawList, Unreachable, loudness
from .salvage import salvage
from .sharing import Sharing
from .workqueue import Key, key_text

T = TypeVar("T", bound=Typed)
Handler = Callable[[T | None, T | None], None]
Unreadable = Callable[[Kind, Typed, Sequence[str]], None]
"""Told an object's kind, what could be read of it, and the paths of what could not."""

log = logging.getLogger(__name__)

PAGE = 1000
"""Objects of one list request."""
TURN = 100
"""Objects of a list that are read before the loop serves others: who answers names, say, answers meanwhile."""
BACK_OFF_BASE_SECONDS = 0.1
BACK_OFF_CAP_SECONDS = 5.0
"""Longest wait for a server that is away, give or take half: traffic should follow soon after it is back."""
WATCH_SECONDS = (300, 600)
"""A watch asks to be ended after a random time between these, so that a dead connection is found sooner or later."""
WATCH_GRACE_SECONDS = 30.0
"""How much longer than asked a watch may stay silent before it counts as dead."""


SALVAGED = 1000
"""Odd objects of one kind that are remembered as told."""


class _OnlyMeta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Outline(Struct, frozen=True):
    """What is read of an object whose content does not decode, and of bookmarks."""

    metadata: _OnlyMeta = _OnlyMeta()


class _Bucket(Generic[T]):
    """Objects by key; sorted when read after keys came or went, so that updates cost no sorting."""

    __slots__ = ("objects", "sorted")

    def __init__(self) -> None:
        self.objects: dict[Key, T] = {}
        self.sorted = True

    def put(self, key: Key, obj: T) -> None:
        if key not in self.objects:
            self.sorted = False
        self.objects[key] = obj

    def drop(self, key: Key) -> None:
        self.objects.pop(key, None)

    def ordered(self) -> dict[Key, T]:
        if not self.sorted:
            self.objects = dict(sorted(self.objects.items()))
            self.sorted = True
        return self.objects


class Index(Generic[T]):
    """Objects of one informer by values computed from them."""

    def __init__(self, of: Callable[[T], Iterable[str]]) -> None:
        self._of = of
        self._buckets: dict[str, _Bucket[T] | tuple[Key, T]] = {}  # one object alone needs no bucket

    def get(self, value: str) -> list[T]:
        """The objects with this value, in order of their keys."""
        bucket = self._buckets.get(value)
        if isinstance(bucket, tuple):
            return [bucket[1]]
        return list(bucket.ordered().values()) if bucket else []

    def keys(self, value: str) -> list[Key]:
        """The keys of the objects with this value, in order."""
        bucket = self._buckets.get(value)
        if isinstance(bucket, tuple):
            return [bucket[0]]
        return list(bucket.ordered()) if bucket else []

    def count(self, value: str) -> int:
        bucket = self._buckets.get(value)
        if isinstance(bucket, tuple):
            return 1
        return len(bucket.objects) if bucket else 0

    def values(self) -> list[str]:
        """All values in use, sorted."""
        return sorted(self._buckets)

    def _move(self, key: Key, old: T | None, new: T | None) -> None:
        """File `new` in place of `old`. The values of both are computed: to remember them took more than the Pods."""
        before, after = self._values(key, old), self._values(key, new)
        if before != after:
            for value in before:
                if value not in after and (bucket := self._buckets.get(value)) is not None:
                    if isinstance(bucket, _Bucket):
                        bucket.drop(key)
                    if isinstance(bucket, tuple) or not bucket.objects:
                        del self._buckets[value]
        for value in after:
            self._put(value, key, cast(T, new))

    def _values(self, key: Key, obj: T | None) -> Sequence[str]:
        """Without repeats being taken out: to file an object twice is to file it once."""
        if obj is None:
            return ()
        try:
            return list(self._of(obj))
        except Exception:  # an odd object must not stop the cache that everybody relies on
            log.exception("%s: an index failed", key_text(key))
            return ()

    def _put(self, value: str, key: Key, obj: T) -> None:
        bucket = self._buckets.get(value)
        if isinstance(bucket, _Bucket):
            bucket.put(key, obj)
        elif bucket is None or bucket[0] == key:
            self._buckets[value] = (key, obj)
        else:
            grown = self._buckets[value] = _Bucket()
            grown.put(*bucket)
            grown.put(key, obj)


class Informer(Generic[T]):
    """The cache of one kind, or of a part of it. `run` fills it and keeps it up; everything else only reads."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        clock: Clock,
        random: Random,
        salvages: Unreadable | None = None,
        decoded_as: type[Typed] | None = None,
    ) -> None:
        self.client = client
        self.kind = kind
        self.type = cast("type[T]", decoded_as or kind.type)
        self.salvages = salvages
        self.namespace = namespace
        self.label_selector = label_selector
        self.field_selector = field_selector
        self.clock = clock
        self.random = random
        self.synced = asyncio.Event()
        """Set once the first list is in the cache."""
        self.resource_version = ""
        """The cache holds everything up to here; "" when the next turn must list."""
        self.lists = self.watches = self.undecodable = 0
        """Counters for metrics and tests."""
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(self.type)
        self._outline = msgspec.json.Decoder(_Outline)
        self._all: _Bucket[T] = _Bucket()
        self._namespaces: dict[str, _Bucket[T]] = {}
        self._indexes: dict[str, Index[T]] = {}
        self._handlers: list[Handler[T]] = []
        self._sharing = Sharing()
        self._salvaged: OrderedDict[Key, tuple[str, ...]] = OrderedDict()  # what was told of each

    # ---------------------------------------------------------------- reading

    def get(self, key: Key) -> T | None:
        return self._all.objects.get(key)

    def __len__(self) -> int:
        return len(self._all.objects)

    def keys(self) -> list[Key]:
        return list(self._all.ordered())

    def values(self) -> Iterable[T]:
        """Every object, in order of keys; a list of its own, so the cache may move meanwhile."""
        return list(self._all.ordered().values())

    def in_namespace(self, namespace: str) -> Iterable[T]:
        """The objects of one namespace, in order of names."""
        bucket = self._namespaces.get(namespace)
        return list(bucket.ordered().values()) if bucket else []

    def count(self, namespace: str) -> int:
        """How many objects one namespace has."""
        bucket = self._namespaces.get(namespace)
        return len(bucket.objects) if bucket else 0

    def namespaces(self) -> list[str]:
        """Those that have objects, sorted."""
        return sorted(self._namespaces)

    def index(self, name: str, of: Callable[[T], Iterable[str]]) -> Index[T]:
        """An index by the values `of` gives, pure and quick; asked for again by name it is the same one."""
        if name not in self._indexes:
            index = self._indexes[name] = Index(of)
            for key, obj in self._all.objects.items():
                index._move(key, None, obj)
        return self._indexes[name]

    def on_change(self, handler: Handler[T]) -> None:
        """Call `handler(old, new)` for every change from now on, first of all for what is in the cache already."""
        self._handlers.append(handler)
        for obj in self.values():
            self._tell(handler, None, obj)

    # ---------------------------------------------------------------- keeping up

    async def run(self) -> None:
        """List and watch until cancelled. Never raises but for cancellation; trouble is logged and waited out."""
        failures = 0
        while True:
            level = logging.WARNING
            progress = (self.resource_version, self.lists)
            try:
                if not self.resource_version:
                    await self._list()
                started = self.clock.monotonic()
                await self._watch()
                if self.clock.monotonic() - started > 1.0:
                    failures = 0
                    continue
                trouble = "watch ended at once"
            except Expired as error:
                self.resource_version = ""
                trouble = f"history is gone: {error}"
                if not failures:
                    failures = 1
                    log.info("%s: %s; listing again", self.kind.plural, trouble)
                    continue
            except Unreachable as error:
                trouble, level = f"server not reachable: {error}", loudness(error)
            except ApiError as error:
                trouble = f"{error.status_code} {error.status_reason}: {error}"
                if error.status_code not in (429, 500, 503, 504):
                    self.resource_version = ""
            except TimeoutError:
                trouble = "silent for too long"
            except Exception as error:  # a bug must not end the cache that everybody relies on
                log.exception("%s: informer failed; starting over", self.kind.plural)
                trouble = repr(error)
                self.resource_version = ""
            if self.resource_version and (self.resource_version, self.lists) != progress:
                failures = 0
            wait = self._back_off(failures)
            failures += 1
            log.log(
                level if failures > 3 else logging.DEBUG,
                "%s: %s; again in %.1f s",
                self.kind.plural,
                trouble,
                wait,
            )
            await asyncio.sleep(wait)

    def _back_off(self, failures: int) -> float:
        """Doubling, capped, and spread by half up and down so that many informers do not come back together."""
        longest = min(BACK_OFF_CAP_SECONDS, BACK_OFF_BASE_SECONDS * 2.0 ** min(failures, 20))
        return longest * (0.5 + self.random.random())

    async def _list(self) -> None:
        """Read everything, page by page, and make the cache equal to it."""
        self.lists += 1
        found: dict[Key, T] = {}
        token = ""
        while True:
            try:
                page = await self._page(token, PAGE)
            except Expired:
                if not token:
                    raise
                found.clear()  # the list took longer than the server remembers: all in one answer then
                page = await self._page("", 0)
            for at in range(0, len(page.items), TURN):
                self._decode_page(page.items[at : at + TURN], found)
                await asyncio.sleep(0)
            token = page.continue_token
            if not token:
                break
        await self._replace(found)
        self.resource_version = page.resource_version
        self.synced.set()

    async def _page(self, token: str, limit: int) -> RawList:
        return await self.client.list_raw(
            self.kind,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            limit=limit,
            continue_token=token,
        )

    def _decode_page(self, items: Sequence[bytes], found: dict[Key, T]) -> None:
        for raw in items:
            obj = self._decode(raw)
            if obj is not None:
                found[(obj.namespace, obj.name)] = obj
            elif (key := self._key_of(raw)) is not None and (kept := self.get(key)) is not None:
                found[key] = kept  # still there, though in a state we cannot read

    async def _replace(self, found: dict[Key, T]) -> None:
        """Move the cache to `found`, telling handlers each difference."""
        for key in [k for k in self._all.ordered() if k not in found]:
            self._move(key, None)
        for turn, (key, obj) in enumerate(found.items(), 1):
            self._move(key, obj)
            if turn % TURN == 0:
                await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Follow the changes after `resource_version` until the server ends the stream."""
        self.watches += 1
        seconds = self.random.randint(*WATCH_SECONDS)
        stream = self.client.watch(
            self.kind,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            resource_version=self.resource_version,
            timeout_seconds=seconds,
        )
        async with asyncio.timeout(seconds + WATCH_GRACE_SECONDS), aclosing(cast(Any, stream)) as events:
            async for event in events:
                if event.type == "BOOKMARK":
                    self._note_version(event.object)
                else:
                    self._take(event.type, event.object)

    def _take(self, type: str, raw: bytes) -> None:
        """One event of the watch: move the cache and remember how far we are."""
        obj = self._decode(raw)
        if obj is None:
            key = self._key_of(raw)
            if type == "DELETED" and key is not None and (last := self.get(key)) is not None:
                self._move(key, None, last)
            self._note_version(raw)
            return
        key = (obj.namespace, obj.name)
        if type == "DELETED":
            self._move(key, None, obj)
        else:
            self._move(key, obj)
        self.resource_version = obj.metadata.resource_version or self.resource_version

    def _note_version(self, raw: bytes) -> None:
        try:
            version = self._outline.decode(raw).metadata.resource_version
        except msgspec.MsgspecError:
            return
        self.resource_version = version or self.resource_version

    def _decode(self, raw: bytes) -> T | None:
        try:
            decoded = self._decoder.decode(raw)
            self._sharing.share(decoded)
            return decoded
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if self.salvages is not None and (found := self._salvage(raw)) is not None:
                return found
            self.undecodable += 1
            key = self._key_of(raw)
            log.error("%s %s: skipped, it does not decode: %s", self.kind.name, key_text(key) if key else "?", error)
            return None

    def _salvage(self, raw: bytes) -> T | None:
        """What can be read of an odd object, None if that is not even who it is; told once for the same paths."""
        try:
            obj, lost = salvage(raw, self.type)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if not obj.name or not obj.metadata.uid or not obj.metadata.resource_version:
            return None
        key, paths = (obj.namespace, obj.name), tuple(sorted(lost))
        if self._salvaged.get(key) != paths:
            self._salvaged[key] = paths
            while len(self._salvaged) > SALVAGED:
                self._salvaged.popitem(last=False)
            log.warning("%s %s: read without %s", self.kind.name, key_text(key), ", ".join(paths))
            assert self.salvages is not None
            self.salvages(self.kind, obj, paths)
        return obj

    def _key_of(self, raw: bytes) -> Key | None:
        try:
            outline = self._outline.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return (outline.metadata.namespace, outline.metadata.name) if outline.metadata.name else None

    def _move(self, key: Key, new: T | None, last: T | None = None) -> None:
        """Put one object's new state (None: gone, `last` its final state) into cache and indexes, and tell handlers."""
        old = self._all.objects.get(key)
        if new is None:
            if old is None:
                return
        elif old is not None:
            if old.metadata.uid != new.metadata.uid:
                self._move(key, None)
                old = None
            elif old.metadata.resource_version == new.metadata.resource_version:
                return
        bucket = self._namespaces.get(key[0])
        if new is None:
            self._all.drop(key)
            if bucket is not None:
                bucket.drop(key)
                if not bucket.objects:
                    del self._namespaces[key[0]]
        else:
            self._all.put(key, new)
            if bucket is None:
                bucket = self._namespaces[key[0]] = _Bucket()
            bucket.put(key, new)
        for index in self._indexes.values():
            index._move(key, old, new)
        if new is None and last is not None:
            old = last
        for handler in self._handlers:
            self._tell(handler, old, new)

    def _tell(self, handler: Handler[T], old: T | None, new: T | None) -> None:
        try:
            handler(old, new)
        except Exception:
            log.exception("%s: a handler failed", self.kind.plural)


class InformerFactory:
    """Makes each informer once, runs them all, and shares them.

    `tracked()` gives a view on the same informers that remembers which ones were asked for through it, so that a
    controller waits for the caches it reads and for no others.
    """

    def __init__(self, client: Client, clock: Clock, random: Random) -> None:
        self.client = client
        self.clock = clock
        self.random = random
        self._informers: dict[tuple[str, str, str, str, str, type[Typed]], Informer[Any]] = {}
        self._asked: dict[int, Informer[Any]] = {}
        self._root: InformerFactory = self
        self._group: asyncio.TaskGroup | None = None
        self._salvages: Unreadable | None = None

    def salvage(self, tell: Unreadable) -> None:
        """From now on all informers keep what can be read of odd objects, and tell what cannot."""
        root = self._root
        root._salvages = tell
        for informer in root._informers.values():
            informer.salvages = tell

    def tracked(self) -> InformerFactory:
        view = InformerFactory(self.client, self.clock, self.random)
        view._root = self._root
        return view

    def of(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        decoded_as: type[Typed] | None = None,
    ) -> Informer[Any]:
        """The shared informer of these objects; once `run` runs, a new one starts by itself.

        decoded_as: a type with fewer fields than the kind's own, for a cache that takes less memory; such a cache is
                    shared by those who name the same type
        """
        root = self._root
        type_ = decoded_as or kind.type
        where = (kind.resource, kind.version, namespace, label_selector, field_selector, type_)
        informer = root._informers.get(where)
        if informer is None:
            informer = root._informers[where] = Informer(
                root.client,
                kind,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                clock=root.clock,
                random=root.random,
                salvages=root._salvages,
                decoded_as=type_,
            )
            if root._group is not None:
                root._group.create_task(informer.run(), name=f"informer {kind.plural}")
        self._asked[id(informer)] = informer
        root._asked[id(informer)] = informer
        return informer

    async def synced(self) -> None:
        """Wait until every informer asked for through this factory or view has its first list."""
        for informer in list(self._asked.values()):
            await informer.synced.wait()

    async def run(self) -> None:
        """Run all informers, also those asked for later, until cancelled. Once per factory, not for views."""
        assert self._root is self and self._group is None, "run the factory itself, once"
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for informer in self._informers.values():
                    group.create_task(informer.run(), name=f"informer {informer.kind.plural}")
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._group = None
