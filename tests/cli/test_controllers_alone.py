"""`kubesvc controllers` and `kubesvc scheduler` by themselves, each in a process of its own, on an API server that they
reach by a kubeconfig over HTTPS and that runs no controller: one leads by Lease, and a shadow writes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kubesvc.api.kind import Kind
from kubesvc.api.kinds import ENDPOINT_SLICE, ENDPOINTS, LEASE, NODE, POD, SERVICE
from kubesvc.api.meta import Object
from kubesvc.client.http import HttpClient
from kubesvc.client.kubeconfig import Access

T = TypeVar("T")

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-tests"
QUICK = ("--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=5s", "--leader-elect-retry-period=0.3")
"""Who leads gives up when it cannot say so for the second of these: a busy machine must not come near it."""


def eventually(what: Callable[[], T | None], seconds: float = 120.0) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to be")


class Cluster:
    """An API server in a process of its own, and how to reach it."""

    def __init__(self, server: str, kubeconfig: Path) -> None:
        self.server = server
        self.kubeconfig = kubeconfig
        self.processes: list[subprocess.Popen[str]] = []

    def call(self, act: Callable[[HttpClient], Any]) -> Any:
        """One request of a user."""
        import asyncio

        async def main() -> Any:
            client = HttpClient.from_access(Access(self.server, token=TOKEN, insecure=True), "user")
            try:
                return await act(client)
            finally:
                await client.close()

        return asyncio.run(main())

    def create(self, kind: Kind, obj: Object, namespace: str = "default") -> Object:
        found: Object = self.call(lambda c: c.create(kind, obj, namespace))
        return found

    def every(self, kind: Kind, namespace: str = "default") -> list[Object]:
        found = self.call(lambda c: c.list_raw(kind, namespace))
        return [json.loads(raw) for raw in found.items]

    def pod(self, name: str, ip: str) -> None:
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]}
        self.create(POD, {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}
        self.call(lambda c: c.patch(POD, name, "default", {"status": status}, "merge", subresource="status"))

    def listed(self) -> list[str]:
        """The addresses in the slices of Service web."""
        label = "kubernetes.io/service-name"
        slices = [s for s in self.every(ENDPOINT_SLICE) if s["metadata"]["labels"].get(label) == "web"]
        return sorted(a for s in slices for e in s["endpoints"] or () for a in e["addresses"])

    @contextlib.contextmanager
    def command(self, *words: str, dies: bool = False) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
        """`kubesvc …` on this cluster while the block runs, ended as by Ctrl-C; with the lines it prints."""
        process = subprocess.Popen(
            [sys.executable, "-m", "kubesvc", *words, "--kubeconfig", str(self.kubeconfig)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        said: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(target=said.extend, args=(process.stdout,))
        reader.start()
        try:
            yield process, said
            assert dies or process.poll() is None, "it ended by itself"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            finally:
                process.kill()
                process.wait()
                reader.join()
                for pipe in (process.stdout, process.stderr):
                    assert pipe is not None
                    pipe.close()

    def holder(self, name: str) -> str:
        leases = [x for x in self.every(LEASE, "kube-system") if x["metadata"]["name"] == name]
        return leases[0]["spec"].get("holderIdentity") or "" if leases else ""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kubesvc.apiserver", "--store", "memory", "--port", "0", "--admin-token", TOKEN,
         "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"],
        stderr=subprocess.PIPE, text=True, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        server = next(line.strip() for line in process.stderr if line.startswith("https://"))
        drain = threading.Thread(target=list, args=(process.stderr,))
        drain.start()
        kubeconfig = tmp_path / "kubeconfig"
        user = {"name": "u", "user": {"token": TOKEN}}
        place = {"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        kubeconfig.write_text(
            json.dumps({"clusters": [place], "users": [user], "contexts": [context], "current-context": "x"})
        )
        found = Cluster(server, kubeconfig)
        found.create(NODE, {"metadata": {"name": "n1"}}, "")
        selector = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        found.create(SERVICE, {"metadata": {"name": "web"}, "spec": selector})
        yield found
    finally:
        process.terminate()
        process.wait(120)
        drain.join()
        process.stderr.close()


def test_of_two_one_leads_and_the_other_takes_over(cluster: Cluster) -> None:
    """The three endpoint controllers, twice: only the leader writes; when it dies its Lease runs out, and the
    other goes on where it left off."""
    name = "kubesvc-controllers"
    with cluster.command("controllers", *QUICK, dies=True) as (first, _):
        leader = eventually(lambda: cluster.holder(name))
        assert f"_{first.pid}_" in leader
        with cluster.command("controllers", *QUICK) as (second, _):
            cluster.pod("a", "10.1.0.1")
            eventually(lambda: cluster.listed() == ["10.1.0.1"])
            [endpoints] = [e for e in cluster.every(ENDPOINTS) if e["metadata"]["name"] == "web"]
            assert [a["ip"] for s in endpoints["subsets"] for a in s["addresses"]] == ["10.1.0.1"]
            assert cluster.holder(name) == leader, "the second waits"
            first.kill()
            cluster.pod("b", "10.1.0.2")
            eventually(lambda: cluster.listed() == ["10.1.0.1", "10.1.0.2"])
            assert f"_{second.pid}_" in cluster.holder(name)


def test_a_shadow_tells_and_writes_nothing(cluster: Cluster) -> None:
    """Alone it finds everything missing, and nobody's objects change, its Lease included."""
    cluster.pod("a", "10.1.0.1")
    names = ("--controllers", "endpoints-controller,endpointslice-controller")
    with cluster.command("controllers", *names, "--shadow", "--shadow-after=0.5", "--output=json") as (_, said):
        eventually(lambda: len(said) >= 2)
        told = [json.loads(line) for line in said]
        assert {(w["verb"], w["kind"]) for t in told for w in t["writes"]} == {
            ("create", "Endpoints"), ("create", "EndpointSlice"),
        }  # fmt: skip
        assert cluster.listed() == [] and not cluster.holder("kubesvc-controllers")
        assert [e["metadata"]["name"] for e in cluster.every(ENDPOINTS)] == ["kubernetes"]
    with cluster.command("controllers", *names, "--leader-elect=false"):
        eventually(lambda: cluster.listed() == ["10.1.0.1"])
        assert not cluster.holder("kubesvc-controllers"), "nobody was to be elected"
        with cluster.command("controllers", *names, "--shadow", "--shadow-after=0.5", "--output=json") as (_, said):
            for name in ("b", "c", "d", "e"):  # where a machine stands still they may be late once, not every time
                said.clear()
                cluster.pod(name, f"10.1.0.{ord(name)}")
                eventually(lambda: f"10.1.0.{ord(name)}" in cluster.listed())  # noqa: B023
                time.sleep(1.5)
                if not said:
                    break
            assert said == [], "the cluster's own controllers do right"


def test_the_scheduler_alone_binds_pods(cluster: Cluster) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"operator": "Exists"}]}
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    ready = {"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.call(lambda c: c.patch(NODE, "n1", "", {"status": ready}, "merge", subresource="status"))
    cluster.create(POD, {"metadata": {"name": "free"}, "spec": spec})
    with cluster.command("scheduler", *QUICK):
        eventually(lambda: cluster.every(POD)[0]["spec"].get("nodeName") == "n1")
        assert cluster.holder("kubesvc-scheduler")
    eventually(lambda: not cluster.holder("kubesvc-scheduler"))
