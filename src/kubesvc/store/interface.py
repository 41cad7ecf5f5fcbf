"""What a store promises: revisions, compare-and-write transactions, history, and watches without gaps or repeats.

Keys are text in byte order, values are bytes; a store knows no kinds. One counter, the revision, grows with each
transaction, by one unless others count along; everything written in it carries that number. `commit` returns after the
data is durable as far as the engine promises, and after `watch` and `subscribe` readers of this process have been
handed the change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One key's value: `created` and `modified` are the revisions of its first and last write.

    There are as many as objects, and they are part of no cycle: the collector need not look at them (`gc`).
    """

    key: str
    value: bytes
    created: int
    modified: int


class Change(msgspec.Struct, frozen=True, gc=False):
    """One key's change in one transaction. `value` None means deleted; `previous` is the entry before, None if new."""

    revision: int
    key: str
    value: bytes | None
    previous: Entry | None


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value. `expect`: the `modified` revision the key must have, 0 for "must not exist", None for any."""

    key: str
    value: bytes
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key. `expect` as in Put; removing a missing key with expect None changes nothing."""

    key: str
    expect: int | None = None


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in key order at `revision`; `more` tells that the limit cut the list, `remaining` how many are left."""

    revision: int
    entries: list[Entry]
    more: bool = False
    remaining: int = 0


class StoreError(Exception):
    """Base of what stores raise:

    Moved, Compacted, FutureRevision, TooLarge
    Unavailable
    ├── TimedOut
    └── Busy
    """


class Moved(StoreError):
    """An expectation of `commit` did not hold; nothing was written. `found` is the entry as it is, None if absent."""

    def __init__(self, key: str, found: Entry | None) -> None:
        super().__init__(f"{key}: expected another revision, found {found.modified if found else 'nothing'}")
        self.key = key
        self.found = found


class Compacted(StoreError):
    """History before `oldest` is gone."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} has been compacted, the oldest kept is {oldest}")
        self.asked = asked
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for does not exist yet."""

    def __init__(self, asked: int, newest: int) -> None:
        super().__init__(f"revision {asked} does not exist yet, the newest is {newest}")
        self.asked = asked
        self.newest = newest


class Unavailable(StoreError):
    """The store cannot answer now: closed, disk full, or its server is away. What was asked may have happened."""


class TimedOut(Unavailable):
    """No answer came in time. What was asked may have happened, or may happen yet."""


class Busy(Unavailable):
    """The store has more to do than it can; nothing of what was asked has happened, and a moment later it may."""


class TooLarge(StoreError):
    """A transaction is larger than this store takes; nothing was written, and trying again will not help."""


class Store(Protocol):
    """A store of bytes under text keys. Start before use; close ends watches and makes later calls Unavailable."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the same data at the same time."""
        ...

    @property
    def newest(self) -> int:
        """The newest revision that this process knows: subscribers have been told every change up to it."""
        ...

    @property
    def trouble(self) -> str:
        """Why the store can not be written to now, in a sentence; "" while all is well."""
        ...

    async def revision(self) -> int:
        """The newest revision: at least that of every commit acknowledged before this call, by any process."""
        ...

    @property
    def compacted(self) -> int:
        """States before this revision can no longer be read or watched from."""
        ...

    async def commit(self, *operations: Operation) -> int:
        """Apply all or nothing and return the transaction's revision. Raises Moved; each key at most once."""
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        """Entries whose key starts with `prefix` and is >= `start`, in byte order, at most `limit` (0: all), as of
        revision `at` (0: newest). Raises Compacted or FutureRevision."""
        ...

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        """Call `sink` in the event loop with every later change below `prefix`, in order, before the commit that
        made it returns. `sink` must not wait or raise. Returns the function that ends it."""
        ...

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        """All changes below `prefix` with revision > `after`, in order, history first; raises Compacted. A reader
        that falls too far behind gets Compacted rather than a gap."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget states before `revision`; newer history and the current state stay."""
        ...
