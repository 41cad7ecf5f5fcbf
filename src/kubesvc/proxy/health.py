"""What the proxy tells load balancers: node ports for health checks of single Services, and its own health.

The answers are pure (`service_answer`, `proxy_answer`); `HealthPorts` opens and closes listeners as Services come and
go; the few lines of HTTP are here because a health check needs no more: any method and path is answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from kubesvc.api.node import Node
from kubesvc.api.service import Service
from kubesvc.clock import rfc3339_micro

from .traffic import PortTraffic, ServiceKey, is_port

log = logging.getLogger(__name__)

TAINT_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
REQUEST_SECONDS = 5.0
LONGEST_REQUEST_BYTES = 8192
REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class HealthCheck(msgspec.Struct, frozen=True):
    """One Service's health check node port, and how many of its endpoints are ready on this node."""

    port: int
    endpoints: int


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


def plan_health(service: Service | None, ports: Iterable[PortTraffic]) -> HealthCheck | None:
    """The health check of a Service, None if it has none: only balanced Services with a Local policy do (PROXY-81).

    Endpoints are counted by address, over all ports, and only ready ones on this node (PROXY-82, 83).
    """
    if service is None or service.spec.type != "LoadBalancer" or service.spec.external_traffic_policy != "Local":
        return None
    if not is_port(service.spec.health_check_node_port):
        return None
    addresses = {address for port in ports for address in port.local_ready}
    return HealthCheck(service.spec.health_check_node_port, len(addresses))


def service_answer(key: ServiceKey, endpoints: int, healthy: bool) -> Answer:
    """What the health check node port of a Service says (PROXY-82, 83)."""
    body = {
        "service": {"namespace": key[0], "name": key[1]},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": healthy,
    }
    headers = (("X-Content-Type-Options", "nosniff"), ("X-Load-Balancing-Endpoint-Weight", str(endpoints)))
    return Answer(200 if endpoints and healthy else 503, json.dumps(body, indent="\t"), headers)


def node_eligible(node: Node | None) -> bool:
    """Whether balancers should send new traffic to this node: it exists, stays, and is not about to be removed;
    being unschedulable does not matter (PROXY-87)."""
    if node is None or node.metadata.deletion_timestamp:
        return False
    return all(taint.key != TAINT_TO_BE_DELETED for taint in node.spec.taints or ())


class FamilyHealth(msgspec.Struct, frozen=True):
    """When a family's rules were last written (seconds since 1970, 0: never), and whether it keeps up."""

    last_updated: float
    healthy: bool


def proxy_answer(path: str, now: float, families: Mapping[str, FamilyHealth], eligible: bool) -> Answer:
    """/livez: every family keeps up; /healthz: and the node takes traffic (PROXY-86 to 88)."""
    if path not in ("/livez", "/healthz"):
        return Answer(404, "")
    healthy = all(f.healthy for f in families.values()) and (eligible or path == "/livez")
    updated = now if healthy else max((f.last_updated for f in families.values()), default=0.0)
    body = {
        "lastUpdated": rfc3339_micro(updated),
        "currentTime": rfc3339_micro(now),
        **({"nodeEligible": eligible} if path == "/healthz" else {}),
        "healthy": healthy,
        "status": {
            name: {"lastUpdated": rfc3339_micro(f.last_updated), "healthy": f.healthy} for name, f in families.items()
        },
    }
    return Answer(200 if healthy else 503, json.dumps(body))


async def listen(address: str, port: int, answer: Callable[[str], Answer]) -> asyncio.Server:
    """Answer every HTTP request at an address by what `answer` makes of its path. OSError if the port is taken."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].split()
                path = words[1].decode(errors="replace").partition("?")[0] if len(words) > 1 else "/"
                writer.write(encode(answer(path)))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away or never asked
        finally:
            writer.close()

    return await asyncio.start_server(serve, address, port, limit=LONGEST_REQUEST_BYTES)


def encode(answer: Answer) -> bytes:
    """An answer as HTTP, after which the connection ends."""
    body = answer.body.encode()
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        *(f"{name}: {value}" for name, value in answer.headers),
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HealthPorts:
    """The listeners of all health check node ports of one family.

    healthy: whether the proxy itself is; failed: told of a Service whose port could not be opened (PROXY-84)
    """

    def __init__(self, healthy: Callable[[], bool], failed: Callable[[ServiceKey, str], None]) -> None:
        self.healthy = healthy
        self.failed = failed
        self.checks: dict[ServiceKey, HealthCheck] = {}
        self.servers: dict[tuple[ServiceKey, str, int], asyncio.Server] = {}

    def wish(self, key: ServiceKey, check: HealthCheck | None) -> None:
        """What a Service wants from now on; listeners follow at the next `apply`, counts at once."""
        if check is None:
            self.checks.pop(key, None)
        else:
            self.checks[key] = check

    async def apply(self, addresses: Iterable[str]) -> None:
        """Open and close listeners. One that fails is told and tried again next time; others do not suffer."""
        wanted = {(key, address, check.port) for key, check in self.checks.items() for address in addresses}
        for place in [p for p in self.servers if p not in wanted]:
            self.servers.pop(place).close()
        for place in sorted(wanted - self.servers.keys()):
            key, address, port = place
            try:
                self.servers[place] = await listen(address, port, lambda _, key=key: self._answer(key))  # type: ignore[misc]
            except OSError as error:
                self.failed(key, f"node {address} failed to start healthcheck on port {port}: {error.strerror}")

    def _answer(self, key: ServiceKey) -> Answer:
        check = self.checks.get(key)
        return service_answer(key, check.endpoints if check else 0, self.healthy())

    def close(self) -> None:
        """End all listeners."""
        for server in self.servers.values():
            server.close()
        self.servers = {}
