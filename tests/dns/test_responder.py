"""From query bytes to response bytes: flags, sizes, EDNS, refusals, and what is kept."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.service import Service
from kubesvc.dns import wire
from kubesvc.dns.records import Zone
from kubesvc.dns.responder import Overloaded, Responder, Unanswered
from kubesvc.dns.snapshot import Snapshot
from kubesvc.dns.wire import Message, Question, Record, name_of

from .cluster import HTTP, SHOP, endpoint, endpoint_slice, headless, service, snapshot_of

S = "shop.svc.cluster.local"
MANY = (
    headless("big", ports=(HTTP,)),
    endpoint_slice("big", "big", *(endpoint(f"10.244.{i // 250}.{i % 250 + 1}") for i in range(500)), ports=(HTTP,)),
)


def reused(to: Responder) -> int:
    """How often a kept response was given out again."""
    return sum(kept.used for kept in to.kept.values())


def responder(snapshot: Snapshot | None = None, **more: object) -> Responder:
    return Responder(snapshot or snapshot_of(*SHOP, *MANY), Zone(), **more)  # type: ignore[arg-type]


def ask(to: Responder, name: str, type_: str = "A", *, tcp: bool = False, **query: object) -> dns.message.Message:
    made = dns.message.make_query(name, type_, **query)  # type: ignore[arg-type]
    response = to.answer(made.to_wire(), tcp)
    assert isinstance(response, bytes)
    read = dns.message.from_wire(response)
    assert made.is_response(read), "id and question are the query's"
    return read


def flags(message: dns.message.Message) -> str:
    return dns.flags.to_text(message.flags)


def test_flags_of_a_cluster_name() -> None:
    """DNS-7; RD comes back, RA only with somebody to forward to."""
    assert flags(ask(responder(), f"web.{S}")) == "QR AA RD"
    assert flags(ask(responder(), f"web.{S}", flags=0)) == "QR AA"
    assert flags(ask(responder(), f"nosuch.{S}", flags=dns.flags.CD)) == "QR AA CD"
    assert flags(ask(responder(forwarder=Helper()), f"web.{S}")) == "QR AA RD RA"


def test_letter_case_comes_back_exactly() -> None:
    """DNS-6, BUG-23."""
    name = "wEb.Shop.SVC.cluster.LOCAL."
    to = responder()
    for spelled in (name, name.lower(), name.upper(), name):
        read = ask(to, spelled)
        assert str(read.question[0].name) == spelled
        assert str(read.answer[0].name) == spelled


class Sized(NamedTuple):
    name: str
    advertised: int | None
    tcp: bool
    most: int
    truncated: bool


SIZES = (
    Sized("no EDNS: 512", None, False, 512, True),
    Sized("EDNS 400: still 512", 400, False, 512, True),
    Sized("EDNS 900: 900", 900, False, 900, True),
    Sized("EDNS 4096: 1232", 4096, False, 1232, True),
    Sized("TCP: all", None, True, 65535, False),
    Sized("TCP with EDNS 512: all", 512, True, 65535, False),
)


@pytest.mark.parametrize("case", SIZES, ids=lambda case: case.name)
def test_size_of_a_large_answer(case: Sized) -> None:
    """DNS-47, BUG-25."""
    edns: dict[str, object] = {"use_edns": False}
    if case.advertised is not None:
        edns = {"use_edns": 0, "payload": case.advertised}
    query = dns.message.make_query(f"big.{S}", "A", **edns)  # type: ignore[arg-type]
    raw = responder().answer(query.to_wire(), case.tcp)
    assert (isinstance(raw, bytes) and case.most - 40 < len(raw) <= case.most) or (case.tcp and isinstance(raw, bytes))
    read = dns.message.from_wire(raw)
    assert bool(read.flags & dns.flags.TC) == case.truncated
    assert len(read.answer[0]) == 500 or case.truncated
    assert (read.edns == 0) == (case.advertised is not None), "OPT comes back iff it came (DNS-48)"


def test_edns() -> None:
    """DNS-48: version 0, DO comes back, options do not; DNS-48: an unknown version is BADVERS."""
    to = responder()
    read = ask(to, f"web.{S}", use_edns=0, want_dnssec=True, options=[dns.edns.GenericOption(10, b"cookie12")])  # type: ignore[arg-type]
    assert (read.edns, read.ednsflags & dns.flags.DO, read.options, read.payload) == (0, dns.flags.DO, (), 1232)
    assert ask(to, f"web.{S}", use_edns=0).ednsflags == 0
    later = ask(to, f"web.{S}", use_edns=1)
    assert later.rcode() == dns.rcode.BADVERS and later.edns == 0 and not later.answer


def header(query: bytes, **change: int) -> bytes:
    fields = dict(zip(("id", "flags", "qd", "an", "ns", "ar"), wire.HEADER.unpack_from(query), strict=True)) | change
    return wire.HEADER.pack(*fields.values()) + query[12:]


QUERY = wire.encode(Message(id=0x1234, recursion_desired=True, questions=(Question(name_of(f"web.{S}"), wire.A),)))
ODD = (
    ("nothing at all", b"", None),
    ("less than a header", QUERY[:11], None),
    ("a response", header(QUERY, flags=0x8000), None),
    ("DNS-41: another opcode", header(QUERY, flags=0x2800), 0x1234_A800_0004),
    ("DNS-41: cut off", QUERY[:-1], 0x1234_8100_0001),
    ("DNS-41: something behind it", QUERY + b"x", 0x1234_8100_0001),
    ("no question", header(QUERY, qd=0)[:12], 0x1234_8100_0001),
    ("two questions", header(QUERY, qd=2) + QUERY[12:], 0x1234_8100_0001),
    ("an answer in the query", header(QUERY, an=1), 0x1234_8100_0001),
    ("thousands of records announced", header(QUERY, ar=65535), 0x1234_8100_0001),
)


@pytest.mark.parametrize(("raw", "start"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_odd_queries(raw: bytes, start: int | None) -> None:
    """`start`: id, flags, code; a response never gets a response, and nor does what has no id."""
    response = responder().answer(raw)
    if start is None:
        assert response is None
    else:
        flags, code = start >> 16 & 0xFFFF, start & 0xF
        assert response == b"\x12\x34" + (flags | code).to_bytes(2, "big") + bytes(8)


def test_refusals() -> None:
    """DNS-41, DNS-51: without a forwarder other names are refused, or said not to be, as the operator chose."""
    to = responder()
    assert ask(to, "cluster.local", "AXFR").rcode() == dns.rcode.REFUSED
    assert ask(to, f"web.{S}", rdclass="CH").rcode() == dns.rcode.REFUSED
    outside = ask(to, "www.example.com")
    assert outside.rcode() == dns.rcode.REFUSED and flags(outside) == "QR RD"
    assert ask(responder(others="NXDOMAIN"), "www.example.com").rcode() == dns.rcode.NXDOMAIN


def test_servfail_until_synced_and_never_after() -> None:
    """DNS-42: what was said before the lists came is forgotten when they are in."""
    snapshot = snapshot_of(*SHOP)
    snapshot.synced = False
    to = responder(snapshot)
    assert ask(to, f"web.{S}").rcode() == dns.rcode.SERVFAIL
    snapshot.mark_synced(1)
    assert ask(to, f"web.{S}").rcode() == dns.rcode.NOERROR


def test_orders_turn_and_hold_everything() -> None:
    """DNS-24, with the answers kept as bytes."""
    to = responder()
    firsts, sets = [], set()
    for id_ in range(30):
        made = dns.message.make_query(f"db.{S}", "A", id=id_)
        raw = to.answer(made.to_wire())
        assert isinstance(raw, bytes)
        read = wire.decode(raw)
        assert read.id == id_
        firsts.append(read.answers[0].data)
        sets.add(frozenset(r.data for r in read.answers))
    assert len(sets) == 1 and len(set(firsts)) == 2
    assert 10 <= firsts.count(firsts[0]) <= 20
    assert reused(to) == 29


def test_a_change_forgets_what_was_kept() -> None:
    snapshot = snapshot_of(*SHOP)
    to = responder(snapshot)
    query = dns.message.make_query(f"new.{S}", "A").to_wire()
    before, again = to.answer(query), to.answer(query)
    assert before == again and isinstance(before, bytes) and wire.decode(before).rcode == wire.NXDOMAIN
    snapshot.service_changed(None, service("new", ips=("10.96.5.5",)), 1)
    after = to.answer(query)
    assert isinstance(after, bytes) and wire.decode(after).answers[0].data == bytes((10, 96, 5, 5))


def test_only_what_a_change_concerns_is_made_anew() -> None:
    """Answers of other Services stay; "nothing" and CNAMEs, whose SOA and ends are elsewhere, do not."""
    snapshot = snapshot_of(*SHOP)
    to = responder(snapshot)
    names = (f"web.{S}", f"db.{S}", f"_http._tcp.v4only.{S}", f"nosuch.{S}", f"inner.{S}", "2.1.96.10.in-addr.arpa")
    queries = [dns.message.make_query(name, "A").to_wire() for name in names]

    def kept_after(old: Service | None, new: Service | None) -> list[bool]:
        for query in queries:
            to.answer(query)
        snapshot.service_changed(old, new, 1)
        before, kept = reused(to), []
        for query in queries:
            to.answer(query)
            kept.append(reused(to) > before)
            before = reused(to)
        return kept

    other, web = service("other", ips=("10.96.5.5",)), snapshot.services["shop", "web"]
    assert kept_after(None, other) == [True, True, True, False, False, False]
    assert kept_after(web, None) == [False, True, True, False, False, False]
    assert ask(to, names[0]).rcode() == dns.rcode.NXDOMAIN
    assert kept_after(None, web) == [False, True, True, False, False, False]
    for query in queries:
        to.answer(query)
    slices = snapshot.slices["shop", "db"]["db-1"]
    snapshot.slice_changed(slices, None, 1)
    read = to.answer(queries[1])
    assert isinstance(read, bytes) and [r.data for r in wire.decode(read).answers] == [bytes((10, 244, 0, 7))]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesvc.dns.responder.MOST_CACHED", 10)
    to = responder()
    for i in range(100):
        ask(to, f"n{i}.{S}")
        assert len(to.kept) <= 10
    assert [wire.decode(b"\0\0" + query).questions[0].name[0] for _, query in to.kept] == [
        b"n%d" % i for i in range(90, 100)
    ]


def test_kept_records_are_bounded_however_a_large_service_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service of 500 endpoints; over UDP its answer is cut short, yet all its records are behind what is kept."""
    monkeypatch.setattr("kubesvc.dns.responder.MOST_RECORDS", 1100)
    to = responder()
    ask(to, f"web.{S}")
    for name in ("big", "Big", "bIg", "biG", "big"):
        ask(to, f"{name}.{S}")
        assert to.records == sum(kept.records for kept in to.kept.values()) <= 1100
    assert len(to.kept) == 2
    monkeypatch.setattr("kubesvc.dns.responder.MOST_RECORDS", 499)
    assert len(ask(to, f"BIG.{S}", tcp=True).answer[0]) == 500
    assert not to.kept
    assert to.records == 0


class Helper:
    """A forwarder that knows one name and one trouble."""

    def __init__(self, trouble: Exception | None = None, size: int = 0) -> None:
        self.trouble = trouble
        self.size = size

    async def exchange(self, query: bytes, tcp: bool) -> bytes:
        if self.trouble:
            raise self.trouble
        return query + bytes(self.size)

    async def lookup(self, question: Question) -> tuple[Record, ...]:
        if self.trouble:
            raise self.trouble
        assert question == Question(name_of("www.example.com"), wire.A)
        return (Record(question.name, wire.A, 300, b"\xc0\x00\x02\x01"),)


def later(to: Responder, query: bytes, tcp: bool = False) -> bytes:
    pending = to.answer(query, tcp)
    assert callable(pending), "it has to be asked elsewhere"

    async def main() -> bytes:
        return await pending()

    return asyncio.run(main())


OUTSIDE = wire.encode(Message(id=7, recursion_desired=True, questions=(Question(name_of("www.example.com"), wire.A),)))


def test_other_names_are_forwarded() -> None:
    """DNS-51, DNS-53, DNS-54."""
    assert later(responder(forwarder=Helper()), OUTSIDE) == OUTSIDE
    for trouble, rcode in ((Unanswered(), wire.SERVFAIL), (Overloaded(), wire.REFUSED)):
        failed = wire.decode(later(responder(forwarder=Helper(trouble)), OUTSIDE))
        assert (failed.rcode, failed.id, failed.recursion_available) == (rcode, 7, True)
    cut = wire.decode(later(responder(forwarder=Helper(size=1000)), OUTSIDE))
    assert cut.truncated and not cut.answers
    assert len(later(responder(forwarder=Helper(size=1000)), OUTSIDE, tcp=True)) == len(OUTSIDE) + 1000
    unknown = ask(responder(forwarder=Helper(AssertionError())), f"nosuch.{S}")
    assert unknown.rcode() == dns.rcode.NXDOMAIN, "a cluster name is never asked elsewhere"


def test_external_names_are_followed() -> None:
    """DNS-25, DNS-26."""
    query = wire.encode(Message(id=9, questions=(Question(name_of(f"out.{S}"), wire.A),)))
    found = wire.decode(later(responder(forwarder=Helper()), query))
    assert [(r.type, r.ttl) for r in found.answers] == [(wire.CNAME, 5), (wire.A, 5)]
    assert found.authoritative and found.id == 9
    alone = wire.decode(later(responder(forwarder=Helper(Unanswered())), query))
    assert (alone.rcode, [r.type for r in alone.answers]) == (wire.NOERROR, [wire.CNAME])


def test_a_bug_met_by_one_query_is_servfail_for_it(caplog: pytest.LogCaptureFixture) -> None:
    to = responder()
    to.zone = None  # type: ignore[assignment]
    response = to.answer(QUERY)
    assert isinstance(response, bytes) and response[3] & 0xF == wire.SERVFAIL
    assert "no answer to" in caplog.text


NOISE = responder()


@settings(max_examples=500)
@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_noise_gets_an_answer_or_silence(noise: bytes, tcp: bool, after_header: bool) -> None:
    raw = QUERY[:12] + noise if after_header else noise
    response = NOISE.answer(raw, tcp)
    if len(raw) < 12 or raw[2] & 0x80:
        assert response is None
    else:
        assert isinstance(response, bytes) and response[:2] == raw[:2] and response[2] & 0x80
        assert response[3] & 0xF != wire.SERVFAIL
