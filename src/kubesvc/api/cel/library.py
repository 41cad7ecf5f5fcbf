"""The functions that expressions may call: CEL's own, and its extensions for texts, lists, sets and optionals.

Kubernetes' own are in `kubernetes`. Each entry is a signature and what it does; one that works longer on longer values
takes the frame first and pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import kubernetes
from .regex import regex
from .syntax import UInt
from .textformat import format_text, go_quote
from .types import Overload, overload
from .values import (
    EPOCH,
    MOST_DURATION,
    NONE,
    SECOND,
    CelError,
    CelType,
    Duration,
    Optional,
    Timestamp,
    contains,
    duration_of,
    equal,
    is_number,
    simple_text,
    timestamp_of,
    type_name,
)

if TYPE_CHECKING:
    from .evaluate import Frame

LEAST_INT, MOST_INT, MOST_UINT = -(2**63), 2**63 - 1, 2**64 - 1
MOST_RANGE = 100_000
FUNCTIONS: dict[str, list[Overload]] = {}
"""By name: all overloads, functions and methods."""


def add(signature: str, run: Callable[..., Any], *, costly: bool = False) -> None:
    name, one = overload(signature, run, costly=costly)
    FUNCTIONS.setdefault(name, []).append(one)


# ---------------------------------------------------------------- conversions


def to_int(value: Any) -> int:
    if isinstance(value, str):
        try:
            if not value.lstrip("+-").isdigit() or not value.isascii() or len(value) > 30:
                raise ValueError
            found = int(value)
        except ValueError:
            raise CelError(f"strconv.ParseInt: parsing {go_quote(value)}: invalid syntax") from None
        if not LEAST_INT <= found <= MOST_INT:
            raise CelError(f"strconv.ParseInt: parsing {go_quote(value)}: value out of range")
        return found
    if isinstance(value, float):
        if value != value or not LEAST_INT < value < MOST_INT:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, Timestamp):
        return value.nanos // SECOND
    if isinstance(value, Duration):
        return value.nanos
    if value > MOST_INT:
        raise CelError("integer overflow")
    return int(value)


def to_uint(value: Any) -> UInt:
    if isinstance(value, str):
        if not value.isdigit() or not value.isascii() or len(value) > 30:
            raise CelError(f"strconv.ParseUint: parsing {go_quote(value)}: invalid syntax")
        value = int(value)
        if value > MOST_UINT:
            raise CelError(f"strconv.ParseUint: parsing {go_quote(str(value))}: value out of range")
    elif isinstance(value, float) and (value != value or not -1 < value < MOST_UINT):
        raise CelError("unsigned integer overflow")
    if not 0 <= value <= MOST_UINT:
        raise CelError("unsigned integer overflow")
    return UInt(value)


def to_double(value: Any) -> float:
    if isinstance(value, str):
        try:
            if "_" in value or value != value.strip():
                raise ValueError
            return float(value)
        except ValueError:
            raise CelError(f"strconv.ParseFloat: parsing {go_quote(value)}: invalid syntax") from None
    return float(value)


def to_string(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    text = simple_text(value)
    assert text is not None  # the overloads take nothing else
    return text


def to_bool(value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise CelError(f"strconv.ParseBool: parsing {go_quote(value)}: invalid syntax")


def to_timestamp(value: Any) -> Timestamp:
    if isinstance(value, str):
        try:
            return timestamp_of(value)
        except (ValueError, OverflowError):
            shown = go_quote(value)
            raise CelError(
                f'parsing time {shown} as "2006-01-02T15:04:05Z07:00": cannot parse {shown} as "2006"'
            ) from None
    if isinstance(value, int):
        from .values import LEAST_TIME, MOST_TIME

        if not LEAST_TIME <= value * SECOND <= MOST_TIME:
            raise CelError("timestamp overflow")
        return Timestamp(value * SECOND)
    assert isinstance(value, Timestamp)
    return value


def to_duration(value: Any) -> Duration:
    if isinstance(value, str):
        try:
            return duration_of(value)
        except ValueError:
            raise CelError(f"time: invalid duration {go_quote(value)}") from None
    return value if isinstance(value, Duration) else Duration(int(value))


for _source in ("int", "uint", "double", "string", "timestamp", "duration"):
    add(f"int({_source}) -> int", to_int)
for _source in ("int", "uint", "double", "string"):
    add(f"uint({_source}) -> uint", to_uint)
    add(f"double({_source}) -> double", to_double)
for _source in ("string", "bool", "int", "uint", "double", "bytes", "timestamp", "duration"):
    add(f"string({_source}) -> string", to_string)
add("bytes(string) -> bytes", lambda v: v.encode("utf-8", "replace"))
add("bytes(bytes) -> bytes", lambda v: v)
add("bool(bool) -> bool", lambda v: v)
add("bool(string) -> bool", to_bool)
for _source in ("int", "timestamp"):
    add(f"timestamp({_source}) -> timestamp", to_timestamp)
for _source in ("int", "duration"):
    add(f"duration({_source}) -> duration", to_duration)
add("dyn(A) -> dyn", lambda v: v)
add("type(A) -> type(A)", lambda v: CelType(type_name(v)))
for _kind in ("string", "bytes", "list(A)", "map(A, B)"):
    add(f"size({_kind}) -> int", len)
    add(f"<{_kind}>.size() -> int", len)
add("!_(bool) -> bool", lambda v: not v)


def negated(value: Any) -> Any:
    if isinstance(value, float):
        return -value
    if value == LEAST_INT:
        raise CelError("integer overflow")
    return -value


add("-_(int) -> int", negated)
add("-_(double) -> double", negated)


# ---------------------------------------------------------------- time


def fields_of(value: Timestamp, zone: str = "") -> datetime:
    seconds, nanos = divmod(value.nanos, SECOND)
    try:
        return (EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)).astimezone(zone_of(zone))
    except (OverflowError, ValueError):
        raise CelError("timestamp overflow") from None


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """A zone by its name, or by how far it is from UTC: `02:00`, `-03:30`."""
    if name in ("", "UTC"):
        return UTC
    if ":" in name:
        sign = -1 if name.startswith("-") else 1
        hours, _, minutes = name.lstrip("+-").partition(":")
        if hours.isdigit() and minutes.isdigit() and len(name) < 8:
            away = timedelta(hours=int(hours), minutes=int(minutes))
            if away < timedelta(hours=24):
                return timezone(sign * away)
        raise CelError(f"unknown time zone {name}")
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise CelError(f"unknown time zone {name}") from None


FIELDS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDate": lambda t: t.day,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
    "getMilliseconds": lambda t: t.microsecond // 1000,
}


def field_reader(read: Callable[[datetime], int]) -> Callable[..., int]:
    return lambda value, zone="": read(fields_of(value, zone))


def zoned(read: Callable[..., int]) -> Callable[..., int]:
    """Zones are slower than UTC."""

    def run(frame: Frame, value: Timestamp, zone: str) -> int:
        frame.spend(5 + len(zone))
        return read(value, zone)

    return run


def whole_units(size: int) -> Callable[[Duration], int]:
    """Durations in whole units, towards zero."""
    return lambda v: abs(v.nanos) // size * (-1 if v.nanos < 0 else 1)


for _name, _read in FIELDS.items():
    add(f"<timestamp>.{_name}() -> int", field_reader(_read))
    add(f"<timestamp>.{_name}(string) -> int", zoned(field_reader(_read)), costly=True)
for _name, _size in (("getHours", 3600 * SECOND), ("getMinutes", 60 * SECOND), ("getSeconds", SECOND),
                     ("getMilliseconds", 10**6)):  # fmt: skip
    add(f"<duration>.{_name}() -> int", whole_units(_size))


# ---------------------------------------------------------------- texts


def paid(run: Callable[..., Any]) -> Callable[..., Any]:
    """A function of texts that pays a tenth of their length."""

    def paying(frame: Frame, *values: Any) -> Any:
        frame.spend(sum(len(v) for v in values if isinstance(v, str)) // 10)
        return run(*values)

    return paying


def priced(run: Callable[..., Any], price: int) -> Callable[..., Any]:
    """A function that reads its text at some length: it pays its price, and half of the text's length."""

    def paying(frame: Frame, *values: Any) -> Any:
        frame.spend(price + sum(len(v) for v in values if isinstance(v, str)) // 2)
        return run(*values)

    return paying


def place(text: str, at: int) -> int:
    if not 0 <= at <= len(text):
        raise CelError(f"index out of range: {at}")
    return at


def char_at(text: str, at: int) -> str:
    place(text, at)
    return text[at : at + 1]


def index_of(text: str, part: str, start: int = 0) -> int:
    if not part:
        return place(text, start)
    if start < 0:
        raise CelError(f"index out of range: {start}")
    return text.find(part, start)


def last_index_of(text: str, part: str, at: int | None = None) -> int:
    if at is None:
        return text.rfind(part)
    if at < 0:
        raise CelError(f"index out of range: {at}")
    if not part:
        return min(at, len(text))
    return text.rfind(part, 0, at + len(part))


def substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    if not 0 <= end <= len(text):
        raise CelError(f"index out of range: {end}")
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


def replaced(frame: Frame, text: str, old: str, new: str, most: int = -1) -> str:
    count = len(text) + 1 if not old else text.count(old)
    count = count if most < 0 else min(count, most)
    frame.spend((len(text) + count * len(new)) // 10 + 1)
    return text.replace(old, new, most) if most >= 0 else text.replace(old, new)


def parted(frame: Frame, text: str, separator: str, most: int = -1) -> list[str]:
    frame.spend(len(text) // 5 + 1)
    if most == 0:
        return []
    if not separator:
        parts = list(text)
        return parts if most < 0 or len(parts) <= most else [*parts[: most - 1], "".join(parts[most - 1 :])]
    return text.split(separator) if most < 0 else text.split(separator, most - 1)


def joined(frame: Frame, values: list[Any], separator: str = "") -> str:
    for value in values:
        frame.spend(1)
        if not isinstance(value, str):
            raise CelError("no such overload")
    frame.spend(sum(len(v) + len(separator) for v in values) // 10)
    return separator.join(values)


LOWER = {i: i + 32 for i in range(65, 91)}
UPPER = {i: i - 32 for i in range(97, 123)}
SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

for _method, _run in (
    ("contains(string)", lambda a, b: b in a),
    ("startsWith(string)", lambda a, b: a.startswith(b)),
    ("endsWith(string)", lambda a, b: a.endswith(b)),
):
    add(f"<string>.{_method} -> bool", paid(_run), costly=True)
add("timestamp(string) -> timestamp", priced(to_timestamp, 5), costly=True)
add("duration(string) -> duration", priced(to_duration, 5), costly=True)
add("<string>.matches(string) -> bool", lambda f, text, p: regex(f, p).matches(f, text), costly=True)
add("matches(string, string) -> bool", lambda f, text, p: regex(f, p).matches(f, text), costly=True)
add("<string>.charAt(int) -> string", char_at)
add("<string>.indexOf(string) -> int", paid(index_of), costly=True)
add("<string>.indexOf(string, int) -> int", paid(index_of), costly=True)
add("<string>.lastIndexOf(string) -> int", paid(last_index_of), costly=True)
add("<string>.lastIndexOf(string, int) -> int", paid(last_index_of), costly=True)
add("<string>.substring(int) -> string", paid(substring), costly=True)
add("<string>.substring(int, int) -> string", paid(substring), costly=True)
add("<string>.replace(string, string) -> string", replaced, costly=True)
add("<string>.replace(string, string, int) -> string", replaced, costly=True)
add("<string>.split(string) -> list(string)", parted, costly=True)
add("<string>.split(string, int) -> list(string)", parted, costly=True)
add("<list(string)>.join() -> string", joined, costly=True)
add("<list(string)>.join(string) -> string", joined, costly=True)
add("<string>.lowerAscii() -> string", paid(lambda v: v.translate(LOWER)), costly=True)
add("<string>.upperAscii() -> string", paid(lambda v: v.translate(UPPER)), costly=True)
add("<string>.trim() -> string", paid(lambda v: v.strip(SPACES)), costly=True)
add("<string>.reverse() -> string", paid(lambda v: v[::-1]), costly=True)
add("strings.quote(string) -> string", paid(go_quote), costly=True)
add("<string>.format(list(dyn)) -> string", format_text, costly=True)
add(
    "<string>.find(string) -> string",
    lambda f, text, p: next(iter(regex(f, p).find_all(f, text, 1)), ""),
    costly=True,
)
add("<string>.findAll(string) -> list(string)", lambda f, text, p: regex(f, p).find_all(f, text), costly=True)
add(
    "<string>.findAll(string, int) -> list(string)", lambda f, text, p, n: regex(f, p).find_all(f, text, n), costly=True
)


# ---------------------------------------------------------------- lists and sets

COMPARABLE = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")


def is_sorted(frame: Frame, values: list[Any]) -> bool:
    frame.spend(len(values))
    same_sort(values)
    return all(not b < a for a, b in pairwise(values))


ORDERED = frozenset((bool, str, bytes, Timestamp, Duration))


def same_sort(values: list[Any]) -> None:
    """CelError for values that have no order among each other."""
    sorts = {type(v) for v in values}
    if not (all(map(is_number, values)) or (len(sorts) == 1 and sorts <= ORDERED)):
        raise CelError("no such overload")


def total(zero: Any) -> Callable[[Frame, list[Any]], Any]:
    def run(frame: Frame, values: list[Any]) -> Any:
        frame.spend(len(values))
        if any(type(v) is not type(zero) for v in values):
            raise CelError("no such overload")
        if isinstance(zero, Duration):
            nanos = sum(v.nanos for v in values)
            if abs(nanos) > MOST_DURATION:
                raise CelError("integer overflow")
            return Duration(nanos)
        found = sum(values, zero)
        if isinstance(zero, float):
            return found
        if isinstance(zero, UInt):
            if found > MOST_UINT:
                raise CelError("unsigned integer overflow")
            return UInt(found)
        if not LEAST_INT <= found <= MOST_INT:
            raise CelError("integer overflow")
        return found

    return run


def extreme(choose: Callable[[list[Any]], Any], name: str) -> Callable[[Frame, list[Any]], Any]:
    def run(frame: Frame, values: list[Any]) -> Any:
        frame.spend(len(values))
        if not values:
            raise CelError(f"{name} called on empty list")
        same_sort(values)
        return choose(values)

    return run


def position(frame: Frame, values: list[Any], value: Any) -> int:
    return next((i for i, v in enumerate(values) if equal(v, value, frame.spend)), -1)


def last_position(frame: Frame, values: list[Any], value: Any) -> int:
    return next((i for i in range(len(values) - 1, -1, -1) if equal(values[i], value, frame.spend)), -1)


def sliced(frame: Frame, values: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(values):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(values)}")
    frame.spend((end - start) // 10)
    return list(values[start:end])


def flattened(frame: Frame, values: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    for _ in range(depth):
        if not any(isinstance(v, list) for v in values):
            break
        out: list[Any] = []
        for value in values:
            more = value if isinstance(value, list) else [value]
            frame.spend(1 + len(more))
            out += more
        values = out
    return list(values)


def distinct(frame: Frame, values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for value in values:
        if not contains(out, value, frame.spend):
            out.append(value)
    return out


def in_order(frame: Frame, values: list[Any]) -> list[Any]:
    frame.spend(len(values) * max(len(values).bit_length(), 1))
    same_sort(values)
    return sorted(values)


def numbers_below(frame: Frame, end: int) -> list[int]:
    if end > MOST_RANGE:
        raise CelError(f"range({end}): more than {MOST_RANGE} elements")
    frame.spend(max(end, 0))
    return list(range(end))


def reversed_list(frame: Frame, values: list[Any]) -> list[Any]:
    frame.spend(len(values) // 10)
    return list(reversed(values))


for _element in COMPARABLE:
    add(f"<list({_element})>.isSorted() -> bool", is_sorted, costly=True)
    add(f"<list({_element})>.min() -> {_element}", extreme(min, "min"), costly=True)
    add(f"<list({_element})>.max() -> {_element}", extreme(max, "max"), costly=True)
    add(f"<list({_element})>.sort() -> list({_element})", in_order, costly=True)
for _element, _zero in (("int", 0), ("uint", UInt(0)), ("double", 0.0), ("duration", Duration(0))):
    add(f"<list({_element})>.sum() -> {_element}", total(_zero), costly=True)
add("<list(A)>.indexOf(A) -> int", position, costly=True)
add("<list(A)>.lastIndexOf(A) -> int", last_position, costly=True)
add("<list(A)>.slice(int, int) -> list(A)", sliced, costly=True)
add("<list(list(A))>.flatten() -> list(A)", flattened, costly=True)
add("<list(dyn)>.flatten(int) -> list(dyn)", flattened, costly=True)
add("<list(A)>.distinct() -> list(A)", distinct, costly=True)
add("<list(A)>.reverse() -> list(A)", reversed_list, costly=True)
add("lists.range(int) -> list(int)", numbers_below, costly=True)


def holds_all(frame: Frame, values: list[Any], parts: list[Any]) -> bool:
    return all(contains(values, p, frame.spend) for p in parts)


add("sets.contains(list(A), list(A)) -> bool", holds_all, costly=True)
add(
    "sets.equivalent(list(A), list(A)) -> bool",
    lambda f, a, b: holds_all(f, a, b) and holds_all(f, b, a),
    costly=True,
)
add(
    "sets.intersects(list(A), list(A)) -> bool",
    lambda f, a, b: any(contains(a, v, f.spend) for v in b),
    costly=True,
)


# ---------------------------------------------------------------- optionals


def value_of(one: Optional) -> Any:
    if not one.present:
        raise CelError("optional.none() dereference")
    return one.value


def of_non_zero(value: Any) -> Optional:
    zero = not value.nanos if isinstance(value, Duration) else not isinstance(value, (Timestamp, CelType)) and not value
    return NONE if zero else Optional(value)


add("optional.of(A) -> optional_type(A)", Optional)
add("optional.ofNonZeroValue(A) -> optional_type(A)", of_non_zero)
add("optional.none() -> optional_type(A)", lambda: NONE)
add("<optional_type(A)>.hasValue() -> bool", lambda o: o.present)
add("<optional_type(A)>.value() -> A", value_of)
add("<optional_type(A)>.orValue(A) -> A", lambda o, v: o.value if o.present else v)
add("<optional_type(A)>.or(optional_type(A)) -> optional_type(A)", lambda o, p: o if o.present else p)


def add_priced(signature: str, run: Callable[..., Any], price: int) -> None:
    add(signature, priced(run, price), costly=True)


kubernetes.register(add, add_priced)
