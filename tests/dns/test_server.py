"""The server on real sockets of the loopback address, asked by independent resolvers."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from kubesvc.client import Client
from kubesvc.clock import RealClock
from kubesvc.dns import DnsServer, DnsSettings
from kubesvc.dns.listeners import CannotListen

from .cluster import HTTP, SHOP, ListWatchClient, endpoint, endpoint_slice, headless, service

S = "shop.svc.cluster.local"
HERE = (("127.0.0.1", 0),)


def serving(
    body: Callable[[DnsServer, ListWatchClient], Awaitable[None]],
    client: ListWatchClient | None = None,
    **settings: Any,
) -> None:
    async def main() -> None:
        source = client or ListWatchClient(*SHOP)
        chosen = DnsSettings(**({"addresses": HERE} | settings))
        server = DnsServer(cast(Client, source), chosen, RealClock(), random.Random(1))
        running = asyncio.create_task(server.run())
        await asyncio.wait_for(server.listening.wait(), 60)
        try:
            await asyncio.wait_for(body(server, source), 60)
        finally:
            assert not running.done(), running
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


async def udp(server: DnsServer, name: str, type_: str = "A", at: int = 0, **more: Any) -> dns.message.Message:
    host, port = server.addresses[at]
    return await dns.asyncquery.udp(dns.message.make_query(name, type_, **more), host, 60, port)


async def tcp(server: DnsServer, name: str, type_: str = "A") -> dns.message.Message:
    host, port = server.addresses[0]
    return await dns.asyncquery.tcp(dns.message.make_query(name, type_), host, 60, port)


def addresses(message: dns.message.Message) -> list[str]:
    return sorted(str(item) for rrset in message.answer for item in rrset)


def test_udp_and_tcp_say_the_same() -> None:
    """DNS-50."""

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        for ask in (udp, tcp):
            assert addresses(await ask(server, f"web.{S}")) == ["10.96.1.2"]
            assert addresses(await ask(server, f"db.{S}")) == ["10.244.0.7", "10.244.0.8"]
            assert (await ask(server, f"nosuch.{S}")).rcode() == dns.rcode.NXDOMAIN
            assert addresses(await ask(server, "2.1.96.10.in-addr.arpa", "PTR")) == [f"web.{S}."]

    serving(body)


def test_a_large_answer_is_truncated_and_whole_over_tcp() -> None:
    """DNS-47, BUG-25."""
    many = [endpoint(f"10.244.{i // 250}.{i % 250 + 1}") for i in range(300)]
    client = ListWatchClient(*SHOP, headless("big"), endpoint_slice("big", "big", *many, ports=(HTTP,)))

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        cut = await udp(server, f"big.{S}")
        assert cut.flags & dns.flags.TC
        assert len(addresses(await tcp(server, f"big.{S}"))) == 300

    serving(body, client)


def test_what_takes_its_time_after_the_lists_comes_before_the_first_answer() -> None:
    told: list[tuple[bool, int]] = []

    async def main() -> None:
        client = cast(Client, ListWatchClient(*SHOP))
        chosen = DnsSettings(addresses=HERE)
        server = DnsServer(
            client, chosen, RealClock(), random.Random(1),
            settled=lambda: told.append((server.ready, len(server.snapshot.services))),
        )  # fmt: skip
        running = asyncio.create_task(server.run())
        await asyncio.wait_for(server.listening.wait(), 60)
        assert addresses(await udp(server, f"web.{S}")) == ["10.96.1.2"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    services = sum(type(obj).__name__ == "Service" for obj in SHOP)
    assert told == [(False, services)], "once, with all lists in, and nothing answered yet"


def test_changes_are_followed() -> None:
    """DNS-1, DNS-29."""

    async def eventually(server: DnsServer, name: str, expected: list[str]) -> None:
        async with asyncio.timeout(60):
            while addresses(await udp(server, name)) != expected:
                await asyncio.sleep(0.01)

    async def body(server: DnsServer, client: ListWatchClient) -> None:
        assert (await udp(server, f"new.{S}")).rcode() == dns.rcode.NXDOMAIN
        new = service("new", ips=("10.96.7.7",))
        client.put(new)
        await eventually(server, f"new.{S}", ["10.96.7.7"])
        client.put(service("new", type="ExternalName", externalName=f"web.{S}"))
        await eventually(server, f"new.{S}", ["10.96.1.2", f"web.{S}."])
        client.remove(new)
        await eventually(server, f"new.{S}", [])
        client.put(endpoint_slice("db-1", "db", endpoint("10.244.0.7", ready=False, serving=True), ports=(HTTP,)))
        client.put(endpoint_slice("db-2", "db", endpoint("10.244.0.30"), ports=(HTTP,)))
        await eventually(server, f"db.{S}", ["10.244.0.30"])

    serving(body)


def test_queries_wait_for_the_lists_a_while_and_then_get_servfail() -> None:
    """DNS-42."""
    late = ListWatchClient(*SHOP)
    late.gate.clear()

    async def body(server: DnsServer, client: ListWatchClient) -> None:
        assert not server.ready
        assert (await udp(server, f"web.{S}")).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - began >= 0.3
        client.gate.set()
        async with asyncio.timeout(60):
            while not server.ready:
                await asyncio.sleep(0.01)
        assert addresses(await udp(server, f"web.{S}")) == ["10.96.1.2"]

    began = time.monotonic()
    serving(body, late, sync_seconds=0.3)


def test_answers_leave_from_the_address_that_was_asked() -> None:
    """DNS-49: a connected socket takes nothing from elsewhere; two addresses, one server."""

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2", "::1"]
        for at in range(3):
            assert addresses(await udp(server, f"web.{S}", at=at)) == ["10.96.1.2"]

    serving(body, addresses=(("127.0.0.1", 0), ("127.0.0.2", 0), ("::1", 0)))


def framed(name: str, id_: int) -> bytes:
    raw = dns.message.make_query(name, "A", id=id_).to_wire()
    return len(raw).to_bytes(2, "big") + raw


async def read_one(reader: asyncio.StreamReader) -> dns.message.Message:
    length = int.from_bytes(await reader.readexactly(2), "big")
    return dns.message.from_wire(await reader.readexactly(length))


def test_many_queries_on_one_connection_whole_or_in_crumbs() -> None:
    """DNS-47: pipelined, and split at any byte."""

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"".join(framed(f"web.{S}", i) for i in range(200)))
        assert [(await read_one(reader)).id for _ in range(200)] == list(range(200))
        for byte in framed(f"idle.{S}", 300):
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.001)
        assert (await read_one(reader)).id == 300
        writer.write(framed(f"web.{S}", 301))
        writer.write_eof()
        assert (await read_one(reader)).id == 301, "who closes its side still gets its answer"
        assert await reader.read() == b""
        writer.close()

    serving(body)


def test_connections_are_bounded_and_idle_ones_end() -> None:
    async def body(server: DnsServer, _: ListWatchClient) -> None:
        host, port = server.addresses[0]
        first = [await asyncio.open_connection(host, port) for _ in range(3)]
        for reader, writer in first:
            writer.write(framed(f"web.{S}", 1))
            await read_one(reader)
        reader, writer = await asyncio.open_connection(host, port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            writer.write(framed(f"web.{S}", 1))
            await read_one(reader)
        writer.close()
        server.tcp[0].idle_seconds = 0.1
        for reader, writer in first:
            writer.write(framed(f"web.{S}", 2))  # and no more
            await read_one(reader)
            assert await asyncio.wait_for(reader.read(), 60) == b"", "idle for too long"
            writer.close()
        async with asyncio.timeout(60):
            while server.tcp[0].open:
                await asyncio.sleep(0.01)
        server.tcp[0].idle_seconds = 60.0
        assert addresses(await tcp(server, f"web.{S}")) == ["10.96.1.2"]

    serving(body, tcp_connections=3, tcp_idle_seconds=60.0)


def test_a_client_that_never_reads_is_held_up_and_then_left() -> None:
    """What it asks for is not piled up in memory."""
    many = [endpoint(f"10.244.{i // 250}.{i % 250 + 1}") for i in range(1000)]
    client = ListWatchClient(*SHOP, headless("big"), endpoint_slice("big", "big", *many, ports=(HTTP,)))

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, server.addresses[0])
            sock.send(framed(f"big.{S}", 1) * 1000)  # answers of 16 kB each
            most = 0
            async with asyncio.timeout(60):
                while not (most and not server.tcp[0].open):
                    for writer in server.tcp[0].open:
                        most = max(most, writer.transport.get_write_buffer_size())
                    await asyncio.sleep(0.01)
            assert most < 1 << 18

    serving(body, client, tcp_idle_seconds=1.0)


def test_noise_harms_nobody() -> None:
    """Malformed datagrams get FORMERR or silence, and the next client its answer."""

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        chance = random.Random(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            for i in range(2000):
                sock.sendto(chance.randbytes(chance.randrange(0, 600)), server.addresses[0])
                if i % 100 == 0:
                    await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"\xff\xff" + chance.randbytes(70000))
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert addresses(await udp(server, f"web.{S}")) == ["10.96.1.2"]
        assert addresses(await tcp(server, f"web.{S}")) == ["10.96.1.2"]

    serving(body)


@pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed")
def test_dig_agrees() -> None:
    """DNS-50: an independent resolver, search list included, over both transports."""

    async def body(server: DnsServer, _: ListWatchClient) -> None:
        host, port = server.addresses[0]
        for transport in ("+notcp", "+tcp"):
            for name, type_, expected in (
                (f"web.{S}", "A", "10.96.1.2"),
                (f"dual.{S}", "AAAA", "fd00:96::3"),
                (f"_http._tcp.web.{S}", "SRV", f"0 100 80 web.{S}."),
                (f"out.{S}", "CNAME", "www.example.com."),
                ("dns-version.cluster.local", "TXT", '"1.1.0"'),
            ):
                arguments = [f"@{host}", "-p", str(port), transport, "+short", "+time=3", "+tries=1", name, type_]
                dig = await asyncio.create_subprocess_exec("dig", *arguments, stdout=asyncio.subprocess.PIPE)
                output = (await dig.communicate())[0]
                assert output.decode().strip() == expected, (transport, name)

    serving(body)


def test_an_address_that_cannot_be_bound_is_told_at_once() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            settings = DnsSettings(addresses=(("127.0.0.1", 0), ("127.0.0.1", port)))
            server = DnsServer(cast(Client, ListWatchClient()), settings, RealClock(), random.Random(1))
            with pytest.raises(
                CannotListen, match=rf"DNS cannot listen on 127.0.0.1 port {port} \(UDP\): Address already"
            ):
                await server.run()

    asyncio.run(main())


BAD_SETTINGS = (
    ({"ttl": 3601}, "ttl: 3601: must be from 0 to 3600"),
    ({"addresses": ()}, "at least one"),
    ({"addresses": (("localhost", 53),)}, "must be an IP address"),
    ({"addresses": (("0.0.0.0", 53),)}, "name each address"),
    ({"zone": "a..b"}, "zone: "),
    ({"zone": "."}, "zone: must not be empty"),
)


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DnsSettings(**settings)
