"""Node lifecycle: a silent node is unreachable; taints and pods follow a node's readiness (NODE-2, NODE-85).

A node is heard of when its Lease is renewed or its status changes. Times are those at which this controller saw the
change on its own clock, so a node's wrong clock does not matter.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import LEASE, NODE, POD
from kubesvc.api.lease import Lease
from kubesvc.api.meta import Object
from kubesvc.api.node import Node, NodeCondition, Taint
from kubesvc.api.pod import Pod, Toleration
from kubesvc.client.workqueue import Key
from kubesvc.clock import parse_rfc3339, rfc3339

from .disruption_target import mark
from .runner import Controller, ControllerContext, key_of
from .scheduler_plan import tolerates
from .slimpod import pods_of
from .versioned import patch_version

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OWN_TAINTS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE})
LEASE_NAMESPACE = "kube-node-lease"
CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(slots=True)
class Heard:
    """When a node was last heard of (monotonic seconds), and what it said then."""

    at: float
    said: tuple[str, str]


def ready_status(node: Node) -> str:
    """ "True", "False" or "Unknown"; a node that never said anything is "Unknown"."""
    condition = node.status.condition("Ready")
    return condition.status if condition else "Unknown"


def plan_taints(node: Node, now: str) -> list[Taint]:
    """The taints a node should have: others' as they are, ours by its readiness and by `unschedulable`.

    now: RFC 3339, the time added to taints of effect NoExecute
    """
    status = ready_status(node)
    wanted: list[tuple[str, str]] = []
    if node.spec.unschedulable:
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    if status != "True":
        key = NOT_READY if status == "False" or node.status.condition("Ready") is None else UNREACHABLE
        wanted += [(key, "NoSchedule")]
        if node.status.condition("Ready") is not None:
            wanted += [(key, "NoExecute")]
    current = node.spec.taints or []
    kept = [t for t in current if t.key not in OWN_TAINTS or (t.key, t.effect) in wanted]
    there = {(t.key, t.effect) for t in kept}
    fresh = [Taint(key=k, effect=e, time_added=now) for k, e in wanted if (k, e) not in there]
    return kept + fresh


def plan_unknown(node: Node, now: str) -> list[NodeCondition]:
    """The node's conditions once it has gone silent (NODE-85)."""
    found = {c.type: c for c in node.status.conditions or ()}
    for type in CONDITIONS:
        before = found.get(type)
        if before is not None and before.status == "Unknown":
            continue
        found[type] = NodeCondition(
            type=type,
            status="Unknown",
            reason="NodeStatusUnknown" if before else "NodeStatusNeverUpdated",
            message="Kubelet stopped posting node status." if before else "Kubelet never posted node status.",
            last_heartbeat_time=before.last_heartbeat_time if before else now,
            last_transition_time=now,
        )
    return list(found.values())


def eviction_delay(pod: Pod, taints: list[Taint]) -> float | None:
    """Seconds a pod may stay beside these NoExecute taints, from when they were added; None: for ever."""
    delays: list[float] = []
    for taint in taints:
        matching: list[Toleration] = [t for t in pod.spec.tolerations or () if tolerates(t, taint)]
        if not matching:
            return 0.0
        limits = [t.toleration_seconds for t in matching if t.toleration_seconds is not None]
        if limits:
            delays.append(max(float(min(limits)), 0.0))
    return min(delays, default=None)


class NodeLifecycleController(Controller):
    """Keys are nodes. A node that turns unready or silent is tainted, and its pods' Ready turns False."""

    name = "node-lifecycle-controller"
    component = "node-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.pods = pods_of(ctx.informers)
        self.leases = ctx.informers.of(LEASE)
        self.by_node = self.pods.index("node", lambda p: [p.spec.node_name] if p.spec.node_name else [])
        self.heard: dict[str, Heard] = {}
        self.nodes.on_change(self.node_moved)
        self.leases.on_change(self.lease_moved)

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.heard.pop(old.name, None)
            return
        self.hear(new.name)
        self.queue.add(key_of(new))

    def lease_moved(self, _: Lease | None, new: Lease | None) -> None:
        if new is not None and new.namespace == LEASE_NAMESPACE:
            self.hear(new.name)

    def hear(self, name: str) -> None:
        """Note the time if the node said something new."""
        node, lease = self.nodes.get(("", name)), self.leases.get((LEASE_NAMESPACE, name))
        condition = node.status.condition("Ready") if node else None
        beat = (condition.last_heartbeat_time or "") if condition and condition.status != "Unknown" else ""
        said = (beat, (lease.spec.renew_time or "") if lease else "")
        before = self.heard.get(name)
        if before is None or before.said != said:
            self.heard[name] = Heard(self.ctx.clock.monotonic(), said)

    async def run_beside(self) -> None:
        """Look every few seconds for nodes that have gone silent."""
        while True:
            await asyncio.sleep(5.0)
            for node in self.nodes.values():
                self.queue.add(key_of(node))

    async def reconcile(self, key: Key) -> None:
        node = self.nodes.get(key)
        if node is None:
            return
        now = rfc3339(self.ctx.clock.now())
        heard = self.heard.get(node.name)
        grace = self.ctx.settings.node_monitor_grace_period
        silent = heard is not None and self.ctx.clock.monotonic() - heard.at > grace
        if silent and ready_status(node) != "Unknown" and node.status.condition("Ready") is not None:
            conditions = [msgspec.to_builtins(c) for c in plan_unknown(node, now)]
            await self.patch_node(node, {"status": {"conditions": conditions}}, "status")
            self.events.event(NODE, node, "Normal", "NodeNotReady", f"Node {node.name} status is now: NodeNotReady")
            return  # the write brings the key back
        taints = plan_taints(node, now)
        if taints != (node.spec.taints or []):
            patch: Object = {"spec": {"taints": [msgspec.to_builtins(t) for t in taints] or None}}
            await self.patch_node(node, patch)
        if ready_status(node) != "True" and node.status.condition("Ready") is not None:
            for pod in self.by_node.get(node.name):
                await self.mark_unready(pod, now)

    async def patch_node(self, node: Node, patch: Object, subresource: str = "") -> None:
        try:
            await patch_version(self.client, NODE, node, patch, subresource=subresource)
        except NotFound:
            return

    async def mark_unready(self, pod: Pod, now: str) -> None:
        """A pod on a node that is not ready is not ready either, whatever it last said (NODE-2)."""
        condition = pod.status.condition("Ready")
        if condition is None or condition.status != "True":
            return
        changed = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [changed]}}
        try:
            await self.client.patch(POD, pod.name, pod.namespace, patch, "strategic", subresource="status")
        except (NotFound, Conflict):
            return
        self.events.event(POD, pod, "Warning", "NodeNotReady", "Node is not ready")


class TaintEvictionController(Controller):
    """Keys are pods. Deletes pods from nodes whose NoExecute taints they do not, or no longer, tolerate."""

    name = "taint-eviction-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.pods = pods_of(ctx.informers)
        self.by_node = self.pods.index("node", lambda p: [p.spec.node_name] if p.spec.node_name else [])
        self.nodes.on_change(self.node_moved)
        self.pods.on_change(self.pod_moved)

    def node_moved(self, _: Node | None, new: Node | None) -> None:
        if new is not None and no_execute(new):
            for pod in self.by_node.get(new.name):
                self.queue.add(key_of(pod))

    def pod_moved(self, _: Pod | None, new: Pod | None) -> None:
        if new is None or new.terminating or not new.spec.node_name:
            return
        node = self.nodes.get(("", new.spec.node_name))
        if node is not None and no_execute(node):
            self.queue.add(key_of(new))

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        node = self.nodes.get(("", pod.spec.node_name)) if pod is not None else None
        if pod is None or node is None or pod.terminating:
            return
        taints = no_execute(node)
        delay = eviction_delay(pod, taints)
        if not taints or delay is None:
            return
        since = max((parse_rfc3339(t.time_added) for t in taints if t.time_added), default=0.0)
        left = since + delay - self.ctx.clock.now()
        if left > 0:
            self.queue.add_after(key, left)
            return
        text = f"Marking for deletion Pod {pod.namespace}/{pod.name}"
        self.events.event(POD, pod, "Normal", "TaintManagerEviction", text)
        try:
            why = "Taint manager: deleting due to NoExecute taint"
            await mark(self.client, self.ctx.clock, pod, "DeletionByTaintManager", why)
            await self.client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return


def no_execute(node: Node) -> list[Taint]:
    return [t for t in node.spec.taints or () if t.effect == "NoExecute"]
