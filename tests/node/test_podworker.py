"""What a Pod's worker waits for."""

from __future__ import annotations

import asyncio

import pytest

from kubesvc.node.podworker import end_of


@pytest.mark.parametrize("turns", range(4))
def test_a_worker_that_is_to_end_is_not_told_that_what_it_waits_for_has(turns: int) -> None:
    """Of an agent that stops while a Pod is being ended: its worker would else go on, for all of the Pod's grace."""

    async def main() -> None:
        closed = asyncio.Event()

        async def life() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                await closed.wait()

        task = asyncio.create_task(life())
        await asyncio.sleep(0)
        task.cancel()
        worker = asyncio.create_task(end_of(task))
        for _ in range(turns):
            await asyncio.sleep(0)
        worker.cancel()
        await asyncio.wait([worker], timeout=60)
        assert worker.cancelled() and not task.done()
        closed.set()
        await end_of(task)
        assert task.cancelled()

    asyncio.run(main())


def test_what_goes_wrong_in_a_task_is_not_the_waiters_trouble() -> None:
    async def main() -> None:
        async def fails() -> None:
            raise RuntimeError("a bug")

        await end_of(asyncio.create_task(fails()))

    asyncio.run(main())
