"""Walk-through B: one file with two objects, many slices, a database outside, an alias (verbatim kubectl)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubesvc.instance.kubectl import find_kubectl

from .harness import EXAMPLES, Instance, addresses, eventually, ready_pods, running_instance

pytestmark = pytest.mark.e2e

ANSWERING = """
import socket, sys
server = socket.create_server(("0.0.0.0", 5432))
while True:
    connection, _ = server.accept()
    connection.sendall(sys.argv[1].encode())
    connection.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as connection:
    print(connection.recv(99).decode())
"""


def ask(instance: Instance, host: str, port: int) -> str:
    """What a TCP server says to a connection from inside a node; the error's name if there is none."""
    done = instance.inside(sys.executable, "-c", ASK, host, str(port), check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_nginx_file(shared: Instance) -> None:
    said = shared.apply(EXAMPLES / "nginx.yaml")
    assert said == "deployment.apps/nginx-deployment created\nservice/nginx-service created\n"
    pods = ready_pods(shared, "app=nginx", 2)
    wanted = ",".join(f"{a}:80" for a in addresses(pods))

    def cell() -> str:
        return shared.kubectl("get", "endpoints", "nginx-service", "--no-headers").split()[1]

    eventually(lambda: ",".join(sorted(cell().split(","))) == wanted)
    row = r"nginx-service-[bcdfghjklmnpqrstvwxz2456789]{5} +IPv4 +80 +([0-9.]+,[0-9.]+) +\S+\n"
    listing = ("endpointslices", "-l", "kubernetes.io/service-name=nginx-service", "--no-headers")
    eventually(lambda: re.fullmatch(row, shared.kubectl("get", *listing)))
    eventually(lambda: "Welcome to nginx" in shared.curl("http://nginx-service.default/").stdout)
    shared.kubectl("delete", "-f", str(EXAMPLES / "nginx.yaml"))
    eventually(lambda: shared.get("endpointslices", "-l", "kubernetes.io/service-name=nginx-service")["items"] == [])


@pytest.fixture()
def database(shared: Instance) -> Iterator[Instance]:
    for name, address in (("db-one", "192.168.49.1/24"), ("db-two", "192.168.49.2/24")):
        program = ("--", sys.executable, "-c", ANSWERING, name)
        shared.run("outside", "add", name, "--name", shared.name, "--address", address, *program)
    yield shared
    for name in ("db-one", "db-two"):
        shared.run("outside", "rm", name, "--name", shared.name)


def test_a_database_outside(database: Instance) -> None:
    """Endpoints made by hand: mirrored, followed when changed, refused when gone; another name changes nothing."""
    instance = database
    service = "external-database-service"
    instance.apply(EXAMPLES / "external-database.yaml")
    eventually(lambda: ask(instance, service + ".default", 5432) == "db-one")
    mirrored = instance.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"]
    labels = mirrored[0]["metadata"]["labels"]
    assert labels["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    instance.apply(endpoints("external-db-service", "192.168.49.2"))
    assert ask(instance, service + ".default", 5432) == "db-one"
    instance.apply(endpoints(service, "192.168.49.2"))
    eventually(lambda: ask(instance, service + ".default", 5432) == "db-two")
    instance.kubectl("delete", "endpoints", service, "external-db-service")
    eventually(lambda: "ConnectionRefused" in ask(instance, service + ".default", 5432))
    eventually(lambda: instance.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"] == [])
    instance.kubectl("delete", "service", service)


def endpoints(name: str, address: str) -> dict[str, Any]:
    subset = {"addresses": [{"ip": address}], "ports": [{"port": 5432}]}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": [subset]}


def test_an_alias_resolves_as_cname(shared: Instance) -> None:
    shared.apply(EXAMPLES / "alias.yaml")
    dns = shared.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]

    def look() -> bool:
        said = shared.inside("dig", "+short", f"@{dns}", "alias.default.svc.cluster.local", "CNAME").stdout
        return said.strip() == "db.example.com."

    eventually(look)
    shared.kubectl("delete", "service", "alias")


def test_250_pods_are_slices_of_100_and_one_death_rewrites_one(machine: None) -> None:
    """SLICE-24: one Pod's change rewrites exactly one slice; Endpoints is rewritten whole."""
    options = ("--nodes", "0", "--simulated-nodes", "3", "--store", "memory")
    with running_instance(*options) as instance:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "big"},
            "spec": {"selector": {"app": "big"}, "ports": [{"port": 80}]},
        }
        container = {"name": "c", "image": "registry.example/simulated"}
        template = {"metadata": {"labels": {"app": "big"}}, "spec": {"containers": [container]}}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "big"},
            "spec": {"replicas": 250, "selector": {"matchLabels": {"app": "big"}}, "template": template},
        }
        instance.apply(service, deployment)

        def sizes() -> list[int]:
            found = instance.get("endpointslices", "-l", "kubernetes.io/service-name=big")["items"]
            ready = [[e for e in s["endpoints"] or [] if e["conditions"]["ready"]] for s in found]
            return sorted(map(len, ready))

        eventually(lambda: sum(sizes()) == 250, every=0.3)
        assert max(sizes()) <= 100 and len(sizes()) >= 3
        with watching(instance, "endpointslices", "-l", "kubernetes.io/service-name=big") as events:
            doomed = instance.get("pods", "-l", "app=big")["items"][0]["metadata"]["name"]
            patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
            words = ("patch", "pod", doomed, "--subresource=status", "-p", json.dumps(patch))
            instance.kubectl(*words)
            eventually(lambda: sum(sizes()) == 249, every=0.2)

            def listed() -> int:
                return sum(len(s.get("addresses") or []) for s in instance.get("endpoints", "big")["subsets"])

            eventually(lambda: listed() == 249)
            changed = eventually(lambda: [e for e in events() if e["type"] != "ADDED"])
        assert len({e["object"]["metadata"]["name"] for e in changed}) == 1, changed


class watching:
    """`kubectl get -w` in the background; calling the value gives the events so far."""

    def __init__(self, instance: Instance, *words: str) -> None:
        program = find_kubectl()
        environment = {**instance.environment(), "KUBECONFIG": str(instance.root / "kubeconfig")}
        self.output = instance.home / "events.json"
        command = [str(program), "get", *words, "-w", "--output-watch-events", "-o", "json"]
        with self.output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, env=environment)

    def __enter__(self) -> Any:
        eventually(lambda: self.events())
        return self.events

    def events(self) -> list[Any]:
        decoder, text, found = json.JSONDecoder(), Path(self.output).read_text(), []
        while text := text.strip():
            try:
                event, end = decoder.raw_decode(text)
            except ValueError:
                break
            found.append(event)
            text = text[end:]
        return found

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
