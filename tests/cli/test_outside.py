"""Hosts outside: what addresses they may have, and the ways there and back."""

from __future__ import annotations

import ipaddress

import pytest

from kubesvc.cli import Failure
from kubesvc.cli.outside import conflict, parse_addresses, plan_outside
from kubesvc.cli.up import usual_pool
from kubesvc.instance.record import InstanceRecord, NodeRecord, OutsideRecord, ProcessId
from kubesvc.instance.wiring import Host, Reroute, Wiring

BOTH = InstanceRecord(
    nodes=[NodeRecord("n1", "172.30.0.11", "10.244.1.0/24", ground=ProcessId(7, 8))],
    load_balancer_ranges=["172.31.0.0/24", "fd00:172:31::/112"],
)
BOTH.nodes[0].pod_cidrs = ["10.244.1.0/24", "fd00:244:0:1::/64"]
FOUR = (("172.30.0.0/24", ""), ("10.244.1.0/24", "172.30.0.11"), ("172.31.0.0/24", "172.30.0.254"))
SIX = (
    ("fd00:172:30::/64", ""), ("fd00:244:0:1::/64", "fd00:172:30::11"), ("fd00:172:31::/112", "fd00:172:30::254"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "routes", "back"),
    [
        (("192.168.49.1/24",), FOUR, ("192.168.49.1/32",)),
        (("fd77::1/64",), SIX, ("fd77::1/128",)),
        (("192.168.49.1/24", "fd77::1/64"), (*FOUR, *SIX), ("192.168.49.1/32", "fd77::1/128")),
        (("172.30.0.99/24",), FOUR[1:], ("172.30.0.99/32",)),
    ],
)
def test_ways_of_each_family_that_the_host_has(
    addresses: tuple[str, ...], routes: tuple[tuple[str, str], ...], back: tuple[str, ...]
) -> None:
    """To the nodes directly, to Pods through their node, to load balancers through the router."""
    outside = OutsideRecord("db", addresses[0], ground=ProcessId(9, 9), second="".join(addresses[1:]))
    assert plan_outside(BOTH, outside) == Wiring(
        connect=(Host(9, "db", addresses, routes=routes),), reroute=(Reroute(7, tuple((b, "") for b in back)),)
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("fd00:172:30::11/64", "node n1 has it"),
        ("fd00:172:30::254/64", "the router between the nodes has it"),
        ("fd00:244:0:1::9/64", "it lies among the Pods of node n1 (fd00:244:0:1::/64)"),
        ("10.244.1.9/24", "it lies among the Pods of node n1 (10.244.1.0/24)"),
        ("fd00:172:31::9/64", "it lies in the load balancers' range fd00:172:31::/112"),
        ("fd66::1/64", "the host other has it"),
        ("fd77::1/64", ""),
    ],
)
def test_addresses_that_somebody_has(address: str, said: str) -> None:
    hosts = [OutsideRecord("other", "192.168.66.1/24", second="fd66::1/64")]
    assert conflict(BOTH, hosts, ipaddress.ip_interface(address)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--address is missing"),
        ("192.168.49.1", "--address 192.168.49.1: has no prefix length"),
        ("192.168.49.1/24,fd77::1", "--address fd77::1: has no prefix length"),
        ("192.168.49.1/99", "--address 192.168.49.1/99: '192.168.49.1/99' does not appear to be"),
        ("fd77::1/64,fd78::1/64", "must be one address, or one of each family"),
    ],
)
def test_what_are_no_addresses(text: str, said: str) -> None:
    with pytest.raises(Failure, match="--address") as caught:
        parse_addresses("db", text)
    assert said in str(caught.value) and caught.value.status == 64


@pytest.mark.parametrize(
    ("pods", "services", "pool"),
    [
        (["10.244.0.0/16"], ["10.96.0.0/16"], ("172.31.0.0/24",)),
        (["10.244.0.0/16", "fd24::/56"], ["10.96.0.0/16", "fd96::/112"], ("172.31.0.0/24", "fd00:172:31::/112")),
        (["fd24::/56"], ["fd96::/112"], ("fd00:172:31::/112",)),
        (["10.244.0.0/16"], ["10.96.0.0/16", "fd96::/112"], ("172.31.0.0/24",)),
        (["10.244.0.0/16", "fd24::/56"], ["10.96.0.0/16"], ("172.31.0.0/24",)),
    ],
)
def test_load_balancers_have_addresses_of_the_families_that_pods_and_services_have(
    pods: list[str], services: list[str], pool: tuple[str, ...]
) -> None:
    assert usual_pool(pods, services) == pool
