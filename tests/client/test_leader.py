"""Leader election by a Lease, against a real server in virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from kubesvc.api.lease import LEASE
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client, Unreachable
from kubesvc.client.leader import LeaderElector, LeaderSettings, LeadershipLost
from kubesvc.clock import LoopClock

from ..controllers.house import House, in_house

SETTINGS = LeaderSettings(name="work", namespace="ns")


class Cut:
    """A client that can be cut off from the server."""

    def __init__(self, inner: Client) -> None:
        self.inner = inner
        self.off = False

    def __getattr__(self, name: str) -> Any:
        async def call(*words: Any, **more: Any) -> Any:
            if self.off:
                raise Unreachable("cut off")
            return await getattr(self.inner, name)(*words, **more)

        return call


class Candidate:
    """Wants to work; `working` says whether it does."""

    def __init__(self, house: House, name: str) -> None:
        self.client = Cut(house.client)
        clock = LoopClock(asyncio.get_running_loop())
        self.elector = LeaderElector(cast(Client, self.client), SETTINGS, name, clock, random.Random(name))
        self.working = False
        self.task = asyncio.create_task(self.elector.run(self.work))

    async def work(self) -> None:
        self.working = True
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def lease(house: House) -> Object:
    found: Object = (await house.client.get(LEASE, "work", "ns"))["spec"]
    return found


def test_one_works_and_the_next_takes_over_when_it_stops() -> None:
    async def story(house: House) -> None:
        first = Candidate(house, "first")
        await house.settle(1)
        second = Candidate(house, "second")
        await house.settle(120)
        assert (first.working, second.working) == (True, False)
        held = await lease(house)
        assert (held["holderIdentity"], held["leaseDurationSeconds"], held["leaseTransitions"]) == ("first", 15, 0)
        await first.stop()
        given = await lease(house)
        assert (given["holderIdentity"], given["leaseDurationSeconds"]) == ("", 1)
        await house.settle(5)
        assert second.working
        assert (await lease(house))["leaseTransitions"] == 1
        await second.stop()

    in_house(story)


def test_who_is_cut_off_stops_before_another_begins() -> None:
    async def story(house: House) -> None:
        first = Candidate(house, "first")
        await house.settle(1)
        second = Candidate(house, "second")
        await house.settle(30)
        first.client.off = True
        both, gap = 0, 0
        for _ in range(300):
            await house.settle(0.1)
            both += first.working and second.working
            gap += not first.working and not second.working
        assert both == 0 and gap > 0 and second.working
        with pytest.raises(LeadershipLost, match="first no longer leads by Lease ns/work"):
            first.task.result()
        await second.stop()

    in_house(story)


def test_a_short_cut_is_survived() -> None:
    async def story(house: House) -> None:
        first = Candidate(house, "first")
        await house.settle(10)
        first.client.off = True
        await house.settle(6)
        first.client.off = False
        await house.settle(30)
        assert first.working
        await first.stop()

    in_house(story)


def test_who_finds_another_in_its_place_stops() -> None:
    async def story(house: House) -> None:
        first = Candidate(house, "first")
        await house.settle(3)
        await house.client.patch(LEASE, "work", "ns", {"spec": {"holderIdentity": "other"}}, "merge")
        await house.settle(3)
        assert not first.working
        with pytest.raises(LeadershipLost, match="held by other"):
            first.task.result()

    in_house(story)


def test_only_one_of_many_works_through_trouble() -> None:
    async def story(house: House) -> None:
        candidates = [Candidate(house, f"c{i}") for i in range(5)]
        chance = random.Random(7)
        for turn in range(600):
            await house.settle(0.5)
            assert sum(c.working for c in candidates) <= 1
            if turn % 20 == 0:
                for candidate in candidates:
                    candidate.client.off = chance.random() < 0.3
            for i, candidate in enumerate(candidates):
                if candidate.task.done():
                    assert isinstance(candidate.task.exception(), LeadershipLost)
                    candidates[i] = Candidate(house, f"t{turn}-{i}")
        for candidate in candidates:
            candidate.client.off = False
        await house.settle(40)
        assert sum(c.working for c in candidates) == 1
        for candidate in candidates:
            await candidate.stop()

    in_house(story)


def test_what_the_work_raises_is_raised_and_the_lease_given_back() -> None:
    async def story(house: House) -> None:
        async def fail() -> None:
            raise ValueError("work failed")

        clock = LoopClock(asyncio.get_running_loop())
        elector = LeaderElector(house.client, SETTINGS, "x", clock, random.Random(1))
        with pytest.raises(ValueError, match="work failed"):
            await elector.run(fail)
        assert (await lease(house))["holderIdentity"] == ""

    in_house(story)


@pytest.mark.parametrize(
    ("words", "flag"),
    [({"lease_duration": 10.0}, "lease-duration"), ({"retry_period": 9.0}, "renew-deadline"),
     ({"lease_duration": 0.5, "renew_deadline": 0.1}, "lease-duration")],
)  # fmt: skip
def test_timings_that_cannot_work_name_the_flag(words: dict[str, float], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        LeaderSettings(name="x", **cast(Any, words))
