"""The way from the API server into nodes: a door is opened, one line asks for something, then bytes flow both ways.

The server knows nothing of how nodes are run. Whoever runs them supplies a `NodeDialer`; its doors speak the small
protocol that `dial` begins: a line of request, a line of JSON in answer, then what was asked for.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from kubesvc.api.errors import ApiError, BadRequest, NotFound

ANSWER_BYTES = 64 * 1024
ANSWER_SECONDS = 30.0


class NodeDialer(Protocol):
    """Opens doors of nodes."""

    async def open(self, node: str) -> socket.socket:
        """A connected, non-blocking stream socket to the node's door. Raises OSError if there is none."""
        ...


class NodeRefused(Exception):
    """A node's answer to a request it cannot meet; `code` is the HTTP code that fits."""

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    def as_api_error(self) -> ApiError:
        """The Status a client gets for it."""
        if self.code == 400:
            return BadRequest(self.message)
        if self.code == 404:
            return NotFound(self.message)
        return ApiError(self.message, code=self.code, reason="")


class Stream(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def dial(dialer: NodeDialer, node: str, request: str) -> socket.socket:
    """A socket on which `node` has accepted `request` and whose bytes from now on are the answer's.

    request: one line without its end
    Raises NodeRefused, also for a node that cannot be reached (code 502) or does not answer (504).
    """
    try:
        door = await dialer.open(node)
    except OSError as error:
        raise NodeRefused(f"node {node} cannot be reached: {error.strerror or error}", 502) from None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.get_running_loop().sock_sendall(door, request.encode() + b"\n")
            answer = json.loads(await read_line(door))
        if "error" in answer:
            raise NodeRefused(str(answer["error"]), int(answer.get("code") or 500))
    except BaseException as error:
        door.close()
        if isinstance(error, TimeoutError):
            raise NodeRefused(f"node {node} does not answer", 504) from None
        if isinstance(error, OSError | ValueError):
            raise NodeRefused(f"node {node} closed its door: {error}", 502) from None
        raise
    return door


async def read_line(door: socket.socket) -> bytes:
    """One line and not a byte of what follows it. ConnectionError at the end of the stream."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    while len(line) < ANSWER_BYTES:
        byte = await loop.sock_recv(door, 1)  # what follows belongs to whoever takes the socket over
        if not byte:
            raise ConnectionError("it ended without an answer")
        if byte == b"\n":
            break
        line += byte
    return bytes(line)


async def dial_stream(dialer: NodeDialer, node: str, request: str) -> Stream:
    """Like `dial`, as a pair of asyncio streams."""
    door = await dial(dialer, node, request)
    try:
        return Stream(*await asyncio.open_unix_connection(sock=door))
    except BaseException:
        door.close()
        raise


Serve = Callable[[str, Stream], Awaitable[None]]


class FakeDoors:
    """Nodes without nodes: each request is answered by the function for its first word.

    serve:    by word, told the rest of the line; it answers through the stream, beginning with a line of JSON
    requests: every line that came, as (node, line)
    """

    def __init__(self, serve: Mapping[str, Serve], nodes: Collection[str] = ("n1",)) -> None:
        self.serve = serve
        self.nodes = nodes
        self.requests: list[tuple[str, str]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, node: str) -> socket.socket:
        if node not in self.nodes:
            raise FileNotFoundError(2, "No such file or directory")
        near, far = socket.socketpair()
        near.setblocking(False)
        task = asyncio.ensure_future(self.answer(node, Stream(*await asyncio.open_unix_connection(sock=far))))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return near

    async def answer(self, node: str, stream: Stream) -> None:
        try:
            line = (await stream.reader.readline()).decode().strip()
            self.requests.append((node, line))
            word, _, rest = line.partition(" ")
            serve = self.serve.get(word)
            if serve is None:
                stream.writer.write(json.dumps({"error": f"unknown request '{word}'", "code": 400}).encode() + b"\n")
            else:
                await serve(rest, stream)
            await stream.writer.drain()
        except ConnectionError:
            pass
        finally:
            stream.writer.close()
