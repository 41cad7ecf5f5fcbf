"""`kubesvc why` on broken Services of a real instance: the planted cause comes first, and its suggested command,
executed as it is printed, repairs the Service."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubesvc.instance.kubectl import find_kubectl

from .harness import Instance, eventually

pytestmark = pytest.mark.e2e

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"
SECONDS = 90.0
"""Each look is a process of its own, which on a busy machine may take several seconds."""
Object = dict[str, Any]


def service(**spec: Any) -> Object:
    labels = spec.pop("labels", {})
    whole = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    whole = {k: v for k, v in whole.items() if v is not None}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": labels}, "spec": whole}


def deployment(replicas: int = 1, labels: Object | None = None, probe: Object | None = None, **pod: Any) -> Object:
    container: Object = {
        "name": "c",
        "image": AGNHOST,
        "args": ["netexec", "--http-port=8080"],
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    if probe:
        container["readinessProbe"] = probe
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels or {}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **pod},
            },
        },
    }


def by_hand(service: str, port: str = "") -> Object:
    """A slice that lists the DNS server of a node, which answers over TCP in any case."""
    labels = {"kubernetes.io/service-name": service} if service else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-by-hand", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["172.30.0.11"]}],
        "ports": [{"name": port, "port": 53, "protocol": "TCP"}],
    }


@dataclass(frozen=True)
class Broken:
    code: str
    sentence: str
    objects: tuple[Object, ...]
    answers: bool = True
    """Whether an HTTP request gets an answer once it is repaired."""


CASES = (
    Broken("EP101", "the selector's value is misspelt", (service(selector={"app": "wbe"}), deployment())),
    Broken(
        "EP401", "a target port that no container names",
        (service(ports=[{"port": 80, "targetPort": "htpt"}]), deployment()),
    ),
    Broken("EP504", "a slice that names no Service", (service(selector=None), by_hand("")), answers=False),
)  # fmt: skip
"""One of each family, by the command as a user types it; `test_scenarios.py` has every cause."""


def why(instance: Instance, namespace: str, *words: str) -> Object:
    """The one result of --json, with the exit status."""
    done = instance.run(
        "why", "--name", instance.name, "-n", namespace, "--json", *(words or ("svc/web",)), check=False
    )
    assert done.returncode in (0, 1, 2), done
    found: Object = json.loads(done.stdout)
    assert found["schema"] == "kubesvc.why/v1" and found["exitStatus"] == done.returncode
    result: Object = found["results"][0]
    return result


def execute(instance: Instance, command: str) -> None:
    """What a user does with the suggested command: paste it into a shell where `kubectl` is."""
    program = Path(str(find_kubectl()))
    here = instance.home / "bin"
    here.mkdir(exist_ok=True)
    if not (here / "kubectl").exists():
        (here / "kubectl").symlink_to(program)
    path = f"{here}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={**instance.environment(), "PATH": path, "KUBECONFIG": str(instance.root / "kubeconfig")},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.mark.parametrize("case", CASES, ids=[f"{c.code} {c.sentence}" for c in CASES])
def test_why_names_the_cause_and_its_command_repairs_it(shared: Instance, case: Broken) -> None:
    namespace = f"why-{case.code.lower()}"
    shared.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        for obj in case.objects:
            shared.apply({**obj, "metadata": {**obj["metadata"], "namespace": namespace}})

        def named() -> Object:
            result = why(shared, namespace)
            assert result["code"] == case.code, result["verdict"]
            return result

        found = eventually(named, SECONDS, every=0.3)
        assert found["status"] == "broken" and found["findings"][0]["repairs"], found
        execute(shared, found["command"])
        eventually(settled(shared, namespace), SECONDS, every=0.3)
        if case.answers:
            url = f"http://web.{namespace}/hostname"
            eventually(lambda: shared.curl(url).stdout.startswith("web-"), SECONDS)
    finally:
        shared.kubectl("delete", "namespace", namespace, "--wait=false")


def settled(instance: Instance, namespace: str) -> Callable[[], bool]:
    """Whether the Service works; the verdict if not."""

    def look() -> bool:
        result = why(instance, namespace)
        assert result["status"] == "healthy", result["verdict"]
        return True

    return look


def test_not_ready_names_the_last_result_of_the_probe(shared: Instance) -> None:
    """EP301: what the probe met, and since when; the first line of the text says it all."""
    namespace = "why-probe"
    shared.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    probe = {"httpGet": {"path": "/nothing", "port": 8080}, "periodSeconds": 1}
    for obj in (service(), deployment(probe=probe)):
        shared.apply({**obj, "metadata": {**obj["metadata"], "namespace": namespace}})

    def named() -> str:
        done = shared.run("why", "--name", shared.name, "svc/web", "-n", namespace, check=False)
        assert done.returncode == 1
        first: str = done.stdout.splitlines()[0]
        assert "statuscode: 404" in first, first
        return first

    first = eventually(named, SECONDS, every=0.3)
    assert first.startswith("svc/web does not route: pod/web-") and first.endswith("[EP301]")
    assert "runs but is not Ready since " in first
    shared.kubectl("delete", "namespace", namespace, "--wait=false")


def test_all_puts_the_broken_first(shared: Instance) -> None:
    namespace = "why-all"
    shared.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for obj in (service(selector={"app": "nobody"}),):
        shared.apply({**obj, "metadata": {**obj["metadata"], "namespace": namespace}})
    done = shared.run("why", "--name", shared.name, "--all", "--json", check=False)
    found = json.loads(done.stdout)
    statuses = [r["status"] for r in found["results"]]
    assert done.returncode == 1 and statuses == sorted(statuses, key=["broken", "unknown", "degraded", "healthy"].index)
    assert any(r["subject"].startswith("svc/kubernetes ") and r["status"] == "healthy" for r in found["results"])
    shared.kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_printed_role_is_enough_and_less_is_a_named_gap(shared: Instance) -> None:
    """Who may list what --print-role says gets the whole diagnosis; with the role in one namespace only, nodes are the
    gap; without any, nothing is claimed and the exit status is 2."""
    namespace, who = "why-role", "system:serviceaccount:why-role:looker"
    shared.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    meta = {"name": "looker", "namespace": namespace}
    shared.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    obj = service(selector={"app": "nobody"})
    shared.apply({**obj, "metadata": {**obj["metadata"], "namespace": namespace}})
    shared.apply(shared.run("why", "--print-role").stdout)
    config = json.loads(shared.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": shared.kubectl("-n", namespace, "create", "token", "looker").strip()}
    file = shared.home / "looker.json"
    file.write_text(json.dumps(config))
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "why-looker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubesvc-why"},
        "subjects": [{"kind": "ServiceAccount", "name": "looker", "namespace": namespace}],
    }

    def look() -> tuple[int, str, list[str]]:
        done = shared.run("why", "--kubeconfig", str(file), "-n", namespace, "--json", "svc/web", check=False)
        found = json.loads(done.stdout)
        return done.returncode, found["results"][0]["code"], [g["kind"] for g in found["gaps"]]

    shared.apply(binding)
    eventually(lambda: look() == (1, "EP105", []), SECONDS, every=0.3)
    shared.kubectl("delete", "clusterrolebinding", "why-looker")
    shared.apply({**binding, "kind": "RoleBinding", "metadata": {"name": "why-looker", "namespace": namespace}})
    eventually(lambda: look() == (1, "EP105", ["nodes"]), SECONDS, every=0.3)
    shared.kubectl("-n", namespace, "delete", "rolebinding", "why-looker")
    eventually(lambda: look() == (2, "EP807", ["services"]), SECONDS, every=0.3)
    assert who in shared.run("why", "--kubeconfig", str(file), "-n", namespace, "svc/web", check=False).stdout
    shared.kubectl("delete", "namespace", namespace, "--wait=false")
    shared.kubectl("delete", "clusterrole", "kubesvc-why")
