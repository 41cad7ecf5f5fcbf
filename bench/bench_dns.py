"""Figures of the DNS server: `python -m bench dns`. Takes about half a minute, on loopback, two to four processes.

The server has one core and the client the other. A bare echo, asked in the same way, shows what of an answer's time is
the machine's. Answers per second of server CPU time are what one core would give on a machine that others use as well.
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
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

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

from .datagrams import flood, steady
from .figures import percentile

SERVICES, ENDPOINTS = 10_000, 10
WINDOW_SECONDS, QUIET_SECONDS = 0.005, 0.0003
BEFORE = 4
"""Windows before one that is looked at: what was asked in them is still waiting if somebody had to wait then."""
SOCKETS, WINDOW = 16, 32
"""Of one client that asks for as much as it gets."""
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


def serve(pipe: Connection, churn: int, port: int, core: int | None) -> None:
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
        pipe.send((time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    if core is not None:
        os.sched_setaffinity(0, {core})
    asyncio.run(main())


def echo(pipe: Connection, core: int | None) -> None:
    """Another process: sends back what it gets, and does nothing else; the least that answers in Python can take."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    sock = bound_socket(socket.SOCK_DGRAM, "127.0.0.1", 0)
    pipe.send(sock.getsockname())
    with select.epoll() as poll:
        poll.register(pipe.fileno(), select.EPOLLIN)
        poll.register(sock.fileno(), select.EPOLLIN)
        while not any(number == pipe.fileno() for number, _ in poll.poll()):
            with contextlib.suppress(BlockingIOError):
                while True:
                    datagram, client = sock.recvfrom(4096)
                    sock.sendto(datagram, client)
    pipe.send(None)


def ask(pipe: Connection, port: int, seconds: float, core: int | None) -> None:
    """Another process: a generator that begins when told to."""
    datagrams = questions(2000)
    pipe.send(None)
    pipe.recv()
    pipe.send(flood(("127.0.0.1", port), datagrams, SOCKETS, WINDOW, seconds, core))


def questions(count: int) -> list[bytes]:
    chance = random.Random(1)
    numbers = [chance.randrange(SERVICES) for _ in range(count)]
    return [query(f"svc{i}.ns{i % 50}", wire.A) for i in numbers]


class Child:
    """A process and the pipe to it."""

    def __init__(self, work: Callable[..., None], *args: object) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, *args), daemon=True)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def done(self) -> Any:
        """What it says at its end."""
        self.pipe.send(None)
        said = self.pipe.recv()
        self.process.join()
        return said


def most(churn: int, seconds: float) -> float:
    """As many queries as are answered by a server that has a core to itself. Returns the rate."""
    of_server, of_client = cores()
    server = Child(serve, churn, 0, of_server)
    answered, elapsed = flood(server.pipe.recv(), questions(2000), SOCKETS, WINDOW, seconds, of_client)
    cpu: float
    cpu, rss = server.done()
    what = f"UDP, {churn} changes/s"
    say(f"{what}: answers/s (client on the other core)", f"{answered / elapsed:,.0f}")
    say(f"{what}: answers per CPU second of the server", f"{answered / cpu:,.0f}")
    say(f"{what}: memory of the server, 10,000 x 10", f"{rss:.0f} MiB")
    return answered / cpu


def at_pace(pace: float, churn: int | None, seconds: float) -> None:
    """Queries at a steady rate, each at its time whether others are answered or not; all names were asked before. An
    answer's time is from the sending to the arrival. churn: endpoint changes a second; None: a bare echo answers."""
    of_server, of_client = cores()
    server = Child(echo, of_server) if churn is None else Child(serve, churn, 0, of_server)
    address = server.pipe.recv()
    datagrams = questions(8000)
    steady(address, datagrams, 8000, 1, of_client, lambda now: None)
    waits: list[float] = []

    def look(now: float) -> None:
        while len(waits) <= now / WINDOW_SECONDS:
            waits.append(waited(os.getpid()) + waited(server.pid))

    asked, answers = steady(address, datagrams, pace, seconds, of_client, look)
    server.done()
    what = f"UDP, {pace:,.0f} q/s, " + ("a bare echo" if churn is None else f"{churn} changes/s")
    say(f"{what}: median / 99 of 100", spread([a.taken for a in answers]))
    # On a busy machine both processes wait for a core: what was asked then says nothing about the server.
    quiet = {n for n in range(BEFORE, len(waits) - 1) if waits[n + 1] - waits[n - BEFORE] < QUIET_SECONDS}
    free = [a.taken for a in answers if int(a.due / WINDOW_SECONDS) in quiet]
    say(f"{what}: while both had a core, {len(free) / max(1, asked):.0%} of them", spread(free))
    if churn is not None:
        say(f"{what}: counted from when each was due", spread([a.arrived for a in answers]))
        say(f"{what}: unanswered; not NOERROR", f"{asked - len(answers)}; {sum(bool(a.code) for a in answers)}")


def spread(seconds: Sequence[float]) -> str:
    return " / ".join(f"{percentile(seconds, part) * 1e6:.0f}" for part in (0.5, 0.99)) + " us"


def cores() -> tuple[int | None, int | None]:
    """One for the server and one for the client; no choice where there is one only."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[-1], usable[0]) if len(usable) > 1 else (None, None)


def waited(pid: int) -> float:
    """Seconds for which a process was ready to run and had no core."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def workers(count: int, seconds: float) -> float:
    """So many workers that share a port, each on a core that it shares with a client of its own: twice the workers
    are twice everything. Returns answers a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    held = sorted(os.sched_getaffinity(0))[:count]
    servers = [Child(serve, 0, port, core) for core in held]
    for server in servers:
        server.pipe.recv()
    clients = [Child(ask, port, seconds, core) for core in held]
    for client in clients:
        client.pipe.recv()
    for client in clients:
        client.pipe.send(None)
    said: list[tuple[int, float]] = [client.pipe.recv() for client in clients]
    used = [server.done()[0] for server in servers]
    answered, elapsed = sum(n for n, _ in said), max(s for _, s in said)
    what = f"{count} core{'s' if count > 1 else ''}, on each a worker and a client"
    say(f"{what}: answers/s", f"{answered / elapsed:,.0f}")
    say(f"{what}: per CPU second of the workers", f"{answered / sum(used):,.0f}")
    say(f"{what}: of a core each worker had", ", ".join(f"{u / elapsed:.0%}" for u in used))
    return answered / elapsed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="longer runs")
    seconds = 10.0 if parser.parse_args(argv).full else 2.0
    begin = time.perf_counter()
    whole = cluster()
    say("10,000 Services x 10 endpoints fed", f"{time.perf_counter() - begin:.2f} s")
    inside(whole)
    rate = most(0, seconds)
    most(100, seconds)
    at_pace(GOAL_QUERIES / 2, None, seconds)
    at_pace(GOAL_QUERIES / 2, 0, seconds)
    at_pace(GOAL_QUERIES / 2, 100, seconds)
    at_pace(round(rate / 2, -3), 0, seconds)
    one = workers(1, seconds)
    if len(os.sched_getaffinity(0)) > 1:
        say("two cores to one: answers/s", f"{workers(2, seconds) / one:.2f}")


if __name__ == "__main__":
    main()
