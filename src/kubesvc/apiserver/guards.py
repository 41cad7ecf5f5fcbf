"""Guards: keys beside the objects that keep several API servers on one store from giving the same thing twice.

What a server hands out it knows from its cache, which may be a moment behind what another server has just written. An
address is safe all the same, because its IPAddress object is created in the same transaction. What has no object gets
a guard, which goes into the transaction too:

    a node port      one key per port, created with the Service that takes it and deleted with the one that frees it
    a quota's room   one key per namespace, rewritten by each write that a quota judges, if nobody else has since the
                     cache was looked at; who was late looks again

With a store of its own a server needs none of this, and writes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from kubesvc.store import Change, Delete, Moved, Operation, Put, Store

ROOT = "/guards/"
PORTS = f"{ROOT}node-ports/"
QUOTAS = f"{ROOT}quotas/"


def port_guards(taken: Iterable[int], freed: Iterable[int], owner: tuple[str, str]) -> list[Operation]:
    """What goes into the transaction of a Service that takes and frees node ports."""
    value = "/".join(owner).encode()
    operations: list[Operation] = [Put(f"{PORTS}{port}", value, expect=0) for port in taken]
    return operations + [Delete(f"{PORTS}{port}") for port in freed]


async def repair_ports(store: Store, current: Callable[[], Awaitable[None]], users: Mapping[int, object]) -> None:
    """Bring the guards of ports in line with the Services (REPAIR-2), which somebody may have changed past us.

    current: waits until `users`, the ports that Services have, is as new as the store
    """
    guards = {int(e.key.removeprefix(PORTS)): e for e in (await store.scan(PORTS)).entries}
    await current()
    wrong: list[Operation] = [Delete(e.key, e.modified) for port, e in guards.items() if port not in users]
    wrong += [Put(f"{PORTS}{port}", b"", expect=0) for port in sorted(users) if port not in guards]
    for operation in wrong:
        try:
            await store.commit(operation)
        except Moved:
            pass  # it was taken or freed just now


async def drop_quotas(store: Store, current: Callable[[], Awaitable[None]], namespaces: Container[str]) -> None:
    """Remove the guards of namespaces that are gone. One that comes back meanwhile loses nothing: whoever writes there
    finds that its guard has moved, and looks again.

    current: waits until `namespaces`, those that there are, is as new as the store
    """
    guards = (await store.scan(QUOTAS)).entries
    await current()
    for entry in guards:
        if entry.key.removeprefix(QUOTAS) not in namespaces:
            try:
                await store.commit(Delete(entry.key, entry.modified))
            except Moved:
                pass  # somebody writes there again


class QuotaGuards:
    """The guards of namespaces, as this server has seen them; in step with the cache, since both follow one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.revisions: dict[str, int] = {}
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of the namespaces that somebody waits for or has the turn in."""

    async def start(self) -> None:
        """Begin to follow. Call before the cache starts."""
        self.store.subscribe(QUOTAS, self._sink)
        for entry in (await self.store.scan(QUOTAS)).entries:
            self.revisions[entry.key] = max(self.revisions.get(entry.key, 0), entry.modified)

    def _sink(self, changes: list[Change]) -> None:
        for change in changes:
            if change.value is not None:
                self.revisions[change.key] = change.revision
            else:
                self.revisions.pop(change.key, None)

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[str]:
        """One writer of this server at a time, so that none runs into another one's guard; the guard's key."""
        lock = self.locks.setdefault(namespace, asyncio.Lock())
        async with lock:
            yield f"{QUOTAS}{namespace}"

    def operation(self, key: str) -> Operation:
        """The write that only succeeds if nobody judged by a quota of this namespace since."""
        return Put(key, b"", expect=self.revisions.get(key, 0))
