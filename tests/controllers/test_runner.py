"""The runner: selection by name, workers, retries, loops that fail and are started again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytest

from kubesvc.api.configmap import CONFIG_MAP, ConfigMap
from kubesvc.client.events import EventRecorder
from kubesvc.client.informer import InformerFactory
from kubesvc.client.interface import Client
from kubesvc.client.workqueue import Key, RetryPolicy
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.controllers import Controller, ControllerContext, ControllerSettings, key_of
from kubesvc.controllers.registry import CONTROLLERS, load
from kubesvc.controllers.runner import make, run_controller, run_controllers, select

from ..client.scripted import ScriptedServer

KNOWN = ("endpoints-controller", "endpointslice-controller", "garbage-collector-controller", "scheduler")

SELECTIONS: tuple[tuple[list[str], Sequence[str]], ...] = (
    (["*"], KNOWN),
    ([], KNOWN),
    (["endpoints"], KNOWN[:1]),
    (["endpoints-controller", "scheduler"], (KNOWN[0], KNOWN[3])),
    (["-scheduler"], KNOWN[:3]),
    (["*", "-endpoints", "-garbagecollector"], (KNOWN[1], KNOWN[3])),
    (["endpoints", "-endpoints"], ()),
    (["endpoint"], KNOWN[:1]),
)


@pytest.mark.parametrize(("names", "expected"), SELECTIONS)
def test_selection(names: Sequence[str], expected: Sequence[str]) -> None:
    assert select(names, KNOWN) == list(expected)


@pytest.mark.parametrize("name", ["nobody", "-nobody"])
def test_unknown_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"no controller 'nobody'; there are endpoints-controller, "):
        select([name], KNOWN)


def test_every_registered_controller_can_be_loaded() -> None:
    for name in CONTROLLERS:
        assert load(name).name == name


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_endpoints_per_slice", 1001),
        ("concurrent_service_endpoint_syncs", 0),
        ("endpoint_updates_batch_period", -1),
    ],
)
def test_settings_out_of_range_name_the_flag(flag: str, value: int) -> None:
    with pytest.raises(ValueError, match="--" + flag.replace("_", "-")):
        ControllerSettings(**cast(Any, {flag: value}))


class Copier(Controller):
    """Notes what it reconciles; fails as told."""

    name = "copier-controller"
    component = "copier"
    policy = RetryPolicy(base_seconds=1.0, most=3)
    made: ClassVar[list[Copier]] = []

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.maps = ctx.informers.of(CONFIG_MAP)
        self.maps.on_change(lambda old, new: self.queue.add(key_of(new, old)))
        self.done: list[tuple[float, str, bool]] = []
        self.fail: dict[str, int] = {}
        self.dropped: list[str] = []
        self.running = 0
        self.loops = 0
        self.made.append(self)

    @property
    def workers(self) -> int:
        return 2

    async def reconcile(self, key: Key) -> None:
        assert self.maps.synced.is_set()
        self.running += 1
        assert self.running <= 2
        await asyncio.sleep(0.01)
        self.running -= 1
        config_map: ConfigMap | None = self.maps.get(key)
        self.done.append((round(asyncio.get_running_loop().time(), 2), key[1], config_map is not None))
        if self.fail.get(key[1], 0):
            self.fail[key[1]] -= 1
            raise RuntimeError("told to fail")

    def gave_up(self, key: Key, error: Exception) -> None:
        self.dropped.append(key[1])

    async def run_beside(self) -> None:
        self.loops += 1
        await asyncio.sleep(5)
        if self.loops < 3:
            raise RuntimeError("told to fail")


def test_reconciles_retries_and_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = ScriptedServer()
        cast(Any, server).as_manager = lambda manager: server
        clock = LoopClock(asyncio.get_running_loop())
        chance = random.Random(1)
        factory = InformerFactory(server.client, clock, chance)
        recorder = EventRecorder(server.client, "x", clock=clock, random=chance)
        controller, view = make(Copier, server.client, factory, recorder, clock, chance, ControllerSettings())
        copier = cast(Copier, controller)
        copier.fail = {"b": 2, "c": 99}
        for name in "abcde":
            server.put(name)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(factory.run()), group.create_task(run_controller(copier, view))]
            await asyncio.sleep(60)
            assert sorted({name for _, name, _ in copier.done}) == list("abcde")
            times = [round(at) for at, name, _ in copier.done if name == "b"]
            assert times == [0, 1, 3]
            assert [name for _, name, _ in copier.done].count("c") == 4
            assert copier.dropped == ["c"]
            assert copier.loops == 3
            server.remove("a")
            await asyncio.sleep(1)
            assert copier.done[-1][1:] == ("a", False)
            for task in tasks:
                task.cancel()

    with caplog.at_level(logging.CRITICAL):
        run_virtual(main())


def test_unknown_controller_starts_nothing() -> None:
    async def main() -> None:
        server = ScriptedServer()
        clock = LoopClock(asyncio.get_running_loop())
        with pytest.raises(ValueError, match="no controller"):
            await run_controllers(cast(Client, server), ["nobody"], clock=clock, random=random.Random(1))
        assert server.lists == []

    run_virtual(main())
