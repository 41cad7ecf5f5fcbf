"""A SPDY connection's rules: replies, half-closes, resets, pings, and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kubesvc.apiserver import spdyconnection
from kubesvc.apiserver.spdy import Data, GoAway, Ping, Reset, SynReply, SynStream
from kubesvc.apiserver.spdyconnection import STREAM_BYTES, SpdyConnection, SpdyStream
from tests.apiserver.spdypeer import SpdyPeer, queue_pieces


class Held:
    """A connection with its peer, in memory."""

    def __init__(self) -> None:
        self.streams: list[SpdyStream] = []
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue(4)
        self.peer = SpdyPeer(self.pieces.put)
        self.connection = SpdyConnection(self.carry, self.streams.append)

    async def carry(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.peer.feed(data)


def held(test: Callable[[Held], Awaitable[None]]) -> None:
    async def main() -> None:
        it = Held()
        running = asyncio.create_task(it.connection.run(queue_pieces(it.pieces)))
        try:
            async with asyncio.timeout(60):
                await test(it)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_each_direction_ends_on_its_own() -> None:
    async def test(it: Held) -> None:
        number = await it.peer.open(streamtype="data")
        await it.peer.until(lambda: it.peer.replied(number))
        (stream,) = it.streams
        await it.peer.send(Data(number, b"question", fin=True))
        assert await stream.receive() == b"question"
        assert await stream.receive() == b""
        await stream.send(b"answer")
        await stream.end()
        assert it.peer.data(number) == b"answer" and it.peer.ended(number)
        assert it.connection.streams == {}

    held(test)


def test_a_reset_stream_tells_its_owner_and_spares_the_others() -> None:
    async def test(it: Held) -> None:
        first, second = await it.peer.open(), await it.peer.open()
        await it.peer.until(lambda: it.peer.replied(second))
        await it.peer.send(Reset(first, 5))
        with pytest.raises(ConnectionResetError):
            await it.streams[0].receive()
        with pytest.raises(ConnectionResetError):
            await it.streams[0].send(b"x")
        await it.streams[1].send(b"still here")
        assert it.peer.data(second) == b"still here"

    held(test)


def test_pings_of_the_client_come_back_as_they_are() -> None:
    async def test(it: Held) -> None:
        await it.peer.send(Ping(3))
        await it.peer.send(Ping(4))  # an echo of one of ours: nothing follows
        await it.peer.send(Ping(5))
        await it.peer.until(lambda: len(it.peer.frames) == 2)
        assert it.peer.frames == [Ping(3), Ping(5)]

    held(test)


@pytest.mark.parametrize("number", [2, 1], ids=["even", "used before"])
def test_stream_ids_that_a_client_must_not_use_are_reset(number: int) -> None:
    async def test(it: Held) -> None:
        await it.peer.open()
        await it.peer.send(SynStream(number, {}))
        await it.peer.until(lambda: it.peer.was_reset(number))
        assert len(it.streams) == 1

    held(test)


def test_too_many_streams_are_refused_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spdyconnection, "MOST_STREAMS", 3)

    async def test(it: Held) -> None:
        opened = [await it.peer.open() for _ in range(4)]
        await it.peer.until(lambda: it.peer.was_reset(opened[-1]))
        assert [f.stream for f in it.peer.frames if isinstance(f, SynReply)] == opened[:3]

    held(test)


def test_data_that_nobody_takes_holds_the_client_back() -> None:
    async def test(it: Held) -> None:
        number = await it.peer.open()
        await it.peer.until(lambda: it.peer.replied(number))
        (stream,) = it.streams
        piece = bytes(1 << 16)

        async def flood() -> None:
            for _ in range(64):
                await it.peer.send(Data(number, piece))

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(0.05)
        assert not flooding.done() and stream.waiting_bytes <= STREAM_BYTES + len(piece)
        taken = 0
        while taken < 64 * len(piece):
            taken += len(await stream.receive())
        await flooding

    held(test)


def test_a_client_that_breaks_the_protocol_is_told_to_go() -> None:
    async def test(it: Held) -> None:
        number = await it.peer.open()
        await it.peer.until(lambda: it.peer.replied(number))
        await it.pieces.put(b"\x80\x02\0\1\0\0\0\0")
        with pytest.raises(ConnectionResetError):
            await it.streams[0].receive()
        assert it.peer.frames[-1] == GoAway(number, 1)

    held(test)
