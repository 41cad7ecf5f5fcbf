"""Writes that are meant for the very version of an object that was decided on: of two deciders one is refused.

A change is a merge patch. Where upstream's role for a controller allows `patch` it is sent as one; where it allows
`update` alone (nearly every status) the object is read, changed here and put back whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.mergepatch import merge
from kubesvc.api.meta import Object, Typed
from kubesvc.client.interface import Client

MOST_TRIES = 5
"""How often a change that is meant for any version is put, each time on what another writer has made of the object."""


async def patch_version(client: Client, kind: Kind, obj: Typed, patch: Object, *, subresource: str = "") -> Object:
    """Merge a patch, which says nothing of the identity, into `obj`; what it is then. Raises Conflict if there is
    another version."""
    meta = {"uid": obj.metadata.uid, "resourceVersion": obj.metadata.resource_version}
    whole = {**patch, "metadata": {**patch.get("metadata", {}), **meta}}
    return await client.patch(kind, obj.name, obj.namespace, whole, "merge", subresource=subresource)


async def put_version(client: Client, kind: Kind, obj: Typed, change: Object, *, subresource: str = "") -> Object:
    """As `patch_version`, for whom `update` is allowed and `patch` is not."""
    live = await read_same(client, kind, obj)
    if live["metadata"].get("resourceVersion") != obj.metadata.resource_version:
        raise Conflict(f"{kind.resource} {obj.name!r}: there is a newer version than the one that was decided on")
    return await client.update(kind, merge(live, change), subresource=subresource)


async def put_change(client: Client, kind: Kind, obj: Typed, change: Object, *, subresource: str = "") -> Object:
    """Merge a change into the object, whatever version it has by now. Raises NotFound if it is gone, whether another
    bears its name or not; Conflict if others write faster."""
    for tries in range(1, MOST_TRIES + 1):
        live = await read_same(client, kind, obj)
        try:
            return await client.update(kind, merge(live, change), subresource=subresource)
        except Conflict:
            if tries == MOST_TRIES:
                raise
    raise AssertionError("unreachable")


async def read_same(client: Client, kind: Kind, obj: Typed) -> Object:
    """The object as the server has it: the cache's form lacks fields that no plan reads. NotFound if it is gone, or
    another one bears its name."""
    live = await client.get(kind, obj.name, obj.namespace)
    if live["metadata"].get("uid") != obj.metadata.uid:
        raise NotFound(f'{kind.resource} "{obj.name}" not found')
    return live


async def set_finalizers(
    client: Client, kind: Kind, obj: Typed, finalizers: Iterable[str], *, put: bool = False
) -> None:
    """Replace them; nothing happens if the object is gone. Raises Conflict if there is another version.

    put: for whom `update` is allowed and `patch` is not
    """
    change: Object = {"metadata": {"finalizers": list(finalizers) or None}}
    try:
        await (put_version if put else patch_version)(client, kind, obj, change)
    except NotFound:
        return
