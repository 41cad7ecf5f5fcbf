"""Forgetting the flows that a node's kernel is told to forget, and no others."""

from __future__ import annotations

import asyncio

from kubesvc.cli.forgetting import forget
from kubesvc.cli.insight import seen_of
from kubesvc.kernel.conntrack import FakeConntrack, Flow

STALE = Flow("172.30.0.11", 40000, "10.96.0.7", 80, "10.244.1.9", 8080, b"1")
ALIVE = Flow("172.30.0.11", 40001, "10.96.0.7", 80, "10.244.1.2", 8080, b"2")
SIX = Flow("fd00::1", 40000, "fd00:96::7", 80, "fd00:244::9", 8080, b"3")


def test_only_what_is_told_is_forgotten() -> None:
    """Of both families; a flow that ended meanwhile is not counted."""
    ended = Flow("172.30.0.11", 40002, "10.96.0.7", 80, "10.244.1.9", 8080)
    kernel = FakeConntrack([STALE, ALIVE, SIX])
    assert asyncio.run(forget([seen_of(f) for f in (STALE, SIX, ended)], kernel)) == 2
    assert kernel.flows == [ALIVE]
