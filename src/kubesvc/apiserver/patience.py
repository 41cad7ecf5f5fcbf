"""Expressions that may take long: tried for a moment where requests are served, and then by one thread beside.

Nearly all end at once. One that does not is evaluated anew in the thread, so that other requests go on meanwhile; what
may be spent there is upstream's limit, a few seconds at the worst, and evaluations wait there for each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from kubesvc.api.fields import Errors, invalid
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.rules import BLOCKED, TooDear, blocked, evaluate
from kubesvc.api.valuecheck import ABSENT

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
AT_ONCE = 500_000
"""What may be spent before others wait for it: 50 ms or so, at the worst half a second."""
ANSWER_SECONDS = 30
beside = threading.local()
"""In the thread: the loop that serves requests."""


@lru_cache(maxsize=1)
def thread() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="expressions")


async def patiently(run: Callable[[int], T], most: int) -> T:
    """The result of an evaluation that is given a budget and raises TooDear where that was too small; `most` never
    is."""
    try:
        return run(min(AT_ONCE, most))
    except TooDear:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread(), run_beside, run, most, loop)


def run_beside(run: Callable[[int], T], most: int, loop: asyncio.AbstractEventLoop) -> T:
    beside.loop = loop
    return run(most)


def where_served(call: Callable[[], T]) -> T:
    """The result of a call that reads what only requests may read: made where they are served, whoever asks."""
    loop = getattr(beside, "loop", None)
    if loop is None:
        return call()

    async def there() -> T:
        return call()

    return asyncio.run_coroutine_threadsafe(there(), loop).result(timeout=ANSWER_SECONDS)


async def rule_errors(kind: Kind, new: Object, old: Object | None, errors: Errors, warnings: list[str]) -> Errors:
    """What the rules of a custom kind have against an object; what they spare because it was so before goes to the
    warnings.

    errors: what is wrong otherwise; there are things after which no rule is asked
    """
    rules = kind.custom.rules if kind.custom is not None else None
    if rules is None:
        return []
    if blocked(errors):
        return [invalid("<nil>", None, BLOCKED)]
    from kubesvc.api.cel.program import TOTAL_BUDGET

    def run(budget: int) -> tuple[Errors, list[str]]:
        found = evaluate(rules, new, ABSENT if old is None else old, budget)
        if found.exhausted and budget < TOTAL_BUDGET:
            raise TooDear
        return found.errors, found.warnings

    found, spared = await patiently(run, TOTAL_BUDGET)
    warnings += [w for w in spared if w not in warnings]
    return found
