"""The codec against an independent one, against itself, and against noise."""

from __future__ import annotations

import os
import random

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.dns import wire
from kubesvc.dns.wire import (
    AAAA,
    CNAME,
    NS,
    PTR,
    SOA,
    SRV,
    TXT,
    A,
    Edns,
    FormatError,
    Message,
    Name,
    Question,
    Record,
    Soa,
    Srv,
)  # fmt: skip

LABEL = st.one_of(st.sampled_from([b"a", b"A", b"web", b"Web", b"svc"]), st.binary(min_size=1, max_size=63))
NAME = st.lists(LABEL, max_size=5).map(tuple).filter(lambda n: sum(map(len, n)) + len(n) < 255)
U16, U31 = st.integers(0, 0xFFFF), st.integers(0, 0x7FFFFFFF)
DATA = {
    A: st.binary(min_size=4, max_size=4),
    AAAA: st.binary(min_size=16, max_size=16),
    NS: NAME,
    CNAME: NAME,
    PTR: NAME,
    SRV: st.builds(Srv, U16, U16, U16, NAME),
    SOA: st.builds(Soa, NAME, NAME, U31, U31, U31, U31, U31),
    TXT: st.lists(st.binary(max_size=255), min_size=1, max_size=3).map(tuple),
    999: st.binary(max_size=30),
}
RECORD = st.sampled_from(sorted(DATA)).flatmap(lambda t: st.builds(Record, NAME, st.just(t), U31, DATA[t], st.just(1)))
RECORDS = st.lists(RECORD, max_size=4).map(tuple)
FLAG = st.booleans()
EDNS = st.one_of(st.none(), st.builds(Edns, U16, st.integers(0, 255), FLAG))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    edns = draw(EDNS)
    return Message(
        id=draw(U16),
        response=draw(FLAG),
        opcode=draw(st.sampled_from((0, 2, 4, 5))),
        authoritative=draw(FLAG),
        truncated=draw(FLAG),
        recursion_desired=draw(FLAG),
        recursion_available=draw(FLAG),
        authentic=draw(FLAG),
        checking_disabled=draw(FLAG),
        rcode=draw(st.integers(0, 0xFFF if edns else 0xF)),
        questions=tuple(draw(st.lists(st.builds(Question, NAME, U16, U16), max_size=2))),
        answers=draw(RECORDS),
        authority=draw(RECORDS),
        additional=draw(RECORDS),
        edns=edns,
    )


@settings(max_examples=200)
@given(messages())
def test_what_is_encoded_decodes_the_same(message: Message) -> None:
    decoded = wire.decode(wire.encode(message))
    if message.truncated:
        assert decoded == Message(
            **{f: getattr(message, f) for f in Message.__slots__} | {"authority": (), "additional": ()}
        )
    else:
        assert decoded == message


def theirs(name: Name) -> dns.name.Name:
    return dns.name.Name((*name, b""))


@settings(max_examples=200)
@given(messages())
def test_an_independent_codec_reads_what_we_write(message: Message) -> None:
    """Names in their exact spelling, and every field where it belongs."""
    raw = wire.encode(message)
    if len(message.questions) != 1 or message.opcode != 0 or message.questions[0].klass != 1:
        return
    read = dns.message.from_wire(raw, one_rr_per_rrset=True)
    assert read.id == message.id
    assert bool(read.flags & dns.flags.AA) == message.authoritative
    assert bool(read.flags & dns.flags.RA) == message.recursion_available
    assert int(read.rcode()) == message.rcode
    assert read.question[0].name.labels == theirs(message.questions[0].name).labels
    assert read.edns == (message.edns.version if message.edns else -1)
    for ours, their in zip((message.answers), read.answer, strict=True):
        assert their.name.labels == theirs(ours.name).labels
        assert int(their.rdtype) == ours.type and their.ttl == ours.ttl
        (data,) = their
        match ours.data:
            case Srv():
                assert (data.priority, data.weight, data.port) == ours.data[:3]
                assert data.target.labels == theirs(ours.data.target).labels
            case Soa():
                assert data.mname.labels == theirs(ours.data.mname).labels
                assert (data.serial, data.minimum) == (ours.data.serial, ours.data.minimum)
            case bytes():
                assert data.to_wire() == ours.data
            case _ if ours.type == TXT:
                assert data.strings == ours.data
            case _:
                assert data.target.labels == theirs(ours.data).labels


@settings(max_examples=100)
@given(NAME, st.integers(0, 0xFFFF), st.booleans(), st.integers(512, 4096), st.lists(NAME, max_size=3))
def test_we_read_what_an_independent_codec_writes(
    name: Name, id_: int, do: bool, size: int, targets: list[Name]
) -> None:
    made = dns.message.make_query(theirs(name), "SRV", use_edns=0, want_dnssec=do, payload=size, id=id_)
    made.use_edns(
        0, dns.flags.DO if do else 0, size, options=[dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"x" * 9)]
    )
    for i, target in enumerate(targets):
        data = dns.rdata.from_text("IN", "SRV", f"1 2 {i} .").replace(target=theirs(target))
        made.answer.append(dns.rrset.from_rdata(theirs(name), 30, data))
        cname = dns.rdata.from_text("IN", "CNAME", ".").replace(target=theirs(target))
        made.authority.append(dns.rrset.from_rdata(theirs(target), 30, cname))
    read = wire.decode(made.to_wire(max_size=65535))
    assert (read.id, read.recursion_desired, read.edns) == (id_, True, Edns(size, 0, do))
    assert wire.lower(read.questions[0].name) == wire.lower(name)
    assert [wire.lower(r.data.target) for r in read.answers] == [wire.lower(t) for t in targets]  # type: ignore[union-attr]
    assert [wire.lower(r.data) for r in read.authority] == [wire.lower(t) for t in targets]  # type: ignore[arg-type]


HEAD = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
OPT_CUT = b"\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x03\x00\x01\x00"
SHORT_ADDRESS = b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x03abc"
BROKEN = (
    ("nothing", b""),
    ("half a header", HEAD[:7]),
    ("no question where one is announced", HEAD),
    ("a label beyond the end", HEAD + b"\x05abc"),
    ("no end of the name", HEAD + b"\x01a"),
    ("no type", HEAD + b"\x01a\x00"),
    ("half a class", HEAD + b"\x01a\x00\x00\x01\x00"),
    ("a pointer to itself", HEAD + b"\xc0\x0c\x00\x01\x00\x01"),
    ("a pointer forward", HEAD + b"\xc0\x10\x00\x01\x00\x01\x01a\x00"),
    ("two pointers in a circle", HEAD + b"\x01a\xc0\x0e\x00\x01\x00\x01"),
    ("a pointer into the header", HEAD + b"\xc0\x02\x00\x01\x00\x01"),
    ("half a pointer", HEAD + b"\xc0"),
    ("a label of unknown kind", HEAD + b"\x40a\x00\x00\x01\x00\x01"),
    ("a name over 255 bytes", HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01"),
    ("something behind it", HEAD + b"\x00\x00\x01\x00\x01x"),
    ("two OPT records", HEAD[:11] + b"\x02\x00\x00\x01\x00\x01" + b"\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x00" * 2),
    ("an OPT option cut off", HEAD[:11] + b"\x01\x00\x00\x01\x00\x01" + OPT_CUT),
    ("an address of three bytes", HEAD[:5] + b"\x00\x00\x01" + HEAD[8:] + SHORT_ADDRESS),
)  # fmt: skip


@pytest.mark.parametrize("raw", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_malformed_is_format_error(raw: bytes) -> None:
    with pytest.raises(FormatError):
        wire.decode(raw)


@settings(max_examples=500)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda b: HEAD + b)))
def test_noise_is_read_or_refused_but_never_breaks(raw: bytes) -> None:
    try:
        message = wire.decode(raw)
    except FormatError:
        return
    assert wire.decode(wire.encode(message)).questions == message.questions


def damage(count: int, seed: int) -> int:
    """Decode damaged messages; how many were refused. Anything but FormatError gets out."""
    chance = random.Random(seed)
    name: Name = (b"web", b"shop", b"svc", b"cluster", b"local")
    records = (
        Record(name, A, 5, b"\x01\x02\x03\x04"), Record(name, SRV, 5, Srv(0, 1, 2, (b"x", *name))),
        Record(name[1:], SOA, 5, Soa((b"ns", *name), name, 1, 2, 3, 4, 5)), Record((b"x", *name), TXT, 5, (b"1.1.0",)),
    )  # fmt: skip
    whole = wire.encode(Message(questions=(Question(name, SRV),), answers=records, additional=records, edns=Edns(1232)))
    refused = 0
    for _ in range(count):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 0xC0, 0xFF, chance.randrange(256)))
        try:
            wire.decode(bytes(damaged[: chance.randint(len(damaged) // 2, len(damaged) * 2)]))
        except FormatError:
            refused += 1
    return refused


def test_damaged_messages_are_read_or_refused_but_never_break() -> None:
    """SEED in the environment damages others."""
    assert damage(20_000, int(os.environ.get("SEED", "7"))) > 1000


@pytest.mark.soak
def test_a_million_damaged_messages_are_read_or_refused() -> None:
    assert damage(1_000_000, 1) > 50_000


@pytest.mark.parametrize(("length", "fine"), [(1, True), (100, True), (127, True), (128, False), (5000, False)])
def test_a_chain_of_pointers_is_followed_as_far_as_a_name_can_have_labels(length: int, fine: bool) -> None:
    root = b"\x00"
    question = root + b"\x00\x01\x00\x01"
    first = 12 + len(question) + 11  # where the data of the one record begins
    data = b"".join((0xC000 | (first + 2 * i - 2 if i else 12)).to_bytes(2, "big") for i in range(length - 1))
    last = 0xC000 | (first + 2 * (length - 2) if length > 1 else 12)
    opaque = root + b"\x03\xe7\x00\x01\x00\x00\x00\x00" + len(data).to_bytes(2, "big") + data
    address = last.to_bytes(2, "big") + b"\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04abcd"
    raw = HEAD[:10] + b"\x00\x02" + question + opaque + address
    if fine:
        assert wire.decode(raw).additional[1] == Record((), A, 0, b"abcd")
    else:
        with pytest.raises(FormatError):
            wire.decode(raw)


def test_names_are_compressed_in_their_own_spelling_only() -> None:
    """DNS-6: `WEB.cluster.local` must not become `web.cluster.local` by pointing there."""
    upper, plain = (b"WEB", b"cluster", b"local"), (b"web", b"cluster", b"local")
    records = tuple(Record(n, CNAME, 1, n) for n in (upper, plain, upper))
    raw = wire.encode(Message(questions=(Question(upper, CNAME),), answers=records))
    assert wire.decode(raw).answers == records
    assert raw.count(b"\x07cluster") == 1 and raw.count(b"\x03WEB") == 1 and raw.count(b"\x03web") == 1


def test_srv_targets_are_written_out() -> None:
    name: Name = (b"web", b"cluster", b"local")
    raw = wire.encode(Message(questions=(Question(name, SRV),), answers=(Record(name, SRV, 1, Srv(0, 1, 2, name)),)))
    assert raw.count(b"\x07cluster") == 2


@pytest.mark.parametrize("edns", [None, Edns(1232)])
@pytest.mark.parametrize("limit", [512, 600, 1232])
def test_what_does_not_fit_is_left_out_whole(limit: int, edns: Edns | None) -> None:
    """DNS-47, BUG-25: TC for answers, none for additional ones."""
    name: Name = (b"db", b"cluster", b"local")
    many = tuple(Record((b"%d" % i, *name), A, 5, bytes((10, 0, i // 256, i % 256))) for i in range(200))
    cut = wire.encode(Message(questions=(Question(name, A),), answers=many, authority=many, edns=edns), limit)
    read = wire.decode(cut)
    assert limit - 30 < len(cut) <= limit and read.truncated
    assert read.answers == many[: len(read.answers)] and not read.authority and read.edns == edns
    extra = wire.encode(Message(questions=(Question(name, A),), answers=many[:3], additional=many, edns=edns), limit)
    read = wire.decode(extra)
    assert len(extra) <= limit and not read.truncated
    assert read.answers == many[:3] and read.additional == many[: len(read.additional)] and read.additional


NAMES = (
    ("web.shop", (b"web", b"shop"), "web.shop."),
    ("web.shop.", (b"web", b"shop"), "web.shop."),
    (".", (), "."),
)


@pytest.mark.parametrize(("text", "name", "back"), NAMES)
def test_names_as_text(text: str, name: Name, back: str) -> None:
    assert wire.name_of(text) == name
    assert wire.name_text(name) == back


@pytest.mark.parametrize("text", ["a..b", ".a", "a" * 64, "é.example", ".".join(["a" * 60] * 5)])
def test_texts_that_are_no_names(text: str) -> None:
    with pytest.raises(FormatError):
        wire.name_of(text)


@given(NAME)
def test_escaped_names_mean_the_same_to_others(name: Name) -> None:
    assert dns.name.from_text(wire.name_text(name)).labels == theirs(name).labels
