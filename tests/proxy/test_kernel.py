"""The packet table against the real kernel: real sockets, real rules, namespaces of our own."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress

import pytest

from kubesvc.api.kinds import ENDPOINT_SLICE, SERVICE
from kubesvc.clock import LoopClock
from kubesvc.kernel.conntrack import KernelConntrack
from kubesvc.kernel.nft import DeleteElements, KernelNft, NftError, NoSuchObject, Transaction, Value, static_part
from kubesvc.kernel.nft.commands import AddChain, AddElements, AddTable
from kubesvc.kernel.nft.expressions import goto
from kubesvc.kernel.nft.table import ChainSpec, Table
from kubesvc.proxy import NftBackends, Proxy, ProxySettings
from kubesvc.proxy.flows import plan_stale
from kubesvc.proxy.fronts import front_of
from kubesvc.proxy.nftables import Ruleset, affinity_lists, affinity_map
from kubesvc.proxy.traffic import Family

from .lab import Lab
from .objects import (
    ADDRESSES,
    HERE,
    OUTSIDE,
    POD_CIDRS,
    SERVICE_CIDRS,
    A,
    At,
    B,
    C,
    ready,
    service,
    slice_of,
    vip,
)
from .packets import AFFINITY, CASES, DROPPED, LOCAL, PASSED, Case, M, Make, node_port, plain, planned, udp, web
from .test_packets import options, row_id
from .test_sync import NODE_OBJECT, Cluster

pytestmark = pytest.mark.e2e

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")
MOST_TRIES = 60
"""Connections after which every endpoint must have been drawn at least once: a miss is as likely as 2 to the -59."""


class Kernel:
    """The lab with its node's rules and connections."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nft = lab.inside(HERE, KernelNft)
        self.conntrack = lab.inside(HERE, KernelConntrack)

    def apply(self, ruleset: Ruleset) -> None:
        """Make the kernel's table this one, by the difference to what is there."""
        for transaction in ruleset.repair(self.table(ruleset)):
            self.nft.run_now(transaction)
        self.forget_records(ruleset)

    def table(self, ruleset: Ruleset) -> Table | None:
        """What the kernel has."""
        return asyncio.run(self.nft.read(ruleset.words.nfproto, "kubesvc"))

    def nft_tool(self, *words: str, input: str = "") -> str:
        """Output of the nft program in the node."""
        command = ["ip", "netns", "exec", f"{self.lab.prefix}{HERE}", "nft", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, input=input).stdout

    def forget_records(self, ruleset: Ruleset) -> None:
        """As the loop does after every sync."""
        for ports in ruleset.ports.values():
            for name, allowed in affinity_lists(ports):
                spec = affinity_map(ruleset.words, name)
                for client, target in self.records(ruleset, name).items():
                    if target not in allowed:
                        delete = DeleteElements(spec, (client,))
                        self.nft.run_now(Transaction(ruleset.words.nfproto, "kubesvc", (delete,)))

    def records(self, ruleset: Ruleset, name: str) -> dict[bytes, Value]:
        """Which endpoint each client was sent to."""
        spec = affinity_map(ruleset.words, name)
        return asyncio.run(self.nft.read_elements(ruleset.words.nfproto, "kubesvc", spec))

    def ask(self, sender: str, family: Family, to: str, port: int, protocol: str = "TCP") -> str:
        return ask(self.lab, sender, family, to, port, protocol)


def ask(
    lab: Lab, sender: str, family: Family, to: str, port: int, protocol: str = "TCP", *, seconds: float = 10.0
) -> str:
    """What becomes of a connection, in the words of the packet table."""
    answer = lab.ask(sender, family, to, port, protocol, seconds=seconds)
    who, _, seen = answer.partition(" ")
    # The node masquerades to its own addresses: of its own packets nobody can tell.
    return who + (M if seen and sender != HERE and seen != ADDRESSES[family][sender] else "")


def check_packet(lab: Lab, case: Case, family: Family, fate: AbstractSet[str]) -> None:
    """One row: every fate is seen, and none besides."""
    wanted = {f.removesuffix(M) for f in fate} if case.sender == HERE else set(fate)
    found = set()
    for _ in range(1 if len(wanted) == 1 or "affinity" in case.tags else MOST_TRIES):
        patience = 0.12 if wanted <= {DROPPED, PASSED} else 10.0
        found.add(ask(lab, case.sender, family, case.to(family), case.port, case.protocol, seconds=patience))
        if found == wanted:
            break
    if wanted == {PASSED}:  # nobody has such an address, or nobody listens there
        assert not {word.removesuffix(M) for word in found} & {A, B, C, HERE}
    else:
        assert found == wanted or ("affinity" in case.tags and found < wanted)


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> Iterator[Kernel]:
    made = Kernel(lab)
    yield made
    made.nft_tool("flush", "ruleset")
    made.nft.close()
    made.conntrack.close()


def renew(ruleset: Ruleset, make: Make, family: Family) -> Ruleset:
    """The same rules with other Services."""
    ruleset.change(planned(Case("", make, A, web, 80, frozenset()), family))
    return ruleset


def rules(make: Make, family: Family) -> Ruleset:
    return renew(Ruleset(options(family), (ADDRESSES[family][HERE],)), make, family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", [c for c in CASES if c.protocol != "SCTP"], ids=row_id)  # few kernels have it
def test_packet(kernel: Kernel, case: Case, family: Family) -> None:
    ruleset = Ruleset(options(family), (ADDRESSES[family][HERE],))
    ruleset.change(planned(case, family))
    kernel.apply(ruleset)
    check_packet(kernel.lab, case, family, case.fate_by("nftables", family))


@pytest.mark.parametrize("family", FAMILIES)
def test_affinity(kernel: Kernel, family: Family) -> None:
    """PROXY-59 to 62, 66: a client stays through 16 requests, others are balanced, a leaving endpoint takes its records
    along."""
    ruleset = rules(node_port(ready(A, B, C), **AFFINITY), family)
    kernel.apply(ruleset)

    def by_vip() -> str:
        return kernel.ask(OUTSIDE, family, vip(family), 80)

    first = by_vip()
    assert {by_vip() for _ in range(16)} == {first}
    by_node_port = kernel.ask(OUTSIDE, family, ADDRESSES[family][HERE], 30080)
    assert by_node_port == first, "a service port has one record per client, whatever the front"
    kernel.apply(renew(ruleset, node_port(ready(A, B, C, HERE), **AFFINITY), family))
    assert {by_vip() for _ in range(8)} == {first}, "a new endpoint moves nobody"
    left = [who for who in (A, B, C) if who != first.removesuffix(M)]
    kernel.apply(renew(ruleset, node_port(ready(*left), **AFFINITY), family))
    second = by_vip()
    assert second != first and {by_vip() for _ in range(8)} == {second}, "balanced anew at once, and sticky again"


def test_affinity_timeout(kernel: Kernel) -> None:
    """PROXY-60: the record carries the Service's own timeout."""
    ruleset = rules(plain(ready(B, C), **AFFINITY), "IPv4")
    kernel.apply(ruleset)
    kernel.ask(A, "IPv4", vip("IPv4"), 80)
    (name, _), *_ = affinity_lists(next(iter(ruleset.ports.values())))
    assert len(kernel.records(ruleset, name)) >= 1
    assert f"{ADDRESSES['IPv4'][A]} timeout 1m40s expires" in kernel.nft_tool("list", "table", "ip", "kubesvc")


def forget_stale(kernel: Kernel, ruleset: Ruleset, family: Family) -> int:
    async def act() -> int:
        flows = await kernel.conntrack.udp_flows(socket.AF_INET6 if family == "IPv6" else socket.AF_INET)
        stale = plan_stale(flows, [port for ports in ruleset.ports.values() for port in ports])
        assert kernel.conntrack.filters, "the kernel selects UDP itself"
        return await kernel.conntrack.forget(ruleset.words.nfproto, stale)

    return asyncio.run(act())


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_client_follows_a_replaced_pod(kernel: Kernel, family: Family) -> None:
    """PROXY-72 to 77: one UDP socket, its endpoint is replaced, the flow is forgotten, answers come again."""
    ruleset = rules(udp(ready(A)), family)
    kernel.apply(ruleset)
    forget_stale(kernel, ruleset, family)
    with kernel.lab.open(OUTSIDE, family, socket.SOCK_DGRAM) as s:
        assert Lab.ask_by(s, vip(family), 53).startswith("a ")
        kernel.apply(renew(ruleset, udp(ready(B)), family))
        assert Lab.ask_by(s, vip(family), 53).startswith("a "), "the kernel remembers the flow"
        assert forget_stale(kernel, ruleset, family) >= 1
        assert Lab.ask_by(s, vip(family), 53).startswith("b ")
        assert forget_stale(kernel, ruleset, family) == 0, "a healthy flow is left alone"


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_client_that_came_too_early(kernel: Kernel, family: Family) -> None:
    """PROXY-75: with no endpoint the flow stays; as soon as there is one, the client reaches it."""
    ruleset = rules(udp(), family)
    kernel.apply(ruleset)
    with kernel.lab.open(A, family, socket.SOCK_DGRAM) as s:
        Lab.ask_by(s, vip(family), 53)
        assert forget_stale(kernel, ruleset, family) == 0
        kernel.apply(renew(ruleset, udp(ready(B)), family))
        forget_stale(kernel, ruleset, family)
        assert Lab.ask_by(s, vip(family), 53).startswith("b ")


@pytest.mark.parametrize("family", FAMILIES)
def test_more_endpoints_than_shared_chains(kernel: Kernel, family: Family) -> None:
    """Three hundred endpoints, and back to a few."""
    real = [At(A), At(B)]
    unreal = [At(C, address=f"10.244.3.{i}" if family == "IPv4" else f"fd00:244:3::{i:x}") for i in range(1, 255)]
    more = [At(C, address=f"10.244.4.{i}" if family == "IPv4" else f"fd00:244:4::{i:x}") for i in range(1, 46)]
    ruleset = rules(plain([*real, *unreal, *more]), family)
    kernel.apply(ruleset)
    table = kernel.table(ruleset)
    assert table and "large-n301" in table.chains
    kernel.apply(renew(ruleset, plain(real), family))
    table = kernel.table(ruleset)
    assert table and not any(name.startswith("large") for name in table.chains)
    assert {kernel.ask(C, family, vip(family), 80) for _ in range(MOST_TRIES)} == {A, B}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back(kernel: Kernel, family: Family) -> None:
    """The kernel's table equals ours, so comparing again writes nothing."""
    ruleset = rules(node_port(ready(A, B, C), **AFFINITY, **LOCAL), family)
    kernel.apply(ruleset)
    found = kernel.table(ruleset)
    assert found and static_part(found) == static_part(ruleset.table())
    assert ruleset.repair(found) == []


@pytest.mark.parametrize(("family", "spec"), [("IPv4", {**AFFINITY, **LOCAL}), ("IPv6", LOCAL)])
def test_nft_lists_and_reloads(kernel: Kernel, family: Family, spec: dict[str, object]) -> None:
    """The nft program prints the table, and what it printed makes the same table (its 1.0.6 can not load the records
    of IPv6 affinity, though it prints them)."""
    words = ("table", "ip6" if family == "IPv6" else "ip", "kubesvc")
    kernel.apply(rules(node_port(ready(A, B, C), **spec), family))
    printed = kernel.nft_tool("-s", "list", *words)
    kernel.nft_tool("delete", *words)
    kernel.nft_tool("-f", "-", input=printed)
    assert kernel.nft_tool("-s", "list", *words) == printed
    assert "reject" in printed and "numgen random mod 3 map @endpoints" in printed


def test_a_record_that_ran_out_frees_the_client(kernel: Kernel) -> None:
    """PROXY-60, 66: after the timeout, and no sooner, a client is balanced anew."""

    def hold(seconds: int) -> None:
        config = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}
        kernel.apply(rules(plain(ready(B, C), sessionAffinity="ClientIP", **config), "IPv4"))

    hold(600)
    first = kernel.ask(A, "IPv4", vip("IPv4"), 80)
    assert {kernel.ask(A, "IPv4", vip("IPv4"), 80) for _ in range(20)} == {first}, "within the timeout"
    hold(1)
    first = kernel.ask(A, "IPv4", vip("IPv4"), 80)
    for _ in range(40):  # one of two every time
        time.sleep(1.1)
        if kernel.ask(A, "IPv4", vip("IPv4"), 80) != first:
            return
    raise AssertionError(f"always {first}")


def test_a_refused_transaction_changes_nothing(kernel: Kernel) -> None:
    """PROXY-101: all of it or nothing."""
    ruleset = rules(plain(ready(A)), "IPv4")
    kernel.apply(ruleset)
    before = kernel.table(ruleset)
    bad = AddElements(ruleset.frame.sets["services"], ((front_of("10.96.7.7", "TCP", 1), goto("nowhere")),))
    with pytest.raises(NoSuchObject, match="AddElements of 'services'"):
        kernel.nft.run_now(Transaction(2, "kubesvc", (AddChain(ChainSpec("new")), bad)))
    after = kernel.table(ruleset)
    assert before and after and static_part(before) == static_part(after)


def test_changes_by_others_are_noticed(kernel: Kernel) -> None:
    kernel.apply(rules(plain(ready(A)), "IPv4"))
    before = asyncio.run(kernel.nft.disturbances())
    kernel.nft.run_now(Transaction(2, "kubesvc", (AddTable(), AddChain(ChainSpec("own")))))
    kernel.nft.run_now(Transaction(2, "kubesvc", (AddTable(),)))  # changes nothing, and the kernel does not count it
    assert asyncio.run(kernel.nft.disturbances()) == before
    kernel.nft_tool("add", "table", "ip", "someone")
    kernel.nft_tool("delete", "table", "ip", "someone")
    assert asyncio.run(kernel.nft.disturbances()) > before


STRANGERS = """
table ip kubesvc {
    set foreign { type ether_addr; elements = { 00:11:22:33:44:55 } }
    set wide { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
    counter hits { }
    chain stranger { tcp dport { 80, 443 } counter name hits drop; ip saddr @wide log; }
    chain caught { type filter hook forward priority -300; jump stranger; }
    chain services-trap { }
}
add rule ip kubesvc dispatch tcp dport 80 drop
add element ip kubesvc cluster-ips { 10.96.44.44 }
delete element ip kubesvc services { 10.96.0.1 . tcp . 80 }
"""


def test_whatever_strangers_did_is_repaired(kernel: Kernel) -> None:
    """Sets, chains, rules and elements of others in our table, and some of ours gone (PROXY-102)."""
    ruleset = rules(plain(ready(A)), "IPv4")
    kernel.apply(ruleset)
    kernel.nft_tool("-f", "-", input=STRANGERS)
    assert ask(kernel.lab, B, "IPv4", vip("IPv4"), 80, seconds=0.3) == "dropped"
    kernel.apply(ruleset)
    found = kernel.table(ruleset)
    assert found and static_part(found) == static_part(ruleset.table())
    assert kernel.ask(B, "IPv4", vip("IPv4"), 80) == A


def test_no_connection_fails_while_endpoints_change(kernel: Kernel) -> None:
    """Endpoints come and go, one always there: a connection after every transaction is answered."""
    ruleset = rules(plain(ready(A, B)), "IPv4")
    kernel.apply(ruleset)
    answers = []
    for turn in range(60):
        wanted = (ready(A, B), ready(B), ready(A, B, C), ready(A))[turn % 4]
        delta = ruleset.change(planned(Case("", plain(wanted), A, web, 80, frozenset()), "IPv4"))
        for transaction in ruleset.transactions(delta):
            kernel.nft.run_now(transaction)
            answers.append(kernel.ask(OUTSIDE, "IPv4", vip("IPv4"), 80).removesuffix(M))
    assert set(answers) == {A, B, C}
    found = kernel.table(ruleset)
    assert found and static_part(found) == static_part(ruleset.table())


def test_too_long_a_transaction_is_said_to_be(kernel: Kernel) -> None:
    """As it is for an ordinary user, whose sockets are smaller."""
    small = kernel.lab.inside(HERE, lambda: KernelNft(buffer_bytes=50_000))
    addresses = rules(plain(ready(A)), "IPv4").frame.sets["cluster-ips"]
    many = tuple((number.to_bytes(4, "big"), None) for number in range(10_000))
    with pytest.raises(NftError, match="bytes in one transaction"):
        small.run_now(Transaction(2, "kubesvc", (AddElements(addresses, many),)))
    small.close()


def test_the_whole_loop_on_the_real_kernel(kernel: Kernel) -> None:
    """From an event of the API to a packet that follows it, over and over; then a restart that leaves rules alone."""
    here = ADDRESSES["IPv4"][HERE]

    async def main() -> list[float]:
        cluster = Cluster()
        cluster.objects["nodes"]["", "n1"] = NODE_OBJECT
        clock = LoopClock(asyncio.get_running_loop())
        settings = ProxySettings(
            cluster_cidrs=tuple(POD_CIDRS.values()), service_cidrs=tuple(SERVICE_CIDRS.values()), health_port=0
        )
        proxy = Proxy(
            cluster,  # type: ignore[arg-type]
            "n1",
            NftBackends(kernel.nft),
            clock,
            random.Random(1),
            settings,
            conntrack=kernel.conntrack,
        )
        task = asyncio.create_task(proxy.run())
        cluster.put(SERVICE, service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]))
        lags = []
        for turn in range(20):
            wanted = (B, C)[turn % 2]
            cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(wanted)))
            started = time.perf_counter()
            while True:
                answer = await asyncio.to_thread(kernel.ask, A, "IPv4", vip("IPv4"), 80)
                if answer == wanted:
                    break
                assert time.perf_counter() - started < 60, answer
            lags.append(time.perf_counter() - started)
        assert await asyncio.to_thread(kernel.ask, OUTSIDE, "IPv4", here, 30080) == C + M
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return lags

    asyncio.run(kernel.nft.run(Transaction(2, "kubesvc", (AddTable(),))))
    lags = sorted(asyncio.run(main()))
    assert lags[len(lags) // 2] < 0.25, lags
    assert kernel.ask(A, "IPv4", vip("IPv4"), 80) == C, "rules outlive the proxy (PROXY-120)"


def test_connections_while_endpoints_change_as_fast_as_they_can(kernel: Kernel) -> None:
    """Thousands of changes under steady new connections: none is refused, lost or sent to a stranger."""
    ruleset = rules(plain(ready(A, B)), "IPv4")
    kernel.apply(ruleset)
    states = [planned(Case("", plain(ready(*who)), A, web, 80, frozenset()), "IPv4") for who in LISTS]
    answers: Counter[str] = Counter()
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set():
            answers[kernel.ask(OUTSIDE, "IPv4", vip("IPv4"), 80).removesuffix(M)] += 1

    threads = [threading.Thread(target=connect) for _ in range(3)]
    for thread in threads:
        thread.start()
    changes, deadline = 0, time.monotonic() + 120
    while (changes < 1000 or answers.total() < 300) and time.monotonic() < deadline:
        delta = ruleset.change(states[changes % len(states)])
        for transaction in ruleset.transactions(delta):
            kernel.nft.run_now(transaction)
        changes += 1
        time.sleep(0.0005)  # the connecting threads need the interpreter too
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {A, B, C}, answers
    assert changes >= 1000 and answers.total() >= 300, (changes, answers)


LISTS = ((A, B), (B,), (A, B, C), (C,), (A, C), (B, C), (A,))
