"""Manifests written for clouds: a Service of type LoadBalancer answers outsiders, Pods and the host."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Instance, eventually, ready_pods
from .test_packets import AGNHOST

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OUTSIDE = "192.168.77.1"


@pytest.fixture(scope="module")
def balanced(shared: Instance) -> Iterator[Instance]:
    """One Pod on each node behind Service `balanced`, and a host outside."""
    for node in ("n1", "n2"):
        container = {
            "name": "c",
            "image": AGNHOST,
            "args": ["netexec", "--http-port=8080"],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        }
        shared.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"balanced-{node}", "labels": {"app": "balanced"}},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
            }
        )
    shared.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "balanced"},
            "spec": {
                "type": "LoadBalancer",
                "selector": {"app": "balanced"},
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }
    )
    shared.run("outside", "add", "client", "--name", shared.name, "--address", f"{OUTSIDE}/24")
    ready_pods(shared, "app=balanced", 2)
    yield shared
    shared.run("outside", "rm", "client", "--name", shared.name)
    shared.kubectl("delete", "service/balanced", "pod/balanced-n1", "pod/balanced-n2", "--now", "--ignore-not-found")


def vip(instance: Instance) -> str:
    ingress = instance.get("service", "balanced")["status"]["loadBalancer"].get("ingress") or []
    assert [i["ipMode"] for i in ingress] == ["VIP"]
    return str(ingress[0]["ip"])


def ask(instance: Instance, path: str, seconds: int = 20) -> str:
    """What the host outside is answered; "" without an answer."""
    url = f"http://{vip(instance)}{path}"
    command = ("outside", "exec", "client", "--name", instance.name, "--", "curl", "-sS", "-m", str(seconds), url)
    return instance.run(*command, check=False).stdout


def patch(instance: Instance, **spec: Any) -> None:
    instance.kubectl("patch", "service", "balanced", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_outsiders_the_host_and_pods_are_answered(balanced: Instance) -> None:
    address = eventually(lambda: vip(balanced))
    pods = {"balanced-n1", "balanced-n2"}
    eventually(lambda: ask(balanced, "/hostname") in pods)
    eventually(lambda: {ask(balanced, "/hostname") for _ in range(6)} == pods)  # once all nodes have the rules
    client = ask(balanced, "/clientip").rsplit(":", 1)[0]
    assert client in ("172.30.0.11", "172.30.0.12"), "masqueraded by the node it came to (PROXY-47)"
    # A Pod is never sent out to the balancer (PROXY-48).
    said = balanced.kubectl("exec", "balanced-n1", "--", "curl", "-sS", "-m", "20", f"http://{address}/hostname")
    assert said in pods

    def told() -> list[Any]:
        status = json.loads(balanced.run("status", "--name", balanced.name, "--json").stdout)
        return [b for b in status["loadBalancers"] if b["service"] == "default/balanced"]

    (shown,) = eventually(told)
    assert (shown["address"], shown["ports"]) == (address, ["80/TCP"])
    with urllib.request.urlopen(f"http://{shown['host']}/hostname", timeout=60) as answer:
        assert answer.read().decode() in pods

    def reasons() -> set[str]:
        events = balanced.get("events", "--field-selector", "involvedObject.name=balanced")["items"]
        return {e["reason"] for e in events}

    eventually(lambda: {"EnsuringLoadBalancer", "EnsuredLoadBalancer"} <= reasons())


def test_source_ranges_and_the_local_policy(balanced: Instance) -> None:
    eventually(lambda: ask(balanced, "/hostname"))
    patch(balanced, loadBalancerSourceRanges=["192.0.2.0/24"])
    eventually(lambda: ask(balanced, "/hostname", 2) == "")  # PROXY-51
    patch(balanced, loadBalancerSourceRanges=[f"{OUTSIDE}/32"])
    eventually(lambda: ask(balanced, "/hostname") != "")
    patch(balanced, loadBalancerSourceRanges=None, externalTrafficPolicy="Local")
    eventually(lambda: ask(balanced, "/clientip").startswith(OUTSIDE))  # PROXY-46
    balanced.kubectl("delete", "pod", "balanced-n1", "--now")
    eventually(lambda: {ask(balanced, "/hostname") for _ in range(8)} == {"balanced-n2"})


def test_its_end_gives_the_address_back(balanced: Instance) -> None:
    address = eventually(lambda: vip(balanced))
    balanced.kubectl("delete", "service", "balanced", "--timeout=120s")
    eventually(lambda: address not in balanced.run("status", "--name", balanced.name).stdout)
