"""Servers for tests: a real API server over a memory store, in process or behind a unix socket."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import RealClock
from kubesvc.store.memory import MemoryStore

T = TypeVar("T")

SETTINGS = ApiServerSettings(disabled_admission=frozenset({"ServiceAccount"}))
BARE = ApiServerSettings(disabled_admission=frozenset({"ServiceAccount", "NamespaceLifecycle"}), bootstrap=False)


@asynccontextmanager
async def running(settings: ApiServerSettings = SETTINGS) -> AsyncIterator[ApiServer]:
    store = MemoryStore()
    await store.start()
    server = ApiServer(store, settings, RealClock(), random.Random(7))
    await server.start()
    if settings.bootstrap:
        await server.bootstrap.complete.wait()  # what the server writes for itself is no part of any test's story
    try:
        yield server
    finally:
        await server.stop(0.1)
        await store.close()


def with_server(test: Callable[[ApiServer], Awaitable[T]], settings: ApiServerSettings = SETTINGS) -> T:
    """Run an async test against a fresh server."""

    async def main() -> T:
        async with running(settings) as server:
            return await test(server)

    return asyncio.run(main())


class CaseInsensitive(dict[str, str]):
    """Headers by their lower-case names."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__({k.lower(): v for k, v in headers.items()})

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


class Http:
    """A plain HTTP client of one server, over its unix socket."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any], Any]:
        """Status, response headers and body (decoded if JSON, else text). Underscores in header names are dashes."""
        data = body if isinstance(body, bytes | None) else None
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        named.setdefault("Content-Type", "application/json")
        json = None if isinstance(body, bytes) else body
        async with self.session.request(
            method, "http://api" + path, json=json, data=data, headers=named, allow_redirects=False
        ) as response:
            found = CaseInsensitive({k: ", ".join(response.headers.getall(k)) for k in response.headers})
            if response.content_type == "application/json" and await response.read():
                return response.status, found, await response.json()
            return response.status, found, await response.text()

    async def watch(self, path: str, most: int, seconds: float = 60.0, *, seen: list[Any] | None = None) -> list[Any]:
        """The first events of a watch, as (type, object). `seen` has them as they come."""
        import json

        events: list[Any] = [] if seen is None else seen
        async with self.session.get("http://api" + path) as response, asyncio.timeout(seconds):
            assert response.status == 200, await response.text()
            while len(events) < most:
                line = await response.content.readline()
                if not line:
                    break
                event = json.loads(line)
                events.append((event["type"], event["object"]))
        return events


def with_http(test: Callable[[ApiServer, Http], Awaitable[T]], settings: ApiServerSettings = SETTINGS) -> T:
    """Run an async test against a fresh server and an HTTP client on its trusted socket."""

    async def main(server: ApiServer) -> T:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory) / "api.sock")
            await server.listen_unix(path)
            connector = aiohttp.UnixConnector(path=path)
            async with aiohttp.ClientSession(connector=connector) as session:
                return await test(server, Http(session))

    return with_server(main, settings)


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what comes in its time; TimeoutError if it does not."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


def config_map(name: str, namespace: str = "default", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **meta},
        "data": {"k": "v"},
    }


def pod(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/app:1"}], **spec},
    }
