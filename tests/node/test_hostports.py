"""Host ports: planned from the Pod, rendered whole, walked packet by packet without a kernel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.kernel.nft import FakeNft
from kubesvc.kernel.nft.table import NFPROTO_IPV4
from kubesvc.node.hostports import TABLE, HostPort, HostPorts, plan_host_ports, render

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
        await ports.clear()
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
