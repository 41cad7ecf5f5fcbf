"""The HTTP protocol of the listeners: aiohttp's, but bad requests are answered in the API's words.

A request line that the parser refuses never reaches the handler; clients still get a Status and never a web page.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.web_protocol import RequestHandler

from kubesvc.api.errors import ApiError, BadRequest, InternalError

from .calls import status_object
from .routing import not_allowed

LAST_SECONDS = 2.0
"""For how long a request that is broken off at the end of the server may see to what it holds."""
TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class ApiProtocol(RequestHandler):
    """One connection."""

    __slots__ = ()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Let the request under way end, break it off after so many seconds, and wait until it has noticed."""
        task = self._task_handler
        await super().shutdown(timeout)
        if task is not None and not task.done():
            await asyncio.wait((task,), timeout=LAST_SECONDS)

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed, or whose handling failed outside the handler."""
        error: ApiError
        if isinstance(exc, BadHttpMethod) or "Invalid method encountered" in str(message or exc or ""):
            error = not_allowed()
        elif isinstance(exc, LineTooLong) or "Too many headers" in str(message or exc or ""):
            error = BadRequest(TOO_LARGE.phrase, code=TOO_LARGE, reason="")  # as Go's server answers, by number
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = BadRequest(f"malformed HTTP request: {HTTPStatus(status).phrase}")
        else:
            if not isinstance(exc, ConnectionError):  # somebody who left in the middle is nothing to tell
                self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
            error = InternalError("Internal error occurred")
        body = msgspec.json.encode(status_object(error))
        headers = {"Content-Type": "application/json", "Connection": "close"}
        response = web.Response(body=body, status=error.status_code, headers=headers)
        response.force_close()
        return response


class ApiRequest(web.BaseRequest):
    """A request whose answer does not tell which library gave it; a proxied backend's own word passes."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        if response.headers.get("Server") == SERVER_SOFTWARE:
            del response.headers["Server"]


class ApiHttpServer(web.Server):
    """Makes `ApiProtocol`s."""

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return ApiRequest(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> RequestHandler:
        return ApiProtocol(self, loop=self._loop, **self._kwargs)
