"""Cluster addresses and node ports: which are free, and what a Service gets of them (VIP, NP, CIDR-6).

`Allocations` is the only state: what stored objects hold, as observed, and what writes under way have reserved. It is
never stored itself, so after a start it follows from the objects (REPAIR-3). The `plan_` functions read it, write the
chosen values into the new Service and say which IPAddress objects come and go; nothing is held until `reserve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import NamedTuple, TypeVar

from kubesvc.api import addresses, fields
from kubesvc.api.addresses import Network
from kubesvc.api.errors import ApiError, InternalError
from kubesvc.api.fields import Errors, Path
from kubesvc.api.ipaddress import IPAddress, ParentReference
from kubesvc.api.meta import Object, typed
from kubesvc.api.service_families import settle_families
from kubesvc.api.service_update import allocates_node_ports, headless, needs_health_port, needs_node_ports, node_ports
from kubesvc.api.servicecidr import ServiceCIDR
from kubesvc.clock import Random

PORTS = Path("spec") / "ports"
TAKEN_PORT = "provided port is already allocated"
TAKEN_ADDRESS = "provided IP is already allocated"
OUTSIDE = "the provided network does not match the current range"
FULL = "range is full"
DUMMY_PORTS = 32768
"""Dry runs count their made-up node ports from here."""

Owner = tuple[str, str]
"""Namespace and name of a Service."""


class Bands(NamedTuple):
    """Whole numbers that may be given out: `first`..`last`, automatically from `upper` on while any is free there."""

    first: int
    upper: int
    last: int

    def choose(self, taken: Callable[[int], bool], random: Random) -> int | None:
        """A free number: from a random start in the upper band around it, then in the lower band; None if all are
        taken (VIP-2, NP-1)."""
        for low, high in ((self.upper, self.last), (self.first, self.upper - 1)):
            if low > high:
                continue
            start = random.randint(low, high)
            for number in chain(range(start, high + 1), range(low, start)):
                if not taken(number):
                    return number
        return None


def address_bands(network: Network) -> Bands:
    """The bands of a service range: the base address, and the broadcast address of IPv4, are left out (VIP-1 to -3)."""
    base, size = int(network.network_address), network.num_addresses
    last = base + size - (2 if network.version == 4 else 1)
    static = min(max(16, size // 16), 256) if size > 16 else 0
    return Bands(base + 1, base + 1 + static, last)


def port_bands(first: int, last: int) -> Bands:
    """The bands of the node port range (NP-1)."""
    size = last - first + 1
    static = min(max(16, size // 32), 128) if size > 16 else 0
    return Bands(first, first + static, last)


class Allocations:
    """Which addresses and ports are taken. `observe_` follows stored objects; `reserve` and `release` follow writes
    under way.

    service_ranges: one or two CIDRs, used for a family as long as no ServiceCIDR object of that family exists
    node_ports:     first and last, inclusive
    """

    def __init__(self, service_ranges: Sequence[str], node_ports: tuple[int, int]) -> None:
        self.configured: tuple[Network, ...] = tuple(ip_network(r) for r in service_ranges)
        self.families = tuple(family_name(n) for n in self.configured)
        self.node_ports = node_ports
        self.port_bands = port_bands(*node_ports)
        self.holders: dict[str, ParentReference | None] = {}
        self.cidrs: dict[str, ServiceCIDR] = {}
        self.address_users: dict[str, set[Owner]] = {}
        self.port_users: dict[int, set[Owner]] = {}
        self.reserved_addresses: set[str] = set()
        self.reserved_ports: set[int] = set()

    # What is stored

    def observe_address(self, old: Object | None, new: Object | None) -> None:
        """An IPAddress object came (old None), changed, or went (new None)."""
        if new is not None:
            self.holders[new["metadata"]["name"]] = typed(new, IPAddress).spec.parent_ref
        elif old is not None:
            self.holders.pop(old["metadata"]["name"], None)

    def observe_range(self, old: Object | None, new: Object | None) -> None:
        """The same for ServiceCIDR objects."""
        if new is not None:
            self.cidrs[new["metadata"]["name"]] = typed(new, ServiceCIDR)
        elif old is not None:
            self.cidrs.pop(old["metadata"]["name"], None)

    def observe_service(self, old: Object | None, new: Object | None) -> None:
        """The same for Services."""
        for service, users in ((old, forget), (new, remember)):
            if service is not None:
                owner, spec = owner_of(service), service["spec"]
                for address in service_addresses(spec):
                    users(self.address_users, address, owner)
                for port in service_ports(spec):
                    users(self.port_users, port, owner)

    # What is free

    def ranges(self, family: str) -> list[Network]:
        """The ranges that addresses of a family come from (CIDR-6), in the order of their objects' names."""
        known = [c for _, c in sorted(self.cidrs.items())]
        networks = [(c, n) for c in known for n in networks_of(c) if family_name(n) == family]
        if not networks:
            return [n for n in self.configured if family_name(n) == family]
        return [n for c, n in networks if c.allocating]

    def address_taken(self, address: str) -> bool:
        return bool(address in self.holders or address in self.reserved_addresses or self.address_users.get(address))

    def port_taken(self, port: int) -> bool:
        return bool(port in self.reserved_ports or self.port_users.get(port))

    def held_by(self, address: str, owner: Owner) -> bool:
        """Whether the IPAddress object of this address names this Service."""
        parent = self.holders.get(address)
        return parent is not None and (parent.resource, parent.namespace, parent.name) == ("services", *owner)

    def out_of_range(self) -> str:
        first, last = self.node_ports
        return f"provided port is not in the valid range. The range of valid ports is {first}-{last}"

    # What is under way

    def reserve(self, plan: AllocationPlan) -> None:
        """Hold what the plan takes until `release`, which is due once the write has happened or failed."""
        self.reserved_addresses.update(plan.addresses)
        self.reserved_ports.update(plan.ports)

    def release(self, plan: AllocationPlan) -> None:
        self.reserved_addresses.difference_update(plan.addresses)
        self.reserved_ports.difference_update(plan.ports)


T = TypeVar("T")


def remember(users: dict[T, set[Owner]], thing: T, owner: Owner) -> None:
    users.setdefault(thing, set()).add(owner)


def forget(users: dict[T, set[Owner]], thing: T, owner: Owner) -> None:
    owners = users.get(thing, set())
    owners.discard(owner)
    if not owners:
        users.pop(thing, None)


def family_name(network: Network) -> str:
    return "IPv4" if network.version == 4 else "IPv6"


def networks_of(cidr: ServiceCIDR) -> list[Network]:
    return [n for n in map(addresses.parse_cidr, cidr.spec.cidrs or ()) if n is not None]


def owner_of(service: Object) -> Owner:
    meta = service.get("metadata") or {}
    return meta.get("namespace") or "", meta.get("name") or ""


def service_addresses(spec: Object) -> list[str]:
    """The cluster addresses of a Service in canonical form; none for headless and ExternalName ones."""
    if spec.get("type") == "ExternalName" or headless(spec):
        return []
    listed: list[str] = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [addresses.canonical(a) for a in listed]


def service_ports(spec: Object) -> list[int]:
    """The numbers of the node port range that a Service holds, the health check's included."""
    found = node_ports(spec) if needs_node_ports(spec) else []
    if needs_health_port(spec) and spec.get("healthCheckNodePort"):
        found.append(spec["healthCheckNodePort"])
    return found


@dataclass(frozen=True, slots=True)
class AllocationPlan:
    """What a write takes and gives back. Addresses are canonical texts.

    addresses: IPAddress objects to create with the write    freed: IPAddress objects to delete with it
    ports:     numbers taken; those given back follow from the stored Service itself
    """

    addresses: tuple[str, ...] = ()
    freed: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(slots=True)
class Draft:
    """A plan in the making for one Service; raises ApiError as soon as something cannot be had (VIP-7)."""

    service: Object
    allocations: Allocations
    random: Random
    dry_run: bool
    addresses: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    @property
    def spec(self) -> Object:
        spec: Object = self.service["spec"]
        return spec

    def plan(self, freed: Iterable[str] = ()) -> AllocationPlan:
        if self.dry_run:
            return AllocationPlan()
        return AllocationPlan(tuple(self.addresses), tuple(freed), tuple(self.ports))

    # Addresses

    def fill_addresses(self, start: int) -> None:
        """One address per family, from the `start`-th family on; those the client chose are tried."""
        wanted: list[str] = self.spec.get("clusterIPs") or []
        chosen = list(wanted)
        for i, family in enumerate(self.spec.get("ipFamilies") or ()):
            if i < start:
                continue
            if i < len(wanted):
                self.take_address(family, wanted[i], wanted)
            else:
                chosen.append(self.choose_address(family))
        self.spec["clusterIPs"] = chosen
        self.spec["clusterIP"] = chosen[0]

    def take_address(self, family: str, text: str, listed: list[str]) -> None:
        address = ip_address(text)
        found = str(address)
        why = ""
        if not any(in_bands(int(address), address_bands(n)) for n in self.allocations.ranges(family)):
            why = f"failed to allocate IP {text}: {OUTSIDE}"
        elif not self.dry_run and self.allocations.address_taken(found):
            why = f"failed to allocate IP {text}: {TAKEN_ADDRESS}"
        elif not self.dry_run and not owner_of(self.service)[1]:
            why = f"failed to allocate IP {text}: {nameless(found)}"
        if why:
            raise self.refusal([fields.invalid("spec.clusterIPs", listed, why)])
        self.addresses.append(found)

    def choose_address(self, family: str) -> str:
        ranges = self.allocations.ranges(family)
        if self.dry_run and ranges:
            return str(ranges[0].network_address)  # VIP-9
        for network in ranges:
            number = address_bands(network).choose(self.address_number_taken(network), self.random)
            if number is None:
                continue
            found = str(type(network.network_address)(number))
            if not owner_of(self.service)[1]:  # META-5
                why = f"failed to allocate IP: {nameless(found)}"
                raise self.refusal([fields.invalid("spec.clusterIPs", [""], why)])
            self.addresses.append(found)
            return found
        name = fields.quote(owner_of(self.service)[1])
        raise internal_error(f"failed to allocate a serviceIP for Service {name}: {FULL}")

    def address_number_taken(self, network: Network) -> Callable[[int], bool]:
        kind = type(network.network_address)
        return lambda number: self.allocations.address_taken(str(kind(number)))

    # Ports

    def port_taken(self, port: int) -> bool:
        return port in self.ports or self.allocations.port_taken(port)

    def port_refusal(self, port: int) -> str:
        """Why this port cannot be had; "" if it can. A dry run does not ask for the range (NP-11)."""
        first, last = self.allocations.node_ports
        if not self.dry_run and not first <= port <= last:
            return self.allocations.out_of_range()
        return TAKEN_PORT if self.port_taken(port) else ""

    def take_port(self, i: int, port: int) -> None:
        """The node port that the `i`-th Service port names (NP-5)."""
        if why := self.port_refusal(port):
            raise self.refusal([fields.invalid(PORTS @ i / "nodePort", port, why)])
        self.ports.append(port)

    def choose_port(self, what: str) -> int:
        port = self.dummy_port() if self.dry_run else self.allocations.port_bands.choose(self.port_taken, self.random)
        if port is None:
            raise internal_error(f"failed to allocate {what}: {FULL}")
        self.ports.append(port)
        return port

    def dummy_port(self) -> int:
        """What a dry run shows for an automatic port: no real one, and another each time."""
        return max(self.ports, default=DUMMY_PORTS) + 1

    def fill_ports_of_new(self) -> None:
        """Ports of one number share their node port over protocols (NP-3)."""
        if not needs_node_ports(self.spec):
            return
        ports: list[Object] = self.spec.get("ports") or []
        chosen: dict[int, int] = {}
        for i, port in enumerate(ports):
            if not port.get("nodePort") and not allocates_node_ports(self.spec):
                continue
            number = port["port"]
            if number not in chosen:
                named = next((p["nodePort"] for p in ports if p["port"] == number and p.get("nodePort")), 0)
                if named:
                    self.take_port(i, named)
                else:
                    named = self.choose_port("a nodePort")
                chosen[number] = named
                port["nodePort"] = port.get("nodePort") or named
            elif not port.get("nodePort"):
                port["nodePort"] = chosen[number]
            if port["nodePort"] != chosen[number]:
                self.take_port(i, port["nodePort"])

    def fill_ports_of_changed(self, before: Object) -> None:
        """Every port gets its own; numbers the Service had already are its own to use (NP-4)."""
        if not needs_node_ports(self.spec):
            return
        own = node_ports(before) if needs_node_ports(before) else []
        seen: set[tuple[str, int]] = set()
        for i, port in enumerate(self.spec.get("ports") or ()):
            number = port.get("nodePort") or 0
            if not number:
                if not allocates_node_ports(self.spec):
                    continue
                number = port["nodePort"] = self.choose_port("a nodePort")
            elif number not in own and number not in self.ports:
                self.take_port(i, number)
            if (port["protocol"], number) in seen:
                raise ApiError(f"duplicate nodePort: {{{port['protocol']} {number}}}")  # SVC-11
            seen.add((port["protocol"], number))

    def fill_health_port(self, before: Object | None) -> None:
        """NP-10."""
        if not needs_health_port(self.spec) or (before is not None and needs_health_port(before)):
            return
        port = self.spec.get("healthCheckNodePort") or 0
        if not port:
            self.spec["healthCheckNodePort"] = self.choose_port("a HealthCheck NodePort 0")
            return
        if why := self.port_refusal(port):
            raise internal_error(f"failed to allocate requested HealthCheck NodePort {port}: {why}")
        self.ports.append(port)

    def refusal(self, errors: Errors) -> ApiError:
        return fields.invalid_object("", "Service", owner_of(self.service)[1], errors)


def in_bands(number: int, bands: Bands) -> bool:
    return bands.first <= number <= bands.last


def nameless(address: str) -> str:
    """Why an address cannot be held for a Service without a name (META-5)."""
    return f"IPAddress.networking.k8s.io {fields.quote(address)} is invalid: spec.parentRef.name: Required value"


def internal_error(text: str) -> InternalError:
    return InternalError(f"Internal error occurred: {text}", details={"causes": [{"message": text}]})


def plan_create(service: Object, allocations: Allocations, random: Random, *, dry_run: bool = False) -> AllocationPlan:
    """Settle families, addresses and ports of a new Service, in place; what to take for it.

    service: a plain Service after `prepare_create`; of no further use if this raises
    Raises Invalid for what was asked and cannot be, InternalError for a full range, in upstream's order: families,
    addresses, node ports, health check port.
    """
    draft = Draft(service, allocations, random, dry_run)
    if errors := settle_families(draft.spec, None, allocations.families):
        raise draft.refusal(errors)
    if wants_addresses(draft.spec):
        draft.fill_addresses(0)
    draft.fill_ports_of_new()
    draft.fill_health_port(None)
    return draft.plan()


def plan_update(
    new: Object, old: Object, allocations: Allocations, random: Random, *, dry_run: bool = False
) -> AllocationPlan:
    """The same for a change of `old` into `new`, which has passed `prepare_update`; `old` is never changed.

    What the Service held and no longer names is given back (VIP-8, NP-9).
    """
    draft = Draft(new, allocations, random, dry_run)
    before = old["spec"]
    if errors := settle_families(draft.spec, before, allocations.families):
        raise draft.refusal(errors)
    had = before.get("clusterIPs") or []
    if wants_addresses(draft.spec):
        if before.get("type") == "ExternalName":
            draft.fill_addresses(0)
        elif not headless(before) and len(had) == 1 and len(draft.spec.get("ipFamilies") or ()) == 2:
            draft.fill_addresses(1)
    draft.fill_ports_of_changed(before)
    draft.fill_health_port(before)
    kept = service_addresses(draft.spec)
    owner = owner_of(old)
    return draft.plan(a for a in service_addresses(before) if a not in kept and allocations.held_by(a, owner))


def plan_release(old: Object, allocations: Allocations) -> AllocationPlan:
    """What goes with a Service that is deleted: the IPAddress objects that are its own."""
    owner = owner_of(old)
    return AllocationPlan(freed=tuple(a for a in service_addresses(old["spec"]) if allocations.held_by(a, owner)))


def wants_addresses(spec: Object) -> bool:
    return spec.get("type") != "ExternalName" and not headless(spec)
