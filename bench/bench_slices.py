"""What lists of endpoints cost: bytes by design, and our controllers' time at scale.

`python -m bench slices [--full]`, or `python -m bench.bench_slices [--table] [--flip PODS] [--start PODS]`.

The table is that of the EndpointSlice proposal: one Service of 20,000 endpoints watched by 5,000 nodes, as one
Endpoints object, as slices of 100, and as slices of 1; beside the published figures ours, from measured sizes and
counted writes.
The flips go from a status patch to the event of its slice, server, store (in memory) and controllers in one process.
`--start` has that many Pods in the store already when the controllers start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec

from kubesvc.api.endpoints import ENDPOINTS, EndpointAddress, Endpoints, EndpointSubset
from kubesvc.api.endpointslice import ENDPOINT_SLICE, Endpoint, EndpointSlice
from kubesvc.api.kinds import NAMESPACE, NODE, POD, SERVICE
from kubesvc.api.meta import Object, ObjectMeta, plain, typed
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.clock import RealClock
from kubesvc.controllers import run_controllers
from kubesvc.controllers.endpoint_cache import make_endpoint
from kubesvc.controllers.pod_endpoints import Port, Ports, facts_of, pod_reference
from kubesvc.controllers.slice_plan import identity, plan_slices, recycled, service_frame
from kubesvc.lifetime import set_collector
from kubesvc.store import Put
from kubesvc.store.memory import MemoryStore

from .figures import head, percentile, say

NODES, COUNT = 5000, 20_000
PUBLISHED = {
    "Endpoints": ("1", "2.0 MB", "10 GB", "1", "10 GB", "20,000", "200 TB"),
    "100": ("200", "10 KB", "10 GB", "1", "50 MB", "20,000", "1 TB"),
    "1": ("20,000", "1 KB", "10 GB", "1", "5 MB", "20,000", "100 GB"),
}
"""Writes, object size and bytes sent to create; writes and bytes of one update, and of a rolling update."""
UID = "-0000-4000-8000-000000000000"
HTTP: Ports = (Port("", 8080, "TCP", ""),)
SAMPLE = 40
"""Syncs of a rolling update that are played; the rest costs the same."""


# -------------------------------------------------------------------- the table


def service(number: int = 0) -> Object:
    spec = {"selector": {"app": f"s{number}"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"metadata": {"name": f"s{number}"}, "spec": spec}


def address(number: int) -> str:
    return f"10.{number // 62500 + 128}.{number // 250 % 250}.{number % 250 + 1}"


def pod(number: int) -> Pod:
    meta = {"name": f"web-5cdbbdf9f5-{number:05}", "namespace": "bench", "uid": f"{number:08x}{UID}",
            "labels": {"app": "s0"}}  # fmt: skip
    ip = address(number)
    status = {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return typed({"metadata": meta, "spec": {"nodeName": f"node-{number % NODES:04}"}, "status": status}, Pod)


def size(obj: Endpoints | EndpointSlice) -> int:
    return len(msgspec.json.encode(plain(obj)))


def endpoints_bytes(pods: Sequence[Pod]) -> int:
    """One Endpoints object of them all, which today's controllers would cut at 1,000 addresses."""
    listed = [
        EndpointAddress(ip=p.status.pod_ip, node_name=p.spec.node_name, target_ref=pod_reference(p)) for p in pods
    ]
    meta = ObjectMeta(name="s0", namespace="bench", uid="u" * 36, resource_version="1000000")
    return size(Endpoints(metadata=meta, subsets=[EndpointSubset(addresses=listed)]))


class Packed:
    """One Service's slices as the planner keeps them, and what was written."""

    def __init__(self, limit: int) -> None:
        meta = {"name": "s0", "namespace": "bench", "uid": "u" * 36}
        self.service = typed({"metadata": meta, "spec": {"ipFamilies": ["IPv4"]}}, Service)
        self.frame = service_frame(self.service, "IPv4")
        self.limit = limit
        self.slices: dict[str, EndpointSlice] = {}
        self.writes = self.bytes = self.made = 0

    def endpoint(self, of: Pod) -> Endpoint:
        made = make_endpoint(self.service, of, facts_of(of), None, "IPv4")
        assert made is not None
        return made

    def sync(self, endpoints: Sequence[Endpoint]) -> None:
        wanted = {HTTP: {identity(e): e for e in endpoints}}
        plan = plan_slices(self.frame, wanted, list(self.slices.values()), self.limit)
        plan = recycled(plan, self.frame.owner.uid)
        for s in plan.delete:
            del self.slices[s.name]
        for s in (*plan.update, *plan.create):
            if not s.name:
                self.made += 1
                meta = msgspec.structs.replace(
                    s.metadata, name=f"s0-{self.made:05}", uid="u" * 36, resource_version="1"
                )
                s = msgspec.structs.replace(s, metadata=meta)
            self.slices[s.name] = s
            self.bytes += size(s)
        self.writes += plan.writes


def table() -> None:
    """Writes, sizes, and bytes sent to all nodes, ours beside those published."""
    head(f"one Service, {COUNT:,} endpoints, {NODES:,} nodes: measured (published)")
    pods = [pod(n) for n in range(COUNT)]
    whole = endpoints_bytes(pods)
    row("Endpoints", (1, whole, whole * NODES, 1, whole * NODES, COUNT, whole * NODES * COUNT))
    for limit in (100, 1):
        packed = Packed(limit)
        live = [packed.endpoint(p) for p in pods]
        packed.sync(live)
        made, first = packed.writes, packed.bytes
        largest = max(size(s) for s in packed.slices.values())
        packed.writes = packed.bytes = 0
        conditions = msgspec.structs.replace(cast(Any, live[7].conditions), ready=False)
        live[7] = msgspec.structs.replace(live[7], conditions=conditions)
        packed.sync(live)
        one = (packed.writes, packed.bytes)
        packed.writes = packed.bytes = 0
        sample = SAMPLE if limit > 1 else 4
        for n in range(sample):
            live[n * 331] = packed.endpoint(pod(COUNT + n))
            packed.sync(live)
        rolling = (packed.writes * COUNT // sample, packed.bytes * COUNT // sample)
        row(str(limit), (made, largest, first * NODES, one[0], one[1] * NODES, rolling[0], rolling[1] * NODES))
    rollouts(pods)


def rollouts(pods: Sequence[Pod]) -> None:
    """What batching saves: the same rolling update with more Pods replaced between two syncs."""
    for batch in (1, 25, 500):
        packed = Packed(100)
        live = [packed.endpoint(p) for p in pods[:5000]]
        packed.sync(live)
        packed.writes = packed.bytes = 0
        chance, syncs = random.Random(1), max(2, 50 // batch)
        for turn in range(syncs):
            for n, index in enumerate(chance.sample(range(len(live)), batch)):
                live[index] = packed.endpoint(pod(5000 + turn * batch + n))
            packed.sync(live)
        scale = 5000 / (syncs * batch)
        say(f"rolling update of 5,000 Pods, {batch} in each sync: slices written", packed.writes * scale, "")
        say(f"rolling update of 5,000 Pods, {batch} in each sync: bytes written", packed.bytes * scale / 1e6, "MB")


def row(name: str, values: Sequence[int]) -> None:
    label = "one Endpoints object" if name == "Endpoints" else f"slices of {name}"
    words = ("create: writes", "largest object", "create: bytes sent", "update: writes", "update: bytes sent",
             "rolling: writes", "rolling: bytes sent")  # fmt: skip
    for index, (word, value) in enumerate(zip(words, values, strict=True)):
        shown = f"{value:,}" if "writes" in word else amount(value)
        sys.stdout.write(f"{label:<22}{word:<22}{shown:>12}   ({PUBLISHED[name][index]})\n")


def amount(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


# -------------------------------------------------------------------- at scale


@contextlib.asynccontextmanager
async def cluster(pods: int, services: int) -> AsyncIterator[ApiServer]:
    """A server that has them all: Services, and Pods that are ready, put into the store beside the front door."""
    store, clock = MemoryStore(), RealClock()
    await store.start()
    settings = ApiServerSettings(service_ranges=("10.0.0.0/12",), disabled_admission=frozenset({"ServiceAccount"}))
    server = ApiServer(store, settings, clock, random.Random(1))
    await server.start()
    client = server.client
    try:
        await client.create(NAMESPACE, {"metadata": {"name": "bench"}})
        for n in range(50):
            await client.create(NODE, {"metadata": {"name": f"n{n}"}})
        for n in range(services):
            await client.create(SERVICE, service(n), "bench")
        await put_pods(server, store, pods, services)
        yield server
    finally:
        await server.stop()
        await store.close()


async def put_pods(server: ApiServer, store: MemoryStore, count: int, services: int) -> None:
    """One Pod through the API, the others as its copies."""
    container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}
    meta, spec = {"name": "p0", "labels": {"app": "s0"}}, {"nodeName": "n0", "containers": [container]}
    await server.client.create(POD, {"metadata": meta, "spec": spec}, "bench")
    await server.client.patch(POD, "p0", "bench", status(0, True), "merge", subresource="status")
    [key] = [e.key for e in (await store.scan("")).entries if e.key.endswith("/bench/p0")]
    entry = await store.get(key)
    assert entry is not None
    model, batch = msgspec.json.decode(entry.value), []
    for n in range(1, count):
        model["metadata"] |= {"name": f"p{n}", "uid": f"{n:08x}-0000-4000-8000-000000000000",
                              "labels": {"app": f"s{n % services}"}}  # fmt: skip
        model["spec"]["nodeName"] = f"n{n % 50}"
        model["status"] |= status(n, True)["status"]
        batch.append(Put(f"{key[:-1]}{n}", msgspec.json.encode(model)))
        if len(batch) == 500:
            await store.commit(*batch)
            batch.clear()
            await asyncio.sleep(0)
    if batch:
        await store.commit(*batch)


def status(number: int, ready: bool) -> Object:
    ip = address(number)
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]
    return {"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}}


async def all_right(server: ApiServer, pods: int) -> float:
    """Wait until every Pod is in a slice; the seconds that took."""
    began = time.perf_counter()
    listed: dict[str, int] = {}
    stream = server.client.watch(ENDPOINT_SLICE, "bench", resource_version="0", initial_events=True)
    async with aclosing(cast(Any, stream)) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                continue
            obj = msgspec.json.decode(event.object)
            listed[obj["metadata"]["name"]] = len(obj.get("endpoints") or ())
            if sum(listed.values()) >= pods:
                return time.perf_counter() - began
    raise AssertionError("the watch ended")


async def flips(pods: int, services: int, count: int) -> None:
    """Latency and processor time of one Pod's change, all else being still."""
    async with cluster(pods, services) as server:
        names = ("endpoints", "endpointslice", "endpointslice-mirroring")
        running = asyncio.create_task(run_controllers(server.client, names, clock=RealClock(), random=random.Random(1)))
        await all_right(server, pods)
        await quiet(server)
        version = (await server.client.list_raw(ENDPOINT_SLICE, "bench")).resource_version
        stream = server.client.watch(ENDPOINT_SLICE, "bench", resource_version=version, bookmarks=False)
        latencies: list[float] = []
        undisturbed: list[float] = []
        chance = random.Random(2)
        set_collector()
        async with aclosing(cast(Any, stream)) as events:
            following = aiter(events)
            spent = time.process_time()
            for n in range(count):
                number = chance.randrange(pods)
                taken_away, began = preemptions(), time.perf_counter()
                ready = status(number, ready=False)
                ready["status"]["conditions"][0]["message"] = str(n)
                await server.client.patch(POD, f"p{number}", "bench", ready, "merge", subresource="status")
                await asyncio.wait_for(anext(following), 30)
                latencies.append((time.perf_counter() - began) * 1e3)
                if preemptions() == taken_away:
                    undisturbed.append(latencies[-1])
                back = status(number, ready=True)
                await server.client.patch(POD, f"p{number}", "bench", back, "merge", subresource="status")
                await asyncio.wait_for(anext(following), 30)
                await asyncio.sleep(0.012)  # Endpoints follow, which nobody waits for
            spent = time.process_time() - spent
        running.cancel()
        await asyncio.wait([running])
    where = f"{pods:,} Pods in {services:,} Services"
    say(f"status patch to slice event, {where}: median", percentile(latencies, 0.5), "ms", goal=2)
    say(f"status patch to slice event, {where}: 99 of 100", percentile(latencies, 0.99), "ms", goal=6)
    say(f"  the same, of those {len(undisturbed)} of {count} in which no other program took the processor",
        percentile(undisturbed, 0.99), "ms", goal=6)  # fmt: skip
    say(f"processor time of one change with all it causes, {where}", spent * 1e3 / count / 2, "ms")


async def quiet(server: ApiServer) -> None:
    """Wait until nobody has written for a moment."""
    before = ""
    while (now := (await server.client.list_raw(ENDPOINTS, "bench", limit=1)).resource_version) != before:
        before = now
        await asyncio.sleep(0.5)


async def start(pods: int, services: int) -> None:
    """All controllers start over so many Pods."""
    async with cluster(pods, services) as server:
        set_collector()
        before = memory_mib()
        spent = time.process_time()
        running = asyncio.create_task(run_controllers(server.client, clock=RealClock(), random=random.Random(1)))
        seconds = await all_right(server, pods)
        say(f"controllers' start with {pods:,} Pods to all slices right", seconds, "s", goal=60)
        say("  processor time of that", time.process_time() - spent, "s")
        await quiet(server)
        say("  control process, store in memory", memory_mib(), "MiB", goal=1024)
        say("  of that before the controllers", before, "MiB")
        running.cancel()
        await asyncio.wait([running])


def preemptions() -> int:
    """How often others took this process's processor away."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def memory_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="also 50,000 Pods, and a start with 100,000")
    parser.add_argument("--table", action="store_true", help="the table alone")
    parser.add_argument("--flip", type=int, metavar="PODS", help="only flips at so many Pods, ten in a Service")
    parser.add_argument("--start", type=int, metavar="PODS", help="only a start with so many Pods, ten in a Service")
    args = parser.parse_args(argv)
    if args.flip:
        asyncio.run(flips(args.flip, max(1, args.flip // 10), 300))
    elif args.start:
        asyncio.run(start(args.start, max(1, args.start // 10)))
    else:
        table()
        if args.table:
            return
        for option, pods in [("--flip", 1000), *([("--flip", 50_000), ("--start", 100_000)] if args.full else ())]:
            sys.stdout.flush()  # each in a fresh process: its memory is then its own
            subprocess.run([sys.executable, "-m", "bench.bench_slices", option, str(pods)], check=True)


if __name__ == "__main__":
    main()
