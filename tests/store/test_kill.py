"""kill -9 under write load, at moments of chance: every acknowledged write is there afterwards, and history is exact.

SEED in the environment chooses other moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from kubesvc.store import Change, Entry, Put, Store, Unavailable, open_store

from .etcdserver import EtcdServer, shared_etcd

SOURCE = Path(__file__).parents[2] / "src"
SEED = int(os.environ.get("SEED", "9"))

WRITER = """
import asyncio, os, sys
from kubesvc.store import Delete, Put, open_store

async def main():
    store = open_store(sys.argv[1])
    await store.start()
    async def write(worker):
        n = 0
        while True:
            operations = [Put(f"{worker}/{n}", b"%d" % n, expect=0), Put(f"last/{worker}", b"%d" % n)]
            if n % 3 == 2:
                operations.append(Delete(f"gone/{worker}"))
            elif n % 3 == 0:
                operations.append(Put(f"gone/{worker}", b""))
            revision = await store.commit(*operations)
            os.write(1, b"%d %d %d\\n" % (worker, n, revision))
            n += 1
            if n % 50 == 0 and worker % 100 == 0:
                await store.compact(await store.revision() - 20)
    base = int(sys.argv[2])
    await asyncio.gather(*(write(base + i) for i in range(16)))

asyncio.run(main())
"""


def place(engine: str, directory: Path) -> str:
    """What --store would be."""
    return str(directory / "store.db") if engine == "sqlite" else shared_etcd().url(directory.name)


async def history(store: Store, after: int) -> list[Change]:
    """All changes after a revision, up to one that is made for the purpose."""
    newest = await store.commit(Put("last/check", b""))
    seen: list[Change] = []
    async with aclosing(store.watch("", after)) as watch:  # type: ignore[type-var]
        async for batch in watch:
            seen += batch
            if seen[-1].revision >= newest:
                break
    return [change for change in seen if change.revision < newest]


def replayed(entries: list[Entry], changes: list[Change]) -> list[Entry]:
    """The state that changes lead to; each must say truly what was before it."""
    state = {entry.key: entry for entry in entries}
    for change in changes:
        assert change.previous == state.get(change.key), change
        if change.value is None:
            del state[change.key]
        else:
            created = change.previous.created if change.previous else change.revision
            state[change.key] = Entry(change.key, change.value, created, change.revision)
    return [state[key] for key in sorted(state)]


async def check_history(store: Store, chance: random.Random) -> list[Change]:
    """The kept history leads from its oldest state to the newest, and a watch from anywhere in it is its end."""
    oldest = store.compacted or 1
    whole = await history(store, oldest)
    assert [c.revision for c in whole] == sorted(c.revision for c in whole)
    assert max(Counter((c.revision, c.key) for c in whole).values()) == 1, "a change came twice"
    newest = whole[-1].revision
    state = (await store.scan("", at=newest)).entries
    for after in (oldest, *(chance.randint(oldest, newest - 1) for _ in range(3))):
        end = [c for c in whole if c.revision > after]
        assert [c for c in await history(store, after) if c.revision <= newest] == end
        assert replayed((await store.scan("", at=after)).entries, end) == state
    return whole


def kill_and_look(url: str, chance: random.Random, base: int, least: int = 1) -> int:
    """Let a process write until it is killed in mid-air, at some moment after so many acknowledged writes; how many
    there were, all of which were checked."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(base)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert process.stdout is not None
    said = b"".join(process.stdout.readline() for _ in range(least))
    try:
        process.wait(chance.uniform(0.0, 0.25))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    said += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    lines = said[: said.rindex(b"\n")].split(b"\n")

    async def check() -> None:
        store = open_store(url)
        await store.start()
        try:
            whole = {(c.key, c.revision) for c in await check_history(store, chance)}
            for line in lines:
                worker, n, revision = map(int, line.split())
                entry = await store.get(f"{worker}/{n}")
                assert entry == Entry(f"{worker}/{n}", b"%d" % n, revision, revision), f"acknowledged, lost: {line!r}"
                last = await store.get(f"last/{worker}")
                assert last is not None and int(last.value) >= n
                assert revision <= store.compacted or (f"{worker}/{n}", revision) in whole
            # At one revision: etcd may still do what the dead process had sent.
            there = {entry.key: entry.value for entry in (await store.scan("")).entries}
            for key, value in there.items():
                who = key.removeprefix("last/")
                if who == key or not who.isdigit():
                    continue
                assert f"{who}/{int(value)}" in there, "a transaction was torn"
                assert f"{who}/{int(value) + 1}" not in there, "a transaction was torn"
        finally:
            await store.close()

    asyncio.run(check())
    return len(lines)


ENGINES = ("sqlite", "etcd")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_acknowledged_write_survives_kill_9(engine: str, tmp_path: Path) -> None:
    chance, url = random.Random(SEED), place(engine, tmp_path)
    assert sum(kill_and_look(url, chance, 100 * i, least=11) for i in range(2)) > 20


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("engine", ENGINES)
def test_every_acknowledged_write_survives_kill_9_again_and_again(engine: str, turn: int, tmp_path: Path) -> None:
    chance, url = random.Random(turn), place(engine, tmp_path)
    for i in range(20):
        assert kill_and_look(url, chance, 100 * i) > 0


def kill_etcd_and_look(server: EtcdServer, kills: int, chance: random.Random) -> int:
    """Kill etcd itself again and again under a store that goes on writing; how many writes were acknowledged."""

    async def main() -> int:
        store = open_store(server.url("killed"))
        await store.start()
        told: list[Change] = []
        store.subscribe("", told.extend)
        base, acknowledged, stop = await store.revision(), dict[int, str](), asyncio.Event()

        async def write(worker: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                try:
                    acknowledged[await store.commit(Put(f"{worker}/{n}", b"", expect=0), Put(f"l/{worker}", b""))] = (
                        f"{worker}/{n}"
                    )
                except Unavailable:
                    pass  # it may have been written; who cares is told by the watch

        writers = [asyncio.create_task(write(i)) for i in range(8)]
        for _ in range(kills):
            enough = len(acknowledged) + 10
            while len(acknowledged) < enough:
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.1))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(chance.uniform(0, 0.1))
            await asyncio.to_thread(server.start)
        enough = len(acknowledged) + 10
        while len(acknowledged) < enough:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*writers)
        await store.revision()
        assert store.trouble == ""
        seen = list(told)
        await store.close()
        other = open_store(server.url("killed"))
        await other.start()
        whole = [c for c in await history(other, base) if c.revision <= seen[-1].revision]
        assert seen == whole, "the watch left something out or told it twice"
        for revision, key in acknowledged.items():
            assert await other.get(key) == Entry(key, b"", revision, revision)
        await other.close()
        return len(acknowledged)

    return asyncio.run(main())


def test_a_store_goes_on_exactly_where_it_was_when_etcd_is_killed(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path).start()
    try:
        assert kill_etcd_and_look(server, 1, random.Random(SEED)) > 20
    finally:
        server.kill()


@pytest.mark.soak
def test_a_store_goes_on_exactly_where_it_was_when_etcd_is_killed_again_and_again(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path).start()
    try:
        assert kill_etcd_and_look(server, 200, random.Random(SEED)) > 2000
    finally:
        server.kill()
