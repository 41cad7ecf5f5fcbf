"""Events vanish an hour after their last write (EVENT-2)."""

from __future__ import annotations

import asyncio
import random

import pytest

from kubesvc.api.kinds import EVENT, NAMESPACE
from kubesvc.apiserver import eventexpiry
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.store.memory import MemoryStore


def event(name: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web"},
        "reason": "Told",
        "message": name,
        "type": "Normal",
    }


def test_events_vanish_an_hour_after_their_last_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENT-2: counted from the last write, not from creation; and an Event is read once for each of its writes."""
    read: list[bytes] = []
    reader = eventexpiry.written_at

    def counted(value: bytes) -> float:
        read.append(value)
        return reader(value)

    monkeypatch.setattr(eventexpiry, "written_at", counted)

    async def live() -> list[list[str]]:
        server = ApiServer(MemoryStore(), ApiServerSettings(), LoopClock(asyncio.get_running_loop()), random.Random(1))
        await server.start()
        try:
            client, seen = server.client, []
            await client.create(NAMESPACE, {"metadata": {"name": "shop"}})
            for name in ("once", "again"):
                await client.create(EVENT, event(name), "shop")
            await asyncio.sleep(1800)
            await client.patch(EVENT, "again", "shop", {"count": 2}, "merge")
            for minutes in (29, 2.5, 26.5, 3.5):
                await asyncio.sleep(60 * minutes)
                found = await client.list_raw(EVENT, "shop")
                seen.append(
                    sorted(n for n in ("once", "again") if any(b'"name":"%s"' % n.encode() in i for i in found.items))
                )
            return seen
        finally:
            await server.stop()

    assert run_virtual(live()) == [["again", "once"], ["again"], ["again"], []]
    assert sum(b'"shop"' in value for value in read) == 3
