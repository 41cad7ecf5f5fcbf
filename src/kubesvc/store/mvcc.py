"""The state, its history and its readers, in memory: what every engine of this process answers reads from.

`plan` decides what a transaction changes, without changing anything; `Mvcc.apply` makes changes visible and hands them
to readers. Between the two an engine makes them durable. Values are never copied: state and history share them.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain, islice

from .interface import Change, Compacted, Delete, Entry, FutureRevision, Moved, Operation, Page
from .keys import SortedKeys, prefix_end

log = logging.getLogger(__name__)

FIRST_REVISION = 1
"""Revision of a store nothing was written to. Not 0, which in `Put.expect` and `scan` means something else."""

WATCH_BATCH = 1000
"""About how many changes a watch yields at a time; a transaction is never torn."""

LOOK_AHEAD = 20_000
"""Most revisions a watch looks through at a time without yielding to the loop."""

Sink = Callable[[list[Change]], None]


def plan(operations: Sequence[Operation], current: Callable[[str], Entry | None], revision: int) -> tuple[Change, ...]:
    """What `operations` change if they become `revision`, given a reader of the state before them.

    Empty when nothing changes. Raises Moved if an expectation does not hold, ValueError if a key comes twice.
    """
    changes: list[Change] = []
    seen: set[str] = set()
    for operation in operations:
        key = operation.key
        if key in seen:
            raise ValueError(f"{key}: a transaction names each key at most once")
        seen.add(key)
        if not key.isascii():
            key.encode()  # UnicodeEncodeError, a ValueError: such a key has no byte order
        found = current(key)
        if operation.expect is not None and operation.expect != (found.modified if found else 0):
            raise Moved(key, found)
        if isinstance(operation, Delete):
            if found is not None:
                changes.append(Change(revision, key, None, found))
        else:
            changes.append(Change(revision, key, operation.value, found))
    return tuple(changes)


def entry_after(change: Change) -> Entry | None:
    """The entry a change leaves behind."""
    if change.value is None:
        return None
    created = change.previous.created if change.previous else change.revision
    return Entry(change.key, change.value, created, change.revision)


class Reader:
    """One subscription."""

    __slots__ = ("prefix", "sink")

    def __init__(self, prefix: str, sink: Sink) -> None:
        self.prefix = prefix
        self.sink = sink


class Watcher(Reader):
    """One watch that has read everything up to now and waits, or is about to."""

    __slots__ = ("missed", "wake")

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix, self.note)
        self.missed = 0
        """Revision of the first matching change since it was last caught up; 0 if none came."""
        self.wake = asyncio.Event()

    def note(self, changes: list[Change]) -> None:
        self.missed = self.missed or changes[0].revision
        self.wake.set()


class Mvcc:
    """Current state, history since `compacted`, subscriptions and watches. Used by one event loop, without locks.

    A watch keeps no queue of its own: it remembers where in the shared history it stands, so a slow reader costs
    nothing and loses its place (Compacted) only when compaction passes it.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        revision: int = FIRST_REVISION,
        compacted: int = 0,
        most_changes: int = 500_000,
        most_bytes: int = 512 << 20,
    ) -> None:
        """`entries`: the state at `revision`, which is then also the oldest one unless `apply` follows.

        most_changes, most_bytes: how much history may gather before `overdue` asks for compaction
        """
        self.state = {entry.key: entry for entry in entries}
        self.keys = SortedKeys(self.state)
        self.revision = revision
        self.compacted = compacted
        self.floor = revision
        """`history` holds every transaction after this revision."""
        self.history: list[tuple[Change, ...]] = []
        """One element for each transaction, in order. Revisions may be left out: those of other users of an etcd."""
        self.changes = 0
        self.bytes = 0
        self.most_changes = most_changes
        self.most_bytes = most_bytes
        self.readers: dict[Reader, None] = {}
        self.closed = False

    # Writing

    def apply(self, transactions: Sequence[tuple[Change, ...]]) -> None:
        """Make planned transactions visible, in order; each has a later revision and at least one change."""
        for changes in transactions:
            assert changes[0].revision > self.revision, "a transaction came twice or out of order"
            self.revision = changes[0].revision
            self.history.append(changes)
            self.changes += len(changes)
            for change in changes:
                entry = entry_after(change)
                if entry is not None:
                    if change.previous is None:
                        self.keys.add(change.key)
                    self.state[change.key] = entry
                    self.bytes += len(entry.value)
                else:
                    del self.state[change.key]
                    self.keys.remove(change.key)
        if self.readers and transactions:
            flat = list(chain.from_iterable(transactions))
            for reader in tuple(self.readers):
                prefix = reader.prefix
                if seen := [change for change in flat if change.key.startswith(prefix)]:
                    try:
                        reader.sink(seen)
                    except Exception:  # a reader's bug must not keep the write, and those after it, from returning
                        log.exception("a subscriber to %r failed", prefix)

    def overdue(self) -> int:
        """The revision to compact to because history has outgrown its bounds (half of it goes), else 0."""
        if self.changes <= self.most_changes and self.bytes <= self.most_bytes:
            return 0
        return self.history[(len(self.history) - 1) // 2][0].revision

    def _after(self, revision: int) -> int:
        """Where in `history` the transactions after a revision begin."""
        return bisect_right(self.history, revision, key=lambda changes: changes[0].revision)

    def compact(self, revision: int) -> list[tuple[int, str]]:
        """Forget states before `revision`; the versions nobody can read any more, as (revision, key).

        A revision that was compacted before changes nothing. Raises FutureRevision.
        """
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision <= self.compacted:
            return []
        gone = self._after(revision)
        garbage: list[tuple[int, str]] = []
        for change in chain.from_iterable(self.history[:gone]):
            self.changes -= 1
            if change.previous is not None:
                garbage.append((change.previous.modified, change.key))
            if change.value is None:
                garbage.append((change.revision, change.key))
            else:
                self.bytes -= len(change.value)
        del self.history[:gone]
        self.floor = max(self.floor, revision)
        self.compacted = revision
        return garbage

    # Reading

    def get(self, key: str) -> Entry | None:
        return self.state.get(key)

    def scan(self, prefix: str, start: str, limit: int, at: int) -> Page:
        """As `Store.scan`."""
        if at and at < self.compacted:
            raise Compacted(at, self.compacted)
        if at > self.revision:
            raise FutureRevision(at, self.revision)
        first, end = max(prefix, start), prefix_end(prefix)
        if at and at < self.revision:
            return self._scan_past(first, end, prefix, limit, at)
        state = self.state
        found = self.keys.between(first, end)
        if not limit:
            return Page(self.revision, [state[key] for key in found])
        entries = [state[key] for key in islice(found, limit)]
        remaining = self.keys.count(first, end) - len(entries)
        return Page(self.revision, entries, remaining > 0, remaining)

    def _scan_past(self, first: str, end: str, prefix: str, limit: int, at: int) -> Page:
        """The present with every later change below the prefix undone: costs as much as happened since, and as much as
        it gives."""
        before: dict[str, Entry | None] = {}
        for change in chain.from_iterable(self.history[self._after(at) :]):
            if change.key.startswith(prefix) and change.key >= first:
                before.setdefault(change.key, change.previous)
        state = self.state
        gone = sorted(key for key, entry in before.items() if entry is not None and key not in state)
        made = sum(1 for key, entry in before.items() if entry is None and key in state)
        entries: list[Entry] = []
        for key in heapq.merge(self.keys.between(first, end), gone):
            entry = before[key] if key in before else state[key]
            if entry is not None:
                entries.append(entry)
                if len(entries) == limit:
                    break
        remaining = self.keys.count(first, end) - made + len(gone) - len(entries)
        return Page(at, entries, remaining > 0, remaining)

    def subscribe(self, prefix: str, sink: Sink) -> Callable[[], None]:
        """As `Store.subscribe`."""
        reader = Reader(prefix, sink)
        self.readers[reader] = None

        def end() -> None:
            self.readers.pop(reader, None)

        return end

    async def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        """As `Store.watch`. Ends when the store closes, after everything that happened before."""
        if after < self.compacted:
            raise Compacted(after, self.compacted)
        seen = max(after, self.floor)  # everything up to this revision has been looked at
        watcher = Watcher(prefix)
        self.readers[watcher] = None
        try:
            while True:
                if seen < self.floor:
                    raise Compacted(seen, self.compacted)
                batch: list[Change] = []
                place = first = self._after(seen)
                while place < len(self.history) and place - first < LOOK_AHEAD and len(batch) < WATCH_BATCH:
                    batch += [change for change in self.history[place] if change.key.startswith(prefix)]
                    seen = self.history[place][0].revision
                    place += 1
                caught_up = place == len(self.history)
                if caught_up:
                    seen = max(seen, self.revision)
                    watcher.missed = 0
                if batch:
                    yield batch
                elif not caught_up:
                    await asyncio.sleep(0)  # a long history of other keys must not hold the loop
                elif self.closed:
                    return
                else:
                    watcher.wake.clear()
                    await watcher.wake.wait()
                if caught_up:
                    # Compaction may pass a reader whose prefix was quiet: it has missed nothing.
                    seen = max(seen, watcher.missed - 1 if watcher.missed else self.revision)
        finally:
            self.readers.pop(watcher, None)

    def close(self) -> None:
        """End watches when they have read everything, and all subscriptions now."""
        self.closed = True
        for reader in self.readers:
            if isinstance(reader, Watcher):
                reader.wake.set()
        self.readers.clear()
