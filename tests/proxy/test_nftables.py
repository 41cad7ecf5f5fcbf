"""Rendering: incremental changes end where rendering anew would, step by step without a gap."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.kernel.nft import (
    AddChain,
    AddElements,
    DeleteChain,
    DeleteElements,
    FakeNft,
    SetSpec,
    Table,
    Transaction,
    Value,
    static_part,
)
from kubesvc.kernel.nft.expressions import goto
from kubesvc.kernel.nft.fields import IPV4_ADDRESS
from kubesvc.kernel.nft.walk import Host, Packet, outcomes
from kubesvc.proxy import frame as fr
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.nftables import Ruleset, Share, cut, pack, service_hash, slots, unpack
from kubesvc.proxy.traffic import PortTraffic, ServiceKey, ServicePortName, Target

OPTIONS = FrameOptions("IPv4", pod_cidr="10.244.0.0/16", service_cidrs=("10.96.0.0/16",))
NODE = "172.30.0.11"
POOL = [Target(f"10.244.{i // 100}.{i % 100}", 8080 + i % 2) for i in range(100)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (ServicePortName("ns1", "svc1", "p80", "TCP"), "ULMVA6XW-ns1/svc1/tcp/p80"),
        (ServicePortName("default", "kubernetes", "https", "TCP"), "2QRHZV4L-default/kubernetes/tcp/https"),
        (ServicePortName("default", "web", "", "TCP"), "PFISGYVC-default/web/tcp/"),
    ],
)
def test_names_hash_as_upstream(name: ServicePortName, wanted: str) -> None:
    """PROXY-95."""
    assert service_hash(name) == wanted


def test_long_names_are_cut() -> None:
    """PROXY-95."""
    assert len(cut("x" * 300)) == 240 and cut("x" * 300).endswith("...") and cut("x" * 240) == "x" * 240


VALUES = st.one_of(st.lists(st.binary(min_size=8, max_size=8)), st.lists(st.none()), st.lists(st.just(goto("n3"))))


@given(st.dictionaries(st.sampled_from(("services", "endpoints", "hairpin")), VALUES))
def test_what_a_service_contributes_is_kept_as_it_is(values: dict[str, list[Value]]) -> None:
    share = Share()
    for name, listed in values.items():
        for number, value in enumerate(listed):
            share.put(name, number.to_bytes(16, "big"), value)
    assert unpack(pack(share)) == share


targets = st.lists(st.sampled_from(POOL), unique=True, max_size=20)


@given(targets, targets)
def test_slots_hold_each_target_once_and_move_few(old: list[Target], new: list[Target]) -> None:
    found = slots(old, new)
    assert sorted(found) == sorted(new)
    moved = sum(1 for i, t in enumerate(found) if t in old and old.index(t) != i)
    # Only as many move as there are numbers beyond the new end that were in use.
    assert moved <= sum(1 for t in old[len(new) :] if t in new)


def test_first_numbering_is_in_order() -> None:
    """PROXY-16."""
    assert slots((), POOL[:3]) == tuple(POOL[:3])


@st.composite
def port(draw: st.DrawFn, service: str, number: int) -> PortTraffic:
    """A service port with lists of the pool; few addresses, so that Services collide."""
    cluster = tuple(sorted(draw(st.lists(st.sampled_from(POOL[:6]), unique=True, max_size=4)), key=str))
    local = tuple(t for t in cluster if draw(st.booleans()))
    return PortTraffic(
        ServicePortName("ns", service, f"p{number}", draw(st.sampled_from(["TCP", "UDP"]))),
        80 + number,
        f"10.96.0.{draw(st.integers(1, 3))}",
        node_port=draw(st.sampled_from([0, 0, 30080])),
        external_ips=tuple(draw(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2"]), unique=True))),
        load_balancer_ips=tuple(draw(st.lists(st.sampled_from(["192.0.2.2", "192.0.2.3"]), unique=True))),
        source_ranges=draw(
            st.sampled_from([None, ("10.0.0.0/8",), ("10.1.0.0/16",), ("10.0.0.0/8", "198.51.100.0/24")])
        ),
        internal_local=draw(st.booleans()),
        external_local=draw(st.booleans()),
        affinity_seconds=draw(st.sampled_from([None, None, 10, 100])),
        cluster=cluster,
        local=local,
        usable=bool(cluster) or draw(st.booleans()),
        local_targets=local,
    )


@st.composite
def state(draw: st.DrawFn) -> dict[ServiceKey, list[PortTraffic]]:
    found: dict[ServiceKey, list[PortTraffic]] = {}
    for service in ("a", "b", "c"):
        ports = [draw(port(service, n)) for n in range(draw(st.integers(0, 2)))]
        found["ns", service] = list({p.name: p for p in ports}.values())
    return found


PACKETS = [
    Packet(source, to, number, protocol)
    for source in ("10.244.0.1", "203.0.113.5", NODE)
    for to in ("10.96.0.1", "10.96.0.2", "10.96.0.9", "192.0.2.1", "192.0.2.2", "192.0.2.3", NODE)
    for number in (80, 81, 30080)
    for protocol in (6, 17)
]


def fates(table: Table) -> list[set[str]]:
    host = Host(frozenset((NODE,)))
    return [{str(o) for o in outcomes(table, packet, host)} for packet in PACKETS]


@settings(max_examples=25, deadline=None)
@given(st.lists(state(), min_size=1, max_size=4))
def test_changes_end_where_rendering_anew_would(states: list[dict[ServiceKey, list[PortTraffic]]]) -> None:
    """Applied change by change, the kernel's table is the ruleset's own, and every packet fares as under a table
    rendered from nothing."""
    ruleset, nft = Ruleset(OPTIONS, (NODE,)), FakeNft()
    for transaction in ruleset.repair(None):
        nft.run_now(transaction)
    for wanted in states:
        delta = ruleset.change(wanted)
        for transaction in ruleset.transactions(delta):
            nft.run_now(transaction)
        table = nft.tables[2, "kubesvc"]
        assert static_part(table) == static_part(ruleset.table())
        assert ruleset.repair(table) == []
    anew = Ruleset(OPTIONS, (NODE,))
    anew.change(states[-1])
    assert fates(ruleset.table()) == fates(anew.table())
    assert not ruleset.change(states[-1]), "the same again changes nothing"


@settings(max_examples=25, deadline=None)
@given(state(), state())
def test_repair_reaches_any_state_from_any_other(
    before: dict[ServiceKey, list[PortTraffic]], after: dict[ServiceKey, list[PortTraffic]]
) -> None:
    """diff(old, new) applied to the old table is the new one: what a restart does (PROXY-102)."""
    old, new, nft = Ruleset(OPTIONS, (NODE,)), Ruleset(OPTIONS, (NODE,)), FakeNft()
    old.change(before)
    new.change(after)
    for transaction in [*old.repair(None), *new.repair(old.table())]:
        nft.run_now(transaction)
    assert static_part(nft.tables[2, "kubesvc"]) == static_part(new.table())


def simple(targets: Sequence[Target], **more: object) -> dict[ServiceKey, list[PortTraffic]]:
    name = ServicePortName("ns", "web", "http", "TCP")
    made = PortTraffic(name, 80, "10.96.0.1", cluster=tuple(targets), usable=bool(targets), **more)  # type: ignore[arg-type]
    return {("ns", "web"): [made]}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=2, max_size=4), st.integers(1, 12))
def test_every_step_leaves_traffic_working(counts: list[int], limit: int) -> None:
    """Whatever the size of transactions: after each of them every draw leads to an endpoint, of before or after. So one
    change may take several transactions, of which each is atomic (PROXY-101, 105)."""
    ruleset, nft = Ruleset(OPTIONS, (NODE,)), FakeNft()
    ruleset.change(simple(POOL[: counts[0]]))
    for transaction in ruleset.repair(None):
        nft.run_now(transaction)
    known = set(POOL[: counts[0]])
    for turn, count in enumerate(counts[1:]):
        wanted = POOL[turn : turn + count]
        delta = ruleset.change(simple(wanted))
        for transaction in cut_small(delta, ruleset, limit):
            nft.run_now(transaction)
            found = outcomes(nft.tables[2, "kubesvc"], Packet("10.244.9.9", "10.96.0.1", 80), Host(frozenset()))
            assert {Target(o.destination, o.port) for o in found} <= known | set(wanted)
            assert {o.verdict for o in found} == {"accept"}
        found = outcomes(nft.tables[2, "kubesvc"], Packet("10.244.9.9", "10.96.0.1", 80), Host(frozenset()))
        assert {Target(o.destination, o.port) for o in found} == set(wanted), "all of them, and nothing else"
        known = set(wanted)


def cut_small(delta: object, ruleset: Ruleset, limit: int) -> list[Transaction]:
    from kubesvc.proxy import delta as d

    assert isinstance(delta, d.Delta)
    return d.transactions(delta, 2, "kubesvc", fr.set_rank, limit)


def test_a_changed_verdict_is_replaced_in_one_transaction_and_what_is_unwanted_goes_last() -> None:
    """PROXY-104."""
    ruleset = Ruleset(OPTIONS, (NODE,))
    ruleset.change(simple(POOL[:3]))
    written = ruleset.transactions(ruleset.change(simple(POOL[:2])))
    (replaced,) = [t for t in written if any(isinstance(c, AddElements) for c in t.commands)]
    touched = [(type(c), c.set.name) for c in replaced.commands if isinstance(c, AddElements | DeleteElements)]
    assert touched == [(DeleteElements, "services"), (AddElements, "services")]
    (last,) = written[-1].commands
    assert isinstance(last, DeleteElements) and last.set.name == "endpoints" and written[-1] is not replaced


def test_a_chain_goes_after_what_leads_to_it_and_comes_before() -> None:
    """PROXY-105, BUG-17: what upstream leaves for a second is removed here in a transaction of its own, the last."""
    ruleset = Ruleset(OPTIONS, (NODE,))
    ruleset.change(simple(POOL[:70]))
    written = ruleset.transactions(ruleset.change(simple(POOL[:71])))
    steps = [(number, command) for number, t in enumerate(written) for command in t.commands]
    (made,) = [n for n, c in steps if isinstance(c, AddChain) and c.spec.name == "large-n71"]
    (gone,) = [n for n, c in steps if isinstance(c, DeleteChain) and c.name == "large-n70"]
    (moved,) = {n for n, c in steps if isinstance(c, AddElements) and c.set.name == "services"}
    assert made <= moved < gone == len(written) - 1


def test_one_endpoint_replaced_writes_one_element() -> None:
    """PROXY-103."""
    ruleset = Ruleset(OPTIONS, (NODE,))
    ruleset.change(simple(POOL[:10]))
    delta = ruleset.change(simple([*POOL[:4], POOL[50], *POOL[5:10]]))
    assert delta.size() == 1 and not delta.rules


def test_a_table_of_another_shape_is_built_anew() -> None:
    """Whatever it was, the wished table is there afterwards."""
    ruleset, nft = Ruleset(OPTIONS, (NODE,)), FakeNft()
    spec = SetSpec("services", (IPV4_ADDRESS,), verdicts=True)
    strange = Table(2, "kubesvc", sets={"services": spec}, elements={"services": {}})
    nft.tables[2, "kubesvc"] = strange
    for transaction in ruleset.repair(strange):
        nft.run_now(transaction)
    assert static_part(nft.tables[2, "kubesvc"]) == static_part(ruleset.table())


def test_conflicts_are_told() -> None:
    ruleset = Ruleset(OPTIONS, (NODE,))
    names = [ServicePortName("ns", n, "http", "TCP") for n in ("beta", "alpha")]
    ruleset.change(
        {
            n[:2]: [PortTraffic(n, 80, f"10.96.0.{i}", external_ips=("192.0.2.1",), cluster=(POOL[i],), usable=True)]
            for i, n in enumerate(names, 1)
        }
    )
    assert ruleset.conflicts() == [(names[1], names[0])]
