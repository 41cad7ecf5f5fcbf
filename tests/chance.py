"""Chance in tests: the same every time where each change of the code is judged, since a verdict must be of the change;
fresh where somebody looks for what nobody thought of (long runs, and whoever runs tests by hand)."""

from __future__ import annotations

import random

fresh = True
"""Whether this run looks for something new; set as it begins."""


def generator() -> random.Random:
    """Where a test takes its seeds from; it prints them, or tells them when it fails."""
    return random.Random(None if fresh else 7)
