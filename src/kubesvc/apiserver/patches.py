"""Patches: JSON patch, merge patch and strategic merge patch, from bytes to the patched object (PATCH-1 to PATCH-10)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from kubesvc.api.decode import Target
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

PatchType = Literal["json", "merge", "strategic", "apply"]

MEDIA_TYPES: dict[str, PatchType] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
"""PATCH-1; anything else is a 415 (`unsupported()`)."""


class Patched(NamedTuple):
    """The patched object, decoded like a body (pruned, right types; not yet defaulted), and warning texts (OPT-3)."""

    obj: Object
    warnings: tuple[str, ...] = ()


def patch_object(
    live: Object, patch: bytes | Any, type: PatchType, target: Kind | Target, field_validation: str = "Warn"
) -> Patched:
    """Apply a json, merge or strategic patch (not "apply": see `kubesvc.apiserver.apply`) to the stored object.

    live:  as stored, with apiVersion, kind and managedFields; never changed
    patch: the request's body, or the decoded value of an in-process client

    Raises BadRequest (malformed), Invalid (fails, or its result is no object of the kind), RequestTooLarge (PATCH-5),
    ApiError 500 without reason (PATCH-7). What the patch does to name, uid, resourceVersion is for the caller to check,
    as for a PUT (PATCH-3, PATCH-4). For /scale pass the Scale as `live` and its Target.
    """
    raise NotImplementedError
