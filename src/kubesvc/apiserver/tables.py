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

SCALE_COLUMNS = (
    Column("Name", lambda scale: scale["metadata"]["name"], format="name"),
    Column("Desired", lambda scale: scale["spec"].get("replicas") or 0, type="integer"),
    Column("Available", lambda scale: scale["status"].get("replicas") or 0, type="integer"),
    Column("Age", lambda scale: Since(scale["metadata"].get("creationTimestamp"))),
)
"""Columns of a Scale, whatever it is the scale of (KCTL-31)."""

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


def announced(columns: Sequence[Column], kind: str) -> list[Object]:
    """`columnDefinitions`, for columns of objects of this kind."""
    return [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format,
            "description": c.description or f"{c.name} of the {kind}.",
            "priority": c.priority or int(c.wide),
        }
        for c in columns
    ]


def definitions(kind: Kind) -> list[Object]:
    """`columnDefinitions` of a kind."""
    return announced(columns_of(kind), kind.name)


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
    conditions = (kind.stored or kind).row_conditions(typed)
    return row_of(columns_of(kind), typed, conditions, answer, include, now, version)


def row_of(
    columns: Sequence[Column],
    typed: Any,
    conditions: Sequence[Object],
    answer: bytes,
    include: str,
    now: float,
    version: str,
) -> bytes:
    """A row by these columns of what their cells read (`typed`) and of the object as it is sent (`answer`)."""
    cells: list[Any] = []
    for column in columns:
        cell = column.cell(typed)
        cells.append(render_since(cell, now) if isinstance(cell, Since) else cell)
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
    return assembled(metadata, definitions(kind) if columns else [], listed, version)


def scale_table(scale: Object, include: str, now: float, version: str) -> bytes:
    """A Scale as a Table of one row (KCTL-31)."""
    shown = row_of(SCALE_COLUMNS, scale, (), _json.encode(scale), include, now, version)
    metadata = {"resourceVersion": scale["metadata"].get("resourceVersion", "")}
    return assembled(metadata, announced(SCALE_COLUMNS, "Scale"), b"[" + shown + b"]", version)


def assembled(metadata: Object, announcements: list[Object], rows: bytes, version: str) -> bytes:
    return b'{"kind":"Table","apiVersion":"meta.k8s.io/%s","metadata":%s,"columnDefinitions":%s,"rows":%s}' % (
        version.encode(),
        _json.encode(metadata),
        _json.encode(announcements),
        rows,
    )
