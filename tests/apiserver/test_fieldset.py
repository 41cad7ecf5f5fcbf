"""Field sets: the tree behaves like the set of its paths (APPLY-5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.apiserver import fieldset
from kubesvc.apiserver.fieldset import FieldSet

ELEMENTS = ["f:a", "f:b", "f:c", 'k:{"port":80,"protocol":"TCP"}', 'v:"x"', "i:0"]
PATHS = st.sets(st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=4).map(tuple), max_size=8)
Path = tuple[str, ...]


def tree(paths: set[Path]) -> FieldSet:
    return fieldset.from_paths(sorted(paths))


def members(fields: FieldSet) -> set[Path]:
    return set(fieldset.paths(fields))


@given(PATHS)
def test_a_set_is_its_paths(paths: set[Path]) -> None:
    fields = tree(paths)
    assert members(fields) == paths
    assert members(json.loads(json.dumps(fields))) == paths
    assert members(fieldset.ordered(fields)) == paths
    assert fieldset.valid(fields)


@given(PATHS, PATHS)
def test_operations_are_those_of_sets(a: set[Path], b: set[Path]) -> None:
    one, two = tree(a), tree(b)
    before = json.dumps([one, two])
    assert members(fieldset.union(one, two)) == a | b
    assert members(fieldset.difference(one, two)) == a - b
    assert members(fieldset.intersection(one, two)) == a & b
    assert bool(fieldset.difference(one, two)) == bool(a - b)
    assert bool(fieldset.intersection(one, two)) == bool(a & b)
    assert json.dumps([one, two]) == before


@given(PATHS, PATHS)
def test_a_difference_without_anything_in_common_is_the_same_set(a: set[Path], b: set[Path]) -> None:
    one, two = tree(a - b), tree(b - a)
    assert fieldset.difference(one, two) is one


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:selector"), ".spec.selector"),
        (("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:targetPort"),
         '.spec.ports[port=80,protocol="TCP"].targetPort'),
        (("f:metadata", "f:finalizers", 'v:"a/b"'), '.metadata.finalizers[="a/b"]'),
        (("f:x", "i:3"), ".x[3]"),
    ],
)  # fmt: skip
def test_spelling(path: Path, text: str) -> None:
    """APPLY-4."""
    assert fieldset.spell(path) == text


def test_paths_come_nearest_first() -> None:
    """As upstream lists conflicts: what a node holds itself before what lies deeper."""
    fields: FieldSet = {"f:spec": {"f:ports": {'k:{"port":80}': {"f:x": {}}}, "f:selector": {}}, "f:data": {}}
    assert [fieldset.spell(p) for p in fieldset.paths(fields)] == [".data", ".spec.selector", ".spec.ports[port=80].x"]


@pytest.mark.parametrize("fields", [1, {"x": {}}, {"f:a": {"b": {}}}, {"f:a": 1}, {".": {"f:a": {}}}])
def test_what_is_no_set(fields: Any) -> None:
    assert not fieldset.valid(fields)
