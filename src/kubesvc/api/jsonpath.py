"""The JSONPath of printer columns: `.spec.ports[0].port`, `.status.conditions[?(@.type=="Ready")].status`.

What is missing is found as nothing; only a text that is no path is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

Step = Callable[[Any], Iterator[Any]]
NAME = re.compile(r"(?:\\.|[^\s.\[\]{}()'\",\\])+")
NUMBER = re.compile(r"\s*(-?\d+)\s*\Z")
RANGE = re.compile(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?\Z")
QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*\Z""")
FILTER = re.compile(r"\s*(@[^=!<>]*?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?\Z", re.DOTALL)


class BadPath(ValueError):
    """A text that is no JSONPath, and why."""


@lru_cache(maxsize=2048)
def steps_of(text: str) -> tuple[Step, ...]:
    """The steps of a path; BadPath if it is none."""
    out: list[Step] = []
    at = 0
    while at < len(text):
        if text.startswith("..", at):
            found = NAME.match(text, at + 2)
            if not found:
                raise BadPath("recursive descent needs a name")
            out += [everywhere, field(unescaped(found[0]))]
            at = found.end()
        elif text[at] == ".":
            at += 1
            if text.startswith("*", at):
                out.append(wildcard)
                at += 1
            elif found := NAME.match(text, at):
                out.append(field(unescaped(found[0])))
                at = found.end()
            elif at < len(text) and text[at] != "[":
                raise BadPath(f"unrecognized character in path: {text[at]!r}")
        elif text[at] == "[":
            end = closing(text, at)
            out.append(bracket(text[at + 1 : end]))
            at = end + 1
        else:
            raise BadPath(f"unrecognized character in path: {text[at]!r}")
    return tuple(out)


def find(text: str, value: Any) -> list[Any]:
    """What a path leads to, in order; empty if nothing is there."""
    found = [value]
    for step in steps_of(text):
        found = [inner for one in found for inner in step(one)]
        if not found:
            break
    return found


def printed(value: Any) -> str:
    """A found value as a cell of type string shows it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode()


def unescaped(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def closing(text: str, at: int) -> int:
    """Where the bracket that opens at a place closes."""
    depth, quoted, i = 0, "", at
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 1
        elif quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        elif c in "[(":
            depth += 1
        elif c in "])":
            depth -= 1
            if not depth:
                return i
        i += 1
    raise BadPath("unterminated array")


def bracket(text: str) -> Step:
    """What stands between brackets: a number, a range, quoted names, a filter, or several of them."""
    if text.strip() == "*":
        return wildcard
    if text.startswith("?(") and text.endswith(")"):
        return filtered(text[2:-1])
    parts = split(text)
    if len(parts) > 1:
        steps = [bracket(p) for p in parts]
        return lambda value: (inner for step in steps for inner in step(value))
    if found := QUOTED.match(text):
        return field(unescaped(found[1] if found[1] is not None else found[2]))
    if found := NUMBER.match(text):
        return index(int(found[1]))
    if found := RANGE.match(text):
        low, high, step = (int(g) if g else None for g in found.groups())
        return lambda value: iter(value[slice(low, high, step or None)]) if isinstance(value, list) else iter(())
    raise BadPath(f"invalid array index {text}")


def split(text: str) -> list[str]:
    """A union's parts."""
    parts, start, quoted = [], 0, ""
    for i, c in enumerate(text):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        elif c == ",":
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def index(number: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            yield value[number]

    return step


def wildcard(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def everywhere(value: Any) -> Iterator[Any]:
    """A value and all below it."""
    todo = [value]
    while todo:
        one = todo.pop()
        yield one
        todo += reversed(list(wildcard(one)))


def filtered(text: str) -> Step:
    """The items for which `@.path`, or `@.path <op> value`, holds."""
    found = FILTER.match(text)
    if not found:
        raise BadPath(f"invalid filter {text}")
    path, operator, wanted = found[1][1:], found[2], found[3]
    steps_of(path)
    right: Callable[[Any], list[Any]]
    if operator and wanted.startswith("@"):
        steps_of(wanted[1:])
        right = lambda item: find(wanted[1:], item)  # noqa: E731
    elif operator:
        constant = literal(wanted)
        right = lambda _: [constant]  # noqa: E731
    else:
        right = lambda _: []  # noqa: E731

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else wildcard(value):
            left = find(path, item)
            if left and (not operator or compare(left[0], operator, right(item))):
                yield item

    return step


def literal(text: str) -> Any:
    quoted = QUOTED.match(text)
    if quoted:
        return unescaped(quoted[1] if quoted[1] is not None else quoted[2])
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise BadPath(f"invalid filter value {text}") from None


def compare(left: Any, operator: str, right: list[Any]) -> bool:
    if not right:
        return False
    other = right[0]
    if operator == "==":
        return bool(left == other)
    if operator == "!=":
        return bool(left != other)
    try:
        return bool({"<": left < other, "<=": left <= other, ">": left > other, ">=": left >= other}[operator])
    except TypeError:
        return False
