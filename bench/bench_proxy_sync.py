"""A node's proxy under load, from watch events to packets: `python -m bench proxy_sync [--full]`, or
`python -m bench.bench_proxy_sync [--mode nftables|iptables] [--services N[,N]] [--endpoints E]`.

The whole proxy runs here, informers and all, on lists and events as a server sends them (JSON), without the server; and
real connections go through the kernel. All in a network namespace that ends with the process. Needs root or user
namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.client import RawList, WatchEvent
from kubesvc.clock import RealClock
from kubesvc.lifetime import run_loop, set_collector
from kubesvc.proxy import Proxy, ProxySettings
from kubesvc.proxy.choice import open_backends

from .bench_proxy_kernel import own_namespace
from .figures import percentile, say

GOAL_SYNC_SECONDS, GOAL_P50_MS, GOAL_P99_MS, GOAL_MIB = 2.5, 8.0, 20.0, 250.0
PATIENCE_SECONDS = 5.0


SURROUNDINGS = (
    "link set lo up",
    "address add 10.64.0.1/32 dev lo",
    "route add local 10.128.0.0/9 dev lo src 10.64.0.1",
    "route add default dev lo src 10.64.0.1",
)
"""Every pod's address is one of this namespace, and whoever connects is a pod too: nothing is masqueraded."""


def vip(number: int) -> str:
    return f"10.96.{number // 250}.{number % 250 + 1}"


def pod(number: int) -> str:
    return f"10.{128 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def service(number: int) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "bench", "name": f"s{number:05}", "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": vip(number),
            "clusterIPs": [vip(number)],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    }


def endpoint_slice(number: int, addresses: Sequence[str], version: int = 1) -> dict[str, Any]:
    name = f"s{number:05}"
    return {
        "metadata": {
            "namespace": "bench",
            "name": f"{name}-x",
            "labels": {"kubernetes.io/service-name": name},
            "resourceVersion": str(version),
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [a], "conditions": {"ready": True, "serving": True, "terminating": False}, "nodeName": "n2"}
            for a in addresses
        ],
    }


class Server:
    """As much of a client as informers use: lists made beforehand, and a watch that is fed."""

    def __init__(self, services: int, endpoints: int) -> None:
        encode = msgspec.json.encode
        self.lists = {
            "services": [encode(service(n)) for n in range(services)],
            "endpointslices": [
                encode(endpoint_slice(n, [pod(n * endpoints + e) for e in range(endpoints)])) for n in range(services)
            ],
            "nodes": [encode({"metadata": {"name": "n1"}, "status": {}})],
            "servicecidrs": [],
        }
        self.queues: dict[str, asyncio.Queue[WatchEvent]] = {k: asyncio.Queue() for k in self.lists}
        self.version = 1

    async def list_raw(self, kind: Kind, namespace: str = "", **_: Any) -> RawList:
        if kind.plural not in self.lists:
            raise NotFound("not here")
        return RawList("1", self.lists[kind.plural])

    async def watch(self, kind: Kind, namespace: str = "", **_: Any) -> AsyncIterator[WatchEvent]:
        while True:
            yield await self.queues[kind.plural].get()

    def as_manager(self, _: str) -> Server:
        return self

    async def create(self, *_: Any, **__: Any) -> None:
        """Events go nowhere."""

    def put(self, number: int, addresses: Sequence[str]) -> None:
        self.version += 1
        changed = endpoint_slice(number, addresses, self.version)
        self.queues["endpointslices"].put_nowait(WatchEvent("MODIFIED", msgspec.json.encode(changed)))


def connects(address: str, port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((address, port)) == 0


def follow(address: str, wanted: bool, started: float) -> float:
    """Seconds since `started` until a connection to the address fares as wanted."""
    while connects(address, 80) is not wanted:
        if time.perf_counter() - started > PATIENCE_SECONDS:
            raise SystemExit(f"{address}: did not follow within {PATIENCE_SECONDS} s")
        time.sleep(0.0002)
    return time.perf_counter() - started


def listen() -> Callable[[], None]:
    """Take and end connections at port 8080 of every address; returns what stops it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 8080))
    listener.listen(1024)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    threading.Thread(target=serve, daemon=True).start()
    return listener.close


def in_child(work: Callable[[], None]) -> None:
    """Do this in a process of its own, with which its namespaces end. SystemExit if it fails."""
    child = os.fork()
    if child == 0:
        work()
        sys.stdout.flush()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(1)


def measure_here(mode: Any, services: int, endpoints: int, changes: int) -> None:
    """Measure in a network namespace that is made for it."""
    own_namespace()
    for line in SURROUNDINGS:
        subprocess.run(["ip", *line.split()], check=True)
    listen()
    run_loop(measure(mode, services, endpoints, changes))


async def measure(mode: Any, services: int, endpoints: int, changes: int) -> int:
    server = Server(services, endpoints)
    told = ProxySettings(
        mode=mode, families=("IPv4",), cluster_cidrs=("10.0.0.0/8",), service_cidrs=(), health_port=0, metrics_port=0
    )
    clock, chance = RealClock(), random.Random(1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    set_collector()  # as its command does
    opened = await open_backends(told, clock, chance)
    proxy = Proxy(server, "n1", opened.backends, clock, chance, told, conntrack=opened.conntrack)  # type: ignore[arg-type]
    task = asyncio.create_task(proxy.run())
    await proxy.families[0].applied.wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    what = f"{services:,} Services x {endpoints}"
    goal = GOAL_SYNC_SECONDS if services == 10_000 else 0.0
    say(f"{what}: first full sync", time.perf_counter() - started, "s", goal=goal, note=f"{cpu:.2f} s of CPU")
    assert await asyncio.to_thread(connects, vip(services - 1), 80), "the last Service does not answer"

    added: list[float] = []
    removed: list[float] = []
    replaced: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(changes):
        number = chance.randrange(services)
        for addresses, wanted, into in (((), False, removed), ((pod(number),), True, added)):
            await asyncio.sleep(0.01)  # a change after a quiet time, as most are
            began = time.perf_counter()
            server.put(number, addresses)
            into.append(1e3 * await asyncio.to_thread(follow, vip(number), wanted, began))
        await asyncio.sleep(0.01)
        written = proxy.families[0].counters.syncs
        began = time.perf_counter()
        server.put(number, [pod(number * endpoints + e) for e in range(1, endpoints + 1)])
        while proxy.families[0].counters.syncs == written:
            await asyncio.sleep(0.0005)
        replaced.append(1e3 * (time.perf_counter() - began))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) * 1e3 / max(3 * changes, 1)
    for name, values in (
        ("endpoint added", added),
        ("last endpoint removed", removed),
        ("endpoints replaced", replaced),
    ):
        say(f"{what}: {name}, until the ClusterIP follows, median", percentile(values, 0.5), "ms", goal=GOAL_P50_MS)
        say(f"{what}: {name}, 99 of 100", percentile(values, 0.99), "ms", goal=GOAL_P99_MS, note=f"{cpu:.1f} ms of CPU")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"{what}: memory at most", most, "MiB", goal=GOAL_MIB, note="with the server's lists")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--mode", choices=("nftables", "iptables"), default="nftables")
    parser.add_argument("--services", default="")
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the curve up to 50,000 Services")
    args = parser.parse_args(argv)
    sizes = args.services or ("100,1000,10000,50000" if args.full else "1000,10000")
    for services in map(int, sizes.split(",")):
        changes = args.changes or (100 if args.full else 40)
        in_child(functools.partial(measure_here, args.mode, services, args.endpoints, changes))


if __name__ == "__main__":
    main()
