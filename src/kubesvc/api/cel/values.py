"""What expressions work on: values of CEL as values of Python, their equality, order, types and texts.

    null None · bool bool · int int · uint UInt · double float · string str · bytes bytes · list list · map dict
    timestamp Timestamp · duration Duration · a type itself CelType · an optional Optional · all else Opaque

Keys of maps are texts and numbers as they are, true and false as TRUE and FALSE, which no number equals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from .syntax import UInt

SECOND = 10**9
LEAST_TIME, MOST_TIME = -62135596800 * SECOND, 253402300800 * SECOND - 1
MOST_DURATION = 2**63 - 1


class CelError(Exception):
    """An evaluation that came to nothing; the text is upstream's."""


class OutOfBudget(Exception):
    """An evaluation that cost more than it may. No part of an expression can go on after it."""


class CelType(NamedTuple):
    """A type as a value: what `type(x)` gives, and what words such as `int` stand for."""

    name: str


class Timestamp(NamedTuple):
    """A moment, in nanoseconds since 1970."""

    nanos: int


class Duration(NamedTuple):
    """A span of time in nanoseconds."""

    nanos: int


class Optional:
    """A value that may be absent."""

    __slots__ = ("present", "value")

    def __init__(self, value: Any = None, *, present: bool = True) -> None:
        self.value, self.present = value, present


NONE = Optional(present=False)


class Opaque:
    """A value of a library: an address, a quantity, a URL. Subclasses say their type's name and what is equal."""

    type_name: ClassVar[str] = "opaque"


class BooleanKey:
    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


TRUE, FALSE = BooleanKey(True), BooleanKey(False)


class ObjectMap(dict[str, Any]):
    """An object whose fields the schema names."""

    __slots__ = ()


class StructMap(ObjectMap):
    """An object made by an expression: `Object.spec{…}` has the name `Object.spec`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class SetList(list[Any]):
    """A list of `x-kubernetes-list-type: set`: its order does not count, and `+` adds what it lacks."""

    __slots__ = ()


class KeyedList(list[Any]):
    """A list of `x-kubernetes-list-type: map`: items are known by their keys."""

    __slots__ = ("keys",)

    def __init__(self, items: list[Any], keys: tuple[str, ...]) -> None:
        super().__init__(items)
        self.keys = keys

    def key(self, item: Any) -> Any:
        return tuple(item.get(k) for k in self.keys) if isinstance(item, dict) else None


def key_of(value: Any) -> Any:
    """A value as a key of a map; None if it cannot be one."""
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return None


def unkey(key: Any) -> Any:
    """The value that a key of a map is."""
    return key.value if isinstance(key, BooleanKey) else key


# ---------------------------------------------------------------- types

NAMES: Mapping[type, str] = {
    type(None): "null_type", bool: "bool", int: "int", UInt: "uint", float: "double", str: "string", bytes: "bytes",
    list: "list", SetList: "list", KeyedList: "list", dict: "map", ObjectMap: "object", StructMap: "object",
    Timestamp: "google.protobuf.Timestamp", Duration: "google.protobuf.Duration", CelType: "type",
    Optional: "optional_type",
}  # fmt: skip


def type_name(value: Any) -> str:
    found = NAMES.get(type(value))
    if found is not None:
        return found
    return value.type_name if isinstance(value, Opaque) else "map" if isinstance(value, Mapping) else "dyn"


# ---------------------------------------------------------------- equality and order


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(one: Any, other: Any, spend: Any = None) -> bool:
    """Whether two values are equal; values of different types are not, but for numbers. spend: called for each part."""
    if spend is not None:
        spend(1)
    kind = type(one)
    if kind is str or kind is bytes or one is None or isinstance(one, (CelType, Timestamp, Duration)):
        return type(other) is kind and bool(one == other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if is_number(one):
        return is_number(other) and bool(one == other)
    if isinstance(one, list):
        return isinstance(other, list) and lists_equal(one, other, spend)
    if isinstance(one, Mapping):
        if not isinstance(other, Mapping) or len(one) != len(other):
            return False
        return all(k in other and equal(v, other[k], spend) for k, v in one.items())
    if isinstance(one, Optional):
        if not isinstance(other, Optional) or one.present != other.present:
            return False
        return not one.present or equal(one.value, other.value, spend)
    return bool(one == other)


def lists_equal(one: list[Any], other: list[Any], spend: Any) -> bool:
    if len(one) != len(other):
        return False
    if isinstance(one, SetList) or isinstance(other, SetList):
        return all(contains(other, v, spend) for v in one)
    if isinstance(one, KeyedList) and all(isinstance(i, dict) for i in (*one, *other)):
        known = {hashable(one.key(i)): i for i in other}
        return all(hashable(one.key(i)) in known and equal(i, known[hashable(one.key(i))], spend) for i in one)
    return all(equal(a, b, spend) for a, b in zip(one, other, strict=True))


def hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def contains(values: list[Any], value: Any, spend: Any = None) -> bool:
    return any(equal(v, value, spend) for v in values)


def added(one: list[Any], other: list[Any], spend: Any) -> list[Any]:
    """`one + other`: of sets, what is new is added; of keyed lists, an item replaces the one with its keys."""
    if isinstance(one, SetList):
        return SetList([*one, *(v for v in other if not contains(one, v, spend))])
    if isinstance(one, KeyedList):
        items = list(one)
        places = {hashable(one.key(i)): n for n, i in enumerate(items)}
        for item in other:
            key = hashable(one.key(item))
            if key in places:
                items[places[key]] = item
            else:
                places[key] = len(items)
                items.append(item)
        return KeyedList(items, one.keys)
    return [*one, *other]


# ---------------------------------------------------------------- time

DURATION = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
MOMENT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9})\d*)?(?:([Zz])|([-+])(\d{2}):(\d{2}))"
)


def duration_of(text: str) -> Duration:
    """Go's durations: `1h30m`, `-1.5s`. ValueError."""
    rest = text.lstrip("+-") if text[:1] in ("+", "-") else text
    if rest == "0":
        return Duration(0)
    if not rest or len(text) - len(rest) > 1:
        raise ValueError(text)
    at, total = 0, 0
    while at < len(rest):
        found = DURATION.match(rest, at)
        if found is None or not (found[1] or found[2]) or len(found[1]) > 20:
            raise ValueError(text)
        unit = UNITS[found[3]]
        total += int(found[1] or 0) * unit
        if fraction := (found[2] or "")[:18]:
            total += int(fraction) * unit // 10 ** len(fraction)
        at = found.end()
    if total > MOST_DURATION:
        raise ValueError(text)
    return Duration(-total if text[0] == "-" else total)


def duration_text(value: Duration) -> str:
    """As seconds: `5400s`, `1.5s`."""
    sign = "-" if value.nanos < 0 else ""
    seconds, nanos = divmod(abs(value.nanos), SECOND)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{sign}{seconds}{fraction}s"


def timestamp_of(text: str) -> Timestamp:
    """RFC 3339. ValueError."""
    found = MOMENT.fullmatch(text)
    if not found:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    if found[9]:
        away = timedelta(hours=int(found[10]), minutes=int(found[11]))
        if int(found[10]) > 24 or int(found[11]) > 59:
            raise ValueError(text)
        offset = int(away.total_seconds()) * (1 if found[9] == "+" else -1)
    else:
        offset = 0
    seconds = int((moment - EPOCH).total_seconds()) - offset
    nanos = seconds * SECOND + int((found[7] or "0").ljust(9, "0"))
    if not LEAST_TIME <= nanos <= MOST_TIME:
        raise ValueError(text)
    return Timestamp(nanos)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def date_of(text: str) -> Timestamp:
    """A date as the moment at which it begins. ValueError."""
    return timestamp_of(f"{text}T00:00:00Z")


def timestamp_text(value: Timestamp) -> str:
    seconds, nanos = divmod(value.nanos, SECOND)
    moment = EPOCH + timedelta(seconds=seconds)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


# ---------------------------------------------------------------- texts


def double_text(value: float) -> str:
    """A double as Go's `strconv.FormatFloat(v, 'f', -1, 64)` prints it."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" in text or "E" in text:
        from decimal import Decimal

        text = f"{Decimal(text):f}"
    return text.removesuffix(".0")


def simple_text(value: Any) -> str | None:
    """A text, bool, number, time or duration as `string()` and `%s` print it; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Timestamp):
        return timestamp_text(value)
    if isinstance(value, Duration):
        return duration_text(value)
    return None
