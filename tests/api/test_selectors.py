"""Selectors: what texts and objects pick, and the words in which bad texts are refused (SEL-1, SEL-2)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.selectors import (
    EVERYTHING,
    NOTHING,
    FieldRequirement,
    FieldSelector,
    equality_selector,
    escape_field_value,
    label_selector_of,
    parse_field_selector,
    parse_label_selector,
    unknown_field,
)

OBJECTS: dict[str, dict[str, str] | None] = {
    "none": None,
    "one": {"x": "1"},
    "two": {"x": "2", "y": ""},
    "text": {"x": "a"},
    "both": {"x": "1", "y": "b", "example.com/k": "v"},
}


class Case(NamedTuple):
    text: str
    picks: str


PICKS = (
    Case("", "none one two text both"),
    Case("x", "one two text both"),
    Case("!x", "none"),
    Case("x=1", "one both"),
    Case("x==1", "one both"),
    Case("x!=1", "none two text"),
    Case("x in (1,2)", "one two both"),
    Case("x notin (1)", "none two text"),
    Case("x in ()", ""),
    Case("y in ()", "two"),
    Case("y=", "two"),
    Case("y==,x", "two"),
    Case("x>1", "two"),
    Case("x<2", "one both"),
    Case("x>0,y", "two both"),
    Case(" x = 1 , y ", "both"),
    Case("example.com/k=v", "both"),
    Case("x in (,1)", "one both"),
    Case("in=1", ""),
    Case("x=notin", ""),
)


@pytest.mark.parametrize("case", PICKS, ids=lambda case: repr(case.text))
def test_selector_picks(case: Case) -> None:
    selector = parse_label_selector(case.text)
    assert " ".join(name for name, labels in OBJECTS.items() if selector.matches(labels)) == case.picks
    assert parse_label_selector(str(selector)) == selector


PART = "part must consist of alphanumeric characters, '-', '_' or '.', and must start and end"
REFUSALS = (
    Case("x in", "unable to parse requirement: found '' expected: '('"),
    Case("x in 1", "unable to parse requirement: found '1' expected: '('"),
    Case("x in (1", "unable to parse requirement: found '', expected: ',' or ')'"),
    Case("x in (1 2)", "unable to parse requirement: found '2', expected: ',' or ')'"),
    Case("x=1,", "found '', expected: identifier after ','"),
    Case(",x", "found ',', expected: !, identifier, or 'end of string'"),
    Case("x==1==2", "found '==', expected: ',' or 'end of string'"),
    Case("x=a b", "found 'b', expected: ',' or 'end of string'"),
    Case("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
    Case("!", "unable to parse requirement: found '', expected: identifier"),
    Case("x=(", "unable to parse requirement: found '(', expected: identifier"),
    Case("-x=1", f'unable to parse requirement: <nil>: Invalid value: "-x": name {PART}'),
    Case("x>y", "unable to parse requirement: values[0]: Invalid value: \"y\": for 'Gt', 'Lt' operators, the value"),
    Case("x=-", 'unable to parse requirement: values[0][x]: Invalid value: "-": a valid label must be'),
)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: repr(case.text))
def test_bad_selector_is_refused(case: Case) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_label_selector(case.text)
    assert str(refusal.value).startswith(case.picks)


OBJECT_CASES: tuple[tuple[dict[str, object] | None, str], ...] = (
    (None, ""),
    ({}, "none one two text both"),
    ({"matchLabels": {"x": "1"}}, "one both"),
    ({"matchLabels": {"x": "1"}, "matchExpressions": [{"key": "y", "operator": "Exists"}]}, "both"),
    ({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["1", "2"]}]}, "none text"),
    ({"matchExpressions": [{"key": "x", "operator": "DoesNotExist", "values": None}]}, "none"),
)


@pytest.mark.parametrize(("selector", "picks"), OBJECT_CASES, ids=str)
def test_selector_object_picks(selector: dict[str, object] | None, picks: str) -> None:
    found = label_selector_of(selector)
    assert " ".join(name for name, labels in OBJECTS.items() if found.matches(labels)) == picks


@pytest.mark.parametrize(
    "selector",
    (
        {"matchExpressions": [{"key": "x", "operator": "In", "values": []}]},
        {"matchExpressions": [{"key": "x", "operator": "Exists", "values": ["1"]}]},
        {"matchExpressions": [{"key": "x", "operator": "Like", "values": ["1"]}]},
    ),
)
def test_senseless_selector_object_is_refused(selector: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        label_selector_of(selector)


def test_plain_maps_select_by_equality() -> None:
    assert equality_selector({"b": "2", "a": "1"}) == parse_label_selector("a=1,b=2")
    assert equality_selector(None) == EVERYTHING and EVERYTHING.empty
    assert not NOTHING.empty and not NOTHING.matches({})


WORDS = st.text(alphabet="ab1", min_size=1, max_size=3)
REQUIREMENTS = st.one_of(
    st.builds("{}".format, WORDS),
    st.builds("!{}".format, WORDS),
    st.builds("{}={}".format, WORDS, WORDS),
    st.builds("{}!={}".format, WORDS, WORDS),
    st.builds("{} in ({},{})".format, WORDS, WORDS, WORDS),
    st.builds("{} notin ({})".format, WORDS, WORDS),
    st.builds("{}>{}".format, WORDS, st.integers(0, 9)),
)


@given(st.lists(REQUIREMENTS, max_size=4), st.dictionaries(WORDS, WORDS, max_size=4))
def test_commas_mean_all_of_them_and_the_canonical_text_the_same(parts: list[str], labels: dict[str, str]) -> None:
    selector = parse_label_selector(",".join(parts))
    assert selector.matches(labels) == all(parse_label_selector(p).matches(labels) for p in parts)
    assert parse_label_selector(str(selector)).matches(labels) == selector.matches(labels)


@given(st.text(alphabet="ab=!<>(), notin", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = parse_label_selector(text)
    except ValueError as refusal:
        assert str(refusal)
    else:
        assert isinstance(selector.matches({"a": "b"}), bool)


FIELDS = {"metadata.name": "a,b=c", "status.phase": "Running"}


@pytest.mark.parametrize(
    ("text", "matches"),
    (
        ("", True),
        ("status.phase=Running", True),
        ("status.phase==Running", True),
        ("status.phase!=Running", False),
        ("status.phase!=Pending,metadata.name=x", False),
        (r"metadata.name=a\,b\=c", True),
        ("spec.unset=", True),
        (",status.phase=Running,", True),
    ),
)
def test_field_selector_picks(text: str, matches: bool) -> None:
    assert parse_field_selector(text).matches(lambda field: FIELDS.get(field, "")) is matches


@pytest.mark.parametrize(
    ("text", "refusal"),
    (
        ("bogus", "invalid selector: 'bogus'; can't understand 'bogus'"),
        ("metadata.name in (a)", "invalid selector: 'metadata.name in (a)'; can't understand 'metadata.name in (a)'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
    ),
)
def test_bad_field_selector_is_refused(text: str, refusal: str) -> None:
    with pytest.raises(ValueError) as found:
        parse_field_selector(text)
    assert str(found.value) == refusal


def test_unknown_fields_are_named_as_the_kind_has_it() -> None:
    selector = parse_field_selector("metadata.name=a,subsets=x")
    known_to_all = '"subsets" is not a known field selector: only "metadata.name", "metadata.namespace"'
    assert unknown_field(selector, ()) == known_to_all
    assert unknown_field(selector, ("spec.type",)) == "field label not supported: subsets"
    assert unknown_field(selector, ("subsets",)) == ""
    assert selector.exact("metadata.name") == "a"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("=", "!=")), st.text(alphabet="x,=\\", max_size=4))))
def test_field_values_survive_escaping(parts: list[tuple[str, str, str]]) -> None:
    text = ",".join(f"{field}{operator}{escape_field_value(value)}" for field, operator, value in parts)
    selector = parse_field_selector(text)
    wanted = [FieldRequirement(f, "!=" if o == "!=" else "=", v) for f, o, v in parts]
    assert sorted(map(str, selector.requirements)) == sorted(map(str, wanted))
    for values in itertools.product(("", "x"), repeat=3):
        read = dict(zip("abc", values, strict=True)).__getitem__
        assert selector.matches(read) == FieldSelector(tuple(wanted)).matches(read)
