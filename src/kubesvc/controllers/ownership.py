"""Who manages an object: adopting orphans that a selector matches, releasing what it no longer does (RS-2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from kubesvc.api.errors import Invalid, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, Typed, controller_reference
from kubesvc.api.pod import LabelSelector as TypedSelector
from kubesvc.api.selectors import LabelSelector, label_selector_of
from kubesvc.client.interface import Client

from .versioned import patch_version, put_version

T = TypeVar("T", bound=Typed)


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """How an owner's selector divides objects: kept ones, orphans to adopt, owned ones to release."""

    kept: list[T]
    adopt: list[T]
    release: list[T]


def controller_uid(obj: Typed) -> str:
    """The uid of the object's managing owner, "" for an orphan; the value of the index `controller`."""
    reference = obj.metadata.controller
    return reference.uid if reference else ""


def matcher_of(selector: TypedSelector | None) -> LabelSelector:
    """What decides whether labels match an object's selector: none matches nothing, an empty one everything."""
    return label_selector_of(msgspec.to_builtins(selector) if selector else None)


def plan_claim(owner: Typed, selector: LabelSelector, owned: Iterable[T], orphans: Iterable[T]) -> Claim[T]:
    """Divide `owned` (managed by `owner`) and `orphans` (of its namespace, managed by nobody).

    An owner that is being deleted claims nothing; what is being deleted itself is neither adopted nor released.
    """
    claim: Claim[T] = Claim([], [], [])
    for obj in owned:
        if selector.matches(obj.metadata.labels):
            claim.kept.append(obj)
        elif obj.metadata.deletion_timestamp is None:
            claim.release.append(obj)
    if owner.metadata.deletion_timestamp is None and not selector.empty:
        claim.adopt.extend(
            o for o in orphans if o.metadata.deletion_timestamp is None and selector.matches(o.metadata.labels)
        )
    return claim


async def adopt(client: Client, kind: Kind, obj: Typed, owner: Typed, owner_kind: Kind) -> None:
    """Make `owner` the manager of `obj`; nothing happens if `obj` is gone."""
    references = [msgspec.to_builtins(r) for r in obj.metadata.owner_references or ()]
    references.append(controller_reference(owner, owner_kind.api_version, owner_kind.name))
    await patch_owners(client, kind, obj, references)


async def release(client: Client, kind: Kind, obj: Typed, owner: Typed) -> None:
    """Take `owner` off the list of owners; nothing happens if `obj` is gone."""
    references = [msgspec.to_builtins(r) for r in obj.metadata.owner_references or () if r.uid != owner.metadata.uid]
    await patch_owners(client, kind, obj, references)


async def patch_owners(
    client: Client, kind: Kind, obj: Typed, references: list[dict[str, object]], *, put: bool = False
) -> None:
    """Replace the list of owners, if the object still is the one in the cache.

    put: for whom `update` is allowed and `patch` is not
    """
    try:
        change: Object = {"metadata": {"ownerReferences": references or None}}
        await (put_version if put else patch_version)(client, kind, obj, change)
    except NotFound:
        return
    except Invalid:
        return  # another object has taken the name: the uid in the patch is not its
