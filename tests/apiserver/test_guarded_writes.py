"""Writes that wait for their turn at a quota's guard, on a store that several servers share."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubesvc.api.kinds import SERVICE
from kubesvc.apiserver.guards import QuotaGuards
from kubesvc.apiserver.hooks import Reservation
from kubesvc.apiserver.registry import Registry
from kubesvc.store import Put


def test_whoever_leaves_while_waiting_gives_back_what_was_reserved() -> None:
    """A client that goes away in the queue must not keep a cluster IP or a node port for ever."""

    async def scene() -> list[str]:
        registry = cast(Any, Registry.__new__(Registry))
        registry.store = SimpleNamespace(shared=True)
        registry.guards = QuotaGuards(registry.store)
        said: list[str] = []
        reservation = Reservation(on_rollback=lambda: said.append("given back"))
        put = Put("/registry/services/shop/web", b"{}")
        async with registry.guards.turn("shop"):
            waiting = asyncio.create_task(
                registry._commit_held(SERVICE, "shop", {}, None, lambda: said.append("quota"), reservation, "m", put)
            )
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        return said

    assert asyncio.run(scene()) == ["quota", "given back"]
