"""How many Events one object may have: repeats are combined, and who talks without end is heard seldom (NODE-94). Pure.

The numbers are those of Kubernetes' own clients, so that `kubectl describe` shows the same of the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

SIMILAR = 10
"""From so many different messages of one reason about one object on they are combined into one Event."""
SIMILAR_SECONDS = 600.0
BURST = 25
REFILL_SECONDS = 300.0
"""About one object BURST Events may be written at once, and one more each REFILL_SECONDS."""
REMEMBERED = 4096
COMBINED = "(combined from similar events): "


@dataclass
class Similar:
    """The different messages of one reason about one object, the latest of them at `at`."""

    at: float
    messages: OrderedDict[str, None] = field(default_factory=OrderedDict)


@dataclass
class Bucket:
    """What an object has saved up for its Events, in seconds: each costs REFILL_SECONDS."""

    saved: float
    at: float


class EventFlow:
    """What becomes of each thing that is to be told."""

    def __init__(self) -> None:
        self.similar: OrderedDict[Hashable, Similar] = OrderedDict()
        self.buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def combine(self, about: Hashable, reason: Hashable, message: str, at: float) -> tuple[str, bool]:
        """(the message to tell, whether it stands for several).

        about: the object;  reason: type and reason;  at: seconds, not going back by much
        """
        key = (about, reason)
        known = self.similar.pop(key, None)
        if known is None or at - known.at > SIMILAR_SECONDS:
            known = Similar(at)
        self.similar[key] = known
        trim(self.similar)
        known.at = at
        known.messages[message] = None
        if len(known.messages) < SIMILAR:
            return message, False
        known.messages.popitem(last=False)
        return COMBINED + message, True

    def admits(self, about: Hashable, at: float) -> bool:
        """Whether one more Event about an object may be written; it then counts."""
        full = BURST * REFILL_SECONDS
        known = self.buckets.pop(about, None) or Bucket(full, at)
        known.saved = min(full, known.saved + max(0.0, at - known.at))
        known.at = max(known.at, at)
        self.buckets[about] = known
        trim(self.buckets)
        if known.saved < REFILL_SECONDS:
            return False
        known.saved -= REFILL_SECONDS
        return True


def trim(held: OrderedDict[Hashable, Similar] | OrderedDict[Hashable, Bucket]) -> None:
    while len(held) > REMEMBERED:
        held.popitem(last=False)
