"""From a probe's result to the packet that follows it, at 100 Services: `python -m bench flip [--full]`.

A program inside a node answers the readiness probes of real Pods, each the only one of its Service, and turns its
answer around every time. From the moment it has answered it connects to that Service's ClusterIP, about once a
millisecond, until a connection follows: accepted after a success, refused after a failure. So the figure holds
everything: the agent's judgement, the status write, the controller, the watch, the rules. The other Services have
simulated Pods. Then the same without nodes: from a status patch to the event of its slice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SERVICES, FLIPPING = 100, 12
GOAL_MS = 25.0
STEERING = ("172.30.0.11", 9900)
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.60"
NEVER_SECONDS = 0.9
"""A change that no connection followed until the next probe."""


# ---------------------------------------------------------------- inside the node


def accepts(address: str) -> bool:
    """Whether a connection to port 80 is accepted now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect((address, 80))
        except OSError:
            return False
    return True


def report(*values: Any) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")  # in one piece, whatever other threads write


def follow(pod: int, address: str, verdict: bool, answered: float) -> None:
    """Connect until a connection is as the verdict wants it, and print how long after the answer it was started."""
    while True:
        started = time.monotonic()
        if accepts(address) == verdict:
            report(pod, verdict, answered, started)
            return
        if started - answered > NEVER_SECONDS:
            report(pod, verdict, answered, None)
            return
        time.sleep(0.001)


def steer(addresses: Sequence[str]) -> None:
    """Answer probes, GET /NUMBER, until killed; the ClusterIP of Service NUMBER is addresses[NUMBER]."""
    verdicts = [False] * len(addresses)
    listener = socket.create_server(STEERING, backlog=256)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(2)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096) or b"\r\n\r\n"
            pod = int(head.split(b" ")[1].strip(b"/"))
            verdicts[pod] = not verdicts[pod]
            status = b"200 OK" if verdicts[pod] else b"503 Service Unavailable"
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            answered = time.monotonic()
        arguments = (pod, addresses[pod], verdicts[pod], answered)
        threading.Thread(target=follow, args=arguments, daemon=True).start()


# ---------------------------------------------------------------- objects


def service(number: int) -> dict[str, Any]:
    spec = {"selector": {"app": f"s{number}"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}"}, "spec": spec}


def pod(number: int, node: str, *, real: bool, name: str = "") -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]}
    if real:
        get = {"host": STEERING[0], "port": STEERING[1], "path": f"/{number}"}
        container["readinessProbe"] = {"httpGet": get, "periodSeconds": 1, "failureThreshold": 1}
    metadata = {"name": name or f"p{number}", "labels": {"app": f"s{number}"}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def listed(items: Sequence[dict[str, Any]]) -> str:
    return "\n---\n".join(map(json.dumps, items))


# ---------------------------------------------------------------- probe to packet


def probe_to_packet(seconds: float) -> None:
    from tests.e2e.harness import eventually, running_instance

    with running_instance("--nodes", "1", "--simulated-nodes", "2", "--store", "memory") as instance:
        instance.kubectl("create", "-f", "-", stdin=listed([service(i) for i in range(SERVICES)]))
        simulated = [
            pod(i, f"n{2 + k}", real=False, name=f"p{i}-{k}") for i in range(FLIPPING, SERVICES) for k in range(2)
        ]
        instance.kubectl("create", "-f", "-", stdin=listed(simulated))
        by_name = {s["metadata"]["name"]: s["spec"]["clusterIP"] for s in instance.get("services")["items"]}
        addresses = [by_name[f"s{i}"] for i in range(FLIPPING)]
        program = [sys.executable, str(Path(__file__).resolve()), "steer", *addresses]
        command = instance.command("shell", "--name", instance.name, "--node", "n1", "--", *program)
        steering = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=instance.environment())
        said: list[Any] = []

        def collect() -> None:
            assert steering.stdout is not None
            said.extend(json.loads(line) for line in steering.stdout)

        threads = [threading.Thread(target=collect, daemon=True)]
        arrivals: dict[str, list[Arrival]] = {"pods": [], "slices": []}
        for name, of, path in (
            ("pods", pod_verdicts, "/api/v1/pods?watch=1"),
            ("slices", slice_verdicts, "/apis/discovery.k8s.io/v1/endpointslices?watch=1"),
        ):
            follower = (instance.root / "api.sock", path, of, arrivals[name])
            threads.append(threading.Thread(target=note_arrivals, args=follower, daemon=True))
        for thread in threads:
            thread.start()
        try:
            for number in range(FLIPPING):  # one by one, so that their probes are spread over the second
                instance.kubectl("create", "-f", "-", stdin=listed([pod(number, "n1", real=True)]))
            eventually(lambda: len({number for number, *_ in said}) == FLIPPING, every=0.2)
            time.sleep(3)  # the first answers fall into the Pods' own start
            first = len(said)
            time.sleep(seconds)
        finally:
            steering.terminate()
            steering.wait()
            threads[0].join(5)
    show(said[first:], arrivals)


Arrival = tuple[float, str, bool]
"""When a watch brought it, the Pod's name, and whether it is ready there."""


def pod_verdicts(pod: Any) -> list[tuple[str, bool]]:
    conditions = pod["status"].get("conditions") or ()
    return [(pod["metadata"]["name"], any(c["type"] == "Ready" and c["status"] == "True" for c in conditions))]


def slice_verdicts(endpoint_slice: Any) -> list[tuple[str, bool]]:
    endpoints = endpoint_slice.get("endpoints") or ()
    return [(e["targetRef"]["name"], e["conditions"]["ready"]) for e in endpoints if e.get("targetRef")]


def note_arrivals(
    socket_path: Path, path: str, of: Callable[[Any], list[tuple[str, bool]]], noted: list[Arrival]
) -> None:
    """Follow a watch to its end."""
    from tests.e2e.harness import UnixConnection

    connection = UnixConnection(socket_path)
    connection.request("GET", path)
    answer = connection.getresponse()
    while line := answer.readline():
        now = time.monotonic()
        noted.extend((now, name, ready) for name, ready in of(json.loads(line)["object"]))


def show(flips: Sequence[Any], arrivals: dict[str, list[Arrival]]) -> None:
    from .figures import percentile, say

    for name, what in (("pods", "the Pod's status"), ("slices", "its slice")):
        lags = []
        for number, verdict, answered, _ in flips:
            seen = [t for t, p, v in arrivals[name] if p == f"p{number}" and v is verdict and t > answered]
            if seen and seen[0] < answered + NEVER_SECONDS:
                lags.append((seen[0] - answered) * 1e3)
        say(f"probe's result to {what} in a watch, median", statistics.median(lags or [0]), "ms")
        say(f"probe's result to {what} in a watch, 99 of 100 of {len(lags)}", percentile(lags, 0.99), "ms")
    for what, verdict in (("failure to refused", False), ("success to accepted", True)):
        lags = [(t - answered) * 1e3 for _, v, answered, t in flips if v is verdict and t is not None]
        say(f"probe's {what}, median of {len(lags)}", statistics.median(lags or [0]), "ms")
    lags = [(t - answered) * 1e3 for _, _, answered, t in flips if t is not None]
    what = f"probe's result to the packet that follows, 99 of 100 of {len(lags)}"
    say(what, percentile(lags, 0.99), "ms", goal=GOAL_MS)
    say("the longest", max(lags, default=0.0), "ms")
    if lost := len(flips) - len(lags):
        say(f"changes that nothing followed in {NEVER_SECONDS * 1e3:.0f} ms", lost, "flips")


# ---------------------------------------------------------------- patch to slice


def patch_to_slice(flips: int) -> None:
    from tests.e2e.harness import running_instance

    from .figures import percentile, say

    with running_instance("--nodes", "0", "--store", "memory") as instance:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bench"}}
        objects = [node, *(service(i) for i in range(SERVICES))]
        objects += [pod(i, "bench", real=False, name=f"p{i}-{k}") for i in range(SERVICES) for k in range(2)]
        instance.kubectl("create", "-f", "-", stdin=listed(objects))
        lags = asyncio.run(patches(instance.root / "api.sock", flips))
    say(f"status patch to its slice's event, median of {flips}", statistics.median(lags), "ms")
    say(f"status patch to its slice's event, 99 of 100 of {flips}", percentile(lags, 0.99), "ms")


async def patches(path: Path, flips: int) -> list[float]:
    """Turn Pods ready and unready one after the other; milliseconds from each patch sent to the event received."""
    from kubesvc.api.kinds import ENDPOINT_SLICE, POD
    from kubesvc.client.http import HttpClient

    client, watcher = HttpClient.unix(path), HttpClient.unix(path)
    waiting: dict[tuple[str, bool], asyncio.Future[float]] = {}

    async def watch() -> None:
        async for event in watcher.watch(ENDPOINT_SLICE, "default", initial_events=True):
            now = time.perf_counter()
            if event.type == "BOOKMARK":
                continue
            for endpoint in json.loads(event.object).get("endpoints") or ():
                name = (endpoint.get("targetRef") or {}).get("name", "")
                future = waiting.get((name, bool(endpoint["conditions"]["ready"])))
                if future is not None and not future.done():
                    future.set_result(now)

    watching = asyncio.create_task(watch())
    lags = []
    try:
        for turn in range(2 * SERVICES + flips):
            number = turn % (2 * SERVICES)
            name, ready = f"p{number // 2}-{number % 2}", (turn // (2 * SERVICES)) % 2 == 0
            future = waiting[name, ready] = asyncio.get_running_loop().create_future()
            address = {"podIP": f"10.1.{number // 250}.{number % 250 + 1}", "phase": "Running"}
            address |= {"podIPs": [{"ip": address["podIP"]}]}  # type: ignore[dict-item]
            conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
            began = time.perf_counter()
            patch = {"status": {**address, "conditions": conditions}}
            await client.patch(POD, name, "default", patch, "strategic", subresource="status")
            arrived = await asyncio.wait_for(future, 10)
            if turn >= 2 * SERVICES:
                lags.append((arrived - began) * 1e3)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
        await watcher.close()
    return lags


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args(argv)
    probe_to_packet(60 if args.full else 12)
    patch_to_slice(1000 if args.full else 200)


if __name__ == "__main__":
    if sys.argv[1:2] == ["steer"]:
        steer(sys.argv[2:])
    else:
        main()
