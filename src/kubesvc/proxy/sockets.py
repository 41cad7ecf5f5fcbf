"""A front as a socket: connections or datagrams that come in are passed on to whom `choose` names.

Knows nothing of Services. A front that should refuse keeps its port without listening at it, so that clients are told
at once and nobody else takes it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from asyncio import DatagramProtocol, DatagramTransport, StreamReader, StreamWriter
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, cast

from kubesvc.clock import Clock

from .traffic import Target

log = logging.getLogger(__name__)

Choice = Target | Literal["refuse", "drop"]
Choose = Callable[[str], Choice]
"""From a client's address to where its flow goes."""
Reach = Callable[[Target], tuple[str, int]]
"""Where to connect to for a target: the target itself, but for tests."""

CONNECT_SECONDS = 20.0
DROPPED_SECONDS = 60.0
"""How long a connection that should be dropped is left without answer; the kernel took it before we were asked."""
CHUNK_BYTES = 1 << 16
BACKLOG = 128
DISCARD_PORT = 9


class Limits:
    """What all fronts of a process share: how many flows there may be.

    udp_idle_seconds: how long a UDP flow lives without a datagram
    """

    def __init__(self, *, tcp: int = 4096, udp: int = 4096, udp_idle_seconds: float = 60.0) -> None:
        self.tcp = tcp
        self.udp = udp
        self.udp_idle_seconds = udp_idle_seconds
        self.connections = 0
        self.flows: OrderedDict[tuple[int, tuple[str, int]], UdpFlow] = OrderedDict()
        """By (number of the front, client), the longest idle first."""

    @contextmanager
    def connection(self) -> Iterator[bool]:
        """Whether there is room for one more, which is kept for as long as this lasts."""
        room = self.connections < self.tcp
        self.connections += room
        try:
            yield room
        finally:
            self.connections -= room

    def enter(self, key: tuple[int, tuple[str, int]], flow: UdpFlow) -> None:
        """Keep a UDP flow; the one that was idle for longest goes if there are too many."""
        while len(self.flows) >= self.udp:
            _, oldest = self.flows.popitem(last=False)
            oldest.close()
        self.flows[key] = flow


def bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket that does not listen yet. OSError if the port is taken."""
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.setblocking(False)
    except BaseException:
        s.close()
        raise
    return s


class TcpFront:
    """One address and port at which connections are taken and passed on, byte by byte, both ways.

    `port` is the number it got; it keeps it, open or refusing, until `close`.
    """

    def __init__(self, address: str, port: int, choose: Choose, limits: Limits, reach: Reach) -> None:
        self.address = address
        self.choose = choose
        self.limits = limits
        self.reach = reach
        self.socket: socket.socket | None = bind(address, port, socket.SOCK_STREAM)
        self.port: int = self.socket.getsockname()[1]
        self.server: asyncio.Server | None = None
        self.flows: dict[asyncio.Task[None], None] = {}

    async def open(self) -> None:
        """Take connections from now on."""
        if self.server is None:
            sock = self.socket or bind(self.address, self.port, socket.SOCK_STREAM)
            self.socket = None
            self.server = await asyncio.start_server(self._accept, sock=sock, limit=CHUNK_BYTES, backlog=BACKLOG)

    def refuse(self) -> None:
        """Take none from now on; those that are there go on (PROXY-43)."""
        if self.server is not None:
            self.server.close()
            self.server = None
            self.socket = bind(self.address, self.port, socket.SOCK_STREAM)

    def close(self) -> None:
        """Give up the port and end all connections."""
        if self.server is not None:
            self.server.close()
        if self.socket is not None:
            self.socket.close()
        for task in list(self.flows):
            task.cancel()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.flows[task] = None
        try:
            with self.limits.connection() as room:
                await self._pass_on(reader, writer, room=room)
        except OSError:
            reset(writer)
        except asyncio.CancelledError:
            reset(writer)
        finally:
            del self.flows[task]
            writer.close()

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter, *, room: bool) -> None:
        client = writer.get_extra_info("peername")[0]
        choice: Choice = self.choose(client) if room else "refuse"
        if choice == "drop":
            with suppress(TimeoutError):
                async with asyncio.timeout(DROPPED_SECONDS):
                    while await reader.read(CHUNK_BYTES):
                        pass
            choice = "refuse"
        if isinstance(choice, str):
            reset(writer)
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                there = await asyncio.open_connection(*self.reach(choice), limit=CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            log.debug("%s: %s", choice, error)
            reset(writer)  # PROXY-32: nobody else is tried
            return
        try:
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        except OSError:
            reset(writer)
            reset(there[1])
        finally:
            there[1].close()


async def pump(source: StreamReader, sink: StreamWriter) -> None:
    """Pass on what comes until it ends, and then that it ended."""
    while data := await source.read(CHUNK_BYTES):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def reset(writer: StreamWriter) -> None:
    """End a connection so that the other side is told something went wrong."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class UdpFlow(DatagramProtocol):
    """One client's datagrams at one front, and the answers."""

    def __init__(self, front: UdpFront, client: tuple[str, int], target: Target, now: float) -> None:
        self.front = front
        self.client = client
        self.target = target
        self.used = now
        self.transport: DatagramTransport | None = None
        self.ended = False
        self.waiting: list[bytes] = []
        """Datagrams that came before the socket was there; few, as that takes no time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(DatagramTransport, transport)  # asyncio's own is none by its class
        if self.ended:  # before its socket was there
            self.transport.close()
            return
        for data in self.waiting:
            self.transport.sendto(data)
        self.waiting = []

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.sendto(data)
        elif len(self.waiting) < 16:
            self.waiting.append(data)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        self.front.answer(self, data)

    def error_received(self, error: Exception) -> None:
        log.debug("%s: %s", self.target, error)  # nobody listens there: as lost as any datagram

    def close(self) -> None:
        self.ended = True
        if self.transport is not None:
            self.transport.close()


class UdpFront(DatagramProtocol):
    """One address and port at which datagrams are taken and passed on; flows are kept by client (PROXY-72 to 75)."""

    numbers = iter(range(1 << 62))

    def __init__(self, address: str, port: int, choose: Choose, limits: Limits, reach: Reach, clock: Clock) -> None:
        self.address = address
        self.choose = choose
        self.limits = limits
        self.reach = reach
        self.clock = clock
        self.number = next(UdpFront.numbers)
        self.socket: socket.socket | None = bind(address, port, socket.SOCK_DGRAM)
        self.port: int = self.socket.getsockname()[1]
        self._deafen(self.socket)
        self.twin: socket.socket | None = None
        """The open transport's socket once more, to be kept when that one is closed."""
        self.transport: DatagramTransport | None = None
        self.tasks: dict[asyncio.Task[None], None] = {}

    def _deafen(self, sock: socket.socket) -> None:
        """Connected to nobody in particular, the kernel refuses what comes from others."""
        sock.connect((self.address, DISCARD_PORT))

    async def open(self) -> None:
        if self.transport is None:
            if self.socket is not None:
                self.socket.close()
                self.socket = None
                await asyncio.sleep(0)  # the transport that shared it is closed by now as well
            sock = bind(self.address, self.port, socket.SOCK_DGRAM)
            self.twin = sock.dup()
            self.transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)

    def refuse(self) -> None:
        if self.transport is not None:
            self.socket, self.twin = self.twin, None
            assert self.socket is not None
            self._deafen(self.socket)
            self.transport.abort()
            self.transport = None

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        for sock in (self.socket, self.twin):
            if sock is not None:
                sock.close()
        for task in list(self.tasks):
            task.cancel()
        self.forget(lambda _: True)

    def forget(self, stale: Callable[[Target], bool]) -> int:
        """End the flows whose target is stale; how many those were."""
        gone = [k for k, flow in self.limits.flows.items() if k[0] == self.number and stale(flow.target)]
        for key in gone:
            self.limits.flows.pop(key).close()
        return len(gone)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        client = (str(address[0]), address[1])
        key = (self.number, client)
        now = self.clock.monotonic()
        flow = self.limits.flows.get(key)
        if flow is not None and now - flow.used > self.limits.udp_idle_seconds:
            self.limits.flows.pop(key).close()
            flow = None
        if flow is None:
            choice = self.choose(client[0])
            if isinstance(choice, str):
                return
            flow = UdpFlow(self, client, choice, now)
            self.limits.enter(key, flow)
            task = asyncio.ensure_future(self._connect(key, flow))
            self.tasks[task] = None
            task.add_done_callback(self.tasks.pop)
        flow.used = now
        self.limits.flows.move_to_end(key)
        flow.send(data)

    async def _connect(self, key: tuple[int, tuple[str, int]], flow: UdpFlow) -> None:
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: flow, remote_addr=self.reach(flow.target))
        except OSError as error:
            log.debug("%s: %s", flow.target, error)
            if self.limits.flows.get(key) is flow:  # not a newer one of the same client
                del self.limits.flows[key]

    def answer(self, flow: UdpFlow, data: bytes) -> None:
        """Send an endpoint's datagram back to its client."""
        flow.used = self.clock.monotonic()
        key = (self.number, flow.client)
        if self.transport is not None and self.limits.flows.get(key) is flow:
            self.limits.flows.move_to_end(key)
            self.transport.sendto(data, flow.client)
