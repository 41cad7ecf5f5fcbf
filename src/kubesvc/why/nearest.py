"""Which known word was meant: edit distance with swapped neighbours. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache


def distance(a: str, b: str) -> int:
    """Fewest insertions, deletions, replacements and swaps of neighbours that make `b` of `a`."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
    return row[-1]


@lru_cache(maxsize=1 << 16)
def alike(a: str, b: str) -> bool:
    """Whether one may be a misspelling of the other: a third of it wrong at most, or one begins the other at a
    separator, or they differ in case alone."""
    if a.lower() == b.lower():
        return True
    shorter, longer = sorted((a, b), key=len)
    if shorter and longer.startswith(shorter) and longer[len(shorter)] in "-_.":
        return True
    most = max(1, len(longer) // 3)
    if len(longer) < 2 or len(longer) - len(shorter) > most:
        return False
    # One edit changes the set of letters by two at most: most words are told apart without measuring.
    return len(set(a) ^ set(b)) <= 2 * most and distance(a, b) <= most


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was most likely meant, "" if none is near; of equals the first by name."""
    found = [(distance(word, k), k) for k in known if k != word and alike(word, k)]
    return min(found)[1] if found else ""
