"""One HTTP request under way, and how its answer is put together: formats, headers, warnings, Status errors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web

from kubesvc.api.errors import ApiError, BadRequest, RequestTooLarge
from kubesvc.api.goyaml import YamlError, resolve
from kubesvc.api.meta import Object

from .authentication import ANONYMOUS, User
from .negotiation import PLAIN, Form, Format, error_format, wants_pretty
from .options import Query, first
from .routing import NO_METHOD, NO_RESOURCE, Target
from .settings import MAX_BODY_BYTES

GZIP_FROM_BYTES = 128 * 1024
GZIP_FORM = zlib.MAX_WBITS | 16
WARNINGS_BUDGET = 4096
WARNING_CUT = 256
BARE_DETAILS = (NO_RESOURCE, NO_METHOD, "406: Not Acceptable", "415: Unsupported Media Type")
"""Messages of answers that carry an empty `details` (upstream makes them from the status code alone)."""

_json = msgspec.json.Encoder()


class Call:
    """A request with what is known of it so far. Made at its arrival, handed to whoever answers it."""

    __slots__ = (
        "annotations", "answered", "authenticated", "constraint", "decision", "failure", "form", "id", "on_stream",
        "peer", "query", "reason", "request", "sent", "target", "user", "warnings",
    )  # fmt: skip

    def __init__(self, request: web.BaseRequest, target: Target, query: Query, id: str, peer: User | None) -> None:
        """peer: who may ask here without saying who they are, None for nobody"""
        self.request = request
        self.target = target
        self.query = query
        self.id = id
        self.peer = peer
        self.user: User = ANONYMOUS
        self.authenticated: User | None = None
        """Who the request really comes from, where `user` is impersonated."""
        self.constraint = ""
        """The right by which `user` is impersonated, "" for the old one or for none."""
        self.form: Form = PLAIN
        self.sent = b""
        """The body, once it was read."""
        self.answered = b""
        """The JSON of the object that was answered, whatever form it went out in."""
        self.failure: ApiError | None = None
        self.decision = ""
        """What authorization decided: allow or forbid; "" if it was not asked."""
        self.reason = ""
        self.on_stream: Callable[[int], None] | None = None
        """Told the status when an answer begins that goes on, as a watch's does."""
        self.warnings: list[str] = []
        self.annotations: dict[str, str] = {}
        """What admission tells the audit log."""

    @property
    def accept(self) -> str:
        return ", ".join(self.request.headers.getall("Accept", ()))

    @property
    def user_agent(self) -> str:
        return self.request.headers.get("User-Agent", "")

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, "" if absent."""
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The request's body; RequestTooLarge beyond WRITE-11's limit."""
        length = self.request.content_length
        too_large = RequestTooLarge(f"Request entity too large: limit is {MAX_BODY_BYTES}")
        if length is not None and length > MAX_BODY_BYTES:
            raise too_large
        if not self.request.body_exists:
            return b""
        chunks, size = [], 0
        try:
            while True:
                chunk = await self.request.content.readany()
                if not chunk:
                    break
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise too_large
                chunks.append(chunk)
        except (web.RequestPayloadError, web.PayloadAccessError, ValueError) as e:
            raise BadRequest(f"unexpected end of the body: {type(e).__name__}") from None
        self.sent = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self.sent

    def headers(self) -> dict[str, str]:
        return {"Audit-Id": self.id, "Cache-Control": "no-cache, private"}

    # ------------------------------------------------------------------ answers

    def answer(self, body: bytes, status: int = 200, *, headers: Mapping[str, str] | None = None) -> web.Response:
        """Encoded JSON as the client wants it: YAML, indented, or compressed (TABLE-7, TABLE-8)."""
        return self.formatted(body, status, self.form.format, self.form.media_type, headers)

    def formatted(
        self, body: bytes, status: int, format: Format, media_type: str, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        self.answered = body
        if format == "yaml":
            body = to_yaml(body)
        elif not media_type.endswith("+protobuf") and self.pretty:
            body = msgspec.json.format(body, indent=2) + b"\n"
        response = web.Response(body=body, status=status, headers={**self.headers(), **(headers or {})})
        response.headers["Content-Type"] = media_type
        if len(body) >= GZIP_FROM_BYTES and self.takes_gzip:
            response.body = zlib.compress(body, 1, GZIP_FORM)
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Vary"] = "Accept-Encoding"
        self.add_warnings(response)
        return response

    def packed(self, body: bytes, media_type: str, headers: Mapping[str, str]) -> web.Response:
        """An answer that lies ready as gzip has it."""
        response = web.Response(body=body, headers={**self.headers(), **headers})
        response.headers.update({"Content-Type": media_type, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
        return response

    @property
    def pretty(self) -> bool:
        """Whether JSON is indented for this client (TABLE-7)."""
        return wants_pretty(first(self.query, "pretty") if "pretty" in self.query else None, self.user_agent)

    @property
    def plain(self) -> bool:
        """Whether the answer is compact JSON, which may be sent as it comes."""
        return self.form.format == "json" and not self.pretty

    async def stream(self, chunks: Iterator[bytes]) -> web.StreamResponse:
        """An answer of compact JSON from its pieces; if there is but one, as any other answer."""
        ready, following = next(chunks), next(chunks, None)
        if following is None:
            return self.answer(ready)
        if self.request.version < HttpVersion11:  # cannot be told where an answer of unknown length ends
            return self.answer(b"".join((ready, following, *chunks)))
        response = web.StreamResponse(headers=self.headers())
        response.headers["Content-Type"] = self.form.media_type
        press: Callable[[bytes], bytes] | None = None
        if self.takes_gzip:
            packer = zlib.compressobj(1, zlib.DEFLATED, GZIP_FORM)
            press = packer.compress
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Vary"] = "Accept-Encoding"
        self.add_warnings(response)
        response.enable_chunked_encoding()
        await response.prepare(self.request)
        while ready:
            piece = press(ready) if press is not None else ready
            if piece:
                await response.write(piece)
            await asyncio.sleep(0)  # a fast reader makes no write wait: others have their turn all the same
            ready, following = following or b"", next(chunks, None)
        if press is not None:
            await response.write(packer.flush())
        await response.write_eof()
        return response

    @property
    def takes_gzip(self) -> bool:
        return "gzip" in self.request.headers.get("Accept-Encoding", "")

    def object(self, obj: Any, status: int = 200) -> web.Response:
        return self.answer(_json.encode(obj), status)

    def text(self, text: str, status: int = 200) -> web.Response:
        response = web.Response(body=text.encode(), status=status, headers=self.headers())
        response.headers["Content-Type"] = "text/plain; charset=utf-8"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def error(self, error: ApiError) -> web.Response:
        """A Status (ERR-1), in YAML for YAML clients."""
        self.failure = error
        format = error_format(self.accept)
        response = self.formatted(
            _json.encode(status_object(error)), error.status_code, format, f"application/{format}"
        )
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        return response

    def add_warnings(self, response: web.StreamResponse) -> None:
        """WARN-1."""
        if not self.warnings:
            return
        for header in warning_headers(self.warnings):
            response.headers.add("Warning", header)


def warning_headers(texts: Iterable[str]) -> list[str]:
    """The Warning headers of these texts, each once (WARN-1).

    Together they hold so many characters; when one is too many for that, all are cut short, and what comes after is
    left out. What cannot stand in a header is left out too.
    """
    found: list[str] = []
    written, cutting = 0, False
    ordered: list[str] = []
    for text in dict.fromkeys(texts):
        if not text:
            continue
        if cutting and written >= WARNINGS_BUDGET:
            break
        ordered.append(text)
        shown = text[:WARNING_CUT] if cutting else text
        header = warning_header(shown)
        if header is None:
            continue
        if cutting or written + len(shown) <= WARNINGS_BUDGET:
            written += len(shown)
            found.append(header)
            continue
        cutting, kept = True, [(t[:WARNING_CUT], warning_header(t[:WARNING_CUT])) for t in ordered]
        found = [h for _, h in kept if h is not None]
        written = sum(len(t) for t, h in kept if h is not None)
    return found


def warning_header(text: str) -> str | None:
    """One header; None for a text with control characters, or half of one."""
    if any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text):
        return None
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def status_object(error: ApiError) -> Object:
    """The Status of an error; with empty details where upstream has them."""
    status = error.status()
    if "details" not in status and error.message.startswith(BARE_DETAILS):
        code = status.pop("code")
        status["details"], status["code"] = {}, code
    return status


def to_yaml(body: bytes) -> bytes:
    """The YAML of encoded JSON as upstream prints it: sorted keys, texts plain where they are read as texts, in double
    quotes where they would be taken for something else, and in lines where they have several."""
    import yaml

    text: str = yaml.dump(
        msgspec.json.decode(body), Dumper=dumper(), sort_keys=True, default_flow_style=False, allow_unicode=True,
        width=1_000_000_000,
    )  # fmt: skip
    return text.encode()


def not_a_text(plain: str) -> bool:
    """Whether a text without quotes would be read as something else."""
    try:
        return not isinstance(resolve(plain, True, None), str)
    except YamlError:  # a number that is none
        return True


@cache
def dumper() -> Any:
    """PyYAML's, in its C form if there, with styles of its own for texts."""
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    usual = base.yaml_implicit_resolvers
    found: Any = type("Dumper", (base,), {"ignore_aliases": lambda self, value: True})

    def styled(self: Any, text: str) -> Any:
        style: str | None = None
        if "\n" in text:
            style = "|"
        elif any(pattern.match(text) for _, pattern in usual.get(text[:1], ())) or not_a_text(text):
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    found.add_representer(str, styled)
    return found
