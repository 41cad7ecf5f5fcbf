"""Schemas that definitions may have, and the words for those they may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.fields import Path
from kubesvc.api.rules import has_rules
from kubesvc.api.schemacheck import schema_errors

AT = Path("s")


def at_root(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


ITEMS = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}

CASES: tuple[tuple[str, dict[str, Any], bool, list[str]], ...] = (
    ("a plain schema", at_root(spec={"type": "object"}), True, []),
    ("no type at the root", {"properties": {}}, False, ["s.type: Required value: must not be empty at the root"]),
    ("another type at the root", {"type": "string"}, False,
     ['s.type: Invalid value: "string": must be object at the root']),
    ("no type of a field", at_root(a={}), False,
     ["s.properties[a].type: Required value: must not be empty for specified object fields"]),
    ("no type of items", at_root(a={"type": "array", "items": {}}), False,
     ["s.properties[a].items.type: Required value: must not be empty for specified array items"]),
    ("no items", at_root(a={"type": "array"}), False, ["s.properties[a].items: Required value: must be specified"]),
    ("unknown fields kept need no type", at_root(a={"x-kubernetes-preserve-unknown-fields": True}), False, []),
    ("false is no way to prune", at_root(a={"type": "object", "x-kubernetes-preserve-unknown-fields": False}), False,
     ["s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"]),
    ("a number or a text", at_root(a={"x-kubernetes-int-or-string": True}), False, []),
    ("a number or a text, spelled out",
     at_root(a={"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}), False, []),
    ("a number or a text has no type", at_root(a={"x-kubernetes-int-or-string": True, "type": "string"}), False,
     ['s.properties[a].type: Invalid value: "string": must be empty if x-kubernetes-int-or-string is true']),
    ("types in combinations", at_root(a={"type": "string", "anyOf": [{"type": "string"}]}), False,
     ["s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural"]),
    ("fields of combinations stand in the core", {**at_root(), "anyOf": [{"required": ["a"], "properties": {"a": {}}}]},
     False, ["s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]"]),
    ("a combination narrows", {**at_root(a={"type": "integer"}), "oneOf": [{"properties": {"a": {"minimum": 1}}}]},
     False, []),
    ("beside a status, not at the root", {**at_root(), "anyOf": [{"required": ["a"]}]}, True,
     ["fields are allowed at the root of the schema if the status subresource is enabled"]),
    ("unique items", at_root(a={"type": "array", "items": {"type": "string"}, "uniqueItems": True}), False,
     ["s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes "
      "quadratic"]),
    ("null as a type", at_root(a={"type": "null"}), False,
     ["s.properties[a].type: Forbidden: type cannot be set to null, use nullable as an alternative"]),
    ("a nullable root", {**at_root(), "nullable": True}, False,
     ["s.nullable: Forbidden: nullable cannot be true at the root"]),
    ("references", at_root(a={"type": "object", "$ref": "#/x"}), False,
     ["s.properties[a].$ref: Forbidden: $ref is not supported"]),
    ("pattern properties", at_root(a={"type": "object", "patternProperties": {"x": {"type": "string"}}}), False,
     ["s.properties[a].patternProperties: Forbidden: patternProperties is not supported"]),
    ("a map with fields", at_root(a={"type": "object", "properties": {"b": {"type": "string"}},
                                     "additionalProperties": {"type": "string"}}), False,
     ["s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"]),
    ("a bad pattern", at_root(a={"type": "string", "pattern": "("}), False,
     ["s.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: "]),
    ("look-around, which Go does not know", at_root(a={"type": "string", "pattern": "(?=a)"}), False,
     ["must be a valid regular expression, but isn't: "]),
    ("a default of another type", at_root(a={"type": "integer", "default": "x"}), False,
     ['s.properties[a].default: Invalid value: "string":  in body must be of type integer: "string"']),
    ("a default below a default", at_root(a={"type": "object", "default": {}, "required": ["b"]}), False,
     ["s.properties[a].default.b: Required value"]),
    ("a keyed list", at_root(a={"type": "array", "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["name"], "items": ITEMS}), False, []),
    ("keys without a map", at_root(a={"type": "array", "x-kubernetes-list-map-keys": ["name"], "items": ITEMS}), False,
     ["s.properties[a].x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is "
      "non-empty"]),
    ("a map without keys", at_root(a={"type": "array", "x-kubernetes-list-type": "map", "items": ITEMS}), False,
     ["s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is "
      "map"]),
    ("a key that items do not have", at_root(a={"type": "array", "x-kubernetes-list-type": "map",
                                                "x-kubernetes-list-map-keys": ["id"], "items": ITEMS}), False,
     ['s.properties[a].x-kubernetes-list-map-keys: Invalid value: ["id"]: entries must all be names of item '
      "properties"]),
    ("a key that may be missing", at_root(a={"type": "array", "x-kubernetes-list-type": "map",
                                             "x-kubernetes-list-map-keys": ["name"],
                                             "items": {**ITEMS, "required": []}}), False,
     ["s.properties[a].items.properties[name].default: Required value: this property is in x-kubernetes-list-map-keys, "
      "so it must have a default or be a required property"]),
    ("a list type of no list", at_root(a={"type": "string", "x-kubernetes-list-type": "set"}), False,
     ['s.properties[a].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified']),
    ("an unknown list type", at_root(a={"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "x"}),
     False, ['x-kubernetes-list-type: Unsupported value: "x": supported values: "atomic", "map", "set"']),
    ("an embedded object", at_root(a={"type": "object", "x-kubernetes-embedded-resource": True,
                                      "x-kubernetes-preserve-unknown-fields": True}), False, []),
    ("an embedded text", at_root(a={"type": "string", "x-kubernetes-embedded-resource": True}), False,
     ['s.properties[a].type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true']),
    ("metadata is the server's", at_root(metadata={"type": "object", "properties": {"labels": {"type": "object"}}}),
     False, ["s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but "
             "metadata is implicitly specified"]),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_schemas(case: tuple[str, dict[str, Any], bool, list[str]]) -> None:
    _, schema, status, texts = case
    found = [str(e) for e in schema_errors(schema, AT, status=status)]
    assert bool(found) == bool(texts), found
    for text in texts:
        assert any(text in f for f in found), found


def test_rules_are_seen_wherever_they_stand() -> None:
    rules = {"x-kubernetes-validations": [{"rule": "self > 0"}]}
    assert has_rules(at_root(a={"type": "array", "items": {"type": "integer", **rules}}))
    assert not has_rules(at_root(a={"type": "integer"}))


KEYWORDS = (
    "type", "properties", "items", "additionalProperties", "anyOf", "oneOf", "allOf", "not", "enum", "required",
    "pattern", "default", "nullable", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-embedded-resource",
    "minimum", "maxLength", "x-kubernetes-validations",
)  # fmt: skip


def schemas() -> st.SearchStrategy[Any]:
    """Schemas of the right JSON types, as the reader of bodies leaves them, and of any meaning."""
    word = st.sampled_from(("a", "b", "metadata", "kind"))
    leaf = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(("object", "array", "string", "integer", "number", "boolean", "null", "x")),
            "nullable": st.booleans(),
            "pattern": st.sampled_from(("a+", "(", "^(a|b)$", "(?=x)", r"\p{L}")),
            "enum": st.lists(st.sampled_from(("a", 1, None, True))),
            "default": st.sampled_from(("a", 1, {"a": 1}, [1], False)),
            "required": st.lists(word),
            "maxLength": st.integers(0, 3),
            "minimum": st.integers(-2, 2),
            "format": st.sampled_from(("int32", "date-time", "ipv4", "nonsense")),
            "x-kubernetes-list-type": st.sampled_from(("map", "set", "atomic", "x")),
            "x-kubernetes-list-map-keys": st.lists(word),
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
            "x-kubernetes-int-or-string": st.booleans(),
            "x-kubernetes-embedded-resource": st.booleans(),
        },
    )

    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        more = st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(word, inner, max_size=3),
                "items": inner,
                "additionalProperties": st.one_of(st.booleans(), inner),
                "anyOf": st.lists(inner, max_size=2),
                "allOf": st.lists(inner, max_size=2),
                "oneOf": st.lists(inner, max_size=2),
                "not": inner,
            },
        )
        return st.builds(lambda a, b: {**a, **b}, leaf, more)

    return st.recursive(leaf, deeper, max_leaves=12)


@given(schemas(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_schema_gets_an_answer(schema: dict[str, Any], status: bool) -> None:
    for error in schema_errors(schema, AT, status=status):
        assert str(error).startswith("s")
