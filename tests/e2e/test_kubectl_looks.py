"""What stock kubectl describes, watches and drains, of a real instance (KCTL-59 to KCTL-67, KCTL-76 to KCTL-82)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Instance, eventually, running_kubectl

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def looked(shared: Instance) -> Iterator[tuple[Instance, str]]:
    """A namespace with a Deployment of two, its Service, and a Pod that fails."""
    namespace = f"looks-{uuid.uuid4().hex[:6]}"
    shared.kubectl("create", "namespace", namespace)
    server = {"image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=-1"]}
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    template = {
        "metadata": {"labels": {"app": "looked"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", **server, "ports": ports, "readinessProbe": probe}],
        },
    }
    selector = {"matchLabels": {"app": "looked"}}
    shared.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "looked", "namespace": namespace},
            "spec": {"replicas": 2, "selector": selector, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "looked", "namespace": namespace},
            "spec": {"selector": {"app": "looked"}, "ports": [{"name": "web", "port": 80, "targetPort": "web"}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "failing", "namespace": namespace},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "c", "image": "busybox", "command": ["sleep", "9999"], "readinessProbe": {
                        "tcpSocket": {"port": 9}, "periodSeconds": 1}}
                ],
            },
        },
    )  # fmt: skip
    kubectl(shared, namespace, "rollout", "status", "deployment/looked", "--timeout=120s")
    slices = ("endpointslices", "-l", "kubernetes.io/service-name=looked")
    for what, listed in (
        (("endpoints", "looked"), "{.subsets[*].addresses[*].ip}"),
        (slices, "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[*]}"),
    ):  # both follow the Deployment's own status
        words = ("get", *what, "-o", f"jsonpath={listed}")
        eventually(lambda words=words: len(kubectl(shared, namespace, *words).split()) == 2)  # type: ignore[misc]
    yield shared, namespace
    shared.kubectl("delete", "namespace", namespace, "--wait=false")


def kubectl(instance: Instance, namespace: str, *words: str) -> str:
    return instance.kubectl("-n", namespace, *words)


def test_describe_service(looked: tuple[Instance, str]) -> None:
    """KCTL-59 to KCTL-61: the lines in their order, the endpoints by the name of their port."""
    instance, namespace = looked
    said = kubectl(instance, namespace, "describe", "service", "looked")
    names = [line.partition(":")[0] for line in said.splitlines() if re.match(r"[A-Z][\w /-]*:", line)]
    wanted = ["Name", "Namespace", "Labels", "Annotations", "Selector", "Type", "IP Family Policy", "IP Families"]
    wanted += ["IP", "IPs", "Port", "TargetPort", "Endpoints", "Session Affinity", "Internal Traffic Policy", "Events"]
    assert names == wanted, said
    endpoints = re.search(r"^Endpoints:\s+(\S+)$", said, re.M)
    assert endpoints is not None
    assert sorted(endpoints[1].split(",")) == sorted(
        f"{p['status']['podIP']}:8080"
        for p in json.loads(kubectl(instance, namespace, "get", "pods", "-l", "app=looked", "-o", "json"))["items"]
    )


def test_describe_pod_has_its_events(looked: tuple[Instance, str]) -> None:
    """KCTL-62, KCTL-66: repeats are counted in the Age column."""
    instance, namespace = looked

    def counted() -> str:
        said = kubectl(instance, namespace, "describe", "pod", "failing")
        told = r"Warning +Unhealthy +\S+ \(x\d+ over \S+\) +kubelet +spec.containers\{c\}: Readiness probe"
        return said if re.search(told, said) else ""

    said = eventually(counted)
    assert re.search(r"Type +Reason +Age +From +Message\n", said)
    assert re.search(r"Normal +Started +\S+ +kubelet +spec.containers\{c\}: Container started\n", said)
    assert re.search(r"Readiness: +tcp-socket :9 delay=0s timeout=1s period=1s ", said)
    for field in ("reason=Unhealthy", "type=Warning", "involvedObject.fieldPath=spec.containers{c}", "source=kubelet"):
        found = json.loads(
            kubectl(instance, namespace, "get", "events", "-o", "json",
                    f"--field-selector=involvedObject.name=failing,{field}")
        )["items"]  # fmt: skip
        assert found and all(e["involvedObject"]["name"] == "failing" for e in found), field


def test_describe_lists_of_endpoints(looked: tuple[Instance, str]) -> None:
    """KCTL-52, KCTL-63, KCTL-64."""
    instance, namespace = looked
    done = instance.try_kubectl("-n", namespace, "describe", "endpoints", "looked")
    assert "v1 Endpoints is deprecated in v1.33+" in done.stderr
    assert re.search(r"Addresses: +\d+[\d.]+,\d+[\d.]+\n +NotReadyAddresses: +<none>\n", done.stdout), done.stdout
    assert re.search(r" +web +8080 +TCP\n", done.stdout)
    said = kubectl(instance, namespace, "describe", "endpointslices", "-l", "kubernetes.io/service-name=looked")
    assert re.search(r"AddressType: +IPv4\n", said) and re.search(r" +web +8080 +TCP\n", said)
    assert len(re.findall(r"Ready: +true\n", said)) == 2
    assert len(re.findall(r"TargetRef: +Pod/looked-\S+\n", said)) == 2


def test_describe_node_and_by_prefix(looked: tuple[Instance, str]) -> None:
    """KCTL-65, KCTL-67, NODE-83: the Lease, the Pods that run there; a prefix stands for all that begin with it."""
    instance, namespace = looked
    said = instance.kubectl("describe", "node", "n1")
    assert re.search(r"Lease:\n +HolderIdentity: +n1\n +AcquireTime: +\S+\n +RenewTime: +\w", said), said
    assert re.search(r"Ready +True .* KubeletReady +kubelet is posting ready status\n", said)
    assert "Non-terminated Pods:" in said
    both = kubectl(instance, namespace, "describe", "pod", "looked-")
    assert len(re.findall(r"^Name: +looked-", both, re.M)) == 2
    assert "NewReplicaSet:" in kubectl(instance, namespace, "describe", "deployment", "looked")


def test_wide_columns_and_nothing_found(looked: tuple[Instance, str]) -> None:
    """KCTL-3, KCTL-5, KCTL-10 to KCTL-14, KCTL-44."""
    instance, namespace = looked
    for kind, head in (
        ("pods", "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"),
        ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR"),
        ("endpointslices", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE"),
        ("endpoints", "NAME ENDPOINTS AGE"),
    ):
        lines = kubectl(instance, namespace, "get", kind, "-o", "wide").splitlines()
        assert " ".join(lines[0].split()) == head
    eventually(lambda: json.loads(kubectl(instance, namespace, "get", "pod", "failing", "-o", "json"))["status"][
        "phase"] == "Running")  # fmt: skip
    row = kubectl(instance, namespace, "get", "pod", "failing", "-o", "wide").splitlines()[1].split()
    assert row[1:4] == ["0/1", "Running", "0"] and row[6] in ("n1", "n2") and row[7:] == ["<none>", "<none>"], row
    none = instance.try_kubectl("get", "pods", "-n", "nowhere-at-all")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "No resources found in nowhere-at-all namespace.\n")
    gone = kubectl(instance, namespace, "delete", "pods", "-l", "no=body")
    assert gone == "No resources found\n"


def test_drain_respects_budgets(looked: tuple[Instance, str]) -> None:
    """NODE-65, NODE-73: a budget holds `drain` up; once it allows, the Pods are evicted, come again elsewhere, and the
    node takes Pods again when uncordoned."""
    instance, namespace = looked
    budget: dict[str, Any] = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "looked", "namespace": namespace},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "looked"}}},
    }
    instance.apply(budget)
    pods = json.loads(kubectl(instance, namespace, "get", "pods", "-l", "app=looked", "-o", "json"))["items"]
    node = pods[0]["spec"]["nodeName"]
    eventually(lambda: json.loads(kubectl(instance, namespace, "get", "pdb", "looked", "-o", "json"))["status"].get(
        "currentHealthy") == 2)  # fmt: skip
    drain = ("drain", node, "--pod-selector=app=looked", "--ignore-daemonsets", "--delete-emptydir-data")
    try:
        with running_kubectl(instance, *drain, "--timeout=120s") as draining:
            assert draining.stdout is not None
            heard = []
            for line in draining.stdout:
                heard.append(line)
                if "Cannot evict pod as it would violate the pod's disruption budget." in line:
                    break
            assert f"node/{node} cordoned\n" in heard and "evict" in heard[-1], heard
            assert len(ready_pods_of(instance, namespace)) == 2
            instance.apply({**budget, "spec": {**budget["spec"], "minAvailable": 1}})
            said = draining.stdout.read()
            assert f"node/{node} drained\n" in said and draining.wait() == 0, said
        now = eventually(lambda: ready_pods_of(instance, namespace))
        assert node not in {p["spec"]["nodeName"] for p in now}
        assert "SchedulingDisabled" in instance.kubectl("get", "node", node)
    finally:
        instance.kubectl("uncordon", node)
    assert "SchedulingDisabled" not in instance.kubectl("get", "node", node)


def ready_pods_of(instance: Instance, namespace: str) -> list[Any]:
    """The Deployment's two Pods once both are ready."""
    found = json.loads(kubectl(instance, namespace, "get", "pods", "-l", "app=looked", "-o", "json"))["items"]
    there = [p for p in found if "deletionTimestamp" not in p["metadata"]]
    ready = [p for p in there if {c["type"]: c["status"] for c in p["status"].get("conditions", ())}["Ready"] == "True"]
    return ready if len(ready) == len(there) == 2 else []
