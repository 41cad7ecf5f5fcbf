"""The store as the API server uses it: what goes wrong there becomes an error of the API, in one place.

So it reaches HTTP clients as a Status and clients in this process as the same ApiError. Moved, Compacted and
FutureRevision pass: they are answers, which callers know how to go on from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from kubesvc.api.errors import ApiError, Timeout, TooManyRequests
from kubesvc.clock import Clock
from kubesvc.store import (
    Busy,
    Change,
    Compacted,
    Delete,
    Entry,
    FutureRevision,
    Moved,
    Operation,
    Page,
    Store,
    StoreError,
    TimedOut,
)

from . import refusals

ETCD_WORDS = "etcdserver:"
OUT_OF_TIME = "Timeout: request did not complete within requested timeout - context deadline exceeded"


def refusal_of(error: StoreError) -> ApiError:
    """What upstream answers when its store fails so: an overload is a 429, no answer in time a 504; anything else is a
    500 without a reason, in the store's own words. Pure."""
    if isinstance(error, Busy):
        return TooManyRequests(str(error), retry_after_seconds=1)
    if isinstance(error, TimedOut) and not str(error).startswith(ETCD_WORDS):
        return Timeout(OUT_OF_TIME)
    return refusals.plain_failure(str(error))


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (Moved, Compacted, FutureRevision):
        raise
    except StoreError as error:
        raise refusal_of(error) from error


def unheard(operation: str, key: str, seconds: float) -> None:
    """Nobody is told."""


def name_of(operation: Operation) -> str:
    """What a write is counted as, by its first operation."""
    if isinstance(operation, Delete):
        return "delete"
    return "update" if operation.expect else "create"


class ApiStore:
    """`Store` over another one, whose failures are raised as ApiError, and whose answers are timed."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.shared = store.shared
        self.clock = clock
        self.answered: Callable[[str, str, float], None] = unheard
        """Told of each answer: what was done, to which key, and the seconds it took."""

    async def start(self) -> None:
        await self.store.start()

    async def close(self) -> None:
        await self.store.close()

    @property
    def newest(self) -> int:
        return self.store.newest

    @property
    def trouble(self) -> str:
        return self.store.trouble

    @property
    def compacted(self) -> int:
        return self.store.compacted

    async def revision(self) -> int:
        with translated():
            return await self.store.revision()

    async def commit(self, *operations: Operation) -> int:
        began = self.clock.monotonic()
        with translated():
            revision = await self.store.commit(*operations)
        if operations:
            self.answered(name_of(operations[0]), operations[0].key, self.clock.monotonic() - began)
        return revision

    async def get(self, key: str) -> Entry | None:
        began = self.clock.monotonic()
        with translated():
            found = await self.store.get(key)
        self.answered("get", key, self.clock.monotonic() - began)
        return found

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        began = self.clock.monotonic()
        with translated():
            page = await self.store.scan(prefix, start=start, limit=limit, at=at)
        self.answered("list", prefix, self.clock.monotonic() - began)
        return page

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        with translated():
            return self.store.subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        return self.store.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        with translated():
            await self.store.compact(revision)
