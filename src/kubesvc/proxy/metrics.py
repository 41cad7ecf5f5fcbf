"""What the proxy counts, under upstream's names (PROXY-127 to 137), and where it is read: /metrics, /healthz and
/proxyMode on loopback, as well as what the proxy was told (PROXY-90).

`ProxyMetrics` is fed by the loop: changes as they come, syncs as they end. No library is needed for the text.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.clock import Clock, parse_rfc3339

from .backend import Mode, RuleCount, SyncReport
from .health import Answer
from .traffic import Family, PortTraffic

SYNC_BUCKETS = tuple(0.001 * 2**k for k in range(15))
PROGRAMMING_BUCKETS = (
    0.25, 0.5, *map(float, range(1, 60)), *map(float, range(60, 120, 5)), *map(float, range(120, 301, 30))
)  # fmt: skip
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
MOST_TRIGGERS = 10_000
"""Trigger times that wait for a sync; a proxy that cannot write for long forgets the oldest."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound, for one set of labels."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        inner = f"{labels}," if labels else ""
        total = 0
        for bound, count in zip((*map(number, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{inner}le="{bound}"}} {total}'
        around = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{around} {number(self.sum)}"
        yield f"{name}_count{around} {total}"


def number(value: float) -> str:
    """As Go prints it: no trailing zeros."""
    return f"{value:.12g}"


@dataclass(slots=True)
class FamilyCounts:
    """What is counted for each address family."""

    all: Histogram = field(default_factory=lambda: Histogram(SYNC_BUCKETS))
    full: Histogram = field(default_factory=lambda: Histogram(SYNC_BUCKETS))
    partial: Histogram = field(default_factory=lambda: Histogram(SYNC_BUCKETS))
    programming: Histogram = field(default_factory=lambda: Histogram(PROGRAMMING_BUCKETS))
    conntrack: Histogram = field(default_factory=lambda: Histogram(SYNC_BUCKETS))
    forgotten: int = 0
    last: float = 0.0
    queued: float = 0.0
    triggers: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FamilyState:
    """What is asked of a family when somebody reads: failures since the start, how many of them were of syncs that
    had only changes to write, its service ports, and its rules of iptables."""

    failures: int
    ports: Iterable[PortTraffic]
    partial_failures: int = 0
    rules: Sequence[RuleCount] = ()


class ProxyMetrics:
    """The counters of one proxy.

    state:  how the families stand now
    config: what the proxy was told, by upstream's names
    """

    def __init__(
        self,
        mode: Mode,
        clock: Clock,
        state: Callable[[], Mapping[Family, FamilyState]],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.mode = mode
        self.config = config or {}
        self.clock = clock
        self.state = state
        self.started = clock.now()
        self.families: dict[Family, FamilyCounts] = {f: FamilyCounts() for f in state()}
        self.service_changes = 0
        self.slice_changes = 0
        self.pending_services: dict[tuple[str, str], None] = {}
        self.pending_slices: dict[tuple[str, str], None] = {}
        self.waiting: set[Family] = set()
        """Families that have not synced since the oldest pending change."""
        self.health: Counter[tuple[str, int]] = Counter()
        self.pings = 0
        """How often this port's own /healthz was asked."""

    # Feeding.

    def service_changed(self, namespace: str, name: str) -> None:
        self.service_changes += 1
        self.pending_services[namespace, name] = None
        self._queued()

    def slice_changed(self, s: EndpointSlice, *, deleted: bool) -> None:
        """A slice that matters to traffic; its trigger time is heeded unless it goes or is older than this proxy
        (PROXY-137)."""
        self.slice_changes += 1
        self.pending_slices[s.namespace, s.name] = None
        self._queued()
        counts = self.families.get(s.address_type)  # type: ignore[call-overload]
        if deleted or counts is None:
            return
        try:
            at = parse_rfc3339(s.metadata.annotation(TRIGGER_TIME))
        except ValueError:
            return
        if at >= self.started:
            counts.triggers.append(at)
            del counts.triggers[:-MOST_TRIGGERS]

    def _queued(self) -> None:
        now = self.clock.now()
        self.waiting = set(self.families)
        for counts in self.families.values():
            counts.queued = now

    def synced(self, report: SyncReport) -> None:
        counts = self.families[report.family]
        seconds = report.ended - report.started
        counts.all.observe(seconds)
        (counts.full if report.full else counts.partial).observe(seconds)
        counts.last = report.finished_at
        for at in counts.triggers:
            counts.programming.observe(max(0.0, report.finished_at - at))
        counts.triggers.clear()
        if report.flows_forgotten >= 0:
            counts.conntrack.observe(report.flows_seconds)
            counts.forgotten += report.flows_forgotten
        self.waiting.discard(report.family)
        if not self.waiting:
            self.pending_services.clear()
            self.pending_slices.clear()

    def asked(self, path: str, status: int) -> None:
        """Somebody asked for the proxy's health (PROXY-136)."""
        if path in ("/healthz", "/livez"):
            self.health[path[1:], status] += 1

    # Reading.

    def answer(self, path: str) -> Answer:
        """What the metrics port says (PROXY-90)."""
        match path:
            case "/metrics":
                return Answer(200, self.text(), content_type=TEXT)
            case "/metrics/slis":
                return Answer(200, "".join(f"{line}\n" for line in self._indicators()), content_type=TEXT)
            case "/healthz":
                self.pings += 1
                return Answer(200, "ok", content_type="text/plain; charset=utf-8")
            case "/healthz/ping":
                return Answer(200, "ok", content_type="text/plain; charset=utf-8")
            case "/configz":
                return Answer(200, json.dumps({"kubeproxy.config.k8s.io": self.config}))
            case "/proxyMode":
                return Answer(200, self.mode, content_type="text/plain; charset=utf-8")
        return Answer(404, "404 page not found\n", content_type="text/plain; charset=utf-8")

    def _indicators(self) -> Iterator[str]:
        """What this port's health checks have said, which are one, once it was asked."""
        if self.pings:
            labels = 'name="ping",{}type="healthz"'
            name, help = "kubernetes_healthcheck", "Whether the health check passed when it was last asked"
            yield from head(name, "gauge", help, "STABLE")
            yield f"{name}{{{labels.format('')}}} 1"
            name, help = "kubernetes_healthchecks_total", "How often the health check came out so"
            yield from head(name, "counter", help, "STABLE")
            passed = 'status="success",'
            yield f"{name}{{{labels.format(passed)}}} {self.pings}"

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        state = self.state()
        each = [(f'ip_family="{family}"', counts) for family, counts in self.families.items()]

        def histograms(name: str, help: str, of: Callable[[FamilyCounts], Histogram]) -> Iterator[str]:
            yield from head(name, "histogram", help)
            for labels, counts in each:
                yield from of(counts).lines(name, labels)

        def values(name: str, kind: str, help: str, found: Sequence[tuple[str, float]]) -> Iterator[str]:
            yield from head(name, kind, help)
            for labels, value in found:
                yield f"{name}{{{labels}}} {number(value)}" if labels else f"{name} {number(value)}"

        p = "kubeproxy_"
        s = f"{p}sync_proxy_rules_"
        yield from histograms(f"{s}duration_seconds", "Time that one sync of the rules took", lambda c: c.all)
        yield from histograms(
            f"{p}sync_full_proxy_rules_duration_seconds", "Time that one sync of all rules took", lambda c: c.full
        )
        yield from histograms(
            f"{p}sync_partial_proxy_rules_duration_seconds",
            "Time that one sync of changed rules took",
            lambda c: c.partial,
        )
        yield from histograms(
            f"{p}network_programming_duration_seconds",
            "Time from a change of a Pod or Service to the rules that follow it",
            lambda c: c.programming,
        )
        yield from values(
            f"{s}last_timestamp_seconds", "gauge", "When rules were last written", [(i, c.last) for i, c in each]
        )
        yield from values(
            f"{s}last_queued_timestamp_seconds", "gauge", "When a sync was last asked for",
            [(i, c.queued) for i, c in each],
        )  # fmt: skip
        for what, total, pending in (
            ("endpoint", self.slice_changes, len(self.pending_slices)),
            ("service", self.service_changes, len(self.pending_services)),
        ):
            yield from values(f"{s}{what}_changes_total", "counter", f"Changes of {what}s", [("", total)])
            yield from values(f"{s}{what}_changes_pending", "gauge", f"Changes of {what}s not applied", [("", pending)])
        yield from self._no_local(f"{s}no_local_endpoints_total", state)
        failures = [(f'ip_family="{f}"', float(x.failures)) for f, x in state.items()]
        if self.mode == "nftables":
            yield from values(f"{s}nftables_sync_failures_total", "counter", "Syncs that failed", failures)
            none = [(i, 0.0) for i, _ in each]
            yield from values(f"{s}nftables_cleanup_failures_total", "counter", "Removals that failed", none)
        elif self.mode == "iptables":
            yield from values(f"{s}iptables_restore_failures_total", "counter", "Writes that failed", failures)
            partly = [(f'ip_family="{f}"', float(x.partial_failures)) for f, x in state.items()]
            help = "Writes of changes alone that failed; all rules are written after one"
            yield from values(f"{s}iptables_partial_restore_failures_total", "counter", help, partly)
            counts = [(f'ip_family="{f}",table="{rule.table}"', rule) for f, x in state.items() for rule in x.rules]
            for what, help, of in (
                ("total", "Rules of ours", "all"),
                ("last", "Rules that the last sync wrote", "last"),
            ):
                found = [(labels, float(getattr(rule, of))) for labels, rule in counts]
                yield from values(f"{s}iptables_{what}", "gauge", help, found)
        yield from histograms(
            f"{p}conntrack_reconciler_sync_duration_seconds", "Time that looking for stale flows took",
            lambda c: c.conntrack,
        )  # fmt: skip
        yield from values(
            f"{p}conntrack_reconciler_deleted_entries_total", "counter", "Stale flows that were forgotten",
            [(i, float(c.forgotten)) for i, c in each],
        )  # fmt: skip
        for path in ("healthz", "livez"):
            counted = [(f'code="{code}"', float(self.health[path, code])) for code in (200, 503)]
            yield from values(f"{p}proxy_{path}_total", "counter", f"Answers to /{path}", counted)

    @staticmethod
    def _no_local(name: str, state: Mapping[Family, FamilyState]) -> Iterator[str]:
        """Service ports whose traffic is dropped here for want of a local endpoint (PROXY-132)."""
        yield from head(name, "gauge", "Service ports whose policy Local finds no endpoint on this node")
        for family, stands in state.items():
            internal = external = 0
            for port in stands.ports:
                if port.usable and not port.local:
                    internal += port.internal_local
                    external += port.external_local
            for policy, count in (("internal", internal), ("external", external)):
                yield f'{name}{{ip_family="{family}",traffic_policy="{policy}"}} {count}'


def head(name: str, kind: str, help: str, stage: str = "ALPHA") -> tuple[str, str]:
    return f"# HELP {name} [{stage}] {help}", f"# TYPE {name} {kind}"
