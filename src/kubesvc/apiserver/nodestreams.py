"""What nodes answer below the API's objects: logs, exec, attach, port forwarding, and HTTP to pods and Services."""

from __future__ import annotations

from aiohttp import web

from kubesvc.api.errors import ServiceUnavailable
from kubesvc.api.meta import Object

from .calls import Call
from .execsession import serve_websocket
from .nodedoors import NodeDialer
from .podlogs import serve_log
from .subresources import HttpBackend


class NodeStreams:
    """The `Backends` of a server whose nodes have doors."""

    def __init__(self, dialer: NodeDialer) -> None:
        self.dialer = dialer

    async def pod_stream(self, call: Call, pod: Object, subresource: str) -> web.StreamResponse:
        """Answer log, exec, attach or portforward of a pod that is bound to an existing node."""
        if subresource == "log":
            return await serve_log(call, pod, self.dialer)
        if subresource in ("exec", "attach"):
            return await serve_websocket(call, pod, subresource, self.dialer)
        raise ServiceUnavailable("port forwarding is not served yet")

    async def http(self, call: Call, backend: HttpBackend) -> web.StreamResponse:
        raise ServiceUnavailable("proxying is not served yet")
