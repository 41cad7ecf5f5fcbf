"""Services of type LoadBalancer get addresses of the pool, as a cloud's controller would give them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import EVENT
from kubesvc.api.meta import Object, typed
from kubesvc.api.service import SERVICE, Service
from kubesvc.controllers import ControllerSettings
from kubesvc.controllers.loadbalancer import FINALIZER, NoAddress, difference, needs_cleanup, plan_addresses

from .house import House, in_house

POOL = ("172.31.0.0/29",)
"""Six addresses, .1 to .6."""
BOTH = (*POOL, "fd31::/64")


def balanced(name: str = "a", *ips: str, **spec: Any) -> Service:
    """A Service of type LoadBalancer with these addresses in its status."""
    whole = {"type": "LoadBalancer", "clusterIP": "10.96.0.9", **spec}
    status = {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in ips]}}
    return typed({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": whole, "status": status}, Service)


@pytest.mark.parametrize(
    ("sentence", "service", "pool", "taken", "wanted"),
    [
        ("the lowest free one", balanced(), POOL, {"172.31.0.1"}, ("172.31.0.2",)),
        ("neither the network's nor the broadcast address", balanced(), ("172.31.0.0/30",), set(), ("172.31.0.1",)),
        ("what it has it keeps", balanced("a", "172.31.0.4"), POOL, set(), ("172.31.0.4",)),
        ("what somebody else has too it loses", balanced("a", "172.31.0.4"), POOL, {"172.31.0.4"}, ("172.31.0.1",)),
        ("what it asks for", balanced(loadBalancerIP="172.31.0.5"), POOL, set(), ("172.31.0.5",)),
        ("asking beats having", balanced("a", "172.31.0.4", loadBalancerIP="172.31.0.5"), POOL, set(), ("172.31.0.5",)),
        ("an address outside the pool is not kept", balanced("a", "203.0.113.7"), POOL, set(), ("172.31.0.1",)),
        ("one of each family, in the Service's order", balanced(ipFamilies=["IPv6", "IPv4"]), BOTH, set(),
         ("fd31::1", "172.31.0.1")),
        ("a family without a pool is left out", balanced(ipFamilies=["IPv6", "IPv4"]), POOL, set(), ("172.31.0.1",)),
    ],
)  # fmt: skip
def test_an_address_is_chosen(
    sentence: str, service: Service, pool: tuple[str, ...], taken: set[str], wanted: tuple[str, ...]
) -> None:
    assert plan_addresses(service, pool, taken) == wanted, sentence


@pytest.mark.parametrize(
    ("service", "taken", "words"),
    [
        (balanced(loadBalancerIP="203.0.113.7"), set(), "outside the pool 172.31.0.0/29"),
        (balanced(loadBalancerIP="172.31.0.5"), {"172.31.0.5"}, "belongs to another Service"),
        (balanced(loadBalancerIP="nonsense"), set(), "is no IP address"),
        (balanced(), {f"172.31.0.{i}" for i in range(1, 7)}, "no address of the pool 172.31.0.0/29 is free"),
        (balanced(ipFamilies=["IPv6"]), set(), "has no addresses of IPv6"),
    ],
)
def test_what_cannot_be_given_is_said(service: Service, taken: set[str], words: str) -> None:
    with pytest.raises(NoAddress, match=words):
        plan_addresses(service, POOL, taken)


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12))
def test_no_address_is_ever_shared(wishes: list[tuple[int, bool]]) -> None:
    """Whatever Services ask for or had, in whatever order, no two get the same address."""
    taken: set[str] = set()
    for number, asks in wishes:
        address = f"172.31.0.{number}"
        service = balanced("a", loadBalancerIP=address) if asks else balanced("a", address)
        try:
            got = plan_addresses(service, POOL, taken)
        except NoAddress:
            continue
        assert not set(got) & taken
        taken |= set(got)


@pytest.mark.parametrize(
    ("old", "new", "reason", "message"),
    [
        (balanced(), balanced(type="ClusterIP"), "Type", "LoadBalancer -> ClusterIP"),
        (balanced(), balanced(loadBalancerSourceRanges=["10.0.0.0/8"]), "LoadBalancerSourceRanges",
         "[] -> [10.0.0.0/8]"),
        (balanced(), balanced(loadBalancerIP="172.31.0.3"), "LoadbalancerIP", " -> 172.31.0.3"),
        (balanced(), balanced(externalIPs=["192.0.2.1"]), "ExternalIP", "Count: 0 -> 1"),
        (balanced(externalTrafficPolicy="Cluster"), balanced(externalTrafficPolicy="Local"), "ExternalTrafficPolicy",
         "Cluster -> Local"),
        (balanced(), balanced(sessionAffinity="ClientIP"), "", ""),
    ],
)  # fmt: skip
def test_what_changed_is_told(old: Service, new: Service, reason: str, message: str) -> None:
    found = difference(old, new)
    assert found is not None
    assert (found.reason, found.message) == (reason, message)


def test_a_new_status_alone_is_no_reason() -> None:
    assert difference(balanced(), balanced("a", "172.31.0.1")) is None


def test_a_class_of_somebody_else_is_left_alone() -> None:
    assert not needs_cleanup(balanced(loadBalancerClass="example.com/theirs"))


SETTINGS = ControllerSettings(load_balancer_ranges=POOL)


async def ingress(house: House, name: str) -> list[str]:
    found = await house.client.get(SERVICE, name, "ns")
    listed = found["status"]["loadBalancer"].get("ingress") or []
    assert all(i["ipMode"] == "VIP" for i in listed)
    return [i["ip"] for i in listed]


async def told(house: House, name: str) -> list[str]:
    """The Events about a Service, "reason: message", in order."""
    events: list[Object] = sorted(await house.every(EVENT), key=lambda e: e["metadata"]["name"])
    return [f"{e['reason']}: {e['message']}" for e in events if e["involvedObject"]["name"] == name]


def test_a_life_from_pending_to_deleted() -> None:
    async def story(house: House) -> None:
        house.start(("service-lb",), SETTINGS)
        await house.service("a", type="LoadBalancer")
        await house.settle()
        assert await ingress(house, "a") == ["172.31.0.1"]
        assert (await house.client.get(SERVICE, "a", "ns"))["metadata"]["finalizers"] == [FINALIZER]
        assert await told(house, "a") == [
            "EnsuringLoadBalancer: Ensuring load balancer",
            "EnsuredLoadBalancer: Ensured load balancer",
        ]
        await house.client.delete(SERVICE, "a", "ns")
        await house.settle()
        with pytest.raises(NotFound):
            await house.client.get(SERVICE, "a", "ns")
        assert (await told(house, "a"))[2:] == [
            "DeletingLoadBalancer: Deleting load balancer",
            "DeletedLoadBalancer: Deleted load balancer",
        ]
        await house.service("b", type="LoadBalancer")
        await house.settle()
        assert await ingress(house, "b") == ["172.31.0.1"], "it was given back"

    in_house(story)


def test_another_type_gives_the_address_back() -> None:
    async def story(house: House) -> None:
        house.start(("service-lb",), SETTINGS)
        await house.service("a", type="LoadBalancer")
        await house.settle()
        await house.client.patch(SERVICE, "a", "ns", {"spec": {"type": "ClusterIP"}}, "merge")
        await house.settle()
        assert await ingress(house, "a") == []
        assert "finalizers" not in (await house.client.get(SERVICE, "a", "ns"))["metadata"]
        assert "Type: LoadBalancer -> ClusterIP" in await told(house, "a")

    in_house(story)


def test_a_class_or_no_pool_leaves_it_pending() -> None:
    async def story(house: House) -> None:
        house.start(("service-lb",), SETTINGS)
        await house.service("a", type="LoadBalancer", loadBalancerClass="example.com/theirs")
        await house.settle()
        assert await ingress(house, "a") == []
        theirs = {"status": {"loadBalancer": {"ingress": [{"ip": "172.31.0.1"}]}}}
        await house.client.patch(SERVICE, "a", "ns", theirs, "merge", subresource="status")
        await house.client.patch(SERVICE, "a", "ns", {"metadata": {"annotations": {"x": "y"}}}, "merge")
        await house.settle()
        assert await ingress(house, "a") == ["172.31.0.1"], "what another controller wrote stays"
        await house.stop()
        house.start(("service-lb",), ControllerSettings())
        await house.service("b", type="LoadBalancer")
        await house.settle()
        assert await ingress(house, "b") == []

    in_house(story)


def test_who_finds_the_pool_empty_waits_for_an_address() -> None:
    async def story(house: House) -> None:
        house.start(("service-lb",), ControllerSettings(load_balancer_ranges=("172.31.0.0/30",)))
        for name in ("a", "b", "c"):
            await house.service(name, type="LoadBalancer")
            await house.settle()
        assert await ingress(house, "c") == []
        assert (await told(house, "c"))[-1] == (
            "SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: "
            "no address of the pool 172.31.0.0/30 is free"
        )
        await house.client.delete(SERVICE, "a", "ns")
        await house.settle()
        assert await ingress(house, "c") == ["172.31.0.1"]

    in_house(story)


def test_trouble_on_the_way_ends_with_one_address_each() -> None:
    async def story(house: House) -> None:
        house.trouble.odds = 0.3
        house.start(("service-lb",), SETTINGS)
        for i in range(6):
            await house.service(f"s{i}", type="LoadBalancer")
        await house.settle(60)
        house.trouble.odds = 0.0
        await house.settle(600)
        found = [a for i in range(6) for a in await ingress(house, f"s{i}")]
        assert sorted(found) == [f"172.31.0.{i}" for i in range(1, 7)]

    in_house(story)
