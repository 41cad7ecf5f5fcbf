"""Watch requests: a stream of JSON lines from a `Watcher` to a client (WATCH)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
from aiohttp import web

from kubesvc.api.errors import ApiError, BadRequest, TooManyRequests
from kubesvc.api.kind import Kind
from kubesvc.api.selectors import FieldRequirement, FieldSelector
from kubesvc.client.metrics import Histogram
from kubesvc.clock import Clock

from . import refusals
from .cache import Item
from .calls import Call, status_object
from .metrics import EVENT_BUCKETS
from .negotiation import Form
from .options import ListOptions, first, list_options
from .registry import Registry
from .results import base_of, render
from .streams import Seen, Selection, Watcher
from .tables import check_include, partial, row, table

CHECK_SECONDS = 5.0
"""How often an idle stream looks whether its client is still there."""
CHUNK_BYTES = 512 * 1024
"""Of the events that begin a stream, so many go out at a time."""
EARLY_BOOKMARK_SECONDS = 2.0
LEAST_SECONDS, MOST_SECONDS = 1800, 3600

EMPTY_BODIES: dict[str, dict[str, Any]] = {
    "services": {"spec": {}, "status": {"loadBalancer": {}}},
    "pods": {"spec": {"containers": None}, "status": {}},
    "namespaces": {"spec": {}, "status": {}},
    "endpointslices.discovery.k8s.io": {"addressType": "", "endpoints": None, "ports": None},
}
"""What bookmarks show besides metadata: the fields that upstream never leaves out."""

_json = msgspec.json.Encoder()


class WatchPlan:
    """One watch from its beginning: which objects to tell first, and the stream that follows. Close the watcher."""

    def __init__(
        self, watcher: Watcher, initial: list[Item], options: ListOptions, revision: int, *, announces: bool
    ) -> None:
        self.watcher = watcher
        self.initial = initial
        self.options = options
        self.revision = revision
        self.announces = announces
        """Whether the initial events end with the annotated bookmark (WATCH-6)."""


async def open_watch(registry: Registry, kind: Kind, namespace: str, options: ListOptions) -> WatchPlan:
    """Begin a watch: from a revision, or with the present objects (WATCH-3 to WATCH-7). Raises Expired (WATCH-10)."""
    cache = registry.of(kind)
    if not registry.cache.loaded:
        raise TooManyRequests("storage is (re)initializing", retry_after_seconds=1)
    selection = Selection(cache, namespace, options.labels, options.fields)
    version = options.resource_version
    legacy = version in ("", "0") and options.initial_events is None and not options.match
    most = registry.settings.watch_buffer_events
    if options.initial_events or legacy:
        await registry.not_older_than(version, listing=True)
        found, revision = selection.candidates(cache), registry.cache.revision
        watcher = Watcher(cache, selection, most)
        try:
            initial = await selection.among(found)
        except BaseException:
            watcher.close()
            raise
        return WatchPlan(watcher, initial, options, revision, announces=options.bookmarks)
    if version in ("", "0"):
        revision = registry.cache.revision
    else:
        revision = refusals.version_of(version, listing=True)
    watcher = Watcher(cache, selection, most)
    if not watcher.replay(revision):
        watcher.close()
        raise refusals.too_old(revision, cache.oldest)
    return WatchPlan(watcher, [], options, revision, announces=False)


class WatchRequests:
    """Serves watches over HTTP."""

    def __init__(self, registry: Registry, clock: Clock, sizes: Histogram | None = None) -> None:
        self.registry = registry
        self.clock = clock
        self.open: set[Watcher] = set()
        self.sizes = sizes or Histogram(EVENT_BUCKETS)
        """Bytes of the events sent so far, by group, version and resource."""
        self.stopping = False

    def stop(self) -> None:
        """End all streams cleanly (WATCH-15, HEALTH-3)."""
        self.stopping = True
        for watcher in list(self.open):
            watcher.stop()

    async def handle(self, call: Call, kind: Kind) -> web.StreamResponse:
        """Answer a watch; errors of the request are raised, later ones become ERROR events (WATCH-11)."""
        options = list_options(kind, call.query, watch=True)
        target = call.target
        if target.name:  # the old form /watch/…/<name>
            if options.fields.requirements and options.fields.exact("metadata.name") != target.name:
                raise BadRequest("fieldSelector metadata.name doesn't match requested name")  # LIST-13
            if not options.fields.requirements:
                selector = FieldSelector((FieldRequirement("metadata.name", "=", target.name),))
                options = replace(options, fields=selector)
        namespace = target.namespace_of(kind)
        lines = Lines(call.form, kind, first(call.query, "includeObject"), self.registry)
        response = web.StreamResponse(headers=call.headers())
        response.content_type = "application/json"
        response.headers["Content-Type"] = call.form.media_type if call.form.format == "json" else "application/json"
        call.add_warnings(response)
        response.enable_chunked_encoding()
        try:
            plan = await open_watch(self.registry, kind, namespace, options)
        except ApiError as e:
            if e.status_code not in (410, 504):
                raise
            await response.prepare(call.request)
            await response.write(error_line(e))
            await response.write_eof()
            return response
        self.open.add(plan.watcher)
        transport = call.request.transport
        if transport is not None:
            plan.watcher.cut = transport.abort
        try:
            await response.prepare(call.request)
            if call.on_stream is not None:
                call.on_stream(response.status)
            if not self.stopping:
                await self._stream(call, response, plan, lines)
            await response.write_eof()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            self.open.discard(plan.watcher)
            plan.watcher.close()
        return response

    async def _stream(self, call: Call, response: web.StreamResponse, plan: WatchPlan, lines: Lines) -> None:
        watcher, options = plan.watcher, plan.options
        clock, settings = self.clock, self.registry.settings
        seconds = options.timeout_seconds
        if seconds is None or seconds <= 0:
            seconds = self.registry.random.randint(LEAST_SECONDS, MOST_SECONDS)
        end = clock.monotonic() + seconds
        what = (lines.kind.group, lines.kind.version, lines.kind.plural)
        initial, plan.initial = plan.initial, []
        if lines.kind.custom is not None and not await self.converted(response, lines.kind, [i.value for i in initial]):
            return
        first_lines: list[bytes] = []
        size = 0
        for item in initial:
            first_lines.append(lines.initial(item))
            size += len(first_lines[-1])
            if size >= CHUNK_BYTES:
                self.sizes.observe_all(map(len, first_lines), what)
                await response.write(b"".join(first_lines))
                await asyncio.sleep(0)
                first_lines, size = [], 0
        del initial
        self.sizes.observe_all(map(len, first_lines), what)
        if plan.announces:
            first_lines.append(lines.bookmark(plan.revision, initial_end=True))
        if first_lines:
            await response.write(b"".join(first_lines))
        sent = plan.revision
        bookmark_at = clock.monotonic() + settings.bookmark_seconds
        early = end - EARLY_BOOKMARK_SECONDS
        if options.bookmarks and clock.monotonic() < early < bookmark_at:
            bookmark_at = early
        wrote_at = 0.0
        while True:
            now = clock.monotonic()
            if now >= end or (watcher.closed and not watcher.queue):
                return
            if not watcher.queue and not watcher.overrun:
                wait = min(end, now + CHECK_SECONDS)
                if options.bookmarks:
                    wait = min(wait, bookmark_at)
                await watcher.wait(wait - now)
            if watcher.queue and (early_by := wrote_at + watcher.join_seconds - clock.monotonic()) > 0:
                await asyncio.sleep(early_by)
            transport = call.request.transport
            if transport is None or transport.is_closing() or watcher.overrun:
                return
            taken = watcher.take()
            if taken:
                wrote_at = clock.monotonic()
                sent = taken[-1].event.revision
                if lines.kind.custom is not None:
                    values = [lines.seen_item(seen).value for seen in taken]
                    if not await self.converted(response, lines.kind, values):
                        return
                told = [lines.event(seen) for seen in taken]
                self.sizes.observe_all(map(len, told), what)
                await response.write(b"".join(told))
            elif options.bookmarks and clock.monotonic() >= bookmark_at:
                bookmark_at = clock.monotonic() + settings.bookmark_seconds
                if early > clock.monotonic():
                    bookmark_at = min(bookmark_at, early)
                sent = max(sent, self.registry.cache.revision)
                await response.write(lines.bookmark(sent))

    async def converted(self, response: web.StreamResponse, kind: Kind, values: list[bytes]) -> bool:
        """Have objects at hand in the watched version; if its webhook fails, the stream ends with that error."""
        try:
            await self.registry.conversions.ready(kind, values)
        except ApiError as e:
            await response.write(error_line(e))
            return False
        return True


def error_line(error: ApiError) -> bytes:
    """The ERROR event that ends a stream (WATCH-10)."""
    return b'{"type":"ERROR","object":%s}\n' % _json.encode(status_object(error))


class Lines:
    """Turns events into lines in the form one client asked for; shared lines where it asked for nothing special."""

    def __init__(self, form: Form, kind: Kind, include: str, registry: Registry) -> None:
        self.form = form
        self.kind = kind
        self.base = base_of(kind)
        self.registry = registry
        self.include = check_include(include) if form.as_kind == "Table" else ""
        self.columns_sent = False

    def initial(self, item: Item) -> bytes:
        return b'{"type":"ADDED","object":%s}\n' % self._object(render(self.kind, item.value, item.revision), item)

    def event(self, seen: Seen) -> bytes:
        if not self.form.as_kind and (self.kind is self.base if self.kind.custom is None else self.current(seen)):
            return seen.line()
        item = self.seen_item(seen)
        body = render(self.kind, item.value, item.revision)
        return b'{"type":"%s","object":%s}\n' % (seen.type.encode(), self._object(body, item))

    def current(self, seen: Seen) -> bool:
        """Whether an event's own line is in the form of this custom kind's version."""
        return seen.event.new.kind is self.kind

    def seen_item(self, seen: Seen) -> Item:
        """The object of an event: of one that ceased to match, its old content under the new revision (WATCH-12)."""
        if seen.type == "DELETED" and seen.event.type != "DELETED" and seen.event.old is not None:
            return Item(self.base, seen.event.key, seen.event.old.value, seen.event.revision)
        return seen.event.new

    def _object(self, body: bytes, item: Item) -> bytes:
        if not self.form.as_kind:
            return body
        version = self.form.as_version
        if self.form.as_kind != "Table":
            return partial(body, version)
        now = self.registry.clock.now()
        text = table(
            self.kind,
            {"resourceVersion": str(item.revision)},
            [row(self.kind, item, body, self.include, now, version)],
            version,
            columns=not self.columns_sent,
        )
        self.columns_sent = True
        return text

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        """The line of a bookmark (WATCH-6, WATCH-8)."""
        return b'{"type":"BOOKMARK","object":%s}\n' % self.bookmark_object(revision, initial_end=initial_end)

    def bookmark_object(self, revision: int, *, initial_end: bool = False) -> bytes:
        """The object of a bookmark, encoded."""
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self.form.as_kind == "Table":
            row: dict[str, Any] = {"cells": [], "object": None}
            partial_object: dict[str, Any] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self.form.as_version}",
                "metadata": metadata,
            }
            row["object"] = partial_object
            obj: dict[str, Any] = {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self.form.as_version}",
                "metadata": metadata,
                "columnDefinitions": [],
                "rows": [row],
            }
        elif self.form.as_kind:
            obj = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self.form.as_version}",
                "metadata": metadata,
            }
        else:
            obj = {"kind": self.kind.name, "apiVersion": self.kind.api_version, "metadata": metadata}
            if self.kind.custom is not None:
                obj = dict(sorted(obj.items()))
            obj.update(EMPTY_BODIES.get(self.kind.resource, {}))
        return _json.encode(obj)
