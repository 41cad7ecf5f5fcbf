"""Field managers: who owns which field after every write (APPLY-5 to APPLY-8). Pure.

Every entry of metadata.managedFields says that a manager, by one kind of operation through one endpoint, owns a set of
fields. An ordinary write gives its manager what it changed, and takes that from all others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from kubesvc.api import fields
from kubesvc.api.decode import Target, target_of
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from . import fieldset
from .fieldset import FieldSet
from .structure import Shape, compare_maps, shape_of_kind

MAX_UPDATERS = 10
"""Most entries of operation Update; older ones are gathered under ANCIENT."""
ANCIENT = "ancient-changes"


class Owner(NamedTuple):
    """What tells entries apart: a manager's updates through each endpoint and in each version, and its applies."""

    manager: str
    operation: str
    version: str
    """apiVersion of an Update; "" for an Apply."""
    subresource: str

    def spell(self) -> str:
        """As conflicts name it (APPLY-4)."""
        text = fields.quote(self.manager)
        if self.subresource:
            text += f" with subresource {fields.quote(self.subresource)}"
        return f"{text} using {self.version}" if self.operation == "Update" else text

    def sort_key(self) -> str:
        """Upstream sorts conflicts by the owner's JSON."""
        parts = {"manager": self.manager, "operation": self.operation}
        if self.version:
            parts["apiVersion"] = self.version
        if self.subresource:
            parts["subresource"] = self.subresource
        return msgspec.json.encode(parts).decode()


class Entry(NamedTuple):
    """What one owner owns, in which version of the API it said so, and when it last changed that ("": unknown)."""

    fields: FieldSet
    api_version: str
    time: str


Managed = dict[Owner, Entry]


# Entries


def read_managed(given: Any) -> Managed | None:
    """The entries of a managedFields list; None if it cannot be read."""
    if not isinstance(given, list):
        return None
    out: Managed = {}
    for entry in given:
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            return None
        owned = entry.get("fieldsV1") or {}
        if entry.get("fieldsType", "FieldsV1") != "FieldsV1" or not isinstance(owned, dict):
            return None
        operation, version = entry["operation"], entry.get("apiVersion") or ""
        owner = Owner(
            entry.get("manager") or "",
            operation,
            version if operation == "Update" else "",
            entry.get("subresource") or "",
        )
        out[owner] = Entry(owned, version, entry.get("time") or "")
    return out


def write_managed(managed: Managed) -> list[Object]:
    """The managedFields list of these entries, in APPLY-5's order."""
    rows = sorted(
        managed.items(),
        key=lambda row: (row[0].operation, row[1].time, row[0].manager, row[1].api_version, row[0].subresource),
    )
    out: list[Object] = []
    for owner, entry in rows:
        written: Object = {"manager": owner.manager, "operation": owner.operation, "apiVersion": entry.api_version}
        if entry.time:
            written["time"] = entry.time
        written["fieldsType"] = "FieldsV1"
        written["fieldsV1"] = entry.fields
        if owner.subresource:
            written["subresource"] = owner.subresource
        out.append(written)
    return out


def store(obj: Object, managed: Managed) -> None:
    meta = obj.setdefault("metadata", {})
    if managed:
        meta["managedFields"] = write_managed(managed)
    else:
        meta.pop("managedFields", None)


def starting_point(old: Object | None, given: Any, subresource: str) -> Managed:
    """The entries a write starts from: the client's where it sends any, none where it resets them, else the stored ones
    (APPLY-6, APPLY-8). Through a subresource the client's do not count."""
    stored = (old or {}).get("metadata", {}).get("managedFields") or []
    if not subresource and isinstance(given, list) and given is not stored:
        if not given or (len(given) == 1 and not given[0]):
            return {}
        if given != stored and all(fieldset.valid(e.get("fieldsV1") or {}) for e in given if isinstance(e, dict)):
            read = read_managed(given)
            if read:
                return read
    return read_managed(stored) or {}


def ignored_fields(target: Kind | Target, subresource: str) -> FieldSet:
    """What a write to this endpoint cannot change and so does not own."""
    if subresource == "status":
        out: FieldSet = {"f:spec": {}}
        if target.name == "Deployment":
            out["f:metadata"] = {"f:labels": {}}
        return out
    return {"f:status": {}} if getattr(target, "has_status", True) else {}


def without_trees(given: FieldSet, ignored: FieldSet) -> FieldSet:
    """The set without the whole of what stands at or below the paths of another."""
    if not ignored:
        return given
    out = dict(given)
    for key, node in ignored.items():
        if key in out:
            if not node:
                del out[key]
            elif rest := without_trees(out[key], node):
                out[key] = rest
            else:
                del out[key]
    return out


# Comparing objects

UNTRACKED = frozenset(("apiVersion", "kind"))
UNTRACKED_META = frozenset(
    ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")
)


def tracked(obj: Object) -> Object:
    """The object without what is never tracked (APPLY-7), sharing all else."""
    out = {k: v for k, v in obj.items() if k not in UNTRACKED}
    out["metadata"] = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in UNTRACKED_META}
    return out


def differences(shape: Shape, old: Object, new: Object) -> tuple[FieldSet, FieldSet]:
    """What was added or changed between two objects, and what is gone, without what is never tracked."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    compare_maps(shape, tracked(old), tracked(new), changed, removed)
    return changed, removed


# Ordinary writes


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
    meta = new.setdefault("metadata", {})
    given = meta.pop("managedFields", None)
    managed = starting_point(old, given, subresource)
    if old is not None and not managed:
        return  # not tracked, until somebody applies
    body = target_of(target)
    changed, removed = differences(shape_of_kind(target), old or {}, new)
    ignored = ignored_fields(target, subresource)
    changed, removed = without_trees(changed, ignored), without_trees(removed, ignored)
    if not changed and not removed:
        if old is not None and (given is None or given == old["metadata"].get("managedFields")):
            meta["managedFields"] = old["metadata"]["managedFields"]
        else:
            store(new, managed)
        return
    store(new, updated(managed, changed, removed, Owner(manager, "Update", body.api_version, subresource), now))


def updated(managed: Managed, changed: FieldSet, removed: FieldSet, me: Owner, now: str) -> Managed:
    """The entries after `me` changed these fields by an ordinary write."""
    out: Managed = {}
    gone = fieldset.union(changed, removed)
    for owner, entry in managed.items():
        left = fieldset.difference(entry.fields, removed if owner == me else gone)
        if left:
            out[owner] = entry if left is entry.fields else entry._replace(fields=left)
    if changed:
        before = out.get(me)
        mine = fieldset.union(before.fields, changed) if before else changed
        out[me] = Entry(fieldset.ordered(mine), me.version, now)
    return capped(out)


def capped(managed: Managed) -> Managed:
    """At most MAX_UPDATERS updaters: the oldest of each version are gathered in one (APPLY-6)."""
    updaters = [o for o in managed if o.operation == "Update"]
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managed
    out = dict(managed)
    updaters.sort(key=lambda o: (managed[o].time, o.sort_key()))
    first: dict[str, Owner] = {}
    for owner in updaters:
        if excess <= 0:
            break
        entry = out[owner]
        bucket = Owner(ANCIENT, "Update", entry.api_version, "")
        if entry.api_version not in first:
            first[entry.api_version] = owner
            continue
        if bucket not in out:
            out[bucket] = out.pop(first[entry.api_version])
        gathered = fieldset.ordered(fieldset.union(out[bucket].fields, entry.fields))
        del out[owner]
        out[bucket] = Entry(gathered, entry.api_version, entry.time)
        excess -= 1
    return out


# No change at all


def equal_but_for_times(a: Object, b: Object) -> bool:
    """Whether two objects differ in resourceVersion and times of managedFields at most: nothing to store (META-8)."""
    if a.keys() != b.keys() or any(a[k] != b[k] for k in a if k != "metadata"):
        return False
    one, two = a.get("metadata") or {}, b.get("metadata") or {}
    if any(one.get(k) != two.get(k) for k in one.keys() | two.keys() if k not in ("managedFields", "resourceVersion")):
        return False
    ours, theirs = one.get("managedFields") or [], two.get("managedFields") or []
    if ours is theirs or ours == theirs:
        return True
    return sorted_entries(ours) == sorted_entries(theirs)


def sorted_entries(entries: list[Object]) -> list[bytes]:
    timeless = ({k: v for k, v in e.items() if k != "time"} for e in entries)
    return sorted(msgspec.json.encode(e, order="sorted") for e in timeless)
