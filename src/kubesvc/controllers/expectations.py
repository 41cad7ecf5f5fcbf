"""What a controller has asked for and not yet seen in its cache (RS-3): until it has, it decides nothing new."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubesvc.client.workqueue import Key

TIMEOUT_SECONDS = 300.0


@dataclass(slots=True)
class Expected:
    """Creations not yet seen (a number, their names being the server's) and deletions not yet seen (uids)."""

    creations: int = 0
    deletions: set[str] = field(default_factory=set)
    since: float = 0.0


class Expectations:
    """Per owner, the creations and deletions under way. Times are the monotonic clock's."""

    def __init__(self) -> None:
        self.of: dict[Key, Expected] = {}

    def expect(self, key: Key, now: float, *, creations: int = 0, deletions: tuple[str, ...] = ()) -> None:
        """Note what is about to be asked for, before asking."""
        self.of[key] = Expected(creations, set(deletions), now)

    def created(self, key: Key) -> None:
        """A creation was seen in the cache, or failed."""
        expected = self.of.get(key)
        if expected is not None and expected.creations > 0:
            expected.creations -= 1

    def deleted(self, key: Key, uid: str) -> None:
        """A deletion was seen in the cache (also as a deletionTimestamp), or failed."""
        expected = self.of.get(key)
        if expected is not None:
            expected.deletions.discard(uid)

    def met(self, key: Key, now: float) -> bool:
        """Whether everything asked for was seen, or so long ago that it will not be."""
        expected = self.of.get(key)
        if expected is None or (expected.creations <= 0 and not expected.deletions):
            return True
        return now - expected.since > TIMEOUT_SECONDS

    def seconds_left(self, key: Key, now: float) -> float:
        """How long until what was asked for counts as lost; 0 if nothing is waited for."""
        return 0.0 if self.met(key, now) else self.of[key].since + TIMEOUT_SECONDS - now

    def forget(self, key: Key) -> None:
        self.of.pop(key, None)
