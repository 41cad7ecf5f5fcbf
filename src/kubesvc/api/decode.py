"""Request bodies to plain objects, as strictly as Go does it and in its words (WRITE-2, OPT-2 to OPT-4).

Two readers give the same result. The quick one is a msgspec struct generated from the schema: it checks every type and
refuses whatever is out of the ordinary. What it refuses goes to the exact one, a walk along the schema that finds the
words for errors, unknown fields and duplicates, and otherwise the same object.

The result is in the spelling of the wire: known fields only; no nulls, no empty lists and maps, no zero values where
zero means absent; quantities and times canonical.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec

from . import fields, goyaml, protobuf, schema
from .customdecode import decode_custom, read_custom_json, read_custom_yaml
from .errors import BadRequest, UnsupportedMediaType
from .exact import Walk, bare, is_object, items_of, read_json, word
from .gojson import summary
from .kind import Kind
from .meta import Object
from .quick import quick_json, quick_plain

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


def target_of(kind: Kind | Target) -> Target:
    """The target of a kind's own bodies."""
    if isinstance(kind, Target):
        return kind
    return kept_target_of(kind) if kind.custom is None else new_target_of(kind)


def new_target_of(kind: Kind) -> Target:
    return Target(kind.group, kind.version, kind.name, kind.schema)


kept_target_of = cache(new_target_of)
"""For kinds that are there for as long as the process."""


def decode_body(raw: bytes, media_type: str, kind: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """The object in a request's body.

    raw:              the body, at most as long as the server admits
    media_type:       Content-Type without parameters: application/json (or ""), application/yaml or
                      application/vnd.kubernetes.protobuf
    field_validation: Ignore, Warn (also "") or Strict

    Raises BadRequest: not of that form, another kind, a wrong type, or (Strict) unknown or duplicate fields; and
    UnsupportedMediaType for other media types. apiVersion and kind of the result are always set to the target's.
    """
    if isinstance(kind, Kind) and kind.custom is not None:
        return decode_custom_body(raw, media_type, kind, field_validation)
    target = target_of(kind)
    no_duplicates: tuple[str, ...] = ()
    if media_type in ("application/json", ""):
        quick = right_kind(quick_json(raw, target.schema), target)
        if quick is not None:
            return Decoded(quick)
        value, duplicates = read_body(raw, target), no_duplicates
    elif media_type == "application/yaml":
        value, duplicates = read_yaml(raw, target)
    elif media_type == protobuf.MEDIA_TYPE:
        return decode_protobuf(raw, target)
    else:
        raise UnsupportedMediaType(NOT_JSON_TYPES)
    return exact(value, duplicates, raw, target, field_validation)


def decode_plain(obj: Any, kind: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """As `decode_body` for an object that is plain already (in-process clients, results of patches); `obj` is not
    changed and shares nothing mutable with the result, but for content that no schema describes."""
    if isinstance(kind, Kind) and kind.custom is not None:
        copied = msgspec.json.decode(msgspec.json.encode({"apiVersion": kind.api_version, "kind": kind.name, **obj}))
        found, warnings = decode_custom(copied, [], kind, field_validation)
        return Decoded(found, warnings=warnings)
    target = target_of(kind)
    quick = right_kind(quick_plain(obj, target.schema), target)
    if quick is not None:
        return Decoded(quick)
    return exact(obj, (), b"", target, field_validation)


def decode_custom_body(raw: bytes, media_type: str, kind: Kind, field_validation: str) -> Decoded:
    """As `decode_body` for a kind that a CustomResourceDefinition made, which no protobuf describes."""
    if media_type in ("application/json", ""):
        value, duplicates = read_custom_json(raw, kind)
    elif media_type == "application/yaml":
        value, duplicates = read_custom_yaml(raw, kind)
    else:
        raise UnsupportedMediaType(NOT_JSON_TYPES.rpartition(",")[0])
    found, warnings = decode_custom(value, duplicates, kind, field_validation, raw)
    return Decoded(found, warnings=warnings)


def decode_protobuf(raw: bytes, target: Target) -> Decoded:
    """The object in a protobuf body, as `decode_body`. What nobody knows is skipped in silence."""
    try:
        envelope = protobuf.read_envelope(raw)
    except protobuf.Malformed as e:
        raise unrecognized(target, str(e), raw) from None
    api_version, name = envelope.api_version or target.api_version, envelope.kind or target.name
    group, _, version = api_version.rpartition("/")
    definition = target.schema
    try:
        if (group, version, name) != (target.group, target.version, target.name):
            definition = other_kind(group, version, name, api_version, target)
        obj = protobuf.decode_message(envelope.raw, definition)
    except KeyError:
        raise UnsupportedMediaType(f"{name} in version {fields.quote(version)} is read as JSON or YAML only") from None
    except ValueError as e:
        raise BadRequest(cannot_be(name, version, target) + str(e)) from None
    obj["apiVersion"], obj["kind"] = api_version, name
    return Decoded(decode_plain(obj, target, "Ignore").obj)


def right_kind(obj: Object | None, target: Target) -> Object | None:
    """The object if it is of the target's kind, which is filled in where it does not say."""
    if obj is None:
        return None
    if obj.setdefault("kind", target.name) != target.name:
        return None
    if obj.setdefault("apiVersion", target.api_version) != target.api_version:
        return None
    return obj


def unrecognized(target: Target, why: str, raw: bytes) -> BadRequest:
    return BadRequest(f"the object provided is unrecognized (must be of type {target.name}): {why} ({summary(raw)})")


def cannot_be(name: str, version: str, target: Target) -> str:
    """How the words begin for a body that says its kind and is still wrong."""
    return f'{name} in version "{version}" cannot be handled as a {target.name}: '


def read_body(raw: bytes, target: Target) -> Any:
    try:
        return read_json(raw)
    except ValueError as e:
        raise unrecognized(target, f"couldn't get version/kind; json parse error: {e}", raw) from None


def read_yaml(raw: bytes, target: Target) -> tuple[Any, tuple[str, ...]]:
    try:
        return goyaml.read(raw)
    except goyaml.YamlError as e:
        raise unrecognized(target, str(e), raw) from None


def exact(value: Any, duplicates: tuple[str, ...], raw: bytes, target: Target, validation: str) -> Decoded:
    """The result for a value that was read: kind checked, types checked, oddities collected or refused."""
    value = {} if value is None else value
    api_version, name = head(value, raw, target)
    version = api_version.rpartition("/")[2]
    as_kind = cannot_be(name, version, target)
    walk = Walk()
    try:
        obj = conform(value, api_version, name, target, walk)
    except ValueError as e:
        raise BadRequest(as_kind + str(e)) from None
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
    warnings = () if validation == "Ignore" else (*duplicates, *walk.strict)
    return Decoded(obj, tuple(walk.unknown), (*duplicates, *walk.duplicates), warnings)


def conform(value: Any, api_version: str, name: str, target: Target, walk: Walk) -> Object:
    """The value read as the kind it claims to be, which must be the target's; ValueError in Go's words if it is not, or
    has wrong types. `walk` collects unknown and repeated fields."""
    group, _, version = api_version.rpartition("/")
    definition_name = target.schema
    if (group, version, name) != (target.group, target.version, target.name):
        definition_name = other_kind(group, version, name, api_version, target)
    definition = schema.definition(definition_name) if definition_name in schema.section(1) else None
    try:
        obj: Object = walk.struct(value, definition, "", "", {}) if definition else bare(value)
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    if walk.error:
        raise ValueError(walk.error)
    if name != target.name or group != target.group:
        internal = (target.group.split(".")[0] or "core") + "." + target.name
        raise ValueError(f"converting ({version}.{name}) to ({internal}): unknown conversion")
    obj["apiVersion"], obj["kind"] = target.api_version, target.name
    return obj


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


def other_kind(group: str, version: str, name: str, api_version: str, target: Target) -> str:
    """The definition of the kind a body claims to be; ValueError if nobody knows that kind."""
    known = schema.by_kind(group, version, name)
    if known is None and version in OLDER_VERSIONS.get(group, ()):
        if group == target.group and name == target.name:
            return target.schema
        known = schema.by_kind(group, "v1", name)
    if known is None:
        raise ValueError(f'no kind "{name}" is registered for version "{api_version}" in scheme "{SCHEME}"')
    return known.name
