"""…/pods/NAME/exec and attach: a process's streams to a client, and its end as a Status (NODE-100 to NODE-106).

`Terminal` is the client's side, whatever carries it: a WebSocket with channels or the streams of a SPDY connection.
The node's side is the framing of its door: one byte of channel, four of length, then the data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from kubesvc.api.errors import BadRequest, InternalError
from kubesvc.api.meta import Object

from .calls import Call
from .hijack import PROTOCOL_HEADER, hijack_spdy, wants_spdy
from .nodedoors import NodeDialer, NodeRefused, Stream, dial_stream
from .options import TRUE, Query, first
from .podlogs import only_container
from .spdyterminal import SPDY_PROTOCOLS, SpdyTerminal
from .websockets import V1, V1_BASE64, V4, V4_BASE64, V5, ChannelData, ChannelSocket, accept

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = (V5, V4, V4_BASE64, V1, V1_BASE64, "")
PLAIN_PROTOCOLS = (V1, V1_BASE64, "")
"""Forms that tell a failure in words and success by silence."""
FRAME = struct.Struct(">BI")
PIECE_BYTES = 64 * 1024
MOST_FRAME_BYTES = 1 << 24
SUCCESS: Object = {"metadata": {}, "status": "Success"}


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What a request asks for."""

    command: tuple[str, ...]
    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(n for n, wanted in ((STDOUT, self.stdout), (STDERR, self.stderr)) if wanted)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of a client that has one for each purpose."""
        named = (("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr), ("resize", self.tty))
        return ("error", *(name for name, wanted in named if wanted))


def exec_options(query: Query, *, attach: bool) -> ExecOptions:
    """The options in a query; a terminal has no stderr of its own. BadRequest without any stream or command. Pure."""
    wanted = {n: first(query, n) in TRUE for n in ("stdin", "stdout", "stderr", "tty")}
    if not any(wanted[n] for n in ("stdin", "stdout", "stderr")):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    command = tuple(query.get("command") or ())
    if not attach and not command:
        raise BadRequest("you must specify at least one command for the container")
    return ExecOptions(
        command, first(query, "container"), wanted["stdin"], wanted["stdout"],
        wanted["stderr"] and not wanted["tty"], wanted["tty"],
    )  # fmt: skip


def exit_status(command: tuple[str, ...], code: int) -> Object:
    """The Status that ends a session (NODE-106). Pure."""
    if code == 0:
        return SUCCESS
    shown = " ".join(command)
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command [{shown}], exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(words: str) -> Object:
    """The Status of a session that could not be held. Pure."""
    message = f"Internal error occurred: {words}"
    status = InternalError(message, causes=[{"message": words}]).status()
    return {k: v for k, v in status.items() if k not in ("kind", "apiVersion")}


class Terminal(Protocol):
    """The client's side of a session."""

    async def send(self, channel: int, data: bytes) -> None:
        """Data of stdout or stderr, no faster than the client reads. ConnectionError when it is gone."""
        ...

    def receive(self) -> AsyncIterator[ChannelData]:
        """What comes on stdin and resize; data None at the end of stdin; ends when the client is gone."""
        ...

    async def finish(self, status: Object) -> None:
        """Say how it ended, after all data, and close."""
        ...


class WebSocketTerminal:
    """A session carried by a WebSocket."""

    def __init__(self, socket: ChannelSocket) -> None:
        self.socket = socket

    async def send(self, channel: int, data: bytes) -> None:
        await self.socket.send(channel, data)

    def receive(self) -> AsyncIterator[ChannelData]:
        return self.socket.receive()

    async def finish(self, status: Object) -> None:
        words = json.dumps(status, separators=(",", ":"))
        if self.socket.protocol in PLAIN_PROTOCOLS:
            words = str(status.get("message") or "")
        if words:
            await self.socket.send(ERROR, words.encode())
        await self.socket.close()


async def serve_session(call: Call, pod: Object, subresource: str, dialer: NodeDialer) -> web.StreamResponse:
    """Answer an exec or attach, over WebSocket or SPDY, for a pod that is bound to a node."""
    options = exec_options(call.query, attach=subresource == "attach")
    if wants_spdy(call):
        stream, response = await hijack_spdy(call, SPDY_PROTOCOLS)
        terminal = SpdyTerminal(stream, options.streams, response.headers[PROTOCOL_HEADER])
        await terminal.run(lambda: hold_session(terminal, pod, subresource, options, dialer))
        return response
    socket, protocol = await accept(call, PROTOCOLS)
    channels = ChannelSocket(socket, protocol)
    with contextlib.suppress(ConnectionError):
        await channels.send(next(iter(options.outputs), ERROR), b"")  # NODE-104
        await hold_session(WebSocketTerminal(channels), pod, subresource, options, dialer)
    return socket


async def hold_session(
    terminal: Terminal, pod: Object, subresource: str, options: ExecOptions, dialer: NodeDialer
) -> None:
    """Run one session from the dial to its Status; when the client leaves first, the node ends the process."""
    try:
        far = await dial_stream(dialer, pod["spec"]["nodeName"], node_request(pod, subresource, options))
    except NodeRefused as refused:
        await terminal.finish(failure_status(f"unable to upgrade connection: {refused.message}"))
        return
    inbound = asyncio.create_task(carry_input(terminal, far, options), name="exec input")
    outbound = asyncio.create_task(carry_output(terminal, far, options), name="exec output")
    try:
        await asyncio.wait({inbound, outbound}, return_when=asyncio.FIRST_COMPLETED)
        if outbound.done():
            await terminal.finish(outbound.result())
    finally:
        for task in (inbound, outbound):
            task.cancel()
        await asyncio.gather(inbound, outbound, return_exceptions=True)
        far.writer.close()


def node_request(pod: Object, subresource: str, options: ExecOptions) -> str:
    """The line that asks a node's door for a session. Pure."""
    meta = pod["metadata"]
    wanted: dict[str, Any] = {
        "namespace": meta["namespace"],
        "pod": meta["name"],
        "container": options.container or only_container(pod),
        "stdin": options.stdin,
        "tty": options.tty,
    }
    if subresource == "exec":
        wanted["command"] = list(options.command)
    return f"{subresource} {json.dumps(wanted)}"


async def carry_input(terminal: Terminal, far: Stream, options: ExecOptions) -> None:
    """Client to node, until the client is gone; the node's pace holds the client back.

    A node that takes no more has ended the process: what it has to say of that is still to come, so the client's rest
    is read and dropped.
    """
    taken = True
    async for channel, data in terminal.receive():
        if not taken:
            continue
        try:
            if data is None:
                if channel == STDIN and options.stdin:
                    await send_frame(far, CLOSE, b"\x00")
            elif channel == STDIN and options.stdin:
                for start in range(0, len(data), PIECE_BYTES):
                    await send_frame(far, STDIN, data[start : start + PIECE_BYTES])
            elif channel == RESIZE and options.tty:
                for size in terminal_sizes(data):
                    await send_frame(far, RESIZE, json.dumps(size).encode())
        except OSError:
            taken = False


async def carry_output(terminal: Terminal, far: Stream, options: ExecOptions) -> Object:
    """Node to client, until the process has ended; the Status it ended with. ConnectionError if the client is gone."""
    while True:
        try:
            channel, size = FRAME.unpack(await far.reader.readexactly(FRAME.size))
            if size > MOST_FRAME_BYTES:
                return failure_status("the node broke its protocol")
            data = await far.reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return failure_status("error executing command in container: the node closed the connection")
        if channel == ERROR:
            end = json.loads(data)
            if "error" in end:
                return failure_status(f"error executing command in container: {end['error']}")
            return exit_status(options.command, int(end["exitCode"]))
        if channel in options.outputs:
            await terminal.send(channel, data)


async def send_frame(far: Stream, channel: int, data: bytes) -> None:
    far.writer.write(FRAME.pack(channel, len(data)) + data)
    await far.writer.drain()


def terminal_sizes(data: bytes) -> list[dict[str, int]]:
    """The sizes in a resize message: JSON objects one after the other (NODE-105). What is none is left out. Pure."""
    sizes = []
    decoder, text, position = json.JSONDecoder(), data.decode(errors="replace").strip(), 0
    with contextlib.suppress(ValueError):
        while position < len(text):
            found, position = decoder.raw_decode(text, position)
            if isinstance(found, dict):
                width, height = found.get("Width"), found.get("Height")
                if isinstance(width, int) and isinstance(height, int) and 0 < width < 65536 and 0 < height < 65536:
                    sizes.append({"Width": width, "Height": height})
            while position < len(text) and text[position].isspace():
                position += 1
    return sizes
