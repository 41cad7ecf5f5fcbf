"""Stock clients, unmodified, against a real instance without nodes: create, list, watch, patch, apply, delete.

The `kubernetes` package has a file of its own. None of them is treated in a special way by the server.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kr8s
import kubernetes_asyncio
import lightkube
import pytest
from lightkube.models.core_v1 import ServicePort, ServiceSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Service
from lightkube.types import PatchType

from .harness import Instance, eventually, running_instance, running_operator

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent / "clients"
NODE_CLIENT = "@kubernetes/client-node@1.4.0"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance("--nodes", "0", "--store", "memory") as found:
        yield found


def fresh_namespace(instance: Instance, name: str) -> str:
    instance.kubectl("create", "namespace", name)
    return name


def kubeconfig(instance: Instance) -> str:
    return str(instance.root / "kubeconfig")


def test_nobody_gets_in_without_credentials(instance: Instance) -> None:
    """HEALTH-1, HEALTH-2, AUTH-1: as `kubesvc up` starts; with --anonymous-auth it is upstream's choice of words."""
    url = f"https://{instance.record.loopback}:{instance.record.port}"
    found = {}
    for path in ("/version", "/livez", "/readyz", "/api", "/api/v1/secrets", "/metrics"):
        command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url + path]
        found[path] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == dict.fromkeys(("/version", "/livez", "/readyz"), "200") | dict.fromkeys(
        ("/api", "/api/v1/secrets", "/metrics"), "401"
    )
    # Accounts hold nothing until somebody binds a role to them: the default mode is Node,RBAC.
    account = "system:serviceaccount:default:default"
    refused = instance.kubectl("auth", "can-i", "list", "pods", f"--as={account}", check=False)
    assert refused.strip() == "no"
    instance.kubectl("create", "rolebinding", "viewers", "--clusterrole=view", "--serviceaccount=default:default")
    assert instance.kubectl("auth", "can-i", "list", "pods", f"--as={account}").strip() == "yes"


# ---------------------------------------------------------------- kubernetes-asyncio


def test_kubernetes_asyncio(instance: Instance) -> None:
    """An informer's loop by hand: list, then watch from there, while others write."""
    asyncio.run(use_kubernetes_asyncio(kubeconfig(instance), fresh_namespace(instance, "with-asyncio")))


async def use_kubernetes_asyncio(path: str, namespace: str) -> None:
    client: Any = kubernetes_asyncio.client
    async with await kubernetes_asyncio.config.new_client_from_config(path) as api:
        core = client.CoreV1Api(api)
        listed = await core.list_namespaced_service(namespace)
        seen: list[tuple[str, str, int]] = []

        async def follow() -> None:
            watch: Any = kubernetes_asyncio.watch.Watch()
            since = listed.metadata.resource_version
            async with watch.stream(
                core.list_namespaced_service, namespace, resource_version=since, timeout_seconds=120
            ) as stream:
                async for event in stream:
                    service = event["object"]
                    seen.append((event["type"], service.metadata.name, service.spec.ports[0].port))
                    if event["type"] == "DELETED":
                        return

        follower = asyncio.create_task(follow())
        spec = {"ports": [{"name": "http", "port": 80}], "selector": {"app": "a"}}
        made = await core.create_namespaced_service(namespace, {"metadata": {"name": "a"}, "spec": spec})
        assert made.spec.cluster_ip.startswith("10.96.") and made.spec.ports[0].protocol == "TCP"
        strategic = {"spec": {"ports": [{"port": 80, "$patch": "delete"}, {"name": "alt", "port": 81}]}}
        patched = await core.patch_namespaced_service(
            "a", namespace, strategic, _content_type="application/strategic-merge-patch+json"
        )
        assert [(p.name, p.port) for p in patched.spec.ports] == [("alt", 81)]
        applied = await core.patch_namespaced_service(
            "a", namespace, {"apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"by": "apply"}}},
            field_manager="tests", _content_type="application/apply-patch+yaml",
        )  # fmt: skip
        assert applied.metadata.labels == {"by": "apply"}
        assert [m.operation for m in applied.metadata.managed_fields if m.manager == "tests"] == ["Apply"]
        assert [s.metadata.name for s in (await core.list_namespaced_service(namespace)).items] == ["a"]
        await core.delete_namespaced_service("a", namespace)
        await asyncio.wait_for(follower, 120)
        assert seen == [("ADDED", "a", 80), ("MODIFIED", "a", 81), ("MODIFIED", "a", 81), ("DELETED", "a", 81)]


# ---------------------------------------------------------------- kr8s


def test_kr8s(instance: Instance) -> None:
    asyncio.run(use_kr8s(kubeconfig(instance), fresh_namespace(instance, "with-kr8s")))


async def use_kr8s(path: str, namespace: str) -> None:
    from kr8s.asyncio.objects import ConfigMap as Kr8sConfigMap
    from kr8s.asyncio.objects import Deployment

    api: Any = await kr8s.asyncio.api(kubeconfig=path)
    await api.auth.reauthenticate()
    assert (await api.version())["minor"] == "36"
    seen: list[tuple[str, str]] = []
    opened = asyncio.Event()
    before: Any = await Kr8sConfigMap({"metadata": {"name": "before", "namespace": namespace}}, api=api)
    await before.create()

    async def follow() -> None:
        async for event, found in api.watch("configmaps", namespace=namespace):
            if found.name == "before":
                opened.set()  # it begins with what is there
            if found.name == "one":
                seen.append((event, found.data["k"]))
                if event == "DELETED":
                    return

    follower = asyncio.create_task(follow())
    await asyncio.wait_for(opened.wait(), 120)
    raw = {"metadata": {"name": "one", "namespace": namespace}, "data": {"k": "1"}}
    one: Any = await Kr8sConfigMap(raw, api=api)
    await one.create()
    await one.patch({"data": {"k": "2"}})
    assert one.data["k"] == "2"
    await one.label({"tier": "front"})
    listed = [c async for c in api.get("configmaps", namespace=namespace, label_selector="tier=front")]
    assert [c.name for c in listed] == ["one"]
    await one.delete()
    await asyncio.wait_for(follower, 120)
    assert seen[0] == ("ADDED", "1") and seen[-1] == ("DELETED", "2")
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}]},
    }
    spec: dict[str, Any] = {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": template}
    deployment: Any = await Deployment({"metadata": {"name": "d", "namespace": namespace}, "spec": spec}, api=api)
    await deployment.create()
    await deployment.scale(3)
    async with asyncio.timeout(120):
        while len(pods := [p async for p in api.get("pods", namespace=namespace)]) != 3:
            await asyncio.sleep(0.1)
    assert {p.metadata.ownerReferences[0].kind for p in pods} == {"ReplicaSet"}
    await deployment.delete(propagation_policy="Foreground")
    async with asyncio.timeout(120):
        while [p async for p in api.get("pods", namespace=namespace)] or await deployment.exists():
            await asyncio.sleep(0.1)


# ---------------------------------------------------------------- lightkube


def test_lightkube(instance: Instance) -> None:
    namespace = fresh_namespace(instance, "with-lightkube")
    # Each namespace is given a ConfigMap, which the watch below is not to meet.
    eventually(lambda: instance.try_kubectl("get", "cm", "kube-root-ca.crt", "-n", namespace).returncode == 0)
    config = lightkube.KubeConfig.from_file(kubeconfig(instance))
    client = lightkube.Client(config=config, namespace=namespace, field_manager="tests")
    spec = ServiceSpec(ports=[ServicePort(port=80, name="http")], selector={"app": "l"})
    made = client.create(Service(metadata=ObjectMeta(name="l"), spec=spec))
    assert made.spec is not None and made.spec.clusterIP and made.spec.type == "ClusterIP"
    with pytest.raises(lightkube.ApiError) as caught:
        client.create(Service(metadata=ObjectMeta(name="l"), spec=spec))
    assert (caught.value.status.code, caught.value.status.reason) == (409, "AlreadyExists")
    config_map = ConfigMap(metadata=ObjectMeta(name="c", namespace=namespace), data={"a": "1"})
    assert client.apply(config_map).data == {"a": "1"}
    config_map.data = {"b": "2"}
    assert client.apply(config_map).data == {"b": "2"}, "apply takes away what the same manager no longer says"
    with pytest.raises(lightkube.ApiError) as conflict:
        client.apply(ConfigMap(metadata=ObjectMeta(name="c"), data={"b": "3"}), field_manager="another")
    assert conflict.value.status.code == 409 and ".data.b" in (conflict.value.status.message or "")
    forced = client.apply(
        ConfigMap(metadata=ObjectMeta(name="c"), data={"b": "3"}), field_manager="another", force=True
    )
    assert forced.data == {"b": "3"}
    operations = [{"op": "add", "path": "/data/c", "value": "4"}]
    assert client.patch(ConfigMap, "c", operations, patch_type=PatchType.JSON).data == {"b": "3", "c": "4"}
    since = client.list(ConfigMap)
    assert "c" in {c.metadata.name for c in since if c.metadata}
    client.replace(ConfigMap(metadata=ObjectMeta(name="c"), data={"x": "y"}))
    client.delete(ConfigMap, "c")
    events = []
    for event, found in client.watch(ConfigMap, resource_version=since.resourceVersion, server_timeout=120):
        events.append((event, found.data))
        if event == "DELETED":
            break
    assert events == [("MODIFIED", {"x": "y"}), ("DELETED", {"x": "y"})]
    client.deletecollection(Service)
    assert list(client.list(Service)) == []


# ---------------------------------------------------------------- kopf


def test_a_kopf_operator(instance: Instance) -> None:
    """The operator in clients/operator.py: create, update and delete handlers, with its finalizer and annotations."""
    namespace = fresh_namespace(instance, "with-kopf")
    with running_operator(instance, namespace, HERE / "operator.py"):
        work_with_operator(instance, namespace)


def work_with_operator(instance: Instance, namespace: str) -> None:
    kubectl = instance.kubectl
    kubectl("create", "service", "clusterip", "shop", "--tcp=80", "-n", namespace)
    kubectl("label", "service", "shop", "wants=card", "-n", namespace)

    def annotations() -> Any:
        return instance.get("service", "shop", "-n", namespace)["metadata"].get("annotations", {})

    eventually(lambda: annotations().get("cards.example.com/port") == "80")
    address = instance.get("service", "shop", "-n", namespace)["spec"]["clusterIP"]
    assert instance.get("configmap", "card-shop", "-n", namespace)["data"] == {"address": address, "port": "80"}
    patch = '[{"op":"replace","path":"/spec/ports/0/port","value":8080}]'
    kubectl("patch", "service", "shop", "-n", namespace, "--type=json", "-p", patch)
    eventually(lambda: annotations().get("cards.example.com/port") == "8080")
    assert instance.get("configmap", "card-shop", "-n", namespace)["data"]["port"] == "8080"
    kubectl("delete", "service", "shop", "-n", namespace, "--timeout=120s")
    names = [c["metadata"]["name"] for c in instance.get("configmaps", "-n", namespace)["items"]]
    assert "card-shop" not in names


# ---------------------------------------------------------------- npm's @kubernetes/client-node


@pytest.fixture(scope="module")
def node_client() -> Iterator[Path]:
    """A directory with the npm client installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: the informer of @kubernetes/client-node is not tried")
    with tempfile.TemporaryDirectory() as directory:
        command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", NODE_CLIENT]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=180)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm does not come to an end with {NODE_CLIENT}, its informer is not tried")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install {NODE_CLIENT}, its informer is not tried: {done.stderr.strip()[-300:]}")
        shutil.copy(HERE / "informer.mjs", directory)
        yield Path(directory)


def test_an_informer_of_client_node(instance: Instance, node_client: Path) -> None:
    namespace = fresh_namespace(instance, "with-node")
    done = subprocess.run(
        ["node", "informer.mjs", namespace],
        cwd=node_client,
        env={**os.environ, "KUBECONFIG": kubeconfig(instance)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "add node-before 1",
        "add node-after 1",
        "update node-after 2",
        "update node-after 3",
        "refused 409 AlreadyExists",
        "delete node-after 3",
        "cached node-before",
    ]
