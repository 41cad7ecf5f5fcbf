"""What nodes do to pods, for tests of controllers: bound pods start, become ready, and end when they are deleted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import Object
from kubesvc.api.pod import POD
from kubesvc.client.interface import Client
from kubesvc.clock import Clock, rfc3339


class Kubelet:
    """All nodes at once. A pod without a node is bound to `node`, unless its node affinity names one.

    start_seconds, stop_seconds: how long a pod takes to become ready, and to end once deleted
    broken:                      names of pods that run but never become ready
    """

    def __init__(self, client: Client, clock: Clock, *, start_seconds: float = 1.0, stop_seconds: float = 1.0) -> None:
        self.client = client
        self.clock = clock
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds
        self.broken: list[str] = []
        self.node = "n1"
        self.started: list[str] = []
        self.ended: list[str] = []
        self.tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            stream = self.client.watch(POD, resource_version="0", bookmarks=False, initial_events=True)
            async with aclosing(cast(Any, stream)) as events:
                async for event in events:
                    pod = msgspec.json.decode(event.object)
                    state = "end" if pod["metadata"].get("deletionTimestamp") else "start"
                    key = (pod["metadata"]["uid"], state)
                    if event.type != "DELETED" and key not in self.tasks:
                        self.tasks[key] = group.create_task(self.end(pod) if state == "end" else self.begin(pod))

    async def begin(self, pod: Object) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if (pod.get("status") or {}).get("phase") not in (None, "Pending"):
            return
        try:
            if not spec.get("nodeName"):
                target = {"apiVersion": "v1", "kind": "Node", "name": self.node_for(spec)}
                binding = {"metadata": {"name": meta["name"]}, "target": target}
                await self.client.create(POD, binding, meta["namespace"], name=meta["name"], subresource="binding")
            await asyncio.sleep(self.start_seconds)
            self.started.append(meta["name"])
            await self.report(meta, "Running", ready=meta["name"] not in self.broken)
        except (NotFound, Conflict):
            return

    def node_for(self, spec: Object) -> str:
        affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
        terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or [{}]
        fields = terms[0].get("matchFields") or [{}]
        return str((fields[0].get("values") or [self.node])[0])

    async def report(self, meta: Object, phase: str, *, ready: bool) -> None:
        now = rfc3339(self.clock.now())
        condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}
        patch = {"metadata": {"uid": meta["uid"]}, "status": {"phase": phase, "conditions": [condition]}}
        await self.client.patch(POD, meta["name"], meta["namespace"], patch, "strategic", subresource="status")

    async def end(self, pod: Object) -> None:
        meta = pod["metadata"]
        await asyncio.sleep(self.stop_seconds)
        self.ended.append(meta["name"])
        try:
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                await self.report(meta, "Failed", ready=False)
            await self.client.delete(POD, meta["name"], meta["namespace"], uid=meta["uid"], grace_seconds=0)
        except (NotFound, Conflict):
            return
