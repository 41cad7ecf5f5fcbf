"""ServiceCIDR controller: holds a range by a finalizer as long as addresses in it have no other (CIDR-5)."""

from __future__ import annotations

import msgspec

from kubesvc.api.errors import NotFound
from kubesvc.api.ipaddress import IP_ADDRESS, IPAddress
from kubesvc.api.meta import Object, StandardCondition
from kubesvc.api.servicecidr import FINALIZER, SERVICE_CIDR, ServiceCIDR
from kubesvc.client.workqueue import Key
from kubesvc.clock import parse_rfc3339, rfc3339

from . import servicecidr_plan as plan
from .runner import Controller, ControllerContext, key_of


class ServiceCidrController(Controller):
    """Keys are ServiceCIDRs."""

    name = "service-cidr-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.cidrs = ctx.informers.of(SERVICE_CIDR)
        self.held = ctx.informers.of(IP_ADDRESS)
        self.cidrs.on_change(self.cidr_moved)
        self.held.on_change(self.address_moved)

    def cidr_moved(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        """A range that comes or goes may set another one free, or hold it."""
        self.queue.add(key_of(new, old))
        moved = new or old
        assert moved is not None
        for other in self.cidrs.values():
            if other.metadata.deletion_timestamp is not None and plan.overlaps(other, moved):
                self.queue.add(key_of(other))

    def address_moved(self, old: IPAddress | None, new: IPAddress | None) -> None:
        """Addresses matter to ranges that are being deleted alone."""
        if (old is None) == (new is None):
            return
        address = new or old
        assert address is not None
        for cidr in self.cidrs.values():
            if cidr.metadata.deletion_timestamp is not None and plan.covers(cidr, address):
                self.queue.add(key_of(cidr))

    async def reconcile(self, key: Key) -> None:
        cidr = self.cidrs.get(key)
        if cidr is None:
            return
        deleted = cidr.metadata.deletion_timestamp
        since = self.ctx.clock.now() - parse_rfc3339(deleted) if deleted else 0.0
        step = plan.plan_step(cidr, list(self.cidrs.values()), self.held.values(), since)
        if step.hold:
            await self.patch(cidr, {"metadata": {"finalizers": [*(cidr.metadata.finalizers or ()), FINALIZER]}})
        if step.ready:
            await self.write_ready(cidr, step)
        if step.release:
            left = [f for f in cidr.metadata.finalizers or () if f != FINALIZER]
            await self.patch(cidr, {"metadata": {"finalizers": left or None}})
        if step.again_seconds is not None:
            self.queue.add_after(key, step.again_seconds + 0.05)

    async def write_ready(self, cidr: ServiceCIDR, step: plan.Step) -> None:
        condition = StandardCondition(
            type=plan.READY,
            status=step.ready,
            reason=step.reason,
            message=step.message,
            last_transition_time=rfc3339(self.ctx.clock.now()),
        )
        others = [c for c in cidr.status.conditions or () if c.type != plan.READY]
        shown = [{"reason": "", "message": "", **msgspec.to_builtins(c)} for c in (*others, condition)]
        await self.patch(cidr, {"status": {"conditions": shown}}, "status")

    async def patch(self, cidr: ServiceCIDR, change: Object, subresource: str = "") -> None:
        """Merge-patch this very object; of its finalizers, only as the cache knows them."""
        meta: Object = {"uid": cidr.metadata.uid, **change.get("metadata", {})}
        if not subresource:
            meta["resourceVersion"] = cidr.metadata.resource_version
        try:
            await self.client.patch(
                SERVICE_CIDR, cidr.name, "", {**change, "metadata": meta}, "merge", subresource=subresource
            )
        except NotFound:
            return
