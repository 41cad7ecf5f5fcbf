"""Controllers in the shadow of others: they write nothing, and tell what lasts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.event import EVENT
from kubesvc.api.meta import Object
from kubesvc.api.pod import POD
from kubesvc.clock import LoopClock
from kubesvc.controllers.shadow import Field, Report, compare, run_shadow

from .house import MINE, House, in_house

ONE, TWO = "10.1.0.1", "10.1.0.2"


@asynccontextmanager
async def shadow(house: House, names: Sequence[str] = MINE) -> AsyncIterator[list[Report]]:
    told: list[Report] = []
    clock = LoopClock(asyncio.get_running_loop())
    task = asyncio.create_task(
        run_shadow(house.client, names, told.append, clock=clock, random=random.Random(1), after_seconds=5.0)
    )
    try:
        yield told
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


def texts(told: Sequence[Report]) -> list[str]:
    return [line.partition(" ")[2] for report in told for line in report.lines()]


def test_beside_controllers_that_do_right_there_is_nothing_to_tell() -> None:
    async def story(house: House) -> None:
        house.start()
        async with shadow(house) as told:
            await house.service()
            for i in range(5):
                await house.pod(f"p{i}", f"10.1.0.{i + 1}")
                await house.settle(2)
            await house.status("p1", ready=False)
            await house.client.delete(POD, "p2", "ns")
            await house.settle(60)
            assert texts(told) == []

    in_house(story)


def test_alone_it_tells_what_is_missing_and_writes_nothing() -> None:
    async def story(house: House) -> None:
        async with shadow(house) as told, house.counting(ENDPOINTS, ENDPOINT_SLICE, EVENT) as seen:
            await house.service()
            await house.pod("a", ONE)
            await house.settle(600)
            assert texts(told) == [
                "endpointslice-controller ns/web: would create EndpointSlice web-…",
                "endpoints-controller ns/web: would create Endpoints web",
            ]
            await house.pod("b", TWO)
            await house.settle(600)
            assert len(told) == 4  # what is missing has changed
            assert seen == {"Endpoints": [], "EndpointSlice": [], "Event": []}
            house.start()
            await house.settle(60)
            assert sorted(texts(told[4:])) == [
                "endpoints-controller ns/web: agrees again",
                "endpointslice-controller ns/web: agrees again",
            ]

    in_house(story)


def test_every_field_of_every_object_that_is_wrong_is_told() -> None:
    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.settle(5)
        await house.stop()
        [found] = await house.slices()
        found["endpoints"][0]["conditions"]["ready"] = False
        await house.client.update(ENDPOINT_SLICE, found)
        stray: Object = {**found, "metadata": {k: v for k, v in found["metadata"].items() if k == "labels"}}
        stray["metadata"]["generateName"] = "web-"
        stray["ports"] = [{"name": "", "port": 9, "protocol": "TCP"}]
        await house.client.create(ENDPOINT_SLICE, stray, "ns")
        async with shadow(house) as told:
            await house.settle(60)
            [report] = told
            assert sorted(w.verb for w in report.writes) == ["delete", "update"]
            lines = [line.strip() for line in report.lines()]
            assert "endpoints[0].conditions.ready: found False, wanted True" in lines
            shown = report.as_json()
            assert (shown["state"], shown["controller"], shown["key"]) == (
                "differs", "endpointslice-controller", "ns/web",
            )  # fmt: skip

    in_house(story)


def test_troubled_reads_are_no_differences() -> None:
    async def story(house: House) -> None:
        house.start()
        house.trouble.late_seconds = {ENDPOINT_SLICE: 1.0, POD: 0.5}
        async with shadow(house) as told:
            await house.service()
            for i in range(40):
                await house.pod(f"p{i}", f"10.1.0.{i + 1}")
                await house.settle(0.7)
            await house.settle(60)
            assert texts(told) == []

    in_house(story)


def test_compare() -> None:
    found = {"a": [1, 2], "b": {"c": None}, "d": "x"}
    wanted = {"a": [1, 3, 4], "b": {}, "e": "y"}
    assert list(compare("", found, wanted)) == [
        Field("a[1]", 2, 3), Field("a[2]", "<none>", 4), Field("d", "x", "<none>"), Field("e", "<none>", "y"),
    ]  # fmt: skip
