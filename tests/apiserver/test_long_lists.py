"""Lists and watches that begin with very much: sent piece by piece, whole all the same; and busy streams."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api import names
from kubesvc.api.kinds import CONFIG_MAP, POD
from kubesvc.api.selectors import FieldSelector, LabelSelector, parse_field_selector
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.cache import Item, KindCache
from kubesvc.apiserver.storage import encode, list_chunks, list_item
from kubesvc.apiserver.streams import JOIN_MOST_SECONDS, LOOK_AT, Selection, Watcher
from kubesvc.apiserver.watching import CHUNK_BYTES

from .running import Http, config_map, with_http

CONFIGS = "/api/v1/namespaces/default/configmaps"
MANY = 30
LARGE = "x" * 60_000


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(1, 10**9)), max_size=12), st.integers(1, 400))
def test_pieces_of_a_list_are_the_list(contents: list[tuple[str, int]], most_bytes: int) -> None:
    """LIST-1, READ-3: however it is cut, and each piece but the last holds as much as asked."""
    pairs = [(encode(CONFIG_MAP, {"metadata": {"name": "a"}, "data": {"v": text}}), at) for text, at in contents]
    pieces = list(list_chunks(CONFIG_MAP, b'{"items":[', pairs, b"]}", most_bytes))
    whole = b'{"items":[' + b",".join(list_item(CONFIG_MAP, *pair) for pair in pairs) + b"]}"
    assert b"".join(pieces) == whole
    assert (len(pieces) - 1) * most_bytes <= sum(len(value) for value, _ in pairs)
    assert all(len(piece) < most_bytes + 400 for piece in pieces)


async def fill(http: Http) -> None:
    for i in range(MANY):
        made = config_map(f"m{i:02}", labels={"even": str(i % 2 == 0).lower()})
        made["data"] = {"v": LARGE}
        status, _, _ = await http.request("POST", CONFIGS, made)
        assert status == 201


def names_in(listed: Any) -> list[str]:
    return [i["metadata"]["name"] for i in listed["items"] if i["metadata"]["name"].startswith("m")]


def test_a_long_list_comes_in_pieces() -> None:
    """Longer than a piece: no length is told, all is there in order, packed where the client takes it, and in one
    where it cannot take pieces; a selector picks the same from it as from a short one."""

    async def scenario(server: ApiServer, http: Http) -> None:
        await fill(http)
        wanted = [f"m{i:02}" for i in range(MANY)]
        status, headers, listed = await http.request("GET", CONFIGS, Accept_Encoding="identity")
        assert status == 200 and "Content-Length" not in headers and headers["Transfer-Encoding"] == "chunked"
        assert headers["Content-Type"] == "application/json" and "Content-Encoding" not in headers
        assert names_in(listed) == wanted and all(len(i["data"]["v"]) == 60_000 for i in listed["items"][-MANY:])
        assert MANY * len(LARGE) > 2 * CHUNK_BYTES
        async with http.session.get("http://api" + CONFIGS, headers={"Accept-Encoding": "gzip"}) as packed:
            assert packed.headers["Content-Encoding"] == "gzip" and packed.headers["Vary"] == "Accept-Encoding"
            assert names_in(await packed.json()) == wanted
        _, headers, listed = await http.request("GET", f"{CONFIGS}?labelSelector=even%3Dtrue")
        assert names_in(listed) == wanted[::2]
        reader, writer = await asyncio.open_unix_connection(http.session.connector._path)  # type: ignore[union-attr]
        writer.write(f"GET {CONFIGS} HTTP/1.0\r\nHost: api\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"chunked" not in head.lower() and b"content-length" in head.lower()
        assert names_in(json.loads(gzip.decompress(body))) == wanted

    with_http(scenario)


def test_looking_through_very_many_lets_others_have_their_turn_often() -> None:
    """SEL-3: decoding each of 100,000 Pods for a field selector takes half a second, in slices of a millisecond."""
    pod = encode(POD, {"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n1"}})
    cache = KindCache(POD, 10)
    cache.load([Item(POD, f"a/p{i}", pod, i + 1) for i in range(2000)], 2000)
    selection = Selection(cache, "", LabelSelector(()), parse_field_selector("spec.nodeName=n1"))

    async def scenario() -> None:
        looked: list[int] = []
        over = False

        async def others() -> None:
            while not over:
                looked.append(sum(item._fields is not None for item in cache.items.values()))
                await asyncio.sleep(0)

        watching = asyncio.create_task(others())
        await asyncio.sleep(0)
        assert len(await selection.among(selection.candidates(cache))) == 2000
        over = True
        await watching
        steps = [after - before for before, after in pairwise([*looked, 2000])]
        assert sum(steps) == 2000 and max(steps) <= LOOK_AT

    asyncio.run(scenario())


def test_a_watch_that_begins_with_much_tells_all_of_it() -> None:
    """WATCH-6: pieces end between events, the bookmark comes after the last."""

    async def scenario(server: ApiServer, http: Http) -> None:
        await fill(http)
        query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        seen: list[tuple[str, str]] = []
        url = f"http://api{CONFIGS}?{query}&labelSelector=even"
        async with http.session.get(url, read_bufsize=2**22) as answer, asyncio.timeout(60):
            while not seen or seen[-1][0] != "BOOKMARK":
                event = json.loads(await answer.content.readline())
                seen.append((event["type"], event["object"]["metadata"].get("name", "")))
        assert seen == [*(("ADDED", f"m{i:02}") for i in range(MANY)), ("BOOKMARK", "")]

    with_http(scenario)


def test_events_between_two_writes_of_many_watchers_go_out_together() -> None:
    """A lone event does not wait; what follows at once waits the longer the more watch, and never long."""

    async def scenario(server: ApiServer, http: Http) -> None:
        cache = server.registry.of(CONFIG_MAP)
        everything = Selection(cache, "", LabelSelector(()), FieldSelector(()))
        before = len(cache.sinks)
        first = Watcher(cache, everything, 100)
        alone = first.join_seconds
        more = [Watcher(cache, everything, 100) for _ in range(200)]
        assert 0 < alone < first.join_seconds == JOIN_MOST_SECONDS
        for watcher in [first, *more]:
            watcher.close()
        assert len(cache.sinks) == before

    with_http(scenario)


def test_a_watcher_waits_until_it_is_woken_or_the_time_is_over() -> None:
    async def scenario(server: ApiServer, http: Http) -> None:
        cache = server.registry.of(CONFIG_MAP)
        watcher = Watcher(cache, Selection(cache, "", LabelSelector(()), FieldSelector(())), 100)
        began = time.monotonic()
        await watcher.wait(0.05)
        assert time.monotonic() - began >= 0.045 and not watcher.take()
        asyncio.get_running_loop().call_later(0.01, watcher.wake)
        await asyncio.wait_for(watcher.wait(600), 60)
        assert watcher.awake
        await asyncio.wait_for(watcher.wait(600), 60)  # until somebody looked, it stays awake
        status, _, _ = await http.request("POST", CONFIGS, config_map("new"))
        assert status == 201 and [seen.event.key for seen in watcher.take()] == ["default/new"]
        assert not watcher.awake
        watcher.close()

    with_http(scenario)


LABELS = (
    ("a", "b", True),
    ("example.com/a", "", True),
    ("a", "-b", False),
    ("/a", "b", False),
    ("a", "b" * 64, False),
    ("a" * 300 + "/" + "b", "c" * 300, False),
)


@pytest.mark.parametrize(("key", "value", "right"), LABELS)
def test_right_labels_are_those_that_have_no_errors(key: str, value: str, right: bool) -> None:
    """META-11."""
    for _ in range(2):  # the second time it is remembered
        assert names.is_label(key, value) is right is (not names.label_key(key) and not names.label_value(value))
