"""Rules by iptables: an `IptablesRuleset` per family, and the door it is written through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from kubesvc.kernel.iptables import Iptables, IptablesError, Rule, chain_names, parse_rule, parse_save, words_of

from .backend import Backend, Changes, Mode, Refused, RuleCount, Standpoint, take_in
from .frame import FrameOptions
from .iptables import ALL_JUMPS, CANARY, MARKER, OWN_CHAINS, SHARED_CHAINS, TABLES, IptablesRuleset, Jump
from .traffic import Family, PortTraffic, ServiceKey, ServicePortName

MOST_AUDITED_CHAINS = 5000
"""With more chains an audit looks at the canaries alone (PROXY-113, 114): reading all would take seconds."""


class IptablesBackends:
    """Makes the iptables backends of both families, which share a door.

    loopback_ports: whether node ports are reached at 127.0.0.1 (PROXY-70); needs `net.ipv4.conf.all.route_localnet`
    drop_invalid:   whether forwarded packets that no connection knows are dropped (PROXY-79)
    """

    mode: Mode = "iptables"

    def __init__(self, door: Iptables, *, loopback_ports: bool = True, drop_invalid: bool = True) -> None:
        self.door = door
        self.loopback_ports = loopback_ports
        self.drop_invalid = drop_invalid

    def __call__(self, family: Family) -> Backend:
        return IptablesBackend(family, self.door, loopback_ports=self.loopback_ports, drop_invalid=self.drop_invalid)

    def close(self) -> None:
        """Nothing is open between two calls of the programs."""


class IptablesBackend:
    """The chains of one address family."""

    mode: Mode = "iptables"

    def __init__(
        self, family: Family, door: Iptables, *, loopback_ports: bool = True, drop_invalid: bool = True
    ) -> None:
        self.family = family
        self.door = door
        self.loopback_ports = loopback_ports
        self.drop_invalid = drop_invalid
        self.ruleset = self._ruleset(Standpoint(FrameOptions(family)))
        self.written = 0
        self.last_text = ""
        """What the last sync wrote."""
        self.present = False

    def _ruleset(self, standpoint: Standpoint) -> IptablesRuleset:
        return IptablesRuleset(
            standpoint.options,
            standpoint.node_addresses,
            loopback_ports=self.loopback_ports,
            drop_invalid=self.drop_invalid,
        )

    @property
    def ports(self) -> Mapping[ServiceKey, tuple[PortTraffic, ...]]:
        return self.ruleset.ports

    def stand(self, standpoint: Standpoint) -> None:
        former = self.ruleset
        if (standpoint.options, standpoint.node_addresses) != (former.options, former.node_addresses):
            self.ruleset = self._ruleset(standpoint)
            self.ruleset.change(former.ports)

    async def change(self, changes: Changes) -> None:
        if not self.present:
            await self.load(changes)
            return
        text = self.ruleset.partly(self.ruleset.change(changes))
        if text:
            await self._restore(text)

    async def load(self, changes: Changes) -> int:
        await take_in(self.ruleset.change, changes)
        return await self._repair()

    async def audit(self) -> bool:
        if not self.present:
            return False
        whole = len(self.ruleset.shares) + self.ruleset.endpoints <= MOST_AUDITED_CHAINS
        if whole:
            return await self._repair() > 0
        for table in TABLES:
            if not await self.door.list_chain(self.family, table, CANARY):
                return await self._repair() > 0
        return False

    async def _repair(self) -> int:
        """Make the kernel's chains the wished ones, if they are not; returns how many restores that took."""
        saved = await self.door.save(self.family)
        if f":{CANARY} " not in saved and not self.ruleset.ports:
            self.present = False
            return 0  # nothing to say in this family: leave no chains
        existing, jumps = list(chain_names(saved)), self.ruleset.jumps()
        there = self._there(jumps, saved)
        text = self.ruleset.whole(existing, there)
        self.present = True
        in_place = len(there) == len(jumps) and not self.ruleset.stale(existing)
        if in_place and same(text, saved, self.family):
            return 0
        await self._restore(text)
        return 1

    def _there(self, jumps: Sequence[Jump], saved: str) -> list[int]:
        """Which of the jumps into our chains are there, by number."""
        found = parse_save(saved, self.family, only=str.isalpha)  # built-in names have no dash
        there = []
        for number, (table, chain, rule) in enumerate(jumps):
            if parse_rule(words_of(rule), self.family) in found[table].rules.get(chain, ()):
                there.append(number)
        return there

    async def _restore(self, text: str) -> None:
        try:
            await self.door.restore(self.family, text)
        except IptablesError as error:
            self._refuse(error)
        self.written += text.count("\n-A ")
        self.last_text = text

    def _refuse(self, error: IptablesError) -> NoReturn:
        self.present = True  # some tables may have been written; the next load looks
        if error.passing:
            raise error
        raise Refused(str(error), self.ruleset.owner_of(error.text) if error.text else ()) from error

    async def forget_records(self, keys: Sequence[ServiceKey]) -> None:
        """Nothing to do: the list of an endpoint ends with the last rule that names it."""

    def rule_counts(self) -> list[RuleCount]:
        last = self.ruleset.counted(self.last_text)
        return [RuleCount(table, count, last.get(table, 0)) for table, count in self.ruleset.counts().items()]

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        return self.ruleset.conflicts()

    async def clean_up(self) -> None:
        saved = await self.door.save(self.family)
        names = [place for place in chain_names(saved) if is_ours(*place)]
        # Whoever cleans up need not be told what those who wrote were told: any jump of ours may be there.
        jumps = [ALL_JUMPS[number] for number in self._there(ALL_JUMPS, saved)]
        text = ""
        for table in TABLES:
            chains = [chain for t, chain in names if t == table]
            unhooked = [f"-D {chain} {rule}" for t, chain, rule in jumps if t == table]
            if chains or unhooked:
                lines = [f"*{table}", *(f":{c} - [0:0]" for c in chains), *unhooked, *(f"-X {c}" for c in chains)]
                text += "\n".join((*lines, "COMMIT")) + "\n"
        if text:
            await self.door.restore(self.family, text)
        self.present = False


def is_ours(table: str, chain: str) -> bool:
    """Whether a chain is one that the renderer makes."""
    if chain in (CANARY, MARKER) or chain in SHARED_CHAINS.get(table, ()):
        return True
    return table == "nat" and chain.startswith(OWN_CHAINS)


def same(wished: str, saved: str, family: Family) -> bool:
    """Whether what is there says the same as what is wished, in every chain that is."""
    have = _ours(saved, family)
    return all(have.get(place) == rules for place, rules in _ours(wished, family).items())


def _ours(text: str, family: Family) -> dict[tuple[str, str], list[Rule]]:
    """Our chains, from a restore or a save text."""
    tables = parse_save(text, family, only=lambda name: name.startswith("KUBE-"))
    return {
        (table, name): rules
        for table, chains in tables.items()
        for name, rules in chains.rules.items()
        if is_ours(table, name)
    }
