"""Strategic merge patch: a merge patch that knows how each list of the API merges (PATCH-7, 3.3). Pure.

Directives: `$patch` (replace, delete) in a map or an item, `$retainKeys`, `$deleteFromPrimitiveList/<field>` and
`$setElementOrder/<field>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubesvc.api import schema
from kubesvc.api.gojson import type_word
from kubesvc.api.schema import Definition, Field

Map = dict[str, Any]
List = list[Any]

DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
DELETE_FROM = "$deleteFromPrimitiveList"
ORDER = "$setElementOrder"


class BadStrategicPatch(ValueError):
    """A patch that cannot be applied. `client` tells whether upstream answers 400; else it is a 500 without reason."""

    def __init__(self, message: str, *, client: bool = False) -> None:
        super().__init__(message)
        self.client = client


def spell(value: Any) -> str:
    """A value as Go's %v prints it: `map[a:1 b:[x y]]`."""
    if type(value) is str:
        return value
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{spell(value[k])}" for k in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(spell(v) for v in value) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


class Place:
    """How the fields of one map merge: those of a definition, or all alike (the values of a map, free content)."""

    __slots__ = ("definition", "values")

    def __init__(self, definition: Definition | None, values: Field | None = None) -> None:
        self.definition = definition
        self.values = values

    def field(self, key: str) -> Field | None:
        """The schema of a field; None where there is none (unknown, or free content): maps merge, lists replace."""
        return self.definition.fields.get(key) if self.definition is not None else self.values

    def below(self, field: Field | None) -> Place:
        """The place inside a map that is the value of that field, or the item of a list of them."""
        if field is None:
            return NOWHERE
        if field.type == "array" and field.items is not None:
            return self.below(field.items)
        if field.type == "object":
            return Place(schema.definition(field.ref))
        return Place(None, field.items) if field.type == "map" else NOWHERE


NOWHERE = Place(None)


def merge(original: Map, patch: Map, definition: str) -> Map:
    """The patched map. Both arguments are taken over: they may be changed, and parts of them end in the result.

    definition: full name of the schema of `original`; "" where there is none
    """
    return merge_map(original, patch, Place(schema.definition(definition) if definition else None))


def merge_map(original: Map, patch: Map, place: Place) -> Map:
    if patch.get(DIRECTIVE) == "merge":
        del patch[DIRECTIVE]  # which is what happens anyway
    if DIRECTIVE in patch:
        directive = patch[DIRECTIVE]
        if directive == "replace":
            del patch[DIRECTIVE]
            return patch
        if directive == "delete":
            return {}
        raise BadStrategicPatch(f"unknown patch type: {spell(directive)} in map: {spell(patch)}")
    retain_keys(original, patch)
    set_orders(original, patch, place)
    for given, value in patch.items():
        key, deletes = given, False
        if given.startswith(DELETE_FROM):
            key, deletes = named(given, DELETE_FROM), True
        if value is None:
            original.pop(key, None)
            continue
        before: Any = original.get(key)
        if key not in original or type_word(before) != type_word(value):
            if not deletes:
                original[key] = without_directives(value)
            continue
        field = place.field(key)
        if isinstance(value, dict):
            replaces = field is not None and "replace" in field.patch_strategy
            original[key] = value if replaces else merge_map(before, value, place.below(field))
        elif isinstance(value, list):
            original[key] = merge_list(before, value, field, place.below(field), key, deletes)
        else:
            original[key] = value
    return original


def named(directive: str, prefix: str) -> str:
    """The field that `$directive/field` is about."""
    if not directive.startswith(prefix + "/"):
        raise BadStrategicPatch(f"unexpected field name: {directive}", client=True)
    return directive[len(prefix) + 1 :]


def retain_keys(original: Map, patch: Map) -> None:
    """`$retainKeys`: everything it does not list goes, and what the patch sets must be listed."""
    if RETAIN not in patch:
        return
    keys = patch.pop(RETAIN)
    if not isinstance(keys, list):
        raise BadStrategicPatch("invalid patch format of retainKeys", client=True)
    for key, value in patch.items():
        if value is not None and not key.startswith((DELETE_FROM, ORDER)) and key not in keys:
            raise BadStrategicPatch("invalid patch format of retainKeys", client=True)
    for key in [k for k in original if k not in keys]:
        del original[key]


def without_directives(value: Any) -> Any:
    """A value new to the object: without nulls in maps, directives, and items marked to be deleted."""
    if isinstance(value, dict):
        return {
            k: without_directives(v)
            for k, v in value.items()
            if v is not None
            and k not in (DIRECTIVE, RETAIN)
            and not k.startswith((DELETE_FROM, ORDER))
            and not is_deletion(v)
        }
    if isinstance(value, list):
        return [without_directives(v) for v in value if not is_deletion(v) and v != {DIRECTIVE: "replace"}]
    return value


def is_deletion(value: Any) -> bool:
    return isinstance(value, dict) and value.get(DIRECTIVE) == "delete"


# Lists


def merge_list(before: List, patch: List, field: Field | None, place: Place, name: str, deletes: bool = False) -> List:
    """A list under its field's strategy; `deletes`: the patch lists primitives to take out."""
    if not deletes and (field is None or "merge" not in field.patch_strategy):
        return patch
    if not before and not patch:
        return before
    key = field.patch_merge_key if field is not None else ""
    if not all_maps(before + patch):
        if deletes:
            return [v for v in before if v not in patch]
        return in_order(unique(before + patch), patch, before, key)
    if not key:
        raise BadStrategicPatch(f"cannot merge lists without merge key for {name}")
    before, patch = special_items(before, patch, key)
    merged = list(before)
    for item in patch:
        value = key_of(item, key)
        at = next((i for i, v in enumerate(merged) if isinstance(v, dict) and equal(v.get(key), value)), None)
        if at is None:
            merged.append(without_directives(item))
        else:
            merged[at] = merge_map(merged[at], item, place)
    return in_order(merged, patch, before, key)


def all_maps(items: List) -> bool:
    """Whether a list holds maps; mixed ones are refused."""
    kinds = {type_word(v) for v in items}
    if "array" in kinds:
        raise BadStrategicPatch("lists of lists are not supported")
    if len(kinds) > 1 and "object" in kinds:
        raise BadStrategicPatch("list element types are not identical: " + ", ".join(sorted(kinds)))
    return kinds == {"object"}


def unique(items: List) -> List:
    out: List = []
    for item in items:
        if item not in out:
            out.append(item)
    return out


def equal(a: Any, b: Any) -> bool:
    """Merge keys compare by their printed form."""
    return spell(a) == spell(b)


def key_of(item: Map, key: str) -> Any:
    if key not in item:
        raise BadStrategicPatch(f"map: {spell(item)} does not contain declared merge key: {key}")
    return item[key]


def special_items(before: List, patch: List, key: str) -> tuple[List, List]:
    """The list without the items the patch deletes, and the patch's other items; for `$patch: replace` these are the
    list, as they are, and nothing is left to merge."""
    rest: List = []
    replaced = False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            rest.append(item)
        elif directive == "delete":
            gone = key_of(item, key)
            before = [v for v in before if not equal(v.get(key), gone)]
        elif directive == "replace":
            replaced = True
        elif directive == "merge":
            rest.append({k: v for k, v in item.items() if k != DIRECTIVE})
        else:
            raise BadStrategicPatch(f"unknown patch type: {spell(directive)} in map: {spell(item)}")
    return (without_directives(rest), []) if replaced else (before, rest)


# Order


def identity(key: str) -> Callable[[Any], str]:
    """What tells items of a list apart: their merge key, or themselves."""
    return lambda item: spell(item.get(key) if key and isinstance(item, dict) else item)


def in_order(merged: List, wanted: List, before: List, key: str) -> List:
    """The merged list in order: the items that `wanted` names in its order, the others in the order they had, and
    between the two kinds the order they had among each other, the wanted first where they had none."""
    of = identity(key)
    wanted_at = {of(v): i for i, v in reversed(list(enumerate(wanted)))}
    before_at = {of(v): i for i, v in reversed(list(enumerate(before)))}
    ours = sorted((v for v in merged if of(v) in wanted_at), key=lambda v: wanted_at[of(v)])
    others = sorted((v for v in merged if of(v) not in wanted_at), key=lambda v: before_at.get(of(v), len(before)))
    out: List = []
    i = j = 0
    while i < len(others) and j < len(ours):
        left, right = before_at.get(of(others[i])), before_at.get(of(ours[j]))
        if left is not None and right is not None and left < right:
            out.append(others[i])
            i += 1
        else:
            out.append(ours[j])
            j += 1
    return out + others[i:] + ours[j:]


def set_orders(original: Map, patch: Map, place: Place) -> None:
    """Work off every `$setElementOrder/<field>` together with the list it is about."""
    for directive in [k for k in patch if k.startswith(ORDER)]:
        order = patch.pop(directive)
        name = named(directive, ORDER)
        if not isinstance(order, list):
            raise BadStrategicPatch("invalid patch format of setElementOrder list", client=True)
        if name not in original and name not in patch:
            continue
        field = place.field(name)
        key = field.patch_merge_key if field is not None else ""
        before, given = original.get(name), patch.get(name)
        for found in (before, given):
            if found is not None and not isinstance(found, list):
                raise BadStrategicPatch("invalid patch format of setElementOrder list", client=True)
        check_order(given or [], order, key)
        if name in patch and given is None:
            continue  # the list goes
        if name not in patch:
            merged = before or []
        elif name not in original:
            merged = without_directives(given or [])
        else:
            merged = merge_list(before or [], given or [], field, place.below(field), name)
        if key:
            for item in [*merged, *order]:
                if not isinstance(item, dict):
                    raise BadStrategicPatch("invalid patch format of setElementOrder list", client=True)
                key_of(item, key)
        original[name] = in_order(merged, order, before or [], key)
        patch.pop(name, None)


def check_order(given: List, order: List, key: str) -> None:
    """The patch's own items must stand in the order that the directive gives."""
    of = identity(key)
    kept = [of(v) for v in given if not is_deletion(v) and v != {DIRECTIVE: "replace"}]
    names = [of(v) for v in order]
    at = 0
    for name in names:
        if at < len(kept) and kept[at] == name:
            at += 1
    if at < len(kept):
        raise BadStrategicPatch(
            f"The order in patch list:\n{spell(given)}\n doesn't match {ORDER} list:\n{spell(order)}\n"
        )
