"""How long answers take, from the query read to the answer written; for answers of other resolvers with the waiting."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

BOUNDS = tuple(0.00025 * 2**k for k in range(16))
"""Seconds, as CoreDNS has them."""


class Durations:
    """Every answer counts; that costs a tenth of a microsecond each, besides two looks at the clock.

    monotonic: the clock, in seconds
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def since(self, started: float) -> None:
        """An answer to what came at `started` has been written."""
        seconds = self.monotonic() - started
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds
