"""Load balancers' addresses: which nodes take the traffic of each, as routes of the network between the nodes.

A cloud's balancer sends to nodes that are ready, and under externalTrafficPolicy Local to those whose health check says
that an endpoint runs there; so do these routes. Which address a Service has is the controller's affair
(`controllers/loadbalancer.py`), what a node does with a packet its proxy's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.node import Node
from kubesvc.api.service import Service
from kubesvc.client.informer import Informer

from .options import second_address
from .record import BalancerRecord
from .wiring import Balanced

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.02
"""Changes that come together are routed together."""
RETRY_SECONDS = 2.0
LABEL_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def balanced_addresses(service: Service, ranges: Iterable[str]) -> tuple[str, ...]:
    """The addresses of the pool that a Service has and that nodes handle themselves (ipMode VIP, PROXY-44)."""
    if service.spec.type != "LoadBalancer":
        return ()
    networks = [ipaddress.ip_network(r) for r in ranges]
    found = []
    for ingress in service.status.load_balancer.ingress or ():
        if not ingress.ip or ingress.ip_mode not in (None, "", "VIP"):
            continue
        address = ipaddress.ip_address(ingress.ip)
        if any(address.version == n.version and address in n for n in networks):
            found.append(str(address))
    return tuple(dict.fromkeys(found))


def plan_routes(
    services: Iterable[Service],
    slices_of: Callable[[Service], Iterable[EndpointSlice]],
    nodes: Mapping[str, str],
    ranges: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """By balancer's address, the addresses of the nodes that take its traffic, in order; () for none at all.

    nodes: those that may take traffic (`eligible`), IPv4 address by name. An address that several Services claim goes
    where the first by namespace and name wants it. Each family has its own endpoints, and nodes' addresses of its own.
    """
    plan: dict[str, tuple[str, ...]] = {}
    for service in sorted(services, key=lambda s: (s.namespace, s.name)):
        addresses = balanced_addresses(service, ranges)
        if not addresses:
            continue
        for address in addresses:
            six = ":" in address
            chosen = set(nodes)
            if service.spec.external_traffic_policy == "Local":
                chosen &= nodes_with_endpoints(slices_of(service), "IPv6" if six else "IPv4")
            plan.setdefault(address, tuple(second_address(nodes[n]) if six else nodes[n] for n in sorted(chosen)))
    return plan


def nodes_with_endpoints(slices: Iterable[EndpointSlice], family: str) -> set[str]:
    """Names of the nodes where a ready endpoint of this family runs."""
    return {
        e.node_name
        for s in slices
        if s.address_type == family
        for e in s.endpoints or ()
        if e.node_name and (e.conditions is None or e.conditions.ready is not False)
    }


def eligible(nodes: Iterable[Node], real: Mapping[str, str]) -> dict[str, str]:
    """The nodes a balancer sends to: real ones that are ready, are not about to go, and are not excluded by label.

    real: address by name of the nodes whose process runs
    """
    found = {}
    for node in nodes:
        ready = node.status.condition("Ready")
        gone = node.metadata.deletion_timestamp or LABEL_EXCLUDED in (node.metadata.labels or {})
        if node.name in real and ready is not None and ready.status == "True" and not gone:
            found[node.name] = real[node.name]
    return found


def claim_host_network(loopback: str, version: int = 4) -> tuple[int, socket.socket]:
    """A number N from 1 to 254 such that 127.N.0.0/16 is this process's as long as the socket is open: the last part of
    the instance's loopback address, for IPv6 (version 6) half the numbers further, or the next one that no other
    process of this machine has claimed.

    The claim is a name that the kernel gives once, whoever asks, and takes back when its holder ends.
    """
    first = int(loopback.rsplit(".", 1)[1]) + (127 if version == 6 else 0)
    for step in range(254):
        number = (first - 1 + step) % 254 + 1
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0kubesvc-balancers-127.{number}")
            return number, claim
        except OSError:
            claim.close()
    raise RuntimeError("254 instances have load balancers on this host; no loopback network is left")


def host_address(networks: Mapping[int, int], address: str) -> str:
    """Where a balancer's address that ends in the bytes x and y answers on the host: 127.N.x.y, of the network 127.N
    that was claimed for its family. So no two instances and no two Services meet, whatever their ports.

    networks: N by IP version. IPv6 has but one loopback address, so its balancers too answer at addresses of IPv4.
    """
    parsed = ipaddress.ip_address(address)
    x, y = parsed.packed[-2:]
    return f"127.{networks[parsed.version]}.{x}.{y}"


class Balancer:
    """Keeps the routes in line with what the API says.

    networks: the claimed loopback networks, by IP version (`claim_host_network`)
    real:  address by name of the nodes whose process runs, as they are now
    route: carries out changes; blocks, and raises OSError or RuntimeError if it cannot
    shown: told what answers where on the host, whenever that changes
    """

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        nodes: Informer[Node],
        ranges: Sequence[str],
        networks: Mapping[int, int],
        real: Callable[[], Mapping[str, str]],
        route: Callable[[tuple[Balanced, ...]], None],
        shown: Callable[[list[BalancerRecord]], None],
    ) -> None:
        self.services = services
        self.slices = slices
        self.nodes = nodes
        self.ranges = tuple(ranges)
        self.networks = networks
        self.real = real
        self.route = route
        self.shown = shown
        self.routes: dict[str, tuple[str, ...]] = {}
        """What the kernel has."""
        self.records: list[BalancerRecord] = []
        self.changed = asyncio.Event()
        self.by_service = slices.index("balanced service", _service_keys)
        services.on_change(self._service_moved)
        slices.on_change(lambda old, new: self._slice_moved(new or old))
        nodes.on_change(lambda *_: self.changed.set())

    def _service_moved(self, old: Service | None, new: Service | None) -> None:
        if any(s is not None and s.spec.type == "LoadBalancer" for s in (old, new)):
            self.changed.set()

    def _slice_moved(self, moved: EndpointSlice | None) -> None:
        if moved is None:
            return
        service = self.services.get((moved.namespace, moved.service_name))
        if service is not None and service.spec.type == "LoadBalancer":
            self.changed.set()

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        for informer in (self.services, self.slices, self.nodes):
            await informer.synced.wait()
        self.changed.set()
        while True:
            await self.changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self.changed.clear()
            try:
                await self.sync()
            except (OSError, RuntimeError) as error:
                log.warning("load balancers' addresses not routed, tried again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self.changed.set()

    async def sync(self) -> None:
        balanced = [s for s in self.services.values() if s.spec.type == "LoadBalancer"]
        nodes = eligible(self.nodes.values(), self.real())
        wanted = plan_routes(balanced, lambda s: self.by_service.get(f"{s.namespace}/{s.name}"), nodes, self.ranges)
        changes = tuple(
            Balanced(address, wanted.get(address, ()))
            for address in sorted({*wanted, *self.routes})
            if wanted.get(address, ()) != self.routes.get(address, ())
        )
        if changes:
            await asyncio.to_thread(self.route, changes)
        self.routes = wanted
        records = [r for s in sorted(balanced, key=lambda s: (s.namespace, s.name)) for r in self.describe(s)]
        if records != self.records:
            self.records = records
            self.shown(records)

    def describe(self, service: Service) -> list[BalancerRecord]:
        ports = [f"{p.port}/{p.protocol or 'TCP'}" for p in service.spec.ports or ()]
        name = f"{service.namespace}/{service.name}"
        return [
            BalancerRecord(name, address, host_address(self.networks, address), ports)
            for address in balanced_addresses(service, self.ranges)
        ]


def _service_keys(s: EndpointSlice) -> list[str]:
    return [f"{s.namespace}/{s.service_name}"] if s.service_name else []
