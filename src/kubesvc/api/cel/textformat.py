"""`"%s has %d".format([a, b])`, and texts in quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .values import (
    CelError,
    CelType,
    Optional,
    double_text,
    simple_text,
    type_name,
    unkey,
)

if TYPE_CHECKING:
    from .evaluate import Frame

MOST_PRECISION = 100


def go_quote(text: str) -> str:
    """A text in double quotes, with escapes for what would break them."""
    out = []
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        else:
            out.append(
                {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}.get(c, c)
            )
    return '"' + "".join(out) + '"'


def format_text(frame: Frame, template: str, values: list[Any]) -> str:
    frame.spend(len(template) // 10)
    out: list[str] = []
    at, used = 0, 0
    while at < len(template):
        c = template[at]
        if c != "%":
            end = template.find("%", at)
            end = len(template) if end < 0 else end
            out.append(template[at:end])
            at = end
            continue
        at += 1
        if at >= len(template):
            raise CelError("unexpected end of string")
        if template[at] == "%":
            out.append("%")
            at += 1
            continue
        precision = 6
        if template[at] == ".":
            at += 1
            start = at
            while at < len(template) and template[at].isascii() and template[at].isdigit():
                at += 1
            if at == start or at - start > 4:
                raise CelError("could not parse precision")
            precision = min(int(template[start:at]), MOST_PRECISION)
            if at >= len(template):
                raise CelError("unexpected end of string")
        if used >= len(values):
            raise CelError(f"index {used} out of range")
        piece = one(frame, template[at], precision, values[used])
        frame.spend(1 + len(piece) // 10)
        out.append(piece)
        used += 1
        at += 1
    return "".join(out)


def one(frame: Frame, clause: str, precision: int, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if clause == "s":
        return plain(frame, value)
    if clause == "d":
        if number and isinstance(value, int):
            return str(int(value))
        if isinstance(value, float) and (value != value or abs(value) == float("inf")):
            return double_text(value)
        raise CelError(wrong("decimal", "integers", value, "d"))
    if clause in "fe":
        if number:
            value = float(value)
            if value != value or abs(value) == float("inf"):
                return double_text(value)
            return f"{value:.{precision}{clause}}"
        raise CelError(wrong("fixed-point" if clause == "f" else "scientific", "doubles", value, clause))
    if clause == "b":
        if isinstance(value, int):
            return f"{int(value):b}"
        raise CelError(wrong("binary", "integers and bools", value, "b"))
    if clause in "xX":
        if isinstance(value, str):
            text = value.encode("utf-8", "replace").hex()
        elif isinstance(value, bytes):
            text = value.hex()
        elif number and isinstance(value, int):
            text = f"{int(value):x}"
        else:
            raise CelError(wrong("hex", "integers, byte buffers, and strings", value, clause))
        return text.upper() if clause == "X" else text
    if clause == "o":
        if number and isinstance(value, int):
            return f"{int(value):o}"
        raise CelError(wrong("octal", "integers", value, "o"))
    raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{clause}"')


def wrong(sort: str, only: str, value: Any, clause: str) -> str:
    return f"error during formatting: {sort} clause can only be used on {only}, was given {type_name(value)}"


def plain(frame: Frame, value: Any, *, nested: bool = False) -> str:
    """A value as `%s` prints it."""
    frame.spend(1)
    if value is None:
        return "null"
    if (text := simple_text(value)) is not None:
        return text
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, CelType):
        return value.name
    if isinstance(value, list):
        return "[" + ", ".join(plain(frame, v) for v in value) + "]"
    if isinstance(value, Mapping):
        pairs = sorted((plain(frame, unkey(k)), plain(frame, v)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if isinstance(value, Optional):
        raise CelError("error during formatting: no formatting function for optional_type")
    raise CelError(
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, "
        f"lists, types, durations, and timestamps, was given {type_name(value)}"
    )
