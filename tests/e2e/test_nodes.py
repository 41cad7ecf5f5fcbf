"""Nodes that lose power or their network: what the cluster makes of it, and how they come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .harness import EXAMPLES, Instance, eventually, fresh_instance, ready_pods

pytestmark = pytest.mark.e2e


def condition(instance: Instance, node: str) -> str:
    conditions = instance.get("node", node)["status"]["conditions"]
    return str(next(c["status"] for c in conditions if c["type"] == "Ready"))


def ready_addresses(instance: Instance) -> set[str]:
    slices = instance.get("endpointslices")["items"]
    return {
        address
        for s in slices
        if s["metadata"]["labels"].get("kubernetes.io/service-name") == "web-svc"
        for e in s["endpoints"] or ()
        if e["conditions"]["ready"]
        for address in e["addresses"]
    }


def by_node(pods: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pod in pods:
        found.setdefault(pod["spec"]["nodeName"], set()).add(pod["status"]["podIP"])
    return found


def test_power_and_network(machine: None) -> None:
    """NODE-85: silent for its grace a node is Unknown, its Pods unready and unlisted; they come back with it."""
    with fresh_instance() as instance:
        instance.up("--nodes", "2", "--store", "memory", "--node-monitor-grace-period", "20s")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        pods = ready_pods(instance, "app=web", 3)
        where = by_node(pods)
        assert set(where) == {"n1", "n2"}
        everybody = where["n1"] | where["n2"]
        eventually(lambda: ready_addresses(instance) == everybody)

        said = instance.run("nodes", "partition", "n2", "--name", instance.name).stdout
        assert "cut off" in said
        states = json.loads(instance.run("nodes", "--json", "--name", instance.name).stdout)
        assert [n["state"] for n in states] == ["running", "partitioned"]
        far = next(p["metadata"]["name"] for p in pods if p["spec"]["nodeName"] == "n2")
        assert "cannot be reached" in instance.try_kubectl("logs", far).stderr
        again = instance.run("nodes", "partition", "n2", "--name", instance.name, check=False)
        assert again.returncode == 1 and "next: kubesvc nodes heal n2" in again.stderr
        # silent for its grace the node is Unknown, and its Pods leave the lists
        eventually(lambda: condition(instance, "n2") == "Unknown")
        eventually(lambda: ready_addresses(instance) == where["n1"])
        # what the API lists the node's proxy learns a moment later
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/", seconds=5).stdout)

        instance.run("nodes", "heal", "n2", "--name", instance.name)
        eventually(lambda: condition(instance, "n2") == "True")
        eventually(lambda: ready_addresses(instance) == everybody)
        assert by_node(ready_pods(instance, "app=web", 3)) == where  # nothing was started anew

        instance.run("nodes", "stop", "n2", "--name", instance.name)
        assert "STOPPED" in instance.run("status", "--name", instance.name).stdout
        instance.run("nodes", "start", "n2", "--name", instance.name)

        def restarted() -> bool:
            there = [p for p in ready_pods(instance, "app=web", 3) if p["spec"]["nodeName"] == "n2"]
            return bool(there) and all(p["status"]["containerStatuses"][0]["restartCount"] == 1 for p in there)

        eventually(restarted)
        boots = instance.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.bootID}").split()
        assert len(set(boots)) == 2
        told = eventually(lambda: instance.get("events", "--field-selector=reason=Rebooted")["items"])
        assert [e["message"] for e in told] == [f"Node n2 has been rebooted, boot id: {boots[1]}"]  # NODE-93
        eventually(
            lambda: ready_addresses(instance) == set().union(*by_node(ready_pods(instance, "app=web", 3)).values())
        )
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/", node="n2", seconds=5).stdout)
        assert "no node 'n7'" in instance.run("nodes", "stop", "n7", "--name", instance.name, check=False).stderr
