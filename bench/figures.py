"""One line per figure, and what it is to its goal."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0..1) of all lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def spread(values: Sequence[float]) -> str:
    """Least and most, where there are several."""
    return f"{min(values):,.0f} to {max(values):,.0f}" if len(values) > 1 else ""


def shorten(value: float) -> str:
    """Three digits that matter, all of a large number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say(what: str, value: float, unit: str, *, goal: float = 0.0, against: str = "goal", note: str = "") -> None:
    """Print a figure. `goal` is in the same unit; the ratio says how much of it was needed, 1.00 being all."""
    line = f"{what:<68}{shorten(value):>8} {unit:<9}"
    if goal:
        line += f"{against} {shorten(goal)} {unit}, {value / goal:.2f} of it"
    if note:
        line += f"  ({note})"
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def say_median(what: str, values: Sequence[float], unit: str, *, goal: float = 0.0) -> None:
    """The median of several runs, with the extremes."""
    say(what, statistics.median(values), unit, goal=goal, note=spread(values))


def head(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
