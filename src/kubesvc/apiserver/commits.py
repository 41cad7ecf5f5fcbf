"""How a write reaches the store: with the objects that go along in its transaction, and where several servers write,
behind the guards of what they share (`hooks`, `guards`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.clock import Clock, Random, rfc3339
from kubesvc.store import Delete, Moved, Operation, Put, Store

from . import bookkeeping
from .admission import Admission
from .apply import update_managed_fields
from .guards import QuotaGuards
from .hooks import Companion, Reservation
from .quotas import nothing_held
from .storage import encode, storage_key

GUARD_TRIES = 100
"""How often a write is judged anew because other servers wrote into the same namespace with quotas meanwhile."""


class Pending(NamedTuple):
    """A write that everybody has agreed to: an object before (None: it is new) and after, and what was reserved."""

    kind: Kind
    namespace: str
    old: Object | None
    new: Object
    put: Put
    reservation: Reservation | None


class Commits:
    """Writes objects with their companions, and settles what was reserved for them."""

    def __init__(self, store: Store, admission: Admission, clock: Clock, random: Random) -> None:
        self.store = store
        self.admission = admission
        self.clock = clock
        self.random = random
        self.guards = QuotaGuards(store)

    async def held(self, pending: Pending, release: Callable[[], None]) -> int:
        """Write what quotas have let pass, as long as they still would: other servers may have written meanwhile.

        release: ends the hold of the quotas that judged it; called in any case
        """
        reservation, put = pending.reservation, pending.put
        if release is nothing_held or not self.store.shared:
            try:
                return await self.settled(reservation, put)
            finally:
                release()
        release()
        async with AsyncExitStack() as stack:
            try:
                guard = await stack.enter_async_context(self.guards.turn(pending.namespace))
            except BaseException:  # the caller went while others had their turn
                give_back(reservation)
                raise
            tries = 0
            while True:
                tries += 1
                try:
                    release = self.admission.hold(
                        pending.kind, pending.namespace, pending.new, pending.old, dry_run=False
                    )
                except BaseException:
                    give_back(reservation)
                    raise
                try:
                    return await self.settled(reservation, put, self.guards.operation(guard))
                except Moved as e:
                    if e.key != guard or tries == GUARD_TRIES:
                        give_back(reservation)
                        raise
                finally:
                    release()

    async def settled(self, reservation: Reservation | None, operation: Operation, *guards: Operation) -> int:
        """Write an object with its companions, and settle what was reserved for it: that stays reserved if a quota's
        guard has moved.

        Once begun this runs to its end even if the caller is cancelled: whether the write happened decides whether what
        it reserved is given back, so nobody may leave in between.
        """
        if reservation is None:
            return await self.store.commit(operation, *guards)
        task = asyncio.ensure_future(self._reserved(reservation, operation, guards))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: reservation.rollback())  # which does nothing if it was written
            raise

    async def _reserved(self, reservation: Reservation, operation: Operation, guards: Sequence[Operation]) -> int:
        ports = reservation.guards if self.store.shared else ()
        try:
            revision = await self.store.commit(operation, *self._companions(reservation.companions), *ports, *guards)
        except BaseException as e:
            if not (isinstance(e, Moved) and any(e.key == guard.key for guard in guards)):
                reservation.rollback()
            raise
        reservation.confirm()
        return revision

    def _companions(self, companions: Sequence[Companion]) -> list[Operation]:
        """The writes that go with an object into its transaction."""
        operations: list[Operation] = []
        for companion in companions:
            obj = companion.object
            meta = obj["metadata"]
            key = storage_key(companion.kind, meta.get("namespace") or "", meta["name"])
            if companion.verb == "delete":
                operations.append(Delete(key))
                continue
            now = self.clock.now()
            update_managed_fields(None, obj, companion.kind, "kube-apiserver", rfc3339(now))
            bookkeeping.fill_system_metadata(obj, companion.kind, now, self.random)
            operations.append(Put(key, encode(companion.kind, obj), 0))
        return operations


def give_back(reservation: Reservation | None) -> None:
    """Undo what was reserved for a write that does not happen."""
    if reservation is not None:
        reservation.rollback()
