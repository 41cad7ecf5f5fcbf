"""What load balancers are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from kubesvc.api.node import Node
from kubesvc.proxy.health import (
    FamilyHealth,
    HealthCheck,
    HealthPorts,
    listen,
    node_eligible,
    plan_health,
    proxy_answer,
    service_answer,
)
from kubesvc.proxy.traffic import PortTraffic, ServicePortName
from tests.freeports import free_port

from .objects import service

KEY = ("shop", "web")


def port(name: str, *addresses: str) -> PortTraffic:
    return PortTraffic(ServicePortName(*KEY, name, "TCP"), 80, "10.96.0.1", local_ready=addresses)


def test_endpoints_are_counted_by_address() -> None:
    """PROXY-83: one pod with two ports is one endpoint."""
    balanced = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    found = plan_health(balanced, [port("http", "10.0.0.1", "10.0.0.2"), port("https", "10.0.0.1")])
    assert found == HealthCheck(31000, 2)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31000},
        {"type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000},
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    ],
)
def test_others_have_no_health_check(spec: dict[str, Any]) -> None:
    """PROXY-81."""
    assert plan_health(service(**spec), [port("http", "10.0.0.1")]) is None
    assert plan_health(None, []) is None


@pytest.mark.parametrize(
    ("endpoints", "healthy", "status"), [(2, True, 200), (0, True, 503), (2, False, 503), (0, False, 503)]
)
def test_service_answer(endpoints: int, healthy: bool, status: int) -> None:
    """PROXY-82, 83, BUG-19."""
    answer = service_answer(KEY, endpoints, healthy)
    assert answer.status == status
    assert answer.body.startswith('{\n\t"service": {\n\t\t"namespace": "shop"')
    assert json.loads(answer.body) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": healthy,
    }
    assert dict(answer.headers) == {
        "X-Content-Type-Options": "nosniff",
        "X-Load-Balancing-Endpoint-Weight": str(endpoints),
    }


def node(**fields: Any) -> Node:
    metadata = {"name": "n1", **fields.pop("metadata", {})}
    return msgspec.convert({"metadata": metadata, "spec": fields}, Node)


@pytest.mark.parametrize(
    ("sentence", "found", "eligible"),
    [
        ("it is there", node(), True),
        ("it is missing", None, False),
        ("it is being deleted", node(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), False),
        ("it is about to be removed", node(taints=[{"key": "ToBeDeletedByClusterAutoscaler"}]), False),
        ("it takes no new pods, which does not matter", node(unschedulable=True), True),
    ],
)
def test_node_eligible(sentence: str, found: Node | None, eligible: bool) -> None:
    """PROXY-87."""
    assert node_eligible(found) is eligible, sentence


GOOD, STUCK = FamilyHealth(1_767_225_600, True), FamilyHealth(1_767_225_600, False)


@pytest.mark.parametrize(
    ("path", "families", "eligible", "status"),
    [
        ("/livez", {"IPv4": GOOD}, True, 200),
        ("/livez", {"IPv4": GOOD}, False, 200),
        ("/livez", {"IPv4": GOOD, "IPv6": STUCK}, True, 503),
        ("/healthz", {"IPv4": GOOD}, True, 200),
        ("/healthz", {"IPv4": GOOD}, False, 503),
        ("/other", {"IPv4": GOOD}, True, 404),
    ],
)
def test_proxy_answer(path: str, families: dict[str, FamilyHealth], eligible: bool, status: int) -> None:
    """PROXY-86 to 88."""
    answer = proxy_answer(path, 1_767_225_700, families, eligible)
    assert answer.status == status
    if status != 404:
        body = json.loads(answer.body)
        assert body["healthy"] is (status == 200)
        assert ("nodeEligible" in body) is (path == "/healthz")
        assert (body["lastUpdated"] == body["currentTime"]) is (status == 200)


async def get(port: int, path: str = "/anything") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_listeners_come_and_go() -> None:
    """PROXY-81, 84: opened, counted anew, moved, closed; one that can not be opened is told and hurts no other."""

    async def main() -> None:
        told: list[str] = []
        ports = HealthPorts(lambda: True, lambda key, message: told.append(f"{key[1]}: {message}"))
        first, second, taken = free_port(), free_port(), free_port()
        blocker = await listen("127.0.0.1", taken, lambda _: service_answer(KEY, 0, True))
        ports.wish(KEY, HealthCheck(first, 1))
        ports.wish(("shop", "api"), HealthCheck(taken, 1))
        await ports.apply(["127.0.0.1"])
        assert (await get(first))[0] == 200
        assert len(told) == 1 and told[0].startswith(f"api: node 127.0.0.1 failed to start healthcheck on port {taken}")
        ports.wish(KEY, HealthCheck(first, 0))
        assert (await get(first))[0] == 503
        ports.wish(KEY, HealthCheck(second, 1))
        await ports.apply(["127.0.0.1"])
        assert (await get(second))[0] == 200
        with pytest.raises(ConnectionRefusedError):
            await get(first)
        blocker.close()
        await blocker.wait_closed()
        await ports.apply(["127.0.0.1"])
        assert (await get(taken))[0] == 200, "tried again"
        ports.close()

    asyncio.run(main())
