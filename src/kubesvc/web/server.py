"""The page and its feed, over HTTP on loopback.

Who has the link may look: it carries a random token, which becomes a cookie at the first use and leaves the address
bar. The page reads and never changes anything. Against other pages of the same browser stand: the token, a check of the
Host header (a name of an attacker that resolves to loopback is refused), a check of Origin, SameSite=Strict, and a
content policy that lets the page load nothing but its own files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from . import export
from .feed import Feed

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

TOKEN_BYTES = 24
SILENCE_SECONDS = 15.0
"""A feed without news says so this often, so that both sides know the other is there."""
MOST_WATCHERS = 50
FILES = {
    "page.css": "text/css",
    **dict.fromkeys(export.MODULES, "text/javascript"),
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NO_TOKEN = (
    "This page needs its whole link, with the token in it.\n"
    "next: open the link that kubesvc printed; `kubesvc status` prints it again\n"
)


class PageServer:
    """Serves one feed.

    feed:  somebody else runs it
    token: what the link carries; hexadecimal
    """

    def __init__(self, feed: Feed, token: str) -> None:
        self.feed = feed
        self.token = token
        self.watchers = 0
        self.hosts: frozenset[str] = frozenset()
        self.port = 0
        self.link = ""

    async def serve(self, host: str, port: int, started: Callable[[str], None]) -> None:
        """Serve until cancelled. `started` is told the link. OSError if the address cannot be listened on."""
        from aiohttp import web

        app = web.Application(middlewares=[self.guarded()])
        app.router.add_get("/", self.page)
        app.router.add_get("/feed", self.follow)
        app.router.add_get("/export", self.file)
        app.router.add_get("/static/{name}", self.static)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.5, handle_signals=False, handler_cancellation=True
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            self.port = runner.addresses[0][1]
            shown = f"[{host}]" if ":" in host else host
            self.hosts = frozenset(f"{h}:{self.port}" for h in (shown, "localhost", "127.0.0.1", "[::1]"))
            self.link = f"http://{shown}:{self.port}/?token={self.token}"
            started(self.link)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    # ---------------------------------------------------------------- who may

    @property
    def cookie(self) -> str:
        """Cookies do not know ports, so the name does."""
        return f"kubesvc-{self.port}"

    def knows(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def refusal(self, request: web.Request) -> tuple[int, str] | None:
        """Why a request is refused; None if it may go on."""
        if request.host not in self.hosts:
            return 421, f"{request.host!r} is not this server\nnext: use the link that kubesvc printed\n"
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{h}" for h in self.hosts}:
            return 403, "another page may not read this\n"
        if self.knows(request.query.get("token", "")) or self.knows(request.cookies.get(self.cookie, "")):
            return None
        return 403, NO_TOKEN

    def guarded(self) -> Any:
        """Checks every request before anything answers it."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = self.refusal(request)
            if refused is not None:
                return web.Response(status=refused[0], text=refused[1], headers=HEADERS)
            try:
                response = await handler(request)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guard

    # ---------------------------------------------------------------- what is served

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page; with the token in the link, first a cookie and the link without it."""
        from aiohttp import web

        if "token" in request.query:
            rest = {k: v for k, v in request.query.items() if k != "token"}
            answer = web.Response(status=303, headers={"Location": str(request.rel_url.with_query(rest))})
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
            return answer
        return web.Response(text=read_static("page.html"), content_type="text/html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        name = request.match_info["name"]
        if name not in FILES:
            raise web.HTTPNotFound(text="no such file\n")
        return web.Response(text=read_static(name), content_type=FILES[name])

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Everything at this moment, as one file to keep."""
        from aiohttp import web

        text = export.render(await self.feed.export(), request.query.get("service", ""))
        answer = web.Response(text=text, content_type="text/html")
        answer.headers["Content-Disposition"] = 'attachment; filename="kubesvc-picture.html"'
        return answer

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """The feed as server-sent events: the whole picture first, then what changes."""
        from aiohttp import web

        if self.watchers >= MOST_WATCHERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_WATCHERS} pages are open already; close one\n")
        namespace, _, name = request.query.get("service", "").partition("/")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        self.watchers += 1
        changes = self.feed.changes((namespace, name) if name else None)
        try:
            await response.prepare(request)
            waiting = asyncio.ensure_future(anext(changes))
            try:
                while True:
                    done, _ = await asyncio.wait({waiting}, timeout=SILENCE_SECONDS)
                    if not done:
                        await response.write(b": still here\n\n")
                        continue
                    await response.write(b"data: " + msgspec.json.encode(waiting.result()) + b"\n\n")
                    waiting = asyncio.ensure_future(anext(changes))
            finally:
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await waiting
        except ConnectionError:
            pass
        finally:
            await changes.aclose()
            self.watchers -= 1
        return response


def read_static(name: str) -> str:
    """A file of the page."""
    return (importlib.resources.files(__package__) / "static" / name).read_text("utf-8")
