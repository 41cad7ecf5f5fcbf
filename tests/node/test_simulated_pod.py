"""A simulated pod's status: written once where the server finds it wrong, and never again after the pod's end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubesvc.api.errors import Invalid, ServiceUnavailable
from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.node.context import NodeContext
from kubesvc.node.simulated import SimulatedPod


def pod(phase: str) -> Pod:
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    meta = {"name": "p", "namespace": "ns", "uid": "u"}
    return typed({"metadata": meta, "spec": spec, "status": {"phase": phase}}, Pod)


@pytest.mark.parametrize(
    ("what", "phase", "failures", "tries"),
    [
        ("found wrong: not tried again", "Running", [Invalid("no")] * 9, 1),
        ("the server is away: tried until it takes it", "Running", [ServiceUnavailable("later")] * 3, 4),
        ("at its end: nothing to write", "Succeeded", [], 0),
    ],
)
def test_status_writes(what: str, phase: str, failures: list[Exception], tries: int) -> None:
    left, tried = list(failures), 0

    async def patch(*_: Any, **__: Any) -> dict[str, Any]:
        nonlocal tried
        tried += 1
        if left:
            raise left.pop()
        return {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}

    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        settings = SimpleNamespace(node_addresses=("192.0.2.1",), simulated_script="script")
        node = SimpleNamespace(client=SimpleNamespace(patch=patch), clock=clock, pools=(), settings=settings)
        async with asyncio.timeout(60):
            await SimulatedPod(cast(NodeContext, node), pod(phase)).write("ready")

    run_virtual(main())
    assert tried == tries
