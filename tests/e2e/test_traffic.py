"""Traffic follows readiness: no new connection lands on a Pod later than 250 ms after its Ready turned False, and none
is refused. The time in which the machine itself stood still, or left the control process or a node's without a
processor, does not count; a clock beside the test tells of it.

Real probes decide: a program inside a node answers them and turns nearly every answer around; one Pod has no probe and
is always there. Clients inside both nodes and inside a Pod connect all the while, and a watch notes when the API says
what.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubesvc.instance.kubectl import find_kubectl

from .harness import UnixConnection, condition, eventually, ready_pods, running_instance

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PODS = 12
FLIPS = 200
CONNECTIONS = 10_000
WINDOW_SECONDS = 0.250
TICK_SECONDS, STILL_SECONDS = 0.01, 0.05
PATIENCE_SECONDS = 300.0
RATE = 150.0
STEERING_PORT = 9900
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"
PROGRAM = Path(__file__).with_name("flipping.py")


class Connection(NamedTuple):
    started: float
    connected: float
    who: str
    failed: str


@dataclass
class ReadyWatch:
    """Notes when the API said that a Pod's Ready changed: (time of arrival, Pod, ready)."""

    path: Path
    changes: list[tuple[float, str, bool]] = field(default_factory=list)
    known: dict[str, bool] = field(default_factory=dict)
    broken: str = ""

    def run(self) -> None:
        connection = UnixConnection(self.path)
        connection.request("GET", "/api/v1/namespaces/default/pods?watch=1&labelSelector=app%3Dflip")
        answer = connection.getresponse()
        while line := answer.readline():
            now = time.monotonic()
            pod = json.loads(line)["object"]
            name, ready = pod["metadata"]["name"], condition(pod, "Ready") == "True"
            if self.known.get(name) != ready:
                self.known[name] = ready
                self.changes.append((now, name, ready))
        self.broken = f"the watch ended with {answer.status}"


@dataclass
class Metronome:
    """A clock that asks for little and so is late only where the machine stands still: (begin, end) of each time.

    pids: processes that shall not be kept waiting for a processor either, as the kernel counts it
    """

    pids: Sequence[int] = ()
    stills: list[tuple[float, float]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        last, known = time.monotonic(), {pid: waited(pid) for pid in self.pids}
        while not self.ended.wait(TICK_SECONDS):
            now = time.monotonic()
            if now - last > TICK_SECONDS + STILL_SECONDS:
                self.stills.append((last, now))
            last = now
            for pid, before in known.items():
                known[pid] = waited(pid)
                if known[pid] - before > STILL_SECONDS:
                    self.stills.append((now - (known[pid] - before), now))


def waited(pid: int) -> float:
    """For how many seconds a process could have run and had no processor; 0 where nobody counts that."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


@contextlib.contextmanager
def program(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], list[Any]]]:
    """A program that says JSON lines, and what it has said so far; its standard input is closed to end it."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    said: list[Any] = []

    def collect() -> None:
        assert process.stdout is not None
        said.extend(json.loads(line) for line in process.stdout)

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    try:
        yield process, said
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        reader.join(60)


def flipping_pod(name: str, node: str) -> dict[str, Any]:
    probe = {
        "httpGet": {"host": "172.30.0.11", "port": STEERING_PORT, "path": f"/{name}"},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    container: dict[str, Any] = {"name": "c", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]}
    if name != "flip-0":
        container["readinessProbe"] = probe
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "flip"}}, "spec": spec}


CLIENT_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "client"},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": AGNHOST, "args": ["pause"]}]},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "flip"},
    "spec": {"selector": {"app": "flip"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


class Offence(NamedTuple):
    """A connection that landed on a Pod whose Ready was False: how long after it had turned, and when."""

    lag_seconds: float
    who: str
    started: float


def offences(
    connections: list[Connection], changes: list[tuple[float, str, bool]], answers: list[tuple[float, str, bool]]
) -> list[Offence]:
    """Connections that landed on a Pod between its Ready turning False in the API and the probe that made it True, or
    the API saying so, where that was heard first.

    connections: in any order. changes: (time, Pod, Ready) as the API said. answers: (time, Pod, verdict) of its probe.
    """
    unready: dict[str, list[tuple[float, float]]] = {}
    for pod in sorted({name for _, name, _ in changes}):
        passed = sorted(t for t, name, ready in [*answers, *changes] if name == pod and ready)
        for t, name, ready in changes:
            if name == pod and not ready:
                after = bisect.bisect(passed, t)
                unready.setdefault(pod, []).append((t, passed[after] if after < len(passed) else float("inf")))
    found = []
    for c in connections:
        for begin, end in unready.get(c.who, ()):
            if begin < c.started and c.connected < end:
                found.append(Offence(c.started - begin, c.who, c.started))
    return found


def test_offences_are_seen() -> None:
    """The judge itself: landing while unready counts, before, after the next passed probe or elsewhere does not."""
    changes = [(1.0, "a", True), (10.0, "a", False), (14.1, "a", True), (20.0, "a", False), (20.1, "a", True)]
    answers = [(0.9, "a", True), (9.9, "a", False), (14.0, "a", True)]
    cases: tuple[tuple[str, float, str, list[float]], ...] = (
        ("started before Ready turned False", 9.99, "a", []),
        ("within the window", 10.1, "a", [0.1]),
        ("far too late", 13.0, "a", [3.0]),
        ("after the probe passed again", 14.05, "a", []),
        ("on another Pod", 11.0, "b", []),
        ("turned back before anybody was told", 20.5, "a", []),
    )
    for sentence, started, who, lags in cases:
        found = offences([Connection(started, started + 0.001, who, "")], changes, answers)
        assert [round(o.lag_seconds, 3) for o in found] == lags, sentence


def stood_still(stills: list[tuple[float, float]], offence: Offence) -> float:
    """For how many seconds of an offence's lag the machine stood still; what several tell of counts once."""
    end, total = offence.started, 0.0
    reached = end - offence.lag_seconds
    for since, until in sorted(stills):
        part = min(end, until) - max(reached, since)
        if part > 0:
            total, reached = total + part, min(end, until)
    return total


def test_only_time_in_which_the_machine_stood_still_is_forgiven() -> None:
    stills = [(1.0, 2.0), (5.0, 5.5)]
    assert stood_still(stills, Offence(1.0, "a", 2.5)) == 0.5
    assert stood_still(stills, Offence(5.5, "a", 6.0)) == 1.5
    assert stood_still(stills, Offence(1.0, "a", 4.0)) == 0.0
    assert stood_still([*stills, (1.5, 3.0), (1.6, 1.7)], Offence(5.0, "a", 6.0)) == 2.5


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def test_traffic_follows_readiness(machine: None) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    with running_instance("--nodes", "2", "--store", "memory") as instance:
        environment = instance.environment()
        source = PROGRAM.read_text()

        def inside(node: str, *words: str) -> list[str]:
            return instance.command("shell", "--name", instance.name, "--node", node, "--", sys.executable, *words)

        steering = inside("n1", str(PROGRAM), "steer", "172.30.0.11", str(STEERING_PORT), str(seed))
        with contextlib.ExitStack() as stack:
            steerer, answers = stack.enter_context(program(steering, environment))
            stack.callback(steerer.terminate)
            instance.apply(SERVICE, CLIENT_POD, *(flipping_pod(f"flip-{i}", f"n{i % 2 + 1}") for i in range(PODS)))
            ready_pods(instance, "app=flip", PODS)
            eventually(lambda: instance.curl("http://flip.default/hostname").stdout.startswith("flip-"))
            eventually(lambda: condition(instance.get("pod", "client"), "Ready") == "True")
            watch = ReadyWatch(instance.root / "api.sock")
            threading.Thread(target=watch.run, daemon=True).start()
            eventually(lambda: len(watch.known) == PODS)
            before = len(watch.changes)
            address = instance.get("service", "flip")["spec"]["clusterIP"]
            words = ("connect", address, "80", str(RATE), str(PATIENCE_SECONDS + 30))
            in_pod = [str(find_kubectl()), "exec", "-i", "client", "--", "python3", "-c", source, *words]
            kubeconfig = environment | {"KUBECONFIG": str(instance.root / "kubeconfig")}
            said: list[list[Any]] = []
            agents = [n.agent.pid for n in instance.record.nodes if n.agent is not None]
            assert instance.process is not None and len(agents) == 2
            metronome = Metronome([instance.process.pid, *agents])
            threading.Thread(target=metronome.run, daemon=True).start()
            stack.callback(metronome.ended.set)
            with contextlib.ExitStack() as clients:
                for node in ("n1", "n2"):
                    said.append(clients.enter_context(program(inside(node, str(PROGRAM), *words), environment))[1])
                said.append(clients.enter_context(program(in_pod, kubeconfig))[1])
                begin = time.monotonic()
                assert instance.curl(f"http://172.30.0.11:{STEERING_PORT}/begin").returncode == 0
                deadline = begin + PATIENCE_SECONDS
                while time.monotonic() < deadline:
                    time.sleep(0.25)
                    if len(watch.changes) - before >= FLIPS and sum(map(len, said)) >= CONNECTIONS:
                        break
                taken = time.monotonic() - begin
            assert not watch.broken
            changes = watch.changes[before:]
            per_client = [[Connection(*c) for c in made] for made in said]
            answered = [tuple(a) for a in answers]
        assert all(len(made) > CONNECTIONS / 20 for made in per_client), [len(made) for made in per_client]
        connections = [c for made in per_client for c in made]
        count = len(changes), len(connections)
        assert count[0] >= FLIPS and count[1] >= CONNECTIONS, f"{count} in {taken:.0f} s"
        failed = [c for c in connections if c.failed]
        assert not failed, f"{len(failed)} of {len(connections)} failed while a Pod was ready: {failed[:5]}"
        assert {c.who for c in connections} == {f"flip-{i}" for i in range(PODS)}
        found = offences(connections, watch.changes, answered)
        late = [o for o in found if o.lag_seconds - stood_still(metronome.stills, o) > WINDOW_SECONDS]
        lags = [o.lag_seconds * 1e3 for o in found]
        report = (
            f"{len(changes)} flips, {len(connections)} connections in {taken:.0f} s; {len(found)} landed after Ready "
            f"turned False, {len(late)} of them after {WINDOW_SECONDS * 1e3:.0f} ms in which the machine ran: "
            f"median {percentile(lags, 0.5):.1f} ms, p99 {percentile(lags, 0.99):.1f} ms, "
            f"longest {max(lags, default=0.0):.1f} ms; refused: 0"
        )
        print(report)
        if path := os.environ.get("KUBESVC_TRAFFIC_REPORT"):
            Path(path).write_text(report + "\n")
        assert not late, f"{report}; too late: {late[:5]}; stood still: {metronome.stills[-20:]}"
