"""Equal parts of many objects kept once: a thousand Pods of one template have one list of containers in memory.

Objects of a cache are immutable values, so who holds a part need not know that others hold it too.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from kubesvc.api.meta import Struct

MOST = 4096
"""Parts that are remembered; beyond that it starts anew."""
SMALL = frozenset({type(None), bool, int})


class Sharing:
    """What one informer has seen of parts; `share` costs a few microseconds."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, bytes], Any] = {}
        self._encoder = msgspec.msgpack.Encoder()

    def share(self, obj: Any) -> None:
        """Replace parts of `obj`, of its spec and its labels, by equal ones seen before. Only for who made `obj`."""
        spec, meta = getattr(obj, "spec", None), obj.metadata
        msgspec.structs.force_setattr(meta, "namespace", sys.intern(meta.namespace))
        if meta.labels:
            self._replace(meta, "labels", meta.labels)
        if isinstance(spec, Struct):
            for name in spec.__struct_fields__:
                value = getattr(spec, name)
                kind = value.__class__
                if kind in SMALL:
                    continue
                if kind is str:
                    if value:
                        msgspec.structs.force_setattr(spec, name, sys.intern(value))
                elif kind is list or kind is dict or isinstance(value, Struct):
                    self._replace(spec, name, value)

    def _replace(self, holder: Struct, name: str, value: Any) -> None:
        key = (name, self._encoder.encode(value))
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MOST:
                self.known.clear()
            self.known[key] = value
        elif found is not value and found.__class__ is value.__class__:
            msgspec.structs.force_setattr(holder, name, found)
