"""Claims and volumes on a real API server: binding, provisioning, protection, release, and pods that wait for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import (
    EVENT,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    STATEFUL_SET,
    STORAGE_CLASS,
)
from kubesvc.api.meta import Object
from kubesvc.controllers import ControllerSettings
from kubesvc.controllers.localpath import FakeLocalVolumes

from .house import House, in_house

CONTROLLERS = (
    "persistentvolume-binder", "pvc-protection", "pv-protection", "ephemeral-volume", "local-path-provisioner",
    "scheduler", "namespace", "garbagecollector", "statefulset",
)  # fmt: skip
Story = Callable[[House, FakeLocalVolumes], Awaitable[None]]


def with_volumes(story: Story, *, provisioner: bool = True) -> None:
    """Play a story with all controllers that volumes need, and a node that takes pods."""

    async def whole(house: House) -> None:
        await ready(house, "n1")
        places = FakeLocalVolumes()
        house.start(CONTROLLERS, ControllerSettings(local_volumes=places if provisioner else None))
        await house.settle(1)
        await story(house, places)

    in_house(whole)


async def ready(house: House, name: str) -> None:
    labels = {"kubernetes.io/hostname": name}
    await house.client.patch(NODE, name, "", {"metadata": {"labels": labels}, "spec": {"taints": None}}, "merge")
    status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
    await house.client.patch(NODE, name, "", {"status": status}, "merge", subresource="status")


async def claim(house: House, name: str = "data", size: str = "1Gi", **spec: Any) -> Object:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return await house.client.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": name}, "spec": whole}, "ns")


async def volume(house: House, name: str = "disk", size: str = "1Gi", **spec: Any) -> Object:
    whole = {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": f"/{name}"}, **spec
    }  # fmt: skip
    made = await house.client.create(PERSISTENT_VOLUME, {"metadata": {"name": name}, "spec": whole})
    await house.settle(0.5)
    return made


async def pod(house: House, name: str, claim_name: str = "data", **volume_source: Any) -> Object:
    source = volume_source or {"persistentVolumeClaim": {"claimName": claim_name}}
    spec = {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", **source}],
        "terminationGracePeriodSeconds": 0,
    }
    return await house.client.create(POD, {"metadata": {"name": name}, "spec": spec}, "ns")


async def claim_now(house: House, name: str = "data") -> Object:
    return await house.client.get(PERSISTENT_VOLUME_CLAIM, name, "ns")


async def volume_now(house: House, name: str = "disk") -> Object:
    return await house.client.get(PERSISTENT_VOLUME, name)


async def said(house: House, name: str) -> list[str]:
    """The events on an object of the namespace or of none: `Reason message`, each once."""
    found = await house.every(EVENT, "")
    return sorted({f"{e['reason']} {e['message']}" for e in found if e["involvedObject"]["name"] == name})


async def message(house: House, name: str) -> str:
    found = (await house.client.get(POD, name, "ns"))["status"].get("conditions") or [{}]
    return str(next((c.get("message", "") for c in found if c.get("type") == "PodScheduled"), ""))


# ---------------------------------------------------------------- binding by hand


def test_a_claim_and_a_volume_find_each_other_and_name_each_other() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house, "large", "5Gi")
        await volume(house, "small", "2Gi")
        await claim(house, storageClassName="")
        await house.settle()
        bound, disk = await claim_now(house), await volume_now(house, "small")
        assert bound["spec"]["volumeName"] == "small"
        assert bound["status"] == {
            "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}
        }  # fmt: skip
        assert bound["metadata"]["annotations"] == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        assert disk["status"]["phase"] == "Bound"
        assert disk["metadata"]["annotations"] == {"pv.kubernetes.io/bound-by-controller": "yes"}
        reference = disk["spec"]["claimRef"]
        assert (reference["kind"], reference["namespace"], reference["name"], reference["uid"]) == (
            "PersistentVolumeClaim", "ns", "data", bound["metadata"]["uid"]
        )  # fmt: skip
        assert (await volume_now(house, "large"))["status"]["phase"] == "Available"

    with_volumes(story)


def test_a_volume_that_comes_after_its_claim_is_taken_at_once() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await claim(house, storageClassName="")
        await house.settle(2)
        assert (await claim_now(house))["status"]["phase"] == "Pending"
        assert await said(house, "data") == [
            "FailedBinding no persistent volumes available for this claim and no storage class is set"
        ]
        await volume(house)
        await house.settle(2)
        assert (await claim_now(house))["status"]["phase"] == "Bound"

    with_volumes(story)


def test_a_volume_kept_for_a_claim_by_hand_goes_to_no_other_and_is_released_with_its_data() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house, claimRef={"namespace": "ns", "name": "late"})
        await claim(house, "early", storageClassName="")
        await house.settle()
        assert (await volume_now(house))["status"]["phase"] == "Available"
        await claim(house, "late", storageClassName="")
        await house.settle()
        assert (await claim_now(house, "late"))["spec"]["volumeName"] == "disk"
        assert (await claim_now(house, "early"))["status"]["phase"] == "Pending"
        assert "annotations" not in (await volume_now(house))["metadata"]
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "late", "ns")
        await house.settle()
        disk = await volume_now(house)
        assert disk["status"]["phase"] == "Released"
        await claim(house, "late", storageClassName="")
        await house.settle(20)
        assert (await claim_now(house, "late"))["status"]["phase"] == "Pending", "another claim of that name is another"

    with_volumes(story)


NAMED = (
    ("too small", {"capacity": {"storage": "1Mi"}}, "requested PV is too small"),
    ("of another class", {"storageClassName": "other"}, "storageClassName does not match"),
    ("a block device", {"volumeMode": "Block"}, "incompatible volumeMode"),
    ("for many readers only", {"accessModes": ["ReadOnlyMany"]}, "incompatible accessMode"),
)


@pytest.mark.parametrize(("spec", "reason"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_a_claim_that_names_an_unfit_volume_is_told_why(spec: Object, reason: str) -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house, **spec)
        await claim(house, storageClassName="", volumeName="disk")
        await house.settle()
        assert f'VolumeMismatch Cannot bind to requested volume "disk": {reason}' in await said(house, "data")
        assert (await claim_now(house))["status"]["phase"] == "Pending"

    with_volumes(story)


def test_a_claim_whose_volume_was_taken_away_is_lost() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house)
        await claim(house, storageClassName="")
        await house.settle()
        await house.client.delete(PERSISTENT_VOLUME, "disk")
        await house.settle()
        assert (await volume_now(house))["metadata"]["deletionTimestamp"], "it is protected while it is bound"
        await house.client.patch(PERSISTENT_VOLUME, "disk", "", {"metadata": {"finalizers": None}}, "merge")
        await house.settle()
        assert (await claim_now(house))["status"] == {"phase": "Lost"}
        assert await said(house, "data") == [
            "ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        ]

    with_volumes(story)


def test_a_volume_of_nobodys_making_that_is_to_be_deleted_fails_and_says_so() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house, persistentVolumeReclaimPolicy="Delete")
        await claim(house, storageClassName="")
        await house.settle()
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "data", "ns")
        await house.settle()
        words = 'error getting deleter volume plugin for volume "disk": no deletable volume plugin matched'
        status = (await volume_now(house))["status"]
        assert (status["phase"], status["message"]) == ("Failed", words)
        assert f"VolumeFailedDelete {words}" in await said(house, "disk")

    with_volumes(story)


# ---------------------------------------------------------------- classes and provisioning


def test_a_new_cluster_has_a_default_class_whose_claims_wait_for_a_pod() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        found = await house.client.get(STORAGE_CLASS, "standard")
        assert (found["provisioner"], found["reclaimPolicy"], found["volumeBindingMode"]) == (
            "rancher.io/local-path", "Delete", "WaitForFirstConsumer"
        )  # fmt: skip
        made = await claim(house)
        assert made["spec"]["storageClassName"] == "standard"
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        await house.settle()
        assert await said(house, "data") == [
            "WaitForFirstConsumer waiting for first consumer to be created before binding"
        ]
        assert not places.held
        await pod(house, "p")
        await house.settle()
        name = f"pvc-{made['metadata']['uid']}"
        disk = await volume_now(house, name)
        assert places.held == {"n1": [f"/volumes/{name}_ns_data"]}
        assert disk["spec"]["hostPath"] == {"path": f"/volumes/{name}_ns_data", "type": "DirectoryOrCreate"}
        assert disk["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] == [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}
        ]
        assert disk["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == "rancher.io/local-path"
        assert disk["status"]["phase"] == "Bound"
        bound = await claim_now(house)
        assert bound["metadata"]["annotations"] == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
            "volume.kubernetes.io/selected-node": "n1",
            "volume.kubernetes.io/storage-provisioner": "rancher.io/local-path",
            "volume.beta.kubernetes.io/storage-provisioner": "rancher.io/local-path",
        }
        assert (await house.client.get(POD, "p", "ns"))["spec"]["nodeName"] == "n1"
        assert [line.split()[0] for line in await said(house, "data")] == [
            "ExternalProvisioning", "Provisioning", "ProvisioningSucceeded", "WaitForFirstConsumer"
        ]  # fmt: skip

    with_volumes(story)


def test_a_claim_stays_while_a_pod_uses_it_and_its_directory_goes_with_it() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        made = await claim(house)
        await pod(house, "p")
        await house.settle()
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "data", "ns")
        await house.settle()
        assert (await claim_now(house))["metadata"]["deletionTimestamp"]
        assert len(places.held["n1"]) == 1
        await pod(house, "q")
        await house.settle()
        assert await message(house, "q") == ('0/1 nodes are available: persistentvolumeclaim "data" is being deleted.')
        places.away.add("n1")
        await house.client.delete(POD, "p", "ns", grace_seconds=0)
        await house.settle()
        with pytest.raises(NotFound):
            await claim_now(house)
        name = f"pvc-{made['metadata']['uid']}"
        assert (await volume_now(house, name))["status"]["phase"] == "Released"
        assert "VolumeFailedDelete node n1 cannot be reached: No route to host" in await said(house, name)
        places.away.clear()
        await house.settle(40)
        assert places.held == {"n1": []}
        with pytest.raises(NotFound):
            await volume_now(house, name)

    with_volumes(story)


def test_a_directory_outlives_a_volume_that_somebody_took_away_only_until_its_node_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        made = await claim(house)
        await pod(house, "p")
        await house.settle()
        places.away.add("n1")
        await house.client.delete(POD, "p", "ns", grace_seconds=0)
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "data", "ns")
        await house.settle()
        name = f"pvc-{made['metadata']['uid']}"
        await house.client.patch(PERSISTENT_VOLUME, name, "", {"metadata": {"finalizers": None}}, "merge")
        await house.client.delete(PERSISTENT_VOLUME, name)
        await house.settle(40)
        assert len(places.held["n1"]) == 1
        assert not [r for r in caplog.records if r.exc_info], "a node that is away is no fault of the controller"
        places.away.clear()
        await house.settle(40)
        assert places.held == {"n1": []}

    with_volumes(story)


def test_a_retained_volume_keeps_its_directory() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        keeping = {
            "metadata": {"name": "keep"}, "provisioner": "rancher.io/local-path", "reclaimPolicy": "Retain",
            "volumeBindingMode": "WaitForFirstConsumer",
        }  # fmt: skip
        await house.client.create(STORAGE_CLASS, keeping)
        made = await claim(house, storageClassName="keep")
        await pod(house, "p")
        await house.settle()
        await house.client.delete(POD, "p", "ns", grace_seconds=0)
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "data", "ns")
        await house.settle()
        name = f"pvc-{made['metadata']['uid']}"
        assert (await volume_now(house, name))["status"]["phase"] == "Released"
        await house.client.delete(PERSISTENT_VOLUME, name)
        await house.settle()
        with pytest.raises(NotFound):
            await volume_now(house, name)
        assert len(places.held["n1"]) == 1

    with_volumes(story)


def test_a_namespace_with_claims_in_use_is_soon_gone() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        await claim(house)
        await pod(house, "p")
        await house.settle()
        await house.client.delete(NAMESPACE, "ns")
        await house.settle(30)
        with pytest.raises(NotFound):
            await house.client.get(NAMESPACE, "ns")
        assert places.held == {"n1": []}

    with_volumes(story)


def test_a_claim_from_before_there_was_a_default_class_gets_the_one_that_comes() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        made = await claim(house)
        assert "storageClassName" not in made["spec"]
        await house.settle()
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        late = {"metadata": {"name": "late", "annotations": annotations}, "provisioner": "example.com/x"}
        await house.client.create(STORAGE_CLASS, late)
        await house.settle()
        assert (await claim_now(house))["spec"]["storageClassName"] == "late"
        found = await said(house, "data")
        assert any(line.startswith("ExternalProvisioning Waiting for a volume to be created either") for line in found)

    with_volumes(story, provisioner=False)


PROBLEMS = (
    ("no such class", None, "storageclass.storage.k8s.io \"x\" not found"),
    ("nobody provisions", {"provisioner": "kubernetes.io/no-provisioner"},
     "no volume plugin matched name: kubernetes.io/no-provisioner"),
    ("at once, without a node", {"provisioner": "rancher.io/local-path"},
     'failed to provision volume with StorageClass "x": configuration error, no node was specified'),
)  # fmt: skip


@pytest.mark.parametrize(("made_of", "words"), [row[1:] for row in PROBLEMS], ids=[row[0] for row in PROBLEMS])
def test_why_a_volume_was_not_made(made_of: Object | None, words: str) -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        if made_of is not None:
            await house.client.create(STORAGE_CLASS, {"metadata": {"name": "x"}, **made_of})
        await claim(house, storageClassName="x")
        await house.settle()
        assert f"ProvisioningFailed {words}" in await said(house, "data")

    with_volumes(story)


# ---------------------------------------------------------------- pods


def test_pods_say_what_they_lack() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await pod(house, "none", "nowhere")
        await claim(house, "slow", storageClassName="")
        await pod(house, "unbound", "slow")
        await volume(house, nodeAffinity={"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n7"]}]}]}},
            storageClassName="far")  # fmt: skip
        await claim(house, "away", storageClassName="far")
        await pod(house, "apart", "away")
        await house.settle()
        assert await message(house, "none") == '0/1 nodes are available: persistentvolumeclaim "nowhere" not found.'
        assert await message(house, "unbound") == (
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        )
        assert await message(house, "apart") == (
            "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."
        )
        await volume(house, "late")
        await claim(house, "nowhere")
        await house.settle()
        for name in ("none", "unbound"):
            assert (await house.client.get(POD, name, "ns"))["spec"].get("nodeName") == "n1"

    with_volumes(story)


def test_a_waiting_claim_takes_a_local_volume_of_the_node_and_no_provisioner_is_asked() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        await house.node("n2")
        await ready(house, "n2")
        by_hand = {
            "metadata": {"name": "hand"}, "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }  # fmt: skip
        await house.client.create(STORAGE_CLASS, by_hand)
        terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]
        await house.client.create(
            PERSISTENT_VOLUME,
            {"metadata": {"name": "disk"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": "hand",
                "local": {"path": "/mnt/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}},
        )  # fmt: skip
        await claim(house, storageClassName="hand")
        await house.settle()
        assert "volumeName" not in (await claim_now(house))["spec"]
        await pod(house, "p")
        await house.settle()
        assert (await house.client.get(POD, "p", "ns"))["spec"]["nodeName"] == "n2"
        assert (await claim_now(house))["spec"]["volumeName"] == "disk"
        assert not places.held
        await claim(house, "second", storageClassName="hand")
        await pod(house, "q", "second")
        await house.settle()
        assert await message(house, "q") == (
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
        )

    with_volumes(story)


def test_a_claim_for_one_pod_alone_keeps_a_second_one_waiting() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await claim(house, accessModes=["ReadWriteOncePod"])
        await pod(house, "p")
        await house.settle()
        await pod(house, "q")
        await house.settle()
        assert await message(house, "q") == (
            "0/1 nodes are available: node has pod using PersistentVolumeClaim with the same name and "
            "ReadWriteOncePod access mode."
        )
        await house.client.delete(POD, "p", "ns", grace_seconds=0)
        await house.settle()
        assert (await house.client.get(POD, "q", "ns"))["spec"].get("nodeName") == "n1"

    with_volumes(story)


def test_the_node_chosen_for_a_claim_is_forgotten_when_it_goes() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        places.away.add("n1")
        await claim(house)
        await pod(house, "p")
        await house.settle()
        assert (await claim_now(house))["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n1"
        assert any("node n1 cannot be reached" in line for line in await said(house, "data"))
        await house.client.delete(NODE, "n1")
        await house.node("n2")
        await ready(house, "n2")
        await house.settle(40)
        assert (await house.client.get(POD, "p", "ns"))["spec"].get("nodeName") == "n2"
        assert len(places.held["n2"]) == 1

    with_volumes(story)


def test_an_ephemeral_volume_lives_and_dies_with_its_pod() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        template = {
            "metadata": {"labels": {"of": "p"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        }
        made = await pod(house, "p", ephemeral={"volumeClaimTemplate": template})
        await house.settle()
        found = await claim_now(house, "p-v")
        assert found["metadata"]["labels"] == {"of": "p"}
        assert found["metadata"]["ownerReferences"] == [{
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"], "controller": True,
            "blockOwnerDeletion": True}]  # fmt: skip
        assert (await house.client.get(POD, "p", "ns"))["spec"]["nodeName"] == "n1"
        assert len(places.held["n1"]) == 1
        await house.client.delete(POD, "p", "ns", grace_seconds=0)
        await house.settle(20)
        with pytest.raises(NotFound):
            await claim_now(house, "p-v")
        assert places.held == {"n1": []}

    with_volumes(story)


def test_what_is_at_rest_writes_nothing() -> None:
    async def story(house: House, _: FakeLocalVolumes) -> None:
        await volume(house)
        await claim(house, "first", storageClassName="")
        await claim(house)
        await pod(house, "p")
        await house.settle(5)
        before = house.trouble.writes
        await house.settle(120)
        assert house.trouble.writes == before

    with_volumes(story)


@pytest.mark.parametrize("seed", range(3))
def test_writes_that_fail_change_nothing_about_the_end(seed: int) -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        house.trouble.odds = 0.2
        for number in range(4):
            await volume(house, f"disk-{number}", f"{number + 1}Gi")
            await claim(house, f"hand-{number}", f"{number + 1}Gi", storageClassName="")
            await claim(house, f"made-{number}")
            await pod(house, f"p-{number}", f"made-{number}")
        await house.settle(60)
        house.trouble.odds = 0.0
        await house.settle(60)
        disks = await house.every(PERSISTENT_VOLUME, "")
        claims = await house.every(PERSISTENT_VOLUME_CLAIM)
        assert {c["status"]["phase"] for c in claims} == {v["status"]["phase"] for v in disks} == {"Bound"}
        assert {v["metadata"]["name"]: v["spec"]["claimRef"]["name"] for v in disks} == {
            c["spec"]["volumeName"]: c["metadata"]["name"] for c in claims
        }
        assert len(places.held["n1"]) == 4

    with_volumes(story)


# ---------------------------------------------------------------- StatefulSets


async def web(house: House, replicas: int, **policy: str) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}}  # fmt: skip
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    spec = {
        "replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "podManagementPolicy": "Parallel", "template": template,
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": wanted}],
        "persistentVolumeClaimRetentionPolicy": policy or None,
    }  # fmt: skip
    await house.client.create(STATEFUL_SET, {"metadata": {"name": "web"}, "spec": spec}, "ns")
    await house.settle()


async def claims_of_web(house: House) -> dict[str, list[str]]:
    """Claims with the kinds of their owners."""
    found = await house.every(PERSISTENT_VOLUME_CLAIM)
    return {c["metadata"]["name"]: [o["kind"] for o in c["metadata"].get("ownerReferences") or ()] for c in found}


RETENTION: tuple[tuple[str, dict[str, str], list[str], list[str], list[str]], ...] = (
    # what the policy says; the owners at first; claims left after the set shrank to one; claims left without it
    ("nothing", {}, [], ["d-web-0", "d-web-1"], ["d-web-0", "d-web-1"]),
    ("with the set", {"whenDeleted": "Delete"}, ["StatefulSet"], ["d-web-0", "d-web-1"], []),
    ("when it shrinks", {"whenScaled": "Delete"}, [], ["d-web-0"], ["d-web-0"]),
    ("both", {"whenDeleted": "Delete", "whenScaled": "Delete"}, ["StatefulSet"], ["d-web-0"], []),
)


@pytest.mark.parametrize(
    ("policy", "owners", "shrunk", "left"), [r[1:] for r in RETENTION], ids=[r[0] for r in RETENTION]
)
def test_claims_of_a_set_go_as_its_policy_says(
    policy: dict[str, str], owners: list[str], shrunk: list[str], left: list[str]
) -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        await web(house, 2, **policy)
        assert await claims_of_web(house) == {"d-web-0": owners, "d-web-1": owners}
        await house.client.patch(STATEFUL_SET, "web", "ns", {"spec": {"replicas": 1}}, "merge")
        await house.settle(20)
        assert list(await claims_of_web(house)) == shrunk
        await house.client.delete(STATEFUL_SET, "web", "ns")
        await house.settle(20)
        assert list(await claims_of_web(house)) == left
        assert len(places.held["n1"]) == len(left)

    with_volumes(story)


def test_a_set_gives_a_pod_that_waits_the_claim_that_somebody_removed() -> None:
    async def story(house: House, places: FakeLocalVolumes) -> None:
        await web(house, 1)
        first = (await claim_now(house, "d-web-0"))["metadata"]["uid"]
        await house.client.delete(PERSISTENT_VOLUME_CLAIM, "d-web-0", "ns")
        await house.client.delete(POD, "web-0", "ns", grace_seconds=0)
        await house.settle(20)
        assert (await claim_now(house, "d-web-0"))["metadata"]["uid"] != first
        assert (await house.client.get(POD, "web-0", "ns"))["spec"].get("nodeName") == "n1"
        assert len(places.held["n1"]) == 1

    with_volumes(story)
