"""Bodies of custom objects: read as their definition's schema says (WRITE-2, OPT-2 to OPT-4).

What the schema does not name is dropped and told; nulls and defaults follow it. Metadata is read as every object's is.
Values of a wrong type stay: the schema's check refuses them, with the field.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from . import fields, goyaml, schema
from .errors import BadRequest
from .exact import Walk, bare, read_json, repeated_keys, word
from .gojson import summary
from .kind import Kind
from .meta import Object
from .quick import quick_plain
from .structural import deeper_than, prune, whole_numbers

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
FRACTION = re.compile(rb"\d(?:\.\d|[eE])")
MOST_DEPTH = 400
"""Deeper values would end in a recursion too deep for one of the walks over them."""
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class Malformed(ValueError):
    """A value that is no object of the kind, in Go's words."""


def read_custom_json(raw: bytes, kind: Kind) -> tuple[Any, list[str]]:
    """The value of a JSON body, and the texts of keys that it gives twice; BadRequest if it is no JSON."""
    try:
        value = _decoder.decode(raw)
        if _encoder.encode(value).count(b'"') == raw.count(b'"') and b"\\" not in raw:
            return (whole_numbers(value) if FRACTION.search(raw) else value), []
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        pairs = read_json(raw)
        return whole_numbers(bare(pairs)), repeated_keys(pairs)
    except ValueError as e:
        why = f"couldn't get version/kind; json parse error: {e}"
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {kind.name}): {why} ({summary(raw)})"
        ) from None
    except RecursionError:
        raise BadRequest("exceeded max depth") from None


def read_custom_yaml(raw: bytes, kind: Kind) -> tuple[Any, list[str]]:
    """As `read_custom_json` of a YAML body."""
    try:
        value, duplicates = goyaml.read(raw)
        copied = whole_numbers(msgspec.json.decode(_encoder.encode(bare(value))))
    except (goyaml.YamlError, ValueError, TypeError) as e:
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {kind.name}): {e} ({summary(raw)})"
        ) from None
    except RecursionError:
        raise BadRequest("exceeded max depth") from None
    if duplicates:
        return copied, ["yaml: unmarshal errors:" + "".join(f"\n  {text}" for text in duplicates)]
    return copied, []


def shaped(value: Any, kind: Kind) -> tuple[Object, list[str]]:
    """A value as an object of the kind, changed in place, and the texts of what was unknown; Malformed if it is none.

    The caller has settled apiVersion and kind. Defaults are filled in by `kind.default`, when all is known.
    """
    custom = kind.custom
    assert custom is not None
    if deeper_than(value, MOST_DEPTH):
        raise Malformed("exceeded max depth")
    unknown: list[str] = []
    given = value.get("metadata")
    if given is None:
        value["metadata"] = {}
    else:
        meta = quick_plain(given, META) if isinstance(given, dict) else None
        if meta is None:
            meta, strange = exact_metadata(given)
            unknown += strange
        value["metadata"] = meta
    prune(value, custom.structural, "", unknown, root=True)
    return value, [f'unknown field "{path}"' for path in sorted(unknown)]


def exact_metadata(given: Any) -> tuple[Object, list[str]]:
    """Metadata out of the ordinary: read by its schema, with the paths of unknown fields."""
    if not isinstance(given, dict):
        raise Malformed(f"json: cannot unmarshal {word(given)} into Go struct field .metadata of type v1.ObjectMeta")
    walk = Walk()
    meta = walk.struct(given, schema.definition(META), "", "", {})
    if walk.error:
        raise Malformed(walk.error)
    return meta, [f"metadata.{path}" for path in walk.unknown]


def decode_custom(
    value: Any, duplicates: list[str], kind: Kind, validation: str, raw: bytes = b""
) -> tuple[Object, tuple[str, ...]]:
    """The object of a body and the warnings to give; BadRequest, or the 422 of another kind's object."""
    if not isinstance(value, dict):
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {kind.name}): couldn't get version/kind; json "
            f"parse error: json: cannot unmarshal {word(value)} into Go value of type struct ({summary(raw)})"
        )
    check_type(value, kind, raw)
    as_kind = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
    try:
        obj, unknown = shaped(value, kind)
    except ValueError as e:
        raise BadRequest(as_kind + str(e)) from None
    strict = [*duplicates, *unknown]
    if strict and validation == "Strict":
        raise BadRequest(f"{as_kind}strict decoding error: {', '.join(strict)}")
    return obj, () if validation == "Ignore" else tuple(strict)


def check_type(value: Object, kind: Kind, raw: bytes) -> None:
    """A body says what it is, and is of the kind and version that the path names."""
    for field, shown in (("kind", "Kind"), ("apiVersion", "apiVersion")):
        found = value.get(field)
        if not isinstance(found, str) or not found:
            body = raw.decode(errors="replace") or _encoder.encode(value).decode()
            why = f"Object '{shown}' is missing in '{body}'"
            if found is not None and not isinstance(found, str):
                why = (
                    f"couldn't get version/kind; json parse error: json: cannot unmarshal {word(found)} into Go "
                    f"struct field .{field} of type string"
                )
            raise BadRequest(
                f"the object provided is unrecognized (must be of type {kind.name}): {why} ({summary(raw)})"
            )
    if value["apiVersion"] != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({value['apiVersion']}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if value["kind"] != kind.name:
        meta = value.get("metadata")
        name = meta.get("name") if isinstance(meta, dict) else ""
        error = fields.invalid("kind", value["kind"], f"must be {kind.name}")
        raise fields.invalid_object(kind.group, kind.name, name if isinstance(name, str) else "", [error])
