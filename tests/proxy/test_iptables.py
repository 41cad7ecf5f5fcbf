"""The text for iptables: upstream's names and layout, what a change writes, and the strictness of the fake."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.kernel.iptables import (
    BadRule,
    FakeIptables,
    IptablesError,
    apply_restore,
    fresh_tables,
    parse_rule,
    parse_save,
    walk,
    words_of,
)
from kubesvc.kernel.iptables.text import render_rule, render_save
from kubesvc.kernel.nft.walk import Host, Packet
from kubesvc.proxy.backend import Standpoint
from kubesvc.proxy.decision import NewFlow, Surroundings, decide
from kubesvc.proxy.iptables import IptablesRuleset, chain_hash, endpoint_chain, port_hash, probability
from kubesvc.proxy.iptablesbackend import IptablesBackend, same
from kubesvc.proxy.traffic import Family, PortTraffic, ServiceKey, ServicePortName, Target

from .objects import ADDRESSES, ALSO_HERE, HERE, OUTSIDE, A, B, C, ready, vip
from .packets import AFFINITY, LOCAL, Case, Make, balancer, node_port, plain, planned, web
from .test_nftables import NODE, PACKETS, state
from .test_packets import options

KEY = ("shop", "web")


def rules(make: Make, family: Family = "IPv4", node_addresses: Any = None, **told: Any) -> IptablesRuleset:
    ruleset = IptablesRuleset(options(family), node_addresses, **told)
    ruleset.change(planned(Case("", make, A, web, 80, frozenset()), family))
    return ruleset


def lines(ruleset: IptablesRuleset, chain: str, table: str = "nat") -> list[str]:
    """The rules of a chain, as they are written."""
    found, now = [], ""
    for line in ruleset.whole().splitlines():
        if line.startswith("*"):
            now = line[1:]
        elif now == table and line.startswith(f"-A {chain} "):
            found.append(line.removeprefix(f"-A {chain} "))
    return found


@pytest.mark.parametrize(
    ("name", "target", "wanted"),
    [
        (("ns1", "svc1", "p80", "TCP"), None, "XPGD46QRK7WJZT7O"),
        (("ns1", "svc1", "p80", "TCP"), Target("10.180.0.1", 80), "KUBE-SEP-SXIVWICOYRO3J4NJ"),
        (("default", "kubernetes", "https", "TCP"), None, "NPX46M4PTMTKRN6Y"),
        (("kube-system", "kube-dns", "dns", "UDP"), None, "TCOU7JCQXEZGVUNU"),
    ],
)
def test_names_hash_as_upstream(name: tuple[str, str, str, str], target: Target | None, wanted: str) -> None:
    """PROXY-109."""
    port = ServicePortName(*name)
    assert (endpoint_chain(port, target) if target else port_hash(port)) == wanted


def test_an_unnamed_port_is_left_out_of_the_hash() -> None:
    """PROXY-109."""
    assert port_hash(ServicePortName("default", "web", "", "TCP")) == chain_hash("default/webtcp")


def test_probabilities() -> None:
    """PROXY-110."""
    assert [probability(n) for n in (2, 3, 7)] == ["0.5000000000", "0.3333333333", "0.1428571429"]
    ruleset = rules(plain(ready(A, B, C)))
    (svc,) = [name for name, _ in ruleset.chains() if name.startswith("KUBE-SVC-")]
    spread = [line for line in lines(ruleset, svc) if "KUBE-SEP" in line]
    assert ["0.3333333333" in spread[0], "0.5000000000" in spread[1], "statistic" in spread[2]] == [True, True, False]


def test_the_layout() -> None:
    """PROXY-108, 112: who jumps where, what is marked, what goes last."""
    ruleset = rules(node_port(ready(A, C), **LOCAL))
    tables = apply_restore(fresh_tables(), ruleset.whole(), "IPv4")
    saved = render_save(tables)
    for jump in (
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    ):
        assert jump in saved, jump
    for chain, target in (
        ("INPUT", "KUBE-EXTERNAL-SERVICES"),
        ("FORWARD", "KUBE-EXTERNAL-SERVICES"),
        ("FORWARD", "KUBE-SERVICES"),
        ("OUTPUT", "KUBE-SERVICES"),
        *((chain, "KUBE-PROXY-FIREWALL") for chain in ("INPUT", "OUTPUT", "FORWARD")),
    ):
        assert any(
            line.startswith(f"-A {chain} -m conntrack --ctstate NEW") and line.endswith(f"-j {target}")
            for line in saved.splitlines()
        ), (chain, target)
    assert lines(ruleset, "KUBE-SERVICES")[-1].endswith("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    assert lines(ruleset, "KUBE-MARK-MASQ") == ["-j MARK --or-mark 0x4000"]
    assert lines(ruleset, "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --xor-mark 0x4000",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    for table in ("nat", "filter", "mangle"):
        assert "KUBE-PROXY-CANARY" in tables[table].rules, "PROXY-114"


@pytest.mark.parametrize(
    ("sentence", "family", "addresses", "loopback", "wanted"),
    [
        ("all, and loopback", "IPv4", None, True, ["-m addrtype --dst-type LOCAL"]),
        ("all but loopback", "IPv4", None, False, ["! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL"]),
        ("all, IPv6 has no loopback", "IPv6", None, True, ["! -d ::1/128 -m addrtype --dst-type LOCAL"]),
        ("some", "IPv4", ("172.30.0.11", "192.0.2.1"), True, ["-d 172.30.0.11", "-d 192.0.2.1"]),
        ("none", "IPv4", (), True, []),
    ],
)
def test_where_node_ports_are(sentence: str, family: Family, addresses: Any, loopback: bool, wanted: list[str]) -> None:
    """PROXY-67 to 70."""
    ruleset = rules(node_port(ready(A)), family, addresses, loopback_ports=loopback)
    said = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
    found = [line for line in lines(ruleset, "KUBE-SERVICES") if "KUBE-NODEPORTS" in line]
    assert [line.removeprefix(said).removesuffix(" -j KUBE-NODEPORTS") for line in found] == wanted, sentence
    guarded = bool(lines(ruleset, "KUBE-FIREWALL", "filter"))
    assert guarded == (sentence == "all, and loopback"), "strangers at 127.0.0.0/8 are dropped where that is routed"


def test_strangers_at_loopback_are_dropped() -> None:
    """PROXY-70: but what is translated, or belongs to a connection, is not."""
    tables = apply_restore(fresh_tables(), rules(node_port(ready(A))).whole(), "IPv4")
    host = Host(frozenset((ADDRESSES["IPv4"][HERE],)))
    stranger = Packet(ADDRESSES["IPv4"][OUTSIDE], "127.0.0.1", 9999)
    assert [o.verdict for o in walk.outcomes(tables, stranger, host)] == ["drop"]
    own = Packet("127.0.0.1", "127.0.0.1", 9999, interface="lo")
    assert [o.verdict for o in walk.outcomes(tables, own, host)] == ["accept"]


@pytest.mark.parametrize("drop", [True, False])
def test_packets_that_no_connection_knows(drop: bool) -> None:
    """PROXY-79: dropped when forwarded, unless the kernel is told to be liberal."""
    found = lines(rules(plain(ready(A)), drop_invalid=drop), "KUBE-FORWARD", "filter")
    assert (found[0] == "-m conntrack --ctstate INVALID -j DROP") == drop and len(found) == 2 + drop


def test_health_check_node_ports_are_accepted() -> None:
    """PROXY-85."""
    ruleset = rules(balancer(ready(A), healthCheckNodePort=31000, **LOCAL))
    assert lines(ruleset, "KUBE-NODEPORTS", "filter") == [
        '-m comment --comment "shop/web:http health check node port" -m tcp -p tcp --dport 31000 -j ACCEPT'
    ]
    assert lines(rules(balancer(ready(A), healthCheckNodePort=31000)), "KUBE-NODEPORTS", "filter") == []


def test_of_several_records_the_first_in_order_counts() -> None:
    """PROXY-64, 65: the source that reaches this node is the key, whatever stands behind it."""
    tables = apply_restore(fresh_tables(), rules(plain(ready(A, B, C), **AFFINITY)).whole(), "IPv4")
    name = ServicePortName(*KEY, "http", "TCP")
    client = ADDRESSES["IPv4"][OUTSIDE]
    remembered = {endpoint_chain(name, Target(ADDRESSES["IPv4"][w], 8080)): {client} for w in (C, B)}
    packet, host = Packet(client, vip("IPv4"), 80), Host(frozenset())
    (outcome,) = walk.outcomes(tables, packet, host, remembered)
    assert outcome.destination == ADDRESSES["IPv4"][B], "the list is in order of ip:port"
    other = Packet(ADDRESSES["IPv4"][A], vip("IPv4"), 80)
    assert len(walk.outcomes(tables, other, host, remembered)) == 3


def test_affinity_has_the_services_timeout() -> None:
    """PROXY-60, 63, 111."""
    ruleset = rules(plain(ready(A), **AFFINITY))
    (svc,) = [name for name, _ in ruleset.chains() if name.startswith("KUBE-SVC-")]
    assert any("--rcheck --seconds 100 --reap" in line for line in lines(ruleset, svc))


def many(count: int) -> dict[ServiceKey, tuple[PortTraffic, ...]]:
    found: dict[ServiceKey, tuple[PortTraffic, ...]] = {}
    for n in range(count):
        name = ServicePortName("shop", f"s{n:04}", "http", "TCP")
        targets = tuple(Target(f"10.244.{n // 250}.{n % 250 + 1}", port) for port in (80, 81, 82))
        found["shop", name.name] = (PortTraffic(name, 80, f"10.96.{n // 250}.{n % 250}", cluster=targets, usable=True),)
    return found


def test_many_endpoints_have_no_comments() -> None:
    """PROXY-113."""
    ruleset = IptablesRuleset(options("IPv4"))
    ruleset.change(many(400))
    before = ruleset.whole().count(" -> ")
    assert before
    more = {("shop", "late"): (PortTraffic(ServicePortName("shop", "late", "", "TCP"), 80, "10.96.9.9", usable=True,
                                           cluster=(Target("10.244.9.9", 80),)),)}  # fmt: skip
    change = ruleset.change(more)
    assert all("comment" not in rule for name, rs in change.chains.items() if "SEP" in name for rule in rs)


def test_a_change_writes_its_own_chains_alone() -> None:
    ruleset = IptablesRuleset(options("IPv4"))
    plans = many(50)
    ruleset.change(plans)
    (port,) = plans["shop", "s0007"]
    change = ruleset.change({("shop", "s0007"): (msgspec.structs.replace(port, cluster=port.cluster[:2]),)})
    assert not change.shared and len(change.gone) == 1
    text = ruleset.partly(change)
    assert text.count("-A ") == 2 + 1 and "KUBE-SERVICES" not in text and text.count("-X ") == 1
    assert ruleset.partly(ruleset.change({})) == ""
    gone = ruleset.change({("shop", "s0007"): ()})
    assert gone.shared and "s0006:http cluster IP" in ruleset.partly(gone)


@settings(max_examples=25, deadline=None)
@given(st.lists(state(), min_size=1, max_size=4))
def test_changes_end_where_writing_anew_would(rounds: list[dict[ServiceKey, list[PortTraffic]]]) -> None:
    """Whatever is changed in whatever order, the kernel ends with what a fresh write gives, and comparing finds so."""

    async def main() -> None:
        fake = FakeIptables()
        backend = IptablesBackend("IPv4", fake)
        backend.stand(Standpoint(options("IPv4"), None))
        for changes in rounds:
            await backend.change(changes)
        fresh = IptablesRuleset(options("IPv4"), None)
        fresh.change(backend.ports)
        assert same(fresh.whole(), render_save(fake.tables["IPv4"]), "IPv4") or not backend.ports
        before = len(fake.log)
        await backend.load({})
        assert len(fake.log) == before
        await backend.clean_up()
        assert render_save(fake.tables["IPv4"]) == render_save(fresh_tables())

    asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(state())
def test_the_rules_do_what_the_decision_says(services: dict[ServiceKey, list[PortTraffic]]) -> None:
    """Any Services, any packet; of fronts that two want, the same one keeps them."""
    services = {k: [p for p in ports if p.cluster or not p.usable] for k, ports in services.items()}
    ruleset = IptablesRuleset(options("IPv4"), None)
    ruleset.change(services)
    tables = apply_restore(fresh_tables(), ruleset.whole(), "IPv4")
    at = Surroundings(options("IPv4").pod_cidr, (NODE, "127.0.0.1"), (NODE, "127.0.0.1"), guarded=False)
    ports = [p for key in sorted(services) for p in services[key]]
    for packet in map(as_sent, PACKETS):
        protocol = {6: "TCP", 17: "UDP"}[packet.protocol]
        decision = decide(ports, NewFlow(packet.source, packet.destination, packet.port, protocol), at)
        found = walk.outcomes(tables, packet, Host(frozenset((NODE,))))
        match decision.verdict:
            case "pass":
                wanted = {(packet.destination, packet.port, False)}
            case "endpoint":
                wanted = {(*t, decision.masquerades(t, packet.source)) for t in decision.targets}
            case verdict:
                assert [o.verdict.split()[0] for o in found] == [{"refuse": "reject", "drop": "drop"}[verdict]], packet
                continue
        assert {(o.destination, o.port, o.masqueraded) for o in found} == wanted, (packet, decision)


def as_sent(packet: Packet) -> Packet:
    """The node's own packets come in by no interface."""
    return replace(packet, interface="" if packet.source == NODE else "eth0")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-A X -j RETURN", "No chain/target/match by that name"),
        ("-A KUBE -j NOSUCH", "No chain/target/match by that name"),
        ("-A KUBE -s 10.244.1.300 -j RETURN", "not found"),
        ("-A KUBE -s fd00::1 -j RETURN", "not found"),
        ("-A KUBE -j DNAT --to-destination 10.0.0.1:80", "need a protocol"),
        ("-A KUBE -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:70000", "invalid"),
        ("-A KUBE --dport 80 -j RETURN", "unknown option"),
        ("-A KUBE -p tcp --dport 80000 -j RETURN", "invalid port"),
        ("-A KUBE --ctstate NEW -j RETURN", "unknown option"),
        ("-A KUBE -m conntrack --ctstate OLD -j RETURN", "Bad ctstate"),
        ("-A KUBE -m nosuch -j RETURN", "Couldn't load match"),
        ("-A KUBE -m statistic --mode random --probability 1.5 -j RETURN", "between 0 and 1"),
        ("-A KUBE -m recent --name x -j RETURN", "must specify one of"),
        ("-A KUBE -m recent --rcheck --name x --reap -j RETURN", "needs --seconds"),
        (f"-A KUBE -m comment --comment {'x' * 256}", "must be shorter"),
        ("-A KUBE -j REJECT --reject-with tcp-reset", "needs -p tcp"),
        ("-A KUBE -j RETURN -j RETURN", "multiple -j"),
        ("-D KUBE -j RETURN", "Bad rule"),
        ("-X PREROUTING", "built-in"),
        ("-X USED", "still in use"),
        (f":{'K' * 29} - [0:0]", "too long"),
        ("garbage", "not enough values"),
    ],
)
def test_what_is_refused(line: str, wanted: str) -> None:
    """As strict as iptables: a bad line is named by its number, and nothing of its table is applied."""
    text = f"*nat\n:KUBE - [0:0]\n:USED - [0:0]\n-A KUBE -j USED\n{line}\nCOMMIT\n"
    before = fresh_tables()
    with pytest.raises((IptablesError, ValueError)) as refused:
        apply_restore(before, text, "IPv4")
    assert wanted in str(refused.value) or isinstance(refused.value, ValueError)
    if isinstance(refused.value, IptablesError):
        assert refused.value.line in (5, 6)
        assert refused.value.applied is not None and "KUBE" not in refused.value.applied["nat"].rules


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-j MARK --or-mark 0x4000", "-j MARK --set-xmark 0x4000/0x4000"),
        ("-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"),
        ("-m tcp -p tcp -d 10.0.0.1 --dport 80 -j X", "-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j X"),
        ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
        (
            "-m recent --name X --rcheck --seconds 9 --reap -j X",
            "-m recent --rcheck --seconds 9 --reap --name X --mask 255.255.255.255 --rsource -j X",
        ),
        (
            "-m statistic --mode random --probability 0.3333333333 -j X",
            "-m statistic --mode random --probability 0.33333333349 -j X",
        ),
        ('-m comment --comment "a \\"b\\" c"', '-m comment --comment "a \\"b\\" c"'),
    ],
)
def test_two_spellings_of_one_rule(one: str, other: str) -> None:
    """As they are written here and as `iptables-save` prints them."""
    first, second = parse_rule(words_of(one), "IPv4"), parse_rule(words_of(other), "IPv4")
    assert first == second
    assert parse_rule(words_of(render_rule(first)), "IPv4") == first


def test_what_is_saved_is_read() -> None:
    tables = apply_restore(fresh_tables(), rules(node_port(ready(A, B), **AFFINITY)).whole(), "IPv4")
    assert parse_save(render_save(tables), "IPv4") == tables
    with pytest.raises(BadRule):
        parse_rule(["--nonsense"], "IPv4")


def test_the_walker_has_no_opinion_of_other_addresses() -> None:
    """PROXY-42: by iptables, what is no front is passed on."""
    tables = apply_restore(fresh_tables(), rules(node_port(ready(A))).whole(), "IPv4")
    packet = Packet(ADDRESSES["IPv4"][A], ALSO_HERE["IPv4"], 31999)
    assert [str(o) for o in walk.outcomes(tables, packet, Host(frozenset()))] == [f"to {ALSO_HERE['IPv4']}:31999"]
