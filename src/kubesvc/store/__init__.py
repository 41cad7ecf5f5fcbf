"""Revisions, watch and compaction over bytes. Knows no kinds; see `interface` for what every engine promises."""

from .interface import (
    Change,
    Compacted,
    Delete,
    Entry,
    FutureRevision,
    Moved,
    Operation,
    Page,
    Put,
    Store,
    StoreError,
    Unavailable,
)

__all__ = [
    "Change", "Compacted", "Delete", "Entry", "FutureRevision", "Moved", "Operation", "Page", "Put", "Store",
    "StoreError", "Unavailable",
]  # fmt: skip
