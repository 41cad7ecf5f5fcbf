"""Whatever call fails, and however, once the API answers again everything is as if nothing had happened.

One story is played on a real server with every controller that owns something. A count of its calls is taken; then it
is played again with the k-th call failing, in each way a call can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from kubesvc.api.errors import Conflict, InternalError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client, RawList, Unreachable, WatchEvent
from kubesvc.clock import LoopClock
from kubesvc.controllers import ControllerSettings
from kubesvc.controllers.runner import run_controllers
from kubesvc.store import Unavailable

from .house import House, in_house
from .kubelet import Kubelet

WAYS: dict[str, Callable[[], Exception]] = {
    "refused": lambda: Unreachable("connection refused"),
    "broken": lambda: InternalError("trouble inside"),
    "conflict": lambda: Conflict("somebody was faster"),
    "store": lambda: Unavailable("the disk is full"),
    "lost": lambda: Unreachable("the answer is lost"),
}
"""How a call may fail; `lost` does what was asked first."""


class Failing:
    """A client that lets through all calls but the k-th, counted from 1 over all controllers; 0 fails none."""

    def __init__(self, inner: Client, k: int, way: str, count: list[int]) -> None:
        self.inner = inner
        self.k = k
        self.way = way
        self.count = count

    def as_manager(self, manager: str) -> Client:
        return cast(Client, Failing(self.inner.as_manager(manager), self.k, self.way, self.count))

    async def call(self, do: Callable[[], Awaitable[Any]]) -> Any:
        self.count[0] += 1
        if self.count[0] != self.k:
            return await do()
        if self.way == "lost":
            await do()
        raise WAYS[self.way]()

    async def create(self, *words: Any, **more: Any) -> Object:
        return cast(Object, await self.call(lambda: self.inner.create(*words, **more)))

    async def update(self, *words: Any, **more: Any) -> Object:
        return cast(Object, await self.call(lambda: self.inner.update(*words, **more)))

    async def patch(self, *words: Any, **more: Any) -> Object:
        return cast(Object, await self.call(lambda: self.inner.patch(*words, **more)))

    async def delete(self, *words: Any, **more: Any) -> Object:
        return cast(Object, await self.call(lambda: self.inner.delete(*words, **more)))

    async def delete_collection(self, *words: Any, **more: Any) -> None:
        await self.call(lambda: self.inner.delete_collection(*words, **more))

    async def get(self, *words: Any, **more: Any) -> Object:
        return cast(Object, await self.call(lambda: self.inner.get(*words, **more)))

    async def list_raw(self, *words: Any, **more: Any) -> RawList:
        return cast(RawList, await self.call(lambda: self.inner.list_raw(*words, **more)))

    def watch(self, *words: Any, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        return self.inner.watch(*words, **more)


NAMES = (
    "endpoints", "endpointslice", "endpointslice-mirroring", "namespace", "serviceaccount", "root-ca-cert-publisher",
    "deployment", "replicaset", "statefulset", "daemonset", "job", "cronjob", "garbagecollector",
)  # fmt: skip
KINDS = (
    DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, JOB, CRON_JOB, POD, SERVICE, ENDPOINTS, ENDPOINT_SLICE,
    SERVICE_ACCOUNT, CONFIG_MAP, CONTROLLER_REVISION, NAMESPACE,
)  # fmt: skip


def template(app: str, image: str = "i:1", **spec: Any) -> Object:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1, **spec},
    }


def workload(name: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name), **spec},
    }


async def life(house: House) -> None:
    """What users do: make one of everything, change it, delete a namespace."""
    client = house.client
    await house.node("n2")
    for node in ("n1", "n2"):
        await client.patch(NODE, node, "", {"spec": {"taints": None}}, "merge")
    await house.service("web", ports=[{"port": 80}], selector={"app": "web"})
    await client.create(DEPLOYMENT, workload("web", replicas=2), "ns")
    await client.create(STATEFUL_SET, workload("db", replicas=2, serviceName="db"), "ns")
    await client.create(DAEMON_SET, workload("agent"), "ns")
    once = template("once", restartPolicy="Never")
    await client.create(JOB, {"metadata": {"name": "once"}, "spec": {"template": once}}, "ns")
    await client.create(
        CRON_JOB,
        {
            "metadata": {"name": "tick"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}, "suspend": False},
        },
        "ns",
    )
    await house.namespace("gone")
    await client.create(CONFIG_MAP, {"metadata": {"name": "c"}}, "gone")
    await asyncio.sleep(12)
    new = {"spec": {"template": template("web", "i:2")}}
    await client.patch(DEPLOYMENT, "web", "ns", new, "strategic")
    await client.patch(STATEFUL_SET, "db", "ns", {"spec": {"replicas": 1}}, "merge")
    await client.delete(NAMESPACE, "gone")
    await asyncio.sleep(60)
    await client.patch(CRON_JOB, "tick", "ns", {"spec": {"suspend": True}}, "merge")
    await asyncio.sleep(30)  # longer than any back-off of a first failure


class Addressing(Kubelet):
    """Gives pods addresses, and lets those of Jobs succeed two seconds after they started."""

    given = 0

    async def report(self, meta: Object, phase: str, *, ready: bool) -> None:
        await super().report(meta, phase, ready=ready)
        if phase != "Running":
            return
        self.given += 1
        ip = f"10.244.{self.given // 250}.{self.given % 250 + 1}"
        status = {"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}
        await self.client.patch(POD, meta["name"], meta["namespace"], status, "strategic", subresource="status")
        if "batch.kubernetes.io/job-name" in meta["labels"]:
            await asyncio.sleep(2.0)
            await self.report(meta, "Succeeded", ready=False)


def played(k: int, way: str) -> tuple[int, dict[str, list[str]]]:
    """Play it with the k-th call failing: how many calls there were, and what is there in the end."""
    count = [0]
    found: dict[str, list[str]] = {}

    async def story(house: House) -> None:
        import random

        loop = asyncio.get_running_loop()
        client = cast(Client, Failing(house.client, k, way, count))
        settings = ControllerSettings(root_ca="PEM")
        controllers = asyncio.create_task(
            run_controllers(client, NAMES, clock=LoopClock(loop), random=random.Random(1), settings=settings)
        )
        kubelet = asyncio.create_task(Addressing(house.client, LoopClock(loop)).run())
        tasks = (controllers, kubelet)
        try:
            await life(house)
            for task in tasks:
                if task.done():
                    task.result()
            for kind in KINDS:
                listed = await house.client.list_raw(kind)
                found[kind.plural] = sorted(shape(kind, msgspec.json.decode(raw)) for raw in listed.items)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    in_house(story)
    return count[0], found


def shape(kind: Kind, obj: Object) -> str:
    """An object without what chance and time put into it."""
    meta, status = obj["metadata"], obj.get("status") or {}
    name = meta.get("generateName") or meta["name"]
    counted = {k: v for k, v in sorted(status.items()) if isinstance(v, int) and k != "observedGeneration"}
    conditions = sorted((c["type"], c["status"]) for c in status.get("conditions") or ())
    if kind is POD:
        image = obj["spec"]["containers"][0]["image"]
        return f"{name} on {obj['spec'].get('nodeName')} {image} {status['phase']} {meta.get('finalizers')}"
    if kind is ENDPOINT_SLICE:
        return f"{name} {len(obj['endpoints'] or ())}"
    if kind is ENDPOINTS:
        return f"{name} {[len(s.get('addresses') or ()) for s in obj.get('subsets') or ()]}"
    if kind is JOB and (meta.get("ownerReferences") or ()):
        name = "a job of tick"
    if kind is CRON_JOB:
        return f"{name} active {len(status.get('active') or ())}"
    replicas = (obj.get("spec") or {}).get("replicas")
    return f"{meta.get('namespace')}/{name} {replicas} {counted} {conditions}"


CALLS, CALM = 0, dict[str, list[str]]()


def reference() -> tuple[int, dict[str, list[str]]]:
    global CALLS, CALM
    if not CALLS:
        CALLS, CALM = played(0, "")
    return CALLS, CALM


def check(k: int, way: str) -> None:
    _, calm = reference()
    _, found = played(k, way)
    assert found == calm, f"call {k} {way}"


@pytest.mark.parametrize(("way", "tenth"), [(way, tenth) for tenth, way in enumerate([*WAYS] * 2)])
def test_a_failed_call_changes_nothing_in_the_end(way: str, tenth: int) -> None:
    calls, calm = reference()
    assert calls > 100 and any("n1" in p for p in calm["pods"])
    check(1 + calls * tenth // 10, way)


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
def test_every_failed_call_changes_nothing_in_the_end(way: str) -> None:
    for k in range(1, reference()[0] + 1):
        check(k, way)
