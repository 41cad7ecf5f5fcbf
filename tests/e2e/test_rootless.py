"""As an ordinary user: the same results in user namespaces, with and without subordinate ids."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kubesvc.node.containers import CONFIG_EVENT_SECONDS

from .harness import EXAMPLES, Instance, condition, eventually, ready_pods, running_instance

pytestmark = pytest.mark.e2e

USER = "nobody"


@pytest.fixture(scope="module", params=[False, True], ids=["one id", "subordinate ids"])
def rootless(machine: None, request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance("--nodes", "2", "--store", "memory", user=USER, grant=request.param) as instance:
        yield instance


def test_the_walk_through_works(rootless: Instance) -> None:
    rootless.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
    ready_pods(rootless, "app=web", 3)
    for node in ("n1", "n2"):
        eventually(lambda node=node: "nginx" in rootless.curl("http://web-svc.default/", node=node).stdout)  # type: ignore[misc]
    victim = rootless.get("pods", "-l", "app=web")["items"][0]
    rootless.kubectl("delete", "pod", victim["metadata"]["name"], "--now")
    ready_pods(rootless, "app=web", 3)
    eventually(lambda: "nginx" in rootless.curl("http://web-svc.default/").stdout)
    rootless.kubectl("delete", "-f", str(EXAMPLES / "web-deployment.yaml"), "-f", str(EXAMPLES / "web-svc.yaml"))


def user_pod(name: str, user: int) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox", "command": ["sleep", "600"], "securityContext": {"runAsUser": user}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_other_users_run_or_are_refused_in_words(rootless: Instance) -> None:
    """What needs several ids is refused in the Pod's status where none are granted, and said by doctor."""
    began = time.monotonic()
    rootless.apply(user_pod("other", 1000))
    if rootless.grant:
        eventually(lambda: condition(rootless.get("pod", "other"), "Ready") == "True")
        assert "ok       user ids" in doctor_inside(rootless)
    else:

        def refused() -> str:
            statuses = rootless.get("pod", "other")["status"].get("containerStatuses", [])
            waiting = statuses[0]["state"].get("waiting", {}) if statuses else {}
            return str(waiting.get("message", "")) if waiting.get("reason") == "CreateContainerConfigError" else ""

        said = eventually(refused)
        assert re.search(r"user|uid", said) and "1000" in said, said
        for _ in range(6):  # the words stay, and nobody is flooded with them
            time.sleep(0.5)
            assert refused() == said
        (told,) = eventually(lambda: events(rootless, "other", "Failed"))
        assert 1 <= told["count"] <= 1 + (time.monotonic() - began) // CONFIG_EVENT_SECONDS, told
        assert "limited  user ids" in rootless.run("doctor").stdout
    rootless.kubectl("delete", "pod", "other", "--now")


def test_limits_without_control_groups_are_said(rootless: Instance) -> None:
    """Where an ordinary user may make no control group, the Node's Event and doctor say what stands for limits."""
    told = [e["message"] for e in eventually(lambda: events(rootless, "n1", "LimitsNotHeld"))]
    assert len(told) == 1 and "RLIMIT_DATA" in told[0] and "cpu limits do not hold" in told[0], told
    assert "limited  resource limits" in doctor_inside(rootless)
    container: dict[str, Any] = {"name": "c", "image": "busybox", "command": ["sleep", "600"]}
    container |= {"resources": {"limits": {"memory": "32Mi", "cpu": "100m"}}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    rootless.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited"}, "spec": spec})
    eventually(lambda: condition(rootless.get("pod", "limited"), "Ready") == "True")
    held = rootless.kubectl("exec", "limited", "--", "sh", "-c", "grep -i 'max data size' /proc/1/limits")
    assert str(32 << 20) in held, held
    rootless.kubectl("delete", "pod", "limited", "--now")


def events(instance: Instance, name: str, reason: str) -> list[Any]:
    """Events about an object for a reason; they are written a moment after what they tell of."""
    about = f"involvedObject.name={name},reason={reason}"
    found: list[Any] = instance.get("events", "--field-selector", about)["items"]
    return found


def doctor_inside(instance: Instance) -> str:
    """What doctor says where the user has the grant."""
    import subprocess

    command = instance.granted(instance.command("doctor"))
    return subprocess.run(command, capture_output=True, text=True, env=instance.environment(), check=False).stdout


def test_ctrl_c_leaves_nothing(machine: None) -> None:
    with running_instance(user=USER) as instance:
        assert instance.interrupt() == 0
        assert instance.left_behind() == []
