"""The EndpointSlice controller: the slices of a Service list exactly the pods its selector matches (SLICE, TOPO)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubesvc.api.endpointslice import ENDPOINT_SLICE, Endpoint, EndpointSlice
from kubesvc.api.node import NODE, Node
from kubesvc.api.pod import POD, Pod
from kubesvc.api.service import SERVICE, Service
from kubesvc.client.workqueue import Key, RetryPolicy

from . import topology
from .endpoint_cache import ZONE_LABEL, Candidate, KeptRecently, slice_candidates
from .metrics import SLICES, SliceMetrics
from .pod_endpoints import PodLookup, Ports, address_types, selects
from .runner import Controller, ControllerContext, ExpectedFailure, StaleCache, key_of
from .service_of_pod import ServiceIndex, affected_services
from .slice_decisions import explained, unexplained
from .slice_plan import MANAGED_BY, Identity, SlicePlan, plan_slices, recycled, service_frame, stamped
from .slice_tracker import SliceTracker, SliceWatch, owner_text
from .slice_writer import SliceWriteFailed, SliceWriter
from .slimpod import pods_of
from .trigger_time import TriggerTimes, moment

FOREIGN_CHANGE_SECONDS = 1.0
"""Least wait before a slice that others changed is put right (SLICE-2)."""


class EndpointSliceController(Controller):
    name = "endpointslice-controller"
    component = "endpoint-slice-controller"
    policy = RetryPolicy(base_seconds=1.0, cap_seconds=1000.0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.services = ctx.informers.of(SERVICE)
        self.pods = pods_of(ctx.informers)
        self.nodes = ctx.informers.of(NODE)
        self.slices = ctx.informers.of(ENDPOINT_SLICE)
        self.pod_lookup = PodLookup(self.pods)
        self.slice_index = self.slices.index("owner", owner_text)
        self.service_index = ServiceIndex()
        self.period = ctx.settings.endpointslice_updates_batch_period
        self.tracker = SliceTracker()
        self.watch = SliceWatch(self.tracker, self.queue, MANAGED_BY, max(FOREIGN_CHANGE_SECONDS, self.period))
        self.metrics = SliceMetrics(ctx.metrics, SLICES)
        self.writer = SliceWriter(self.client, self.tracker, "Service", self.metrics)
        self.trigger_times = TriggerTimes()
        self.kept: KeptRecently[Candidate] = KeptRecently()
        self.lacking: dict[str, dict[Key, None]] = {}
        """Services whose last sync had to leave out pods of a Node that is not there, by the Node's name."""
        self.hinted = topology.Hinted()
        self.shares: dict[str, float] | None = None
        self.services.on_change(self.service_changed)
        self.pods.on_change(self.pod_changed)
        self.nodes.on_change(self.node_changed)
        self.slices.on_change(self.watch.changed)

    @property
    def workers(self) -> int:
        return self.ctx.settings.concurrent_service_endpoint_syncs

    # ---------------------------------------------------------------- what wakes it

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        self.service_index.move(old, new)
        self.queue.add(key_of(new, old))

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for key in affected_services(old, new, self.service_index):
            self.queue.add_after(key, self.period)

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """Nodes matter as a whole, for hints by allocation (SLICE-1), and when one appears that a sync missed."""
        self.shares = None
        if old is None and new is not None:
            for key in self.lacking.pop(new.name, ()):
                self.queue.add(key)
        if old is not None and new is not None and old.ready == new.ready and zone(old) == zone(new):
            return  # its CPUs may have changed: seen at the next sync, but no reason for one
        if self.hinted.counts:
            for key in self.hinted.overloaded(self.zone_shares()):
                self.queue.add(key)

    def zone_shares(self) -> dict[str, float]:
        """Each zone's part of the CPUs, worked out again after nodes changed."""
        if self.shares is None:
            self.shares = topology.zone_shares(self.nodes.values())
        return self.shares

    # ---------------------------------------------------------------- what it does

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(key)
        if service is None:
            self.forget(key)
            return
        if not selects(service):
            return
        existing = [s for s in self.slice_index.get("/".join(key)) if self.watch.is_ours(s)]
        existing = [s for s in existing if s.metadata.deletion_timestamp is None]
        if self.watch.is_behind(key, existing):
            self.metrics.syncs.add(("stale",))
            raise StaleCache("EndpointSlice informer cache is out of date")
        pods = self.pod_lookup.matching(service)
        kept = self.kept.of(key, service, lambda: slice_candidates(service, self.trigger_times.names(key)))
        candidates = kept.refresh(pods, self.nodes_of(pods))
        self.kept.keep(key, kept)
        created = moment(service.metadata.creation_timestamp)
        trigger_time = self.trigger_times.trigger_time(key, created, kept.changed, kept.gone)
        failures = self.skipped(key, pods, candidates, kept.changed)
        with self.watch.writing(key):
            failures += await self.write(key, service, pods, candidates, existing, trigger_time)
        self.metrics.syncs.add(("error" if failures else "success",))
        if failures:
            text = f"Error updating Endpoint Slices for Service {key[0]}/{key[1]}: {aggregate(map(str, failures))}"
            self.events.event(SERVICE, service, "Warning", "FailedToUpdateEndpointSlices", text)
            raise ExpectedFailure(text) from failures[0]

    def forget(self, key: Key) -> None:
        """The Service is gone; its slices go by their owner (SLICE-7)."""
        self.tracker.forget(key)
        self.metrics.forget(key)
        self.trigger_times.forget(key)
        self.hinted.forget(key)
        self.kept.forget(key)
        self.lacking = {n: left for n, keys in self.lacking.items() if (left := {k: None for k in keys if k != key})}

    def skipped(
        self, key: Key, pods: Sequence[Pod], candidates: Sequence[Candidate], changed: Sequence[tuple[str, str]]
    ) -> list[Exception]:
        """One failure for each pod that is left out because its Node is not there (SLICE-12). Of a changed pod with
        addresses that are none, which no API server should let pass, an Event says so."""
        failures: list[Exception] = []
        for pod, candidate in zip(pods, candidates, strict=True):
            if candidate.missing_node is not None:
                where = f"Pod {pod.name} for Service {key[0]}/{key[1]}: Node {candidate.missing_node} Not Found"
                failures.append(ExpectedFailure(f"skipping {where}"))
                self.lacking.setdefault(candidate.missing_node, {})[key] = None
            if candidate.odd and any(pod.name == name for name, _ in changed):
                text = f"{', '.join(candidate.odd)}: not an IP address, so no Service lists it"
                self.events.event(POD, pod, "Warning", "InvalidIPAddress", text)
        return failures

    def nodes_of(self, pods: Sequence[Pod]) -> Iterator[Node | None]:
        """The Node of each pod, None where it is not there."""
        known: dict[str, Node | None] = {}
        for pod in pods:
            name = pod.spec.node_name
            if name not in known:
                known[name] = self.nodes.get(("", name))
            yield known[name]

    async def write(
        self,
        key: Key,
        service: Service,
        pods: Sequence[Pod],
        candidates: Sequence[Candidate],
        existing: Sequence[EndpointSlice],
        trigger_time: str,
    ) -> list[Exception]:
        """Plan and write each address type on its own, then drop slices of types the Service no longer has
        (SLICE-10); what went wrong comes back."""
        types = address_types(service)
        plans = []
        for address_type in types:
            mine = [s for s in existing if s.address_type == address_type]
            frame = service_frame(service, address_type)
            wanted = desired(candidates, address_type)
            plan = plan_slices(frame, wanted, mine, self.ctx.settings.max_endpoints_per_slice)
            plan = recycled(self.with_hints(key, service, address_type, plan), service.metadata.uid)
            if self.ctx.settings.explain_slices:
                plan = explained(plan, service, pods, candidates, address_type)
            else:
                plan = unexplained(plan)
            plans.append(plan)
        plans.append(SlicePlan(delete=[s for s in existing if s.address_type not in types]))
        self.count(key, service, plans)
        failures: list[Exception] = []
        for plan in plans:
            plan.create = [stamped(s, trigger_time) for s in plan.create]
            plan.update = [stamped(s, trigger_time) for s in plan.update]
            if service.metadata.deletion_timestamp is not None:
                plan.create = []  # SLICE-27
            try:
                await self.writer.apply(key, plan)
            except SliceWriteFailed as failure:
                failures.append(failure)
        return failures

    def count(self, key: Key, service: Service, plans: Sequence[SlicePlan]) -> None:
        """Have the metrics show what this sync is about to write."""
        metrics, distribution = self.metrics, service.spec.traffic_distribution
        metrics.planned(key, plans, self.ctx.settings.max_endpoints_per_slice)
        if distribution in (*topology.PREFER_ZONE, topology.PREFER_NODE):
            metrics.distributions[key] = distribution
        else:
            metrics.distributions.pop(key, None)
            distribution = ""
        mode = "Auto" if topology.auto_mode(service) else "Disabled"
        metrics.changed.observe(sum(p.writes for p in plans), (mode, distribution))

    def with_hints(self, key: Key, service: Service, address_type: str, plan: SlicePlan) -> SlicePlan:
        if not topology.auto_mode(service):
            self.hinted.forget(key, address_type)
            return topology.with_distribution(plan, service.spec.traffic_distribution)
        plan, result = topology.with_allocation(plan, self.zone_shares())
        note = self.hinted.learn(key, address_type, result)
        if note is not None:
            self.events.event(SERVICE, service, note.severity, note.reason, note.message)
        return plan


def desired(candidates: Sequence[Candidate], address_type: str) -> dict[Ports, dict[Identity, Endpoint]]:
    """Endpoints of one address type by port group and identity (SLICE-11 to SLICE-16)."""
    groups: dict[Ports, dict[Identity, Endpoint]] = {}
    ports: Ports | None = None
    group: dict[Identity, Endpoint] = {}
    for candidate in candidates:
        found = candidate.endpoints.get(address_type)
        if found is None:
            continue
        if candidate.ports is not ports:
            ports = candidate.ports
            group = groups.setdefault(ports, {})
        group[found[0]] = found[1]
    return groups


def zone(node: Node) -> str:
    return node.metadata.label(ZONE_LABEL)


def aggregate(texts: Iterable[str]) -> str:
    """Several failures as one text, each once."""
    listed = list(dict.fromkeys(texts))
    return listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
