"""Manifests written for clouds: a Service of type LoadBalancer answers outsiders, Pods and the host."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from .harness import Instance, eventually, fresh_instance, ready_pods
from .test_packets import AGNHOST, echo_pod

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


def from_here(host: str) -> str:
    """What this host is answered; what is told of may begin to listen a moment later."""
    with urllib.request.urlopen(f"http://{host}/hostname", timeout=60) as answer:
        return str(answer.read().decode())


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
    eventually(lambda: from_here(shown["host"]) in pods)

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


OUTSIDE_6 = "fd77::1"
BOTH = ("--cluster-cidr", "10.244.0.0/16,fd00:244::/56", "--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112")


def test_both_families(machine: None) -> None:
    """PROXY-126: a Service of both families has an address of each, which leads a host outside, nodes, Pods and this
    host to the endpoints of both nodes; and to those of the node that has any under the local policy."""
    with fresh_instance() as instance:
        instance.up("--nodes", "2", "--store", "memory", *BOTH)
        instance.run("outside", "add", "client", "--name", instance.name, "--address", f"{OUTSIDE}/24,{OUTSIDE_6}/64")
        pods = [echo_pod(f"both-{n}", f"n{n}") for n in (1, 2)]
        spec = {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "packets"},
            "ports": [{"port": 80, "targetPort": 8080}],
        }
        instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both"}, "spec": spec}, *pods)
        ready_pods(instance, "app=packets", 2)

        def given() -> list[str]:
            ingress = instance.get("service", "both")["status"]["loadBalancer"].get("ingress") or []
            return [i["ip"] for i in ingress]

        addresses = eventually(given)
        assert addresses == ["172.31.0.1", "fd00:172:31::1"]

        def told() -> list[dict[str, Any]]:
            found = json.loads(instance.run("status", "--name", instance.name, "--json").stdout)["loadBalancers"]
            return found if [b["address"] for b in found] == addresses else []

        def answering(who: str, host: str, path: str = "hostname") -> set[str]:
            """Who answers twenty connections; nobody if one of them is not answered."""
            at = f"[{host}]" if ":" in host else host
            urls = [f"http://{at}/{path}?{n}" for n in range(20)]
            ask = ("curl", "-s", "-g", "-m", "5", "--fail-early", "-H", "Connection: close", "-w", "\\n", *urls)
            if who == "outside":
                said = instance.run(
                    "outside", "exec", "client", "--name", instance.name, "--", *ask, check=False
                ).stdout
            elif who == "pod":
                said = instance.kubectl("exec", "both-1", "--", *ask, check=False)
            else:
                said = instance.inside(*ask, check=False).stdout
            return set(said.split()) if len(said.split()) == 20 else set()

        whole = {"both-1", "both-2"}
        for address in addresses:
            for who in ("outside", "pod", "node"):
                eventually(partial(lambda who, host: answering(who, host) == whole, who, address))
        for shown in eventually(told):
            eventually(partial(lambda host: from_here(host) in whole, shown["host"]))
        eventually(lambda: instance.run("why", "svc/both", "--name", instance.name, check=False).returncode == 0)

        instance.kubectl("patch", "service", "both", "-p", '{"spec": {"externalTrafficPolicy": "Local"}}')
        instance.kubectl("delete", "pod", "both-1", "--now")
        eventually(lambda: answering("outside", addresses[1]) == {"both-2"})
        # Nobody stands between (PROXY-46): every connection comes to the node of the endpoint.
        eventually(
            lambda: {c.rpartition(":")[0] for c in answering("outside", addresses[1], "clientip")} == {OUTSIDE_6}
        )
