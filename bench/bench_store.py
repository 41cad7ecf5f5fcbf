"""Figures of the store engines: `python -m bench store`, or `python bench/bench_store.py [directory]`.

The directory should lie on the disk that matters; the default is the working directory's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kubesvc.store import MemoryStore, Put, SqliteStore, Store

VALUE = os.urandom(500) * 2  # 1 kB


def say(what: str, figure: str) -> None:
    sys.stdout.write(f"{what:<66}{figure:>16}\n")


def fsync_seconds(directory: Path) -> float:
    """Median of appending 4 kB and telling the disk."""
    with tempfile.TemporaryFile(dir=directory) as file:
        taken = []
        for _ in range(50):
            begin = time.perf_counter()
            file.write(VALUE * 4)
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


async def commits_a_second(store: Store, writers: int, keys: Iterable[str], seconds: float = 1.0) -> float:
    supply, done, begin = iter(keys), 0, time.perf_counter()

    async def write() -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds:
            await store.commit(Put(next(supply), VALUE))
            done += 1

    await asyncio.gather(*(write() for _ in range(writers)))
    return done / (time.perf_counter() - begin)


def endless(prefix: str) -> Iterable[str]:
    n = 0
    while True:
        yield f"{prefix}/{n % 97}/{n}"
        n += 1


async def engine(name: str, store: Store, directory: Path) -> None:
    await store.start()
    for _ in range(30):
        store.subscribe("registry/nothing/", lambda _: None)  # as a server has, one for each kind
    taken = []
    for i in range(500):
        begin = time.perf_counter()
        await store.commit(Put(f"one/{i}", VALUE))
        taken.append(time.perf_counter() - begin)
    say(f"{name}: one commit, median", f"{statistics.median(taken) * 1e3:.3f} ms")
    say(f"{name}: one commit, 99 of 100", f"{sorted(taken)[-5] * 1e3:.3f} ms")
    for writers in (1, 8, 64):
        rate = await commits_a_second(store, writers, endless(f"writers{writers}"))
        say(f"{name}: new keys of 1 kB, {writers} writers", f"{rate:,.0f} /s")
    await store.compact(await store.revision())
    await store.close()


async def large(directory: Path) -> None:
    path = directory / "large.db"
    store = SqliteStore(path)
    await store.start()
    keys = [f"registry/pods/namespace-{i % 50}/pod-{i}" for i in range(100_000)]
    for i in range(0, len(keys), 500):
        await store.commit(*(Put(key, os.urandom(1000)) for key in keys[i : i + 500]))
    await store.compact(await store.revision())
    await store.close()
    del store
    before = rss()
    store, begin = SqliteStore(path), time.perf_counter()
    await store.start()
    say("sqlite: start with 100,000 entries of 1 kB", f"{time.perf_counter() - begin:.2f} s")
    say("sqlite: memory for them", f"{(rss() - before) / 100_000:.0f} B each")
    begin = time.perf_counter()
    page = await store.scan("registry/pods/namespace-7/")
    say(f"scan of {len(page.entries)} among 100,000", f"{(time.perf_counter() - begin) * 1e3:.2f} ms")
    begin = time.perf_counter()
    await store.scan("registry/pods/", limit=500)
    say("first page of 500 among 100,000", f"{(time.perf_counter() - begin) * 1e3:.2f} ms")
    rate = await commits_a_second(store, 64, endless("registry/pods/namespace-7"))
    say("sqlite: new keys among 100,000, 64 writers", f"{rate:,.0f} /s")
    begin = time.perf_counter()
    await store.compact(await store.revision())
    say("compaction of that", f"{time.perf_counter() - begin:.2f} s")
    await store.close()


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def measure(base: Path) -> None:
    with tempfile.TemporaryDirectory(dir=base, prefix=".bench-store-") as name:
        directory = Path(name)
        say("this disk: append 4 kB and fdatasync", f"{fsync_seconds(directory) * 1e3:.3f} ms")
        await engine("memory", MemoryStore(), directory)
        await engine("sqlite", SqliteStore(directory / "small.db"), directory)
        # A fresh process: the figures of memory are then of this part alone.
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(directory), "large")
        await process.wait()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="changes nothing: ten seconds are enough")
    parser.add_argument("directory", nargs="?", type=Path, default=Path.cwd())
    parser.add_argument("part", nargs="?", choices=("all", "large"), default="all", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    asyncio.run(large(args.directory) if args.part == "large" else measure(args.directory))


if __name__ == "__main__":
    main()
