"""A table as a value: its sets, elements, chains and rules, whether wished for, read from the kernel, or imitated."""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ..netlink import BE32, attribute, be32, be64, nested, text
from . import fields
from .expressions import Rule, Verdict, chains_named
from .fields import Field

Value = bytes | Verdict | None
"""What a set holds under a key: nothing (a set), bytes (a map) or a verdict (a verdict map)."""

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
HOOK_NAMES = ("prerouting", "input", "forward", "output", "postrouting")

SET_ANONYMOUS, SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL, SET_CONCAT = 0x1, 0x4, 0x8, 0x10, 0x20, 0x80
DYNAMIC_SIZE = 65535
"""Most records a dynamic set holds, as nft defaults it."""
COMMENT_UDATA = 0


class SetSpec(msgspec.Struct, frozen=True):
    """A set or map.

    key, data:   fields of key and value; `data` is empty for plain sets and verdict maps
    verdicts:    a verdict map
    intervals:   keys are ranges: first key and last key, side by side; only with several fields
    dynamic:     filled by rules; its elements are records of traffic, not configuration
    timeout_ms:  life of an element that says nothing else; 0: for ever
    typeof:      describe the types by expressions: needed where one has no name of its own (NUMBER)
    """

    name: str
    key: tuple[Field, ...]
    data: tuple[Field, ...] = ()
    verdicts: bool = False
    intervals: bool = False
    dynamic: bool = False
    timeout_ms: int = 0
    typeof: bool = False

    @property
    def is_map(self) -> bool:
        return bool(self.data) or self.verdicts

    @property
    def flags(self) -> int:
        return (
            (SET_MAP if self.is_map else 0)
            | (SET_INTERVAL | SET_CONCAT if self.intervals else 0)
            | (SET_EVAL if self.dynamic else 0)
            | (SET_TIMEOUT if self.timeout_ms else 0)
        )

    def encode(self, table: str, id: int) -> bytes:
        """The attributes that make it; `id` is a number of its own within the transaction."""
        parts = [
            text(1, table),
            text(2, self.name),
            be32(3, self.flags),
            be32(4, fields.type_number(self.key)),
            be32(5, fields.width(self.key)),
        ]
        if self.verdicts:
            parts += [be32(6, fields.TYPE_VERDICT), be32(7, 16)]
        elif self.data:
            parts += [be32(6, fields.type_number(self.data)), be32(7, fields.width(self.data))]
        description = []
        if self.dynamic:
            description.append(be32(1, DYNAMIC_SIZE))
        if self.intervals:
            widths = [nested(1, be32(1, f.size_bytes)) for f in self.key]
            description.append(nested(2, *widths))
        parts += [nested(9, *description), be32(10, id)]
        if self.timeout_ms:
            parts.append(be64(11, self.timeout_ms))
        parts.append(attribute(13, self.userdata()))
        return b"".join(parts)

    def userdata(self) -> bytes:
        """What `nft list` needs to print it."""
        parts = [fields.udata_u32(fields.UDATA_KEY_BYTEORDER, fields.byteorder(self.key))]
        if self.is_map:
            parts.append(fields.udata_u32(fields.UDATA_DATA_BYTEORDER, fields.byteorder(self.data)))
        if self.typeof:
            parts.append(fields.udata(fields.UDATA_KEY_TYPEOF, fields.typeof(self.key)))
            if self.data:
                parts.append(fields.udata(fields.UDATA_DATA_TYPEOF, fields.typeof(self.data)))
        if self.is_map:
            parts.append(fields.udata_u32(fields.UDATA_DATA_INTERVAL, 0))
        return b"".join(parts)

    def check(self, key: bytes, value: Value) -> None:
        """ValueError if an element does not fit this set."""
        if len(key) != fields.width(self.key) * (2 if self.intervals else 1):
            raise ValueError(f"set {self.name!r}: key {key.hex()}: must have {fields.width(self.key)} bytes")
        fits = (
            isinstance(value, Verdict)
            if self.verdicts
            else isinstance(value, bytes) and len(value) == fields.width(self.data)
            if self.data
            else value is None
        )
        if not fits:
            raise ValueError(f"set {self.name!r}: value {value!r} does not fit")

    def overlap(self, one: bytes, other: bytes) -> bool:
        """Whether two intervals of this set share a value; the kernel takes no two that do, unless they are equal."""
        size = fields.width(self.key)
        offset = 0
        for part in self.key:
            end = offset + part.size_bytes
            if (
                one[offset:end] > other[size + offset : size + end]
                or other[offset:end] > one[size + offset : size + end]
            ):
                return False
            offset += part.width_bytes
        return True


class Base(msgspec.Struct, frozen=True):
    """Where a base chain is hooked in; its policy is accept."""

    type: str
    hook: int
    priority: int


class ChainSpec(msgspec.Struct, frozen=True):
    """A chain; with `base`, one that the kernel itself calls."""

    name: str
    base: Base | None = None

    def encode(self, table: str) -> bytes:
        parts = [text(1, table), text(3, self.name)]
        if self.base:
            priority = BE32.unpack(struct.pack(">i", self.base.priority))[0]
            parts += [nested(4, be32(1, self.base.hook), be32(2, priority)), be32(5, 1), text(7, self.base.type)]
        return b"".join(parts)


@dataclass(slots=True)
class Table:
    """One table whole. `elements` of dynamic sets are what traffic has left, and are no part of equality of plans."""

    family: int
    name: str
    comment: str = ""
    sets: dict[str, SetSpec] = field(default_factory=dict)
    elements: dict[str, dict[bytes, Value]] = field(default_factory=dict)
    chains: dict[str, ChainSpec] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)

    def draft(self) -> Table:
        """A copy whose sets' contents are still shared: `Changes` copies those it touches."""
        return Table(
            self.family,
            self.name,
            self.comment,
            dict(self.sets),
            dict(self.elements),
            dict(self.chains),
            dict(self.rules),
        )

    def copy(self) -> Table:
        return copy.deepcopy(self)

    def uses_of_chain(self, name: str) -> bool:
        """Whether a rule or element names this chain."""
        for rules in self.rules.values():
            if any(name in chains_named(rule) for rule in rules):
                return True
        for spec in self.sets.values():
            if spec.verdicts:
                values = self.elements[spec.name].values()
                if any(isinstance(v, Verdict) and v.chain == name for v in values):
                    return True
        return False


def encode_comment(comment: str) -> bytes:
    """User data that makes nft show a comment."""
    data = comment.encode()[:127] + b"\0"
    return bytes((COMMENT_UDATA, len(data))) + data


def decode_comment(data: bytes) -> str:
    """The comment in user data, "" if none."""
    offset = 0
    while offset + 2 <= len(data):
        type, size = data[offset], data[offset + 1]
        if type == COMMENT_UDATA:
            return data[offset + 2 : offset + 2 + size].rstrip(b"\0").decode(errors="replace")
        offset += 2 + size
    return ""


def static_part(table: Table) -> Mapping[str, object]:
    """All of a table but what traffic has left in dynamic sets: two tables are the same configuration if equal."""
    return {
        "sets": table.sets,
        "elements": {name: held for name, held in table.elements.items() if not table.sets[name].dynamic},
        "chains": table.chains,
        "rules": table.rules,
    }
