"""How a process of kubesvc lives and ends: its event loop, its collector, its signals, its parts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

log = logging.getLogger("kubesvc")

ENDING_SECONDS, LAST_SECONDS = 120.0, 30.0
"""How long the parts of a process may take to end, and then once more."""
FORCED = 70
"""The exit status of a process that ended without some of its parts."""


def set_umask() -> None:
    """Make files as this program says, whatever umask it was started with: a strict one would keep users inside Pods
    from their own root directory, a lax one let others change what is ours. What is secret says so where it is made."""
    os.umask(0o022)


def set_collector() -> None:
    """Objects of a server live long: collect rarely, and never look again at what exists after the start."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def stop_event() -> asyncio.Event:
    """Set by SIGINT and SIGTERM; a second SIGINT does not interrupt the ending."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    return event


async def until_stopping(stop: asyncio.Event, part: Coroutine[Any, Any, None]) -> None:
    """Run a part of the process; what goes wrong in it while everything ends anyway is only logged."""
    try:
        await part
    except Exception:
        if not stop.is_set():
            raise
        log.exception("a part did not end in order")


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Wait until the work is done, or until somebody wants everything to end. Raises what the work raises."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        doing.cancel()
        stopping.cancel()


async def cancel(
    tasks: Sequence[asyncio.Future[None]],
    *,
    patience_seconds: float = ENDING_SECONDS,
    last_seconds: float = LAST_SECONDS,
) -> None:
    """End these parts of a process that ends, and log what does not end in order.

    What stays is told so once more, as a cancellation may have been taken for something else. What stays even then is
    named and ends with the process, which ends on the spot: nobody can wait for its parts any more.
    """
    left = set(tasks)
    for patience in (patience_seconds, last_seconds):
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=patience) if left else (left, left)
        for task in done:
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                log.error("a part did not end in order", exc_info=error)
        if not left:
            return
        log.error("not ended after %.0f s: %s", patience, "; ".join(sorted(map(standing, left))))
    log.critical("ending by force: what is left of this process is removed by its next start, or by `kubesvc down`")
    end_at_once(FORCED)


async def await_end(process: asyncio.subprocess.Process, what: str, patience_seconds: float = LAST_SECONDS) -> None:
    """Wait for a child that was told to end. One that does not is killed; one that stays even so is named and left."""
    for way in ("it was told to", "SIGKILL"):
        try:
            async with asyncio.timeout(patience_seconds):
                await process.wait()
            return
        except TimeoutError:
            log.error("%s: process %d has not ended %.0f s after %s", what, process.pid, patience_seconds, way)
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def standing(task: asyncio.Future[None]) -> str:
    """A task by its name, and the line at which it waits."""
    at: Any = task.get_coro() if isinstance(task, asyncio.Task) else None
    place = ""
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None)
        place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else place
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
    return (task.get_name() if isinstance(task, asyncio.Task) else repr(task)) + place


def end_at_once(status: int) -> NoReturn:
    """End this process, whatever its tasks and threads wait for."""
    logging.shutdown()
    os._exit(status)


def run_anywhere(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end for a caller that is not asynchronous itself, but may be called from a running event loop, as in
    asynchronous tests; that loop stands still meanwhile."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1, "kubesvc") as pool:
        return pool.submit(asyncio.run, work).result()
