"""What controllers count, under upstream's names: syncs and writes of slices, and how work waits in queues.

Where it is served: beside the API server's own metrics in `kubesvc up`, and on a loopback port of its own by
`kubesvc controllers --metrics-port`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesvc.api.meta import Object
from kubesvc.client.interface import Answer
from kubesvc.client.metrics import Histogram, Labels, Metrics, exponential
from kubesvc.client.workqueue import Key, WorkQueue

if TYPE_CHECKING:
    from .slice_plan import SlicePlan

QUEUES = {
    "endpoints-controller": "endpoint",
    "endpointslice-controller": "endpoint_slice",
    "endpointslice-mirroring-controller": "endpoint_slice_mirroring",
    "replicationcontroller-controller": "replicationmanager",
    "root-ca-certificate-publisher-controller": "root_ca_cert_publisher",
    "ttl-after-finished-controller": "ttl_jobs_to_delete",
    "garbage-collector-controller": "garbage_collector_attempt_to_delete",
    "node-lifecycle-controller": "node_lifecycle_controller",
}
"""Upstream's names of queues where they are not the controller's without its ending."""
PER_SYNC = exponential(2, 2, 15)
CHANGED_PER_SYNC = exponential(1, 2, 8)  # of slices
SLICES, MIRRORED = "endpoint_slice_controller", "endpoint_slice_mirroring_controller"
ENDPOINTS = "kubesvc_endpoints_controller"
"""Upstream counts nothing of the Endpoints controller but its queue."""


def queue_name(controller: str) -> str:
    return QUEUES.get(controller, controller.removesuffix("-controller"))


def watch_queues(metrics: Metrics, queues: Mapping[str, WorkQueue]) -> None:
    """Register upstream's workqueue metrics over these queues, by their names."""

    def numbers(of: Callable[[WorkQueue], float]) -> Callable[[], dict[Labels, float]]:
        return lambda: {(name,): of(queue) for name, queue in queues.items()}

    def spread(of: Callable[[WorkQueue], Histogram]) -> Callable[[], Histogram]:
        def merged() -> Histogram:
            whole = Histogram(next(iter(queues.values())).waits.bounds)
            for name, queue in queues.items():
                for counts in of(queue).counts.values():
                    whole.counts[(name,)], whole.sums[(name,)] = counts, of(queue).sums[()]
            return whole

        return merged

    if not queues:
        return
    label = ("name",)
    metrics.read("workqueue_depth", "Keys ready to be worked on.", "gauge", label, numbers(len))
    metrics.read("workqueue_adds_total", "Keys added.", "counter", label, numbers(lambda q: q.adds))
    metrics.read(
        "workqueue_retries_total", "Keys that come back later.", "counter", label, numbers(lambda q: q.retries)
    )
    text = "Seconds that work in progress has taken so far."
    metrics.read("workqueue_unfinished_work_seconds", text, "gauge", label, numbers(lambda q: sum(q.under_way())))
    text = "Seconds that the longest running worker has been at its key."
    longest = numbers(lambda q: max(q.under_way(), default=0.0))
    metrics.read("workqueue_longest_running_processor_seconds", text, "gauge", label, longest)
    text = "Seconds that keys waited, from ready to taken."
    metrics.read("workqueue_queue_duration_seconds", text, "histogram", label, spread(lambda q: q.waits))
    text = "Seconds that keys were worked on."
    metrics.read("workqueue_work_duration_seconds", text, "histogram", label, spread(lambda q: q.works))


class WriteMetrics:
    """How much a controller of endpoints writes: `changes` by operation and, under a name of our own since upstream
    has none, the bytes of the objects, as long as every watcher gets them."""

    def __init__(self, metrics: Metrics, prefix: str, what: str) -> None:
        operation = ("operation",)
        text = f"{what} written, by what was done."
        own = prefix.startswith("kubesvc_")
        self.changes = metrics.counter(f"{prefix}_changes{'_total' if own else ''}", text, operation)
        text = f"Bytes of the {what} written, by what was done."
        self.bytes = metrics.counter(f"{'' if own else 'kubesvc_'}{prefix}_written_bytes_total", text, operation)

    def wrote(self, operation: str, answer: Object | None = None) -> None:
        """Count one write that succeeded. answer: what the server answered, None for a delete"""
        self.changes.add((operation,))
        if isinstance(answer, Answer):
            self.bytes.add((operation,), answer.size_bytes)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """One Service's slices: how many endpoints they hold, how many they are, and how few they could be."""

    endpoints: int
    slices: int
    fewest: int


class SliceMetrics:
    """What one controller of slices counts; `prefix` is SLICES or MIRRORED."""

    def __init__(self, metrics: Metrics, prefix: str) -> None:
        self.known: dict[Key, Efficiency] = {}
        self.distributions: dict[Key, str] = {}
        text = "Endpoints added on each sync."
        self.added = metrics.histogram(f"{prefix}_endpoints_added_per_sync", text, PER_SYNC)
        text = "Endpoints removed on each sync."
        self.removed = metrics.histogram(f"{prefix}_endpoints_removed_per_sync", text, PER_SYNC)
        self.writes = WriteMetrics(metrics, prefix, "Slices")

        def total(of: Callable[[Efficiency], int]) -> Callable[[], dict[Labels, float]]:
            return lambda: {(): float(sum(of(e) for e in self.known.values()))}

        text = "Endpoints that should be in slices."
        metrics.read(f"{prefix}_endpoints_desired", text, "gauge", (), total(lambda e: e.endpoints))
        text = "Slices that there are."
        metrics.read(f"{prefix}_num_endpoint_slices", text, "gauge", (), total(lambda e: e.slices))
        text = "Slices that there would be with all of them full."
        metrics.read(f"{prefix}_desired_endpoint_slices", text, "gauge", (), total(lambda e: e.fewest))
        if prefix != SLICES:
            return
        self.syncs = metrics.counter(f"{prefix}_syncs", "Syncs by their result.", ("result",))
        self.changed = metrics.histogram(
            f"{prefix}_endpointslices_changed_per_sync",
            "Slices changed on each sync.",
            CHANGED_PER_SYNC,
            ("topology", "traffic_distribution"),
        )
        metrics.read(
            f"{prefix}_services_count_by_traffic_distribution",
            "Services by their traffic distribution.",
            "gauge",
            ("traffic_distribution",),
            self.count_distributions,
        )

    def count_distributions(self) -> dict[Labels, float]:
        found: dict[Labels, float] = {}
        for distribution in self.distributions.values():
            found[(distribution,)] = found.get((distribution,), 0.0) + 1
        return found

    def planned(self, key: Key, plans: Sequence[SlicePlan], limit: int) -> None:
        """Note what a sync of one Service is about to write. limit: most endpoints in a slice"""
        after = [s for plan in plans for s in (*plan.create, *plan.update, *plan.unchanged)]
        groups: dict[object, int] = {}
        for s in after:
            group = (s.address_type, tuple((p.name, p.port, p.protocol) for p in s.ports or ()))
            groups[group] = groups.get(group, 0) + len(s.endpoints or ())
        fewest = sum(-(-count // limit) for count in groups.values())
        self.known[key] = Efficiency(sum(groups.values()), len(after), fewest)
        self.added.observe(sum(p.added for p in plans))
        self.removed.observe(sum(p.removed for p in plans))

    def forget(self, key: Key) -> None:
        self.known.pop(key, None)
        self.distributions.pop(key, None)


# -------------------------------------------------------------------- serving

LONGEST_REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0


async def serve_metrics(render: Callable[[], str], port: int, host: str = "127.0.0.1") -> None:
    """Answer GET /metrics and /healthz in plain HTTP until cancelled; OSError if the port cannot be listened on."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            closing(writer),
            suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError),
        ):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].partition(b"?")[0]
                status, body = reply(path, render)
                kind = "text/plain; version=0.0.4; charset=utf-8"
                text = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                writer.write(text.encode() + b"Connection: close\r\n\r\n" + body)
                await writer.drain()

    server = await asyncio.start_server(answer, host, port, limit=LONGEST_REQUEST_BYTES)
    async with server:
        await server.serve_forever()


def reply(path: bytes, render: Callable[[], str]) -> tuple[str, bytes]:
    if path == b"/metrics":
        return "200 OK", render().encode()
    return ("200 OK", b"ok") if path == b"/healthz" else ("404 Not Found", b"there are /metrics and /healthz\n")
