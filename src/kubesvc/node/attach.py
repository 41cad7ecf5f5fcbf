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
import struct
import termios
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .logs import LogFile, LogPipe

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHANNELS = {"stdout": STDOUT, "stderr": STDERR}
FRAME = struct.Struct(">BI")
WINDOW = struct.Struct("HHHH")
MOST_FRAME_BYTES = 1 << 20
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

    def resize(self, width: int, height: int) -> None:
        if self.fd >= 0:
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, WINDOW.pack(height, width, 0, 0))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.far)
        super().close()


class ContainerInput:
    """The agent's end of a container's stdin."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd

    async def write(self, data: bytes) -> None:
        """Write everything, no faster than the container reads. ConnectionError when it reads no more."""
        view = memoryview(data)
        while view:
            if self.fd < 0:
                raise ConnectionResetError("stdin is closed")
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)  # a writer's event would outlive this descriptor when it is closed meanwhile

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


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
                    with contextlib.suppress(OSError):  # a container that reads no more may still write
                        await self.input.write(payload)
                elif channel == CLOSE and self.input is not None and self.runner.stdin_once:
                    self.input.close()
