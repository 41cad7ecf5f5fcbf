"""Tables: the columns of a kind over its objects, as kubectl prints them (TABLE-1, TABLE-2, TABLE-6; KCTL-2 to -8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kubesvc.api.ages import render_since
from kubesvc.api.errors import BadRequest
from kubesvc.api.fields import quote
from kubesvc.api.kind import Column, Kind, Since
from kubesvc.api.meta import Object

from .cache import Item

INCLUDES = ("", "None", "Metadata", "Object")

DEFAULT_COLUMNS = (
    Column("Name", lambda o: o.name, format="name"),
    Column("Created At", lambda o: o.metadata.creation_timestamp, type="date"),
)
"""Columns of kinds without a printer of their own (KCTL-8)."""

_json = msgspec.json.Encoder()


class _Meta(msgspec.Struct):
    metadata: msgspec.Raw


_meta_decoder = msgspec.json.Decoder(_Meta)


def check_include(include: str) -> str:
    """The `includeObject` parameter, or BadRequest (TABLE-2)."""
    if include not in INCLUDES:
        raise BadRequest(
            f"Unable to convert to Table as requested: includeObject: Invalid value: {quote(include)}: must be "
            "'Metadata', 'Object', 'None', or empty"
        )
    return include or "Metadata"


def columns_of(kind: Kind) -> Sequence[Column]:
    return kind.columns or (kind.stored.columns if kind.stored else ()) or DEFAULT_COLUMNS


def definitions(kind: Kind) -> list[Object]:
    """`columnDefinitions` of a kind."""
    return [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format,
            "description": c.description or f"{c.name} of the {kind.name}.",
            "priority": c.priority or int(c.wide),
        }
        for c in columns_of(kind)
    ]


def metadata_of(answer: bytes) -> bytes:
    """The metadata of an encoded object, as JSON."""
    return bytes(_meta_decoder.decode(answer).metadata)


def partial(answer: bytes, version: str = "v1") -> bytes:
    """The PartialObjectMetadata of an encoded object (TABLE-3)."""
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%s","metadata":%s}' % (
        version.encode(),
        metadata_of(answer),
    )


def row(kind: Kind, item: Item, answer: bytes, include: str, now: float, version: str) -> bytes:
    """One row: its cells, conditions, and the object as far as it was asked for."""
    converts = kind.custom is not None and kind.custom.webhook is not None
    typed = kind.custom.decoder.decode(answer) if kind.custom is not None and converts else item.typed()
    cells: list[Any] = []
    for column in columns_of(kind):
        cell = column.cell(typed)
        cells.append(render_since(cell, now) if isinstance(cell, Since) else cell)
    conditions = (kind.stored or kind).row_conditions(typed)
    text = b'{"cells":%s' % _json.encode(cells)
    if conditions:
        text += b',"conditions":%s' % _json.encode(conditions)
    if include == "Object":
        text += b',"object":%s' % answer
    elif include == "Metadata":
        text += b',"object":%s' % partial(answer, version)
    else:
        text += b',"object":null'
    return text + b"}"


def table(kind: Kind, metadata: Object, rows: Sequence[bytes], version: str, *, columns: bool = True) -> bytes:
    """The Table; `columns` False leaves the definitions empty, as in all but the first event of a watch (TABLE-6)."""
    listed = b"[" + b",".join(rows) + b"]"
    if not rows and not kind.columns:
        listed = b"null"  # KCTL-8
    return b'{"kind":"Table","apiVersion":"meta.k8s.io/%s","metadata":%s,"columnDefinitions":%s,"rows":%s}' % (
        version.encode(),
        _json.encode(metadata),
        _json.encode(definitions(kind) if columns else []),
        listed,
    )
