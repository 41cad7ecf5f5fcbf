"""What an agent must not forget when it comes back, or reports again: addresses, its own and those of its Pods."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from kubesvc.api.kinds import NODE
from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import Pod
from kubesvc.clock import LoopClock
from kubesvc.node.context import NodeContext
from kubesvc.node.ipam import AddressPool
from kubesvc.node.nodestatus import NodeKeeper
from kubesvc.node.settings import NodeSettings
from kubesvc.node.simulated import SimulatedPod
from tests.controllers.house import House, in_house

FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("one address", ("172.30.0.11",)),
    ("one of each family", ("172.30.0.11", "fd30::11")),
)


@pytest.mark.parametrize(("what", "addresses"), FAMILIES, ids=[w for w, _ in FAMILIES])
def test_a_second_status_keeps_all_addresses(what: str, addresses: Sequence[str], tmp_path: Path) -> None:
    """Two addresses of one type, by which a strategic patch merges, both stay; and one that the node gives up goes."""

    async def story(house: House) -> None:
        def keeper(*listed: str) -> NodeKeeper:
            settings = NodeSettings(node_name="n2", node_addresses=listed, state_dir=tmp_path)
            made = NodeKeeper(house.client, settings, LoopClock(asyncio.get_running_loop()))
            made.capacity, made.system = {"cpu": "8", "memory": "16Gi", "pods": "110"}, {}
            return made

        async def shown() -> list[str]:
            node = await house.client.get(NODE, "n2")
            return [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]

        first = keeper(*addresses)
        await first.register()
        for _ in range(2):
            await first.report(force=True)
            assert await shown() == list(addresses), what
        await keeper(*addresses).register()
        assert await shown() == list(addresses)
        await keeper(addresses[-1]).register()
        assert await shown() == [addresses[-1]]

    in_house(story)


def test_addresses_of_pods_that_are_there_are_not_given_again(tmp_path: Path) -> None:
    """NODE-117: an agent that starts anew meets its Pods in any order, those without address too."""

    def pod(name: str, ip: str = "", phase: str = "Running") -> Pod:
        status: Object = {"phase": phase, **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})}
        return typed({"metadata": {"name": name, "namespace": "ns", "uid": name}, "status": status}, Pod)

    async def main() -> None:
        nobody = cast(Any, None)
        pool = AddressPool("10.244.1.0/29")  # .2 to .6
        context = NodeContext(
            client=nobody,
            settings=NodeSettings(node_name="n1", state_dir=tmp_path, pod_cidrs=("10.244.1.0/29",)),
            clock=LoopClock(asyncio.get_running_loop()),
            random=random.Random(1),
            spawner=nobody,
            sandboxes=nobody,
            records=nobody,
            events=nobody,
            services=tuple,
            pools=[pool],
        )
        there = [pod("new"), pod("a", "10.244.1.2"), pod("b", "10.244.1.3"), pod("over", "10.244.1.4", "Succeeded")]
        workers = [SimulatedPod(context, p) for p in there]
        assert [w.ips for w in workers] == [[], ["10.244.1.2"], ["10.244.1.3"], []]
        assert [pool.allocate() for _ in range(3)] == ["10.244.1.4", "10.244.1.5", "10.244.1.6"]

    asyncio.run(main())
