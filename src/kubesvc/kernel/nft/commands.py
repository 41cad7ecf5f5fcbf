"""The commands of a transaction. Each knows its netlink messages and what it changes in a table, checked as the
kernel checks it, so that the real door and its fake can not drift apart."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import msgspec

from ..netlink import ATTRIBUTE, NLA_F_NESTED, NLM_F_APPEND, NLM_F_CREATE, PADDING, attribute, be32, nested, text
from .expressions import DATA_VALUE, LIST_ELEM, Rule, Verdict, chains_named, encode_rule, encode_verdict, sets_named
from .table import ChainSpec, SetSpec, Table, Value, encode_comment

NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET, DELSET = 9, 10, 11
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14

ELEM_KEY, ELEM_DATA, ELEM_FLAGS, ELEM_TIMEOUT, ELEM_EXPIRATION, ELEM_KEY_END = 1, 2, 3, 4, 5, 10
ELEM_INTERVAL_END = 1
ELEMENT_LIST_BYTES = 60_000
"""A list of elements is one attribute, whose length has 16 bits."""


class NftError(Exception):
    """nftables refused a transaction; nothing of it was applied. `errno` says how the first command failed, `command`
    which that was, None if it was not a single one."""

    def __init__(self, errno: int, message: str, command: Command | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        self.command = command


class NoSuchObject(NftError):
    """Something named does not exist."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOENT, message)


class AlreadyExists(NftError):
    """Something of that name exists and is different."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EEXIST, message)


class StillUsed(NftError):
    """Something to be deleted is still named by a rule or an element."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EBUSY, message)


class Draft(Protocol):
    """What commands change: the tables of a namespace, of which each transaction makes a copy first."""

    def table(self, family: int, name: str) -> Table: ...
    def add_table(self, family: int, name: str, comment: str) -> None: ...
    def delete_table(self, family: int, name: str) -> None: ...


Payload = tuple[int, int, bytes]
"""Message type, flags, attributes."""


class Command(Protocol):
    """One step of a transaction on one table."""

    def encode(self, table: str) -> Iterator[Payload]:
        """The messages that make the kernel do it."""

    def change(self, draft: Draft, family: int, table: str) -> None:
        """Do it to a draft. NftError as the kernel would refuse it."""


class AddTable(msgspec.Struct, frozen=True):
    """Make the table unless it exists."""

    comment: str = ""

    def encode(self, table: str) -> Iterator[Payload]:
        comment = attribute(6, encode_comment(self.comment)) if self.comment else b""
        yield NEWTABLE, NLM_F_CREATE, text(1, table) + be32(2, 0) + comment

    def change(self, draft: Draft, family: int, table: str) -> None:
        draft.add_table(family, table, self.comment)


class DeleteTable(msgspec.Struct, frozen=True):
    """Remove the table with all that is in it."""

    def encode(self, table: str) -> Iterator[Payload]:
        yield DELTABLE, 0, text(1, table)

    def change(self, draft: Draft, family: int, table: str) -> None:
        draft.delete_table(family, table)


class AddSet(msgspec.Struct, frozen=True):
    """Make a set or map. Making it again as it is does nothing."""

    spec: SetSpec
    id: int = 0
    """Any number; the kernel wants one per set of a transaction."""

    def encode(self, table: str) -> Iterator[Payload]:
        yield NEWSET, NLM_F_CREATE, self.spec.encode(table, self.id or 1)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if held.sets.get(self.spec.name, self.spec) != self.spec:
            raise AlreadyExists(f"set {self.spec.name!r} exists and is different")
        held.sets[self.spec.name] = self.spec
        held.elements.setdefault(self.spec.name, {})


class DeleteSet(msgspec.Struct, frozen=True):
    """Remove a set that no rule uses, with its elements."""

    name: str

    def encode(self, table: str) -> Iterator[Payload]:
        yield DELSET, 0, text(1, table) + text(2, self.name)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if self.name not in held.sets:
            raise NoSuchObject(f"set {self.name!r}: no such set")
        for chain, rules in held.rules.items():
            if any(self.name in sets_named(rule) for rule in rules):
                raise StillUsed(f"set {self.name!r}: a rule of chain {chain!r} uses it")
        del held.sets[self.name], held.elements[self.name]


class AddChain(msgspec.Struct, frozen=True):
    """Make a chain. Making it again as it is does nothing."""

    spec: ChainSpec

    def encode(self, table: str) -> Iterator[Payload]:
        yield NEWCHAIN, NLM_F_CREATE, self.spec.encode(table)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if held.chains.get(self.spec.name, self.spec) != self.spec:
            raise AlreadyExists(f"chain {self.spec.name!r} exists and is different")
        held.chains[self.spec.name] = self.spec
        held.rules.setdefault(self.spec.name, [])


class DeleteChain(msgspec.Struct, frozen=True):
    """Remove a chain that nothing jumps to, with its rules."""

    name: str

    def encode(self, table: str) -> Iterator[Payload]:
        yield DELRULE, 0, text(1, table) + text(2, self.name)
        yield DELCHAIN, 0, text(1, table) + text(3, self.name)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if self.name not in held.chains:
            raise NoSuchObject(f"chain {self.name!r}: no such chain")
        held.rules[self.name] = []
        if held.uses_of_chain(self.name):
            raise StillUsed(f"chain {self.name!r}: a rule or an element still names it")
        del held.chains[self.name], held.rules[self.name]


class FlushChain(msgspec.Struct, frozen=True):
    """Remove the rules of a chain."""

    name: str

    def encode(self, table: str) -> Iterator[Payload]:
        yield DELRULE, 0, text(1, table) + text(2, self.name)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if self.name not in held.chains:
            raise NoSuchObject(f"chain {self.name!r}: no such chain")
        held.rules[self.name] = []


class AddRule(msgspec.Struct, frozen=True):
    """Append a rule to a chain. Costly on a chain that uses a filled map: the kernel checks every element."""

    chain: str
    rule: Rule

    def encode(self, table: str) -> Iterator[Payload]:
        expressions = nested(4, encode_rule(self.rule))
        yield NEWRULE, NLM_F_CREATE | NLM_F_APPEND, text(1, table) + text(2, self.chain) + expressions

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if self.chain not in held.chains:
            raise NoSuchObject(f"chain {self.chain!r}: no such chain")
        for name in chains_named(self.rule):
            if name not in held.chains:
                raise NoSuchObject(f"chain {self.chain!r}: no such chain {name!r}")
        for name in sets_named(self.rule):
            if name not in held.sets:
                raise NoSuchObject(f"chain {self.chain!r}: no such set {name!r}")
        held.rules[self.chain] = [*held.rules[self.chain], self.rule]


class AddElements(msgspec.Struct, frozen=True):
    """Put elements into a set. One that is there already must have the same value."""

    set: SetSpec
    items: tuple[tuple[bytes, Value], ...]

    def encode(self, table: str) -> Iterator[Payload]:
        yield from element_lists(NEWSETELEM, NLM_F_CREATE, table, self.set, self.items)

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if held.sets.get(self.set.name) != self.set:
            raise NoSuchObject(f"set {self.set.name!r}: no such set")
        elements = dict(held.elements[self.set.name])
        for key, value in self.items:
            self.set.check(key, value)
            if isinstance(value, Verdict) and value.chain and value.chain not in held.chains:
                raise NoSuchObject(f"set {self.set.name!r}: no such chain {value.chain!r}")
            if elements.get(key, value) != value:
                raise AlreadyExists(f"set {self.set.name!r}: element {key.hex()} exists with another value")
            if self.set.intervals and any(other != key and self.set.overlap(key, other) for other in elements):
                raise AlreadyExists(f"set {self.set.name!r}: element {key.hex()} overlaps another")
            elements[key] = value
        held.elements[self.set.name] = elements


class DeleteElements(msgspec.Struct, frozen=True):
    """Take elements out of a set; each must be there."""

    set: SetSpec
    keys: tuple[bytes, ...]

    def encode(self, table: str) -> Iterator[Payload]:
        yield from element_lists(DELSETELEM, 0, table, self.set, tuple((key, None) for key in self.keys))

    def change(self, draft: Draft, family: int, table: str) -> None:
        held = draft.table(family, table)
        if held.sets.get(self.set.name) != self.set:
            raise NoSuchObject(f"set {self.set.name!r}: no such set")
        elements = dict(held.elements[self.set.name])
        for key in self.keys:
            if key not in elements:
                raise NoSuchObject(f"set {self.set.name!r}: no such element {key.hex()}")
            del elements[key]
        held.elements[self.set.name] = elements


class Transaction(msgspec.Struct, frozen=True):
    """Commands on one table that are applied together or not at all."""

    family: int
    table: str
    commands: tuple[Command, ...]


@lru_cache(maxsize=4096)
def _verdict(verdict: Verdict) -> bytes:
    return encode_verdict(ELEM_DATA, verdict)


def _frame(type: int, size: int) -> bytes:
    return ATTRIBUTE.pack(size + 4, type)


def element_lists(
    type: int, flags: int, table: str, spec: SetSpec, items: tuple[tuple[bytes, Value], ...]
) -> Iterator[Payload]:
    """Messages with these elements, as few as the length of an attribute allows.

    Written for speed, since full loads carry hundreds of thousands: keys of one set have one length, so the frames
    around them are made once.
    """
    head = text(1, table) + text(2, spec.name)
    if not items:
        return
    size = len(items[0][0]) // (2 if spec.intervals else 1)
    key_frame = _frame(ELEM_KEY | NLA_F_NESTED, size + 4) + _frame(DATA_VALUE, size)
    end_frame = _frame(ELEM_KEY_END | NLA_F_NESTED, size + 4) + _frame(DATA_VALUE, size)
    data_frames: dict[int, bytes] = {}
    parts: list[bytes] = []
    total = 0
    for key, value in items:
        if value is None:
            data = b""
        elif isinstance(value, Verdict):
            data = _verdict(value)
        else:
            length = len(value)
            if (frame := data_frames.get(length)) is None:
                frame = _frame(ELEM_DATA | NLA_F_NESTED, length + 4) + _frame(DATA_VALUE, length)
                data_frames[length] = frame
            data = frame + value + PADDING[length & 3]
        body = key_frame + key[:size] + end_frame + key[size:] + data if spec.intervals else key_frame + key + data
        element = _frame(LIST_ELEM | NLA_F_NESTED, len(body)) + body
        total += len(element)
        if total > ELEMENT_LIST_BYTES:
            yield type, flags, head + nested(3, *parts)
            parts, total = [], len(element)
        parts.append(element)
    yield type, flags, head + nested(3, *parts)
