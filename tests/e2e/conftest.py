"""Instances shared by end-to-end tests: one with two nodes as root, for everything that does not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Instance, need_machine, running_instance


@pytest.fixture(scope="session")
def machine() -> None:
    need_machine()


@pytest.fixture(scope="session")
def shared(machine: None) -> Iterator[Instance]:
    """Two nodes, in memory; tests use namespaces or names of their own."""
    with running_instance("--nodes", "2", "--store", "memory") as instance:
        yield instance
