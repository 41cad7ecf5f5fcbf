"""DNS messages as bytes: an exact codec for the few types that cluster names need. Pure.

Decoding checks every bound and follows compression pointers only backwards, so it ends on any input; what it cannot
read is FormatError. Letter case is kept both ways (DNS-6). Other types' data passes through as opaque bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

Name = tuple[bytes, ...]
"""A domain name, its labels from left to right; () is the root."""

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41
IXFR: Final = 251
AXFR: Final = 252

IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}
TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 16: "TXT", 28: "AAAA", 33: "SRV", 252: "AXFR", 251: "IXFR"}

QUERY: Final = 0
HEADER_BYTES: Final = 12
MOST_BYTES: Final = 65535
MOST_JUMPS: Final = 127
PLAIN_UDP_BYTES: Final = 512

HEADER = struct.Struct("!HHHHHH")
FIXED = struct.Struct("!HHIH")
"""Of a record, behind its name: type, class, TTL, length of data."""
TYPE_CLASS = struct.Struct("!HH")
SRV_FIXED = struct.Struct("!HHH")
SOA_FIXED = struct.Struct("!IIIII")


class FormatError(ValueError):
    """Bytes that are no DNS message."""


class Question(NamedTuple):
    name: Name
    type: int
    klass: int = IN


class Srv(NamedTuple):
    priority: int
    weight: int
    port: int
    target: Name


class Soa(NamedTuple):
    mname: Name
    rname: Name
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int


Data = bytes | Name | Srv | Soa
"""By type: A and AAAA 4 or 16 bytes; NS, CNAME and PTR a Name; TXT its strings; SRV, SOA; else opaque bytes."""


class Record(NamedTuple):
    name: Name
    type: int
    ttl: int
    data: Data
    klass: int = IN


class Edns(NamedTuple):
    """What an OPT record says; its options are dropped (DNS-48)."""

    size: int
    version: int = 0
    do: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One query or response. `rcode` has 12 bits when `edns` is there, else 4."""

    id: int = 0
    response: bool = False
    opcode: int = QUERY
    authoritative: bool = False
    truncated: bool = False
    recursion_desired: bool = False
    recursion_available: bool = False
    authentic: bool = False
    checking_disabled: bool = False
    rcode: int = NOERROR
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    edns: Edns | None = None


# Names as text


def name_of(text: str) -> Name:
    """The name a plain text such as `web.shop.svc.cluster.local` or `.` means; no escapes.

    Raises FormatError for empty labels, labels over 63 bytes, names over 255, and anything but ASCII.
    """
    bare = text.removesuffix(".")
    if not bare:
        return ()
    try:
        labels = tuple(bare.encode("ascii").split(b"."))
    except UnicodeEncodeError as error:
        raise FormatError(f"{text!r}: a name has ASCII letters only") from error
    if not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) > 254:
        raise FormatError(f"{text!r}: labels have 1 to 63 bytes, a name at most 253 characters")
    return labels


def name_text(name: Name) -> str:
    """The name with a dot at the end, dots and what cannot be printed escaped as in zone files."""
    return "".join(label_text(label) + "." for label in name) or "."


def label_text(label: bytes) -> str:
    if label.isalnum():
        return label.decode()
    return "".join(f"\\{chr(c)}" if c in b'.\\"();@$' else chr(c) if 0x21 <= c <= 0x7E else f"\\{c:03d}" for c in label)


def lower(name: Name) -> Name:
    return tuple(label.lower() for label in name)


# Decoding


def decode(data: bytes) -> Message:
    """The message that `data` is, all of it; FormatError if it is none or something follows it."""
    if len(data) < HEADER_BYTES:
        raise FormatError("shorter than a header")
    id_, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    at = HEADER_BYTES
    asked = []
    for _ in range(questions):
        name, at = decode_name(data, at)
        if at + 4 > len(data):
            raise FormatError("the question is cut off")
        asked.append(Question(name, *TYPE_CLASS.unpack_from(data, at)))
        at += 4
    sections: list[tuple[Record, ...]] = []
    edns: Edns | None = None
    extended = 0
    for count in (answers, authority, additional):
        records = []
        for _ in range(count):
            name, at = decode_name(data, at)
            if at + 10 > len(data):
                raise FormatError("a record is cut off")
            type_, klass, ttl, length = FIXED.unpack_from(data, at)
            at += 10
            if at + length > len(data):
                raise FormatError("a record is cut off")
            if type_ == OPT:
                if edns is not None or len(sections) != 2 or name:
                    raise FormatError("an OPT record is alone, among the additional ones, and named after the root")
                check_options(data[at : at + length])
                extended = ttl >> 24
                edns = Edns(klass, ttl >> 16 & 0xFF, bool(ttl & 0x8000))
            else:
                records.append(Record(name, type_, ttl, decode_data(data, at, length, type_), klass))
            at += length
        sections.append(tuple(records))
    if at != len(data):
        raise FormatError("something follows the message")
    return Message(
        id=id_,
        response=bool(flags & 0x8000),
        opcode=flags >> 11 & 0xF,
        authoritative=bool(flags & 0x0400),
        truncated=bool(flags & 0x0200),
        recursion_desired=bool(flags & 0x0100),
        recursion_available=bool(flags & 0x0080),
        authentic=bool(flags & 0x0020),
        checking_disabled=bool(flags & 0x0010),
        rcode=extended << 4 | flags & 0xF,
        questions=tuple(asked),
        answers=sections[0],
        authority=sections[1],
        additional=sections[2],
        edns=edns,
    )


def decode_name(data: bytes, at: int) -> tuple[Name, int]:
    """The name at `at`, and where the bytes behind it begin.

    Each pointer must lead to before the place where the labels read last began, so that reading ends; more pointers
    than a name can have labels are refused, so that it ends soon.
    """
    labels: list[bytes] = []
    begin, behind, total, jumps = at, -1, 1, 0
    while True:
        if at >= len(data):
            raise FormatError("a name is cut off")
        length = data[at]
        if length == 0:
            return tuple(labels), at + 1 if behind < 0 else behind
        if length < 64:
            total += length + 1
            if total > 255:
                raise FormatError("a name of more than 255 bytes")
            if at + 1 + length > len(data):
                raise FormatError("a name is cut off")
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
        elif length >= 0xC0:
            if at + 1 >= len(data):
                raise FormatError("a name is cut off")
            target = (length & 0x3F) << 8 | data[at + 1]
            if behind < 0:
                behind = at + 2
            jumps += 1
            if target >= begin or target < HEADER_BYTES or jumps > MOST_JUMPS:
                raise FormatError("a compression pointer does not lead back, or there are too many")
            at = begin = target
        else:
            raise FormatError("a label of unknown kind")


def decode_data(data: bytes, at: int, length: int, type_: int) -> Data:
    """A record's data, `length` bytes from `at`; its names may point to anywhere before."""
    end = at + length
    value: Data
    if type_ in (NS, CNAME, PTR):
        value, stop = decode_name(data, at)
    elif type_ == SRV:
        if length < 7:
            raise FormatError("an SRV record is too short")
        target, stop = decode_name(data, at + 6)
        priority, weight, port = SRV_FIXED.unpack_from(data, at)
        value = Srv(priority, weight, port, target)
    elif type_ == SOA:
        mname, stop = decode_name(data, at)
        rname, stop = decode_name(data, stop)
        if stop + 20 != end:
            raise FormatError("an SOA record of wrong length")
        value, stop = Soa(mname, rname, *SOA_FIXED.unpack_from(data, stop)), end
    elif type_ == TXT:
        strings, stop = [], at
        while stop < end:
            strings.append(data[stop + 1 : stop + 1 + data[stop]])
            stop += 1 + data[stop]
        if not strings:
            raise FormatError("a TXT record without text")
        value = tuple(strings)
    else:
        if (type_ == A and length != 4) or (type_ == AAAA and length != 16):
            raise FormatError("an address of wrong length")
        value, stop = data[at:end], end
    if stop != end:
        raise FormatError("a record's data does not end where it should")
    return value


def check_options(options: bytes) -> None:
    """That EDNS options have their lengths right; what they say is of no interest."""
    at = 0
    while at < len(options):
        if at + 4 > len(options):
            raise FormatError("an EDNS option is cut off")
        at += 4 + int.from_bytes(options[at + 2 : at + 4], "big")
    if at != len(options):
        raise FormatError("an EDNS option is cut off")


# Encoding


class Writer:
    """Collects a message; remembers where names stand, in the very spelling that stands there."""

    __slots__ = ("out", "places")

    def __init__(self) -> None:
        self.out = bytearray(HEADER_BYTES)
        self.places: dict[Name, int] = {}

    def name(self, name: Name, compress: bool = True) -> None:
        out, places = self.out, self.places
        for i in range(len(name)):
            rest = name[i:] if i else name
            place = places.get(rest)
            if place is not None and compress:
                out += (0xC000 | place).to_bytes(2, "big")
                return
            if place is None and len(out) < 0x4000:
                places[rest] = len(out)
            out.append(len(name[i]))
            out += name[i]
        out.append(0)

    def record(self, record: Record) -> None:
        self.name(record.name)
        out, data, type_ = self.out, record.data, record.type
        out += FIXED.pack(type_, record.klass, record.ttl, 0)
        begin = len(out)
        if isinstance(data, bytes):
            out += data
        elif isinstance(data, Srv):
            out += SRV_FIXED.pack(*data[:3])
            self.name(data.target, compress=False)  # RFC 2782: old resolvers do not expect a pointer here
        elif isinstance(data, Soa):
            self.name(data.mname)
            self.name(data.rname)
            out += SOA_FIXED.pack(*data[2:])
        elif type_ == TXT:
            for string in data:
                out.append(len(string))
                out += string
        else:
            self.name(data)
        out[begin - 2 : begin] = (len(out) - begin).to_bytes(2, "big")

    def records(self, records: Sequence[Record], limit: int) -> int:
        """Write as many as fit into `limit` bytes of message, whole ones; how many."""
        for count, record in enumerate(records):
            mark = len(self.out)
            self.record(record)
            if len(self.out) > limit:
                del self.out[mark:]
                self.places = {name: place for name, place in self.places.items() if place < mark}
                return count
        return len(records)


def encode(message: Message, limit: int = MOST_BYTES) -> bytes:
    """The bytes of a message, at most `limit` of them (512..65535; less than the question takes is not kept).

    Records that do not fit are left out, from the end. Left-out answers or authority set TC (DNS-47); left-out
    additional ones do not, since nothing that was asked for is missing.
    """
    writer = Writer()
    for question in message.questions:
        writer.name(question.name)
        writer.out += TYPE_CLASS.pack(question.type, question.klass)
    room = limit - (11 if message.edns else 0)
    answers = writer.records(message.answers, room)
    authority = additional = 0
    truncated = message.truncated or answers < len(message.answers)
    if not truncated:
        authority = writer.records(message.authority, room)
        truncated = authority < len(message.authority)
    if not truncated:
        additional = writer.records(message.additional, room)
    if message.edns:
        edns = message.edns
        ttl = message.rcode >> 4 << 24 | edns.version << 16 | (0x8000 if edns.do else 0)
        writer.out += b"\0" + FIXED.pack(OPT, edns.size, ttl, 0)
        additional += 1
    flags = (
        message.response << 15
        | message.opcode << 11
        | message.authoritative << 10
        | truncated << 9
        | message.recursion_desired << 8
        | message.recursion_available << 7
        | message.authentic << 5
        | message.checking_disabled << 4
        | message.rcode & 0xF
    )
    HEADER.pack_into(writer.out, 0, message.id, flags, len(message.questions), answers, authority, additional)
    return bytes(writer.out)
