"""Power loss: what SQLite wrote and synced is recorded, cut at every point, and what was not synced is lost.

Whatever is left must open as a store that holds every acknowledged write, and of the others whole transactions in their
order. SEED in the environment chooses other torn writes.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from kubesvc.store import Delete, Operation, Put, SqliteStore

from .sqlitedisk import NOTE, Platter, Recorder, Step

SEED = int(os.environ.get("SEED", "5"))


class Acknowledged(NamedTuple):
    revision: int


class History:
    """What the store held after each revision."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, bytes]] = {1: {}}

    def commit(self, operations: list[Operation]) -> None:
        state = dict(self.states[max(self.states)])
        for operation in operations:
            if isinstance(operation, Put):
                state[operation.key] = operation.value
            else:
                state.pop(operation.key, None)
        self.states[max(self.states) + 1] = state


def record(directory: Path, rounds: int) -> tuple[list[Step], History]:
    """A store's life on a recorded disk: batches, large values, checkpoints, compaction, a clean end, a new start."""
    chance = random.Random(SEED)
    recorder, history = Recorder(directory), History()

    async def commit(store: SqliteStore, operations: list[Operation]) -> None:
        recorder.note(Acknowledged(await store.commit(*operations)))

    async def live(rounds: int, pages: int) -> None:
        store = SqliteStore(directory / "store.db")
        await store.start()
        await store._call(lambda: store.database.connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall())
        for i in range(rounds):
            batch: list[list[Operation]] = []
            for _ in range(chance.randint(1, 3)):
                key = f"k{chance.randrange(4)}"
                value = b"%d" % i + bytes(chance.choice((0, 100, 6000)))
                operations: list[Operation] = [Put(key, value), Put(f"last/{key}", b"%d" % i)]
                if chance.random() < 0.2 and "k9" in history.states[max(history.states)]:
                    operations.append(Delete("k9"))
                elif chance.random() < 0.3:
                    operations.append(Put("k9", b""))
                history.commit(operations)
                batch.append(operations)
            await asyncio.gather(*(commit(store, operations) for operations in batch))
            if i % 5 == 4:
                await store.compact(await store.revision() - 3)
        await store.close()

    with recorder.recording():
        asyncio.run(live(rounds, 4))
        asyncio.run(live(max(1, rounds // 3), 1000))
    return recorder.log, history


def cut_everywhere(log: list[Step], history: History, directory: Path, tries: int) -> int:
    """Check what each cut may leave; how many different disks there were."""
    chance = random.Random(SEED)
    platter, acknowledged = Platter(), 1
    seen: set[int] = set()
    for at, step in enumerate([*log, Step(NOTE)]):
        disks = [platter.after_power_loss(None), platter.after_power_loss(None, everything=True)]
        disks += [platter.after_power_loss(chance) for _ in range(tries)]
        for disk in disks:
            mark = hash((acknowledged, frozenset(disk.items())))
            if mark not in seen:
                seen.add(mark)
                check(disk, acknowledged, history, directory / f"{at}-{len(seen)}")
        if isinstance(step.note, Acknowledged):
            acknowledged = max(acknowledged, step.note.revision)
        platter.apply(step)
    return len(seen)


def check(disk: dict[str, bytes], acknowledged: int, history: History, directory: Path) -> None:
    directory.mkdir()
    for name, content in disk.items():
        (directory / name).write_bytes(content)

    async def main() -> None:
        store = SqliteStore(directory / "store.db")
        await store.start()
        try:
            newest = await store.revision()
            assert newest >= acknowledged, f"{directory.name}: acknowledged and lost"
            for revision in range(max(1, store.compacted), newest + 1):
                entries = (await store.scan("", at=revision)).entries
                found = {entry.key: entry.value for entry in entries}
                assert found == history.states[revision], f"{directory.name}: torn at {revision}"
            assert await store.commit(Put("afterwards", b"")) == newest + 1
        finally:
            await store.close()

    asyncio.run(main())
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def test_whatever_a_power_loss_leaves_holds_every_acknowledged_write(tmp_path: Path) -> None:
    live, cut = tmp_path / "live", tmp_path / "cut"
    live.mkdir()
    cut.mkdir()
    log, history = record(live, 7)
    kinds = {step.what for step in log} | {step.name for step in log}
    assert {"write", "sync", "create", "delete", "truncate", "store.db", "store.db-wal"} <= kinds, kinds
    assert cut_everywhere(log, history, cut, 1) > 100


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(4))
def test_whatever_many_power_losses_leave_holds_every_acknowledged_write(tmp_path: Path, turn: int) -> None:
    live, cut = tmp_path / "live", tmp_path / "cut"
    live.mkdir()
    cut.mkdir()
    log, history = record(live, 30 + turn)
    assert cut_everywhere(log, history, cut, 8) > 1000


def test_a_disk_that_only_pretends_to_sync_is_found_out(tmp_path: Path) -> None:
    """The test above can fail: without the syncs of the write-ahead log, acknowledged writes are lost."""
    live, cut = tmp_path / "live", tmp_path / "cut"
    live.mkdir()
    cut.mkdir()
    log, history = record(live, 3)
    lying = [step for step in log if (step.what, step.name) != ("sync", "store.db-wal")]
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        cut_everywhere(lying, history, cut, 0)
