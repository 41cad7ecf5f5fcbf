"""The one sentence that a Service's writer is told at once: that it selects nothing, and what was probably meant.

An instance's API server asks here for its Warning header (`kubesvc up --service-warnings`). It must cost little: Pods
are found by the index that the endpoint controllers use, near misses are looked for among the labels of one namespace
only, not if it holds many Pods, and only so many times a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, Typed, typed
from kubesvc.api.pod import POD, Pod
from kubesvc.api.service import Service
from kubesvc.client.informer import Informer, InformerFactory
from kubesvc.clock import Clock
from kubesvc.controllers.pod_endpoints import PodLookup, selects
from kubesvc.controllers.slimpod import pods_of

from .selection import explain_selection
from .snapshot import WORKLOADS, snapshot_of
from .workloads import makers

MOST_PODS = 500
"""In a namespace with more Pods nobody looks for what was meant."""
MOST_A_SECOND = 50
"""Services that select nothing are explained so many times a second; the rest are written without a word."""


def advise(service: Service, pods: Sequence[Pod], workloads: Iterable[tuple[Kind, Typed]], now: float) -> str:
    """The warning for a Service whose selector none of these Pods matches; "" where Pods are on their way.

    pods, workloads: all those of its namespace
    """
    snapshot = snapshot_of([*((POD, p) for p in pods), *workloads], now, scope=service.namespace)
    if makers(service, snapshot):
        return ""
    first = explain_selection(service, snapshot)[0]
    return f"this Service selects nothing now: {first.text} [{first.code}]"


class ServiceAdviser:
    """Advice over the caches that an instance's controllers share."""

    def __init__(self, informers: InformerFactory, clock: Clock) -> None:
        self.clock = clock
        self.pods: Informer[Pod] = pods_of(informers)
        self.lookup = PodLookup(self.pods)
        self.workloads = [(kind, informers.of(kind)) for kind in WORKLOADS]
        self.second, self.given = 0.0, 0

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """What to tell whoever writes `new` in place of `old`; [] if its selection did not change or finds Pods."""
        spec = new.get("spec") or {}
        if not spec.get("selector") or not self.pods.synced.is_set():
            return []
        if old is not None and all(spec.get(f) == (old.get("spec") or {}).get(f) for f in ("selector", "type")):
            return []
        service = typed(new, Service)
        if not selects(service) or self.lookup.matching(service):
            return []
        if self.pods.count(service.namespace) > MOST_PODS or not self.may():
            return []
        pods = list(self.pods.in_namespace(service.namespace))
        workloads = ((kind, o) for kind, known in self.workloads for o in known.in_namespace(service.namespace))
        said = advise(service, pods, workloads, self.clock.now())
        return [said] if said else []

    def may(self) -> bool:
        """Whether this second's share is not used up."""
        now = self.clock.monotonic()
        if now - self.second >= 1:
            self.second, self.given = now, 0
        self.given += 1
        return self.given <= MOST_A_SECOND
