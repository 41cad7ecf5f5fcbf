"""How a process of kubesvc lives and ends: its event loop, its collector, its signals, its parts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("kubesvc")


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


async def cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    """End these, and log what does not end by being cancelled."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("a part did not end in order", exc_info=result)


def run_anywhere(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end for a caller that is not asynchronous itself, but may be called from a running event loop, as in
    asynchronous tests; that loop stands still meanwhile."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1, "kubesvc") as pool:
        return pool.submit(asyncio.run, work).result()
