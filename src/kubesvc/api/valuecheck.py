"""Objects against the OpenAPI schema of their CustomResourceDefinition, in upstream's words.

A `Check` is one place of a schema, prepared once. Errors come in the order in which upstream's validator finds them;
properties, whose order is by chance there, go by name. What is wrong with a combination (allOf, anyOf, oneOf, not) has
no field, which upstream prints as `<nil>`.

An update is not refused for what it leaves as it was: a value equal to the old one at the same place is not looked at.
Places correspond by field names, keys of maps, and the keys of `x-kubernetes-list-type: map`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import fields
from .fields import Errors, FieldError
from .formats import FORMATS
from .meta import Object
from .patterns import BadPattern, compiled

ABSENT: Any = object()
USUAL: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
NOWHERE = "<nil>"
INTEGER_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_encode = msgspec.json.Encoder(order="sorted").encode


def type_of(value: Any) -> str:
    """The JSON type of a value in the schema's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def number_text(value: float) -> str:
    """A limit as Go prints a float64."""
    if float(value).is_integer() and abs(value) < 1e21:
        return str(int(value))
    return repr(float(value))


class Check:
    """One place of a schema. `errors` judges a value; the value is never changed."""

    __slots__ = (
        "additional", "all_of", "any_of", "closed", "enum", "exclusive_maximum", "exclusive_minimum", "format",
        "items", "keys", "max_items", "max_length", "max_properties", "maximum", "min_items", "min_length",
        "min_properties", "minimum", "multiple_of", "nullable", "one_of", "pattern", "pattern_text", "plain",
        "properties", "refused", "required", "type_text", "types", "unique", "usual",
    )  # fmt: skip

    def __init__(self, raw: Object) -> None:
        given = raw.get("type") or ""
        self.types: tuple[str, ...] = (given,) if given else ()
        if raw.get("x-kubernetes-int-or-string"):
            self.types = ("integer", "string")
        self.type_text = ",".join(self.types)
        self.usual = USUAL.get(self.type_text)
        """What Python calls the type, where one type is asked for."""
        self.nullable = bool(raw.get("nullable"))
        found = raw.get("format") or ""
        self.format: str = found if found in FORMATS or found in INTEGER_RANGES or found in ("float", "double") else ""
        values = raw.get("enum")
        self.enum: list[Any] | None = values if isinstance(values, list) and values else None
        self.pattern: Callable[[str], bool] | None = None
        self.pattern_text: str = raw.get("pattern") or ""
        if self.pattern_text:
            try:
                self.pattern = compiled(self.pattern_text)
            except BadPattern:
                self.pattern = None  # of Go's alone: see schemacheck, which tells so
        self.max_length: int | None = raw.get("maxLength")
        self.min_length: int | None = raw.get("minLength")
        self.maximum: float | None = raw.get("maximum")
        self.minimum: float | None = raw.get("minimum")
        self.exclusive_maximum = bool(raw.get("exclusiveMaximum"))
        self.exclusive_minimum = bool(raw.get("exclusiveMinimum"))
        self.multiple_of: float | None = raw.get("multipleOf")
        self.max_items: int | None = raw.get("maxItems")
        self.min_items: int | None = raw.get("minItems")
        self.unique = bool(raw.get("uniqueItems"))
        self.max_properties: int | None = raw.get("maxProperties")
        self.min_properties: int | None = raw.get("minProperties")
        self.required: tuple[str, ...] = tuple(raw.get("required") or ())
        inside = raw.get("properties")
        self.properties = {k: Check(inside[k]) for k in sorted(inside)} if isinstance(inside, dict) else {}
        more = raw.get("additionalProperties")
        self.additional = Check(more) if isinstance(more, dict) else None
        self.closed = more is False
        inner = raw.get("items")
        self.items = Check(inner) if isinstance(inner, dict) else None
        self.keys: tuple[str, ...] = ()
        if raw.get("x-kubernetes-list-type") == "map":
            self.keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.all_of = [Check(s) for s in raw.get("allOf") or ()]
        self.any_of = [Check(s) for s in raw.get("anyOf") or ()]
        self.one_of = [Check(s) for s in raw.get("oneOf") or ()]
        refused = raw.get("not")
        self.refused = Check(refused) if isinstance(refused, dict) else None
        self.plain = not (self.all_of or self.any_of or self.one_of or self.refused)

    def errors(self, value: Any, old: Any = ABSENT) -> Errors:
        """All that is wrong with an object; of an update, with what it changed."""
        out: Errors = []
        self.look(value, old, "", out)
        return out

    # ------------------------------------------------------------------ one value

    def look(self, value: Any, old: Any, path: str, out: Errors) -> None:
        if old is not ABSENT and same(value, old):
            return
        if value is None:
            if self.types and not self.nullable:
                out.append(wrong_type(path, self.type_text, "null"))
            if self.enum is not None and not (self.nullable or any(v is None for v in self.enum)):
                out.append(self.not_listed(path, value))
            return
        self.look_type(value, path, out)
        if not self.plain:
            self.look_combinations(value, old, path, out)
        if isinstance(value, str):
            self.look_text(value, path, out)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self.look_number(value, path, out)
        elif isinstance(value, list):
            self.look_list(value, old, path, out)
        if self.enum is not None and not any(same(value, v) for v in self.enum):
            out.append(self.not_listed(path, value))
        if isinstance(value, dict):
            self.look_object(value, old, path, out)

    def look_type(self, value: Any, path: str, out: Errors) -> None:
        types = self.types
        if not types or type(value) is self.usual:
            return
        found = type_of(value)
        if found in types:
            return
        if found == "number" and "integer" in types and value.is_integer():
            return
        if found == "integer" and "number" in types:
            return
        format = self.format
        if format and found not in ("string", "array"):
            out.append(wrong_type(path, format, ""))
        elif not (format and found in ("string", "array")) or "number" in types or "integer" in types:
            out.append(wrong_type(path, self.type_text, found))

    def look_text(self, value: str, path: str, out: Errors) -> None:
        if self.max_length is not None and len(value) > self.max_length:
            out.append(fields.too_long(place(path), self.max_length))
        elif self.min_length is not None and len(value) < self.min_length:
            out.append(wrong(path, value, f"should be at least {self.min_length} chars long"))
        elif self.pattern is not None and not self.pattern(value):
            out.append(wrong(path, value, f"should match '{self.pattern_text}'"))
        format = FORMATS.get(self.format)
        if format is not None and not format(value):
            text = f"{path} in body must be of type {self.format}: {fields.quote(value)}"
            out.append(FieldError(place(path), "TypeInvalid", value, text))

    def look_number(self, value: float, path: str, out: Errors) -> None:
        if self.multiple_of and not is_multiple(value, self.multiple_of):
            out.append(wrong(path, value, f"should be a multiple of {number_text(self.multiple_of)}"))
        if self.maximum is not None and (value > self.maximum or (self.exclusive_maximum and value == self.maximum)):
            words = "less than" if self.exclusive_maximum else "less than or equal to"
            out.append(wrong(path, value, f"should be {words} {number_text(self.maximum)}"))
        if self.minimum is not None and (value < self.minimum or (self.exclusive_minimum and value == self.minimum)):
            words = "greater than" if self.exclusive_minimum else "greater than or equal to"
            out.append(wrong(path, value, f"should be {words} {number_text(self.minimum)}"))
        limits = INTEGER_RANGES.get(self.format)
        if limits is not None and "integer" in self.types and not limits[0] <= value <= limits[1]:
            text = f"Checked value must be of type integer with format {self.format} in body"
            out.append(FieldError(place(path), "Invalid", value, text))

    def look_list(self, value: list[Any], old: Any, path: str, out: Errors) -> None:
        if self.items is not None:
            before = by_keys(old, self.keys) if self.keys and isinstance(old, list) else {}
            for i, item in enumerate(value):
                known = before.get(key_of(item, self.keys), ABSENT) if before else ABSENT
                self.items.look(item, known, f"{path}[{i}]", out)
        size = len(value)
        if self.min_items is not None and size < self.min_items:
            out.append(wrong(path, size, f"should have at least {self.min_items} items"))
        if self.max_items is not None and size > self.max_items:
            out.append(fields.too_many(place(path), size, self.max_items))
        if self.unique and len({_encode(v) for v in value}) < size:
            out.append(wrong(path, "", "shouldn't contain duplicates"))

    def look_object(self, value: Mapping[str, Any], old: Any, path: str, out: Errors) -> None:
        size = len(value)
        if self.min_properties is not None and size < self.min_properties:
            out.append(wrong(path, size, f"should have at least {self.min_properties} properties"))
            return
        if self.max_properties is not None and size > self.max_properties:
            out.append(fields.too_many(place(path), size, self.max_properties))
            return
        before = old if isinstance(old, dict) else {}
        additional = self.additional
        if additional is not None or self.closed:
            for key in value:
                if key not in self.properties:
                    here = f"{path}.{key}" if path else key
                    if additional is not None:
                        additional.look(value[key], before.get(key, ABSENT), here, out)
                    else:
                        out.append(wrong(here, "", "is a forbidden property"))
        for key, check in self.properties.items():
            if key in value:
                check.look(value[key], before.get(key, ABSENT), f"{path}.{key}" if path else key, out)
        for key in self.required:
            if key not in value:
                out.append(fields.required(f"{path}.{key}" if path else key))

    def look_combinations(self, value: Any, old: Any, path: str, out: Errors) -> None:
        shown = fields.quote(path)

        def alternatives(checks: list[Check]) -> list[Errors]:
            found: list[Errors] = []
            for check in checks:
                one: Errors = []
                check.look(value, old, path, one)
                found.append(one)
            return found

        if self.any_of:
            found = alternatives(self.any_of)
            if all(found):
                out.append(FieldError(NOWHERE, "Invalid", "", f"{shown} must validate at least one schema (anyOf)"))
                out += fewest(found)
        if self.one_of:
            found = alternatives(self.one_of)
            right = sum(not f for f in found)
            if right != 1:
                more = f"Found {right} valid alternatives" if right else "Found none valid"
                text = f"{shown} must validate one and only one schema (oneOf). {more}"
                out.append(FieldError(NOWHERE, "Invalid", "", text))
                if not right:
                    out += fewest(found)
        if self.all_of:
            found = alternatives(self.all_of)
            for one in found:
                out += one
            right = sum(not f for f in found)
            if right < len(found):
                more = "" if right else ". None validated"
                text = f"{shown} must validate all the schemas (allOf){more}"
                out.append(FieldError(NOWHERE, "Invalid", "", text))
        if self.refused is not None:
            one = []
            self.refused.look(value, ABSENT, path, one)
            if not one:
                out.append(FieldError(NOWHERE, "Invalid", "", f"{shown} must not validate the schema (not)"))

    def not_listed(self, path: str, value: Any) -> FieldError:
        listed = [v if isinstance(v, str) else msgspec.json.encode(v).decode() for v in self.enum or ()]
        return fields.not_supported(place(path), value, listed, in_order=True)


def fewest(found: list[Errors]) -> Errors:
    """The errors of the alternative that comes closest."""
    return min(found, key=len)


def place(path: str) -> str:
    """The field that an error names; of the whole object upstream prints none."""
    return path or NOWHERE


def wrong_type(path: str, wanted: str, found: str) -> FieldError:
    return FieldError(
        place(path), "TypeInvalid", found, f"{path} in body must be of type {wanted}: {fields.quote(found)}"
    )


def wrong(path: str, value: Any, words: str) -> FieldError:
    return FieldError(place(path), "Invalid", value, f"{path} in body {words}")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, 1 and 1.0 too, 1 and true not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def key_of(item: Any, keys: tuple[str, ...]) -> bytes:
    return _encode([item.get(k) for k in keys]) if isinstance(item, dict) else b""


def by_keys(items: list[Any], keys: tuple[str, ...]) -> dict[bytes, Any]:
    return {key_of(item, keys): item for item in items if isinstance(item, dict)}


def is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and float(of).is_integer():
        return value % int(of) == 0
    quotient = value / of
    return quotient == int(quotient) if abs(quotient) < 2**53 else True
