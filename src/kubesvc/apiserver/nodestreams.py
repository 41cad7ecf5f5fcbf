"""What nodes answer below the API's objects: logs, exec, attach, port forwarding, and HTTP to pods and Services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from kubesvc.api.errors import BadRequest, ServiceUnavailable
from kubesvc.api.kinds import NODE, POD
from kubesvc.api.meta import Object

from . import refusals
from .calls import Call
from .execsession import serve_session
from .nodedoors import NodeDialer, NodeRefused, dial_stream
from .nodeproxy import Place, pass_on
from .podlogs import serve_log
from .portforward import serve_portforward
from .registry import Registry
from .storage import decode
from .subresources import HttpBackend

AGENT_PORT = "10250"
"""The port at which a node's agent is asked, in the paths of `nodes/NAME:PORT/proxy`; the server answers for it."""
AGENT_PAGES = ("/healthz", "/metrics", "/metrics/probes")
DEFAULT_PORTS = {"http": 80, "https": 443}


class NodeStreams:
    """The `Backends` of a server whose nodes have doors."""

    def __init__(self, registry: Registry, dialer: NodeDialer) -> None:
        self.registry = registry
        self.dialer = dialer
        self.open: set[asyncio.Task[Any]] = set()
        """The tasks that hold streams open."""

    def stop(self) -> None:
        """End every stream now."""
        for task in self.open:
            task.cancel()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While a stream is open, `stop` ends it."""
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            yield
        finally:
            self.open.discard(task)

    async def pod_stream(self, call: Call, pod: Object, subresource: str) -> web.StreamResponse:
        """Answer log, exec, attach or portforward of a pod that is bound to an existing node."""
        with self.held():
            return await self.answer(call, pod, subresource)

    async def answer(self, call: Call, pod: Object, subresource: str) -> web.StreamResponse:
        if subresource == "log":
            return await serve_log(call, pod, self.dialer)
        if subresource in ("exec", "attach"):
            return await serve_session(call, pod, subresource, self.dialer)
        return await serve_portforward(call, pod, self.dialer)

    async def http(self, call: Call, backend: HttpBackend) -> web.StreamResponse:
        """Pass the request on and its answer back (SVCX-8)."""
        with self.held():
            return await self.proxied(call, backend)

    async def proxied(self, call: Call, backend: HttpBackend) -> web.StreamResponse:
        name = call.target.name
        if call.target.resource == "nodes":
            node = name.rpartition(":")[0].rpartition(":")[2] if name.count(":") > 1 else name.partition(":")[0]
            if backend.port in ("", AGENT_PORT):
                return await self.agent_answer(call, node, backend.path)
            return await pass_on(call, self.node_place(node, backend), self.dialer)
        return await pass_on(call, self.pod_place(backend), self.dialer)

    def pod_place(self, backend: HttpBackend) -> Place:
        """Where a pod is asked: at its own address, through its node."""
        item = self.registry.of(POD).get(backend.namespace, backend.pod)
        if item is None:
            raise refusals.not_found(POD, backend.pod)
        pod = decode(item.value, item.revision)
        address = backend.address or (pod.get("status") or {}).get("podIP") or ""
        if not address:
            raise BadRequest("address not allowed")
        port = pod_port(pod, backend.port) or DEFAULT_PORTS[backend.scheme]
        return Place(pod["spec"].get("nodeName") or "", backend.scheme, address, port, backend.path)

    def node_place(self, node: str, backend: HttpBackend) -> Place:
        item = self.registry.of(NODE).get("", node)
        if item is None:
            raise refusals.not_found(NODE, node)
        found = (decode(item.value, item.revision).get("status") or {}).get("addresses") or ()
        address = next((a["address"] for a in found if a.get("type") == "InternalIP"), "")
        if not address or not backend.port.isdigit():
            raise ServiceUnavailable(f"no preferred addresses found; known addresses: {[a['address'] for a in found]}")
        return Place(node, backend.scheme, address, int(backend.port), backend.path)

    async def agent_answer(self, call: Call, node: str, path: str) -> web.StreamResponse:
        """What a node's agent says: its pods, which the server knows as well, and its own pages."""
        path = path.partition("?")[0].rstrip("/")
        if self.registry.of(NODE).get("", node) is None:
            raise refusals.not_found(NODE, node)
        if path == "/pods":
            cache = self.registry.of(POD)
            pods = [decode(i.value, i.revision) for i in cache.select("") if i.field("spec.nodeName") == node]
            return call.object({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
        if path not in AGENT_PAGES:
            return call.text("404 page not found\n", 404)
        try:
            reader, writer = await dial_stream(self.dialer, node, f"page {path}")
        except NodeRefused as refused:
            raise ServiceUnavailable(f"error trying to reach service: {refused.message}") from None
        try:
            return call.text((await reader.read()).decode())
        finally:
            writer.close()


def pod_port(pod: Object, wanted: str) -> int:
    """The number of a pod's port: itself, by the name of a container's port, or the first one there is; 0 for none.

    Raises ServiceUnavailable for a name that no container has. Pure.
    """
    if wanted.isdigit():
        return int(wanted)
    ports = [p for c in (pod.get("spec") or {}).get("containers") or () for p in c.get("ports") or ()]
    if not wanted:
        return ports[0]["containerPort"] if ports else 0
    for port in ports:
        if port.get("name") == wanted:
            number: int = port["containerPort"]
            return number
    raise ServiceUnavailable(f"error trying to reach service: pod {pod['metadata']['name']} has no port {wanted}")
