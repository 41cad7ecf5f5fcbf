"""Who may see the page: the token, the Host and Origin headers, the cookie, and what the page may load."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from kubesvc.web.server import MOST_WATCHERS
from tests.web.madeup import TOKEN, Page, pods, serving
from tests.why import planted as p


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with serving(p.cluster(p.service(), *pods(2))) as served:
        yield served


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def get(page: Page, path: str, **headers: str) -> Answer:
    """One request as any program can make it. `Host` may be whatever it likes."""
    connection = http.client.HTTPConnection("127.0.0.1", page.server.port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
    finally:
        connection.close()


def cookie(page: Page) -> str:
    return f"kubesvc-{page.server.port}={TOKEN}"


@dataclass
class Case:
    name: str
    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    known: bool = False


CASES = (
    Case("without a token nothing is shown", "/", 403),
    Case("nor told by the feed", "/feed", 403),
    Case("nor kept in a file", "/export", 403),
    Case("not even the style", "/static/page.css", 403),
    Case("a wrong token is none", "/?token=0123", 403),
    Case("nor is one that is no ASCII", "/?token=%C3%A9", 403),
    Case("nor an empty one", "/?token=", 403),
    Case("the token leads to the page without it", f"/?token={TOKEN}", 303),
    Case("the cookie is enough from then on", "/", 200, known=True),
    Case(
        "a name of somebody else for this address is refused, cookie or not", "/", 421, {"Host": "evil.example"}, True
    ),
    Case("so is this host at another port", "/", 421, {"Host": "127.0.0.1:1"}, True),
    Case("another page's script is refused", "/feed", 403, {"Origin": "http://evil.example"}, True),
    Case("so is a page from nowhere", "/feed", 403, {"Origin": "null"}, True),
    Case("a file that is none", "/static/nothing.js", 404, known=True),
    Case("nor one outside", "/static/..%2fserver.py", 404, known=True),
    Case("a path that is none", "/elsewhere", 404, known=True),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_request(page: Page, case: Case) -> None:
    headers = dict(case.headers) | ({"Cookie": cookie(page)} if case.known else {})
    answer = get(page, case.path, **headers)
    assert answer.status == case.status, answer
    assert TOKEN not in answer.body
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_cookie_is_for_this_page_alone(page: Page) -> None:
    answer = get(page, f"/?token={TOKEN}")
    assert answer.headers["location"] == "/"
    given = answer.headers["set-cookie"]
    assert "HttpOnly" in given and "SameSite=Strict" in given and given.startswith(f"kubesvc-{page.server.port}=")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(page: Page, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.server.port, timeout=60)
    connection.request(method, "/", headers={"Cookie": cookie(page)})
    assert connection.getresponse().status == 405
    connection.close()


def test_its_scripts_and_styles_are_its_own(page: Page) -> None:
    policy = get(page, "/", Cookie=cookie(page)).headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy


async def feed(page: Page, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", page.server.port)
    host = urlsplit(page.link).netloc
    writer.write(f"GET /feed{query} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie(page)}\r\n\r\n".encode())
    return reader, writer


async def message(reader: asyncio.StreamReader) -> dict[str, object]:
    async with asyncio.timeout(60):
        while True:
            line = await reader.readline()
            assert line, "the feed has ended"
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))


def test_the_feed_tells_everything_first_and_then_changes_only(page: Page) -> None:
    async def listen() -> None:
        reader, writer = await feed(page, "?service=shop/web")
        first = await message(reader)
        assert first["whole"] and first["key"] == "shop/web"
        items = first["items"]
        assert isinstance(items, dict) and items["pod/web-1"]["state"] == "ready"
        out = p.cluster(p.service(), *pods(2, {1: {"ready": False}}))
        await asyncio.to_thread(page.do, page.feed.show, out)
        second = await message(reader)
        changed = second["items"]
        assert isinstance(changed, dict)
        assert "whole" not in second and "pod/web-1" in changed and "pod/web-0" not in changed
        assert changed["edge/slice/web-0>pod/web-1"]["state"] == "grey"
        writer.close()

    asyncio.run(listen())


def test_too_many_watchers_are_told_so_and_leaving_makes_room(page: Page) -> None:
    async def crowd() -> None:
        watchers = [await feed(page) for _ in range(MOST_WATCHERS)]
        await asyncio.gather(*(message(reader) for reader, _ in watchers))
        reader, writer = await feed(page)
        assert b" 503 " in await reader.readline()
        writer.close()
        for _, w in watchers:
            w.close()
        for _ in range(1000):
            if not page.server.watchers:
                break
            await asyncio.to_thread(page.do, page.feed.publish)
            await asyncio.sleep(0.05)
        assert page.server.watchers == 0 and not page.feed.shown

    asyncio.run(crowd())
