"""A real API server in memory with controllers on it, in virtual time; and a way to it that can be troubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import Conflict, Expired, Forbidden
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD
from kubesvc.api.service import SERVICE
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.client.interface import Client, Unreachable, WatchEvent
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.store.memory import MemoryStore

from .rights import may

MINE = ("endpoints", "endpointslice", "endpointslice-mirroring")


class Trouble:
    """What goes wrong between controllers and server: off unless `odds` says otherwise.

    odds:          chance that a write fails, half of the times after it was done; and that a watch is dropped
    late_seconds:  how long events of these kinds are held back
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.odds = 0.0
        self.late_seconds: dict[Kind, float] = {}
        self.writes = 0
        """Writes tried so far."""
        self.trespasses: list[str] = []
        """What controllers tried and upstream's roles for them do not allow."""

    def strikes(self) -> bool:
        return self.random.random() < self.odds


class TroubledClient:
    """A client to the real server whose writes may fail before or after they were done, and whose watches may drop.

    manager: whose requests these are; only what upstream's role for it allows is done, "" for what nobody judges
    """

    def __init__(self, inner: Client, trouble: Trouble, manager: str = "") -> None:
        self.inner = inner
        self.trouble = trouble
        self.manager = manager

    def as_manager(self, manager: str) -> Client:
        return cast(Client, TroubledClient(self.inner.as_manager(manager), self.trouble, manager))

    def judge(self, verb: str, kind: Kind, namespace: str, name: str = "", subresource: str = "") -> None:
        if self.manager and not may(self.manager, verb, kind, subresource, namespace, name):
            said = f"{self.manager}: {verb} {kind.resource}" + (f"/{subresource}" if subresource else "")
            self.trouble.trespasses.append(said)
            raise Forbidden(said)

    async def write(self, call: Callable[[], Awaitable[Object]]) -> Object:
        self.trouble.writes += 1
        await asyncio.sleep(self.trouble.random.random() * 0.01)
        if self.trouble.strikes():
            if self.trouble.random.random() < 0.5:
                await call()
            raise self.trouble.random.choice([Unreachable("cut off"), Conflict("somebody was faster")])
        return await call()

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", *, subresource: str = "", **more: Any
    ) -> Object:
        self.judge("create", kind, namespace, subresource=subresource)
        return await self.write(lambda: self.inner.create(kind, obj, namespace, subresource=subresource, **more))

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        self.judge("update", kind, meta.get("namespace") or "", meta["name"], subresource)
        return await self.write(lambda: self.inner.update(kind, obj, subresource=subresource))

    async def patch(
        self, kind: Kind, name: str, namespace: str, *words: Any, subresource: str = "", **more: Any
    ) -> Object:
        self.judge("patch", kind, namespace, name, subresource)
        patching = (kind, name, namespace, *words)
        return await self.write(lambda: self.inner.patch(*patching, subresource=subresource, **more))

    async def delete(self, kind: Kind, name: str, namespace: str = "", **more: Any) -> Object:
        self.judge("delete", kind, namespace, name)
        return await self.write(lambda: self.inner.delete(kind, name, namespace, **more))

    async def delete_collection(self, kind: Kind, namespace: str = "", **more: Any) -> None:
        self.judge("deletecollection", kind, namespace)

        async def call() -> Object:
            await self.inner.delete_collection(kind, namespace, **more)
            return {}

        await self.write(call)

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        self.judge("get", kind, namespace, name, subresource)
        if self.trouble.strikes():
            raise Unreachable("cut off")
        return await self.inner.get(kind, name, namespace, subresource=subresource)

    async def list_raw(self, kind: Kind, namespace: str = "", **more: Any) -> Any:
        self.judge("list", kind, namespace)
        if self.trouble.strikes():
            raise Unreachable("cut off")
        return await self.inner.list_raw(kind, namespace, **more)

    async def watch(self, kind: Kind, *words: Any, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        async with aclosing(cast(Any, self.inner.watch(kind, *words, **more))) as events:
            async for event in events:
                if self.trouble.odds and self.trouble.strikes():
                    raise self.trouble.random.choice([Unreachable("cut off"), Expired("too old")])
                if late := self.trouble.late_seconds.get(kind, 0.0):
                    await asyncio.sleep(late)
                yield event


class House:
    """The server's own client for the test, and short words for what tests do."""

    def __init__(self, server: ApiServer, trouble: Trouble) -> None:
        self.server = server
        self.client: Client = server.client
        self.trouble = trouble
        self.controllers: asyncio.Task[None] | None = None

    def start(self, names: Sequence[str] = MINE, settings: ControllerSettings | None = None) -> None:
        client = cast(Client, TroubledClient(self.client, self.trouble))
        clock = LoopClock(asyncio.get_running_loop())
        self.controllers = asyncio.create_task(
            run_controllers(client, names, clock=clock, random=random.Random(1), settings=settings)
        )

    async def stop(self) -> None:
        if self.controllers is not None:
            self.controllers.cancel()
            await asyncio.wait([self.controllers])
            self.controllers = None

    async def settle(self, seconds: float = 3.0) -> None:
        """Let virtual time pass; controllers that died fail the test."""
        await asyncio.sleep(seconds)
        if self.controllers is not None and self.controllers.done():
            self.controllers.result()

    async def namespace(self, name: str = "ns") -> None:
        await self.client.create(NAMESPACE, {"metadata": {"name": name}})

    async def node(self, name: str = "n1", **labels: str) -> None:
        zone = {"topology.kubernetes.io/zone": labels["zone"]} if labels else {}
        await self.client.create(NODE, {"metadata": {"name": name, "labels": zone}})

    async def service(self, name: str = "web", **spec: Any) -> Object:
        whole = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
        return await self.client.create(SERVICE, {"metadata": {"name": name}, "spec": whole}, "ns")

    async def pod(self, name: str, ip: str, *, ready: bool = True, node: str = "n1", app: str = "web") -> None:
        containers = [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]
        spec = {"nodeName": node, "containers": containers, "terminationGracePeriodSeconds": 0}
        await self.client.create(POD, {"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}, "ns")
        await self.status(name, ready=ready, podIP=ip, podIPs=[{"ip": ip}])

    async def status(self, name: str, *, ready: bool, **more: Any) -> None:
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        status = {"phase": "Running", "conditions": [condition], **more}
        await self.client.patch(POD, name, "ns", {"status": status}, "merge", subresource="status")

    async def every(self, kind: Kind, namespace: str = "ns") -> list[Object]:
        import msgspec

        return [msgspec.json.decode(raw) for raw in (await self.client.list_raw(kind, namespace)).items]

    async def slices(self, service: str = "web") -> list[Object]:
        label = "kubernetes.io/service-name"
        return [
            s for s in await self.every(ENDPOINT_SLICE) if (s["metadata"].get("labels") or {}).get(label) == service
        ]

    async def shown(self, service: str = "web") -> list[list[str]]:
        """Per slice its addresses, with ! where not ready; sorted."""
        return sorted(
            sorted(e["addresses"][0] + ("" if e["conditions"]["ready"] else "!") for e in s["endpoints"] or ())
            for s in await self.slices(service)
        )

    async def shown_addresses(self, service: str = "web") -> list[list[str]]:
        """Per slice its addresses, whatever their state; sorted."""
        return sorted(sorted(e["addresses"][0] for e in s["endpoints"] or ()) for s in await self.slices(service))

    async def endpoints(self, name: str = "web") -> list[tuple[list[str], list[str]]]:
        """Per subset ready and not ready addresses."""
        obj = await self.client.get(ENDPOINTS, name, "ns")
        return [
            ([a["ip"] for a in s.get("addresses") or ()], [a["ip"] for a in s.get("notReadyAddresses") or ()])
            for s in obj.get("subsets") or ()
        ]

    @asynccontextmanager
    async def counting(self, *kinds: Kind) -> AsyncIterator[dict[str, list[str]]]:
        """The writes of these kinds while the block runs: kind to `TYPE name` in order."""
        seen: dict[str, list[str]] = {k.name: [] for k in kinds}
        import msgspec

        async def follow(kind: Kind, version: str) -> None:
            stream = self.client.watch(kind, "ns", resource_version=version, bookmarks=False)
            async with aclosing(cast(Any, stream)) as events:
                async for event in events:
                    seen[kind.name].append(f"{event.type} {msgspec.json.decode(event.object)['metadata']['name']}")

        versions = [(k, (await self.client.list_raw(k, "ns")).resource_version) for k in kinds]
        tasks = [asyncio.create_task(follow(k, v)) for k, v in versions]
        await asyncio.sleep(0)
        try:
            yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def in_house(story: Callable[[House], Awaitable[None]], *, seed: int = 1, ranges: Sequence[str] = ()) -> None:
    """Play a story on a server of its own, with namespace `ns` and node `n1` in it."""

    async def main() -> None:
        store = MemoryStore()
        await store.start()
        settings = ApiServerSettings(
            service_ranges=tuple(ranges) or ("10.96.0.0/16",), disabled_admission=frozenset({"ServiceAccount"})
        )
        clock = LoopClock(asyncio.get_running_loop())
        server = ApiServer(store, settings, clock, random.Random(seed))
        await server.start()
        house = House(server, Trouble(seed))
        try:
            await house.namespace()
            await house.node()
            await story(house)
            trespasses = sorted(set(house.trouble.trespasses))
            assert not trespasses, f"not allowed by upstream's roles: {', '.join(trespasses)}"
        finally:
            await house.stop()
            await server.stop()
            await store.close()

    run_virtual(main())
