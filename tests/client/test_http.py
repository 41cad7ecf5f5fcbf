"""The HTTP client against a small real server: paths, errors, watches over raw chunks, credentials."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.configmap import CONFIG_MAP
from kubesvc.api.errors import Conflict, Expired, NotFound, ServiceUnavailable, TooManyRequests
from kubesvc.api.lease import LEASE
from kubesvc.api.node import NODE
from kubesvc.client.http import HttpClient, LineSplitter, run_plugin
from kubesvc.client.interface import Unreachable
from kubesvc.client.kubeconfig import Access, ExecPlugin, KubeconfigError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def status(code: int, reason: str, **more: Any) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": f"it is {reason}", "reason": reason}
    return web.json_response({**body, "code": code, **more}, status=code)


async def with_server(tmp: Path, handler: Handler, story: Callable[[HttpClient], Awaitable[None]]) -> None:
    """Run `story` with a client of a server on a unix socket."""
    server = web.Server(handler)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    path = tmp / "api.sock"
    await web.UnixSite(runner, str(path)).start()
    client = HttpClient.unix(path, manager="tester")
    try:
        async with asyncio.timeout(120):
            await story(client)
    finally:
        await client.close()
        await runner.cleanup()


class Recorder:
    """Answers everything with the request itself."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        self.seen.append((request.method, request.raw_path, request.headers.get("Content-Type", ""), raw.decode()))
        self.headers.append(dict(request.headers))
        if "/configmaps?" in request.raw_path and request.method == "GET":
            items = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]
            return web.json_response({"metadata": {"resourceVersion": "7", "continue": "t"}, "items": items})
        return web.json_response({"metadata": {"name": "x"}})


def test_requests_on_the_wire(tmp_path: Path) -> None:
    recorder = Recorder()

    async def story(client: HttpClient) -> None:
        await client.get(CONFIG_MAP, "a", "ns")
        listed = await client.list_raw(CONFIG_MAP, "ns", label_selector="a=b,c!=d", limit=5, continue_token="x/y=")
        assert (listed.resource_version, listed.continue_token) == ("7", "t")
        assert [json.loads(i)["metadata"]["name"] for i in listed.items] == ["a", "b"]
        await client.create(CONFIG_MAP, {"metadata": {"name": "a"}}, "ns")
        await client.create(CONFIG_MAP, {"metadata": {"name": "a"}}, "ns", name="a", subresource="sub")
        await client.update(NODE, {"metadata": {"name": "n"}}, subresource="status")
        await client.patch(CONFIG_MAP, "a", "ns", {"data": None}, "merge")
        await client.as_manager("other").patch(CONFIG_MAP, "a", "ns", {"data": {}}, "apply", force=True)
        await client.delete(LEASE, "l", "ns", grace_seconds=0, propagation="Foreground", uid="u")
        await client.delete_collection(CONFIG_MAP, "ns", label_selector="a")

    asyncio.run(with_server(tmp_path, recorder, story))
    base = "/api/v1/namespaces/ns/configmaps"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foreground"}
    options["preconditions"] = {"uid": "u"}
    body = '{"metadata":{"name":"a"}}'
    form = "application/json"
    assert recorder.seen == [
        ("GET", f"{base}/a", "", ""),
        ("GET", f"{base}?labelSelector=a%3Db,c!%3Dd&limit=5&continue=x/y%3D", "", ""),
        ("POST", base, form, body),
        ("POST", f"{base}/a/sub", form, body),
        ("PUT", "/api/v1/nodes/n/status", form, '{"metadata":{"name":"n"}}'),
        ("PATCH", f"{base}/a", "application/merge-patch+json", '{"data":null}'),
        ("PATCH", f"{base}/a?fieldManager=other&force=true", "application/apply-patch+yaml", '{"data":{}}'),
        (
            "DELETE",
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l",
            form,
            json.dumps(options, separators=(",", ":")),
        ),
        ("DELETE", f"{base}?labelSelector=a", "", ""),
    ]
    assert recorder.headers[0]["User-Agent"] == "tester/kubesvc"
    assert recorder.headers[6]["User-Agent"] == "other/kubesvc"


def test_refusals_become_errors(tmp_path: Path) -> None:
    answers = [
        status(404, "NotFound", details={"name": "a", "kind": "configmaps"}),
        status(409, "Conflict"),
        web.Response(status=503, text="<html>gateway</html>"),
        web.Response(status=200, text="not json"),
        web.Response(status=302, headers={"Location": "/elsewhere"}),
    ]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answers.pop(0)

    async def story(client: HttpClient) -> None:
        with pytest.raises(NotFound, match="it is NotFound") as caught:
            await client.get(CONFIG_MAP, "a", "ns")
        assert caught.value.details == {"name": "a", "kind": "configmaps"}
        with pytest.raises(Conflict):
            await client.update(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
        with pytest.raises(ServiceUnavailable, match="gateway"):
            await client.get(CONFIG_MAP, "a", "ns")
        with pytest.raises(Unreachable, match="no JSON"):
            await client.get(CONFIG_MAP, "a", "ns")
        with pytest.raises(Exception, match="302"):
            await client.get(CONFIG_MAP, "a", "ns")

    asyncio.run(with_server(tmp_path, handler, story))


def test_refused_reads_are_tried_again_and_writes_are_not(tmp_path: Path) -> None:
    count = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 2:
            return web.json_response({"metadata": {}})
        return status(429, "TooManyRequests", details={"retryAfterSeconds": 0.01})

    async def story(client: HttpClient) -> None:
        await client.get(CONFIG_MAP, "a", "ns")
        assert count == 2
        with pytest.raises(TooManyRequests):
            await client.create(CONFIG_MAP, {}, "ns")
        assert count == 3

    asyncio.run(with_server(tmp_path, handler, story))


def test_nobody_there(tmp_path: Path) -> None:
    async def main() -> None:
        client = HttpClient.unix(tmp_path / "none.sock")
        with pytest.raises(Unreachable, match=r"none\.sock"):
            await client.get(CONFIG_MAP, "a", "ns")
        with pytest.raises(Unreachable, match=r"none\.sock"):
            async with aclosing(client.watch(CONFIG_MAP, "ns")) as events:
                async for _ in events:
                    raise AssertionError("an event from nobody")
        await client.close()

    asyncio.run(main())


def event(type: str, name: str, size: int = 0) -> bytes:
    obj = {"metadata": {"name": name, "resourceVersion": "5"}, "data": {"x": "y" * size}}
    return json.dumps({"type": type, "object": obj}).encode() + b"\n"


def test_watch_over_any_chunks(tmp_path: Path) -> None:
    """Events cut anywhere, many at once, one of half a megabyte, the last without a line end."""
    stream = event("ADDED", "a") + event("MODIFIED", "b", 500_000) + b"\n" + event("DELETED", "c")
    stream += event("BOOKMARK", "d").rstrip(b"\n")

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.query["watch"] == "true"
        assert request.query["resourceVersion"] == "4"
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(stream), 70_001):
            await response.write(stream[start : start + 70_001])
            await asyncio.sleep(0.001)
        return response

    async def story(client: HttpClient) -> None:
        async with aclosing(client.watch(CONFIG_MAP, "ns", resource_version="4")) as events:
            found = [(e.type, json.loads(e.object)["metadata"]["name"], len(e.object)) async for e in events]
        assert [f[:2] for f in found] == [("ADDED", "a"), ("MODIFIED", "b"), ("DELETED", "c"), ("BOOKMARK", "d")]
        assert found[1][2] > 500_000

    asyncio.run(with_server(tmp_path, handler, story))


def test_watch_errors(tmp_path: Path) -> None:
    """WATCH-10, WATCH-11: an ERROR event, a refusal, a broken stream, a line that is none."""
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (9)"}
    turn = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal turn
        turn += 1
        if turn == 2:
            return status(404, "NotFound")
        response = web.StreamResponse()
        await response.prepare(request)
        if turn == 1:
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        elif turn == 3:
            await response.write(event("ADDED", "a") + b'{"type":"AD')
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(b"nonsense\n")
        return response

    async def follow(client: HttpClient) -> list[str]:
        async with aclosing(client.watch(CONFIG_MAP, "ns", resource_version="1")) as events:
            return [e.type async for e in events]

    async def story(client: HttpClient) -> None:
        with pytest.raises(Expired, match="too old resource version"):
            await follow(client)
        with pytest.raises(NotFound):
            await follow(client)
        for _ in range(2):
            with pytest.raises(Unreachable):
                await follow(client)

    asyncio.run(with_server(tmp_path, handler, story))


def test_leaving_a_watch_ends_its_connection(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(event("ADDED", "a"))
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            ended.set()
            raise

    async def story(client: HttpClient) -> None:
        async with aclosing(client.watch(CONFIG_MAP, "ns", resource_version="1")) as events:
            async for _ in events:
                break
        await asyncio.wait_for(ended.wait(), 60)

    asyncio.run(with_server(tmp_path, handler, story))


def test_token_is_read_again_after_401(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    seen = []

    async def main() -> None:
        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers["Authorization"])
            if seen[-1] == "Bearer new":
                return web.json_response({"metadata": {}})
            token.write_text("new\n")
            return status(401, "Unauthorized")

        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        client = HttpClient.from_access(Access(server=f"http://127.0.0.1:{port}", token_file=str(token)))
        try:
            await client.get(CONFIG_MAP, "a", "ns")
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(main())
    assert seen == ["Bearer old", "Bearer new"]


def plugin(code: str) -> ExecPlugin:
    v1 = "client.authentication.k8s.io/v1"
    return ExecPlugin(sys.executable, ("-c", code), {"ANSWER": "t0ken"}, v1, "install it", "f: users[0].user.exec")


def test_exec_plugin() -> None:
    answer = '{"status": {"token": os.environ["ANSWER"], "expirationTimestamp": "1970-01-01T00:10:00Z"}}'
    code = f"import json, os; json.loads(os.environ['KUBERNETES_EXEC_INFO']); print(json.dumps({answer}))"
    credential = asyncio.run(run_plugin(plugin(code), now=lambda: 0.0))
    assert (credential.token, credential.lifetime_seconds) == ("t0ken", 540.0)
    for bad, text in (
        ("import sys; sys.exit('no luck')", "exit status 1: no luck"),
        ("print('x')", "no ExecCredential"),
    ):
        with pytest.raises(KubeconfigError, match=text):
            asyncio.run(run_plugin(plugin(bad)))
    missing = ExecPlugin("/none/such", (), {}, "v1", "install it", "f: exec")
    with pytest.raises(KubeconfigError, match=r"No such file.*install it"):
        asyncio.run(run_plugin(missing))


def test_a_plugin_that_never_answers_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin has started holds its pipes: to kill the plugin alone would be to wait for that for ever."""
    monkeypatch.setattr("kubesvc.client.http.PLUGIN_SECONDS", 1.0)
    code = "import subprocess; subprocess.run(['sleep', '600'])"
    with pytest.raises(KubeconfigError, match="no answer in 1 s"):
        asyncio.run(asyncio.wait_for(run_plugin(plugin(code)), 120))


def test_plugin_is_asked_once_and_again_after_401(tmp_path: Path) -> None:
    """The plugin counts its calls in a file; the server takes every token but the first.

    However many requests find the credentials refused, or expired, at once: they are renewed once.
    """
    counter = tmp_path / "count"
    code = (
        f"import json, pathlib; p = pathlib.Path({str(counter)!r}); "
        "n = int(p.read_text()) + 1 if p.exists() else 1; p.write_text(str(n)); "
        "print(json.dumps({'status': {'token': f't{n}'}}))"
    )
    seen: list[str] = []

    async def main() -> None:
        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers["Authorization"])
            return web.json_response({"metadata": {}}) if seen[-1] != "Bearer t1" else status(401, "Unauthorized")

        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = HttpClient.from_access(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", plugin=plugin(code)))

        async def many() -> None:
            await asyncio.gather(*(client.get(CONFIG_MAP, "a", "ns") for _ in range(5)))

        try:
            await client.get(CONFIG_MAP, "a", "ns")
            assert seen == ["Bearer t1", "Bearer t2"] and counter.read_text() == "2"
            client._connection.token, client._connection.renewals = "t1", 0
            await many()
            assert counter.read_text() == "3"
            client._connection.token_until = 0.0
            await many()
            assert counter.read_text() == "4"
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(main())
    assert seen[-5:] == ["Bearer t4"] * 5


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_lines_survive_any_cut(text: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter()
    bounds = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    lines = [line for a, b in itertools.pairwise(bounds) for line in splitter.feed(text[a:b])]
    rest = splitter.end()
    assert [*lines, *([rest] if rest.strip() else [])] == [line for line in text.split(b"\n") if line.strip()]


def test_many_first_requests_make_one_session() -> None:
    """Reading certificates takes a thread, in which others ask for the session too; each extra one would leak."""

    async def main() -> None:
        client = HttpClient.unix("/nowhere/api.sock")
        connection = client._connection
        connection.unix_path, connection.access = "", Access(server="https://127.0.0.1:1")
        sessions = await asyncio.gather(*(connection.open() for _ in range(8)))
        await client.close()
        assert len({id(s) for s in sessions}) == 1

    asyncio.run(main())


async def chattering(request: web.BaseRequest) -> web.StreamResponse:
    """An object for whoever asks, and events without end for whoever watches."""
    if "watch" not in request.query:
        return web.json_response({"metadata": {}})
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(event("ADDED", "a"))
        await asyncio.sleep(0.01)


def test_a_former_session_is_closed_with_its_last_request(tmp_path: Path) -> None:
    """Whoever renews credentials for months leaves no session behind, and cuts no stream that goes on."""

    async def main() -> None:
        runner = web.ServerRunner(web.Server(chattering), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        client = HttpClient.from_access(Access(base, token="0"))
        connection = client._connection
        try:
            async with asyncio.timeout(120), aclosing(client.watch(CONFIG_MAP, "ns", resource_version="1")) as events:
                await anext(events)
                first = connection.session
                assert first is not None
                for turn in range(1, 4):
                    await client.use(Access(base, token=str(turn)))
                    await client.get(CONFIG_MAP, "a", "ns")
                    await anext(events)
                    assert list(connection.retired) == [first] and not first.closed
            assert first.closed
            assert not connection.retired and not connection.under_way
            await client.get(CONFIG_MAP, "a", "ns")
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(main())


def test_a_renewed_certificate_cuts_no_stream(tmp_path: Path) -> None:
    """A plugin's new certificate is for new connections; what goes on over the old one goes on."""
    pair = "'clientCertificateData': str(time.time_ns()), 'clientKeyData': 'k'"
    code = f"import json, time; print(json.dumps({{'status': {{{pair}}}}}))"

    async def main() -> None:
        runner = web.ServerRunner(web.Server(chattering), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = HttpClient.from_access(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", plugin=plugin(code)))
        connection = client._connection
        try:
            async with asyncio.timeout(120), aclosing(client.watch(CONFIG_MAP, "ns", resource_version="1")) as events:
                await anext(events)
                former = connection.session
                await connection.renew(connection.renewals)
                await client.get(CONFIG_MAP, "a", "ns")
                assert connection.session is not former
                await anext(events)
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(main())
