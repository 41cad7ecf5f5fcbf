"""What the endpoint controllers would list for a Service, and what is listed. Pure: their plans do the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubesvc.api.endpointslice import MANAGED_BY_LABEL, Endpoint, EndpointSlice
from kubesvc.api.node import NODE, Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.controllers.endpoint_cache import Candidate, slice_candidates
from kubesvc.controllers.endpointslice import desired
from kubesvc.controllers.pod_endpoints import Ports, address_types
from kubesvc.controllers.slice_plan import (
    MANAGED_BY,
    Identity,
    SlicePlan,
    group_of,
    identity,
    plan_slices,
    service_frame,
)

from .snapshot import Snapshot

LIMIT = 1000
"""The most that any cluster puts into a slice: with it, slices that are right are never rearranged."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Both sides.

    pods:       the Pods that the selector matches, and what each would contribute, in the same order
    plans:      for each address type, what the EndpointSlice controller would write now
    stored:     the Service's slices
    up_to_date: whether those plans change no endpoint
    """

    pods: Sequence[Pod]
    candidates: Sequence[Candidate]
    plans: tuple[SlicePlan, ...]
    stored: Sequence[EndpointSlice]
    up_to_date: bool

    @property
    def planned(self) -> list[EndpointSlice]:
        """The slices as they will be once the controller has caught up, besides those by other hands."""
        return [s for p in self.plans for s in (*p.create, *p.update, *p.unchanged)]


State = tuple[Ports, Identity, bool, bool, bool]


def states(slices: Iterable[EndpointSlice]) -> set[State]:
    return {(group_of(s), identity(e), *conditions(e)) for s in slices for e in s.endpoints or ()}


def conditions(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    return (endpoint.ready, endpoint.serving, endpoint.terminating)


def list_service(service: Service, snapshot: Snapshot) -> Listing:
    """Work out both sides for a Service with a selector."""
    pods = snapshot.matching(service)
    candidates = slice_candidates(service).refresh(pods, [node_of(p, snapshot) for p in pods])
    stored = snapshot.slices.get((service.namespace, service.name), ())
    managed = [s for s in stored if s.metadata.label(MANAGED_BY_LABEL) == MANAGED_BY]
    plans = []
    for address_type in address_types(service):
        frame = service_frame(service, address_type)
        mine = [s for s in managed if s.address_type == address_type]
        plans.append(plan_slices(frame, desired(candidates, address_type), mine, LIMIT))
    planned = [s for p in plans for s in (*p.create, *p.update, *p.unchanged)]
    types = address_types(service)
    return Listing(
        pods, candidates, tuple(plans), stored,
        states(planned) == states(s for s in managed if s.address_type in types),
    )  # fmt: skip


def node_of(pod: Pod, snapshot: Snapshot) -> object:
    """The Pod's Node for the plan; where Nodes are not known at all, the Pod counts as being on one that is."""
    found = snapshot.nodes.get(pod.spec.node_name)
    return found if found is not None or (snapshot.nodes and snapshot.knows(NODE)) else Node()
