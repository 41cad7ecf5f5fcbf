"""Counts and durations that a scrape reads, printed in the exposition format; no library is needed for that.

    metrics = Metrics()
    syncs = metrics.counter("endpoint_slice_controller_syncs", "Syncs by their result.", ("result",))
    syncs.add(("success",))
    metrics.render()                                # the text of /metrics

Labels must come from closed sets: what is counted stays in memory. `read` registers what is worked out at a scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

Labels = tuple[str, ...]


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bucket bounds: `count` of them from `start`, each `factor` times the one before."""
    return tuple(start * factor**n for n in range(count))


@dataclass(slots=True)
class Counter:
    """Numbers by label values; a gauge is one that is set."""

    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value

    def get(self, *labels: str) -> float:
        return self.values.get(labels, 0.0)


@dataclass(slots=True)
class Histogram:
    """Observations by upper bound, per label values."""

    bounds: tuple[float, ...]
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, value: float, labels: Labels = ()) -> None:
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def observe_all(self, values: Iterable[float], labels: Labels = ()) -> None:
        """Observe many at once."""
        values = list(values)
        if not values:
            return
        self.observe(values.pop(), labels)
        counts, bounds = self.counts[labels], self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sums[labels] += sum(values)

    def totals(self) -> dict[Labels, float]:
        """How many were observed, per label values."""
        return {labels: float(sum(counts)) for labels, counts in self.counts.items()}


Reading = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name."""

    name: str
    text: str
    type: str
    labels: tuple[str, ...]
    read: Callable[[], Reading | Histogram]


class Metrics:
    """Everything one process counts. A name registered again replaces the one before."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}

    def counter(self, name: str, text: str, labels: tuple[str, ...] = (), *, type: str = "counter") -> Counter:
        made = Counter()
        self.read(name, text, type, labels, lambda: made.values)
        return made

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return self.counter(name, text, labels, type="gauge")

    def histogram(self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        made = Histogram(bounds)
        self.read(name, text, "histogram", labels, lambda: made)
        return made

    def read(
        self, name: str, text: str, type: str, labels: tuple[str, ...], read: Callable[[], Reading | Histogram]
    ) -> None:
        """Register what is read at each scrape."""
        self.families[name] = Family(name, text, type, labels, read)

    def render(self) -> str:
        """The text of /metrics, families in order of names."""
        lines: list[str] = []
        for _, family in sorted(self.families.items()):
            found = family.read()
            lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.type}"]
            if isinstance(found, Histogram):
                lines += histogram_lines(family.name, family.labels, found)
            else:
                for labels, value in sorted(found.items()):
                    lines.append(f"{family.name}{braces(zip(family.labels, labels, strict=True))} {value:.15g}")
        return "\n".join(lines) + "\n" if lines else ""


def histogram_lines(name: str, names: tuple[str, ...], found: Histogram) -> Iterable[str]:
    """A histogram in the exposition format. names: of its labels"""
    for labels, counts in sorted(found.counts.items()):
        pairs, total = tuple(zip(names, labels, strict=True)), 0
        for bound, count in zip((*found.bounds, inf), counts, strict=True):
            total += count
            shown = "+Inf" if bound == inf else f"{bound:g}"
            yield f"{name}_bucket{braces((*pairs, ('le', shown)))} {total}"
        yield f"{name}_sum{braces(pairs)} {found.sums[labels]:.9g}"
        yield f"{name}_count{braces(pairs)} {total}"


def braces(pairs: Iterable[tuple[str, str]]) -> str:
    said = ",".join(f'{k}="{escape(v)}"' for k, v in pairs)
    return f"{{{said}}}" if said else ""


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
