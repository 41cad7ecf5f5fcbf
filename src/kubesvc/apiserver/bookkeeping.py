"""What the server itself writes into metadata: names, uids, times, generations (META-2, META-4, META-6, META-9).

Pure functions on plain objects; what metadata may hold is checked by `kubesvc.api.objectmeta`.
"""

from __future__ import annotations

from typing import Any

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.clock import Random, rfc3339

GENERATED_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
GENERATED_LENGTH = 5
GENERATED_BASE = 58
CLEARED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
OPTIONAL = ("labels", "annotations", "ownerReferences", "finalizers", "generateName", "namespace", "name", "uid")


def generated_name(base: str, random: Random) -> str:
    """A name for `generateName` (META-4)."""
    return base[:GENERATED_BASE] + "".join(random.choices(GENERATED_ALPHABET, k=GENERATED_LENGTH))


FREE_BITS = (1 << 128) - 1 - (0xF << 76) - (0x3 << 62)
VERSION_BITS = (4 << 76) | (2 << 62)


def new_uid(random: Random) -> str:
    """A version 4 UUID from the given source of chance."""
    return uuid_text(random.getrandbits(128))


def uuid_text(bits: int) -> str:
    """The version 4 UUID of 128 bits, six of which do not count."""
    text = f"{bits & FREE_BITS | VERSION_BITS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def clear_system_metadata(meta: Object, kind: Kind) -> None:
    """Drop from a new object what only the server may set, in place (META-2, META-6)."""
    for name in CLEARED:
        meta.pop(name, None)
    meta.pop("resourceVersion", None)
    if kind.generation is not None or not meta.get("generation"):
        meta.pop("generation", None)


def fill_system_metadata(obj: Object, kind: Kind, now: float, random: Random) -> None:
    """Set what the server owns on a new object, in place."""
    meta = obj["metadata"]
    clear_system_metadata(meta, kind)
    meta["uid"] = new_uid(random)
    meta["creationTimestamp"] = rfc3339(now)
    if kind.generation is not None:
        meta["generation"] = 1
    drop_empty(meta)


def drop_empty(meta: Object) -> None:
    """Empty metadata is not stored: absent, null and empty are the same (META-13)."""
    for name in OPTIONAL:
        if name in meta and not meta[name]:
            del meta[name]


def drop_duplicate_owners(meta: Object) -> list[str]:
    """Remove exact repeats of ownerReferences, in place; the warnings to give (META-10)."""
    owners = meta.get("ownerReferences")
    if not owners or len(owners) < 2:
        return []
    unique: list[Any] = []
    for owner in owners:
        if owner not in unique:
            unique.append(owner)
    if len(unique) == len(owners):
        return []
    meta["ownerReferences"] = unique
    return [
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may "
        "reject such requests as early as 1.24; please fix your requests"
    ]


FILLED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def keep_system_metadata(new: Object, old: Object) -> None:
    """On an update, in place: what the client left out is as it was, and the generation is the server's (META-9)."""
    meta, before = new["metadata"], old["metadata"]
    drop_empty(meta)
    meta.pop("selfLink", None)
    for name in FILLED:
        if name in before and meta.get(name) is None:
            meta[name] = before[name]
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        if name not in before:
            meta.pop(name, None)
    if "generation" in before:
        meta["generation"] = before["generation"]
    else:
        meta.pop("generation", None)
