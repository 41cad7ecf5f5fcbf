"""Programs of ours that are run inside a node for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from kubesvc.cli.asking import ask_inside
from kubesvc.instance import ground
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, end_processes


@pytest.mark.e2e
def test_who_asks_no_longer_leaves_nothing_running_in_the_node(tmp_path: Path) -> None:
    """The program inside is a grandchild: without its parent it would run on, and who in the end reaps it is chance."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces of a node")
    paths = InstancePaths(tmp_path)
    fabric = ground.spawn_fabric(tmp_path)
    node = ground.spawn_host(tmp_path, fabric, "n1")

    def beside_grounds() -> list[str]:
        found = [p.pid for p in ground.marked_processes(tmp_path) if p not in (fabric, node)]
        commands = []
        for pid in found:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                commands.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return commands

    async def ask() -> list[str]:
        task = asyncio.create_task(ask_inside(paths, record, node, "http.server", b"", 60.0))
        async with asyncio.timeout(60):
            while not any("http.server" in c and "nsexec" not in c for c in beside_grounds()) and not task.done():
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return beside_grounds()

    record = InstanceRecord(fabric=fabric)
    try:
        assert asyncio.run(ask()) == []
    finally:
        assert end_processes([node, fabric]) == []
