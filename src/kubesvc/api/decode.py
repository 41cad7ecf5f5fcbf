"""Request bodies to plain objects, as strictly as Go does it and in its words (WRITE-2, OPT-2 to OPT-4)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .kind import Kind
from .meta import Object


class Target(NamedTuple):
    """What the body of a request should be; made from a `Kind`, or by hand for options and subresource bodies."""

    group: str
    version: str
    name: str
    schema: str
    """Full name of the definition, e.g. "io.k8s.api.autoscaling.v1.Scale"."""


class Decoded(NamedTuple):
    """A body: the object (known fields only, right types, nulls dropped) and what was odd about it, in body order.

    warnings: texts for Warning headers, e.g. `unknown field "spec.foo"`; empty if validation is Ignore.
    """

    obj: Object
    unknown: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def target_of(kind: Kind) -> Target:
    """The target of a kind's own bodies."""
    return Target(kind.group, kind.version, kind.name, kind.schema)


def decode_body(raw: bytes, media_type: str, target: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """The object in a request's body.

    raw:              the body, at most as long as the server admits
    media_type:       Content-Type without parameters: application/json (or "") or application/yaml
    field_validation: Ignore, Warn (also "") or Strict

    Raises BadRequest: not JSON/YAML, another kind, a wrong type, or (Strict) unknown or duplicate fields; and
    UnsupportedMediaType for other media types. apiVersion and kind of the result are always set to the target's.
    """
    raise NotImplementedError


def decode_plain(obj: Any, target: Kind | Target, field_validation: str = "Warn") -> Decoded:
    """As `decode_body` for an object that is plain already (in-process clients, results of patches); `obj` is not
    changed and shares nothing mutable with the result."""
    raise NotImplementedError
