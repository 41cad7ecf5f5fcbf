"""The queue between informers and reconcilers: keys, each at most once, and never two workers on one key.

A key stands for "look at this object again", so adding one that already waits changes nothing. A key added while a
worker has it is handed out again after `done`. Failures come back later and later (EP-2, SLICE-1's table of
settings): the wait of one key doubles with each retry, and all retries together pass one token bucket.

The queue is bounded by the number of objects: it holds each key once, whatever the rate of events. All waiting follows
the event loop's time, so it runs in virtual time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass

from .metrics import Histogram, exponential

Key = tuple[str, str]
"""(namespace, name) of an object; namespace is "" for cluster-scoped kinds."""


def key_text(key: Key) -> str:
    """`ns/name`, or the bare name of a cluster-scoped object: how messages print a key."""
    namespace, name = key
    return f"{namespace}/{name}" if namespace else name


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed key comes back. The default is that of the endpoints controller (EP-2).

    base_seconds:   wait before the first retry; doubles with each further one
    cap_seconds:    longest wait by doubling
    most:           retries before a key is dropped; 0 means never dropped
    per_second:     retries of all keys together, sustained; 0 means no overall limit
    burst:          retries of all keys together that need not wait for `per_second`
    """

    base_seconds: float = 0.005
    cap_seconds: float = 1000.0
    most: int = 15
    per_second: float = 10.0
    burst: int = 100

    def delay_seconds(self, attempts: int) -> float:
        """Wait after this many earlier failures of one key."""
        return min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempts, 60))


DURATIONS = exponential(1e-8, 10, 12)
"""Upstream's bounds for waits and work, seconds."""


BEFORE = -1.0
"""The moment of what happened before the loop ran: handlers may add keys already then."""


def _now() -> float:
    """The loop's time; BEFORE before it runs."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return BEFORE


class TokenBucket:
    """Hands out times to go: at once while tokens last, else when the next one has dripped in."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second = per_second
        self.burst = float(burst)
        self.tokens = float(burst)
        self.at: float | None = None

    def reserve(self, now: float) -> float:
        """Take one token, perhaps of the future; the seconds until it is there. `now` must not go back."""
        if self.per_second <= 0:
            return 0.0
        if self.at is not None:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        self.tokens -= 1.0
        return 0.0 if self.tokens >= 0 else -self.tokens / self.per_second

    def take(self, now: float) -> bool:
        """Take one token if there is one now."""
        before = self.tokens, self.at
        if self.reserve(now) <= 0:
            return True
        self.tokens, self.at = before[0] if before[1] is None else self.tokens + 1.0, now
        return False


class WorkQueue:
    """Keys waiting for a worker: first come first served, each once. All methods belong to one event loop."""

    def __init__(self, policy: RetryPolicy | None = None) -> None:
        self.policy = policy or RetryPolicy()
        self.bucket = TokenBucket(self.policy.per_second, self.policy.burst)
        self._ready: deque[Key] = deque()
        self._wanted: dict[Key, float] = {}  # in _ready since then, or to be put there when its worker is done
        self._working: dict[Key, float] = {}
        self.adds = self.retries = 0
        self.waits, self.works = Histogram(DURATIONS), Histogram(DURATIONS)
        """Seconds that keys were ready, and that they were worked on."""
        self._opened = BEFORE
        """When the first worker came: keys added before the loop ran count as waiting since then."""
        self._failures: dict[Key, int] = {}
        self._back_at: dict[Key, float] = {}  # loop time at which the last counted failure lets the key come back
        self._due: dict[Key, float] = {}  # delayed keys and their loop time
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        """When it rings. Not every loop's handle can be asked: uvloop's of a time that has come already cannot."""
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys ready now, without the delayed and those being worked on."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        return len(self._due)

    @property
    def idle(self) -> bool:
        """Nothing ready, delayed or being worked on."""
        return not (self._wanted or self._working or self._due)

    def add(self, key: Key) -> None:
        """Have this key worked on soon; nothing if it already waits."""
        if key in self._wanted:
            return
        self._wanted[key] = _now()
        self.adds += 1
        if key not in self._working:
            self._offer(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """As `add`, that much later. A key already delayed comes at the earlier of both times."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self._due.get(key, at + 1) <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        self._arm(loop)

    def retry(self, key: Key) -> bool:
        """Count a failure and have the key back after its back-off; False, and no more, once retries are used up.

        A failure before the key's back-off is over, of a sync that an event asked for, is not counted, and the key
        comes back when it would have anyway: a few bad seconds with many events would else make it wait for hours.
        """
        now = asyncio.get_running_loop().time()
        self.retries += 1
        if (back_at := self._back_at.get(key, 0.0)) > now + 1e-6:
            self.add_after(key, back_at - now)
            return True
        failures = self._failures.get(key, 0)
        if self.policy.most and failures >= self.policy.most:
            del self._failures[key]
            self._back_at.pop(key, None)
            return False
        self._failures[key] = failures + 1
        wait = max(self.policy.delay_seconds(failures), self.bucket.reserve(now))
        self._back_at[key] = now + wait
        self.add_after(key, wait)
        return True

    def forget(self, key: Key) -> None:
        """The key went well: its next failure is its first."""
        self._failures.pop(key, None)
        self._back_at.pop(key, None)

    def under_way(self) -> list[float]:
        """For each key being worked on, the seconds so far."""
        now = _now()
        return [now - since for since in self._working.values()]

    def attempts(self, key: Key) -> int:
        """Failures since the key last went well."""
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key, which is this worker's until `done`."""
        if self._opened == BEFORE:
            self._opened = _now()
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the wake-up was ours but we leave: hand it on
                elif waiter in self._getters:  # `_wake` may have passed over it already
                    self._getters.remove(waiter)
                raise
        key = self._ready.popleft()
        now = _now()
        since = self._wanted.pop(key)
        self.waits.observe(now - (self._opened if since == BEFORE else since))
        self._working[key] = now
        return key

    def done(self, key: Key) -> None:
        """The worker has let go of the key; if it was added meanwhile it is handed out again."""
        now = _now()
        self.works.observe(now - self._working.pop(key))
        if key in self._wanted:
            self._wanted[key] = now
            self._offer(key)

    def _offer(self, key: Key) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the one timer to the earliest delayed key."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # came earlier, or was replaced by an earlier time
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._ripen)
        self._timer_at = at

    def _ripen(self) -> None:
        """Make every delayed key whose time has come ready."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time() + 1e-9
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)
        self._arm(loop)
