"""Pruning and defaulting by structural schemas."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.structural import Structural, fill, prune, special_errors, whole_numbers

from .test_schemacheck import schemas
from .test_valuecheck import JSON

KEEP = {"x-kubernetes-preserve-unknown-fields": True}


def obj(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


TEXT = {"type": "string"}
PRUNED: tuple[tuple[str, dict[str, Any], Any, Any, list[str]], ...] = (
    ("unknown fields go", obj(a=TEXT), {"a": "x", "b": 1}, {"a": "x"}, ["b"]),
    ("inside lists", obj(a={"type": "array", "items": obj(b=TEXT)}), {"a": [{"b": "x", "c": 1}]}, {"a": [{"b": "x"}]},
     ["a[0].c"]),
    ("maps keep their keys", obj(a={"type": "object", "additionalProperties": TEXT}), {"a": {"k": "v"}},
     {"a": {"k": "v"}}, []),
    ("maps of objects", obj(a={"type": "object", "additionalProperties": obj(b=TEXT)}), {"a": {"k": {"c": 1}}},
     {"a": {"k": {}}}, ["a.k.c"]),
    ("where they stay, they stay", obj(a={"type": "object", **KEEP}), {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}},
     []),
    ("below known fields of what stays", obj(a={**obj(b=obj(c=TEXT)), **KEEP}), {"a": {"b": {"d": 1}, "e": 1}},
     {"a": {"b": {}, "e": 1}}, ["a.b.d"]),
    ("an object without fields", obj(a={"type": "object"}), {"a": {"b": 1}}, {"a": {}}, ["a.b"]),
    ("what every object has", obj(), {"apiVersion": "v", "kind": "k", "metadata": {"x": 1}, "y": 1},
     {"apiVersion": "v", "kind": "k", "metadata": {"x": 1}}, ["y"]),
    ("an embedded object has it too", obj(a={**obj(), "x-kubernetes-embedded-resource": True}),
     {"a": {"kind": "k", "x": 1}}, {"a": {"kind": "k"}}, ["a.x"]),
)  # fmt: skip


@pytest.mark.parametrize("case", PRUNED, ids=lambda c: c[0])
def test_pruning(case: tuple[str, dict[str, Any], Any, Any, list[str]]) -> None:
    _, schema, value, left, gone = case
    unknown: list[str] = []
    prune(value, Structural(schema), "", unknown, root=True)
    assert (value, unknown) == (left, gone)


FILLED: tuple[tuple[str, dict[str, Any], Any, Any], ...] = (
    ("an absent field", obj(a={**TEXT, "default": "x"}), {}, {"a": "x"}),
    ("one that is there", obj(a={**TEXT, "default": "x"}), {"a": "y"}, {"a": "y"}),
    ("a null takes the default", obj(a={**TEXT, "default": "x"}), {"a": None}, {"a": "x"}),
    ("a null that may be stays", obj(a={**TEXT, "default": "x", "nullable": True}), {"a": None}, {"a": None}),
    ("a null without a default goes", obj(a=TEXT, b=TEXT), {"a": None, "b": "x"}, {"b": "x"}),
    ("defaults of defaults", obj(a={**obj(b={**TEXT, "default": "x"}), "default": {}}), {}, {"a": {"b": "x"}}),
    ("nothing above, nothing below", obj(a=obj(b={**TEXT, "default": "x"})), {}, {}),
    ("in items", obj(a={"type": "array", "items": obj(b={**TEXT, "default": "x"})}), {"a": [{}, {"b": "y"}]},
     {"a": [{"b": "x"}, {"b": "y"}]}),
    ("in values of maps", obj(a={"type": "object", "additionalProperties": obj(b={**TEXT, "default": "x"})}),
     {"a": {"k": {}}}, {"a": {"k": {"b": "x"}}}),
    ("false and 0 are defaults", obj(a={"type": "boolean", "default": False}, b={"type": "integer", "default": 0}), {},
     {"a": False, "b": 0}),
)  # fmt: skip


@pytest.mark.parametrize("case", FILLED, ids=lambda c: c[0])
def test_defaulting(case: tuple[str, dict[str, Any], Any, Any]) -> None:
    _, schema, value, wanted = case
    fill(value, Structural(schema))
    assert value == wanted


def test_defaults_are_not_shared() -> None:
    structure = Structural(obj(a={"type": "object", "default": {"b": []}}))
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    fill(one, structure)
    fill(other, structure)
    one["a"]["b"].append(1)
    assert other == {"a": {"b": []}}


def test_sets_keyed_lists_and_embedded_objects() -> None:
    structure = Structural(
        obj(
            s={"type": "array", "x-kubernetes-list-type": "set", "items": TEXT},
            m={
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": obj(k=TEXT),
            },
            e={"type": "object", "x-kubernetes-embedded-resource": True},
        )
    )
    value = {"s": ["a", "b", "a"], "m": [{"k": "x", "v": 1}, {"k": "x"}], "e": {"kind": "Pod"}}
    assert [str(e) for e in special_errors(value, structure)] == [
        "e.apiVersion: Required value: must not be empty",
        's[2]: Duplicate value: "a"',
        'm[1]: Duplicate value: {"k":"x"}',
    ]


def test_numbers_as_go_prints_them() -> None:
    assert whole_numbers({"a": [80.0, 1.5, True, "1.0"], "b": 1e30}) == {"a": [80, 1.5, True, "1.0"], "b": 1e30}


def paths(value: Any, at: str = "") -> set[str]:
    if isinstance(value, dict):
        return {p for k, v in value.items() for p in {f"{at}.{k}", *paths(v, f"{at}.{k}")}}
    if isinstance(value, list):
        return {p for i, v in enumerate(value) for p in paths(v, f"{at}[{i}]")}
    return set()


@given(schemas(), st.dictionaries(st.sampled_from(("a", "b", "metadata", "zzz")), JSON, max_size=4))
@settings(max_examples=200, deadline=None)
def test_pruning_and_defaulting_settle(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """Both are idempotent; pruning only takes away; after it nothing unknown is left."""
    structure = Structural(schema)
    before = copy.deepcopy(value)
    prune(value, structure, "", [], root=True)
    assert paths(value) <= paths(before)
    again: list[str] = []
    once = copy.deepcopy(value)
    prune(value, structure, "", again, root=True)
    assert value == once and again == []
    fill(value, structure)
    filled = copy.deepcopy(value)
    fill(value, structure)
    assert value == filled
