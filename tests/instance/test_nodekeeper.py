"""Who keeps the nodes' processes running, when what they stand on goes at the same time."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from kubesvc.instance.ground import GroundFailed, environment
from kubesvc.instance.nodekeeper import NodeKeeper
from kubesvc.instance.options import NodePlan, UpOptions
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, NodeRecord, ProcessId

PLAN = NodePlan("n1", "172.30.0.11", "", False)


class Uplinks:
    async def open(self, name: str) -> None:
        pass

    async def cut(self, name: str) -> None:
        pass


class Keeper(NodeKeeper):
    """Its nodes' processes are as the test makes them."""

    spawning: Callable[[], ProcessId]

    def spawn_agent(self, node: NodeRecord, program: Sequence[str], directory: Path) -> ProcessId:
        return self.spawning()


def sleeper(environment: dict[str, str] | None = None) -> ProcessId:
    found = ProcessId.of(subprocess.Popen(["sleep", "600"], env=environment).pid)
    assert found is not None
    return found


Scene = Callable[[Keeper, "asyncio.Task[None]"], Coroutine[object, object, None]]


def kept(tmp_path: Path, spawning: Callable[[], ProcessId], scene: Scene) -> None:
    """Play a scene with a node that is being kept; its ground and fabric are processes that only are there."""
    node = NodeRecord(PLAN.name, PLAN.address, "", ground=sleeper())
    record = InstanceRecord(fabric=sleeper(), nodes=[node])
    keeper = Keeper(UpOptions(), InstancePaths(tmp_path), record, lambda: None)
    keeper.spawning, keeper.uplinks = spawning, Uplinks()
    keeper.paths.node(PLAN.name).mkdir(parents=True)

    async def play() -> None:
        task = asyncio.create_task(keeper.keep(PLAN))
        try:
            async with asyncio.timeout(60):
                await scene(keeper, task)
        finally:
            task.cancel()
            await asyncio.wait([task])

    try:
        asyncio.run(play())
    finally:
        for process in record.processes():
            process.kill()


def test_a_node_may_lose_power_while_its_process_is_started(tmp_path: Path) -> None:
    """Then its process cannot be started, and that is no failure of the instance."""
    begun, stopped = threading.Event(), threading.Event()

    def spawning() -> ProcessId:
        begun.set()
        stopped.wait(60)
        raise GroundFailed("enter: No such process")

    async def scene(keeper: Keeper, task: asyncio.Task[None]) -> None:
        await asyncio.to_thread(begun.wait, 60)
        await keeper.stop("n1")
        stopped.set()
        await asyncio.wait([task], timeout=0.2)
        assert not task.done() and keeper.node("n1").state == "stopped"

    kept(tmp_path, spawning, scene)


def test_a_process_that_was_started_as_its_node_lost_power_goes_too(tmp_path: Path) -> None:
    """One beside its ground does not end with that by itself."""
    begun, stopped, made = threading.Event(), threading.Event(), list[ProcessId]()

    def spawning() -> ProcessId:
        begun.set()
        stopped.wait(60)
        made.append(sleeper())
        return made[0]

    async def scene(keeper: Keeper, task: asyncio.Task[None]) -> None:
        await asyncio.to_thread(begun.wait, 60)
        await keeper.stop("n1")
        stopped.set()
        while not made or made[0].alive():
            await asyncio.sleep(0.01)
        assert not task.done()

    kept(tmp_path, spawning, scene)


def test_a_process_that_is_being_started_at_the_end_goes_too(tmp_path: Path) -> None:
    """Who wants everything to end while a thread starts a process waits for it: it could not be found before."""
    begun, ending, made = threading.Event(), threading.Event(), list[ProcessId]()

    def spawning() -> ProcessId:
        begun.set()
        ending.wait(60)
        time.sleep(0.1)
        made.append(sleeper(environment(tmp_path)))
        return made[0]

    async def scene(keeper: Keeper, task: asyncio.Task[None]) -> None:
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        ending.set()
        await keeper.end()
        assert made and not made[0].alive()

    kept(tmp_path, spawning, scene)


def test_a_node_whose_ground_somebody_killed_is_without_power(tmp_path: Path) -> None:
    def spawning() -> ProcessId:
        raise GroundFailed("enter: No such process")

    async def scene(keeper: Keeper, task: asyncio.Task[None]) -> None:
        ground = keeper.node("n1").ground
        assert ground is not None and ground.kill()
        while keeper.node("n1").state != "stopped":
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)

    kept(tmp_path, spawning, scene)


def test_a_process_that_cannot_be_started_on_its_ground_is_a_failure(tmp_path: Path) -> None:
    def spawning() -> ProcessId:
        raise GroundFailed("exec: Permission denied")

    async def scene(keeper: Keeper, task: asyncio.Task[None]) -> None:
        with pytest.raises(GroundFailed, match="Permission denied"):
            await task

    kept(tmp_path, spawning, scene)


@pytest.mark.parametrize(
    ("ranges", "addresses"),
    [
        (("10.244.0.0/16",), ("172.30.0.11",)),
        (("10.244.0.0/16", "fd00:244::/56"), ("172.30.0.11", "fd00:172:30::11")),
        (("fd00:244::/56", "10.244.0.0/16"), ("fd00:172:30::11", "172.30.0.11")),
    ],
)
def test_a_node_has_an_address_of_each_family_that_its_pods_have(
    tmp_path: Path, ranges: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    """The primary family's first (PROXY-126)."""
    keeper = Keeper(UpOptions(cluster_cidr=ranges), InstancePaths(tmp_path), InstanceRecord(), lambda: None)
    assert keeper.process(PLAN).addresses == addresses
