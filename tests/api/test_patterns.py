"""Patterns in Go's words, and in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.jsonpath import BadPath, find, steps_of
from kubesvc.api.patterns import Automaton, BadPattern, Unspoken, compiled, tree_of

MATCHES = (
    ("^a$", "a", True),
    ("^a$", "a\n", False),
    ("a$|b", "xb", True),
    (r"a\z", "ba", True),
    ("[[:alpha:]]+[[:digit:]]", "ab1", True),
    ("[[:alpha:]]+[[:digit:]]", "1", False),
    (r"^\d+$", "٣", False),
    ("[]a]", "]", True),
    ("(?i)ABC", "xabc", True),
    (r"\bfoo\b", "a foo b", True),
    (r"\bfoo\b", "afoob", False),
    ("^(a+)+$", "aaaa", True),
    ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", True),
    ("^[^/]{1,3}$", "a/b", False),
)


@pytest.mark.parametrize(("pattern", "text", "wanted"), MATCHES)
def test_matches(pattern: str, text: str, wanted: bool) -> None:
    assert compiled(pattern)(text) is wanted


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(?!a)", r"(a)\1", "a{1001}", "*", "^(a{0,500}b){0,500}$"])
def test_what_go_does_not_know(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compiled(pattern)


def test_what_go_knows_and_we_do_not() -> None:
    with pytest.raises(Unspoken):
        compiled(r"\p{Greek}")


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not compiled("^(a+)+$")("a" * 3000 + "b")
    assert not compiled("^(a|aa)+$")("a" * 3000 + "b")
    assert not compiled("^([a-z]+-?)+$")("a" * 3000 + "_")
    assert not compiled("^a*a*a*a*a*a*b$")("a" * 2000)
    assert not compiled("^(a|ab|aa)*c$")("a" * 60)
    assert not compiled("^(a?){30}a{30}b$")("a" * 30)
    assert not compiled(".*.*.*x")("a" * 1000)
    assert time.process_time() - began < 3


PIECES = st.sampled_from(
    ("a", "b", "[ab]", "[^a]", ".", "(a|b)", "(ab)*", "a?", "b+", "(a|bc)+", "a{1,3}", "^", "$", r"\b")
)


@given(st.lists(PIECES, max_size=6).map("".join), st.text("abc-", max_size=12))
@settings(max_examples=200, deadline=None)
def test_both_ways_of_matching_agree(pattern: str, text: str) -> None:
    python = pattern.replace("$", r"\Z")
    assert Automaton(tree_of(python)).search(text) is (re.search(python, text) is not None)


OBJECT = {
    "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}], "x.y": 5, "n": {"m": {"port": 7}}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]},
}
PATHS: tuple[tuple[str, list[object]], ...] = (
    (".spec.ports[0].name", ["a"]),
    (".spec.ports[-1].name", ["b"]),
    (".spec.ports[*].port", [1, 2]),
    (".spec.ports[0:1].port", [1]),
    (".spec.ports[0,1].port", [1, 2]),
    (".spec['x.y']", [5]),
    (r".spec.x\.y", [5]),
    (".spec..port", [1, 2, 7]),
    (".spec.missing.deeper", []),
    ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
    (""".status.conditions[?(@.type == 'Ready')].status""", ["True"]),
    ('.status.conditions[?(@.type!="Ready")].status', ["False"]),
    (".spec.ports[?(@.port>1)].name", ["b"]),
    (".spec.ports[?(@.nothing)].name", []),
    (".", [OBJECT]),
)


@pytest.mark.parametrize(("path", "wanted"), PATHS)
def test_paths(path: str, wanted: list[object]) -> None:
    assert find(path, OBJECT) == wanted


@pytest.mark.parametrize("path", [".a[", ".a[?(b)]", ".a[x]", ".a.(b)"])
def test_no_paths(path: str) -> None:
    with pytest.raises(BadPath):
        steps_of(path)


@given(st.text(".[]*?()@='\"ab0:,\\<>", max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_path_or_none(text: str) -> None:
    try:
        find(text, {"a": [{"b": 1}], "b": "a"})
    except BadPath:
        pass
