"""What is repaired, what is only told, and what is left alone (REPAIR)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from kubesvc.api.addresses import Network
from kubesvc.api.ipaddress import IPAddress, address_object
from kubesvc.api.meta import typed
from kubesvc.api.service import Service
from kubesvc.apiserver.repair import RepairPlan, plan_address_repair, plan_port_repair
from kubesvc.clock import parse_rfc3339

MADE = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(MADE)
RANGES: list[Network] = [ip_network("10.0.0.0/24"), ip_network("fd00::/112")]


def service(name: str, *addresses: str, **spec: Any) -> Service:
    plain = {"clusterIP": addresses[0] if addresses else "", "clusterIPs": list(addresses), **spec}
    return typed({"metadata": {"name": name, "namespace": "shop"}, "spec": plain}, Service)


def held(address: str, name: str, *, managed: bool = True) -> IPAddress:
    plain = address_object(address, "shop", name)
    plain["metadata"]["creationTimestamp"] = MADE
    if not managed:
        plain["metadata"]["labels"] = {}
    return typed(plain, IPAddress)


def told(plan: RepairPlan) -> list[str]:
    steps = [
        f"{s.complaint.reason}: {'delete ' if s.delete else ''}{s.address}{' for ' + s.owner[1] if s.owner else ''}"
        for s in plan.steps.values()
    ]
    return steps + [f"{c.reason}: {c.about.name}" for c in plan.complaints]


CASES: tuple[tuple[str, list[Service], list[IPAddress], float, list[str]], ...] = (
    ("all is well", [service("a", "10.0.0.1")], [held("10.0.0.1", "a")], 1e6, []),
    ("a missing object is made", [service("a", "10.0.0.1")], [], 0, ["ClusterIPNotAllocated: 10.0.0.1 for a"]),
    ("of either family", [service("a", "10.0.0.1", "fd00::1")], [held("10.0.0.1", "a")], 0, [
        "ClusterIPNotAllocated: fd00::1 for a"]),
    ("headless Services need none", [service("a", "None")], [], 0, []),
    ("nor do external names", [service("a", type="ExternalName")], [], 0, []),
    ("an odd spelling is the same address", [service("a", "FD00:0::1")], [held("fd00::1", "a")], 1e6, []),
    ("a reference to nobody is put right", [service("a", "10.0.0.1")], [held("10.0.0.1", "b")], 6, [
        "IPAddressWrongReference: delete 10.0.0.1 for a"]),
    ("but not at once", [service("a", "10.0.0.1")], [held("10.0.0.1", "b")], 4, []),
    ("a reference to one that has not this address too", [service("a", "10.0.0.1"), service("b", "10.0.0.2")],
        [held("10.0.0.1", "b"), held("10.0.0.2", "b")], 6, ["IPAddressWrongReference: delete 10.0.0.1 for a"]),
    ("two Services with one address: the second is told", [service("a", "10.0.0.1"), service("b", "10.0.0.1")],
        [held("10.0.0.1", "a")], 1e6, ["ClusterIPAlreadyAllocated: b"]),
    ("also when nobody holds it", [service("a", "10.0.0.1"), service("b", "10.0.0.1")], [], 0, [
        "ClusterIPNotAllocated: 10.0.0.1 for a", "ClusterIPAlreadyAllocated: b"]),
    ("outside every range", [service("a", "10.9.0.1")], [], 0, ["ClusterIPOutOfRange: a"]),
    ("no address", [service("a", "x")], [], 0, ["ClusterIPNotValid: a"]),
    ("a leak is given back", [], [held("10.0.0.1", "a")], 61, ["IPAddressNotAllocated: delete 10.0.0.1"]),
    ("after a minute", [], [held("10.0.0.1", "a")], 59, []),
    ("a user's own object is left alone", [], [held("255.255.255.255", "a", managed=False)], 1e6, []),
    ("even on a Service's address", [service("a", "10.0.0.1")], [held("10.0.0.1", "b", managed=False)], 1e6, []),
)  # fmt: skip


@pytest.mark.parametrize(("about", "services", "objects", "later", "steps"), CASES, ids=[c[0] for c in CASES])
def test_addresses(
    about: str, services: list[Service], objects: list[IPAddress], later: float, steps: list[str]
) -> None:
    """REPAIR-1."""
    assert told(plan_address_repair(services, objects, RANGES, NOW + later)) == steps, about


def test_repairing_once_is_enough() -> None:
    services = [service("a", "10.0.0.1"), service("b", "10.0.0.2", "fd00::2")]
    objects = {o.name: o for o in (held("10.0.0.1", "b"), held("10.0.0.7", "gone"))}
    plan = plan_address_repair(services, objects.values(), RANGES, NOW + 100)
    for step in plan.steps.values():
        if step.delete:
            del objects[step.address]
        if step.owner:
            objects[step.address] = held(step.address, step.owner[1])
    assert told(plan_address_repair(services, objects.values(), RANGES, NOW + 1e6)) == []


def ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"name": f"p{i}", "port": i, "nodePort": n} for i, n in enumerate(numbers, 1)]


def test_node_ports() -> None:
    """REPAIR-2."""
    services = [
        service("a", type="NodePort", ports=ports(30000, 30000)),
        service("b", type="LoadBalancer", ports=ports(30001), healthCheckNodePort=30000),
        service("c", type="NodePort", ports=ports(80)),
        service("d", type="ExternalName", ports=ports(30000)),
    ]
    assert told(plan_port_repair(services, (30000, 32767))) == ["PortAlreadyAllocated: b", "PortOutOfRange: c"]
