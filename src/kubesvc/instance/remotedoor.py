"""The way into joined nodes: a node's door, which elsewhere is a unix socket, at its own address over TLS.

The API server connects to the node; in the TLS that follows, the node is the client and the API server the server. So
the certificates that both have anyway serve: the node's says which node it is, the API server's that it is the API
server, and both ends check the other's against the cluster's CA. TLS knows no half-closed streams: when one side has
nothing more to say, both are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubesvc.client.kubeconfig import Access

from .pki import Pki
from .relay import CHUNK_BYTES, MOST_CONNECTIONS

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
SERVER_NAME = "kubernetes"
"""A name that every API server's certificate covers, whatever its addresses."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then close the sink."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
    sink.close()


async def join(here: Streams, there: Streams) -> None:
    """Relay both directions until both have ended."""
    try:
        await asyncio.gather(pump(here[0], there[1]), pump(there[0], here[1]))
    finally:
        for _, writer in (here, there):
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


# ---------------------------------------------------------------- the API server's side


class RemoteDoors:
    """Opens doors of joined nodes with the instance's own certificates. Raises OSError for what does not answer, or is
    not the node it should be."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.context: ssl.SSLContext | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, node: str, address: str, port: int) -> socket.socket:
        """A connected, non-blocking socket to the node's door."""
        context = self.tls()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                wire = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
                try:
                    wire.setblocking(False)
                    await loop.sock_connect(wire, (address, port))
                    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
                    protocol = asyncio.StreamReaderProtocol(reader)
                    transport, _ = await loop.connect_accepted_socket(lambda: protocol, wire, ssl=context)
                except BaseException:
                    wire.close()
                    raise
        except TimeoutError:
            raise OSError(f"no answer from {address}:{port}") from None
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        if named(transport.get_extra_info("peercert")) != f"system:node:{node}":
            writer.close()
            raise OSError(f"what answers at {address}:{port} is another node")
        near, far = socket.socketpair()
        near.setblocking(False)
        task = asyncio.ensure_future(self.relay(far, (reader, writer)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return near

    async def relay(self, far: socket.socket, wire: Streams) -> None:
        with contextlib.suppress(OSError):
            await join(await asyncio.open_unix_connection(sock=far), wire)

    def tls(self) -> ssl.SSLContext:
        if self.context is None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.pki.ca_cert))
            context.load_cert_chain(self.pki.server_cert, self.pki.server_key)
            context.verify_mode = ssl.CERT_REQUIRED
            self.context = context
        return self.context


def named(certificate: dict[str, Any] | None) -> str:
    """The name (CN) in a checked certificate, "" without one."""
    subject = (certificate or {}).get("subject", ())
    return next((value for part in subject for key, value in part if key == "commonName"), "")


# ---------------------------------------------------------------- the node's side


async def serve_door(address: str, port: int, door: Path, access: Callable[[], Access]) -> None:
    """Let the API server in at this node's door until cancelled. OSError if the address cannot be listened on.

    door:   the agent's own unix socket
    access: what the node's kubeconfig says now; its certificate may have been renewed
    """
    loop = asyncio.get_running_loop()
    listener = socket.create_server(
        (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=64
    )
    listener.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            wire, _ = await loop.sock_accept(listener)
            if len(tasks) >= MOST_CONNECTIONS:
                wire.close()
                continue
            task = asyncio.ensure_future(let_in(wire, door, access))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def let_in(wire: socket.socket, door: Path, access: Callable[[], Access]) -> None:
    """Make sure that the API server is at the other end, and join it with the door."""
    from kubesvc.client.http import tls_context

    loop = asyncio.get_running_loop()
    held: socket.socket | asyncio.StreamWriter = wire
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            context = await asyncio.to_thread(tls_context, access())
            reader = asyncio.StreamReader(limit=CHUNK_BYTES)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=wire, ssl=context, server_hostname=SERVER_NAME
            )
            held = writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            there = await asyncio.open_unix_connection(str(door))
    except BaseException as error:
        held.close()  # once there is a transport the socket is its own, and the loop must be told of its end
        if not isinstance(error, OSError):  # TimeoutError is one
            raise
        log.info("somebody at the door was not let in: %s", error)
        return
    with contextlib.suppress(OSError):
        await join((reader, writer), there)
