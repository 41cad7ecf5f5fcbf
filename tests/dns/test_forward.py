"""Names outside the cluster: whom to ask, how long to believe it, and what when nobody answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.client import Client
from kubesvc.clock import LoopClock, RealClock, run_virtual
from kubesvc.dns import DnsServer, DnsSettings, ForwardSettings, UpstreamForwarder, upstreams_of, wire
from kubesvc.dns.cache import Cache, key_of
from kubesvc.dns.forward import MOST_AT_ONCE, Network, Place
from kubesvc.dns.records import Zone
from kubesvc.dns.relay import relay_listener
from kubesvc.dns.responder import NotForwarded, Overloaded, Responder, Unanswered
from kubesvc.dns.wire import CNAME, NS, NXDOMAIN, SERVFAIL, SOA, A, Edns, Message, Question, Record, Soa, name_of

from .cluster import SHOP, ListWatchClient, snapshot_of

ONE, TWO, THREE = ("192.0.2.1", 53), ("192.0.2.2", 53), ("192.0.2.3", 53)
ADDRESS = b"\xc0\x00\x02\x50"


def query(name: str, id_: int = 1, type_: int = A, edns: Edns | None = None) -> bytes:
    return wire.encode(Message(id=id_, recursion_desired=True, questions=(Question(name_of(name), type_),), edns=edns))


def reply(raw: bytes, *records: Record, rcode: int = 0, authority: tuple[Record, ...] = ()) -> bytes:
    asked = wire.decode(raw)
    return wire.encode(
        Message(
            id=asked.id, response=True, recursion_desired=True, recursion_available=True, rcode=rcode,
            questions=asked.questions, answers=records, authority=authority,
        )
    )  # fmt: skip


class FakeNetwork:
    """Resolvers that answer, lie or are away, as told; every question is written down."""

    def __init__(self) -> None:
        self.behaviour: dict[Place, Callable[[bytes], bytes | Exception]] = {}
        self.asked: list[tuple[Place, str, bool]] = []
        self.slow = 0.0

    async def ask(self, place: Place, query: bytes, tcp: bool) -> bytes:
        (question,) = wire.decode(query).questions
        self.asked.append((place, wire.name_text(question.name), tcp))
        await asyncio.sleep(self.slow)
        behaviour = self.behaviour.get(place)
        answer = behaviour(query) if behaviour else reply(query, Record(question.name, A, 300, ADDRESS))
        if isinstance(answer, Exception):
            raise answer
        return answer


def away(_: bytes) -> Exception:
    return TimeoutError()


class World:
    """A forwarder in virtual time over a fake network."""

    def __init__(self, settings: ForwardSettings) -> None:
        self.network = FakeNetwork()
        self.clock = LoopClock(asyncio.get_running_loop())
        self.forwarder = UpstreamForwarder(settings, self.clock, random.Random(4), self.network)

    async def ask(self, name: str = "example.com", id_: int = 1, **more: object) -> Message:
        return wire.decode(await self.forwarder.exchange(query(name, id_, **more), False))  # type: ignore[arg-type]

    @property
    def places(self) -> list[Place]:
        return [place for place, _, _ in self.network.asked]


def test_stub_domains_win_the_longest_first() -> None:
    """DNS-52."""

    async def main() -> None:
        world = World(
            ForwardSettings(upstreams=(ONE,), stub_domains={"Corp.example.": (TWO,), "lab.corp.example": (THREE,)})
        )
        expected = {
            "example": ONE, "corp.example": TWO, "a.CORP.example": TWO, "xcorp.example": ONE,
            "lab.corp.example": THREE, "a.b.lab.corp.example": THREE, "corp.example.com": ONE,
        }  # fmt: skip
        for name in expected:
            await world.ask(name)
        assert world.places == list(expected.values())

    run_virtual(main())


def test_names_of_no_domain_are_asked_of_nobody_where_only_domains_have_resolvers() -> None:
    """They get what names get that are not forwarded at all."""

    async def main() -> None:
        world = World(ForwardSettings(stub_domains={"corp.example": (TWO,)}))
        await world.ask("a.corp.example")
        with pytest.raises(NotForwarded):
            await world.ask("example.com")
        assert world.places == [TWO]
        for others, rcode in (("REFUSED", wire.REFUSED), ("NXDOMAIN", wire.NXDOMAIN)):
            to = Responder(snapshot_of(*SHOP), Zone(), forwarder=world.forwarder, others=others)  # type: ignore[arg-type]
            pending = to.answer(query("example.com", 9))
            assert callable(pending)
            said = wire.decode(await pending())
            assert (said.id, said.rcode, said.answers) == (9, rcode, ())

    run_virtual(main())


def test_kept_answers_age_and_are_spelled_as_asked() -> None:
    """DNS-45, DNS-46, DNS-6: at most 30 s, at least 5 s, TTLs counting down, the id and the case of each question."""

    async def main() -> None:
        world = World(ForwardSettings(upstreams=(ONE,)))
        assert (await world.ask("Example.com")).answers[0].ttl == 300
        await asyncio.sleep(20.5)
        later = await world.ask("eXAMPLE.COM", id_=77)
        assert (later.id, later.questions[0].name, later.answers[0].name) == (77, *[(b"eXAMPLE", b"COM")] * 2)
        assert later.answers[0].ttl == 280 and len(world.places) == 1
        await world.ask("example.com", edns=Edns(1232))
        assert len(world.places) == 2, "with EDNS the answer may be another"
        await asyncio.sleep(10)
        assert (await world.ask()).answers[0].ttl == 300
        assert len(world.places) == 3

    run_virtual(main())


SOA_DATA = Soa(name_of("ns.example"), name_of("root.example"), 1, 2, 3, 4, 7)
KEPT_SECONDS = (
    ("a long TTL: 30 s", {"answers": (Record((b"x",), A, 3600, ADDRESS),)}, 30),
    ("a TTL of 1: 5 s", {"answers": (Record((b"x",), A, 1, ADDRESS),)}, 5),
    ("nothing: the SOA's minimum", {"rcode": NXDOMAIN, "authority": (Record((), SOA, 900, SOA_DATA),)}, 7),
    ("nothing, without SOA: 5 s", {"rcode": NXDOMAIN}, 5),
    ("SERVFAIL: 5 s", {"rcode": SERVFAIL}, 5),
    ("REFUSED: not at all", {"rcode": wire.REFUSED}, 0),
    ("truncated: not at all", {"truncated": True, "answers": (Record((b"x",), A, 60, ADDRESS),)}, 0),
)


@pytest.mark.parametrize(("content", "seconds"), [c[1:] for c in KEPT_SECONDS], ids=[c[0] for c in KEPT_SECONDS])
def test_how_long_answers_are_kept(content: dict[str, object], seconds: int) -> None:
    """DNS-45."""
    cache, raw = Cache(), query("x")
    key = key_of(wire.decode(raw))
    response = wire.encode(Message(id=1, response=True, questions=(Question((b"x",), A),), **content))  # type: ignore[arg-type]
    cache.put(key, response, 100.0)
    assert (cache.get(key, raw, 100.0) is not None) == (seconds > 0)
    assert seconds == 0 or cache.get(key, raw, 100.0 + seconds - 0.01) is not None
    assert cache.get(key, raw, 100.0 + seconds) is None and not cache.entries


@given(st.binary(max_size=60))
def test_what_cannot_be_read_is_not_kept(noise: bytes) -> None:
    cache, raw = Cache(2), query("x")
    cache.put(key_of(wire.decode(raw)), reply(raw) + noise, 0.0)
    cache.put(key_of(wire.decode(raw)), noise, 0.0)
    assert len(cache.entries) == (not noise)
    for i in range(5):
        other = query(f"x{i}")
        cache.put(key_of(wire.decode(other)), reply(other), 0.0)
        assert len(cache.entries) <= 2


def test_the_next_resolver_is_asked_when_one_fails_and_a_dead_one_is_left_out_until_it_answers() -> None:
    """DNS-53."""

    async def main() -> None:
        world = World(ForwardSettings(upstreams=(ONE, TWO)))
        world.network.behaviour[ONE] = away
        for i in range(4):
            assert (await world.ask(f"a{i}.example")).answers
        await asyncio.sleep(3)
        before = len(world.network.asked)
        for i in range(10):
            assert (await world.ask(f"b{i}.example")).answers
        asked = [(place, name) for place, name, _ in world.network.asked[before:]]
        assert ONE not in [place for place, name in asked if name != "."], "down after two failed probes"
        del world.network.behaviour[ONE]
        await asyncio.sleep(1)
        for i in range(10):
            await world.ask(f"c{i}.example")
        assert ONE in world.places[-10:]
        world.network.behaviour |= {ONE: away, TWO: away}
        with pytest.raises(Unanswered):
            await world.ask("d.example")
        await asyncio.sleep(3)
        count = len(world.places)
        with pytest.raises(Unanswered):
            await world.ask("e.example")
        assert len(world.places) > count, "when all are down they are asked all the same"
        await world.forwarder.close()

    run_virtual(main())


def test_lies_are_not_believed() -> None:
    """A response to another question, with another id, or no response at all."""

    async def main() -> None:
        world = World(ForwardSettings(upstreams=(ONE,)))
        lies: tuple[Callable[[bytes], bytes], ...] = (
            lambda q: reply(query("other.example", int.from_bytes(q[:2], "big"))),
            lambda q: bytes((q[0] ^ 1,)) + reply(q)[1:],
            lambda q: q,
            lambda q: reply(q)[:-3],
            lambda q: b"",
        )
        for i, lie in enumerate(lies):
            world.network.behaviour[ONE] = lie
            with pytest.raises(Unanswered):
                await world.ask(f"x{i}.example")
        assert not world.forwarder.cache.entries
        await world.forwarder.close()

    run_virtual(main())


def test_too_many_at_once_are_refused() -> None:
    """DNS-53."""

    async def main() -> None:
        world = World(ForwardSettings(upstreams=(ONE,)))
        world.network.slow = 1
        outcomes = await asyncio.gather(
            *(world.ask(f"x{i}.example") for i in range(MOST_AT_ONCE + 5)), return_exceptions=True
        )
        assert [type(o) for o in outcomes].count(Overloaded) == 5
        assert world.forwarder.under_way == 0

    run_virtual(main())


def test_lookup_gives_the_addresses_and_the_links_to_them() -> None:
    """DNS-25; a truncated answer is asked for again over TCP."""

    async def main() -> None:
        world = World(ForwardSettings(upstreams=(ONE,)))
        www, cdn = name_of("www.example.com"), name_of("cdn.example.net")
        full = (Record(www, CNAME, 9, cdn), Record(cdn, A, 9, ADDRESS), Record(cdn, NS, 9, cdn))

        def answer(raw: bytes) -> bytes:
            if not world.network.asked[-1][2]:
                message = wire.decode(reply(raw))
                return wire.encode(Message(id=message.id, response=True, truncated=True, questions=message.questions))
            return reply(raw, *full)

        world.network.behaviour[ONE] = answer
        assert await world.forwarder.lookup(Question(www, A)) == full[:2]
        assert [tcp for _, _, tcp in world.network.asked] == [False, True]

    run_virtual(main())


def test_a_server_that_would_ask_itself_is_refused() -> None:
    """DNS-55."""
    for place in (("127.0.0.1", 5353), ("::ffff:127.0.0.1", 5353)):
        with pytest.raises(ValueError, match="is this DNS server itself: every question would come back"):
            DnsSettings(addresses=(("127.0.0.1", 5353),), forward=ForwardSettings(upstreams=(place,)))
        with pytest.raises(ValueError, match="itself"):
            DnsSettings(addresses=(("127.0.0.1", 5353),), forward=ForwardSettings(stub_domains={"a": (ONE, place)}))
    DnsSettings(addresses=(("127.0.0.1", 5353),), forward=ForwardSettings(upstreams=(("127.0.0.1", 53), Path("/x"))))


def test_resolvers_of_a_resolver_file() -> None:
    text = "search a b\nnameserver 192.0.2.1\n#nameserver 1.1.1.1\nnameserver ::1\nnameserver 192.0.2.1\nnameserver x\n"
    assert upstreams_of(text) == (("192.0.2.1", 53), ("::1", 53))


def test_from_a_pod_through_two_servers_and_a_unix_socket_to_another_cluster(tmp_path: Path) -> None:
    """All the way on real sockets: UDP and TCP in, over a relay in the file system, UDP and TCP out."""
    path = tmp_path / "names.sock"

    async def main() -> None:
        clock, chance = RealClock(), random.Random(3)
        async with AsyncExitStack() as stack:

            async def start(server: DnsServer) -> tuple[str, int]:
                running = asyncio.create_task(server.run())
                stack.callback(running.cancel)
                await asyncio.wait_for(server.listening.wait(), 60)
                return server.addresses[0]

            client = cast(Client, ListWatchClient(*SHOP))
            here = (("127.0.0.1", 0),)
            far = await start(DnsServer(client, DnsSettings(zone="far.example", addresses=here), clock, chance))
            helper = UpstreamForwarder(ForwardSettings(upstreams=(far,)), clock, chance)
            relay = relay_listener(path, helper)
            await relay.start()
            stack.push_async_callback(relay.close)
            assert path.stat().st_mode & 0o77 == 0
            settings = DnsSettings(addresses=here, forward=ForwardSettings(upstreams=(path,)))
            host, port = await start(DnsServer(client, settings, clock, chance))

            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
                near = await ask(dns.message.make_query("web.shop.svc.cluster.local", "A"), host, 60, port)
                assert [str(i) for r in near.answer for i in r] == ["10.96.1.2"]
                away = await ask(dns.message.make_query("dual.shop.svc.far.example", "AAAA"), host, 60, port)
                assert [str(i) for r in away.answer for i in r] == ["fd00:96::3"]
                nobody = await ask(dns.message.make_query("www.example.com", "A"), host, 60, port)
                assert nobody.rcode() == dns.rcode.REFUSED
            path.unlink()
            lost = await dns.asyncquery.udp(dns.message.make_query("new.example", "A"), host, 60, port)
            assert lost.rcode() == dns.rcode.SERVFAIL

    asyncio.run(main())


def test_the_network_door_over_udp_and_tcp() -> None:
    """The real transport against our own server."""

    async def main() -> None:
        settings = DnsSettings(addresses=(("127.0.0.1", 0),))
        server = DnsServer(cast(Client, ListWatchClient(*SHOP)), settings, RealClock(), random.Random(1))
        running = asyncio.create_task(server.run())
        await asyncio.wait_for(server.listening.wait(), 60)
        for tcp in (False, True):
            raw = await Network().ask(server.addresses[0], query("web.shop.svc.cluster.local"), tcp)
            assert wire.decode(raw).answers[0].data == bytes((10, 96, 1, 2))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(OSError):
            await Network().ask(("127.0.0.1", 1), query("x"), True)

    asyncio.run(main())
