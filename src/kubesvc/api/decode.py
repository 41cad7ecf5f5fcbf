"""Request bodies to plain objects, as strictly as Go does it and in its words (WRITE-2, OPT-2 to OPT-4).

Two readers give the same result. The quick one is a msgspec struct generated from the schema: it checks every type and
refuses whatever is out of the ordinary. What it refuses goes to the exact one, a walk along the schema that finds the
words for errors, unknown fields and duplicates, and otherwise the same object.

The result is in the spelling of the wire: known fields only; no nulls, no empty lists and maps, no zero values where
zero means absent; quantities and times canonical.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import typing
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec

from . import fields, goyaml, quantity, schema
from .errors import BadRequest, UnsupportedMediaType
from .gojson import summary, syntax_error, type_word
from .kind import Kind
from .meta import Object
from .schema import Definition, Field

MAX_STRICT = 100
"""Most unknown and duplicate fields that are told."""

SCHEME = "pkg/api/legacyscheme/scheme.go:30"
"""Where Go clients are told that the kinds are registered."""

HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'

OLDER_VERSIONS: dict[str, tuple[str, ...]] = {
    "apps": ("v1beta1", "v1beta2"),
    "extensions": ("v1beta1",),
    "autoscaling": ("v2beta1", "v2beta2"),
    "batch": ("v1beta1",),
    "discovery.k8s.io": ("v1beta1",),
    "networking.k8s.io": ("v1beta1",),
    "policy": ("v1beta1",),
    "events.k8s.io": ("v1beta1",),
    "coordination.k8s.io": ("v1beta1",),
    "rbac.authorization.k8s.io": ("v1alpha1", "v1beta1"),
    "scheduling.k8s.io": ("v1alpha1", "v1beta1"),
    "storage.k8s.io": ("v1alpha1", "v1beta1"),
    "authentication.k8s.io": ("v1alpha1", "v1beta1"),
    "authorization.k8s.io": ("v1beta1",),
    "admissionregistration.k8s.io": ("v1alpha1", "v1beta1"),
    "certificates.k8s.io": ("v1beta1",),
}
"""Versions that are not served, but whose kinds a server still knows by name."""

NOT_JSON_TYPES = (
    "the body of the request was in an unknown format - accepted media types include: "
    "application/json, application/yaml, application/vnd.kubernetes.protobuf"
)


class Target(NamedTuple):
    """What the body of a request should be; made from a `Kind`, or by hand for options and subresource bodies."""

    group: str
    version: str
    name: str
    schema: str
    """Full name of the definition, e.g. "io.k8s.api.autoscaling.v1.Scale"."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Decoded(NamedTuple):
    """A body: the object (known fields only, right types, nulls dropped) and what was odd about it, in body order.

    unknown, duplicates: paths such as `spec.ports[0].prot` (of YAML, duplicates are texts with a line number)
    warnings:            texts for Warning headers, e.g. `unknown field "spec.foo"`; empty if validation is Ignore
    """

    obj: Object
    unknown: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@cache
def target_of(kind: Kind | Target) -> Target:
    """The target of a kind's own bodies."""
    return kind if isinstance(kind, Target) else Target(kind.group, kind.version, kind.name, kind.schema)


def decode_body(raw: bytes, media_type: str, kind: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """The object in a request's body.

    raw:              the body, at most as long as the server admits
    media_type:       Content-Type without parameters: application/json (or "") or application/yaml
    field_validation: Ignore, Warn (also "") or Strict

    Raises BadRequest: not JSON/YAML, another kind, a wrong type, or (Strict) unknown or duplicate fields; and
    UnsupportedMediaType for other media types. apiVersion and kind of the result are always set to the target's.
    """
    target = target_of(kind)
    no_duplicates: tuple[str, ...] = ()
    if media_type in ("application/json", ""):
        quick = quick_json(raw, target)
        if quick is not None:
            return Decoded(quick)
        value, duplicates = read_json(raw, target), no_duplicates
    elif media_type == "application/yaml":
        value, duplicates = read_yaml(raw, target)
    else:
        raise UnsupportedMediaType(NOT_JSON_TYPES)
    return exact(value, duplicates, raw, target, field_validation)


def decode_plain(obj: Any, kind: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """As `decode_body` for an object that is plain already (in-process clients, results of patches); `obj` is not
    changed and shares nothing mutable with the result, but for content that no schema describes."""
    target = target_of(kind)
    quick = quick_plain(obj, target)
    if quick is not None:
        return Decoded(quick)
    return exact(obj, (), b"", target, field_validation)


# The quick way


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
        if field.type == "array":
            default = msgspec.field(default_factory=list)
        elif field.type == "map":
            default = msgspec.field(default_factory=dict)
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


NULL_MEMBER = re.compile(rb',\s*"[A-Za-z0-9]+":\s*null(?=\s*[,}])')
"""A null with its key and the comma before it; the quotes of such a text inside a text would have backslashes."""
encode = msgspec.json.Encoder().encode
to_builtins = msgspec.to_builtins


def quick_json(raw: bytes, target: Target) -> Object | None:
    """The object of an ordinary JSON body; None for the exact reader to look at it."""
    reader = quick_reader(target.schema)
    if reader is None:
        return None
    try:
        struct = reader.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        if not reader.described or b"null" not in raw:
            return None
        raw = NULL_MEMBER.sub(b"", raw)
        try:
            struct = reader.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
    # A key given twice, or anything left out, leaves fewer quotes than the body has; what may be null was left out.
    # A number such as 80.0, which msgspec takes for an integer and Go does not, leaves fewer points.
    quotes = raw.count(b'"')
    if b"null" in raw:
        # Inside a text the quote before the colon would have a backslash before it.
        quotes -= 2 * (raw.count(b'":null') + raw.count(b'": null') - raw.count(b'\\":null') - raw.count(b'\\": null'))
    encoded = encode(struct)
    if encoded.count(b'"') != quotes or encoded.count(b".") != raw.count(b".") or (b"\\" in raw and b"\\u0022" in raw):
        return None
    return right_kind(to_builtins(struct), target)


def quick_plain(obj: Any, target: Target) -> Object | None:
    reader = quick_reader(target.schema)
    if reader is None:
        return None
    try:
        return right_kind(to_builtins(msgspec.convert(obj, reader.type)), target)
    except (msgspec.ValidationError, RecursionError):
        return None


def right_kind(obj: Object, target: Target) -> Object | None:
    if obj.setdefault("kind", target.name) != target.name:
        return None
    if obj.setdefault("apiVersion", target.api_version) != target.api_version:
        return None
    return obj


# Reading


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, the repeated ones too."""


class Literal(float):
    """A JSON number that is no integer, with its spelling."""

    text: str


def literal(text: str) -> Literal:
    number = Literal(text)
    number.text = text
    return number


def unrecognized(target: Target, why: str, raw: bytes) -> BadRequest:
    return BadRequest(f"the object provided is unrecognized (must be of type {target.name}): {why} ({summary(raw)})")


def read_json(raw: bytes, target: Target) -> Any:
    """The body's value with `Pairs` for objects; BadRequest if it is no JSON object."""
    message = syntax_error(raw)
    if not message:
        try:
            text = raw.decode(errors="replace")
            value = json.loads(text, object_pairs_hook=Pairs, parse_float=literal, parse_int=integer_or_literal)
        except (RecursionError, ValueError):
            message = "exceeded max depth"
    if message:
        raise unrecognized(target, f"couldn't get version/kind; json parse error: {message}", raw)
    return value


def integer_or_literal(text: str) -> int | Literal:
    return int(text) if len(text) < 30 else literal(text)


def read_yaml(raw: bytes, target: Target) -> tuple[Any, tuple[str, ...]]:
    try:
        return goyaml.read(raw)
    except goyaml.YamlError as e:
        raise unrecognized(target, str(e), raw) from None


# The exact way


class Abort(Exception):
    """A value that its own type refused; Go stops reading there."""


def items_of(value: Any) -> Iterable[tuple[str, Any]]:
    found: Iterable[tuple[str, Any]] = value if isinstance(value, Pairs) else value.items()
    return found


def is_object(value: Any) -> bool:
    return isinstance(value, (dict, Pairs))


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
            if read is None or (field.zero_absent and not read) or (not read and field.type in ("array", "map")):
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
        self.save(self.type_error(word(value), owner, stack, go_type(field)))

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


def exact(value: Any, duplicates: tuple[str, ...], raw: bytes, target: Target, validation: str) -> Decoded:
    """The result for a value that was read: kind checked, types checked, oddities collected or refused."""
    value = {} if value is None else value
    api_version, name = head(value, raw, target)
    group, _, version = api_version.rpartition("/")
    as_kind = f'{name} in version "{version}" cannot be handled as a {target.name}: '
    definition_name = target.schema
    if (group, version, name) != (target.group, target.version, target.name):
        definition_name = other_kind(group, version, name, api_version, target, as_kind)
    walk = Walk()
    definition = schema.definition(definition_name) if definition_name in schema.section(1) else None
    try:
        obj = walk.struct(value, definition, "", "", {}) if definition else bare(value)
    except Abort as e:
        raise BadRequest(as_kind + str(e)) from None
    except RecursionError:
        raise BadRequest(as_kind + "exceeded max depth") from None
    if walk.error:
        raise BadRequest(as_kind + walk.error)
    if name != target.name or group != target.group:
        internal = (target.group.split(".")[0] or "core") + "." + target.name
        raise BadRequest(f"{as_kind}converting ({version}.{name}) to ({internal}): unknown conversion")
    strict = walk.strict
    if duplicates:
        strict = ["yaml: unmarshal errors:" + "".join(f"\n  {text}" for text in duplicates), *strict]
    if strict and validation == "Strict":
        raise BadRequest(f"{as_kind}strict decoding error: {', '.join(strict)}")
    if version != target.version:
        expected = target.api_version
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )
    obj["apiVersion"], obj["kind"] = target.api_version, target.name
    warnings = () if validation == "Ignore" else (*duplicates, *walk.strict)
    return Decoded(obj, tuple(walk.unknown), (*duplicates, *walk.duplicates), warnings)


def head(value: Any, raw: bytes, target: Target) -> tuple[str, str]:
    """apiVersion and kind of a body, the target's where it gives none; BadRequest if it is no object."""
    why = "couldn't get version/kind; json parse error: json: cannot unmarshal "
    if not is_object(value):
        raise unrecognized(target, f"{why}{word(value)} into Go value of type {HEAD}", raw)
    found = {"apiVersion": "", "kind": ""}
    for key, inner in items_of(value):
        if key in found and inner is not None:
            if not isinstance(inner, str):
                raise unrecognized(target, f"{why}{word(inner)} into Go struct field .{key} of type string", raw)
            found[key] = inner
    return found["apiVersion"] or target.api_version, found["kind"] or target.name


def other_kind(group: str, version: str, name: str, api_version: str, target: Target, as_kind: str) -> str:
    """The definition of the kind a body claims to be; BadRequest if nobody knows that kind."""
    known = schema.by_kind(group, version, name)
    if known is None and version in OLDER_VERSIONS.get(group, ()):
        if group == target.group and name == target.name:
            return target.schema
        known = schema.by_kind(group, "v1", name)
    if known is None:
        raise BadRequest(f'{as_kind}no kind "{name}" is registered for version "{api_version}" in scheme "{SCHEME}"')
    return known.name
