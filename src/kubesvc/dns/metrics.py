"""What the DNS server counts, under CoreDNS' names where it has one (DNS-57), and the ports where that and its health
are read: /health on 8080, /ready on 8181, /metrics on 9153.

Counting costs the hot path little: kept responses count their own use, and are asked when somebody reads; only the time
an answer takes is looked at each time.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.service import Service
from kubesvc.clock import parse_rfc3339

from .durations import BOUNDS, Durations
from .responder import Responder

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
PROGRAMMING_BUCKETS = tuple(0.001 * 2**k for k in range(20))
REQUEST_SECONDS = 5.0
LONGEST_REQUEST_BYTES = 8192
REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}
PLAIN = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Programming:
    """Time from a change to the names that follow it, by the kind of Service."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.counts: dict[str, list[int]] = {}
        self.sums: Counter[str] = Counter()

    def observe(self, service: Service | None, s: EndpointSlice, now: float) -> None:
        """A slice that has come in; those without a trigger time, or with one before the start, are not heeded."""
        try:
            at = parse_rfc3339(s.metadata.annotation(TRIGGER_TIME))
        except ValueError:
            return
        if service is None or at < self.started:
            return
        kind = "cluster_ip"
        if service.headless:
            kind = "headless_with_selector" if service.spec.selector else "headless_without_selector"
        seconds = max(0.0, now - at)
        counts = self.counts.setdefault(kind, [0] * (len(PROGRAMMING_BUCKETS) + 1))
        counts[bisect_left(PROGRAMMING_BUCKETS, seconds)] += 1
        self.sums[kind] += seconds  # type: ignore[assignment]

    def lines(self) -> Iterator[str]:
        name = "coredns_kubernetes_dns_programming_duration_seconds"
        yield from head(name, "histogram", "Time from a change of endpoints to the names that follow it.")
        for kind, counts in sorted(self.counts.items()):
            yield from histogram(name, f'service_kind="{kind}"', PROGRAMMING_BUCKETS, counts, self.sums[kind])


class DnsMetrics:
    """Reads the counters of a server's parts.

    server:  what the label `server` says, dns://:53
    dropped: how many datagrams got no answer: limited per source, or not to be sent
    durations: how long answers took
    """

    def __init__(
        self,
        responder: Responder,
        programming: Programming,
        server: str,
        dropped: Callable[[], tuple[int, int]],
        durations: Durations,
    ) -> None:
        self.durations = durations
        self.responder = responder
        self.programming = programming
        self.server = server
        self.dropped = dropped

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        zone, server = self.responder.zone.text + ".", self.server
        where = f'server="{server}",zone="{zone}",view=""'
        requests, responses = self.responder.totals()
        name = "coredns_dns_requests_total"
        yield from head(name, "counter", "Queries.")
        for (proto, type_), count in sorted(requests.items()):
            yield f'{name}{{{where},proto="{proto}",type="{type_}"}} {count}'
        name = "coredns_dns_responses_total"
        yield from head(name, "counter", "Responses.")
        for (rcode, plugin), count in sorted(responses.items()):
            yield f'{name}{{{where},rcode="{rcode}",plugin="{plugin}"}} {count}'
        name = "coredns_dns_request_duration_seconds"
        yield from head(name, "histogram", "Time from a query to its answer.")
        yield from histogram(name, where, BOUNDS, self.durations.counts, self.durations.sum)
        counts = self.responder.counts
        yield from single("coredns_panics_total", "Queries that met a bug.", counts["panics"])
        forwarder = self.responder.forwarder
        cache = getattr(forwarder, "cache", None)
        if cache is not None:
            entry = f'server="{server}",zones=".",view=""'
            yield from head("coredns_cache_entries", "gauge", "Responses of other resolvers that are kept.")
            yield f'coredns_cache_entries{{{entry},type="success"}} {len(cache.entries)}'
            yield from head("coredns_cache_hits_total", "counter", "Forwarded queries answered from what was kept.")
            yield f'coredns_cache_hits_total{{{entry},type="success"}} {cache.hits}'
            yield from head("coredns_cache_misses_total", "counter", "Forwarded queries that others were asked.")
            yield f"coredns_cache_misses_total{{{entry}}} {cache.misses}"
            rejected = "coredns_forward_max_concurrent_rejects_total"
            yield from single(rejected, "Queries refused because too many waited.", counts["overloaded"])
        limited, lost = self.dropped()
        yield from single("kubesvc_dns_limited_total", "Datagrams of one source beyond its share.", limited)
        yield from single("kubesvc_dns_unsent_total", "Responses that could not be sent.", lost)
        yield from self.programming.lines()


def head(name: str, kind: str, help: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"


def single(name: str, help: str, value: int) -> Iterator[str]:
    yield from head(name, "counter", help)
    yield f"{name} {value}"


def histogram(name: str, labels: str, bounds: Sequence[float], counts: Sequence[int], sum: float) -> Iterator[str]:
    """The series of one set of labels; `counts` has one more than `bounds`, for all that lies beyond."""
    total = 0
    for bound, count in zip((*(f"{b:.12g}" for b in bounds), "+Inf"), counts, strict=True):
        total += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
    yield f"{name}_sum{{{labels}}} {sum:.12g}"
    yield f"{name}_count{{{labels}}} {total}"


Page = Callable[[str], tuple[int, str, str]]
"""From a path to status, content type and body."""


def health_page(path: str) -> tuple[int, str, str]:
    """Whether the process lives; that it answers is the answer."""
    return (200, PLAIN, "OK") if path == "/health" else (404, PLAIN, "404 page not found\n")


def ready_page(ready: Callable[[], bool]) -> Page:
    """Whether cluster names get true answers; what is not ready is named."""

    def page(path: str) -> tuple[int, str, str]:
        if path != "/ready":
            return 404, PLAIN, "404 page not found\n"
        return (200, PLAIN, "OK") if ready() else (503, PLAIN, "kubernetes")

    return page


def metrics_page(metrics: DnsMetrics) -> Page:
    def page(path: str) -> tuple[int, str, str]:
        return (200, EXPOSITION, metrics.text()) if path == "/metrics" else (404, PLAIN, "404 page not found\n")

    return page


async def serve_page(address: str, port: int, page: Page, *, shared: bool = False) -> asyncio.Server:
    """Answer HTTP requests, each on a connection of its own. OSError if the port is taken; `shared` lets the workers of
    one server have it together."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                words = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split()
                path = words[1].decode(errors="replace").partition("?")[0] if len(words) > 1 else "/"
                status, kind, body = page(path)
                raw = body.encode()
                heading: Sequence[str] = (
                    f"HTTP/1.1 {status} {REASONS[status]}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(raw)}",
                    "Connection: close",
                )
                writer.write("\r\n".join(heading).encode() + b"\r\n\r\n" + raw)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away or never asked
        finally:
            writer.close()

    return await asyncio.start_server(
        serve, address, port, limit=LONGEST_REQUEST_BYTES, reuse_port=True if shared else None
    )
