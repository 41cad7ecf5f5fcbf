"""The endpoint controllers against a real API server, in virtual time: who writes what, when, and how often."""

from __future__ import annotations

import asyncio
import random

import pytest

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import NotFound
from kubesvc.api.event import EVENT
from kubesvc.api.meta import Object
from kubesvc.api.namespace import NAMESPACE
from kubesvc.api.node import NODE
from kubesvc.api.pod import POD
from kubesvc.api.service import SERVICE
from kubesvc.controllers import ControllerSettings

from .builders import address
from .house import House, in_house

ONE, TWO, THREE = "10.1.0.1", "10.1.0.2", "10.1.0.3"


def test_service_without_pods_then_with() -> None:
    """A19, A21, A22, SLICE-25, SLICE-26: an empty object and a placeholder, which the first pod takes over."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.settle()
        assert await house.endpoints() == []
        [placeholder] = await house.slices()
        assert (placeholder["endpoints"], placeholder["ports"]) == (None, None)
        assert placeholder["metadata"]["generateName"] == "web-"
        assert "endpoints.kubernetes.io/last-change-trigger-time" in placeholder["metadata"]["annotations"]
        await house.pod("a", ONE)
        await house.pod("b", TWO, ready=False)
        await house.settle()
        assert await house.endpoints() == [([ONE], [TWO])]
        assert await house.shown() == [[ONE, f"{TWO}!"]]
        [s] = await house.slices()
        assert s["metadata"]["name"] == placeholder["metadata"]["name"]
        assert s["ports"] == [{"name": "", "protocol": "TCP", "port": 8080}]

    in_house(story)


def test_one_pod_of_many_rewrites_one_slice() -> None:
    """SLICE-24: of 250 pods in three slices one dies: one slice is written, and Endpoints once."""

    async def story(house: House) -> None:
        for i in range(250):
            await house.pod(f"p{i:03}", address(i))
        house.start()
        await house.service()
        await house.settle()
        assert sorted(len(s) for s in await house.shown()) == [50, 100, 100]
        async with house.counting(ENDPOINTS, ENDPOINT_SLICE) as seen:
            await house.client.delete(POD, "p123", "ns")
            await house.settle()
        assert [len(writes) for writes in seen.values()] == [1, 1]
        assert sum(len(s) for s in await house.shown()) == 249
        async with house.counting(ENDPOINTS, ENDPOINT_SLICE) as seen:
            await house.status("p007", ready=False)
            await house.settle()
        assert [len(writes) for writes in seen.values()] == [1, 1]

    in_house(story)


def test_steady_state_and_restart_write_nothing() -> None:
    """SLICE-24, EP-17: hours pass, controllers start again, pods get annotations: not one write."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.pod("b", TWO)
        await house.settle()
        async with house.counting(ENDPOINTS, ENDPOINT_SLICE) as seen:
            await house.settle(3600)
            await house.stop()
            house.start()
            await house.settle(60)
            await house.client.patch(POD, "a", "ns", {"metadata": {"annotations": {"x": "y"}}}, "merge")
            await house.client.patch(SERVICE, "web", "ns", {"metadata": {"annotations": {"x": "y"}}}, "merge")
            await house.settle(60)
        assert seen == {"Endpoints": [], "EndpointSlice": []}

    in_house(story)


def test_what_users_do_to_managed_objects() -> None:
    """SLICE-2, EP-1: slices are put right within seconds, deleted ones made again; hand edits of Endpoints stay."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.settle()
        [s] = await house.slices()
        name = s["metadata"]["name"]
        await house.client.patch(
            ENDPOINT_SLICE, name, "ns", {"endpoints": [], "metadata": {"labels": {"x": "y"}}}, "merge"
        )
        await house.settle()
        assert await house.shown() == [[ONE]]
        assert "x" not in (await house.slices())[0]["metadata"]["labels"]
        await house.client.delete(ENDPOINT_SLICE, name, "ns")
        await house.settle()
        assert await house.shown() == [[ONE]]
        subsets = [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]
        await house.client.patch(ENDPOINTS, "web", "ns", {"subsets": subsets}, "merge")
        await house.settle(60)
        assert await house.endpoints() == [(["192.0.2.1"], [])]
        await house.client.delete(ENDPOINTS, "web", "ns")
        await house.settle()
        assert await house.endpoints() == [([ONE], [])]

    in_house(story)


def test_service_goes_and_leftovers_go_at_start() -> None:
    """EP-5, EP-6, SLICE-3, SLICE-7: Endpoints go with the Service, slices are left to their owner."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.settle()
        await house.client.delete(SERVICE, "web", "ns")
        await house.settle()
        with pytest.raises(NotFound):
            await house.endpoints()
        assert len(await house.slices()) == 1
        await house.stop()
        leader = {"annotations": {"control-plane.alpha.kubernetes.io/leader": "me"}}
        for name, more in (("leftover", {}), ("election", leader)):
            await house.client.create(ENDPOINTS, {"metadata": {"name": name, **more}}, "ns")
        house.start()
        await house.settle()
        assert [e["metadata"]["name"] for e in await house.every(ENDPOINTS)] == ["election"]

    in_house(story)


def test_selector_removed_leaves_what_was_written() -> None:
    """SLICE-8, EP-6, MIRROR-3: and mirroring then mirrors the Endpoints left behind."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.settle()
        await house.client.patch(SERVICE, "web", "ns", {"spec": {"selector": None}}, "merge")
        await house.client.delete(POD, "a", "ns")
        await house.settle()
        assert await house.shown() == [[ONE], [ONE]]
        await house.client.patch(SERVICE, "web", "ns", {"spec": {"selector": {"app": "web"}}}, "merge")
        await house.settle()
        assert await house.shown() == [[]]

    in_house(story)


def test_pod_on_an_unknown_node() -> None:
    """SLICE-12: in Endpoints but in no slice, an event says so, and it is taken in when the Node is there."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.pod("b", TWO, node="ghost")
        await house.settle()
        assert await house.endpoints() == [([ONE, TWO], [])]
        assert await house.shown() == [[ONE]]
        said = [e for e in await house.every(EVENT) if e["reason"] == "FailedToUpdateEndpointSlices"]
        assert [e["message"] for e in said] == [
            "Error updating Endpoint Slices for Service ns/web: skipping Pod b for Service ns/web: Node ghost Not Found"
        ]
        await house.settle(300)  # the next try by itself is minutes away
        await house.node("ghost", zone="z1")
        await house.settle(1)
        assert await house.shown() == [[ONE, TWO]]
        zones = {e["addresses"][0]: e.get("zone") for e in (await house.slices())[0]["endpoints"]}
        assert zones == {ONE: None, TWO: "z1"}

    in_house(story)


def test_dual_stack() -> None:
    """SLICE-10, EP-8: a slice for each family, Endpoints of the primary one; a family that goes takes its slices."""

    async def story(house: House) -> None:
        house.start()
        await house.service(ipFamilyPolicy="RequireDualStack")
        await house.pod("a", ONE)
        await house.status("a", ready=True, podIP=ONE, podIPs=[{"ip": ONE}, {"ip": "fd00::a"}])
        await house.settle()
        assert await house.shown() == [[ONE], ["fd00::a"]]
        assert await house.endpoints() == [([ONE], [])]
        single = {"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": None}}
        web = await house.client.get(SERVICE, "web", "ns")
        single["spec"]["clusterIPs"] = web["spec"]["clusterIPs"][:1]
        await house.client.patch(SERVICE, "web", "ns", single, "merge")
        await house.settle()
        assert await house.shown() == [[ONE]]

    in_house(story, ranges=("10.96.0.0/16", "fd00:10:96::/112"))


def test_terminating_namespace_is_given_up_quietly() -> None:
    """EP-22, SLICE-28, NS-5: no event, no endless tries."""

    async def story(house: House) -> None:
        await house.service()
        await house.client.delete(NAMESPACE, "ns")
        house.start()
        await house.settle(120)
        assert await house.slices() == []
        assert house.trouble.writes == 2, "one try of each controller, no event, no retry"

    in_house(story)


def test_batch_period_gathers_pod_changes() -> None:
    """SLICE-1: with a period many pods cost one write."""

    async def story(house: House) -> None:
        house.start(settings=ControllerSettings(endpointslice_updates_batch_period=5, endpoint_updates_batch_period=5))
        await house.service()
        await house.settle()
        async with house.counting(ENDPOINTS, ENDPOINT_SLICE) as seen:
            for i in range(20):
                await house.pod(f"p{i}", address(i))
            await house.settle(4)
            assert [len(writes) for writes in seen.values()] == [0, 0]
            await house.settle(10)
        assert [len(writes) for writes in seen.values()] == [1, 1]

    in_house(story)


def test_late_cache_makes_no_second_slice() -> None:
    """SLICE-5, EP-23, bug 11: while own writes are not seen yet nothing is planned from the old state."""

    async def story(house: House) -> None:
        house.start()
        await house.settle(1)
        house.trouble.late_seconds = {ENDPOINT_SLICE: 2.0, ENDPOINTS: 2.0}
        await house.service()
        for i in range(10):
            await house.pod(f"p{i}", address(i))
            await house.settle(0.3)
            assert len(await house.slices()) == 1
        await house.settle(25)
        assert [len(s) for s in await house.shown()] == [10]
        assert [len(ready) for ready, _ in await house.endpoints()] == [10]
        assert await house.every(EVENT) == [], "nothing was tried in vain"

    in_house(story)


def test_trigger_time_of_a_change() -> None:
    """EP-21, SLICE-33: since when a change could have been seen; removed by a write that no newer time explains."""

    async def story(house: House) -> None:
        def times(objects: list[Object]) -> list[str]:
            key = "endpoints.kubernetes.io/last-change-trigger-time"
            return [(o["metadata"].get("annotations") or {}).get(key, "") for o in objects]

        async def flip(ready: str, when: str) -> None:
            conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": when}]
            await house.client.patch(
                POD, "a", "ns", {"status": {"conditions": conditions}}, "merge", subresource="status"
            )
            await house.settle()

        await house.pod("a", ONE)
        house.start()
        made = await house.service()
        await house.settle()
        created = made["metadata"]["creationTimestamp"]
        assert times([*await house.slices(), *await house.every(ENDPOINTS)]) == [created, created]
        later = "2026-01-01T01:00:00Z"
        await flip("False", later)
        assert times([*await house.slices(), *await house.every(ENDPOINTS)]) == [later, later]
        await flip("True", created)
        assert times([*await house.slices(), *await house.every(ENDPOINTS)]) == ["", ""]

    in_house(story)


def test_sync_that_found_the_cache_behind_goes_on_when_it_moves() -> None:
    """SLICE-5, EP-23: not at the end of a back-off of a second, but at the cache's next event."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("a", ONE)
        await house.pod("b", TWO)
        await house.settle()
        house.trouble.late_seconds = {ENDPOINT_SLICE: 0.3, ENDPOINTS: 0.3}
        await house.status("a", ready=False)
        await house.settle(0.05)
        await house.status("b", ready=False)
        await house.settle(0.1)
        assert await house.shown() == [[f"{ONE}!", TWO]]
        await house.settle(0.25)
        assert await house.shown() == [[f"{ONE}!", f"{TWO}!"]]
        assert await house.endpoints() == [([], [ONE, TWO])]

    in_house(story)


def test_mirroring_follows_endpoints() -> None:
    """A26, MIRROR-9, MIRROR-14: create, update without resourceVersion, delete; edits of the slice are put right."""

    async def story(house: House) -> None:
        house.start()
        await house.service(selector=None)

        def hand_made(ip: str) -> dict[str, object]:
            subsets = [{"addresses": [{"ip": ip}], "ports": [{"port": 5432}]}]
            return {"metadata": {"name": "web", "namespace": "ns"}, "subsets": subsets}

        await house.client.create(ENDPOINTS, hand_made("192.0.2.1"), "ns")
        await house.settle()
        assert await house.shown() == [["192.0.2.1"]]
        await house.client.update(ENDPOINTS, hand_made("192.0.2.2"))
        await house.settle()
        assert await house.shown() == [["192.0.2.2"]]
        [s] = await house.slices()
        await house.client.patch(ENDPOINT_SLICE, s["metadata"]["name"], "ns", {"endpoints": []}, "merge")
        await house.settle()
        assert await house.shown() == [["192.0.2.2"]]
        async with house.counting(ENDPOINT_SLICE) as seen:
            await house.settle(600)
        assert seen == {"EndpointSlice": []}
        await house.client.delete(ENDPOINTS, "web", "ns")
        await house.settle()
        assert await house.slices() == []

    in_house(story)


def test_two_controllers_alone() -> None:
    """Each controller runs without the others."""

    async def story(house: House) -> None:
        house.start(("endpointslice",))
        await house.service()
        await house.pod("a", ONE)
        await house.settle()
        assert await house.shown() == [[ONE]]
        with pytest.raises(NotFound):
            await house.endpoints()

    in_house(story)


@pytest.mark.parametrize("seed", range(6))
def test_everything_settles_after_trouble(seed: int) -> None:
    """Writes that fail before or after they were done, dropped watches, forgotten history, restarts: once it is
    calm, slices and Endpoints hold each pod exactly once, and nobody writes any more."""

    async def story(house: House) -> None:
        chance = random.Random(seed)
        house.start()
        for name in ("web", "api"):
            await house.service(name, selector={"app": name})
        house.trouble.odds = 0.2
        alive: dict[str, tuple[str, str, bool]] = {}
        for turn in range(60):
            name = f"p{chance.randrange(12)}"
            if name in alive and chance.random() < 0.4:
                await house.client.delete(POD, name, "ns")
                del alive[name]
            elif name in alive:
                app, ip, _ = alive[name]
                alive[name] = (app, ip, chance.random() < 0.5)
                await house.status(name, ready=alive[name][2])
            else:
                alive[name] = (chance.choice(["web", "api"]), address(turn), chance.random() < 0.7)
                app, ip, ready = alive[name]
                await house.pod(name, ip, ready=ready, app=app)
            await house.settle(chance.random())
            if chance.random() < 0.05:
                await house.stop()
                house.start()
        house.trouble.odds = 0.0
        await house.settle(1200)
        for app in ("web", "api"):
            expected = sorted(ip + ("" if ready else "!") for of, ip, ready in alive.values() if of == app)
            assert sorted(e for s in await house.shown(app) for e in s) == expected
            found = [ip for ready, _ in await house.endpoints(app) for ip in ready]
            found += [f"{ip}!" for _, not_ready in await house.endpoints(app) for ip in not_ready]
            assert sorted(found) == expected
        async with house.counting(ENDPOINTS, ENDPOINT_SLICE) as seen:
            await house.settle(600)
        assert seen == {"Endpoints": [], "EndpointSlice": []}

    in_house(story, seed=seed)


def test_nodes_that_change_reach_hints() -> None:
    """TOPO-2, TOPO-8, SLICE-1: distribution by zone; topology mode Auto looks again when nodes change."""

    async def story(house: House) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}
        await house.client.patch(
            NODE, "n1", "", {"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}}, "merge"
        )
        await house.node("n2", zone="b")
        for name in ("n1", "n2"):
            await house.client.patch(NODE, name, "", {"status": ready}, "merge", subresource="status")
        house.start()
        await house.service()
        auto = {"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}}
        await house.client.patch(SERVICE, "web", "ns", auto, "merge")
        for i in range(6):
            await house.pod(f"p{i}", address(i), node=f"n{1 + i % 2}")
        await house.settle()

        async def hinted() -> list[str]:
            endpoints = (await house.slices())[0]["endpoints"]
            return sorted(z["name"] for e in endpoints for z in (e.get("hints") or {}).get("forZones") or ())

        assert await hinted() == ["a", "a", "a", "b", "b", "b"]
        assert "TopologyAwareHintsEnabled" in [e["reason"] for e in await house.every(EVENT)]
        await house.client.delete(NODE, "n2")
        await house.settle(30)
        assert await hinted() == ["a", "a", "a", "b", "b", "b"], "nothing tells a share, nothing is looked at again"
        await house.client.patch(SERVICE, "web", "ns", {"metadata": {"labels": {"x": "y"}}}, "merge")
        await house.settle(30)
        assert await hinted() == []

    in_house(story)


def test_controllers_end_when_cancelled() -> None:
    async def story(house: House) -> None:
        house.start()
        await house.settle()
        task = house.controllers
        assert task is not None
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()

    in_house(story)


def test_a_slice_given_away_by_its_labels_holds_nobody_up() -> None:
    """SLICE-4: a slice that people hand to another Service, or to another manager, is not waited for."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.service("other", selector={"app": "other"})
        await house.pod("a", ONE)
        await house.settle()
        for labels in (
            {"kubernetes.io/service-name": "other"},
            {"endpointslice.kubernetes.io/managed-by": "somebody"},
        ):
            [s] = await house.slices()
            await house.client.patch(
                ENDPOINT_SLICE, s["metadata"]["name"], "ns", {"metadata": {"labels": labels}}, "merge"
            )
            await house.settle(5)
            ours = [s for s in await house.slices() if "controller" in str(s["metadata"]["labels"])]
            assert [[e["addresses"] for e in s["endpoints"]] for s in ours] == [[[ONE]]]

    in_house(story)


def test_slices_of_others_are_neither_counted_nor_touched() -> None:
    """SLICE-9, MIRROR-15: a slice that a user made for the Service lives beside ours, and beside mirrored ones, and is
    never copied into Endpoints."""

    async def story(house: House) -> None:
        house.start()
        await house.service()
        await house.pod("p1", "10.1.0.1")
        by_hand = {
            "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.9.9.9"]}],
            "ports": [{"port": 8080}],
        }
        made = await house.client.create(ENDPOINT_SLICE, by_hand, "ns")
        await house.settle(5)
        await house.pod("p2", "10.1.0.2")
        await house.settle(5)
        kept = await house.client.get(ENDPOINT_SLICE, "by-hand", "ns")
        assert kept["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert len(await house.slices()) == 2 and await house.endpoints() == [(["10.1.0.1", "10.1.0.2"], [])]
        await house.client.patch(SERVICE, "web", "ns", {"spec": {"selector": None}}, "merge")
        await house.settle(5)
        managers = {
            (s["metadata"]["labels"]).get("endpointslice.kubernetes.io/managed-by") for s in await house.slices()
        }
        assert managers == {None, "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"}

    in_house(story)


def test_what_wakes_mirroring() -> None:
    """MIRROR-1, MIRROR-13: Endpoints, Services whose selector comes or goes, slices that others change; with a late
    cache nothing is made twice."""

    async def story(house: House) -> None:
        house.start(("endpointslice-mirroring",))
        house.trouble.late_seconds = {ENDPOINT_SLICE: 3.0}
        subsets = [{"addresses": [{"ip": "10.7.0.1"}], "ports": [{"port": 80}]}]
        await house.client.create(ENDPOINTS, {"metadata": {"name": "web"}, "subsets": subsets}, "ns")
        await house.settle(5)
        assert await house.slices() == []
        await house.service(selector=None)
        await house.settle(1)
        subsets[0]["addresses"].append({"ip": "10.7.0.2"})  # type: ignore[attr-defined]
        await house.client.patch(ENDPOINTS, "web", "ns", {"subsets": subsets}, "merge")
        await house.settle(20)
        [s] = await house.slices()
        assert [e["addresses"][0] for e in s["endpoints"]] == ["10.7.0.1", "10.7.0.2"]
        await house.client.patch(ENDPOINT_SLICE, s["metadata"]["name"], "ns", {"endpoints": []}, "merge")
        await house.settle(20)
        assert await house.shown_addresses() == [["10.7.0.1", "10.7.0.2"]]
        await house.client.delete(ENDPOINT_SLICE, s["metadata"]["name"], "ns")
        await house.settle(20)
        assert await house.shown_addresses() == [["10.7.0.1", "10.7.0.2"]]
        await house.client.patch(SERVICE, "web", "ns", {"spec": {"selector": {"app": "web"}}}, "merge")
        await house.settle(20)
        assert await house.slices() == []

    in_house(story)


def test_a_refused_write_is_told_on_the_service() -> None:
    """SLICE-6: with upstream's words, and tried again."""

    async def story(house: House) -> None:
        house.start(("endpointslice",))
        house.trouble.odds = 1.0
        await house.settle(1)
        house.trouble.odds = 0.0
        await house.settle(10)
        house.trouble.odds = 0.7
        await house.service()
        await house.pod("p1", "10.1.0.1")
        await house.settle(60)
        house.trouble.odds = 0.0
        await house.settle(600)
        told = [e for e in await house.every(EVENT) if e["reason"] == "FailedToUpdateEndpointSlices"]
        assert told and told[0]["involvedObject"]["kind"] == "Service"
        assert told[0]["message"].startswith(
            "Error updating Endpoint Slices for Service ns/web: failed to create EndpointSlice"
        )
        assert await house.shown() == [["10.1.0.1"]]

    in_house(story)
