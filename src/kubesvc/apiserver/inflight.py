"""How many requests may be under way at once: readers and writers apart, so that neither starves the other.

Requests that last by their nature (watches, streams to pods) have limits of their own kind and are not counted here;
neither is the admin, who must get through whatever others do.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from kubesvc.api.errors import TooManyRequests
from kubesvc.client.metrics import Labels

from .authentication import User
from .routing import Target

RequestKind = Literal["readOnly", "mutating"]
READERS = frozenset({"get", "list", "head", "options"})
LASTING = frozenset({"exec", "attach", "portforward", "proxy", "log"})
RETRY_SECONDS = 1


def is_lasting(target: Target) -> bool:
    """Whether a request goes on for as long as its client likes."""
    return target.verb == "watch" or target.subresource in LASTING


def request_kind(target: Target) -> RequestKind:
    return "readOnly" if target.verb in READERS else "mutating"


class InFlight:
    """Counts requests under way. 0 as a limit means none."""

    def __init__(self, readers: int, writers: int) -> None:
        self.limits: dict[RequestKind, int] = {"readOnly": readers, "mutating": writers}
        self.now: dict[RequestKind, int] = {"readOnly": 0, "mutating": 0}
        self.lasting: Counter[Labels] = Counter()
        """Streams under way, by what they are counted under."""
        self.refused: dict[RequestKind, int] = {"readOnly": 0, "mutating": 0}

    def enter(self, target: Target, user: User, labels: Labels) -> RequestKind | Labels:
        """Take a place, to be given back to `leave`; TooManyRequests if there is none.

        labels: what the request is counted under, but for whether it is a dry run
        """
        if is_lasting(target):
            self.lasting[labels] += 1
            return labels
        kind = request_kind(target)
        if self.limits[kind] and self.now[kind] >= self.limits[kind] and not user.may_everything:
            self.refused[kind] += 1
            raise TooManyRequests("Too many requests, please try again later.", retry_after_seconds=RETRY_SECONDS)
        self.now[kind] += 1
        return kind

    def leave(self, place: RequestKind | Labels) -> None:
        if isinstance(place, tuple):
            self.lasting[place] -= 1
        else:
            self.now[place] -= 1
