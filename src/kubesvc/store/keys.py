"""A sorted collection of keys in chunks: an insert is one bisection and one short move, however many keys there are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

CHUNK = 1024
"""Most keys in one chunk. Longer chunks make inserts move more, shorter ones make counting walk more."""

LAST = chr(0x10FFFF)


def prefix_end(prefix: str) -> str:
    """The least text greater than every text that starts with `prefix`; "" when there is none.

    The result is for comparing only: it need not be encodable.
    """
    bare = prefix.rstrip(LAST)
    return bare[:-1] + chr(ord(bare[-1]) + 1) if bare else ""


class SortedKeys:
    """Distinct texts in code point order, which is also the order of their UTF-8 bytes."""

    __slots__ = ("chunks", "lasts", "size")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(keys)
        half = CHUNK // 2  # room to grow before the first split
        self.chunks = [ordered[i : i + half] for i in range(0, len(ordered), half)]
        self.lasts = [chunk[-1] for chunk in self.chunks]
        self.size = len(ordered)

    def __len__(self) -> int:
        return self.size

    def add(self, key: str) -> None:
        """Insert a key that is not in the collection."""
        self.size += 1
        if not self.chunks:
            self.chunks, self.lasts = [[key]], [key]
            return
        at = min(bisect_left(self.lasts, key), len(self.chunks) - 1)
        chunk = self.chunks[at]
        insort(chunk, key)
        if len(chunk) > CHUNK:
            # Keys often arrive in ascending order; cutting late leaves full chunks behind.
            cut = CHUNK * 7 // 8 if chunk[-1] == key else CHUNK // 2
            self.chunks[at : at + 1] = [chunk[:cut], chunk[cut:]]
            self.lasts.insert(at, chunk[cut - 1])
            at += 1
        self.lasts[at] = self.chunks[at][-1]

    def remove(self, key: str) -> None:
        """Take out a key that is in the collection; KeyError if it is not."""
        at = bisect_left(self.lasts, key)
        chunk = self.chunks[at] if at < len(self.chunks) else []
        position = bisect_left(chunk, key)
        if position == len(chunk) or chunk[position] != key:
            raise KeyError(key)
        del chunk[position]
        self.size -= 1
        if chunk:
            self.lasts[at] = chunk[-1]
        else:
            del self.chunks[at], self.lasts[at]

    def position(self, key: str) -> tuple[int, int]:
        """Chunk and place in it of the first key >= `key`; (number of chunks, 0) when there is none."""
        at = bisect_left(self.lasts, key)
        return (at, bisect_left(self.chunks[at], key)) if at < len(self.chunks) else (at, 0)

    def between(self, start: str, end: str) -> Iterator[str]:
        """Keys with start <= key < end in order; `end` "" means no end. Not to be used across a change."""
        at, place = self.position(start)
        last, last_place = self.position(end) if end else (len(self.chunks), 0)
        while at < last:
            yield from self.chunks[at][place:] if place else self.chunks[at]
            at, place = at + 1, 0
        if at == last and last_place > place:
            yield from self.chunks[at][place:last_place]

    def count(self, start: str, end: str) -> int:
        """How many keys `between` would give."""
        at, place = self.position(start)
        last, last_place = self.position(end) if end else (len(self.chunks), 0)
        if (at, place) >= (last, last_place):
            return 0
        return sum(map(len, self.chunks[at:last])) - place + last_place
