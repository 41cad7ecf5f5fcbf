"""Three `kubesvc apiserver --store etcd://…`, written to through all, killed at moments of chance and started again.

Nobody is given an address or a port twice, what was acknowledged is there, lists agree, and a watch that goes on at
another server whenever its own dies tells exactly what happened. SEED in the environment chooses other moments.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kubesvc.store import Change, open_store

from ..store.etcdserver import EtcdServer

SEED = int(os.environ.get("SEED", "3"))
SOURCE = Path(__file__).parents[2] / "src"
SERVICES = "/api/v1/namespaces/default/services"
ENOUGH = 50
"""Acknowledged writes for each kill: however slow the machine, so many are compared."""
STORED = "/registry/core/services/"


@dataclass
class Fleet:
    """API servers over one etcd, each a process of its own, reached over its trusted socket."""

    home: Path
    url: str
    size: int
    processes: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    sessions: dict[int, aiohttp.ClientSession] = field(default_factory=dict)
    ended: list[aiohttp.ClientSession] = field(default_factory=list)

    async def start(self, number: int) -> None:
        words = [
            "apiserver", "--name", f"s{number}", "--store", self.url, "--advertise-address", f"192.0.2.{number}",
            "--service-node-port-range", "30000-30023", "--service-cluster-ip-range", "10.96.0.0/26",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(SOURCE), "XDG_STATE_HOME": str(self.home)}
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "kubesvc", *words], env=environment, stdout=subprocess.PIPE, text=True
        )
        self.processes[number] = process
        assert process.stdout is not None
        ready = await asyncio.to_thread(process.stdout.readline)
        assert "is ready" in ready, f"s{number} does not start"
        connector = aiohttp.UnixConnector(path=str(self.home / "kubesvc" / f"s{number}" / "api.sock"))
        self.sessions[number] = aiohttp.ClientSession("http://api", connector=connector)
        self.sessions[number]._retry_connection = False  # else it repeats a DELETE that was cut off

    async def kill(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.processes[number].wait)
        self.ended.append(self.sessions.pop(number))  # closed now, it would leave who reads from it waiting for ever

    async def end(self) -> None:
        for session in [*self.sessions.values(), *self.ended]:
            await session.close()
        for process in self.processes.values():
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    async def ask(self, number: int, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and answer; (0, None) if the server died of it, so that nobody knows."""
        session = self.sessions.get(number)
        if session is None:
            return 0, None
        headers = {"Content-Type": more.get("kind", "application/json")}
        try:
            async with session.request(method, path, json=body, headers=headers) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, ConnectionError, RuntimeError, json.JSONDecodeError):
            return 0, None


class Writer:
    """Makes, changes and deletes Services of its own through whichever server."""

    def __init__(self, fleet: Fleet, number: int, chance: random.Random) -> None:
        self.fleet = fleet
        self.number = number
        self.chance = chance
        self.known: dict[str, Any] = {}
        """What was acknowledged, by name; None once it was deleted or nobody knows."""
        self.lost: list[str] = []
        """Of these nobody knows whether they are there."""
        self.acknowledged = 0

    async def step(self, n: int) -> None:
        fleet, chance = self.fleet, self.chance
        server = chance.choice(sorted(fleet.processes))
        mine = sorted(name for name, body in self.known.items() if body)
        what = chance.random()
        if self.lost and what < 0.4:
            status, _ = await fleet.ask(server, "DELETE", f"{SERVICES}/{self.lost[0]}")
            assert status in (0, 200, 404)
            if status:
                self.lost.pop(0)
            return
        if what < 0.5 or not mine:
            name = f"w{self.number}-{n}"
            spec = {"type": chance.choice(("NodePort", "ClusterIP")), "ports": [{"port": 80}]}
            status, body = await fleet.ask(server, "POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
            assert status in (0, 201, 500), body
            assert status != 500 or "range is full" in body["message"], body
        else:
            name = chance.choice(mine)
            if what < 0.75:
                status, body = await fleet.ask(server, "DELETE", f"{SERVICES}/{name}")
                assert status in (0, 200), body
                self.known[name], body = None, None
            else:
                spec = {"type": chance.choice(("NodePort", "ClusterIP"))}
                patch = {"metadata": {"labels": {"n": str(n)}}, "spec": spec}
                kind = "application/merge-patch+json"
                status, body = await fleet.ask(server, "PATCH", f"{SERVICES}/{name}", patch, kind=kind)
                assert status in (0, 200, 422, 500), body
        if status in (200, 201):
            self.acknowledged += 1
            if body is not None:
                self.known[name] = body
        elif status == 0:
            self.known[name] = None
            self.lost.append(name)


async def follow(fleet: Fleet, after: str, seen: list[tuple[str, str, int]], stop: asyncio.Event) -> None:
    """Watch Services for ever, at the next server whenever one ends the watch or dies."""
    number = 0
    while not stop.is_set():
        number = number % fleet.size + 1
        session = fleet.sessions.get(number)
        if session is None:
            await asyncio.sleep(0.01)
            continue
        try:
            async with session.get(f"/api/v1/services?watch=1&resourceVersion={after}") as response:
                assert response.status == 200
                async for line in response.content:
                    event = json.loads(line)
                    meta = event["object"]["metadata"]
                    if event["type"] == "ERROR":  # a server that began later cannot know: another one does
                        assert event["object"]["code"] == 410
                        break
                    seen.append((event["type"], meta["name"], int(meta["resourceVersion"])))
                    after = meta["resourceVersion"]
        except (aiohttp.ClientError, ConnectionError, RuntimeError, json.JSONDecodeError):
            pass
        await asyncio.sleep(0.005)


def as_events(changes: list[Change]) -> Iterator[tuple[str, str, int]]:
    for change in changes:
        what = "DELETED" if change.value is None else "MODIFIED" if change.previous else "ADDED"
        yield what, change.key.rpartition("/")[2], change.revision


async def history(url: str, after: int, until: int) -> AsyncIterator[Change]:
    """What happened to Services, as etcd itself tells it."""
    store = open_store(url)
    await store.start()
    try:
        async with aclosing(store.watch("", after)) as watch:  # type: ignore[type-var]
            async for batch in watch:
                for change in batch:
                    if change.revision > until:
                        return
                    if change.key.startswith(STORED):
                        yield change
    finally:
        await store.close()


async def trouble(fleet: Fleet, url: str, kills: int) -> int:
    """Let everybody write while servers are killed, then compare; how many writes were acknowledged."""
    chance = random.Random(SEED)
    await asyncio.gather(*(fleet.start(number + 1) for number in range(fleet.size)))
    _, listed = await fleet.ask(1, "GET", "/api/v1/services")
    begin = listed["metadata"]["resourceVersion"]
    stop, seen = asyncio.Event(), [list[tuple[str, str, int]]() for _ in range(2)]
    watching = [asyncio.create_task(follow(fleet, begin, events, stop)) for events in seen]
    writers = [Writer(fleet, i, random.Random(SEED + i)) for i in range(6)]
    going = asyncio.Event()

    async def write(writer: Writer) -> None:
        n = 0
        while not going.is_set():
            n += 1
            await writer.step(n)

    writing = [asyncio.create_task(write(writer)) for writer in writers]
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        number = chance.randint(1, fleet.size)
        await fleet.kill(number)
        await asyncio.sleep(chance.uniform(0, 0.2))
        await fleet.start(number)
    await asyncio.sleep(0.3)
    while sum(writer.acknowledged for writer in writers) <= ENOUGH * kills:
        await asyncio.sleep(0.05)
    going.set()
    await asyncio.gather(*writing)

    lists = [(await fleet.ask(number + 1, "GET", "/api/v1/services"))[1] for number in range(fleet.size)]
    items = lists[0]["items"]
    assert all(found["items"] == items for found in lists), "servers disagree"
    stored = {item["metadata"]["name"]: item for item in items}
    for writer in writers:
        for name, body in writer.known.items():
            if body:
                assert stored.get(name) == {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
    addresses = [item["spec"]["clusterIP"] for item in items]
    ports = [p["nodePort"] for item in items for p in item["spec"]["ports"] if p.get("nodePort")]
    assert len(set(addresses)) == len(addresses) and len(set(ports)) == len(ports), "given twice"
    _, held = await fleet.ask(1, "GET", "/apis/networking.k8s.io/v1/ipaddresses")
    assert sorted(a["metadata"]["name"] for a in held["items"]) == sorted(addresses), "lost"

    newest = max(int(found["metadata"]["resourceVersion"]) for found in lists)
    expected = list(as_events([change async for change in history(url, int(begin), newest)]))
    async with asyncio.timeout(60):
        while any(len(events) < len(expected) for events in seen) and not any(task.done() for task in watching):
            await asyncio.sleep(0.02)
    stop.set()
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    assert all(events == expected for events in seen), "a watch left something out or told it twice"
    return sum(writer.acknowledged for writer in writers)


def run_trouble(directory: Path, size: int, kills: int) -> int:
    server = EtcdServer(directory).start()
    home = Path(tempfile.mkdtemp(prefix="kubesvc-fleet-"))  # short: sockets have short names

    async def main() -> int:
        fleet = Fleet(home, server.url(), size)
        try:
            return await asyncio.wait_for(trouble(fleet, server.url(), kills), 180 + 10 * kills)
        finally:
            await fleet.end()

    try:
        return asyncio.run(main())
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
def test_two_servers_one_of_which_is_killed(tmp_path: Path) -> None:
    assert run_trouble(tmp_path, 2, 1) > ENOUGH


@pytest.mark.soak
def test_three_servers_that_are_killed_again_and_again(tmp_path: Path) -> None:
    assert run_trouble(tmp_path, 3, 60) > 60 * ENOUGH
