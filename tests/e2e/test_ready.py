"""Readiness steered by hand: traffic follows, the processes stay."""

from __future__ import annotations

import pytest

from .harness import Instance, condition, eventually

pytestmark = pytest.mark.e2e


def test_readiness_is_steered(shared: Instance) -> None:
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "failureThreshold": 2}
    containers = [{"name": "c", "image": "nginx", "readinessProbe": probe}]
    labels = {"app": "steered"}
    shared.kubectl("create", "namespace", "steer")
    for name in ("steered", "unprobed"):
        spec = {"containers": containers if name == "steered" else [{"name": "c", "image": "nginx"}]}
        meta = {"name": name, "namespace": "steer", "labels": labels}
        shared.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def ready(name: str) -> str:
        return condition(shared.get("pod", name, "-n", "steer"), "Ready")

    for name in ("steered", "unprobed"):
        eventually(lambda name=name: ready(name) == "True")  # type: ignore[misc]
        said = shared.run("ready", "--name", shared.name, f"pod/{name}", "off", "-n", "steer").stdout
        assert name in said and ("within 2 s" in said or "at once" in said)
        eventually(lambda name=name: ready(name) == "False")  # type: ignore[misc]
        shared.run("ready", "--name", shared.name, f"pod/{name}", "auto", "-n", "steer")
        eventually(lambda name=name: ready(name) == "True")  # type: ignore[misc]
        status = shared.get("pod", name, "-n", "steer")["status"]["containerStatuses"][0]
        assert status["restartCount"] == 0

    def told() -> bool:
        events = shared.get("events", "-n", "steer", "--field-selector", "reason=Unhealthy")["items"]
        return any("kubesvc.dev/ready is off" in e["message"] for e in events)

    eventually(told)
    failed = shared.run("ready", "--name", shared.name, "pod/nobody", "off", check=False)
    assert failed.returncode == 1 and "no pod 'nobody'" in failed.stderr
    assert shared.run("ready", "--name", shared.name, "svc/x", "off", check=False).returncode == 64
    shared.kubectl("delete", "namespace", "steer", "--wait=false")
