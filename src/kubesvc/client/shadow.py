"""A client that reads and never writes: what would be written is noted, and refused with `Withheld`.

Whoever writes through it sees the failures a server would answer first (an object that is gone, a name that is taken,
a version that has moved on), so what is noted is what would have happened. Reads are the cluster's own and never show
a noted write. Events are taken and forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.event import EVENT
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from .interface import Client, PatchType, RawList, WatchEvent

Verb = Literal["create", "update", "patch", "delete"]


class Withheld(ApiError):
    """The write was noted and not done."""

    reason = "Withheld"


@dataclass(frozen=True, slots=True)
class WantedWrite:
    """A write that was not done. found: the object as it is, None for a create; wanted: what would be sent."""

    verb: Verb
    kind: Kind
    namespace: str
    name: str
    found: Object | None
    wanted: Any


NOTES: ContextVar[list[WantedWrite] | None] = ContextVar("notes", default=None)
"""Where the running task's writes are noted; None: nowhere."""


class ShadowClient(Client):
    """`inner` for reading only. Writes are noted in the list that NOTES holds in the task that makes them."""

    def __init__(self, inner: Client) -> None:
        self.inner = inner

    def as_manager(self, manager: str) -> Client:
        return ShadowClient(self.inner.as_manager(manager))

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        return await self.inner.get(kind, name, namespace, subresource=subresource)

    async def list_raw(self, kind: Kind, namespace: str = "", **more: Any) -> RawList:
        return await self.inner.list_raw(kind, namespace, **more)

    def watch(self, kind: Kind, namespace: str = "", **more: Any) -> AsyncGenerator[WatchEvent, None]:
        return self.inner.watch(kind, namespace, **more)

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        if kind is EVENT:
            return obj
        wanted = str((obj.get("metadata") or {}).get("name") or name)
        if wanted and not subresource:
            try:
                await self.inner.get(kind, wanted, namespace)
            except NotFound:
                pass
            else:
                raise AlreadyExists(f'{kind.resource} "{wanted}" already exists')
        return self.withhold(WantedWrite("create", kind, namespace, wanted, None, obj))

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        meta = obj.get("metadata") or {}
        name, namespace, version = meta.get("name", ""), meta.get("namespace", ""), meta.get("resourceVersion")
        if kind is EVENT:
            return obj
        found = await self.inner.get(kind, name, namespace)
        if version and version != found["metadata"]["resourceVersion"]:
            raise Conflict(f'{kind.resource} "{name}" has been modified')
        return self.withhold(WantedWrite("update", kind, namespace, name, found, obj))

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
        if kind is EVENT:
            return {"metadata": {"name": name, "namespace": namespace}}
        found = await self.inner.get(kind, name, namespace)
        return self.withhold(WantedWrite("patch", kind, namespace, name, found, patch))

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
        found = await self.inner.get(kind, name, namespace)
        if uid and found["metadata"].get("uid") != uid:
            raise Conflict(f'{kind.resource} "{name}" is another one now')
        return self.withhold(WantedWrite("delete", kind, namespace, name, found, None))

    async def delete_collection(
        self, kind: Kind, namespace: str, *, label_selector: str = "", grace_seconds: int | None = None
    ) -> None:
        self.withhold(WantedWrite("delete", kind, namespace, "", None, label_selector))

    def withhold(self, write: WantedWrite) -> Object:
        """Note the write; always raises."""
        notes = NOTES.get()
        if notes is not None:
            notes.append(write)
        raise Withheld(f"{write.verb} of {write.kind.name} {write.namespace}/{write.name} is only noted")
