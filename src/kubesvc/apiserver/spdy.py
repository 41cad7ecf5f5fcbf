"""SPDY/3.1 frames, as far as stock clients need them: port forwarding and exec without WebSockets (NODE-115). Pure.

A control frame is a bit, version 3, a type, flags and a length; a data frame a stream id, flags and a length. Headers
travel as one zlib stream per direction that begins with a known dictionary, so an encoder and a decoder belong to
their connection and see its frames in order.

    SpdyError    the peer broke the protocol; the connection cannot go on
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6
MOST_CONTROL_BYTES = 1 << 20
MOST_HEADER_BYTES = 1 << 18
MOST_HEADERS = 256
MOST_DATA_BYTES = (1 << 24) - 1

HEAD = struct.Struct(">II")
U32 = struct.Struct(">I")
SYN = struct.Struct(">IIBB")
PAIR = struct.Struct(">II")

DICTIONARY_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status 200|OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
DICTIONARY_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """The dictionary both sides prime zlib with: words behind their length, then a tail of phrases."""
    words = (w.replace("|", " ").encode() for w in DICTIONARY_WORDS.split())
    return b"".join(U32.pack(len(w)) + w for w in words) + DICTIONARY_TAIL.encode()


DICTIONARY = dictionary()

Headers: TypeAlias = Mapping[str, tuple[str, ...]]
"""Values by name, in lower case; one name may have several."""


class SpdyError(Exception):
    """The peer broke the protocol."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """The peer opens a stream; `fin`: it will send no data on it."""

    stream: int
    headers: Headers
    fin: bool = False
    associated: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    """The answer to a SynStream."""

    stream: int
    headers: Headers = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class MoreHeaders:
    """Headers after the first ones."""

    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin`: its last ones in this direction."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream ends at once, both ways."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is by the side that did not make the number."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No more streams are taken; `last`: the last one that was."""

    last: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class Other:
    """A frame nobody here needs: settings, window updates."""

    type: int


Frame: TypeAlias = SynStream | SynReply | MoreHeaders | Data | Reset | Ping | GoAway | Other


class SpdyEncoder:
    """Turns frames into bytes, for one direction of one connection."""

    def __init__(self) -> None:
        self.zlib = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """The frame's bytes. ValueError for a frame that cannot be sent."""
        match frame:
            case Data(stream, data, fin):
                if len(data) > MOST_DATA_BYTES:
                    raise ValueError(f"data: {len(data)} bytes: at most {MOST_DATA_BYTES} fit a frame")
                return HEAD.pack(stream, (FIN if fin else 0) << 24 | len(data)) + data
            case SynStream(stream, headers, fin, associated, priority):
                return control(SYN_STREAM, SYN.pack(stream, associated, priority << 5, 0) + self.block(headers), fin)
            case SynReply(stream, headers, fin):
                return control(SYN_REPLY, U32.pack(stream) + self.block(headers), fin)
            case MoreHeaders(stream, headers, fin):
                return control(HEADERS, U32.pack(stream) + self.block(headers), fin)
            case Reset(stream, code):
                return control(RST_STREAM, PAIR.pack(stream, code))
            case Ping(number):
                return control(PING, U32.pack(number))
            case GoAway(last, code):
                return control(GOAWAY, PAIR.pack(last, code))
            case Other(type):
                raise ValueError(f"a frame of type {type} is not sent")

    def block(self, headers: Headers) -> bytes:
        plain = U32.pack(len(headers))
        for name, values in headers.items():
            for text in (name.lower(), "\0".join(values)):
                data = text.encode()
                plain += U32.pack(len(data)) + data
        return self.zlib.compress(plain) + self.zlib.flush(zlib.Z_SYNC_FLUSH)


def control(type: int, payload: bytes, fin: bool = False) -> bytes:
    return HEAD.pack(1 << 31 | VERSION << 16 | type, (FIN if fin else 0) << 24 | len(payload)) + payload


class SpdyDecoder:
    """Turns bytes into frames, for one direction of one connection; pieces may be cut anywhere."""

    def __init__(self) -> None:
        self.zlib = zlib.decompressobj(zdict=DICTIONARY)
        self.buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete. SpdyError when the peer broke the protocol."""
        self.buffer += data
        while len(self.buffer) >= HEAD.size:
            first, second = HEAD.unpack_from(self.buffer)
            flags, size = second >> 24, second & 0xFFFFFF
            is_control = first >> 31
            if is_control and size > MOST_CONTROL_BYTES:
                raise SpdyError(f"a control frame of {size} bytes")
            if len(self.buffer) < HEAD.size + size:
                return
            payload = bytes(self.buffer[HEAD.size : HEAD.size + size])
            del self.buffer[: HEAD.size + size]
            if not is_control:
                yield Data(first, payload, bool(flags & FIN))
                continue
            if first >> 16 & 0x7FFF != VERSION:
                raise SpdyError(f"SPDY version {first >> 16 & 0x7FFF}: only {VERSION} is spoken here")
            try:
                yield self.control(first & 0xFFFF, bool(flags & FIN), payload)
            except struct.error:
                raise SpdyError(f"a control frame of type {first & 0xFFFF} is too short") from None

    def control(self, type: int, fin: bool, payload: bytes) -> Frame:
        match type:
            case 1:  # SYN_STREAM
                stream, associated, priority, _ = SYN.unpack_from(payload)
                headers = self.headers(payload[SYN.size :])
                return SynStream(stream & 0x7FFFFFFF, headers, fin, associated & 0x7FFFFFFF, priority >> 5)
            case 2:  # SYN_REPLY
                return SynReply(U32.unpack_from(payload)[0] & 0x7FFFFFFF, self.headers(payload[4:]), fin)
            case 8:  # HEADERS
                return MoreHeaders(U32.unpack_from(payload)[0] & 0x7FFFFFFF, self.headers(payload[4:]), fin)
            case 3:  # RST_STREAM
                stream, code = PAIR.unpack_from(payload)
                return Reset(stream & 0x7FFFFFFF, code)
            case 6:
                return Ping(U32.unpack_from(payload)[0])
            case 7:  # GOAWAY
                last, code = PAIR.unpack_from(payload)
                return GoAway(last & 0x7FFFFFFF, code)
            case _:
                return Other(type)

    def headers(self, block: bytes) -> dict[str, tuple[str, ...]]:
        """The headers in a compressed block."""
        try:
            plain = self.zlib.decompress(block, MOST_HEADER_BYTES)
        except zlib.error as error:
            raise SpdyError(f"headers that cannot be unpacked: {error}") from None
        if self.zlib.unconsumed_tail:
            raise SpdyError(f"headers of more than {MOST_HEADER_BYTES} bytes")
        position = 0

        def text() -> str:
            nonlocal position
            (size,) = U32.unpack_from(plain, position)
            position += 4
            if position + size > len(plain):
                raise SpdyError("headers that end too early")
            position += size
            return plain[position - size : position].decode("utf-8", "replace")

        found: dict[str, tuple[str, ...]] = {}
        try:
            (count,) = U32.unpack_from(plain)
            position = 4
            if count > MOST_HEADERS:
                raise SpdyError(f"{count} headers: at most {MOST_HEADERS} are read")
            for _ in range(count):
                name = text().lower()
                found[name] = (*found.get(name, ()), *text().split("\0"))
        except struct.error:
            raise SpdyError("headers that end too early") from None
        return found
