"""The DaemonSet controller against a real API server."""

from __future__ import annotations

from typing import Any

from kubesvc.api.kinds import CONTROLLER_REVISION, DAEMON_SET, NODE, POD
from kubesvc.api.meta import Object

from .house import House
from .kubelet import Kubelet
from .test_statefulset import with_kubelet


async def ready_node(house: House, name: str) -> None:
    """A node, made if need be, without the taint that new ones bear (NODE-2)."""
    if name != "n1":
        await house.node(name)
    await house.client.patch(NODE, name, "", {"spec": {"taints": None}}, "merge")


async def make(house: House, **spec: Any) -> None:
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "terminationGracePeriodSeconds": 3},
    }
    whole = {"selector": {"matchLabels": {"app": "d"}}, "template": template, **spec}
    await house.client.create(DAEMON_SET, {"metadata": {"name": "d"}, "spec": whole}, "ns")


async def update_image(house: House, image: str) -> None:
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    await house.client.patch(DAEMON_SET, "d", "ns", {"spec": spec}, "strategic")


async def on_nodes(house: House) -> dict[str, str]:
    return {p["spec"].get("nodeName", ""): p["spec"]["containers"][0]["image"] for p in await house.every(POD)}


async def status(house: House) -> Object:
    found: Object = (await house.client.get(DAEMON_SET, "d", "ns"))["status"]
    return found


def test_one_pod_on_every_node_that_comes_and_none_where_it_may_not_stay() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await ready_node(house, "n1")
        await ready_node(house, "n2")
        await make(house)
        await house.settle(5)
        assert sorted(await on_nodes(house)) == ["n1", "n2"]
        await ready_node(house, "n3")
        await house.settle(5)
        assert sorted(await on_nodes(house)) == ["n1", "n2", "n3"]
        assert await status(house) == {
            "currentNumberScheduled": 3, "numberMisscheduled": 0, "desiredNumberScheduled": 3, "numberReady": 3,
            "updatedNumberScheduled": 3, "numberAvailable": 3, "observedGeneration": 1,
        }  # fmt: skip
        taint = {"key": "k", "value": "v", "effect": "NoExecute"}
        await house.client.patch(NODE, "n2", "", {"spec": {"taints": [taint]}}, "merge")
        await house.settle(10)
        assert sorted(await on_nodes(house)) == ["n1", "n3"]
        async with house.counting(DAEMON_SET, POD, CONTROLLER_REVISION) as seen:
            await house.settle(600)
        assert seen == {"DaemonSet": [], "Pod": [], "ControllerRevision": []}

    with_kubelet(story, ("daemonset",))


def test_rolling_update_one_node_at_a_time() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await ready_node(house, "n1")
        await ready_node(house, "n2")
        await make(house)
        await house.settle(5)
        await update_image(house, "i:2")
        await house.settle(1.5)
        assert (await status(house))["numberAvailable"] == 1
        await house.settle(20)
        assert await on_nodes(house) == {"n1": "i:2", "n2": "i:2"}
        assert (await status(house))["updatedNumberScheduled"] == 2
        revisions = await house.every(CONTROLLER_REVISION)
        assert sorted(r["revision"] for r in revisions) == [1, 2]
        hashes = {p["metadata"]["labels"]["controller-revision-hash"] for p in await house.every(POD)}
        newest = max(revisions, key=lambda r: r["revision"])
        assert hashes == {newest["metadata"]["labels"]["controller-revision-hash"]}
        assert newest["metadata"]["name"] == f"d-{hashes.pop()}"

    with_kubelet(story, ("daemonset",))


def test_surge_never_leaves_a_node_without() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await ready_node(house, "n1")
        await make(house, updateStrategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
        await house.settle(5)
        await update_image(house, "i:2")
        await house.settle(0.5)
        assert len(await house.every(POD)) == 2
        for _ in range(10):
            await house.settle(0.5)
            assert (await status(house))["numberReady"] == 1
        assert await on_nodes(house) == {"n1": "i:2"}

    with_kubelet(story, ("daemonset",))


def test_failed_pods_are_made_anew_later_each_time() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await ready_node(house, "n1")
        await make(house)
        await house.settle(5)
        waits = []
        for _ in range(5):
            [pod] = await house.every(POD)
            await kubelet.report(pod["metadata"], "Failed", ready=False)
            waited = 0
            while waited < 100:
                await house.settle(1)
                waited += 1
                if any(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in await house.every(POD)):
                    break
            waits.append(waited)
            await house.settle(3)
        assert waits == sorted(waits) and waits[-1] >= waits[0] + 3, waits

    with_kubelet(story, ("daemonset",))
