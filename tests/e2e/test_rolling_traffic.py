"""Traffic while endpoints come and go: nothing is sent to an endpoint that has left the kernel's rules, and a rollout
that lets its Pods finish loses no request."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .harness import PATIENCE_SECONDS, ROOT, Instance, eventually, ready_pods

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("numbering.py")
PORT = 7000


class Message(NamedTuple):
    protocol: str
    number: int
    sent: float
    done: float
    answered: str
    """The endpoint's address, or "! " and what went wrong."""


def misled(messages: list[Message], gone: dict[str, list[list[float]]]) -> list[str]:
    """Messages that an endpoint answered although it was gone from before they were sent until after they were
    answered."""
    return [
        f"{m.protocol} {m.number} to {m.answered} at {m.sent:.3f}"
        for m in messages
        if any(since < m.sent and m.done < until for since, until in gone.get(m.answered, ()))
    ]


def test_offences_are_seen() -> None:
    """The judge itself: before, while it was gone, and while it left or came back."""
    gone = {"a": [[2.0, 3.0]]}
    cases = ((1.5, 1.6, False), (2.5, 2.6, True), (2.95, 3.05, False), (1.95, 2.05, False), (3.5, 3.6, False))
    for sent, done, offence in cases:
        assert bool(misled([Message("udp", 1, sent, done, "a")], gone)) == offence, sent


def pod(name: str, node: str, **more: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM.read_text(), "serve", "$(POD_IP)", str(PORT)]
    env = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    container = {
        "name": "c",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.60",
        "command": command,
        "env": env,
        **more,
    }
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    metadata = {"name": name, "labels": {"app": "rolling", "in": "yes"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def rolling(instance: Instance, turns: int) -> None:
    """Label Pods out of a Service and in again while one client numbers its messages; the Pods live on, so that
    whatever is still sent to one is answered and told."""
    ports = [{"name": p.lower(), "protocol": p, "port": PORT, "targetPort": PORT} for p in ("UDP", "TCP")]
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "rolling"},
        "spec": {"selector": {"app": "rolling", "in": "yes"}, "ports": ports},
    }  # fmt: skip
    instance.apply(service, *(pod(f"rolling-{i}", f"n{i % 2 + 1}") for i in range(3)))
    places = {p["metadata"]["name"]: p["status"]["podIP"] for p in ready_pods(instance, "app=rolling", 3)}
    for name in places:  # a Pod is ready before its program listens
        eventually(lambda name=name: "serving" in instance.kubectl("logs", name))  # type: ignore[misc]
    address = instance.get("service", "rolling")["spec"]["clusterIP"]
    instance.run("wait", "svc/rolling", "--name", instance.name, "--timeout", "120")
    command = instance.command("shell", "--name", instance.name, "--node", "n1", "--",
                               sys.executable, str(PROGRAM), "send", address, str(PORT))  # fmt: skip
    environment = {**instance.environment(), "PYTHONPATH": str(ROOT / "src")}
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    limit = threading.Timer(PATIENCE_SECONDS + 10.0 * turns, client.kill)
    limit.start()
    assert client.stdout is not None
    try:
        there = {client.stdout.readline() for _ in places}
        assert there == {f"there {a}\n" for a in places.values()}
        choose = random.Random(7)
        for _ in range(turns):
            name = f"rolling-{choose.randrange(3)}"
            instance.kubectl("label", "pod", name, "in=no", "--overwrite")
            assert client.stdout.readline() == f"gone {places[name]}\n"
            time.sleep(0.2)
            instance.kubectl("label", "pod", name, "in=yes", "--overwrite")
            assert client.stdout.readline() == f"there {places[name]}\n"
        said, _ = client.communicate()
    finally:
        limit.cancel()
        client.kill()
    instance.kubectl("delete", "service/rolling", *(f"pod/{name}" for name in places), "--now")
    report = json.loads(said)
    messages = [Message(*m) for m in report["messages"]]
    changes = sum(len(spans) for spans in report["gone"].values())
    answered = {p: [m for m in messages if m.protocol == p and not m.answered.startswith("!")] for p in ("udp", "tcp")}
    assert len(answered["udp"]) > 50 and len(answered["tcp"]) > 50, messages[-5:]
    assert changes >= turns
    assert misled(messages, report["gone"]) == []
    lost = [m for m in messages if m.protocol == "tcp" and m.answered.startswith("!")]
    assert lost == [], "two endpoints were always there"


def test_nothing_is_sent_to_an_endpoint_that_is_gone(shared: Instance) -> None:
    rolling(shared, turns=2)


@pytest.mark.soak
def test_nothing_is_sent_to_an_endpoint_that_is_gone_for_long(shared: Instance) -> None:
    rolling(shared, turns=40)


@pytest.mark.soak
def test_a_rollout_that_lets_its_pods_finish_loses_no_request(shared: Instance) -> None:
    """A preStop of one second covers the time until every node's rules follow."""
    container = {
        "name": "c",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.60",
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    template = {"metadata": {"labels": {"app": "graceful"}}, "spec": {"containers": [container]}}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "graceful"}}, "template": template, "strategy": strategy}
    ports = [{"port": 80, "targetPort": 8080}]
    shared.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "graceful"}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "graceful"},
         "spec": {"selector": {"app": "graceful"}, "ports": ports}},
    )  # fmt: skip
    ready_pods(shared, "app=graceful", 3)
    address = shared.get("service", "graceful")["spec"]["clusterIP"]
    eventually(lambda: shared.curl(f"http://{address}/hostname").returncode == 0)
    before = {p["metadata"]["name"] for p in ready_pods(shared, "app=graceful", 3)}
    script = (
        "import http.client, sys, time\n"
        "ok, failed = 0, []\n"
        "while not sys.stdin.closed and time.monotonic() < end:\n"
        "    try:\n"
        "        c = http.client.HTTPConnection(sys.argv[1], timeout=2); c.request('GET', '/hostname')\n"
        "        assert c.getresponse().status == 200; ok += 1\n"
        "    except Exception as error: failed.append(repr(error))\n"
        "    time.sleep(0.005)\n"
        "print(ok, failed)\n"
    ).replace("ok, failed = 0, []", "ok, failed, end = 0, [], time.monotonic() + float(sys.argv[2])")
    results: list[str] = []
    clients = [
        threading.Thread(
            target=lambda n=node: results.append(
                shared.inside(sys.executable, "-c", script, address, "25", node=n).stdout
            )
        )
        for node in ("n1", "n2")
    ]
    for client in clients:
        client.start()
    time.sleep(1)
    shared.kubectl("rollout", "restart", "deployment/graceful")
    shared.kubectl("rollout", "status", "deployment/graceful", "--timeout=120s")
    for client in clients:
        client.join()
    after = {p["metadata"]["name"] for p in ready_pods(shared, "app=graceful", 3)}
    shared.kubectl("delete", "deployment/graceful", "service/graceful")
    assert not before & after
    for said in results:
        count, _, failed = said.partition(" ")
        assert int(count) > 100
        assert failed.strip() == "[]"
