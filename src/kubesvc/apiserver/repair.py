"""Repair: bring IPAddress objects back in line with the Services they are for, and say what cannot be repaired.

Addresses are written in one commit with their Service, so there is little to do: what users delete or invent, what
other servers or older stores left behind. Node ports have no objects of their own here; which are taken follows from
the Services (REPAIR-3), and only what is wrong with the Services themselves is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from kubesvc.api import addresses
from kubesvc.api.addresses import Network
from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.ipaddress import IP_ADDRESS, IPAddress, address_object
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Typed, typed
from kubesvc.api.service import SERVICE, Service
from kubesvc.api.servicecidr import SERVICE_CIDR, ServiceCIDR
from kubesvc.client import Client, EventRecorder, Unreachable
from kubesvc.clock import Clock, parse_rfc3339

from .allocators import Owner, networks_of

log = logging.getLogger(__name__)

REPAIR_SECONDS = 60.0
PORT_TURNS = 3
"""Node ports are looked at in every third turn, so every three minutes (REPAIR-2)."""
REFERENCE_GRACE_SECONDS = 5.0
"""A reference that looks wrong may be one whose Service this reader has not seen yet."""
LEAK_SECONDS = 60.0
"""Age at which an address of no living Service counts as leaked."""


class Complaint(NamedTuple):
    """A Warning event to be."""

    kind: Kind
    about: Typed
    reason: str
    message: str


class Step(NamedTuple):
    """One address to put right: delete its IPAddress, then make one for `owner`, either or both; and what to say.
    One that names another Service is deleted and made anew, since its parentRef cannot be changed."""

    address: str
    complaint: Complaint
    delete: bool = False
    owner: Owner | None = None
    uid: str = ""
    """Of the IPAddress to delete: another server may have given the address anew meanwhile."""


@dataclass(slots=True)
class RepairPlan:
    """What to do, and what to say about things that nobody but the user can put right."""

    steps: dict[str, Step] = field(default_factory=dict)
    """By address."""
    complaints: list[Complaint] = field(default_factory=list)

    def put_right(self, step: Step) -> None:
        self.steps[step.address] = step

    def tell(self, service: Service, reason: str, message: str) -> None:
        self.complaints.append(Complaint(SERVICE, service, reason, message))


def plan_address_repair(
    services: Iterable[Service], held: Iterable[IPAddress], ranges: Sequence[Network], now: float
) -> RepairPlan:
    """What to do about addresses that are not held as they should be (REPAIR-1).

    services: all Services       ranges: all service ranges, those that are going included
    held:     all IPAddresses    now:    seconds since 1970, to be compared with their creation

    Only IPAddresses that an allocator made are touched; one that a user made keeps its address from everybody.
    """
    plan = RepairPlan()
    objects = {h.name: h for h in held}
    living = {(s.namespace, s.name): s for s in sorted(services, key=lambda s: (s.namespace, s.name))}
    used: set[str] = set()
    for owner, service in living.items():
        for text in service.addresses:
            address = addresses.parse_leniently(text)
            if address is None:
                plan.tell(service, "ClusterIPNotValid", f"{text} is no IP address; make the Service anew")
                continue
            if not any(address in network for network in ranges if network.version == address.version):
                why = f"{text} is outside every service range; make the Service anew"
                plan.tell(service, "ClusterIPOutOfRange", why)
                continue
            used.add(str(address))
            repair_address(plan, str(address), service, owner, objects.get(str(address)), living, now)
    for name, found in sorted(objects.items()):
        if name not in used and found.managed and age(found, now) > LEAK_SECONDS:
            why = f"no Service uses {name}; it is given back"
            complaint = Complaint(IP_ADDRESS, found, "IPAddressNotAllocated", why)
            plan.put_right(Step(name, complaint, delete=True, uid=found.metadata.uid))
    return plan


def repair_address(
    plan: RepairPlan,
    address: str,
    service: Service,
    owner: Owner,
    found: IPAddress | None,
    living: dict[Owner, Service],
    now: float,
) -> None:
    """Decide about one address of one living Service; `found` is the object that holds it, if any."""
    if found is None:
        if address in plan.steps:
            shared(plan, address, service)
            return
        why = f"{address} was not held; it is now"
        plan.put_right(Step(address, Complaint(SERVICE, service, "ClusterIPNotAllocated", why), owner=owner))
        return
    if not found.managed or (held_for := owner_named(found)) == owner:
        return
    other = living.get(held_for)
    if other is not None and address in {addresses.canonical(a) for a in other.addresses}:
        shared(plan, address, service)
    elif age(found, now) > REFERENCE_GRACE_SECONDS and address not in plan.steps:
        why = f"{address} was held for {'/'.join(held_for)}; it is held for {'/'.join(owner)} now"
        complaint = Complaint(IP_ADDRESS, found, "IPAddressWrongReference", why)
        plan.put_right(Step(address, complaint, delete=True, owner=owner, uid=found.metadata.uid))


def shared(plan: RepairPlan, address: str, service: Service) -> None:
    why = f"{address} belongs to several Services; make this one anew"
    plan.tell(service, "ClusterIPAlreadyAllocated", why)


def owner_named(found: IPAddress) -> Owner:
    parent = found.spec.parent_ref
    return (parent.namespace, parent.name) if parent is not None and parent.resource == "services" else ("", "")


def age(found: IPAddress, now: float) -> float:
    """Seconds since it was made; one without a time is as old as can be."""
    stamp = found.metadata.creation_timestamp
    return now - parse_rfc3339(stamp) if stamp else now


def plan_port_repair(services: Iterable[Service], node_ports: tuple[int, int]) -> RepairPlan:
    """Which Services share a node port or have one out of range (REPAIR-2); nothing is to be written."""
    plan = RepairPlan()
    first, last = node_ports
    holders: dict[int, Owner] = {}
    for service in sorted(services, key=lambda s: (s.namespace, s.name)):
        for port in ports_of(service):
            if not first <= port <= last:
                why = f"port {port} is outside {first}-{last}; make the Service anew"
                plan.tell(service, "PortOutOfRange", why)
            elif holders.setdefault(port, (service.namespace, service.name)) != (service.namespace, service.name):
                why = f"port {port} belongs to several Services; make this one anew"
                plan.tell(service, "PortAlreadyAllocated", why)
    return plan


def ports_of(service: Service) -> list[int]:
    """The node ports of a Service, each once."""
    if service.spec.type not in ("NodePort", "LoadBalancer"):
        return []
    found = [p.node_port for p in service.spec.ports or () if p.node_port]
    if service.spec.health_check_node_port:
        found.append(service.spec.health_check_node_port)
    return list(dict.fromkeys(found))


T = TypeVar("T", bound=Typed)


class Repairer:
    """Repairs now and then, until cancelled.

    service_ranges: the configured ranges, which count even while their ServiceCIDR object is missing
    """

    def __init__(
        self,
        client: Client,
        service_ranges: Sequence[str],
        node_ports: tuple[int, int],
        clock: Clock,
        events: EventRecorder,
    ) -> None:
        self.client = client
        self.configured = [n for n in map(addresses.parse_cidr, service_ranges) if n is not None]
        self.node_ports = node_ports
        self.clock = clock
        self.events = events

    async def run(self) -> None:
        """Repair at once and then every REPAIR_SECONDS; a turn that fails is logged and the next one tries again."""
        turn = 0
        while True:
            try:
                await self.repair(ports=turn % PORT_TURNS == 0)
            except (ApiError, Unreachable) as error:
                log.warning("repair of addresses and node ports put off: %s", error)
            turn += 1
            await asyncio.sleep(REPAIR_SECONDS)

    async def repair(self, *, ports: bool = True) -> None:
        """One turn. Services are read first: an address that came since is too young to be taken for a leak."""
        services = await self.all(SERVICE, Service)
        held = await self.all(IP_ADDRESS, IPAddress)
        cidrs = await self.all(SERVICE_CIDR, ServiceCIDR)
        ranges = [*self.configured, *(n for c in cidrs for n in networks_of(c))]
        await self.apply(plan_address_repair(services, held, ranges, self.clock.now()))
        if ports:
            await self.apply(plan_port_repair(services, self.node_ports))

    async def all(self, kind: Kind, type_: type[T]) -> list[T]:
        listed = await self.client.list_raw(kind)
        return [msgspec.json.decode(item, type=type_) for item in listed.items]

    async def apply(self, plan: RepairPlan) -> None:
        for step in plan.steps.values():
            if await self.put_right(step):
                self.tell(step.complaint)
        for complaint in plan.complaints:
            self.tell(complaint)

    async def put_right(self, step: Step) -> bool:
        """Do one step; False if things have moved on meanwhile, in which case the next turn looks again."""
        try:
            if step.owner is not None and not await self.still_uses(step.owner, step.address):
                return False
            if step.delete:
                await self.client.delete(IP_ADDRESS, step.address, uid=step.uid)
            if step.owner is not None:
                await self.client.create(IP_ADDRESS, address_object(step.address, *step.owner))
        except (NotFound, AlreadyExists, Conflict):
            return False
        return True

    async def still_uses(self, owner: Owner, address: str) -> bool:
        namespace, name = owner
        service = typed(await self.client.get(SERVICE, name, namespace), Service)
        return address in {addresses.canonical(a) for a in service.addresses}

    def tell(self, complaint: Complaint) -> None:
        self.events.event(complaint.kind, complaint.about, "Warning", complaint.reason, complaint.message)
