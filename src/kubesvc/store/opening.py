"""Which engine a text names: what `--store` takes."""

from __future__ import annotations

from pathlib import Path

from .embedded import SqliteStore
from .interface import Store
from .memory import MemoryStore

SCHEMES = ("etcd://", "etcds://")


def is_address(text: str) -> bool:
    """Whether a store is named by an address and not by a path."""
    return text.startswith(SCHEMES)


def open_store(text: str) -> Store:
    """The store that `text` names, not started yet: "memory", `etcd://…` or `etcds://…`, or the path of a file.

    ValueError for an address that cannot be read, saying what was found and what is allowed.
    """
    if text == "memory":
        return MemoryStore()
    if is_address(text):
        from .etcd import EtcdStore
        from .etcdaddress import parse_address

        return EtcdStore(parse_address(text))
    return SqliteStore(Path(text))
