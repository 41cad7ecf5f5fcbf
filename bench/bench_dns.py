"""Figures of the DNS server: `python -m bench dns`. Takes about twenty seconds, on loopback, two to four processes.

Answers per second of server CPU time are what one core would give; the client shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.namespace import Namespace
from kubesvc.api.service import Service
from kubesvc.clock import RealClock
from kubesvc.dns import Snapshot, Zone, wire
from kubesvc.dns.durations import Durations
from kubesvc.dns.listeners import UdpListener, bound_socket
from kubesvc.dns.responder import Responder
from kubesvc.dns.wire import Message, Question
from kubesvc.lifetime import set_collector

SERVICES, ENDPOINTS = 10_000, 10
WINDOW_SECONDS, QUIET_SECONDS = 0.005, 0.0003
GOAL_QUERIES = 20_000
"""A second, on one core."""


def say(what: str, figure: str) -> None:
    sys.stdout.write(f"{what:<66}{figure:>16}\n")
    sys.stdout.flush()


def cluster() -> Snapshot:
    snapshot = Snapshot()
    for n in range(50):
        snapshot.namespace_changed(None, typed({"metadata": {"name": f"ns{n}"}}, Namespace), 1)
    for i in range(SERVICES):
        ip = f"10.{96 + i // 65536}.{i // 256 % 256}.{i % 256}"
        meta = {"name": f"svc{i}", "namespace": f"ns{i % 50}"}
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        spec = {"clusterIP": "None" if i % 10 == 0 else ip, "ports": ports}
        snapshot.service_changed(None, typed({"metadata": meta, "spec": spec}, Service), 1)
        endpoints = [
            {"addresses": [f"10.244.{i % 256}.{j + 1}"], "conditions": {"ready": True}} for j in range(ENDPOINTS)
        ]
        labels = {"kubernetes.io/service-name": f"svc{i}"}
        body = {"metadata": meta | {"labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
        snapshot.slice_changed(None, typed(body, EndpointSlice), 1)
    snapshot.mark_synced(1)
    return snapshot


def query(name: str, type_: int, id_: int = 0) -> bytes:
    asked = wire.name_of(f"{name}.svc.cluster.local")
    return wire.encode(Message(id=id_, recursion_desired=True, questions=(Question(asked, type_),)))


def inside(snapshot: Snapshot) -> None:
    """Without sockets: what one answer costs."""
    cases = {
        "ClusterIP A": [query(f"svc{i}.ns{i % 50}", wire.A) for i in range(1, SERVICES, 10)],
        "headless A": [query(f"svc{i}.ns{i % 50}", wire.A) for i in range(0, SERVICES, 10)],
        "headless SRV": [query(f"_http._tcp.svc{i}.ns{i % 50}", wire.SRV) for i in range(0, SERVICES, 10)],
        "no such name": [query(f"www.example{i}.com.ns1", wire.A) for i in range(1000)],
    }
    for name, queries in cases.items():
        responder = Responder(snapshot, Zone())
        begin = time.perf_counter()
        for raw in queries:
            responder.answer(raw)
        fresh = (time.perf_counter() - begin) / len(queries)
        begin = time.perf_counter()
        for _ in range(20):
            for raw in queries:
                responder.answer(raw)
        kept = (time.perf_counter() - begin) / len(queries) / 20
        say(f"{name}: made anew / kept", f"{fresh * 1e6:.0f} / {kept * 1e6:.1f} us")


def serve(pipe: Connection, churn: int, port: int = 0) -> None:
    """Another process: the server; `churn` endpoint changes a second, each forgetting what is kept. Who names a port
    shares it with others, as workers do."""

    async def main() -> None:
        snapshot = cluster()
        sock = bound_socket(socket.SOCK_DGRAM, "127.0.0.1", port, shared=bool(port))
        listener = UdpListener(sock, Responder(snapshot, Zone()), Durations(RealClock().monotonic))
        listener.start()
        set_collector()  # as its command does
        pipe.send(sock.getsockname())
        begin = time.process_time()
        slices = next(iter(snapshot.slices[("ns1", "svc1")].values()))
        emptied = EndpointSlice(metadata=slices.metadata, address_type="IPv4")
        turn = 0
        while not pipe.poll():
            await asyncio.sleep(1 / churn if churn else 0.05)
            if churn:
                turn += 1
                old, new = (slices, emptied) if turn % 2 else (emptied, slices)
                snapshot.slice_changed(old, new, 1)
        pipe.send((time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    asyncio.run(main())


def started(churn: int, port: int = 0) -> tuple[Connection, SpawnProcess, tuple[str, int]]:
    """The pipe to a process that serves (None ends it, and it answers with its CPU seconds and memory), the process,
    and its address."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, churn, port), daemon=True)
    process.start()
    return ours, process, ours.recv()


def load(churn: int, pace: float, seconds: float) -> None:
    """Queries over UDP: as many as go with 64 outstanding (pace 0), or `pace` a second, one answered at a time."""
    ours, process, address = started(churn)
    chance = random.Random(1)
    numbers = [chance.randrange(SERVICES) for _ in range(2000)]
    queries = [query(f"svc{i}.ns{i % 50}", wire.A, n) for n, i in enumerate(numbers)]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(address)
    sock.settimeout(2)
    answered, taken = 0, []
    window = 1 if pace else 64
    begin = time.perf_counter()
    for n in range(window):
        sock.send(queries[n])
    sent = window
    last = begin
    while (now := time.perf_counter()) - begin < seconds:
        sock.recv(2048)
        answered += 1
        if pace:
            taken.append(time.perf_counter() - last)
            while time.perf_counter() < begin + sent / pace:
                pass
        last = time.perf_counter()
        sock.send(queries[sent % len(queries)])
        sent += 1
    elapsed = now - begin
    ours.send(None)
    cpu, rss = ours.recv()
    process.join()
    what = f"UDP, {churn} changes/s"
    if pace:
        taken.sort()
        say(
            f"{what}, {pace:,.0f} q/s: median / 99 of 100",
            f"{statistics.median(taken) * 1e6:.0f} / {taken[len(taken) * 99 // 100] * 1e6:.0f} us",
        )
    else:
        say(f"{what}: answers/s (client on the other core)", f"{answered / elapsed:,.0f}")
        say(f"{what}: answers per CPU second of the server", f"{answered / cpu:,.0f}")
        say(f"{what}: memory of the server, 10,000 x 10", f"{rss / 1024:.0f} MiB")


def steady(part: float, seconds: float) -> None:
    """Queries at `part` of the rate that one core should answer, each at its time, whether others are answered or not.
    An answer's time counts from when its query was due. Every name was asked once before."""
    ours, process, address = started(0)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(address)
    chance = random.Random(1)
    queries = []
    for n in range(1 << 14):
        i = chance.randrange(SERVICES)
        queries.append(query(f"svc{i}.ns{i % 50}", wire.A, n))
    pace = GOAL_QUERIES * part
    sock.settimeout(5)
    for raw in queries:
        sock.send(raw)
        sock.recv(2048)
    sock.setblocking(False)
    due = [0.0] * len(queries)
    taken: list[tuple[float, float]] = []
    waits: list[float] = []
    total = int(pace * seconds)
    sent = 0
    begin = time.perf_counter()
    while len(taken) < total and (now := time.perf_counter() - begin) < 2 * seconds + 2:
        while len(waits) <= now / WINDOW_SECONDS:
            waits.append(waited(os.getpid()) + waited(process.pid or 0))
        while sent < total and begin + sent / pace <= time.perf_counter():
            due[sent % len(due)] = begin + sent / pace
            with contextlib.suppress(BlockingIOError):
                sock.send(queries[sent % len(queries)])
            sent += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                asked = due[int.from_bytes(sock.recv(2048)[:2], "big")]
                taken.append((asked - begin, time.perf_counter() - asked))
    ours.send(None)
    ours.recv()
    process.join()
    what = f"UDP, {pace:,.0f} q/s, each at its time"
    say(f"{what}: median / 99 of 100", spread([t for _, t in taken]))
    say(f"{what}: unanswered", f"{total - len(taken)} of {total}")
    # On a busy machine both processes wait for a core: what was asked then says nothing about the server.
    quiet = {n for n in range(1, len(waits) - 1) if waits[n + 1] - waits[n - 1] < QUIET_SECONDS}
    free = [t for asked, t in taken if int(asked / WINDOW_SECONDS) in quiet]
    say(f"{what}: while both had a core, {len(free) / max(1, total):.0%} of them", spread(free))


def spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    return " / ".join(f"{ordered[len(ordered) * part // 100] * 1e6:.0f}" for part in (50, 99)) + " us"


def waited(pid: int) -> float:
    """Seconds for which a process was ready to run and had no core."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def workers(count: int, seconds: float) -> None:
    """Workers that share a port, asked by 32 sockets with eight queries outstanding each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = []
    for _ in range(count):
        ours, process, _ = started(0, port)
        made.append((ours, process))
    poll = select.poll()
    socks = {}
    for n in range(32):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", port))
        poll.register(sock, select.POLLIN)
        socks[sock.fileno()] = sock
        for i in range(8):
            sock.send(query(f"svc{n * 8 + i}.ns{(n * 8 + i) % 50}", wire.A))
    answered = 0
    asked = query("svc1.ns1", wire.A)
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        for number, _ in poll.poll(100):
            sock = socks[number]
            with contextlib.suppress(BlockingIOError):
                for _ in range(8):
                    sock.recv(2048, socket.MSG_DONTWAIT)
                    answered += 1
                    sock.send(asked)
    used = []
    for ours, process in made:
        ours.send(None)
        used.append(ours.recv()[0])
        process.join()
    for sock in socks.values():
        sock.close()
    elapsed = now - begin
    say(
        f"{count} workers: answers/s; per CPU second of all of them",
        f"{answered / elapsed:,.0f}; {answered / sum(used):,.0f}",
    )
    say(f"{count} workers: of a core each", ", ".join(f"{u / elapsed:.0%}" for u in used))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="longer runs")
    seconds = 10.0 if parser.parse_args(argv).full else 2.0
    begin = time.perf_counter()
    whole = cluster()
    say("10,000 Services x 10 endpoints fed", f"{time.perf_counter() - begin:.2f} s")
    inside(whole)
    load(0, 0, seconds)
    load(100, 0, seconds)
    load(0, 5000, seconds)
    steady(0.5, seconds)
    for count in (1, 2, 4):
        workers(count, seconds)


if __name__ == "__main__":
    main()
