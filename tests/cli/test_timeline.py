"""`kubesvc timeline --follow` on a cluster of others: what is found is printed apart from who finds it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from kubesvc.cli.timeline import MOST_WAITING, Printer
from kubesvc.why.timeline import Entry, Moved


def entry(number: int) -> Entry:
    return Entry(Moved(float(number), "shop", "web", "joined", f"10.244.1.{number}", "", "", "", 0.0))


def test_a_slow_reader_holds_nobody_up_and_misses_no_order() -> None:
    """Entries that are found while the reader is stuck are printed afterwards, in their order."""
    stuck, printed = threading.Event(), list[float]()

    def write(entries: Sequence[Entry]) -> None:
        assert stuck.wait(60)
        printed.extend(e.moved.at for e in entries)

    async def follow() -> None:
        printer = Printer(write)
        running = asyncio.create_task(printer.run())
        for number in range(50):
            printer.add(entry(number))
            await asyncio.sleep(0)
        assert not printed
        stuck.set()
        while len(printed) < 50:
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(follow())
    assert printed == list(map(float, range(50)))


def test_what_waits_is_bounded_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> int:
        printed = list[int]()
        printer = Printer(lambda entries: printed.append(len(entries)))
        for number in range(MOST_WAITING + 7):
            printer.add(entry(number))
        running = asyncio.create_task(printer.run())
        while not printed:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        running.cancel()
        return printed[0]

    assert asyncio.run(follow()) == MOST_WAITING
    assert "7 more were left out" in caplog.text


def test_a_reader_that_leaves_ends_it() -> None:
    def write(entries: Sequence[Entry]) -> None:
        raise BrokenPipeError

    async def follow() -> None:
        printer = Printer(write)
        printer.add(entry(1))
        await printer.run()

    with pytest.raises(BrokenPipeError):
        asyncio.run(follow())
