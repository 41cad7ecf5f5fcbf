"""Which nodes take the traffic of a load balancer's address, and where it answers on the host."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.node import Node
from kubesvc.api.service import Service
from kubesvc.instance.balancer import balanced_addresses, claim_host_network, eligible, host_address, plan_routes

RANGES = ("172.31.0.0/24", "fd00:172:31::/112")
NODES = {"n1": "172.30.0.11", "n2": "172.30.0.12"}


def service(name: str, *ips: str, mode: str = "VIP", **spec: Any) -> Service:
    status = {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": mode} for ip in ips]}}
    whole = {"type": "LoadBalancer", **spec}
    return typed({"metadata": {"name": name, "namespace": "ns"}, "spec": whole, "status": status}, Service)


def slice_of(family: str = "IPv4", **ready_by_node: bool) -> EndpointSlice:
    prefix = "10.244.1." if family == "IPv4" else "fd00:244::"
    endpoints = [
        {"addresses": [f"{prefix}{i}"], "nodeName": node, "conditions": {"ready": ready}}
        for i, (node, ready) in enumerate(ready_by_node.items(), 1)
    ]
    meta = {"name": "s", "namespace": "ns", "labels": {"kubernetes.io/service-name": "a"}}
    return typed({"metadata": meta, "addressType": family, "endpoints": endpoints, "ports": []}, EndpointSlice)


def node(name: str, ready: str = "True", **meta: Any) -> Node:
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    return typed({"metadata": {"name": name, **meta}, "spec": {}, "status": status}, Node)


BOTH = ("172.30.0.11", "172.30.0.12")
BOTH_6 = ("fd00:172:30::11", "fd00:172:30::12")
LOCAL = {"externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("sentence", "services", "slices", "wanted"),
    [
        ("every node under Cluster", [service("a", "172.31.0.1")], [], {"172.31.0.1": BOTH}),
        ("nodes with a ready endpoint under Local (PROXY-82)", [service("a", "172.31.0.1", **LOCAL)],
         [slice_of(n1=False, n2=True)], {"172.31.0.1": BOTH[1:]}),
        ("no node under Local without endpoints", [service("a", "172.31.0.1", **LOCAL)], [], {"172.31.0.1": ()}),
        ("an endpoint on a node that is not there does not count", [service("a", "172.31.0.1", **LOCAL)],
         [slice_of(elsewhere=True)], {"172.31.0.1": ()}),
        ("an address of IPv6 by nodes' addresses of IPv6 (PROXY-126)",
         [service("a", "fd00:172:31::1", "172.31.0.1")], [], {"fd00:172:31::1": BOTH_6, "172.31.0.1": BOTH}),
        ("under Local each family by its own endpoints", [service("a", "172.31.0.1", "fd00:172:31::1", **LOCAL)],
         [slice_of(n1=True, n2=False), slice_of("IPv6", n1=False, n2=True)],
         {"172.31.0.1": BOTH[:1], "fd00:172:31::1": BOTH_6[1:]}),
        ("ipMode Proxy is not the nodes' affair (PROXY-44)", [service("a", "172.31.0.1", mode="Proxy")], [], {}),
        ("an address outside the pool is somebody else's", [service("a", "203.0.113.1")], [], {}),
        ("another type has none", [service("a", "172.31.0.1", type="NodePort")], [], {}),
        ("of two that claim one, the first by name is served", [service("b", "172.31.0.1", **LOCAL),
         service("a", "172.31.0.1")], [], {"172.31.0.1": BOTH}),
    ],
)  # fmt: skip
def test_routes(
    sentence: str, services: list[Service], slices: list[EndpointSlice], wanted: dict[str, tuple[str, ...]]
) -> None:
    assert plan_routes(services, lambda _: slices, NODES, RANGES) == wanted, sentence


def test_only_nodes_that_can_take_traffic() -> None:
    nodes = [
        node("n1"),
        node("n2", ready="False"),
        node("n3", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
        node("n4", deletionTimestamp="2026-01-01T00:00:00Z"),
        node("simulated"),
    ]
    assert eligible(nodes, {n: f"172.30.0.{i}" for i, n in enumerate(("n1", "n2", "n3", "n4"))}) == {"n1": "172.30.0.0"}


def test_addresses_are_named_once() -> None:
    assert balanced_addresses(service("a", "172.31.0.1", "172.31.0.1"), RANGES) == ("172.31.0.1",)


def test_no_two_instances_meet_on_the_host() -> None:
    """Neither those of this user nor those with another state directory, of which nothing is known."""
    assert host_address({4: 7, 6: 134}, "172.31.3.255") == "127.7.3.255"
    assert host_address({4: 7, 6: 134}, "fd00:172:31::3:1") == "127.134.0.1", "nor an address of IPv6 one of IPv4"
    first, one = claim_host_network("127.0.0.254")
    second, two = claim_host_network("127.0.0.254")
    with one, two:
        assert 1 <= first <= 254
        assert 1 <= second <= 254
        assert first != second
    third, six = claim_host_network("127.0.0.254", 6)
    six.close()
    assert third not in (first, second)
    again, three = claim_host_network(f"127.0.0.{first}")
    three.close()
    assert again == first, "what its holder let go is free"
