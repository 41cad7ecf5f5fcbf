"""Services in the real registry over a real store: one commit for all, nothing given twice, repair, restart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.event import EVENT
from kubesvc.api.ipaddress import IP_ADDRESS, IPAddress
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.service import SERVICE
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.repair import Repairer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.client import EventRecorder
from kubesvc.clock import LoopClock, run_virtual
from kubesvc.store.memory import MemoryStore

SETTINGS = ApiServerSettings(service_ranges=("10.0.0.0/24", "fd00::/112"), node_ports=(30000, 30099))


def with_server(run: Callable[[ApiServer], Awaitable[None]]) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.start()
        server = ApiServer(store, SETTINGS, LoopClock(asyncio.get_running_loop()), random.Random(1))
        await server.start()
        try:
            await run(server)
        finally:
            await server.stop()
            await store.close()

    run_virtual(main())


async def create(server: ApiServer, name: str, **spec: Any) -> Object | str:
    """The Service, or why there is none."""
    obj = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
    try:
        return await server.client.create(SERVICE, obj, "default")
    except ApiError as refusal:
        return refusal.message


async def names(server: ApiServer, kind: Kind) -> list[str]:
    listed = await server.client.list_raw(kind)
    return [msgspec.json.decode(item)["metadata"]["name"] for item in listed.items]


def test_an_address_asked_for_at_once_is_given_to_one() -> None:
    """VIP-6."""

    async def run(server: ApiServer) -> None:
        found = await asyncio.gather(*(create(server, f"s{i}", clusterIP="10.0.0.9") for i in range(6)))
        assert [isinstance(f, str) for f in found].count(False) == 1
        refused = [f for f in found if isinstance(f, str)]
        assert all("failed to allocate IP 10.0.0.9: provided IP is already allocated" in f for f in refused)
        assert "10.0.0.9" in await names(server, IP_ADDRESS)

    with_server(run)


def test_a_full_range_serves_again_as_soon_as_something_is_deleted() -> None:
    """VIP-5, VIP-10, NP-9."""

    async def run(server: ApiServer) -> None:
        found = await asyncio.gather(*(create(server, f"s{i}", type="NodePort") for i in range(102)))
        assert sum(isinstance(f, str) for f in found) == 2
        assert await create(server, "more", type="NodePort") == (
            "Internal error occurred: failed to allocate a nodePort: range is full"
        )
        made = next(f["metadata"]["name"] for f in found if not isinstance(f, str))
        await server.client.delete(SERVICE, made, "default")
        assert not isinstance(await create(server, "more", type="NodePort"), str)
        assert len(await names(server, IP_ADDRESS)) == 101  # those and the server's own

    with_server(run)


def test_what_belongs_to_a_service_goes_in_the_same_commit() -> None:
    """SVCX-5, SVCX-6."""

    async def run(server: ApiServer) -> None:
        client = server.client
        dual = {"ipFamilyPolicy": "RequireDualStack"}
        obj = {"metadata": {"name": "web", "finalizers": ["a.b/c"]}, "spec": {"ports": [{"port": 80}], **dual}}
        made = await client.create(SERVICE, obj, "default")
        assert set(made["spec"]["clusterIPs"]) < set(await names(server, IP_ADDRESS))
        await client.create(ENDPOINTS, {"metadata": {"name": "web"}}, "default")
        await client.delete(SERVICE, "web", "default")
        assert "web" in await names(server, ENDPOINTS)  # the finalizer holds all of it
        await client.patch(SERVICE, "web", "default", {"metadata": {"finalizers": None}}, "merge", subresource="status")
        assert "web" not in await names(server, SERVICE)
        assert "web" not in await names(server, ENDPOINTS)
        assert not set(made["spec"]["clusterIPs"]) & set(await names(server, IP_ADDRESS))

    with_server(run)


def test_addresses_that_users_hold_are_taken() -> None:
    """CIDR-1."""

    async def run(server: ApiServer) -> None:
        parent = {"group": "example.com", "resource": "things", "name": "x"}
        held = {"metadata": {"name": "10.0.0.7"}, "spec": {"parentRef": parent}}
        await server.client.create(IP_ADDRESS, held)
        assert "already allocated" in str(await create(server, "web", clusterIP="10.0.0.7"))
        await server.client.delete(IP_ADDRESS, "10.0.0.7")
        assert not isinstance(await create(server, "web", clusterIP="10.0.0.7"), str)

    with_server(run)


def test_a_server_that_starts_again_knows_what_is_taken() -> None:
    """REPAIR-3."""

    async def run(server: ApiServer) -> None:
        spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}
        made = await create(server, "web", clusterIP="10.0.0.7", **spec)
        assert not isinstance(made, str)
        clock = LoopClock(asyncio.get_running_loop())
        other = ApiServer(server.store, SETTINGS, clock, random.Random(2))
        await other.start()
        try:
            assert "already allocated" in str(await create(other, "a", clusterIP="10.0.0.7"))
            taken = [{"port": 1, "nodePort": port} for port in (30001, made["spec"]["ports"][0]["nodePort"])]
            for port in taken:
                assert "already allocated" in str(await create(other, "a", type="NodePort", ports=[port]))
        finally:
            await other.stop()

    with_server(run)


def test_repair() -> None:
    """REPAIR-1: what a user deleted comes back, what he bent is put right, what leaked goes; and it is told."""

    async def run(server: ApiServer) -> None:
        client = server.client
        clock = LoopClock(asyncio.get_running_loop())
        events = EventRecorder(client, "service-repair", clock=clock, random=random.Random(3))
        repairer = Repairer(client, SETTINGS.service_ranges, SETTINGS.node_ports, clock, events)
        for name, address in (("gone", "10.0.0.7"), ("bent", "10.0.0.8"), ("well", "10.0.0.9")):
            assert not isinstance(await create(server, name, clusterIP=address), str)
        managed = {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}
        wrong = {"resource": "services", "namespace": "default", "name": "nobody"}
        await client.delete(IP_ADDRESS, "10.0.0.7")
        await client.delete(IP_ADDRESS, "10.0.0.8")
        for address in ("10.0.0.8", "10.0.0.200"):
            meta = {"name": address, "labels": managed}
            await client.create(IP_ADDRESS, {"metadata": meta, "spec": {"parentRef": wrong}})
        await asyncio.sleep(61)
        before = await names(server, IP_ADDRESS)
        writing = asyncio.create_task(events.run())
        await repairer.repair()
        await asyncio.sleep(1)
        writing.cancel()
        assert set(await names(server, IP_ADDRESS)) == {*before, "10.0.0.7"} - {"10.0.0.200"}
        fixed = msgspec.convert(await client.get(IP_ADDRESS, "10.0.0.8"), IPAddress)
        assert fixed.spec.parent_ref is not None and fixed.spec.parent_ref.name == "bent"
        listed = await client.list_raw(EVENT)
        told = {(e := msgspec.json.decode(item))["reason"]: e["type"] for item in listed.items}
        assert told == dict.fromkeys(
            ("ClusterIPNotAllocated", "IPAddressWrongReference", "IPAddressNotAllocated"), "Warning"
        )
        await repairer.repair()
        assert not events._desk.queue  # nothing more to say

    with_server(run)


def test_repair_goes_on_after_a_failing_turn() -> None:
    async def run(server: ApiServer) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        events = EventRecorder(server.client, "service-repair", clock=clock, random=random.Random(3))
        repairer = Repairer(server.client, SETTINGS.service_ranges, SETTINGS.node_ports, clock, events)
        assert not isinstance(await create(server, "web", clusterIP="10.0.0.7"), str)
        await server.client.delete(IP_ADDRESS, "10.0.0.7")
        working, turns = repairer.repair, []

        async def repair(*, ports: bool = True) -> None:
            turns.append(ports)
            if len(turns) == 1:
                raise NotFound("not now")
            await working(ports=ports)

        repairer.repair = repair  # type: ignore[method-assign]
        task = asyncio.create_task(repairer.run())
        await asyncio.sleep(200)
        task.cancel()
        assert turns == [True, False, False, True]
        assert "10.0.0.7" in await names(server, IP_ADDRESS)

    with_server(run)
