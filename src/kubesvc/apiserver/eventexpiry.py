"""Events go when nobody has written them for a while (EVENT-2)."""

from __future__ import annotations

import msgspec

from kubesvc.api.kinds import EVENT
from kubesvc.clock import Clock, parse_rfc3339
from kubesvc.store import Delete, Moved, Store

from .cache import Cache


class EventExpiry:
    """Removes old Events. Each is read once after each of its writes, however often it is looked at.

    ttl_seconds: age at which an Event goes, counted from its last write
    """

    def __init__(self, cache: Cache, store: Store, clock: Clock, ttl_seconds: float) -> None:
        self.cache = cache
        self.store = store
        self.clock = clock
        self.ttl_seconds = ttl_seconds
        self._written: dict[str, tuple[int, float]] = {}
        """When the Events that there were at the last look had been written, by key, with the revision of that."""

    async def expire(self) -> None:
        """Remove what is too old now. StoreError if the store does not answer; the rest goes the next time."""
        limit = self.clock.now() - self.ttl_seconds
        cache = self.cache.of(EVENT)
        before, self._written = self._written, {}
        old = []
        for item in cache.items.values():
            known = before.get(item.key)
            if known is None or known[0] != item.revision:
                known = (item.revision, written_at(item.value))
            self._written[item.key] = known
            if known[1] < limit:
                old.append(item)
        for item in old:
            try:
                await self.store.commit(Delete(cache.prefix + item.key, item.revision))
            except Moved:
                continue


def written_at(value: bytes) -> float:
    """When an Event was last written, seconds since 1970, from its newest managedFields time or its creation."""
    meta = msgspec.json.decode(value)["metadata"]
    times = [m["time"] for m in meta.get("managedFields") or () if m.get("time")]
    return max(parse_rfc3339(t) for t in [*times, meta["creationTimestamp"]])
