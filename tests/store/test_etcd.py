"""The etcd engine beyond the contract: its addresses, its limits, its neighbours, and what it makes of trouble."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubesvc.store import (
    Change,
    Compacted,
    Delete,
    Entry,
    Put,
    StoreError,
    TimedOut,
    TooLarge,
    Unavailable,
    etcdcalls,
    open_store,
)
from kubesvc.store.etcd import EtcdStore
from kubesvc.store.etcdaddress import EtcdAddress, parse_address
from kubesvc.store.etcdcalls import meaning
from tests.freeports import free_port

from .etcdserver import EtcdServer, shared_etcd

prefixes = itertools.count()

ADDRESSES = (
    ("etcd://a:1", EtcdAddress(("a:1",))),
    ("etcd://a", EtcdAddress(("a:2379",))),
    ("etcd://a:1,b,10.0.0.1:3/", EtcdAddress(("a:1", "b:2379", "10.0.0.1:3"))),
    ("etcd://[::1]:5/x/y/", EtcdAddress(("[::1]:5",), "/x/y/")),
    ("etcds://a:1?cacert=/ca", EtcdAddress(("a:1",), tls=True, cacert="/ca")),
    ("etcds://a:1/p?cert=c&key=k", EtcdAddress(("a:1",), "/p/", True, cert="c", key="k")),
)
NO_ADDRESSES = (
    ("etcd://", "'' is no HOST:PORT"),
    ("etcd://a:1,,b:1", "'' is no HOST:PORT"),
    ("etcd://a:b", "'b' is no port"),
    ("etcd://a:70000", "'70000' is no port"),
    ("etcd://::1:5", "'::1:5' is no HOST:PORT"),
    ("etcd://u:p@a:1", "users and passwords are not supported"),
    ("etcd://a:1?cacert=x", "certificates need the scheme etcds"),
    ("etcds://a:1?cert=x", "cert and key go together"),
    ("etcds://a:1?user=x", "'user' is no option"),
    ("etcd://a:1#x", "nothing may follow a #"),
)


@pytest.mark.parametrize(("text", "address"), ADDRESSES, ids=lambda v: v if isinstance(v, str) else "")
def test_an_address(text: str, address: EtcdAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(("text", "why"), NO_ADDRESSES, ids=lambda v: v)
def test_what_is_no_address_says_what_was_found_and_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"must be etcd://HOST:PORT") as caught:
        open_store(text)
    assert why in str(caught.value) and text in str(caught.value)


HERE = EtcdAddress(("here:1",))
MEANINGS: tuple[tuple[str, str, type[StoreError], str], ...] = (
    ("UNAVAILABLE", "failed to connect to all addresses", Unavailable, "etcd at here:1 cannot be reached"),
    ("UNAVAILABLE", "etcdserver: leader changed", Unavailable, "etcdserver: leader changed"),
    ("UNAVAILABLE", "etcdserver: request timed out", TimedOut, "etcdserver: request timed out"),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", TimedOut, "etcd at here:1 did not answer in time"),
    ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Unavailable, "etcdserver: too many requests"),
    ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Unavailable, "etcdctl alarm disarm"),
    ("INVALID_ARGUMENT", "etcdserver: request is too large", TooLarge, "--max-request-bytes"),
    ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (3 vs. 2)", TooLarge, "--max-request-bytes"),
    ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", TooLarge, "--max-txn-ops"),
)


@pytest.mark.parametrize(("code", "details", "kind", "words"), MEANINGS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_refusal_of_etcd(code: str, details: str, kind: type[StoreError], words: str) -> None:
    found = meaning(code, details, HERE)
    assert isinstance(found, kind) and words in str(found)


def with_store(body: Callable[[EtcdStore, str], Awaitable[None]], server: EtcdServer | None = None) -> None:
    async def main() -> None:
        url = (server or shared_etcd()).url(f"own-{next(prefixes)}")
        store = open_store(url)
        assert isinstance(store, EtcdStore)
        await store.start()
        try:
            await asyncio.wait_for(body(store, url), 120)
        finally:
            await store.close()

    asyncio.run(main())


def test_what_etcd_does_not_take_is_refused_whole_and_said_plainly() -> None:
    async def body(store: EtcdStore, _: str) -> None:
        with pytest.raises(TooLarge, match="too many operations in txn request"):
            await store.commit(*(Put(f"k{i}", b"") for i in range(129)))
        with pytest.raises(TooLarge, match="larger --max-request-bytes"):
            await store.commit(Put("big", bytes(1_600_000)))
        with pytest.raises(TooLarge, match="larger --max-request-bytes"):
            await store.commit(Put("big", bytes(9_000_000)))
        assert (await store.scan("")).entries == []
        await store.commit(*(Put(f"k{i}", b"") for i in range(128)))
        await store.commit(Put("big", bytes(1_400_000)))
        assert store.trouble == ""

    with_store(body)


def test_an_etcd_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcdcalls, "CALL_SECONDS", 0.3)

    async def main() -> None:
        store = open_store(f"etcd://127.0.0.1:{free_port()}")
        with pytest.raises(Unavailable, match=r"etcd at 127.0.0.1:\d+ cannot be reached"):
            await store.start()
        await store.close()

    shared_etcd()  # skipped where there is none
    asyncio.run(main())


def test_a_certificate_that_is_not_there_is_named() -> None:
    async def main() -> None:
        store = open_store("etcds://127.0.0.1:1?cacert=/nowhere/ca.crt")
        with pytest.raises(Unavailable, match=r"/nowhere/ca.crt: No such file"):
            await store.start()

    shared_etcd()
    asyncio.run(main())


def test_the_next_member_serves_when_one_is_away() -> None:
    async def main() -> None:
        dead = free_port()
        store = open_store(f"etcd://127.0.0.1:{dead},{shared_etcd().endpoint}/own-{next(prefixes)}")
        await store.start()
        await store.commit(Put("a", b""))
        assert await store.get("a") is not None
        await store.close()

    asyncio.run(main())


def test_neighbours_in_the_same_etcd_neither_show_nor_hold_anybody_up() -> None:
    """Revisions of others are passed over; what is read is still as new as everything before."""

    async def body(store: EtcdStore, url: str) -> None:
        other = open_store(url + "-neighbour")
        below = open_store(url.replace("own-", "own-x-"))
        await other.start()
        await below.start()
        told: list[Change] = []
        store.subscribe("", told.extend)
        mine = await store.commit(Put("mine", b"1"))
        for i in range(5):
            theirs = await other.commit(Put(f"theirs/{i}", b""))
            assert await store.revision() >= theirs
            assert (await store.scan("")).revision >= theirs
        assert [entry.key for entry in (await store.scan("")).entries] == ["mine"]
        assert await store.commit(Delete("nothing")) >= theirs
        last = await store.commit(Put("mine", b"2", expect=mine))
        assert [(change.key, change.revision) for change in told] == [("mine", mine), ("mine", last)]
        assert [e.key for e in (await other.scan("")).entries] == [f"theirs/{i}" for i in range(5)]
        await other.close()
        await below.close()

    with_store(body)


def test_what_another_wrote_is_told_in_the_same_order_and_read_at_once() -> None:
    async def body(store: EtcdStore, url: str) -> None:
        other = open_store(url)
        await other.start()
        told: dict[str, list[Change]] = {"one": [], "two": []}
        store.subscribe("", told["one"].extend)
        other.subscribe("", told["two"].extend)
        for i in range(20):
            writer, reader = (store, other) if i % 2 else (other, store)
            revision = await writer.commit(Put("k", b"%d" % i))
            found = await reader.get("k")
            assert found is not None and (found.value, found.modified) == (b"%d" % i, revision)
        await asyncio.gather(*((store, other)[i % 2].commit(Put(f"m{i}", b"")) for i in range(40)))
        await store.revision()
        await other.revision()
        assert told["one"] == told["two"] and len(told["one"]) == 60
        await other.close()

    with_store(body)


def test_after_a_break_longer_than_history_the_difference_is_told_and_older_places_are_gone(tmp_path: Path) -> None:
    async def body(store: EtcdStore, url: str) -> None:
        base = await store.commit(Put("kept", b""), Put("changed", b"1"), Put("gone", b""), Put("again", b"1"))
        told: list[Change] = []
        store.subscribe("", told.extend)
        behind = store.watch("", base)
        assert store.following is not None
        store.following.cancel()
        await asyncio.gather(store.following, return_exceptions=True)

        other = open_store(url)
        await other.start()
        await other.commit(Delete("again"))
        await other.commit(Delete("gone"), Put("came", b""), Put("changed", b"2"))
        await other.commit(Put("passed", b""))
        last = await other.commit(Delete("passed"), Put("again", b"2"))
        await other.compact(last)

        store.following = asyncio.create_task(store._follow())
        assert await store.revision() >= last
        assert (await store.scan("")).entries == (await other.scan("")).entries
        assert {(c.key, c.value) for c in told} == {
            ("changed", b"2"), ("came", b""), ("gone", None), ("again", None), ("again", b"2"),
        }  # fmt: skip
        assert [c.revision for c in told] == sorted(c.revision for c in told)
        assert store.compacted == last
        with pytest.raises(Compacted):
            await anext(behind)
        assert await store.commit(Put("on", b"")) > last
        assert await store.get("again") == Entry("again", b"2", last, last)
        await other.close()

    server = EtcdServer(tmp_path).start()
    try:
        with_store(body, server)
    finally:
        server.kill()


def test_an_etcd_that_was_emptied_is_not_gone_on_with(tmp_path: Path) -> None:
    """What this process knows is not true of it; to serve on would be to serve two histories in one."""

    async def body(store: EtcdStore, _: str) -> None:
        for i in range(5):
            await store.commit(Put(f"k{i}", b""))
        await asyncio.to_thread(server.kill)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(60):
            while "emptied or put back to an older state" not in store.trouble:
                await asyncio.sleep(0.05)

    server = EtcdServer(tmp_path).start()
    try:
        with_store(body, server)
    finally:
        server.kill()


def test_over_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    from kubesvc.instance.pki import ensure_pki

    pki = ensure_pki(tmp_path / "pki", ("127.0.0.1",), ("localhost",), time.time())
    files: dict[str, Any] = {"cacert": pki.ca_cert, "cert": pki.admin_cert, "key": pki.admin_key}
    server = EtcdServer(
        tmp_path, "--cert-file", str(pki.server_cert), "--key-file", str(pki.server_key),
        "--client-cert-auth", "--trusted-ca-file", str(pki.ca_cert), tls=True,
    )  # fmt: skip
    server.start()
    try:

        async def main() -> None:
            query = "&".join(f"{name}={path}" for name, path in files.items())
            store = open_store(f"etcds://{server.endpoint}/x?{query}")
            await store.start()
            await store.commit(Put("a", b""))
            assert await store.get("a") is not None
            await store.close()

        asyncio.run(main())
    finally:
        server.kill()


def test_an_etcd_that_stands_still_is_timed_out_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: EtcdStore, _: str) -> None:
        await store.commit(Put("a", b"1"))
        monkeypatch.setattr(etcdcalls, "TRY_SECONDS", 0.2)
        monkeypatch.setattr(etcdcalls, "CALL_SECONDS", 0.5)
        server.stand_still()
        with pytest.raises(TimedOut, match="did not answer in time"):
            await store.commit(Put("a", b"2"))
        with pytest.raises(TimedOut, match="did not answer in time"):
            await store.get("a")
        assert "did not answer in time" in store.trouble
        monkeypatch.undo()  # nobody knows how slow the machine is that goes on
        server.signal(signal.SIGCONT)
        found = None
        while found is None:
            try:
                found = await store.get("a")
            except Unavailable:
                await asyncio.sleep(0.05)
        await store.commit(Put("b", b""))
        assert store.trouble == "" and found.value in (b"1", b"2"), "whether it was written nobody could know"

    server = EtcdServer(tmp_path).start()
    try:
        with_store(body, server)
    finally:
        server.kill()
