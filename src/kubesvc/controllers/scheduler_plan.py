"""Which node a pod goes to, or why none will do. Pure.

A node is ruled out by being unschedulable, by its taints, by the pod's node selector or required node affinity, by
host ports in use, by required anti-affinity, by a lack of requested resources, and by where the pod's volumes are. Of
the nodes that are left, the one with the fewest pods of the same labels wins, then the one with the fewest pods, then
the first by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubesvc.api.container import Container
from kubesvc.api.node import Node, Taint
from kubesvc.api.pod import NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Toleration
from kubesvc.api.quantity import ZERO, Quantity, parse

from .ownership import matcher_of


@dataclass(frozen=True, slots=True)
class Choice:
    """`node` is the name of the chosen node; without one `message` says why, as condition and event do."""

    node: str = ""
    message: str = ""


VolumeObstacles = Callable[[Node], list[str]]


def choose_node(
    pod: Pod,
    nodes: Sequence[Node],
    pods_on: Mapping[str, Sequence[Pod]],
    volumes: VolumeObstacles | None = None,
) -> Choice:
    """The node for a pod.

    nodes:   all nodes, any order
    pods_on: by node name, the pods bound to it that have not ended
    volumes: what of the pod's volumes is in a node's way; None for a pod without claims
    """
    if not nodes:
        return Choice(message="no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    fitting: list[Node] = []
    for node in nodes:
        found = obstacles(pod, node, pods_on.get(node.name, ()), nodes, pods_on)
        if not found and volumes is not None:
            found = volumes(node)
        if found:
            reasons.update(found)
        else:
            fitting.append(node)
    if not fitting:
        listed = ", ".join(sorted(f"{n} {reason}" for reason, n in reasons.items()))
        return Choice(message=f"0/{len(nodes)} nodes are available: {listed}.")
    labels = pod.metadata.labels or {}

    def crowding(node: Node) -> tuple[int, int, str]:
        there = pods_on.get(node.name, ())
        like = sum(p.namespace == pod.namespace and (p.metadata.labels or {}) == labels for p in there)
        return (like, len(there), node.name)

    return Choice(node=min(fitting, key=crowding).name)


def obstacles(
    pod: Pod, node: Node, there: Sequence[Pod], nodes: Sequence[Node], pods_on: Mapping[str, Sequence[Pod]]
) -> list[str]:
    """Why the pod cannot go to the node, in upstream's words; the first kind of reason found, resources all."""
    spec = pod.spec
    tolerations = spec.tolerations or []
    if node.spec.unschedulable and not tolerated(UNSCHEDULABLE, tolerations):
        return ["node(s) were unschedulable"]
    for taint in node.spec.taints or ():
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerated(taint, tolerations):
            return [f"node(s) had untolerated taint(s) {{{taint.key}: {taint.value}}}"]
    labels = node.metadata.labels or {}
    if not (spec.node_selector or {}).items() <= labels.items() or not affine(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    wanted = host_ports(pod)
    if any(clash(a, b) for p in there for a in host_ports(p) for b in wanted):
        return ["node(s) didn't have free ports for the requested pod ports"]
    if breaks_anti_affinity(pod, node, nodes, pods_on):
        return ["node(s) didn't match pod anti-affinity rules"]
    return missing_resources(pod, node, there)


UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    """Whether one of the tolerations puts up with the taint."""
    return any(tolerates(t, taint) for t in tolerations)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a toleration puts up with a taint; one without key and with Exists puts up with all."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or bool(toleration.key and toleration.value == taint.value)


def affine(pod: Pod, node: Node) -> bool:
    """Whether the node is one that required node affinity allows: any of the terms, all of a term's requirements."""
    affinity = pod.spec.affinity
    required = affinity.node_affinity.required if affinity and affinity.node_affinity else None
    if required is None:
        return True
    return any(term_matches(term, node) for term in required.node_selector_terms or ())


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    labels = node.metadata.labels or {}
    fields = {"metadata.name": node.name}
    return all(requirement_holds(r, labels) for r in term.match_expressions or ()) and all(
        requirement_holds(r, fields) for r in term.match_fields or ()
    )


def requirement_holds(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    values = requirement.values or []
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and len(values) == 1:
            try:
                found, bound = int(value), int(values[0])
            except ValueError:
                return False
            return found > bound if requirement.operator == "Gt" else found < bound
    return False


def host_ports(pod: Pod) -> list[tuple[str, str, int]]:
    """(host address, protocol, port) of every host port (NODE-61)."""
    every = [*(pod.spec.containers or ()), *pod.spec.sidecars]
    return [
        (p.host_ip or "0.0.0.0", p.protocol or "TCP", p.host_port) for c in every for p in c.ports or () if p.host_port
    ]


def clash(a: tuple[str, str, int], b: tuple[str, str, int]) -> bool:
    return a[1:] == b[1:] and (a[0] == b[0] or "0.0.0.0" in (a[0], b[0]))


def breaks_anti_affinity(pod: Pod, node: Node, nodes: Sequence[Node], pods_on: Mapping[str, Sequence[Pod]]) -> bool:
    """Whether a pod that a required anti-affinity term keeps away runs in the node's topology domain."""
    affinity = pod.spec.affinity
    terms = affinity.pod_anti_affinity.required if affinity and affinity.pod_anti_affinity else None
    return any(term_hits(t, pod, node, nodes, pods_on) for t in terms or ())


def term_hits(
    term: PodAffinityTerm, pod: Pod, node: Node, nodes: Sequence[Node], pods_on: Mapping[str, Sequence[Pod]]
) -> bool:
    domain = node.metadata.label(term.topology_key)
    if not domain or term.label_selector is None:
        return False
    selector = matcher_of(term.label_selector)
    namespaces = term.namespaces or [pod.namespace]
    return any(
        p.namespace in namespaces and selector.matches(p.metadata.labels)
        for other in nodes
        if other.metadata.label(term.topology_key) == domain
        for p in pods_on.get(other.name, ())
    )


def requests(pod: Pod) -> dict[str, Quantity]:
    """What the pod asks for, by resource: the sum of its containers, or an init container's if that is more."""
    total: dict[str, Quantity] = {}
    for container in [*(pod.spec.containers or ()), *pod.spec.sidecars]:
        for name, amount in wanted_by(container).items():
            total[name] = total.get(name, ZERO) + amount
    for container in pod.spec.init_containers or ():
        if not container.sidecar:
            for name, amount in wanted_by(container).items():
                total[name] = max(total.get(name, ZERO), amount)
    return total


def wanted_by(container: Container) -> dict[str, Quantity]:
    """A container's resource requests."""
    found = container.resources.requests if container.resources else None
    return {name: parse(amount) for name, amount in (found or {}).items()}


def missing_resources(pod: Pod, node: Node, there: Sequence[Pod]) -> list[str]:
    """What the node has too little of; a resource that the node does not announce is missing too."""
    allocatable = node.status.allocatable or {}
    found = []
    if "pods" in allocatable and len(there) + 1 > parse(allocatable["pods"]).value:
        found.append("Too many pods")
    wanted = requests(pod)
    used: dict[str, Quantity] = {}
    for other in there if wanted else ():
        for name, amount in requests(other).items():
            used[name] = used.get(name, ZERO) + amount
    for name, amount in sorted(wanted.items()):
        if amount and used.get(name, ZERO) + amount > parse(allocatable.get(name, 0)):
            found.append(f"Insufficient {name}")
    return found
