"""Ages in tables (KCTL-33, KCTL-34)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.ages import DAY, HOUR, MINUTE, YEAR, render_age, render_since
from kubesvc.api.kind import Since

CASES = (
    ("KCTL-33 far in the future", -2, "<invalid>"),
    ("KCTL-33 clocks differ a little", -1.9, "0s"),
    ("KCTL-33 now", 0, "0s"),
    ("KCTL-34a", 119.9, "119s"),
    ("KCTL-34b without seconds", 120, "2m"),
    ("KCTL-34b with seconds", 599, "9m59s"),
    ("KCTL-34c first", 600, "10m"),
    ("KCTL-34c last", 3 * HOUR - 1, "179m"),
    ("KCTL-34d without minutes", 3 * HOUR, "3h"),
    ("KCTL-34d with minutes", 8 * HOUR - 1, "7h59m"),
    ("KCTL-34e first", 8 * HOUR, "8h"),
    ("KCTL-34e last", 48 * HOUR - 1, "47h"),
    ("KCTL-34f without hours", 48 * HOUR, "2d"),
    ("KCTL-34f with hours", 8 * DAY - 1, "7d23h"),
    ("KCTL-34g first", 8 * DAY, "8d"),
    ("KCTL-34g last", 2 * YEAR - 1, "729d"),
    ("KCTL-34h without days", 2 * YEAR, "2y"),
    ("KCTL-34h with days", 3 * YEAR + 200 * DAY, "3y200d"),
    ("KCTL-34i", 8 * YEAR, "8y"),
)


@pytest.mark.parametrize(("name", "seconds", "text"), CASES, ids=lambda c: str(c))
def test_age(name: str, seconds: float, text: str) -> None:
    assert render_age(seconds) == text


UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "y": YEAR}


@given(st.floats(0, 100 * YEAR))
def test_an_age_tells_the_span_to_its_finest_unit(seconds: float) -> None:
    """No text says more than has passed, and none is off by more than its unit."""
    text = render_age(seconds)
    parts = re.findall(r"(\d+)([smhdy])", text)
    assert "".join(n + u for n, u in parts) == text
    told = sum(int(n) * UNITS[u] for n, u in parts)
    coarse = {"y": YEAR, "d": DAY, "h": HOUR, "m": MINUTE, "s": 1}[parts[0][1]]
    assert 0 <= int(seconds) - told < coarse


def test_cells() -> None:
    """KCTL-33, KCTL-43: unknown times, text around the age, and spans that ended."""
    now = 1_767_225_600.0  # 2026-01-01T00:00:00Z
    assert render_since(Since(None), now) == "<unknown>"
    assert render_since(Since("2025-12-31T23:55:00Z", before="3 (", after=" ago)"), now) == "3 (5m ago)"
    assert render_since(Since("2025-01-01T00:00:00Z", until="2025-01-01T00:00:07Z"), now) == "7s"
