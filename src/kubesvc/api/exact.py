"""Bodies read exactly: a walk along the schema that finds Go's words for wrong types, and every unknown or repeated
field, in the order of the body (OPT-2, OPT-4). Slow beside `kubesvc.api.quick`, and with the same result."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from . import fields, quantity, schema
from .gojson import syntax_error, type_word
from .meta import Object
from .quick import ZERO
from .schema import Definition, Field

MAX_STRICT = 100
"""Most unknown and duplicate fields that are told."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, the repeated ones too."""


class Literal(float):
    """A JSON number that is no integer, with its spelling."""

    text: str


def literal(text: str) -> Literal:
    number = Literal(text)
    number.text = text
    return number


def integer_or_literal(text: str) -> int | Literal:
    return int(text) if len(text) < 30 else literal(text)


def read_json(raw: bytes) -> Any:
    """A text's value, with `Pairs` for objects; ValueError with Go's words if it is no JSON."""
    message = syntax_error(raw)
    if message:
        raise ValueError(message)
    try:
        text = raw.decode(errors="replace")
        value = json.loads(text, object_pairs_hook=Pairs, parse_float=literal, parse_int=integer_or_literal)
        return mended(value) if "\\ud" in text.lower() else value
    except (RecursionError, ValueError):
        raise ValueError("exceeded max depth") from None


def mended(value: Any) -> Any:
    """The value with U+FFFD for every half of a surrogate pair, which no text may hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Pairs):
        return Pairs((mended(k), mended(v)) for k, v in value)
    return [mended(v) for v in value] if isinstance(value, list) else value


class Abort(ValueError):
    """A value that its own type refused; Go stops reading there."""


def items_of(value: Any) -> Iterable[tuple[str, Any]]:
    found: Iterable[tuple[str, Any]] = value if isinstance(value, Pairs) else value.items()
    return found


def is_object(value: Any) -> bool:
    return isinstance(value, (dict, Pairs))


def repeated_keys(value: Any, path: str = "") -> list[str]:
    """`duplicate field` texts for every key given twice, in the order of the text."""
    found: list[str] = []
    if isinstance(value, Pairs):
        seen: set[str] = set()
        for key, inner in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                found.append(f'duplicate field "{here}"')
            seen.add(key)
            found += repeated_keys(inner, here)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            found += repeated_keys(inner, f"{path}[{i}]")
    return list(dict.fromkeys(found))


def word(value: Any) -> str:
    return "object" if isinstance(value, Pairs) else type_word(value)


def go_type(field: Field) -> str:
    """What Go calls the type of a field's value, pointers aside."""
    if field.go:
        return field.go
    if field.type == "array":
        return "[]" + go_type(field.items) if field.items else "[]interface {}"
    if field.type == "map":
        return "map[string]" + go_type(field.items) if field.items else "map[string]interface {}"
    if field.type == "boolean":
        return "bool"
    if field.type == "integer":
        return field.format or "int64"
    if field.type == "number":
        return "float64"
    if field.format == "byte":
        return "[]uint8"
    if field.ref:
        return schema.definition(field.ref).go
    return "string"


class Walk:
    """Reads one value along the schema, collecting what is odd about it."""

    def __init__(self) -> None:
        self.error = ""
        self.strict: list[str] = []
        self.unknown: list[str] = []
        self.duplicates: list[str] = []

    # `path` is the exact place (spec.ports[0].port); `stack` the field names only, as type errors have it.

    def type_error(self, found: str, struct: str, stack: str, go: str) -> str:
        return f"json: cannot unmarshal {found} into Go struct field {struct}.{stack} of type {go}"

    def save(self, message: str) -> None:
        self.error = self.error or message

    def note(self, what: str, path: str, found: list[str]) -> None:
        text = f'{what} field "{path}"'
        if len(self.strict) < MAX_STRICT and text not in self.strict:
            self.strict.append(text)
            found.append(path)

    def struct(self, value: Any, definition: Definition, path: str, stack: str, out: Object) -> Object:
        seen: set[str] = set()
        for key, inner in items_of(value):
            here = f"{path}.{key}" if path else key
            field = definition.fields.get(key)
            if field is None:
                self.note("unknown", here, self.unknown)
                continue
            if key in seen:
                self.note("duplicate", here, self.duplicates)
            seen.add(key)
            names = f"{stack}.{key}" if stack else key
            if inner is None:
                if field.type not in ZERO or not field.zero_absent:
                    out.pop(key, None)
                continue
            read = self.value(inner, field, definition.short, here, names, out.get(key))
            if read is None or (not read and left_out(key, field)):
                out.pop(key, None)
            else:
                out[key] = read
        return out

    def value(self, value: Any, field: Field, owner: str, path: str, stack: str, before: Any) -> Any:
        """The value of a field; None if it is of a wrong type."""
        if field.type == "object":
            if not is_object(value):
                return self.wrong(value, field, owner, stack)
            base = before if isinstance(before, dict) else {}
            return self.struct(value, schema.definition(field.ref), path, stack, base)
        if field.type == "array":
            if not isinstance(value, list) or isinstance(value, Pairs):
                return self.wrong(value, field, owner, stack)
            item = field.items
            assert item is not None
            return [self.inside(v, item, owner, f"{path}[{i}]", stack, None) for i, v in enumerate(value)]
        if field.type == "map":
            return self.map(value, field, owner, path, stack, before)
        if field.type == "any":
            return bare(value)
        return self.scalar(value, field, owner, stack)

    def inside(self, value: Any, item: Field, owner: str, path: str, stack: str, before: Any) -> Any:
        """An item of a list or map: null is its zero value."""
        read = None if value is None else self.value(value, item, owner, path, stack, before)
        return zero_of(item) if read is None else read

    def map(self, value: Any, field: Field, owner: str, path: str, stack: str, before: Any) -> Any:
        if not is_object(value):
            return self.wrong(value, field, owner, stack)
        item = field.items
        assert item is not None
        out: Object = before if isinstance(before, dict) else {}
        seen: set[str] = set()
        for key, inner in items_of(value):
            here = f"{path}.{key}"
            if key in seen:
                self.note("duplicate", here, self.duplicates)
            seen.add(key)
            out[str(key)] = self.inside(inner, item, owner, here, stack, None)
        return out

    def wrong(self, value: Any, field: Field, owner: str, stack: str) -> None:
        self.save(self.mismatch(value, field, owner, stack))

    def mismatch(self, value: Any, field: Field, owner: str, stack: str) -> str:
        """The words for a value of a wrong type."""
        return self.type_error(word(value), owner, stack, go_type(field))

    def scalar(self, value: Any, field: Field, owner: str, stack: str) -> Any:
        if field.format in ("date-time", "micro-time", "duration", "quantity", "int-or-string"):
            return self.special(value, field, owner, stack)
        if field.type == "string":
            if not isinstance(value, str):
                return self.wrong(value, field, owner, stack)
            return self.base64(value) if field.format == "byte" else value
        if field.type == "boolean":
            return value if isinstance(value, bool) else self.wrong(value, field, owner, stack)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self.wrong(value, field, owner, stack)
        if field.type == "number":
            return float(value) if isinstance(value, Literal) else value
        bits = 31 if field.format == "int32" else 63
        if not isinstance(value, int) or not -(2**bits) <= value < 2**bits:
            self.save(self.type_error(f"number {spelled(value)}", owner, stack, go_type(field)))
            return None
        return value

    def base64(self, text: str) -> str | None:
        stripped = text.replace("\n", "").replace("\r", "")
        try:
            return base64.b64encode(base64.b64decode(stripped, validate=True)).decode()
        except (binascii.Error, ValueError):
            self.save(f"illegal base64 data at input byte {bad_base64(stripped)}")
            return None

    def special(self, value: Any, field: Field, owner: str, stack: str) -> Any:
        """Types that read themselves: what they refuse ends the reading."""
        if field.format == "int-or-string":
            if isinstance(value, str):
                return value
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise Abort(self.type_error(word(value), owner, stack, "int32"))
            if not isinstance(value, int) or not -(2**31) <= value < 2**31:
                raise Abort(self.type_error(f"number {spelled(value)}", owner, stack, "int32"))
            return value
        if field.format == "quantity":
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise Abort(quantity.FORM_TEXT)
            try:
                return quantity.canonical(value.text if isinstance(value, Literal) else value)
            except ValueError as e:
                raise Abort(str(e)) from None
        if not isinstance(value, str):
            raise Abort(self.type_error(word(value), owner, stack, "string"))
        if field.format == "duration":
            return value
        return time_text(value, micro=field.format == "micro-time")


def left_out(key: str, field: Field) -> bool:
    """Whether nothing stands where this field is empty; empty managedFields alone say something (APPLY-6)."""
    return field.zero_absent or (field.type in ("array", "map") and key != "managedFields")


def zero_of(item: Field) -> Any:
    if item.type == "object":
        return {}
    if item.format == "quantity":
        return "0"
    if item.format == "int-or-string":
        return 0
    return ZERO.get(item.type)


def spelled(value: Any) -> str:
    return value.text if isinstance(value, Literal) else json.dumps(value)


def bare(value: Any) -> Any:
    """Content without a schema, as plain values."""
    if is_object(value):
        return {str(k): bare(v) for k, v in items_of(value)}
    if isinstance(value, list):
        return [bare(v) for v in value]
    return float(value) if isinstance(value, Literal) else value


def bad_base64(text: str) -> int:
    """Where Go stops reading base64."""
    match = re.match(r"[A-Za-z0-9+/]*", text)
    assert match is not None
    stop = match.end()
    if stop < len(text) and text[stop] != "=":
        return stop
    if stop == len(text):
        return stop - stop % 4 if stop % 4 else stop
    padded = re.match(r"={0,2}", text[stop:])
    assert padded is not None
    return min(stop + len(padded[0]), len(text))


DATE = (
    ("2006", r"\d{4}", None),
    ("-", "-", None),
    ("01", r"\d{2}", ("month", 1, 12)),
    ("-", "-", None),
    ("02", r"\d{2}", ("day", 1, 31)),
    ("T", "T", None),
    ("15", r"\d{1,2}", ("hour", 0, 23)),
    (":", ":", None),
    ("04", r"\d{2}", ("minute", 0, 59)),
    (":", ":", None),
    ("05", r"\d{2}", ("second", 0, 59)),
)
FRACTION = re.compile(r"[.,]\d+")
ZONE = re.compile(r"Z|[-+]\d{2}:\d{2}")


def time_text(text: str, *, micro: bool) -> str:
    """A time in the form the API prints: UTC, whole seconds (or microseconds). Abort with Go's words if it is none."""
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    start = f"parsing time {fields.quote(text)}"
    at = 0

    def no(part: str) -> Abort:
        return Abort(
            f"{start} as {fields.quote(layout)}: cannot parse {fields.quote(text[at:])} as {fields.quote(part)}"
        )

    for part, pattern, limit in DATE:
        match = re.compile(pattern, re.ASCII).match(text, at)
        if not match:
            raise no(part)
        if limit and not limit[1] <= int(match[0]) <= limit[2]:
            raise Abort(f"{start}: {limit[0]} out of range")
        at = match.end()
    fraction = ""
    if found := FRACTION.match(text, at):
        fraction, at = found[0][1:], found.end()
    if micro and len(fraction) != 6:
        at -= len(fraction) + 1 if fraction else 0
        raise no(".000000")
    zone = ZONE.match(text, at)
    if not zone:
        raise no("Z07:00")
    if zone.end() != len(text):
        raise Abort(f"{start}: extra text: {fields.quote(text[zone.end() :])}")
    try:
        hour = re.sub(r"T(\d):", r"T0\1:", text[:at].split(".")[0].split(",")[0])
        stamp = datetime.fromisoformat(hour + zone[0]).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Abort(f"{start}: day out of range") from None
    whole = stamp.strftime("%Y-%m-%dT%H:%M:%S").zfill(19)
    return f"{whole}.{fraction[:6].ljust(6, '0')}Z" if micro else f"{whole}Z"
