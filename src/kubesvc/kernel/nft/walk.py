"""What becomes of a packet under a table: the rules walked one by one, as the kernel would, without a kernel."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from . import expressions as x
from .expressions import Rule, Verdict
from .fields import pack_address
from .table import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, SetSpec, Table

CONNTRACK_PRIORITY = -200


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow (or, with `new` False, a later one, which nat chains do not see).

    interface: where it comes in; "" when a process of this host sends it
    """

    source: str
    destination: str
    port: int
    protocol: int = 6
    source_port: int = 40000
    interface: str = "eth0"
    mark: int = 0
    new: bool = True


@dataclass(frozen=True, slots=True)
class Host:
    """What the rules may ask of the host: its own addresses. Anything else is forwarded."""

    addresses: frozenset[str]

    def is_local(self, address: str) -> bool:
        return address in self.addresses or is_loopback(address)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: `verdict` is accept, drop, `reject tcp-reset` or `reject icmp`; then where it went, and
    whether its source was rewritten."""

    verdict: str
    destination: str = ""
    port: int = 0
    masqueraded: bool = False

    def __str__(self) -> str:
        if self.verdict != "accept":
            return self.verdict
        return f"to {self.destination}:{self.port}" + (", masqueraded" if self.masqueraded else "")


class _Ended(Exception):
    def __init__(self, verdict: str) -> None:
        self.verdict = verdict


@dataclass(slots=True)
class Walk:
    """One packet on its way through one table.

    pick:    draws a number below its argument, for numgen
    records: elements that rules put into dynamic sets, by set; they are seen by later rules and not written back
    """

    table: Table
    host: Host
    packet: Packet
    pick: Callable[[int], int]
    now: Packet = field(init=False)
    natted: bool = field(default=False, init=False)
    masqueraded: bool = field(default=False, init=False)
    registers: bytearray = field(default_factory=lambda: bytearray(80), init=False)
    records: list[tuple[str, bytes, bytes, int]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.now = self.packet

    def run(self) -> Outcome:
        """Walk the hooks in the order in which the kernel calls them."""
        try:
            if self.packet.interface:
                self.hook(PREROUTING)
                local = self.host.is_local(self.now.destination)
                self.hook(INPUT if local else FORWARD)
                if not local:
                    self.hook(POSTROUTING)
            else:
                self.hook(OUTPUT)
                self.hook(POSTROUTING)
        except _Ended as end:
            return Outcome(end.verdict)
        return Outcome("accept", self.now.destination, self.now.port, self.masqueraded)

    def hook(self, number: int) -> None:
        """All base chains of one hook by priority."""
        based = [c for c in self.table.chains.values() if c.base and c.base.hook == number]
        for chain in sorted(based, key=lambda c: (c.base.priority if c.base else 0, c.name)):
            assert chain.base
            if chain.base.type == "nat" and not self.packet.new:
                continue
            self.chain(chain.name)

    def chain(self, name: str) -> None:
        """A chain, those it jumps to, and back; returns at its end."""
        stack: list[Iterator[Rule]] = [iter(self.table.rules[name])]
        while stack:
            rule = next(stack[-1], None)
            if rule is None:
                stack.pop()
                continue
            verdict = self.rule(rule)
            if verdict is None:
                continue
            if verdict.code == x.DROP:
                raise _Ended("drop")
            if verdict.code == x.ACCEPT:
                return
            if verdict.code == x.RETURN:
                stack.pop()
            elif verdict.code in (x.GOTO, x.JUMP):
                if verdict.code == x.GOTO:
                    stack.pop()
                stack.append(iter(self.table.rules[verdict.chain]))

    def rule(self, rule: Rule) -> Verdict | None:
        """One rule: its verdict, None if it does not match or has none."""
        self.registers[:] = bytes(80)
        for expression in rule:
            result = self.step(expression)
            if result is False:
                return None
            if isinstance(result, Verdict):
                return result
        return None

    def load(self, register: int, data: bytes) -> None:
        at = _at(register)
        self.registers[at : at + len(data) + (-len(data) % 4)] = data + bytes(-len(data) % 4)

    def read(self, register: int, length: int) -> bytes:
        at = _at(register)
        return bytes(self.registers[at : at + length])

    def step(self, e: x.Expression) -> bool | Verdict:
        """One expression: False if the rule does not match, a verdict, or True to go on."""
        match e:
            case x.Payload():
                self.load(e.register, self.header(e))
            case x.Meta(set=True):
                assert e.key == x.META_MARK
                self.now = replace(self.now, mark=struct.unpack("=I", self.read(e.register, 4))[0])
            case x.Meta():
                self.load(e.register, self.meta(e.key))
            case x.Ct():
                self.load(e.register, self.ct(e.key))
            case x.Cmp():
                return (self.read(e.register, len(e.data)) == e.data) == (e.op == x.EQ)
            case x.Range():
                return (e.low <= self.read(e.register, len(e.low)) <= e.high) == (e.op == x.EQ)
            case x.Bitwise():
                value = self.read(e.register, len(e.mask))
                self.load(e.register, bytes((v & m) ^ y for v, m, y in zip(value, e.mask, e.xor, strict=True)))
            case x.Numgen():
                self.load(e.register, struct.pack("=I", e.offset + self.pick(e.modulus)))
            case x.Lookup():
                return self.lookup(e)
            case x.Nat():
                address = self.read(e.address_register, 4 if e.family == x.AF_INET else 16)
                port = int.from_bytes(self.read(e.port_register, 2), "big")
                assert e.type == x.DNAT
                self.natted = True
                self.now = replace(self.now, destination=str(ipaddress.ip_address(address)), port=port)
                return Verdict(x.ACCEPT)
            case x.Masquerade():
                self.masqueraded = True
                return Verdict(x.ACCEPT)
            case x.Reject():
                raise _Ended("reject tcp-reset" if e.type == x.TCP_RESET else "reject icmp")
            case x.Immediate():
                if isinstance(e.value, Verdict):
                    return e.value
                self.load(e.register, e.value)
            case x.Dynset():
                self.record(e)
            case x.Fib():
                address_ = self.now.source if e.flags == x.FIB_SADDR else self.now.destination
                self.load(e.register, struct.pack("=I", x.RTN_LOCAL if self.host.is_local(address_) else 1))
            case x.Counter():
                pass
            case _:
                raise NotImplementedError(f"walking {e!r}")
        return True

    def header(self, e: x.Payload) -> bytes:
        if e.base == x.TRANSPORT:
            ports = struct.pack(">HH", self.now.source_port, self.now.port)
            return ports[e.offset : e.offset + e.length]
        source, destination = packed(self.now.source), packed(self.now.destination)
        start = 12 if len(source) == 4 else 8
        header = bytes(start) + source + destination
        return header[e.offset : e.offset + e.length]

    def meta(self, key: int) -> bytes:
        match key:
            case x.META_MARK:
                return struct.pack("=I", self.now.mark)
            case x.META_L4PROTO:
                return bytes((self.now.protocol,))
            case x.META_IIFNAME:
                return self.now.interface.encode().ljust(16, b"\0")
        raise NotImplementedError(f"meta {key}")

    def ct(self, key: int) -> bytes:
        match key:
            case x.CT_STATE:
                return struct.pack("=I", x.CT_NEW if self.packet.new else 2)
            case x.CT_STATUS:
                return struct.pack("=I", x.STATUS_DNAT if self.natted else 0)
            case x.CT_SRC_IP | x.CT_SRC_IP6:
                return packed(self.packet.source)
            case x.CT_DST_IP | x.CT_DST_IP6:
                return packed(self.packet.destination)
            case x.CT_PROTO_DST:
                return struct.pack(">H", self.packet.port)
        raise NotImplementedError(f"ct {key}")

    def lookup(self, e: x.Lookup) -> bool | Verdict:
        spec = self.table.sets[e.set]
        held = self.table.elements[e.set]
        key = self.read(e.register, sum(f.width_bytes for f in spec.key))
        if spec.intervals:
            found = any(_within(spec, key, span) for span in held)
            return found != e.inverted
        if e.destination is None or not spec.is_map:
            return (key in held) != e.inverted
        if key not in held:
            return False
        value = held[key]
        if isinstance(value, Verdict):
            return value
        assert isinstance(value, bytes)
        self.load(e.destination, value)
        return True

    def record(self, e: x.Dynset) -> None:
        spec = self.table.sets[e.set]
        key = self.read(e.key_register, sum(f.width_bytes for f in spec.key))
        data = self.read(e.data_register or 0, sum(f.width_bytes for f in spec.data)) if spec.data else b""
        self.records.append((e.set, key, data, e.timeout_ms))


packed = lru_cache(4096)(pack_address)
"""The bytes of an address; a packet's are asked for at every rule."""


@lru_cache(4096)
def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _at(register: int) -> int:
    """Byte offset of a register; the verdict register stands before the others."""
    return 16 * register if register <= 4 else 16 + 4 * (register - 8)


def _within(spec: SetSpec, key: bytes, span: bytes) -> bool:
    """Whether every field of the key lies between those of the span's two halves."""
    low, high = span[: len(key)], span[len(key) :]
    offset = 0
    for part in spec.key:
        end = offset + part.size_bytes
        if not low[offset:end] <= key[offset:end] <= high[offset:end]:
            return False
        offset += part.width_bytes
    return True


def walk(table: Table, packet: Packet, host: Host, pick: Callable[[int], int] = lambda _: 0) -> Outcome:
    """What becomes of the packet, every random draw answered by `pick` (0 unless told). Nothing is changed."""
    return Walk(table, host, packet, pick).run()


def outcomes(table: Table, packet: Packet, host: Host) -> list[Outcome]:
    """All that may become of the packet, one per number that could be drawn, in that order without repetition."""
    found: list[Outcome] = []
    number, modulus = 0, 1

    def pick(below: int) -> int:
        nonlocal modulus
        modulus = below
        return number

    while number < modulus:
        outcome = walk(table, packet, host, pick)
        if outcome not in found:
            found.append(outcome)
        number += 1
    return found


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
