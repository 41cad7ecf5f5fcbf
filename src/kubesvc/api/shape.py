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
from typing import Any

import msgspec

from . import quantity
from .meta import Object

Rule = Callable[[Object, str], None]
"""Brings one field (by its wire name) of one object into its spelling."""

PLAIN = {str: "", int: 0, bool: False, float: 0.0}
NUMBERS = (int, float)


def normalize(obj: Object, type_: type[msgspec.Struct]) -> None:
    """Bring `obj`, in place, into the spelling of `type_`; fields the type does not know only lose nulls.

    Quantities become canonical. Values of a wrong JSON type stay as they are: refusing them is not done here.
    """
    rules = rules_of(type_)
    for name in [n for n, v in obj.items() if v is None and n not in rules]:
        del obj[name]
    for name, rule in rules.items():
        rule(obj, name)


@cache
def rules_of(type_: type[msgspec.Struct]) -> dict[str, Rule]:
    """Wire name to rule, for the fields in their order."""
    hints = typing.get_type_hints(type_)
    always: tuple[str, ...] = getattr(type_, "always", ())
    return {f.encode_name: rule_of(hints[f.name], f.name in always) for f in msgspec.structs.fields(type_)}


def rule_of(hint: Any, always: bool) -> Rule:
    """The rule for a field of this type."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    nullable = type(None) in options
    options = tuple(o for o in options if o is not type(None))
    if set(options) == {str, int, float}:
        return quantity_rule(nullable)
    if set(options) == {str, int}:
        return plain_rule(0, True) if always else drop_null
    inner = options[0]
    origin = typing.get_origin(inner) or inner
    if inner in PLAIN:
        return drop_null if nullable and not always else plain_rule(None if nullable else PLAIN[inner], always)
    if origin is list:
        return list_rule(typing.get_args(inner)[0], always)
    if origin is dict:
        value_type = typing.get_args(inner)[1]
        return drop_null if value_type is Any else map_rule(value_type)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        return struct_rule(inner, nullable)
    return drop_null


def drop_null(obj: Object, name: str) -> None:
    if obj.get(name) is None:
        obj.pop(name, None)


def plain_rule(zero: Any, always: bool) -> Rule:
    def printed(obj: Object, name: str) -> None:
        if obj.get(name) is None:
            obj[name] = zero

    def left_out(obj: Object, name: str) -> None:
        value = obj.get(name)
        if value is None or (value == zero and type(value) is type(zero)):
            obj.pop(name, None)

    return printed if always else left_out


def quantity_rule(nullable: bool) -> Rule:
    def canonical(obj: Object, name: str) -> None:
        value = obj.get(name)
        if value is None or (value == "" and not nullable):
            obj.pop(name, None)
        else:
            obj[name] = canonical_or_same(value)

    return canonical


def canonical_or_same(value: Any) -> Any:
    try:
        return quantity.canonical(value)
    except (ValueError, TypeError):
        return value


def list_rule(item: Any, always: bool) -> Rule:
    struct = item if isinstance(item, type) and issubclass(item, msgspec.Struct) else None

    def each(obj: Object, name: str) -> None:
        value = obj.get(name)
        if not value:
            if always:
                obj[name] = None if value is None else value
            else:
                obj.pop(name, None)
        elif struct is not None and isinstance(value, list):
            for i, entry in enumerate(value):
                if entry is None:
                    entry = value[i] = {}  # Go decodes a null struct as an empty one
                if isinstance(entry, dict):
                    normalize(entry, struct)

    return each


def map_rule(value_type: Any) -> Rule:
    quantities = set(typing.get_args(value_type)) == {str, int, float}
    struct = value_type if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct) else None

    def each(obj: Object, name: str) -> None:
        value = obj.get(name)
        if not value:
            obj.pop(name, None)
        elif isinstance(value, dict):
            for key, entry in value.items():
                if quantities:
                    value[key] = canonical_or_same("0" if entry is None else entry)
                elif struct is not None and isinstance(entry, dict):
                    normalize(entry, struct)
                elif value_type is str and entry is None:
                    value[key] = ""

    return each


def struct_rule(struct: type[msgspec.Struct], nullable: bool) -> Rule:
    def inside(obj: Object, name: str) -> None:
        value = obj.get(name)
        if value is None:
            if nullable:
                obj.pop(name, None)
                return
            value = obj[name] = {}
        if isinstance(value, dict):
            normalize(value, struct)

    return inside
