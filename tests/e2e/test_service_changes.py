"""A Service whose type and affinity change while clients ask it (CONF-1, CONF-3)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Instance, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def namespace(shared: Instance) -> Iterator[str]:
    """A namespace with two Pods that say their names."""
    name = f"changes-{uuid.uuid4().hex[:6]}"
    shared.kubectl("create", "namespace", name)
    container = {
        "name": "c", "image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=-1"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }  # fmt: skip
    for number in (1, 2):
        meta = {"name": f"web-{number}", "namespace": name, "labels": {"app": name}}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
        shared.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    eventually(lambda: len(shared.get("pods", "-n", name)["items"]) == 2)
    shared.kubectl("-n", name, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s")
    yield name
    shared.kubectl("delete", "namespace", name, "--wait=false")


def patched(instance: Instance, namespace: str, **spec: Any) -> dict[str, Any]:
    said = instance.kubectl(
        "-n", namespace, "patch", "service", "web", "--type=merge", "-p", json.dumps({"spec": spec}), "-o", "json"
    )
    found: dict[str, Any] = json.loads(said)["spec"]
    return found


def names(instance: Instance, url: str, times: int) -> set[str]:
    """Who answers a client inside the first node."""
    script = f"for i in $(seq {times}); do curl -sS -m 2 {url}/hostname || exit 1; echo; done"
    return set(instance.inside("sh", "-c", script).stdout.split())


def test_the_type_and_the_affinity_change(shared: Instance, namespace: str) -> None:
    """CONF-1, CONF-3: from a name elsewhere to addresses here, to a node port, to one endpoint for each client and to
    all of them again, and back to a name: each within the time that conformance allows."""
    web = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}}
    shared.apply({**web, "spec": {"type": "ExternalName", "externalName": "elsewhere.example"}})
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = patched(shared, namespace, type="ClusterIP", externalName=None, selector={"app": namespace}, ports=ports)
    at_address = f"http://{spec['clusterIP']}"
    both = {"web-1", "web-2"}
    eventually(lambda: names(shared, at_address, 6) == both)
    spec = patched(shared, namespace, type="NodePort")
    node = shared.get("node", "n2")["status"]["addresses"][0]["address"]
    at_node = f"http://{node}:{spec['ports'][0]['nodePort']}"
    eventually(lambda: names(shared, at_node, 6) == both)
    patched(shared, namespace, sessionAffinity="ClientIP")
    eventually(lambda: len(names(shared, at_address, 20)) == 1)  # without it, by chance once in half a million
    patched(shared, namespace, sessionAffinity="None")
    eventually(lambda: names(shared, at_address, 8) == both)
    patched(shared, namespace, type="ExternalName", externalName="elsewhere.example")
    service = shared.get("service", "-n", namespace, "web")["spec"]
    assert "clusterIP" not in service and "nodePort" not in service["ports"][0]
    eventually(lambda: shared.curl(at_address, seconds=1).returncode != 0)
    eventually(lambda: shared.curl(at_node, seconds=1).returncode != 0)
