"""Expressions ready for use: parsed, checked, and made a function of variables.

program = compiled("self.replicas <= self.most", {"self": type}, result=("bool",))
program.evaluate({"self": value}, budget=CALL_BUDGET)     # Outcome(value, cost); CelError, OutOfBudget
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .check import TypeProblem, check
from .evaluate import Compiler, Frame, Run
from .syntax import CelProblem, Problem, names_in, parse
from .types import Type
from .values import CelError, OutOfBudget

CALL_BUDGET = 1_000_000
"""What one evaluation may cost (upstream's PerCallLimit)."""
TOTAL_BUDGET = 10_000_000
"""What all rules of one object, or all policies of one request, may cost together (RuntimeCELCostBudget)."""


class Outcome(NamedTuple):
    value: Any
    cost: int


class Program:
    """One expression. `result`: the type of what it gives; `words`: the variables that it uses."""

    __slots__ = ("result", "run", "source", "words")

    def __init__(self, source: str, run: Run, result: Type, words: frozenset[str]) -> None:
        self.source, self.run, self.result, self.words = source, run, result, words

    def evaluate(self, variables: Mapping[str, Any], budget: int = CALL_BUDGET) -> Outcome:
        """Raises CelError, and OutOfBudget if it would cost more than the budget."""
        frame = Frame(variables, budget)
        try:
            value = self.run(frame)
        except RecursionError:
            raise CelError("expression is nested too deeply") from None
        return Outcome(value, budget - frame.left)


def compiled(source: str, variables: Mapping[str, Type], result: tuple[str, ...] = ()) -> Program:
    """An expression over variables of these types. result: the types, by name, one of which it must give; none: any.

    Raises CelProblem (SyntaxProblem, TypeProblem), whose text is upstream's.
    """
    node = parse(source)
    try:
        found = check(node, variables, source)
    except RecursionError:
        raise CelProblem(source, [Problem(0, "expression is nested too deeply")]) from None
    if result and found.name not in (*result, "dyn"):
        raise WrongResult(found)
    names = frozenset(variables)
    run = Compiler(names).run(node, names)
    return Program(source, run, found, frozenset(names_in(node) & names))


class WrongResult(CelProblem):
    """An expression that gives something else than what is asked for."""

    def __init__(self, found: Type) -> None:
        self.found = found
        super().__init__("", [])


__all__ = [
    "CALL_BUDGET", "TOTAL_BUDGET", "CelError", "CelProblem", "OutOfBudget", "Outcome", "Program", "TypeProblem",
    "WrongResult", "compiled",
]  # fmt: skip
