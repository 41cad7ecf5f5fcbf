"""What one container writes and reads: its log file, the pipes or terminal of its streams, its stdin (NODE-100)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from kubesvc.api.container import Container
from kubesvc.clock import Clock

from .attach import Attachment, ContainerInput, Terminal
from .logs import LogFile, LogPipe
from .settings import NodeSettings

MESSAGE_BYTES = 4096
LOG_MESSAGE_BYTES = 2048
LOG_MESSAGE_LINES = 80


class ContainerOutput:
    """The streams of a container's runs, kept as files below `directory`; each run has a number, its `attempt`.

    Logs are `N.log`, streams `N.stdout`, `N.stderr` or `N.tty`, what the container says at its end `N.termination`.
    """

    def __init__(self, directory: Path, container: Container, clock: Clock, settings: NodeSettings) -> None:
        self.directory = directory
        self.container = container
        self.clock = clock
        self.settings = settings
        self.attempt = 0
        self.log_file: LogFile | None = None
        self.pipes: list[LogPipe] = []
        self.input: ContainerInput | None = None
        self.console: tuple[socket.socket, socket.socket] | None = None
        """While a container with a terminal begins: where its near end comes from, and what the container has of it."""

    @property
    def log_path(self) -> Path:
        return self.directory / f"{self.attempt}.log"

    @property
    def message_path(self) -> Path:
        return self.directory / f"{self.attempt}.termination"

    @property
    def stdin_once(self) -> bool:
        return self.container.stdin_once

    def open(self, attempt: int, *, running: bool = False) -> None:
        """Open the streams of one run; `running` for an earlier agent's, whose terminal ended with that agent."""
        self.attempt = attempt
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file = LogFile(self.log_path, self.clock, self.settings.log_file_bytes, self.settings.log_files)
        if self.container.tty and not running:
            self.pipes = [Terminal(self.directory / f"{attempt}.tty", self.log_file)]
            return
        self.pipes = [
            LogPipe(self.directory / f"{attempt}.{stream}", stream, self.log_file) for stream in ("stdout", "stderr")
        ]

    def open_input(self) -> int | None:
        """The descriptor of a new run's stdin, None for one that has none; the caller closes it after the spawn."""
        if self.container.tty:
            terminal = self.pipes[0]
            self.input = ContainerInput(os.dup(terminal.fd)) if self.container.stdin else None
            return terminal.for_container()
        if not self.container.stdin:
            return None
        far, near = os.pipe()
        self.input = ContainerInput(near)
        return far

    def open_console(self) -> int:
        """The descriptor by which a new run sends the terminal that it has opened among its own; 0 without one."""
        if not self.container.tty:
            return 0
        self.console = socket.socketpair()
        return self.console[1].fileno()

    def take_terminal(self) -> None:
        """Go over to the terminal that the run has opened, if it could."""
        if self.console is None:
            return
        try:
            _, [fd], _, _ = socket.recv_fds(self.console[0], 1, 1, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        except (OSError, ValueError):
            return
        finally:
            self.close_console()
        terminal = self.pipes[0]
        assert isinstance(terminal, Terminal)
        terminal.move(fd)
        if self.input is not None:
            self.input.close()
            self.input = ContainerInput(os.dup(fd))

    def close_console(self) -> None:
        for end in self.console or ():
            end.close()
        self.console = None

    async def attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stdin: bool) -> None:
        """Show a client the streams of the run that goes on, framed like an exec's, until one of them has ended."""
        await Attachment(self, reader, writer, stdin=stdin).run()

    def end_run(self) -> None:
        """The run is over: take what is left in its streams; keep the logs of this run and the one before."""
        self.close_console()
        if self.input is not None:
            self.input.close()
            self.input = None
        for pipe in self.pipes:
            pipe.drain()
            with contextlib.suppress(OSError):
                pipe.path.unlink()
        if self.log_file is not None:
            self.log_file.close()
        self.pipes = []
        for old in self.directory.glob("*.log*"):
            number = old.name.partition(".")[0]
            if number.isdigit() and int(number) < self.attempt - 1:
                old.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of everything, whether or not the container still runs."""
        self.close_console()
        for pipe in self.pipes:
            pipe.close()
        if self.input is not None:
            self.input.close()
        if self.log_file is not None:
            self.log_file.close()

    def termination_message(self, exit_code: int) -> str:
        """What the run left for the message (NODE-23)."""
        with contextlib.suppress(OSError), open(self.message_path, "rb") as file:
            if text := file.read(MESSAGE_BYTES).decode(errors="replace"):
                return text
        if exit_code and self.container.termination_message_policy == "FallbackToLogsOnError":
            with contextlib.suppress(OSError), open(self.log_path, "rb") as file:
                lines = [line.split(b" ", 3)[-1] for line in file.readlines()[-LOG_MESSAGE_LINES:]]
                return b"".join(lines)[-LOG_MESSAGE_BYTES:].decode(errors="replace")
        return ""
