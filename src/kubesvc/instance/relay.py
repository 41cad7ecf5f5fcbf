"""Byte relays between two streams: the API's address inside nodes, and the ways in from the host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

CHUNK_BYTES = 65536
MOST_CONNECTIONS = 1024

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then half-close the sink; a broken sink ends it quietly."""
    try:
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except (ConnectionError, OSError):
        sink.close()


async def join_streams(
    here: tuple[asyncio.StreamReader, asyncio.StreamWriter], there: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Relay both directions until both have ended, then close both."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(here[0], there[1]))
            group.create_task(pump(there[0], here[1]))
    finally:
        for writer in (here[1], there[1]):
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()


class Relay:
    """Accepts connections and joins each to one made by `dial`; at most MOST_CONNECTIONS at a time.

    A connection that cannot be continued is closed at once, as a host with nothing listening would do.
    """

    def __init__(self, dial: Dial) -> None:
        self.dial = dial
        self.connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Callback for asyncio.start_server and its kin."""
        if len(self.connections) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self.serve(reader, writer))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self.dial()
        except (OSError, ConnectionError):
            writer.transport.abort()
            return
        with contextlib.suppress(ConnectionError, OSError):
            await join_streams((reader, writer), there)

    async def close(self) -> None:
        for task in self.connections:
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)
