"""A store that lives and dies with its process: for tests, simulations and `--store memory`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from .interface import Change, Entry, Operation, Page, Unavailable
from .mvcc import Mvcc, plan

CLOSED = "the store is closed"


class MemoryStore:
    """`Store` without durability. A commit is visible at once and takes microseconds."""

    def __init__(self, *, most_changes: int = 500_000, most_bytes: int = 512 << 20) -> None:
        """most_changes, most_bytes: history beyond either is compacted by itself, the older half of it"""
        self.mvcc = Mvcc(most_changes=most_changes, most_bytes=most_bytes)

    async def start(self) -> None:
        """Nothing to load; here because every store has it."""

    async def close(self) -> None:
        self.mvcc.close()

    def _open(self) -> Mvcc:
        if self.mvcc.closed:
            raise Unavailable(CLOSED)
        return self.mvcc

    @property
    def shared(self) -> bool:
        return False

    @property
    def newest(self) -> int:
        return self.mvcc.revision

    @property
    def trouble(self) -> str:
        return CLOSED if self.mvcc.closed else ""

    async def revision(self) -> int:
        return self._open().revision

    @property
    def compacted(self) -> int:
        return self.mvcc.compacted

    async def commit(self, *operations: Operation) -> int:
        mvcc = self._open()
        if changes := plan(operations, mvcc.get, mvcc.revision + 1):
            mvcc.apply((changes,))
            if overdue := mvcc.overdue():
                mvcc.compact(overdue)
        return mvcc.revision

    async def get(self, key: str) -> Entry | None:
        return self._open().get(key)

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        return self._open().scan(prefix, start, limit, at)

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        return self._open().subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        return self._open().watch(prefix, after)

    async def compact(self, revision: int) -> None:
        self._open().compact(revision)
