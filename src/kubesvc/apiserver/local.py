"""The in-process client: the `Client` protocol straight on the registry, without HTTP, trusted as admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from kubesvc.api.decode import decode_plain
from kubesvc.api.errors import BadRequest, MethodNotAllowed, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, metadata
from kubesvc.client.interface import Answer, Client, PatchType, RawList, WatchEvent
from kubesvc.clock import rfc3339

from .apply import Applied, apply_patch
from .negotiation import PLAIN
from .options import DeleteOptions, ListOptions, WriteOptions, selectors
from .patches import patch_object
from .registry import Change, Registry
from .results import Written, base_of, render
from .routing import NO_METHOD, NO_RESOURCE
from .storage import shown
from .subresources import BINDING, EVICTION, SCALE, TOKEN_REQUEST, Subresources, scale_of
from .watching import Lines, open_watch

BODIES = {"binding": BINDING, "eviction": EVICTION, "token": TOKEN_REQUEST, "scale": SCALE}


class LocalClient(Client):
    """Reads and writes objects of one registry under a field manager's name."""

    def __init__(self, registry: Registry, subresources: Subresources, manager: str = "kubesvc") -> None:
        self.registry = registry
        self.subresources = subresources
        self.manager = manager
        self.options = WriteOptions(manager=manager, validation="Ignore", trusted=True)

    def as_manager(self, manager: str) -> Client:
        return LocalClient(self.registry, self.subresources, manager)

    def known(self, kind: Kind) -> Kind:
        """The kind as this server has it: callers may know no more of a custom one than its name. NotFound."""
        if kind.schema:
            return kind
        found = self.registry.kinds.same(kind)
        if found is None:
            raise NotFound(NO_RESOURCE)
        return found

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        kind = self.known(kind)
        item = await self.registry.get(kind, namespace, name)
        obj = shown(kind, item.value, item.revision)
        if subresource == "scale":
            return scale_of(obj, kind)
        return kind.from_stored(obj) if kind.stored else obj

    async def list_raw(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> RawList:
        kind = self.known(kind)
        labels, found = selectors(kind, label_selector, field_selector)
        options = ListOptions(
            labels=labels, fields=found, resource_version=resource_version, limit=limit, continue_token=continue_token
        )
        page = await self.registry.list_page(kind, namespace, options)
        items = [render(kind, i.value, i.revision) for i in page.items]
        return RawList(str(page.revision), items, page.continue_token)

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        initial_events: bool = False,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        kind = self.known(kind)
        labels, found = selectors(kind, label_selector, field_selector)
        options = ListOptions(
            labels=labels,
            fields=found,
            resource_version=resource_version,
            match="NotOlderThan" if initial_events else "",
            initial_events=True if initial_events else None,
            bookmarks=bookmarks,
        )
        registry, clock = self.registry, self.registry.clock
        plan = await open_watch(registry, kind, namespace, options)
        watcher, lines = plan.watcher, Lines(PLAIN, kind, "", registry)
        view = kind is not base_of(kind) or kind.custom is not None
        try:
            initial, plan.initial = plan.initial, []
            await registry.conversions.ready(kind, [i.value for i in initial])
            for item in initial:
                yield WatchEvent("ADDED", render(kind, item.value, item.revision))
            del initial
            if plan.announces:
                yield WatchEvent("BOOKMARK", lines.bookmark_object(plan.revision, initial_end=True))
            end = clock.monotonic() + timeout_seconds if timeout_seconds else None
            while not watcher.overrun and not (watcher.closed and not watcher.queue):
                taken = watcher.take()
                if kind.custom is not None:
                    await registry.conversions.ready(kind, [lines.seen_item(event).value for event in taken])
                for event in taken:
                    if view:
                        item = lines.seen_item(event)
                        yield WatchEvent(event.type, render(kind, item.value, item.revision))
                    else:
                        yield WatchEvent(event.type, event.object())
                if watcher.queue:
                    continue
                wait = registry.settings.bookmark_seconds
                if end is not None:
                    wait = min(wait, end - clock.monotonic())
                    if wait <= 0:
                        return
                await watcher.wait(wait)
                if bookmarks and not watcher.queue and not watcher.awake:
                    yield WatchEvent("BOOKMARK", lines.bookmark_object(registry.cache.revision))
        finally:
            watcher.close()

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        kind = self.known(kind)
        await asyncio.sleep(0)  # a store in memory never waits: let others have their turn
        namespace = namespace or (metadata(dict(obj)).get("namespace") or "")
        if subresource:
            body = decode_plain(obj, BODIES[subresource], "Ignore").obj
            if subresource == "binding":
                return await self.subresources.bind(kind, namespace, name, body, self.options, [])
            if subresource == "eviction":
                return await self.subresources.evict(namespace, name, body, self.options)
            if subresource == "token":
                return await self.subresources.token(kind, namespace, name, body, [])
            raise MethodNotAllowed(NO_METHOD)
        body = decode_plain(obj, kind, "Ignore").obj
        return answered(await self.registry.create(kind, namespace, body, self.options, []))

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        kind = self.known(kind)
        await asyncio.sleep(0)
        meta = obj.get("metadata") or {}
        name, namespace = meta.get("name") or "", meta.get("namespace") or ""
        if subresource == "scale":
            scale = decode_plain(obj, SCALE, "Ignore").obj
            return await self.subresources.put_scale(kind, namespace, name, scale, self.options, [])
        body = decode_plain(obj, kind, "Ignore").obj
        if subresource == "finalize":
            return (await self.subresources.finalize(kind, name, body, self.options, [])).object()
        if subresource not in ("", "status", "approval"):
            raise NotFound(NO_RESOURCE)
        written = await self.registry.update(kind, namespace, name, body, self.options, [], subresource=subresource)
        return answered(written)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Any,
        type: PatchType,
        *,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        kind = self.known(kind)
        await asyncio.sleep(0)
        registry, options = self.registry, self.options
        if subresource == "scale":
            if type == "apply":
                forced = replace(options, force=force)
                return await self.subresources.apply_scale(kind, namespace, name, patch, forced, [])
            return await self.subresources.patch_scale(kind, namespace, name, patch, type, options, [])
        if type == "apply":
            now = rfc3339(registry.clock.now())

            def merge(live: Object | None) -> Applied:
                return apply_patch(
                    live, patch, base_of(kind), options.manager, now, name=name, namespace=namespace, force=force,
                    subresource=subresource,
                )  # fmt: skip

            written = await registry.apply(kind, namespace, name, merge, options, [], subresource=subresource)
            return answered(written)

        def edit(live: Object) -> Object:
            seen = kind.from_stored(live) if kind.stored else live
            patched = patch_object(seen, patch, type, kind, "Ignore").obj
            if (patched.get("metadata") or {}).get("name") != name:
                raise BadRequest(f"the name of the object does not match the name on the URL ({name})")
            return kind.to_stored(patched) if kind.stored else patched

        change = Change(kind, namespace, name, edit, options, subresource, copies=True)
        written = await registry.change(change, [])
        return answered(written)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        kind = self.known(kind)
        await asyncio.sleep(0)
        options = DeleteOptions(
            grace_seconds=grace_seconds,
            propagation=propagation,
            uid=uid or None,
            resource_version=resource_version or None,
            manager=self.manager,
        )
        done = await self.registry.delete(kind, namespace, name, options)
        return done.object() if done.answers_object() else done.status()

    async def delete_collection(
        self, kind: Kind, namespace: str, *, label_selector: str = "", grace_seconds: int | None = None
    ) -> None:
        kind = self.known(kind)
        labels, found = selectors(kind, label_selector, "")
        options = DeleteOptions(grace_seconds=grace_seconds, manager=self.manager)
        await self.registry.delete_collection(kind, namespace, ListOptions(labels=labels, fields=found), options)


def answered(written: Written) -> Answer:
    """What a client that writes is told."""
    return Answer(written.object(), len(written.value))
