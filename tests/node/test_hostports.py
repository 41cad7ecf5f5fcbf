"""Host ports: planned from the Pod, rendered whole, walked packet by packet without a kernel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.clock import run_virtual
from kubesvc.kernel.nft import FakeNft, Transaction
from kubesvc.kernel.nft.table import NFPROTO_IPV4
from kubesvc.node.hostports import TABLE, HostPort, HostPorts, plan_host_ports, render, translation

IP, IP6 = "10.244.1.5", "fd00::5"


def pod(*ports: dict[str, Any], **spec: Any) -> Pod:
    containers = [{"name": "c", "image": "x", "ports": list(ports)}]
    return typed({"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}, Pod)


WAY = {"containerPort": 80, "hostPort": 8080}
CASES: tuple[tuple[str, Pod, list[str], list[HostPort]], ...] = (
    ("no host port", pod({"containerPort": 80}), [IP], []),
    ("a way in for each family", pod(WAY), [IP, IP6],
     [HostPort("", 8080, "TCP", IP, 80), HostPort("", 8080, "TCP", IP6, 80)]),
    ("an address of one family names that family only", pod({**WAY, "hostIP": "192.0.2.1"}), [IP, IP6],
     [HostPort("192.0.2.1", 8080, "TCP", IP, 80)]),
    ("with the node's network the port is the node's already", pod(WAY, hostNetwork=True), [IP], []),
    ("equal ports of different protocols", pod(WAY, {**WAY, "protocol": "UDP"}), [IP],
     [HostPort("", 8080, "TCP", IP, 80), HostPort("", 8080, "UDP", IP, 80)]),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_plan(case: tuple[str, Pod, list[str], list[HostPort]]) -> None:
    _, given, ips, expected = case
    assert plan_host_ports(given, ips) == expected


def test_the_table_follows_the_pods() -> None:
    """One rule per port in each direction, a named address first; nothing written for nothing, no table for none."""

    async def scene() -> None:
        nft = FakeNft()
        ports = HostPorts(nft)
        await ports.begin()
        assert await nft.read(NFPROTO_IPV4, TABLE) is None
        await ports.keep("a", plan_host_ports(pod(WAY), [IP]))
        await ports.keep("b", plan_host_ports(pod({**WAY, "hostIP": "192.0.2.1"}), ["10.244.1.6"]))
        table = await nft.read(NFPROTO_IPV4, TABLE)
        assert table is not None
        assert {name: len(rules) for name, rules in table.rules.items()} == {
            "arriving": 2, "leaving": 2, "returning": 2,
        }  # fmt: skip
        every = plan_host_ports(pod({**WAY, "hostIP": "192.0.2.1"}), ["10.244.1.6"]) + plan_host_ports(pod(WAY), [IP])
        assert render(every, False) == render(reversed(every), False), "the same ports, the same table"
        await ports.drop("a")
        await ports.drop("b")
        assert await nft.read(NFPROTO_IPV4, TABLE) is None

    asyncio.run(scene())


def told(nft: FakeNft) -> set[tuple[int, str]]:
    """(port, Pod's address) of each way in that is in force."""
    table = nft.tables.get((NFPROTO_IPV4, TABLE))
    rules = table.rules["arriving"] if table is not None else ()
    every = [HostPort("", port, "TCP", ip, 80) for port in (8080, 8081) for ip in ("10.244.1.5", "10.244.1.6")]
    return {(p.port, p.pod_ip) for p in every if translation(p, False) in rules}


def way(port: int, ip: str) -> list[HostPort]:
    return [HostPort("", port, "TCP", ip, 80)]


def test_an_agent_that_comes_back_interrupts_no_way_in() -> None:
    """NODE-61, NODE-99: what the one before wrote stands until the Pods that go on are told, all at once."""

    async def scene() -> None:
        nft = FakeNft()
        before = HostPorts(nft)
        await before.begin()
        await before.keep("a", way(8080, "10.244.1.5"))
        await before.keep("gone", way(8081, "10.244.1.6"))
        after = HostPorts(nft)
        both = {(8080, "10.244.1.5"), (8081, "10.244.1.6")}
        assert told(nft) == both
        await after.keep("a", way(8080, "10.244.1.5"))
        await after.drop("unknown")
        assert told(nft) == both
        await after.begin()
        assert told(nft) == {(8080, "10.244.1.5")}

    asyncio.run(scene())


class Slow(FakeNft):
    """A door to the kernel that takes its time before it writes."""

    async def run(self, transaction: Transaction) -> None:
        await asyncio.sleep(0.01)
        await super().run(transaction)


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("cancelled", [False, True], ids=["dropped meanwhile", "cancelled and dropped"])
def test_a_pod_that_goes_while_its_way_in_is_written_leaves_none(turns: int, cancelled: bool) -> None:
    """Whenever that is: the table is what was told last."""

    async def scene() -> None:
        nft = Slow()
        ports = HostPorts(nft)
        await ports.begin()
        await ports.keep("a", way(8080, "10.244.1.5"))
        keeping = asyncio.create_task(ports.keep("b", way(8081, "10.244.1.6")))
        for _ in range(turns):
            await asyncio.sleep(0.002 if turns > 5 else 0)
        if cancelled:
            keeping.cancel()
        await asyncio.gather(ports.drop("b"), keeping, return_exceptions=True)
        assert told(nft) == {(8080, "10.244.1.5")}

    run_virtual(scene())
