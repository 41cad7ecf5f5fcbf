"""Pods on a real node: how soon they are ready, what they cost while idle, how exact their probes are, what they leave.

    python -m bench.bench_pods [--full]

One instance with one node, as root. A Pod runs a small web server (image `agnhost`, a stand-in in Python), whose own
start is part of what is measured; the same with `sleep` and no probe shows what the node itself takes. Times are from
the request that creates a Pod to the watch event that shows it Ready.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.e2e.harness import Instance

    from kubesvc.client.http import HttpClient

LISTENER = ("127.0.0.9", 8182)
"""Where the probes whose times are noted go."""
START_P50_MS, HUNDRED_SECONDS, IDLE_MIB, IDLE_PERCENT, TIMING_MS = 150.0, 6.0, 1.0, 0.2, 20.0
TICKS = os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- inside the node: note when probes arrive


def listen(pods: int) -> None:
    """Answer `GET /NUMBER` until stdin ends, then print each number's times of arrival."""
    arrivals: list[list[float]] = [[] for _ in range(pods)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = time.monotonic()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            arrivals[int(head.split(b" ")[1].strip(b"/"))].append(now)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        finally:
            writer.close()

    async def serve() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, ended.set)
        await asyncio.start_server(answer, *LISTENER, backlog=512)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await ended.wait()

    asyncio.run(serve())
    sys.stdout.write(json.dumps(arrivals) + "\n")


# ---------------------------------------------------------------- objects


def pod(name: str, container: dict[str, Any], node: str = "n1") -> dict[str, Any]:
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", **container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def web(probe: dict[str, Any]) -> dict[str, Any]:
    server = {"image": "agnhost", "args": ["netexec", "--http-port=8080", "--udp-port=-1"]}
    return {**server, "readinessProbe": {**probe, "periodSeconds": 1}}


TCP = {"tcpSocket": {"port": 8080}}
HTTP = {"httpGet": {"port": 8080, "path": "/healthz"}}
IDLE = {"image": "busybox", "command": ["sleep", "100000"]}


class Readiness:
    """Follows a watch of Pods and keeps when each was first seen Ready."""

    def __init__(self, client: HttpClient) -> None:
        self.client = client
        self.waiting: dict[str, asyncio.Future[float]] = {}

    async def follow(self) -> None:
        from kubesvc.api.kinds import POD

        async for event in self.client.watch(POD, "default", initial_events=True):
            now = time.perf_counter()
            if event.type not in ("ADDED", "MODIFIED"):
                continue
            found = json.loads(event.object)
            future = self.waiting.get(found["metadata"]["name"])
            conditions = found.get("status", {}).get("conditions") or ()
            if future is not None and not future.done() and ("Ready", "True") in {
                (c["type"], c["status"]) for c in conditions
            }:  # fmt: skip
                future.set_result(now)

    def expect(self, name: str) -> asyncio.Future[float]:
        future = self.waiting[name] = asyncio.get_running_loop().create_future()
        return future


async def started(path: Path, pods: Sequence[dict[str, Any]], *, together: bool) -> list[float]:
    """Create Pods, one after the other or all at once; seconds from each one's request to its readiness, or all
    together's from the first request."""
    from kubesvc.api.kinds import POD
    from kubesvc.client.http import HttpClient

    client, watcher = HttpClient.unix(path), HttpClient.unix(path)
    readiness = Readiness(watcher)
    following = asyncio.create_task(readiness.follow())
    lags = []
    try:
        futures = [readiness.expect(p["metadata"]["name"]) for p in pods]
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        if together:
            await asyncio.gather(*(client.create(POD, p, "default") for p in pods))
            lags = [await asyncio.wait_for(f, 120) - began for f in futures]
        else:
            for p, future in zip(pods, futures, strict=True):
                began = time.perf_counter()
                await client.create(POD, p, "default")
                lags.append(await asyncio.wait_for(future, 30) - began)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
        await watcher.close()
    return lags


# ---------------------------------------------------------------- what there is of a node


def agent_pid(instance: Instance) -> int:
    agent = instance.record.nodes[0].agent
    assert agent is not None
    return agent.pid


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def private_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(n) for n in re.findall(r"Private_\w+:\s+(\d+)", text)) / 1024


def left(instance: Instance) -> tuple[set[str], set[str], set[str]]:
    """Commands, network namespaces and links inside the node."""
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done; echo --; "
    script += "readlink /proc/[0-9]*/ns/net; echo --; ls /sys/class/net"
    commands, namespaces, links = instance.inside("sh", "-c", script).stdout.split("--\n")
    return {c for c in commands.splitlines() if not c.startswith("sh -c")}, set(namespaces.split()), set(links.split())


async def removed(path: Path, names: Sequence[str]) -> float:
    """Delete Pods, all at once; seconds until the last object is gone."""
    from kubesvc.api.kinds import POD
    from kubesvc.client.http import HttpClient

    client, began = HttpClient.unix(path), time.perf_counter()
    try:
        await asyncio.gather(*(client.delete(POD, name, "default") for name in names))
        while (await client.list_raw(POD, "default")).items:
            await asyncio.sleep(0.02)
        return time.perf_counter() - began
    finally:
        await client.close()


def remove(instance: Instance, names: Sequence[str]) -> float:
    return asyncio.run(removed(instance.root / "api.sock", names))


# ---------------------------------------------------------------- the figures


def start_figures(instance: Instance, runs: int) -> None:
    from .figures import percentile, say

    socket_path = instance.root / "api.sock"
    asyncio.run(started(socket_path, [pod("warm", web(TCP))], together=False))
    every = ["warm"]
    for what, container, goal in (
        ("Pod create to Ready, no probe, `sleep`, median", IDLE, 0.0),
        ("Pod create to Ready, TCP probe, web server in Python, median", web(TCP), START_P50_MS),
    ):
        names = [f"{'web' if goal else 'idle'}-{n}" for n in range(runs)]
        before = cpu_seconds(agent_pid(instance))
        lags = [s * 1e3 for s in asyncio.run(started(socket_path, [pod(n, container) for n in names], together=False))]
        spent = (cpu_seconds(agent_pid(instance)) - before) / runs * 1e3
        say(f"{what} of {runs}", statistics.median(lags), "ms", goal=goal, note=f"9 of 10 {percentile(lags, 0.9):.0f}")
        say("   processor time of the node's process for each", spent, "ms")
        every += names
    remove(instance, every)


def crowd_figures(instance: Instance, pods: int, seconds: float) -> None:
    from .figures import say

    time.sleep(2)
    pid = agent_pid(instance)
    empty, memory, spent = left(instance), private_mib(pid), cpu_seconds(pid)
    names = [f"crowd-{n}" for n in range(pods)]
    lags = asyncio.run(started(instance.root / "api.sock", [pod(name, web(HTTP)) for name in names], together=True))
    say(f"{pods} Pods at once, until the last is Ready", max(lags), "s", goal=HUNDRED_SECONDS * pods / 100)
    say("   processor time of the node's process for each", (cpu_seconds(pid) - spent) / pods * 1e3, "ms")
    time.sleep(3)
    say("idle Pod, memory of the node's process", (private_mib(pid) - memory) / pods, "MiB", goal=IDLE_MIB)
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began) / pods * 100
    say("idle Pod, HTTP probe each second, processor time", share, "% of one", goal=IDLE_PERCENT)
    say(f"{pods} Pods deleted with a grace of 1 s, until the last is gone", remove(instance, names), "s")
    time.sleep(1)
    for what, now, then in zip(("processes", "network namespaces", "links"), left(instance), empty, strict=True):
        say(f"   {what} left of them a second later", len(now - then), what.split()[-1])


def timing_figures(instance: Instance, pods: int, seconds: float) -> None:
    from .figures import percentile, say

    program = [sys.executable, str(Path(__file__).resolve()), "listen", str(pods)]
    command = instance.command("shell", "--name", instance.name, "--node", "n1", "--", *program)
    listener = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=instance.environment()
    )
    try:
        assert listener.stdout is not None and listener.stdout.readline() == "listening\n"
        get = {"host": LISTENER[0], "port": LISTENER[1]}
        containers = [
            {**IDLE, "readinessProbe": {"httpGet": {**get, "path": f"/{n}"}, "periodSeconds": 1}} for n in range(pods)
        ]
        crowd = [pod(f"timed-{n}", c) for n, c in enumerate(containers)]
        began = time.monotonic()
        lags = asyncio.run(started(instance.root / "api.sock", crowd, together=True))
        say(f"{pods} Pods at once, `sleep` and a probe, until the last is Ready", max(lags), "s")
        settled = began + max(lags) + 2
        time.sleep(seconds)
        line, _ = listener.communicate("", timeout=20)
    finally:
        listener.terminate()
        listener.wait()
    errors = []
    for times in json.loads(line):
        steady = [t for t in times if t > settled]
        errors += [abs(b - a - 1.0) * 1e3 for a, b in itertools.pairwise(steady)]
    say(f"probe at {pods} Pods, distance from its second, median", statistics.median(errors), "ms")
    what = f"probe at {pods} Pods, distance from its second, 99 of 100 of {len(errors)}"
    say(what, percentile(errors, 0.99), "ms", goal=TIMING_MS)
    remove(instance, [f"timed-{n}" for n in range(pods)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args(argv)
    from tests.e2e.harness import running_instance

    with running_instance("--nodes", "1", "--store", "memory") as instance:
        start_figures(instance, 40 if args.full else 15)
        crowd_figures(instance, 100, 20 if args.full else 8)
        timing_figures(instance, 200, 40 if args.full else 10)


if __name__ == "__main__":
    if sys.argv[1:2] == ["listen"]:
        listen(int(sys.argv[2]))
    else:
        main()
