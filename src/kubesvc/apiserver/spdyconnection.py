"""A SPDY connection, seen from the server: streams that the client opens, over any carrier of bytes (NODE-115).

The peers of stock clients keep no windows, so what bounds memory here is the pace: a stream whose data nobody takes
holds the whole connection back, and sending waits until the carrier has room.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from .spdy import (
    INVALID_STREAM,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Data,
    Frame,
    GoAway,
    Headers,
    Ping,
    Reset,
    SpdyDecoder,
    SpdyEncoder,
    SpdyError,
    SynReply,
    SynStream,
)

STREAM_BYTES = 1 << 20
"""Data of one stream that may wait here to be taken."""
MOST_STREAMS = 1000
PIECE_BYTES = 32 * 1024


class SpdyStream:
    """One stream: both directions end on their own."""

    def __init__(self, connection: SpdyConnection, frame: SynStream) -> None:
        self.connection = connection
        self.id = frame.stream
        self.headers: Headers = frame.headers
        self.pieces: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.ended_there = frame.fin
        self.ended_here = False
        self.broken = False
        self.changed = asyncio.Event()

    def header(self, name: str) -> str:
        """The first value of a header, "" if it is absent."""
        values = self.headers.get(name.lower()) or ("",)
        return values[0]

    # -- the connection's side ----------------------------------------------------------------------------------------

    async def take_in(self, data: bytes, *, fin: bool) -> None:
        """Keep what came; waits while too much is kept already."""
        if self.ended_there or self.broken:
            return  # nobody will take it
        if data:
            self.pieces.append(data)
            self.waiting_bytes += len(data)
        self.ended_there = self.ended_there or fin
        self.changed.set()
        while self.waiting_bytes > STREAM_BYTES and not self.broken:
            self.changed.clear()
            await self.changed.wait()

    def break_off(self) -> None:
        self.broken = True
        self.pieces.clear()
        self.waiting_bytes = 0
        self.changed.set()

    # -- the owner's side ---------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next data, b"" at its end. ConnectionResetError when the stream was broken off."""
        while not self.pieces:
            if self.broken:
                raise ConnectionResetError("the stream was reset")
            if self.ended_there:
                return b""
            self.changed.clear()
            await self.changed.wait()
        data = self.pieces.popleft()
        self.waiting_bytes -= len(data)
        self.changed.set()
        return data

    async def send(self, data: bytes) -> None:
        """Send data, no faster than the peer reads. ConnectionError when stream or connection are gone."""
        for start in range(0, len(data), PIECE_BYTES):
            if self.broken or self.ended_here:
                raise ConnectionResetError("the stream was reset")
            await self.connection.send(Data(self.id, data[start : start + PIECE_BYTES]))

    async def end(self) -> None:
        """Half-close: no more data from here. Does nothing where that is known already."""
        if not self.ended_here and not self.broken:
            self.ended_here = True
            await self.connection.send(Data(self.id, b"", fin=True))
            self.connection.forget_ended(self)

    async def reset(self, code: int = PROTOCOL_ERROR) -> None:
        """End both directions at once."""
        if not self.broken:
            self.break_off()
            self.connection.streams.pop(self.id, None)
            await self.connection.send(Reset(self.id, code))


class SpdyConnection:
    """Answers one client until it is gone.

    carry:     sends bytes to the client; waits for room; raises ConnectionError when it is gone
    on_stream: told of each new stream, whose reply is on its way; must not wait
    """

    def __init__(self, carry: Callable[[bytes], Awaitable[None]], on_stream: Callable[[SpdyStream], None]) -> None:
        self.carry = carry
        self.on_stream = on_stream
        self.encoder = SpdyEncoder()
        self.decoder = SpdyDecoder()
        self.streams: dict[int, SpdyStream] = {}
        self.last = 0
        self.sending = asyncio.Lock()
        """Frames are encoded in the order in which they are sent, since their headers are one zlib stream."""

    async def send(self, frame: Frame) -> None:
        async with self.sending:
            await self.carry(self.encoder.encode(frame))

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Read the client's bytes to their end; then every stream is broken off. A client that breaks the protocol
        is told GOAWAY."""
        try:
            async for piece in pieces:
                for frame in self.decoder.feed(piece):
                    await self.handle(frame)
        except SpdyError:
            with contextlib.suppress(ConnectionError):
                await self.send(GoAway(self.last, 1))
        except ConnectionError:
            pass
        finally:
            for stream in self.streams.values():
                stream.break_off()
            self.streams.clear()

    async def handle(self, frame: Frame) -> None:
        match frame:
            case SynStream():
                await self.open(frame)
            case Data(number, data, fin):
                stream = self.streams.get(number)
                if stream is not None:
                    await stream.take_in(data, fin=fin)
                    self.forget_ended(stream)
                elif number > self.last:
                    await self.send(Reset(number, INVALID_STREAM))
            case Reset(number, _):
                stream = self.streams.pop(number, None)
                if stream is not None:
                    stream.break_off()
            case Ping(number):
                if number % 2:  # the client's own; an even one would be the echo of ours
                    await self.send(frame)
            case _:
                pass

    async def open(self, frame: SynStream) -> None:
        if frame.stream <= self.last or frame.stream % 2 == 0:
            await self.send(Reset(frame.stream, PROTOCOL_ERROR))
            return
        self.last = frame.stream
        if len(self.streams) >= MOST_STREAMS:
            await self.send(Reset(frame.stream, REFUSED_STREAM))
            return
        stream = self.streams[frame.stream] = SpdyStream(self, frame)
        await self.send(SynReply(frame.stream))
        self.on_stream(stream)

    def forget_ended(self, stream: SpdyStream) -> None:
        """A stream that has ended both ways takes no more room."""
        if stream.ended_here and stream.ended_there:
            self.streams.pop(stream.id, None)
