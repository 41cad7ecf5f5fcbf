"""The Service `default/kubernetes` and its lists (KSVC-1 to KSVC-8), and what a namespace gives back (NS-4)."""

from __future__ import annotations

import asyncio
import random

import msgspec

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import NotFound
from kubesvc.api.ipaddress import IP_ADDRESS
from kubesvc.api.kinds import NAMESPACE
from kubesvc.api.meta import Object
from kubesvc.api.service import SERVICE
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.clock import LoopClock
from kubesvc.store import Change
from kubesvc.store.memory import MemoryStore

from .house import MINE, House, in_house

NAME = ("kubernetes", "default")


async def lists(house: House) -> tuple[Object, Object]:
    return await house.client.get(ENDPOINTS, *NAME), await house.client.get(ENDPOINT_SLICE, *NAME)


def test_what_the_server_makes_of_itself() -> None:
    """KSVC-1, KSVC-3, KSVC-4, KSVC-6: a Service without selector, its Endpoints not mirrored, a slice of that name."""

    async def story(house: House) -> None:
        house.start((*MINE, "garbage-collector"))
        await house.settle(30)
        service = await house.client.get(SERVICE, *NAME)
        spec, labels = service["spec"], service["metadata"]["labels"]
        assert labels == {"component": "apiserver", "provider": "kubernetes"}
        assert (spec["type"], spec["clusterIP"], spec["ipFamilyPolicy"]) == ("ClusterIP", "10.96.0.1", "SingleStack")
        [port] = spec["ports"]
        assert (port["name"], port["port"], port["protocol"]) == ("https", 443, "TCP") and "selector" not in spec
        endpoints, s = await lists(house)
        assert endpoints["metadata"]["labels"] == {"endpointslice.kubernetes.io/skip-mirror": "true"}
        [subset] = endpoints["subsets"]
        assert s["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
        assert "ownerReferences" not in s["metadata"] and "generateName" not in s["metadata"]
        assert [a["ip"] for a in subset["addresses"]] == [e["addresses"][0] for e in s["endpoints"]]
        assert [e["conditions"] for e in s["endpoints"]] == [{"ready": True}]
        [listed] = s["ports"]
        assert [(p["name"], p["port"], p["protocol"]) for p in subset["ports"]] == [
            (listed["name"], listed["port"], listed["protocol"])
        ]
        assert [o["metadata"]["name"] for o in await house.every(ENDPOINT_SLICE, "default")] == ["kubernetes"]

    in_house(story)


def test_what_users_spoil_is_put_right_within_ten_seconds() -> None:
    """KSVC-2, KSVC-3."""

    async def story(house: House) -> None:
        await house.settle(12)
        endpoints, _ = await lists(house)
        wanted = endpoints["subsets"]
        spoilt = {"subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 1}]}]}
        await house.client.patch(ENDPOINTS, *NAME, spoilt, "merge")
        await house.client.delete(ENDPOINT_SLICE, *NAME)
        await house.client.delete(SERVICE, *NAME)
        await house.settle(11)
        endpoints, s = await lists(house)
        assert endpoints["subsets"] == wanted and s["endpoints"]
        assert (await house.client.get(SERVICE, *NAME))["spec"]["clusterIP"] == "10.96.0.1"

    in_house(story)


def test_ports_that_users_gave_the_service_stay() -> None:
    """KSVC-2: an existing Service is not written over; its lists are kept to what the server knows."""

    async def story(house: House) -> None:
        await house.settle(12)
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 7443},
                 {"name": "more", "port": 444, "protocol": "TCP", "targetPort": 444}]  # fmt: skip
        await house.client.patch(SERVICE, *NAME, {"spec": {"ports": ports}}, "merge")
        before, _ = await lists(house)
        await house.settle(25)
        assert (await house.client.get(SERVICE, *NAME))["spec"]["ports"] == ports
        assert (await lists(house))[0]["subsets"] == before["subsets"]

    in_house(story)


def test_what_is_there_before_anybody_is_told_ready_and_what_comes_after() -> None:
    """KSVC-2, KSVC-7: readiness waits for the namespaces and roles; the Service `kubernetes` waits for readiness, and
    before it comes nobody lists the address of a server that is not ready."""

    async def story(house: House) -> None:
        store = MemoryStore()
        await store.start()
        settings = ApiServerSettings(authorization="RBAC")
        seen: list[tuple[bool, str]] = []

        def note(changes: list[Change]) -> None:
            seen.extend((server.ready(), change.key) for change in changes)

        server = ApiServer(store, settings, LoopClock(asyncio.get_running_loop()), random.Random(1))
        store.subscribe("", note)
        answer = server.health.report("readyz", "", (), verbose=False)
        assert answer is not None and answer[0] == 500
        for missing in ("start-system-namespaces-controller", "rbac/bootstrap-roles"):
            assert f"[-]poststarthook/{missing} failed" in answer[1]
        await server.start()
        try:
            assert server.ready()
            for namespace in ("default", "kube-system", "kube-public", "kube-node-lease"):
                assert (False, f"/registry/core/namespaces/{namespace}") in seen
            assert (False, "/registry/rbac.authorization.k8s.io/clusterroles/cluster-admin") in seen
            assert not [key for _, key in seen if key.endswith("/default/kubernetes")]
            await server.bootstrap.complete.wait()
            after = [(ready, key.removeprefix("/registry/")) for ready, key in seen if "/default/kubernetes" in key]
            assert after == [
                (True, "core/services/default/kubernetes"),
                (True, "core/endpoints/default/kubernetes"),
                (True, "discovery.k8s.io/endpointslices/default/kubernetes"),
            ]
        finally:
            await server.stop()
            await store.close()

    in_house(story)


def test_a_server_that_died_is_listed_again_only_when_it_is_ready() -> None:
    """KSVC-2: what the life before left behind goes before readiness, and its successor's address comes after."""

    async def story(house: House) -> None:
        store = MemoryStore()
        await store.start()
        clock, settings = LoopClock(asyncio.get_running_loop()), ApiServerSettings()
        first = ApiServer(store, settings, clock, random.Random(1))
        await first.start()
        await first.bootstrap.complete.wait()
        for task in first._tasks:  # it dies: nobody takes its address out
            task.cancel()
        await asyncio.wait(first._tasks)
        first.cache.stop()
        listed: list[tuple[bool, bool]] = []

        def note(changes: list[Change]) -> None:
            for change in changes:
                if change.key.endswith("endpoints/default/kubernetes") and change.value is not None:
                    listed.append((second.ready(), bool(msgspec.json.decode(change.value).get("subsets"))))

        second = ApiServer(store, settings, clock, random.Random(2))
        store.subscribe("", note)
        await second.start()
        try:
            assert listed == [(False, False)]
            await second.bootstrap.complete.wait()
            assert listed == [(False, False), (True, True)]
        finally:
            await second.stop()
            await store.close()

    in_house(story)


def test_a_clean_end_takes_the_address_away() -> None:
    """KSVC-8."""

    async def story(house: House) -> None:
        await house.settle(12)
        await house.server.stop()
        endpoints, s = await lists(house)
        assert not endpoints.get("subsets") and not s["endpoints"]

    in_house(story)


def test_a_deleted_namespace_frees_its_addresses() -> None:
    """NS-4."""

    async def story(house: House) -> None:
        house.start(("namespace",))
        service = await house.service()
        ip = service["spec"]["clusterIP"]
        assert (await house.client.get(IP_ADDRESS, ip))["spec"]["parentRef"]["name"] == "web"
        await house.client.delete(NAMESPACE, "ns")
        await house.settle(30)
        for kind, name in ((NAMESPACE, "ns"), (IP_ADDRESS, ip)):
            try:
                await house.client.get(kind, name)
            except NotFound:
                continue
            raise AssertionError(f"{name} is still there")

    in_house(story)
