"""The scheduler against a real API server: whatever becomes of a binding, the Pod gets its node."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from kubesvc.api.errors import Conflict, InternalError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import EVENT, NODE, POD
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client, Unreachable
from kubesvc.clock import LoopClock
from kubesvc.controllers import run_controllers
from kubesvc.store import Unavailable

from .house import House, in_house

TROUBLES = {
    "refused": Unreachable("cut off"),
    "lost": Unreachable("the answer is lost"),
    "broken": InternalError("trouble inside"),
    "store": Unavailable("the disk is full"),
    "conflict": Conflict("somebody was faster"),
}


class Unlucky:
    """A client whose first bindings fail, `lost` ones after they were done."""

    def __init__(self, inner: Client, way: str, count: list[int]) -> None:
        self.inner, self.way, self.count = inner, way, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def as_manager(self, manager: str) -> Client:
        return cast(Client, Unlucky(self.inner.as_manager(manager), self.way, self.count))

    async def create(self, kind: Kind, obj: Object, *words: Any, **more: Any) -> Object:
        if more.get("subresource") == "binding" and self.count[0] > 0:
            self.count[0] -= 1
            if self.way == "lost":
                await self.inner.create(kind, obj, *words, **more)
            raise TROUBLES[self.way]
        return await self.inner.create(kind, obj, *words, **more)


async def pod(house: House, name: str, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    await house.client.create(POD, body, "ns")


async def node_of(house: House, name: str) -> str:
    return str((await house.client.get(POD, name, "ns"))["spec"].get("nodeName", ""))


async def with_scheduler(house: House, way: str = "", failures: int = 0) -> asyncio.Task[None]:
    await house.client.patch(NODE, "n1", "", {"spec": {"taints": None}}, "merge")
    status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
    await house.client.patch(NODE, "n1", "", {"status": status}, "merge", subresource="status")
    client = cast(Client, Unlucky(house.client, way, [failures]))
    clock = LoopClock(asyncio.get_running_loop())
    return asyncio.create_task(run_controllers(client, ("scheduler",), clock=clock, random=random.Random(1)))


@pytest.mark.parametrize("way", [w for w in TROUBLES if w != "conflict"])
def test_a_binding_that_failed_is_tried_again(way: str) -> None:
    async def story(house: House) -> None:
        running = await with_scheduler(house, way, failures=3)
        await pod(house, "p")
        await house.settle(10)
        assert await node_of(house, "p") == "n1"
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


def test_a_pod_that_fits_nowhere_says_so_and_is_taken_when_it_fits() -> None:
    async def story(house: House) -> None:
        running = await with_scheduler(house)
        await house.settle(1)
        await house.client.patch(NODE, "n1", "", {"spec": {"unschedulable": True}}, "merge")
        await house.settle(1)
        await pod(house, "p")
        await house.settle(5)
        told = [e for e in await house.every(EVENT) if e["reason"] == "FailedScheduling"]
        assert len(told) == 1 and told[0]["message"].startswith("0/1 nodes are available: 1 node(s) were unschedulable")
        [condition] = (await house.client.get(POD, "p", "ns"))["status"]["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        )
        await house.client.patch(NODE, "n1", "", {"spec": {"unschedulable": None}}, "merge")
        await house.settle(5)
        assert await node_of(house, "p") == "n1"
        running.cancel()
        await asyncio.wait([running])

    in_house(story)
