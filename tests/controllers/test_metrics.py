"""What controllers count is what was done, under upstream's names, and can be scraped."""

from __future__ import annotations

import asyncio
import random
import re

import msgspec

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.client.metrics import Metrics, exponential
from kubesvc.clock import LoopClock
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.controllers.metrics import reply, serve_metrics
from tests.freeports import free_port

from .house import House, in_house

SERIES = re.compile(r"(\w+)(\{.*\})? (\S+)")


def read(text: str) -> dict[str, float]:
    """Series with their labels, as text, to their values; every line must be a comment or a series."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            match = SERIES.fullmatch(line)
            assert match is not None, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_the_format() -> None:
    metrics = Metrics()
    metrics.counter("b_total", "Bs.", ("of",)).add(('a "quoted"\nname',), 2)
    metrics.gauge("c", "Cs.").set(1.5)
    histogram = metrics.histogram("a_seconds", "As.", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert metrics.render().splitlines() == [
        "# HELP a_seconds As.",
        "# TYPE a_seconds histogram",
        'a_seconds_bucket{le="1"} 2',
        'a_seconds_bucket{le="2"} 3',
        'a_seconds_bucket{le="+Inf"} 4',
        "a_seconds_sum 12",
        "a_seconds_count 4",
        "# HELP b_total Bs.",
        "# TYPE b_total counter",
        'b_total{of="a \\"quoted\\"\\nname"} 2',
        "# HELP c Cs.",
        "# TYPE c gauge",
        "c 1.5",
    ]
    assert exponential(2, 2, 3) == (2, 4, 8)


def test_slices_and_queues_are_counted() -> None:
    async def story(house: House) -> None:
        metrics = Metrics()
        clock = LoopClock(asyncio.get_running_loop())
        settings = ControllerSettings(max_endpoints_per_slice=2)
        names = ("endpoints", "endpointslice", "endpointslice-mirroring")
        running = asyncio.create_task(
            run_controllers(
                house.client, names, clock=clock, random=random.Random(1), settings=settings, metrics=metrics
            )
        )
        await house.settle(1)
        await house.service(trafficDistribution="PreferSameZone")
        for n in range(1, 4):
            await house.pod(f"p{n}", f"10.1.0.{n}")
        await house.settle(3)
        before = read(metrics.render())
        async with house.counting(ENDPOINT_SLICE, ENDPOINTS) as seen:
            await house.status("p1", ready=False)
            await house.settle(3)
        assert len(seen["EndpointSlice"]) == 1 == len(seen["Endpoints"])
        said = read(metrics.render())
        for kind, series in (
            (ENDPOINT_SLICE, 'kubesvc_endpoint_slice_controller_written_bytes_total{operation="update"}'),
            (ENDPOINTS, 'kubesvc_endpoints_controller_written_bytes_total{operation="update"}'),
        ):
            stored = await house.client.get(kind, seen[kind.name][0].removeprefix("MODIFIED "), "ns")
            del stored["metadata"]["resourceVersion"]
            assert said[series] - before.get(series, 0) == len(msgspec.json.encode(stored)), "as stored, byte by byte"
        prefix = "endpoint_slice_controller_"
        assert said[prefix + "num_endpoint_slices"] == 2 == said[prefix + "desired_endpoint_slices"]
        assert said[prefix + "endpoints_desired"] == 3
        changes = {o: said.get(f'{prefix}changes{{operation="{o}"}}', 0) for o in ("create", "update", "delete")}
        slices = await house.slices()
        assert changes["create"] == len(slices) == 2 and changes["delete"] == 0
        generations = sum(s["metadata"]["generation"] - 1 for s in slices)
        assert changes["update"] == generations
        assert said[prefix + 'services_count_by_traffic_distribution{traffic_distribution="PreferSameZone"}'] == 1
        assert said[prefix + 'syncs{result="success"}'] >= 2
        assert said[prefix + "endpoints_added_per_sync_sum"] == 3
        assert said["kubesvc_" + prefix + 'written_bytes_total{operation="create"}'] > 0
        endpoints = "kubesvc_endpoints_controller_"
        updates = said[endpoints + 'changes_total{operation="update"}']
        assert said[endpoints + 'changes_total{operation="create"}'] == 1 <= updates
        assert said[endpoints + 'syncs_total{result="success"}'] >= 1 + updates
        changed = (
            prefix + 'endpointslices_changed_per_sync_sum{topology="Disabled",traffic_distribution="PreferSameZone"}'
        )
        assert said[changed] == changes["create"] + changes["update"]
        adds = said['workqueue_adds_total{name="endpoint_slice"}']
        assert (
            said['workqueue_work_duration_seconds_count{name="endpoint_slice"}']
            >= said[prefix + 'syncs{result="success"}']
        )
        assert adds >= said['workqueue_queue_duration_seconds_count{name="endpoint_slice"}'] > 0
        assert said['workqueue_depth{name="endpoint"}'] == 0
        assert {"workqueue_retries_total", "endpoint_slice_mirroring_controller_num_endpoint_slices"} <= {
            name.partition("{")[0] for name in said
        }
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


def test_a_port_answers_scrapes() -> None:
    async def story() -> None:
        metrics = Metrics()
        metrics.gauge("up", "Up.").set(1)
        port = free_port()
        server = asyncio.create_task(serve_metrics(metrics.render, port))
        for path in ("/metrics", "/metrics?x", "/healthz"):
            async with asyncio.timeout(60):
                while True:
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        break
                    except ConnectionRefusedError:
                        await asyncio.sleep(0.01)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith((b"up 1\n", b"\r\n\r\nok"))
            writer.close()
        server.cancel()
        await asyncio.wait([server])
        assert reply(b"/metrics", metrics.render)[1].endswith(b"up 1\n")
        assert reply(b"/healthz", metrics.render) == ("200 OK", b"ok")
        assert reply(b"/else", metrics.render)[0] == "404 Not Found"

    asyncio.run(story())
