"""Objects against schemas: upstream's words, what an update may leave as it was, and no crash on anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.valuecheck import Check

from .test_schemacheck import schemas

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.sampled_from(("", "a", "b", "x-1"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(("a", "b", "metadata", "zzz")), inner, max_size=3)
    ),
    max_leaves=10,
)


def field(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


CASES: tuple[tuple[str, dict[str, Any], Any, list[str]], ...] = (
    ("a wrong type", {"type": "integer"}, "x",
     ['a: Invalid value: "string": a in body must be of type integer: "string"']),
    ("a null", {"type": "string"}, None, ['a: Invalid value: "null": a in body must be of type string: "null"']),
    ("a null that may be", {"type": "string", "nullable": True}, None, []),
    ("80.0 is a whole number", {"type": "integer"}, 80.0, []),
    ("a whole number is a number", {"type": "number"}, 1, []),
    ("true is no number", {"type": "integer"}, True,
     ['a: Invalid value: "boolean": a in body must be of type integer: "boolean"']),
    ("neither number nor text", {"x-kubernetes-int-or-string": True}, [],
     ['a: Invalid value: "array": a in body must be of type integer,string: "array"']),
    ("a number or a text", {"x-kubernetes-int-or-string": True}, "50%", []),
    ("required", {"type": "object", "required": ["b", "c"]}, {"c": 1}, ["a.b: Required value"]),
    ("an unlisted value", {"type": "string", "enum": ["x", "y"]}, "z",
     ['a: Unsupported value: "z": supported values: "x", "y"']),
    ("1 is not true", {"enum": [True]}, 1, ['a: Unsupported value: 1: supported values: "true"']),
    ("pattern", {"type": "string", "pattern": "^a+$"}, "ab",
     ["a: Invalid value: \"ab\": a in body should match '^a+$'"]),
    ("a pattern's end is the text's", {"type": "string", "pattern": "^a$"}, "a\n", ["should match '^a$'"]),
    ("too short", {"type": "string", "minLength": 2}, "a",
     ['a: Invalid value: "a": a in body should be at least 2 chars long']),
    ("too long", {"type": "string", "maxLength": 2}, "abc", ["a: Too long: may not be more than 2 bytes"]),
    ("characters count", {"type": "string", "maxLength": 2}, "éé", []),
    ("too small", {"type": "integer", "minimum": 1}, 0,
     ["a: Invalid value: 0: a in body should be greater than or equal to 1"]),
    ("not above", {"type": "number", "minimum": 1, "exclusiveMinimum": True}, 1,
     ["a: Invalid value: 1: a in body should be greater than 1"]),
    ("too large", {"type": "integer", "maximum": 5}, 6,
     ["a: Invalid value: 6: a in body should be less than or equal to 5"]),
    ("not below", {"type": "number", "maximum": 0.5, "exclusiveMaximum": True}, 0.5,
     ["a: Invalid value: 0.5: a in body should be less than 0.5"]),
    ("no multiple", {"type": "integer", "multipleOf": 5}, 7,
     ["a: Invalid value: 7: a in body should be a multiple of 5"]),
    ("too few items", {"type": "array", "minItems": 2}, [1],
     ["a: Invalid value: 1: a in body should have at least 2 items"]),
    ("too many items", {"type": "array", "maxItems": 1}, [1, 2], ["a: Too many: 2: must have at most 1 items"]),
    ("inside items", {"type": "array", "items": {"type": "string"}}, ["x", 1],
     ['a[1]: Invalid value: "integer": a[1] in body must be of type string: "integer"']),
    ("inside a map", {"type": "object", "additionalProperties": {"type": "string"}}, {"k": 1},
     ['a.k: Invalid value: "integer": a.k in body must be of type string: "integer"']),
    ("too few properties", {"type": "object", "minProperties": 1}, {},
     ["a: Invalid value: 0: a in body should have at least 1 properties"]),
    ("a format", {"type": "string", "format": "ipv4"}, "1.2.3",
     ['a: Invalid value: "1.2.3": a in body must be of type ipv4: "1.2.3"']),
    ("a format nobody knows", {"type": "string", "format": "nonsense"}, "1.2.3", []),
    ("none of several", {"type": "object", "anyOf": [{"required": ["b"]}, {"required": ["c"]}]}, {},
     ['<nil>: Invalid value: "": "a" must validate at least one schema (anyOf)', "a.b: Required value"]),
    ("none of exactly one", {"type": "object", "oneOf": [{"required": ["b"]}, {"required": ["c"]}]}, {},
     ['<nil>: Invalid value: "": "a" must validate one and only one schema (oneOf). Found none valid']),
    ("both of exactly one", {"type": "object", "oneOf": [{"required": ["b"]}, {"required": ["c"]}]}, {"b": 1, "c": 1},
     ['<nil>: Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives']),
    ("not all", {"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 5}]}, 9,
     ["a: Invalid value: 9: a in body should be less than or equal to 5",
      '<nil>: Invalid value: "": "a" must validate all the schemas (allOf)']),
    ("what must not be", {"type": "integer", "not": {"minimum": 5}}, 7,
     ['<nil>: Invalid value: "": "a" must not validate the schema (not)']),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_words(case: tuple[str, dict[str, Any], Any, list[str]]) -> None:
    _, schema, value, texts = case
    found = [str(e) for e in Check(field(schema)).errors({"a": value})]
    assert len(found) >= len(texts) and bool(found) == bool(texts), found
    for text in texts:
        assert any(text in f for f in found), found


def test_an_update_may_leave_what_is_wrong() -> None:
    check = Check(
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "maxLength": 1},
                "l": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["n"],
                    "items": {"type": "object", "properties": {"v": {"type": "integer", "maximum": 1}}},
                },
            },
        }
    )
    old = {"a": "long", "l": [{"n": "x", "v": 9}]}
    assert check.errors(old) != []
    assert check.errors({**old, "b": 1}, old) == []
    moved = {**old, "l": [{"n": "y", "v": 1}, {"n": "x", "v": 9}]}
    assert check.errors(moved, old) == []
    assert [e.path for e in check.errors({**old, "a": "other"}, old)] == ["a"]


@given(schemas(), JSON, JSON)
@settings(max_examples=200, deadline=None)
def test_nothing_crashes(schema: dict[str, Any], value: Any, old: Any) -> None:
    check = Check(schema)
    for error in [*check.errors(value), *check.errors(value, old)]:
        assert error.message()
    assert check.errors(value, value) == []
