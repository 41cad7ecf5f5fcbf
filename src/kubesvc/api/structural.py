"""Structural schemas: what a CustomResourceDefinition says of the shape of its objects, and what follows from that.

A `Structural` is one place of a schema that `validate_schema` (kubesvc.api.schemacheck) has accepted. Objects are plain
dicts; functions change them in place where they say so, never raise for bad content, and leave values of a wrong type
alone: refusing those is the schema's check (`kubesvc.api.valuecheck`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from . import fields
from .fields import Errors, Path
from .meta import Object

NOTHING: Any = object()
"""Stands where there is no default."""
RESERVED = frozenset({"apiVersion", "kind", "metadata"})
"""Fields that every object has, whatever its schema says."""


class Structural:
    """One place of a structural schema.

    additional: what values of a map are (a Structural), whether there may be any (bool), or None: no such keyword
    preserve:   unknown fields stay
    embedded:   a whole object with apiVersion, kind and metadata stands here
    default:    NOTHING, or what is filled in where the value is absent
    """

    __slots__ = (
        "_encoded", "additional", "default", "embedded", "fills", "int_or_string", "items", "keys",
        "list_type", "looked_at", "map_type", "nullable", "preserve", "properties", "special", "type",
    )  # fmt: skip

    def __init__(self, raw: Object) -> None:
        self.type: str = raw.get("type") or ""
        self.nullable = bool(raw.get("nullable"))
        self.preserve = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
        self.int_or_string = bool(raw.get("x-kubernetes-int-or-string"))
        self.list_type: str = raw.get("x-kubernetes-list-type") or ""
        self.keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.map_type: str = raw.get("x-kubernetes-map-type") or ""
        found = raw.get("properties")
        self.properties = {k: Structural(v) for k, v in found.items()} if isinstance(found, dict) else {}
        more = raw.get("additionalProperties")
        self.additional = Structural(more) if isinstance(more, dict) else more if isinstance(more, bool) else None
        inner = raw.get("items")
        self.items = Structural(inner) if isinstance(inner, dict) else None
        self.default: Any = raw["default"] if raw.get("default") is not None else NOTHING
        self._encoded = msgspec.json.encode(self.default) if isinstance(self.default, (dict, list)) else b""
        below = [*self.properties.values(), *(s for s in (self.additional, self.items) if isinstance(s, Structural))]
        self.fills: bool = any(s.default is not NOTHING or s.fills for s in below)
        """Whether anything below has a default."""
        self.special: bool = any(s.looked_at for s in below)
        """Whether anything below is an embedded object or a list whose items must differ."""
        self.looked_at: bool = self.special or self.embedded or self.list_type in ("set", "map")

    def fresh_default(self) -> Any:
        """The default, as a value of its own."""
        return msgspec.json.decode(self._encoded) if self._encoded else self.default

    def below(self, key: str) -> Structural | None:
        """The place of a field; None if the schema does not name it."""
        found = self.properties.get(key)
        if found is None and isinstance(self.additional, Structural):
            return self.additional
        return found


# ---------------------------------------------------------------- unknown fields


def prune(value: Any, at: Structural | None, path: str, unknown: list[str], *, root: bool = False) -> None:
    """Take out, in place, what the schema does not name; the paths of that go to `unknown`.

    root: whether the value is a whole object, whose apiVersion, kind and metadata stay
    """
    if at is not None and at.preserve:
        keep(value, at, path, unknown, root=root)
    elif isinstance(value, dict):
        gone = []
        for key, inner in value.items():
            if root and key in RESERVED:
                continue
            found = None
            if at is not None:
                found = at.properties.get(key)
                if found is None and at.additional:
                    if isinstance(inner, (dict, list)):
                        more = at.additional if isinstance(at.additional, Structural) else None
                        prune(inner, more, f"{path}.{key}" if path else key, unknown, root=embedded(more))
                    continue
            if found is None:
                gone.append(key)
            elif isinstance(inner, (dict, list)):
                prune(inner, found, f"{path}.{key}" if path else key, unknown, root=found.embedded)
        for key in gone:
            unknown.append(f"{path}.{key}" if path else key)
            del value[key]
    elif isinstance(value, list):
        items = at.items if at is not None else None
        for i, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                prune(inner, items, f"{path}[{i}]", unknown, root=embedded(items))


def embedded(at: Structural | None) -> bool:
    return at is not None and at.embedded


def keep(value: Any, at: Structural, path: str, unknown: list[str], *, root: bool) -> None:
    """Where unknown fields stay: prune only below those that the schema names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            found = None if root and key in RESERVED else at.below(key)
            if found is not None and isinstance(inner, (dict, list)):
                prune(inner, found, f"{path}.{key}" if path else key, unknown, root=found.embedded)
    elif isinstance(value, list) and at.items is not None:
        for i, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                keep(inner, at.items, f"{path}[{i}]", unknown, root=at.items.embedded)


# ---------------------------------------------------------------- nulls and defaults


def fill(value: Any, at: Structural | None) -> None:
    """Fill in defaults, in place. A null that is not allowed counts as absent: it takes the default, or goes."""
    if at is None:
        return
    if isinstance(value, dict):
        if at.fills or None in value.values():
            for key in [k for k, v in value.items() if v is None]:
                found = at.below(key)
                if found is None or found.nullable:
                    continue
                if found.default is NOTHING:
                    del value[key]
                else:
                    value[key] = found.fresh_default()
        if at.fills:
            for key, found in at.properties.items():
                if found.default is not NOTHING and key not in value:
                    value[key] = found.fresh_default()
        for key, inner in value.items():
            if isinstance(inner, (dict, list)):
                fill(inner, at.below(key))
    elif isinstance(value, list) and at.items is not None:
        items = at.items
        for i, inner in enumerate(value):
            if inner is None and not items.nullable and items.default is not NOTHING:
                value[i] = inner = items.fresh_default()
            if isinstance(inner, (dict, list)):
                fill(inner, items)


# ---------------------------------------------------------------- what is embedded, and lists whose items differ


def special_errors(value: Any, at: Structural) -> Errors:
    """Embedded objects without apiVersion or kind, and repeated items of sets and keyed lists."""
    return [*embedded_errors(value, at, Path()), *repeated_items(value, at, Path())]


def children(value: Any, at: Structural, path: Path) -> Iterator[tuple[Any, Structural, Path]]:
    """What stands below a value where there is something to look at."""
    if isinstance(value, dict):
        for key, inner in value.items():
            found = at.properties.get(key)
            if found is not None:
                if found.looked_at:
                    yield inner, found, path / key
            elif isinstance(at.additional, Structural) and at.additional.looked_at:
                yield inner, at.additional, path.key(key)
    elif isinstance(value, list) and at.items is not None and at.items.looked_at:
        for i, inner in enumerate(value):
            yield inner, at.items, path @ i


def embedded_errors(value: Any, at: Structural, path: Path) -> Iterator[fields.FieldError]:
    if at.embedded and isinstance(value, dict):
        for key in ("apiVersion", "kind"):
            found = value.get(key)
            if found is None or found == "":
                yield fields.required(path / key, "must not be empty")
            elif not isinstance(found, str):
                yield fields.invalid(path / key, found, "must be a string")
    if at.special:
        for inner, below, here in children(value, at, path):
            yield from embedded_errors(inner, below, here)


def repeated_items(value: Any, at: Structural, path: Path) -> Iterator[fields.FieldError]:
    if isinstance(value, list) and at.list_type in ("set", "map"):
        seen: set[bytes] = set()
        for i, item in enumerate(value):
            shown = item
            if at.list_type == "map":
                if not isinstance(item, dict):
                    continue
                shown = {k: item[k] for k in at.keys if k in item}
            spelled = msgspec.json.encode(shown, order="sorted")
            if spelled in seen:
                yield fields.duplicate(path @ i, shown)
            seen.add(spelled)
    if at.special:
        for inner, below, here in children(value, at, path):
            yield from repeated_items(inner, below, here)


# ---------------------------------------------------------------- depth


def deeper_than(value: Any, levels: int) -> bool:
    """Whether objects and lists nest in each other beyond so many levels."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > levels:
            return True
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    return False


# ---------------------------------------------------------------- numbers


def whole_numbers(value: Any) -> Any:
    """The value with numbers such as 80.0 as Go spells them: 80. Containers are changed in place."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (float, dict, list)):
                value[key] = whole_numbers(inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            if isinstance(inner, (float, dict, list)):
                value[i] = whole_numbers(inner)
    return value
