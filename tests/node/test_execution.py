"""A running container's end, when it does not come."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from kubesvc.api.container import Container
from kubesvc.clock import run_virtual
from kubesvc.kernel.process import KILLED_SECONDS
from kubesvc.node.execution import Execution


class Hanging:
    """A process that hangs in the kernel for so long after SIGKILL."""

    pid, start_time = 1 << 30, 0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.signals: list[int] = []
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        return -signal.SIGKILL

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL and number not in self.signals:
            asyncio.get_running_loop().call_later(self.seconds, self.ended.set)
        self.signals.append(number)


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 0), (29.0, 0), (31.0, 1), (100.0, 3)])
def test_a_container_that_hangs_is_told_of_until_it_ends(seconds: float, times: int) -> None:
    """NODE-66, NODE-92: its Pod may not go before it."""

    async def scene() -> None:
        told: list[str] = []
        process: Any = Hanging(seconds)
        run = Execution(spawner=None, container=Container(name="web"), process=process)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        began = loop.time()
        await run.stop(signal.SIGTERM, 2.0, told.append)
        assert loop.time() - began == pytest.approx(2.0 + seconds)
        assert process.signals[0] == signal.SIGTERM and set(process.signals[1:]) == {signal.SIGKILL}
        words = f"container web: process {1 << 30} is not known to have ended {KILLED_SECONDS:.0f} s after SIGKILL"
        assert told == [words] * times

    run_virtual(scene())
