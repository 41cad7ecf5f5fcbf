"""What a controller knows of its own writes to slices, to notice a cache that is behind them (SLICE-4, SLICE-5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kubesvc.api.endpointslice import MANAGED_BY_LABEL, EndpointSlice
from kubesvc.client.workqueue import Key, WorkQueue

PATIENCE_SECONDS = 60.0
"""After this a cache is believed though it lacks what we wrote: it may be gone without anybody having seen it."""
DELETED = -1
"""Stands for a generation where the slice was deleted by ourselves."""


class SliceTracker:
    """Per owner (a Service, or an Endpoints): slice uid to the generation its last write was answered with."""

    def __init__(self) -> None:
        self._generations: dict[Key, dict[str, int]] = {}
        self._owners: dict[str, Key] = {}

    def wrote(self, key: Key, uid: str, generation: int) -> None:
        """The server answered a create or an update of ours."""
        self._generations.setdefault(key, {})[uid] = generation
        self._owners[uid] = key

    def deletes(self, key: Key, uid: str) -> None:
        """We are deleting this slice."""
        self.wrote(key, uid, DELETED)

    def undo_delete(self, key: Key, endpoint_slice: EndpointSlice, known: bool) -> None:
        """The delete failed: the slice is as we know it from the cache."""
        if known:
            self.wrote(key, endpoint_slice.metadata.uid, endpoint_slice.metadata.generation)
        else:
            self.gone(key, endpoint_slice)

    def knows(self, key: Key, endpoint_slice: EndpointSlice) -> bool:
        """Whether we have written this slice."""
        return endpoint_slice.metadata.uid in self._generations.get(key, ())

    def is_news(self, key: Key, endpoint_slice: EndpointSlice) -> bool:
        """Whether this state is one that we did not write: unknown, or newer than our last write (SLICE-2)."""
        known = self._generations.get(key, {}).get(endpoint_slice.metadata.uid)
        return known is None or endpoint_slice.metadata.generation > known

    def gone(self, key: Key, endpoint_slice: EndpointSlice) -> bool:
        """The cache saw it deleted; True if that was our doing."""
        known = self._generations.get(key)
        if known is None:
            return False
        if self._owners.get(endpoint_slice.metadata.uid) == key:
            del self._owners[endpoint_slice.metadata.uid]
        generation = known.pop(endpoint_slice.metadata.uid, None)
        if not known:
            del self._generations[key]
        return generation == DELETED

    def is_stale(self, key: Key, cached: Iterable[EndpointSlice]) -> bool:
        """Whether these slices of the cache are behind our writes: one older, one we deleted, or one missing."""
        known = self._generations.get(key)
        if not known:
            return False
        found = {s.metadata.uid: s.metadata.generation for s in cached}
        for uid, generation in known.items():
            if generation == DELETED:
                if uid in found:
                    return True
            elif found.get(uid, DELETED) < generation:
                return True
        return False

    def owner(self, endpoint_slice: EndpointSlice) -> Key | None:
        """For whom we last wrote this slice; None if we did not."""
        return self._owners.get(endpoint_slice.metadata.uid)

    def forget(self, key: Key) -> None:
        """The owner is gone, or what we know of its slices is worth nothing any more."""
        for uid in self._generations.pop(key, ()):
            if self._owners.get(uid) == key:
                del self._owners[uid]


class SliceWatch:
    """Tells a controller which slice events are other people's doing (SLICE-2, MIRROR-1).

    tracker:       what the controller wrote
    queue:         where the slice's owner goes when its slices need another look
    managed_by:    the controller's value of the managed-by label
    after_seconds: how long to wait before that look

    A key whose sync found the cache behind (`is_behind`) is queued at its next slice event, whoever made it.

    A write's event may come before the write's answer. So events about a key being written (`writing`) are put aside,
    and judged when the answers are in.
    """

    def __init__(self, tracker: SliceTracker, queue: WorkQueue, managed_by: str, after_seconds: float) -> None:
        self.tracker = tracker
        self.queue = queue
        self.managed_by = managed_by
        self.after_seconds = after_seconds
        self._aside: dict[Key, list[tuple[EndpointSlice | None, EndpointSlice | None]]] = {}
        self._stale: set[Key] = set()
        self._behind_since: dict[Key, float] = {}

    def is_behind(self, key: Key, cached: Iterable[EndpointSlice]) -> bool:
        """Whether these slices of the cache are behind our writes (SLICE-4) and worth waiting for.

        A slice that we made and that was deleted while the watch was broken is never seen: without an end to patience
        its Service would wait for ever.
        """
        if not self.tracker.is_stale(key, cached):
            self._behind_since.pop(key, None)
            return False
        now = asyncio.get_running_loop().time()
        if now - self._behind_since.setdefault(key, now) >= PATIENCE_SECONDS:
            del self._behind_since[key]
            self.tracker.forget(key)
            return False
        self._stale.add(key)
        return True

    @contextmanager
    def writing(self, key: Key) -> Iterator[None]:
        self._aside[key] = []
        try:
            yield
        finally:
            for old, new in self._aside.pop(key):
                self.changed(old, new)

    def changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Handler of the slice informer."""
        s = new or old
        if s is None or not any(x is not None and self.is_ours(x) for x in (old, new)):
            if new is not None:
                self._lost(new)
            return
        key = owner_key(s)
        if key in self._stale:
            self._stale.discard(key)
            self.queue.add(key)
        if key in self._aside:
            self._aside[key].append((old, new))
        elif new is None:
            if not self.tracker.gone(key, s):
                self._look(key)
        elif self._lost(new):
            self._look(key)
        elif old is not None and owner_key(old) != key:
            self._look(owner_key(old))
            self._look(key)
        elif (old is not None and self.is_ours(old) != self.is_ours(new)) or self.tracker.is_news(key, new):
            self._look(key)

    def _lost(self, new: EndpointSlice) -> bool:
        """Whether a slice of ours was given to somebody else by a change of its labels: its former owner must not wait
        for it to come back."""
        writer = self.tracker.owner(new)
        if writer is None or (writer == owner_key(new) and self.is_ours(new)):
            return False
        self.tracker.gone(writer, new)
        self._look(writer)
        return True

    def is_ours(self, s: EndpointSlice) -> bool:
        return s.metadata.label(MANAGED_BY_LABEL) == self.managed_by

    def _look(self, key: Key) -> None:
        if key[1]:
            self.queue.add_after(key, self.after_seconds)


def owner_key(s: EndpointSlice) -> Key:
    """Key of the Service, or Endpoints, that a slice names."""
    return (s.namespace, s.service_name)


def owner_text(s: EndpointSlice) -> list[str]:
    """Value of the slice informer's index by owner."""
    return [f"{s.namespace}/{s.service_name}"] if s.service_name else []
