"""Hooks: what writing one kind of object drags along, between the registry and the part that knows.

The registry calls the hook of a kind (if it has one) inside a write, after defaulting, admission and system metadata
and before validation (VIP-7), and writes the companions it names in the same transaction as the object. So an object
and what was allocated for it exist together or not at all, and no repair is needed after a crash.

    reservation = await hooks.before_create(obj, dry_run)     # may change obj; ApiError: nothing is held
    try:
        validate, admit, store.commit(object, *companions)
    except: reservation.rollback(); raise
    else: reservation.confirm()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.store import Operation

Verb = Literal["create", "delete"]


class Companion(NamedTuple):
    """Another object to write in the same commit.

    `create`: `object` as its own POST would leave it, but for uid, creationTimestamp and managedFields, which the
    registry adds; that its name is taken already makes the commit fail, and the registry then calls `rollback`, and
    tries the whole write again. `delete`: only metadata.namespace and metadata.name matter; one that does not exist is
    skipped.
    """

    kind: Kind
    object: Object
    verb: Verb


@dataclass(slots=True)
class Reservation:
    """What a hook holds for a write under way, and what to write with it. Exactly one of `confirm` (after the commit)
    and `rollback` (the write did not happen) must be called; later calls do nothing."""

    companions: list[Companion] = field(default_factory=list)
    on_confirm: Callable[[], None] | None = None
    on_rollback: Callable[[], None] | None = None
    warnings: list[str] = field(default_factory=list)
    """Further warnings for the answer (WARN-1)."""
    guards: list[Operation] = field(default_factory=list)
    """Writes beside the objects, needed where other servers write to the same store (`guards`)."""

    def confirm(self) -> None:
        self.finish(self.on_confirm)

    def rollback(self) -> None:
        self.finish(self.on_rollback)

    def finish(self, step: Callable[[], None] | None) -> None:
        self.on_confirm = self.on_rollback = None
        if step is not None:
            step()


class Observer(Protocol):
    """Follows what is stored. The registry calls `observe` for every stored object of `observed` kinds at start (old
    None, before the first write), and then for every committed change, in order and before the write that made it
    returns: the store's `subscribe` promises just that. It must not wait or raise."""

    observed: tuple[Kind, ...]

    def observe(self, kind: Kind, old: Object | None, new: Object | None) -> None: ...


class WriteHooks(Protocol):
    """What the registry calls around writes of one kind.

    Order on create: decode, default, admission, system metadata, `kind.prepare_create`, **before_create**,
    `kind.validate`, validating admission, commit. On update: default, admission, `kind.prepare_update`,
    **before_update**, `kind.validate_update`, commit.
    """

    async def before_create(self, obj: Object, dry_run: bool) -> Reservation:
        """`obj` is changed in place. Raises ApiError (also Invalid, which hides validation's errors: VIP-7)."""
        ...

    async def before_update(self, new: Object, old: Object, dry_run: bool) -> Reservation:
        """Main resource only, not /status. `new` is changed in place, `old` never."""
        ...

    def before_delete(self, old: Object, dry_run: bool) -> Reservation:
        """The object is about to go for good (also when its last finalizer went, through whichever endpoint)."""
        ...
