"""The expressions rules are made of: values that know their netlink form, in both directions.

A rule is a tuple of expressions that hand values on in registers; the numbers here are the kernel's own (register 1
holds 16 bytes, registers 8 to 23 are its 4-byte pieces and those after it: 8 is the start of 1, 12 of 2). Which
registers nft itself would take matters: `nft list` understands a rule only in the shape in which nft would write it.
Expressions encode as the kernel dumps them, and `decode` reads every dump back into equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from ..netlink import BE32, BE64, attribute, attribute_map, attributes, be32, be64, name_of, nested, strict, text, u8

EXPR_NAME, EXPR_DATA = 1, 2
LIST_ELEM = 1
DATA_VALUE, DATA_VERDICT = 1, 2
VERDICT_CODE, VERDICT_CHAIN = 1, 2

DROP, ACCEPT = 0, 1
CONTINUE, JUMP, GOTO, RETURN = 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFFB
VERDICT_NAMES = {DROP: "drop", ACCEPT: "accept", CONTINUE: "continue", JUMP: "jump", GOTO: "goto", RETURN: "return"}

NETWORK, TRANSPORT = 1, 2
EQ, NEQ = 0, 1
META_MARK, META_IIFNAME, META_OIFNAME, META_L4PROTO = 3, 6, 7, 16
CT_STATE, CT_STATUS, CT_PROTO_DST, CT_SRC_IP, CT_DST_IP, CT_SRC_IP6, CT_DST_IP6 = 0, 2, 12, 19, 20, 21, 22
ORIGINAL, REPLY = 0, 1
CT_NEW = 8
STATUS_DNAT = 0x20
FIB_TYPE = 3
FIB_SADDR, FIB_DADDR = 1, 2
RTN_LOCAL = 2
SNAT, DNAT = 0, 1
NAT_ADDRESSES, NAT_PORTS, NAT_FULLY_RANDOM = 1, 2, 0x10
ICMP_UNREACHABLE, TCP_RESET = 0, 1
ICMP_PORT_UNREACHABLE, ICMP6_PORT_UNREACHABLE = 3, 4
UPDATE = 1
NUMGEN_RANDOM = 1
AF_INET, AF_INET6 = 2, 10

R1, R2, R3, R4 = 1, 2, 3, 4
"""Registers of 16 bytes."""


def piece(number: int) -> int:
    """The register of the `number`-th 4 bytes, counted from the start of R1, by the name that nft gives it."""
    return 1 + number // 4 if number % 4 == 0 else 8 + number


class Verdict(NamedTuple):
    """What becomes of a packet, or where it goes on: a code and, for jump and goto, a chain."""

    code: int
    chain: str = ""

    def __str__(self) -> str:
        return f"{VERDICT_NAMES.get(self.code, self.code)} {self.chain}".rstrip()


def goto(chain: str) -> Verdict:
    return Verdict(GOTO, chain)


def jump(chain: str) -> Verdict:
    return Verdict(JUMP, chain)


def encode_verdict(type: int, verdict: Verdict) -> bytes:
    """A verdict as attribute `type` (of an immediate expression or a set element)."""
    parts = [be32(VERDICT_CODE, verdict.code)]
    if verdict.chain:
        parts.append(text(VERDICT_CHAIN, verdict.chain))
    return nested(type, nested(DATA_VERDICT, *parts))


def encode_value(type: int, value: bytes) -> bytes:
    return nested(type, attribute(DATA_VALUE, value))


def decode_data(data: bytes) -> bytes | Verdict:
    """The value or verdict in a data attribute."""
    found = attribute_map(data)
    if DATA_VERDICT in found:
        verdict = attribute_map(found[DATA_VERDICT])
        return Verdict(BE32.unpack(verdict[VERDICT_CODE])[0], name_of(verdict.get(VERDICT_CHAIN, b"")))
    return found[DATA_VALUE]


Attributes = Mapping[int, bytes]


def _u32(found: Attributes, type: int, default: int = 0) -> int:
    return BE32.unpack(found[type])[0] if type in found else default


class Expression(Protocol):
    """One step of a rule."""

    NAME: ClassVar[str]

    def encode(self) -> bytes:
        """Its own attributes, without the frame that names it."""


class Payload(msgspec.Struct, frozen=True):
    """Load `length` bytes at `offset` of a header into a register; without that header the rule does not match."""

    base: int
    offset: int
    length: int
    register: int
    NAME: ClassVar[str] = "payload"

    def encode(self) -> bytes:
        return be32(1, self.register) + be32(2, self.base) + be32(3, self.offset) + be32(4, self.length)


class Meta(msgspec.Struct, frozen=True):
    """Load what the kernel knows about the packet (its mark, protocol, interface), or with `set` write it."""

    key: int
    register: int
    set: bool = False
    NAME: ClassVar[str] = "meta"

    def encode(self) -> bytes:
        return be32(2, self.key) + be32(3 if self.set else 1, self.register)


class Ct(msgspec.Struct, frozen=True):
    """Load something of the packet's connection; `direction` ORIGINAL or REPLY where the key has two."""

    key: int
    register: int
    direction: int | None = None
    NAME: ClassVar[str] = "ct"

    def encode(self) -> bytes:
        direction = b"" if self.direction is None else u8(3, self.direction)
        return be32(1, self.register) + be32(2, self.key) + direction


class Cmp(msgspec.Struct, frozen=True):
    """Match if the register's first bytes are (EQ) or are not (NEQ) these."""

    op: int
    data: bytes
    register: int = R1
    NAME: ClassVar[str] = "cmp"

    def encode(self) -> bytes:
        return be32(1, self.register) + be32(2, self.op) + encode_value(3, self.data)


class Range(msgspec.Struct, frozen=True):
    """Match if the register lies within (EQ) or outside (NEQ) a range, both ends included."""

    op: int
    low: bytes
    high: bytes
    register: int = R1
    NAME: ClassVar[str] = "range"

    def encode(self) -> bytes:
        return be32(1, self.register) + be32(2, self.op) + encode_value(3, self.low) + encode_value(4, self.high)


class Bitwise(msgspec.Struct, frozen=True):
    """register = register & mask ^ xor."""

    mask: bytes
    xor: bytes
    register: int = R1
    NAME: ClassVar[str] = "bitwise"

    def encode(self) -> bytes:
        head = be32(1, self.register) + be32(2, self.register) + be32(3, len(self.mask)) + be32(6, 0)
        return head + encode_value(4, self.mask) + encode_value(5, self.xor)


class Lookup(msgspec.Struct, frozen=True):
    """Find the register's key in a set. Plain set: match if it is there (`inverted`: if not). Map: with
    `destination` put its value there (0: follow its verdict); no match without the key."""

    set: str
    register: int = R1
    destination: int | None = None
    inverted: bool = False
    NAME: ClassVar[str] = "lookup"

    def encode(self) -> bytes:
        destination = b"" if self.destination is None else be32(3, self.destination)
        return text(1, self.set) + be32(2, self.register) + destination + be32(5, int(self.inverted))


class Numgen(msgspec.Struct, frozen=True):
    """Draw a random number from offset to offset + modulus - 1."""

    modulus: int
    register: int
    offset: int = 0
    NAME: ClassVar[str] = "numgen"

    def encode(self) -> bytes:
        return be32(1, self.register) + be32(2, self.modulus) + be32(3, NUMGEN_RANDOM) + be32(4, self.offset)


class Nat(msgspec.Struct, frozen=True):
    """Rewrite the destination (DNAT) or source (SNAT) of the connection to the registers' address and port; ends
    the chain's rules with accept."""

    type: int
    family: int
    address_register: int
    port_register: int
    NAME: ClassVar[str] = "nat"

    def encode(self) -> bytes:
        address, port = self.address_register, self.port_register
        return (
            be32(1, self.type)
            + be32(2, self.family)
            + be32(3, address)
            + be32(4, address)
            + be32(5, port)
            + be32(6, port)
            + be32(7, NAT_ADDRESSES | NAT_PORTS)
        )


class Masquerade(msgspec.Struct, frozen=True):
    """Rewrite the source to an address of the outgoing interface, from a random port."""

    NAME: ClassVar[str] = "masq"

    def encode(self) -> bytes:
        return be32(1, NAT_FULLY_RANDOM)


class Reject(msgspec.Struct, frozen=True):
    """Drop and answer: TCP_RESET, or ICMP_UNREACHABLE with a code of the family."""

    type: int
    code: int = 0
    NAME: ClassVar[str] = "reject"

    def encode(self) -> bytes:
        return be32(1, self.type) + (b"" if self.type == TCP_RESET else u8(2, self.code))


class Immediate(msgspec.Struct, frozen=True):
    """A verdict (register 0), or bytes into a register."""

    value: Verdict | bytes
    register: int = 0
    NAME: ClassVar[str] = "immediate"

    def encode(self) -> bytes:
        data = encode_verdict(2, self.value) if isinstance(self.value, Verdict) else encode_value(2, self.value)
        return be32(1, self.register) + data


class Dynset(msgspec.Struct, frozen=True):
    """Put the key register, with the data register if the set is a map, into a set for `timeout_ms` from now."""

    set: str
    timeout_ms: int
    key_register: int = R1
    data_register: int | None = None
    NAME: ClassVar[str] = "dynset"

    def encode(self) -> bytes:
        data = b"" if self.data_register is None else be32(5, self.data_register)
        head = be32(4, self.key_register) + data + be32(3, UPDATE) + text(1, self.set)
        return head + be64(6, self.timeout_ms) + be32(9, 0)


class Fib(msgspec.Struct, frozen=True):
    """Ask the routing table for the kind of the source (FIB_SADDR) or destination address: RTN_LOCAL if the host's."""

    flags: int
    register: int = R1
    NAME: ClassVar[str] = "fib"

    def encode(self) -> bytes:
        return be32(1, self.register) + be32(2, FIB_TYPE) + be32(3, self.flags)


class Counter(msgspec.Struct, frozen=True):
    """Count packets and bytes. What was counted is no part of the rule: all counters are equal."""

    NAME: ClassVar[str] = "counter"

    def encode(self) -> bytes:
        return be64(1, 0) + be64(2, 0)


class ObjectReference(msgspec.Struct, frozen=True):
    """Apply a named stateful object, such as a counter or a quota."""

    type: int
    name: str
    NAME: ClassVar[str] = "objref"

    def encode(self) -> bytes:
        return be32(1, self.type) + text(2, self.name)


class Unknown(msgspec.Struct, frozen=True):
    """An expression read back that is none of ours; only compared and shown, never written."""

    name: str
    data: bytes
    NAME: ClassVar[str] = "unknown"

    def encode(self) -> bytes:
        raise ValueError(f"expression {self.name!r}: read from the kernel, not writable")


Rule = tuple[Expression, ...]


def encode_rule(rule: Rule) -> bytes:
    """The list of a rule's expressions, each in its frame."""
    return b"".join(nested(LIST_ELEM, text(EXPR_NAME, e.NAME), nested(EXPR_DATA, e.encode())) for e in rule)


def _payload(a: Attributes) -> Expression:
    return Payload(_u32(a, 2), _u32(a, 3), _u32(a, 4), _u32(a, 1))


def _meta(a: Attributes) -> Expression:
    return Meta(_u32(a, 2), _u32(a, 3) or _u32(a, 1), set=3 in a)


def _ct(a: Attributes) -> Expression:
    return Ct(_u32(a, 2), _u32(a, 1), a[3][0] if 3 in a else None)


def _value(a: Attributes, type: int) -> bytes:
    value = decode_data(a[type])
    assert isinstance(value, bytes)
    return value


def _immediate(a: Attributes) -> Expression:
    return Immediate(decode_data(a[2]), _u32(a, 1))


def _bitwise(a: Attributes) -> Expression:
    if _u32(a, 6) or _u32(a, 1) != _u32(a, 2):
        raise KeyError("another operation")
    return Bitwise(_value(a, 4), _value(a, 5), _u32(a, 1))


def _nat(a: Attributes) -> Expression:
    if _u32(a, 7) != NAT_ADDRESSES | NAT_PORTS:
        raise KeyError("other flags")
    return Nat(_u32(a, 1), _u32(a, 2), _u32(a, 3), _u32(a, 5))


def _masquerade(a: Attributes) -> Expression:
    if _u32(a, 1) != NAT_FULLY_RANDOM:
        raise KeyError("other flags")
    return Masquerade()


def _reject(a: Attributes) -> Expression:
    return Reject(_u32(a, 1), a[2][0] if 2 in a else 0)


def _dynset(a: Attributes) -> Expression:
    if _u32(a, 3) != UPDATE:
        raise KeyError("another operation")
    timeout_ms = BE64.unpack(a[6])[0] if 6 in a else 0
    return Dynset(name_of(a[1]), timeout_ms, _u32(a, 4), _u32(a, 5) if 5 in a else None)


def _fib(a: Attributes) -> Expression:
    if _u32(a, 2) != FIB_TYPE:
        raise KeyError("another result")
    return Fib(_u32(a, 3), _u32(a, 1))


def _numgen(a: Attributes) -> Expression:
    if _u32(a, 3) != NUMGEN_RANDOM:
        raise KeyError("another type")
    return Numgen(_u32(a, 2), _u32(a, 1), _u32(a, 4))


def _lookup(a: Attributes) -> Expression:
    return Lookup(name_of(a[1]), _u32(a, 2), _u32(a, 3) if 3 in a else None, bool(_u32(a, 5)))


DECODERS: dict[str, Callable[[Attributes], Expression]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "cmp": lambda a: Cmp(_u32(a, 2), _value(a, 3), _u32(a, 1)),
    "range": lambda a: Range(_u32(a, 2), _value(a, 3), _value(a, 4), _u32(a, 1)),
    "bitwise": _bitwise,
    "lookup": _lookup,
    "numgen": _numgen,
    "nat": _nat,
    "masq": _masquerade,
    "reject": _reject,
    "immediate": _immediate,
    "dynset": _dynset,
    "fib": _fib,
    "counter": lambda _: Counter(),
    "objref": lambda a: ObjectReference(_u32(a, 1), name_of(a[2])),
}


@strict
def decode_rule(data: bytes) -> Rule:
    """The rule of a list of expressions; those that are not ours, or with options of ours not, become Unknown."""
    rule: list[Expression] = []
    for _, frame in attributes(data):
        found = attribute_map(frame)
        name, body = name_of(found[EXPR_NAME]), found.get(EXPR_DATA, b"")
        try:
            rule.append(DECODERS[name](attribute_map(body)))
        except (KeyError, AssertionError):
            rule.append(Unknown(name, body))
    return tuple(rule)


def chains_named(rule: Rule) -> list[str]:
    """The chains that a rule jumps or goes to."""
    return [e.value.chain for e in rule if isinstance(e, Immediate) and isinstance(e.value, Verdict) and e.value.chain]


def sets_named(rule: Rule) -> list[str]:
    """The sets and maps that a rule looks into or fills."""
    return [e.set for e in rule if isinstance(e, Lookup | Dynset)]
