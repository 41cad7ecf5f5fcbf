"""Scheduler: binds pods that have no node to one that fits (`scheduler_plan`), and says when none does.

A pod whose claims wait for it is bound in two steps: its node is chosen and its claims are told, and when all of them
have their volumes it goes there. In between it counts as being there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kinds import NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS
from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.api.persistentvolumeclaim import SELECTED_NODE, PersistentVolumeClaim
from kubesvc.api.pod import Pod
from kubesvc.client.workqueue import Key, RetryPolicy
from kubesvc.clock import rfc3339

from .podclaims import by_claim, claim_names
from .podvolumes_plan import PodClaims, VolumeChoice, choose_volumes, divide_claims
from .runner import Controller, ControllerContext, key_of
from .scheduler_plan import Choice, choose_node
from .slimpod import pods_of
from .versioned import patch_version
from .volumebinding_plan import Classes, bind_completed, volume_bond

SCHEDULER_NAME = "default-scheduler"
BIND_SECONDS = 600.0
"""How long a pod may wait for its volumes before it is scheduled anew."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A pod whose node is chosen and whose claims wait for their volumes, until `deadline` (monotonic seconds)."""

    node: str
    claims: tuple[str, ...]
    deadline: float


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
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)
        self.volumes = ctx.informers.of(PERSISTENT_VOLUME)
        self.classes = ctx.informers.of(STORAGE_CLASS)
        self.pods_of_claim = by_claim(self.pods)
        self.claiming = self.pods.index("claiming", lambda p: ["waiting"] if waits(p) and p.spec.volumes else [])
        self.promises: dict[str, Promise] = {}
        """By pod uid."""
        self.pods.on_change(self.pod_moved)
        self.nodes.on_change(self.node_moved)
        self.claims.on_change(self.claim_moved)
        self.volumes.on_change(lambda old, new: self.wake_claiming())
        self.classes.on_change(lambda old, new: self.wake_claiming())

    @property
    def workers(self) -> int:
        return 1

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and waits(new):
            self.queue.add(key_of(new))
            return
        moved = new or old
        assert moved is not None
        held = self.assumed.pop(moved.metadata.uid, None)
        self.promises.pop(moved.metadata.uid, None)
        freed = new is None or new.terminal
        if freed and (moved.spec.node_name or held is not None):
            self.wake_all()

    def claim_moved(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        moved = new or old
        assert moved is not None
        for pod in self.pods_of_claim.get(f"{moved.namespace}/{moved.name}"):
            if waits(pod):
                self.queue.add(key_of(pod))

    def wake_claiming(self) -> None:
        """A volume or a class has changed: look at the pods that may wait for it."""
        for key in self.claiming.keys("waiting"):
            self.queue.add(key)

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or relevant(old) != relevant(new):
            self.wake_all()

    def wake_all(self) -> None:
        for key in self.waiting.keys("waiting"):
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        if pod is None or not waits(pod):
            return
        if (promise := self.promises.get(pod.metadata.uid)) is not None:
            await self.keep(key, pod, promise)
            return
        if pod.metadata.uid in self.assumed:
            return
        nodes: Sequence[Node] = list(self.nodes.values())
        if not pod.spec.volumes:
            choice = choose_node(pod, nodes, self.pods_on(nodes))
            await (self.bind(pod, choice) if choice.node else self.report(pod, choice))
            return
        classes = {c.name: c for c in self.classes.values()}
        claims = self.claims_of(pod, classes)
        if claims.problem and nodes:
            await self.report(pod, Choice(message=f"0/{len(nodes)} nodes are available: {claims.problem}."))
            return
        volumes = self.volumes_on(claims, nodes, classes)
        choice = choose_node(pod, nodes, self.pods_on(nodes), lambda node: volumes[node.name].problems)
        if not choice.node:
            await self.report(pod, choice)
        elif claims.waiting:
            await self.promise(key, pod, choice.node, volumes[choice.node])
        else:
            await self.bind(pod, choice)

    # -- volumes ------------------------------------------------------------------------------------------------------

    def claims_of(self, pod: Pod, classes: Classes) -> PodClaims:
        names = claim_names(pod)
        found = {n: c for n in names if (c := self.claims.get((pod.namespace, n))) is not None}
        users = {
            name: [
                p
                for p in self.pods_of_claim.get(f"{pod.namespace}/{name}")
                if (p.spec.node_name or p.metadata.uid in self.assumed)
                and not p.terminal
                and p.metadata.uid != pod.metadata.uid
            ]
            for name in names
        }
        return divide_claims(pod, found, classes, users)

    def volumes_on(self, claims: PodClaims, nodes: Sequence[Node], classes: Classes) -> dict[str, VolumeChoice]:
        """What the claims would get, by node."""
        bound = [c.spec.volume_name for c in claims.bound]
        named = {n: v for n in bound if (v := self.volumes.get(("", n))) is not None}
        free = list(self.volumes.values()) if claims.waiting else []
        return {n.name: choose_volumes(claims, n, named, free, classes) for n in nodes}

    async def promise(self, key: Key, pod: Pod, node: str, choice: VolumeChoice) -> None:
        """Tell the claims that wait for the pod what they get on its node."""
        waiting = [c.name for c, _ in choice.taken] + [c.name for c in choice.made]
        deadline = self.ctx.clock.monotonic() + BIND_SECONDS
        self.assume(pod, node)
        self.promises[pod.metadata.uid] = Promise(node, tuple(waiting), deadline)
        try:
            for claim, volume in choice.taken:
                if patch := volume_bond(volume, claim):
                    await patch_version(self.client, PERSISTENT_VOLUME, volume, patch)
            for claim in choice.made:
                if claim.metadata.annotation(SELECTED_NODE) != node:
                    patch = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                    await patch_version(self.client, PERSISTENT_VOLUME_CLAIM, claim, patch)
        except Exception:
            self.forget(pod)
            raise
        self.queue.add_after(key, BIND_SECONDS)

    async def keep(self, key: Key, pod: Pod, promise: Promise) -> None:
        """Bind a pod to its node once its volumes are there; look for another node if that takes too long, or if
        somebody takes the choice back."""
        claims = [self.claims.get((pod.namespace, name)) for name in promise.claims]
        if all(c is not None and c.spec.volume_name and bind_completed(c) for c in claims):
            self.forget(pod)
            await self.bind(pod, Choice(node=promise.node))
            return
        words = ""
        if self.ctx.clock.monotonic() >= promise.deadline:
            words = "context deadline exceeded"
        elif self.nodes.get(("", promise.node)) is None:
            words = f'node "{promise.node}" not found'
        else:
            for name, claim in zip(promise.claims, claims, strict=True):
                if claim is None or claim.metadata.deletion_timestamp is not None:
                    words = f'persistentvolumeclaim "{name}" not found'
        if words:
            self.forget(pod)
            text = f'running PreBind plugin "VolumeBinding": binding volumes: {words}'
            await self.report(pod, Choice(message=text))
            self.queue.add_after(key, 1.0)

    def assume(self, pod: Pod, node: str) -> None:
        """Let a pod count as being on a node before the cache shows it there."""
        spec = msgspec.structs.replace(pod.spec, node_name=node)
        self.assumed[pod.metadata.uid] = msgspec.structs.replace(pod, spec=spec)

    def forget(self, pod: Pod) -> None:
        self.assumed.pop(pod.metadata.uid, None)
        self.promises.pop(pod.metadata.uid, None)

    # -- pods ---------------------------------------------------------------------------------------------------------

    def pods_on(self, nodes: Sequence[Node]) -> dict[str, list[Pod]]:
        found = {n.name: [p for p in self.by_node.get(n.name) if not p.terminal] for n in nodes}
        for pod in self.assumed.values():
            found.setdefault(pod.spec.node_name, []).append(pod)
        return found

    async def bind(self, pod: Pod, choice: Choice) -> None:
        self.assume(pod, choice.node)
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
