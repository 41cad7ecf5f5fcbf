"""The watch cache: sorted keys, events encoded once, a bounded window of history."""

from __future__ import annotations

import asyncio
import json
from bisect import insort

from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.kinds import CONFIG_MAP
from kubesvc.apiserver.cache import Cache, SortedKeys
from kubesvc.apiserver.storage import answer as answer_of
from kubesvc.apiserver.storage import decode, encode, list_item, storage_key
from kubesvc.clock import RealClock
from kubesvc.store import Delete, Put
from kubesvc.store.memory import MemoryStore

KEYS = st.text(alphabet="ab-./", min_size=1, max_size=6)


@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=80), KEYS, KEYS)
def test_sorted_keys_are_a_sorted_set(steps: list[tuple[bool, str]], prefix: str, start: str) -> None:
    keys, model = SortedKeys(), list[str]()
    keys.MOST = 4
    for add, key in steps:
        if add and key not in model:
            keys.add(key)
            insort(model, key)
        elif not add and key in model:
            keys.remove(key)
            model.remove(key)
    assert list(keys.range("")) == model
    assert list(keys.range(prefix, start)) == [k for k in model if k.startswith(prefix) and k >= start]


def stored(name: str, value: str) -> bytes:
    meta = {"namespace": "ns", "uid": "u", "name": name, "resourceVersion": "9", "labels": {"a": value}}
    return encode(CONFIG_MAP, {"metadata": meta, "data": {"v": value}})


def test_an_answer_is_spliced_from_stored_bytes() -> None:
    value = stored("a", "1")
    assert b"resourceVersion" not in value
    alone = json.loads(answer_of(CONFIG_MAP, value, 17))
    assert alone["kind"] == "ConfigMap" and alone["metadata"]["resourceVersion"] == "17"
    in_list = json.loads(list_item(CONFIG_MAP, value, 17))  # READ-3
    assert "kind" not in in_list and "apiVersion" not in in_list and in_list["metadata"]["resourceVersion"] == "17"
    assert decode(value, 17) == alone
    assert encode(CONFIG_MAP, decode(value, 17)) == value


def test_the_cache_follows_the_store_and_tells_what_changed() -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.start()
        key = storage_key(CONFIG_MAP, "ns", "a")
        await store.commit(Put(key, stored("a", "1")))
        cache = Cache([CONFIG_MAP], store, RealClock(), history_events=3)
        await cache.start()
        configs = cache.of(CONFIG_MAP)
        item = configs.get("ns", "a")
        assert item is not None and item.labels == {"a": "1"} and item.revision == cache.revision
        begun = cache.revision
        assert configs.since(begun - 1) is None  # WATCH-10: nothing is known of what was before the start
        await store.commit(Put(key, stored("a", "2")))
        await store.commit(Delete(key))
        events = configs.since(begun)
        assert events is not None and [e.type for e in events] == ["MODIFIED", "DELETED"]
        assert events[0].line("MODIFIED") is events[0].line("MODIFIED")  # encoded once
        gone = json.loads(events[1].line("DELETED"))["object"]  # WATCH-13
        assert gone["data"] == {"v": "2"} and gone["metadata"]["resourceVersion"] == str(cache.revision)
        for value in "345":
            await store.commit(Put(key, stored("a", value)))
        assert configs.since(begun) is None  # the window holds three
        assert len(configs.since(configs.oldest) or []) == 3
        cache.stop()
        await store.close()

    asyncio.run(run())


def test_one_waits_for_a_revision_that_is_yet_to_come() -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.start()
        cache = Cache([CONFIG_MAP], store, RealClock(), 10)
        await cache.start()
        assert not await cache.seen(cache.revision + 1, timeout_seconds=0.01)
        waiting = asyncio.create_task(cache.seen(cache.revision + 1))
        await asyncio.sleep(0)
        await store.commit(Put(storage_key(CONFIG_MAP, "ns", "a"), stored("a", "1")))
        assert await waiting

    asyncio.run(run())
