"""Says on a Service when its list of endpoints becomes empty, fills again, or one address joins or leaves, and why.

Upstream has no such controller, so it runs only where it is asked for by name (`*` does not mean it); `kubesvc up` asks
for it. It writes nothing but Events, whose number per Service the recorder bounds. Where the settings have a journal,
it is told each address's every coming and going.
"""

from __future__ import annotations

from collections import OrderedDict

from kubesvc.api.endpointslice import ENDPOINT_SLICE, SERVICE_NAME_LABEL, EndpointSlice
from kubesvc.api.pod import Pod
from kubesvc.api.service import SERVICE, Service
from kubesvc.client.workqueue import Key

from . import service_events_plan as plan
from .runner import Controller, ControllerContext
from .slimpod import pods_of

REMEMBERED = 20_000
"""Pods whose last change is remembered."""


class ServiceEventsController(Controller):
    """Keys are Services. What was told last is kept in memory: after a restart the state found is where it begins."""

    name = "service-events"
    component = "service-events"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.services = ctx.informers.of(SERVICE)
        self.slices = ctx.informers.of(ENDPOINT_SLICE)
        self.pods = pods_of(ctx.informers)
        self.of_service = self.slices.index("service", lambda s: [label] if (label := service_label(s)) else [])
        self.known: dict[Key, dict[str, plan.Listed]] = {}
        self.seen_at: dict[Key, tuple[float, str]] = {}
        """When the first change of a Service's slices was seen that is not told yet, and the slice's revision."""
        self.pod_moved_at: OrderedDict[Key, tuple[float, plan.Change]] = OrderedDict()
        self.service_moved_at: dict[Key, tuple[float, plan.Change]] = {}
        self.slices.on_change(self.slice_moved)
        self.services.on_change(self.service_moved)
        self.pods.on_change(self.pod_moved)

    @property
    def workers(self) -> int:
        return 1

    def started(self) -> None:
        """What is listed when we begin is nobody's news."""
        for service in self.services.values():
            key = (service.namespace, service.name)
            self.known[key] = self.listed(key)
        self.seen_at.clear()
        self.service_moved_at.clear()

    def forget(self, key: Key) -> None:
        self.known.pop(key, None)
        self.seen_at.pop(key, None)
        self.service_moved_at.pop(key, None)

    def service_moved(self, old: Service | None, new: Service | None) -> None:
        """Remember when a Service began to select or to serve otherwise."""
        service = new or old
        assert service is not None
        key = (service.namespace, service.name)
        if new is None:
            self.forget(key)
        elif (change := plan.change_of_service(old, new)) is not None:
            self.service_moved_at[key] = (self.ctx.clock.now(), change)

    def slice_moved(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None and new is not None and old.endpoints == new.endpoints:
            return
        for s in (old, new):
            if s is not None and (name := s.metadata.label(SERVICE_NAME_LABEL)):
                key = (s.namespace, name)
                self.seen_at.setdefault(key, (self.ctx.clock.now(), s.metadata.resource_version))
                self.queue.add(key)

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        """Remember when a Pod became ready or ceased to be, or was labelled anew."""
        pod = new or old
        assert pod is not None
        relabelled = old is not None and new is not None and old.metadata.labels != new.metadata.labels
        if takes(old) != takes(new) or relabelled:
            key = (pod.namespace, pod.name)
            self.pod_moved_at[key] = (self.ctx.clock.now(), "labels" if relabelled else "readiness")
            self.pod_moved_at.move_to_end(key)
            if len(self.pod_moved_at) > REMEMBERED:
                self.pod_moved_at.popitem(last=False)

    def listed(self, key: Key) -> dict[str, plan.Listed]:
        return plan.listed_in(self.of_service.get("/".join(key)))

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(key)
        at, revision = self.seen_at.pop(key, (self.ctx.clock.now(), ""))
        if service is None:
            self.forget(key)
            return
        before, after = self.known.get(key, {}), self.listed(key)
        self.known[key] = after
        joined, left = plan.moves(before, after)
        if not joined and not left:
            return
        pods = {x.pod: self.pods.get((key[0], x.pod)) for x in (*joined, *left) if x.pod}
        came = [(x, plan.why_joined(x, pods.get(x.pod), service, self.moved_last(key, x.pod)[1])) for x in joined]
        went = [(x, plan.why_left(x, pods.get(x.pod), service)) for x in left]
        for told in plan.plan_events(before, after, came, went):
            self.events.event(SERVICE, service, told.severity, told.reason, told.message)
        if (journal := self.ctx.settings.journal) is not None:
            for what, entries in (("left", went), ("joined", came)):
                for x, cause in entries:
                    status_at = self.moved_last(key, x.pod)[0]
                    journal(
                        plan.Moved(
                            at, key[0], key[1], what, x.address, cause, x.pod, x.node,
                            status_at if status_at <= at else 0.0, revision,
                        )
                    )  # fmt: skip

    def moved_last(self, key: Key, pod: str) -> tuple[float, plan.Change]:
        """The later of the last changes of the Service and of the Pod; (0, readiness) if none was seen."""
        none: tuple[float, plan.Change] = (0.0, "readiness")
        of_pod = self.pod_moved_at.get((key[0], pod), none)
        of_service = self.service_moved_at.get(key, none)
        return of_service if of_service[0] > of_pod[0] else of_pod


def takes(pod: Pod | None) -> bool:
    """Whether a Pod could be listed as ready."""
    return pod is not None and pod.ready and not pod.terminating


def service_label(s: EndpointSlice) -> str:
    name = s.metadata.label(SERVICE_NAME_LABEL)
    return f"{s.namespace}/{name}" if name else ""
