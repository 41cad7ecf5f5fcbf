"""Types that are known before an expression is evaluated, and signatures of functions over them.

A type is spelled as upstream prints it: `int`, `list(string)`, `map(string, dyn)`, `optional_type(A)`; a capital letter
stands for any type, the same one throughout a signature: `list(A).slice(int, int) -> list(A)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .syntax import UInt
from .values import CelType, Duration, Opaque, Optional, Timestamp


class Type:
    """fields: of an object, those that it may have, with their types; None: this is no such object."""

    __slots__ = ("fields", "name", "params")

    def __init__(self, name: str, params: tuple[Type, ...] = (), fields: Mapping[str, Type] | None = None) -> None:
        self.name, self.params, self.fields = name, params, fields

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Type)
            and self.name == other.name
            and self.params == other.params
            and (self.fields is None) == (other.fields is None)
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.params))})" if self.params else self.name

    @property
    def variable(self) -> bool:
        """Whether it stands for any type."""
        return len(self.name) == 1


DYN, INT, UINT, DOUBLE, BOOL = Type("dyn"), Type("int"), Type("uint"), Type("double"), Type("bool")
STRING, BYTES, NULL, TIMESTAMP, DURATION = (
    Type("string"), Type("bytes"), Type("null"), Type("timestamp"), Type("duration"),
)  # fmt: skip
BASIC = {
    t.name: t for t in (DYN, INT, UINT, DOUBLE, BOOL, STRING, BYTES, NULL, TIMESTAMP, DURATION)
}  # fmt: skip


def list_type(of: Type) -> Type:
    return Type("list", (of,))


def map_type(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


def optional_type(of: Type) -> Type:
    return Type("optional_type", (of,))


def type_type(of: Type) -> Type:
    return Type("type", (of,))


@lru_cache(maxsize=1024)
def read_type(text: str) -> Type:
    """A type from its spelling."""
    text = text.strip()
    if text.endswith(")"):
        name, _, inner = text[:-1].partition("(")
        return Type(name, tuple(read_type(p) for p in split(inner)))
    return BASIC.get(text) or Type(text)


def split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets."""
    out, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and not depth:
            out.append(text[start:i])
            start = i + 1
    rest = text[start:]
    return [*out, rest] if rest.strip() else out


class Overload(NamedTuple):
    """One signature of a function. `params`: of a method, the first is what it is called on.

    run: what it does with values of these types; takes the frame first if `costly`, so that it can charge for its work
    """

    params: tuple[Type, ...]
    method: bool
    result: Type
    run: Callable[..., Any]
    accepts: tuple[Callable[[Any], bool] | None, ...]
    costly: bool


def overload(signature: str, run: Callable[..., Any], *, costly: bool = False) -> tuple[str, Overload]:
    """The function's name and the overload that a signature spells: `list(A).sum() -> A`, `size(string) -> int`."""
    left, _, result = signature.rpartition(" -> ")
    depth, opening = 0, len(left) - 1
    while True:  # the bracket that the last one closes
        depth += (left[opening] == ")") - (left[opening] == "(")
        if not depth:
            break
        opening -= 1
    head, inner = left[:opening], left[opening + 1 : -1]
    method = head[:1] == "<"
    params = [read_type(p) for p in split(inner)]
    name = head
    if method:
        receiver, _, name = head[1:].partition(">.")
        params.insert(0, read_type(receiver))
    accepts = tuple(accepting(t) for t in params)
    return name, Overload(tuple(params), method, read_type(result), run, accepts, costly)


EXACT: Mapping[str, type] = {
    "int": int, "uint": UInt, "double": float, "bool": bool, "string": str, "bytes": bytes, "null": type(None),
    "timestamp": Timestamp, "duration": Duration,
}  # fmt: skip


def accepting(of: Type) -> Callable[[Any], bool] | None:
    """Whether a value is of a type; None: every value is."""
    if of is DYN or of.variable:
        return None
    exact = EXACT.get(of.name)
    if exact is not None:
        return lambda value: type(value) is exact
    if of.name == "list":
        inner = of.params[0] if of.params else DYN
        if inner.name in EXACT:  # `list(string).join()` takes no list of numbers
            only = EXACT[inner.name]
            return lambda value: isinstance(value, list) and (not value or type(value[0]) is only)
        return lambda value: isinstance(value, list)
    if of.name == "map":
        return lambda value: isinstance(value, Mapping)
    if of.name == "optional_type":
        return lambda value: isinstance(value, Optional)
    if of.name == "type":
        return lambda value: isinstance(value, CelType)
    name = of.name
    return lambda value: isinstance(value, Opaque) and value.type_name == name
