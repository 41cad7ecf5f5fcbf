"""What reaches a container beside its logs: its stdin, its terminal, and those who attach to it (NODE-100).

A container with `stdin` reads a pipe that the agent writes; one with `tty` has a terminal for everything. Both are the
agent's, so they end with it: a new agent that adopts the container finds its stdin at an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import termios
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kubesvc.kernel.terminals import far_end

from .logs import LogFile, LogPipe

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHANNELS = {"stdout": STDOUT, "stderr": STDERR}
FRAME = struct.Struct(">BI")
WINDOW = struct.Struct("HHHH")
MOST_FRAME_BYTES = 1 << 20
LOOK_SECONDS = 1.0
LINGER_SECONDS = 5.0
MOST_WAITING_BYTES = 8 << 20
"""Output that may wait for one attached client; more, and it is let go: the container does not wait for it."""


class Terminal(LogPipe):
    """The terminal of a container's run: read like the pipe of its stdout, and written to."""

    def __init__(self, path: Path, file: LogFile) -> None:
        near, self.far = pty.openpty()
        super().__init__(path, "stdout", file, fd=near)
        os.set_blocking(near, False)
        self.resize(80, 24)

    def for_container(self) -> int:
        return os.dup(self.far)

    def move(self, near: int) -> None:
        """Read and write another terminal from now on, of the same size; nobody has used the one before."""
        window = fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(WINDOW.size))
        self.loop.remove_reader(self.fd)
        os.close(self.fd)
        os.close(self.far)
        self.fd, self.far = near, far_end(near)
        fcntl.ioctl(near, termios.TIOCSWINSZ, window)
        os.set_blocking(near, False)
        self.loop.add_reader(near, self.on_readable)

    def resize(self, width: int, height: int) -> None:
        if self.fd >= 0:
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, WINDOW.pack(height, width, 0, 0))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.far)
        super().close()


class ContainerInput:
    """The agent's end of a process's stdin: a pipe or a terminal.

    No transport of the event loop: some read what they only ought to write, and would eat a terminal's output.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.turn = asyncio.Lock()
        self.room: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write everything, no faster than it is read. OSError when nobody reads it any more."""
        async with self.turn:
            view = memoryview(data)
            while view:
                if self.fd < 0:
                    raise ConnectionResetError("stdin is closed")
                try:
                    view = view[os.write(self.fd, view) :]
                except BlockingIOError:
                    await self.wait_for_room()

    async def wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        self.room = room = loop.create_future()

        def has_room() -> None:
            if not room.done():
                room.set_result(None)

        loop.add_writer(self.fd, has_room)
        try:
            await room
        finally:
            self.room = None
            if self.fd >= 0:
                loop.remove_writer(self.fd)

    def close(self) -> None:
        if self.fd < 0:
            return
        if self.room is not None:
            asyncio.get_running_loop().remove_writer(self.fd)
            if not self.room.done():
                self.room.set_result(None)
        os.close(self.fd)
        self.fd = -1


async def pass_input(input: ContainerInput, data: bytes, client: asyncio.StreamWriter) -> None:
    """Give a process what its client sent; one that reads no more may still write, so that is no error.

    ConnectionResetError when the client leaves while the process keeps it waiting.
    """
    writing = asyncio.ensure_future(input.write(data))
    try:
        while not writing.done():
            await asyncio.wait({writing}, timeout=LOOK_SECONDS)
            if not writing.done() and hung_up(client):
                raise ConnectionResetError("the client has left")
        with contextlib.suppress(OSError):
            writing.result()
    finally:
        writing.cancel()


async def linger(reader: asyncio.StreamReader) -> None:
    """Take what a client still sends until it has read the end and closed: closing first might cost it the end."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(MOST_FRAME_BYTES):
                pass


def hung_up(client: asyncio.StreamWriter) -> bool:
    """Whether the other end of a connection has closed it, even if unread bytes still lie before the end."""
    return ended(client, select.POLLRDHUP)


def has_left(client: asyncio.StreamWriter) -> bool:
    """Whether the other end of a unix connection has closed it for both directions: it reads no more either."""
    return ended(client, 0)  # POLLHUP is always told


def ended(client: asyncio.StreamWriter, events: int) -> bool:
    """Whether a connection is closed here, or its other end has done one of these poll events."""
    connection = client.get_extra_info("socket")
    if connection is None or client.is_closing():
        return True
    poll = select.poll()
    poll.register(connection.fileno(), events)
    return bool(poll.poll(0))


class Attachable(Protocol):
    """What of a container's run an attached client touches."""

    pipes: list[LogPipe]
    input: ContainerInput | None

    @property
    def stdin_once(self) -> bool: ...


class Attachment:
    """One client attached to a running container, framed like an exec."""

    def __init__(
        self, runner: Attachable, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stdin: bool
    ) -> None:
        self.runner = runner
        self.reader = reader
        self.writer = writer
        self.input = runner.input if stdin else None
        self.pipes: Sequence[LogPipe] = tuple(runner.pipes)
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.waiting_bytes = 0
        self.left = len(self.pipes)
        self.changed = asyncio.Event()

    def on_output(self, stream: str, data: bytes) -> None:
        """Called by a pipe with what the container wrote; b"" at the end of its run."""
        if data:
            self.waiting.append((CHANNELS[stream], data))
            self.waiting_bytes += len(data)
        else:
            self.left -= 1
        self.changed.set()

    async def run(self) -> None:
        """Until the container's run has ended or the client is gone."""
        for pipe in self.pipes:
            pipe.listeners.append(self.on_output)
        tasks = [asyncio.create_task(self.send_output()), asyncio.create_task(self.read_input())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not tasks[0].cancelled():
                await linger(self.reader)
            for pipe in self.pipes:
                with contextlib.suppress(ValueError):
                    pipe.listeners.remove(self.on_output)
            if self.input is not None and self.runner.stdin_once:
                self.input.close()

    def send(self, channel: int, payload: bytes) -> None:
        self.writer.write(FRAME.pack(channel, len(payload)) + payload)

    async def send_output(self) -> None:
        while self.left > 0 or self.waiting:
            if self.waiting_bytes > MOST_WAITING_BYTES:
                self.send(STATUS, json.dumps({"error": "the client reads too slowly"}).encode())
                return
            while self.waiting:
                channel, data = self.waiting.popleft()
                self.waiting_bytes -= len(data)
                self.send(channel, data)
                await self.writer.drain()
            self.changed.clear()
            if self.left > 0:
                await self.changed.wait()
        self.send(STATUS, json.dumps({"exitCode": 0}).encode())
        await self.writer.drain()

    async def read_input(self) -> None:
        """Carry frames from the client until it is gone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, KeyError):
            while True:
                channel, size = FRAME.unpack(await self.reader.readexactly(FRAME.size))
                if size > MOST_FRAME_BYTES:
                    return
                payload = await self.reader.readexactly(size)
                terminal = self.pipes[0] if self.pipes else None
                if channel == RESIZE and isinstance(terminal, Terminal):
                    window = json.loads(payload)
                    terminal.resize(int(window["Width"]), int(window["Height"]))
                elif channel == STDIN and self.input is not None:
                    await pass_input(self.input, payload, self.writer)
                elif channel == CLOSE and self.input is not None and self.runner.stdin_once:
                    self.input.close()
