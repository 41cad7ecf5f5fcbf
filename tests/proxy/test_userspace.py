"""The packet table against real sockets: endpoints that answer with their name, and no privilege."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from kubesvc.clock import LoopClock
from kubesvc.proxy.backend import Standpoint
from kubesvc.proxy.sockets import Limits, UdpFront
from kubesvc.proxy.traffic import Family, PortTraffic, Target
from kubesvc.proxy.userspace import LOOPBACK, Listing, UserspaceBackend, UserspaceBackends

from .objects import ADDRESSES, ALSO_HERE, HERE, A, B, C, ready, vip
from .packets import (
    AFFINITY,
    CASES,
    DROPPED,
    REFUSED,
    Case,
    M,
    Make,
    both_protocols,
    node_port,
    plain,
    planned,
    udp,
    web,
)
from .test_packets import ROWS, named, options, row_id

NO_SCTP = "a process has no SCTP to pass on"
UNLISTED = "nobody listens at what is not listed"
BEYOND_SOCKETS: tuple[tuple[str, str], ...] = (
    ("SCTP goes to an endpoint", NO_SCTP),
    ("SCTP without endpoints is refused", NO_SCTP),
    (
        "PROXY-42: a port the Service does not have is refused; by iptables passed",
        UNLISTED,
    ),
    (
        "PROXY-42: an address of the range that nobody owns is dropped; by iptables passed",
        UNLISTED,
    ),
    ("PROXY-42: the node is dropped there too; by iptables passed", UNLISTED),
    ("PROXY-2: an address that another proxy serves is nobody's here; by iptables passed", UNLISTED),
    ("PROXY-6: an old address of an ExternalName is nobody's; by iptables passed", UNLISTED),
    ("PROXY-49: the port number alone is no front elsewhere", UNLISTED),
)
"""Rows that no proxying socket can make true, with the reason. Besides, no endpoint sees its client's address
(PROXY-46, 55), and TCP connections that are dropped elsewhere are taken here and left without answer (PROXY-39, 51)."""
TRIES = 60


class Endpoints:
    """A server per pod and protocol at loopback, whatever port was asked for; answers who it is."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.tcp: list[asyncio.Server] = []
        self.udp: list[asyncio.DatagramTransport] = []

    async def open(self, family: Family) -> None:
        loop = asyncio.get_running_loop()
        for who in (A, B, C, HERE):

            async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str = who) -> None:
                writer.write(who.encode())
                writer.close()

            while True:
                server = await asyncio.start_server(serve, LOOPBACK[family], 0)
                port = server.sockets[0].getsockname()[1]
                try:
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda who=who: Echo(who),  # type: ignore[misc]
                        (LOOPBACK[family], port),
                    )
                    break
                except OSError:  # somebody has the port of that number for datagrams
                    server.close()
            self.ports[ADDRESSES[family][who]] = port
            self.tcp.append(server)
            self.udp.append(transport)

    def close(self) -> None:
        for server in self.tcp:
            server.close()
        for transport in self.udp:
            transport.close()


class Echo(asyncio.DatagramProtocol):
    """Answers every datagram with a name."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        assert self.transport
        self.transport.sendto(self.who.encode(), address)


class House:
    """A userspace backend of one family and the endpoints behind it; `sender` is whose address clients count as."""

    def __init__(self, family: Family, file: Path | None = None, limits: Limits | None = None) -> None:
        self.family = family
        self.endpoints = Endpoints()
        self.sender = A
        self.listing = Listing(file)
        self.makers = UserspaceBackends(
            LoopClock(asyncio.get_running_loop()),
            random.Random(1),
            self.listing,
            limits=limits,
            reach=lambda target: (LOOPBACK[family], self.endpoints.ports[target.address]),
            source_of=lambda _, family: ADDRESSES[family][self.sender],
        )
        backend = self.makers(family)
        assert isinstance(backend, UserspaceBackend)
        self.backend = backend
        self.backend.stand(Standpoint(options(family), (ADDRESSES[family][HERE],)))

    async def show(self, make: Make) -> None:
        plans = planned(Case("", make, A, web, 80, frozenset()), self.family)
        gone: dict[tuple[str, str], tuple[PortTraffic, ...]] = dict.fromkeys(self.backend.ports, ())
        await self.backend.change(gone | plans)
        await self.backend.forget_records(list(plans))

    def at(self, to: str, port: int, protocol: str) -> int:
        """The loopback port that stands for a front; 0 if none does."""
        own = (ADDRESSES[self.family][HERE], ALSO_HERE[self.family], LOOPBACK[self.family])
        for entry in self.listing.entries.get(self.family, ()):
            fronts = (str(Target(to, port)), *((f"*:{port}",) if to in own else ()))
            if entry.protocol == protocol and entry.front in fronts:
                return int(entry.at.rpartition(":")[2])
        return 0

    async def ask(self, to: str, port: int, protocol: str = "TCP", *, seconds: float = 10.0) -> str:
        number = self.at(to, port, protocol)
        if not number:
            return named(to, self.family)
        return await (ask_tcp if protocol == "TCP" else ask_udp)(LOOPBACK[self.family], number, seconds)


async def ask_tcp(address: str, port: int, seconds: float) -> str:
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return REFUSED
    try:
        async with asyncio.timeout(seconds):
            return (await reader.read(100)).decode() or "nothing"
    except TimeoutError:
        return DROPPED
    except ConnectionResetError:
        return REFUSED
    finally:
        writer.transport.abort()


async def ask_udp(address: str, port: int, seconds: float) -> str:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.connect((address, port))
        return await ask_by(s, seconds)


async def ask_by(s: socket.socket, seconds: float = 10.0) -> str:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            await loop.sock_sendall(s, b"who")
            return (await loop.sock_recv(s, 100)).decode()
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return DROPPED


async def until(check: Callable[[], object]) -> None:
    """Wait until this holds."""
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def house(
    family: Family = "IPv4", file: Path | None = None, limits: Limits | None = None
) -> AsyncIterator[House]:
    made = House(family, file, limits)
    await made.endpoints.open(family)
    try:
        yield made
    finally:
        await made.backend.clean_up()
        made.endpoints.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize(("case", "family"), ROWS, ids=row_id)
def test_packet(case: Case, family: Family) -> None:
    if any(case.name == name for name, _ in BEYOND_SOCKETS):
        return  # shown in the table above; test_rows_beyond_sockets_exist keeps it honest
    wanted = {fate.removesuffix(M) for fate in case.fate_by("userspace", family)}

    async def main() -> None:
        async with house(family) as h:
            h.sender = case.sender
            await h.backend.change(planned(case, family))
            found = set()
            seconds = 0.05 if wanted == {DROPPED} else 10.0
            for _ in range(1 if len(wanted) == 1 or "affinity" in case.tags else TRIES):
                found.add(await h.ask(case.to(family), case.port, case.protocol, seconds=seconds))
                if found == wanted:
                    break
            assert found == wanted or ("affinity" in case.tags and found < wanted)

    asyncio.run(main())


def test_rows_beyond_sockets_exist() -> None:
    """The table of what userspace cannot do names rows of the packet table, and no row is left out in silence."""
    names = [case.name for case in CASES]
    assert all(name in names for name, _ in BEYOND_SOCKETS)
    assert len(BEYOND_SOCKETS) == 8


def test_endpoints_come_and_go() -> None:
    """The loopback port stays the same; with no endpoint it refuses, and takes connections again at once."""

    async def main() -> None:
        async with house() as h:
            numbers = set()
            for who in ((A,), (), (B,), (), (C,)):
                await h.show(plain(ready(*who)))
                await asyncio.sleep(0)
                assert await h.ask(vip("IPv4"), 80) == (who[0] if who else REFUSED)
                numbers.add(h.at(vip("IPv4"), 80, "TCP"))
            assert len(numbers) == 1
            await h.show(lambda family: ((), ()))
            assert h.listing.told == [] and h.backend.held == {}

    asyncio.run(main())


def test_a_connection_outlives_its_endpoint_in_the_rules() -> None:
    """PROXY-31, 43: what is established goes on, both ways, and half-closed as well."""

    async def main() -> None:
        async with house() as h:
            got: list[bytes] = []

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                got.append(await reader.read(-1))
                writer.write(b"x" * 300_000)
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            h.endpoints.ports[ADDRESSES["IPv4"][A]] = server.sockets[0].getsockname()[1]
            await h.show(plain(ready(A)))
            reader, writer = await asyncio.open_connection("127.0.0.1", h.at(vip("IPv4"), 80, "TCP"))
            writer.write(b"y" * 200_000)
            await writer.drain()
            await h.show(plain())
            writer.write_eof()
            assert len(await reader.read(-1)) == 300_000 and len(got[0]) == 200_000
            writer.close()
            server.close()

    asyncio.run(main())


def test_udp_client_follows_a_replaced_pod() -> None:
    """PROXY-73 to 77: one client socket; flows to an endpoint that is gone end, and none while there is no other."""

    async def main() -> None:
        async with house() as h:
            await h.show(udp(ready(A)))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.connect(("127.0.0.1", h.at(vip("IPv4"), 53, "UDP")))
                assert await ask_by(s) == A
                await h.show(udp(ready(A, B)))
                assert {await ask_by(s) for _ in range(8)} == {A}, "a flow stays"
                await h.show(udp())
                assert await ask_by(s) == REFUSED
                await h.show(udp(ready(B)))
                assert await ask_by(s) == B

    asyncio.run(main())


def test_udp_flows_are_bounded_and_end_when_idle() -> None:
    async def main() -> None:
        limits = Limits(udp=5, udp_idle_seconds=60)
        async with house(limits=limits) as h:
            await h.show(udp(ready(A, B)))
            number = h.at(vip("IPv4"), 53, "UDP")
            for _ in range(20):
                assert await ask_udp("127.0.0.1", number, 10.0) in (A, B)
            assert len(limits.flows) == 5
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.connect(("127.0.0.1", number))
                await ask_by(s)
                flow = next(reversed(limits.flows.values()))
                flow.used -= 61
                await ask_by(s)
                assert next(reversed(limits.flows.values())) is not flow

    asyncio.run(main())


def test_flows_that_end_before_their_socket_is_there_keep_none() -> None:
    """A burst of more clients in one turn of the loop than there may be: whoever has to go takes its socket along."""

    async def main() -> None:
        limits, clock = Limits(udp=2), LoopClock(asyncio.get_running_loop())
        target = Target("127.0.0.1", 9)
        front = UdpFront("127.0.0.1", 0, lambda _: target, limits, lambda t: (t.address, t.port), clock)
        before = len(os.listdir("/proc/self/fd"))
        for port in range(1, 51):
            front.datagram_received(b"?", ("127.0.0.1", port))
        await until(lambda: not front.tasks)
        assert len(limits.flows) == 2
        await until(lambda: len(os.listdir("/proc/self/fd")) - before == 2)
        front.close()
        await until(lambda: len(os.listdir("/proc/self/fd")) < before)

    gc.collect()  # what earlier tests left is not closed meanwhile
    asyncio.run(main())


def test_connections_are_bounded() -> None:
    async def main() -> None:
        async with house(limits=Limits(tcp=2)) as h:

            async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.read()
                writer.close()

            silent = await asyncio.start_server(wait, "127.0.0.1", 0)
            h.endpoints.ports[ADDRESSES["IPv4"][A]] = silent.sockets[0].getsockname()[1]
            await h.show(plain(ready(A)))
            number = h.at(vip("IPv4"), 80, "TCP")
            kept = [await asyncio.open_connection("127.0.0.1", number) for _ in range(2)]
            await until(lambda: h.makers.limits.connections == 2)
            assert await ask_tcp("127.0.0.1", number, 10.0) in (REFUSED, "nothing")
            for _, writer in kept:
                writer.transport.abort()
            await until(lambda: h.makers.limits.connections == 0)
            silent.close()

    asyncio.run(main())


def test_affinity() -> None:
    """PROXY-59 to 62: a client stays, over all fronts; a leaving endpoint takes its records along."""

    async def main() -> None:
        async with house() as h:
            await h.show(node_port(ready(A, B, C), **AFFINITY))
            first = await h.ask(vip("IPv4"), 80)
            assert {await h.ask(vip("IPv4"), 80) for _ in range(16)} == {first}
            number = h.at(ADDRESSES["IPv4"][HERE], 30080, "TCP")
            assert number == 30080 and await h.ask(ADDRESSES["IPv4"][HERE], 30080) == first
            left = [who for who in (A, B, C) if who != first]
            await h.show(node_port(ready(*left), **AFFINITY))
            second = await h.ask(vip("IPv4"), 80)
            assert second in left and {await h.ask(vip("IPv4"), 80) for _ in range(16)} == {second}
            await h.show(node_port(ready(A, B, C), **AFFINITY))
            assert {await h.ask(vip("IPv4"), 80) for _ in range(16)} == {second}
            await h.show(plain(ready(A, B, C)))
            assert len({await h.ask(vip("IPv4"), 80) for _ in range(TRIES)}) == 3, "PROXY-63"

    asyncio.run(main())


def test_affinity_runs_out() -> None:
    """PROXY-60."""

    async def main() -> None:
        async with house() as h:
            await h.show(plain(ready(A, B, C), **AFFINITY))
            first = await h.ask(vip("IPv4"), 80)
            found = set()
            for _ in range(TRIES):
                (client, (target, used)), *_ = next(iter(h.backend.records.values())).items()
                next(iter(h.backend.records.values()))[client] = (target, used - 101)
                found.add(await h.ask(vip("IPv4"), 80))
            assert found == {A, B, C} and first in found

    asyncio.run(main())


def test_the_listing(tmp_path: Path) -> None:
    """Every front with its loopback port, in a file; ports are the same after a restart."""
    file = tmp_path / "services.json"

    async def once() -> dict[str, str]:
        async with house(file=file) as h:
            await h.show(both_protocols)
            known = json.loads(file.read_text())
            assert known["mode"] == "userspace"
            assert {(f["service"], f["kind"], f["front"], f["protocol"]) for f in known["fronts"]} == {
                ("shop/web", "ClusterIP", "10.96.0.1:53", "TCP"),
                ("shop/web", "ClusterIP", "10.96.0.1:53", "UDP"),
            }
            copy = file.read_bytes()
        file.write_bytes(copy)  # as a process leaves it that is killed
        return {f["protocol"]: f["at"] for f in known["fronts"]}

    assert asyncio.run(once()) == asyncio.run(once())
    file.write_text("no json")
    assert len(asyncio.run(once())) == 2


def test_a_node_port_that_is_taken_is_told_and_tried_again() -> None:
    async def main() -> None:
        async with house() as h:
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", 30080))
                other.listen()
                await h.show(node_port(ready(A)))
                (entry,) = [e for e in h.listing.entries["IPv4"] if e.kind == "node port"]
                assert entry.state == "failed" and "in use" in entry.error
                assert not await h.backend.audit()
            assert await h.backend.audit()
            assert await h.ask(ADDRESSES["IPv4"][HERE], 30080) == A

    asyncio.run(main())


def test_nobody_else_is_tried_after_a_failed_connect() -> None:
    """PROXY-32."""

    async def main() -> None:
        async with house() as h:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                h.endpoints.ports[ADDRESSES["IPv4"][A]] = closed.getsockname()[1]
                await h.show(plain(ready(A)))
                assert await h.ask(vip("IPv4"), 80) in (REFUSED, "nothing")

    asyncio.run(main())
