"""Load balancers on one machine: a Service of type LoadBalancer gets an address of the pool, its own for as long as it
is one, and gives it back when it is none any more.

What upstream's service controller does for a cloud, with its finalizer, events and order; the cloud is a pool of
addresses that the instance routes to its nodes (`instance/balancer.py`). Where there is no pool, Services stay pending,
as in a cluster without a cloud.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kubesvc.api.addresses import Address, Network
from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import SERVICE
from kubesvc.api.meta import Object
from kubesvc.api.service import Service
from kubesvc.client.workqueue import Key, RetryPolicy

from .runner import Controller, ControllerContext, ExpectedFailure, key_of

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
FAMILIES = {4: "IPv4", 6: "IPv6"}


class NoAddress(ExpectedFailure):
    """The pool cannot give what the Service asks for; the text says why."""


def wants_balancer(service: Service) -> bool:
    """Whether the Service is ours: a class of balancer belongs to somebody else's controller."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class is None


def needs_cleanup(service: Service) -> bool:
    """Whether it holds a balancer that it must lose: it is being deleted, or wants none any more."""
    held = FINALIZER in (service.metadata.finalizers or ())
    return held and (bool(service.metadata.deletion_timestamp) or not wants_balancer(service))


def pool_addresses(service: Service, ranges: Iterable[str]) -> tuple[str, ...]:
    """The addresses of its status that lie in the pool, in their order."""
    networks = [ipaddress.ip_network(r) for r in ranges]
    found = []
    for ingress in service.status.load_balancer.ingress or ():
        try:
            address = ipaddress.ip_address(ingress.ip)
        except ValueError:
            continue
        if any(address.version == n.version and address in n for n in networks):
            found.append(str(address))
    return tuple(found)


def plan_addresses(service: Service, ranges: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
    """One address of the pool for each of the Service's families, in their order, that the pool has.

    ranges: the pool, at most one network of each family
    taken:  addresses of other Services

    What the Service has already it keeps while nobody else has it and it is what it asks for; then
    spec.loadBalancerIP counts; then the lowest free one. NoAddress if one that was asked for cannot be given, or the
    pool has none left.
    """
    pools = {FAMILIES[n.version]: n for n in (ipaddress.ip_network(r) for r in ranges)}
    wished = service.spec.load_balancer_ip
    asked = None
    if wished:
        try:
            asked = ipaddress.ip_address(wished)
        except ValueError:
            raise NoAddress(f"loadBalancerIP {wished} is no IP address") from None
        pool = pools.get(FAMILIES[asked.version])
        if pool is None or asked not in pool:
            raise NoAddress(f"loadBalancerIP {wished} lies outside the pool {', '.join(ranges)}")
        if str(asked) in taken:
            raise NoAddress(f"loadBalancerIP {wished} belongs to another Service")
    families = [f for f in service.spec.ip_families or ["IPv4"] if f in pools]
    if asked is not None and FAMILIES[asked.version] not in families:
        raise NoAddress(f"loadBalancerIP {wished} is of a family that the Service does not have")
    if not families:
        raise NoAddress(f"the pool {', '.join(ranges)} has no addresses of {', '.join(service.spec.ip_families or ())}")
    held: dict[int, str] = {ipaddress.ip_address(a).version: a for a in pool_addresses(service, ranges)}
    return tuple(_address(pools[f], asked, held, taken) for f in families)


def _address(pool: Network, asked: Address | None, held: Mapping[int, str], taken: Collection[str]) -> str:
    if asked is not None and asked.version == pool.version:
        return str(asked)
    own = held.get(pool.version)
    if own is not None and own not in taken:
        return own
    free = next((text for a in pool.hosts() if (text := str(a)) not in taken), None)
    if free is None:
        raise NoAddress(f"no address of the pool {pool} is free")
    return free


@dataclass(frozen=True, slots=True)
class Difference:
    """What made a Service due again: the reason and text of an Event, "" for what upstream says nothing about."""

    reason: str = ""
    message: str = ""


def difference(old: Service, new: Service) -> Difference | None:
    """Whether a change of a Service matters to its balancer, and what is said about it; None if it does not."""
    a, b = old.spec, new.spec
    if wants_balancer(old) != wants_balancer(new):
        return Difference("Type", f"{a.type} -> {b.type}")
    if not wants_balancer(new):
        return None
    ranges, before = b.load_balancer_source_ranges or [], a.load_balancer_source_ranges or []
    if ranges != before:
        return Difference("LoadBalancerSourceRanges", f"[{' '.join(before)}] -> [{' '.join(ranges)}]")
    if a.ports != b.ports or a.session_affinity != b.session_affinity:
        return Difference()
    if a.load_balancer_ip != b.load_balancer_ip:
        return Difference("LoadbalancerIP", f"{a.load_balancer_ip} -> {b.load_balancer_ip}")
    external, external_before = b.external_ips or [], a.external_ips or []
    if len(external) != len(external_before):
        return Difference("ExternalIP", f"Count: {len(external_before)} -> {len(external)}")
    for address in external:
        if address not in external_before:
            return Difference("ExternalIP", f"Added: {address}")
    if old.metadata.annotations != new.metadata.annotations or a.ip_families != b.ip_families:
        return Difference()
    if old.metadata.uid != new.metadata.uid:
        return Difference("UID", f"{old.metadata.uid} -> {new.metadata.uid}")
    if a.external_traffic_policy != b.external_traffic_policy:
        return Difference("ExternalTrafficPolicy", f"{a.external_traffic_policy} -> {b.external_traffic_policy}")
    if a.health_check_node_port != b.health_check_node_port:
        return Difference("HealthCheckNodePort", f"{a.health_check_node_port} -> {b.health_check_node_port}")
    return None


class LoadBalancerController(Controller):
    """Keys are Services. One worker: who takes an address must see what was given before."""

    name = "service-lb-controller"
    component = "service-controller"
    policy: ClassVar[RetryPolicy] = RetryPolicy(base_seconds=5.0, cap_seconds=300.0, most=0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.ranges = ctx.settings.load_balancer_ranges
        self.services = ctx.informers.of(SERVICE)
        self.given: dict[Key, tuple[str, ...]] = {}
        """What was given here, until the Service has given it back: the cache may lag behind."""
        self.waiting: dict[Key, None] = {}
        """Services that found no address; tried again when one is given back."""
        if self.ranges:
            self.services.on_change(self.moved)

    @property
    def workers(self) -> int:
        return 1

    def moved(self, old: Service | None, new: Service | None) -> None:
        key = key_of(new, old)
        if new is None:
            self.given.pop(key, None)
            self.waiting.pop(key, None)
            self.wake()
        elif old is None:
            if wants_balancer(new) or needs_cleanup(new):
                self.queue.add(key)
        elif (change := difference(old, new)) is not None:
            if change.reason:
                self.events.event(SERVICE, new, "Normal", change.reason, change.message)
            self.queue.add(key)
        elif needs_cleanup(new):
            self.queue.add(key)
        if old is not None and new is not None:
            left = set(pool_addresses(old, self.ranges)) - set(pool_addresses(new, self.ranges))
            if left:
                self.wake()

    def wake(self) -> None:
        for key in self.waiting:
            self.queue.add(key)
        self.waiting.clear()

    def taken(self, key: Key) -> set[str]:
        """The addresses of all other Services, as the cache has them and as they were given here."""
        found = {a for k, addresses in self.given.items() if k != key for a in addresses}
        for service in self.services.values():
            if (service.namespace, service.name) != key and service.spec.type == "LoadBalancer":
                found.update(pool_addresses(service, self.ranges))
        return found

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(key)
        if service is None or not self.ranges:
            return
        try:
            if needs_cleanup(service) or not wants_balancer(service):
                await self.release(key, service)
            elif not service.metadata.deletion_timestamp:
                await self.ensure(key, service)
        except NotFound:
            return
        except Exception as error:
            said = f"Error syncing load balancer: {self.text(service, error)}"
            self.events.event(SERVICE, service, "Warning", "SyncLoadBalancerFailed", said)
            raise

    def text(self, service: Service, error: Exception) -> str:
        doing = "delete" if needs_cleanup(service) else "ensure"
        return f"failed to {doing} load balancer: {error}"

    async def ensure(self, key: Key, service: Service) -> None:
        """Give it its addresses, and hold the Service until they are taken back."""
        self.events.event(SERVICE, service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
        if FINALIZER not in (service.metadata.finalizers or ()):
            await self.hold(service, [*(service.metadata.finalizers or ()), FINALIZER])
        try:
            addresses = plan_addresses(service, self.ranges, self.taken(key))
        except NoAddress:
            self.waiting[key] = None
            await self.publish(service, ())
            self.given.pop(key, None)
            raise
        before = self.given.get(key, ())
        self.given[key] = addresses
        await self.publish(service, addresses)
        if set(before) - set(addresses):
            self.wake()
        self.events.event(SERVICE, service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")

    async def release(self, key: Key, service: Service) -> None:
        """Take the addresses back and let the Service go."""
        self.waiting.pop(key, None)
        held = FINALIZER in (service.metadata.finalizers or ())
        has = key in self.given or (held and bool(pool_addresses(service, self.ranges)))
        if not held and not has:
            return  # never ours: another controller's balancer may stand there
        if has:
            self.events.event(SERVICE, service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
        if service.spec.type == "LoadBalancer" and not service.metadata.deletion_timestamp:
            await self.publish(service, ())
        if held:
            await self.hold(service, [f for f in service.metadata.finalizers or () if f != FINALIZER])
        if self.given.pop(key, None):
            self.wake()
        self.events.event(SERVICE, service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")

    async def hold(self, service: Service, finalizers: list[str]) -> None:
        """Set the finalizers, through the status as upstream does: of a Service no more may be written."""
        meta = {"finalizers": finalizers or None, "resourceVersion": service.metadata.resource_version}
        patch = {"metadata": meta}
        await self.client.patch(SERVICE, service.name, service.namespace, patch, "merge", subresource="status")

    async def publish(self, service: Service, addresses: Sequence[str]) -> None:
        """Write the status; addresses that others put there go, as with every cloud."""
        wanted: list[Object] = [{"ip": a, "ipMode": "VIP"} for a in addresses]
        current = service.status.load_balancer.ingress or ()
        if [(i.ip, i.ip_mode) for i in current] == [(a, "VIP") for a in addresses]:
            return
        status = {"status": {"loadBalancer": {"ingress": wanted} if wanted else None}}
        await self.client.patch(SERVICE, service.name, service.namespace, status, "merge", subresource="status")
