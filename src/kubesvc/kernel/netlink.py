"""Netlink: messages, attributes and sockets, shared by links and routes, nftables, and conntrack.

The kernel works a request off while it is being sent, so replies and acknowledgements wait in the socket when `send`
returns: `request` and `dump` therefore never wait for anybody, and are as good inside an event loop as in a thread.
Only notifications (multicast groups) need waiting, and `notifications` waits through the loop.

Errors: `NetlinkError`, an OSError that carries the kernel's own sentence where it sends one (extended ACK).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple, ParamSpec, Self, TypeVar

import msgspec

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
"""In an error message: the request is cut off, only its header came back."""
NLM_F_ACK_TLVS = 0x200
"""In an error message: attributes follow."""
NLM_F_ROOT = 0x100
NLM_F_MATCH = 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")
BE16 = struct.Struct(">H")
BE32 = struct.Struct(">I")
BE64 = struct.Struct(">Q")

PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
MAX_ATTRIBUTE_BYTES = 0xFFFF
RECEIVE_BYTES = 1 << 18


class NetlinkError(OSError):
    """The kernel refused a request. `errno` says how, `text` is the kernel's own sentence ("" if it sent none),
    `sequence` is the number of the refused message and `offset` where in it the trouble is (0: unknown)."""

    def __init__(self, errno: int, what: str = "", *, text: str = "", sequence: int = 0, offset: int = 0) -> None:
        reason = os.strerror(errno) + (f": {text}" if text else "")
        super().__init__(errno, f"{what}: {reason}" if what else reason)
        self.text = text
        self.sequence = sequence
        self.offset = offset

    def about(self, what: str) -> NetlinkError:
        """The same refusal with the name of what was being done."""
        assert self.errno is not None
        return NetlinkError(self.errno, what, text=self.text, sequence=self.sequence, offset=self.offset)


class Malformed(ValueError):
    """A message is not what its type says; the text tells what was missing."""


P = ParamSpec("P")
T = TypeVar("T")


def strict(decode: Callable[P, T]) -> Callable[P, T]:
    """A decoder that takes what the kernel promises for granted, and raises Malformed where that is not there."""

    @functools.wraps(decode)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return decode(*args, **kwargs)
        except (LookupError, ArithmeticError, struct.error, AssertionError) as error:
            raise Malformed(f"{decode.__name__}: {type(error).__name__} {error}") from error

    return checked


class Message(NamedTuple):
    """One message: its type, flags and sequence number, and what follows the header."""

    type: int
    flags: int
    sequence: int
    payload: bytes


class Dump(msgspec.Struct, frozen=True):
    """The messages of a dump; `interrupted` when things changed under it and it may miss or repeat some."""

    messages: list[Message]
    interrupted: bool = False


# Encoding.


def message(type: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message as bytes, padded to four."""
    return HEADER.pack(HEADER.size + len(payload), type, flags, sequence, 0) + payload + PADDING[len(payload) & 3]


def attribute(type: int, data: bytes) -> bytes:
    """One attribute as bytes, padded to four. ValueError if `data` exceeds what its 16-bit length can say."""
    size = len(data) + 4
    if size > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"netlink attribute {type}: {len(data)} bytes: must be at most {MAX_ATTRIBUTE_BYTES - 4}")
    return ATTRIBUTE.pack(size, type) + data + PADDING[size & 3]


def nested(type: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type | NLA_F_NESTED, b"".join(parts))


def u8(type: int, value: int) -> bytes:
    return attribute(type, bytes((value,)))


def u16(type: int, value: int) -> bytes:
    """Sixteen bits in the machine's order, as links and routes use."""
    return attribute(type, U16.pack(value))


def u32(type: int, value: int) -> bytes:
    """Thirty-two bits in the machine's order, as links and routes use."""
    return attribute(type, U32.pack(value))


def be16(type: int, value: int) -> bytes:
    """Sixteen bits in network order, as netfilter uses."""
    return attribute(type, BE16.pack(value))


def be32(type: int, value: int) -> bytes:
    """Thirty-two bits in network order, as netfilter uses."""
    return attribute(type, BE32.pack(value))


def be64(type: int, value: int) -> bytes:
    """Sixty-four bits in network order, as netfilter uses."""
    return attribute(type, BE64.pack(value))


def text(type: int, value: str) -> bytes:
    """A name, ended by a zero byte."""
    return attribute(type, value.encode() + b"\0")


# Decoding.


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each attribute of `data` from `offset` on, in order, as (type without flags, data). ValueError if cut off."""
    end = len(data)
    while offset + 4 <= end:
        size, type = ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            raise ValueError(f"netlink attribute {type & NLA_TYPE_MASK} at {offset}: {size} bytes: {end - offset} left")
        yield type & NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def attribute_map(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of `data` by type; of several of one type the last."""
    return dict(attributes(data, offset))


def name_of(data: bytes) -> str:
    """The text of a name attribute."""
    return data.rstrip(b"\0").decode()


def messages(data: bytes) -> Iterator[Message]:
    """The messages in one datagram, in order. ValueError if cut off."""
    offset, end = 0, len(data)
    while offset + HEADER.size <= end:
        size, type, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if size < HEADER.size or offset + size > end:
            raise ValueError(f"netlink message of type {type} at {offset}: {size} bytes: {end - offset} left")
        yield Message(type, flags, sequence, data[offset + HEADER.size : offset + size])
        offset += (size + 3) & ~3


@strict
def error_of(reply: Message) -> NetlinkError | None:
    """What an NLMSG_ERROR (or the NLMSG_DONE of a failed dump) says; None when it acknowledges."""
    code = -int.from_bytes(reply.payload[:4], "little" if struct.pack("=H", 1)[0] else "big", signed=True)
    if code == 0:
        return None
    sequence = reply.sequence
    start = 4
    if reply.type == NLMSG_ERROR:
        size, _, _, sequence, _ = HEADER.unpack_from(reply.payload, 4)
        start += HEADER.size if reply.flags & NLM_F_CAPPED else (size + 3) & ~3
    said: dict[int, bytes] = {}
    if reply.flags & NLM_F_ACK_TLVS and start < len(reply.payload):
        said = attribute_map(reply.payload, start)
    return NetlinkError(
        code,
        text=name_of(said.get(NLMSGERR_ATTR_MSG, b"")),
        sequence=sequence,
        offset=U32.unpack(said[NLMSGERR_ATTR_OFFS])[0] if NLMSGERR_ATTR_OFFS in said else 0,
    )


class NetlinkSocket:
    """A netlink socket of one protocol, in the network namespace of the thread that makes it, for as long as it lives.

    protocol:      NETLINK_ROUTE, NETLINK_NETFILTER, ...
    groups:        numbers of the multicast groups to hear, for `notifications`
    buffer_bytes:  wished for sending and receiving; without privilege over the host the kernel grants less, and
                   `send_bytes` tells how long one send may be

    OSError EAFNOSUPPORT on other systems than Linux.
    """

    def __init__(self, protocol: int, *, groups: Iterable[int] = (), buffer_bytes: int = 1 << 20) -> None:
        if not hasattr(socket, "AF_NETLINK"):
            raise OSError(errno.EAFNOSUPPORT, "only Linux has netlink")
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.sequence = 0
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                self.socket.setsockopt(SOL_NETLINK, option, 1)
            if protocol == NETLINK_ROUTE:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self.send_bytes = self._grow(SO_SNDBUFFORCE, socket.SO_SNDBUF, buffer_bytes)
            self._grow(SO_RCVBUFFORCE, socket.SO_RCVBUF, buffer_bytes)
            self.socket.bind((0, 0))
            for group in groups:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise

    def _grow(self, forced: int, plain: int, size_bytes: int) -> int:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, forced, size_bytes)
        except PermissionError:
            self.socket.setsockopt(socket.SOL_SOCKET, plain, size_bytes)
        return self.socket.getsockopt(socket.SOL_SOCKET, plain) - 32

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next_sequence(self) -> int:
        """A number no message of this socket has had lately; never 0, which notifications bear."""
        self.sequence = (self.sequence & 0x7FFFFFFF) + 1
        return self.sequence

    def send(self, data: bytes) -> None:
        """Send whole messages; the kernel has worked them off when this returns. OSError EMSGSIZE if longer than
        `send_bytes`."""
        self.socket.send(data)

    def receive(self) -> list[Message]:
        """The next datagram's messages; empty if nothing waits. OSError ENOBUFS if replies were lost."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        return list(messages(data))

    def request(self, type: int, payload: bytes, flags: int = 0) -> list[Message]:
        """Send one request, return its replies (none for most changes). NetlinkError if the kernel refuses it."""
        sequence = self.next_sequence()
        self.send(message(type, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, payload))
        return self._replies(sequence).messages

    def dump(self, type: int, payload: bytes, flags: int = 0) -> Dump:
        """All objects of a type. NetlinkError if the kernel refuses; an interrupted dump is returned and marked."""
        sequence = self.next_sequence()
        self.send(message(type, flags | NLM_F_REQUEST | NLM_F_DUMP, sequence, payload))
        return self._replies(sequence)

    def _replies(self, sequence: int) -> Dump:
        found: list[Message] = []
        interrupted = False
        while batch := self.receive():
            for reply in batch:
                if reply.sequence != sequence:
                    continue  # left over from a request whose caller was interrupted
                interrupted |= bool(reply.flags & NLM_F_DUMP_INTR)
                if reply.type in (NLMSG_ERROR, NLMSG_DONE):
                    if len(reply.payload) >= 4 and (error := error_of(reply)):
                        raise error
                    return Dump(found, interrupted)
                found.append(reply)
        raise NetlinkError(5, f"netlink request {sequence}: the kernel sent no answer")

    async def notifications(self) -> AsyncIterator[Message]:
        """Messages of the groups this socket hears, as they come, for ever. OSError ENOBUFS when some were lost: the
        caller then lists anew and goes on. One task at a time, and no requests on the same socket."""
        loop = asyncio.get_running_loop()
        while True:
            for heard in self.receive():
                yield heard
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self.socket.fileno(), _wake, ready)
            try:
                await ready
            finally:
                loop.remove_reader(self.socket.fileno())


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
