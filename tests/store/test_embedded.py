"""The SQLite engine: what survives, what is refused and in which words."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kubesvc.store import Change, Delete, Entry, Moved, Put, SqliteStore, Unavailable


def session(path: Path, body: Callable[[SqliteStore], Awaitable[None]]) -> None:
    """Open, use and close the store at `path` in a loop of its own."""

    async def main() -> None:
        store = SqliteStore(path)
        await store.start()
        try:
            await asyncio.wait_for(body(store), 120)
        finally:
            await store.close()

    asyncio.run(main())


def test_state_history_and_compaction_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def write(store: SqliteStore) -> None:
        await store.commit(Put("a", b"1"), Put("b", b"1"))  # 2
        await store.commit(Put("a", b"2"))  # 3
        await store.commit(Delete("b"), Put("c", b"3"))  # 4
        await store.commit(Put("a", b"4"))  # 5
        await store.compact(3)

    async def read(store: SqliteStore) -> None:
        assert (await store.revision(), store.compacted) == (5, 3)
        assert (await store.scan("")).entries == [Entry("a", b"4", 2, 5), Entry("c", b"3", 4, 4)]
        assert (await store.scan("", at=3)).entries == [Entry("a", b"2", 2, 3), Entry("b", b"1", 2, 2)]
        assert await anext(store.watch("", 3)) == [
            Change(4, "b", None, Entry("b", b"1", 2, 2)),
            Change(4, "c", b"3", None),
            Change(5, "a", b"4", Entry("a", b"2", 2, 3)),
        ]
        assert await store.commit(Put("d", b"")) == 6

    session(path, write)
    session(path, read)


def test_a_store_compacted_to_nothing_keeps_its_revision(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def write(store: SqliteStore) -> None:
        await store.commit(Put("a", b"1"))
        await store.commit(Delete("a"))
        await store.compact(3)

    async def read(store: SqliteStore) -> None:
        assert (await store.revision(), (await store.scan("")).entries) == (3, [])

    session(path, write)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM versions").fetchone() == (0,), "nothing is kept that nobody can read"
    session(path, read)


def test_rows_that_an_interrupted_compaction_left_are_removed_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def write(store: SqliteStore) -> None:
        for i in range(5):
            await store.commit(Put("a", b"%d" % i), Put(f"b{i}", b""))
        await store.commit(Delete("b0"))

    async def read(store: SqliteStore) -> None:
        assert [e.key for e in (await store.scan("", at=store.compacted)).entries] == ["a", "b1", "b2", "b3", "b4"]

    session(path, write)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE facts SET value = 7 WHERE name = 'compacted'")
    raw.close()
    session(path, read)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT revision, key FROM history").fetchall() == [
            (3, "b1"), (4, "b2"), (5, "b3"), (6, "a"), (6, "b4"),
        ]  # fmt: skip


def test_nothing_is_acknowledged_before_the_disk_has_it(tmp_path: Path) -> None:
    """What SQLite promises depends on these two: a write-ahead log, and fsync before a commit returns."""

    async def body(store: SqliteStore) -> None:
        def pragma(name: str) -> object:
            return store.database.connection.execute(f"PRAGMA {name}").fetchone()[0]

        assert await store._call(lambda: (pragma("journal_mode"), pragma("synchronous"))) == ("wal", 2)

    session(tmp_path / "store.db", body)


def test_a_second_process_is_told_who_has_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def body(store: SqliteStore) -> None:
        with pytest.raises(Unavailable, match=rf"store.db: in use by another process \(pid {os.getpid()}\): stop that"):
            await SqliteStore(path).start()
        await store.commit(Put("still", b"works"))

    session(path, body)

    async def the_lock_went_with_the_first(store: SqliteStore) -> None:
        assert await store.get("still") is not None

    session(path, the_lock_went_with_the_first)


def test_what_holds_secrets_is_for_its_owner_only(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await store.commit(Put("a", b""))
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file

    session(tmp_path / "store.db", body)


REFUSED = (
    ("a directory that does not exist", "nowhere/store.db", "cannot be opened .*: its directory must exist"),
    ("a directory in its place", ".", "cannot be opened"),
    ("a file of something else", "text.db", "damaged or not a store .*: move it away"),
    ("another program's database", "foreign.db", "another program's database: name another file"),
    ("a store of a later release", "later.db", "written in format 99, this release reads format 1"),
    ("a store that lost rows", "short.db", "damaged: it ends at revision 2 instead of 3"),
)


@pytest.mark.parametrize(("name", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_opened_is_refused_in_plain_words(tmp_path: Path, name: str, words: str) -> None:
    async def two(store: SqliteStore) -> None:
        await store.commit(Put("a", b""))
        await store.commit(Put("b", b""))

    if name == "text.db":
        (tmp_path / name).write_bytes(b"no database at all" * 1000)
    elif name == "foreign.db":
        with sqlite3.connect(tmp_path / name) as raw:
            raw.execute("CREATE TABLE mine (x)")
    elif name in ("later.db", "short.db"):
        session(tmp_path / name, two)
        with sqlite3.connect(tmp_path / name) as raw:
            raw.execute("PRAGMA user_version = 99" if name == "later.db" else "DELETE FROM versions WHERE key = 'b'")

    async def main() -> None:
        store = SqliteStore(tmp_path / name)
        with pytest.raises(Unavailable, match=words) as caught:
            await store.start()
        assert str(tmp_path) in str(caught.value)
        with pytest.raises(Unavailable):
            await store.get("a")
        await store.close()
        await asyncio.to_thread(store.thread.join, 60)
        assert not store.thread.is_alive()

    asyncio.run(main())


def test_disk_full_fails_the_batch_and_all_that_leaned_on_it_and_heals(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        first = await store.commit(Put("a", b"1"))
        told: list[Change] = []
        store.subscribe("", told.extend)
        await store._call(lambda: store.database.connection.execute("PRAGMA max_page_count = 12").fetchall())
        outcomes = await asyncio.gather(
            store.commit(Put("a", b"x" * 100_000, expect=first)),
            store.commit(Put("a", b"2", expect=first + 1)),
            store.commit(Put("a", b"3", expect=first)),  # Moved, by something that never came to be
            store.commit(Put("b", b"")),
            return_exceptions=True,
        )
        assert [type(o) for o in outcomes] == [Unavailable] * 4
        assert "the disk is full, nothing was written: free some space" in str(outcomes[0])
        assert (await store.get("a"), await store.get("b")) == (Entry("a", b"1", first, first), None)
        assert told == [] and await store.revision() == first
        await store._call(lambda: store.database.connection.execute("PRAGMA max_page_count = 100000").fetchall())
        assert await store.commit(Put("a", b"x" * 100_000, expect=first)) == first + 1
        assert [c.revision for c in told] == [first + 1]

    session(tmp_path / "store.db", body)


def test_a_file_that_became_read_only_says_so(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await store._call(lambda: store.database.connection.execute("PRAGMA query_only = ON"))
        with pytest.raises(Unavailable, match="not writable: give this user the right"):
            await store.commit(Put("a", b""))

    session(tmp_path / "store.db", body)


def test_a_disk_that_does_not_do_as_told_ends_writing_but_not_reading(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await store.commit(Put("a", b"1"))
        broken = sqlite3.OperationalError("disk I/O error")
        broken.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

        def fail(_: object) -> None:
            raise Unavailable("the disk does not do as told") from broken

        store.database.write = fail  # type: ignore[method-assign, assignment]
        for _ in range(2):
            with pytest.raises(Unavailable, match="does not do as told"):
                await store.commit(Put("a", b"2"))
        assert await store.get("a") == Entry("a", b"1", 2, 2)

    session(tmp_path / "store.db", body)


def test_commits_of_one_moment_share_a_transaction_and_keep_their_own_revisions(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        batches: list[int] = []
        write = store.database.write

        def counted(promises: object) -> None:
            batches.append(len(promises))  # type: ignore[arg-type]
            write(promises)  # type: ignore[arg-type]

        store.database.write = counted  # type: ignore[method-assign]
        revisions = await asyncio.gather(*(store.commit(Put(f"k{i}", b"")) for i in range(100)))
        assert revisions == list(range(2, 102))
        assert batches == [100]

    session(tmp_path / "store.db", body)


def test_a_chain_of_expectations_pipelines_without_waiting_for_the_disk(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        base = await store.commit(Put("chain", b"0"))
        outcomes = await asyncio.gather(
            *(store.commit(Put("chain", b"%d" % i, expect=base + i)) for i in range(50)),
            store.commit(Delete("chain", expect=base + 50)),
            store.commit(Put("chain", b"again", expect=0)),
            store.commit(Put("chain", b"no", expect=0)),
            return_exceptions=True,
        )
        assert outcomes[:-1] == list(range(base + 1, base + 53))
        assert isinstance(outcomes[-1], Moved)
        assert await store.get("chain") == Entry("chain", b"again", base + 52, base + 52)

    session(tmp_path / "store.db", body)


def test_what_is_no_store_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("root:x:0:0")

    async def open_it() -> str:
        try:
            await SqliteStore(tmp_path / "passwords").start()
        except Unavailable as error:
            return str(error)
        return ""

    assert "not a store" in asyncio.run(open_it())
    assert [p.name for p in tmp_path.iterdir()] == ["passwords"]
