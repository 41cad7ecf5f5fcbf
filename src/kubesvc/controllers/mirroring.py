"""The EndpointSlice mirroring controller: Endpoints that people write by hand appear as slices (MIRROR)."""

from __future__ import annotations

from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.service import SERVICE, Service
from kubesvc.client.workqueue import Key, RetryPolicy

from .metrics import MIRRORED, SliceMetrics
from .mirroring_plan import MANAGED_BY, Mirrored, mirrors, plan_mirror
from .runner import Controller, ControllerContext, StaleCache, key_of
from .slice_plan import SlicePlan
from .slice_tracker import SliceTracker, SliceWatch, owner_text
from .slice_writer import SliceWriter


class MirroringController(Controller):
    name = "endpointslice-mirroring-controller"
    component = "endpoint-slice-mirroring-controller"
    policy = RetryPolicy(base_seconds=1.0, cap_seconds=100.0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.services = ctx.informers.of(SERVICE)
        self.endpoints = ctx.informers.of(ENDPOINTS)
        self.slices = ctx.informers.of(ENDPOINT_SLICE)
        self.slice_index = self.slices.index("owner", owner_text)
        self.period = ctx.settings.mirroring_endpointslice_updates_batch_period
        self.tracker = SliceTracker()
        self.watch = SliceWatch(self.tracker, self.queue, MANAGED_BY, self.period)
        self.metrics = SliceMetrics(ctx.metrics, MIRRORED)
        self.writer = SliceWriter(self.client, self.tracker, "Endpoints", self.metrics)
        self.services.on_change(self.service_changed)
        self.endpoints.on_change(self.endpoints_changed)
        self.slices.on_change(self.watch.changed)

    @property
    def workers(self) -> int:
        return self.ctx.settings.mirroring_concurrent_service_endpoint_syncs

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """Only whether it has a selector matters (MIRROR-1)."""
        had = old is not None and not old.spec.selector
        has = new is not None and not new.spec.selector
        if had != has:
            self.queue.add_after(key_of(new, old), self.period)

    def endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        self.queue.add_after(key_of(new, old), self.period)

    async def reconcile(self, key: Key) -> None:
        endpoints = self.endpoints.get(key)
        existing = [s for s in self.slice_index.get("/".join(key)) if self.watch.is_ours(s)]
        existing = [s for s in existing if s.metadata.deletion_timestamp is None]
        if self.watch.is_behind(key, existing):
            raise StaleCache("EndpointSlice informer cache is out of date")
        if endpoints is None or not mirrors(endpoints, self.services.get(key)):
            with self.watch.writing(key):
                await self.writer.apply(key, SlicePlan(delete=existing))  # MIRROR-3
            if endpoints is None and not existing:
                self.tracker.forget(key)
            self.metrics.forget(key)
            return
        mirrored = plan_mirror(endpoints, existing, self.ctx.settings.mirroring_max_endpoints_per_subset)
        self.report(endpoints, mirrored)
        self.metrics.planned(key, [mirrored.plan], self.ctx.settings.mirroring_max_endpoints_per_subset)
        with self.watch.writing(key):
            await self.writer.apply(key, mirrored.plan)

    def report(self, endpoints: Endpoints, mirrored: Mirrored) -> None:
        """Say what was left out (MIRROR-6)."""
        if mirrored.invalid:
            text = f"Skipped {mirrored.invalid} invalid IP addresses when mirroring to EndpointSlices"
            self.events.event(ENDPOINTS, endpoints, "Warning", "InvalidIPAddress", text)
        if mirrored.skipped > mirrored.invalid:
            most = self.ctx.settings.mirroring_max_endpoints_per_subset
            text = (
                f"A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{mirrored.skipped} addresses were skipped"
            )
            self.events.event(ENDPOINTS, endpoints, "Warning", "TooManyAddressesToMirror", text)
