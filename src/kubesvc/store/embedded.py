"""A store in one SQLite file: durable, inspectable with `sqlite3`, and fast because many commits share one fsync.

Reads are answered from memory (`mvcc`). Writes go one way:

    commit()   the loop checks expectations against the newest state still under way, and gives out the revision
    batch      all commits of one moment go to the one writer thread as one SQLite transaction (WAL, synchronous=FULL)
    settled    back in the loop they are applied to memory, told to readers, and their callers return, in order

When a batch fails, it and every commit that was checked against it fail together and nothing of them is visible.
The table holds one row per version of a key; the current state is each key's newest row.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from .interface import Change, Entry, Moved, Operation, Page, Unavailable
from .mvcc import FIRST_REVISION, Mvcc, entry_after, plan

T = TypeVar("T")

APPLICATION_ID = 0x6B737663  # "ksvc"
FORMAT = 1
PLACES = 20
"""Bits of a row id below the revision: the place of a change within its transaction."""
ROWS_A_SWEEP = 1000
"""Rows deleted in one go after a compaction; between two goes, commits get their turn."""
CHECKPOINT_PAGES = 1000
"""Pages in the write-ahead log after which a commit folds it into the file. That commit is late by a few milliseconds,
and by four times as many with four times the pages, which cost no less work in all."""

SCHEMA = f"""
CREATE TABLE versions (id INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, value BLOB) STRICT;
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE VIEW history AS
    SELECT id >> {PLACES} AS revision, key, created, length(value) AS bytes, value FROM versions ORDER BY id;
INSERT INTO facts VALUES ('compacted', 0), ('revision', {FIRST_REVISION});
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

FATAL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""After these the file can no longer be trusted to hold what it confirms; only a new start reads what is there."""
SMALLEST_CHANGE_BYTES = 32_768
"""What SQLite asks for at once beside the file: one segment of its index of the write-ahead log."""


@dataclass(slots=True)
class Promise:
    """One commit under way: what it changes (nothing, if it changes nothing or has Moved) and who waits."""

    changes: tuple[Change, ...]
    answer: int | Moved
    waiting: asyncio.Future[int | Moved]


def settled(answer: int | Moved) -> int:
    if isinstance(answer, Moved):
        raise answer
    return answer


def advice(path: Path, error: sqlite3.Error | OSError) -> str:
    """What went wrong with the file and what to do, in a sentence."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"{path}: the disk is full, nothing was written: free some space, then try again"
    if code == sqlite3.SQLITE_READONLY or isinstance(error, PermissionError):
        return f"{path}: not writable: give this user the right to write the file and its directory"
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"{path}: damaged or not a store ({error}): move it away to begin a new one, or put back a copy"
    if code == sqlite3.SQLITE_CANTOPEN or isinstance(error, OSError):
        return f"{path}: cannot be opened ({error}): its directory must exist and be writable"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path}: another program holds the file: end it (an open sqlite3 shell, perhaps), then try again"
    if code == sqlite3.SQLITE_IOERR and no_room(path):  # SQLite met it while it made room beside the file
        return f"{path}: the disk is full, nothing was written: free some space, then start again"
    if code == sqlite3.SQLITE_IOERR:
        return f"{path}: the disk does not do as told ({error}): look into the kernel log, then start again"
    return f"{path}: {error}"


def no_room(path: Path) -> bool:
    """Whether the disk of this file has no room for the smallest change."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < SMALLEST_CHANGE_BYTES


class Database:
    """The file, as the writer thread uses it. Every method blocks; after `open`, only that thread calls them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = -1
        self.connection: sqlite3.Connection

    def open(self, most_changes: int, most_bytes: int) -> tuple[Mvcc, list[int]]:
        """Take the lock, read everything; the state with its history, and the ids of rows no longer needed."""
        try:
            self._look_before()
            self._take_lock()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # secrets live here: never by umask
            self.connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
            return self._load(most_changes, most_bytes)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise Unavailable(advice(self.path, error)) from error
        except Unavailable:
            self.close()
            raise

    def _look_before(self) -> None:
        """Refuse what is there and no store, before anything is made beside it."""
        try:
            with open(self.path, "rb") as file:
                start = file.read(16)
        except FileNotFoundError:
            return
        # A power loss while the very first page was written leaves zeros and a journal, by which SQLite starts anew.
        torn = not any(start) and os.path.exists(f"{self.path}-journal")
        if start not in (b"", b"SQLite format 3\0") and not torn:
            raise Unavailable(
                f"{self.path}: damaged or not a store (it is no database): move it away to begin a new one, or name "
                "another file"
            )

    def _take_lock(self) -> None:
        """An advisory lock beside the file; SQLite's own would let two processes take turns."""
        self.lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self.lock, 32).decode(errors="replace").strip() or "unknown"
            raise Unavailable(
                f"{self.path}: in use by another process (pid {owner}): stop that one, or name another file"
            ) from None
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def _load(self, most_changes: int, most_bytes: int) -> tuple[Mvcc, list[int]]:
        run = self.connection.execute
        application, tables = run("PRAGMA application_id").fetchone()[0], run("PRAGMA schema_version").fetchone()[0]
        if application not in (0, APPLICATION_ID) or (application == 0 and tables != 0):
            raise Unavailable(f"{self.path}: another program's database: name another file")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        run("PRAGMA journal_size_limit = 67108864")
        if application == 0:
            self.connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        version = run("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise Unavailable(f"{self.path}: written in format {version}, this release reads format {FORMAT}")
        facts = dict(run("SELECT name, value FROM facts").fetchall())
        compacted, floor = facts["compacted"], max(facts["compacted"], FIRST_REVISION)
        state: dict[str, tuple[int, Entry]] = {}
        unneeded: list[int] = []
        for id_, key, created, value in run(
            "SELECT id, key, created, value FROM versions WHERE id < ? ORDER BY id", ((floor + 1) << PLACES,)
        ):
            if older := state.pop(key, None):
                unneeded.append(older[0])
            if value is None:
                unneeded.append(id_)
            else:
                state[key] = id_, Entry(key, value, created, id_ >> PLACES)
        mvcc = Mvcc(
            (entry for _, entry in state.values()),
            revision=floor,
            compacted=compacted,
            most_changes=most_changes,
            most_bytes=most_bytes,
        )
        changes: list[Change] = []
        rows = run("SELECT id, key, value FROM versions WHERE id >= ? ORDER BY id", ((floor + 1) << PLACES,))
        for id_, key, value in rows:
            revision = id_ >> PLACES
            if changes and changes[0].revision != revision:
                mvcc.apply((tuple(changes),))
                changes = []
            changes.append(Change(revision, key, value, mvcc.get(key)))
        if changes:
            mvcc.apply((tuple(changes),))
        if mvcc.revision != facts["revision"]:
            raise Unavailable(
                f"{self.path}: damaged: it ends at revision {mvcc.revision} instead of {facts['revision']}: "
                "put back a copy, or move it away to begin a new one"
            )
        return mvcc, unneeded

    def write(self, promises: Sequence[Promise]) -> None:
        """All changes in one transaction; raises Unavailable, and then none is written."""
        rows: list[tuple[int, str, int, bytes | None]] = []
        revision = 0
        for promise in promises:
            for place, change in enumerate(promise.changes):
                revision, previous = change.revision, change.previous
                created = previous.created if previous else revision
                rows.append((revision << PLACES | place, change.key, created, change.value))
        self._transact(
            ("INSERT INTO versions VALUES (?, ?, ?, ?)", rows),
            ("UPDATE facts SET value = ? WHERE name = 'revision'", [(revision,)]),
        )

    def sweep(self, revision: int, garbage: Sequence[tuple[int, str]]) -> None:
        """Note a compaction and delete some of what it left behind."""
        ranges = [(old << PLACES, (old + 1) << PLACES, key) for old, key in garbage]
        self._transact(
            ("UPDATE facts SET value = max(value, ?) WHERE name = 'compacted'", [(revision,)]),
            ("DELETE FROM versions WHERE id >= ? AND id < ? AND key = ?", ranges),
        )

    def discard(self, ids: Sequence[int]) -> None:
        """Delete rows that a compaction left when its process ended early."""
        self._transact(("DELETE FROM versions WHERE id = ?", [(id_,) for id_ in ids]))

    def _transact(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                self.connection.executemany(statement, rows)
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self.connection.in_transaction:
                try:
                    self.connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass  # the first error says more
            unavailable = Unavailable(advice(self.path, error))
            unavailable.__cause__ = error
            raise unavailable from error

    def close(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()  # folds the write-ahead log into the file
        if self.lock >= 0:
            os.close(self.lock)  # the file stays: removing it would let two processes lock two files of one name
            self.lock = -1


class SqliteStore:
    """`Store` in the file at `path` (with `-wal`, `-shm` and `.lock` beside it). One process at a time.

    A commit returns after fsync. Disk full, read-only or held by another program: Unavailable, and the next commit
    tries again; a disk error or a damaged file: Unavailable until a new start.
    """

    def __init__(self, path: Path | str, *, most_changes: int = 500_000, most_bytes: int = 512 << 20) -> None:
        """most_changes, most_bytes: history beyond either is compacted by itself, the older half of it"""
        self.path = Path(path)
        self.most = most_changes, most_bytes
        self.mvcc = Mvcc()
        self.why_not = f"{self.path}: not opened yet"
        """Why nothing can be written; "" while the store is open and well."""
        self.database = Database(self.path)
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self.pending: dict[str, tuple[int, Entry | None]] = {}
        """Keys as they will be once everything under way is done, and the revision that makes them so."""
        self.next_revision = 0
        self.queued: list[Promise] = []
        self.in_flight: list[Promise] = []
        self.flush_scheduled = False
        self.sweeping: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Open or make the file and load it; Unavailable with a plain sentence if that cannot be."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()
        try:
            self.mvcc, unneeded = await self._call(lambda: self.database.open(*self.most))
        except BaseException:
            self.jobs.put(self.database.close)
            self.jobs.put(None)
            raise
        self.next_revision = self.mvcc.revision + 1
        self.why_not = ""
        for i in range(0, len(unneeded), ROWS_A_SWEEP):
            self.jobs.put(partial(self.database.discard, unneeded[i : i + ROWS_A_SWEEP]))

    async def close(self) -> None:
        """Finish what is under way, end watches, close the file and release the lock."""
        if self.mvcc.closed or not self.next_revision:
            return
        self.why_not = f"{self.path}: the store is closed"
        while self.queued or self.in_flight:
            await asyncio.wait([(self.queued or self.in_flight)[-1].waiting])
            await asyncio.sleep(0)
        if self.sweeping:
            self.sweeping.cancel()
        self.mvcc.close()
        try:
            await self._call(self.database.close)
        finally:
            self.jobs.put(None)

    # The thread

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            try:
                job()
            except Unavailable:
                pass  # a job nobody waits for: rows that stay cost only space, and the next start tries again

    async def _call(self, call: Callable[[], T]) -> T:
        """Run `call` in the thread, after what was handed to it before."""
        answered: asyncio.Future[T] = self.loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if answered.done():
                return
            if error is not None:
                answered.set_exception(error)
            else:
                answered.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            try:
                result, error = call(), None
            except BaseException as caught:
                result, error = None, caught
            self._report(settle, result, error)

        self.jobs.put(job)
        return await answered

    def _report(self, settle: Callable[..., None], *outcome: object) -> None:
        """From the thread to the loop; a loop that is gone has nobody left to tell."""
        try:
            self.loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            pass

    def _write(self, batch: Sequence[Promise]) -> None:
        error: BaseException | None = None
        try:
            self.database.write(batch)
        except BaseException as caught:
            error = caught
        self._report(self._settle, batch, error)

    # Writing

    async def commit(self, *operations: Operation) -> int:
        if self.why_not:
            raise Unavailable(self.why_not)
        busy = bool(self.queued or self.in_flight)
        changes: tuple[Change, ...] = ()
        answer: int | Moved
        try:
            changes = plan(operations, self._newest, self.next_revision)
            answer = self.next_revision if changes else self.next_revision - 1
        except Moved as moved:
            # What it ran into may still fail, or be invisible to a caller who looks again: it takes its turn.
            answer = moved
        if not changes and not busy:
            return settled(answer)
        if changes:
            self.next_revision += 1
            self.pending.update((change.key, (change.revision, entry_after(change))) for change in changes)
        promise = Promise(changes, answer, self.loop.create_future())
        self.queued.append(promise)
        self._schedule_flush()
        return settled(await promise.waiting)

    def _newest(self, key: str) -> Entry | None:
        """The entry as it will be once everything under way is done."""
        under_way = self.pending.get(key)
        return under_way[1] if under_way else self.mvcc.get(key)

    def _schedule_flush(self) -> None:
        """Commits made in the same turn of the loop share a batch; one batch is in flight at a time."""
        if not self.in_flight and not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.flush_scheduled = False
        batch, self.queued = self.queued, []
        self.in_flight = batch
        if any(promise.changes for promise in batch):
            self.jobs.put(partial(self._write, batch))
        elif batch:
            self._settle(batch, None)

    def _settle(self, batch: Sequence[Promise], error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.mvcc.apply([promise.changes for promise in batch if promise.changes])
        for promise in batch:
            for change in promise.changes:
                if self.pending[change.key][0] == change.revision:
                    del self.pending[change.key]
            if not promise.waiting.done():
                promise.waiting.set_result(promise.answer)
        self.in_flight = []
        # Scheduled after the callers just woken, so that what they commit next shares the batch.
        self._schedule_flush()
        if (overdue := self.mvcc.overdue()) and (self.sweeping is None or self.sweeping.done()):
            self.sweeping = self.loop.create_task(self._compact_quietly(overdue))

    def _fail(self, error: BaseException) -> None:
        """Nothing of the batch was written; whatever was checked against it goes with it."""
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        if code in FATAL:
            self.why_not = str(error)
        failed = [*self.in_flight, *self.queued]
        self.in_flight, self.queued = [], []
        self.pending.clear()
        self.next_revision = self.mvcc.revision + 1
        for promise in failed:
            if not promise.waiting.done():
                promise.waiting.set_exception(Unavailable(str(error)))

    async def compact(self, revision: int) -> None:
        mvcc = self._readable()
        if revision <= mvcc.compacted:
            return
        garbage = mvcc.compact(revision)
        for i in range(0, max(1, len(garbage)), ROWS_A_SWEEP):
            await self._call(partial(self.database.sweep, revision, garbage[i : i + ROWS_A_SWEEP]))

    async def _compact_quietly(self, revision: int) -> None:
        try:
            await self.compact(revision)
        except Unavailable:
            pass  # commits run into the same trouble and say so

    # Reading

    def _readable(self) -> Mvcc:
        if self.mvcc.closed or not self.next_revision:
            raise Unavailable(self.why_not)
        return self.mvcc

    @property
    def shared(self) -> bool:
        return False

    @property
    def newest(self) -> int:
        return self.mvcc.revision

    @property
    def trouble(self) -> str:
        return self.why_not

    async def revision(self) -> int:
        return self._readable().revision

    @property
    def compacted(self) -> int:
        return self.mvcc.compacted

    async def get(self, key: str) -> Entry | None:
        return self._readable().get(key)

    async def scan(self, prefix: str, *, start: str = "", limit: int = 0, at: int = 0) -> Page:
        return self._readable().scan(prefix, start, limit, at)

    def subscribe(self, prefix: str, sink: Callable[[list[Change]], None]) -> Callable[[], None]:
        return self._readable().subscribe(prefix, sink)

    def watch(self, prefix: str, after: int) -> AsyncIterator[list[Change]]:
        return self._readable().watch(prefix, after)
