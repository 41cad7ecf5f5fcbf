"""The store as the API server uses it: what goes wrong there becomes an error of the API, in one place.

So it reaches HTTP clients as a Status and clients in this process as the same ApiError. Moved, Compacted and
FutureRevision pass: they are answers, which callers know how to go on from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from kubesvc.api.errors import ApiError, Timeout, TooManyRequests
from kubesvc.store import (
    Busy,
    Change,
    Compacted,
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


class ApiStore:
    """`Store` over another one, whose failures are raised as ApiError."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shared = store.shared

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
        with translated():
            return await self.store.commit(*operations)

    async def get(self, key: str) -> Entry | None:
        with translated():
            return await self.store.get(key)

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        with translated():
            return await self.store.scan(prefix, start=start, limit=limit, at=at)

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        with translated():
            return self.store.subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        return self.store.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        with translated():
            await self.store.compact(revision)
