"""Scheduler: binds pods that have no node to one that fits (`scheduler_plan`), and says when none does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import NODE, POD
from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.client.workqueue import Key, RetryPolicy
from kubesvc.clock import rfc3339

from .runner import Controller, ControllerContext, key_of
from .scheduler_plan import Choice, choose_node
from .slimpod import pods_of

SCHEDULER_NAME = "default-scheduler"


class Scheduler(Controller):
    """Gives each waiting pod a node. One worker: a decision must see the one before it."""

    name = "scheduler"
    component = "default-scheduler"
    policy = RetryPolicy(base_seconds=0.1, cap_seconds=10.0, most=0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.pods = pods_of(ctx.informers)
        self.nodes = ctx.informers.of(NODE)
        self.by_node = self.pods.index("node", lambda p: [p.spec.node_name] if p.spec.node_name else [])
        self.waiting = self.pods.index("unscheduled", lambda p: ["waiting"] if waits(p) else [])
        self.assumed: dict[str, Pod] = {}
        """Pods bound by us that the cache does not show bound yet, by uid, as they will look."""
        self.pods.on_change(self.pod_moved)
        self.nodes.on_change(self.node_moved)

    @property
    def workers(self) -> int:
        return 1

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and waits(new):
            self.queue.add(key_of(new))
            return
        moved = new or old
        assert moved is not None
        self.assumed.pop(moved.metadata.uid, None)
        freed = new is None or new.terminal
        if freed and moved.spec.node_name:
            self.wake_all()

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or relevant(old) != relevant(new):
            self.wake_all()

    def wake_all(self) -> None:
        for key in self.waiting.keys("waiting"):
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        if pod is None or not waits(pod) or pod.metadata.uid in self.assumed:
            return
        nodes: Sequence[Node] = list(self.nodes.values())
        choice = choose_node(pod, nodes, self.pods_on(nodes))
        if choice.node:
            await self.bind(pod, choice)
        else:
            await self.report(pod, choice)

    def pods_on(self, nodes: Sequence[Node]) -> dict[str, list[Pod]]:
        found = {n.name: [p for p in self.by_node.get(n.name) if not p.terminal] for n in nodes}
        for pod in self.assumed.values():
            found.setdefault(pod.spec.node_name, []).append(pod)
        return found

    async def bind(self, pod: Pod, choice: Choice) -> None:
        spec = msgspec.structs.replace(pod.spec, node_name=choice.node)
        self.assumed[pod.metadata.uid] = msgspec.structs.replace(pod, spec=spec)
        body: Object = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": choice.node},
        }
        try:
            await self.client.create(POD, body, pod.namespace, name=pod.name, subresource="binding")
        except (NotFound, Conflict):
            self.assumed.pop(pod.metadata.uid, None)  # gone, or somebody else was quicker
            return
        except Exception:
            self.assumed.pop(pod.metadata.uid, None)
            raise
        text = f"Successfully assigned {pod.namespace}/{pod.name} to {choice.node}"
        self.events.event(POD, pod, "Normal", "Scheduled", text)

    async def report(self, pod: Pod, choice: Choice) -> None:
        """Say why in the condition PodScheduled and in an event; a node that changes wakes the pod again."""
        self.events.event(POD, pod, "Warning", "FailedScheduling", choice.message)
        current = pod.status.condition("PodScheduled")
        if current and current.status == "False" and current.message == choice.message:
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": choice.message,
            "lastProbeTime": None,
            "lastTransitionTime": current.last_transition_time
            if current and current.status == "False"
            else rfc3339(self.ctx.clock.now()),
        }
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self.client.patch(POD, pod.name, pod.namespace, patch, "strategic", subresource="status")
        except NotFound:
            return


def waits(pod: Pod) -> bool:
    """Whether this scheduler is to find a node for the pod now."""
    return (
        not pod.spec.node_name
        and pod.spec.scheduler_name == SCHEDULER_NAME
        and not pod.spec.scheduling_gates
        and not pod.terminal
        and not pod.terminating
    )


def relevant(node: Node) -> tuple[object, ...]:
    """What of a node can make a waiting pod fit."""
    return (node.spec.unschedulable, node.spec.taints, node.metadata.labels, node.status.allocatable)
