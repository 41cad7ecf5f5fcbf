"""What owners leave behind goes, and nothing else (GC-1 to GC-5), on a real server."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CONFIG_MAP, EVENT, NAMESPACE, NODE, POD, REPLICA_SET, SERVICE
from kubesvc.api.meta import Object
from kubesvc.client.metrics import Metrics
from kubesvc.clock import LoopClock
from kubesvc.controllers import run_controllers
from kubesvc.controllers.garbagecollector import outline_of

from .house import MINE, House, in_house

GC = ("garbage-collector",)


def owned_by(owner: Object, kind: str = "ConfigMap", *, version: str = "v1", **more: Any) -> Object:
    meta = owner["metadata"]
    return {"apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"], **more}


async def make(house: House, name: str, *owners: Object, namespace: str = "ns", **meta: Any) -> Object:
    body = {"metadata": {"name": name, "ownerReferences": list(owners), **meta}}
    return await house.client.create(CONFIG_MAP, body, namespace)


async def names(house: House, kind: Kind = CONFIG_MAP, namespace: str = "ns") -> list[str]:
    return [o["metadata"]["name"] for o in await house.every(kind, namespace)]


def test_all_owners_absent_the_object_goes_some_absent_their_references_go() -> None:
    """GC-1: absent is also an owner of the same name with another uid."""

    async def story(house: House) -> None:
        house.start(GC)
        a, b = await make(house, "a"), await make(house, "b")
        await make(house, "of-a", owned_by(a))
        both = await make(house, "of-both", owned_by(a), owned_by(b))
        assert len(both["metadata"]["ownerReferences"]) == 2
        await house.settle(5)
        await house.client.delete(CONFIG_MAP, "a", "ns")
        again = await make(house, "a")
        await make(house, "of-the-second-a", owned_by(again))
        await house.settle(10)
        assert await names(house) == ["a", "b", "of-both", "of-the-second-a"]
        left = (await house.client.get(CONFIG_MAP, "of-both", "ns"))["metadata"]["ownerReferences"]
        assert [r["name"] for r in left] == ["b"]

    in_house(story)


def test_slices_go_a_moment_after_their_service() -> None:
    """GC-2: also when a new Service takes the name at once; and mirrored slices go after their Endpoints."""

    async def story(house: House) -> None:
        house.start((*MINE, *GC))
        await house.service()
        await house.pod("p", "10.1.0.1")
        await house.settle(3)
        [before] = await house.slices()
        await house.client.delete(SERVICE, "web", "ns")
        await house.service(selector={"app": "other"})
        await house.settle(10)
        [after] = await house.slices()
        assert after["metadata"]["uid"] != before["metadata"]["uid"] and not after["endpoints"]
        await house.client.delete(SERVICE, "web", "ns")
        await house.settle(10)
        assert await house.slices() == []
        assert [s["metadata"]["name"] for s in await house.every(ENDPOINT_SLICE)] == []

    in_house(story)


def test_foreground_the_owner_waits_for_what_blocks_it() -> None:
    """GC-3: dependents that block go first, those that do not block are not waited for."""

    async def story(house: House) -> None:
        house.start(GC)
        a = await make(house, "a")
        await make(house, "blocks", owned_by(a, blockOwnerDeletion=True), finalizers=["example.com/held"])
        await make(house, "blocks-not", owned_by(a), finalizers=["example.com/held"])
        await house.settle(5)
        shown = await house.client.delete(CONFIG_MAP, "a", "ns", propagation="Foreground")
        assert shown["metadata"]["finalizers"] == ["foregroundDeletion"]
        await house.settle(10)
        blocking = await house.client.get(CONFIG_MAP, "blocks", "ns")
        assert "deletionTimestamp" in blocking["metadata"] and "a" in await names(house)
        await house.client.patch(CONFIG_MAP, "blocks", "ns", {"metadata": {"finalizers": None}}, "merge")
        await house.settle(10)
        assert await names(house) == ["blocks-not"]

    in_house(story)


def test_orphans_lose_the_reference_and_stay() -> None:
    """GC-3."""

    async def story(house: House) -> None:
        house.start(GC)
        a = await make(house, "a")
        await make(house, "of-a", owned_by(a, controller=True))
        await house.settle(5)
        await house.client.delete(CONFIG_MAP, "a", "ns", propagation="Orphan")
        await house.settle(10)
        assert await names(house) == ["of-a"]
        assert "ownerReferences" not in (await house.client.get(CONFIG_MAP, "of-a", "ns"))["metadata"]

    in_house(story)


def test_chains_go_in_the_background_to_the_last() -> None:
    async def story(house: House) -> None:
        house.start(GC)
        last = await make(house, "c0")
        for n in range(1, 6):
            last = await make(house, f"c{n}", owned_by(last))
        await house.settle(5)
        await house.client.delete(CONFIG_MAP, "c0", "ns", propagation="Background")
        await house.settle(20)
        assert await names(house) == []

    in_house(story)


def test_owners_elsewhere_are_absent_and_owners_of_the_cluster_are_fine() -> None:
    """GC-4: a namespaced owner is looked for in the object's own namespace, and an Event says where it is looked for
    when it lives in another; a Node may own anything; an object of
    the cluster whose owner is in a namespace is left alone."""

    async def story(house: House) -> None:
        house.start(GC)
        await house.namespace("elsewhere")
        far = await make(house, "far", namespace="elsewhere")
        await make(house, "of-far", owned_by(far))
        node = await house.client.get(NODE, "n1")
        await make(house, "of-node", owned_by(node, "Node"))
        reference = owned_by(far)
        await house.client.create(NAMESPACE, {"metadata": {"name": "odd", "ownerReferences": [reference]}})
        unknown = {"apiVersion": "example.com/v1", "kind": "Unknown", "name": "x", "uid": "y"}
        await make(house, "of-unknown", unknown)
        await house.settle(10)
        assert await names(house) == ["of-node", "of-unknown"]
        assert "deletionTimestamp" not in (await house.client.get(NAMESPACE, "odd"))["metadata"]
        told = {
            (e["involvedObject"]["kind"], e["involvedObject"]["name"], e["message"], e.get("count") or 1)
            for e in (*await house.every(EVENT), *await house.every(EVENT, "default"))
            if e["reason"] == "OwnerRefInvalidNamespace"
        }
        who = f"[v1/ConfigMap, namespace: {{}}, name: far, uid: {reference['uid']}]"
        assert told == {
            ("ConfigMap", "of-far", f'ownerRef {who.format("ns")} does not exist in namespace "ns"', 1),
            ("Namespace", "odd", f'ownerRef {who.format("")} does not exist in namespace ""', 1),
        }
        await house.client.delete(NODE, "n1")
        await house.settle(10)
        assert await names(house) == ["of-unknown"]

    in_house(story)


@pytest.mark.parametrize("late", [0.0, 20.0])
def test_what_a_late_cache_does_not_show_is_asked_for(late: float) -> None:
    """GC-5: the dependent is seen before its owner, and stays."""

    async def story(house: House) -> None:
        house.start(GC)
        await house.settle(5)
        house.trouble.late_seconds = {REPLICA_SET: late}
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }
        owner = await house.client.create(REPLICA_SET, {"metadata": {"name": "r"}, "spec": spec}, "ns")
        pod = {
            "metadata": {"name": "p", "ownerReferences": [owned_by(owner, "ReplicaSet", version="apps/v1")]},
            "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0},
        }
        await house.client.create(POD, pod, "ns")
        await house.settle(60)
        assert await names(house, POD) == ["p"]
        await house.client.delete(REPLICA_SET, "r", "ns")
        await house.settle(60)
        with pytest.raises(NotFound):
            await house.client.get(POD, "p", "ns")

    in_house(story)


def test_changes_of_a_status_wake_nobody() -> None:
    """An owned Pod is looked at when it comes, and when its owners or its deletion change, not at each heartbeat."""

    async def story(house: House) -> None:
        metrics = Metrics()
        clock = LoopClock(asyncio.get_running_loop())
        running = asyncio.create_task(
            run_controllers(house.client, GC, clock=clock, random=random.Random(1), metrics=metrics)
        )

        def looks() -> float:
            label = 'workqueue_adds_total{name="garbage_collector_attempt_to_delete"} '
            return float(
                next(line for line in metrics.render().splitlines() if line.startswith(label)).rpartition(" ")[2]
            )

        await house.settle(5)
        owner = await make(house, "owner")
        await house.pod("p", "10.1.0.1")
        assert looks() == 0
        await house.client.patch(POD, "p", "ns", {"metadata": {"ownerReferences": [owned_by(owner)]}}, "merge")
        await house.settle(5)
        assert looks() == 1
        for turn in range(6):
            await house.status("p", ready=turn % 2 == 0)
        await house.client.patch(POD, "p", "ns", {"metadata": {"labels": {"a": "b"}}}, "merge")
        await house.settle(5)
        assert looks() == 1
        await house.client.patch(POD, "p", "ns", {"metadata": {"finalizers": ["example.com/f"]}}, "merge")
        await house.settle(5)
        assert looks() == 2
        await house.client.delete(CONFIG_MAP, "owner", "ns")
        await house.settle(5)
        assert (await house.client.get(POD, "p", "ns"))["metadata"]["deletionTimestamp"]
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


ODD_OWNERS: tuple[tuple[str, Object], ...] = (
    ("a spec of another type", {"metadata": {"uid": "u"}, "spec": "strange"}),
    ("labels that are a list", {"metadata": {"uid": "u", "labels": ["a"]}}),
    ("a generation that is a text", {"metadata": {"uid": "u", "generation": "7"}}),
    ("nothing but its uid", {"metadata": {"uid": "u"}}),
)


@pytest.mark.parametrize(("what", "owner"), ODD_OWNERS, ids=[w for w, _ in ODD_OWNERS])
def test_an_odd_owner_is_an_owner(what: str, owner: Object) -> None:
    """GC-5: of what a live GET brings only the metadata that matters is read, so that no field of it is in the way."""
    assert outline_of(owner).metadata.uid == "u", what
    waiting = {"metadata": {**owner["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"]}}
    read = outline_of({**owner, **waiting}).metadata
    assert (read.deletion_timestamp, read.finalizers) == ("2026-01-01T00:00:00Z", ["f"])
