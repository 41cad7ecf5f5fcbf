"""ReplicationControllers do what ReplicaSets do (RS-6)."""

from __future__ import annotations

from kubesvc.api.kinds import POD, REPLICATION_CONTROLLER

from .house import House
from .kubelet import Kubelet
from .test_statefulset import with_kubelet


def test_as_many_pods_as_asked_for_then_none_is_written() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 1}
        template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
        whole = {"replicas": 3, "selector": {"app": "web"}, "template": template}
        await house.client.create(REPLICATION_CONTROLLER, {"metadata": {"name": "rc"}, "spec": whole}, "ns")
        await house.settle(10)
        first, *_ = pods = await house.every(POD)
        assert len(pods) == 3
        [owner] = first["metadata"]["ownerReferences"]
        assert (owner["apiVersion"], owner["kind"], owner["name"]) == ("v1", "ReplicationController", "rc")
        status = (await house.client.get(REPLICATION_CONTROLLER, "rc", "ns"))["status"]
        assert status == {
            "replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "observedGeneration": 1,
        }  # fmt: skip
        relabel = {"metadata": {"labels": {"app": "other"}}}  # RS-2: a relabelled pod is let go and replaced
        await house.client.patch(POD, first["metadata"]["name"], "ns", relabel, "merge")
        await house.settle(10)
        assert len(await house.every(POD)) == 4
        released = await house.client.get(POD, first["metadata"]["name"], "ns")
        assert "ownerReferences" not in released["metadata"]
        await house.client.patch(REPLICATION_CONTROLLER, "rc", "ns", {"spec": {"replicas": 0}}, "merge")
        await house.settle(10)
        async with house.counting(POD, REPLICATION_CONTROLLER) as seen:
            await house.settle(300)
        assert seen == {"Pod": [], "ReplicationController": []}
        assert len(await house.every(POD)) == 1

    with_kubelet(story, ("replicationcontroller",))
