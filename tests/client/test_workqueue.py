"""The work queue: each key once, never two workers on one key, retries later and later (EP-1, EP-2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.client.workqueue import Key, RetryPolicy, TokenBucket, WorkQueue, key_text
from kubesvc.clock import run_virtual

A, B = ("ns", "a"), ("ns", "b")


def story(act: Callable[[WorkQueue], Awaitable[None]], policy: RetryPolicy | None = None) -> None:
    async def main() -> None:
        async with asyncio.timeout(1e9):
            await act(WorkQueue(policy))

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_key_added_twice_comes_once() -> None:
    async def act(queue: WorkQueue) -> None:
        for key in (A, B, A):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == [A, B]

    story(act)


def test_key_in_work_comes_again_after_done() -> None:
    async def act(queue: WorkQueue) -> None:
        queue.add(A)
        await queue.get()
        queue.add(A)
        queue.add(A)
        assert len(queue) == 0
        queue.done(A)
        assert await queue.get() == A
        queue.done(A)
        assert queue.idle

    story(act)


def test_delayed_key_comes_at_the_earliest_of_its_times() -> None:
    async def act(queue: WorkQueue) -> None:
        queue.add_after(A, 10)
        queue.add_after(A, 3)
        queue.add_after(A, 5)
        queue.add_after(B, 4)
        assert queue.delayed == 2
        assert await queue.get() == A
        assert now() == pytest.approx(3)
        assert await queue.get() == B
        assert now() == pytest.approx(4)
        queue.done(A)
        await asyncio.sleep(20)
        assert len(queue) == 0

    story(act)


def test_retries_double_up_to_the_cap_and_end() -> None:
    """EP-2: 5 ms times 2 to the n, dropped after 15; here with a low cap."""

    async def act(queue: WorkQueue) -> None:
        waits = []
        queue.add(A)
        while True:
            key = await queue.get()
            started = now()
            again = queue.retry(key)
            queue.done(key)
            if not again:
                break
            await asyncio.wait_for(waited(queue), 10000)
            waits.append(round(now() - started, 6))
        assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
        assert waits[-1] == 8.0
        assert len(waits) == 15
        assert queue.attempts(A) == 0

    async def waited(queue: WorkQueue) -> None:
        while not len(queue):
            await asyncio.sleep(0.001)

    story(act, RetryPolicy(cap_seconds=8.0))


def test_forget_starts_over() -> None:
    async def act(queue: WorkQueue) -> None:
        queue.retry(A)
        await asyncio.sleep(1.0)
        queue.retry(A)
        assert queue.attempts(A) == 2
        queue.forget(A)
        assert queue.attempts(A) == 0

    story(act)


def test_failures_before_the_back_off_is_over_do_not_add_up() -> None:
    """Events make a failing key's worker try again at once: that must not put off its next turn further and further."""

    async def act(queue: WorkQueue) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        queue.retry(A)
        for _ in range(10):
            queue.add(A)
            assert await queue.get() == A
            assert queue.retry(A)
            queue.done(A)
        assert queue.attempts(A) == 1
        assert await queue.get() == A
        assert loop.time() - began == pytest.approx(4.0)
        assert queue.retry(A) and queue.attempts(A) == 2

    story(act, RetryPolicy(base_seconds=4.0, most=5))


def test_all_retries_share_a_bucket() -> None:
    """EP-2: ten a second, the first hundred at once."""

    async def act(queue: WorkQueue) -> None:
        for i in range(150):
            queue.retry(("ns", str(i)))
        await asyncio.sleep(0.01)
        assert len(queue) == 100
        await asyncio.sleep(2.5)
        assert len(queue) == 125
        await asyncio.sleep(2.5)
        assert len(queue) == 150

    story(act)


def test_worker_that_leaves_passes_its_turn_on() -> None:
    async def act(queue: WorkQueue) -> None:
        first = asyncio.create_task(queue.get())
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add(A)
        first.cancel()
        assert await asyncio.wait_for(second, 1) == A
        third = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.sleep(0)
        queue.add(B)
        assert await asyncio.wait_for(queue.get(), 1) == B

    story(act)


def test_a_key_that_comes_while_the_worker_is_being_cancelled() -> None:
    """The wake-up passes over the cancelled worker before that worker has noticed: it must end as cancelled."""

    async def act(queue: WorkQueue) -> None:
        worker = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        worker.cancel()
        queue.add(A)
        (result,) = await asyncio.gather(worker, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), result
        assert await queue.get() == A

    story(act)


def test_bucket_drips() -> None:
    bucket = TokenBucket(2.0, 2)
    assert [bucket.reserve(0.0) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    assert bucket.reserve(10.0) == 0.0
    assert TokenBucket(0.0, 0).reserve(5.0) == 0.0
    asked = TokenBucket(1.0, 1)
    assert [asked.take(t) for t in (0.0, 0.5, 0.9, 1.1, 1.2)] == [True, False, False, True, False]


def test_key_text() -> None:
    assert (key_text(A), key_text(("", "node"))) == ("ns/a", "node")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 3)), max_size=40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_key_is_lost_or_worked_on_twice_at_once(adds: list[tuple[str, float]], workers: int) -> None:
    """Each add is followed by the start of a turn on that key."""

    async def main() -> None:
        queue = WorkQueue()
        working: set[Key] = set()
        started: dict[Key, float] = {}

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                started[key] = now()
                await asyncio.sleep(0.7)
                working.remove(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        last: dict[Key, float] = {}
        for name, delay in adds:
            key = ("ns", name)
            queue.add_after(key, delay)
            last[key] = now() + delay if delay else now()
            await asyncio.sleep(0.1)
        await asyncio.sleep(100)
        assert queue.idle
        assert {k for k, _ in started.items()} == set(last)
        for task in tasks:
            assert not task.done()
            task.cancel()

    run_virtual(main())


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 4e-4, 2e-3])
def test_short_delays_on_a_loop_whose_handles_tell_no_time(seconds: float) -> None:
    """uvloop makes no timer of less than half a millisecond: keys that come meanwhile are neither lost nor an error."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        queue = WorkQueue()
        keys = [("ns", str(i)) for i in range(50)]
        async with asyncio.timeout(10):
            for key in keys:
                queue.add_after(key, seconds)
            assert sorted([await queue.get() for _ in keys]) == sorted(keys)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_keys_added_before_the_loop_runs_wait_from_the_first_worker_on() -> None:
    """The machine's uptime is no wait, nor is the time before there was anybody to wait for."""
    queue = WorkQueue()
    queue.add(A)
    queue.add(B)

    async def main() -> None:
        await asyncio.sleep(1000.0)
        assert await queue.get() == A
        await asyncio.sleep(2.0)
        assert await queue.get() == B
        queue.add(("ns", "c"))
        await asyncio.sleep(5.0)
        await queue.get()

    run_virtual(main())
    assert queue.waits.sums[()] == 0.0 + 2.0 + 5.0
