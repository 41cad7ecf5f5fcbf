"""Bodies in Kubernetes' protobuf form, which stock kubectl uses for what it creates itself: reading them (WRITE-11).

A body is `k8s\\0` and an envelope, which tells apiVersion and kind, around one message. The result is the plain object
that the client's own JSON would have been: Go writes every field that is no pointer, zero or not, so what its JSON
leaves out when zero is left out here too. Fields nobody knows are skipped, as Go skips them.

The wire numbers are in `protobuf_fields.txt`, made by `tools/make_protobuf.py`, which tells its form.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .meta import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
FILE = Path(__file__).with_name("protobuf_fields.txt")
MOST_VALUES = 1_000_000
"""Most fields read of one body; a ConfigMap of the largest size has fewer."""

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
"""Wire types."""
WIRE_TYPES = {"bool": VARINT, "int32": VARINT, "int64": VARINT}
"""Wire types of the table's types; all others are BYTES."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Malformed(ValueError):
    """Bytes that are no message of the kind they should be, in Go's words where it has some."""


class WireField(NamedTuple):
    """One field of a message."""

    name: str
    """As JSON has it; "" if its fields are the parent's."""
    type: str
    """A type of the table, or the full name of a message."""
    wire: int
    form: str
    """[] list, {} map, * pointer, ? left out when zero, "" always there."""


class Envelope(NamedTuple):
    """What a body says of itself, "" for what it does not, and its message's bytes."""

    api_version: str
    kind: str
    raw: bytes


@cache
def table() -> dict[str, tuple[str, str]]:
    """Package and fields of every message, by its full name, as the file spells them."""
    found, package = {}, ""
    for line in FILE.read_text().splitlines():
        if line.startswith("["):
            package = line.strip("[]").partition(" ")[2]
        elif not line.startswith("#"):
            name, _, text = line.partition(" ")
            found[f"{package}.{name}"] = (package, text)
    return found


@cache
def aliases() -> dict[str, str]:
    """Packages by their aliases."""
    lines = [line.strip("[]").partition(" ") for line in FILE.read_text().splitlines() if line.startswith("[")]
    return {alias: package for alias, _, package in lines}


@cache
def fields_of(message: str) -> dict[int, WireField]:
    """The fields of a message by their wire numbers; KeyError if the table has no such message."""
    package, text = table()[message]
    found = {}
    for entry in text.split():
        number, name, type = entry.split(":")
        form = type[0] if type[0] in "*?" else type[-2:] if type[-1] in "]}" else ""
        type = type.strip("*?[]{}")
        found[int(number)] = WireField(name, full_type(type, package), WIRE_TYPES.get(type, BYTES), form)
    return found


def full_type(type: str, package: str) -> str:
    """A type with its package, if it is a message."""
    if type[0].islower() and "." not in type:
        return type
    alias, _, name = type.rpartition(".")
    return f"{aliases()[alias] if alias else package}.{name}"


def read_envelope(body: bytes) -> Envelope:
    """The envelope of a body; Malformed if it has none."""
    if not body:
        raise Malformed("empty data")
    if not body.startswith(MAGIC):
        raise Malformed(f"provided data does not appear to be a protobuf message, expected prefix [{spaced(MAGIC)}]")
    if len(body) == len(MAGIC):
        raise Malformed("empty body")
    found = last_values(body[len(MAGIC) :], "Unknown")
    head = last_values(found.get(1, b""), "TypeMeta")
    return Envelope(
        head.get(1, b"").decode(errors="replace"), head.get(2, b"").decode(errors="replace"), found.get(2, b"")
    )


def last_values(data: bytes, name: str) -> dict[int, bytes]:
    """The last value of every field of a message of texts."""
    found = Reader(data).loose(0, len(data), name)
    return {number: value for number, value in found if isinstance(value, bytes)}


def spaced(data: bytes) -> str:
    return " ".join(str(byte) for byte in data)


def decode_message(raw: bytes, name: str) -> Object:
    """The plain object in a message, without apiVersion and kind.

    name: full name of the message's definition, e.g. "io.k8s.api.core.v1.Service"

    Raises KeyError if the table does not have it, and Malformed.
    """
    out: Object = {}
    Reader(raw).message(0, len(raw), name, out)
    return out


class Reader:
    """Reads the messages within one body. Places are indexes into it; `end` is where the message around ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MOST_VALUES

    def message(self, at: int, end: int, name: str, out: Object) -> None:
        """Read the fields of a message into `out`, which may have some from before."""
        known = fields_of(name)
        while at < end:
            number, wire, at = self.tag(at, end, name)
            field = known.get(number)
            if field is None:
                at = self.skip(at, end, wire)
            elif wire == BYTES:
                size, at = self.varint(at, end)
                stop = at + size
                if stop > end:
                    raise Malformed("unexpected EOF" if size < 1 << 63 else NEGATIVE)
                self.sized(at, stop, field, out)
                at = stop
            elif wire == VARINT and field.wire == VARINT:
                value, at = self.varint(at, end)
                put(out, field, scalar(field.type, value))
            else:
                raise wrong_wire(wire, field)

    def sized(self, at: int, end: int, field: WireField, out: Object) -> None:
        """Read a field whose bytes are given."""
        if field.wire != BYTES:
            if field.form != "[]":
                raise wrong_wire(BYTES, field)
            while at < end:
                value, at = self.varint(at, end)
                put(out, field, scalar(field.type, value))
        elif not field.name:
            self.message(at, end, field.type, out)
        elif field.form == "{}":
            self.entry(at, end, field, out.setdefault(field.name, {}))
        else:
            put(out, field, self.value(at, end, field, out.get(field.name)))

    def entry(self, at: int, end: int, field: WireField, out: Object) -> None:
        """Read one entry of a map: a message of a key and a value, both of which may be left out."""
        key, place = "", (at, at)
        while at < end:
            number, wire, at = self.tag(at, end, field.name)
            if number not in (1, 2):
                at = self.skip(at, end, wire)
                continue
            if wire != BYTES:
                raise wrong_wire(wire, field)
            start = at
            at = self.skip(at, end, wire)
            _, start = self.varint(start, at)
            if number == 1:
                key = self.data[start:at].decode(errors="replace")
            else:
                place = (start, at)
        out[key] = self.value(*place, field, None)

    def value(self, at: int, end: int, field: WireField, before: Any) -> Any:
        """One value that is no number; None if it is a time that was never set."""
        type = field.type
        if type == "string":
            return self.data[at:end].decode(errors="replace")
        if type == "bytes":
            return base64.b64encode(self.data[at:end]).decode()
        if "." not in type:
            return self.special(at, end, type)
        out: Object = before if isinstance(before, dict) else {}
        self.message(at, end, type, out)
        return out

    def special(self, at: int, end: int, type: str) -> Any:
        """A message whose JSON is not that of its fields."""
        found = self.loose(at, end, type)
        if type in ("time", "microtime"):
            return time_of(found, micro=type == "microtime") if at < end else None
        if type == "strings":
            return [v.decode(errors="replace") for n, v in found if n == 1 and isinstance(v, bytes)]
        last = dict(found)
        if type == "quantity":
            return text_of(last.get(1, b"0"))
        if type == "intorstring":
            if signed(number_of(last.get(1, 0)), 64) not in (0, 1):
                raise Malformed("impossible IntOrString.Type")
            return text_of(last.get(3, b"")) if last.get(1) else signed(number_of(last.get(2, 0)), 32)
        return json_of(last.get(1, b""))

    def loose(self, at: int, end: int, type: str) -> list[tuple[int, int | bytes]]:
        """Numbers and values of the fields of a small message, in order."""
        found: list[tuple[int, int | bytes]] = []
        while at < end:
            number, wire, at = self.tag(at, end, type)
            start, at = at, self.skip(at, end, wire)
            if wire in (VARINT, BYTES):
                value, start = self.varint(start, at)
                found.append((number, value if wire == VARINT else self.data[start:at]))
        return found

    def tag(self, at: int, end: int, name: str) -> tuple[int, int, int]:
        """Number and wire type of the next field, and where its value begins."""
        self.left -= 1
        if self.left < 0:
            raise Malformed(f"more than {MOST_VALUES} fields")
        tag, at = self.varint(at, end)
        number, wire = tag >> 3, tag & 7
        if wire == END_GROUP:
            raise Malformed(f"proto: {name.rpartition('.')[2]}: wiretype end group for non-group")
        if not 0 < number < 1 << 31:
            raise Malformed(
                f"proto: {name.rpartition('.')[2]}: illegal tag {signed(number, 32)} (wire type {signed(tag, 64)})"
            )
        return number, wire, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number that begins at `at`, and where it ends."""
        data = self.data
        value = shift = 0
        while at < end:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift >= 64:
                raise Malformed("proto: integer overflow")
        raise Malformed("unexpected EOF")

    def skip(self, at: int, end: int, wire: int) -> int:
        """Where a value ends that begins at `at`."""
        depth = 0
        while True:
            if wire == VARINT:
                _, at = self.varint(at, end)
            elif wire == BYTES:
                size, at = self.varint(at, end)
                at += size
                if size >= 1 << 63:
                    raise Malformed(NEGATIVE)
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            elif wire == START_GROUP:
                depth += 1
            elif wire == END_GROUP:
                depth -= 1
            else:
                raise Malformed(f"proto: illegal wireType {wire}")
            if at > end:
                raise Malformed("unexpected EOF")
            if not depth:
                return at
            tag, at = self.varint(at, end)
            wire = tag & 7


NEGATIVE = "proto: negative length found during unmarshaling"


def wrong_wire(wire: int, field: WireField) -> Malformed:
    return Malformed(f"proto: wrong wireType = {wire} for field {field.name[:1].upper()}{field.name[1:]}")


def put(out: Object, field: WireField, value: Any) -> None:
    """Set a field, or take it away where JSON would leave it out."""
    if field.form == "[]":
        out.setdefault(field.name, []).append(value)
    elif value is None or (field.form == "?" and not value):
        out.pop(field.name, None)
    else:
        out[field.name] = value


def scalar(type: str, value: int) -> int | bool:
    return value != 0 if type == "bool" else signed(value, 32 if type == "int32" else 64)


def signed(value: int, bits: int) -> int:
    """The number that the lowest bits are."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def text_of(value: int | bytes) -> str:
    if isinstance(value, int):
        raise Malformed("proto: wrong wireType = 0 for field String")
    return value.decode(errors="replace")


def number_of(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise Malformed("proto: wrong wireType = 2 for field Number")
    return value


def time_of(found: list[tuple[int, int | bytes]], *, micro: bool) -> str:
    """A time as JSON has it: of a Timestamp's seconds and nanoseconds."""
    last = dict(found)
    seconds, nanos = signed(number_of(last.get(1, 0)), 64), signed(number_of(last.get(2, 0)), 32)
    try:
        stamp = EPOCH + timedelta(seconds=seconds, microseconds=int(nanos / 1000) if micro else 0)
    except OverflowError:
        raise Malformed("Time.MarshalJSON: year outside of range [0,9999]") from None
    text = stamp.strftime("%Y-%m-%dT%H:%M:%S").zfill(19)
    return f"{text}.{stamp.microsecond:06}Z" if micro else f"{text}Z"


def json_of(value: int | bytes) -> Any:
    """Free content, which is JSON within a message; None if there is nothing."""
    if not value:
        return None
    try:
        return msgspec.json.decode(text_of(value))
    except (msgspec.DecodeError, RecursionError):
        raise Malformed("free content in a protobuf body is no JSON") from None
