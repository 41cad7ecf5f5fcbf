"""The StatefulSet controller against a real API server: order, names, storage, updates, history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET
from kubesvc.api.meta import Object
from kubesvc.clock import LoopClock

from .house import House, in_house
from .kubelet import Kubelet

Story = Callable[[House, Kubelet], Awaitable[None]]


def with_kubelet(story: Story, names: tuple[str, ...] = ("statefulset",)) -> None:
    """Play a story with the controller and a node's behaviour."""

    async def whole(house: House) -> None:
        house.start(names)
        kubelet = Kubelet(house.client, LoopClock(asyncio.get_running_loop()))
        running = asyncio.create_task(kubelet.run())
        try:
            await story(house, kubelet)
        finally:
            running.cancel()
            await asyncio.wait([running])

    in_house(whole)


def stateful_set(replicas: int = 3, **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}], "terminationGracePeriodSeconds": 5},
    }
    whole = {
        "replicas": replicas,
        "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}},
        "template": template,
    }
    return {"metadata": {"name": "web"}, "spec": {**whole, **spec}}


async def make(house: House, replicas: int = 3, **spec: Any) -> Object:
    return await house.client.create(STATEFUL_SET, stateful_set(replicas, **spec), "ns")


async def change(house: House, spec: Object) -> None:
    await house.client.patch(STATEFUL_SET, "web", "ns", {"spec": spec}, "strategic")


async def update_image(house: House, image: str) -> None:
    await change(house, {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}})


async def images(house: House) -> dict[str, str]:
    return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in await house.every(POD)}


async def status(house: House) -> Object:
    found: Object = (await house.client.get(STATEFUL_SET, "web", "ns"))["status"]
    return found


def test_pods_come_in_order_with_names_of_their_own() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house)
        await house.settle(0.5)
        assert list(await images(house)) == ["web-0"]
        await house.settle(10)
        assert kubelet.started == ["web-0", "web-1", "web-2"]
        pod = await house.client.get(POD, "web-1", "ns")
        labels = pod["metadata"]["labels"]
        assert labels["statefulset.kubernetes.io/pod-name"] == "web-1"
        assert labels["apps.kubernetes.io/pod-index"] == "1"
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-1", "web")
        [revision] = await house.every(CONTROLLER_REVISION)
        assert labels["controller-revision-hash"] == revision["metadata"]["name"]
        name = revision["metadata"]["name"]
        assert await status(house) == {
            "observedGeneration": 1,
            "replicas": 3,
            "readyReplicas": 3,
            "currentReplicas": 3,
            "updatedReplicas": 3,
            "currentRevision": name,
            "updateRevision": name,
            "collisionCount": 0,
            "availableReplicas": 3,
        }

    with_kubelet(story)


def test_a_pod_that_never_becomes_ready_holds_up_those_after_it() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        kubelet.broken = ["web-1"]
        await make(house)
        await house.settle(60)
        assert list(await images(house)) == ["web-0", "web-1"]
        assert (await status(house))["readyReplicas"] == 1

    with_kubelet(story)


def test_parallel_pods_come_at_once() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, podManagementPolicy="Parallel")
        await house.settle(0.5)
        assert list(await images(house)) == ["web-0", "web-1", "web-2"]
        await change(house, {"replicas": 0})
        await house.settle(0.5)
        assert all(p["metadata"].get("deletionTimestamp") for p in await house.every(POD))

    with_kubelet(story)


def test_scaling_down_goes_from_the_highest_and_waits_for_each() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house)
        await house.settle(10)
        await change(house, {"replicas": 1})
        await house.settle(0.5)
        assert len(await images(house)) == 3
        await house.settle(10)
        assert kubelet.ended == ["web-2", "web-1"]
        assert list(await images(house)) == ["web-0"]

    with_kubelet(story)


def test_rolling_update_goes_down_to_the_partition_and_then_on() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
        await house.settle(10)
        await update_image(house, "nginx:2")
        await house.settle(10)
        assert await images(house) == {"web-0": "nginx:1", "web-1": "nginx:1", "web-2": "nginx:2"}
        now = await status(house)
        assert now["currentRevision"] != now["updateRevision"]
        assert (now["currentReplicas"], now["updatedReplicas"]) == (2, 1)
        await house.client.delete(POD, "web-0", "ns")  # comes back from the revision it had
        await house.settle(10)
        assert (await images(house))["web-0"] == "nginx:1"
        await change(house, {"updateStrategy": {"rollingUpdate": {"partition": 0}}})
        kubelet.ended.clear()
        await house.settle(20)
        assert set((await images(house)).values()) == {"nginx:2"}
        assert kubelet.ended == ["web-1", "web-0"]
        now = await status(house)
        assert now["currentRevision"] == now["updateRevision"]

    with_kubelet(story)


def test_on_delete_replaces_only_what_somebody_deletes() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, 2, updateStrategy={"type": "OnDelete"})
        await house.settle(10)
        await update_image(house, "nginx:2")
        await house.settle(20)
        assert set((await images(house)).values()) == {"nginx:1"}
        await house.client.delete(POD, "web-0", "ns")
        await house.settle(10)
        assert await images(house) == {"web-0": "nginx:2", "web-1": "nginx:1"}

    with_kubelet(story)


def test_going_back_uses_the_old_revision_again_under_a_new_number() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, 1)
        for image in ("nginx:2", "nginx:1"):
            await house.settle(10)
            await update_image(house, image)
        await house.settle(10)
        revisions = await house.every(CONTROLLER_REVISION)
        assert sorted(r["revision"] for r in revisions) == [2, 3]
        assert await images(house) == {"web-0": "nginx:1"}

    with_kubelet(story)


def test_old_revisions_go_but_for_the_limit() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, 1, revisionHistoryLimit=1)
        for number in range(2, 6):
            await house.settle(10)
            await update_image(house, f"nginx:{number}")
        await house.settle(10)
        assert sorted(r["revision"] for r in await house.every(CONTROLLER_REVISION)) == [4, 5]

    with_kubelet(story)


def test_claims_are_made_before_pods_and_stay_after_them() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        claim = {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        mounting = {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        template = stateful_set()["spec"]["template"]
        template["spec"]["containers"] = [mounting]
        await make(house, 2, volumeClaimTemplates=[claim], template=template)
        await house.settle(10)
        claims = await house.every(PERSISTENT_VOLUME_CLAIM)
        assert [c["metadata"]["name"] for c in claims] == ["data-web-0", "data-web-1"]
        assert claims[0]["metadata"]["labels"] == {"app": "web"}
        [volume] = [v for v in (await house.client.get(POD, "web-1", "ns"))["spec"]["volumes"] if v["name"] == "data"]
        assert volume["persistentVolumeClaim"] == {"claimName": "data-web-1"}
        await change(house, {"replicas": 0})
        await house.settle(10)
        assert len(await house.every(PERSISTENT_VOLUME_CLAIM)) == 2

    with_kubelet(story)


def test_ended_pods_come_back_under_their_name() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, 1)
        await house.settle(10)
        before = await house.client.get(POD, "web-0", "ns")
        await kubelet.report(before["metadata"], "Failed", ready=False)
        await house.settle(10)
        after = await house.client.get(POD, "web-0", "ns")
        assert after["metadata"]["uid"] != before["metadata"]["uid"]

    with_kubelet(story)


def test_nothing_is_written_once_all_is_well() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house)
        await house.settle(20)
        async with house.counting(STATEFUL_SET, POD, CONTROLLER_REVISION) as seen:
            await house.settle(600)
        assert seen == {"StatefulSet": [], "Pod": [], "ControllerRevision": []}

    with_kubelet(story)


def test_trouble_is_got_over() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        house.trouble.odds = 0.3
        await make(house)
        await house.settle(5)
        try:
            await update_image(house, "nginx:2")
        except NotFound:
            raise AssertionError("the set is gone") from None
        await house.settle(120)
        house.trouble.odds = 0.0
        await house.settle(1200)
        assert await images(house) == {f"web-{i}": "nginx:2" for i in range(3)}
        assert (await status(house))["updatedReplicas"] == 3

    with_kubelet(story)
