"""Regular expressions of expressions: Go's, in time linear in the text, and paid for by the evaluation that asks.

As `kubesvc.api.patterns` does for schemas, Python's engine is asked where it cannot take long, and otherwise all states
are followed at once, in the order in which a backtracking engine would try them, so that both find the same match.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..patterns import (
    MOST_STEPS,
    SHORT_TEXT,
    Automaton,
    BadPattern,
    Endless,
    check,
    choices,
    sre,
    translate,
    tree_of,
)
from .values import CelError

if TYPE_CHECKING:
    from .evaluate import Frame

MOST_CHARACTERS = 10_000
MOST_STATES = 4_000
"""Patterns that take more to match are refused: repetitions of repetitions, mostly."""
STATE_COST = 12
"""What making one state costs."""
STEPS_A_COST = 200
"""Steps of Python's engine that cost 1."""


class Regex:
    """A compiled pattern. `repetitions`, `alternatives`: what bounds the steps of backtracking; None: nothing does."""

    __slots__ = ("_automaton", "alternatives", "quick", "repetitions", "size", "tree")

    def __init__(self, pattern: str) -> None:
        translated = translate(pattern)
        self.quick = re.compile(translated, re.ASCII)
        tree = tree_of(translated)
        check(tree)
        self.size = size_of(tree)
        if self.size > MOST_STATES:
            raise BadPattern("expression too large")
        self.tree = tree
        self._automaton: Automaton | None = None
        self.repetitions: int | None = None
        self.alternatives = 0
        try:
            self.repetitions, self.alternatives = choices(tree, inside=False)
        except Endless:
            pass

    def steps(self, length: int) -> int | None:
        """What Python's engine takes at the worst; None: too much."""
        if self.repetitions is None or length > SHORT_TEXT or self.repetitions > 40:
            return None
        found = self.alternatives * max(length, 1) ** (self.repetitions + 1)
        return found if found <= MOST_STEPS else None

    @property
    def automaton(self) -> Automaton:
        """Made when it is first needed: most patterns never need it."""
        if self._automaton is None:
            self._automaton = Automaton(self.tree)
        return self._automaton

    def charge(self, frame: Frame, length: int) -> bool:
        """Pay for one search in a text; whether Python's engine is to be asked."""
        steps = self.steps(length)
        if steps is None:
            frame.spend(1 + length * self.size // 4 + (STATE_COST * self.size if self._automaton is None else 0))
            return False
        frame.spend(1 + length // 10 + steps // STEPS_A_COST)
        return True

    def matches(self, frame: Frame, text: str) -> bool:
        if self.charge(frame, len(text)):
            return self.quick.search(text) is not None
        return self.automaton.search(text)

    def find_all(self, frame: Frame, text: str, most: int = -1) -> list[str]:
        """All matches that do not overlap, at most so many unless `most` is below 0."""
        out: list[str] = []
        at = 0
        last = -1
        while at <= len(text) and (most < 0 or len(out) < most):
            found = self.next(frame, text, at)
            if found is None:
                break
            start, end = found
            if start == end:
                if start != last:  # no empty match right behind a match
                    out.append("")
                at = end + 1
            else:
                out.append(text[start:end])
                at = end
            last = end
            frame.spend(1)
        return out

    def next(self, frame: Frame, text: str, at: int) -> tuple[int, int] | None:
        if self.charge(frame, len(text) - at):
            found = self.quick.search(text, at)
            return found.span() if found else None
        return first_match(self.automaton, text, at)


def first_match(automaton: Automaton, text: str, at: int) -> tuple[int, int] | None:
    """The first match at or behind a position, as a backtracking engine would find it."""
    states = automaton.states
    now: list[tuple[int, int]] = []  # where a thread is, and where its match began; the preferred one first
    best: tuple[int, int] | None = None
    for i in range(at, len(text) + 1):
        if best is None:
            now.append((automaton.start, i))
        reached: list[tuple[int, int]] = []
        seen: set[int] = set()
        for at_state, begun in now:
            follow(states, at_state, begun, text, i, seen, reached)
        now = []
        for n, begun in reached:
            state = states[n]
            if state[0] == "end":
                best = (begun, i)
                break  # whoever comes later is less preferred
            if i < len(text) and state[1](text[i]):
                now.append((state[2], begun))
        if best is not None and not now:
            break
    return best


def follow(
    states: list[Any], start: int, begun: int, text: str, at: int, seen: set[int], out: list[tuple[int, int]]
) -> None:
    todo = [start]
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        state = states[n]
        if state[0] == "fork":
            todo += reversed(state[1])
        elif state[0] == "at":
            if state[1](text, at):
                todo.append(state[2])
        else:
            out.append((n, begun))


def size_of(tree: Iterable[Any]) -> int:
    """How many states an automaton of a pattern will have, about; what is too many need not be exact."""
    total = 0
    for op, given in tree:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = given
            times = low + 1 if high is sre.MAXREPEAT else high
            total += (size_of(body) + 1) * max(times, 1)
        elif op is sre.BRANCH:
            total += 1 + sum(size_of(one) for one in given[1])
        elif op is sre.SUBPATTERN:
            total += size_of(given[3])
        else:
            total += 1
        if total > MOST_STATES:
            return total
    return total


class Patterns:
    """Compiled patterns, the last ones kept. A pattern that is none is kept as what is wrong with it. Threads may share
    it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.lock = threading.Lock()
        self.known: dict[str, Regex | str] = {}

    def make(self, pattern: str) -> Regex | str:
        found = self.known.get(pattern)
        if found is None:
            found = self.read(pattern)
            with self.lock:
                if len(self.known) >= self.most:
                    del self.known[next(iter(self.known))]
                self.known[pattern] = found
        return found

    def read(self, pattern: str) -> Regex | str:
        if len(pattern) > MOST_CHARACTERS:
            return "expression too large"
        try:
            return Regex(pattern)
        except (BadPattern, re.error, RecursionError, OverflowError) as e:
            return str(e)


PATTERNS = Patterns(256)
made = PATTERNS.make


def regex(frame: Frame, pattern: str) -> Regex:
    """A pattern to be matched; one that was not known costs more. CelError for what is no pattern."""
    known = pattern in PATTERNS.known
    if not known:
        frame.spend(20 * min(len(pattern), MOST_CHARACTERS))
    found = made(pattern)
    if isinstance(found, str):
        raise CelError(f"error parsing regexp: {found}: `{pattern[:200]}`")
    frame.spend(len(pattern) // 4 if known else STATE_COST * found.size // 4)
    return found
