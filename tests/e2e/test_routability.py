"""Waiting for a Service, its timeline and a rehearsed rollout, on real nodes."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

import kubesvc
from kubesvc.why.timeline import EARLY_SECONDS

from .harness import Instance, eventually

pytestmark = pytest.mark.e2e

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"


@pytest.fixture
def namespace(shared: Instance, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "r-" + request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    shared.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    shared.kubectl("delete", "namespace", name, "--wait=false")


def service(namespace: str, **spec: Any) -> dict[str, Any]:
    whole = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": whole}


def pod(namespace: str, **container: Any) -> dict[str, Any]:
    whole = {"name": "c", "image": AGNHOST, "args": ["netexec", "--http-port=8080"], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [whole]},
    }


def test_wait_from_nothing_to_answers(shared: Instance, namespace: str) -> None:
    words = ("wait", "svc/web", "--name", shared.name, "-n", namespace)
    absent = shared.run(*words, "--timeout", "0.1", check=False)
    assert absent.returncode == 1 and "it does not exist" in absent.stderr
    shared.apply(service(namespace, ports=[{"port": 80, "targetPort": 9}]), pod(namespace))
    shared.run(*words, "--programmed", "--timeout", "120")

    def refused() -> bool:
        deaf = shared.run(*words, "--timeout", "0.5", "--json", check=False)
        told = json.loads(deaf.stdout)
        if deaf.returncode != 1 or told["done"]:
            pytest.fail(f"nobody listens there: {told}")
        return "refused" in told["text"]

    eventually(refused)
    shared.apply(service(namespace))
    said = shared.run(*words, "--timeout", "120").stdout
    assert said.startswith("svc/web is routable after ") and said.strip().endswith("answers")


def test_wait_from_python(shared: Instance, namespace: str) -> None:
    kubeconfig = str(shared.root / "kubeconfig")
    with pytest.raises(kubesvc.NotRoutable, match="does not exist"):
        kubesvc.wait_routable("web", namespace, timeout=0.1, kubeconfig=kubeconfig)
    shared.apply(service(namespace), pod(namespace))
    said = kubesvc.wait_routable("svc/web", namespace, timeout=120, kubeconfig=kubeconfig, stage="listed")
    assert said.startswith("listed: 10.244.")
    with pytest.raises(ValueError, match="must be one of listed, programmed, routable"):
        kubesvc.wait_routable("web", namespace, kubeconfig=kubeconfig, stage="ready")  # type: ignore[arg-type]


def test_the_timeline_tells_who_left_by_which_probe_and_each_hop(shared: Instance, namespace: str) -> None:
    """A joined and a left, with the probe's words, and the hops on both nodes, in an order that can be."""
    asked = {"command": ["test", "!", "-e", "/tmp/no"]}
    probe = {"exec": asked, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}  # slowness is no failure
    shared.apply(service(namespace), pod(namespace, readinessProbe=probe))
    shared.run("wait", "svc/web", "--name", shared.name, "-n", namespace, "--timeout", "120")
    shared.kubectl("-n", namespace, "exec", "web-1", "--", "touch", "/tmp/no")

    def entries() -> list[dict[str, Any]]:
        done = shared.run("timeline", "svc/web", "--name", shared.name, "-n", namespace, "--json")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [e["what"] for e in found] == ["joined", "left"]
        for hops in (e["hops"] for e in found):  # each part notes by itself when it has followed
            assert set(hops) == {"statusMs", "sliceMs", "rulesMs", "namesMs", "totalMs"}, hops
            assert set(hops["rulesMs"]) == {"n1", "n2"}, hops
        return found

    joined, left = eventually(entries, every=0.3)
    assert joined["probe"].startswith("Readiness probe of c: succeeded")
    assert left["probe"].startswith("Readiness probe of c: failed") and "is not Ready" in left["cause"]
    for entry in (joined, left):
        hops = entry["hops"]
        assert hops["statusMs"] >= 0 and hops["sliceMs"] >= 0
        assert hops["totalMs"] + EARLY_SECONDS * 1000 >= hops["statusMs"] + hops["sliceMs"]

    def reasons() -> list[str]:
        events = shared.get("events", "-n", namespace, "--field-selector", "involvedObject.kind=Service")["items"]
        return [e["reason"] for e in events]

    eventually(lambda: reasons() == ["EndpointsFilled", "NoEndpoints"])


@pytest.mark.soak
def test_a_rehearsal_finds_the_gap_and_its_suggestion_closes_it(shared: Instance, namespace: str) -> None:
    """Pods that are listed before they serve lose requests; with the suggested settings none is lost."""
    if shutil.which("python3", path="/usr/bin:/bin") is None:
        pytest.skip("no /usr/bin/python3 for the slow server of this test")
    slow = "trap 'kill $!; exit' TERM; sleep 1; /usr/bin/python3 -m http.server 8080 & wait"
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", slow], "ports": [{"containerPort": 8080}]}
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 3, "containers": [container]},
    }
    shared.apply(
        service(namespace),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        },
    )
    shared.run("wait", "svc/web", "--name", shared.name, "-n", namespace, "--timeout", "120")
    words = ("rehearse", "deployment/web", "--name", shared.name, "-n", namespace, "--rps", "100", "--json")
    done = shared.run(*words, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["gaps"]["before ready"] > 10, found
    for suggestion in found["suggestions"]:
        shared.kubectl(*shlex.split(suggestion["command"])[1:])
    shared.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=120s")
    for _ in range(3):  # a machine that stands still meanwhile loses requests whatever is set
        again = json.loads(shared.run(*words, check=False).stdout)
        if again["lost"] == 0:
            break
    assert again["lost"] == 0 and again["sent"] > 100, again
