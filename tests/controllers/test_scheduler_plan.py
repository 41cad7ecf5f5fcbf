"""Which node a pod goes to, and the words when none will do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kubesvc.api.container import Container, ContainerPort, ResourceRequirements
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.node import Node, NodeSpec, NodeStatus, Taint
from kubesvc.api.pod import Pod, PodSpec, Toleration
from kubesvc.controllers.scheduler_plan import choose_node


def node(name: str, *, taints: tuple[Taint, ...] = (), cordoned: bool = False, **labels: str) -> Node:
    return Node(
        metadata=ObjectMeta(name=name, labels=labels),
        spec=NodeSpec(taints=list(taints), unschedulable=cordoned),
        status=NodeStatus(allocatable={"cpu": "2", "memory": "1Gi", "pods": "3"}),
    )


def pod(
    *,
    cpu: str = "",
    host_port: int = 0,
    selector: dict[str, str] | None = None,
    tolerations: tuple[Toleration, ...] = (),
    **labels: str,
) -> Pod:
    ports = [ContainerPort(container_port=80, host_port=host_port, protocol="TCP")] if host_port else None
    resources = ResourceRequirements(requests={"cpu": cpu}) if cpu else None
    container = Container(name="c", ports=ports, resources=resources) if resources else Container(name="c", ports=ports)
    return Pod(
        metadata=ObjectMeta(name="p", namespace="d", labels=labels),
        spec=PodSpec(containers=[container], node_selector=selector, tolerations=list(tolerations)),
    )


NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")


@dataclass(frozen=True)
class Case:
    sentence: str
    pod: Pod
    nodes: tuple[Node, ...]
    node: str = ""
    message: str = ""
    there: dict[str, tuple[Pod, ...]] = field(default_factory=dict)


CASES = (
    Case("no nodes", pod(), (), message="no nodes available to schedule pods"),
    Case("the emptier node", pod(), (node("a"), node("b")), "b", there={"a": (pod(),)}),
    Case(
        "replicas spread even where the other node has more pods",
        pod(app="web"),
        (node("a"), node("b")),
        "b",
        there={"a": (pod(app="web"),), "b": (pod(), pod())},
    ),
    Case(
        "a taint",
        pod(),
        (node("a", taints=(NOT_READY,)),),
        message="0/1 nodes are available: 1 node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }.",
    ),
    Case(
        "a tolerated taint",
        pod(tolerations=(Toleration(key="node.kubernetes.io/not-ready", operator="Exists"),)),
        (node("a", taints=(NOT_READY,)),),
        "a",
    ),
    Case(
        "cordoned and too small",
        pod(cpu="3"),
        (node("a", cordoned=True), node("b")),
        message="0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.",
    ),
    Case("what others asked for counts", pod(cpu="1500m"), (node("a"), node("b")), "b", there={"a": (pod(cpu="1"),)}),
    Case(
        "a node selector nobody matches",
        pod(selector={"disk": "ssd"}),
        (node("a", disk="hdd"),),
        message="0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    ),
    Case("a node selector", pod(selector={"disk": "ssd"}), (node("a"), node("b", disk="ssd")), "b"),
    Case(
        "a host port in use (NODE-61)",
        pod(host_port=80),
        (node("a"),),
        message="0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        there={"a": (pod(host_port=80),)},
    ),
    Case(
        "a full node",
        pod(),
        (node("a"),),
        message="0/1 nodes are available: 1 Too many pods.",
        there={"a": (pod(), pod(), pod())},
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.sentence)
def test_choice(case: Case) -> None:
    choice = choose_node(case.pod, case.nodes, case.there)
    assert (choice.node, choice.message) == (case.node, case.message)
