"""UDP and TCP sockets in front of a responder. One pair for each address, so that answers leave from where the query
came to (DNS-49)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .durations import Durations
from .responder import Answers

DATAGRAM_BYTES = 4096
"""Longest query that is read; a longer one is cut and then malformed."""
AT_ONCE = 256
"""Most datagrams answered before the loop serves others."""
RECEIVE_BUFFER_BYTES = 2 << 20
SO_RCVBUFFORCE = 33
"""Linux has it, Python does not name it."""
MOST_WAITING = 1000
"""Most queries that may wait for other resolvers at a time (DNS-53)."""
PIPELINE = 64
"""Most unanswered queries of one connection; then its reading pauses."""
WRITE_BUFFER_BYTES = 1 << 17
SHARE = 64
"""Datagrams of one source that are answered at once; what it has beyond waits until the others had their turn."""
MOST_READ = 1024
"""Most datagrams read before the loop serves others, when one source sends more than its share."""
WAITING_SHARE = 250
"""Most queries of one source that may wait for other resolvers at a time: a quarter of all places."""


class CannotListen(Exception):
    """An address could not be bound; the message says which, why and what to do."""


def bound_socket(kind: socket.SocketKind, address: str, port: int, *, shared: bool = False) -> socket.socket:
    """A non-blocking socket at the address; IPv6 ones take IPv6 only. shared: with other processes of this user, among
    which the kernel spreads clients."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if sys.platform == "linux":
                with suppress(OSError):  # beyond what the machine gives to everybody, for whoever runs its network
                    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(256)
    except OSError as error:
        sock.close()
        protocol = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        hint = "is the address here, and nobody else listening?"
        if isinstance(error, PermissionError):
            hint = "ports below 1024 need the right to bind them"
        raise CannotListen(
            f"DNS cannot listen on {address} port {port} ({protocol}): {error.strerror}: {hint}"
        ) from error
    return sock


class UdpListener:
    """Answers datagrams: everything that waits is read and answered in one go.

    A flood from one source costs the others little: beyond its share its datagrams come last, and are lost, unread,
    when there is no time left for them.
    """

    def __init__(self, sock: socket.socket, responder: Answers, durations: Durations | None = None) -> None:
        """durations: told how long each answer took, if anybody wants to know"""
        self.sock = sock
        self.responder = responder
        self.durations = durations
        self.tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Responses that were not sent: the socket's buffer was full, or the client is out of reach."""
        self.limited = 0
        """Datagrams that got no answer because their source had sent too many."""
        self.waiting: dict[str, int] = {}
        """Queries that wait for other resolvers, by source."""

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._drain)

    def close(self) -> None:
        with suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self.sock.fileno())
        for task in self.tasks:
            task.cancel()
        self.sock.close()

    def _drain(self) -> None:
        receive, reply = self.sock.recvfrom, self._reply if self.durations is None else self._reply_timed
        seen: dict[str, int] = {}
        late: list[tuple[bytes, Any]] = []
        answered = 0
        for _ in range(MOST_READ):
            if answered >= AT_ONCE:
                break
            try:
                query, client = receive(DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error about an earlier answer; the next datagram is fine
            source = client[0]
            count = seen[source] = seen.get(source, 0) + 1
            if count > SHARE:
                late.append((query, client))
                if len(seen) == 1 and len(late) >= AT_ONCE - SHARE:
                    break  # nobody else is there: it may have it all
                continue
            answered += 1
            reply(query, client)
        if late:
            room = max(0, AT_ONCE - answered)
            for query, client in late[:room]:
                reply(query, client)
            self.limited += len(late) - min(room, len(late))

    def _reply(self, query: bytes, client: Any) -> bool:
        """Answer now, or see to it that it is answered later; whether it was now."""
        response = self.responder.answer(query)
        if type(response) is bytes:
            try:
                self.sock.sendto(response, client)
            except OSError:
                self.dropped += 1
            return True
        if callable(response):
            self._later(response, client)
        return False

    def _reply_timed(self, query: bytes, client: Any) -> None:
        durations = self.durations
        assert durations is not None
        started = durations.monotonic()
        if self._reply(query, client):
            durations.since(started)

    def _later(self, response: Callable[[], Any], client: Any) -> None:
        source = client[0]
        if len(self.tasks) >= MOST_WAITING or self.waiting.get(source, 0) >= WAITING_SHARE:
            self.limited += 1
            return
        self.waiting[source] = self.waiting.get(source, 0) + 1
        durations = self.durations
        started = durations.monotonic() if durations else 0.0

        async def send() -> None:
            try:
                answer = await response()
            finally:
                self.waiting[source] -= 1
                if not self.waiting[source]:
                    del self.waiting[source]
            try:
                self.sock.sendto(answer, client)
            except OSError:
                self.dropped += 1
            if durations:
                durations.since(started)

        task = asyncio.get_running_loop().create_task(send())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class TcpListener:
    """Answers connections: any number of queries on each, answers as they are ready (DNS-47)."""

    def __init__(
        self,
        sock: socket.socket,
        responder: Answers,
        *,
        connections: int = 256,
        idle_seconds: float = 10.0,
        durations: Durations | None = None,
    ) -> None:
        """connections: most at a time, further ones are closed at once; idle_seconds: without a whole query, closed;
        durations: as for UDP"""
        self.sock = sock
        self.durations = durations
        self.responder = responder
        self.connections = connections
        self.idle_seconds = idle_seconds
        self.open: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        start = asyncio.start_unix_server if self.sock.family == socket.AF_UNIX else asyncio.start_server
        self.server = await start(self._serve, sock=self.sock, limit=WRITE_BUFFER_BYTES)

    async def close(self) -> None:
        if self.server is None:
            self.sock.close()
            return
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.open) >= self.connections:
            writer.transport.abort()
            return
        self.open.add(writer)
        try:
            async with asyncio.TaskGroup() as group:
                await self._converse(reader, writer, group)
        except ExceptionGroup:
            pass  # the connection broke, or the client does not read
        except asyncio.CancelledError:
            pass  # the listener closes
        finally:
            self.open.discard(writer)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, group: asyncio.TaskGroup
    ) -> None:
        room = asyncio.Semaphore(PIPELINE)
        durations = self.durations

        async def later(response: Callable[[], Any], started: float) -> None:
            try:
                self._write(writer, await response())
                if durations:
                    durations.since(started)
            finally:
                room.release()

        while True:
            try:
                async with asyncio.timeout(self.idle_seconds):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    query = await reader.readexactly(length)
            except (asyncio.IncompleteReadError, TimeoutError):
                return  # it asks no more; what is under way is still answered
            started = durations.monotonic() if durations else 0.0
            response = self.responder.answer(query, tcp=True)
            if isinstance(response, bytes):
                self._write(writer, response)
                if durations:
                    durations.since(started)
            elif response is None:
                return  # not a query: nothing sensible will follow
            else:
                await room.acquire()
                group.create_task(later(response, started))
            async with asyncio.timeout(self.idle_seconds):
                await writer.drain()  # a client that does not read holds up only itself

    @staticmethod
    def _write(writer: asyncio.StreamWriter, response: bytes) -> None:
        writer.write(len(response).to_bytes(2, "big") + response)
