"""The difference between two tables, put into an order in which every step leaves traffic working. Pure.

Make before break: what packets may be sent to exists before anything sends them there, and goes after nothing does.
The steps are cut into transactions of bounded size wherever a cut does no harm, since a transaction holds up the
event loop while the kernel works it off, and without privilege over the host it may not be longer than a few hundred
kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from kubesvc.kernel.nft import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    ChainSpec,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    FlushChain,
    SetSpec,
    Table,
    Transaction,
    Value,
)
from kubesvc.kernel.nft.expressions import Rule

ELEMENTS_PER_TRANSACTION = 1500
"""About 150 kB, and a few milliseconds."""


class SetOrder(Protocol):
    """Which sets must be filled before which: earlier ones are pointed at by later ones."""

    def __call__(self, name: str) -> int: ...


@dataclass(slots=True)
class Delta:
    """What to change in a table. `put` holds new and changed elements, `old` the previous value of those changed."""

    sets: dict[str, SetSpec] = field(default_factory=dict)
    """Specs of every set that an element below belongs to, and of the new ones."""
    new_sets: list[str] = field(default_factory=list)
    new_chains: dict[str, ChainSpec] = field(default_factory=dict)
    rules: dict[str, Sequence[Rule]] = field(default_factory=dict)
    """Chains that get other rules, the new ones among them."""
    put: dict[str, dict[bytes, Value]] = field(default_factory=dict)
    changed: dict[str, set[bytes]] = field(default_factory=dict)
    """Those keys of `put` that exist with another value."""
    drop: dict[str, dict[bytes, None]] = field(default_factory=dict)
    """Keys to remove, in order."""
    gone_chains: list[str] = field(default_factory=list)
    gone_sets: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.new_sets
            or self.new_chains
            or self.rules
            or any(self.put.values())
            or any(self.drop.values())
            or self.gone_chains
            or self.gone_sets
        )

    def size(self) -> int:
        """How many elements it touches."""
        return sum(map(len, self.put.values())) + sum(map(len, self.drop.values()))

    def element(self, spec: SetSpec, key: bytes, old: Value | Missing, new: Value | Missing) -> None:
        """Note one element's change; MISSING for "not there"."""
        if old is MISSING and new is MISSING:
            return
        self.sets[spec.name] = spec
        put, drop = self.put.setdefault(spec.name, {}), self.drop.setdefault(spec.name, {})
        changed = self.changed.setdefault(spec.name, set())
        if isinstance(new, Missing):
            if key in put:
                changed.add(key)  # it was one Service's and becomes another's
            else:
                drop[key] = None
        elif isinstance(old, Missing):
            if key in drop:
                del drop[key]
                changed.add(key)
            put[key] = new
        elif old != new:
            put[key] = new
            changed.add(key)


class Missing:
    """The absence of an element, which None can not say: it is the value in plain sets."""


MISSING = Missing()


def compare(old: Table, new: Table) -> Delta:
    """What to do to `old` so that it becomes `new`; what traffic has left in dynamic sets counts for nothing.

    A set or chain that exists with another shape is not comparable: ValueError, the caller builds anew.
    """
    delta = Delta()
    for name, spec in new.sets.items():
        if name not in old.sets:
            delta.new_sets.append(name)
            delta.sets[name] = spec
        elif old.sets[name] != spec:
            raise ValueError(f"set {name!r} exists with another shape")
        if not spec.dynamic:
            compare_elements(delta, spec, old.elements.get(name, {}), new.elements[name])
    for name, chain in new.chains.items():
        if name not in old.chains:
            delta.new_chains[name] = chain
        elif old.chains[name] != chain:
            raise ValueError(f"chain {name!r} exists with another shape")
        if list(old.rules.get(name, ())) != list(new.rules[name]):
            delta.rules[name] = new.rules[name]
    delta.gone_chains = [name for name in old.chains if name not in new.chains]
    delta.gone_sets = [name for name in old.sets if name not in new.sets]
    return delta


def compare_elements(delta: Delta, spec: SetSpec, old: Mapping[bytes, Value], new: Mapping[bytes, Value]) -> None:
    """Note every difference between what a set holds and what it should hold."""
    if old == new:
        return
    if not old and not delta.drop.get(spec.name):  # all of them come: most of a first load is this
        delta.sets[spec.name] = spec
        delta.put.setdefault(spec.name, {}).update(new)
        return
    for key, value in new.items():
        before = old.get(key, MISSING)
        if before is MISSING or before != value:
            delta.element(spec, key, before, value)
    for key in old:
        if key not in new:
            delta.element(spec, key, None, MISSING)


def transactions(
    delta: Delta, family: int, table: str, order: SetOrder, limit: int = ELEMENTS_PER_TRANSACTION
) -> list[Transaction]:
    """The difference as transactions, to be run in this order; each leaves a table that serves.

    order: rank of each set; lower ones are filled first and emptied last
    limit: most elements in one transaction
    """
    out = _Cutter(family, table, limit)
    for number, name in enumerate(delta.new_sets):
        out.add(AddSet(delta.sets[name], number + 1))
    for chain in delta.new_chains.values():
        out.add(AddChain(chain))
    for name in delta.new_chains:
        out.add(*(AddRule(name, rule) for rule in delta.rules.get(name, ())))
    ranked = sorted({*delta.put, *delta.drop}, key=lambda name: (order(name), name))
    for name in ranked:
        if order(name) == 0:
            _put(out, delta, name)
    for name, rules in delta.rules.items():
        if name not in delta.new_chains:
            out.add(FlushChain(name), *(AddRule(name, rule) for rule in rules))
    for name in ranked:
        if order(name) > 0:
            _put(out, delta, name)
    # What is pointed at may go only when no packet is still on its way to it: in a transaction of its own.
    for rank in sorted({order(name) for name in ranked}, reverse=True):
        if rank == 0:
            out.cut()
        for name in ranked:
            if order(name) == rank:
                for keys in _batches(list(delta.drop.get(name, ())), limit):
                    out.add(DeleteElements(delta.sets[name], tuple(keys)), weight=len(keys))
    if delta.gone_chains or delta.gone_sets:
        out.cut()
        for name in delta.gone_chains:
            out.add(FlushChain(name))
        for name in delta.gone_chains:
            out.add(DeleteChain(name))
        for name in delta.gone_sets:
            out.add(DeleteSet(name))
    out.cut()
    return out.done


def _put(out: _Cutter, delta: Delta, name: str) -> None:
    items, spec = delta.put.get(name, {}), delta.sets[name]
    changed = delta.changed.get(name, set())
    if spec.intervals and (drop := delta.drop.get(name)):
        # The kernel takes no intervals that overlap: former ones leave in the step in which the new ones come.
        former = [key for key in drop if any(spec.overlap(key, new) for new in items)]
        if former:
            add = AddElements(spec, tuple(items.items()))
            out.add(DeleteElements(spec, tuple(former)), add, weight=len(former) + len(items))
            delta.drop[name] = {key: None for key in drop if key not in former}
            return
    for keys in _batches([key for key in items if key in changed], out.limit // 2):
        add = AddElements(spec, tuple((key, items[key]) for key in keys))
        out.add(DeleteElements(spec, tuple(keys)), add, weight=2 * len(keys))
    for keys in _batches([key for key in items if key not in changed], out.limit):
        out.add(AddElements(spec, tuple((key, items[key]) for key in keys)), weight=len(keys))


def _batches(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    size = max(size, 1)
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


class _Cutter:
    """Collects commands into transactions of bounded weight."""

    def __init__(self, family: int, table: str, limit: int) -> None:
        self.family, self.table, self.limit = family, table, limit
        self.done: list[Transaction] = []
        self.commands: list[Command] = []
        self.weight = 0

    def add(self, *commands: Command, weight: int = 1) -> None:
        """These belong together; a cut may come before them."""
        if self.weight + weight > self.limit:
            self.cut()
        self.commands += commands
        self.weight += weight

    def cut(self) -> None:
        if self.commands:
            self.done.append(Transaction(self.family, self.table, tuple(self.commands)))
        self.commands, self.weight = [], 0


def build(table: Table, order: SetOrder, limit: int = ELEMENTS_PER_TRANSACTION) -> list[Transaction]:
    """Transactions that make a table from nothing; the first makes the table itself."""
    made = transactions(compare(Table(table.family, table.name), table), table.family, table.name, order, limit)
    add: Command = AddTable(table.comment)
    if not made:
        return [Transaction(table.family, table.name, (add,))]
    return [msgspec.structs.replace(made[0], commands=(add, *made[0].commands)), *made[1:]]


def applied(commands: Iterable[Transaction]) -> int:
    """How many elements these transactions touch, for logs and metrics."""
    total = 0
    for transaction in commands:
        for c in transaction.commands:
            total += len(c.items) if isinstance(c, AddElements) else len(c.keys) if isinstance(c, DeleteElements) else 0
    return total
