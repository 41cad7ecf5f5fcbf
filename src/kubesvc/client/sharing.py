"""Equal parts of many objects kept once: a thousand Pods of one template have one list of containers in memory.

Objects of a cache are immutable values, so who holds a part need not know that others hold it too.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from kubesvc.api.meta import Struct

MOST = 8192
"""Parts of a generation: those seen in this one and in the one before are remembered."""
SMALL = frozenset({type(None), bool, int})


STATUS = ("conditions", "container_statuses", "init_container_statuses")
"""Parts of a status that many Pods have alike: those that started in the same second."""


class Sharing:
    """What one informer has seen of parts; `share` costs a few microseconds."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, bytes], Any] = {}
        self.before: dict[tuple[str, bytes], Any] = {}
        self._encoder = msgspec.msgpack.Encoder()

    def share(self, obj: Any) -> None:
        """Replace parts of `obj` by equal ones seen before: of its spec, its labels, owners and conditions. Only for
        who made `obj`."""
        spec, status, meta = getattr(obj, "spec", None), getattr(obj, "status", None), obj.metadata
        put = msgspec.structs.force_setattr
        put(meta, "namespace", sys.intern(meta.namespace))
        if meta.creation_timestamp:
            put(meta, "creation_timestamp", sys.intern(meta.creation_timestamp))
        if meta.labels:
            self._replace(meta, "labels", meta.labels)
        if meta.owner_references:
            self._replace(meta, "owner_references", meta.owner_references)
        if isinstance(spec, Struct):
            for name in spec.__struct_fields__:
                value = getattr(spec, name)
                kind = value.__class__
                if kind in SMALL:
                    continue
                if kind is str:
                    if value:
                        put(spec, name, sys.intern(value))
                elif kind is list or kind is dict or isinstance(value, Struct):
                    self._replace(spec, name, value)
        if isinstance(status, Struct):
            for name in STATUS:
                if value := getattr(status, name, None):
                    self._replace(status, name, value)

    def _replace(self, holder: Struct, name: str, value: Any) -> None:
        key = (name, self._encoder.encode(value))
        found = self.known.get(key)
        if found is None:
            found = self.before.get(key, value)
            if len(self.known) >= MOST:
                self.before, self.known = self.known, {}
            self.known[key] = found
        if found is not value and found.__class__ is value.__class__:
            msgspec.structs.force_setattr(holder, name, found)
