"""What the steps of a conformance case are told with: requests, each with the status it must have, and watches."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp

Object = dict[str, Any]
PATIENCE_SECONDS = 60.0
TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Player:
    """One client in one namespace of its own. Paths are below the API's root; `{ns}` in them is the namespace."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base
        self.namespace = f"conf-{uuid.uuid4().hex[:8]}"

    async def begin(self) -> None:
        meta = {"name": self.namespace, "labels": {"conformance": self.namespace}}
        await self.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    async def end(self) -> None:
        await self.delete(f"/api/v1/namespaces/{self.namespace}")

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """The decoded answer to a request; its status must be this one (of a POST 201)."""
        named = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        data = body if isinstance(body, str | bytes | None) else json.dumps(body)
        path = path.replace("{ns}", self.namespace)
        async with self.session.request(method, self.base + path, data=data, headers=named) as response:
            text = await response.text()
            assert response.status == status, f"{method} {path}: {response.status} instead of {status}: {text}"
            return json.loads(text) if response.content_type.endswith("json") else text

    async def get(self, path: str, *, status: int = 200, **headers: str) -> Any:
        return await self.ask("GET", path, status=status, **headers)

    async def post(self, path: str, body: Any, *, status: int = 201, **headers: str) -> Any:
        return await self.ask("POST", path, body, status=status, **headers)

    async def put(self, path: str, body: Any, *, status: int = 200) -> Any:
        return await self.ask("PUT", path, body, status=status)

    async def patch(self, path: str, body: Any, type: str = "merge", *, status: int = 200) -> Any:
        return await self.ask("PATCH", path, body, status=status, Content_Type=TYPES[type])

    async def delete(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        return await self.ask("DELETE", path, body, status=status)

    async def change(self, path: str, edit: Callable[[Any], object]) -> Any:
        """Read an object, edit and put it, and that again where a controller wrote in between."""
        while True:
            found = await self.get(path)
            edit(found)
            url = self.base + path.replace("{ns}", self.namespace)
            async with self.session.put(url, json=found) as response:
                answer = await response.json()
                if response.status != 409:
                    assert response.status == 200, f"PUT {path}: {answer}"
                    return answer

    async def gone(self, path: str) -> None:
        """Wait until an object, or every object of a list, is gone."""

        async def look() -> bool:
            async with self.session.get(self.base + path.replace("{ns}", self.namespace)) as response:
                found = await response.json()
                return response.status == 404 or (response.status == 200 and found.get("items") == [])

        await self.until(look, f"{path} is still there")

    async def settled(self, path: str, right: Callable[[Any], object]) -> Any:
        """Wait until an object or a list is there and right, and give it."""
        found: list[Any] = []

        async def look() -> bool:
            async with self.session.get(self.base + path.replace("{ns}", self.namespace)) as response:
                found[:] = [await response.json()]
                return response.status == 200 and bool(right(found[0]))

        await self.until(look, lambda: f"{path} stays {json.dumps(found[0])}")
        return found[0]

    async def until(self, right: Callable[[], Any], complaint: str | Callable[[], str]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_SECONDS
        while not await right():
            assert loop.time() < end, complaint if isinstance(complaint, str) else complaint()
            await asyncio.sleep(0.02)

    async def watch(self, path: str, enough: Callable[[list[tuple[str, Object]]], object]) -> list[tuple[str, Object]]:
        """Events of a watch until they are enough, which must be before PATIENCE_SECONDS."""
        events: list[tuple[str, Object]] = []
        path = path.replace("{ns}", self.namespace)
        try:
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                self.session.get(f"{self.base}{path}{'&' if '?' in path else '?'}watch=true") as response,
            ):
                assert response.status == 200, await response.text()
                async for line in response.content:
                    event = json.loads(line)
                    events.append((event["type"], event["object"]))
                    if enough(events):
                        return events
        except TimeoutError:
            pass
        raise AssertionError(f"watch of {path}: only {[(t, o.get('metadata')) for t, o in events]}")

    async def sees(self, path: str, *types: str) -> list[Object]:
        """The objects of a watch, whose first events must be of these types."""
        events = await self.watch(path, lambda seen: len(seen) >= len(types))
        assert [t for t, _ in events] == list(types), [(t, o["metadata"]) for t, o in events]
        return [o for _, o in events]


def named(name: str, **meta: Any) -> Object:
    return {"metadata": {"name": name, **meta}}


def rv(obj: Object) -> int:
    """The number of an object's or a list's version."""
    return int(obj["metadata"]["resourceVersion"])
