"""The schema table: which fields every kind has, of which type, and how lists of them merge.

The table (`schemas.bin`, made at build time by `tools/make_schemas.py`) is opened at the first question; a definition
is decoded when it is first asked for, and descriptions stay packed until somebody explains something. Everything here
is read-only and shared.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

MAGIC = b"KSVCSCH1"
FILE = Path(__file__).with_name("schemas.bin")
HEADER = struct.Struct("<8s3I")


class Field(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One field of a definition, or the items of a list or map."""

    type: str
    """string, integer, number, boolean; object (a struct, see `ref`), array, map (see `items`), any (free content)."""
    format: str = ""
    """int32, int64, double, byte; date-time, micro-time, duration, int-or-string, quantity; else ""."""
    ref: str = ""
    """Name of the definition; also set for the scalars that have one (Time, Quantity, ...)."""
    items: Field | None = None
    """What a list holds or a map maps to; keys of maps are strings."""
    list_type: str = ""
    """atomic, set or map; "" is atomic (server-side apply, 3.3)."""
    list_map_keys: tuple[str, ...] = ()
    """The fields that tell items of a `map` list apart in server-side apply."""
    map_type: str = ""
    """atomic or granular; "" is granular."""
    patch_strategy: tuple[str, ...] = ()
    """merge, replace, retainKeys (strategic merge patch)."""
    patch_merge_key: str = ""
    """The field that tells items apart in a strategic merge patch; "" with `merge` is a set of primitives."""
    default: Any = None
    enum: tuple[str, ...] = ()
    """Its only values, where the API tells them; for explaining, nothing checks them here."""
    zero_absent: bool = False
    """Of a scalar: its zero value ("", 0, false) means that it is absent, and is left out."""
    value: bool = False
    """Of an object: it is held by value, so it exists, empty, even where nobody wrote it."""
    go: str = ""
    """What Go calls its type where that does not follow from the rest (OPT-4)."""


class Definition(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, dict=True):
    """A named struct (or scalar, or free content) of the API."""

    name: str
    type: str = "object"
    """object, any, or the type of a scalar."""
    format: str = ""
    fields: dict[str, Field] = {}
    required: tuple[str, ...] = ()
    kinds: tuple[tuple[str, str, str], ...] = ()
    """(group, version, kind) it is the body of; many for options and the like."""
    map_type: str = ""
    unions: Any = None

    @cached_property
    def go(self) -> str:
        """As Go's messages name it: `v1.ServiceSpec`."""
        return ".".join(self.name.rsplit(".", 2)[1:])

    @cached_property
    def short(self) -> str:
        """Its bare name: `ServiceSpec`."""
        return self.name.rsplit(".", 1)[1]


class Description(NamedTuple):
    """Texts of a definition: of itself, and of its fields by name."""

    text: str
    fields: dict[str, str]


class MissingTable(RuntimeError):
    """`schemas.bin` was not built, or is of another form: run `python tools/make_schemas.py`."""


@cache
def section(number: int) -> dict[str, Any]:
    """Section 0 (kinds), 1 (packed definitions) or 2 (packed descriptions) of the table."""
    try:
        with FILE.open("rb") as file:
            magic, *lengths = HEADER.unpack(file.read(HEADER.size))
            if magic != MAGIC:
                raise MissingTable(f"{FILE}: not a schema table of this release; run tools/make_schemas.py")
            file.seek(sum(lengths[:number]), 1)
            found: dict[str, Any] = msgspec.msgpack.decode(zlib.decompress(file.read(lengths[number])))
            return found
    except FileNotFoundError:
        raise MissingTable(f"{FILE}: no such file; run tools/make_schemas.py, or install the package again") from None


_decoder = msgspec.msgpack.Decoder(Definition)


@cache
def definition(name: str) -> Definition:
    """The definition of that full name, e.g. "io.k8s.api.core.v1.ServiceSpec"; KeyError if there is none."""
    return _decoder.decode(section(1)[name])


@cache
def names() -> tuple[str, ...]:
    """Full names of all definitions, sorted."""
    return tuple(sorted(section(1)))


def by_kind(group: str, version: str, kind: str) -> Definition | None:
    """The definition of a kind's body; None if the table has none."""
    name = section(0).get(f"{group}/{version}/{kind}")
    return definition(name) if name else None


@cache
def description(name: str) -> Description:
    """The texts of a definition; loads the descriptions at the first call (about a megabyte)."""
    text, fields = msgspec.msgpack.decode(section(2)[name])
    return Description(text, fields)


def field_at(name: str, *path: str) -> Field | None:
    """The field below a definition, through lists and maps: `field_at(SERVICE, "spec", "ports", "port")`."""
    here = definition(name)
    found: Field | None = None
    for step in path:
        found = here.fields.get(step)
        if found is None:
            return None
        inner = found
        while inner.items is not None:
            inner = inner.items
        if inner.ref:
            here = definition(inner.ref)
    return found
