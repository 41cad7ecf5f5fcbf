"""The client's side of an exec or attach that speaks plain SPDY: one stream each for stdin, stdout, stderr, resize and
the error (NODE-108)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from kubesvc.api.meta import Object

from .hijack import bytes_of
from .nodedoors import Stream
from .spdy import PROTOCOL_ERROR
from .spdyconnection import SpdyConnection, SpdyStream
from .websockets import V1, V4, ChannelData

SPDY_PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", V1)
CHANNELS = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}
STREAM_SECONDS = 30.0
"""How long the client may take to open all its streams (NODE-107)."""
CLOSE_SECONDS = 5.0


class SpdyTerminal:
    """A session carried by the streams of one connection.

    wanted:   names of the streams that the client will open
    protocol: the stream protocol agreed upon; from v4 on the end is a Status, before it words
    """

    def __init__(self, stream: Stream, wanted: Collection[str], protocol: str) -> None:
        self.stream = stream
        # Sizes of terminals came with the third version.
        self.wanted = [n for n in wanted if n != "resize" or protocol in SPDY_PROTOCOLS[:2]]
        self.protocol = protocol
        self.streams: dict[int, SpdyStream] = {}
        self.complete = asyncio.Event()
        self.said: asyncio.Queue[ChannelData | None] = asyncio.Queue(16)
        self.tasks: set[asyncio.Task[None]] = set()
        self.connection = SpdyConnection(self.carry, self.on_stream)

    async def carry(self, data: bytes) -> None:
        self.stream.writer.write(data)
        await self.stream.writer.drain()

    def start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_stream(self, stream: SpdyStream) -> None:
        name = stream.header("streamType")
        channel = CHANNELS.get(name)
        if channel is None or channel in self.streams or name not in self.wanted:
            self.start(stream.reset(PROTOCOL_ERROR))
            return
        self.streams[channel] = stream
        if name in ("stdin", "resize"):
            self.start(self.listen(channel, stream))
        if len(self.streams) == len(self.wanted):
            self.complete.set()

    async def listen(self, channel: int, stream: SpdyStream) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await stream.receive():
                await self.said.put(ChannelData(channel, data))
        await self.said.put(ChannelData(channel, None))

    async def run(self, hold: Callable[[], Awaitable[None]]) -> None:
        """Let `hold` keep the session once the client's streams are there; then close."""
        reading = asyncio.create_task(self.read(), name="spdy terminal")
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                await self.complete.wait()
            await hold()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):  # the client reads to the end, then leaves
                    await asyncio.shield(reading)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            for task in (reading, *self.tasks):
                task.cancel()
            self.stream.writer.close()

    async def read(self) -> None:
        await self.connection.run(bytes_of(self.stream.reader))
        self.complete.set()
        await self.said.put(None)

    # -- Terminal -----------------------------------------------------------------------------------------------------

    async def send(self, channel: int, data: bytes) -> None:
        stream = self.streams.get(channel)
        if stream is not None:
            await stream.send(data)

    async def receive(self) -> AsyncIterator[ChannelData]:
        while (said := await self.said.get()) is not None:
            yield said

    async def finish(self, status: Object) -> None:
        for name in ("stdin", "resize"):
            if stream := self.streams.get(CHANNELS[name]):
                stream.break_off()  # what still comes is dropped and holds nothing back
        words = json.dumps(status, separators=(",", ":"))
        if self.protocol != V4:
            words = str(status.get("message") or "")
        for name in ("stdout", "stderr", "error"):
            stream = self.streams.get(CHANNELS[name])
            if stream is not None:
                if name == "error" and words:
                    await stream.send(words.encode())
                await stream.end()
