"""The other end of a SPDY connection, for tests: what stock clients do, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from kubesvc.apiserver.spdy import Data, Frame, Reset, SpdyDecoder, SpdyEncoder, SynReply, SynStream


class SpdyPeer:
    """A client. `carry` sends its bytes; give what comes to `feed`."""

    def __init__(self, carry: Callable[[bytes], Awaitable[None]]) -> None:
        self.carry = carry
        self.encoder = SpdyEncoder()
        self.decoder = SpdyDecoder()
        self.frames: list[Frame] = []
        self.arrived = asyncio.Event()
        self.next = 1

    def feed(self, data: bytes) -> None:
        self.frames += self.decoder.feed(data)
        self.arrived.set()

    async def send(self, frame: Frame) -> None:
        await self.carry(self.encoder.encode(frame))

    async def open(self, fin: bool = False, **headers: str) -> int:
        number, self.next = self.next, self.next + 2
        await self.send(SynStream(number, {k: (v,) for k, v in headers.items()}, fin))
        return number

    async def until(self, wanted: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not wanted():
                self.arrived.clear()
                await self.arrived.wait()

    def data(self, stream: int) -> bytes:
        return b"".join(f.data for f in self.frames if isinstance(f, Data) and f.stream == stream)

    def ended(self, stream: int) -> bool:
        return any(isinstance(f, Data) and f.stream == stream and f.fin for f in self.frames)

    def replied(self, stream: int) -> bool:
        return any(isinstance(f, SynReply) and f.stream == stream for f in self.frames)

    def was_reset(self, stream: int) -> bool:
        return any(isinstance(f, Reset) and f.stream == stream for f in self.frames)


async def queue_pieces(queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    """Pieces until an empty one."""
    while piece := await queue.get():
        yield piece
