"""Pod garbage collection: removes pods that no node will ever finish (NODE-4)."""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.errors import ApiError, Conflict, NotFound
from kubesvc.api.kinds import NODE, POD
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.client.interface import Unreachable, loudness
from kubesvc.client.workqueue import Key

from .disruption_target import mark
from .runner import Controller, ControllerContext
from .slimpod import pods_of

log = logging.getLogger(__name__)

PERIOD_SECONDS = 20.0
QUARANTINE_SECONDS = 40.0
"""How long a pod's node must have been missing: a node may be made anew."""
MOST_TERMINATED = 12_500


def plan_terminated(pods: list[Pod], most: int) -> list[Pod]:
    """Ended pods beyond `most`, the oldest first."""
    ended = [p for p in pods if p.terminal and not p.terminating]
    ended.sort(key=lambda p: (p.metadata.creation_timestamp or "", p.namespace, p.name))
    return ended[: max(len(ended) - most, 0)]


class PodGarbageCollector(Controller):
    """Keys are pods that are to be looked at again when their node's quarantine is over."""

    name = "pod-garbage-collector-controller"
    component = "pod-garbage-collector"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.pods = pods_of(ctx.informers)
        self.by_node = self.pods.index("node", lambda p: [p.spec.node_name] if p.spec.node_name else [])
        self.nodes.on_change(self.node_moved)

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None:
            for key in self.by_node.keys(old.name):
                self.queue.add_after(key, QUARANTINE_SECONDS)

    async def run_beside(self) -> None:
        """Pods whose node was gone before we started, too many ended ones, and deleted ones that have no node."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            for name in self.by_node.values():
                if self.nodes.get(("", name)) is None:
                    for key in self.by_node.keys(name):
                        self.queue.add_after(key, QUARANTINE_SECONDS)
            pods = list(self.pods.values())
            stray = [pod for pod in pods if pod.terminating and not pod.spec.node_name]
            for pod in (*plan_terminated(pods, MOST_TERMINATED), *stray):
                try:
                    await self.remove(pod)
                except (ApiError, Unreachable) as error:  # the next turn finds it again, and others need not wait
                    log.log(loudness(error), "pod %s/%s is not collected yet: %s", pod.namespace, pod.name, error)

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        if pod is None or not pod.spec.node_name or self.nodes.get(("", pod.spec.node_name)) is not None:
            return
        try:
            await self.client.get(NODE, pod.spec.node_name)
        except NotFound:
            await self.remove(pod, "PodGC: node no longer exists")

    async def remove(self, pod: Pod, disruption: str = "") -> None:
        """Delete a pod that nobody will end: it has failed first, so that whoever counts ends counts this one.

        disruption: why it was no fault of the pod's own, said in the condition DisruptionTarget
        """
        try:
            if not pod.terminal:
                await mark(self.client, self.ctx.clock, pod, "DeletionByPodGC", disruption, phase="Failed")
            await self.client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid, grace_seconds=0)
        except (NotFound, Conflict):
            return
