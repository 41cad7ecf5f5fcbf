"""The DNS codec and the responder against messages that are none: 1,000,000 of them in the soak tier."""

from __future__ import annotations

import dns.message
import pytest

from kubesvc.dns import wire
from kubesvc.dns.cache import Cache, ttl_places
from kubesvc.dns.records import Zone
from kubesvc.dns.responder import Responder
from kubesvc.dns.wire import FormatError

from ..mutations import QUICK, SOAK, mutated
from .cluster import SHOP, snapshot_of

S = "shop.svc.cluster.local"


def seeds() -> list[bytes]:
    """Queries of every kind, and the responses to them, compressed as they go over the wire."""
    to = Responder(snapshot_of(*SHOP), Zone())
    found = []
    for name, type_ in (
        (f"web.{S}", "A"), (f"web.{S}", "AAAA"), (f"db.{S}", "A"), (f"_http._tcp.web.{S}", "SRV"), (f"nosuch.{S}", "A"),
        ("2.1.96.10.in-addr.arpa", "PTR"), (f"out.{S}", "CNAME"), ("cluster.local", "SOA"), ("cluster.local", "NS"),
        ("dns-version.cluster.local", "TXT"),
    ):  # fmt: skip
        for edns in (False, True):
            query = dns.message.make_query(name, type_, use_edns=0 if edns else False, want_dnssec=edns).to_wire()
            response = to.answer(query)
            assert isinstance(response, bytes)
            found += [query, response]
    return found


def check(count: int) -> None:
    """Whatever comes in: the codec reads it or says that it cannot, what it read it can write and reads the same again,
    and the responder answers within the size allowed, with the id of the query, or not at all."""
    to = Responder(snapshot_of(*SHOP), Zone())
    cache = Cache(64)
    read = 0
    for data in mutated(seeds(), count):
        try:
            message = wire.decode(data)
        except FormatError:
            pass
        else:
            read += 1
            again = wire.decode(wire.encode(message))
            assert again.questions == message.questions, data.hex()
            assert again.answers == message.answers, data.hex()
            cache.put(("k",), data, 0.0)  # type: ignore[arg-type]
        try:
            ttl_places(data)
        except (FormatError, ValueError):
            pass
        for tcp in (False, True):
            answer = to.answer(data, tcp)
            assert answer is None or isinstance(answer, bytes), data.hex()
            if answer is not None:
                assert answer[:2] == data[:2], data.hex()
                assert answer[2] & 0x80, data.hex()
                assert len(answer) <= (65535 if tcp else 1232), data.hex()
                wire.decode(answer)
    assert to.counts["panics"] == 0
    assert count // 50 < read < count, "the inputs are neither all sense nor all nonsense"


def test_a_few_thousand() -> None:
    check(QUICK)


@pytest.mark.soak
def test_a_million() -> None:
    check(SOAK)
