"""Two API servers on one etcd: each is judged by what the other has done, and none gives what the other gave.

In one process, each with a store of its own; `test_shared_processes` does it with real processes that are killed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest

from kubesvc.api.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from kubesvc.api.kinds import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    ENDPOINTS,
    IP_ADDRESS,
    NAMESPACE,
    RESOURCE_QUOTA,
    SERVICE,
    SERVICE_ACCOUNT,
)
from kubesvc.api.meta import Object
from kubesvc.apiserver import bootstrap, servers
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.options import ListOptions
from kubesvc.clock import RealClock
from kubesvc.store import Delete, Put, open_store
from kubesvc.store.etcd import EtcdStore

from ..store.etcdserver import shared_etcd
from .running import SETTINGS, Http, config_map

prefixes = itertools.count()
LAG_SECONDS = 0.005
"""Events come late, to the second server later, so that what is judged by what came so far is judged wrongly."""
Pair = tuple[ApiServer, ApiServer]
SMALL = replace(SETTINGS, node_ports=(30000, 30009), service_ranges=("10.96.0.0/27",))


@pytest.fixture(autouse=True)
def no_second_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server does by itself every ten seconds, such as renewing its lease, is no part of these stories."""
    monkeypatch.setattr(bootstrap, "TURN_SECONDS", 3600.0)


@asynccontextmanager
async def server_at(url: str, number: int) -> AsyncIterator[ApiServer]:
    store = open_store(url)
    assert isinstance(store, EtcdStore)
    told = store._told

    def late(events: Sequence[Any]) -> None:
        asyncio.get_running_loop().call_later(number * LAG_SECONDS, told, list(events))

    store._told = late  # type: ignore[method-assign]
    await store.start()
    settings = replace(SMALL, advertise_address=f"192.0.2.{number}", advertise_port=6443)
    server = ApiServer(store, settings, RealClock(), random.Random(number))
    await server.start()
    await server.bootstrap.complete.wait()
    try:
        yield server
    finally:
        await server.stop(0.1)
        await store.close()


def with_pair(test: Callable[[ApiServer, ApiServer], Awaitable[None]]) -> None:
    async def main() -> None:
        url = shared_etcd().url(f"pair-{next(prefixes)}")
        async with server_at(url, 1) as one, server_at(url, 2) as two:
            await asyncio.wait_for(test(one, two), 180)

    asyncio.run(main())


def node_port(name: str, **spec: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}], **spec},
    }


def test_what_one_has_acknowledged_the_other_knows_at_once() -> None:
    """READ-1, PATCH-3, WRITE-6: reads, writes with a resourceVersion, deletions and namespaces, in turns."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        for i in range(10):
            one, two = two, one
            await one.local.create(NAMESPACE, {"metadata": {"name": f"n{i}"}})
            made = await two.local.create(CONFIG_MAP, config_map("c", f"n{i}"), f"n{i}")
            assert await one.local.get(CONFIG_MAP, "c", f"n{i}") == made
            made["data"] = {"k": "changed"}
            made = await one.local.update(CONFIG_MAP, made)
            made["data"] = {"k": "changed again"}
            made = await two.local.update(CONFIG_MAP, made)
            with pytest.raises(Conflict):
                await one.local.update(CONFIG_MAP, made | {"metadata": made["metadata"] | {"resourceVersion": "1"}})
            listed = await one.registry.list_page(CONFIG_MAP, f"n{i}", ListOptions())
            assert [str(item.revision) for item in listed.items] == [made["metadata"]["resourceVersion"]]
            await one.local.delete(CONFIG_MAP, "c", f"n{i}")
            assert (await two.registry.list_page(CONFIG_MAP, f"n{i}", ListOptions())).items == []

    with_pair(test)


def test_a_page_token_of_one_goes_on_at_the_other() -> None:
    """LIST-4: and the pages are of one revision."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        for i in range(6):
            await one.local.create(CONFIG_MAP, config_map(f"c{i}"), "default")
        first = await one.registry.list_page(CONFIG_MAP, "default", ListOptions(limit=3))
        await one.local.delete(CONFIG_MAP, "c5", "default")
        await one.local.create(CONFIG_MAP, config_map("c4x"), "default")
        options = ListOptions(limit=9, continue_token=first.continue_token)
        second = await two.registry.list_page(CONFIG_MAP, "default", options)
        assert second.revision == first.revision
        assert [i.name for i in [*first.items, *second.items]] == [f"c{i}" for i in range(6)]

    with_pair(test)


def test_a_watch_goes_on_at_the_other_without_gap_or_repeat() -> None:
    """WATCH-3, also where the other is a moment behind."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        seen: list[str] = []
        version = str(await one.store.revision())
        servers_in_turn = itertools.cycle((one, two))

        async def write() -> None:
            for i in range(30):
                await (one, two)[i % 2].local.create(CONFIG_MAP, config_map(f"w{i:02}"), "default")

        writing = asyncio.create_task(write())
        while len(seen) < 30:
            watch = next(servers_in_turn).local.watch(CONFIG_MAP, "default", resource_version=version, bookmarks=False)
            async for event in watch:
                meta = msgspec.json.decode(event.object)["metadata"]
                seen.append(meta["name"])
                version = meta["resourceVersion"]
                if len(seen) % 4 == 0 or len(seen) == 30:
                    break
            await watch.aclose()
        await writing
        assert seen == [f"w{i:02}" for i in range(30)]

    with_pair(test)


def test_no_port_or_address_is_given_twice() -> None:
    """VIP-2, NP-1: ten ports and 28 addresses, asked for through both at once, then given back, and asked for again."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        async def make(server: ApiServer, name: str) -> Object | None:
            try:
                return await server.local.create(SERVICE, node_port(name), "default")
            except ApiError as error:
                assert "range is full" in error.message
                return None

        for turn in range(3):
            made = await asyncio.gather(*(make((one, two)[i % 2], f"s{turn}-{i}") for i in range(16)))
            given = [m for m in made if m is not None]
            ports = [m["spec"]["ports"][0]["nodePort"] for m in given]
            assert sorted(ports) == list(range(30000, 30010)), "each once, and none is withheld"
            assert len({m["spec"]["clusterIP"] for m in given}) == 10
            await asyncio.gather(
                *(
                    (one, two)[i % 2].local.delete(SERVICE, m["metadata"]["name"], "default")
                    for i, m in enumerate(given)
                )
            )
            held = await one.registry.list_page(IP_ADDRESS, "", ListOptions())
            assert [item.name for item in held.items] == ["10.96.0.1"]
            assert (await one.store.scan("/guards/node-ports/")).entries == []

    with_pair(test)


def test_of_two_who_ask_for_one_port_or_address_one_is_refused_in_the_usual_words() -> None:
    """NP-5, VIP-5."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        asked: tuple[tuple[Object, str], ...] = (
            ({"ports": [{"port": 80, "nodePort": 30005}]}, "provided port is already allocated"),
            ({"clusterIP": "10.96.0.20"}, "provided IP is already allocated"),
        )
        for spec, words in asked:
            outcomes = await asyncio.gather(
                one.local.create(SERVICE, node_port("a", **spec), "default"),
                two.local.create(SERVICE, node_port("b", **spec), "default"),
                return_exceptions=True,
            )
            refused = [o for o in outcomes if isinstance(o, BaseException)]
            assert len(refused) == 1 and isinstance(refused[0], Invalid) and words in refused[0].message
            for name in ("a", "b"):
                try:
                    await two.local.delete(SERVICE, name, "default")
                except ApiError:
                    pass

    with_pair(test)


def test_a_port_that_an_update_takes_or_frees_is_guarded_too() -> None:
    async def test(one: ApiServer, two: ApiServer) -> None:
        await one.local.create(SERVICE, node_port("a", ports=[{"port": 80, "nodePort": 30001}]), "default")
        patch = {"spec": {"ports": [{"port": 80, "nodePort": 30002}]}}
        await two.local.patch(SERVICE, "a", "default", patch, "merge")
        guards = [e.key for e in (await one.store.scan("/guards/node-ports/")).entries]
        assert guards == ["/guards/node-ports/30002"]
        await one.local.patch(
            SERVICE, "a", "default", {"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}, "merge"
        )
        assert (await two.store.scan("/guards/node-ports/")).entries == []

    with_pair(test)


def test_a_quota_is_exact_over_both() -> None:
    async def test(one: ApiServer, two: ApiServer) -> None:
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"count/configmaps": "7"}}}
        await one.local.create(RESOURCE_QUOTA, quota, "default")

        async def make(i: int) -> int:
            try:
                await (one, two)[i % 2].local.create(CONFIG_MAP, config_map(f"q{i}"), "default")
            except Forbidden as error:
                assert "exceeded quota: q" in error.message
                return 0
            return 1

        assert sum(await asyncio.gather(*(make(i) for i in range(24)))) == 7
        assert len((await two.registry.list_page(CONFIG_MAP, "default", ListOptions())).items) == 7

    with_pair(test)


def test_names_are_made_up_once() -> None:
    """META-4."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        one.registry.random.seed(1)
        two.registry.random.seed(1)  # both draw the same names
        body = {"metadata": {"generateName": "g-", "namespace": "default"}}
        made = await asyncio.gather(*((one, two)[i % 2].local.create(CONFIG_MAP, body, "default") for i in range(10)))
        assert len({m["metadata"]["name"] for m in made}) == 10

    with_pair(test)


def test_a_token_of_one_speaks_at_the_other() -> None:
    """AUTH-5."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        await one.local.create(SERVICE_ACCOUNT, {"metadata": {"name": "a", "namespace": "default"}}, "default")
        issued = await one.local.create(SERVICE_ACCOUNT, {"spec": {}}, "default", name="a", subresource="token")
        await two.store.revision()
        user = two.tokens.user_of(issued["status"]["token"])
        assert user is not None and user.name == "system:serviceaccount:default:a"

    with_pair(test)


def test_servers_that_start_together_make_what_is_missing_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIDR-4, KSVC-7: what another made a moment ago, and a server has not seen yet, keeps it from nothing."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        async def nothing_yet(*_: object, **__: object) -> Object:
            raise NotFound("not seen yet")

        monkeypatch.setattr(two.bootstrap.client, "get", nothing_yet)
        two.bootstrap.done = False
        await two.bootstrap.once()
        assert two.bootstrap.done

    with_pair(test)


def test_endpoints_kubernetes_lists_the_servers_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """KSVC-3 to KSVC-5 and KSVC-8: both, then without the one that died, and none after a clean end."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        async def addresses() -> list[str]:
            slices = await two.local.get(ENDPOINT_SLICE, "kubernetes", "default")
            found = [a for e in slices.get("endpoints") or () for a in e["addresses"]]
            endpoints = await two.local.get(ENDPOINTS, "kubernetes", "default")
            assert [a["ip"] for s in endpoints.get("subsets") or () for a in s["addresses"]] == found  # KSVC-6
            return found

        assert await addresses() == ["192.0.2.1", "192.0.2.2"]
        monkeypatch.setattr(servers, "LEASE_SECONDS", 0.05)
        await two.bootstrap.own_endpoints()
        await asyncio.sleep(0.1)
        await two.bootstrap.own_endpoints()
        assert await addresses() == ["192.0.2.2"], "the other has not renewed its lease"
        monkeypatch.setattr(servers, "LEASE_SECONDS", 60)
        await two.bootstrap.own_endpoints()
        await one.bootstrap.own_endpoints()
        assert await addresses() == ["192.0.2.1", "192.0.2.2"]
        await one.bootstrap.withdraw()
        assert await addresses() == ["192.0.2.2"]
        await two.bootstrap.withdraw()
        assert await addresses() == []

    with_pair(test)


def test_whoever_leaves_takes_the_addresses_of_the_dead_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """KSVC-5, KSVC-8: a lease that ran out keeps no address, also when nobody is left to renew another."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        monkeypatch.setattr(servers, "LEASE_SECONDS", 0.05)
        await two.bootstrap.own_endpoints()
        await asyncio.sleep(0.1)
        await two.bootstrap.withdraw()
        endpoints = await two.local.get(ENDPOINTS, "kubernetes", "default")
        assert not endpoints.get("subsets")
        assert not (await two.store.scan(servers.ROOT)).entries

    with_pair(test)


CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "wheels.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "wheels", "singular": "wheel", "kind": "Wheel", "listKind": "WheelList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
                    }
                },
            }
        ],
    },
}


def test_a_kind_defined_at_one_is_served_by_the_other() -> None:
    async def test(one: ApiServer, two: ApiServer) -> None:
        with tempfile.TemporaryDirectory() as directory:
            sessions = []
            for number, server in enumerate((one, two)):
                path = f"{directory}/{number}.sock"
                await server.listen_unix(path)
                sessions.append(aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=path)))
            first, second = (Http(session) for session in sessions)
            try:
                definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
                assert (await first.request("POST", definitions, CRD))[0] == 201
                wheels = "/apis/example.org/v1/namespaces/default/wheels"
                body = {"apiVersion": "example.org/v1", "kind": "Wheel", "metadata": {"name": "w"}, "spec": {"size": 3}}
                async with asyncio.timeout(60):
                    while (await second.request("GET", wheels))[0] == 404:
                        await asyncio.sleep(0.01)
                    while (status := (await second.request("POST", wheels, body))[0]) != 201:
                        assert status in (404, 503)
                        await asyncio.sleep(0.01)
                assert (await first.request("GET", f"{wheels}/w"))[2]["spec"] == {"size": 3}
            finally:
                for session in sessions:
                    await session.close()

    with_pair(test)


def test_guards_of_ports_follow_the_services_in_the_end() -> None:
    """REPAIR-2: what somebody took out of etcd or left in it by hand."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        await one.local.create(SERVICE, node_port("a", ports=[{"port": 80, "nodePort": 30003}]), "default")
        await two.store.commit(Delete("/guards/node-ports/30003"), Put("/guards/node-ports/30004", b""))
        await one._repair_guards()
        guards = [e.key for e in (await two.store.scan("/guards/node-ports/")).entries]
        assert guards == ["/guards/node-ports/30003"]
        await two.local.create(SERVICE, node_port("b", ports=[{"port": 80, "nodePort": 30004}]), "default")

    with_pair(test)


def test_guards_of_quotas_go_with_their_namespaces() -> None:
    """What a namespace left in the store and in memory is gone after the next look; a living one's quota holds on."""

    async def test(one: ApiServer, two: ApiServer) -> None:
        guards = one.registry.commits.guards
        for name in ("dead", "living"):
            await one.local.create(NAMESPACE, {"metadata": {"name": name}})
            quota = {"metadata": {"name": "q", "namespace": name}, "spec": {"hard": {"configmaps": "2"}}}
            await one.local.create(RESOURCE_QUOTA, quota, name)
            await one.local.create(CONFIG_MAP, config_map("c", name), name)
        assert sorted(guards.revisions) == ["/guards/quotas/dead", "/guards/quotas/living"] and not guards.locks
        await one.store.commit(Delete("/registry/core/namespaces/dead"))
        await one._repair_guards()
        await one.registry.fresh()
        assert list(guards.revisions) == ["/guards/quotas/living"]
        assert [e.key for e in (await two.store.scan("/guards/quotas/")).entries] == ["/guards/quotas/living"]
        await two.local.create(CONFIG_MAP, config_map("d", "living"), "living")
        with pytest.raises(Forbidden):
            await one.local.create(CONFIG_MAP, config_map("e", "living"), "living")

    with_pair(test)
