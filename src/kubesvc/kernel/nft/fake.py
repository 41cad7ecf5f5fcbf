"""nftables without a kernel."""

from __future__ import annotations

import asyncio
import errno

from .commands import AddElements, Command, NftError, NoSuchObject, Transaction
from .table import SetSpec, Table, Value


class FakeNft:
    """As atomic and as strict as the kernel, and open to inspection: `tables` is what is applied, `log` what was run.

    `fail_next`: set to an exception to make the next transaction fail with it, nothing applied.
    `disturbed`: raise it to tell that somebody else changed rules.
    `closed`: whether its user has ended the use of it.
    `poison`: a value of elements that it refuses, whoever brings them.
    """

    def __init__(self) -> None:
        self.tables: dict[tuple[int, str], Table] = {}
        self.log: list[Transaction] = []
        self.fail_next: Exception | None = None
        self.disturbed = 0
        self.poison: bytes | None = None
        self.closed = False

    def look_at(self, command: Command) -> None:
        """Refuse a command that brings poison."""
        if self.poison and isinstance(command, AddElements) and any(value == self.poison for _, value in command.items):
            raise NftError(errno.EINVAL, f"set {command.set.name!r}: an element is poison")

    async def run(self, transaction: Transaction) -> None:
        await asyncio.sleep(0)
        self.run_now(transaction)

    def run_now(self, transaction: Transaction) -> None:
        """As `run`, without a loop."""
        if self.fail_next:
            error, self.fail_next = self.fail_next, None
            raise error
        draft = FakeDraft(self.tables)
        for command in transaction.commands:
            try:
                self.look_at(command)
                command.change(draft, transaction.family, transaction.table)
            except NftError as error:
                error.command = command
                raise
        self.tables = draft.tables
        self.log.append(transaction)

    async def read(self, family: int, table: str, *, elements: bool = True, anonymous: bool = False) -> Table | None:
        del anonymous  # nobody makes such sets here
        await asyncio.sleep(0)
        found = self.tables.get((family, table))
        if found is None:
            return None
        found = found.draft()
        found.rules = {name: list(rules) for name, rules in found.rules.items()}
        found.elements = {name: dict(held) if elements else {} for name, held in found.elements.items()}
        return found

    async def read_elements(self, family: int, table: str, spec: SetSpec) -> dict[bytes, Value]:
        await asyncio.sleep(0)
        found = self.tables.get((family, table))
        if found is None or spec.name not in found.sets:
            raise NoSuchObject(f"set {spec.name!r}: no such set")
        return dict(found.elements[spec.name])

    async def disturbances(self) -> int:
        return self.disturbed

    def close(self) -> None:
        self.closed = True


class FakeDraft:
    """The tables while a transaction changes them."""

    def __init__(self, tables: dict[tuple[int, str], Table]) -> None:
        self.tables = dict(tables)
        self.own: set[tuple[int, str]] = set()

    def table(self, family: int, name: str) -> Table:
        key = (family, name)
        if key not in self.tables:
            raise NoSuchObject(f"table {name!r}: no such table")
        if key not in self.own:
            self.tables[key] = self.tables[key].draft()
            self.own.add(key)
        return self.tables[key]

    def add_table(self, family: int, name: str, comment: str) -> None:
        key = (family, name)
        if key not in self.tables:
            self.tables[key] = Table(family, name, comment)
            self.own.add(key)

    def delete_table(self, family: int, name: str) -> None:
        if (family, name) not in self.tables:
            raise NoSuchObject(f"table {name!r}: no such table")
        del self.tables[family, name]
