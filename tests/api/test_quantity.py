"""Quantities: the canonical texts, what is refused, and the laws of order and sum."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubesvc.api import quantity
from kubesvc.api.quantity import BINARY, DECIMAL, FORM_TEXT, NANO, SUFFIX_TEXT, Quantity

CANONICAL = (
    ("0", "0"), ("0Gi", "0"), ("-0", "0"), ("1", "1"), ("+1", "1"), ("1.", "1"), (".5", "500m"), ("0.1", "100m"),
    ("1000m", "1"), ("1500m", "1500m"), ("1000", "1k"), ("1234", "1234"), ("1024", "1024"), ("1024Ki", "1Mi"),
    ("1.5Gi", "1536Mi"), ("1.5Ki", "1536"), ("0.5Ki", "512"), ("0.1Ki", "102400m"), ("2048Ki", "2Mi"),
    ("1000Ki", "1000Ki"), ("1e3", "1e3"), ("1E3", "1e3"), ("12e2", "1200"), ("1e-3", "1e-3"), ("1E", "1E"),
    ("100n", "100n"), ("1u", "1u"), ("0.0000000001", "1n"), ("-0.0000000001", "-1n"), ("-1.5Gi", "-1536Mi"),
    ("1000000", "1M"), ("5M", "5M"), ("10T", "10T"), ("100E", "9223372036854775807"), (" 2 ", "2"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "stored"), CANONICAL)
def test_canonical_text(text: str, stored: str) -> None:
    assert quantity.canonical(text) == stored


def test_json_numbers_are_quantities() -> None:
    """`cpu: 1` and `cpu: 0.5` in a manifest."""
    assert [quantity.canonical(v) for v in (1, 0.5, 2000)] == ["1", "500m", "2k"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", FORM_TEXT), ("x", FORM_TEXT), ("1 Gi", FORM_TEXT), (".", FORM_TEXT), ("1.2.3", FORM_TEXT), ("1gi", FORM_TEXT),
     ("1KiB", FORM_TEXT), ("1mm", SUFFIX_TEXT), ("1K", SUFFIX_TEXT), ("1m3", SUFFIX_TEXT)],
)  # fmt: skip
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        quantity.parse(text)


amounts = st.integers(-(10**15), 10**15)
suffixes = st.sampled_from([*BINARY, *DECIMAL, "e3", "e-3", "E6"])
texts = st.builds(lambda n, f, s: f"{n}.{f}{s}", amounts, st.integers(0, 10**6), suffixes)


@given(texts)
@example("3000275933.59375Ki")
def test_the_canonical_text_is_its_own(text: str) -> None:
    """But for bytes that no binary suffix divides: those lose their family with their suffix, as with Go."""
    stored = quantity.canonical(text)
    again = quantity.canonical(stored)
    assert again == stored or (quantity.parse(text).format == "binary" and stored.isdigit())
    assert quantity.canonical(again) == again
    assert quantity.parse(stored) == quantity.parse(text) or quantity.parse(text).format == "binary"


@given(amounts, st.sampled_from(sorted(BINARY)))
def test_whole_binary_amounts_lose_nothing(amount: int, suffix: str) -> None:
    found = quantity.parse(f"{amount}{suffix}")
    exact = Fraction(amount) * 2 ** BINARY[suffix]
    assert Fraction(found.nanos, NANO) == min(exact, 2**63 - 1) or amount < 0
    assert quantity.parse(str(found)) == found


@given(texts, texts)
def test_order_and_sum(a: str, b: str) -> None:
    x, y = quantity.parse(a), quantity.parse(b)
    assert x + y == y + x
    assert (x < y) + (x == y) + (x > y) == 1
    assert (x + y) - y == x


def test_sums_print_like_their_first_operand() -> None:
    """A sum that starts from nothing prints like what is added."""
    assert str(quantity.parse("1Gi") + quantity.parse("1024M")) == str(
        Quantity((2**30 + 1024 * 10**6) * NANO, "binary")
    )
    assert str(quantity.ZERO + quantity.parse("1Gi")) == "1Gi"


def test_whole_units_round_up() -> None:
    assert (quantity.parse("100m").value, quantity.parse("1001u").milli) == (1, 2)
