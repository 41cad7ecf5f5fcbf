"""Writes that are meant for the very version of an object that was decided on: of two deciders one is refused."""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, Typed
from kubesvc.client.interface import Client


async def patch_version(client: Client, kind: Kind, obj: Typed, patch: Object, *, subresource: str = "") -> Object:
    """Merge a patch, which says nothing of the identity, into `obj`; what it is then. Raises Conflict if there is
    another version."""
    meta = {"uid": obj.metadata.uid, "resourceVersion": obj.metadata.resource_version}
    whole = {**patch, "metadata": {**patch.get("metadata", {}), **meta}}
    return await client.patch(kind, obj.name, obj.namespace, whole, "merge", subresource=subresource)


async def set_finalizers(client: Client, kind: Kind, obj: Typed, finalizers: Iterable[str]) -> None:
    """Replace them; nothing happens if the object is gone. Raises Conflict if there is another version."""
    try:
        await patch_version(client, kind, obj, {"metadata": {"finalizers": list(finalizers) or None}})
    except NotFound:
        return
