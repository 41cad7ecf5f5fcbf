"""What was asked for and is never seen must not hold its owner up for longer than it takes to count as lost (RS-3)."""

from __future__ import annotations

import asyncio
import random

from kubesvc.client.events import EventRecorder
from kubesvc.client.informer import InformerFactory
from kubesvc.clock import LoopClock
from kubesvc.controllers.replicaset import ReplicaSetController
from kubesvc.controllers.runner import make
from kubesvc.controllers.settings import ControllerSettings

from .house import House, in_house


def test_newer_expectations_bring_their_owner_back_too() -> None:
    """A key that comes back for older ones, which were seen long ago, comes too early for newer ones, and once more."""

    async def story(house: House) -> None:
        clock, chance = LoopClock(asyncio.get_running_loop()), random.Random(1)
        factory = InformerFactory(house.client, clock, chance)
        recorder = EventRecorder(house.client, "test", clock=clock, random=chance)
        controller, _ = make(ReplicaSetController, house.client, factory, recorder, clock, chance, ControllerSettings())
        assert isinstance(controller, ReplicaSetController)
        key, began = ("ns", "r"), clock.monotonic()
        controller.expect(key, creations=1)
        controller.expectations.created(key)
        assert controller.seen(key)
        await asyncio.sleep(200)
        controller.expect(key, creations=1)
        assert await controller.queue.get() == key and clock.monotonic() - began < 305
        assert not controller.seen(key), "nobody saw that it was made"
        controller.queue.done(key)
        async with asyncio.timeout(250):
            assert await controller.queue.get() == key
        assert controller.seen(key) and clock.monotonic() - began > 500

    in_house(story)
