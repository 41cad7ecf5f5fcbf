"""Rules by nftables: a `Ruleset` per family, and the door it is written through."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from kubesvc.kernel.nft import (
    AddElements,
    AddRule,
    Command,
    DeleteElements,
    DeleteTable,
    Nft,
    NftError,
    NoSuchObject,
    Transaction,
)
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6

from .backend import Backend, Changes, Mode, Refused, RuleCount, Standpoint, take_in
from .delta import applied
from .frame import FrameOptions
from .nftables import Ruleset, affinity_lists, affinity_map
from .traffic import Family, PortTraffic, ServiceKey, ServicePortName

PASSING = (errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOBUFS, errno.EPERM, errno.EACCES)
"""Errors that say nothing about what was written: the next try may do, or none will."""


class NftBackends:
    """Makes the nftables backends of both families, which share a door."""

    mode: Mode = "nftables"

    def __init__(self, nft: Nft, table: str = "kubesvc") -> None:
        self.nft = nft
        self.table = table

    def __call__(self, family: Family) -> Backend:
        return NftBackend(family, self.nft, self.table)

    def close(self) -> None:
        self.nft.close()


class NftBackend:
    """The table of one address family, kept up by differences."""

    mode: Mode = "nftables"

    def __init__(self, family: Family, nft: Nft, table: str) -> None:
        self.family = family
        self.nft = nft
        self.table = table
        self.nfproto = NFPROTO_IPV6 if family == "IPv6" else NFPROTO_IPV4
        self.ruleset = Ruleset(FrameOptions(family, table))
        self.written = 0
        self.disturbances = 0
        self.present = False
        """Whether our table is in the kernel, as far as we know."""

    @property
    def ports(self) -> Mapping[ServiceKey, tuple[PortTraffic, ...]]:
        return self.ruleset.ports

    def stand(self, standpoint: Standpoint) -> None:
        options, addresses = standpoint.options, standpoint.node_addresses or ()
        if (options, addresses) != (self.ruleset.options, self.ruleset.told_addresses):
            former = self.ruleset
            self.ruleset = Ruleset(options, addresses, former.slots)
            self.ruleset.change(former.ports)

    async def change(self, changes: Changes) -> None:
        if not self.present:
            await self.load(changes)
            return
        delta = self.ruleset.change(changes)
        await self._write(self.ruleset.transactions(delta))

    async def load(self, changes: Changes) -> int:
        await take_in(self.ruleset.change, changes)
        return await self._repair()

    async def audit(self) -> bool:
        if await self.nft.disturbances() == self.disturbances:
            return False
        return await self._repair() > 0

    async def _repair(self) -> int:
        """Make the kernel's table the wished one; returns how many transactions that took."""
        self.disturbances = await self.nft.disturbances()
        found = await self.nft.read(self.nfproto, self.table)
        if found is None and not self.ruleset.ports and not self.ruleset.options.service_cidrs:
            self.present = False
            return 0  # nothing to say in this family: leave no table
        transactions = self.ruleset.repair(found)
        await self._write(transactions)
        self.present = True
        return len(transactions)

    async def _write(self, transactions: Iterable[Transaction]) -> None:
        for transaction in transactions:
            try:
                await self.nft.run(transaction)
            except NftError as error:
                self._refuse(error)
            self.written += applied([transaction])
            await asyncio.sleep(0)

    def _refuse(self, error: NftError) -> NoReturn:
        if error.errno in PASSING:
            raise error
        raise Refused(str(error), self.ruleset.owners(*_named(error.command))) from error

    async def forget_records(self, keys: Sequence[ServiceKey]) -> None:
        for key in keys:
            for name, allowed in affinity_lists(self.ruleset.ports.get(key, ())):
                spec = affinity_map(self.ruleset.words, name)
                records = await self.nft.read_elements(self.nfproto, self.table, spec)
                for client in sorted(c for c, target in records.items() if target not in allowed):
                    delete = DeleteElements(spec, (client,))
                    try:
                        await self.nft.run(Transaction(self.nfproto, self.table, (delete,)))
                    except NoSuchObject:
                        pass  # ran out meanwhile

    def rule_counts(self) -> list[RuleCount]:
        return []

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        return self.ruleset.conflicts()

    async def clean_up(self) -> None:
        try:
            await self.nft.run(Transaction(self.nfproto, self.table, (DeleteTable(),)))
        except NoSuchObject:
            pass
        self.present = False


def _named(command: Command | None) -> tuple[str, frozenset[bytes]]:
    """The set or chain that a refused command writes, and the elements it puts in."""
    match command:
        case AddElements():
            return command.set.name, frozenset(key for key, _ in command.items)
        case DeleteElements():
            return command.set.name, frozenset(command.keys)
        case AddRule():
            return command.chain, frozenset()
    return getattr(getattr(command, "spec", None), "name", ""), frozenset()
