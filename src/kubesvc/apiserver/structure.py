"""Values as server-side apply sees them: how they split into fields, compare, merge and lose fields. Pure.

`Shape` is the schema of one value with the little that matters here worked out once. A value that is not there is
MISSING; one that Go would hold anyway, empty (a struct by value, a list that is always printed), is never missing
beside a parent that is there, which decides whether the set of what was added names it (APPLY-5).
"""

from __future__ import annotations

from functools import cache, cached_property, lru_cache
from typing import Any

from kubesvc.api import schema
from kubesvc.api.customkind import CustomForm
from kubesvc.api.decode import Target
from kubesvc.api.gojson import type_word
from kubesvc.api.kind import Kind
from kubesvc.api.quick import ZERO
from kubesvc.api.schema import Field
from kubesvc.api.structural import NOTHING, Structural

from .fieldset import MEMBER, FieldSet, below, is_member, key_element, node_of, spell_element, value_element
from .strategic import spell

MISSING: Any = object()


class Shape:
    """One place of the schema.

    kind:    scalar, struct, map, list (keyed or a set), or free content
    atomic:  owned and replaced as a whole
    present: beside a parent that exists it exists too: as {} or an empty list
    """

    open = False
    """Whether fields are taken that the schema does not name."""

    def __init__(self, field: Field, present: bool = False) -> None:
        self.field = field
        self.present = present
        definition = schema.definition(field.ref) if field.type == "object" else None
        kinds = {"object": "struct", "map": "map", "array": "list", "any": "free"}
        self.kind = kinds.get(field.type, "scalar")
        map_type = field.map_type or (definition.map_type if definition is not None else "")
        self.keyed = field.list_type == "map"
        self.atomic = (
            self.kind in ("scalar", "free")
            or map_type == "atomic"
            or (self.kind == "list" and field.list_type not in ("map", "set"))
        )
        self.keys = tuple(sorted(field.list_map_keys))
        self.empty: Any = [] if self.kind == "list" else {}

    @cached_property
    def fields(self) -> dict[str, Shape]:
        """Of a struct: its fields."""
        return fields_of(self.field.ref) if self.kind == "struct" else {}

    @cached_property
    def item(self) -> Shape:
        """Of a map or list: what it holds."""
        return Shape(self.field.items or Field(type="any"))

    @cached_property
    def defaults(self) -> tuple[Any, ...]:
        """Of a keyed list: the value of each key where an item leaves it out; the zero value if it is required."""
        if not self.item.field.ref:
            return (None,) * len(self.keys)
        definition = schema.definition(self.item.field.ref)
        found: list[Any] = []
        for key in self.keys:
            field = definition.fields.get(key)
            default = field.default if field is not None else None
            if default is None and field is not None and key in definition.required:
                default = ZERO.get(field.type)
            found.append(default)
        return tuple(found)

    def below(self, key: str) -> Shape:
        """The shape of a struct's field or a map's value; free content for what no schema names."""
        if self.kind == "map":
            return self.item
        return self.fields.get(key, FREE)

    def element(self, item: Any, index: int) -> str:
        """The path element of a list's item; an item that cannot be told apart goes by its index."""
        if not self.keyed:
            return value_element(item)
        if not isinstance(item, dict):
            return f"i:{index}"
        values = [item.get(k, d) for k, d in zip(self.keys, self.defaults, strict=True)]
        if None in values:
            known = [(k, v) for k, v in zip(self.keys, values, strict=True) if v is not None]
            if not known:
                return f"i:{index}"
            return key_element(tuple(k for k, _ in known), *(v for _, v in known))
        return key_element(self.keys, *values)

    def elements(self, items: Any) -> dict[str, list[Any]]:
        """A list's items by path element; more than one where a list repeats itself."""
        found: dict[str, list[Any]] = {}
        for i, item in enumerate(items or ()):
            found.setdefault(self.element(item, i), []).append(item)
        return found


@cache
def fields_of(name: str) -> dict[str, Shape]:
    definition = schema.definition(name)
    return {
        key: Shape(field, field.value or (field.type == "array" and key in definition.required))
        for key, field in definition.fields.items()
    }


def shape_of_kind(target: Kind | Target) -> Shape:
    """The shape of a kind's objects, or of a body."""
    if isinstance(target, Kind) and target.custom is not None:
        return custom_shape(target.custom)
    return shape_of(target.schema)


@lru_cache(maxsize=1024)
def custom_shape(custom: CustomForm) -> Shape:
    """The shape of a custom kind's objects: metadata as everywhere, and the rest as its schema says."""
    return CustomShape(custom.structural, root=True)


METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
TEXT = Field(type="string")


class CustomShape(Shape):
    """One place of a CustomResourceDefinition's schema."""

    def __init__(self, at: Structural, *, root: bool = False) -> None:
        super().__init__(field_of(at))
        self.at = at
        self.root = root
        described = bool(at.properties) or root
        self.open = at.preserve or (
            at.type in ("object", "") and not described and at.additional in (None, True, False)
        )
        if at.type == "object" or (at.properties and not at.type):
            self.kind = "struct" if described else "map"
            self.atomic = at.map_type == "atomic"
        elif at.type == "array":
            self.open = False
            self.kind = "list"
            self.keyed = at.list_type == "map"
            self.atomic = at.list_type not in ("map", "set")
        elif at.preserve and not at.type:
            self.kind, self.atomic = "map", False
        else:
            self.open = False
        self.keys = at.keys
        self.empty = [] if self.kind == "list" else {}

    @cached_property
    def fields(self) -> dict[str, Shape]:
        if self.kind != "struct":
            return {}
        found: dict[str, Shape] = {k: CustomShape(s) for k, s in self.at.properties.items()}
        if self.root or self.at.embedded:
            found |= {"apiVersion": Shape(TEXT), "kind": Shape(TEXT), "metadata": shape_of(METADATA)}
        return found

    @cached_property
    def item(self) -> Shape:
        inside = self.at.items if self.kind == "list" else self.at.additional
        return CustomShape(inside) if isinstance(inside, Structural) else DEDUCED

    def element(self, item: Any, index: int) -> str:
        values = [item.get(k) for k in self.keys] if isinstance(item, dict) else [item]
        if any(isinstance(v, (dict, list)) for v in values):
            return f"i:{index}"
        return super().element(item, index)

    @cached_property
    def defaults(self) -> tuple[Any, ...]:
        items = self.at.items
        known = items.properties if items is not None else {}
        return tuple(known[k].default if k in known and known[k].default is not NOTHING else None for k in self.keys)

    def below(self, key: str) -> Shape:
        if self.kind == "struct":
            found = self.fields.get(key)
            if found is not None:
                return found
        if isinstance(self.at.additional, Structural):
            return self.item
        return DEDUCED


def field_of(at: Structural) -> Field:
    """What error texts and scalars need to know of a place."""
    if at.int_or_string:
        return Field(type="string", format="int-or-string")
    if at.type in ("object", "array") or not at.type:
        return Field(type="any", list_type=at.list_type)
    return Field(type=at.type)


class DeducedShape(Shape):
    """Content that no schema describes: maps go field by field, lists and the rest as a whole."""

    def __init__(self) -> None:
        super().__init__(Field(type="any"))
        self.kind, self.atomic, self.open, self.empty = "map", False, True, {}

    @cached_property
    def item(self) -> Shape:
        return self

    def below(self, key: str) -> Shape:
        return self


@cache
def shape_of(name: str) -> Shape:
    """The shape of a definition; free content below the top for a schema the table does not have."""
    if name in schema.section(1):
        return Shape(Field(type="object", ref=name))
    return Shape(Field(type="map", items=Field(type="any")))


FREE = Shape(Field(type="any"))
DEDUCED = DeducedShape()


def whole(shape: Shape, value: Any) -> bool:
    """Whether a value is owned and replaced as a whole: by its schema, or since it is not what the schema says (free
    content of custom objects, and wrong types that are refused later)."""
    return shape.atomic or not isinstance(value, type(shape.empty))


# Sets


def everything(shape: Shape, value: Any) -> FieldSet:
    """The node of a value that is wholly new or gone: itself and all below it."""
    if not value or whole(shape, value):
        return {}
    if shape.kind == "list":
        return {
            MEMBER: {},
            **{e: everything(shape.item, vs[0]) if len(vs) == 1 else {} for e, vs in shape.elements(value).items()},
        }
    return {MEMBER: {}, **{f"f:{k}": everything(shape.below(k), v) for k, v in value.items()}}


def applied(shape: Shape, value: Any) -> FieldSet:
    """The node of a value that a client applies: its leaves, and the items of its lists and maps.

    Empty for a list without items; the caller decides about nulls and empty maps.
    """
    if whole(shape, value or shape.empty):
        return {}
    out: FieldSet = {}
    if shape.kind == "list":
        for element, items in shape.elements(value).items():
            out[element] = node_of(True, applied(shape.item, items[0]))
        return out
    for key, inner in (value or {}).items():
        child = shape.below(key)
        if inner is None or inner == {} or whole(child, inner):
            out[f"f:{key}"] = {}
            continue
        node = applied(child, inner)
        if shape.kind == "map":
            out[f"f:{key}"] = node_of(True, node)
        elif node:
            out[f"f:{key}"] = node
    return out


def compare(shape: Shape, old: Any, new: Any, at: str, changed: FieldSet, removed: FieldSet) -> None:
    """Enter what differs between two values under the path element `at`."""
    if old is MISSING:
        changed[at] = everything(shape, new)
    elif new is MISSING:
        removed[at] = everything(shape, old)
    elif whole(shape, old or shape.empty) or whole(shape, new or shape.empty):
        changed[at] = {}
    elif old or new:
        more: FieldSet = {}
        less: FieldSet = {}
        if shape.kind == "list":
            compare_lists(shape, old, new, more, less)
        else:
            compare_maps(shape, old or {}, new or {}, more, less)
        if more:
            changed[at] = more
        if less:
            removed[at] = less


def compare_maps(shape: Shape, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
    for key, value in new.items():
        before = old.get(key, MISSING)
        if before is value or before == value:
            continue
        child = shape.below(key)
        if before is MISSING:
            if value is None:
                continue  # Go prints null for what is not there
            if child.present:
                before = child.empty
        compare(child, before, value, f"f:{key}", changed, removed)
    for key, value in old.items():
        if key not in new and value is not None:
            child = shape.below(key)
            compare(child, value, child.empty if child.present else MISSING, f"f:{key}", changed, removed)


def compare_lists(shape: Shape, old: Any, new: Any, changed: FieldSet, removed: FieldSet) -> None:
    before, after = shape.elements(old), shape.elements(new)
    for element, items in after.items():
        others = before.get(element)
        if others == items:
            continue
        if others is None:
            changed[element] = everything(shape.item, items[0]) if len(items) == 1 else {}
        elif len(items) > 1 or len(others) > 1:
            changed[element] = {}
        else:
            compare(shape.item, others[0], items[0], element, changed, removed)
    for element, items in before.items():
        if element not in after:
            removed[element] = everything(shape.item, items[0]) if len(items) == 1 else {}


# Merging


def merge(shape: Shape, live: Any, config: Any) -> Any:
    """The live value with an applied one laid over it; lists in the order of both. Nothing is changed in place."""
    if live is MISSING or live is None or config is None or whole(shape, live) or whole(shape, config):
        return config
    if shape.kind == "list":
        return merge_lists(shape, live, config)
    out = dict(live)
    for key, value in config.items():
        out[key] = merge(shape.below(key), live.get(key, MISSING), value)
    return out


def merge_lists(shape: Shape, live: list[Any], config: list[Any]) -> list[Any]:
    """Items of both: those of `config` in its order, and among them those of `live` alone where they stood."""
    left = [shape.element(v, i) for i, v in enumerate(live)]
    right = [shape.element(v, i) for i, v in enumerate(config)]
    ours = dict(reversed(list(zip(left, live, strict=True))))
    theirs = dict(zip(right, config, strict=True))
    shared = iter([e for e in right if e in ours])
    wanted = next(shared, None)
    merged: set[str] = set()
    out: list[Any] = []
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            element = left[i]
            if element == right[j]:
                merged.add(element)
                out.append(merge(shape.item, ours[element], theirs[element]))
                i, j = i + 1, j + 1
                wanted = next(shared, None)
                continue
            if element in theirs and wanted is not None and wanted != element:
                i += 1
                continue
        if i < len(left):
            element = left[i]
            if element not in theirs:
                out.append(live[i])
                i += 1
                continue
            if element in merged:
                i += 1
        if j < len(right):
            element = right[j]
            merged.add(element)
            out.append(merge(shape.item, ours.get(element, MISSING), theirs[element]))
            j += 1
            if wanted == element:
                wanted = next(shared, None)
    return out


# Removing


def with_structs(shape: Shape, fields: FieldSet) -> FieldSet:
    """The set with every struct field that leads to a member made a member too."""
    out: FieldSet = {}
    for key, node in fields.items():
        if key == MEMBER:
            continue
        if key.startswith("f:"):
            child = shape.below(key[2:])
            named = shape.kind == "struct" and key[2:] in shape.fields
        else:
            child, named = shape.item if shape.kind == "list" else FREE, False
        out[key] = node_of(is_member(node) or named, with_structs(child, below(node)))
    return out


def without(shape: Shape, value: Any, fields: FieldSet) -> Any:
    """The value without what is in the set; None where nothing is left of a map or list."""
    if not value or not fields or whole(shape, value):
        return value
    if shape.kind == "list":
        kept: list[Any] = []
        for i, item in enumerate(value):
            node = fields.get(shape.element(item, i))
            if node is None:
                kept.append(item)
            elif not is_member(node):
                kept.append(without(shape.item, item, below(node)))
        return kept or None
    out: dict[str, Any] = {}
    for key, inner in value.items():
        node = fields.get(f"f:{key}")
        if node is None:
            out[key] = inner
        elif not is_member(node):
            out[key] = without(shape.below(key), inner, below(node))
    return out or None


# Checking


def errors_in(shape: Shape, value: Any, path: str, found: list[str]) -> None:
    """What keeps an applied value from being read: undeclared fields, wrong types, lists that repeat themselves."""
    start = f"{path}: " if path else ""
    if value is None or shape.kind == "free" or (shape.open and shape.kind == "map" and not isinstance(value, dict)):
        return
    if shape.kind == "list":
        if not isinstance(value, list):
            found.append(f"{start}expected list, got {go_value(value)}")
            return
        errors_in_list(shape, value, path, start, found)
    elif shape.kind in ("struct", "map"):
        if not isinstance(value, dict):
            found.append(f"{start}expected map, got {go_value(value)}")
            return
        for key in sorted(value):
            here = f"{path}.{key}"
            if shape.kind == "struct" and key not in shape.fields and not shape.open:
                found.append(f"{here}: field not declared in schema")
            else:
                errors_in(shape.below(key), value[key], here, found)
    elif problem := scalar_problem(shape.field, value):
        found.append(start + problem)


def errors_in_list(shape: Shape, items: list[Any], path: str, start: str, found: list[str]) -> None:
    seen: set[str] = set()
    associative = shape.field.list_type in ("map", "set")
    for i, item in enumerate(items):
        element = f"i:{i}"
        if associative:
            if problem := item_problem(shape, item):
                found.append(f"{start}element {i}: {problem}")
                return
            element = shape.element(item, i)
            if element in seen:
                found.append(f"{start}duplicate entries for key {spell_element(element)}")
            seen.add(element)
        errors_in(shape.item, item, path + spell_element(element), found)


def item_problem(shape: Shape, item: Any) -> str:
    if not shape.keyed:
        return "" if isinstance(item, (str, int, float, bool)) else "invalid type for set member"
    if not isinstance(item, dict):
        return "associative list with keys may not have non-map elements"
    for key, default in zip(shape.keys, shape.defaults, strict=True):
        if item.get(key, default) is None:
            omits = f'associative list with keys has an element that omits key field "{key}"'
            return f"{omits} (and doesn't have default value)"
        if isinstance(item.get(key), (dict, list)):
            return f'associative list with keys has an element whose key field "{key}" is no scalar'
    return ""


def scalar_problem(field: Field, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if field.format in ("int-or-string", "quantity"):
        return "" if number or isinstance(value, str) else f"expected string or number, got {go_value(value)}"
    if field.type in ("integer", "number"):
        return "" if number else f"expected numeric (int or float), got {go_type(value)}"
    if field.type == "boolean":
        return "" if isinstance(value, bool) else f"expected boolean, got {go_value(value)}"
    return "" if isinstance(value, str) else f"expected string, got {go_value(value)}"


def go_type(value: Any) -> str:
    names = {"number": "int64", "array": "[]interface {}", "object": "map[string]interface {}"}
    return names.get(type_word(value), type_word(value))


def go_value(value: Any) -> str:
    shown = f'"{value}"' if isinstance(value, str) else spell(value)
    return "&value.valueUnstructured{Value:" + shown + "}"
