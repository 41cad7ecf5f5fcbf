"""A bounded journal: lines of JSON in a file, the older half in a second one, never more than twice the bound."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from kubesvc.clock import Clock

MOST_BYTES = 2 << 20
_encode = msgspec.json.Encoder().encode


class Journal:
    """Appends to a file, which may be read meanwhile; one writer. A disk that is full costs lines, never more."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self.file = -1
        self.size = 0

    def write(self, entry: Any) -> None:
        """Append one entry, any value that msgspec encodes."""
        line = _encode(entry) + b"\n"
        try:
            if self.file < 0 or self.size + len(line) > self.most_bytes:
                self.turn()
            self.size += os.write(self.file, line)
        except OSError:
            self.close()

    def turn(self) -> None:
        """Open the file; one that is full becomes the older one."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size + 512 > self.most_bytes:
                self.path.replace(older(self.path))
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.file).st_size

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def read_lines(path: Path) -> Iterator[bytes]:
    """Whole lines, the oldest first; a line that is still being written is left out."""
    for file in (older(path), path):
        try:
            raw = file.read_bytes()
        except OSError:
            continue
        lines = raw.split(b"\n")
        yield from (line for line in lines[:-1] if line)


TIMELINE = "timeline.jsonl"
"""In the instance's directory: every address that joined or left a Service, by the controller `service-events`."""
HOPS = "hops.jsonl"
"""In a node's directory: when its probes turned, when its rules and its DNS followed a change."""
MOST_KEYS = 50
"""Services of one sync that are written down each; a sync of more is a load of everything, which tells nothing."""


def forget_journals(root: Path) -> None:
    """Remove the journals of an instance, by its directory: its objects are forgotten, so nobody could tell whose
    past they are."""
    for kept in (root / TIMELINE, *root.glob(f"nodes/*/{HOPS}")):
        for file in (kept, older(kept)):
            file.unlink(missing_ok=True)


class Hop(msgspec.Struct, frozen=True, omit_defaults=True):
    """One hop on one node.

    at:   Unix seconds
    hop:  probe (key: the Pod), rules, names (key: the Service); as NAMESPACE/NAME
    text: what a probe met
    """

    at: float
    hop: str
    key: str
    text: str = ""


class HopJournal:
    """What the parts of a node's process tell, written down."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.journal = Journal(path)
        self.clock = clock

    def probe(self, namespace: str, pod: str, text: str) -> None:
        """The verdict of a Pod's probe has turned."""
        self.journal.write(Hop(self.clock.now(), "probe", f"{namespace}/{pod}", text))

    def rules(self, report: Synced) -> None:
        """A sync of the proxy has ended: these Services' rules are in force."""
        if len(report.services) <= MOST_KEYS:
            for namespace, name in report.services:
                self.journal.write(Hop(report.finished_at, "rules", f"{namespace}/{name}"))

    def names(self, old: object, new: object) -> None:
        """The DNS server has taken in an EndpointSlice."""
        for s in (new, old):
            metadata = getattr(s, "metadata", None)
            if metadata is not None and (service := metadata.label("kubernetes.io/service-name")):
                self.journal.write(Hop(self.clock.now(), "names", f"{metadata.namespace}/{service}"))
                return


class Synced(Protocol):
    """As much of the proxy's report as is written down."""

    @property
    def services(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def finished_at(self) -> float: ...


class Tail:
    """New lines of a journal, as they come; what stood there before the first look is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = self.look()

    def look(self) -> tuple[int, int]:
        """(which file, how long it is); (0, 0) for none."""
        try:
            found = self.path.stat()
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_size)

    def fresh(self) -> list[bytes]:
        """The whole lines since the last look. When the file has been turned, first the rest of the older one."""
        now, (file, size) = self.look(), self.place
        found: list[bytes] = []
        if file and now[0] != file:
            found += self.lines(older(self.path), size)[0]
            size = 0
        lines, end = self.lines(self.path, size)
        self.place = (now[0], end)
        return found + lines

    @staticmethod
    def lines(path: Path, start: int) -> tuple[list[bytes], int]:
        """(whole lines from an offset on, the offset behind them)."""
        try:
            with path.open("rb") as file:
                file.seek(start)
                raw = file.read()
        except OSError:
            return [], start
        whole = raw[: raw.rfind(b"\n") + 1]
        return [line for line in whole.split(b"\n") if line], start + len(whole)
