"""The spelling of objects: what Go prints and what it leaves out (META-13, PATCH-8)."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.container import IntOrString, ResourceList
from kubesvc.api.meta import Object, Struct
from kubesvc.api.shape import normalize


class Inner(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("kept", "time")

    kept: str = ""
    time: str | None = None
    number: int = 0


class Outer(Struct, frozen=True):
    text: str = ""
    flag: bool = False
    pointer: bool | None = None
    text_pointer: str | None = None
    port: IntOrString | None = None
    amount: str | int | float | None = None
    amounts: ResourceList | None = None
    entries: list[Inner] | None = None
    words: dict[str, str] | None = None
    free: dict[str, Any] | None = None
    inner: Inner | None = None
    value: Inner = Inner()


EMPTY = {"kept": "", "time": None}
CASES: tuple[tuple[str, Object, Object], ...] = (
    ("a struct is always there", {}, {}),
    ("plain zeros go", {"text": "", "flag": False}, {}),
    ("pointers to zero stay", {"pointer": False, "textPointer": ""}, {"pointer": False, "textPointer": ""}),
    ("nulls go", {"text": None, "pointer": None, "entries": None, "inner": None, "value": None, "odd": None}, {}),
    ("empty lists and maps go", {"entries": [], "words": {}, "amounts": {}}, {}),
    ("free content stays", {"free": {"a": None}, "odd": {"b": None}}, {"free": {"a": None}, "odd": {"b": None}}),
    ("a pointer to an empty struct stays", {"inner": {"number": 0}}, {"inner": EMPTY}),
    ("structs in lists", {"entries": [{"kept": "x", "number": 1}, None]}, {"entries": [
        {"kept": "x", "time": None, "number": 1}, EMPTY]}),
    ("quantities", {"amount": 1, "amounts": {"cpu": "0.1", "memory": "1.5Gi"}},
     {"amount": "1", "amounts": {"cpu": "100m", "memory": "1536Mi"}}),
    ("numbers or names", {"port": 0}, {"port": 0}),
    ("wrong types are not touched", {"text": 0, "flag": 0, "entries": "x", "amount": "x"},
     {"text": 0, "flag": 0, "entries": "x", "amount": "x"}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "given", "printed"), CASES, ids=lambda c: c if isinstance(c, str) else "")
def test_spelling(name: str, given: Object, printed: Object) -> None:
    normalize(given, Outer)
    assert given == {"value": EMPTY} | printed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kept", "number", "x"]), inner),
    max_leaves=5,
)
names = st.sampled_from(["text", "flag", "pointer", "port", "amount", "amounts", "entries", "words", "inner", "value"])


@given(st.dictionaries(names, values))
def test_the_spelling_is_its_own(obj: Object) -> None:
    """Whatever comes, a second pass changes nothing."""
    normalize(obj, Outer)
    once = repr(obj)
    normalize(obj, Outer)
    assert repr(obj) == once
