"""Custom kinds with stock clients: kubectl from the definition to its end, an operator of kopf, lightkube and kr8s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kr8s
import lightkube
import pytest
from kr8s.asyncio.objects import new_class
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

from .harness import Instance, eventually, running_instance, running_operator

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
DEFINITIONS = HERE / "definitions"
GADGET = """
apiVersion: factory.example.com/v1
kind: Gadget
metadata: {name: one}
spec:
  colour: red
  ports: [{name: web, port: 80, protocol: TCP}]
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance("--nodes", "0", "--store", "memory") as found:
        found.kubectl("apply", "-f", str(DEFINITIONS))
        found.kubectl("wait", "--for", "condition=established", "crd", "--all", "--timeout=120s")
        yield found


def fresh_namespace(instance: Instance, name: str) -> str:
    instance.kubectl("create", "namespace", name)
    return name


def refused(instance: Instance, *words: str, stdin: str = "") -> str:
    """What kubectl says when it fails."""
    done = instance.try_kubectl(*words, stdin=stdin)
    assert done.returncode != 0, done.stdout
    return str(done.stderr)


# ---------------------------------------------------------------- kubectl


def test_discovery_and_explain(instance: Instance) -> None:
    resources = instance.kubectl("api-resources", "--api-group=factory.example.com")
    assert resources.splitlines()[1].split() == ["gadgets", "gd", "factory.example.com/v1", "true", "Gadget"]
    assert "factory.example.com/v1beta1" in instance.kubectl("api-versions").split()
    listed = instance.kubectl("get", "crd").splitlines()
    assert listed[0].split() == ["NAME", "CREATED", "AT"] and "routes.gates.example.com" in "\n".join(listed)
    text = instance.kubectl("explain", "gadget.spec.colour")
    assert "The colour that it is painted in." in text and "VERSION:    v1" in text
    assert "gadget" in instance.kubectl("explain", "gadgets", "--recursive").lower()
    assert "ports\t<[]Object>" in instance.kubectl("explain", "gadgets.spec")


def test_a_life(instance: Instance) -> None:
    """Create, look, change, scale, apply with conflicts, and delete."""
    namespace = fresh_namespace(instance, "crd-life")
    kubectl = instance.kubectl

    def made(*words: str, **more: Any) -> str:
        return str(kubectl(*words, "-n", namespace, **more))

    assert made("apply", "-f", "-", stdin=GADGET).strip() == "gadget.factory.example.com/one created"
    assert made("apply", "-f", "-", stdin=GADGET).strip() == "gadget.factory.example.com/one unchanged"
    spec = instance.get("gd", "one", "-n", namespace)["spec"]
    assert spec == {"colour": "red", "replicas": 1, "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}
    header, row = made("get", "gadgets", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "COLOUR", "REPLICAS", "READY", "AGE", "PORTS"]
    assert row.split()[:3] == ["one", "red", "1"] and row.split()[-1] == "web"
    assert "gadget.factory.example.com/one" in made("get", "all")
    assert made("get", "factory", "-o", "name").strip() == "gadget.factory.example.com/one"
    assert made("get", "gd", "--field-selector", "spec.colour=blue", "-o", "name") == ""
    older = instance.get("gadgets.v1beta1.factory.example.com", "one", "-n", namespace)
    assert older["apiVersion"] == "factory.example.com/v1beta1" and older["spec"] == {"colour": "red"}
    assert made("scale", "gadget/one", "--replicas=3").strip() == "gadget.factory.example.com/one scaled"
    one = instance.get("gd", "one", "-n", namespace)
    assert one["spec"]["replicas"] == 3 and one["metadata"]["generation"] == 2
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "replicas": 3}}
    made("patch", "gd", "one", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    made("wait", "gd/one", "--for", "condition=ready", "--timeout=120s")
    assert instance.get("gd", "one", "-n", namespace)["metadata"]["generation"] == 2
    assert made("get", "gadgets").splitlines()[1].split()[:4] == ["one", "red", "3", "True"]
    made("patch", "gd", "one", "--type=json", "-p", '[{"op":"replace","path":"/spec/colour","value":"blue"}]')
    text = refused(instance, "patch", "gd", "one", "-n", namespace, "--type=strategic", "-p", "{}")
    assert "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml" in text
    wanted = GADGET.replace("red", "green").replace("web", "api")
    text = refused(instance, "apply", "--server-side", "-n", namespace, "-f", "-", stdin=wanted)
    assert 'conflict with "kubectl-patch"' in text and ".spec.colour" in text
    made("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=wanted)
    ports = instance.get("gd", "one", "-n", namespace)["spec"]["ports"]
    assert [p["name"] for p in ports] in (["web", "api"], ["api"])
    made("label", "gd", "one", "x=y")
    made("delete", "gd", "-l", "x=y", "--timeout=120s")
    assert instance.get("gd", "-n", namespace)["items"] == []


REFUSALS = (
    ("a missing field", "spec: {}", "spec.colour: Required value"),
    ("a wrong type", "spec: {colour: red, replicas: many}",
     'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
    ("too much", "spec: {colour: red, replicas: 11}",
     "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"),
    ("an unknown value", "spec: {colour: pink}",
     'spec.colour: Unsupported value: "pink": supported values: "red", "green", "blue"'),
    ("a pattern", "spec: {colour: red, serial: abcd}",
     'spec.serial: Invalid value: "abcd": spec.serial in body should match \'^[A-Z]{2}-[0-9]+$\''),
    ("too long", "spec: {colour: red, serial: AB-12345678901}", "spec.serial: Too long: may not be more than 12 bytes"),
    ("too many", "spec: {colour: red, ports: [{name: a, port: 1}, {name: b, port: 1}, {name: c, port: 1}, "
     "{name: d, port: 1}]}", "spec.ports: Too many: 4: must have at most 3 items"),
    ("twice the same key", "spec: {colour: red, ports: [{name: a, port: 1}, {name: a, port: 2}]}",
     'spec.ports[1]: Duplicate value: {"name":"a"}'),
    ("an unknown field", "spec: {colour: red, color: red}", 'strict decoding error: unknown field "spec.color"'),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c[0])
def test_refusals(instance: Instance, case: tuple[str, str, str]) -> None:
    _, spec, text = case
    body = f"apiVersion: factory.example.com/v1\nkind: Gadget\nmetadata: {{name: bad}}\n{spec}\n"
    assert text in refused(instance, "create", "-f", "-", stdin=body)


def test_definitions_as_in_the_wild(instance: Instance) -> None:
    namespace = fresh_namespace(instance, "crd-wild")
    certificate = {
        "apiVersion": "seals.example.com/v1",
        "kind": "Certificate",
        "metadata": {"name": "web"},
        "spec": {"secretName": "web-tls", "issuerRef": {"name": "ca"}, "revisionHistoryLimit": None},
    }
    instance.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(certificate))
    found = instance.get("cert", "web", "-n", namespace)["spec"]
    assert found["issuerRef"] == {"name": "ca", "kind": "Issuer"}
    certificate["spec"]["keystore"] = {}  # type: ignore[index]
    text = refused(instance, "apply", "-n", namespace, "-f", "-", stdin=json.dumps(certificate))
    assert '"spec.keystore" must validate one and only one schema (oneOf). Found none valid' in text
    route = {
        "apiVersion": "gates.example.com/v1",
        "kind": "Route",
        "metadata": {"name": "web"},
        "spec": {"hostnames": ["a.example.com"], "parentRefs": [{"name": "front"}]},
    }
    instance.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=json.dumps(route))
    made = instance.get("route", "web", "-n", namespace)
    assert made["spec"]["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
    assert made["spec"]["parentRefs"] == [{"name": "front", "group": "gates.example.com", "sectionName": ""}]
    other = {**route, "spec": {"parentRefs": [{"name": "front", "sectionName": "tls", "port": 443}]}}
    instance.kubectl(
        "apply", "--server-side", "--field-manager=second", "-n", namespace, "-f", "-", stdin=json.dumps(other)
    )
    refs = instance.get("route", "web", "-n", namespace)["spec"]["parentRefs"]
    assert [r["sectionName"] for r in refs] == ["", "tls"]
    assert '["a.example.com"]' in instance.kubectl("get", "routes", "-n", namespace)


def test_owners_quotas_and_the_end_of_a_namespace(instance: Instance) -> None:
    namespace = fresh_namespace(instance, "crd-owners")
    kubectl = instance.kubectl
    kubectl("create", "quota", "few", "--hard=count/gadgets.factory.example.com=1", "-n", namespace)
    kubectl("apply", "-n", namespace, "-f", "-", stdin=GADGET)
    text = refused(instance, "apply", "-n", namespace, "-f", "-", stdin=GADGET.replace("one", "two"))
    assert "exceeded quota: few, requested: count/gadgets.factory.example.com=1" in text
    uid = instance.get("gd", "one", "-n", namespace)["metadata"]["uid"]
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [
                {"apiVersion": "factory.example.com/v1", "kind": "Gadget", "name": "one", "uid": uid},
            ],
        },
    }
    kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(owned))
    kubectl("delete", "gd", "one", "-n", namespace)
    eventually(lambda: "owned" not in kubectl("get", "cm", "-n", namespace, "-o", "name"))
    kubectl("apply", "-n", namespace, "-f", "-", stdin=GADGET)
    kubectl("delete", "namespace", namespace, "--timeout=120s")


def test_the_end_of_a_definition(instance: Instance) -> None:
    """Deleting a definition deletes its objects; what it defined is unknown afterwards."""
    namespace = fresh_namespace(instance, "crd-end")
    text = (DEFINITIONS / "gadgets.yaml").read_text()
    other = text.replace("gadgets", "widgets").replace("gadget", "widget").replace("Gadget", "Widget")
    other = other.replace("[gd]", "[wd]").replace("[all, factory]", "[]")
    instance.kubectl("create", "-f", "-", stdin=other)
    instance.kubectl("wait", "--for", "condition=established", "crd/widgets.factory.example.com", "--timeout=120s")
    body = GADGET.replace("Gadget", "Widget").replace("name: one", "name: one, finalizers: [example.com/wait]")
    instance.kubectl("create", "-n", namespace, "-f", "-", stdin=body)
    uid = instance.get("wd", "one", "-n", namespace)["metadata"]["uid"]
    owner = {"apiVersion": "factory.example.com/v1", "kind": "Widget", "name": "one", "uid": uid}
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [owner]}}
    instance.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(owned))
    instance.kubectl("delete", "crd", "widgets.factory.example.com", "--wait=false")
    eventually(lambda: instance.get("wd", "one", "-n", namespace)["metadata"].get("deletionTimestamp"))
    text = refused(instance, "create", "-n", namespace, "-f", "-", stdin=body.replace("one", "two"))
    assert "create not allowed while custom resource definition is terminating" in text
    instance.kubectl("patch", "wd", "one", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    instance.kubectl("wait", "--for=delete", "crd/widgets.factory.example.com", "--timeout=120s")
    eventually(lambda: "owned" not in instance.kubectl("get", "cm", "-n", namespace, "-o", "name"))
    assert "could not find the requested resource" in refused(instance, "get", "widgets", "-n", namespace)
    assert "widgets" not in instance.kubectl("api-resources", "--api-group=factory.example.com")


# ---------------------------------------------------------------- other clients


def test_lightkube(instance: Instance) -> None:
    namespace = fresh_namespace(instance, "crd-lightkube")
    path = str(instance.root / "kubeconfig")
    Gadget: Any = create_namespaced_resource("factory.example.com", "v1", "Gadget", "gadgets")
    client = lightkube.Client(config=lightkube.KubeConfig.from_file(path), namespace=namespace)
    made = client.create(Gadget(metadata={"name": "a"}, spec={"colour": "green"}))
    assert made.spec["replicas"] == 1
    patched = client.patch(Gadget, "a", {"spec": {"replicas": 2}}, patch_type=PatchType.MERGE)
    assert patched.spec["replicas"] == 2
    client.patch(Gadget.Status, "a", {"status": {"replicas": 2}}, patch_type=PatchType.MERGE)
    assert [g.status["replicas"] for g in client.list(Gadget)] == [2]
    client.delete(Gadget, "a")
    assert list(client.list(Gadget)) == []


def test_kr8s(instance: Instance) -> None:
    asyncio.run(use_kr8s(str(instance.root / "kubeconfig"), fresh_namespace(instance, "crd-kr8s")))


async def use_kr8s(path: str, namespace: str) -> None:
    api: Any = await kr8s.asyncio.api(kubeconfig=path)
    Gadget: Any = new_class(
        kind="Gadget", version="factory.example.com/v1", namespaced=True, scalable=True, plural="gadgets"
    )
    gadget = await Gadget({"metadata": {"name": "a", "namespace": namespace}, "spec": {"colour": "blue"}}, api=api)
    await gadget.create()
    await gadget.refresh()
    assert gadget.spec.replicas == 1
    await gadget.scale(4)
    assert [g.spec.replicas async for g in Gadget.list(api=api, namespace=namespace)] == [4]
    await gadget.delete()


def test_a_kopf_operator_on_its_own_kind(instance: Instance) -> None:
    """clients/gadgets.py: create, update, field and delete handlers, with status, finalizer and owned objects."""
    namespace = fresh_namespace(instance, "crd-kopf")
    with running_operator(instance, namespace, HERE / "clients/gadgets.py"):
        work_with_operator(instance, namespace)


def work_with_operator(instance: Instance, namespace: str) -> None:
    kubectl = instance.kubectl
    kubectl("apply", "-n", namespace, "-f", "-", stdin=GADGET)

    def one() -> Any:
        return instance.get("gd", "one", "-n", namespace)

    # Two handlers tell of what is made, one after the other.
    wanted = [{"type": "Ready", "status": "True"}]
    eventually(lambda: (status := one()["status"])["replicas"] == 1 and status["conditions"] == wanted)
    assert instance.get("cm", "paint-one", "-n", namespace)["data"] == {"colour": "red"}
    kubectl("scale", "gadget/one", "--replicas=2", "-n", namespace)
    eventually(lambda: one()["status"]["replicas"] == 2)
    kubectl("delete", "gd", "one", "-n", namespace, "--timeout=120s")
    eventually(lambda: "paint-one" not in kubectl("get", "cm", "-n", namespace, "-o", "name"))
