"""A store in etcd v3 (3.4 and newer), where several processes may work on the same data at once.

etcd decides and keeps; this process holds a copy of the present and of recent history in memory (`mvcc`), which follows
one watch over all keys of ours. So whatever the copy tells has the order and the revisions of etcd, wherever it was
written:

    commit()   one etcd transaction that compares mod revisions; returns when the watch has brought its own revision
    reads      ask etcd for its newest revision (one small linearizable read for all callers of a moment), wait until
               the watch is there, and answer from memory
    the past   before this process began, or longer ago than memory holds, is asked of etcd itself

Revisions are etcd's mod revisions, so they grow by more than one where others write to the same etcd. Whether a newer
revision of etcd's concerns us cannot be asked of it exactly (progress notifications of etcd before 3.4.25 may overtake
events), so when the watch stays behind, one key of ours beside the data is written: the watch has seen everything
before that once it has seen that. In an etcd of our own this never happens.

When the connection breaks, the watch goes on after the revision it has. If that has been compacted meanwhile, the
difference to the newest state is told, and older places are gone (Compacted). Keys lie at the prefix followed by the
key as it is; our own key at the prefix with its last slash made a dot.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from typing import Any

from .etcdaddress import EtcdAddress
from .etcdcalls import CALL_SECONDS, EtcdCalls
from .interface import (
    Change,
    Compacted,
    Delete,
    Entry,
    FutureRevision,
    Moved,
    Operation,
    Page,
    Put,
    StoreError,
    TimedOut,
    Unavailable,
)
from .mvcc import Mvcc, entry_after

log = logging.getLogger(__name__)

PAGE = 1000
"""Keys read at a time when everything is loaded, or a state of the past is read."""
WATCH_SECONDS = 10.0
"""How long the watch may take to bring what etcd has acknowledged."""
BEHIND_SECONDS = 0.02
"""How long a reader waits for the watch before a key of ours is written."""
AGAIN_SECONDS = 0.1
"""Between two tries to watch."""
LOAD_TRIES = 5


class EtcdStore:
    """`Store` in the etcd at `address`, below its prefix."""

    def __init__(self, address: EtcdAddress, *, most_changes: int = 500_000, most_bytes: int = 512 << 20) -> None:
        """most_changes, most_bytes: history beyond either is dropped from memory, not from etcd"""
        self.address = address
        self.calls = EtcdCalls(address)
        self.most = most_changes, most_bytes
        self.prefix = address.prefix.encode()
        self.bell = self.prefix[:-1] + b".bell"
        """The key that is written to find out how far the watch is."""
        self.range = self.prefix[:-1] + b".", self.prefix[:-1] + b"0"  # a dot, a slash, a zero: neighbours in ASCII
        self.mvcc = Mvcc()
        self.why_not = f"{address.shown}: not opened yet"
        self.watching = False
        self.known_compacted = 0
        self.closed = False
        self.started = False
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        """Who waits for the watch to reach a revision, the lowest first."""
        self.order = count()
        self.asked: asyncio.Future[int] | None = None
        self.asking: asyncio.Task[None] | None = None
        self.ringing: asyncio.Task[int] | None = None
        self.under_way: set[asyncio.Task[int]] = set()
        self.following: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Connect and load everything below the prefix; Unavailable with a plain sentence if that cannot be."""
        self.calls.open()
        try:
            began = await self._ring()
            self.known_compacted = await self._ask_compacted()
            for attempt in range(LOAD_TRIES):
                try:
                    entries = await self._load(began)
                    break
                except Compacted:
                    if attempt == LOAD_TRIES - 1:
                        raise Unavailable(f"{self.address.shown} is compacted faster than it can be read") from None
                    began = await self._ring()
        except BaseException:
            await self.calls.close()
            raise
        changes, size = self.most
        self.mvcc = Mvcc(entries, revision=began, compacted=began, most_changes=changes, most_bytes=size)
        self.why_not = ""
        self.started = True
        self.following = asyncio.create_task(self._follow(), name="etcd watch")

    async def close(self) -> None:
        """Finish what is under way, end watches, and leave."""
        if self.closed or not self.started:
            return
        self.closed = True
        self.why_not = f"{self.address.shown}: the store is closed"
        while self.under_way:
            await asyncio.wait(set(self.under_way))
        for task in (self.following, self.asking, self.ringing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for _, _, future in self.waiting:
            if not future.done():
                future.set_exception(Unavailable(self.why_not))
                future.exception()
        self.mvcc.close()
        await self.calls.close()

    def _open(self) -> None:
        if self.closed or not self.started:
            raise Unavailable(self.why_not)

    @property
    def shared(self) -> bool:
        return True

    @property
    def newest(self) -> int:
        return self.mvcc.revision

    @property
    def trouble(self) -> str:
        return self.why_not

    @property
    def compacted(self) -> int:
        return self.known_compacted

    # Writing

    async def commit(self, *operations: Operation) -> int:
        self._open()
        if len({operation.key for operation in operations}) < len(operations):
            raise ValueError("a transaction names each key at most once")
        request = self._transaction(operations)
        if not operations:
            return await self.revision()
        # Whoever gives up waiting must not take the write along half done.
        task = asyncio.create_task(self._commit(operations, request))
        self.under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[int]) -> None:
        self.under_way.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one

    def _transaction(self, operations: Sequence[Operation]) -> Any:
        """The request: all or nothing, and if nothing, what is there instead."""
        rpc = self.calls.rpc
        request = rpc.TxnRequest()
        for operation in operations:
            key = self.prefix + operation.key.encode()
            if operation.expect is not None:
                request.compare.add(
                    key=key, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=operation.expect
                )
                request.failure.add().request_range.key = key
            if isinstance(operation, Delete):
                request.success.add().request_delete_range.key = key
            else:
                put = request.success.add().request_put
                put.key, put.value = key, operation.value
        return request

    async def _commit(self, operations: Sequence[Operation], request: Any) -> int:
        response = await self.calls.write(request)
        revision: int = response.header.revision
        if not response.succeeded:
            moved = self._moved(operations, response)
            await self._reach(revision)  # who looks again must see what was in the way
            raise moved
        if any(isinstance(o, Put) for o in operations) or any(
            answer.response_delete_range.deleted for answer in response.responses
        ):
            await self._wait(revision)
            return revision
        await self._reach(revision)
        return self.mvcc.revision

    def _moved(self, operations: Sequence[Operation], response: Any) -> Moved:
        expecting = [operation for operation in operations if operation.expect is not None]
        for operation, answer in zip(expecting, response.responses, strict=True):
            kvs = answer.response_range.kvs
            if (kvs[0].mod_revision if kvs else 0) != operation.expect:
                return Moved(operation.key, self._entry(kvs[0]) if kvs else None)
        raise AssertionError("etcd refused a transaction although nothing moved")

    # Following

    async def _follow(self) -> None:
        """Keep the copy up, for ever: watch, and watch again from where it was when that ends."""
        import grpc.aio

        while True:
            try:
                await self._follow_once()
            except grpc.aio.AioRpcError as error:
                self._tell_trouble(str(self.calls.failure(error)))
            except StoreError as error:
                self._tell_trouble(str(error))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.exception("the watch on %s failed", self.address.shown)
                self._tell_trouble(f"{self.address.shown}: {error}")
            await asyncio.sleep(AGAIN_SECONDS)

    def _tell_trouble(self, why: str) -> None:
        if self.why_not != why and not self.closed:
            log.warning("%s", why)
            self.why_not = why

    def _tell_end_of_trouble(self) -> None:
        if self.why_not and self.watching and not self.closed:
            log.info("%s answers again", self.address.shown)
            self.why_not = ""

    async def _follow_once(self) -> None:
        newest = await self._header_revision()
        if newest < self.mvcc.revision:
            raise Unavailable(
                f"{self.address.shown} is at revision {newest}, but was at {self.mvcc.revision} before: it was emptied "
                "or put back to an older state; start kubesvc again to go on from there"
            )
        call = await self._watch_from(self.mvcc.revision + 1, self.range)
        try:
            while (response := await call.read()) and hasattr(response, "header"):
                if response.compact_revision:
                    await self._catch_up(response.compact_revision)
                    return
                if response.canceled:
                    raise Unavailable(f"{self.address.shown} ended the watch: {response.cancel_reason or 'no reason'}")
                if response.created:
                    self.watching = True
                    self._tell_end_of_trouble()
                if response.events:
                    self._told(response.events)
            raise Unavailable(f"{self.address.shown} ended the watch")
        finally:
            self.watching = False
            call.cancel()

    async def _watch_from(self, revision: int, range_: tuple[bytes, bytes], *, previous: bool = False) -> Any:
        request = self.calls.rpc.WatchCreateRequest(
            key=range_[0], range_end=range_[1], start_revision=revision, prev_kv=previous
        )
        return await self.calls.watch(request)

    def _told(self, events: Sequence[Any]) -> None:
        """Events of the watch become transactions of the copy."""
        mvcc, prefix, skip = self.mvcc, self.prefix, len(self.prefix)
        known = mvcc.revision
        after: dict[str, Entry | None] = {}
        transactions: list[tuple[Change, ...]] = []
        changes: list[Change] = []
        for event in events:
            kv = event.kv
            revision, key = kv.mod_revision, kv.key
            if revision <= known or not key.startswith(prefix):
                continue  # known already when the watch was made anew, or the bell
            if changes and changes[0].revision != revision:
                transactions.append(tuple(changes))
                changes = []
            name = text_of(key[skip:])
            if name is None:
                continue
            before = after[name] if name in after else mvcc.get(name)
            if event.type == 1 and before is None:
                continue
            change = Change(revision, name, None if event.type == 1 else kv.value, before)
            after[name] = entry_after(change)
            changes.append(change)
        if changes:
            transactions.append(tuple(changes))
        mvcc.apply(transactions)
        self._reached(events[-1].kv.mod_revision)

    def _reached(self, revision: int) -> None:
        """Everything up to a revision has been told."""
        mvcc = self.mvcc
        mvcc.revision = max(mvcc.revision, revision)
        while self.waiting and self.waiting[0][0] <= mvcc.revision:
            future = heapq.heappop(self.waiting)[2]
            if not future.done():
                future.set_result(None)
        if overdue := mvcc.overdue():
            mvcc.compact(overdue)

    async def _catch_up(self, compacted: int) -> None:
        """After so long a break that the history in between is gone: tell the difference, and forget older places."""
        log.warning("%s was compacted while it was away: telling the difference", self.address.shown)
        now = await self._ring()
        entries = {entry.key: entry for entry in await self._load(now)}
        mvcc = self.mvcc
        by_revision: dict[int, list[Change]] = {}
        for entry in entries.values():
            before = mvcc.get(entry.key)
            if before is not None and before.modified == entry.modified:
                continue
            changes = by_revision.setdefault(entry.modified, [])
            if before is not None and before.created != entry.created:
                changes.append(Change(entry.modified, entry.key, None, before))
                before = None
            changes.append(Change(entry.modified, entry.key, entry.value, before))
        gone = [entry for key, entry in mvcc.state.items() if key not in entries]
        if gone:
            by_revision.setdefault(now, []).extend(Change(now, entry.key, None, entry) for entry in gone)
        mvcc.apply([tuple(changes) for _, changes in sorted(by_revision.items())])
        for key, entry in entries.items():
            mvcc.state[key] = entry  # `created` as etcd has it, also of what came and went and came again
        self.known_compacted = max(self.known_compacted, compacted)
        mvcc.revision = max(mvcc.revision, now)
        mvcc.compact(now)
        self._reached(now)

    # How far etcd and the watch are

    async def revision(self) -> int:
        self._open()
        await self._reach(await self._ask())
        return self.mvcc.revision

    async def _header_revision(self) -> int:
        response = await self.calls.read(self.calls.rpc.RangeRequest(key=self.bell, keys_only=True))
        found: int = response.header.revision
        return found

    async def _ask(self) -> int:
        """etcd's newest revision, of a read that began after this call."""
        if self.asked is None:
            self.asked = asyncio.get_running_loop().create_future()
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(self._answer(), name="etcd revision")
        return await asyncio.shield(self.asked)

    async def _answer(self) -> None:
        """One read for all who asked before it began."""
        while (asked := self.asked) is not None:
            self.asked = None
            try:
                revision = await self._header_revision()
            except BaseException as error:
                failure = error if isinstance(error, StoreError) else Unavailable(f"{self.address.shown}: {error!r}")
                if not asked.done():
                    asked.set_exception(failure)
                    asked.exception()
                if not isinstance(error, Exception):
                    raise
                self._tell_trouble(str(failure))
            else:
                self._tell_end_of_trouble()
                if not asked.done():
                    asked.set_result(revision)

    async def _wait(self, revision: int, seconds: float = WATCH_SECONDS) -> None:
        """Until the watch has brought a revision that it will bring. TimedOut if it does not in time."""
        if revision <= self.mvcc.revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (revision, next(self.order), future))
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise TimedOut(
                f"{self.address.shown} has revision {revision}, but its watch has only come to {self.mvcc.revision}"
            ) from None

    async def _reach(self, revision: int) -> None:
        """Until everything of ours up to a revision has been told, be it ours or not."""
        if revision <= self.mvcc.revision:
            return None
        try:
            return await self._wait(revision, BEHIND_SECONDS)
        except TimedOut:
            pass
        while revision > self.mvcc.revision:
            if self.ringing is None or self.ringing.done():
                self.ringing = asyncio.create_task(self._ring(), name="etcd bell")
            await self._wait(await asyncio.shield(self.ringing))

    async def _ring(self) -> int:
        """Write the bell; its revision."""
        rpc = self.calls.rpc
        request = rpc.TxnRequest()
        request.success.add().request_put.key = self.bell
        response = await self.calls.write(request)
        revision: int = response.header.revision
        return revision

    async def _ask_compacted(self) -> int:
        """Up to where etcd has been compacted, which it only says to a watch from too long ago."""
        call = await self._watch_from(1, (self.bell, b""))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                while (response := await call.read()) and hasattr(response, "header"):
                    if response.compact_revision:
                        found: int = response.compact_revision
                        return found
                    if response.events:
                        return 0  # the bell's own history: nothing of it is gone
        except TimeoutError:
            pass
        finally:
            call.cancel()
        raise TimedOut(f"{self.address.shown} does not answer watches")

    # Reading

    def _entry(self, kv: Any) -> Entry:
        return Entry(kv.key[len(self.prefix) :].decode(), kv.value, kv.create_revision, kv.mod_revision)

    async def _load(self, revision: int) -> list[Entry]:
        return (await self._range(self.prefix, revision, 0))[0]

    async def _range(self, first: bytes, revision: int, limit: int, prefix: bytes = b"") -> tuple[list[Entry], int]:
        """Entries from key `first` on at a revision, and how many more there are; read in pages."""
        end = bytes_end(prefix or self.prefix)
        entries: list[Entry] = []
        while True:
            page = min(PAGE, limit - len(entries)) if limit else PAGE
            request = self.calls.rpc.RangeRequest(key=first, range_end=end, limit=page, revision=revision)
            response = await self.calls.read(request)
            entries += [self._entry(kv) for kv in response.kvs if text_of(kv.key) is not None]
            if not response.more or (limit and len(entries) >= limit):
                return entries, response.count - len(response.kvs)
            first = response.kvs[-1].key + b"\0"

    async def get(self, key: str) -> Entry | None:
        await self.revision()
        return self.mvcc.get(key)

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        self._open()
        if not at or at > self.mvcc.revision:
            await self.revision()
        if not at or at >= max(self.known_compacted, self.mvcc.floor):
            return self.mvcc.scan(prefix, start, limit, at)
        first = self.prefix + max(prefix, start).encode()
        try:
            entries, remaining = await self._range(first, at, limit, self.prefix + prefix.encode())
        except Compacted:
            self.known_compacted = max(self.known_compacted, await self._ask_compacted())
            raise Compacted(at, self.known_compacted) from None
        return Page(at, entries, remaining > 0, remaining)

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        self._open()
        return self.mvcc.subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        self._open()
        if self.known_compacted <= after < self.mvcc.floor:
            return self._watch_past(prefix, after)
        return self.mvcc.watch(prefix, after) if after >= self.known_compacted else self._refuse(after)

    async def _refuse(self, after: int) -> AsyncIterator[list[Change]]:
        raise Compacted(after, self.known_compacted)
        yield []

    async def _watch_past(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        """History that memory does not hold is asked of etcd; the rest follows from memory."""
        import grpc.aio

        floor = self.mvcc.floor
        full = self.prefix + prefix.encode()
        # From the revision before, for only then does etcd refuse whenever anything after it may be gone.
        call = await self._watch_from(max(after, 1), self.range, previous=True)
        try:
            reading = True
            while reading:
                response = await call.read()
                if not response or not hasattr(response, "header"):
                    raise Unavailable(f"{self.address.shown} ended the watch")
                if response.compact_revision:
                    self.known_compacted = max(self.known_compacted, response.compact_revision)
                    raise Compacted(after, response.compact_revision)
                batch: list[Change] = []
                for event in response.events:
                    kv = event.kv
                    if kv.mod_revision >= floor:
                        reading = False
                    if after < kv.mod_revision <= floor and kv.key.startswith(full):
                        key = text_of(kv.key[len(self.prefix) :])
                        if key is None:
                            continue
                        previous = self._entry(event.prev_kv) if event.prev_kv.mod_revision else None
                        batch.append(Change(kv.mod_revision, key, None if event.type == 1 else kv.value, previous))
                if batch:
                    yield batch
        except grpc.aio.AioRpcError as error:
            raise self.calls.failure(error) from None
        finally:
            call.cancel()
        async for batch in self.mvcc.watch(prefix, floor):
            yield batch

    async def compact(self, revision: int) -> None:
        self._open()
        if revision <= self.known_compacted:
            return
        if revision > self.mvcc.revision:
            await self.revision()
        if revision > self.mvcc.revision:
            raise FutureRevision(revision, self.mvcc.revision)
        try:
            await self.calls.compact(self.calls.rpc.CompactionRequest(revision=revision))
        except Compacted:  # another process was faster
            self.known_compacted = max(self.known_compacted, await self._ask_compacted())
        else:
            self.known_compacted = max(self.known_compacted, revision)
        self.mvcc.compact(revision)


def text_of(key: bytes) -> str | None:
    """The key as text; None for one that is no text, which nobody here wrote."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def bytes_end(prefix: bytes) -> bytes:
    """The least key greater than all that begin with `prefix`, as etcd wants it; a zero byte means there is none."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes((bare[-1] + 1,)) if bare else b"\0"
