"""The registry of kinds: complete, consistent, and in agreement with the schema table."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import pytest

from kubesvc.api import kinds, schema
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.meta import Object, typed

KNOWN = pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda k: f"{k.plural}.{k.group}/{k.version}")


def inner_types(hint: Any) -> list[Any]:
    """The types in a hint without None, lists and maps opened."""
    if isinstance(hint, types.UnionType):
        return [t for option in typing.get_args(hint) for t in inner_types(option)]
    origin = typing.get_origin(hint)
    if origin is list:
        return inner_types(typing.get_args(hint)[0])
    if origin is dict:
        return inner_types(typing.get_args(hint)[1])
    return [] if hint is type(None) else [hint]


def unwrapped(field: schema.Field) -> schema.Field:
    while field.items is not None:
        field = field.items
    return field


def disagreements(
    struct: type[msgspec.Struct], definition: schema.Definition, path: str, seen: set[Any]
) -> Iterator[str]:
    """Fields of the struct that the schema does not have, or has in another form."""
    if (struct, definition.name) in seen:
        return
    seen.add((struct, definition.name))
    hints = typing.get_type_hints(struct)
    for f in msgspec.structs.fields(struct):
        here = f"{path}.{f.encode_name}"
        field = definition.fields.get(f.encode_name)
        if field is None:
            if not (struct.__name__ in SHARED or (struct.__name__, f.name) in ELSEWHERE):
                yield f"{here}: not in {definition.name}"
            continue
        is_list = field.type == "array"
        if is_list != (typing.get_origin(first(hints[f.name])) is list):
            yield f"{here}: a list in one of the two only"
        for type_ in inner_types(hints[f.name]):
            if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
                ref = unwrapped(field).ref
                if not ref:
                    yield f"{here}: not a struct in the schema"
                else:
                    yield from disagreements(type_, schema.definition(ref), here, seen)
            elif type_ is not Any and (wrong := mismatch(type_, unwrapped(field))):
                yield f"{here}: {wrong}"


def first(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next((a for a in typing.get_args(hint) if a is not type(None)), None)
    return hint


def mismatch(type_: Any, field: schema.Field) -> str:
    """ "" if a Python scalar suits the schema's type."""
    if field.format in ("int-or-string", "quantity") or field.type in ("any", "object", "map"):
        return ""
    wanted = {"string": str, "integer": int, "boolean": bool, "number": float}.get(field.type)
    return "" if wanted in (None, type_) else f"{type_.__name__} here, {field.type} in the schema"


SHARED = {"Condition", "PodCondition", "NodeCondition", "NamespaceCondition", "JobCondition", "Container",
          "ObjectReference", "LocalObjectReference", "StandardCondition", "ProfileSource"}  # fmt: skip
"""Structs that stand for several definitions and have the fields of all of them."""
ELSEWHERE = {
    ("Webhook", "reinvocation_policy"),  # mutating only
}


@KNOWN
def test_struct_agrees_with_the_schema(kind: Kind) -> None:
    """No field is misspelled, and none has another type."""
    definition = schema.definition(kind.schema)
    assert (kind.group, kind.version, kind.name) in definition.kinds
    assert list(disagreements(kind.type, definition, kind.name, set())) == []


@cache
def example(name: str, outside: frozenset[str] = frozenset()) -> Any:
    """A value with every field of a definition; one that holds itself is empty inside. Never to be changed."""
    definition = schema.definition(name)
    if definition.type != "object":
        return scalar(definition.type, definition.format)
    if name in outside:
        return {}
    return {f: filled(field, outside | {name}) for f, field in definition.fields.items()}


def filled(field: schema.Field, outside: frozenset[str]) -> Any:
    if field.type == "array":
        assert field.items is not None
        return [filled(field.items, outside)]
    if field.type == "map":
        assert field.items is not None
        return {"key": filled(field.items, outside)}
    if field.ref and field.type in ("object", "any", ""):
        return example(field.ref, outside)
    return scalar(field.type, field.format)


def scalar(type_: str, format_: str) -> Any:
    if format_ == "quantity":
        return "1"
    if format_ in ("date-time", "micro-time"):
        return "2026-01-02T03:04:05Z"
    return {"string": "x", "integer": 3, "number": 1.5, "boolean": True}.get(type_, {})


@KNOWN
def test_struct_decodes_every_field(kind: Kind) -> None:
    """An object with all that the schema has can be read, printed in a table, and selected by its fields."""
    obj: Object = example(kind.schema)
    found = typed(obj, kind.type)
    assert found.metadata.name == "x"
    if kind.stored is None:
        for column in kind.columns:
            column.cell(found)
        kind.row_conditions(found)
        assert all(isinstance(read(found), str) for read in kind.fields.values())


@KNOWN
def test_struct_decodes_next_to_nothing(kind: Kind) -> None:
    """Null and absent are one (META-13), for columns too."""
    found = typed({"metadata": {"name": "x", "creationTimestamp": None, "labels": None}}, kind.type)
    if kind.stored is None:
        for column in kind.columns:
            column.cell(found)
        kind.row_conditions(found)
        assert all(isinstance(read(found), str) for read in kind.fields.values())


@KNOWN
def test_default_is_idempotent_and_survives_emptiness(kind: Kind) -> None:
    """WRITE-9: defaults run on every body and every patch result."""
    for obj in ({"metadata": {"name": "x"}}, example(kind.schema)):
        once = msgspec.json.decode(msgspec.json.encode(obj))
        kind.default(once)
        twice = msgspec.json.decode(msgspec.json.encode(once))
        kind.default(twice)
        assert once == twice


@KNOWN
def test_validation_never_raises(kind: Kind) -> None:
    """What is wrong comes back as field errors, whatever the content."""
    for obj in ({"metadata": {"name": "x"}}, example(kind.schema)):
        made: Object = msgspec.json.decode(msgspec.json.encode(obj))
        kind.default(made)
        changed: Object = msgspec.json.decode(msgspec.json.encode(made))
        kind.prepare_create(made)
        kind.validate(made, Situation())
        kind.prepare_update(changed, made)
        kind.validate_update(changed, made, Situation())
        kind.validate_status(changed, made, Situation())
        kind.warn(changed, made)


def test_kinds_are_found_by_both_of_their_names() -> None:
    for kind in kinds.KINDS:
        assert kinds.by_resource(kind.group, kind.version, kind.plural) is kind
        assert kinds.by_kind(kind.api_version, kind.name) is kind
    assert kinds.by_kind("v1", "Nothing") is None
    assert kinds.by_resource("", "v1", "nothings") is None


def test_constants_are_the_kinds() -> None:
    constants = {name: getattr(kinds, name) for name in kinds.__all__ if name.isupper() and name != "KINDS"}
    assert set(constants.values()) == set(kinds.KINDS)
    assert len(constants) == len(kinds.KINDS)


GENERATIONS = {
    "pods", "deployments", "replicasets", "endpointslices", "daemonsets", "statefulsets", "jobs", "ingresses",
    "ingressclasses", "networkpolicies", "poddisruptionbudgets",
}  # fmt: skip
NO_GENERATIONS = {
    "services", "endpoints", "namespaces", "nodes", "configmaps", "secrets", "serviceaccounts", "events", "ipaddresses",
    "servicecidrs",
}  # fmt: skip


@KNOWN
def test_generation(kind: Kind) -> None:
    """META-6."""
    if kind.plural in GENERATIONS:
        assert kind.generation is not None
    if kind.plural in NO_GENERATIONS:
        assert kind.generation is None


RETURNS_OBJECT = {
    "services", "pods", "namespaces", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "podtemplates",
    "resourcequotas",
}  # fmt: skip
RETURNS_STATUS = {
    "endpoints", "endpointslices", "configmaps", "secrets", "nodes", "deployments", "replicasets", "events",
    "ipaddresses",
}  # fmt: skip
CREATES_ON_PUT = {
    "services", "endpoints", "events", "limitranges", "leases", "roles", "rolebindings", "clusterroles",
    "clusterrolebindings",
}  # fmt: skip


@KNOWN
def test_write_rules(kind: Kind) -> None:
    """DEL-4, WRITE-5, WRITE-6."""
    if kind.plural in RETURNS_OBJECT | RETURNS_STATUS:
        assert kind.delete_returns_object == (kind.plural in RETURNS_OBJECT)
    assert kind.create_on_put == (kind.plural in CREATES_ON_PUT)
    assert kind.unversioned_update == (kind.plural not in ("leases", "poddisruptionbudgets"))
