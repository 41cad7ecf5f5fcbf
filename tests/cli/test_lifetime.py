"""How a process of kubesvc ends when one of its parts does not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from kubesvc import lifetime
from kubesvc.clock import run_virtual


class Forced(BaseException):
    """What stands here for the end of the process."""


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The status of each end by force."""
    found: list[int] = []

    def end(status: int) -> None:
        found.append(status)
        raise Forced

    monkeypatch.setattr(lifetime, "end_at_once", end)
    return found


async def deaf(times: int) -> None:
    """A part that takes so many cancellations for something else."""
    while times >= 0:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            times -= 1


async def broken() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        raise ValueError("not in order")


def ended(*parts: Coroutine[Any, Any, None]) -> float:
    """Begin these parts, end them; the seconds that took."""

    found: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(part, name=f"part {n}") for n, part in enumerate(parts)]
        await asyncio.sleep(0)
        began = loop.time()
        await lifetime.cancel(tasks)
        found.append(loop.time() - began)

    run_virtual(main())
    return found[0]


def test_parts_end_and_what_one_met_is_logged(forced: list[int], caplog: pytest.LogCaptureFixture) -> None:
    assert ended() == 0
    assert ended(deaf(0), broken()) == 0 and not forced
    assert "did not end in order" in caplog.text and "not in order" in caplog.text


def test_a_cancellation_that_was_taken_for_something_else_is_told_again(
    forced: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    assert ended(deaf(0), deaf(1)) == lifetime.ENDING_SECONDS and not forced
    assert "not ended after 120 s: part 1 at " in caplog.text and "part 0" not in caplog.text
    assert "tasks.py" in caplog.text or "test_lifetime.py" in caplog.text, "and where it waits"


def test_a_part_that_never_ends_is_named_and_ends_with_the_process(
    forced: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Forced):
        ended(deaf(2))
    assert forced == [lifetime.FORCED]
    assert caplog.text.count("part 0") == 2 and "by force" in caplog.text


def test_a_child_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"

    async def main() -> int | None:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        await child.stdout.readline()
        child.terminate()
        await lifetime.await_end(child, "the load", 0.2)
        return child.returncode

    assert asyncio.run(main()) in (-9, None)
    assert "the load: process" in caplog.text and "after it was told to" in caplog.text
