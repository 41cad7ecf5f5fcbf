"""Server-side apply: a manager says all that it wants, and owns that and nothing else (APPLY-1 to APPLY-4). Pure.

An apply merges its config into the live object, takes away what its manager applied before and nobody owns any more,
and is refused where it would change what others own, unless it is forced.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from kubesvc.api import goyaml
from kubesvc.api.decode import Target, decode_plain, target_of
from kubesvc.api.errors import ApiError, BadRequest, Cause, Conflict
from kubesvc.api.gojson import type_word
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, copied

from . import fieldset
from .fieldset import FieldSet
from .managers import (
    Entry,
    Managed,
    Owner,
    differences,
    equal_but_for_times,
    ignored_fields,
    starting_point,
    store,
    update_managed_fields,
    without_trees,
)
from .structure import Shape, applied, compare, errors_in, merge, shape_of_kind, with_structs, without

__all__ = ["Applied", "apply_patch", "equal_but_for_times", "update_managed_fields"]

BEFORE_APPLY = "before-first-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

NEVER_TRACKED: FieldSet = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        ".": {},
        "f:name": {},
        "f:namespace": {},
        "f:creationTimestamp": {},
        "f:selfLink": {},
        "f:uid": {},
        "f:generation": {},
        "f:managedFields": {},
        "f:resourceVersion": {},
    },
}
"""APPLY-7."""


class Applied(NamedTuple):
    """What an apply makes of the live object.

    obj:      the merged object with its new metadata.managedFields; to be defaulted, validated and stored
    changed:  whether anything besides managedFields differs from live
    warnings: texts (strictness of YAML)
    """

    obj: Object
    changed: bool
    warnings: tuple[str, ...] = ()


# Apply


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

    patch:     the request's body (YAML or JSON), or the plain object of an in-process client
    name:      of the object, as the URL has it; `namespace` fills the body's when it gives none

    Raises BadRequest (YAML, kind, name, managedFields: APPLY-2), ApiError 500 without reason (schema), Conflict with
    causes (APPLY-4). The caller checks `fieldManager` and `force` themselves (APPLY-1), defaults the result, and stores
    nothing when neither the object nor managedFields changed (META-8).
    """
    body = target_of(target)
    request = Request(
        target,
        body,
        Owner(manager, "Apply", "", subresource),
        ignored_fields(target, subresource),
        now,
        name,
        namespace,
        force,
    )
    try:
        config, duplicates = read_config(patch)
        obj, changed = apply_config(live, config, request)
    except RecursionError:
        raise BadRequest("exceeded max depth") from None
    return Applied(obj, changed, strict_yaml(duplicates, field_validation))


class Request(NamedTuple):
    """What an apply asks for besides its config."""

    target: Kind | Target
    body: Target
    me: Owner
    ignored: FieldSet
    now: str
    name: str
    namespace: str
    force: bool


def apply_config(live: Object | None, config: Object, request: Request) -> tuple[Object, bool]:
    """The object that an apply leaves, and whether anything besides managedFields changed."""
    body, me = request.body, request.me
    check_config(config, body)
    shape = shape_of_kind(request.target)
    check_structure(shape, config, body)
    managed = starting_point(live, None, me.subresource)
    if live is not None and not managed:
        managed = before_first_apply(shape, live, body, me.subresource)
    try:
        result, owners = applied_to(shape, live, config, managed, request)
    except Conflicts as e:
        if me.manager != "kubectl" or live is None or not e.allowed(kubectl_applied(shape, live, body)):
            raise e.error() from None
        result, owners = applied_to(shape, live, config, managed, request._replace(force=True))
    if me.manager == "kubectl":
        result = with_last_applied(result, config)
    bare_live = untracked(live) if live is not None else {}
    changed = live is None or without_empty(shape, result) != without_empty(shape, bare_live)
    if changed and me in owners:
        owners[me] = owners[me]._replace(time=request.now)
    obj = finished(result, request.target, request.name, request.namespace)
    if live is not None and not changed:
        obj = copied(bare_live)
    store(obj, owners)
    return obj, changed


def read_config(patch: bytes | Object) -> tuple[Object, tuple[str, ...]]:
    """The applied object, and the texts of keys given twice; BadRequest if there is none."""
    if isinstance(patch, dict):
        return copied(patch), ()
    if (quick := plain_json(patch)) is not None:
        return quick, ()
    try:
        value, duplicates = goyaml.read(patch)
    except goyaml.YamlError as e:
        raise BadRequest(f"error decoding YAML: error converting YAML to JSON: {e}") from None
    if value is None:
        return {}, ()
    if not isinstance(value, dict):
        raise BadRequest(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{type_word(value)} into Go value of type map[string]interface {{}}"
        )
    return copied(value), duplicates


def plain_json(raw: bytes) -> Object | None:
    """The object of a body that is JSON, as kubectl sends it, without a key given twice; None for the YAML reader."""
    if not raw.startswith(b"{"):
        return None
    try:
        value = msgspec.json.decode(raw)
        if msgspec.json.encode(value).count(b'"') != raw.count(b'"') or b"\\u0022" in raw:
            return None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    found: Object = value
    return found


def strict_yaml(duplicates: tuple[str, ...], validation: str) -> tuple[str, ...]:
    """OPT-3: repeated keys are refused or told."""
    if not duplicates or validation == "Ignore":
        return ()
    if validation == "Strict":
        listed = "".join(f"\n  {text}" for text in duplicates)
        raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:{listed}")
    return duplicates


def check_config(config: Object, body: Target) -> None:
    """APPLY-2: kind, version and managedFields of what is applied."""
    api_version, kind = config.get("apiVersion") or "", config.get("kind") or ""
    group, _, version = str(api_version).rpartition("/")
    if (api_version, kind) != (body.api_version, body.name):
        raise BadRequest(f"invalid object type: {group}/{version}, Kind={kind}")
    meta = config.get("metadata")
    if isinstance(meta, dict) and meta.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")


def check_structure(shape: Shape, config: Object, body: Target) -> None:
    """Everything in the config is declared, of the right type, and no keyed list repeats a key."""
    found: list[str] = []
    errors_in(shape, config, "", found)
    if not found:
        return
    meta = config.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    which = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}"
    listed = found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {text}" for text in found)
    raise ApiError(
        f"failed to create typed patch object ({which}; {body.group}/{body.version}, Kind={body.name}): {listed}"
    )


def before_first_apply(shape: Shape, live: Object, body: Target, subresource: str) -> Managed:
    """Who owns an object that was not tracked so far, at its first apply."""
    changed, _ = differences(shape, {}, live)
    if not changed:
        return {}
    owner = Owner(BEFORE_APPLY, "Update", body.api_version, subresource)
    return {owner: Entry(fieldset.ordered(changed), body.api_version, "")}


def untracked(obj: Object) -> Object:
    """The object without its managedFields, sharing all else."""
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "managedFields"}
    return {**obj, "metadata": meta}


def applied_set(shape: Shape, config: Object, ignored: FieldSet) -> FieldSet:
    """What the manager of a config owns by it."""
    return without_trees(fieldset.difference(applied(shape, config), NEVER_TRACKED), ignored)


def applied_to(
    shape: Shape, live: Object | None, config: Object, managed: Managed, request: Request
) -> tuple[Object, Managed]:
    """The merged object without managedFields, and the entries; Conflicts if others own what it would change."""
    me, ignored = request.me, request.ignored
    base = untracked(live) if live is not None else {}
    merged = merge(shape, base, config)
    last = managed.get(me)
    owners = dict(managed)
    mine = applied_set(shape, config, ignored)
    owners[me] = Entry(fieldset.ordered(mine), request.body.api_version, last.time if last else "")
    if last is not None:
        merged = pruned(shape, merged, last.fields, [e.fields for e in owners.values()])
    merged = without_nulls(shape, merged)
    changed, removed = differences(shape, base, merged)
    changed, removed = without_trees(changed, ignored), without_trees(removed, ignored)
    out: Managed = {}
    conflicts: dict[Owner, FieldSet] = {}
    for owner, entry in owners.items():
        left = entry.fields
        if owner != me:
            if contested := fieldset.intersection(left, changed):
                conflicts[owner] = contested
            left = fieldset.difference(fieldset.difference(left, changed), removed)
        if left:
            out[owner] = entry if left is entry.fields else entry._replace(fields=left)
    if conflicts and not request.force:
        raise Conflicts(conflicts)
    return merged, out


def pruned(shape: Shape, merged: Object, last: FieldSet, owned: Iterable[FieldSet]) -> Object:
    """The merged object without what this manager applied before, applies no more, and nobody else owns (APPLY-3)."""
    everyone: FieldSet = {}
    for one in owned:
        everyone = fieldset.union(everyone, one)
    if not fieldset.difference(last, everyone):
        return merged
    before = with_structs(shape, last)
    rest = without(shape, merged, before)
    whole = with_structs(shape, applied(shape, merged))
    kept = fieldset.union(with_structs(shape, applied(shape, rest)), with_structs(shape, everyone))
    rest = without(shape, merged, fieldset.difference(whole, kept))
    now = with_structs(shape, applied(shape, rest))
    found: Object = without(shape, merged, fieldset.intersection(fieldset.difference(whole, now), before))
    return found or {}


def without_nulls(shape: Shape, value: Any) -> Any:
    """The value without the fields that pruning and nulls in the config left empty, as Go reads it back."""
    if isinstance(value, dict) and shape.kind in ("struct", "map"):
        out = {}
        for key, inner in value.items():
            child = shape.below(key)
            inner = without_nulls(child, inner)
            if inner is None:
                continue
            out[key] = inner
        return out
    if isinstance(value, list) and shape.kind == "list":
        return [without_nulls(shape.item, v) for v in value]
    return value


def without_empty(shape: Shape, value: Any) -> Any:
    """The value without what exists, empty, whether or not somebody wrote it: two that agree in the rest are equal."""
    if isinstance(value, dict) and shape.kind in ("struct", "map"):
        out = {}
        for key, inner in value.items():
            child = shape.below(key)
            inner = without_empty(child, inner)
            if inner is not None and not (child.present and not inner):
                out[key] = inner
        return out
    if isinstance(value, list) and shape.kind == "list":
        return [without_empty(shape.item, v) for v in value]
    return value


def finished(result: Object, body: Kind | Target, name: str, namespace: str) -> Object:
    """The merged object read as one of its kind, with the name the URL gives."""
    meta = result.get("metadata") or {}
    if meta.get("name") != name:
        if not meta.get("name"):
            raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
        raise BadRequest(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    try:
        obj = decode_plain(result, body, "Ignore").obj
    except BadRequest as e:
        raise ApiError(e.message.partition(f"cannot be handled as a {body.name}: ")[2] or e.message) from None
    if namespace and not obj["metadata"].get("namespace"):
        obj["metadata"]["namespace"] = namespace
    return obj


# Conflicts


class Conflicts(Exception):
    """Fields that others own and an apply would change."""

    def __init__(self, found: dict[Owner, FieldSet]) -> None:
        super().__init__("conflicts")
        self.found = found

    def allowed(self, owned: FieldSet) -> bool:
        """Whether all of them are fields that this set has."""
        return not any(fieldset.difference(contested, owned) for contested in self.found.values())

    def error(self) -> Conflict:
        """The 409 of APPLY-4."""
        rows = [
            (owner.spell(), fieldset.spell(path))
            for owner in sorted(self.found, key=Owner.sort_key)
            for path in fieldset.paths(self.found[owner])
        ]
        causes: list[Cause] = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path}
            for owner, path in rows
        ]
        if len(rows) == 1:
            return Conflict(f"Apply failed with 1 conflict: conflict with {rows[0][0]}: {rows[0][1]}", causes=causes)
        lines: list[str] = []
        for owner in dict.fromkeys(o for o, _ in rows):
            lines += [f"conflicts with {owner}:", *(f"- {path}" for o, path in rows if o == owner)]
        return Conflict(f"Apply failed with {len(rows)} conflicts: " + "\n".join(lines), causes=causes)


# kubectl's move from client-side to server-side apply


def last_applied(obj: Object) -> str:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    found: str = annotations.get(LAST_APPLIED) or ""
    return found


def kubectl_applied(shape: Shape, live: Object, body: Target) -> FieldSet:
    """The fields that kubectl's client-side apply set and nobody changed since: its server-side apply may take them."""
    try:
        config = msgspec.json.decode(last_applied(live) or "null")
    except msgspec.DecodeError:
        return {}
    if not isinstance(config, dict) or config.get("apiVersion") != body.api_version:
        return {}
    found: list[str] = []
    errors_in(shape, config, "", found)
    if found:
        return {}
    changed: FieldSet = {}
    removed: FieldSet = {}
    compare(shape, config, live, "", changed, removed)
    differing = fieldset.union(changed.get("", {}), removed.get("", {}))
    return fieldset.difference(applied(shape, config), differing)


def with_last_applied(result: Object, config: Object) -> Object:
    """The object with kubectl's annotation brought up to date, where it has one."""
    if not last_applied(result):
        return result
    meta = dict(config.get("metadata") or {})
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    if "annotations" in meta:
        meta["annotations"] = annotations
        if not annotations:
            del meta["annotations"]
    text = msgspec.json.encode({**config, "metadata": meta}, order="sorted").decode() + "\n"
    out = copy.copy(result)
    out["metadata"] = {**result["metadata"], "annotations": {**result["metadata"]["annotations"], LAST_APPLIED: text}}
    return out
