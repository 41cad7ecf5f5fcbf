"""How much is written for a change: never more than the rules ask for, whatever history came before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE, Endpoint, EndpointSlice
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import POD
from kubesvc.api.meta import plain
from kubesvc.controllers.slice_plan import SlicePlan, identity, plan_slices, recycled, service_frame

from .builders import HTTP, address, pod, service
from .builders import endpoint as endpoint_of
from .house import House, in_house
from .packing import Written, packed

FRAME = service_frame(service(), "IPv4")


class Shop:
    """The slices of one Service as the planner writes them, sync after sync."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.slices: dict[str, EndpointSlice] = {}
        self.made = 0
        self.bytes = 0

    def sync(self, endpoints: Sequence[Endpoint]) -> list[Written]:
        """One sync; what it wrote, in the words of `packed`."""
        wanted = {HTTP: {identity(e): e for e in endpoints}} if endpoints else {}
        plan = recycled(plan_slices(FRAME, wanted, list(self.slices.values()), self.limit), FRAME.owner.uid)
        return self.write(plan)

    def write(self, plan: SlicePlan) -> list[Written]:
        written: list[Written] = []
        for s in plan.delete:
            del self.slices[s.name]
            written.append(("delete", s.name, 0))
        for s in plan.update:
            self.slices[s.name] = s
            written.append(("update", s.name, len(s.endpoints or ())))
        for s in plan.create:
            self.made += 1
            meta = msgspec.structs.replace(s.metadata, name=f"web-{self.made:05}")
            self.slices[meta.name] = msgspec.structs.replace(s, metadata=meta)
            written.append(("create", "", len(s.endpoints or ())))
        self.bytes += sum(len(msgspec.json.encode(plain(s))) for s in (*plan.update, *plan.create))
        return sorted(written)

    def content(self) -> dict[str, list[str]]:
        return {n: [e.target_ref.name for e in s.endpoints or () if e.target_ref] for n, s in self.slices.items()}


ENDPOINTS_OF: dict[tuple[int, bool], Endpoint] = {}


def endpoint(number: int, ready: bool = True) -> Endpoint:
    if (number, ready) not in ENDPOINTS_OF:
        ENDPOINTS_OF[number, ready] = endpoint_of(number, ready=ready)
    return ENDPOINTS_OF[number, ready]


STEP = st.dictionaries(st.integers(0, 14), st.booleans(), max_size=15)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=8), st.integers(1, 5))
def test_each_sync_writes_what_the_rules_give(history: list[dict[int, bool]], limit: int) -> None:
    """SLICE-19 to SLICE-26: which slices, and how full, for any history of one port group."""
    shop, before = Shop(limit), dict[int, bool]()
    for step in history:
        there = shop.content()
        # The placeholder has no ports: it belongs to the group of pods without any, which only the planner sees.
        placeholder = [n for n, s in shop.slices.items() if not s.ports]
        existing = {n: names for n, names in there.items() if n not in placeholder}
        moved = [f"p{n:05}" for n, ready in step.items() if before.get(n, ready) != ready]
        expected = packed(existing, [f"p{n:05}" for n in step], moved, limit)
        if placeholder and step:  # it is to go, and the last slice to come takes over its name (SLICE-26)
            index = max(i for i, w in enumerate(expected) if w[0] == "create")
            counts = [w[2] for w in expected if w[0] == "create"]
            expected = [w for w in expected if w[0] != "create"]
            expected += [("create", "", c) for c in sorted(counts)[1:]]
            expected.append(("update", placeholder[0], sorted(counts)[0]))
            assert index >= 0
        elif not step and not existing and not placeholder:
            expected = [("create", "", 0)]
        assert shop.sync([endpoint(n, ready) for n, ready in step.items()]) == sorted(expected)
        before = step


def test_a_rolling_update_writes_no_more_bytes_than_the_rules_ask_for() -> None:
    """5,000 Pods, 25 replaced in each sync: as many slices and bytes as counted apart; and what batching saves."""
    count, limit = 5000, 100
    costs: dict[int, tuple[int, int]] = {}
    for batch in (25, 500):
        shop = Shop(limit)
        live = list(range(count))
        shop.sync([endpoint(n) for n in live])
        shop.bytes, writes, expected_writes, expected_bytes = 0, 0, 0, 0
        chance = random.Random(7)
        total = 1000
        for start in range(0, total, batch):
            leaving = sorted(chance.sample(range(len(live)), batch), reverse=True)
            for index in leaving:
                del live[index]
            live += range(count + start, count + start + batch)
            expected = packed(shop.content(), [f"p{n:05}" for n in live], (), limit)
            written = shop.sync([endpoint(n) for n in live])
            assert [(v, c) for v, _, c in written] == [(v, c) for v, _, c in expected]
            writes += len(written)
            expected_writes += len(expected)
            expected_bytes += sum(size_of(c) for _, _, c in expected)
        assert writes == expected_writes
        assert shop.bytes == pytest.approx(expected_bytes, rel=0.01)
        costs[batch] = writes, shop.bytes
    assert costs[500][0] < costs[25][0] / 4 and costs[500][1] < costs[25][1] / 4


def size_of(count: int) -> int:
    """Bytes of a slice of so many endpoints of usual names and addresses."""
    empty, one = Shop(100), Shop(100)
    empty.sync([])
    one.sync([endpoint(5000)])
    [bare], [single] = empty.slices.values(), one.slices.values()
    each = len(msgspec.json.encode(plain((single.endpoints or [])[0]))) + 1
    ports = len(msgspec.json.encode(plain(single))) - len(msgspec.json.encode(plain(bare))) - each
    return len(msgspec.json.encode(plain(bare))) + ports + each * count


# -------------------------------------------------------------------- on a real server


class Meter:
    """Counts the watch events of some kinds and their bytes while it runs."""

    def __init__(self, house: House, *kinds: Kind) -> None:
        self.house = house
        self.kinds = kinds
        self.events: dict[str, int] = {k.name: 0 for k in kinds}
        self.bytes: dict[str, int] = {k.name: 0 for k in kinds}
        self.tasks: list[asyncio.Task[None]] = []

    async def follow(self, kind: Kind, version: str) -> None:
        stream = self.house.client.watch(kind, "ns", resource_version=version, bookmarks=False)
        async with aclosing(cast(Any, stream)) as events:
            async for event in events:
                self.events[kind.name] += 1
                self.bytes[kind.name] += len(event.object)

    async def __aenter__(self) -> Meter:
        for kind in self.kinds:
            version = (await self.house.client.list_raw(kind, "ns")).resource_version
            self.tasks.append(asyncio.create_task(self.follow(kind, version)))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


def test_one_change_of_300_pods_costs_a_third_of_the_bytes_in_slices() -> None:
    """One Pod's flip rewrites one slice of 100, and all of Endpoints (SLICE-24, EP-17)."""

    async def story(house: House) -> None:
        house.start(("endpoints", "endpointslice"))
        await house.service()
        for n in range(300):
            await house.pod(f"p{n:03}", address(n))
        await house.settle(10)
        async with Meter(house, ENDPOINT_SLICE, ENDPOINTS) as meter:
            await house.status("p007", ready=False)
            await house.settle(5)
        assert meter.events == {"EndpointSlice": 1, "Endpoints": 1}
        assert meter.bytes["EndpointSlice"] < 250 * 100
        assert meter.bytes["Endpoints"] > 100 * 300
        ratio = meter.bytes["Endpoints"] / meter.bytes["EndpointSlice"]
        assert 1.5 < ratio < 4.5

    in_house(story)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_events_gives_the_same_lists(seed: int) -> None:
    """Nodes, Services, Pods and their states in any order, the caches late by different times."""
    found: list[tuple[list[str], list[tuple[list[str], list[str]]]]] = []

    def played(order: int) -> None:
        async def story(house: House) -> None:
            chance = random.Random(f"{seed}/{order}")
            if order:
                house.trouble.late_seconds = {
                    k: chance.choice((0.0, 0.3, 2.0)) for k in (POD, ENDPOINT_SLICE, ENDPOINTS)
                }
            house.start(("endpoints", "endpointslice"))
            deeds: list[Callable[[], Awaitable[Any]]] = [house.service, partial(house.node, "n2")]
            for n in range(8):
                made = partial(house.pod, f"p{n}", address(n), ready=n % 3 != 0, node=f"n{n % 2 + 1}")
                deeds.append(made)
            if order:
                chance.shuffle(deeds)
            for deed in deeds:
                await deed()
                if chance.random() < 0.3:
                    await house.settle(chance.random())
            for n in sorted(range(8), key=lambda n: chance.random() if order else n):
                await house.status(f"p{n}", ready=n % 2 == 0)
            await house.settle(60)
            [shown] = await house.shown()
            found.append((shown, await house.endpoints()))

        in_house(story, seed=seed)

    for order in range(3):
        played(order)
    assert found[0] == found[1] == found[2] and len(found[0][0]) == 8


def test_pods_that_only_move_inside_write_nothing() -> None:
    """Planning again writes nothing: a Pod whose image, annotations or heartbeat moved is the same endpoint."""
    shop = Shop(3)
    shop.sync([endpoint(n) for n in range(7)])
    again = [endpoint_of(n, version="99", changed="2026-02-02T00:00:00Z") for n in range(7)]
    assert shop.sync(again) == [] and pod().metadata.resource_version == "1"
