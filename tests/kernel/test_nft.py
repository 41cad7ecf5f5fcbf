"""nftables: the same promises kept by the fake and, where the machine allows, by the kernel."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from kubesvc.kernel.nft import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    AlreadyExists,
    Base,
    ChainSpec,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    FakeNft,
    FlushChain,
    KernelNft,
    NftError,
    NoSuchObject,
    SetSpec,
    StillUsed,
    Table,
    Transaction,
)
from kubesvc.kernel.nft import expressions as x
from kubesvc.kernel.nft import fields as f
from kubesvc.kernel.nft.commands import ELEMENT_LIST_BYTES

T = TypeVar("T")
FAMILY = 2
VERDICTS = SetSpec("verdicts", (f.IPV4_ADDRESS, f.PROTOCOL, f.PORT), verdicts=True)
TARGETS = SetSpec("targets", (f.IPV4_ADDRESS, f.NUMBER), (f.IPV4_ADDRESS, f.PORT), typeof=True)
NAMES = SetSpec("names", (f.IPV4_ADDRESS,))
RANGES = SetSpec("ranges", (f.IPV4_ADDRESS, f.PORT), intervals=True)
RECORDS = SetSpec("records", (f.IPV4_ADDRESS,), (f.IPV4_ADDRESS, f.PORT), dynamic=True, timeout_ms=60_000)
FRAME: tuple[Command, ...] = (
    AddTable("a test"),
    *(AddSet(spec, i + 1) for i, spec in enumerate((VERDICTS, TARGETS, NAMES, RANGES, RECORDS))),
    AddChain(ChainSpec("one")),
    AddChain(ChainSpec("two")),
    AddChain(ChainSpec("base", Base("filter", 2, -110))),
)
KEY = f.pack_address("10.0.0.1") + f.pack_protocol("TCP") + f.pack_port(80)
ONE = f.pack_address("10.0.0.1")
DAEMON_RULE: x.Rule = (x.Payload(x.NETWORK, 16, 4, x.R1), x.Lookup("names"), x.Immediate(x.goto("one")))


class Door:
    """A door under test: run commands, look at the table."""

    def __init__(self, nft: KernelNft | FakeNft) -> None:
        self.nft = nft

    def run(self, *commands: Command) -> None:
        asyncio.run(self.nft.run(Transaction(FAMILY, "t", commands)))

    @property
    def table(self) -> Table:
        table = asyncio.run(self.nft.read(FAMILY, "t"))
        assert table
        return table


def in_own_namespace(make: Callable[[], T]) -> T:
    """Make something in a thread that has a network namespace of its own; what it opens there stays there."""
    result: list[T] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x40000000):
                raise OSError(ctypes.get_errno(), "unshare")
            result.append(make())
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return result[0]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.e2e)])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    if request.param == "fake":
        made = Door(FakeNft())
    else:
        if os.geteuid():
            pytest.skip("needs root for a network namespace")
        made = Door(in_own_namespace(KernelNft))
    made.run(*FRAME)
    yield made
    if isinstance(made.nft, KernelNft):
        made.nft.close()


def test_what_was_made_is_read(door: Door) -> None:
    door.run(
        AddElements(VERDICTS, ((KEY, x.goto("one")), (KEY[:8] + f.pack_port(81), x.Verdict(x.DROP)))),
        AddElements(TARGETS, ((ONE + f.pack_number(3), f.pack_address("10.1.1.1") + f.pack_port(8080)),)),
        AddElements(NAMES, ((ONE, None),)),
        AddElements(RANGES, ((ONE + f.pack_port(80) + f.pack_address("10.0.0.9") + f.pack_port(80), None),)),
        AddRule("two", DAEMON_RULE),
    )
    table = door.table
    assert table.comment == "a test"
    assert table.sets == {s.name: s for s in (VERDICTS, TARGETS, NAMES, RANGES, RECORDS)}
    assert table.chains["base"] == ChainSpec("base", Base("filter", 2, -110))
    assert table.rules == {"one": [], "two": [DAEMON_RULE], "base": []}
    assert table.elements["verdicts"] == {KEY: x.goto("one"), KEY[:8] + f.pack_port(81): x.Verdict(x.DROP)}
    assert list(table.elements["targets"].values()) == [f.pack_address("10.1.1.1") + f.pack_port(8080)]
    assert list(table.elements["names"]) == [ONE]
    assert list(table.elements["ranges"]) == [ONE + f.pack_port(80) + f.pack_address("10.0.0.9") + f.pack_port(80)]


RULES: tuple[x.Rule, ...] = (
    (x.Meta(x.META_MARK, x.R1), x.Bitwise(b"\0\x40\0\0", bytes(4)), x.Cmp(x.NEQ, bytes(4)), x.Counter()),
    (x.Meta(x.META_IIFNAME, x.R1), x.Cmp(x.EQ, b"veth"), x.Immediate(x.Verdict(x.ACCEPT))),
    (x.Ct(x.CT_STATE, x.R1), x.Bitwise(b"\x08\0\0\0", bytes(4)), x.Cmp(x.NEQ, bytes(4)), x.Immediate(x.jump("one"))),
    (x.Ct(x.CT_SRC_IP, x.R1, x.ORIGINAL), x.Lookup("names", inverted=True), x.Immediate(x.Verdict(x.RETURN))),
    (x.Fib(x.FIB_SADDR), x.Cmp(x.EQ, b"\x02\0\0\0"), x.Immediate(x.Verdict(x.DROP))),
    (x.Payload(x.TRANSPORT, 2, 2, x.R1), x.Range(x.EQ, b"\0\x50", b"\0\x5a"), x.Immediate(x.Verdict(x.DROP))),
    (x.Payload(x.NETWORK, 16, 4, x.R1), x.Numgen(7, x.piece(1)), x.Lookup("targets", x.R1, x.R1)),
    (x.Immediate(b"\1\2\3\4", x.R1), x.Meta(x.META_MARK, x.R1, set=True)),
    (
        x.Payload(x.NETWORK, 12, 4, x.R1),
        x.Payload(x.NETWORK, 16, 4, x.R2),
        x.Payload(x.TRANSPORT, 2, 2, x.piece(5)),
        x.Dynset("records", 5000, x.R1, x.R2),
    ),
    (x.Meta(x.META_L4PROTO, x.R1), x.Cmp(x.EQ, b"\x06"), x.Reject(x.TCP_RESET)),
    (x.Reject(x.ICMP_UNREACHABLE, x.ICMP_PORT_UNREACHABLE),),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(e.NAME for e in rule))
def test_every_expression_is_read_back_as_written(door: Door, rule: x.Rule) -> None:
    door.run(AddRule("base" if any(isinstance(e, x.Reject) for e in rule) else "two", rule))
    assert rule in door.table.rules["two"] + door.table.rules["base"]


REFUSED: tuple[tuple[str, tuple[Command, ...], type[NftError]], ...] = (
    ("an element that goes to no chain", (AddElements(VERDICTS, ((KEY, x.goto("three")),)),), NoSuchObject),
    ("a rule in no chain", (AddRule("three", DAEMON_RULE),), NoSuchObject),
    ("a rule that looks into no set", (AddRule("two", (x.Meta(3, 1), x.Lookup("nothing"))),), NoSuchObject),
    ("a rule that goes to no chain", (AddRule("two", (x.Immediate(x.goto("three")),)),), NoSuchObject),
    ("removing an element that is not there", (DeleteElements(NAMES, (ONE,)),), NoSuchObject),
    ("removing a chain that is not there", (DeleteChain("three"),), NoSuchObject),
    ("flushing a chain that is not there", (FlushChain("three"),), NoSuchObject),
    ("removing a set that is not there", (DeleteSet("nothing"),), NoSuchObject),
    ("removing a chain that a rule names", (AddRule("two", DAEMON_RULE), DeleteChain("one")), StillUsed),
    ("removing a chain that an element names", (AddElements(VERDICTS, ((KEY, x.goto("one")),)), DeleteChain("one")),
     StillUsed),
    ("removing a set that a rule uses", (AddRule("two", DAEMON_RULE), DeleteSet("names")), StillUsed),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "commands", "error"), REFUSED, ids=[r[0] for r in REFUSED])
def test_refused_whole(door: Door, sentence: str, commands: tuple[Command, ...], error: type[NftError]) -> None:
    """What is refused leaves nothing behind, not even the good commands before it."""
    with pytest.raises(error):
        door.run(AddChain(ChainSpec("before")), *commands)
    assert "before" not in door.table.chains and door.table.rules["two"] == []


def test_an_element_is_not_changed_by_adding(door: Door) -> None:
    door.run(AddElements(VERDICTS, ((KEY, x.goto("one")),)))
    door.run(AddElements(VERDICTS, ((KEY, x.goto("one")),)))
    with pytest.raises(NftError) as refused:
        door.run(AddElements(VERDICTS, ((KEY, x.goto("two")),)))
    assert isinstance(refused.value, AlreadyExists | StillUsed)
    assert door.table.elements["verdicts"] == {KEY: x.goto("one")}


def test_an_element_is_changed_by_removing_and_adding_at_once(door: Door) -> None:
    door.run(AddElements(VERDICTS, ((KEY, x.goto("one")),)))
    door.run(DeleteElements(VERDICTS, (KEY,)), AddElements(VERDICTS, ((KEY, x.goto("two")),)))
    assert door.table.elements["verdicts"] == {KEY: x.goto("two")}


def test_chains_go_with_their_rules(door: Door) -> None:
    door.run(AddRule("two", DAEMON_RULE))
    door.run(DeleteChain("two"), DeleteChain("one"), DeleteSet("names"))
    assert set(door.table.chains) == {"base"} and "names" not in door.table.sets


def test_more_elements_than_one_attribute_holds(door: Door) -> None:
    items = tuple((n.to_bytes(4, "big"), None) for n in range(5000))
    command = AddElements(NAMES, items)
    assert len(list(command.encode("t"))) > 1
    assert all(len(payload) < ELEMENT_LIST_BYTES + 200 for _, _, payload in command.encode("t"))
    door.run(command)
    found = asyncio.run(door.nft.read_elements(FAMILY, "t", NAMES))
    assert found.keys() <= dict(items).keys() and len(found) > 4000  # the kernel may still be sorting the rest in
    door.run(DeleteElements(NAMES, tuple(key for key, _ in items)))
    assert door.table.elements["names"] == {}


def test_no_table(door: Door) -> None:
    door.run(DeleteTable())
    assert asyncio.run(door.nft.read(FAMILY, "t")) is None
    with pytest.raises(NoSuchObject):
        door.run(DeleteTable())
    with pytest.raises(NoSuchObject):
        asyncio.run(door.nft.read_elements(FAMILY, "t", NAMES))


def test_the_error_names_the_command() -> None:
    nft = FakeNft()
    nft.run_now(Transaction(FAMILY, "t", FRAME))
    with pytest.raises(NoSuchObject, match="'three'"):
        nft.run_now(Transaction(FAMILY, "t", (AddElements(VERDICTS, ((KEY, x.goto("three")),)),)))


def test_keys_for_people() -> None:
    assert f.text_of(VERDICTS.key, KEY) == "10.0.0.1 . tcp . 80"
    six = (f.IPV6_ADDRESS, f.NUMBER)
    assert f.text_of(six, f.pack_address("fd00::1") + f.pack_number(5)) == "fd00::1 . 5"


def test_elements_must_fit_their_set() -> None:
    nft = FakeNft()
    nft.run_now(Transaction(FAMILY, "t", FRAME))
    for spec, key, value in (
        (NAMES, b"123", None),
        (NAMES, ONE, b"x"),
        (VERDICTS, KEY, b"x"),
        (TARGETS, ONE * 2, None),
    ):
        with pytest.raises(ValueError, match="set"):
            nft.run_now(Transaction(FAMILY, "t", (AddElements(spec, ((key, value),)),)))
