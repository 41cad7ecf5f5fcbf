"""A whole instance whose nodes steer packets in another way than usual, or those of both families."""

from __future__ import annotations

import itertools
import json
from functools import partial

import pytest

from .harness import EXAMPLES, eventually, fresh_instance, ready_pods
from .test_packets import echo_pod

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


def test_iptables(machine: None) -> None:
    """Services answer, `iptables -t nat -S` shows them as runbooks say, and status says which way and why."""
    with fresh_instance() as instance:
        instance.up("--proxy-mode", "iptables", "--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        ready_pods(instance, "app=web", 3)
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/").stdout)
        (node,) = json.loads(instance.run("status", "--name", instance.name, "--json").stdout)["nodes"]
        assert node["proxy"]["mode"] == "iptables" and "it was asked for" in node["proxy"]["why"]
        shown = instance.inside("iptables", "-t", "nat", "-S").stdout
        assert shown.count("-j DNAT") >= 3 and "default/web-svc" in shown


def test_userspace(machine: None) -> None:
    """The node's loopback ports are listed by status, and answer there."""
    with fresh_instance() as instance:
        instance.up("--proxy-mode", "userspace", "--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        ready_pods(instance, "app=web", 3)

        def place() -> str:
            (node,) = json.loads(instance.run("status", "--name", instance.name, "--json").stdout)["nodes"]
            assert node["proxy"]["mode"] == "userspace"
            return next((p["at"] for p in node.get("ports", ()) if p["service"] == "default/web-svc"), "")

        at = eventually(place)
        eventually(lambda: "nginx" in instance.curl(f"http://{at}/").stdout)


def test_both_families(machine: None) -> None:
    """PROXY-126: from both nodes and their Pods each family's addresses lead to the endpoints of both nodes, over a
    ClusterIP and a node port; nodes and Pods say which addresses they have, and names have both."""
    with fresh_instance() as instance:
        instance.up(
            "--nodes", "2", "--store", "memory",
            "--cluster-cidr", "10.244.0.0/16,fd00:244::/56", "--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112",
        )  # fmt: skip
        ports = [{"name": "web", "port": 80, "targetPort": 8080}]
        spec = {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "both"}, "ports": ports}
        pods = [echo_pod(f"both-{n}", f"n{n}") for n in (1, 2)]
        for pod in pods:
            pod["metadata"]["labels"] = {"app": "both"}
        instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both"}, "spec": spec}, *pods)
        ready_pods(instance, "app=both", 2)
        made = instance.get("service", "both")["spec"]
        port = made["ports"][0]["nodePort"]
        hosts = [f"[{a}]" if ":" in a else a for a in made["clusterIPs"]]
        reached = [*hosts, f"172.30.0.11:{port}", f"[fd00:172:30::12]:{port}"]
        assert len(reached) == 4
        for node in instance.get("nodes")["items"]:
            inside = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
            assert [":" in a for a in inside] == [False, True]
        assert [":" in a["ip"] for a in instance.get("pod", "both-1")["status"]["hostIPs"]] == [False, True]

        def answering(at: str, node: str) -> set[str]:
            """Who answers twenty connections from a node, or from the Pod `both-1` if none is named."""
            urls = [f"http://{at}/hostname?{n}" for n in range(20)]
            ask = ("curl", "-s", "-g", "-m", "5", "-H", "Connection: close", "-w", "\\n", *urls)
            if not node:
                return set(instance.kubectl("exec", "both-1", "--", *ask, check=False).split())
            return set(instance.inside(*ask, node=node, check=False).stdout.split())

        for at, node in itertools.product(reached, ("n1", "n2", "")):
            eventually(partial(lambda at, node: answering(at, node) == {"both-1", "both-2"}, at, node))
        found = instance.kubectl("exec", "both-1", "--", "getent", "ahosts", "both")
        assert {line.split()[0] for line in found.splitlines()} == set(made["clusterIPs"])


def test_ipv6_alone(machine: None) -> None:
    """Pods that have nothing but IPv6 reach names, the API server and Services; an address of each is told (KSVC-3)."""
    with fresh_instance() as instance:
        instance.up(
            "--store", "memory", "--cluster-cidr", "fd00:244::/56", "--service-cluster-ip-range", "fd00:96::/112"
        )
        pod = echo_pod("one", "n1")
        pod["metadata"]["labels"] = {"app": "six"}
        spec = {"selector": {"app": "six"}, "ports": [{"port": 80, "targetPort": 8080}]}
        instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "six"}, "spec": spec}, pod)
        (ready,) = ready_pods(instance, "app=six", 1)
        assert [":" in a["ip"] for a in ready["status"]["podIPs"]] == [True]
        authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

        def asked(*command: str) -> str:
            return instance.kubectl("exec", "one", "--", "curl", "-s", "-m", "5", *command, check=False)

        eventually(lambda: '"gitVersion"' in asked("--cacert", authority, "https://kubernetes.default/version"))
        eventually(lambda: asked("http://six/hostname") == "one")
        eventually(lambda: instance.curl("http://six.default/hostname").stdout == "one")
