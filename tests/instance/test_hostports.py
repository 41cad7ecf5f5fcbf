"""The ways in from the host, as they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kubesvc.instance.hostports import HostPorts, Way


class NoServices:
    """What the keeper sees of an informer that has nothing."""

    def __init__(self) -> None:
        self.synced = asyncio.Event()
        self.synced.set()

    def on_change(self, hear: Callable[..., None]) -> None:
        pass

    def values(self) -> tuple[()]:
        return ()


class Refused(HostPorts):
    """One that tries again now and then, since a port was taken."""

    async def sync(self) -> None:
        self.refused = {Way(self.address, "TCP", 30080): "Address in use"}


@pytest.mark.parametrize("turns", range(6))
def test_its_end_is_not_lost_in_a_change_of_the_same_moment(turns: int) -> None:
    """Whoever ends everything waits for it: an end that is taken for the change would be waited for, for ever."""

    async def main() -> None:
        services: Any = NoServices()
        ports = Refused(services, None, "127.0.0.1", dict, lambda _: None)  # type: ignore[arg-type]
        task = asyncio.create_task(ports.run())
        await asyncio.sleep(0.01)
        ports.changed.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=60.0)
        assert task.cancelled()

    asyncio.run(main())
