"""Time and chance: the only module that reads a clock or draws a random number.

Parts are handed a `Clock` and a `Random`. Waiting is plain asyncio (`sleep`, `timeout`), which follows the event
loop's own time, so under `VirtualLoop` an hour of waiting passes at once and in the same order every time.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import selectors
import string
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

RESOLUTION_SECONDS = time.get_clock_info("monotonic").resolution
"""As asyncio has it: timers due within this are due now."""

BUSY_TURNS = 16
"""Turns of a busy virtual loop between two looks at its sockets and pipes."""

Random = random.Random
"""The source of chance that parts are given; seeded in tests."""


def fresh_letters(count: int) -> str:
    """That many small letters and digits that nobody can guess: 5.17 bits each."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(count))


class Clock(Protocol):
    """Reads wall time. Never goes back to the caller with a naive datetime."""

    def now(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z."""

    def monotonic(self) -> float:
        """Seconds of a clock that never steps; only differences mean anything."""


class RealClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class LoopClock:
    """A clock that follows the running event loop: the virtual time of a test, starting at `epoch`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: float = 1_767_225_600.0) -> None:
        self.loop = loop
        self.epoch = epoch  # 2026-01-01T00:00:00Z unless a simulation steps it

    def now(self) -> float:
        return self.epoch + self.loop.time()

    def monotonic(self) -> float:
        return self.loop.time()


def rfc3339(seconds: float) -> str:
    """Whole seconds in UTC as the API prints them: `2026-01-02T03:04:05Z` (META-2)."""
    return whole_second(int(seconds))


@lru_cache(maxsize=64)
def whole_second(second: int) -> str:
    """The text of a second since 1970; the same few are asked for again and again."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """Microseconds in UTC as MicroTime fields print them: `2026-01-02T03:04:05.000006Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 text; ValueError if it is none."""
    stamp = datetime.fromisoformat(text)
    if stamp.tzinfo is None:
        raise ValueError(f"{text!r}: a time needs a zone, such as Z")
    return stamp.timestamp()


class VirtualSelector(selectors.DefaultSelector):
    """A selector that never sleeps: it moves the loop's time to the next timer instead."""

    loop: VirtualLoop
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        # The kernel is asked seldom while there is work: in most virtual worlds nobody out there has anything to say.
        ready = super().select(0) if timeout != 0 or self.turns % BUSY_TURNS == 0 else []
        if not ready and timeout:
            self.loop.offset += timeout
        elif timeout == 0:
            self.loop.catch_up()
        elif not ready and timeout is None:
            return super().select(0.01)  # a thread may still report
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever nothing else is ready."""

    def __init__(self) -> None:
        self.offset = 0.0
        selector = VirtualSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.offset

    def catch_up(self) -> None:
        """The loop runs timers that are due within its clock's resolution: then it is their time. Otherwise whoever
        waits for the last bit of a rounded time would wait for it again, without end."""
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        if timers and self.offset < timers[0].when() < self.offset + RESOLUTION_SECONDS:
            self.offset = timers[0].when()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time; as `asyncio.run`, but no real second passes in a sleep."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def fresh_token(size_bytes: int) -> str:
    """A secret that nobody can guess, in hexadecimal: chance of the kernel's, which no seed repeats."""
    return secrets.token_hex(size_bytes)
