"""…/pods|services|nodes/ID/proxy/PATH: HTTP to what runs inside a cluster, passed on through a node's door (SVCX-8,
CONF-6).

What is answered comes back as it is, but for links: a page believes that it lies at `/`, so links in HTML and in
Location that begin with a slash get the proxy's path in front.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from kubesvc.api.errors import ApiError, BadRequest, ServiceUnavailable

from .calls import Call
from .hijack import TakenOver, bytes_of, take_over
from .nodedoors import NodeDialer, NodeRefused, Stream, dial
from .routing import Target

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "proxy-connection"}
)  # fmt: skip
PATH_CHARACTERS = "/:@!$&'()*+,;=~-._"
PIECE_BYTES = 64 * 1024
MOST_HTML_BYTES = 8 << 20
"""Pages larger than this pass unchanged."""
MOST_HEAD_BYTES = 64 * 1024
LINK_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "a": ("href",), "area": ("href",), "audio": ("src",), "base": ("href",), "blockquote": ("cite",),
    "body": ("background",), "button": ("formaction",), "command": ("icon",), "del": ("cite",), "embed": ("src",),
    "form": ("action",), "frame": ("longdesc", "src"), "head": ("profile",), "html": ("manifest",),
    "iframe": ("longdesc", "src"), "img": ("longdesc", "src", "usemap"), "input": ("src", "usemap", "formaction"),
    "ins": ("cite",), "link": ("href",), "object": ("classid", "codebase", "data", "usemap"), "q": ("cite",),
    "script": ("src",), "source": ("src",), "video": ("poster", "src"),
}  # fmt: skip
"""Where HTML keeps links, by element."""
TAG = re.compile(rb"<([A-Za-z][A-Za-z0-9]*)(\s[^<>]*)>")
ATTRIBUTE = re.compile(rb"""(\s)([A-Za-z-]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes: through `node`'s door to `host` and `port`."""

    node: str
    scheme: str
    host: str
    port: int
    path: str
    """As the client wrote it behind `proxy`, decoded; begins with a slash."""

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def target(self, query: str) -> str:
        """The request target: path and query."""
        return quote(self.path or "/", safe=PATH_CHARACTERS) + (f"?{query}" if query else "")


# ---------------------------------------------------------------- links, pure


def rewrite_link(link: str, prefix: str, hosts: Iterable[str]) -> str:
    """A link of a page as it works below `prefix`.

    hosts: what the page's own server is called; links to others, and relative ones, stay as they are
    """
    try:
        _, host, path, query, fragment = urlsplit(link)
    except ValueError:
        return link
    if (host and host not in hosts) or not path.startswith("/") or path.startswith(prefix):
        return link
    return urlunsplit(("", "", prefix + path, query, fragment))


def rewrite_html(page: bytes, prefix: str, hosts: Iterable[str]) -> bytes:
    """A page whose links work below `prefix`."""
    hosts = tuple(hosts)

    def tag(found: re.Match[bytes]) -> bytes:
        names = LINK_ATTRIBUTES.get(found[1].decode().lower())
        if names is None:
            return found[0]

        def attribute(part: re.Match[bytes]) -> bytes:
            if part[2].decode().lower() not in names:
                return part[0]
            value = part[4]
            mark = value[:1] if value[:1] in (b'"', b"'") else b""
            text = (
                value.strip(mark).decode("utf-8", "surrogateescape")
                if mark
                else value.decode("utf-8", "surrogateescape")
            )
            new = rewrite_link(text, prefix, hosts).encode("utf-8", "surrogateescape")
            return part[1] + part[2] + part[3] + mark + new + mark

        return b"<" + found[1] + ATTRIBUTE.sub(attribute, found[2]) + b">"

    return TAG.sub(tag, page)


def proxy_prefix(target: Target, raw_path: str) -> str:
    """The part of a request's path that leads to the proxy: up to and with `/proxy`."""
    parts = 7 if target.in_namespace else 5  # /api/v1[/namespaces/NAMESPACE]/RESOURCE/NAME/proxy
    return "/".join(raw_path.split("/")[: parts + 1])


def request_headers(call: Call) -> CIMultiDict[str]:
    """What the backend is told: the client's headers without those of the hop and of its login."""
    request = call.request
    named = {n.strip().lower() for n in request.headers.get("Connection", "").split(",")}
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in HOP_BY_HOP or lower in named or lower == "authorization" or lower.startswith("impersonate-"):
            continue
        headers.add(name, value)
    peer = request.transport.get_extra_info("peername") if request.transport else None
    address = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
    before = headers.popall("X-Forwarded-For", [])
    headers["X-Forwarded-For"] = ", ".join([*before, address])
    headers["X-Forwarded-Uri"] = request.raw_path.partition("?")[0]
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    headers["X-Forwarded-Proto"] = "https" if request.secure else "http"
    return headers


# ---------------------------------------------------------------- passing on


class DoorConnector(aiohttp.BaseConnector):
    """Connections of one request, made through a node's door."""

    def __init__(self, dialer: NodeDialer, place: Place) -> None:
        super().__init__(force_close=True)
        self.dialer = dialer
        self.place = place

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        place = self.place
        door = await dial(self.dialer, place.node, f"tcp {place.host} {place.port}")
        loop = asyncio.get_running_loop()
        secure: dict[str, Any] = {"ssl": lenient(), "server_hostname": ""} if place.scheme == "https" else {}
        try:
            _, protocol = await loop.create_unix_connection(self._factory, sock=door, **secure)
        except BaseException:
            door.close()
            raise
        return protocol


def lenient() -> ssl.SSLContext:
    """TLS to backends: their certificates name nobody we could know."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def unreachable(why: object) -> ApiError:
    return ServiceUnavailable(f"error trying to reach service: {why}")


async def pass_on(call: Call, place: Place, dialer: NodeDialer) -> web.StreamResponse:
    """Send the client's request to its place and the answer back. Raises ServiceUnavailable if it cannot be had."""
    request = call.request
    if "upgrade" in request.headers.get("Connection", "").lower() and request.headers.get("Upgrade"):
        return await pass_upgrade(call, place, dialer)
    query = request.raw_path.partition("?")[2]
    url = URL(f"{place.scheme}://{place.authority}{place.target(query)}", encoded=True)
    headers = request_headers(call)
    async with aiohttp.ClientSession(
        connector=DoorConnector(dialer, place),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=MOST_HEAD_BYTES,
        max_field_size=MOST_HEAD_BYTES,
    ) as session:
        body = request.content if request.body_exists else None
        try:
            answer = await session.request(request.method, url, headers=headers, data=body, allow_redirects=False)
        except NodeRefused as refused:
            raise unreachable(refused.message) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(str(error) or "EOF") from None
        async with answer:
            return await pass_back(call, place, answer)


async def pass_back(call: Call, place: Place, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Give the backend's answer to the client."""
    request = call.request
    prefix = proxy_prefix(call.target, request.raw_path.partition("?")[0])
    hosts = (place.authority, request.headers.get("Host", ""))
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    named = {n.strip().lower() for n in answer.headers.get("Connection", "").split(",")}
    for name, value in answer.headers.items():
        lower = name.lower()
        if lower in HOP_BY_HOP or lower in named:
            continue
        if lower in ("location", "content-location"):
            value = rewrite_link(value, prefix, hosts)
        response.headers.add(name, value)
    response.headers.setdefault("Audit-Id", call.id)
    response.headers.setdefault("Cache-Control", "no-cache, private")
    bodiless = request.method == "HEAD" or answer.status in (204, 304) or answer.status < 200
    try:
        page, whole = b"", False
        if not bodiless and answer.headers.get("Content-Type", "").partition(";")[0].strip() == "text/html":
            page, whole = await beginning(answer)
            if whole:
                packed = answer.headers.get("Content-Encoding", "").lower() == "gzip"
                page = rewritten(page, packed=packed, prefix=prefix, hosts=hosts)
                response.content_length = len(page)
        if not bodiless and "Content-Length" not in response.headers:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if page:
            await response.write(page)
        if not bodiless and not whole:
            async for piece in answer.content.iter_any():
                await response.write(piece)
        await response.write_eof()
    except aiohttp.ClientError:
        if not response.prepared:
            raise unreachable("unexpected EOF") from None
        response.force_close()
        if request.transport is not None:
            request.transport.abort()  # the client must not take half an answer for a whole one
    except ConnectionError:
        pass
    return response


async def beginning(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """What of a page is read at once, and whether that is all: a page too large is left to flow by."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MOST_HTML_BYTES:
            return b"".join(pieces), False
    return b"".join(pieces), True


def rewritten(page: bytes, *, packed: bool, prefix: str, hosts: Iterable[str]) -> bytes:
    """A page with its links rewritten; packed pages are unpacked and packed again. Pure."""
    if not packed:
        return rewrite_html(page, prefix, hosts)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unpacker.decompress(page, MOST_HTML_BYTES)
    except zlib.error:
        return page
    if unpacker.unconsumed_tail or not unpacker.eof:
        return page
    return gzip.compress(rewrite_html(plain, prefix, hosts), compresslevel=1, mtime=0)


async def pass_upgrade(call: Call, place: Place, dialer: NodeDialer) -> web.StreamResponse:
    """Pass on a request that wants to leave HTTP, such as a WebSocket: after its head, bytes flow as they come."""
    request = call.request
    if request.body_exists and request.content_length:
        raise BadRequest("a request that asks for an upgrade cannot have a body")
    headers = request_headers(call)
    headers["Connection"] = "Upgrade"
    headers["Upgrade"] = request.headers["Upgrade"]
    headers.popall("Content-Length", None)
    try:
        door = await dial(dialer, place.node, f"tcp {place.host} {place.port}")
        secure: dict[str, Any] = {"ssl": lenient(), "server_hostname": ""} if place.scheme == "https" else {}
        far = Stream(*await asyncio.open_unix_connection(sock=door, limit=MOST_HEAD_BYTES, **secure))
    except NodeRefused as refused:
        raise unreachable(refused.message) from None
    except OSError as error:
        raise unreachable(error) from None
    try:
        lines = [f"{request.method} {place.target(request.raw_path.partition('?')[2])} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            far.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
            head = await far.reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise unreachable("the backend did not answer the upgrade") from None
        near = take_over(request)
        try:
            near.writer.write(head)
            await join(near, far)
        finally:
            near.writer.close()
    finally:
        far.writer.close()
    return TakenOver(status=101)


async def join(near: Stream, far: Stream) -> None:
    """Carry bytes both ways until one side has ended: what follows an upgrade has no half-closes."""
    tasks = [asyncio.create_task(carry(s.reader, t.writer)) for s, t in ((near, far), (far, near))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    pieces: AsyncIterator[bytes] = bytes_of(source)
    async for piece in pieces:
        sink.write(piece)
        await sink.drain()
