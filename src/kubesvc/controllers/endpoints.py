"""The Endpoints controller: one Endpoints object for each Service with a selector (EP)."""

from __future__ import annotations

from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import plain
from kubesvc.api.pod import Pod
from kubesvc.api.service import SERVICE, Service
from kubesvc.client.interface import Unreachable
from kubesvc.client.workqueue import Key, key_text

from .endpoint_cache import Kept, KeptRecently
from .endpoints_plan import Place, desired_subsets, place_of, plan_endpoints
from .metrics import ENDPOINTS as ENDPOINTS_PREFIX
from .metrics import WriteMetrics
from .pod_endpoints import PodLookup, selects
from .runner import Controller, ControllerContext, StaleCache, closing, key_of
from .service_of_pod import ServiceIndex, affected_services
from .slimpod import pods_of
from .trigger_time import TriggerTimes, moment

COURTESY_SECONDS = 0.01
"""Pod changes wait this long, so that slices, which traffic follows, are written before the loop is busy with an
Endpoints of a thousand addresses, which is always written whole."""
PATIENCE_SECONDS = 60.0
"""After this a cache is believed though it shows what we replaced: what we wrote may be gone unseen."""
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"


class EndpointsController(Controller):
    name = "endpoints-controller"
    component = "endpoint-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.services = ctx.informers.of(SERVICE)
        self.pods = pods_of(ctx.informers)
        self.endpoints = ctx.informers.of(ENDPOINTS)
        self.pod_lookup = PodLookup(self.pods)
        self.service_index = ServiceIndex()
        self.trigger_times = TriggerTimes()
        self.writes = WriteMetrics(ctx.metrics, ENDPOINTS_PREFIX, "Endpoints")
        text = "Syncs by their result."
        self.syncs = ctx.metrics.counter(f"{ENDPOINTS_PREFIX}_syncs_total", text, ("result",))
        self.kept: KeptRecently[Place | None] = KeptRecently()
        self.outdated: dict[Key, tuple[str, float]] = {}
        """What our last write replaced, and when: a resourceVersion, "" for nothing. A cache that shows it is behind
        (EP-23)."""
        self.stale: set[Key] = set()
        """Keys that wait for the cache to move on."""
        self.services.on_change(self.service_changed)
        self.pods.on_change(self.pod_changed)
        self.endpoints.on_change(self.endpoints_changed)

    @property
    def workers(self) -> int:
        return self.ctx.settings.concurrent_endpoint_syncs

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        self.service_index.move(old, new)
        self.queue.add(key_of(new, old))

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for key in affected_services(old, new, self.service_index):
            self.queue.add_after(key, max(COURTESY_SECONDS, self.ctx.settings.endpoint_updates_batch_period))

    def endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        """Only deletion wakes it, for hand edits stay (EP-1); and news that a sync had to wait for."""
        key = key_of(new, old)
        if key in self.stale:
            self.stale.discard(key)
            self.queue.add(key)
        if new is None and old is not None:
            self.outdated.pop(key, None)
            self.queue.add(key)

    def started(self) -> None:
        """Leftovers of Services deleted while nobody looked go (EP-5)."""
        for endpoints in self.endpoints.values():
            if LEADER_ANNOTATION not in (endpoints.metadata.annotations or {}):
                self.queue.add(key_of(endpoints))

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(key)
        if service is None:
            await self.remove(key)
            return
        if not selects(service):
            return
        existing = self.endpoints.get(key)
        seen = existing.metadata.resource_version if existing is not None else ""
        replaced, when = self.outdated.get(key, (None, 0.0))
        if replaced == seen and self.ctx.clock.monotonic() - when < PATIENCE_SECONDS:
            self.stale.add(key)
            self.syncs.add(("stale",))
            raise StaleCache("endpoints informer cache is out of date")
        pods = self.pod_lookup.matching(service)

        def keeper() -> Kept[Place | None]:
            names = self.trigger_times.names(key)
            return Kept(service, lambda pod, facts, _: place_of(service, pod, facts), names)

        kept = self.kept.of(key, service, keeper)
        places = kept.refresh(pods)
        self.kept.keep(key, kept)
        created = moment(service.metadata.creation_timestamp)
        trigger_time = self.trigger_times.trigger_time(key, created, kept.changed, kept.gone)
        subsets = desired_subsets(service, zip(pods, places, strict=True))
        wanted = plan_endpoints(service, subsets, existing, trigger_time)
        if wanted is not None:
            await (self.create(key, wanted) if existing is None else self.update(key, existing, wanted))
        self.syncs.add(("success",))

    async def remove(self, key: Key) -> None:
        """The Service is gone, and with it whatever Endpoints bore its name (EP-6)."""
        self.trigger_times.forget(key)
        self.kept.forget(key)
        self.stale.discard(key)
        self.outdated.pop(key, None)
        try:
            await self.client.delete(ENDPOINTS, key[1], key[0])  # even if the cache has none: it may be behind
            self.writes.wrote("delete")
        except NotFound:
            pass

    async def create(self, key: Key, wanted: Endpoints) -> None:
        try:
            answer = await self.client.create(ENDPOINTS, plain(wanted), key[0])
        except (ApiError, Unreachable) as error:
            if closing(error):
                return  # nothing can be made here any more (EP-22)
            text = f"Failed to create endpoint for service {key_text(key)}: {error}"
            self.events.event(ENDPOINTS, wanted, "Warning", "FailedToCreateEndpoint", text)
            self.syncs.add(("error",))
            raise
        self.writes.wrote("create", answer)
        if self.endpoints.get(key) is None:
            self.outdated[key] = ("", self.ctx.clock.monotonic())

    async def update(self, key: Key, existing: Endpoints, wanted: Endpoints) -> None:
        try:
            answer = await self.client.update(ENDPOINTS, plain(wanted))
        except (ApiError, Unreachable) as error:
            text = f"Failed to update endpoint {key_text(key)}: {error}"
            self.events.event(ENDPOINTS, wanted, "Warning", "FailedToUpdateEndpoint", text)
            self.syncs.add(("error",))
            raise
        self.writes.wrote("update", answer)
        before = existing.metadata.resource_version
        if answer["metadata"].get("resourceVersion") != before:
            self.outdated[key] = (before, self.ctx.clock.monotonic())
