"""`python -m kubesvc.cli.load`: sends HTTP requests at an even rate, as one JSON `Order` on standard input says, until
standard input ends or the time is over; then writes one JSON `Outcome`.

Every request has a connection of its own, so that each is balanced anew. It runs inside a node, or anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import msgspec

from kubesvc.clock import Clock, RealClock

MOST_AT_ONCE = 1000
MOST_LOST = 5000
"""Lost requests that are written down each; further ones are counted."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: `GET path` to address and port, `rps` times a second for at most `seconds`, each waited for
    `patience` seconds."""

    address: str
    port: int
    host: str = ""
    path: str = "/"
    rps: float = 100.0
    seconds: float = 60.0
    patience: float = 2.0


class Lost(msgspec.Struct, frozen=True):
    """One request without a good answer: when it began and ended (Unix seconds), and what it met."""

    began: float
    ended: float
    met: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them. `late` is the longest delay of a request behind its time, in seconds; `held_back` were
    not sent, since too many were under way."""

    began: float
    ended: float
    sent: int
    good: int
    lost: list[Lost]
    lost_in_all: int
    held_back: int
    late: float
    slowest: float


class Load:
    """One run."""

    def __init__(self, order: Order, clock: Clock) -> None:
        self.order = order
        self.clock = clock
        self.sent = self.good = self.lost_in_all = self.held_back = 0
        self.late = self.slowest = 0.0
        self.lost: list[Lost] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> Outcome:
        loop = asyncio.get_running_loop()
        began, start = self.clock.now(), loop.time()
        number = 0
        while not stop.is_set() and loop.time() - start < self.order.seconds:
            due = start + number / self.order.rps
            number += 1
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self.late = max(self.late, loop.time() - due)
            if len(self.tasks) >= MOST_AT_ONCE:
                self.held_back += 1
                continue
            self.sent += 1
            task = asyncio.create_task(self.request())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self.tasks:
            await asyncio.wait(self.tasks)
        return Outcome(
            began=began, ended=self.clock.now(), sent=self.sent, good=self.good, lost=self.lost,
            lost_in_all=self.lost_in_all, held_back=self.held_back, late=self.late, slowest=self.slowest,
        )  # fmt: skip

    async def request(self) -> None:
        began = self.clock.now()
        met = await self.ask()
        ended = self.clock.now()
        if met == "":
            self.good += 1
            self.slowest = max(self.slowest, ended - began)
            return
        self.lost_in_all += 1
        if len(self.lost) < MOST_LOST:
            self.lost.append(Lost(began, ended, met))

    async def ask(self) -> str:
        """ "" for a whole answer below 500, else what was met: refused, reset, silent, cut, or the status."""
        order, writer = self.order, None
        try:
            async with asyncio.timeout(order.patience):
                reader, writer = await asyncio.open_connection(order.address, order.port)
                host = order.host or order.address
                writer.write(f"GET {order.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                while await reader.read(65536):
                    pass
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return "cut"
        except OSError:
            return "reset"
        finally:
            if writer is not None:
                writer.transport.abort()
        words = head.split(b" ", 2)
        status = words[1].decode(errors="replace") if len(words) > 1 else "?"
        return "" if status.isdigit() and int(status) < 500 else f"status {status}"


async def serve() -> Outcome:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def readable() -> None:
        loop.remove_reader(0)
        stop.set()

    loop.add_reader(0, readable)  # whoever gave the order has no more to say, or is gone
    return await Load(order, RealClock()).run(stop)


def main() -> int:
    told = msgspec.json.encode(asyncio.run(serve()))
    with contextlib.suppress(BrokenPipeError):  # whoever gave the order was killed
        sys.stdout.buffer.write(told)
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
