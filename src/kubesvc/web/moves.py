"""The timeline below a picture: the newest moves of each Service, from the journals or from successive pictures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from kubesvc.clock import Clock
from kubesvc.why.timeline import Hop, Moved, decoded, plain_entry, plan_entries

from .model import EdgeItem, Picture, PodItem

if TYPE_CHECKING:
    from .feed import Lines

MOST_MOVES = 4000
MOST_HOPS = 4000
MOST_SHOWN = 60
"""Entries shown of one Service: the newest."""
SETTLED_SECONDS = 5.0
"""An entry so old is not joined with hops again."""

Key = tuple[str, str]


class Moves:
    """Who joined and left.

    lines: the journals of an instance; None where moves are to be told from pictures
    """

    def __init__(self, clock: Clock, lines: Lines | None) -> None:
        self.clock = clock
        self.lines = lines
        self.moved: dict[Key, deque[Moved]] = {}
        self.hops: dict[str, deque[Hop]] = {}
        self._settled: dict[Key, dict[str, dict[str, Any]]] = {}

    def read(self) -> bool:
        """Take in new lines; whether there were any."""
        if self.lines is None:
            return False
        found = False
        for moved in decoded(self.lines.moves(), Moved):
            self.add(moved)
            found = True
        for node, lines in self.lines.hops().items():
            known = self.hops.setdefault(node, deque(maxlen=MOST_HOPS))
            for hop in decoded(lines, Hop):
                known.append(hop)
                found = True
        return found

    def add(self, moved: Moved) -> None:
        """Remember a move; of each Service the newest are kept, and of all no more than a bound."""
        key = (moved.namespace, moved.service)
        if key not in self.moved and len(self.moved) >= MOST_MOVES:
            self.moved.pop(next(iter(self.moved)))
        self.moved.setdefault(key, deque(maxlen=MOST_SHOWN)).append(moved)

    def entries(self, key: Key) -> dict[str, dict[str, Any]]:
        """The newest entries of a Service by id, in order of time, as programs get them."""
        moved = self.moved.get(key)
        if not moved:
            return {}
        settled, found, fresh = self._settled.setdefault(key, {}), {}, []
        for m in moved:
            if (known := settled.get(id_of(m))) is not None:
                found[id_of(m)] = known
            else:
                fresh.append(m)
        for entry in plan_entries(fresh, self.hops):
            found[id_of(entry.moved)] = plain_entry(entry)
            if entry.moved.at < self.clock.now() - SETTLED_SECONDS:
                settled[id_of(entry.moved)] = found[id_of(entry.moved)]
        self._settled[key] = {k: v for k, v in settled.items() if k in found}
        return dict(sorted(found.items()))

    def rules_on(self, key: Key) -> tuple[str, ...]:
        """Nodes whose proxy has told of a sync of this Service."""
        text = "/".join(key)
        return tuple(
            sorted(n for n, hops in self.hops.items() if any(h.hop == "rules" and h.key == text for h in hops))
        )

    def compare(self, key: Key, before: Picture | None, after: Picture) -> None:
        """Without journals: tell moves from two successive pictures."""
        if self.lines is not None or before is None:
            return
        was, is_ = taking(before), taking(after)
        now = self.clock.now()
        for name in [n for n in was if n not in is_] + [n for n in is_ if n not in was]:
            what = "joined" if name in is_ else "left"
            pod = (is_ if what == "joined" else was)[name]
            address = pod.addresses[0] if pod.addresses else "-"
            why = reason_in(after, name) if what == "left" else f"{name} is ready"
            self.add(Moved(now, *key, what, address, why, name, pod.node))


def id_of(moved: Moved) -> str:
    return f"{moved.at:.6f} {moved.what} {moved.address}"


def taking(picture: Picture) -> dict[str, PodItem]:
    """The Pods that take new traffic."""
    return {i.name: i for i in picture.items.values() if isinstance(i, PodItem) and i.state == "ready"}


def reason_in(picture: Picture, name: str) -> str:
    """Why a Pod takes no traffic in a picture."""
    for item in picture.items.values():
        if isinstance(item, EdgeItem) and item.target == f"pod/{name}" and item.reason:
            return item.reason
    return f"{name} is gone"
