"""Schemas as types of expressions, and objects as values of those types.

What a schema does not describe is not visible. Names that are no words are escaped (`a-b` is `a__dash__b`, `namespace`
is `__namespace__`). Texts of the formats date, date-time, duration and byte are moments, spans and bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from ..meta import Object
from .syntax import RESERVED
from .types import BOOL, BYTES, DOUBLE, DURATION, DYN, INT, STRING, TIMESTAMP, Type, list_type, map_type
from .values import KeyedList, ObjectMap, SetList, date_of, duration_of, timestamp_of

WORDS = RESERVED | {"true", "false", "null", "in"}
ACCESSIBLE = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
SPECIAL = re.compile(r"__|[./-]")
ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}


def escaped(name: str) -> str:
    """A field's name as expressions write it; "" if they cannot."""
    if not ACCESSIBLE.fullmatch(name):
        return ""
    if name in WORDS:
        return f"__{name}__"
    return SPECIAL.sub(lambda found: ESCAPES[found[0]], name)


def read_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise ValueError(str(e)) from None


TEXTS: dict[str, tuple[Type, Callable[[str], Any]]] = {
    "byte": (BYTES, read_bytes),
    "date": (TIMESTAMP, date_of),
    "date-time": (TIMESTAMP, timestamp_of),
    "duration": (DURATION, duration_of),
}
"""Formats of texts that are more than texts."""


def with_identity(schema: Object) -> Object:
    """The schema of a whole object: it always has apiVersion, kind, and its name."""
    found = schema.get("properties") or {}
    meta = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
    return {**schema, "properties": {**found, "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                                     "metadata": meta}}  # fmt: skip


class Shape:
    """One place of a schema as expressions see it. `type` is None where they see nothing."""

    __slots__ = ("additional", "fields", "items", "keys", "kind", "list_type", "names", "read", "type")

    def __init__(self, schema: Object, *, root: bool = False, name: str = "") -> None:
        self.kind: str = schema.get("type") or ""
        self.additional: Shape | None = None
        self.items: Shape | None = None
        self.fields: dict[str, Shape] = {}
        self.names: dict[str, str] = {}
        self.list_type: str = schema.get("x-kubernetes-list-type") or ""
        self.keys: tuple[str, ...] = tuple(escaped(k) for k in schema.get("x-kubernetes-list-map-keys") or ())
        self.read: Callable[[str], Any] | None = None
        self.type: Type | None = self.find(schema, root=root, name=name or "object")

    def find(self, schema: Object, *, root: bool, name: str) -> Type | None:
        if schema.get("x-kubernetes-int-or-string"):
            self.kind = "int-or-string"
            return DYN
        if root:
            schema = with_identity(schema)
        if self.kind == "array":
            inner = schema.get("items")
            if not isinstance(inner, dict):
                return None
            self.items = Shape(inner, root=bool(inner.get("x-kubernetes-embedded-resource")), name=f"{name}.@idx")
            return list_type(self.items.type) if self.items.type is not None else None
        if self.kind == "object":
            more = schema.get("additionalProperties")
            if isinstance(more, dict):
                self.additional = Shape(
                    more, root=bool(more.get("x-kubernetes-embedded-resource")), name=f"{name}.@elem"
                )
                return map_type(STRING, self.additional.type) if self.additional.type is not None else None
            for key, inner in (schema.get("properties") or {}).items():
                word = escaped(key)
                if not word or not isinstance(inner, dict):
                    continue
                shape = Shape(inner, root=bool(inner.get("x-kubernetes-embedded-resource")), name=f"{name}.{word}")
                if shape.type is not None:
                    self.fields[key] = shape
                    self.names[key] = word
            return Type(name, fields={self.names[k]: s.type for k, s in self.fields.items() if s.type is not None})
        if self.kind == "string":
            found = TEXTS.get(schema.get("format") or "")
            if found is None:
                return STRING
            self.read = found[1]
            return found[0]
        return {"boolean": BOOL, "number": DOUBLE, "integer": INT}.get(self.kind)

    def value(self, given: Any) -> Any:
        """A JSON value as expressions see it; one of a wrong type as it is, for the schema's check to refuse."""
        if isinstance(given, str):
            if self.read is not None:
                try:
                    return self.read(given)
                except (ValueError, OverflowError):
                    return given
            return given
        if isinstance(given, dict):
            if self.additional is not None:
                inner = self.additional
                return {k: inner.value(v) for k, v in given.items()}
            names = self.names
            return ObjectMap({names[k]: s.value(given[k]) for k, s in self.fields.items() if k in given})
        if isinstance(given, list):
            items = [self.items.value(v) for v in given] if self.items is not None else given
            if self.list_type == "set":
                return SetList(items)
            return KeyedList(items, self.keys) if self.list_type == "map" else items
        if self.kind == "number" and isinstance(given, int) and not isinstance(given, bool):
            return float(given)
        if self.kind == "integer" and isinstance(given, float) and given.is_integer():
            return int(given)
        return given
