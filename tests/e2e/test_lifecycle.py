"""Starting, ending, crashing and starting again: what is kept, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .harness import EXAMPLES, Instance, eventually, fresh_instance, ready_pods

pytestmark = pytest.mark.e2e


def test_ctrl_c_leaves_nothing_behind(machine: None) -> None:
    with fresh_instance() as instance:
        line = instance.up("--nodes", "2", "--store", "memory")
        assert line.startswith("kubesvc is ready in ") and f"export KUBECONFIG={instance.root}/kubeconfig" in line
        instance.apply(EXAMPLES / "web-deployment.yaml")
        ready_pods(instance, "app=web", 3)
        assert instance.interrupt() == 0
        assert instance.left_behind() == []


BEGINNING = """
import sys
class Begun:
    def find_spec(name, *_):
        if name == "kubesvc.cli":
            print("begun", flush=True)
sys.meta_path.insert(0, Begun)
from kubesvc.__main__ import main
sys.exit(main())
"""
"""Does as the command `kubesvc`, and says when that has begun: what Ctrl-C does before is Python's own affair."""


@pytest.mark.parametrize(("more", "moments"), [((), (70, 200, 350, 550, 850)), (("--detach",), (250, 550))])
def test_ctrl_c_while_starting(machine: None, more: tuple[str, ...], moments: tuple[int, ...]) -> None:
    """At many moments of the start: the end is orderly and leaves nothing, also of what has a session of its own."""
    with fresh_instance() as instance:
        for milliseconds in moments:
            words = ("up", "--name", instance.name, "--nodes", "2", "--store", "memory", *more)
            process = subprocess.Popen(
                [sys.executable, "-c", BEGINNING, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=instance.environment(),
                start_new_session=True,
            )
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
            assert "Traceback" not in errors, errors
            if more and process.returncode == 0:  # a fast machine: it was ready before, and ran on
                instance.down()
            assert instance.left_behind() == []


def test_pods_run_again_from_the_same_store(machine: None) -> None:
    with fresh_instance() as instance:
        instance.up()
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        before = {p["metadata"]["uid"] for p in ready_pods(instance, "app=web", 3)}
        address = instance.get("service", "web-svc")["spec"]["clusterIP"]
        authority = (instance.root / "pki" / "ca.crt").read_bytes()
        instance.interrupt()
        instance.up()
        assert {p["metadata"]["uid"] for p in ready_pods(instance, "app=web", 3)} == before
        assert instance.get("service", "web-svc")["spec"]["clusterIP"] == address
        assert (instance.root / "pki" / "ca.crt").read_bytes() == authority
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/").stdout)


@pytest.mark.parametrize("victim", ["control", "node", "ground", "fabric"])
def test_kill_9_and_down(machine: None, victim: str) -> None:
    with fresh_instance() as instance:
        instance.up("--nodes", "2", "--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml")
        ready_pods(instance, "app=web", 3)
        record = instance.record
        node = record.nodes[0]
        process = {"control": record.control, "node": node.agent, "ground": node.ground, "fabric": record.fabric}[
            victim
        ]
        assert process is not None and process.kill(signal.SIGKILL)
        time.sleep(0.3)
        instance.down()
        assert instance.left_behind() == []


def bearer_of(instance: Instance, token: str) -> dict[str, Any]:
    """Who somebody with this token is, asked over TLS with the instance's own authority."""
    url = f"https://{instance.record.loopback}:{instance.record.port}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    context = ssl.create_default_context(cafile=str(instance.root / "pki/ca.crt"))
    request = urllib.request.Request(url, json.dumps(review).encode(), headers)
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        found: dict[str, Any] = json.load(answer)["status"]["userInfo"]
    return found


def test_kill_9_of_the_control_process_and_up_again(machine: None) -> None:
    """The next `up` clears away what a crash left, and nothing acknowledged is lost; tokens hold on (AUTH-6)."""
    with fresh_instance() as instance:
        instance.up()
        instance.apply(EXAMPLES / "web-svc.yaml")
        eventually(lambda: instance.try_kubectl("get", "serviceaccount", "default").returncode == 0)
        token = instance.kubectl("create", "token", "default").strip()
        before = bearer_of(instance, token)
        assert before["username"] == "system:serviceaccount:default:default"
        assert instance.process is not None
        instance.process.kill()
        instance.process.wait()
        assert "its control process is gone" in instance.run("status", "--name", instance.name, check=False).stdout
        instance.up()
        assert instance.get("service", "web-svc")["spec"]["selector"] == {"app": "web"}
        assert bearer_of(instance, token) == before


def test_a_dead_node_process_is_started_again_and_its_pods_go_on(machine: None) -> None:
    with fresh_instance() as instance:
        instance.up("--store", "memory")
        instance.apply(EXAMPLES / "web-deployment.yaml", EXAMPLES / "web-svc.yaml")
        pods = ready_pods(instance, "app=web", 3)
        agent = instance.record.nodes[0].agent
        assert agent is not None and agent.kill(signal.SIGKILL)
        eventually(lambda: (now := instance.record.nodes[0].agent) is not None and now != agent and now.alive())
        again = ready_pods(instance, "app=web", 3)
        assert {p["metadata"]["uid"] for p in pods} == {p["metadata"]["uid"] for p in again}
        eventually(lambda: "nginx" in instance.curl("http://web-svc.default/").stdout)


def test_detach_status_down(machine: None) -> None:
    with fresh_instance() as instance:
        said = instance.run("up", "--name", instance.name, "--detach", "--store", "memory").stdout
        assert said.startswith("kubesvc is ready in ")
        status = instance.run("status", "--name", instance.name).stdout
        assert "ready, pid" in status and "node n1" in status and "node ports  on 127." in status
        refused = instance.run("up", "--name", instance.name, check=False)
        assert refused.returncode == 1 and "is running already\nnext: " in refused.stderr
        assert instance.down() == f"{instance.name}: stopped\n"
        assert instance.left_behind() == []


def test_two_instances_side_by_side(machine: None) -> None:
    with fresh_instance() as first:
        second = Instance(first.home, "u")
        first.up("--store", "memory")
        second.up("--store", "memory")
        try:
            assert first.record.loopback != second.record.loopback
            first.kubectl("create", "configmap", "only-here")
            assert "only-here" not in second.kubectl("get", "configmaps", "-o", "name")
            assert second.kubectl("get", "nodes", "-o", "name") == "node/n1\n"
        finally:
            assert second.interrupt() == 0
        assert second.left_behind() == []


REFUSED = ("a taken port", "a store in a directory that is not there", "a store that is a directory")


@pytest.mark.parametrize("what", REFUSED)
def test_a_start_that_cannot_be_says_why_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    with fresh_instance() as instance, socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options, words = {
            "a taken port": (("--port", port), f"{port} cannot be listened on"),
            "a store in a directory that is not there": (("--store", "/nowhere/store"), "/nowhere"),
            "a store that is a directory": (("--store", str(tmp_path)), str(tmp_path)),
        }[what]
        done = instance.run("up", "--name", instance.name, "--nodes", "0", *options, check=False)
        assert done.returncode == 1 and words in done.stderr, done
        assert "\nnext: " in done.stderr and "Traceback" not in done.stderr
        assert instance.left_behind() == []


def test_nodes_0_needs_no_privilege(tmp_path: Path) -> None:
    """As an ordinary user without namespaces: API and controllers."""
    with fresh_instance(user="nobody") as instance:
        instance.up("--nodes", "0", "--store", "memory")
        assert "default" in instance.kubectl("get", "namespaces")
        assert instance.interrupt() == 0


def test_doctor(machine: None) -> None:
    with fresh_instance() as instance:
        said = instance.run("doctor").stdout
        for name in ("namespaces", "service traffic", "veth", "bridge", "forwarding", "IPv6"):
            assert f"ok       {name}" in said, said
        assert os.linesep in said
