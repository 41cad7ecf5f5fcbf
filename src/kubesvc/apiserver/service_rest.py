"""What writing a Service drags along: IPAddress objects, node ports, and the Endpoints of a deleted one."""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.ipaddress import IP_ADDRESS, address_object
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.service import SERVICE
from kubesvc.api.servicecidr import SERVICE_CIDR
from kubesvc.clock import Random

from .allocators import AllocationPlan, Allocations, owner_of, plan_create, plan_release, plan_update, service_ports
from .guards import port_guards
from .hooks import Companion, Reservation


class ServiceHooks:
    """`WriteHooks` of Services, and the `Observer` that keeps its allocations true to what is stored."""

    observed: tuple[Kind, ...] = (SERVICE, IP_ADDRESS, SERVICE_CIDR)

    def __init__(self, allocations: Allocations, random: Random) -> None:
        self.allocations = allocations
        self.random = random

    def observe(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        if kind is SERVICE:
            self.allocations.observe_service(old, new)
        elif kind is IP_ADDRESS:
            self.allocations.observe_address(old, new)
        elif kind is SERVICE_CIDR:
            self.allocations.observe_range(old, new)

    async def before_create(self, obj: Object, dry_run: bool) -> Reservation:
        """Settle families, addresses and ports of a new Service (FAM, VIP, NP)."""
        return self.reservation(obj, plan_create(obj, self.allocations, self.random, dry_run=dry_run))

    async def before_update(self, new: Object, old: Object, dry_run: bool) -> Reservation:
        """The same for a changed one; what it no longer names is given back with the write (VIP-8)."""
        plan = plan_update(new, old, self.allocations, self.random, dry_run=dry_run)
        kept = service_ports(new["spec"])
        return self.reservation(new, plan, [port for port in service_ports(old["spec"]) if port not in kept])

    def before_delete(self, old: Object, dry_run: bool) -> Reservation:
        """Its addresses and the Endpoints of its name go in the same commit (SVCX-5, SVCX-6)."""
        if dry_run:
            return Reservation()
        reservation = self.reservation(old, plan_release(old, self.allocations), service_ports(old["spec"]))
        namespace, name = owner_of(old)
        endpoints = {"metadata": {"namespace": namespace, "name": name}}
        reservation.companions.append(Companion(ENDPOINTS, endpoints, "delete"))
        return reservation

    def reservation(self, service: Object, plan: AllocationPlan, freed_ports: Sequence[int] = ()) -> Reservation:
        """Hold what the plan takes until the registry tells how the write went; what is stored by then holds it."""
        self.allocations.reserve(plan)
        namespace, name = owner_of(service)
        companions = [Companion(IP_ADDRESS, address_object(a, namespace, name), "create") for a in plan.addresses]
        companions += [Companion(IP_ADDRESS, {"metadata": {"name": a}}, "delete") for a in plan.freed]

        def release() -> None:
            self.allocations.release(plan)

        guards = port_guards(dict.fromkeys(plan.ports), dict.fromkeys(freed_ports), (namespace, name))
        return Reservation(companions, on_confirm=release, on_rollback=release, guards=guards)
