"""What each verb of the API server costs: `python -m bench api [--full]`.

One process on TLS with its durable store, 16 clients on the same machine. Beside the rate stands the server's processor
time for one request, which says more where others share the cores. `--full` adds what a write costs as objects grow to
100,000 pods (history compacted), what they hold in memory, and how long others wait while a list of them is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .bench_load import TOKEN, token_file
from .bench_start import cpu_ms, memory_mib
from .figures import head, percentile, say
from .wire import Connection, Done, Request, Stream, connections, load

ALONE = ("--controllers", "root-ca-certificate-publisher-controller", "--service-warnings", "false")
"""The least that can run beside the API server: nothing that looks at Services or pods."""
CLIENTS = 16
BASE = "/api/v1/namespaces/bench"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
SIZES = (1_000, 10_000, 100_000)
ELSEWHERE = 500
"""Watches of another kind, which must not make a write dearer."""
WRK_SECONDS = 3


class Target:
    """The server under load, with the connections to it."""

    def __init__(self, host: str, port: int, pid: int, clients: list[Connection]) -> None:
        self.host = host
        self.port = port
        self.pid = pid
        self.clients = clients

    async def figure(self, what: str, requests: Sequence[Request], goal: float = 0.0) -> Done:
        """Carry out a load and print its rate, its latency, and what a request cost the server."""
        before = cpu_ms(self.pid)
        done = await load(self.clients, requests)
        await asyncio.sleep(0.5)  # what the writes set going belongs to their price
        cost = (cpu_ms(self.pid) - before) / done.answered
        note = f"p50 {done.ms(0.5):.1f} ms, p99 {done.ms(0.99):.1f} ms; {cost:.3f} ms of processor each"
        say(what, done.per_second, "/s", goal=goal, note=note)
        return done


def encoded(obj: Any) -> bytes:
    return json.dumps(obj, separators=(",", ":")).encode()


def service(name: str, app: str) -> Request:
    spec = {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 80}]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return Request("POST", f"{BASE}/services", encoded(body))


def pod(i: int, services: int) -> Request:
    """A pod as the public load program makes them."""
    spec = {
        "nodeName": f"bench-node-{i % 50}",
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {"name": "c", "image": "registry.k8s.io/pause:3.9", "ports": [{"containerPort": 80, "name": "http"}]}
        ],
    }
    meta = {"name": f"p{i}", "labels": {"app": f"s{i % services}"}}
    return Request("POST", f"{BASE}/pods", encoded({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}))


def status(i: int, ready: bool) -> Request:
    ip = f"10.{100 + i // 65536}.{i // 256 % 256}.{i % 256}"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [{"type": t, "status": str(ready), "lastTransitionTime": now} for t in ("Ready", "ContainersReady")]
    body = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.0.0.1", "conditions": conditions}
    return Request("PATCH", f"{BASE}/pods/p{i}/status", encoded({"status": body}), STRATEGIC)


def annotation(i: int, text: str) -> Request:
    return Request("PATCH", f"{BASE}/pods/p{i}", encoded({"metadata": {"annotations": {"x": text}}}), MERGE)


async def prepare(target: Target) -> None:
    """The namespace, its service account and the nodes."""
    one = target.clients[:1]
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    await load(one, [Request("POST", "/api/v1/namespaces", encoded(made))])
    made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await one[0].ask(Request("POST", f"{BASE}/serviceaccounts", encoded(made)))  # perhaps a controller was faster
    nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"bench-node-{i}"}} for i in range(50)]
    await load(target.clients, [Request("POST", "/api/v1/nodes", encoded(n)) for n in nodes])


async def verbs(target: Target, services: int, pods: int, *, alone: bool) -> None:
    """Every verb that the load program uses."""
    await prepare(target)
    goals = (1500.0, 2500.0, 2500.0) if alone else (0.0, 0.0, 0.0)
    await target.figure("create Services", [service(f"s{i}", f"s{i}") for i in range(services)], goals[0])
    await target.figure("create pods", [pod(i, services) for i in range(pods)], goals[1])
    await target.figure("patch pod status, first", [status(i, True) for i in range(pods)], goals[2])
    await target.figure("patch pod status, Ready turned", [status(i, False) for i in range(pods)], goals[2])
    await target.figure("patch an annotation", [annotation(i, "1") for i in range(pods)])
    get_rate(target)
    one = Target(target.host, target.port, target.pid, target.clients[:1])
    done = await load(one.clients, [Request("GET", f"{BASE}/pods?limit=1000") for _ in range(20)])
    say("LIST 1,000 pods, median", done.ms(0.5), "ms", goal=12.0)
    await fan_out(target, pods)
    await target.figure(
        "delete pods", [Request("DELETE", f"{BASE}/pods/p{i}?gracePeriodSeconds=0") for i in range(pods)]
    )
    say("memory afterwards", memory_mib(target.pid), "MiB")


def get_rate(target: Target) -> None:
    """GET of one Service, by a generator in C: one in Python could not load the server."""
    wrk = shutil.which("wrk")
    if wrk is None:
        head("   GET not measured: wrk is not installed")
        return
    url = f"https://{target.host}:{target.port}{BASE}/services/s1"
    command = [wrk, "-t1", "-c16", f"-d{WRK_SECONDS}s", "-H", f"Authorization: Bearer {TOKEN}", url]
    before = cpu_ms(target.pid)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"Requests/sec:\s*([\d.]+)", done)
    assert found is not None and "Non-2xx" not in done, done
    rate = float(found[1])
    cost = (cpu_ms(target.pid) - before) / (rate * WRK_SECONDS)
    say("GET a Service, by wrk", rate, "/s", goal=8000.0, note=f"{cost:.3f} ms of processor each")


async def fan_out(target: Target, pods: int, watchers: int = 50) -> None:
    """Events to many watchers of one namespace."""
    _, body = await target.clients[0].ask(Request("GET", f"{BASE}/pods?limit=1"))
    start = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["metadata"]["resourceVersion"]
    streams = await connections(Stream, watchers, target.host, target.port, TOKEN)
    path = f"{BASE}/pods?watch=1&resourceVersion={start}"
    for stream in streams:
        stream.transport.write(stream.spelled(Request("GET", path)))
    await asyncio.sleep(0.5)
    before, began = cpu_ms(target.pid), time.perf_counter()
    done = await load(target.clients, [annotation(i, "2") for i in range(pods)])
    wanted = done.answered * watchers
    counted = [s for s in streams if isinstance(s, Stream)]
    while sum(s.events for s in counted) < wanted and time.perf_counter() - began < 30:
        await asyncio.sleep(0.005)
    seen = sum(s.events for s in counted)
    seconds = max(s.last for s in counted) - began
    cost = (cpu_ms(target.pid) - before) / max(1, seen) * 1e3
    note = f"{seen:,} of {wanted:,}; {cost:.1f} µs of processor each, the patch included"
    say(f"events to {watchers} watchers", seen / seconds, "events/s", goal=100_000.0, note=note)
    for stream in streams:
        stream.transport.close()


# Growth


async def growth(target: Target, sizes: Sequence[int]) -> None:
    """What writes cost as there are more objects; memory; and the wait of others during a list of everything."""
    await prepare(target)
    made = 0
    for size in sizes:
        before, count = cpu_ms(target.pid), size - made
        done = await load(target.clients, (pod(i, 100) for i in range(made, size)))
        each = (cpu_ms(target.pid) - before) / count
        made = size
        head(f"   at {size:,} pods")
        say("create pods up to here", done.per_second, "/s", note=f"{each:.3f} ms of processor each")
        await target.figure("patch an annotation", [annotation(i * 7 % size, str(size)) for i in range(1000)])
        await target.figure("create Services", [service(f"x{size}-{i}", "nobody") for i in range(300)])
    streams = await connections(Stream, ELSEWHERE, target.host, target.port, TOKEN)
    for stream in streams:
        stream.transport.write(stream.spelled(Request("GET", f"{BASE}/configmaps?watch=1")))
    await asyncio.sleep(1)
    await target.figure(f"the same beside {ELSEWHERE} watches of ConfigMaps", [annotation(i, "z") for i in range(1000)])
    for stream in streams:
        stream.transport.close()
    say("memory", memory_mib(target.pid), "MiB", goal=600.0)
    for what, query in (
        ("", ""),
        (" by label", "?labelSelector=app%3Ds1"),
        (" by field", "?fieldSelector=spec.nodeName%3Dn1"),
        (" by field once more", "?fieldSelector=spec.nodeName%3Dn1"),
        (", packed", ""),
    ):
        await list_beside(target, f"list of {made:,} pods{what}", f"{BASE}/pods{query}", packed="packed" in what)
    say("memory after the lists", memory_mib(target.pid), "MiB", goal=600.0)


async def list_beside(target: Target, what: str, path: str, *, packed: bool) -> None:
    """Have another program read a list, and ask for something small all the while."""
    reader = await asyncio.create_subprocess_exec(
        "curl", "-sk", "-A", "bench", *(["--compressed"] if packed else []), "-H", f"Authorization: Bearer {TOKEN}",
        "-o", "/dev/null", "-w", "%{time_total} %{size_download}", f"https://{target.host}:{target.port}{path}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert reader.stdout is not None
    answer = asyncio.ensure_future(reader.stdout.read())
    waits: list[float] = []
    while not answer.done():
        began = time.perf_counter()
        await target.clients[0].ask(Request("GET", "/api/v1/namespaces/bench"))
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)
    await reader.wait()
    seconds, size = (await answer).split()
    say(what, float(seconds) * 1e3, "ms", note=f"{int(size) / 2**20:,.0f} MiB sent")
    note = f"median {percentile(waits, 0.5) * 1e3:.1f} ms of {len(waits)}"
    say("   a small request meanwhile, the longest", max(waits) * 1e3, "ms", goal=50.0, note=note)


# Running


def servers(*options: str) -> Iterator[tuple[str, int, int]]:
    from tests.e2e.harness import running_instance

    with token_file() as tokens, running_instance("--nodes", "0", "--token-auth-file", str(tokens), *options) as up:
        assert up.process is not None and up.record.loopback is not None
        yield up.record.loopback, up.record.port, up.process.pid


async def against(host: str, port: int, pid: int) -> Target:
    return Target(host, port, pid, await connections(Connection, CLIENTS, host, port, TOKEN))


def run(work: Any) -> None:
    """On uvloop if there: the generator should take little of the machine."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="growth to 100,000 pods too: some two minutes")
    parser.add_argument("--pods", type=int, default=1000, help="in the figures of the verbs (default: 1000)")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="in the figures of growth (default: 100000)")
    args = parser.parse_args(None if argv is None else list(argv))

    async def measure(place: tuple[str, int, int], *, alone: bool) -> None:
        await verbs(await against(*place), 100 if not alone else 300, args.pods, alone=alone)

    async def grow(place: tuple[str, int, int]) -> None:
        await growth(await against(*place), [n for n in SIZES if n < args.most] + [args.most])

    for place in servers(*ALONE):
        head("   the API server alone")
        run(measure(place, alone=True))
    for place in servers():
        head("   with all controllers")
        run(measure(place, alone=False))
    if args.full:
        for place in servers(*ALONE):
            run(grow(place))


if __name__ == "__main__":
    main()
