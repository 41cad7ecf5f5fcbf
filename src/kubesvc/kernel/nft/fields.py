"""Fields of set keys and map values: their size, nft's type number, and how `nft list` is told to name them.

A key is one field or several side by side (a concatenation); each takes whole 4-byte registers, padded with zeros
behind. Keys and values travel as such bytes everywhere, and `pack_*` make them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence

import msgspec

# Numbers of nft's own data types; the kernel only stores them.
TYPE_BITS = 6
TYPE_VERDICT = 0xFFFFFF00

# User data that nft leaves with a set, so that a later `nft list` knows what the bytes mean.
UDATA_KEY_BYTEORDER = 0
UDATA_DATA_BYTEORDER = 1
UDATA_KEY_TYPEOF = 3
UDATA_DATA_TYPEOF = 4
UDATA_DATA_INTERVAL = 6
UDATA_COMMENT = 7
BYTEORDER_HOST = 1
BYTEORDER_NETWORK = 2
EXPR_PAYLOAD, EXPR_META, EXPR_CONCAT, EXPR_NUMGEN = 7, 9, 13, 23
DESC_TRANSPORT, DESC_IP, DESC_IP6 = 11, 12, 13


def udata(type: int, data: bytes) -> bytes:
    """One entry of user data: a type, a length of one byte, the data."""
    return bytes((type, len(data))) + data


def udata_u32(type: int, value: int) -> bytes:
    return udata(type, struct.pack("=I", value))


class Field(msgspec.Struct, frozen=True):
    """One field of a key or value.

    name:        as nft says it: ipv4_addr, inet_service, ...
    number:      nft's number of the type
    size_bytes:  of the value itself; it occupies `width_bytes`
    typeof:      user data that describes an expression of this type (`typeof ip daddr`)
    host_order:  whether nft reads it in the machine's order
    """

    name: str
    number: int
    size_bytes: int
    typeof: bytes
    host_order: bool = False

    @property
    def width_bytes(self) -> int:
        return (self.size_bytes + 3) & ~3


def _payload(desc: int, field: int) -> bytes:
    return udata_u32(0, EXPR_PAYLOAD) + udata(1, udata_u32(0, desc) + udata_u32(1, field))


IPV4_ADDRESS = Field("ipv4_addr", 7, 4, _payload(DESC_IP, 12))
IPV6_ADDRESS = Field("ipv6_addr", 8, 16, _payload(DESC_IP6, 9))
PROTOCOL = Field("inet_proto", 12, 1, udata_u32(0, EXPR_META) + udata(1, udata_u32(0, 16)))
PORT = Field("inet_service", 13, 2, _payload(DESC_TRANSPORT, 2))
NUMBER = Field(
    "integer",
    4,
    4,
    udata_u32(0, EXPR_NUMGEN) + udata(1, udata_u32(0, 1) + udata_u32(1, 2) + udata_u32(2, 0)),
    host_order=True,
)
"""A number drawn by numgen."""

FIELDS = {field.number: field for field in (IPV4_ADDRESS, IPV6_ADDRESS, PROTOCOL, PORT, NUMBER)}


def address_field(family: int) -> Field:
    """The address field of a family, AF_INET or AF_INET6."""
    return IPV6_ADDRESS if family == socket.AF_INET6 else IPV4_ADDRESS


def type_number(fields: Sequence[Field]) -> int:
    """nft's number of a field or a concatenation."""
    number = 0
    for field in fields:
        number = number << TYPE_BITS | field.number
    return number


def fields_of(number: int) -> tuple[Field, ...]:
    """The fields of nft's number; types that are not ours, in sets that somebody else made, get no better name."""
    found: list[Field] = []
    while number:
        part = number & ((1 << TYPE_BITS) - 1)
        found.append(FIELDS.get(part) or Field(f"type{part}", part, 4, b""))
        number >>= TYPE_BITS
    return tuple(reversed(found))


def width(fields: Sequence[Field]) -> int:
    """Bytes a key of these fields has."""
    return sum(field.width_bytes for field in fields)


def typeof(fields: Sequence[Field]) -> bytes:
    """User data of `typeof` for these fields."""
    if len(fields) == 1:
        return fields[0].typeof
    return udata_u32(0, EXPR_CONCAT) + udata(1, b"".join(udata(i, f.typeof) for i, f in enumerate(fields)))


def byteorder(fields: Sequence[Field]) -> int:
    """What nft expects to find as a set's byte order: 0 for concatenations, where each field has its own."""
    if len(fields) != 1:
        return 0
    return BYTEORDER_HOST if fields[0].host_order else BYTEORDER_NETWORK


# Values as bytes.

PROTOCOL_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
PROTOCOL_BYTES = {name: bytes((number, 0, 0, 0)) for name, number in PROTOCOL_NUMBERS.items()}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}

pack_number = struct.Struct("=I").pack
_port = struct.Struct(">Hxx").pack


def pack_address(text: str) -> bytes:
    """The 4 or 16 bytes of an address; ValueError if it is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        raise ValueError(f"{text!r}: not an IP address") from None


def pack_protocol(name: str) -> bytes:
    """TCP, UDP or SCTP as a field; KeyError for others."""
    return PROTOCOL_BYTES[name]


def pack_port(port: int) -> bytes:
    return _port(port)


def text_of(fields: Sequence[Field], data: bytes) -> str:
    """Key or value bytes for people: `10.96.0.1 . tcp . 80`, as nft prints them."""
    texts = []
    offset = 0
    for field in fields:
        part = data[offset : offset + field.size_bytes]
        offset += field.width_bytes
        if field in (IPV4_ADDRESS, IPV6_ADDRESS):
            texts.append(str(ipaddress.ip_address(part)))
        elif field is PROTOCOL:
            texts.append(PROTOCOL_NAMES.get(part[0], str(part[0])).lower())
        elif field is PORT:
            texts.append(str(int.from_bytes(part, "big")))
        else:
            texts.append(str(struct.unpack("=I", part)[0]))
    return " . ".join(texts)
