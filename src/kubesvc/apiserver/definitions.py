"""CustomResourceDefinitions at work: which custom kinds are served, their conditions, and their end.

Everything follows from the cache, so that a server serves a kind whoever made it: another server of the same store, or
this one before its last start. A definition is served once it is Established. Its conditions and its removal are
written by whichever server comes first; the others find nothing left to do.
"""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.customkind import custom_kinds
from kubesvc.api.customresourcedefinition import (
    CLEANUP,
    CUSTOM_RESOURCE_DEFINITION,
    condition_of,
    plan_status,
    set_condition,
)
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client
from kubesvc.clock import Clock, rfc3339
from kubesvc.store import StoreError

from .cache import Cache, Event, Item, KindCache
from .kindset import KindSet
from .storage import decode

log = logging.getLogger("kubesvc.apiserver")

AGAIN_SECONDS = 0.5
"""When a definition is looked at again that could not be finished."""


class Definitions:
    """Keeps the set of kinds in line with the definitions in the cache."""

    def __init__(self, cache: Cache, kinds: KindSet, client: Client, clock: Clock) -> None:
        self.cache = cache
        self.kinds = kinds
        self.client = client
        self.clock = clock
        self.served: dict[str, tuple[object, tuple[Kind, ...]]] = {}
        """By name of the definition: what its kinds were made from, and all of them, the stored version first."""
        self.names: dict[str, Object] = {}
        """By name of the definition: as much of it as others need to know, its group and accepted names."""
        self.dirty: dict[str, None] = {}
        self.wake = asyncio.Event()

    @property
    def stored(self) -> KindCache:
        return self.cache.of(CUSTOM_RESOURCE_DEFINITION)

    # ------------------------------------------------------------------ what is served

    def start(self) -> None:
        """Serve what is stored; call it when the cache is loaded, before any request is answered."""
        if CUSTOM_RESOURCE_DEFINITION not in self.cache.kinds:
            return
        for item in self.stored.select():
            self.changed(item)
        self.stored.sinks.append(self.sink)

    def sink(self, events: list[Event]) -> None:
        for event in events:
            if event.type == "DELETED":
                self.names.pop(event.new.name, None)
                self.withdraw(event.new.name)
            else:
                self.changed(event.new)

    def changed(self, item: Item) -> None:
        """Serve a definition as it is now."""
        definition = decode(item.value, item.revision)
        name = definition["metadata"]["name"]
        accepted = (definition.get("status") or {}).get("acceptedNames")
        self.names[name] = {
            "spec": {"group": definition["spec"].get("group")},
            "status": {"acceptedNames": accepted},
        }
        self.mark(name)
        if not condition_of(definition, "Established", "True"):
            if name in self.served:
                self.withdraw(name)
            return
        basis = (definition["metadata"]["uid"], definition["spec"], definition["status"].get("acceptedNames"))
        if name not in self.served or self.served[name][0] != basis:
            kinds = custom_kinds(definition)
            known = {v["name"] for v in definition["spec"]["versions"] if v.get("served")}
            self.served[name] = (basis, kinds)
            self.kinds.change(name, [k for k in kinds if k.version in known])
            self.cache.adopt(kinds[0])
        if condition_of(definition, "Terminating", "True"):
            for kind in self.served[name][1]:
                assert kind.custom is not None
                kind.custom.terminating = True

    def withdraw(self, name: str) -> None:
        """Serve a definition no more."""
        found = self.served.pop(name, None)
        if found is not None:
            self.kinds.change(name, ())
            self.cache.abandon(found[1][0])
        for item in self.stored.select():  # whose names were taken until now
            if item.name != name and b'"NamesAccepted","status":"False"' in item.value:
                self.mark(item.name)

    def mark(self, name: str) -> None:
        self.dirty[name] = None
        self.wake.set()

    # ------------------------------------------------------------------ conditions, and the end

    async def run(self) -> None:
        """Write conditions and clear up, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self.wake.wait()
            self.wake.clear()
            dirty, self.dirty = self.dirty, {}
            for name in dirty:
                try:
                    done = await self.reconcile(name)
                except (ApiError, StoreError) as e:
                    log.debug("customresourcedefinition %s: %s", name, e)
                    done = False
                except Exception:
                    log.exception("customresourcedefinition %s", name)
                    done = False
                if not done:
                    loop.call_later(AGAIN_SECONDS, self.mark, name)

    async def reconcile(self, name: str) -> bool:
        """Bring one definition on; whether nothing is left to do for now."""
        item = self.stored.get("", name)
        if item is None:
            return True
        definition = decode(item.value, item.revision)
        others = [known for other, known in self.names.items() if other != name]
        status = plan_status(definition, others, rfc3339(self.clock.now()))
        if status is not None:
            await self.write(definition, status)
        if definition["metadata"].get("deletionTimestamp") and CLEANUP in definition["metadata"].get("finalizers", ()):
            return await self.clear(name)
        return True

    async def write(self, definition: Object, status: Object) -> None:
        meta = definition["metadata"]
        body = {**definition, "metadata": {**meta}, "status": status}
        await self.client.update(CUSTOM_RESOURCE_DEFINITION, body, subresource="status")

    async def clear(self, name: str) -> bool:
        """Delete the objects of a definition that is being deleted; when none is left, let it go."""
        found = self.served.get(name)
        if found is not None:
            kind = found[1][0]
            served = next((k for k in found[1] if self.kinds.same(k) is k), None)
            cache = self.cache.of(kind)
            if cache.items and served is not None:
                for namespace in sorted({i.namespace for i in cache.items.values()}):
                    await self.client.delete_collection(served, namespace)
            if cache.items and served is not None:
                await self.tell_waiting(name)
                return False
        live = await self.client.get(CUSTOM_RESOURCE_DEFINITION, name)
        now = rfc3339(self.clock.now())
        set_condition(live, now, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
        if condition_of(live, "Established", "True"):
            await self.client.update(CUSTOM_RESOURCE_DEFINITION, live, subresource="status")
            live = await self.client.get(CUSTOM_RESOURCE_DEFINITION, name)
        live["metadata"]["finalizers"] = [f for f in live["metadata"].get("finalizers", ()) if f != CLEANUP]
        try:
            await self.client.update(CUSTOM_RESOURCE_DEFINITION, live)
        except NotFound:
            pass
        return True

    async def tell_waiting(self, name: str) -> None:
        live = await self.client.get(CUSTOM_RESOURCE_DEFINITION, name)
        before = live["status"].get("conditions")
        set_condition(
            live, rfc3339(self.clock.now()), "Terminating", "True", "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        )  # fmt: skip
        if live["status"]["conditions"] != before:
            await self.client.update(CUSTOM_RESOURCE_DEFINITION, live, subresource="status")
