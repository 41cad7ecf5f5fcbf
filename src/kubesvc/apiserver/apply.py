"""Field managers: who owns which field, on every write, and server-side apply (APPLY-1 to APPLY-8)."""

from __future__ import annotations

from typing import NamedTuple

from kubesvc.api.decode import Target
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object


class Applied(NamedTuple):
    """What an apply makes of the live object.

    obj:     the merged object with its new metadata.managedFields; to be defaulted, validated and stored
    changed: whether anything besides managedFields differs from live
    warnings: texts (strictness of YAML)
    """

    obj: Object
    changed: bool
    warnings: tuple[str, ...] = ()


def update_managed_fields(
    old: Object | None,
    new: Object,
    target: Kind | Target,
    manager: str,
    now: str,
    *,
    subresource: str = "",
) -> None:
    """Set new.metadata.managedFields as an ordinary write (POST, PUT, json/merge/strategic PATCH) leaves it.

    Call it after decoding and `kind.default`, and before `prepare_create`/`prepare_update`, hooks and allocation: what
    those add gets no owner (APPLY-5).

    old:     the stored object, None on create; never changed
    new:     what the client wants; its own managedFields are honoured as APPLY-6 and APPLY-8 say (`[]` resets)
    manager: the `fieldManager` parameter, or the User-Agent up to the first "/" (APPLY-6)
    now:     the time of this write as metadata prints it (`rfc3339`)
    """
    raise NotImplementedError


def apply_patch(
    live: Object | None,
    patch: bytes | Object,
    target: Kind | Target,
    manager: str,
    now: str,
    *,
    name: str,
    namespace: str = "",
    force: bool = False,
    subresource: str = "",
    field_validation: str = "Warn",
) -> Applied:
    """Server-side apply: merge `patch` into `live` (None: the object is to be created) under `manager`.

    Raises BadRequest (YAML, kind, name, managedFields: APPLY-2), ApiError 500 without reason (schema), Conflict with
    causes (APPLY-4). The caller checks `fieldManager` and `force` themselves (APPLY-1), defaults the result, and stores
    nothing when neither the object nor managedFields changed (META-8).
    """
    raise NotImplementedError


def equal_but_for_times(a: Object, b: Object) -> bool:
    """Whether two objects are the same but for times in managedFields and resourceVersion: nothing to store (META-8)."""
    raise NotImplementedError
