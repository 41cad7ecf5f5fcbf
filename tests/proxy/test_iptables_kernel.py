"""The packet table against the real kernel by way of iptables: the system's own programs, in namespaces of our own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from typing import Literal

import msgspec
import pytest

from kubesvc.kernel.conntrack import KernelConntrack
from kubesvc.kernel.iptables import KernelIptables, parse_save, probe
from kubesvc.proxy.backend import Refused, Standpoint
from kubesvc.proxy.flows import plan_stale
from kubesvc.proxy.iptablesbackend import IptablesBackend, is_ours
from kubesvc.proxy.traffic import Family, PortTraffic, ServicePortName, Target

from .lab import Lab
from .objects import ADDRESSES, HERE, OUTSIDE, A, B, C, ready, vip
from .packets import (
    AFFINITY,
    CASES,
    LOCAL,
    RANGES_OUTSIDE,
    Case,
    M,
    Make,
    balancer,
    node_port,
    plain,
    planned,
    udp,
    web,
)
from .test_kernel import FAMILIES, ask, check_packet
from .test_packets import options, row_id

pytestmark = pytest.mark.e2e


class Node:
    """The lab's node, with the chains of each family."""

    def __init__(self, lab: Lab, variant: Literal["nf_tables", "legacy", ""] = "") -> None:
        self.lab = lab
        self.variant = variant
        self.prefix = ("ip", "netns", "exec", f"{lab.prefix}{HERE}")
        self.door = KernelIptables(self.prefix, variant)
        self.conntrack = lab.inside(HERE, KernelConntrack)
        self.backends: dict[Family, IptablesBackend] = {}
        for family in FAMILIES:
            self.backends[family] = IptablesBackend(family, self.door)
            self.backends[family].stand(Standpoint(options(family), None))

    def apply(self, make: Make, family: Family) -> int:
        """These Services and no others, as the loop writes a change. Returns how many rules that took."""
        return self.show(planned(Case("", make, A, web, 80, frozenset()), family), family)

    def show(self, plans: dict[tuple[str, str], tuple[PortTraffic, ...]], family: Family) -> int:
        backend = self.backends[family]
        before = backend.written
        changes: dict[tuple[str, str], tuple[PortTraffic, ...]] = dict.fromkeys(backend.ports, ())
        asyncio.run(backend.change(changes | plans))
        return backend.written - before

    def ask(self, sender: str, family: Family, to: str, port: int, protocol: str = "TCP") -> str:
        return ask(self.lab, sender, family, to, port, protocol)

    def run(self, program: str, *words: str) -> str:
        """Output of a program of this variant."""
        if self.variant == "legacy":
            program = program.replace("tables", "tables-legacy")
        words = (program, *words)
        return subprocess.run([*self.prefix, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=["", pytest.param("legacy", marks=pytest.mark.soak)])
def node(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(lab, request.param)
    abilities = asyncio.run(probe(made.door))
    if not abilities.enough:
        pytest.skip(abilities.sentence())
    lab.write(HERE, "net/ipv4/conf/all/route_localnet", "1")
    yield made
    for backend in made.backends.values():
        asyncio.run(backend.clean_up())
    made.conntrack.close()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", [c for c in CASES if c.protocol != "SCTP"], ids=row_id)
def test_packet(node: Node, case: Case, family: Family) -> None:
    node.show(planned(case, family), family)
    check_packet(node.lab, case, family, case.fate_by("iptables", family))


@pytest.mark.parametrize("family", FAMILIES)
def test_affinity(node: Node, family: Family) -> None:
    """PROXY-59 to 62, 111: a client stays, whatever the front; a leaving endpoint takes its records along."""
    node.apply(node_port(ready(A, B, C), **AFFINITY), family)

    def by_vip() -> str:
        return node.ask(OUTSIDE, family, vip(family), 80)

    first = by_vip()
    assert {by_vip() for _ in range(10)} == {first}
    assert node.ask(OUTSIDE, family, ADDRESSES[family][HERE], 30080) == first
    node.apply(node_port(ready(A, B, C, HERE), **AFFINITY), family)
    assert {by_vip() for _ in range(6)} == {first}, "a new endpoint moves nobody"
    left = [who for who in (A, B, C) if who != first.removesuffix(M)]
    node.apply(node_port(ready(*left), **AFFINITY), family)
    second = by_vip()
    assert second != first and {by_vip() for _ in range(6)} == {second}


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_client_follows_a_replaced_pod(node: Node, family: Family) -> None:
    """PROXY-72 to 77, and 75: nothing is forgotten while there is no endpoint, all is when there is one again."""

    def forget() -> int:
        async def act() -> int:
            number = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
            ports = [p for ports in node.backends[family].ports.values() for p in ports]
            return await node.conntrack.forget(number, plan_stale(await node.conntrack.udp_flows(number), ports))

        return asyncio.run(act())

    node.apply(udp(ready(A)), family)
    forget()
    with node.lab.open(OUTSIDE, family, socket.SOCK_DGRAM) as s:
        assert Lab.ask_by(s, vip(family), 53).startswith("a ")
        node.apply(udp(), family)
        assert forget() == 0
        node.apply(udp(ready(B)), family)
        assert forget() >= 1
        assert Lab.ask_by(s, vip(family), 53).startswith("b ")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back(node: Node, family: Family) -> None:
    """Comparing again writes nothing; whatever somebody changed in our chains is put right (PROXY-114)."""
    backend = node.backends[family]
    node.apply(balancer(ready(A, B, C), loadBalancerSourceRanges=RANGES_OUTSIDE), family)
    assert asyncio.run(backend.load({})) == 0
    node.apply(node_port(ready(A, B, C), **AFFINITY, **LOCAL), family)
    assert asyncio.run(backend.load({})) == 0
    program = "ip6tables" if family == "IPv6" else "iptables"
    for words in (
        ("-t", "nat", "-F"),
        ("-t", "nat", "-I", "KUBE-SERVICES", "-p", "tcp", "-j", "ACCEPT"),
        ("-t", "nat", "-D", "PREROUTING", "1"),
        ("-t", "mangle", "-X", "KUBE-PROXY-CANARY"),
        ("-t", "filter", "-D", "KUBE-FORWARD", "1"),
        ("-t", "nat", "-N", "KUBE-SVC-NOBODYWANTSTHIS"),
    ):
        node.run(program, *words)
        assert asyncio.run(backend.audit()), words
        assert not asyncio.run(backend.audit()), words
    assert node.ask(OUTSIDE, family, ADDRESSES[family][HERE], 30080) in (A, B)


def test_rules_of_others_stay(node: Node) -> None:
    """What is not ours is there before and after, and cleaning up removes all of ours and nothing else (PROXY-121)."""
    node.run("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "4444", "-j", "ACCEPT")
    node.run("iptables", "-N", "STRANGER")
    node.apply(node_port(ready(A)), "IPv4")
    backend = node.backends["IPv4"]
    assert node.ask(OUTSIDE, "IPv4", ADDRESSES["IPv4"][HERE], 30080) == A + M
    asyncio.run(backend.clean_up())
    saved = node.run("iptables-save")
    found = parse_save(saved, "IPv4")
    assert not [name for table, chains in found.items() for name in chains.rules if is_ours(table, name)]
    assert "STRANGER" in found["filter"].rules and len(found["nat"].rules["PREROUTING"]) == 1
    asyncio.run(backend.clean_up())
    assert asyncio.run(backend.load({})) == 1
    assert "KUBE-FIREWALL" in node.run("iptables", "-S"), "what stands only where node ports are reached at loopback"
    asyncio.run(IptablesBackend("IPv4", node.door).clean_up())  # by somebody who knows nothing of the node
    assert "KUBE" not in node.run("iptables-save")
    node.run("iptables", "-t", "nat", "-F", "PREROUTING")
    node.run("iptables", "-X", "STRANGER")
    assert asyncio.run(backend.load({})) == 1
    assert node.ask(OUTSIDE, "IPv4", ADDRESSES["IPv4"][HERE], 30080) == A + M


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_are_counted_as_they_are(node: Node, family: Family) -> None:
    """PROXY-134: what is counted is what iptables-save shows in our chains; the last sync wrote less than all."""
    node.apply(node_port(ready(A, B, C), **AFFINITY, **LOCAL), family)
    node.apply(node_port(ready(A, B), **AFFINITY, **LOCAL), family)
    saved = parse_save(node.run("ip6tables-save" if family == "IPv6" else "iptables-save"), family)
    counts = {count.table: count for count in node.backends[family].rule_counts()}
    for table in ("nat", "filter"):
        there = sum(len(rules) for name, rules in saved[table].rules.items() if is_ours(table, name))
        assert counts[table].all == there, table
    assert 0 < counts["nat"].last < counts["nat"].all


def test_what_runbooks_look_for(node: Node) -> None:
    """PROXY-109, 110: the chains of one Service, as `iptables -t nat -S` shows them."""
    node.apply(plain(ready(A, B)), "IPv4")
    shown = node.run("iptables", "-t", "nat", "-S")
    assert '-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "shop/web:http cluster IP"' in shown
    assert "-m statistic --mode random --probability 0.5000000000" in shown
    assert "-j DNAT --to-destination 10.244.1.2:8080" in shown
    assert "KUBE-SERVICES" in node.run("iptables", "-n", "-L")


def test_a_refused_text_changes_nothing(node: Node) -> None:
    """The kernel's refusal names the Service; what was there before still serves."""
    node.apply(plain(ready(A)), "IPv4")
    before = node.run("iptables-save")
    bad = PortTraffic(
        ServicePortName("shop", "bad", "http", "TCP"),
        80,
        vip("IPv4", 2),
        cluster=(Target("10.244.1.300", 8080),),
        usable=True,
    )
    backend = node.backends["IPv4"]
    with pytest.raises(Refused) as refused:
        asyncio.run(backend.change({("shop", "bad"): (bad,)}))
    assert refused.value.suspects == (("shop", "bad"),)
    after = node.run("iptables-save")
    assert [x for x in after.splitlines() if x[:1] in "-:"] == [x for x in before.splitlines() if x[:1] in "-:"]
    assert node.ask(B, "IPv4", vip("IPv4"), 80) == A
    asyncio.run(backend.load({("shop", "bad"): ()}))


def test_a_small_change_writes_little(node: Node) -> None:
    """A replaced endpoint rewrites the chains of its Service alone."""
    many: dict[tuple[str, str], tuple[PortTraffic, ...]] = {
        ("shop", f"s{n}"): (
            PortTraffic(
                ServicePortName("shop", f"s{n}", "http", "TCP"),
                80,
                vip("IPv4", n),
                cluster=(Target(f"10.244.3.{n}", 8080),),
                usable=True,
            ),
        )
        for n in range(1, 100)
    }
    node.show(many, "IPv4")
    backend = node.backends["IPv4"]
    before = backend.written
    (port,) = many["shop", "s1"]
    asyncio.run(
        backend.change({("shop", "s1"): (msgspec.structs.replace(port, cluster=(Target("10.244.1.2", 8080),)),)})
    )
    assert 0 < backend.written - before < 8
    assert node.ask(B, "IPv4", vip("IPv4", 1), 80) == A
    node.show({}, "IPv4")
