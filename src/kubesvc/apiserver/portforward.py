"""…/pods/NAME/portforward: connections of a client to the loopback address inside a pod (NODE-109 to NODE-112).

Stock kubectl speaks SPDY, inside a WebSocket or plain: two streams for each connection, one for data, one for the
words of a failure. Older clients speak WebSocket channels: one connection for each port they ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import Object

from .calls import Call
from .hijack import bytes_of, hijack_spdy, wants_spdy
from .nodedoors import NodeDialer, NodeRefused, Stream, dial_stream
from .options import Query
from .spdy import PROTOCOL_ERROR
from .spdyconnection import SpdyConnection, SpdyStream
from .websockets import V4, V4_BASE64, ChannelData, ChannelSocket, accept, offered_protocols, wants_websocket

log = logging.getLogger("kubesvc.apiserver")

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
PIECE_BYTES = 32 * 1024
PAIR_SECONDS = 30.0
"""How long the second stream of a connection may take."""
MOST_PORTS = 64
MOST_WAITING = 64
"""Messages of one channel that may wait for the pod."""
PORT = struct.Struct("<H")


async def serve_portforward(call: Call, pod: Object, dialer: NodeDialer) -> web.StreamResponse:
    """Answer a port-forward of a pod that is bound to a node."""
    if wants_spdy(call):
        stream, response = await hijack_spdy(call, (PROTOCOL,))
        try:
            forwarding = Forwarding(pod, dialer, lambda data: write(stream, data))
            await forwarding.run(bytes_of(stream.reader))
        finally:
            stream.writer.close()
        return response
    if not wants_websocket(call):
        raise BadRequest("Upgrade request required")
    offered = offered_protocols(call)
    if TUNNEL in offered:
        socket, _ = await accept(call, (TUNNEL,))
        forwarding = Forwarding(pod, dialer, socket.send_bytes)
        await forwarding.run(messages_of(socket))
        with contextlib.suppress(ConnectionError):
            await socket.close()
        return socket
    if offered and not {V4, V4_BASE64} & set(offered):
        raise BadRequest(
            f"unable to negotiate protocol: client supports [{' '.join(offered)}], server supports "
            f"[{TUNNEL} {V4} {V4_BASE64}]"
        )
    ports = wanted_ports(call.query)
    socket, protocol = await accept(call, (V4, V4_BASE64, ""))
    await forward_channels(ChannelSocket(socket, protocol), pod, ports, dialer)
    return socket


def wanted_ports(query: Query) -> list[int]:
    """The ports in a query, in order; BadRequest for none or for what is no port. Pure."""
    texts = [t for value in query.get("ports") or () for t in value.split(",")]
    if not texts:
        raise BadRequest('query parameter "port" is required')
    if len(texts) > MOST_PORTS:
        raise BadRequest(f"{len(texts)} ports: at most {MOST_PORTS} are forwarded at once")
    ports = []
    for text in texts:
        port = port_number(text)
        if port is None:
            raise BadRequest(f'unable to parse "{text}" as a port')
        ports.append(port)
    return ports


def port_number(text: str) -> int | None:
    """The port that a text names, None if it names none. Pure."""
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        return None
    return int(text) if 0 < int(text) < 65536 else None


def failure_words(pod: Object, port: int, why: str) -> str:
    """What a client is told of a connection that could not be made. Pure."""
    meta = pod["metadata"]
    return f"error forwarding port {port} to pod {meta['name']}_{meta['namespace']}, uid {meta.get('uid', '')}: {why}"


async def dial_pod(dialer: NodeDialer, pod: Object, port: int) -> Stream:
    meta = pod["metadata"]
    return await dial_stream(dialer, pod["spec"]["nodeName"], f"podtcp {meta['namespace']} {meta['name']} {port}")


async def write(stream: Stream, data: bytes) -> None:
    stream.writer.write(data)
    await stream.writer.drain()


async def messages_of(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """The bytes of a tunnel; where messages begin and end means nothing."""
    while True:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return
        yield message.data


# ---------------------------------------------------------------- SPDY


class Forwarding:
    """One session of a client that speaks SPDY: pairs its streams and joins each pair to a connection into the pod.

    carry: sends bytes to the client
    """

    def __init__(self, pod: Object, dialer: NodeDialer, carry: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        self.pod = pod
        self.dialer = dialer
        self.halves: dict[str, SpdyStream] = {}
        """Streams whose partner has not come yet, by request id."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.connection = SpdyConnection(carry, self.on_stream)

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Serve until the client is gone; then end its connections."""
        try:
            await self.connection.run(pieces)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.finished)

    def finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ConnectionError):
            log.error("a forwarded connection failed", exc_info=error)

    def on_stream(self, stream: SpdyStream) -> None:
        kind, port = stream.header("streamType"), port_number(stream.header("port"))
        # Clients before request ids open the error stream first and the data stream right after it.
        request = stream.header("requestID") or str(stream.id if kind == "error" else stream.id - 2)
        if kind not in ("error", "data") or port is None:
            self.start(stream.reset(PROTOCOL_ERROR))
            return
        other = self.halves.get(request)
        if other is None:
            self.halves[request] = stream
            self.start(self.expire(request, stream))
        elif other.header("streamType") == kind or other.header("port") != stream.header("port"):
            self.start(stream.reset(PROTOCOL_ERROR))
        else:
            del self.halves[request]
            error, data = (other, stream) if kind == "data" else (stream, other)
            self.start(self.forward(port, error, data))

    async def expire(self, request: str, stream: SpdyStream) -> None:
        """Give up a stream whose partner does not come."""
        await asyncio.sleep(PAIR_SECONDS)
        if self.halves.get(request) is stream:
            del self.halves[request]
            await stream.reset()

    async def forward(self, port: int, error: SpdyStream, data: SpdyStream) -> None:
        """One connection from beginning to end; whatever becomes of it, the session goes on."""
        try:
            far = await dial_pod(self.dialer, self.pod, port)
        except NodeRefused as refused:
            await error.send(failure_words(self.pod, port, refused.message).encode())
            await error.end()
            await data.end()
            self.drop(error, data)
            return
        try:
            await asyncio.gather(to_pod(data, far), from_pod(far, data))
            await error.end()
        except OSError:
            far.writer.transport.abort()
            await data.reset()
            await error.end()
        finally:
            far.writer.close()
            self.drop(error, data)

    def drop(self, *streams: SpdyStream) -> None:
        """Nobody takes what may still come on these."""
        for stream in streams:
            stream.break_off()
            self.connection.streams.pop(stream.id, None)


async def to_pod(data: SpdyStream, far: Stream) -> None:
    while piece := await data.receive():
        await write(far, piece)
    if far.writer.can_write_eof():
        far.writer.write_eof()


async def from_pod(far: Stream, data: SpdyStream) -> None:
    while piece := await far.reader.read(PIECE_BYTES):
        await data.send(piece)
    await data.end()


# ---------------------------------------------------------------- channels


async def forward_channels(socket: ChannelSocket, pod: Object, ports: list[int], dialer: NodeDialer) -> None:
    """Channels 2i and 2i+1 are the data and the errors of the i-th port; each begins with its port (NODE-111)."""
    inputs: list[asyncio.Queue[bytes]] = [asyncio.Queue(MOST_WAITING) for _ in ports]

    async def one(index: int) -> None:
        try:
            far = await dial_pod(dialer, pod, ports[index])
        except NodeRefused as refused:
            await socket.send(2 * index + 1, failure_words(pod, ports[index], refused.message).encode())
            return
        feeding = asyncio.create_task(feed(inputs[index], far))
        try:
            while piece := await far.reader.read(PIECE_BYTES):
                await socket.send(2 * index, piece)
        finally:
            feeding.cancel()
            far.writer.close()

    try:
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await socket.send(channel, PORT.pack(port))
    except ConnectionError:
        return
    work = [asyncio.create_task(one(i)) for i in range(len(ports))]
    reading = asyncio.create_task(distribute(socket, inputs, work))
    everything = asyncio.create_task(asyncio.wait(work))
    try:
        await asyncio.wait({reading, everything}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, everything, *work):
            task.cancel()
        await asyncio.gather(reading, everything, *work, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await socket.close()


async def feed(waiting: asyncio.Queue[bytes], far: Stream) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await write(far, await waiting.get())


async def distribute(socket: ChannelSocket, inputs: list[asyncio.Queue[bytes]], work: list[asyncio.Task[None]]) -> None:
    """Hand the client's messages to their ports until it is gone."""
    said: ChannelData
    async for said in socket.receive():
        index, is_error = divmod(said.channel, 2)
        if is_error or index >= len(inputs) or not said.data:
            continue
        while not work[index].done():  # what comes for a connection that is over is lost
            try:
                async with asyncio.timeout(1.0):
                    await inputs[index].put(said.data)
                break
            except TimeoutError:
                continue
