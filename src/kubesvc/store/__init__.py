"""Revisions, watch and compaction over bytes. Knows no kinds; see `interface` for what every engine promises."""

from .embedded import SqliteStore
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
from .memory import MemoryStore

__all__ = [
    "Change", "Compacted", "Delete", "Entry", "FutureRevision", "MemoryStore", "Moved", "Operation", "Page", "Put",
    "SqliteStore", "Store", "StoreError", "Unavailable",
]  # fmt: skip
