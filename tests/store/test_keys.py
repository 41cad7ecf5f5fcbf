"""The sorted key collection against a plain sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.store import keys
from kubesvc.store.keys import SortedKeys, prefix_end

TEXT = st.text(st.sampled_from("ab/z\U0010ffff"), max_size=5)


@settings(max_examples=200)
@given(start=st.lists(TEXT, unique=True), steps=st.lists(TEXT), low=TEXT, high=TEXT, chunk=st.integers(2, 8))
def test_agrees_with_a_sorted_list(start: list[str], steps: list[str], low: str, high: str, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "CHUNK", chunk)
        collection, plain = SortedKeys(start), set(start)
        for key in steps:
            if key in plain:
                collection.remove(key)
                plain.remove(key)
            else:
                collection.add(key)
                plain.add(key)
        assert len(collection) == len(plain)
        assert list(collection.between("", "")) == sorted(plain)
        expected = [k for k in sorted(plain) if low <= k and (not high or k < high)]
        assert list(collection.between(low, high)) == expected
        assert collection.count(low, high) == len(expected)
        with pytest.raises(KeyError):
            collection.remove("not there")


@given(prefix=TEXT, other=TEXT)
def test_prefix_end_bounds_exactly_the_texts_with_the_prefix(prefix: str, other: str) -> None:
    end = prefix_end(prefix)
    assert (prefix <= other and (not end or other < end)) == other.startswith(prefix)
