"""Revisions, watch and compaction over bytes. Knows no kinds; see `interface` for what every engine promises."""

from .embedded import SqliteStore
from .interface import (
    Busy,
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
    TimedOut,
    TooLarge,
    Unavailable,
)
from .memory import MemoryStore
from .opening import is_address, open_store

__all__ = [
    "Busy", "Change", "Compacted", "Delete", "Entry", "FutureRevision", "MemoryStore", "Moved", "Operation", "Page",
    "Put", "SqliteStore", "Store", "StoreError", "TimedOut", "TooLarge", "Unavailable", "is_address", "open_store",
]  # fmt: skip
