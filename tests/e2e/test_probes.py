"""The probe table: each kind of probe by success, failure, timeout and flap, with its slice watched in time.

One Pod for each kind, all in one Service. The slice's conditions turn at the failureThreshold-th failure, as soon after
a success, and stay through a flap that never reaches the threshold (NODE-33, NODE-35, NODE-39, NODE-42, NODE-43).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .answering import HOST
from .harness import Instance, UnixConnection, eventually, running_instance

pytestmark = pytest.mark.e2e

PERIOD, TIMEOUT, FAILURES = 1.0, 1.0, 2
SLACK_SECONDS = 2.0
"""What a busy machine may add to what the probes' fields give."""
HEADERS = [{"name": "Host", "value": HOST}, {"name": "X-Probe", "value": "yes"}]
HANDLERS: dict[str, dict[str, Any]] = {
    "http": {"httpGet": {"port": "web", "path": "/start", "httpHeaders": HEADERS}},
    "https": {"httpGet": {"port": 8001, "scheme": "HTTPS"}},
    "tcp": {"tcpSocket": {"port": 8002}},
    "grpc": {"grpc": {"port": 8003}},
    "exec": {"exec": {"command": ["python3", "/answering/answering.py", "/answering", "exec"]}},
}


class Seen(NamedTuple):
    """One state of an endpoint, as the watch brought it."""

    at: float
    ready: bool
    serving: bool
    terminating: bool


class Table:
    """The five Pods, and what was seen of their endpoints."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.directory = directory
        self.seen: dict[str, list[Seen]] = {kind: [] for kind in HANDLERS}
        self.gone: dict[str, float] = {}

    def say(self, word: str) -> float:
        """Let every kind answer so from now on; when that was."""
        for kind in HANDLERS:
            draft = self.directory / f".{kind}"
            draft.write_text(word)
            draft.replace(self.directory / kind)
        return time.monotonic()

    def follow(self) -> None:
        connection = UnixConnection(self.instance.root / "api.sock")
        selector = "labelSelector=kubernetes.io/service-name%3Dprobed"
        connection.request("GET", f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?watch=1&{selector}")
        answer = connection.getresponse()
        while line := answer.readline():
            now, there = time.monotonic(), set()
            for endpoint in json.loads(line)["object"].get("endpoints") or ():
                kind, conditions = endpoint["targetRef"]["name"], endpoint["conditions"]
                there.add(kind)
                state = Seen(now, conditions["ready"], conditions["serving"], conditions["terminating"])
                if not self.seen[kind] or self.seen[kind][-1][1:] != state[1:]:
                    self.seen[kind].append(state)
            for kind in HANDLERS:
                if kind not in there and self.seen[kind]:
                    self.gone.setdefault(kind, now)

    def ready(self, kind: str) -> bool:
        return bool(self.seen[kind]) and self.seen[kind][-1].ready

    def turned(self, since: float, *, ready: bool) -> dict[str, float]:
        """Seconds after `since` at which each kind's endpoint became so; waits until all have."""
        eventually(lambda: all(self.ready(kind) == ready for kind in HANDLERS), 20)
        return {kind: self.seen[kind][-1].at - since for kind in HANDLERS}


def pod(kind: str, directory: Path) -> dict[str, Any]:
    probe = {**HANDLERS[kind], "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": FAILURES}
    container = {
        "name": "c",
        "image": "python",
        "command": ["python3", "/answering/answering.py", "/answering", "/answering/pair.pem"],
        "ports": [{"name": "web", "containerPort": 8000}],
        "volumeMounts": [{"name": "answering", "mountPath": "/answering"}],
        "readinessProbe": probe,
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    volumes = [{"name": "answering", "hostPath": {"path": str(directory)}}]
    metadata = {"name": kind, "labels": {"app": "probed"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "volumes": volumes},
    }


@pytest.fixture(scope="module")
def table(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with running_instance("--nodes", "1", "--store", "memory") as instance:
        directory = tmp_path_factory.mktemp("answering")
        shutil.copy(Path(__file__).with_name("answering.py"), directory)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        files = ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
        subprocess.run([*command, *files, "-subj", "/CN=nobody"], check=True, capture_output=True)
        (directory / "pair.pem").write_text((directory / "key").read_text() + (directory / "certificate").read_text())
        found = Table(instance, directory)
        found.say("ok")
        spec = {"selector": {"app": "probed"}, "ports": [{"port": 80, "targetPort": 8000}]}
        instance.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probed"}, "spec": spec})
        threading.Thread(target=found.follow, daemon=True).start()
        instance.apply(*(pod(kind, directory) for kind in HANDLERS))
        eventually(lambda: all(map(found.ready, HANDLERS)))
        yield found


@pytest.mark.parametrize("trouble", ["fail", "slow"])
def test_trouble_and_its_end(table: Table, trouble: str) -> None:
    """Unready at the second failure in a row, or the second timeout (NODE-33); ready at the first success."""
    took = table.turned(table.say(trouble), ready=False)
    least = PERIOD * (FAILURES - 1) + (TIMEOUT if trouble == "slow" else 0.0)
    for kind, seconds in took.items():
        assert least - 0.1 <= seconds <= least + PERIOD + TIMEOUT + SLACK_SECONDS, (kind, seconds, took)
    took = table.turned(table.say("ok"), ready=True)
    for kind, seconds in took.items():
        assert seconds <= PERIOD + TIMEOUT + SLACK_SECONDS, (kind, seconds, took)


def test_a_flap_below_the_threshold_changes_nothing(table: Table) -> None:
    before = {kind: len(states) for kind, states in table.seen.items()}
    assert all(map(table.ready, HANDLERS))
    table.say("flap")
    time.sleep(4)
    assert {kind: len(states) for kind, states in table.seen.items()} == before
    told = {kind: [e["reason"] for e in events(table, kind)] for kind in HANDLERS}
    assert all("Unhealthy" in reasons for reasons in told.values()), "that it failed now and then is said"
    table.say("ok")


def events(table: Table, kind: str) -> list[Any]:
    found: list[Any] = table.instance.get("events", "--field-selector", f"involvedObject.name={kind}")["items"]
    return found


def test_deletion_turns_the_slice_and_not_the_pod(table: Table) -> None:
    """NODE-63, NODE-64, NODE-44, BUG-26: at once unready and terminating, serving until its containers have stopped."""
    table.instance.kubectl("delete", "pods", "-l", "app=probed", "--wait=false")
    eventually(lambda: len(table.gone) == len(HANDLERS), 20)
    for kind, states in table.seen.items():
        first = next(s for s in states if s.terminating)
        assert (first.ready, first.serving) == (False, True), (kind, states)
        assert table.gone[kind] - first.at >= 1.0, "it stays listed while its hook sleeps"
