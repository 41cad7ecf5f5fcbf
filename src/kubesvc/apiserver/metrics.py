"""Counters of the server, printed in the exposition format with upstream's names. No library is needed for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Metrics:
    """Plain counters; adding to one costs a dictionary access."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str, str]] = Counter()  # verb, group, resource, code
        self.seconds: Counter[tuple[str, str]] = Counter()  # verb, resource
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def request(self, verb: str, group: str, resource: str, code: int, seconds: float) -> None:
        self.requests[verb, group, resource, str(code)] += 1
        self.seconds[verb, resource] += seconds  # type: ignore[assignment]

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a value that is read at each scrape."""
        self.gauges[name] = (text, read)

    def render(self) -> str:
        """The text of /metrics."""
        lines = [
            "# HELP apiserver_request_total Requests by verb, group, resource and HTTP status.",
            "# TYPE apiserver_request_total counter",
        ]
        for (verb, group, resource, code), count in sorted(self.requests.items()):
            labels = f'code="{code}",group="{group}",resource="{resource}",verb="{verb.upper()}"'
            lines.append(f"apiserver_request_total{{{labels}}} {count}")
        lines.append("# HELP apiserver_request_duration_seconds_sum Seconds spent in requests.")
        lines.append("# TYPE apiserver_request_duration_seconds_sum counter")
        for (verb, resource), seconds in sorted(self.seconds.items()):
            lines.append(
                f'apiserver_request_duration_seconds_sum{{resource="{resource}",verb="{verb.upper()}"}} {seconds:.6f}'
            )
        for name, (text, read) in sorted(self.gauges.items()):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        return "\n".join(lines) + "\n"
