"""What becomes of a packet under the tables of iptables: the rules walked one by one, as the kernel would.

The words for packets, hosts and outcomes are those of nftables' walker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ..nft.walk import Host, Outcome, Packet
from .rules import (
    AddressType,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    InInterface,
    Jump,
    MarkIs,
    Masquerade,
    Match,
    Protocol,
    RecentCheck,
    RecentSet,
    Reject,
    Rule,
    SetMark,
    Source,
    Statistic,
)
from .tables import Tables

NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58}
INCOMING = (("PREROUTING", ("mangle", "nat")),)
LOCAL = (("INPUT", ("mangle", "filter", "nat")),)
PASSING = (("FORWARD", ("mangle", "filter")), ("POSTROUTING", ("mangle", "nat")))
LEAVING = (("OUTPUT", ("mangle", "nat", "filter")), ("POSTROUTING", ("mangle", "nat")))
WHOLE = 0x80000000


class _Ended(Exception):
    def __init__(self, verdict: str) -> None:
        self.verdict = verdict


@dataclass(slots=True)
class Walk:
    """One packet on its way.

    luck:    answers each statistic match, told its probability in parts of 2 to the 31
    records: who is remembered by the lists of `recent`; written to
    """

    tables: Tables
    host: Host
    packet: Packet
    luck: Callable[[int], bool]
    records: dict[str, set[str]] = field(default_factory=dict)
    now: Packet = field(init=False)
    natted: bool = field(default=False, init=False)
    masqueraded: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.now = self.packet

    def run(self) -> Outcome:
        """Walk the hooks in the order in which the kernel calls them."""
        try:
            if self.packet.interface:
                self.hooks(INCOMING)
                self.hooks(LOCAL if self.host.is_local(self.now.destination) else PASSING)
            else:
                self.hooks(LEAVING)
                if self.host.is_local(self.now.destination):
                    self.hooks(LOCAL)  # by the loopback interface; what is translated stays so
        except _Ended as end:
            return Outcome(end.verdict)
        return Outcome("accept", self.now.destination, self.now.port, self.masqueraded)

    def hooks(self, hooks: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        for chain, tables in hooks:
            for table in tables:
                if table != "nat" or self.packet.new:
                    self.chain(table, chain)

    def chain(self, table: str, name: str) -> None:
        """A built-in chain and all it jumps to."""
        chains = self.tables[table]
        stack: list[Iterator[Rule]] = [iter(chains.rules[name])]
        while stack:
            rule = next(stack[-1], None)
            if rule is None:
                stack.pop()
                continue
            if not all(self.matches(m) for m in rule.matches):
                continue
            match rule.target:
                case Jump("ACCEPT"):
                    return
                case Jump("DROP"):
                    raise _Ended("drop")
                case Jump("RETURN"):
                    stack.pop()
                case Jump(to):
                    stack.append(iter(chains.rules[to]))
                case Reject(reply):
                    raise _Ended("reject tcp-reset" if reply == "tcp-reset" else "reject icmp")
                case Dnat(address, port):
                    self.natted = True
                    self.now = replace(self.now, destination=address, port=port)
                    return
                case SetMark(value, mask):
                    self.now = replace(self.now, mark=(self.now.mark & ~mask & 0xFFFFFFFF) ^ value)
                case Masquerade():
                    self.masqueraded = True
                    return
        if chains.policies[name] == "DROP":
            raise _Ended("drop")

    def matches(self, m: Match) -> bool:
        """Whether one match holds; `recent --set` writes as the kernel does, when it is reached."""
        match m:
            case Source():
                return _within(self.now.source, m.network) != m.negated
            case Destination():
                return _within(self.now.destination, m.network) != m.negated
            case InInterface():
                name = self.now.interface
                found = name.startswith(m.name[:-1]) if m.name.endswith("+") else name == m.name
                return found != m.negated
            case Protocol():
                return self.now.protocol == NUMBERS[m.name]
            case DestinationPort():
                return self.now.port == m.port
            case CtState():
                return any(self.state(s) for s in m.states) != m.negated
            case MarkIs():
                return (self.now.mark & m.mask == m.value) != m.negated
            case AddressType():
                address = self.now.source if m.side == "src" else self.now.destination
                assert m.type == "LOCAL"
                return self.host.is_local(address) != m.negated
            case Statistic():
                return self.luck(m.parts)
            case RecentCheck():
                return self.packet.source in self.records.get(m.name, ())
            case RecentSet():
                self.records.setdefault(m.name, set()).add(self.packet.source)
                return True

    def state(self, name: str) -> bool:
        match name:
            case "NEW":
                return self.packet.new
            case "ESTABLISHED":
                return not self.packet.new
            case "DNAT":
                return self.natted
        return False


def _within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def outcomes(
    tables: Tables, packet: Packet, host: Host, records: dict[str, set[str]] | None = None
) -> dict[Outcome, float]:
    """All that may become of the packet, with the probability of each; they add up to 1. `records` is not changed."""
    found: dict[Outcome, float] = {}
    paths: list[tuple[bool, ...]] = [()]
    while paths:
        path = paths.pop()
        taken: list[bool] = []
        chance = 1.0

        def luck(parts: int, path: tuple[bool, ...] = path, taken: list[bool] = taken) -> bool:
            nonlocal chance
            if len(taken) < len(path):
                answer = path[len(taken)]
            else:
                answer = parts > 0
                if 0 < parts < WHOLE:
                    paths.append((*taken, False))
            taken.append(answer)
            chance *= parts / WHOLE if answer else 1 - parts / WHOLE
            return answer

        known = {name: set(clients) for name, clients in (records or {}).items()}
        outcome = Walk(tables, host, packet, luck, known).run()
        found[outcome] = found.get(outcome, 0.0) + chance
    return found
