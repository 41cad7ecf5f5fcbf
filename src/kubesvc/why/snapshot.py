"""All that a diagnosis looks at: typed objects as they were at one moment, indexed when first asked for.

A snapshot is read only. What could not be listed stands in `gaps`, what could not be read in `skipped`; nobody takes
the absence of an object for a fact without asking `knows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, cast

from kubesvc.api.daemonset import DAEMON_SET, DaemonSet
from kubesvc.api.deployment import DEPLOYMENT, Deployment
from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.endpointslice import ENDPOINT_SLICE, SERVICE_NAME_LABEL, EndpointSlice
from kubesvc.api.event import EVENT, Event
from kubesvc.api.kind import Kind
from kubesvc.api.meta import OwnerReference, Typed
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.networkpolicy import NETWORK_POLICY, NetworkPolicy
from kubesvc.api.node import NODE, Node
from kubesvc.api.pod import POD, Pod
from kubesvc.api.replicaset import REPLICA_SET, ReplicaSet
from kubesvc.api.replicationcontroller import REPLICATION_CONTROLLER
from kubesvc.api.resourcequota import RESOURCE_QUOTA, ResourceQuota
from kubesvc.api.service import SERVICE, Service
from kubesvc.api.statefulset import STATEFUL_SET, StatefulSet
from kubesvc.client.informer import Index, Informer
from kubesvc.controllers.pod_endpoints import PodLookup

from .diagnosis import Finding
from .sight import Sight

READ: tuple[Kind, ...] = (
    SERVICE, ENDPOINTS, ENDPOINT_SLICE, POD, NODE, NAMESPACE, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET,
    REPLICATION_CONTROLLER, EVENT, NETWORK_POLICY, RESOURCE_QUOTA,
)  # fmt: skip
"""The kinds that a snapshot holds."""
WORKLOADS: tuple[Kind, ...] = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET, REPLICATION_CONTROLLER)
ESSENTIAL: tuple[Kind, ...] = (SERVICE, POD, ENDPOINT_SLICE)
"""Without these nothing certain can be said of a Service."""

Source = Literal["cluster", "dump", "manifests"]
Key = tuple[str, str]
T = TypeVar("T", bound=Typed)


@dataclass(frozen=True, slots=True)
class Gap:
    """A kind that could not be listed, and why."""

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind.resource} could not be listed: {self.reason}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a dump that could not be read."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes Pods from a template, whatever its kind."""

    kind: Kind
    obj: Typed
    replicas: int | None
    """As asked for; None for a DaemonSet."""
    labels: Mapping[str, str]
    template_labels: Mapping[str, str]

    @property
    def ref(self) -> str:
        return f"{self.kind.singular_name}/{self.obj.name}"


@dataclass(frozen=True, slots=True)
class Labelling:
    """Labels that Pods, or a template, of a namespace have: of whom, and how many Pods have just these."""

    labels: Mapping[str, str]
    who: str
    pods: int


@dataclass(frozen=True)
class Snapshot:
    """Objects by kind, each list in order of namespace and name.

    now:    when it was taken, Unix seconds; of a dump, the latest moment that any object tells
    source: "manifests" have no status: their Pods are assumed to become ready
    """

    objects: Mapping[Kind, Sequence[Typed]]
    now: float
    source: Source = "cluster"
    gaps: tuple[Gap, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    absent: frozenset[str] = field(default=frozenset())
    """Plural names of kinds that a dump does not hold at all."""
    elsewhere: Sequence[Pod] = ()
    """Pods of other namespaces that the selector in question matches."""
    scope: str = ""
    """The one namespace that was read (beside parts of kube-system); "" for all."""
    also: frozenset[str] = field(default=frozenset())
    """Other namespaces of which the Services were read."""
    standing: frozenset[Key] = field(default=frozenset())
    """Services that exist beside those to ask about: of the cluster, where manifests are laid over it."""
    neighbours: Sequence[Pod] = ()
    """Pods of any namespace that hold host ports, where a Pod that was read finds its own nowhere free."""
    narrow: bool = False
    """Whether of the scope's Pods only those of one Service were read, and those in `asked`."""
    asked: frozenset[Key] = field(default=frozenset())
    """Pods that were asked for by name; one that is not among the Pods does not exist."""
    sights: tuple[Sight, ...] = ()
    """What was seen in the nodes themselves; () where nobody could look."""

    def knows(self, kind: Kind) -> bool:
        """Whether what is not here does not exist."""
        return kind.plural not in self.absent and all(g.kind is not kind for g in self.gaps)

    def unread(self, *kinds: Kind) -> str:
        """In words, which of these kinds are not known: `the dump holds no Pods`, `pods could not be read`; "" if all
        are."""
        absent = [f"{k.name}s" for k in kinds if k.plural in self.absent]
        refused = [k.resource for k in kinds if k.plural not in self.absent and not self.knows(k)]
        parts = [f"the dump holds no {' and no '.join(absent)}"] if absent else []
        return "; ".join([*parts, *([f"{', '.join(refused)} could not be read"] if refused else [])])

    def has_service(self, key: Key) -> bool:
        """Whether a Service of this namespace and name exists, or will once the manifests are applied."""
        return key in self.services or key in self.standing

    def _all(self, kind: Kind) -> Sequence[Any]:
        return self.objects.get(kind, ())

    def by_key(self, kind: Kind, type_: type[T]) -> Mapping[Key, T]:
        del type_
        return cast("Mapping[Key, T]", self._keys.setdefault(kind, {(o.namespace, o.name): o for o in self._all(kind)}))

    @cached_property
    def _keys(self) -> dict[Kind, Mapping[Key, Typed]]:
        return {}

    @cached_property
    def services(self) -> Mapping[Key, Service]:
        return self.by_key(SERVICE, Service)

    @cached_property
    def endpoints(self) -> Mapping[Key, Endpoints]:
        return self.by_key(ENDPOINTS, Endpoints)

    @cached_property
    def pods(self) -> Mapping[Key, Pod]:
        return self.by_key(POD, Pod)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return {n.name: n for n in self._all(NODE)}

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Those that exist, or at least hold something."""
        named = {n.name for n in self._all(NAMESPACE)}
        return frozenset(named | {namespace for namespace, _ in self.services} | {ns for ns, _ in self.pods})

    @property
    def namespaces_named(self) -> frozenset[str]:
        """The namespaces that any object is in."""
        return frozenset(o.namespace for listed in self.objects.values() for o in listed)

    @property
    def namespaces_read(self) -> frozenset[str]:
        """The namespaces whose Services are all known."""
        return self.namespaces if not self.scope else frozenset((self.scope, "kube-system", *self.also))

    @cached_property
    def slices(self) -> Mapping[Key, Sequence[EndpointSlice]]:
        """By the Service that their label names."""
        found: dict[Key, list[EndpointSlice]] = {}
        for s in self._all(ENDPOINT_SLICE):
            found.setdefault((s.namespace, s.metadata.label(SERVICE_NAME_LABEL)), []).append(s)
        return found

    def in_namespace(self, kind: Kind, namespace: str) -> Sequence[Any]:
        return self._by_namespace(kind).get(namespace, ())

    def _by_namespace(self, kind: Kind) -> Mapping[str, list[Typed]]:
        if kind not in self._namespaced:
            found: dict[str, list[Typed]] = {}
            for o in self._all(kind):
                found.setdefault(o.namespace, []).append(o)
            self._namespaced[kind] = found
        return self._namespaced[kind]

    @cached_property
    def _namespaced(self) -> dict[Kind, Mapping[str, list[Typed]]]:
        return {}

    def policies(self, namespace: str) -> Sequence[NetworkPolicy]:
        return self.in_namespace(NETWORK_POLICY, namespace)

    def quotas(self, namespace: str) -> Sequence[ResourceQuota]:
        return self.in_namespace(RESOURCE_QUOTA, namespace)

    @cached_property
    def _lookup(self) -> PodLookup:
        return PodLookup(cast("Informer[Pod]", _StillPods(self._all(POD))))

    def matching(self, service: Service) -> Sequence[Pod]:
        """The Pods of a Service, as the endpoint controllers find them."""
        return self._lookup.matching(service)

    def matching_elsewhere(self, service: Service) -> Sequence[Pod]:
        """Pods of other namespaces that the selector would match there."""
        if self.elsewhere or self.scope:
            return self.elsewhere
        pairs = sorted((service.spec.selector or {}).items())
        if not pairs:
            return ()
        rarest = min((self._labelled.get(pair, ()) for pair in pairs), key=len)
        return [
            p for p in rarest
            if p.namespace != service.namespace and all(p.metadata.label(k) == v for k, v in pairs)
        ]  # fmt: skip

    @cached_property
    def _labelled(self) -> Mapping[tuple[str, str], Sequence[Pod]]:
        found: dict[tuple[str, str], list[Pod]] = {}
        for pod in self._all(POD):
            for pair in (pod.metadata.labels or {}).items():
                found.setdefault(pair, []).append(pod)
        return found

    @cached_property
    def _events(self) -> Mapping[tuple[str, str, str], Sequence[Event]]:
        found: dict[tuple[str, str, str], list[Event]] = {}
        for e in self._all(EVENT):
            about = e.involved_object
            found.setdefault((about.kind, about.namespace or e.namespace, about.name), []).append(e)
        for listed in found.values():
            listed.sort(key=lambda e: (e.last_seen or "", e.name))
        return found

    def events_named(self, kind: str, namespace: str, name: str) -> Sequence[Event]:
        """Events about whatever bears or bore this name, the latest last; for objects that were not read themselves."""
        return self._events.get((kind, namespace, name), ())

    def events(self, kind: str, obj: Typed, reason: str = "") -> Sequence[Event]:
        """Events about this very object, the latest last."""
        listed = self._events.get((kind, obj.namespace, obj.name), ())
        uid = obj.metadata.uid
        return [
            e for e in listed
            if (not reason or e.reason == reason) and e.involved_object.uid in ("", uid)
        ]  # fmt: skip

    @cached_property
    def _workloads(self) -> Mapping[str, Sequence[Workload]]:
        found: dict[str, list[Workload]] = {}
        for kind in WORKLOADS:
            for o in self._all(kind):
                if o.metadata.controller is not None:
                    continue
                replicas = None if kind is DAEMON_SET else 1 if o.spec.replicas is None else o.spec.replicas
                template = o.spec.template.metadata.labels if o.spec.template else None
                found.setdefault(o.namespace, []).append(
                    Workload(kind, o, replicas, o.metadata.labels or {}, template or {})
                )
        return found

    def workloads(self, namespace: str) -> Sequence[Workload]:
        """What makes Pods in a namespace and is made by nothing else."""
        return self._workloads.get(namespace, ())

    def labellings(self, namespace: str) -> Sequence[Labelling]:
        """Each set of labels once: those of Pods that have not ended, then those of templates."""
        if namespace not in self._labellings:
            known: dict[tuple[tuple[str, str], ...], tuple[str, int]] = {}
            for pod in self.in_namespace(POD, namespace):
                if not pod.terminal:
                    labels = tuple(sorted((pod.metadata.labels or {}).items()))
                    who, number = known.get(labels, (f"pod/{pod.name}", 0))
                    known[labels] = (who, number + 1)
            for workload in self.workloads(namespace):
                known.setdefault(
                    tuple(sorted(workload.template_labels.items())), (f"the template of {workload.ref}", 0)
                )
            self._labellings[namespace] = [Labelling(dict(k), who, n) for k, (who, n) in known.items()]
        return self._labellings[namespace]

    @cached_property
    def explained(self) -> dict[tuple[str, str], Finding | None]:
        """What was found out about Pods so far (`podstate.explain_pod`)."""
        return {}

    @cached_property
    def _labellings(self) -> dict[str, Sequence[Labelling]]:
        return {}

    def owner(self, obj: Typed) -> tuple[Kind, Typed] | None:
        """What controls an object, followed up to its end; None if it stands alone."""
        found: tuple[Kind, Typed] | None = None
        reference: OwnerReference | None = obj.metadata.controller
        while reference is not None:
            kind = next((k for k in WORKLOADS if k.name == reference.kind), None)
            above = self.by_key(kind, Typed).get((obj.namespace, reference.name)) if kind else None
            if kind is None or above is None:
                break
            found = (kind, above)
            reference = above.metadata.controller
        return found

    def replica_sets(self, deployment: Deployment) -> Sequence[ReplicaSet]:
        """Those of a Deployment, the newest revision last."""
        mine = [
            r for r in self.in_namespace(REPLICA_SET, deployment.namespace)
            if (c := r.metadata.controller) is not None and c.kind == "Deployment" and c.name == deployment.name
        ]  # fmt: skip
        return sorted(mine, key=lambda r: int(r.metadata.annotation("deployment.kubernetes.io/revision") or 0))

    @cached_property
    def enforces_policies(self) -> bool | None:
        """Whether NetworkPolicies are enforced; False on kubesvc's own nodes, None if nobody can tell."""
        runtimes = [n.status.node_info.container_runtime_version for n in self.nodes.values()]
        return False if runtimes and all(r.startswith("kubesvc://") for r in runtimes) else None

    @property
    def ours(self) -> bool:
        """Whether the nodes are kubesvc's own."""
        return self.enforces_policies is False


class _StillPods:
    """As much of an informer as `PodLookup` asks, over Pods that do not change."""

    def __init__(self, pods: Sequence[Pod]) -> None:
        self._pods = pods

    def index(self, name: str, of: Callable[[Pod], Iterable[str]]) -> Index[Pod]:
        del name
        return cast("Index[Pod]", _StillIndex(self._pods, of))


class _StillIndex:
    def __init__(self, pods: Sequence[Pod], of: Callable[[Pod], Iterable[str]]) -> None:
        self._found: dict[str, list[Pod]] = {}
        for pod in pods:
            for value in of(pod):
                self._found.setdefault(value, []).append(pod)

    def get(self, value: str) -> list[Pod]:
        return list(self._found.get(value, ()))

    def count(self, value: str) -> int:
        return len(self._found.get(value, ()))


def snapshot_of(objects: Iterable[tuple[Kind, Typed]], now: float, **more: Any) -> Snapshot:
    """A snapshot of these objects, put in order; of two with one name the later counts."""
    found: dict[Kind, dict[Key, Typed]] = {}
    for kind, obj in objects:
        found.setdefault(kind, {})[(obj.namespace, obj.name)] = obj
    return Snapshot({kind: [listed[k] for k in sorted(listed)] for kind, listed in found.items()}, now, **more)


__all__ = ["DaemonSet", "Gap", "Skipped", "Snapshot", "StatefulSet", "Workload", "snapshot_of"]
