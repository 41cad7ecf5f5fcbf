"""What was worked out of pods before, so that one pod's change costs the work of one pod.

Objects of an informer's cache are immutable values: as long as the very same object is there, so is what follows from
it. Nothing here is needed for the result, only for its price.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from kubesvc.api.endpointslice import Endpoint
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client.workqueue import Key

from .pod_endpoints import (
    PodFacts,
    Ports,
    conditions,
    facts_of,
    fixed_ports,
    hostname,
    pod_reference,
    resolved_ports,
)
from .slice_plan import Identity, identity

ZONE_LABEL = "topology.kubernetes.io/zone"

MOST_KEPT = 10_000
"""Pods of which one controller remembers what it worked out; those of the Service at hand come on top."""

M = TypeVar("M")


class Kept(Generic[M]):
    """One value per pod of one Service, made again only when the pod, or what else it depends on, is another object.

    service: as long as it is the same object, values stay
    make:    (pod, facts, other) to the value; pure
    before:  names of pods that were there when it was last worked out
    """

    def __init__(
        self, service: Service, make: Callable[[Pod, PodFacts, object], M], before: Iterable[str] = ()
    ) -> None:
        self.service = service
        self.changed: list[tuple[str, str]] = []
        """(name, trigger time) of the pods that were made again at the last `refresh` (EP-21)."""
        self.gone: list[str] = []
        """Names of the pods that were there at the refresh before, and no more."""
        self._make = make
        self._entries: dict[str, tuple[Pod, object, M]] = {}
        self._before: dict[str, None] = dict.fromkeys(before)

    def __len__(self) -> int:
        return len(self._entries)

    def refresh(self, pods: Sequence[Pod], others: Iterable[object] | None = None) -> list[M]:
        """The values of these pods, in their order.

        others: for each pod the other object its value depends on, compared by identity
        """
        entries = self._entries
        self.changed = []
        values = []
        for pod, other in zip(pods, others if others is not None else _nothing(), strict=False):
            name = pod.metadata.name
            entry = entries.get(name)
            if entry is None or entry[0] is not pod or entry[1] is not other:
                facts = facts_of(pod)
                entry = entries[name] = (pod, other, self._make(pod, facts, other))
                self.changed.append((name, facts.trigger))
            values.append(entry[2])
        self.gone = [name for name in self._before if name not in entries]
        self._before = {}
        if len(entries) > len(pods):
            here = {pod.metadata.name for pod in pods}
            left = [name for name in entries if name not in here]
            for name in left:
                del entries[name]
            self.gone += left
        return values


class KeptRecently(Generic[M]):
    """The keepers of those Services that were last looked at, as many as hold `MOST_KEPT` pods together.

    When all is still nothing needs them, and in a large cluster they would take as much memory as the Pods.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Kept[M]] = OrderedDict()
        self._pods = 0

    def of(self, key: Key, service: Service, make: Callable[[], Kept[M]]) -> Kept[M]:
        """The keeper for this state of a Service, made if it is not there; to be given back (`keep`) after its use."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._pods -= len(kept)
        return kept if kept is not None and kept.service is service else make()

    def keep(self, key: Key, kept: Kept[M]) -> None:
        self.forget(key)
        self._kept[key] = kept
        self._pods += len(kept)
        while self._pods > MOST_KEPT and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._pods -= len(oldest)

    def forget(self, key: Key) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._pods -= len(kept)


def _nothing() -> Iterator[None]:
    while True:
        yield None


class Candidate:
    """A pod as far as slices care: its ports, and its endpoint in each address type."""

    __slots__ = ("endpoints", "missing_node", "odd", "ports")

    def __init__(
        self,
        ports: Ports,
        endpoints: dict[str, tuple[Identity, Endpoint]],
        missing_node: str | None = None,
        odd: tuple[str, ...] = (),
    ) -> None:
        self.ports = ports
        self.endpoints = endpoints
        self.missing_node = missing_node
        """The name of a Node that is not there, for which the pod has to be left out (SLICE-12)."""
        self.odd = odd
        """The pod's addresses that are none, each with its field."""


def slice_candidates(service: Service, before: Iterable[str] = ()) -> Kept[Candidate]:
    """The keeper of a Service's candidates; the other object of a pod is its Node, None if that is not there."""
    fixed = fixed_ports(service)
    publish = service.spec.publish_not_ready_addresses

    def make(pod: Pod, facts: PodFacts, node: object) -> Candidate:
        if not facts.addresses:
            return Candidate((), {}, odd=facts.odd)
        if node is None and not publish:
            return Candidate((), {}, pod.spec.node_name)
        endpoints = {}
        for address_type in dict.fromkeys(family for family, _ in facts.addresses):
            found = make_endpoint(service, pod, facts, node if isinstance(node, Node) else None, address_type)
            if found is not None:
                endpoints[address_type] = (identity(found), found)
        return Candidate(fixed if fixed is not None else resolved_ports(service, pod), endpoints, odd=facts.odd)

    return Kept(service, make, before)


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
