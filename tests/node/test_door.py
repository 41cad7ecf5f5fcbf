"""Connections that a node's door carries on: how their two ends end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from kubesvc.kernel.process import Spawner
from kubesvc.node import door
from kubesvc.node.attach import FRAME, has_left
from kubesvc.node.door import ExecRequest, Session, join


async def carried(directory: Path) -> tuple[socket.socket, asyncio.StreamReader, asyncio.StreamWriter]:
    """(the client's end, the far end's two streams) of a connection through `join`."""
    far: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.get_running_loop().create_future()

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far.set_result((reader, writer))

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await join(reader, writer, *await asyncio.open_unix_connection(str(directory / "far")))
        finally:
            writer.close()

    await asyncio.start_unix_server(arrive, str(directory / "far"))
    await asyncio.start_unix_server(enter, str(directory / "near"))
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, str(directory / "near"))
    return client, *await far


def test_an_end_of_one_direction_is_passed_on(tmp_path: Path) -> None:
    """NODE-112: a client that has said all still hears all, however late it comes."""

    async def scenario() -> None:
        client, reader, writer = await carried(tmp_path)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"question")
        client.shutdown(socket.SHUT_WR)
        assert await reader.read() == b"question"
        await asyncio.sleep(1.5)  # it is looked at once a second
        writer.write(b"answer")
        writer.close()
        assert await loop.sock_recv(client, 99) == b"answer" and await loop.sock_recv(client, 99) == b""
        client.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_client_that_leaves_takes_its_connection_along(tmp_path: Path) -> None:
    """NODE-112: also if the far end, which has heard the end of what the client says, neither speaks nor closes."""

    async def scenario() -> None:
        client, reader, writer = await carried(tmp_path)
        client.close()
        assert await reader.read() == b""
        while not has_left(writer):
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def executed(program: list[str], quiet_seconds: float) -> tuple[bytes, object]:
    """What a client hears of a program that reads nothing for so long, and the last word."""
    near, far = socket.socketpair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reader, writer = await asyncio.open_unix_connection(sock=near)
    wanted = ExecRequest(command=program, node=True)
    ends = await asyncio.open_unix_connection(sock=far)
    spawner = Spawner()
    running = asyncio.create_task(Session(spawner, wanted, [], program, dict(os.environ), *ends).run())
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(quiet_seconds)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert await reader.readline() == b'{"ok": true}\n'
    said = b""
    while True:
        channel, size = FRAME.unpack(await reader.readexactly(FRAME.size))
        data = await reader.readexactly(size)
        if channel == door.STATUS:
            writer.close()
            await running
            spawner.close()
            ends[1].close()
            return said, json.loads(data)
        said += data


def test_a_client_that_reads_slowly_hears_all_of_an_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """NODE-100: however long ago the program has ended that said it."""
    monkeypatch.setattr(door, "QUIET_SECONDS", 0.3)

    async def scenario() -> None:
        said, end = await executed(["head", "-c", "120000", "/dev/zero"], 2.0)
        assert (len(said), end) == (120_000, {"exitCode": 0})

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_who_holds_the_streams_of_an_exec_open_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "QUIET_SECONDS", 0.3)

    async def scenario() -> None:
        said, end = await executed(["sh", "-c", "sleep 5 & echo said; exit 3"], 0.0)
        assert (said, end) == (b"said\n", {"exitCode": 3})

    asyncio.run(asyncio.wait_for(scenario(), 60))
