"""Which API servers live: leases of those that share a store, from which Endpoints `kubernetes` follow (KSVC-5).

A lease is a key that its server rewrites every turn. Whether it still does, each server judges by its own clock and
not by the writer's: a lease that has not changed for 15 s of mine belongs to nobody.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kubesvc.clock import Clock
from kubesvc.store import Delete, Moved, Put, Store

ROOT = "/servers/"
LEASE_SECONDS = 15.0


class Server(NamedTuple):
    """Where an API server answers, as clients are told."""

    address: str
    port: int


class Lease(msgspec.Struct):
    """What a lease says; `turn` only makes each renewal another write."""

    address: str
    port: int
    turn: int


class Leases:
    """The leases in one store. `me` of the calls is this server; with a store of its own it is the only one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.turn = 0
        self.seen: dict[str, tuple[int, float]] = {}
        """By key: the revision of the last renewal, and when it was first seen here."""

    async def renew(self, me: Server) -> list[Server]:
        """Say that this server lives, take away leases that ran out, and tell who lives, in a stable order."""
        if not self.store.shared:
            return [me]
        self.turn += 1
        await self.store.commit(Put(key_of(me), msgspec.json.encode(Lease(me.address, me.port, self.turn))))
        return await self._living()

    async def _living(self) -> list[Server]:
        """Whose leases have not run out; those that have are taken away."""
        now = self.clock.monotonic()
        living: list[Server] = []
        entries = (await self.store.scan(ROOT)).entries
        for entry in entries:
            lease = msgspec.json.decode(entry.value, type=Lease)
            revision, since = self.seen.get(entry.key, (0, now))
            if revision != entry.modified:
                since = now
            self.seen[entry.key] = (entry.modified, since)
            if now - since < LEASE_SECONDS:
                living.append(Server(lease.address, lease.port))
            else:
                await self._drop(entry.key, entry.modified)
        self.seen = {e.key: self.seen[e.key] for e in entries if e.key in self.seen}
        return sorted(living)

    async def withdraw(self, me: Server) -> list[Server]:
        """Give this server's lease back; who is left, as in `renew`."""
        if not self.store.shared:
            return []
        await self.store.commit(Delete(key_of(me)))
        return await self._living()

    async def _drop(self, key: str, revision: int) -> None:
        self.seen.pop(key, None)
        try:
            await self.store.commit(Delete(key, revision))
        except Moved:
            pass  # it was renewed just now: the next turn counts it again


def key_of(server: Server) -> str:
    return f"{ROOT}{server.address}/{server.port}"
