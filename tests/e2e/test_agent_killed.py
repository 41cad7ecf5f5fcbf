"""`kill -9` of a node's process in the middle of everything: afterwards all is as declared, and what ran, runs on."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import Any

import pytest

from .harness import Instance, eventually, ready_pods, running_instance

pytestmark = pytest.mark.e2e

KILLS = 3
COUNTING = "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo $n; echo $n > /kept/n; sleep 0.05; done"


def counting() -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", COUNTING],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/kept/n"]}, "periodSeconds": 1, "timeoutSeconds": 30},
        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 30},
    }
    spec = {"containers": [container], "volumes": [{"name": "kept", "emptyDir": {}}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "counting"}, "spec": spec}


def deployment(name: str, replicas: int, **fields: Any) -> dict[str, Any]:
    server = {"image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=-1"]}
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 30}
    container = {"name": "c", **server, "readinessProbe": probe, **fields}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def kill_agent(instance: Instance) -> None:
    """Kill it and wait until another one runs."""
    agent = instance.record.nodes[0].agent
    assert agent is not None and agent.kill(signal.SIGKILL)
    eventually(lambda: (now := instance.record.nodes[0].agent) is not None and now != agent and now.alive())


def test_all_is_as_declared_afterwards(machine: None) -> None:
    with running_instance("--nodes", "1", "--store", "memory") as instance:
        instance.apply(counting(), deployment("kept", 2), deployment("grows", 1), deployment("shrinks", 3))
        spec = {"selector": {"app": "kept"}, "ports": [{"port": 80, "targetPort": 8080}]}
        instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kept"}, "spec": spec})
        kept = ready_pods(instance, "app=kept", 2)
        ready_pods(instance, "app=shrinks", 3)
        eventually(lambda: instance.get("pod", "counting")["status"]["containerStatuses"][0]["ready"])
        kept.append(instance.get("pod", "counting"))
        moments = random.Random(5)
        for turn in range(KILLS):
            instance.kubectl("scale", "deployment/grows", f"--replicas={2 + turn}")
            instance.kubectl("scale", "deployment/shrinks", f"--replicas={2 - turn}")
            instance.kubectl("set", "env", "deployment/grows", f"TURN={turn}")
            time.sleep(moments.random() * 0.6)
            kill_agent(instance)
        instance.kubectl("rollout", "status", "deployment/grows", "--timeout=120s")
        ready_pods(instance, "app=grows", KILLS + 1)
        eventually(lambda: instance.get("pods", "-l", "app=shrinks")["items"] == [])
        eventually(lambda: len(instance.get("pods", "-l", "app=grows")["items"]) == KILLS + 1)  # none is still ending
        for pod in kept:
            now = instance.get("pod", pod["metadata"]["name"])
            assert now["metadata"]["uid"] == pod["metadata"]["uid"]
            assert now["status"]["podIP"] == pod["status"]["podIP"]
            was, status = pod["status"]["containerStatuses"][0], now["status"]["containerStatuses"][0]
            assert (status["containerID"], status["restartCount"], status["state"]) == (
                was["containerID"], 0, was["state"],
            )  # fmt: skip
            assert status["ready"] is True
        # the agent that was killed last may still be on its way back
        said = eventually(lambda: (done := instance.try_kubectl("logs", "counting")).returncode == 0 and done.stdout)
        numbers = [int(line) for line in said.split()]
        assert numbers == sorted(set(numbers)), "lines were told twice"
        # an agent that is killed between its read and its write takes what it has read with it
        assert numbers[-1] - len(numbers) <= KILLS, "lines were lost"
        eventually(lambda: instance.curl("http://kept.default/hostname").returncode == 0)  # its DNS is back, too
        answers = [instance.curl("http://kept.default/hostname").stdout for _ in range(6)]
        assert set(answers) <= {p["metadata"]["name"] for p in kept} and "" not in answers
        held = json.loads(instance.kubectl("get", "pods", "-o", "json"))["items"]
        addresses = {p["status"]["podIP"] for p in held}
        assert len(addresses) == len(held), "an address was given twice"
        wanted = {a for a in addresses if a.startswith("10.")}
        routes = instance.inside("ip", "-o", "route").stdout
        assert {line.split()[0] for line in routes.splitlines() if " dev pod" in line} == wanted
        links = instance.inside("ip", "-o", "link").stdout.splitlines()
        assert len([line for line in links if line.split()[1].startswith("pod")]) == len(held), links
