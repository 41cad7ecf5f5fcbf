"""The Deployment controller against a real API server, with ReplicaSets and nodes' behaviour."""

from __future__ import annotations

from typing import Any

from kubesvc.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from kubesvc.api.meta import Object

from .house import House
from .kubelet import Kubelet
from .test_statefulset import with_kubelet

NAMES = ("deployment", "replicaset")


async def make(house: House, **spec: Any) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "terminationGracePeriodSeconds": 1},
    }
    whole = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    await house.client.create(DEPLOYMENT, {"metadata": {"name": "web"}, "spec": whole}, "ns")


async def status(house: House) -> Object:
    found: Object = (await house.client.get(DEPLOYMENT, "web", "ns")).get("status") or {}
    return found


def reason(now: Object) -> str:
    return str(next(c["reason"] for c in now["conditions"] if c["type"] == "Progressing"))


def test_a_rollout_replaces_all_pods_and_says_so() -> None:
    """DEPLOY-2, DEPLOY-3, DEPLOY-7, DEPLOY-8: never fewer available than may be missing, and complete in the end."""

    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, replicas=4)
        await house.settle(10)
        assert reason(await status(house)) == "NewReplicaSetAvailable"
        image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}}
        await house.client.patch(DEPLOYMENT, "web", "ns", image, "strategic")
        least, most = 9, 0
        for _ in range(300):
            await house.settle(0.1)
            pods = [p for p in await house.every(POD) if "deletionTimestamp" not in p["metadata"]]
            ready = [p for p in pods if any(c["status"] == "True" for c in p["status"].get("conditions") or ()
                                            if c["type"] == "Ready")]  # fmt: skip
            least, most = min(least, len(ready)), max(most, len(pods))
        assert least >= 3 and most <= 5
        now = await status(house)
        assert now["updatedReplicas"] == now["replicas"] == now["availableReplicas"] == 4
        assert reason(now) == "NewReplicaSetAvailable"
        revisions = {
            r["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for r in await house.every(REPLICA_SET)
        }
        assert revisions == {"1", "2"}

    with_kubelet(story, NAMES)


def test_the_deadline_runs_from_the_last_progress() -> None:
    """DEPLOY-7: news that are no progress, such as a Pod that turns unready, do not put it off."""

    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, replicas=3, progressDeadlineSeconds=60)
        await house.settle(0.5)
        names = sorted(p["metadata"]["name"] for p in await house.every(POD))
        kubelet.broken.append(names[0])
        await house.settle(40)
        assert reason(await status(house)) == "ReplicaSetUpdated"
        pods = {p["metadata"]["name"]: p for p in await house.every(POD)}
        await kubelet.report(pods[names[1]]["metadata"], "Running", ready=False)
        await house.settle(25)
        assert reason(await status(house)) == "ProgressDeadlineExceeded"

    with_kubelet(story, NAMES)
