"""The one spelling of an object: what a Go server prints for it, whatever a client left out, nulled or zeroed.

Go's types decide what is printed: a plain value of a field is left out when it is zero, a pointer only when it is nil,
an empty list or map never stands, a struct always does. Our typed structs carry the same knowledge: `str = ""` is a
plain value, `str | None` a pointer, `X = X()` a struct, and the class variable `always` names the fields that are
printed even when they are empty.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec

from . import quantity
from .meta import Object

PLAIN = {str: "", int: 0, bool: False, float: 0.0}
NUMBERS = (int, float)
GONE: Any = object()
"""What a rule says of a value that is left out."""


class Rules(NamedTuple):
    """How the fields of one type are spelled, by wire name.

    A write of an object goes through here for every struct in it, so only what may need something is looked at.
    """

    filled: dict[str, Callable[[Any], Any]]
    """Of fields whose values may need work though they are not empty: the value as it is printed."""
    empty: dict[str, Callable[[Any], Any]]
    """Of all known fields: what stands for an empty value (null, zero, no items), or GONE."""
    made: tuple[tuple[str, Callable[[Any], Any]], ...]
    """The fields that are printed even when nobody gave them, in the type's order."""


def normalize(obj: Object, type_: type[msgspec.Struct]) -> None:
    """Bring `obj`, in place, into the spelling of `type_`; fields the type does not know only lose nulls.

    Quantities become canonical. Values of a wrong JSON type stay as they are: refusing them is not done here.
    """
    filled, empty, made = rules_of(type_)
    gone: list[str] | None = None
    for name, value in obj.items():
        if value:
            rule = filled.get(name)
            if rule is None:
                continue
        else:
            rule = empty.get(name, drop_null)
        found = rule(value)
        if found is GONE:
            gone = [name] if gone is None else [*gone, name]
        elif found is not value:
            obj[name] = found  # of a key that is there: the dict keeps its shape
    if gone is not None:
        for name in gone:
            del obj[name]
    for name, rule in made:
        if name not in obj:
            obj[name] = rule(None)


@cache
def rules_of(type_: type[msgspec.Struct]) -> Rules:
    hints = typing.get_type_hints(type_)
    always: tuple[str, ...] = getattr(type_, "always", ())
    rules = Rules({}, {}, ())
    made: list[tuple[str, Callable[[Any], Any]]] = []
    for field in msgspec.structs.fields(type_):
        filled, empty, is_made = rule_of(hints[field.name], field.name in always)
        if filled is not None:
            rules.filled[field.encode_name] = filled
        rules.empty[field.encode_name] = empty
        if is_made:
            made.append((field.encode_name, empty))
    return rules._replace(made=tuple(made))


Rule = tuple[Callable[[Any], Any] | None, Callable[[Any], Any], bool]
"""What is done with a value that is not empty (None: nothing), with an empty one, and whether to make it from none."""


def rule_of(hint: Any, always: bool) -> Rule:
    """The rule for a field of this type."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    nullable = type(None) in options
    options = tuple(o for o in options if o is not type(None))
    if set(options) == {str, int, float}:
        return quantity_rule(nullable)
    if set(options) == {str, int}:
        return plain_rule(0, True) if always else (None, drop_null, False)
    inner = options[0]
    origin = typing.get_origin(inner) or inner
    if inner in PLAIN:
        if nullable and not always:
            return None, drop_null, False
        return plain_rule(None if nullable else PLAIN[inner], always)
    if origin is list:
        return list_rule(typing.get_args(inner)[0], always)
    if origin is dict:
        value_type = typing.get_args(inner)[1]
        return (None, drop_null, False) if value_type is Any else map_rule(value_type)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        return struct_rule(inner, nullable)
    return None, drop_null, False


def drop_null(value: Any) -> Any:
    return GONE if value is None else value


def drop(value: Any) -> Any:
    return GONE


def plain_rule(zero: Any, always: bool) -> Rule:
    def printed(value: Any) -> Any:
        return zero if value is None else value

    def left_out(value: Any) -> Any:
        return GONE if value is None or (value == zero and type(value) is type(zero)) else value

    return (None, printed, True) if always else (None, left_out, False)


def quantity_rule(nullable: bool) -> Rule:
    def empty(value: Any) -> Any:
        return GONE if value is None or (value == "" and not nullable) else canonical_or_same(value)

    return canonical_or_same, empty, False


def canonical_or_same(value: Any) -> Any:
    try:
        return quantity.canonical(value)
    except (ValueError, TypeError):
        return value


def list_rule(item: Any, always: bool) -> Rule:
    def each(value: Any) -> Any:
        if isinstance(value, list):
            for i, entry in enumerate(value):
                if entry is None:
                    entry = value[i] = {}  # Go decodes a null struct as an empty one
                if isinstance(entry, dict):
                    normalize(entry, item)
        return value

    def same(value: Any) -> Any:
        return value

    structs = isinstance(item, type) and issubclass(item, msgspec.Struct)
    return (each if structs else None), (same if always else drop), always


def map_rule(value_type: Any) -> Rule:
    quantities = set(typing.get_args(value_type)) == {str, int, float}
    struct = value_type if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct) else None

    def each(value: Any) -> Any:
        if isinstance(value, dict):
            for key, entry in value.items():
                if quantities:
                    value[key] = canonical_or_same("0" if entry is None else entry)
                elif struct is not None and isinstance(entry, dict):
                    normalize(entry, struct)
                elif value_type is str and entry is None:
                    value[key] = ""
        return value

    return each, drop, False


def struct_rule(struct: type[msgspec.Struct], nullable: bool) -> Rule:
    def inside(value: Any) -> Any:
        if isinstance(value, dict):
            normalize(value, struct)
        return value

    def empty(value: Any) -> Any:
        if value is None:
            if nullable:
                return GONE
            value = {}
        return inside(value)

    return inside, empty, not nullable
