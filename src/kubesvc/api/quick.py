"""Ordinary bodies, read quickly: msgspec structs generated from the schema, which check every type and give the object
in the wire's spelling. Whatever is out of the ordinary (None here) is for the exact reader, `kubesvc.api.exact`."""

from __future__ import annotations

import re
import typing
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec

from . import schema
from .meta import Object
from .schema import Field


class Unsupported(Exception):
    """A definition that refers to itself, which generated structs do not do."""


Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
        r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ\Z"
    ),
]
MicroTime = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
        r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z\Z"
    ),
]
Quantity = Annotated[str, msgspec.Meta(pattern=r"^(?:0|[1-9]\d{0,11}(?<!000)[mkMGT]?|[1-9]\d{0,2}(?:Ki|Mi|Gi|Ti))\Z")]
"""Quantities that are canonical for sure."""
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def quick_scalar(field: Field) -> Any:
    if field.type == "boolean":
        return bool
    if field.type == "integer":
        return Int32 if field.format == "int32" else Int64
    if field.type == "number":
        return int | float
    by_format: dict[str, Any] = {
        "date-time": Time,
        "micro-time": MicroTime,
        "quantity": Quantity,
        "int-or-string": Int32 | str,
        "byte": bytes,
    }
    return by_format.get(field.format, str)


def quick_type(field: Field, above: tuple[str, ...]) -> Any:
    if field.type == "object":
        return quick_struct(field.ref, above)
    if field.type == "array":
        assert field.items is not None
        return list[quick_type(field.items, above)]  # type: ignore[misc]
    if field.type == "map":
        assert field.items is not None
        return dict[str, quick_type(field.items, above)]  # type: ignore[misc]
    if field.type == "any":
        return Any
    return quick_scalar(field)


ZERO: dict[str, Any] = {"string": "", "integer": 0, "boolean": False, "number": 0}
"""The zero values of scalars."""
structs: dict[str, type[msgspec.Struct]] = {}


def quick_struct(name: str, above: tuple[str, ...] = ()) -> type[msgspec.Struct]:
    """A struct that accepts exactly the ordinary bodies of a definition, and prints them in the wire's spelling."""
    if name in above:
        raise Unsupported(name)
    if name in structs:
        return structs[name]
    above = (*above, name)
    made: list[tuple[str, Any, Any]] = []
    wire: dict[str, str] = {}
    for key, field in schema.definition(name).fields.items():
        attribute = "f_" + re.sub(r"\W", "_", key)
        wire[attribute] = key
        type_ = quick_type(field, above)
        default: Any
        if key == "managedFields":  # an empty list says something: it resets them (APPLY-6)
            type_, default = typing.Optional[type_], None  # noqa: UP045
        elif field.type == "array":
            type_, default = typing.Optional[type_], msgspec.field(default_factory=list)  # noqa: UP045
        elif field.type == "map":
            type_, default = typing.Optional[type_], msgspec.field(default_factory=dict)  # noqa: UP045
        elif field.zero_absent:
            default = ZERO[field.type]
        else:
            type_, default = typing.Optional[type_], None  # noqa: UP045
        made.append((attribute, type_, default))
    short = re.sub(r"\W", "_", name.rsplit(".", 1)[1])
    structs[name] = msgspec.defstruct(
        short, made, rename=wire, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, gc=False
    )
    return structs[name]


class Quick(NamedTuple):
    """The quick reader of one definition."""

    type: type[msgspec.Struct]
    json: msgspec.json.Decoder[Any]
    described: bool
    """Whether every field has a schema (managedFields aside), so that a null can only mean absence."""


@cache
def quick_reader(name: str) -> Quick | None:
    if not name or name not in schema.section(1):
        return None
    try:
        struct = quick_struct(name)
    except Unsupported:
        return None
    return Quick(struct, msgspec.json.Decoder(struct), described(name))


@cache
def described(name: str) -> bool:
    """Whether nothing below a definition is free content, fieldsV1 aside."""
    for field in schema.definition(name).fields.values():
        inner = field
        while inner.items is not None:
            inner = inner.items
        if inner.type == "any" and not inner.ref.endswith(".FieldsV1"):
            return False
        if inner.type == "object" and not described(inner.ref):
            return False
    return True


NULL_MEMBER = re.compile(rb',"[A-Za-z0-9]+":null(?=[,}])')
FIRST_NULL = re.compile(rb'(?<=\{)"[A-Za-z0-9]+":null(?:,|(?=\}))')
"""Nulls with their keys in compact JSON; the quotes of such a text inside a text would have backslashes."""
encode = msgspec.json.Encoder().encode
to_builtins = msgspec.to_builtins


def quick_json(raw: bytes, name: str) -> Object | None:
    """The object of an ordinary JSON body of that definition; None if the exact reader has to look at it."""
    reader = quick_reader(name)
    if reader is None:
        return None
    try:
        struct = reader.json.decode(raw)
        encoded = encode(struct)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    # A key given twice, or anything left out, leaves fewer quotes than the body has; what may be null was left out.
    # A number such as 80.0, which msgspec takes for an integer and Go does not, leaves fewer points.
    quotes = raw.count(b'"')
    if b"null" in raw:
        quotes += 2 * (nulls(encoded) - nulls(raw))
    if encoded.count(b'"') != quotes or encoded.count(b".") != raw.count(b".") or (b"\\" in raw and b"\\u0022" in raw):
        return None
    return object_of(reader, struct, encoded)


def nulls(raw: bytes) -> int:
    """How many keys have the value null; inside a text the quote before the colon would have a backslash before it."""
    return raw.count(b'":null') + raw.count(b'": null') - raw.count(b'\\":null') - raw.count(b'\\": null')


def quick_plain(obj: Any, name: str) -> Object | None:
    """As `quick_json` for an object that is plain already; the result shares nothing with it."""
    reader = quick_reader(name)
    if reader is None:
        return None
    try:
        struct = msgspec.convert(obj, reader.type)
        return object_of(reader, struct, encode(struct))
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError):
        return None


def object_of(reader: Quick, struct: msgspec.Struct, encoded: bytes) -> Object | None:
    """The plain object of a struct. Lists and maps that were null still are, and go."""
    found: Object
    if b"null" not in encoded:
        found = to_builtins(struct)
    elif not reader.described:
        return None  # a null in free content stays
    else:
        found = msgspec.json.decode(FIRST_NULL.sub(b"", NULL_MEMBER.sub(b"", encoded)))
    return found
