"""Byte relays: both directions, half-closed ends, a far end that is not there."""

from __future__ import annotations

import asyncio

from kubesvc.instance.relay import Relay


async def echo_after_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only when the other side has said that it is done: a half-close must pass."""
    writer.write((await reader.read())[::-1])
    writer.close()


async def through(relay: Relay, data: bytes) -> bytes:
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        server.close()
        await relay.close()


def test_a_half_close_passes_and_the_answer_comes_back() -> None:
    async def run() -> bytes:
        far = await asyncio.start_server(echo_after_end, "127.0.0.1", 0)
        address = far.sockets[0].getsockname()[:2]
        try:
            return await through(Relay(lambda: asyncio.open_connection(*address)), b"abc" * 100_000)
        finally:
            far.close()

    assert asyncio.run(run()) == b"cba" * 100_000


def test_a_far_end_that_is_not_there_resets_the_connection() -> None:
    async def nowhere() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError

    async def run() -> str:
        try:
            return repr(await through(Relay(nowhere), b""))
        except ConnectionError as error:
            return type(error).__name__

    assert asyncio.run(run()) in ("ConnectionResetError", "b''")
