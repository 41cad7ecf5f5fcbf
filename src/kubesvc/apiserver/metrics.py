"""Counters of the server, printed in the exposition format with upstream's names. No library is needed for that.

Labels come from a closed set: what no kind of the API is called goes without a name, so that strangers cannot make
the server remember whatever they ask for.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_resource
from kubesvc.client.metrics import Histogram, Labels, braces, histogram_lines

from .discovery import CREATE_ONLY
from .routing import Target

BUCKETS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
)  # fmt: skip
"""Upper bounds of request durations, seconds."""
SIZE_BUCKETS = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
"""Upper bounds of answers, bytes."""
EVENT_BUCKETS = tuple(1024.0 * 2**n for n in range(8))
"""Upper bounds of watch events, bytes."""
STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
VERBS = {
    "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETECOLLECTION",
    "get": "GET", "list": "LIST", "watch": "WATCH", "post": "POST", "put": "PUT", "head": "GET",
}  # fmt: skip
VIRTUAL = frozenset((c.group, c.version, c.plural) for c in CREATE_ONLY)
PATHS = frozenset({"/livez", "/readyz", "/healthz", "/version", "/metrics", "/openapi/v2", "/openapi/v3"})

EVENT_LABELS = ("group", "version", "resource")
REQUEST_LABELS = ("dry_run", "group", "resource", "scope", "subresource", "verb", "version")


def request_labels(
    target: Target,
    *,
    applying: bool = False,
    dry_run: bool = False,
    find: Callable[[str, str, str], Kind | None] = by_resource,
) -> Labels:
    """What a request is counted under, in the order of REQUEST_LABELS."""
    verb = "APPLY" if applying else VERBS.get(target.verb, "other")
    dry = "All" if dry_run else ""
    if not target.is_resource:
        return (dry, "", "", "", target.path if target.path in PATHS else "", verb, "")
    kind = find(target.group, target.version, target.resource)
    if kind is None and (target.group, target.version, target.resource) not in VIRTUAL:
        return (dry, "", "", "", "", verb, "")
    scope = "resource" if target.name else "namespace" if target.namespace else "cluster"
    sub = target.subresource
    known = sub if kind is not None and any(s.name == sub for s in kind.subresources) else ""
    return (dry, target.group, target.resource, scope, known, verb, target.version)


Reading = float | Mapping[str, float] | Mapping[Labels, float] | Mapping[tuple[str, str], float]


class Metrics:
    """Plain counters; adding to one costs a dictionary access."""

    def __init__(self) -> None:
        self.requests: Counter[Labels] = Counter()  # REQUEST_LABELS and the code
        self.durations = Histogram(BUCKETS)
        self.sizes = Histogram(SIZE_BUCKETS)
        self.store = Histogram(STORE_BUCKETS)
        self.events = Histogram(EVENT_BUCKETS)
        """Bytes of each event sent to each watcher over HTTP, by group, version and resource."""
        self.attempts: Counter[str] = Counter()
        """Requests by whether their sender could be told: success, failure or error."""
        self.readings: dict[str, tuple[str, str, tuple[str, ...], Callable[[], Reading]]] = {}
        self.others: list[Callable[[], str]] = []
        """What other parts of the process have to tell, printed after the server's own."""
        self.gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes)
        self.gauge("process_open_fds", "Open file descriptors.", lambda: len(os.listdir("/proc/self/fd")))
        self.gauge("process_start_time_seconds", "When the process started, since 1970.", start_seconds)
        self.counter("process_cpu_seconds_total", "CPU time spent.", cpu_seconds)

        self.gauge("process_virtual_memory_bytes", "Virtual memory.", virtual_bytes)
        self.gauge("process_max_fds", "Most open file descriptors.", most_descriptors)
        self.counter("authentication_attempts", "Requests by whether their sender is known.", self.tried, "result")

    def tried(self) -> Mapping[str, float]:
        return dict(self.attempts)

    def request(self, labels: Labels, code: int, seconds: float, size: int = 0) -> None:
        """Count one finished request. `size`: bytes of its answer, 0 for one that is not told."""
        self.requests[(*labels, str(code))] += 1
        self.durations.observe(seconds, labels)
        if size and labels[5] in ("GET", "LIST"):
            self.sizes.observe(size, labels[1:])

    def stored(self, operation: str, key: str, seconds: float) -> None:
        """Count one answer of the store, by the kind that its key, or the beginning of keys, is about."""
        _, _, group, resource, *_ = (*key.split("/", 4), "", "", "", "")
        self.store.observe(seconds, (operation, "" if group == "core" else group, resource))

    def gauge(self, name: str, text: str, read: Callable[[], Reading], *labels: str) -> None:
        """Register a value that is read at each scrape; a mapping gives one value for each set of values of `labels`,
        a text for a single label."""
        self.readings[name] = (text, "gauge", labels, read)

    def counter(self, name: str, text: str, read: Callable[[], Reading], *labels: str) -> None:
        """As `gauge`, for what only grows."""
        self.readings[name] = (text, "counter", labels, read)

    def render(self) -> str:
        """The text of /metrics."""
        name = "apiserver_request_total"
        lines = [f"# HELP {name} Requests by what was asked and how it ended.", f"# TYPE {name} counter"]
        for (*labels, code), count in sorted(self.requests.items()):
            said = braces((("code", code), ("component", "apiserver"), *zip(REQUEST_LABELS, labels, strict=True)))
            lines.append(f"{name}{said} {count}")
        name = "apiserver_request_duration_seconds"
        lines += [f"# HELP {name} Seconds from a request's arrival to its answer.", f"# TYPE {name} histogram"]
        lines += histogram_lines(name, REQUEST_LABELS, self.durations)
        name = "apiserver_response_sizes"
        lines += [f"# HELP {name} Bytes of answers to readers.", f"# TYPE {name} histogram"]
        lines += histogram_lines(name, REQUEST_LABELS[1:], self.sizes)
        name = "etcd_request_duration_seconds"
        lines += [f"# HELP {name} Seconds in which the store answered.", f"# TYPE {name} histogram"]
        lines += histogram_lines(name, ("operation", "group", "resource"), self.store)
        name = "apiserver_watch_events_sizes"
        lines += [f"# HELP {name} Bytes of events sent to watchers.", f"# TYPE {name} histogram"]
        lines += histogram_lines(name, EVENT_LABELS, self.events)
        for name, (text, type, names, read) in sorted(self.readings.items()):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {type}"]
            found = read()
            if isinstance(found, Mapping):
                for values, number in sorted(found.items()):
                    each = (values,) if isinstance(values, str) else values
                    lines.append(f"{name}{braces(zip(names, each, strict=True))} {number:.15g}")
            else:
                lines.append(f"{name} {found:.15g}")
        return "\n".join(lines) + "\n" + "".join(render() for render in self.others)


def resident_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def virtual_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def most_descriptors() -> float:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def start_seconds() -> float:
    """From the kernel's record of this process and of its own start."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:6] == "btime ")
    return booted + ticks / os.sysconf("SC_CLK_TCK")
