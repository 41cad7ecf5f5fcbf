"""The probe table: each kind of probe by success, failure, timeout and flap, with its slice watched in time.

One Pod for each kind, all in one Service. The slice's conditions turn at the failureThreshold-th failure, as soon after
a success, and stay through a flap that never reaches the threshold (NODE-33, NODE-35, NODE-39, NODE-42, NODE-43).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .answering import EXEC, HOST
from .harness import Instance, UnixConnection, eventually, running_instance

pytestmark = pytest.mark.e2e

PERIOD, TIMEOUT, FAILURES = 1.0, 1.0, 2
SLACK_SECONDS = 12.0
"""What a busy machine may add to what the probes' fields give; without them it would be longer still."""
TRIES = 8
"""A machine that stands still for a second lets probes fail: what must not be may then be once, but not always."""
HEADERS = [{"name": "Host", "value": HOST}, {"name": "X-Probe", "value": "yes"}]
HANDLERS: dict[str, dict[str, Any]] = {
    "http": {"httpGet": {"port": "web", "path": "/start", "httpHeaders": HEADERS}},
    "https": {"httpGet": {"port": 8001, "scheme": "HTTPS"}},
    "tcp": {"tcpSocket": {"port": 8002}},
    "grpc": {"grpc": {"port": 8003}},
    "exec": {"exec": {"command": ["sh", "-c", EXEC]}},
}


class Seen(NamedTuple):
    """One state of an endpoint, as the watch brought it; how many questions had then not been answered well."""

    at: float
    asked: int
    ready: bool
    serving: bool
    terminating: bool


class Table:
    """The five Pods, and what was seen of their endpoints."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.directory = directory
        self.seen: dict[str, list[Seen]] = {kind: [] for kind in HANDLERS}
        self.gone: set[str] = set()
        self.before = dict.fromkeys(HANDLERS, 0)

    def say(self, word: str) -> float:
        """Let every kind answer so from now on; when that was."""
        for kind in HANDLERS:
            self.before[kind] = self.lines(f"{kind}.asked")
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
                asked = self.lines(f"{kind}.asked") - self.before[kind]
                state = Seen(now, asked, conditions["ready"], conditions["serving"], conditions["terminating"])
                if not self.seen[kind] or self.seen[kind][-1][2:] != state[2:]:
                    self.seen[kind].append(state)
            self.gone |= {kind for kind in HANDLERS if kind not in there and self.seen[kind]}

    def lines(self, name: str) -> int:
        path = self.directory / name
        return path.read_text().count("\n") if path.exists() else 0

    def failed(self) -> dict[str, int]:
        """How many probes of each kind have failed, as the node counts (NODE-55): Events are not told for ever."""
        page = self.instance.kubectl("get", "--raw", "/api/v1/nodes/n1/proxy/metrics/probes")
        found = dict.fromkeys(HANDLERS, 0)
        for line in page.splitlines():
            if 'result="failed"' in line and 'probe_type="Readiness"' in line:
                found[re.findall(r'pod="(\w+)"', line)[0]] += int(line.split()[-1])
        return found

    def ready(self, kind: str) -> bool:
        return bool(self.seen[kind]) and self.seen[kind][-1].ready

    def turned(self, since: float, *, ready: bool) -> dict[str, float]:
        """Seconds after `since` at which each kind's endpoint became so; waits until all have."""
        eventually(lambda: all(self.ready(kind) == ready for kind in HANDLERS))
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
        "lifecycle": {
            "preStop": {"exec": {"command": ["sh", "-c", "until [ -e /answering/go ]; do sleep 0.05; done"]}}
        },
    }
    volumes = [{"name": "answering", "hostPath": {"path": str(directory)}}]
    metadata = {"name": kind, "labels": {"app": "probed"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 300},
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
    for _ in range(TRIES):
        took = table.turned(table.say(trouble), ready=False)
        asked = {kind: states[-1].asked for kind, states in table.seen.items() if kind != "tcp"}
        for kind, seconds in took.items():
            assert seconds <= (PERIOD + TIMEOUT) * FAILURES + SLACK_SECONDS, (kind, seconds, took)
        took = table.turned(table.say("ok"), ready=True)
        for kind, seconds in took.items():
            assert seconds <= PERIOD + TIMEOUT + SLACK_SECONDS, (kind, seconds, took)
        if min(asked.values()) >= FAILURES:
            return
    raise AssertionError(f"unready already after so many questions: {asked}")


def test_a_flap_below_the_threshold_changes_nothing(table: Table) -> None:
    for _ in range(TRIES):
        eventually(lambda: all(map(table.ready, HANDLERS)))
        before = {kind: len(states) for kind, states in table.seen.items()}
        failed = table.failed()
        table.say("flap")
        eventually(lambda: all(now >= failed[kind] + 2 for kind, now in table.failed().items()), every=0.3)  # noqa: B023
        changed = [kind for kind, states in table.seen.items() if len(states) != before[kind]]
        table.say("ok")
        if not changed:
            break
    else:
        raise AssertionError(f"a flap turned {changed}")
    for kind in HANDLERS:
        about = f"involvedObject.name={kind},reason=Unhealthy"
        assert table.instance.get("events", "--field-selector", about)["items"], "that it failed now and then is said"


def test_deletion_turns_the_slice_and_not_the_pod(table: Table) -> None:
    """NODE-63, NODE-64, NODE-44, BUG-26: at once unready and terminating, serving until its containers have stopped.
    Only a Pod whose probe has failed in that very moment, as often as its threshold says, serves no more."""
    eventually(lambda: all(map(table.ready, HANDLERS)))
    before = table.failed()
    table.instance.kubectl("delete", "pods", "-l", "app=probed", "--wait=false")
    eventually(lambda: all(states[-1].terminating for states in table.seen.values()))
    failed = table.failed()
    for kind, states in table.seen.items():
        first = next(s for s in states if s.terminating)
        serves = failed[kind] - before[kind] < FAILURES or first.serving
        assert (first.ready, first.serving) == (False, serves), (kind, states, before, failed)
    time.sleep(0.5)
    assert not table.gone, "it stays listed while its hook runs"
    (table.directory / "go").touch()
    eventually(lambda: len(table.gone) == len(HANDLERS))
