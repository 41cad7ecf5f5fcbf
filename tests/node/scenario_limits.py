"""Scenarios of resource limits: held by control groups, said in the status, gone with the Pod."""

from __future__ import annotations

import asyncio
from typing import Any

from kubesvc.kernel.cgroups import CONTROLLERS

from .world import World, container_status, holds, is_ready

EATER = "import time; b = bytearray(200 << 20); b[::4096] = b'x' * len(b[::4096]); print('ate'); time.sleep(60)"
FOREVER = "trap 'exit 0' TERM; while :; do sleep 9999 & wait $!; done"


def limited(*command: str, **limits: str) -> dict[str, Any]:
    return {"image": "python", "command": list(command), "resources": {"limits": limits}}


async def limits_hold(world: World) -> None:
    """NODE-20: too much memory ends a container as OOMKilled; processes and processor time are bounded; the groups go
    with the Pod."""
    assert world.agent.context is not None and world.agent.context.groups is not None
    groups = world.agent.context.groups
    assert groups.controllers == CONTROLLERS, "this machine gives all three; a test elsewhere would show nothing"
    eater = limited("python3", "-c", EATER, memory="64Mi")
    await world.create("eater", eater, restartPolicy="Never")
    pod = await world.until("eater", lambda p: p["status"].get("phase") == "Failed", "failed")
    end = container_status(pod)["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)

    forks = "n=0; while [ $n -lt 80 ]; do sleep 60 & n=$((n+1)); done; echo all; " + FOREVER
    await world.create("forks", limited("sh", "-c", forks), restartPolicy="Never")
    spin = limited("sh", "-c", "while :; do :; done", cpu="100m")
    await world.create("spin", spin, terminationGracePeriodSeconds=0)
    pod = await world.ready("spin")
    path = groups.find(f"{pod['metadata']['uid']}/c")
    assert any((d / "cpu.cfs_quota_us").exists() or (d / "cpu.max").exists() for d in path.directories)
    worker = world.agent.worker("default", "spin")
    assert worker is not None and worker.runners["c"].process is not None
    number = worker.runners["c"].process.pid

    def ticks() -> int:
        with open(f"/proc/{number}/stat", "rb") as file:
            return sum(map(int, file.read().rpartition(b")")[2].split()[11:13]))

    loop = asyncio.get_running_loop()
    began, before = loop.time(), ticks()
    await asyncio.sleep(1.5)
    took, seconds = ticks() - before, loop.time() - began
    assert took <= 30 * seconds, "a tenth of a processor is 10 ticks in a second; free it would be about 100"
    pod = await world.until("forks", lambda p: bool(p["status"].get("containerStatuses")), "started")
    uid = pod["metadata"]["uid"]

    def bounded() -> bool:
        return len(groups.find(f"{uid}/c").processes()) <= 40

    assert bounded()
    for name in ("eater", "spin", "forks"):
        await world.delete(name)
    for name in ("eater", "spin", "forks"):
        await world.vanished(name)
    # One was deleted by force: its object goes first, its processes after that.
    await holds(lambda: not groups.names(), "removed")


limits_hold.options = {"pod_pids_limit": 40}  # type: ignore[attr-defined]


async def limits_without_groups_are_said(world: World) -> None:
    """Where no control group can be made: a bound for each process, and an Event on the Node that says so."""
    context = world.agent.context
    assert context is not None and context.groups is not None
    context.groups.hierarchies = ()
    await world.create("eater", limited("python3", "-c", EATER, memory="64Mi"), restartPolicy="Never")
    pod = await world.until("eater", lambda p: p["status"].get("phase") == "Failed", "failed")
    assert container_status(pod)["state"]["terminated"]["reason"] == "Error"
    assert "MemoryError" in world.log_text(pod)
    await world.create("modest", limited("sh", "-c", FOREVER, memory="64Mi", cpu="100m"))
    assert is_ready(await world.ready("modest"))
