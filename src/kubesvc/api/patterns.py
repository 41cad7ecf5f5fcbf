"""Patterns of schemas: Go's regular expressions, matched in time linear in the text, whoever wrote pattern and text.

Python's engine backtracks, which patterns such as `(a+)+$` or `a*a*a*a*a*b` turn into hours. It is used where that
cannot happen: nothing to choose inside a repetition, and a text so short that all choices are soon tried. Anything else
is matched by keeping the set of all states that the pattern can be in after each character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

sre: Any = import_module("re._constants")
sre_parser: Any = import_module("re._parser")

SHORT_TEXT = 2048
"""Longer texts are never left to Python's engine."""
MOST_STEPS = SHORT_TEXT**2
"""What backtracking may take at the worst: what one repetition, looked for anywhere, takes in a text of that length."""
MOST_STATES = 20_000
MOST_REPEATS = 1000
"""As in Go: a counted repetition may ask for no more."""

Assertion = Callable[[str, int], bool]
State = tuple[Any, ...]


class BadPattern(ValueError):
    """A text that is no pattern, or uses what Go does not know (look-around, references)."""


class Unspoken(BadPattern):
    """A pattern that Go knows and we do not, such as `\\p{Greek}`."""


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Callable[[str], bool]:
    """Whether a text contains a match of the pattern; BadPattern if it is none."""
    translated = translate(pattern)
    try:
        quick = re.compile(translated, re.ASCII)
        tree = tree_of(translated)
    except (re.error, RecursionError, OverflowError) as e:
        raise BadPattern(str(e)) from None
    check(tree)
    length, automaton = quick_length(tree), Automaton(tree)

    def matches(text: str) -> bool:
        return quick.search(text) is not None if len(text) <= length else automaton.search(text)

    return matches


def tree_of(pattern: str) -> Any:
    """The nodes of a pattern in Python's spelling."""
    return sre_parser.parse(pattern, re.ASCII)


def translate(pattern: str) -> str:
    """Go's spelling of a pattern in Python's, where they differ: `\\z`, and `$` that only means the very end."""
    out: list[str] = []
    inside = False
    at = 0
    multiline = "(?m" in pattern or "(?sm" in pattern or "(?im" in pattern
    while at < len(pattern):
        c = pattern[at]
        if c == "\\" and at + 1 < len(pattern):
            pair = pattern[at : at + 2]
            if pair in ("\\p", "\\P", "\\Q", "\\C"):
                raise Unspoken(f"{pair} is not understood here")
            if pair == "\\Z" and not inside:
                raise BadPattern(f"invalid escape sequence: `{pair}`")
            out.append("\\Z" if pair == "\\z" and not inside else pair)
            at += 2
            continue
        if c == "[" and not inside:
            inside = True
            out.append(c)
            if pattern[at + 1 : at + 2] == "^":
                out.append("^")
                at += 1
            if pattern[at + 1 : at + 2] == "]":
                out.append("\\]")
                at += 1
            at += 1
            continue
        if inside and c == "[":
            name = POSIX_NAME.match(pattern, at)
            out.append(POSIX[name[1]] if name and name[1] in POSIX else "\\[")
            at += len(name[0]) if name and name[1] in POSIX else 1
            continue
        if inside and c == "]":
            inside = False
        elif not inside and c == "$" and not multiline:
            out.append("\\Z")
            at += 1
            continue
        out.append(c)
        at += 1
    return "".join(out)


POSIX_NAME = re.compile(r"\[:(\w+):\]")
POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "space": r"\t\n\v\f\r ",
    "word": r"\w", "xdigit": "0-9A-Fa-f", "blank": r"\t ", "punct": r"!-/:-@\[-`{-~", "print": " -~", "graph": "!-~",
}  # fmt: skip

KNOWN = frozenset(
    (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.BRANCH, sre.SUBPATTERN, sre.MAX_REPEAT, sre.MIN_REPEAT, sre.AT)
)


def check(tree: Iterable[Any]) -> None:
    """BadPattern for what Go does not know."""
    for op, given in tree:
        if op not in KNOWN:
            raise BadPattern(f"invalid or unsupported Perl syntax: {str(op).lower()}")
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = given
            if low > MOST_REPEATS or (high is not sre.MAXREPEAT and high > MOST_REPEATS):
                raise BadPattern("invalid repeat count")
            check(body)
        elif op is sre.BRANCH:
            for one in given[1]:
                check(one)
        elif op is sre.SUBPATTERN:
            check(given[3])


class Endless(Exception):
    """Inside a repetition there is something to choose: backtracking may try every combination."""


def quick_length(tree: Iterable[Any]) -> int:
    """The longest text that backtracking is done with in MOST_STEPS, wherever a match may begin."""
    try:
        repetitions, alternatives = choices(tree, inside=False)
    except Endless:
        return 0
    if alternatives > MOST_STEPS:
        return 0
    return min(SHORT_TEXT, int((MOST_STEPS // alternatives) ** (1 / (repetitions + 1)) + 1e-9))


def choices(tree: Iterable[Any], *, inside: bool) -> tuple[int, int]:
    """(how many repetitions, how many combinations of all else) backtracking may have to try. Endless if one stands
    `inside` another."""
    repetitions, alternatives = 0, 1
    for op, given in tree:
        parts: list[tuple[int, int]] = []
        times = 1
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = given
            if inside and low != high:
                raise Endless
            parts.append(choices(body, inside=inside or (low != high and high > 1)))
            if low != high:
                parts.append((1, 1) if high > 1 else (0, 2))
            else:
                times = high
        elif op is sre.BRANCH:
            if inside:
                raise Endless
            parts += [choices(one, inside=inside) for one in given[1]]
            parts.append((0, len(given[1])))
        elif op is sre.SUBPATTERN:
            parts.append(choices(given[3], inside=inside))
        for more, combined in parts:
            repetitions += more * times
            alternatives = min(alternatives * combined ** min(times, 64), MOST_STEPS + 1)
    return repetitions, alternatives


class Automaton:
    """All states at once. A state is a test of one character and where it leads, a fork, an assertion, or the end."""

    def __init__(self, tree: Iterable[Any]) -> None:
        self.states: list[State] = []
        self.ignore_case = bool(getattr(getattr(tree, "state", None), "flags", 0) & re.IGNORECASE)
        self.dot_all = bool(getattr(getattr(tree, "state", None), "flags", 0) & re.DOTALL)
        self.multiline = bool(getattr(getattr(tree, "state", None), "flags", 0) & re.MULTILINE)
        self.end = self.add(("end",))
        self.start = self.sequence(list(tree), self.end)

    def add(self, state: State) -> int:
        if len(self.states) > MOST_STATES:
            raise BadPattern("pattern is too large")
        self.states.append(state)
        return len(self.states) - 1

    def sequence(self, tree: list[Any], then: int) -> int:
        for op, given in reversed(tree):
            then = self.one(op, given, then)
        return then

    def one(self, op: Any, given: Any, then: int) -> int:
        if op is sre.SUBPATTERN:
            return self.sequence(list(given[3]), then)
        if op is sre.BRANCH:
            return self.add(("fork", tuple(self.sequence(list(b), then) for b in given[1])))
        if op is sre.AT:
            return self.add(("at", assertion(given, multiline=self.multiline), then))
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = given[0], given[1], list(given[2])
            lazy = op is sre.MIN_REPEAT
            if high is sre.MAXREPEAT:
                loop = self.add(("fork", ()))
                self.states[loop] = ("fork", preferred(self.sequence(body, loop), then, lazy=lazy))
                then = loop
            else:
                out = then
                for _ in range(high - low):
                    then = self.add(("fork", preferred(self.sequence(body, then), out, lazy=lazy)))
            for _ in range(low):
                then = self.sequence(body, then)
            return then
        return self.add(("char", self.test(op, given), then))

    def test(self, op: Any, given: Any) -> Callable[[str], bool]:
        flags = re.ASCII | (re.IGNORECASE if self.ignore_case else 0) | (re.DOTALL if self.dot_all else 0)
        pattern = spelled(op, given)
        return lambda c: single(pattern, flags).fullmatch(c) is not None

    def search(self, text: str) -> bool:
        known: dict[tuple[int, str], bool] = {}
        now: set[int] = set()
        for at in range(len(text) + 1):
            reached = self.closure({*now, self.start}, text, at)
            if self.end in reached:
                return True
            if at == len(text):
                return False
            c = text[at]
            now = set()
            for n in reached:
                state = self.states[n]
                if state[0] == "char":
                    hit = known.get((n, c))
                    if hit is None:
                        hit = known[n, c] = state[1](c)
                        if len(known) > MOST_STATES:
                            known.clear()
                    if hit:
                        now.add(state[2])
        return False

    def closure(self, found: set[int], text: str, at: int) -> set[int]:
        todo = list(found)
        while todo:
            state = self.states[todo.pop()]
            if state[0] == "fork":
                more = [n for n in state[1] if n not in found]
            elif state[0] == "at" and state[1](text, at):
                more = [state[2]] if state[2] not in found else []
            else:
                continue
            found.update(more)
            todo += more
        return found


def preferred(again: int, on: int, *, lazy: bool) -> tuple[int, int]:
    """The two ways on from a repetition, the one first that is tried first."""
    return (on, again) if lazy else (again, on)


@lru_cache(maxsize=4096)
def single(pattern: str, flags: int) -> re.Pattern[str]:
    """A pattern of one character, compiled when it is first asked: most states never are."""
    return re.compile(pattern, flags)


def spelled(op: Any, given: Any) -> str:
    """A pattern of one character for one node of the tree."""
    if op is sre.ANY:
        return "."
    if op is sre.LITERAL:
        return re.escape(chr(given))
    if op is sre.NOT_LITERAL:
        return f"[^{re.escape(chr(given))}]"
    out = ["["]
    for kind, value in given:
        if kind is sre.NEGATE:
            out.append("^")
        elif kind is sre.LITERAL:
            out.append(re.escape(chr(value)))
        elif kind is sre.RANGE:
            out.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        elif kind is sre.CATEGORY:
            out.append(CATEGORIES[value])
    return "".join([*out, "]"])


CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def is_word(c: str) -> bool:
    return c.isascii() and (c.isalnum() or c == "_")


def assertion(where: Any, *, multiline: bool) -> Assertion:
    """Whether a position of a text is at a begin, an end or a border of a word."""
    if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        if where is sre.AT_BEGINNING and multiline:
            return lambda text, at: at == 0 or text[at - 1] == "\n"
        return lambda text, at: at == 0
    if where in (sre.AT_END, sre.AT_END_STRING):
        if where is sre.AT_END and multiline:
            return lambda text, at: at == len(text) or text[at] == "\n"
        return lambda text, at: at == len(text)

    def border(text: str, at: int) -> bool:
        return (at > 0 and is_word(text[at - 1])) != (at < len(text) and is_word(text[at]))

    return border if where is sre.AT_BOUNDARY else (lambda text, at: not border(text, at))
