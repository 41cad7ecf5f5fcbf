"""Storage as users of local clusters expect it: claims that name no class, data that outlive Pods, and their end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Instance, condition, eventually, fresh_instance

pytestmark = pytest.mark.e2e

NAMESPACE = "storage"
IN = ("-n", NAMESPACE)
NAMESPACE_OBJECT = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def stateful_set(name: str, script: str, replicas: int, user: int = 0) -> dict[str, Any]:
    labels = {"app": name}
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"runAsUser": user},
    }
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": wanted}],
        },
    }


def ready(instance: Instance, pod: str, but: str = "") -> Any:
    """The Pod once it is ready, under another uid than `but`."""

    def found() -> Any:
        pod_now = instance.get("pod", pod, *IN)
        return condition(pod_now, "Ready") == "True" and pod_now["metadata"]["uid"] != but and pod_now

    return eventually(found)


def place_of(instance: Instance, claim: str) -> Path:
    """The directory behind a claim."""
    bound = instance.get("pvc", claim, *IN)
    assert bound["status"]["phase"] == "Bound", bound
    volume = instance.get("pv", bound["spec"]["volumeName"])
    assert volume["status"]["phase"] == "Bound"
    return Path(volume["spec"]["hostPath"]["path"])


def starts(place: Path) -> str:
    """What the shells of a claim's Pods have written, "" if none has yet."""
    file = place / "starts"
    return file.read_text() if file.exists() else ""


@pytest.fixture
def storage(shared: Instance) -> Iterator[Instance]:
    shared.apply(NAMESPACE_OBJECT)
    yield shared
    shared.kubectl("delete", "namespace", NAMESPACE)


def test_a_stateful_set_keeps_its_files_until_its_claims_go(storage: Instance) -> None:
    shown = storage.kubectl("get", "storageclass")
    assert shown.split("\n")[1].split()[:6] == [
        "standard", "(default)", "rancher.io/local-path", "Delete", "WaitForFirstConsumer", "false"
    ]  # fmt: skip
    storage.apply(stateful_set("keep", "echo $HOSTNAME >> /data/starts; sleep 600", 2))
    first = ready(storage, "keep-0")
    ready(storage, "keep-1")
    places = [place_of(storage, f"data-keep-{i}") for i in (0, 1)]
    eventually(lambda: [starts(p) for p in places] == ["keep-0\n", "keep-1\n"])  # a Pod is ready when its shell begins
    assert "Used By:       keep-0" in storage.kubectl("describe", "pvc", "data-keep-0", *IN)
    eventually(lambda: "ProvisioningSucceeded" in storage.kubectl("describe", "pvc", "data-keep-0", *IN))
    storage.kubectl("delete", "pod", "keep-0", *IN)
    again = ready(storage, "keep-0", but=first["metadata"]["uid"])
    assert again["spec"]["nodeName"] == first["spec"]["nodeName"], "its volume is there"
    eventually(lambda: storage.kubectl("exec", "keep-0", *IN, "--", "cat", "/data/starts") == "keep-0\nkeep-0\n")
    # A claim in use stays; without its Pod it goes, and takes volume and directory with it.
    storage.kubectl("delete", "pvc", "data-keep-1", *IN, "--wait=false")
    assert "Terminating" in storage.kubectl("get", "pvc", "data-keep-1", *IN)
    assert places[1].joinpath("starts").exists()
    storage.kubectl("delete", "statefulset", "keep", *IN)
    eventually(lambda: not places[1].exists())
    assert place_of(storage, "data-keep-0").joinpath("starts").exists(), "claims outlive their set"
    storage.kubectl("delete", "pvc", "data-keep-0", *IN)
    eventually(lambda: not storage.get("pv")["items"])
    assert not places[0].exists()


def test_a_volume_made_by_hand_and_a_pod_that_waits_for_it(storage: Instance, tmp_path: Path) -> None:
    disk, data = tmp_path / "disk", tmp_path / "disk" / "part"
    data.mkdir(parents=True)
    data.joinpath("file").write_text("held\n")
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "own", "namespace": NAMESPACE},
        "spec": {"storageClassName": "", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Mi"}}},
    }  # fmt: skip
    container = {
        "name": "c", "image": "busybox",
        "command": ["sh", "-c", "cat /data/file; touch /data/x 2>/dev/null && echo written; sleep 600"],
        "volumeMounts": [{"name": "v", "mountPath": "/data", "subPath": "part"}],
    }  # fmt: skip
    source = {"persistentVolumeClaim": {"claimName": "own", "readOnly": True}}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader", "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container],
                 "volumes": [{"name": "v", **source}]},
    }  # fmt: skip
    storage.apply(claim, pod)
    eventually(
        lambda: "pod has unbound immediate PersistentVolumeClaims" in storage.kubectl("describe", "pod", "reader", *IN)
    )
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "by-hand"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": str(disk)},
                 "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
    }  # fmt: skip
    storage.apply(volume)
    assert ready(storage, "reader")["spec"]["nodeName"] == "n2"
    eventually(lambda: storage.kubectl("logs", "reader", *IN) == "held\n")
    storage.kubectl("delete", "pod", "reader", *IN)
    storage.kubectl("delete", "pvc", "own", *IN)
    eventually(lambda: storage.get("pv", "by-hand")["status"]["phase"] == "Released")
    storage.kubectl("delete", "pv", "by-hand")
    assert data.joinpath("file").read_text() == "held\n"


def test_an_ephemeral_volume_comes_and_goes_with_its_pod(storage: Instance) -> None:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    container = {
        "name": "c", "image": "busybox", "command": ["sh", "-c", "touch /data/x && sleep 600"],
        "volumeMounts": [{"name": "v", "mountPath": "/data"}],
    }  # fmt: skip
    volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": wanted}}}]
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    storage.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own", "namespace": NAMESPACE}, "spec": spec}
    )
    ready(storage, "own")
    place = place_of(storage, "own-v")
    eventually(lambda: place.joinpath("x").exists())
    assert "FailedMount" not in storage.kubectl("get", "events", *IN)
    storage.kubectl("delete", "pod", "own", *IN)
    eventually(lambda: not place.exists() and not storage.get("pvc", *IN)["items"])


@pytest.mark.soak
def test_data_outlive_the_instance_and_go_when_it_is_purged(machine: None) -> None:
    """As an ordinary user, with files of users that only the instance knows."""
    with fresh_instance("nobody", grant=True) as instance:
        instance.up("--nodes", "1")
        instance.apply(
            NAMESPACE_OBJECT,
            stateful_set("db", "id -u >> /data/users; mkdir -p /data/own; touch /data/own/x; sleep 600", 1, 5),
        )
        pod = ready(instance, "db-0")
        place = place_of(instance, "data-db-0")
        eventually(lambda: place.joinpath("users").exists() and place.joinpath("users").read_text() == "5\n")
        assert place.joinpath("users").stat().st_uid >= 100_000
        instance.down()
        instance.up("--nodes", "1")
        instance.kubectl("delete", "pod", "db-0", *IN)
        ready(instance, "db-0", but=pod["metadata"]["uid"])
        eventually(lambda: place.joinpath("users").read_text().startswith("5\n5\n"))
        purge = instance.granted(instance.command("down", "--name", instance.name, "--purge"))
        done = subprocess.run(purge, capture_output=True, text=True, env=instance.environment(), check=False)
        assert done.returncode == 0, done.stderr
        assert not instance.root.exists()
