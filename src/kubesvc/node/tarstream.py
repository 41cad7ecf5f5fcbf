"""Reading tar archives that nobody vouches for: ustar, pax and GNU names, one pass, every size bounded.

Python's own reader takes header sizes on trust and reads them into memory whole; image layers come from strangers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

BLOCK = 512
HEADER_BYTES = 1 << 20
"""Most bytes of an extended header: a path of 4096 bytes and some attributes are far below."""
PIECE_BYTES = 1 << 16

Kind = Literal["file", "directory", "link", "symlink", "fifo", "device"]
KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "symlink", b"3": "device", b"4": "device",
    b"5": "directory", b"6": "fifo",
}  # fmt: skip


class BadArchive(Exception):
    """An archive that is broken, unsafe, or larger than allowed. The words name the entry and what is wrong with it."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as its header has it; `name` and `target` are not to be trusted."""

    name: str
    kind: Kind
    mode: int = 0o644
    user: int = 0
    group: int = 0
    size: int = 0
    modified: int = 0
    target: str = ""
    offset: int = 0
    """Where its bytes begin in the stream."""


class Body:
    """The bytes of one entry; to be read before the next entry is asked for."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.stream = stream
        self.left = size

    def read(self, size: int = PIECE_BYTES) -> bytes:
        data = self.stream.read(min(size, self.left)) if self.left else b""
        self.left -= len(data)
        return data


class Stream:
    """A source read exactly, its position known."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.position = 0

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`. BadArchive at the end of the source."""
        data = self.source.read(min(size, PIECE_BYTES))
        if not data:
            raise BadArchive("the archive ends in the middle of an entry")
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(self.read(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def header(self) -> bytes:
        """The next block; empty at the end of the source."""
        first = self.source.read(BLOCK)
        self.position += len(first)
        return first + self.exactly(BLOCK - len(first)) if first else b""

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.read(size))


def read_tar(source: Source) -> Iterator[tuple[Entry, Body]]:
    """The entries in their order. BadArchive for anything that is not as it should be."""
    stream = Stream(source)
    extended: dict[str, str] = {}
    while True:
        block = stream.header()
        if not block or not block.strip(b"\0"):
            return
        entry, flag = parse_header(block)
        padding = -entry.size % BLOCK
        if flag in b"xgLK":
            if entry.size > HEADER_BYTES:
                raise BadArchive(f"an extended header of {entry.size} bytes: at most {HEADER_BYTES} are read")
            data = stream.exactly(entry.size)
            stream.skip(padding)
            if flag == b"x":
                extended |= parse_extended(data)
            elif flag in b"LK":
                extended["path" if flag == b"L" else "linkpath"] = text(data.rstrip(b"\0"))
            continue
        if flag not in KINDS or any(key.startswith("GNU.sparse") for key in extended):
            raise BadArchive(f"{entry.name!r}: entries of type {flag!r} are not understood")
        entry = amended(entry, extended, stream.position)
        extended = {}
        if entry.kind != "file":
            entry = replace(entry, size=0)
        if entry.kind == "file" and entry.name.endswith("/"):
            entry = replace(entry, kind="directory")
        padding = -entry.size % BLOCK
        body = Body(stream, entry.size)
        yield entry, body
        stream.skip(body.left + padding)


def parse_header(block: bytes) -> tuple[Entry, bytes]:
    """The entry of one header block, and its type. BadArchive if its checksum is wrong."""
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    try:
        intact = number(block[148:156]) == total
    except BadArchive:
        intact = False
    if not intact:
        raise BadArchive("a header whose checksum is wrong: this is no tar archive, or a damaged one")
    flag = block[156:157]
    name = text(block[:100].split(b"\0")[0])
    prefix = text(block[345:500].split(b"\0")[0]) if block[257:263] == b"ustar\0" else ""
    entry = Entry(
        name=f"{prefix}/{name}" if prefix else name,
        kind=KINDS.get(flag, "file"),
        mode=number(block[100:108]) & 0o7777,
        user=number(block[108:116]),
        group=number(block[116:124]),
        size=number(block[124:136]),
        modified=number(block[136:148]),
        target=text(block[157:257].split(b"\0")[0]),
    )
    return entry, flag


def number(field: bytes) -> int:
    """A number in octal, or in base 256 where the first bit says so."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if not digits:
        return 0
    try:
        found = int(digits, 8)
    except ValueError:
        raise BadArchive(f"a header with {field!r} where a number belongs") from None
    if found < 0:
        raise BadArchive(f"a header with the number {found}")
    return found


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def parse_extended(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of a pax header."""
    found = {}
    while data:
        length_text, space, _ = data.partition(b" ")
        if not space or not length_text.isdigit() or len(length_text) > 7:
            raise BadArchive("an extended header that cannot be read")
        length = int(length_text)
        record = data[len(length_text) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or length > len(data):
            raise BadArchive("an extended header that cannot be read")
        found[text(key)] = text(value[:-1])
        data = data[length:]
    return found


def amended(entry: Entry, extended: dict[str, str], offset: int) -> Entry:
    """The entry with what its extended headers say instead."""

    def amount(key: str, otherwise: int) -> int:
        value = extended.get(key)
        if value is None:
            return otherwise
        whole = value.partition(".")[0]
        if not (whole.isascii() and whole.isdigit()) or len(whole) > 18:
            raise BadArchive(f"{entry.name!r}: an extended header with {key} {value[:40]!r}")
        return int(whole)

    found = replace(
        entry,
        name=extended.get("path", entry.name),
        target=extended.get("linkpath", entry.target),
        size=amount("size", entry.size),
        user=amount("uid", entry.user),
        group=amount("gid", entry.group),
        offset=offset,
    )
    if "\0" in found.name or "\0" in found.target:
        raise BadArchive(f"{found.name!r}: a name with a zero byte")
    return found
