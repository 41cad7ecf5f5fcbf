"""Asking admission webhooks: mutating ones in turn, and again where another changed the object after them; validating
ones all at once. Servers that have no webhook configuration pay one comparison per write."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kubesvc.api.decode import decode_plain
from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import (
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    NODE,
    SERVICE,
    VALIDATING_WEBHOOK_CONFIGURATION,
)
from kubesvc.api.meta import Object
from kubesvc.clock import Random

from . import jsonpatch, refusals
from .authentication import requester
from .bookkeeping import new_uid
from .cache import Cache, Event
from .nodedoors import NodeDialer, NodeRefused, dial
from .patience import patiently
from .storage import decode
from .webhooks import Asked, BadAnswer, Verdict, aim, denial_of, failure_of, review_of, verdict_of

if TYPE_CHECKING:
    from kubesvc.api.cel.kubernetes import Judge
    from kubesvc.api.policyexpressions import Compiled

log = logging.getLogger("kubesvc.apiserver")

MOST_ANSWER_BYTES = 4 << 20
DEFAULT_SECONDS = 10
MOST_CONDITIONS = 1024
_json = msgspec.json.Encoder()


class Where(NamedTuple):
    """Where a webhook listens. `node`: through whose door it is reached, "" for directly."""

    host: str
    port: int
    path: str
    name: str
    node: str = ""


class Unreachable(Exception):
    """A webhook could not be asked; the text says why."""


class Aimed(NamedTuple):
    """A webhook, and the kind as which it is told of a write."""

    webhook: Object
    kind: Kind


async def unconverted(kind: Kind, wanted: Kind, obj: Object) -> Object:
    raise NotImplementedError(f"nobody converts {kind.resource}")


class Webhooks:
    """All webhooks of a server. `dialer`: the way into nodes, behind which Services answer."""

    def __init__(self, cache: Cache, random: Random) -> None:
        self.cache = cache
        self.random = random
        self.dialer: NodeDialer | None = None
        self.known: dict[Kind, tuple[Object, ...]] = {}
        self.conditions: dict[bytes, list[tuple[str, Compiled]]] = {}
        """Compiled match conditions, by their text."""
        self.authority: Judge | None = None
        """Whom match conditions ask about who may do what."""
        self.convert = unconverted
        """Makes an object of one kind one of another version of it."""
        for kind in (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION):
            cache.of(kind).sinks.append(self.forget(kind))

    def forget(self, kind: Kind) -> Callable[[list[Event]], None]:
        def sink(_: list[Event]) -> None:
            self.known.pop(kind, None)

        return sink

    def webhooks(self, kind: Kind) -> tuple[Object, ...]:
        """The webhooks of all configurations of a kind, in order of the configurations' names."""
        found = self.known.get(kind)
        if found is None:
            items = [decode(i.value, i.revision) for i in self.cache.of(kind).select()]
            found = self.known[kind] = tuple(w for c in items for w in c.get("webhooks") or ())
        return found

    @property
    def idle(self) -> bool:
        """Whether there is nobody to ask."""
        return not (self.webhooks(MUTATING_WEBHOOK_CONFIGURATION) or self.webhooks(VALIDATING_WEBHOOK_CONFIGURATION))

    def asked_about(self, kind: Kind, asked: Asked) -> list[Aimed]:
        found = self.webhooks(kind)
        if not found:
            return []
        labels: dict[str, str] | None = None
        if asked.kind is NAMESPACE:
            obj = asked.new if asked.new is not None else asked.old
            labels = ((obj or {}).get("metadata") or {}).get("labels") or {}
        elif asked.kind.namespaced:
            item = self.cache.of(NAMESPACE).get("", asked.namespace)
            labels = dict(item.labels) if item is not None else {}
        aimed = ((w, aim(w, asked, labels)) for w in found)
        return [Aimed(w, kind) for w, kind in aimed if kind is not None]

    # ------------------------------------------------------------------ asking

    async def seen_as(self, asked: Asked, kind: Kind) -> Asked:
        """A write as one of another version of its kind."""
        if kind is asked.kind:
            return asked
        new, old = [None if o is None else await self.convert(asked.kind, kind, o) for o in (asked.new, asked.old)]
        return asked._replace(seen_as=kind, new=new, old=old)

    async def mutate(self, asked: Asked, warnings: list[str]) -> Object | None:
        """The new object as mutating webhooks want it; None if none changed anything. Raises what they refuse with."""
        found = self.asked_about(MUTATING_WEBHOOK_CONFIGURATION, asked)
        current = asked
        again: list[Aimed] = []
        changed_by: Aimed | None = None
        for webhook in found:
            after = await self.change(webhook, current, warnings)
            if after is not None:
                current, changed_by = current._replace(new=after), webhook
                # Whoever was asked before may want to see what became of the object.
                seen = found[: found.index(webhook)]
                again += [w for w in seen if w.webhook.get("reinvocationPolicy") == "IfNeeded" and w not in again]
        for webhook in again:
            if webhook is not changed_by:
                after = await self.change(webhook, current, warnings)
                current = current._replace(new=after) if after is not None else current
        return current.new if current is not asked else None

    async def change(self, aimed: Aimed, asked: Asked, warnings: list[str]) -> Object | None:
        seen = await self.seen_as(asked, aimed.kind)
        if not await self.wanted(aimed.webhook, seen):
            return None
        verdict = await self.ask(aimed.webhook, seen, warnings, mutating=True)
        if verdict is None or not verdict.patch or seen.new is None:
            return None
        typed = {"apiVersion": aimed.kind.api_version, "kind": aimed.kind.name, **seen.new}
        try:
            patched = jsonpatch.apply(typed, verdict.patch)
            if aimed.kind is not asked.kind:
                patched = await self.convert(aimed.kind, asked.kind, patched)
            obj = decode_plain(patched, asked.kind, "Ignore").obj
        except (jsonpatch.PatchFailed, ApiError, RecursionError) as e:
            raise failure_of(aimed.webhook.get("name") or "", f"its patch cannot be applied: {e}") from None
        asked.kind.default(obj)
        return None if obj == asked.new else obj

    async def validate(self, asked: Asked, warnings: list[str]) -> None:
        """Ask the validating webhooks; the first refusal in their order is raised."""
        found = self.asked_about(VALIDATING_WEBHOOK_CONFIGURATION, asked)
        if not found:
            return
        answers = await asyncio.gather(*(self.judge(w, asked, warnings) for w in found), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def judge(self, aimed: Aimed, asked: Asked, warnings: list[str]) -> Verdict | None:
        seen = await self.seen_as(asked, aimed.kind)
        if not await self.wanted(aimed.webhook, seen):
            return None
        return await self.ask(aimed.webhook, seen, warnings, mutating=False)

    async def wanted(self, webhook: Object, asked: Asked) -> bool:
        """Whether a webhook's match conditions hold for a write that its rules name. Forbidden if they cannot be
        evaluated and the webhook must not be passed by."""
        given = webhook.get("matchConditions")
        if not given:
            return True
        from kubesvc.api.policyexpressions import CONDITIONS_BUDGET, conditions_of, environment, match

        from .policies import subject_of

        key = _json.encode(given)
        conditions = self.conditions.get(key)
        if conditions is None:
            if len(self.conditions) >= MOST_CONDITIONS:
                self.conditions.clear()
            conditions = self.conditions[key] = conditions_of(given, environment(policy=False))
        run = partial(match, conditions, subject_of(asked, self.authority).variables())
        found = await patiently(run, CONDITIONS_BUDGET)
        if found.error:
            if webhook.get("failurePolicy") != "Ignore":
                raise refusals.forbidden(asked.kind, asked.name, found.error)
            log.warning("webhook %s: %s: not asked", webhook.get("name"), found.error)
        return found.matches

    async def ask(self, webhook: Object, asked: Asked, warnings: list[str], *, mutating: bool) -> Verdict | None:
        """One webhook's verdict; None if it could not be asked and need not be. ApiError if it refuses."""
        name = webhook.get("name") or ""
        if asked.dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise ApiError(f'admission webhook "{name}" does not support dry run', code=400, reason="BadRequest")
        uid = new_uid(self.random)
        versions = webhook.get("admissionReviewVersions") or ["v1"]
        review = review_of(asked, uid, requester.get(), "v1" if "v1" in versions else str(versions[0]))
        try:
            raw = await self.call(webhook, _json.encode(review))
            verdict = verdict_of(raw, uid, mutating=mutating)
        except (Unreachable, BadAnswer) as e:
            if webhook.get("failurePolicy") == "Ignore":
                log.warning("webhook %s: %s: ignored", name, e)
                return None
            raise failure_of(name, f"failed to call webhook: {e}") from None
        warnings += [w for w in verdict.warnings if w not in warnings]
        if not verdict.allowed:
            raise denial_of(name, verdict.status)
        return verdict

    # ------------------------------------------------------------------ the wire

    async def call(self, webhook: Object, body: bytes) -> bytes:
        """Post a review; the answer's body. Raises Unreachable."""
        config = webhook.get("clientConfig") or {}
        seconds = webhook.get("timeoutSeconds") or DEFAULT_SECONDS
        where = self.where(config)
        where = where._replace(path=f"{where.path}?timeout={seconds}s")
        url = f"https://{where.name}:{where.port}{where.path}"
        try:
            async with asyncio.timeout(seconds):
                return await post(where, trusting(config.get("caBundle") or ""), body, self.dialer)
        except TimeoutError:
            raise Unreachable(f'Post "{url}": context deadline exceeded') from None
        except (OSError, NodeRefused, ValueError, EOFError) as e:
            raise Unreachable(f'Post "{url}": {e}') from None

    def where(self, config: Object) -> Where:
        """The place of a client configuration: a URL, or a Service by its cluster address."""
        service = config.get("service")
        if not service:
            from urllib.parse import urlsplit

            parts = urlsplit(config.get("url") or "")
            host = parts.hostname or ""
            return Where(host, parts.port or 443, parts.path or "/", host)
        namespace, name = service.get("namespace") or "", service.get("name") or ""
        item = self.cache.of(SERVICE).get(namespace, name)
        if item is None:
            raise Unreachable(f'service "{name}" not found')
        spec = decode(item.value, item.revision).get("spec") or {}
        address = spec.get("clusterIP") or ""
        node = ""
        if self.dialer is not None:
            node = next((i.name for i in self.cache.of(NODE).select()), "")
        path = service.get("path") or "/"
        return Where(address, service.get("port") or 443, path, f"{name}.{namespace}.svc", node)


@lru_cache(maxsize=64)
def trusting(ca_bundle: str) -> ssl.SSLContext:
    """TLS that trusts the bundle alone (base64 of PEM), or whom the machine trusts; ValueError for a bad bundle.

    Remembered: reading the machine's certificates stops everything for twenty milliseconds.
    """
    import base64

    if not ca_bundle:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=base64.b64decode(ca_bundle).decode())
    except (ValueError, ssl.SSLError) as e:
        raise ValueError(f"unable to load root certificates: {e}") from None


async def post(where: Where, context: ssl.SSLContext, body: bytes, dialer: NodeDialer | None) -> bytes:
    """Post JSON over TLS and read the answer; OSError, NodeRefused, ValueError for an answer that is not a 200."""
    arguments: dict[str, Any] = {"ssl": context, "server_hostname": where.name, "limit": MOST_ANSWER_BYTES}
    if where.node and dialer is not None:
        door: socket.socket = await dial(dialer, where.node, f"tcp {where.host} {where.port}")
        reader, writer = await asyncio.open_unix_connection(sock=door, **arguments)
    else:
        reader, writer = await asyncio.open_connection(where.host, where.port, **arguments)
    try:
        head = (
            f"POST {where.path} HTTP/1.1\r\nHost: {where.name}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            "User-Agent: kube-apiserver-admission\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        status, headers = await read_head(reader)
        answer = await read_answer(reader, headers)
    finally:
        writer.close()
    if status != 200:
        raise ValueError(f"an error on the server ({answer[:200].decode(errors='replace')!r}), status {status}")
    return answer


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise ValueError(f"malformed HTTP response {first[:60]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(parts[1]), {k.strip().lower(): v.strip() for k, _, v in pairs}


async def read_answer(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body of an answer, at most MOST_ANSWER_BYTES."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        out = bytearray()
        while size := int((await reader.readline()).partition(b";")[0], 16):
            if size < 0 or len(out) + size > MOST_ANSWER_BYTES:
                raise ValueError("its answer is too long")
            out += await reader.readexactly(size)
            await reader.readline()
        return bytes(out)
    if "content-length" in headers:
        length = int(headers["content-length"])
        if not 0 <= length <= MOST_ANSWER_BYTES:
            raise ValueError("its answer is too long")
        return await reader.readexactly(length)
    out = bytearray()
    while chunk := await reader.read(1 << 16):
        out += chunk
        if len(out) > MOST_ANSWER_BYTES:
            raise ValueError("its answer is too long")
    return bytes(out)
