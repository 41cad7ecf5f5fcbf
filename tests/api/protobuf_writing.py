"""Writes protobuf bodies the way Go clients do, to have something to read; and random objects of any kind."""

from __future__ import annotations

import base64
import json
import random
from datetime import datetime
from typing import Any

from kubesvc.api import schema
from kubesvc.api.decode import Target
from kubesvc.api.meta import Object
from kubesvc.api.protobuf import MAGIC, fields_of
from kubesvc.api.schema import Field


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def number(at: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(at << 3) + varint(value)


def sized(at: int, value: bytes | str) -> bytes:
    """A field that is a text, bytes or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(at << 3 | 2) + varint(len(raw)) + raw


def body(api_version: str, kind: str, message: bytes) -> bytes:
    """A whole body: the envelope, with the two fields about its content that Go always writes."""
    head = sized(1, api_version) + sized(2, kind)
    return MAGIC + sized(1, head) + sized(2, message) + sized(3, "") + sized(4, "")


def body_of(obj: Object, target: Target) -> bytes:
    return body(target.api_version, target.name, message_of(obj, target.schema))


def message_of(obj: Object, name: str) -> bytes:
    """A message as Go writes it: every field that is no pointer, list, map or bytes, be it zero."""
    out = b""
    for at, field in sorted(fields_of(name).items()):
        if not field.name:
            out += sized(at, message_of(obj, field.type))
            continue
        value = obj.get(field.name)
        if field.form == "[]":
            out += b"".join(written(at, v, field.type) for v in value or ())
        elif field.form == "{}":
            for key, inner in sorted((value or {}).items()):
                out += sized(at, sized(1, key) + written(2, inner, field.type))
        elif value is not None or (field.form != "*" and field.type != "bytes"):
            out += written(at, value, field.type)
    return out


def written(at: int, value: Any, type: str) -> bytes:
    """One field; None is the zero value."""
    if type in ("bool", "int32", "int64"):
        return number(at, int(value or 0))
    if type == "string":
        return sized(at, value or "")
    if type == "bytes":
        return sized(at, base64.b64decode(value or ""))
    if type in ("time", "microtime"):
        if value is None:
            return sized(at, b"")
        stamp = datetime.fromisoformat(value)
        return sized(at, number(1, int(stamp.timestamp() // 1)) + number(2, stamp.microsecond * 1000))
    if type == "quantity":
        return sized(at, sized(1, value or "0"))
    if type == "intorstring":
        if isinstance(value, str):
            return sized(at, number(1, 1) + number(2, 0) + sized(3, value))
        return sized(at, number(1, 0) + number(2, value or 0) + sized(3, ""))
    if type == "json":
        return sized(at, b"" if value is None else sized(1, json.dumps(value)))
    if type == "strings":
        return sized(at, b"".join(sized(1, v) for v in value or ()))
    return sized(at, message_of(value or {}, type))


def as_go_prints(obj: Object, name: str) -> Object:
    """The JSON that Go would print of an object: zero values of what is neither a pointer nor left out, and no other
    zeros but of pointers."""
    out: Object = {}
    for field in fields_of(name).values():
        value = obj.get(field.name)
        if not field.name:
            out |= as_go_prints(obj, field.type)
        elif "." in field.type and field.form == "[]":
            out[field.name] = value and [as_go_prints(v, field.type) for v in value]
        elif "." in field.type and field.form == "{}":
            out[field.name] = value and {k: as_go_prints(v, field.type) for k, v in value.items()}
        elif "." in field.type and (value is not None or field.form == ""):
            out[field.name] = as_go_prints(value or {}, field.type)
        elif value is None and field.form == "":
            out[field.name] = ZERO.get(field.type)
        elif value or field.form != "?":
            out[field.name] = value
    return out


ZERO: dict[str, Any] = {"string": "", "bool": False, "int32": 0, "int64": 0, "quantity": "0", "intorstring": 0}


def random_object(chance: random.Random, definition: str, depth: int = 5) -> Object:
    """An object with some of the fields of a definition, to a depth."""
    out = {}
    for name, field in schema.definition(definition).fields.items():
        if name not in ("apiVersion", "kind") or not schema.definition(definition).kinds:
            nested = field.type in ("object", "array", "map")
            if chance.random() < 0.3 and (depth or not nested):
                out[name] = random_value(chance, field, depth - nested)
    return out


def random_value(chance: random.Random, field: Field, depth: int) -> Any:
    """A value for a field: zero, usual or extreme."""
    if field.type == "object":
        return random_object(chance, field.ref, depth)
    if field.type in ("array", "map"):
        assert field.items is not None
        values = [random_value(chance, field.items, depth) for _ in range(chance.randint(1, 3))]
        return values if field.type == "array" else {chance.choice(TEXTS): v for v in values}
    if field.type == "any":
        return {"f:a": {"x": [1, None, 0.5, "t"]}}
    if field.type == "boolean":
        return chance.choice((True, False))
    if field.type == "integer":
        most = 2**31 if field.format == "int32" else 2**63
        return chance.choice((0, 1, -1, 80, most - 1, -most))
    if field.format in SPECIAL:
        return chance.choice(SPECIAL[field.format])
    return chance.choice(TEXTS)


TEXTS = ("", "a", "web-1", "ü\n\x00", "x" * 200)
SPECIAL: dict[str, tuple[Any, ...]] = {
    "date-time": ("2024-02-29T23:59:59Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
    "micro-time": ("2024-02-29T23:59:59.000001Z", "1969-12-31T23:59:59.999999Z"),
    "quantity": ("0", "100m", "1536Mi", "2"),
    "int-or-string": (0, -1, 8080, "", "50%", "http"),
    "byte": ("", "AP8=", "eA=="),
}
