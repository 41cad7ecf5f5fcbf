"""Networks of nodes: each node gets its own, once (NODE-1)."""

from __future__ import annotations

import pytest

from kubesvc.api.errors import Invalid
from kubesvc.api.kinds import EVENT, NODE
from kubesvc.controllers.nodeipam import plan_pod_cidrs, wished
from kubesvc.controllers.settings import ControllerSettings

from .house import House, in_house


def test_the_lowest_free_network_of_each_range() -> None:
    """NODE-1: /24 and /64; None when a range is full."""
    assert plan_pod_cidrs(("10.244.0.0/16", "fd00:10:244::/48"), ()) == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert plan_pod_cidrs(("10.244.0.0/16",), ("10.244.1.0/24", "10.244.3.0/24")) == ["10.244.2.0/24"]
    assert plan_pod_cidrs(("10.244.0.0/23",), ("10.244.1.0/24",)) is None


def test_none_overlaps_the_ranges_of_services() -> None:
    """NODE-1: neither the lowest nor the wished one."""
    services = ("10.244.0.0/22", "fd00:10:244:1::/112")
    assert plan_pod_cidrs(("10.244.0.0/16",), (), reserved=services) == ["10.244.4.0/24"]
    assert plan_pod_cidrs(("10.244.0.0/16",), (), wished("n3"), services) == ["10.244.4.0/24"]
    assert plan_pod_cidrs(("10.244.0.0/16",), (), wished("n9"), services) == ["10.244.9.0/24"]
    both = ("10.244.0.0/16", "fd00:10:244::/48")
    assert plan_pod_cidrs(both, (), reserved=services) == ["10.244.4.0/24", "fd00:10:244:2::/64"]
    assert plan_pod_cidrs(("10.244.0.0/23",), (), reserved=services) is None


def test_a_nodes_number_is_its_networks() -> None:
    """Whichever node registers first; a number that is taken, or that the range has not, is no wish."""
    both = ("10.244.0.0/16", "fd00:10:244::/48")
    assert plan_pod_cidrs(both, (), wished("n2")) == ["10.244.2.0/24", "fd00:10:244:2::/64"]
    assert plan_pod_cidrs(both, ("10.244.2.0/24",), wished("n2")) == ["10.244.1.0/24", "fd00:10:244:2::/64"]
    assert plan_pod_cidrs(("10.244.0.0/16",), (), wished("n255")) == ["10.244.255.0/24"]
    assert plan_pod_cidrs(("10.244.0.0/16",), (), wished("n256")) == ["10.244.1.0/24"]
    assert [wished(name) for name in ("worker", "n0", "12", "ip-10-0-0-7", "n1234567")] == [0, 0, 12, 7, 0]


def test_each_node_gets_a_network_that_stays_until_the_range_is_full() -> None:
    """NODE-1: podCIDR is the first of podCIDRs, nobody changes them, and who gets none is told."""

    async def story(house: House) -> None:
        settings = ControllerSettings(cluster_cidrs=("10.244.0.0/22",), service_cidrs=("10.244.3.0/24",))
        house.start(("nodeipam",), settings)
        await house.settle(1)
        for name in ("a", "b"):
            await house.node(name)
        await house.settle(1)
        given = {n["metadata"]["name"]: n["spec"].get("podCIDRs") for n in await house.every(NODE, "")}
        assert sorted(cidrs[0] for cidrs in given.values() if cidrs) == ["10.244.1.0/24", "10.244.2.0/24"]
        [lacking] = [name for name, cidrs in given.items() if not cidrs]
        told = [e for e in await house.every(EVENT, "") if e["reason"] == "CIDRNotAvailable"]
        assert [(e["involvedObject"]["name"], e["message"]) for e in told] == [
            (lacking, f"Node {lacking} status is now: CIDRNotAvailable")
        ]
        owner = next(name for name, cidrs in given.items() if cidrs)
        with pytest.raises(Invalid, match='may not change podCIDR except from "" to valid'):
            spec = {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]}
            await house.client.patch(NODE, owner, "", {"spec": spec}, "merge")
        await house.client.delete(NODE, owner)
        await house.settle(1)
        await house.client.patch(NODE, lacking, "", {"metadata": {"labels": {"stirs": "it"}}}, "merge")
        await house.settle(1)
        found = await house.client.get(NODE, lacking)
        assert [found["spec"]["podCIDR"]] == found["spec"]["podCIDRs"] == given[owner]

    in_house(story)
