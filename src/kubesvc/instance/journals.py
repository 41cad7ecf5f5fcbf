"""The journals of a whole instance as one stream of lines: who came and went, and what each node noted of it."""

from __future__ import annotations

from pathlib import Path

from .journal import HOPS, TIMELINE, Tail, read_lines

MOST_PAST = 2000
"""Lines of the past that are given at first, of each journal: the newest."""


class Journals:
    """Lines that were not given before; the first call of each gives the newest of the past.

    root: the instance's directory
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tails: dict[Path, Tail] = {}

    def moves(self) -> list[bytes]:
        """New lines about addresses that joined or left."""
        return self._fresh(self.root / TIMELINE)

    def hops(self) -> dict[str, list[bytes]]:
        """New lines of each node that has any."""
        files = sorted((self.root / "nodes").glob(f"*/{HOPS}"))
        return {f.parent.name: lines for f in files if (lines := self._fresh(f))}

    def _fresh(self, path: Path) -> list[bytes]:
        tail = self._tails.get(path)
        if tail is None:
            tail = self._tails[path] = Tail(path)
            return list(read_lines(path))[-MOST_PAST:]
        return tail.fresh()
