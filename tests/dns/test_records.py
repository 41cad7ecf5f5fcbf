"""Which records a name has: one row for each rule."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.dns import wire
from kubesvc.dns.records import Answer, Zone, answer_for, rotated
from kubesvc.dns.wire import Question, Record, Soa, Srv, name_of, name_text

from .cluster import (
    HTTP,
    SERIAL,
    SHOP,
    endpoint,
    endpoint_slice,
    feed,
    headless,
    namespace,
    pod,
    service,
    snapshot_of,
)

Z = "cluster.local"
S = f"shop.svc.{Z}"
TYPES = {text: number for number, text in wire.TYPES.items()} | {"MX": 15, "HTTPS": 65, "ANY": 255}
ZONE = Zone(ttl=5)


def shown(record: Record) -> str:
    """The record as people write it, without owner and TTL where they are the usual ones."""
    data = record.data
    kind = wire.TYPES[record.type]
    if isinstance(data, bytes):
        return f"{kind} {ipaddress.ip_address(data)}"
    if isinstance(data, Srv):
        return f"SRV {data.priority} {data.weight} {data.port} {name_text(data.target)}"
    if isinstance(data, Soa):
        return "SOA"
    if record.type == wire.TXT:
        return f"TXT {data!r}"
    return f"{kind} {name_text(data)}"


def summary(answer: Answer | None) -> str:
    """RCODE, the answers, then `| additional` or `| SOA` when there are such."""
    if answer is None:
        return "not ours"
    text = " ".join([wire.RCODES[answer.rcode], ", ".join(map(shown, answer.answers))]).strip()
    rest = [shown(r) for r in (*answer.authority, *answer.additional)]
    return f"{text} | {', '.join(rest)}" if rest else text


class Case(NamedTuple):
    name: str
    asked: str
    type: str
    expected: str


NODATA = "NOERROR | SOA"
NXDOMAIN = "NXDOMAIN | SOA"
DB = "10.244.0.7, A 10.244.0.8"
REVERSE_6 = ".".join(reversed("fd00009600000000" + "0" * 15 + "3")) + ".ip6.arpa"
REVERSE_6_ENDPOINT = ".".join(reversed("fd000244" + "0" * 23 + "7")) + ".ip6.arpa"

CASES = (
    Case("DNS-8, 43a: a ClusterIP", f"web.{S}", "A", "NOERROR A 10.96.1.2"),
    Case("DNS-8: both families, A", f"dual.{S}", "A", "NOERROR A 10.96.1.3"),
    Case("DNS-8: both families, AAAA", f"dual.{S}", "AAAA", "NOERROR AAAA fd00:96::3"),
    Case("DNS-8: no endpoints, still resolves", f"idle.{S}", "A", "NOERROR A 10.96.1.4"),
    Case("DNS-9, 43b, BUG-21: IPv4 only, asked for AAAA", f"web.{S}", "AAAA", NODATA),
    Case("DNS-9: IPv6 only, asked for A", f"six.{S}", "A", NODATA),
    Case(
        "DNS-10, 43g: SRV of a named port", f"_http._tcp.web.{S}", "SRV", f"NOERROR SRV 0 100 80 web.{S}. | A 10.96.1.2"
    ),
    Case(
        "DNS-10: the target's addresses of both families",
        f"_http._tcp.dual.{S}",
        "SRV",
        f"NOERROR SRV 0 100 80 dual.{S}. | A 10.96.1.3, AAAA fd00:96::3",
    ),
    Case("DNS-11, 43h: another protocol", f"_http._udp.web.{S}", "SRV", NXDOMAIN),
    Case("DNS-11: no such port", f"_ftp._tcp.web.{S}", "SRV", NXDOMAIN),
    Case("DNS-11: an unnamed port has no name", f"_._tcp.web.{S}", "SRV", NXDOMAIN),
    Case(
        "DNS-12, 13: SRV on the Service itself, weight shared",
        f"web.{S}",
        "SRV",
        f"NOERROR SRV 0 33 80 web.{S}., SRV 0 33 53 web.{S}., SRV 0 33 9 web.{S}. | A 10.96.1.2",
    ),
    Case("DNS-13: A on a port's name", f"_http._tcp.web.{S}", "A", "NOERROR A 10.96.1.2"),
    Case("DNS-13: AAAA on a port's name, IPv4 only", f"_http._tcp.web.{S}", "AAAA", NODATA),
    Case("DNS-13: SRV on a Service without ports", f"idle.{S}", "SRV", NODATA),
    Case("DNS-14: the underscores are wanted", f"http.tcp.web.{S}", "SRV", NXDOMAIN),
    Case("DNS-14: port and protocol in any case", f"_HTTP._Tcp.web.{S}", "A", "NOERROR A 10.96.1.2"),
    Case("DNS-15, 2, 4: headless, ready ones of all slices once", f"db.{S}", "A", f"NOERROR A {DB}"),
    Case(
        "DNS-5: all addresses of an entry",
        f"db.{S}",
        "AAAA",
        "NOERROR AAAA fd00:244::7, AAAA fd00:244::, AAAA fd00:244::8",
    ),
    Case("DNS-16, 43c: headless, none ready", f"cold.{S}", "A", NXDOMAIN),
    Case("DNS-16: and for other types too", f"cold.{S}", "SRV", NXDOMAIN),
    Case("DNS-16: ready ones, but of the other family", f"v4only.{S}", "AAAA", NODATA),
    Case("DNS-17, 19: by hostname", f"db-0.db.{S}", "A", "NOERROR A 10.244.0.7"),
    Case("DNS-17: by hostname, other family", f"db-0.db.{S}", "AAAA", "NOERROR AAAA fd00:244::7"),
    Case("DNS-18: by dashed address", f"10-244-0-8.db.{S}", "A", "NOERROR A 10.244.0.8"),
    Case("DNS-18: IPv6, a dash at the end gets a zero", f"fd00-244--0.db.{S}", "AAAA", "NOERROR AAAA fd00:244::"),
    Case("DNS-18: IPv6 in the middle", f"fd00-244--8.db.{S}", "AAAA", "NOERROR AAAA fd00:244::8"),
    Case("DNS-18: with a hostname the dashed form is none", f"10-244-0-7.db.{S}", "A", NXDOMAIN),
    Case("DNS-2: an unready endpoint has no name", f"10-244-0-9.db.{S}", "A", NXDOMAIN),
    Case(
        "DNS-20, BUG-24: headless SRV, ports of the slices, targets with addresses",
        f"_pg._tcp.db.{S}",
        "SRV",
        f"NOERROR SRV 0 25 15432 db-0.db.{S}., SRV 0 25 15432 10-244-0-8.db.{S}.,"
        f" SRV 0 25 25432 fd00-244--0.db.{S}., SRV 0 25 25432 fd00-244--8.db.{S}."
        " | A 10.244.0.7, A 10.244.0.8, AAAA fd00:244::7, AAAA fd00:244::, AAAA fd00:244::8",
    ),
    Case("DNS-13: A on a headless port's name", f"_http._tcp.v4only.{S}", "A", "NOERROR A 10.244.0.22"),
    Case("DNS-11: headless, no such port", f"_pg._udp.db.{S}", "SRV", NXDOMAIN),
    Case("DNS-21: headless without ports: addresses", f"bare.{S}", "A", "NOERROR A 10.244.0.21"),
    Case("DNS-21: headless without ports: no SRV", f"bare.{S}", "SRV", NODATA),
    Case("DNS-23: an endpoint below a ClusterIP", f"one.web.{S}", "A", "NOERROR A 10.244.0.6"),
    Case("DNS-23: a dashed one below a ClusterIP", f"10-244-0-5.web.{S}", "A", "NOERROR A 10.244.0.5"),
    Case("DNS-25: ExternalName, CNAME", f"out.{S}", "CNAME", "NOERROR CNAME www.example.com."),
    Case("DNS-25: ExternalName, A: the link", f"out.{S}", "A", "NOERROR CNAME www.example.com."),
    Case("DNS-25: a dot at the end is no second dot", f"dotted.{S}", "AAAA", "NOERROR CNAME www.example.com."),
    Case("DNS-38: ExternalName, another type", f"out.{S}", "TXT", NODATA),
    Case("DNS-27: an address as text", f"textual.{S}", "A", NXDOMAIN),
    Case("DNS-28: a port below ExternalName", f"_http._tcp.out.{S}", "SRV", NXDOMAIN),
    Case("DNS-28: an endpoint below ExternalName", f"a.out.{S}", "A", NXDOMAIN),
    Case(
        "DNS-28: a chain inside the zone",
        f"twice.{S}",
        "A",
        f"NOERROR CNAME inner.{S}., CNAME web.{S}., A 10.96.1.2",
    ),
    Case(
        "DNS-28: a chain to a Service of the other family",
        f"inner.{S}",
        "AAAA",
        f"NOERROR CNAME web.{S}.",
    ),
    Case("DNS-26: a chain to nothing", f"lost.{S}", "A", f"NOERROR CNAME nosuch.{S}."),
    Case("DNS-28: a loop is cut", f"loop-a.{S}", "A", f"NOERROR CNAME loop-b.{S}., CNAME loop-a.{S}."),
    Case("DNS-30: a Pod's address", f"10-244-7-9.shop.pod.{Z}", "A", "NOERROR A 10.244.7.9"),
    Case("DNS-30: a Pod's IPv6 address", f"fd00-244--7.shop.pod.{Z}", "AAAA", "NOERROR AAAA fd00:244::7"),
    Case("DNS-30: a Pod's address, other family", f"10-244-7-9.shop.pod.{Z}", "AAAA", NODATA),
    Case("DNS-30: a Pod in no namespace", f"10-244-7-9.nowhere.pod.{Z}", "A", NXDOMAIN),
    Case("DNS-31: no address", f"web-0.shop.pod.{Z}", "A", NXDOMAIN),
    Case("DNS-31: no address of four", f"10-244-7-256.shop.pod.{Z}", "A", NXDOMAIN),
    Case("DNS-32, 43i: PTR of a ClusterIP", "2.1.96.10.in-addr.arpa", "PTR", f"NOERROR PTR web.{S}."),
    Case("DNS-32: PTR, IPv6", REVERSE_6, "PTR", f"NOERROR PTR dual.{S}."),
    Case("DNS-33: PTR of an endpoint", "7.0.244.10.in-addr.arpa", "PTR", f"NOERROR PTR db-0.db.{S}."),
    Case("DNS-33: PTR of a nameless endpoint", "8.0.244.10.in-addr.arpa", "PTR", f"NOERROR PTR 10-244-0-8.db.{S}."),
    Case("DNS-33: PTR below a ClusterIP Service", "6.0.244.10.in-addr.arpa", "PTR", f"NOERROR PTR one.web.{S}."),
    Case("DNS-33: PTR of an IPv6 endpoint", REVERSE_6_ENDPOINT, "PTR", f"NOERROR PTR db-0.db.{S}."),
    Case("DNS-34: PTR of an unready endpoint", "9.0.244.10.in-addr.arpa", "PTR", "not ours"),
    Case("DNS-34: PTR of an unknown address", "1.2.0.192.in-addr.arpa", "PTR", "not ours"),
    Case("DNS-4: a slice without a Service is nobody's", "23.0.244.10.in-addr.arpa", "PTR", "not ours"),
    Case("a known address, not PTR", "2.1.96.10.in-addr.arpa", "A", NODATA),
    Case("part of a reverse name", "1.96.10.in-addr.arpa", "PTR", "not ours"),
    Case("a reverse name that is none", "x.1.96.10.in-addr.arpa", "PTR", "not ours"),
    Case("DNS-35: dns-version", f"dns-version.{Z}", "TXT", "NOERROR TXT (b'1.1.0',)"),
    Case("DNS-35: dns-version, not TXT", f"dns-version.{Z}", "A", NODATA),
    Case("DNS-35: SOA at the apex", Z, "SOA", "NOERROR SOA"),
    Case("DNS-35: NS with glue", Z, "NS", f"NOERROR NS kube-dns.kube-system.svc.{Z}. | A 10.96.0.10"),
    Case("DNS-36: the name that SOA names", f"ns.dns.{Z}", "A", "NOERROR A 10.96.0.10"),
    Case("above it there is a name", f"dns.{Z}", "A", NODATA),
    Case("DNS-38: the apex", Z, "A", NODATA),
    Case("DNS-38: svc", f"svc.{Z}", "A", NODATA),
    Case("DNS-38: pod", f"pod.{Z}", "A", NODATA),
    Case("DNS-38, 43f: a namespace", S, "A", NODATA),
    Case("DNS-38: a namespace below pod", f"shop.pod.{Z}", "A", NODATA),
    Case("DNS-38: an empty namespace", f"empty.svc.{Z}", "A", NODATA),
    Case("DNS-38: a type nobody has", f"web.{S}", "MX", NODATA),
    Case("DNS-38: HTTPS", f"db.{S}", "HTTPS", NODATA),
    Case("DNS-38: ANY", f"web.{S}", "ANY", NODATA),
    Case("DNS-39: no such namespace", f"web.nowhere.svc.{Z}", "A", NXDOMAIN),
    Case("DNS-39: no such namespace, itself", f"nowhere.svc.{Z}", "A", NXDOMAIN),
    Case("DNS-39, 43e: no such Service", f"nosuch.{S}", "A", NXDOMAIN),
    Case("DNS-4: slices of another namespace are another's", f"db.empty.svc.{Z}", "A", NXDOMAIN),
    Case("DNS-39: no such endpoint", f"nosuch.web.{S}", "A", NXDOMAIN),
    Case("DNS-39: too many labels", f"a.b.c.web.{S}", "A", NXDOMAIN),
    Case("DNS-39: neither svc nor pod", f"web.shop.node.{Z}", "A", NXDOMAIN),
    Case("DNS-54, 67: a search path's wrong guess", f"www.example.com.svc.{Z}", "A", NXDOMAIN),
    Case("DNS-40: no wildcard", f"*.{S}", "A", NXDOMAIN),
    Case("DNS-40: any is a label", f"any.{S}", "A", NXDOMAIN),
    Case("DNS-41: transfer", Z, "AXFR", "REFUSED"),
    Case("DNS-41: incremental transfer", Z, "IXFR", "REFUSED"),
    Case("DNS-51: outside", "www.example.com", "A", "not ours"),
    Case("DNS-51: the root", ".", "A", "not ours"),
    Case("DNS-51: only the last letters are the zone's", "mycluster.local", "A", "not ours"),
    Case("DNS-6, 43d, BUG-23: any case", "WEB.Shop.SvC.Cluster.LOCAL", "A", "NOERROR A 10.96.1.2"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answer(case: Case) -> None:
    question = Question(name_of(case.asked), TYPES[case.type])
    answer = answer_for(question, snapshot_of(*SHOP), ZONE)
    assert summary(answer) == case.expected
    if answer and answer.answers:
        assert answer.answers[0].name == question.name, "the owner is spelled as asked"


def test_every_answer_is_the_same_whatever_the_order_of_arrival() -> None:
    forward, backward = snapshot_of(*SHOP), snapshot_of(*reversed(SHOP))
    for case in CASES:
        question = Question(name_of(case.asked), TYPES[case.type])
        assert answer_for(question, forward, ZONE) == answer_for(question, backward, ZONE), case.name


@pytest.mark.parametrize(("ttl", "soa_ttl"), [(0, 0), (5, 5), (30, 30), (3600, 300)])
def test_ttls_of_answers_and_of_nothing(ttl: int, soa_ttl: int) -> None:
    """DNS-36, DNS-37, DNS-44, BUG-22."""
    zone, snapshot = Zone(ttl=ttl), snapshot_of(*SHOP)
    found = answer_for(Question(name_of(f"web.{S}"), wire.A), snapshot, zone)
    assert found and [r.ttl for r in found.answers] == [ttl]
    missing = answer_for(Question(name_of(f"NoSuch.{S}"), wire.A), snapshot, zone)
    ns, rname = name_of(f"ns.dns.{Z}"), name_of(f"hostmaster.{Z}")
    soa = Soa(ns, rname, SERIAL, 7200, 1800, 86400, ttl)
    assert missing and missing.authority == (Record(zone.name, wire.SOA, soa_ttl, soa),)
    version = answer_for(Question(name_of(f"dns-version.{Z}"), wire.TXT), snapshot, zone)
    assert version and [r.ttl for r in version.answers] == [28800]


def test_before_the_lists_are_in_nothing_is_known_not_to_exist() -> None:
    """DNS-42."""
    snapshot = snapshot_of(*SHOP)
    snapshot.synced = False
    for asked, expected in (
        (f"web.{S}", "SERVFAIL"), (f"nosuch.{S}", "SERVFAIL"), (Z, "SERVFAIL"),
        ("2.1.96.10.in-addr.arpa", "SERVFAIL"), ("www.example.com", "not ours"),
    ):  # fmt: skip
        assert summary(answer_for(Question(name_of(asked), wire.A), snapshot, ZONE)) == expected


def test_classes_but_in_are_refused() -> None:
    """DNS-7."""
    for klass in (3, 4, 255):
        assert summary(answer_for(Question(name_of(f"web.{S}"), wire.A, klass), snapshot_of(*SHOP), ZONE)) == "REFUSED"


def test_pod_name_modes() -> None:
    """DNS-30."""
    snapshot = snapshot_of(*SHOP, pod("a", "10.244.1.1"), pod("done", "10.244.1.2", phase="Succeeded"))
    expected = {
        "disabled": (NXDOMAIN, NXDOMAIN, NXDOMAIN),
        "insecure": ("NOERROR A 10.244.1.1", "NOERROR A 10.244.1.2", "NOERROR A 10.244.1.3"),
        "verified": ("NOERROR A 10.244.1.1", NXDOMAIN, NXDOMAIN),
    }
    for mode, answers in expected.items():
        zone = Zone(pods=mode)  # type: ignore[arg-type]
        asked = (Question(name_of(f"10-244-1-{i}.shop.pod.{Z}"), wire.A) for i in (1, 2, 3))
        assert tuple(summary(answer_for(q, snapshot, zone)) for q in asked) == answers, mode
    asked_once = Question(name_of(f"10-244-1-1.shop.pod.{Z}"), wire.A)
    feed(snapshot, pod("a", "10.244.1.1"), gone=True)
    assert summary(answer_for(asked_once, snapshot, Zone(pods="verified"))) == NXDOMAIN


def test_endpoints_named_by_their_pods() -> None:
    """DNS-18: only names that fit a label."""
    long = "p" * 64
    slices = endpoint_slice(
        "s", "h", endpoint("10.0.0.1", pod="p-1"), endpoint("10.0.0.2", pod=long), endpoint("10.0.0.3"), ports=(HTTP,)
    )
    snapshot = snapshot_of(namespace("shop"), headless("h"), slices, pod_names=True)
    answer = answer_for(Question(name_of(f"_http._tcp.h.{S}"), wire.SRV), snapshot, ZONE)
    assert answer is not None
    assert [shown(r).split()[-1].split(".")[0] for r in answer.answers] == ["p-1", "10-0-0-2", "10-0-0-3"]


def test_without_the_dns_service_the_servers_name_themselves() -> None:
    """DNS-35."""
    zone, snapshot = replace(ZONE, addresses=(bytes((10, 0, 0, 53)),)), snapshot_of(namespace("shop"))
    assert summary(answer_for(Question(zone.name, wire.NS), snapshot, zone)) == f"NOERROR NS ns.dns.{Z}. | A 10.0.0.53"
    assert summary(answer_for(Question(name_of(f"ns.dns.{Z}"), wire.A), snapshot, zone)) == "NOERROR A 10.0.0.53"
    assert summary(answer_for(Question(name_of(f"ns.dns.{Z}"), wire.A), snapshot, ZONE)) == NXDOMAIN


def test_long_chains_end() -> None:
    """DNS-28: at ten links."""
    links = [service(f"l{i}", type="ExternalName", externalName=f"l{i + 1}.{S}") for i in range(30)]
    answer = answer_for(Question(name_of(f"l0.{S}"), wire.A), snapshot_of(namespace("shop"), *links), ZONE)
    assert answer and len(answer.answers) == 10 and not answer.follow


def test_what_an_outside_name_needs_is_told() -> None:
    """DNS-25."""
    snapshot = snapshot_of(*SHOP)
    asked = {"out": "www.example.com", "inner": ".", "textual": "."}
    for name, outside in asked.items():
        answer = answer_for(Question(name_of(f"{name}.{S}"), wire.A), snapshot, ZONE)
        assert answer and answer.follow == name_of(outside)


def test_changes_are_visible_at_once_and_leave_nothing_behind() -> None:
    """DNS-29, and every index."""
    snapshot = snapshot_of(namespace("shop"))
    question = Question(name_of(f"x.{S}"), wire.A)

    def now() -> str:
        return summary(answer_for(question, snapshot, ZONE))

    out = service("x", type="ExternalName", externalName="example.com")
    inside = service("x", ips=("10.96.9.9",))
    without = headless("x")
    snapshot.service_changed(None, out, 1)
    assert now() == "NOERROR CNAME example.com."
    snapshot.service_changed(out, inside, 2)
    assert now() == "NOERROR A 10.96.9.9"
    snapshot.service_changed(inside, without, 3)
    assert now() == NXDOMAIN
    first = endpoint_slice("x-1", "x", endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False))
    second = endpoint_slice("x-1", "x", endpoint("10.0.0.1", ready=False), endpoint("10.0.0.2"))
    moved = endpoint_slice("x-1", "y", endpoint("10.0.0.2"))
    snapshot.slice_changed(None, first, 4)
    assert now() == "NOERROR A 10.0.0.1"
    version = snapshot.version
    snapshot.slice_changed(first, first, 5)
    assert (snapshot.version, snapshot.serial) == (version, 4), "what changes no answer forgets none"
    snapshot.slice_changed(first, second, 6)
    assert now() == "NOERROR A 10.0.0.2"
    snapshot.slice_changed(second, moved, 7)
    assert now() == NXDOMAIN
    snapshot.slice_changed(moved, None, 8)
    snapshot.service_changed(without, None, 9)
    assert not snapshot.services and not snapshot.slices
    assert not snapshot.cluster_addresses and not snapshot.endpoint_addresses
    assert snapshot.serial == 9


def test_the_order_of_addresses_turns_and_nothing_gets_lost() -> None:
    """DNS-24: CNAMEs stay in front."""
    snapshot = snapshot_of(*SHOP)
    answer = answer_for(Question(name_of(f"db.{S}"), wire.AAAA), snapshot, ZONE)
    assert answer is not None
    turned = [rotated(answer, turn).answers for turn in range(4)]
    assert len({t[0] for t in turned}) == 3 and all(set(t) == set(answer.answers) for t in turned)
    chained = answer_for(Question(name_of(f"twice.{S}"), wire.A), snapshot, ZONE)
    assert chained is not None and rotated(chained, 1) == chained


LABEL = st.one_of(
    st.sampled_from([b"web", b"db", b"shop", b"svc", b"pod", b"_http", b"_tcp", b"10-0-0-1", b"dns", b"ns", b"out"]),
    st.binary(min_size=1, max_size=8),
)
SUFFIX = st.sampled_from([(), ZONE.name, (b"shop", b"svc", *ZONE.name), (b"in-addr", b"arpa"), (b"ip6", b"arpa")])


@settings(max_examples=300)
@given(labels=st.lists(LABEL, max_size=6), suffix=SUFFIX, type_=st.sampled_from(sorted(TYPES.values())))
def test_any_name_gets_an_answer_that_can_be_sent(labels: list[bytes], suffix: wire.Name, type_: int) -> None:
    question = Question((*labels, *suffix), type_)
    answer = answer_for(question, snapshot_of(*SHOP), ZONE)
    if answer is not None and answer.rcode != wire.REFUSED:
        assert answer.answers or answer.authority, "a negative answer carries SOA"
        assert all(r.name == question.name for r in answer.answers[:1])
        message = wire.Message(
            questions=(question,), answers=answer.answers, authority=answer.authority, additional=answer.additional
        )
        assert wire.decode(wire.encode(message)) == message


def test_every_target_resolves() -> None:
    """BUG-24: what SRV and PTR name has addresses."""
    snapshot = snapshot_of(*SHOP)
    targets = set()
    for case in CASES:
        answer = answer_for(Question(name_of(case.asked), TYPES[case.type]), snapshot, ZONE)
        for record in answer.answers if answer else ():
            if isinstance(record.data, Srv):
                targets.add(record.data.target)
            elif record.type == wire.PTR:
                targets.add(record.data)  # type: ignore[arg-type]
    assert len(targets) == 7
    for target in targets:
        answers = [answer_for(Question(target, type_), snapshot, ZONE) for type_ in (wire.A, wire.AAAA)]
        assert any(a and a.answers for a in answers), name_text(target)
