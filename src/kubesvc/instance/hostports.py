"""Ways in from the host: node ports at the instance's own loopback address, and load balancers' addresses at loopback
addresses of their own, pass connections on into a node.

For each port of a Service a listener (TCP) or a socket (UDP) stands there, while the Service has it. The far end is
opened inside a node's namespace, through that node's door (`node/door.py`), to the node's own address or to the load
balancer's, so that what answers is the node's proxy; to it such a client is the node itself (PROXY-46). A port that
somebody else holds is reported as an Event on the Service and shown by `status`; the Service works all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from kubesvc.api.kinds import SERVICE
from kubesvc.api.service import Service
from kubesvc.client.events import EventRecorder
from kubesvc.client.informer import Informer

from .balancer import balanced_addresses, host_address
from .relay import Relay

MOST_UDP_CLIENTS = 256
UDP_IDLE_SECONDS = 60.0
RETRY_SECONDS = 5.0


class Way(NamedTuple):
    """One port on the host: where it listens, and where it leads inside a node; "" is the node's own address."""

    host: str
    protocol: str
    port: int
    inside: str = ""

    def text(self) -> str:
        what = f"port {self.port}/{self.protocol} of {self.inside}" if self.inside else f"node port {self.port}"
        return what if self.inside else f"{what}/{self.protocol}"


class DoorRefused(OSError):
    """A node's door could not open the way."""


async def open_door(door: Path, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream from inside a node, after its door accepted `request`. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(str(door))
    writer.write(request.encode() + b"\n")
    await writer.drain()
    answer = json.loads(await reader.readline() or b'{"error": "the node closed its door"}')
    if "error" in answer:
        writer.close()
        raise DoorRefused(str(answer["error"]))
    return reader, writer


class UdpRelay(asyncio.DatagramProtocol):
    """One UDP node port: each client gets a flow of its own inside the node, so answers find their way back."""

    def __init__(self, dial: Callable[[], tuple[Path, str]]) -> None:
        self.dial = dial
        self.flows: OrderedDict[tuple[str, int], asyncio.Queue[bytes]] = OrderedDict()
        self.tasks: set[asyncio.Task[None]] = set()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the class.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        queue = self.flows.get(addr)
        if queue is None:
            if len(self.flows) >= MOST_UDP_CLIENTS:
                return  # UDP may be lost; better here than memory without end
            queue = self.flows[addr] = asyncio.Queue(64)
            task = asyncio.ensure_future(self.serve(addr, queue))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(data)

    async def serve(self, client: tuple[str, int], queue: asyncio.Queue[bytes]) -> None:
        """Carry one client's datagrams until it has been silent for a minute."""
        try:
            reader, writer = await open_door(*self.dial())
        except OSError:
            self.flows.pop(client, None)
            return
        answers = asyncio.ensure_future(self.answer(client, reader))
        try:
            while True:
                async with asyncio.timeout(UDP_IDLE_SECONDS):
                    data = await queue.get()
                writer.write(struct.pack("!H", len(data)) + data)
                await writer.drain()
        except (TimeoutError, OSError):
            pass
        finally:
            self.flows.pop(client, None)
            answers.cancel()
            writer.close()

    async def answer(self, client: tuple[str, int], reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                data = await reader.readexactly(size)
                if self.transport is not None:
                    self.transport.sendto(data, client)

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.transport is not None:
            self.transport.close()


def reason_of(error: OSError) -> str:
    """The kernel's words for it; event loops put others of their own into `strerror`."""
    return os.strerror(error.errno) if error.errno else str(error)


class HostPorts:
    """Keeps the listeners of one instance in step with its Services.

    address: the instance's loopback address. doors: by node name, the node's door and address, as they are now.
    problems: told the lines that `status` shows, whenever they change. ranges: the load balancers' pool; networks: the
    loopback networks where they answer, by IP version (`claim_host_network`).
    """

    def __init__(
        self,
        services: Informer[Service],
        events: EventRecorder,
        address: str,
        doors: Callable[[], Mapping[str, tuple[Path, str]]],
        problems: Callable[[list[str]], None],
        ranges: Sequence[str] = (),
        networks: Mapping[int, int] | None = None,
    ) -> None:
        self.services = services
        self.events = events
        self.address = address
        self.doors = doors
        self.problems = problems
        self.ranges = tuple(ranges)
        self.networks = networks or {}
        self.open: dict[Way, asyncio.Server | UdpRelay] = {}
        self.relays: dict[Way, Relay] = {}
        self.refused: dict[Way, str] = {}
        self.changed = asyncio.Event()
        self.turn = 0
        services.on_change(lambda *_: self.changed.set())

    def wanted(self) -> dict[Way, Service]:
        """The ways there should be, each with its Service."""
        found: dict[Way, Service] = {}
        for service in self.services.values():
            if service.spec.type not in ("NodePort", "LoadBalancer"):
                continue
            for port in service.spec.ports or ():
                protocol = port.protocol or "TCP"
                if port.node_port:
                    found[Way(self.address, protocol, port.node_port)] = service
                for address in balanced_addresses(service, self.ranges):
                    found[Way(host_address(self.networks, address), protocol, port.port, address)] = service
        return found

    async def run(self) -> None:
        """Follow the Services until cancelled, then close everything."""
        await self.services.synced.wait()
        try:
            while True:
                await self.sync()
                with contextlib.suppress(TimeoutError):  # a port that was taken may be free by now
                    async with asyncio.timeout(RETRY_SECONDS if self.refused else None):
                        await self.changed.wait()
                self.changed.clear()
        finally:
            for key in list(self.open):
                await self.close(key)

    async def sync(self) -> None:
        wanted = self.wanted()
        for key in [k for k in self.open if k not in wanted]:
            await self.close(key)
        before = dict(self.refused)
        self.refused = {k: v for k, v in self.refused.items() if k in wanted}
        for key, service in sorted(wanted.items(), key=lambda item: item[0]):
            if key not in self.open:
                await self.listen(key, service)
        if self.refused != before:
            self.problems(list(self.refused.values()))

    async def listen(self, key: Way, service: Service) -> None:
        protocol, port = key.protocol, key.port
        try:
            if protocol == "TCP":
                relay = Relay(lambda: self.dial(key))
                self.open[key] = await asyncio.start_server(relay.accept, key.host, port)
                self.relays[key] = relay
            elif protocol == "UDP":
                loop = asyncio.get_running_loop()
                _, udp = await loop.create_datagram_endpoint(
                    lambda: UdpRelay(lambda: self.udp_door(key)), local_addr=(key.host, port)
                )
                self.open[key] = udp
            else:
                return  # SCTP answers inside the nodes only
            self.refused.pop(key, None)
        except OSError as error:
            text = (
                f"{key.text()} of Service {service.namespace}/{service.name} does not answer on "
                f"{key.host}: {reason_of(error)}; it answers inside the nodes"
            )
            if key not in self.refused:
                self.events.event(SERVICE, service, "Warning", "HostPortTaken", text)
            self.refused[key] = text

    async def close(self, key: Way) -> None:
        found = self.open.pop(key, None)
        if found is not None:
            found.close()
        relay = self.relays.pop(key, None)
        if relay is not None:
            await relay.close()

    def next_door(self) -> tuple[Path, str]:
        """A door and its node's address, taking the nodes in turn. Raises OSError without any."""
        doors = self.doors()
        if not doors:
            raise DoorRefused("no node is there to answer")
        names = sorted(doors)
        self.turn += 1
        return doors[names[self.turn % len(names)]]

    async def dial(self, way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        door, address = self.next_door()
        return await open_door(door, f"tcp {way.inside or address} {way.port}")

    def udp_door(self, way: Way) -> tuple[Path, str]:
        door, address = self.next_door()
        return door, f"udp {way.inside or address} {way.port}"
