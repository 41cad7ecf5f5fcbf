"""What was worked out of pods before, so that one pod's change costs the work of one pod.

Objects of an informer's cache are immutable values: as long as the very same object is there, so is what follows from
it. Nothing here is needed for the result, only for its price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubesvc.api.endpointslice import Endpoint
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client.workqueue import Key

from .pod_endpoints import PodFacts, conditions, facts_of, hostname, pod_reference
from .slice_plan import Identity, identity

ZONE_LABEL = "topology.kubernetes.io/zone"


class FactsCache:
    """`facts_of` each pod, kept until its state changes. `move` is a handler of the pod informer."""

    def __init__(self) -> None:
        self._facts: dict[Key, tuple[Pod, PodFacts]] = {}

    def move(self, old: Pod | None, new: Pod | None) -> None:
        if new is None and old is not None:
            self._facts.pop((old.namespace, old.name), None)

    def of(self, pod: Pod) -> PodFacts:
        meta = pod.metadata
        key = (meta.namespace, meta.name)
        hit = self._facts.get(key)
        if hit is None or hit[0] is not pod:
            hit = self._facts[key] = (pod, facts_of(pod))
        return hit[1]

    def triggers(self, pods: Iterable[Pod]) -> Iterator[tuple[str, str]]:
        """(name, trigger time) of each pod."""
        for pod in pods:
            yield pod.metadata.name, self.of(pod).trigger


class ServiceEndpoints:
    """The endpoints of one Service's pods in one address type, as far as the Service stays the same."""

    def __init__(self, service: Service, address_type: str) -> None:
        self.service = service
        self.address_type = address_type
        self._entries: dict[str, tuple[Pod, Node | None, tuple[Identity, Endpoint] | None]] = {}

    def of(self, pod: Pod, node: Node | None, facts: FactsCache) -> tuple[Identity, Endpoint] | None:
        """The pod's endpoint and its identity; None if it has no address of this type."""
        name = pod.metadata.name
        hit = self._entries.get(name)
        if hit is None or hit[0] is not pod or hit[1] is not node:
            made = make_endpoint(self.service, pod, facts.of(pod), node, self.address_type)
            hit = self._entries[name] = (pod, node, None if made is None else (identity(made), made))
        return hit[2]

    def limit_to(self, count: int) -> None:
        """Forget everything once far more is remembered than the Service has pods."""
        if len(self._entries) > 2 * count + 100:
            self._entries.clear()


def make_endpoint(service: Service, pod: Pod, facts: PodFacts, node: Node | None, address_type: str) -> Endpoint | None:
    """A pod as an endpoint of a slice (SLICE-13, SLICE-14); None without an address of this type."""
    addresses = [address for family, address in facts.addresses if family == address_type]
    if not addresses:
        return None
    zone = node.metadata.label(ZONE_LABEL) if node is not None else ""
    return Endpoint(
        addresses=addresses,
        conditions=conditions(facts, service.spec.publish_not_ready_addresses),
        hostname=hostname(pod, service) or None,
        target_ref=pod_reference(pod),
        node_name=pod.spec.node_name or None,
        zone=zone or None,
    )
