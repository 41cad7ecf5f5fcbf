"""What every engine promises, run against each of them; and a model that any history of operations must agree with."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubesvc.store import (
    Change,
    Compacted,
    Delete,
    Entry,
    FutureRevision,
    MemoryStore,
    Moved,
    Operation,
    Put,
    SqliteStore,
    Store,
    Unavailable,
    open_store,
)

from .etcdserver import shared_etcd

Engine = Callable[[Path], Store]


def in_etcd(directory: Path) -> Store:
    """A store in the tests' etcd, below a prefix that belongs to this directory."""
    return open_store(shared_etcd().url(hashlib.sha256(bytes(directory)).hexdigest()[:16]))


ENGINES: dict[str, Engine] = {
    "memory": lambda _: MemoryStore(),
    "sqlite": lambda directory: SqliteStore(directory / "store.db"),
    "etcd": in_etcd,
}


@pytest.fixture(params=ENGINES, ids=lambda name: name)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


def with_store(engine: Engine, directory: Path, body: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = engine(directory)
        await store.start()
        try:
            await asyncio.wait_for(body(store), 120)
        finally:
            await store.close()

    asyncio.run(main())


async def take(store: Store, prefix: str, after: int, count: int) -> list[Change]:
    """The first `count` changes of a watch."""
    seen: list[Change] = []
    async with aclosing(store.watch(prefix, after)) as watch:  # type: ignore[type-var]
        async for batch in watch:
            seen += batch
            if len(seen) >= count:
                break
    return seen


def test_each_transaction_has_the_next_revision_and_entries_remember_first_and_last(
    engine: Engine, tmp_path: Path
) -> None:
    async def body(store: Store) -> None:
        base = await store.revision()
        assert await store.commit(Put("a", b"1"), Put("b", b"2")) == base + 1
        assert await store.commit(Put("a", b"3")) == base + 2
        assert await store.get("a") == Entry("a", b"3", base + 1, base + 2)
        assert await store.get("b") == Entry("b", b"2", base + 1, base + 1)
        assert await store.get("c") is None
        assert await store.commit(Delete("a")) == base + 3
        assert await store.commit(Put("a", b"4")) == base + 4
        assert await store.get("a") == Entry("a", b"4", base + 4, base + 4), "a new life begins a new history"
        assert await store.revision() == base + 4

    with_store(engine, tmp_path, body)


def test_a_commit_that_changes_nothing_makes_no_revision(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.commit(Put("a", b"1"))
        assert await store.commit(Delete("nothing")) == base
        assert await store.commit() == base
        assert await store.commit(Put("b", b"")) == base + 1, "an empty value is a value"
        assert (await store.get("b")) == Entry("b", b"", base + 1, base + 1)

    with_store(engine, tmp_path, body)


def test_an_expectation_that_fails_writes_nothing_and_tells_what_is_there(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        first = await store.commit(Put("a", b"1", expect=0))
        cases: tuple[tuple[tuple[Operation, ...], str, int | None], ...] = (
            ((Put("a", b"2", expect=0),), "a", first),
            ((Put("a", b"2", expect=first + 1),), "a", first),
            ((Delete("a", expect=first - 1),), "a", first),
            ((Put("new", b"2", expect=first),), "new", None),
            ((Delete("new", expect=first),), "new", None),
            ((Put("b", b"2"), Put("a", b"2", expect=0)), "a", first),
        )
        for operations, key, found in cases:
            with pytest.raises(Moved) as caught:
                await store.commit(*operations)
            assert caught.value.key == key
            assert (caught.value.found.modified if caught.value.found else None) == found
            assert await store.revision() == first, operations
        assert await store.get("b") is None
        assert await store.commit(Put("a", b"2", expect=first)) == first + 1
        assert await store.commit(Delete("a", expect=first + 1)) == first + 2
        assert await store.commit(Delete("a", expect=0)) == first + 2, "what must not exist does not"

    with_store(engine, tmp_path, body)


def test_a_key_named_twice_or_without_byte_order_is_refused_without_harm(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(ValueError, match="at most once"):
            await store.commit(Put("a", b"1"), Delete("a"))
        results = await asyncio.gather(
            store.commit(Put("x", b"1")),
            store.commit(Put("\ud800", b"1")),
            store.commit(Put("y", b"1")),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [int, UnicodeEncodeError, int]

    with_store(engine, tmp_path, body)


def test_scans_are_in_byte_order_and_pages_join_without_gap(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        keys = ["p/a", "p/a/b", "p/b", "p/é", "p/\U0001f600", "p/￿", "p", "q/a", "o/z", "p0", "p/" + "z" * 200]
        for key in keys:
            await store.commit(Put(key, key.encode()))
        below = sorted((k for k in keys if k.startswith("p/")), key=str.encode)
        page = await store.scan("p/")
        assert [e.key for e in page.entries] == below
        assert (page.revision, page.more, page.remaining) == (await store.revision(), False, 0)
        assert [e.key for e in (await store.scan("")).entries] == sorted(keys, key=str.encode)
        assert (await store.scan("nothing/")).entries == []

        seen: list[str] = []
        start, at = "", 0
        while True:
            page = await store.scan("p/", start=start, limit=2, at=at)
            seen += [e.key for e in page.entries]
            assert page.remaining == len(below) - len(seen)
            if not page.more:
                break
            start, at = seen[-1] + "\0", page.revision
            await store.commit(Put("p/aa" + str(len(seen)), b"later"), Delete("p/b"))
        assert seen == below, "the pages are of one revision"

    with_store(engine, tmp_path, body)


def test_a_scan_of_an_older_revision_sees_the_state_of_then(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        first = await store.commit(Put("k/a", b"1"), Put("k/b", b"1"))
        second = await store.commit(Delete("k/a"), Put("k/c", b"2"))
        third = await store.commit(Put("k/a", b"3"), Put("k/b", b"3"))
        assert [(e.key, e.value) for e in (await store.scan("k/", at=first)).entries] == [("k/a", b"1"), ("k/b", b"1")]
        assert [(e.key, e.value) for e in (await store.scan("k/", at=second)).entries] == [("k/b", b"1"), ("k/c", b"2")]
        page = await store.scan("k/", at=third)
        assert (page.revision, [e.value for e in page.entries]) == (third, [b"3", b"3", b"2"])
        with pytest.raises(FutureRevision):
            await store.scan("k/", at=third + 1)

    with_store(engine, tmp_path, body)


def test_after_compaction_older_states_are_gone_and_the_rest_stays(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        first = await store.commit(Put("a", b"1"))
        second = await store.commit(Put("a", b"2"), Put("b", b"2"))
        third = await store.commit(Delete("b"))
        await store.compact(second)
        assert store.compacted == second
        for attempt in (store.scan("", at=first), take(store, "", first, 1)):
            with pytest.raises(Compacted) as caught:
                await attempt
            assert (caught.value.asked, caught.value.oldest) == (first, second)
        with pytest.raises(Compacted):
            await take(store, "", second - 1, 1)
        assert [e.key for e in (await store.scan("", at=second)).entries] == ["a", "b"]
        assert [c.revision for c in await take(store, "", second, 1)] == [third]
        assert [e.key for e in (await store.scan("")).entries] == ["a"]
        await store.compact(first)
        assert store.compacted == second, "compaction never goes back"
        with pytest.raises(FutureRevision):
            await store.compact(third + 1)

    with_store(engine, tmp_path, body)


def test_a_watch_gives_history_then_the_present_without_gap_or_repeat(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.revision()
        for i in range(10):
            await store.commit(Put(f"w/{i}", b"1"), Put(f"other/{i}", b"1"))
        reading = asyncio.create_task(take(store, "w/", base + 5, 25))
        for i in range(20):
            await store.commit(Put(f"w/{i % 7}", b"2"))
            await asyncio.sleep(0)
        seen = await reading
        assert [c.revision for c in seen] == list(range(base + 6, base + 31))
        assert all(c.key.startswith("w/") for c in seen)
        assert seen[5].previous == Entry("w/0", b"1", base + 1, base + 1)

    with_store(engine, tmp_path, body)


def test_a_watch_from_the_future_is_silent_until_then(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.revision()
        reading = asyncio.create_task(take(store, "", base + 2, 1))
        await asyncio.sleep(0)
        for _ in range(3):
            await store.commit(Put("a", b""))
        assert [c.revision for c in await reading] == [base + 3]

    with_store(engine, tmp_path, body)


def test_a_deletion_is_a_change_with_the_last_value_before(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.commit(Put("a", b"1"))
        await store.commit(Delete("a"))
        assert await take(store, "a", base, 1) == [Change(base + 1, "a", None, Entry("a", b"1", base, base))]

    with_store(engine, tmp_path, body)


def test_a_slow_reader_loses_its_place_only_when_compaction_passes_it(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.revision()
        async with aclosing(store.watch("slow/", base)) as slow, aclosing(store.watch("quiet/", base)) as quiet:  # type: ignore[type-var]
            await store.commit(Put("slow/1", b""), Put("quiet/1", b""))
            assert len(await anext(slow)) == len(await anext(quiet)) == 1
            for i in range(20):
                await store.commit(Put(f"slow/{i}", b""))  # writers never wait for it
            await store.compact(await store.revision())
            with pytest.raises(Compacted):
                await anext(slow)
            last = await store.commit(Put("quiet/2", b""))
            assert [c.revision for c in await anext(quiet)] == [last], "nothing below its prefix was lost"

    with_store(engine, tmp_path, body)


def test_subscribers_are_told_before_the_commit_returns_and_in_order(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        seen: list[Change] = []
        end = store.subscribe("s/", seen.extend)

        async def write(i: int) -> None:
            revision = await store.commit(Put(f"s/{i}", b""), Put(f"t/{i}", b""))
            assert revision in [c.revision for c in seen]
            assert await store.get(f"s/{i}") is not None, "and can read their own write"

        await asyncio.gather(*(write(i) for i in range(50)))
        assert [c.revision for c in seen] == sorted(c.revision for c in seen)
        assert sorted(c.key for c in seen) == sorted(f"s/{i}" for i in range(50))
        end()
        end()
        await store.commit(Put("s/late", b""))
        assert len(seen) == 50

    with_store(engine, tmp_path, body)


def test_of_concurrent_writers_expecting_one_revision_exactly_one_wins(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        first = await store.commit(Put("counter", b"0"))

        async def attempt(i: int) -> int | Moved:
            try:
                return await store.commit(Put("counter", b"%d" % i, expect=first))
            except Moved as moved:
                assert moved.found is not None
                assert moved.found == await store.get("counter"), "who looks again sees what was in the way"
                return moved

        outcomes = await asyncio.gather(*(attempt(i) for i in range(20)))
        assert [isinstance(o, int) for o in outcomes].count(True) == 1

    with_store(engine, tmp_path, body)


def test_a_caller_who_gives_up_leaves_the_store_whole(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        tasks = [asyncio.create_task(store.commit(Put(f"k{i}", b""))) for i in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while len((await store.scan("k")).entries) < 10:  # etcd may do those last of which nobody waits for the answer
            await asyncio.sleep(0.01)
        await store.commit(Put("k-last", b"", expect=0))

    with_store(engine, tmp_path, body)


def test_close_ends_watches_and_later_calls_are_unavailable(engine: Engine, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        base = await store.revision()

        async def drain() -> int:
            return len([c async for batch in store.watch("", base) for c in batch])

        reading = asyncio.create_task(drain())
        await asyncio.gather(*(store.commit(Put(str(i), b"")) for i in range(5)))
        last = asyncio.create_task(store.commit(Put("last", b"")))
        await asyncio.sleep(0)
        await store.close()
        await last
        assert await reading == 6, "what was under way is finished and seen"
        for attempt in (
            store.commit(Put("a", b"")),
            store.get("a"),
            store.scan(""),
            store.revision(),
            store.compact(1),
        ):
            with pytest.raises(Unavailable, match="closed"):
                await attempt
        with pytest.raises(Unavailable):
            store.watch("", base)
        await store.close()

    with_store(engine, tmp_path, body)


def test_history_that_outgrows_its_bound_is_compacted_by_itself(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        for i in range(60):
            await store.commit(Put("a", b"%d" % i))
        await asyncio.sleep(0.01)
        assert store.compacted > 20
        assert (await store.scan("", at=store.compacted)).entries

    with_store(lambda _: MemoryStore(most_changes=20), tmp_path, body)
    with_store(lambda _: MemoryStore(most_bytes=20), tmp_path, body)
    with_store(lambda d: SqliteStore(d / "s.db", most_changes=20), tmp_path, body)


@pytest.mark.parametrize("compacted", [1, 2, 5, 6])
def test_the_size_of_history_is_what_it_holds(tmp_path: Path, compacted: int) -> None:
    """Else it would be compacted too early, or never."""

    async def body(store: Store) -> None:
        assert isinstance(store, MemoryStore)
        await store.commit(Put("a", b"1"), Put("b", b"22"))
        await store.commit(Put("a", b"333"))
        await store.commit(Delete("a"), Put("c", b"4444"))
        await store.commit(Put("c", b""))
        await store.commit(Delete("b"))
        await store.compact(compacted)
        left = [change for changes in store.mvcc.history for change in changes]
        assert [c.revision for c in left] == [r for r in (2, 2, 3, 4, 4, 5, 6) if r > compacted]
        assert store.mvcc.changes == len(left)
        assert store.mvcc.bytes == sum(len(c.value or b"") for c in left)

    with_store(ENGINES["memory"], tmp_path, body)


def test_a_subscriber_that_fails_harms_nobody_else(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(store: Store) -> None:
        def broken(_: list[Change]) -> None:
            raise RuntimeError("a bug")

        seen: list[Change] = []
        store.subscribe("", broken)
        store.subscribe("", seen.extend)
        await asyncio.wait_for(store.commit(Put("a", b"")), 60)
        await asyncio.wait_for(store.commit(Put("b", b"")), 60)
        assert [c.key for c in seen] == ["a", "b"]
        assert "a subscriber to '' failed" in caplog.text

    with_store(engine, tmp_path, body)


# Any history agrees with a model

KEYS = [f"{a}/{b}" for a in ("pods", "services") for b in ("a", "b", "c")]
EXPECT = st.sampled_from((None, None, 0, "right", "wrong"))
OPERATION = st.tuples(st.sampled_from(("put", "delete")), st.sampled_from(KEYS), st.binary(max_size=4), EXPECT)
STEP = st.one_of(
    st.tuples(st.just("commit"), st.lists(OPERATION, max_size=3, unique_by=lambda o: o[1])),
    st.tuples(st.just("compact"), st.floats(0, 1)),
    st.tuples(st.just("reopen"), st.none()),
)


class Model:
    """A store as simple as can be: a dict for each revision."""

    def __init__(self, base: int) -> None:
        self.states: dict[int, dict[str, Entry]] = {base: {}}
        self.log: list[Change] = []
        self.newest, self.compacted = base, 0

    def began_again(self, revision: int) -> int:
        """An engine may use up a revision to begin; the state is as before."""
        self.states[revision] = self.states[self.newest]
        return revision

    def commit(self, operations: list[Operation]) -> bool:
        state, revision = dict(self.states[self.newest]), self.newest + 1
        changes: list[Change] = []
        for o in operations:
            found = state.get(o.key)
            if o.expect is not None and o.expect != (found.modified if found else 0):
                return False
            if isinstance(o, Put):
                state[o.key] = Entry(o.key, o.value, found.created if found else revision, revision)
                changes.append(Change(revision, o.key, o.value, found))
            elif found:
                del state[o.key]
                changes.append(Change(revision, o.key, None, found))
        if changes:
            self.newest, self.states[revision] = revision, state
            self.log += changes
        return True


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


HISTORY = {"steps": st.lists(STEP, max_size=25), "prefix": st.sampled_from(("", "pods/", "services/b", "x"))}
Steps = list[tuple[str, object]]


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "etcd"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(**HISTORY)
def test_any_history_agrees_with_the_model(name: str, steps: Steps, prefix: str) -> None:
    check_history(name, steps, prefix)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(**HISTORY)
def test_a_history_in_etcd_agrees_with_the_model(steps: Steps, prefix: str) -> None:
    """Fewer: etcd begins each watch of the past up to 0.1 s late."""
    check_history("etcd", steps, prefix)


@pytest.mark.soak
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(**HISTORY)
def test_any_history_in_etcd_agrees_with_the_model(steps: Steps, prefix: str) -> None:
    check_history("etcd", steps, prefix)


def check_history(name: str, steps: Steps, prefix: str) -> None:
    async def main(directory: Path) -> None:
        store = ENGINES[name](directory)
        await store.start()
        model = Model(await store.revision())
        model.compacted = store.compacted
        told: list[Change] = []
        store.subscribe(prefix, told.extend)
        for action, argument in steps:
            if action == "commit":
                operations: list[Operation] = []
                for verb, key, value, expect in argument:  # type: ignore[attr-defined]
                    found = model.states[model.newest].get(key)
                    right = found.modified if found else 0
                    wanted = {"right": right, "wrong": right + 1}.get(expect, expect)
                    operations.append(Put(key, value, wanted) if verb == "put" else Delete(key, wanted))
                if model.commit(operations):
                    assert await store.commit(*operations) == model.newest
                else:
                    with pytest.raises(Moved):
                        await store.commit(*operations)
            elif action == "compact":
                oldest = min(model.states)
                model.compacted = max(model.compacted, int(oldest + (model.newest - oldest) * argument))  # type: ignore[operator]
                await store.compact(model.compacted)
            elif name != "memory":
                await store.close()
                store = ENGINES[name](directory)
                await store.start()
                store.subscribe(prefix, told.extend)
                model.newest = model.began_again(await store.revision())
        assert await store.revision() == model.newest
        assert store.compacted == model.compacted
        assert told == [c for c in model.log if c.key.startswith(prefix)]
        for revision, state in model.states.items():
            expected = [state[k] for k in sorted(state) if k.startswith(prefix)]
            if revision < model.compacted:
                with pytest.raises(Compacted):
                    await store.scan(prefix, at=revision)
            else:
                assert (await store.scan(prefix, at=revision)).entries == expected
                later = [c for c in model.log if c.revision > revision and c.key.startswith(prefix)]
                assert await take(store, prefix, revision, len(later)) == later if later else True
        await store.close()

    with scratch() as directory:
        asyncio.run(main(directory))
