"""Rules of custom kinds: what is said when, where, and about which objects; and what is wrong with rules themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kubesvc.api.cel.schematypes import escaped
from kubesvc.api.fields import Path
from kubesvc.api.meta import Object
from kubesvc.api.rules import OVER_TOTAL, Ruled, evaluate, field_path
from kubesvc.api.schemacheck import schema_errors
from kubesvc.api.valuecheck import ABSENT

AT = Path("spec") / "validation" / "openAPIV3Schema"


def schema(spec: Object, **root: Any) -> Object:
    return {"type": "object", **root, "properties": {"spec": spec}}


def said(whole: Object, new: Any, old: Any = ABSENT) -> list[str]:
    run = evaluate(Ruled(whole, root=True), new, old)
    return [str(e) for e in run.errors]


def at_spec(rule: Any, spec: Object | None = None, **properties: Object) -> Object:
    """A schema with one rule (or several, or a text) at `spec`."""
    given = rule if isinstance(rule, list) else [rule if isinstance(rule, dict) else {"rule": rule}]
    return schema({"type": "object", "properties": properties, **(spec or {}), "x-kubernetes-validations": given})


NUMBER, TEXT = {"type": "integer"}, {"type": "string"}

HOLDING: tuple[tuple[str, Object, Any, list[str]], ...] = (
    ("it holds", at_spec("self.a < 2", a=NUMBER), {"a": 1}, []),
    ("the rule itself is named", at_spec(" self.a < 2 ", a=NUMBER), {"a": 2},
     ['spec: Invalid value: "object": failed rule: self.a < 2']),
    ("or its message", at_spec({"rule": "self.a < 2", "message": " too much "}, a=NUMBER), {"a": 2},
     ['spec: Invalid value: "object": too much']),
    ("or what an expression says", at_spec({"rule": "self.a < 2", "message": "m", "messageExpression":
     "'has ' + string(self.a)"}, a=NUMBER), {"a": 2}, ['spec: Invalid value: "object": has 2']),
    ("unless that fails", at_spec({"rule": "self.a < 2", "message": "m", "messageExpression": "string(1 / (self.a - "
     "2))"},
     a=NUMBER), {"a": 2}, ['spec: Invalid value: "object": m']),
    ("or says nothing", at_spec({"rule": "self.a < 2", "messageExpression": "' '"}, a=NUMBER), {"a": 2},
     ['spec: Invalid value: "object": failed rule: self.a < 2']),
    ("or has several lines", at_spec({"rule": "self.a < 2", "message": "m", "messageExpression": "'a\\nb'"}, a=NUMBER),
     {"a": 2}, ['spec: Invalid value: "object": m']),
    ("forbidden", at_spec({"rule": "false", "message": "m", "reason": "FieldValueForbidden"}), {}, ["spec: "
     "Forbidden: m"]),
    ("required, at a field", at_spec({"rule": "has(self.a)", "message": "m", "reason": "FieldValueRequired",
     "fieldPath": ".a"}, a=NUMBER), {}, ["spec.a: Required value: m"]),
    ("duplicate", at_spec({"rule": "false", "message": "m", "reason": "FieldValueDuplicate"}), {},
     ['spec: Duplicate value: "object"']),
    ("all rules of a place, in their order", at_spec([{"rule": "false", "message": "a"}, {"rule": "false", "message":
     "b"}]), {}, ['spec: Invalid value: "object": a', 'spec: Invalid value: "object": b']),
    ("an error instead of an answer", at_spec("self.a < 2", a=NUMBER), {},
     ['spec: Invalid value: "object": no such key: a evaluating rule: self.a < 2']),
    ("types that turn out not to fit", at_spec("self.a + 1 == 2", a={"x-kubernetes-int-or-string": True}), {"a": "x"},
     ["spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, "
      "function "
      "or macro signature for rule: self.a + 1 == 2"]),
    ("a number or a text", at_spec("type(self.a) == int ? self.a > 1 : self.a.endsWith('%')",
     a={"x-kubernetes-int-or-string": True}), {"a": "50%"}, []),
    ("names that are no words", at_spec("self.a__dash__b == 1 && self.__namespace__ == 2 && self.a__dot__b__slash__c "
     "== 3 "
     "&& self.x__underscores__y == 4", **{"a-b": NUMBER, "namespace": NUMBER, "a.b/c": NUMBER, "x__y": NUMBER}),
     {"a-b": 1, "namespace": 2, "a.b/c": 3, "x__y": 4}, []),
    ("moments, spans and bytes", at_spec("self.t > timestamp('2020-01-01T00:00:00Z') && self.d < duration('1h') && "
     "self.b == b'a' && self.y.getFullYear() == 2021", t={**TEXT, "format": "date-time"}, d={**TEXT, "format":
     "duration"}, b={**TEXT, "format": "byte"}, y={**TEXT, "format": "date"}),
     {"t": "2020-01-01T00:00:01Z", "d": "59m", "b": "YQ==", "y": "2021-05-05"}, []),
    ("whole numbers where fractions may be", at_spec("self.a == 1.0", a={"type": "number"}), {"a": 1}, []),
    ("maps", at_spec("self.m.all(k, self.m[k] > 0) && 'a-b' in self.m", m={"type": "object", "additionalProperties":
     NUMBER}), {"m": {"a-b": 1}}, []),
    ("sets have no order", at_spec("self.s == ['b', 'a']", s={"type": "array", "x-kubernetes-list-type": "set",
     "items": TEXT}), {"s": ["a", "b"]}, []),
    ("below: fields by name, items and keys", schema({"type": "object", "properties": {
        "l": {"type": "array", "items": {**NUMBER, "x-kubernetes-validations": [{"rule": "self > 0"}]}},
        "m": {"type": "object", "additionalProperties": {**TEXT, "x-kubernetes-validations": [{"rule": "self != ''"}]}},
        "b": {"type": "boolean", "x-kubernetes-validations": [{"rule": "self", "message": "must be true"}]}}}),
     {"m": {"x": "", "y": "z"}, "l": [1, 0], "b": False},
     ['spec.b: Invalid value: "boolean": must be true', 'spec.l[1]: Invalid value: "integer": failed rule: self > 0',
      "spec.m[x]: Invalid value: \"string\": failed rule: self != ''"]),
    ("nothing is asked of null", schema({"type": "object", "nullable": True, "x-kubernetes-validations":
     [{"rule": "false"}]}), None, []),
    ("an object within the object has its name", at_spec("self.o.metadata.name == 'x' && self.o.kind == 'K'",
     o={"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}),
     {"o": {"kind": "K", "metadata": {"name": "x", "labels": {}}}}, []),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "whole", "spec", "texts"), HOLDING, ids=[h[0] for h in HOLDING])
def test_which_rules_hold(sentence: str, whole: Object, spec: Any, texts: list[str]) -> None:
    assert not [str(e) for e in schema_errors(whole, AT, status=False)]
    assert said(whole, {"spec": spec}) == texts


def test_the_root() -> None:
    whole = schema(
        {"type": "object"},
        **{"x-kubernetes-validations": [{"rule": "self.metadata.name != 'x' && self.kind == 'K' && has(self.spec)"}]},
    )
    assert said(whole, {"kind": "K", "metadata": {"name": "y"}, "spec": {}}) == []
    [text] = said(whole, {"kind": "K", "metadata": {"name": "x"}, "spec": {}})
    assert text.startswith('<nil>: Invalid value: "object": failed rule: ')


KEYED = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["n"],
    "items": {
        "type": "object",
        "required": ["n"],
        "properties": {"n": TEXT, "v": {**NUMBER, "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}},
    },
}
LATER = {"rule": "oldSelf.hasValue() ? self == oldSelf.value() : self == 0", "optionalOldSelf": True}
IMMUTABLE = at_spec("self.a == oldSelf.a", a=NUMBER)
MOVING: tuple[tuple[str, Object, Any, Any, int], ...] = (
    ("not at creation", IMMUTABLE, {"a": 1}, ABSENT, 0),
    ("at an update", IMMUTABLE, {"a": 1}, {"a": 2}, 1),
    ("not where there was nothing", IMMUTABLE, {"a": 1}, None, 0),
    ("items by their keys, wherever they stand", at_spec("true", l=KEYED),
     {"l": [{"n": "b", "v": 1}, {"n": "a", "v": 5}, {"n": "c", "v": 0}]}, {"l": [{"n": "a", "v": 4}, {"n": "b", "v":
      2}]}, 1),
    ("keys of maps", at_spec("true", m={"type": "object", "additionalProperties": {**NUMBER, "x-kubernetes-validations":
     [{"rule": "self == oldSelf"}]}}), {"m": {"a": 1, "b": 1}}, {"m": {"a": 2}}, 1),
    ("an optional old value: at creation, too", at_spec("true", a={**NUMBER, "x-kubernetes-validations": [LATER]}),
     {"a": 1}, ABSENT, 1),
    ("and then compared", at_spec("true", a={**NUMBER, "x-kubernetes-validations": [LATER]}), {"a": 1}, {"a": 1}, 0),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "whole", "new", "old", "count"), MOVING, ids=[m[0] for m in MOVING])
def test_rules_about_changes(sentence: str, whole: Object, new: Any, old: Any, count: int) -> None:
    assert not [str(e) for e in schema_errors(whole, AT, status=False)]
    before = ABSENT if old is ABSENT else {} if old is None else {"spec": old}
    assert len(said(whole, {"spec": new}, before)) == count


def test_what_is_unchanged_is_only_warned_of() -> None:
    whole = at_spec(
        [{"rule": "self.a > 1"}], a={**NUMBER, "x-kubernetes-validations": [{"rule": "self > 2"}]}, b=NUMBER
    )
    old = {"spec": {"a": 1, "b": 1}}
    run = evaluate(Ruled(whole, root=True), {"spec": {"a": 1, "b": 2}}, old)
    assert [e.path for e in run.errors] == ["spec"]  # which did change, if only elsewhere
    assert run.warnings == ['spec.a: Invalid value: "integer": failed rule: self > 2']
    same = evaluate(Ruled(whole, root=True), old, {"spec": {"a": 1, "b": 1}})
    assert not same.errors and len(same.warnings) == 2


def test_all_rules_together_have_a_budget() -> None:
    """10,000 items with a rule that costs a fiftieth of what one may: the rest is not asked."""
    items = {"type": "array", "items": {**NUMBER, "x-kubernetes-validations": [
        {"rule": "lists.range(2000).all(x, x >= 0 && x < 100000)"}]}}  # fmt: skip
    whole = at_spec("true", l=items)
    before = time.process_time()
    texts = said(whole, {"spec": {"l": list(range(10_000))}})
    assert [t.partition(": ")[2] for t in texts] == [f'Invalid value: "integer": {OVER_TOTAL}']
    assert time.process_time() - before < 60  # 2 s on a quiet machine
    [text] = said(at_spec("lists.range(100000).all(x, lists.range(100).all(y, x + y >= 0))"), {"spec": {}})
    assert text.startswith(
        "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further "
    )


WRONG: tuple[tuple[str, Object, list[str]], ...] = (
    ("no rule", at_spec({"rule": " "}), ["[0].rule: Required value: rule is not specified"]),
    ("an unknown reason", at_spec({"rule": "true", "reason": "x"}), [
        '[0].reason: Unsupported value: "x": supported values: "FieldValueDuplicate", "FieldValueForbidden", '
        '"FieldValueInvalid", "FieldValueRequired"']),
    ("a path to nowhere", at_spec({"rule": "true", "fieldPath": ".x"}, a=NUMBER),
     ['[0].fieldPath: Invalid value: ".x": fieldPath must be a valid path']),
    ("an empty message expression", at_spec({"rule": "true", "messageExpression": " "}),
     ["[0].messageExpression: Required value: messageExpression must be non-empty if specified"]),
    ("a message that is none", at_spec({"rule": "true", "messageExpression": "1"}),
     ["[0].messageExpression: Invalid value: ", "messageExpression must evaluate to a string"]),
    ("a message that does not compile", at_spec({"rule": "true", "messageExpression": "'a"}),
     ["messageExpression compilation failed: ERROR: <input>:1:1: Syntax error"]),
    ("no truth", at_spec("self.a", a=NUMBER), ["[0].rule: Invalid value: ", "cel expression must evaluate to a bool"]),
    ("an unknown field", at_spec("self.b > 1", a=NUMBER), ["compilation failed: ERROR: <input>:1:5: undefined field "
     "'b'"]),
    ("what the schema leaves open", at_spec("self.x.y == 1", x={"x-kubernetes-preserve-unknown-fields": True}),
     ["undefined field 'x'"]),
    ("a default that its rules refuse", at_spec("true", a={**NUMBER, "default": 0, "x-kubernetes-validations":
     [{"rule": "self > 0", "message": "m"}]}),
     ['properties[spec].properties[a].default: Invalid value: "integer": m']),
    ("an unknown variable", at_spec("object.b > 1"), ["undeclared reference to 'object' (in container '')"]),
    ("types that do not fit", at_spec("self.a == 'x'", a=NUMBER),
     ["found no matching overload for '_==_' applied to '(int, string)'"]),
    ("old values of items that cannot be told apart", at_spec("true", l={"type": "array", "items": {**NUMBER,
     "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}), [
        "oldSelf cannot be used on the uncorrelatable portion of the schema within "
        "spec.validation.openAPIV3Schema.properties[spec].properties[l]"]),
    ("an optional old value that nobody reads", at_spec({"rule": "true", "optionalOldSelf": True}),
     ["[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"]),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "whole", "texts"), WRONG, ids=[w[0] for w in WRONG])
def test_what_is_wrong_with_a_rule(sentence: str, whole: Object, texts: list[str]) -> None:
    found = [str(e) for e in schema_errors(whole, AT, status=False)]
    assert len(found) == 1, found
    assert all(t in found[0] for t in texts), found[0]


@pytest.mark.parametrize(
    ("name", "word"),
    (
        ("a", "a"), ("a-b", "a__dash__b"), ("a.b", "a__dot__b"), ("a/b", "a__slash__b"), ("__a", "__underscores__a"),
        ("if", "__if__"), ("true", "__true__"), ("int", "int"), ("$ref", ""), ("1a", ""), ("", ""), ("_a", "_a"),
    ),
)  # fmt: skip
def test_names_of_fields_as_words(name: str, word: str) -> None:
    assert escaped(name) == word


def test_paths_to_fields() -> None:
    whole = {"properties": {"a": {"properties": {"b-c": {"additionalProperties": {"type": "string"}}}}}}
    cases = {
        ".a": "a",
        ".a['b-c']": "a.b-c",
        ".a['b-c']['k']": "a.b-c[k]",
        "['a']": "a",
        ".x": None,
        "a": None,
        ".a[0]": None,
    }
    assert {p: field_path(p, whole) for p in cases} == cases


# ---------------------------------------------------------------- rules as operators write them

ROUTE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": TEXT,
            "matches": {"type": "array", "items": {"type": "object", "properties": {
                "path": {"type": "object", "properties": {"type": TEXT, "value": TEXT}, "x-kubernetes-validations": [
                    {"message": "value must be an absolute path and start with '/' when type one of ['Exact', "
                     "'PathPrefix']",
                     "rule": "(self.type in ['Exact','PathPrefix']) ? self.value.startsWith('/') : true"},
                    {"message": "must not contain '//' when type one of ['Exact', 'PathPrefix']",
                     "rule": "(self.type in ['Exact','PathPrefix']) ? !self.value.contains('//') : true"},
                    {"message": "must only contain valid characters (matching "
                     "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]"
                     "{2})+$) for types ['Exact', 'PathPrefix']",
                     "rule": "(self.type in ['Exact','PathPrefix']) ? "
                     "self.value.matches(r\"\"\"^(?:[-A-Za-z0-9/._~!$&'()*+,;"
                     "=:@]|[%][0-9a-fA-F]{2})+$\"\"\") : true"}]}}}},
            "filters": {"type": "array", "items": {"type": "object", "properties": {"type": TEXT, "redirect": {
                "type": "object", "properties": {"port": NUMBER}}}, "x-kubernetes-validations": [
                    {"message": "redirect must be nil if the type is not Redirect",
                     "rule": "!(has(self.redirect) && self.type != 'Redirect')"}]},
                "x-kubernetes-validations": [{"message": "Redirect cannot be repeated",
                                              "rule": "self.filter(f, f.type == 'Redirect').size() <= 1"}]},
            "timeouts": {"type": "object", "properties": {"request": TEXT, "backend": TEXT},
            "x-kubernetes-validations": [
                {"message": "backend timeout cannot be longer than request timeout",
                 "rule": "!(has(self.request) && has(self.backend) && duration(self.request) != duration('0s') && "
                 "duration(self.backend) > duration(self.request))"}]},
        },
    },
    "x-kubernetes-validations": [
        {"message": "Rule name must be unique within the route",
         "rule": "self.all(l1, !has(l1.name) || self.exists_one(l2, has(l2.name) && l1.name == l2.name))"},
        {"message": "While 16 rules and 64 matches per rule are allowed, the total number of matches must be below 128",
         "rule": "(self.size() > 0 ? self[0].matches.size() : 0) + (self.size() > 1 ? self[1].matches.size() : 0) <= "
         "128"},
    ],
}  # fmt: skip
PARENTS = {
    "type": "array",
    "items": {"type": "object", "required": ["name"], "properties": {
        "group": {**TEXT, "default": "gateway.networking.k8s.io"}, "kind": {**TEXT, "default": "Gateway"},
        "namespace": TEXT, "name": TEXT, "sectionName": TEXT}},
    "x-kubernetes-validations": [{"message": "sectionName must be unique when parentRefs includes 2 or more "
    "references to "
        "the same parent", "rule": "self.all(p1, self.exists_one(p2, p1.group == p2.group && p1.kind == p2.kind && "
        "p1.name "
        "== p2.name && (((!has(p1.__namespace__) || p1.__namespace__ == '') && (!has(p2.__namespace__) || "
        "p2.__namespace__ "
        "== '')) || (has(p1.__namespace__) && has(p2.__namespace__) && p1.__namespace__ == p2.__namespace__)) && "
        "(((!has(p1.sectionName) || p1.sectionName == '') && (!has(p2.sectionName) || p2.sectionName == '')) || ( "
        "has(p1.sectionName) && has(p2.sectionName) && p1.sectionName == p2.sectionName))))"}],
}  # fmt: skip
HTTP_ROUTE = at_spec("true", rules=ROUTE, parentRefs=PARENTS)
GATEWAY_LIKE: tuple[tuple[str, Any, list[str]], ...] = (
    ("all is well", {"rules": [{"name": "a", "matches": [{"path": {"type": "Exact", "value": "/x%20y"}}], "timeouts":
     {"request": "10s", "backend": "5s"}, "filters": [{"type": "Redirect", "redirect": {"port": 80}}]}],
     "parentRefs": [{"name": "g", "group": "g", "kind": "k", "sectionName": "a"},
                    {"name": "g", "group": "g", "kind": "k", "sectionName": "b"}]}, []),
    ("paths", {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "x//y"}}, {"path": {"type": "Exact",
     "value": "/ä"}}]}]}, ["spec.rules[0].matches[0].path", "spec.rules[0].matches[0].path",
                           "spec.rules[0].matches[1].path"]),
    ("filters", {"rules": [{"matches": [], "filters": [{"type": "Redirect"}, {"type": "Redirect"}, {"type": "x",
     "redirect": {}}]}]}, ["spec.rules[0].filters", "spec.rules[0].filters[2]"]),
    ("time-outs", {"rules": [{"matches": [], "timeouts": {"request": "1s", "backend": "1m"}}]},
     ["spec.rules[0].timeouts"]),
    ("names and sums", {"rules": [{"name": "a", "matches": [{}] * 100}, {"name": "a", "matches": [{}] * 100}]},
     ["spec.rules", "spec.rules"]),
    ("parents", {"parentRefs": [{"name": "g", "group": "g", "kind": "k"}, {"name": "g", "group": "g", "kind": "k",
     "namespace": ""}]}, ["spec.parentRefs"]),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "spec", "paths"), GATEWAY_LIKE, ids=[g[0] for g in GATEWAY_LIKE])
def test_rules_as_a_gateway_has_them(sentence: str, spec: Any, paths: list[str]) -> None:
    assert not [str(e) for e in schema_errors(HTTP_ROUTE, AT, status=False)]
    run = evaluate(Ruled(HTTP_ROUTE, root=True), {"spec": spec})
    assert [e.path for e in run.errors] == paths, [str(e) for e in run.errors]
