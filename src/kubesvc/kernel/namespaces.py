"""Namespaces as values: opening, comparing and naming them, and the command line that enters or makes them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import syscalls
from .nsexec import KINDS

ORDER = tuple(KINDS)
"""Names in the order of joining: user, net, uts, ipc, pid, mnt."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a namespace the same namespace: its kind and the kernel's numbers for it."""

    kind: str
    device: int
    inode: int


def identity(pid: int | str, kind: str) -> Identity:
    """The namespace of this kind that process `pid` ("self" for the caller) is in. ProcessLookupError if it is gone."""
    try:
        found = os.stat(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return Identity(kind, found.st_dev, found.st_ino)


class Namespaces:
    """Open descriptors of some namespaces of one process; they keep the namespaces alive until closed.

    Use as a context manager or call `close`. `fds` maps the kind ("net", "mnt", …) to its descriptor.
    """

    def __init__(self, fds: Mapping[str, int]) -> None:
        self.fds = {kind: fds[kind] for kind in ORDER if kind in fds}

    @classmethod
    def of(cls, pid: int | str, kinds: Sequence[str]) -> Namespaces:
        """Those of process `pid`, a number or "thread-self". ProcessLookupError if it is gone."""
        opened: dict[str, int] = {}
        try:
            for kind in kinds:
                opened[kind] = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            for fd in opened.values():
                os.close(fd)
            raise ProcessLookupError(f"no process {pid}") from None
        return cls(opened)

    def join(self) -> None:
        """Move the calling thread into all of them."""
        for kind, fd in self.fds.items():
            syscalls.setns(fd, KINDS[kind])

    def close(self) -> None:
        fds, self.fds = self.fds, {}
        for fd in fds.values():
            os.close(fd)

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def nsexec_command(*flags: str, program: Sequence[str] = ()) -> list[str]:
    """The command that runs `program` through `nsexec` with these flags; without `site`, so it starts in 10 ms."""
    start = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import nsexec; nsexec.main()"
    tail = ["--", *program] if program else []
    return [sys.executable, "-I", "-S", "-c", start, *flags, *tail]
