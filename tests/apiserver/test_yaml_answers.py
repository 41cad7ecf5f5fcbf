"""How answers in YAML are spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api import goyaml
from kubesvc.apiserver.calls import to_yaml

SPELLED: tuple[tuple[Any, str], ...] = (
    # a value, and how it stands in a mapping (TABLE-7)
    ("plain", "plain"),
    ("2026-01-01T00:00:00Z", '"2026-01-01T00:00:00Z"'),
    ("true", '"true"'),
    ("y", '"y"'),
    ("", '""'),
    ("~", '"~"'),
    ("80", '"80"'),
    ("1e3", '"1e3"'),
    ("0x1f", '"0x1f"'),
    ("1:30", '"1:30"'),
    (".nan", '".nan"'),
    ("a: b", "'a: b'"),
    ("- a", "'- a'"),
    ("caf\u00e9", "caf\u00e9"),
    ("two\nlines\n", "|\n  two\n  lines"),
    ("two\nlines", "|-\n  two\n  lines"),
    (True, "true"),
    (80, "80"),
    (None, "null"),
    ([], "[]"),
    ({}, "{}"),
    (["a", {"b": 1, "a": "1"}], '\n- a\n- a: "1"\n  b: 1'),
)


@pytest.mark.parametrize(("value", "spelled"), SPELLED, ids=repr)
def test_how_a_value_is_spelled(value: Any, spelled: str) -> None:
    text = to_yaml(json.dumps({"k": value}).encode()).decode()
    assert text == f"k:{'' if spelled.startswith(chr(10)) else ' '}{spelled}\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abyn01-:. ", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=4))
def test_what_is_answered_in_yaml_reads_as_what_is_answered_in_json(value: dict[str, Any]) -> None:
    assert goyaml.read(to_yaml(json.dumps(value).encode())).value == value
