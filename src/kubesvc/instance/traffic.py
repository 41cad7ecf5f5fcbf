"""How many connections each node's rules have led to each endpoint: asked at the nodes' doors while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from .proxyreport import read_report

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
LINE_BYTES = 4 << 20

FlowKey = tuple[int, str, int, str, int]
"""Protocol number, address and port that a connection was sent to, address and port that answer."""


class Counted(msgspec.Struct, frozen=True):
    """A line from a node's door: totals that have changed, and whether some connections could not be counted."""

    totals: list[tuple[int, str, int, str, int, int]] = []
    partial: bool = False


class Admitted(msgspec.Struct, frozen=True):
    """The first line from a door."""

    ok: bool = False
    error: str = ""


class NodeTraffic:
    """The counters of all nodes, kept up to date while `run` runs.

    doors: gives, by name, the doors of the nodes that run now
    """

    def __init__(self, doors: Callable[[], Mapping[str, Path]]) -> None:
        self.doors = doors
        self.totals: dict[str, dict[FlowKey, int]] = {}
        """By node."""
        self.lost = False
        """Whether a node could not count all that it heard of."""
        self.refused: dict[str, str] = {}
        """Why a node cannot count, by node."""

    @property
    def partial(self) -> bool:
        """Whether there were, or may have been, more connections than those in `totals`."""
        return self.lost or bool(self.refused)

    def trouble(self) -> str:
        """Why connections cannot be counted at all; "" if they can, or if nobody has said anything yet."""
        if self.refused and not self.totals:
            node, said = min(self.refused.items())
            return f"node {node} cannot count connections: {said}"
        modes = {report.mode for door in self.doors().values() if (report := read_report(door.parent)) is not None}
        if modes == {"userspace"}:
            return "in userspace mode the kernel's table does not know which endpoint a connection went to"
        return ""

    async def run(self) -> None:
        """Listen at every node's door until cancelled; a node that goes and comes is listened to anew."""
        listening: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                doors = self.doors()
                for name in [n for n, task in listening.items() if task.done() or n not in doors]:
                    listening.pop(name).cancel()
                for name, path in doors.items():
                    if name not in listening:
                        listening[name] = group.create_task(self.listen(name, path), name=f"traffic of {name}")
                await asyncio.sleep(AGAIN_SECONDS)

    async def listen(self, name: str, path: Path) -> None:
        """Follow one node's counters until its door closes."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES)
        except OSError as error:
            self.refused[name] = error.strerror or str(error)
            return
        decoder = msgspec.json.Decoder(Counted)
        try:
            writer.write(b"connections\n")
            admitted = msgspec.json.decode(await reader.readline() or b"{}", type=Admitted)
            if not admitted.ok:
                self.refused[name] = admitted.error or "its door has closed"
                return
            self.refused.pop(name, None)
            known = self.totals[name] = {}
            while line := await reader.readline():
                counted = decoder.decode(line)
                for *key, total in counted.totals:
                    known[tuple(key)] = total  # type: ignore[index]
                self.lost |= counted.partial
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.debug("counters of node %s: %s", name, error)
        finally:
            self.totals.pop(name, None)
            with contextlib.suppress(OSError):
                writer.close()
