"""A container's stdin, its terminal, and clients attached to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kubesvc.clock import RealClock
from kubesvc.node.attach import FRAME, Attachment, ContainerInput, Terminal, hung_up, pass_input
from kubesvc.node.logs import LogFile, LogPipe


class Run:
    """A container's run without a container: its pipes, and what it would read."""

    def __init__(self, directory: Path, *, tty: bool = False, stdin_once: bool = False) -> None:
        self.file = LogFile(directory / "0.log", RealClock(), 1 << 20, 2)
        self.stdin_once = stdin_once
        if tty:
            self.terminal = Terminal(directory / "0.tty", self.file)
            self.pipes: list[LogPipe] = [self.terminal]
            self.reads = self.terminal.for_container()
            self.input: ContainerInput | None = ContainerInput(os.dup(self.terminal.fd))
        else:
            self.pipes = [LogPipe(directory / f"0.{s}", s, self.file) for s in ("stdout", "stderr")]
            self.reads, near = os.pipe()
            self.input = ContainerInput(near)

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.drain()
        self.file.close()
        if self.input is not None:
            self.input.close()
        os.close(self.reads)


class Client:
    """The other end of an attachment."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, channel: int, data: bytes) -> None:
        self.writer.write(FRAME.pack(channel, len(data)) + data)

    async def receive(self) -> tuple[int, bytes]:
        channel, size = FRAME.unpack(await self.reader.readexactly(FRAME.size))
        return channel, await self.reader.readexactly(size)


def attached(
    directory: Path, test: Callable[[Run, Client], Awaitable[None]], *, tty: bool = False, once: bool = False
) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        run = Run(directory, tty=tty, stdin_once=once)
        client = Client(*await asyncio.open_unix_connection(sock=near))
        ends = await asyncio.open_unix_connection(sock=far)
        session = asyncio.create_task(Attachment(run, *ends, stdin=True).run())
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
                await test(run, client)
                client.writer.close()
                await session
        finally:
            session.cancel()
            ends[1].close()

    asyncio.run(main())


async def read_soon(fd: int) -> bytes:
    """What comes from a pipe that is not waited for."""
    while True:
        try:
            return os.read(fd, 100)
        except BlockingIOError:
            await asyncio.sleep(0.005)


def test_output_comes_on_its_channel_and_ends_with_the_run(tmp_path: Path) -> None:
    async def test(run: Run, client: Client) -> None:
        out, err = (pipe.for_container() for pipe in run.pipes)
        os.write(out, b"out")
        assert await client.receive() == (1, b"out")
        os.write(err, b"err\n")
        assert await client.receive() == (2, b"err\n")
        os.write(out, b" last")
        run.end()
        assert await client.receive() == (1, b" last")
        channel, data = await client.receive()
        assert (channel, json.loads(data)) == (3, {"exitCode": 0})
        os.close(out)
        os.close(err)
        assert b"out last" in (tmp_path / "0.log").read_bytes(), "the log has it all the same"

    attached(tmp_path, test)


@pytest.mark.parametrize("once", [False, True])
def test_stdin_ends_with_its_client_where_it_is_for_one_client_only(tmp_path: Path, once: bool) -> None:
    async def test(run: Run, client: Client) -> None:
        client.send(0, b"hello")
        client.send(255, b"\0")
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, os.read, run.reads, 100) == b"hello"
        os.set_blocking(run.reads, False)
        if once:
            assert await read_soon(run.reads) == b""
        else:
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                os.read(run.reads, 100)
        run.end()

    attached(tmp_path, test, once=once)


def test_a_terminal_is_read_written_and_sized(tmp_path: Path) -> None:
    async def test(run: Run, client: Client) -> None:
        client.send(4, b'{"Width": 90, "Height": 30}')
        client.send(0, b"typed\n")
        assert await client.receive() == (1, b"typed\r\n")  # the terminal's echo
        assert os.read(run.reads, 100) == b"typed\n"
        assert termios.tcgetwinsize(run.reads) == (30, 90)
        os.write(run.reads, b"said\n")
        assert await client.receive() == (1, b"said\r\n")
        run.end()
        assert (await client.receive())[0] == 3

    attached(tmp_path, test, tty=True)


def test_input_waits_for_who_reads_it_and_wakes_when_closed() -> None:
    async def main() -> None:
        far, near = os.pipe()
        input = ContainerInput(near)
        writing = asyncio.create_task(input.write(bytes(1 << 20)))
        await asyncio.sleep(0.02)
        assert not writing.done()
        taken = 0
        while taken < 1 << 20:
            taken += len(await asyncio.to_thread(os.read, far, 1 << 16))
        await writing
        writing = asyncio.create_task(input.write(bytes(1 << 20)))
        await asyncio.sleep(0.02)
        input.close()
        with pytest.raises(ConnectionResetError):
            await writing
        os.close(far)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_client_that_leaves_while_nobody_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesvc.node.attach.LOOK_SECONDS", 0.02)

    async def main() -> None:
        near, far = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=near)
        reads, writes = os.pipe()
        input = ContainerInput(writes)
        giving = asyncio.create_task(pass_input(input, bytes(1 << 20), writer))
        await asyncio.sleep(0.05)
        assert not giving.done() and not hung_up(writer)
        far.close()
        with pytest.raises(ConnectionResetError):
            await giving
        writer.close()
        input.close()
        os.close(reads)

    asyncio.run(asyncio.wait_for(main(), 60))
