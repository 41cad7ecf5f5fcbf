"""Attaching to containers that a runtime has started: its streaming server, a WebSocket, five numbered channels.

Two connections are made: one for the output, and, for stdin, one that only writes. The protocol (v4.channel.k8s.io)
has no end of stdin but the end of its connection, and that must not take the output along. That for the output asks
for the stdin of a container that has one too, and leaves it unused: without, containerd ends it at once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

from kubesvc.api.container import Container
from kubesvc.clock import Random

from ..attach import CLOSE, FRAME, LINGER_SECONDS, MOST_FRAME_BYTES, RESIZE, STATUS, STDERR, STDIN, STDOUT
from .client import CriClient, RuntimeProblem
from .wire import Message

PROTOCOL = "v4.channel.k8s.io"
MOST_HEAD_BYTES = 1 << 16
OPEN_SECONDS = 10.0
CONTINUED, BINARY, CLOSING, PING, PONG = 0, 2, 8, 9, 10
"""Kinds of WebSocket frames."""

Connect = Callable[[str, int], Awaitable[socket.socket]]
"""Makes a connected socket to an address that the runtime has named, in the runtime's network."""


class ChannelStream:
    """A WebSocket to a runtime's streaming server: messages of one byte of channel and a payload."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, random: Random) -> None:
        self.reader = reader
        self.writer = writer
        self.random = random

    @classmethod
    async def open(cls, url: str, connect: Connect, random: Random) -> ChannelStream:
        """OSError if nobody answers as it should."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise RuntimeProblem(f"the runtime streams at {url}, which is not http://ADDRESS: TLS is not spoken here")
        async with asyncio.timeout(OPEN_SECONDS):
            connected = await connect(parts.hostname, parts.port or 80)
            reader, writer = await asyncio.open_connection(sock=connected, limit=MOST_FRAME_BYTES)
            key = base64.b64encode(random.randbytes(16)).decode()
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n"
                f"Origin: http://{parts.netloc}\r\n\r\n".encode()
            )
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                head = b""
        first = head.partition(b"\r\n")[0].decode(errors="replace")
        if " 101 " not in first:
            writer.close()
            raise RuntimeProblem(f"the runtime's streaming server answered {first!r}, not with a WebSocket")
        return cls(reader, writer, random)

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, payload) of each message until the other side ends."""
        held = b""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, second = await self.reader.readexactly(2)
                size = second & 0x7F
                if size >= 126:
                    form = ">H" if size == 126 else ">Q"
                    (size,) = struct.unpack(form, await self.reader.readexactly(struct.calcsize(form)))
                if size > MOST_FRAME_BYTES:
                    raise ConnectionResetError("a frame of more than a megabyte")
                data = await self.reader.readexactly(size)
                kind = first & 0x0F
                if kind == CLOSING:
                    return
                if kind == PING:
                    await self.frame(PONG, data)
                elif kind in (CONTINUED, 1, BINARY):
                    held += data
                    if first & 0x80 and held:
                        yield held[0], held[1:]
                        held = b""

    async def send(self, channel: int, payload: bytes) -> None:
        await self.frame(BINARY, bytes([channel]) + payload)

    async def frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
        if size > 0xFFFF:
            length = struct.pack(">BQ", 0x80 | 127, size)
        key = self.random.randbytes(4)
        stream = (key * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
        self.writer.write(bytes([0x80 | kind]) + length + key + masked)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()


class CriAttachment:
    """One client attached to a running container, framed as the node's door has it."""

    def __init__(
        self, client: CriClient, id: str, connect: Connect, random: Random, *, container: Container, stdin: bool
    ) -> None:
        """stdin: whether the client's stdin is wanted."""
        self.client = client
        self.id = id
        self.connect = connect
        self.random = random
        self.tty = container.tty
        self.has_stdin = container.stdin
        self.stdin = stdin and container.stdin
        self.once = container.stdin_once
        self.input: ChannelStream | None = None

    async def open(self, *, output: bool) -> ChannelStream:
        request: Message = {"container_id": self.id, "tty": self.tty, "stdin": self.has_stdin, "stdout": output}
        request["stderr"] = output and not self.tty
        url = (await self.client.call("Attach", request))["url"]
        return await ChannelStream.open(url, self.connect, self.random)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the container's run has ended or the client is gone."""
        try:
            output = await self.open(output=True)
            try:
                if self.stdin:
                    self.input = await self.open(output=False)
                await self.carry(output, reader, writer)
            finally:
                output.close()
                if self.input is not None:
                    self.input.close()
        except OSError as error:  # TimeoutError is one
            end = {"error": f"attaching to container {self.id}: {error or type(error).__name__}"}
            with contextlib.suppress(OSError):
                data = json.dumps(end).encode()
                writer.write(FRAME.pack(STATUS, len(data)) + data)
                await writer.drain()

    async def carry(self, output: ChannelStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.create_task(self.send_output(output, writer))
        reading = asyncio.create_task(self.read_input(output, reader))
        try:
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            ended = sending.done()
        finally:
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)
        if ended:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while await reader.read(MOST_FRAME_BYTES):
                        pass

    async def send_output(self, output: ChannelStream, writer: asyncio.StreamWriter) -> None:
        async for channel, data in output.messages():
            if channel in (STDOUT, STDERR) and data:
                writer.write(FRAME.pack(channel, len(data)) + data)
                await writer.drain()
        end = json.dumps({"exitCode": 0}).encode()
        writer.write(FRAME.pack(STATUS, len(end)) + end)
        await writer.drain()

    async def read_input(self, output: ChannelStream, reader: asyncio.StreamReader) -> None:
        """Carry frames from the client until it is gone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                channel, size = FRAME.unpack(await reader.readexactly(FRAME.size))
                if size > MOST_FRAME_BYTES:
                    return
                payload = await reader.readexactly(size)
                if channel == RESIZE and self.tty:
                    await output.send(RESIZE, payload)
                elif channel == STDIN and self.input is not None:
                    with contextlib.suppress(OSError):  # one that reads no more may still write
                        await self.input.send(STDIN, payload)
                elif channel == CLOSE and self.input is not None and self.once:
                    self.input.close()
                    self.input = None
