"""What the verbs of the registry answer with, and how that is written out for a client."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from . import refusals
from .cache import Item
from .storage import answer, decode, list_item, shown

_json = msgspec.json.Encoder()


class Written(NamedTuple):
    """What a write left: the stored value and its revision; revision 0 after a dry run of a create."""

    kind: Kind
    value: bytes
    revision: int
    created: bool = False

    def body(self) -> bytes:
        """The object as it is sent."""
        return render(self.kind, self.value, self.revision)

    def object(self) -> Object:
        obj = shown(self.kind, self.value, self.revision)
        if not self.revision:
            del obj["metadata"]["resourceVersion"]
        return self.kind.from_stored(obj) if self.kind.stored else obj


class Deleted(NamedTuple):
    """What a deletion left: the object in its last state; `gone` tells that it exists no more."""

    kind: Kind
    value: bytes
    revision: int
    gone: bool

    def answers_object(self) -> bool:
        """Whether the answer is the object rather than a Status (DEL-4)."""
        return not self.gone or self.kind.delete_returns_object

    def object(self) -> Object:
        obj = shown(self.kind, self.value, self.revision)
        return self.kind.from_stored(obj) if self.kind.stored else obj

    def status(self) -> Object:
        """The Status of a deletion that is done."""
        meta = msgspec.json.decode(self.value)["metadata"]
        details = refusals.details_of(self.kind, meta["name"])
        details["uid"] = meta["uid"]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


class ListPage(NamedTuple):
    """One page of a list: items as (stored value, revision), the revision it is consistent at, and how it goes on."""

    kind: Kind
    revision: int
    items: list[Item]
    continue_token: str = ""
    remaining: int | None = None


def render(kind: Kind, value: bytes, revision: int) -> bytes:
    """A stored value as an answer of `kind`, which may be a view of the stored kind."""
    if kind.stored is None:
        return answer(kind, value, revision)
    return _json.encode(kind.from_stored(decode(value, revision)))


def render_item(kind: Kind, item: Item) -> bytes:
    """An object inside a list (READ-3)."""
    if kind.stored is None:
        return list_item(kind, item.value, item.revision)
    obj = kind.from_stored(decode(item.value, item.revision))
    obj.pop("kind", None)
    obj.pop("apiVersion", None)
    return _json.encode(obj)


def base_of(kind: Kind) -> Kind:
    """The kind that is stored."""
    return kind.stored or kind
