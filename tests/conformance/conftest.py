"""A real API server in this process, over HTTP, with the controllers that the API cases wait for."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import RealClock
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.store.memory import MemoryStore

from .player import Player

Case = Callable[[Player], Awaitable[None]]
NAMES = ("*", "-scheduler", "-cluster-dns", "-node-ipam", "-node-lifecycle", "-pod-garbage-collector")


@asynccontextmanager
async def player_of_a_server() -> AsyncIterator[Callable[[], Player]]:
    """Makes players against one server; it and its controllers end with the block."""
    settings = ControllerSettings(root_ca="-----BEGIN CERTIFICATE-----\n")
    store, clock, chance = MemoryStore(), RealClock(), random.Random(11)
    await store.start()
    server = ApiServer(store, ApiServerSettings(authorization="Node,RBAC"), clock, chance)
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "api.sock")
        await server.listen_unix(path)
        await server.start()
        await server.bootstrap.complete.wait()
        controllers = asyncio.create_task(
            run_controllers(server.client, NAMES, clock=clock, random=chance, settings=settings)
        )
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=path)) as session:
            yield lambda: Player(session, "http://api")
        assert not controllers.done(), controllers.result()
        controllers.cancel()
        await asyncio.wait([controllers])
        await server.stop(0.1)
        await store.close()


@pytest.fixture(scope="package")
def play() -> Iterator[Callable[[Case], None]]:
    """Plays a case in a namespace of its own."""
    with asyncio.Runner() as runner:
        context = player_of_a_server()
        make = runner.run(context.__aenter__())

        async def one(case: Case) -> None:
            player = make()
            await player.begin()
            try:
                await case(player)
            finally:
                await player.end()

        yield lambda case: runner.run(one(case))
        runner.run(context.__aexit__(None, None, None))
