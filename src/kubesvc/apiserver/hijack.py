"""Upgrades to what is not HTTP: a connection is taken over from the HTTP server, bytes flow as they come (NODE-108)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from kubesvc.api.errors import BadRequest, Forbidden

from .calls import Call
from .nodedoors import Stream

SPDY = "SPDY/3.1"
PROTOCOL_HEADER = "X-Stream-Protocol-Version"
READ_BYTES = 64 * 1024


class TakenOver(web.StreamResponse):
    """Stands where the HTTP server expects an answer; what there was to say has been said."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class TakeOver(asyncio.StreamReaderProtocol):
    """Reads a connection that an HTTP protocol began; the latter still learns of its end."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.Protocol) -> None:
        super().__init__(reader)
        self.before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.before.connection_lost(exc)


def take_over(request: web.BaseRequest) -> Stream:
    """The connection of a request, from its next byte on. ConnectionResetError if it is gone."""
    found, before = request.transport, request.protocol
    if found is None or found.is_closing():
        raise ConnectionResetError("the client is gone")
    transport = found  # uvloop's are transports in all but their class
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(READ_BYTES, loop)
    protocol = TakeOver(reader, before)
    # What came behind an upgrade request is kept here by the HTTP server until someone knows what it means.
    early: Any = getattr(before, "_message_tail", b"")
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if early:
        reader.feed_data(early)
    transport.resume_reading()
    return Stream(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


async def bytes_of(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What comes, in pieces, until the end."""
    while data := await reader.read(READ_BYTES):
        yield data


def wants_spdy(call: Call) -> bool:
    """Whether the request asks for an upgrade to SPDY."""
    headers = call.request.headers
    return headers.get("Upgrade", "").lower() == SPDY.lower() and "upgrade" in headers.get("Connection", "").lower()


def stream_protocol(offered: Sequence[str], known: Sequence[str]) -> str:
    """The first protocol that the client offers and we know; Forbidden for none, BadRequest for no offer. Pure."""
    if not offered:
        raise BadRequest(f"{PROTOCOL_HEADER} is a required header")
    for name in offered:
        if name in known:
            return name
    raise Forbidden(
        f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(offered)}], server accepts "
        f"[{' '.join(known)}]"
    )


async def hijack_spdy(call: Call, known: Sequence[str]) -> tuple[Stream, TakenOver]:
    """Upgrade to SPDY with one of the known stream protocols: the bytes, and what the handler must return.

    The chosen protocol is in the response's header X-Stream-Protocol-Version.
    """
    values = call.request.headers.getall(PROTOCOL_HEADER, ())
    offered = [part.strip() for value in values for part in value.split(",") if part.strip()]
    chosen = stream_protocol(offered, known)
    stream = take_over(call.request)
    stream.writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {SPDY}\r\nConnection: Upgrade\r\n"
        f"{PROTOCOL_HEADER}: {chosen}\r\n\r\n".encode()
    )
    await stream.writer.drain()
    return stream, TakenOver(status=101, headers={PROTOCOL_HEADER: chosen})
