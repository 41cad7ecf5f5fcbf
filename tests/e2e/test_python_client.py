"""The `kubernetes` Python client against a real instance: its own kubeconfig, models, patches and watches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import kubernetes
import pytest
from kubernetes import config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from .harness import Instance, eventually

pytestmark = pytest.mark.e2e

client: Any = kubernetes.client  # its models say that every field may be None
watching: Any = kubernetes.watch.Watch
load: Any = config.new_client_from_config

NAMESPACE = "python-client"
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"


@pytest.fixture(scope="module")
def api(shared: Instance) -> Iterator[Any]:
    """An ApiClient by the instance's kubeconfig; objects live in a namespace of their own."""
    made = load(str(shared.root / "kubeconfig"))
    core = client.CoreV1Api(made)
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    yield made
    core.delete_namespace(NAMESPACE)
    made.close()


def service(name: str, port: int = 80) -> Any:
    return client.V1Service(
        metadata=client.V1ObjectMeta(name=name, labels={"made-by": "python"}),
        spec=client.V1ServiceSpec(selector={"app": name}, ports=[client.V1ServicePort(port=port)]),
    )


def test_create_list_patch_replace_delete(api: Any) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_service(NAMESPACE, service("one"))
    assert made.spec.cluster_ip.startswith("10.96.") and made.spec.ports[0].target_port == 80
    core.create_namespaced_service(NAMESPACE, service("two"))
    page = core.list_namespaced_service(NAMESPACE, label_selector="made-by=python", limit=1)
    rest = core.list_namespaced_service(NAMESPACE, label_selector="made-by=python", _continue=page.metadata._continue)
    assert [s.metadata.name for s in (*page.items, *rest.items)] == ["one", "two"]
    patched = core.patch_namespaced_service("one", NAMESPACE, {"metadata": {"annotations": {"x": "1"}}})
    assert patched.metadata.annotations == {"x": "1"}
    patched.spec.ports[0].target_port = "http"
    replaced = core.replace_namespaced_service("one", NAMESPACE, patched)
    assert replaced.spec.ports[0].target_port == "http" and replaced.spec.cluster_ip == made.spec.cluster_ip
    for name in ("one", "two"):
        core.delete_namespaced_service(name, NAMESPACE)
    assert core.list_namespaced_service(NAMESPACE).items == []


REFUSALS = (
    # sentence, what is asked, status code, reason
    ("a Service that is not there", lambda core: core.read_namespaced_service("none", NAMESPACE), 404, "NotFound"),
    (
        "a name that is taken",
        lambda core: [core.create_namespaced_service(NAMESPACE, service("twice")) for _ in range(2)],
        409,
        "AlreadyExists",
    ),
    (
        "a name that cannot be",
        lambda core: core.create_namespaced_service(NAMESPACE, service("Bad_Name")),
        422,
        "Invalid",
    ),
    (
        "a port that cannot be",
        lambda core: core.create_namespaced_service(NAMESPACE, service("high", 70000)),
        422,
        "Invalid",
    ),
)


@pytest.mark.parametrize(("sentence", "ask", "code", "reason"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_refusals_are_statuses(api: Any, sentence: str, ask: Any, code: int, reason: str) -> None:
    with pytest.raises(ApiException) as caught:
        ask(client.CoreV1Api(api))
    assert caught.value.status == code
    assert f'"reason":"{reason}"' in str(caught.value.body).replace(": ", ":")


def test_a_watch_sees_everything_in_order(api: Any) -> None:
    """From the resourceVersion of a list; nothing missed, nothing twice."""
    core = client.CoreV1Api(api)
    since = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        events = watching().stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version=since, timeout_seconds=120
        )
        for event in events:
            name = event["object"].metadata.name
            if name.startswith("seen"):
                seen.append((event["type"], name))
            if (event["type"], name) == ("DELETED", "seen-9"):
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for i in range(10):
        metadata = client.V1ObjectMeta(name=f"seen-{i}")
        core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata, data={"a": "b"}))
        core.patch_namespaced_config_map(f"seen-{i}", NAMESPACE, {"data": {"a": "c"}})
        core.delete_namespaced_config_map(f"seen-{i}", NAMESPACE)
    follower.join(120)
    assert seen == [(kind, f"seen-{i}") for i in range(10) for kind in ("ADDED", "MODIFIED", "DELETED")]


def test_a_deployment_becomes_endpoints(api: Any) -> None:
    """Typed models all the way: Deployment, its Pods, Endpoints and EndpointSlices; then scaled by its subresource."""
    apps, core, discovery = client.AppsV1Api(api), client.CoreV1Api(api), client.DiscoveryV1Api(api)
    container = client.V1Container(
        name="c",
        image=AGNHOST,
        args=["netexec", "--http-port=8080"],
        readiness_probe=client.V1Probe(http_get=client.V1HTTPGetAction(path="/healthz", port=8080), period_seconds=1),
    )
    labels = {"app": "typed"}
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
    deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="typed"), spec=spec)
    apps.create_namespaced_deployment(NAMESPACE, deployment)
    core.create_namespaced_service(NAMESPACE, service("typed"))

    def sides() -> tuple[list[str], list[str], list[str]]:
        pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=typed").items
        subsets = core.read_namespaced_endpoints("typed", NAMESPACE).subsets or []
        selector = "kubernetes.io/service-name=typed"
        slices = discovery.list_namespaced_endpoint_slice(NAMESPACE, label_selector=selector).items
        return (
            sorted(p.status.pod_ip or "" for p in pods),
            sorted(a.ip for s in subsets for a in s.addresses or []),
            sorted(a for s in slices for e in s.endpoints or [] if e.conditions.ready for a in e.addresses),
        )

    def agree(count: int) -> bool:
        try:
            pods, listed, sliced = sides()
        except ApiException as error:  # Endpoints are made when a controller has seen the Service
            assert error.status == 404, error
            return False
        return len(pods) == count and pods == listed == sliced

    eventually(lambda: agree(1))
    apps.patch_namespaced_deployment_scale("typed", NAMESPACE, {"spec": {"replicas": 3}})
    eventually(lambda: agree(3))
    name = core.list_namespaced_pod(NAMESPACE, label_selector="app=typed").items[0].metadata.name
    said = stream(core.connect_get_namespaced_pod_exec, name, NAMESPACE, command=["hostname"], stdout=True, stderr=True)
    assert said.strip() == name
    eventually(lambda: "listening" in core.read_namespaced_pod_log(name, NAMESPACE))
    apps.delete_namespaced_deployment("typed", NAMESPACE)
    core.delete_namespaced_service("typed", NAMESPACE)
    eventually(lambda: core.list_namespaced_pod(NAMESPACE, label_selector="app=typed").items == [])
