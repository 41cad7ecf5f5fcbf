"""Writes that wait for their turn at a quota's guard, on a store that several servers share."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubesvc.api.kinds import SERVICE
from kubesvc.apiserver.commits import Commits, Pending
from kubesvc.apiserver.hooks import Reservation
from kubesvc.store import Put


def test_whoever_leaves_while_waiting_gives_back_what_was_reserved() -> None:
    """A client that goes away in the queue must not keep a cluster IP or a node port for ever."""

    async def scene() -> list[str]:
        commits = Commits(cast(Any, SimpleNamespace(shared=True)), cast(Any, None), cast(Any, None), cast(Any, None))
        said: list[str] = []
        reservation = Reservation(on_rollback=lambda: said.append("given back"))
        put = Put("/registry/services/shop/web", b"{}")
        pending = Pending(SERVICE, "shop", None, {}, put, reservation)
        async with commits.guards.turn("shop"):
            waiting = asyncio.create_task(commits.held(pending, lambda: said.append("quota")))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        return said

    assert asyncio.run(scene()) == ["quota", "given back"]
