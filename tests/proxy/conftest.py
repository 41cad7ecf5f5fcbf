"""One laboratory of namespaces for all tests of this package."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if os.geteuid():
        pytest.skip("needs root for network namespaces")
    with Lab() as made:
        yield made
