"""Events of the agent: about its Pods' containers and its Node, repeats counted up (NODE-86 to NODE-94)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import Any, Literal, NamedTuple

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.kinds import EVENT
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.client import Client, Unreachable
from kubesvc.clock import Clock, rfc3339

from .eventflow import EventFlow

Severity = Literal["Normal", "Warning"]
COMPONENT = "kubelet"
QUEUED = 4096
REMEMBERED = 4096
MESSAGE_BYTES = 1024

log = logging.getLogger(__name__)


class Told(NamedTuple):
    about: tuple[tuple[str, str], ...]
    severity: Severity
    reason: str
    message: str
    at: float


class NodeEvents:
    """Says things about Pods and the Node. Reporting returns at once; `run` writes in order until cancelled."""

    def __init__(self, client: Client, node_name: str, clock: Clock) -> None:
        self.client = client.as_manager(COMPONENT)
        self.node_name = node_name
        self.clock = clock
        self.last_moment = 0
        self.queue: deque[Told] = deque(maxlen=QUEUED)
        self.waiting = asyncio.Event()
        self.flow = EventFlow()
        self.written: OrderedDict[tuple[Any, ...], tuple[str, str, int]] = OrderedDict()

    def pod(
        self, pod: Pod, severity: Severity, reason: str, message: str, container: str = "", init: bool = False
    ) -> None:
        """About a Pod, or one of its containers by name (fieldPath `spec.containers{name}`, NODE-46)."""
        about = {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.metadata.uid,
            "apiVersion": "v1",
            "resourceVersion": pod.metadata.resource_version,
        }
        if container:
            about["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        self.tell(about, severity, reason, message)

    def node(self, severity: Severity, reason: str, message: str) -> None:
        """About the Node; its name stands for its uid, as the agent's events always had it."""
        self.tell({"kind": "Node", "name": self.node_name, "uid": self.node_name}, severity, reason, message)

    def tell(self, about: dict[str, str], severity: Severity, reason: str, message: str) -> None:
        raw = message.encode()
        if len(raw) > MESSAGE_BYTES:
            message = raw[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
        self.queue.append(Told(tuple(about.items()), severity, reason, message, self.clock.now()))
        self.waiting.set()

    async def run(self) -> None:
        while True:
            await self.waiting.wait()
            await self.flush()
            self.waiting.clear()

    async def flush(self) -> None:
        """Write what has been reported."""
        while self.queue:
            told = self.queue.popleft()
            try:
                await self.write(told)
            except (ApiError, Unreachable) as error:
                log.debug("event not written: %s: %s: %s", told.reason, told.message, error)

    async def write(self, told: Told) -> None:
        about = dict(told.about)
        about.pop("resourceVersion", None)
        whom = tuple((k, v) for k, v in about.items() if k != "fieldPath")
        message, combined = self.flow.combine(whom, (told.severity, told.reason), told.message, told.at)
        if not self.flow.admits(whom, told.at):
            return
        of = (*whom, "combined") if combined else (*about.items(), message)
        key = (*of, told.severity, told.reason)
        namespace = about.get("namespace") or "default"
        before = self.written.get(key)
        if before is not None:
            namespace, name, count = before
            patch: Object = {"count": count + 1, "lastTimestamp": rfc3339(told.at)}
            if combined:
                patch["message"] = message
            try:
                await self.client.patch(EVENT, name, namespace, patch, "merge")
                self.written[key] = (namespace, name, count + 1)
                self.written.move_to_end(key)
                return
            except NotFound:
                pass  # events live for an hour only
        self.last_moment = max(int(told.at * 1e9), self.last_moment + 1)  # by name, Events are in the order told
        name = f"{about['name']}.{self.last_moment:x}"
        when = rfc3339(told.at)
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": dict(told.about),
            "reason": told.reason,
            "message": message,
            "source": {"component": COMPONENT, "host": self.node_name},
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "type": told.severity,
            "reportingComponent": COMPONENT,
            "reportingInstance": self.node_name,
        }
        await self.client.create(EVENT, event, namespace)
        self.written[key] = (namespace, name, 1)
        while len(self.written) > REMEMBERED:
            self.written.popitem(last=False)
