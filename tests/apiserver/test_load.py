"""Under load: requests in flight are limited, slow watchers are cut, an end is orderly, and all of it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kubesvc.api.errors import TooManyRequests
from kubesvc.api.kinds import CONFIG_MAP
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.authentication import ADMIN, User
from kubesvc.apiserver.inflight import InFlight, is_lasting, request_kind
from kubesvc.apiserver.metrics import BUCKETS, request_labels
from kubesvc.apiserver.routing import parse_target
from kubesvc.client.metrics import Histogram, histogram_lines

from .running import SETTINGS, Http, config_map, running, with_http

PROMTOOL = Path(__file__).parents[2] / ".peers/usr/bin/promtool"
CONFIGS = "/api/v1/namespaces/default/configmaps"
BOB = User("bob", groups=("system:authenticated",))

# ---------------------------------------------------------------- requests in flight


SORTS = (
    # method, path, watch, lasting, kind
    ("GET", CONFIGS, False, False, "readOnly"),
    ("GET", f"{CONFIGS}/a", False, False, "readOnly"),
    ("GET", CONFIGS, True, True, "mutating"),
    ("GET", "/api/v1/watch/configmaps", False, True, "mutating"),
    ("GET", "/api/v1/namespaces/default/pods/p/log", False, True, "readOnly"),
    ("POST", "/api/v1/namespaces/default/pods/p/exec", False, True, "mutating"),
    ("POST", CONFIGS, False, False, "mutating"),
    ("PATCH", f"{CONFIGS}/a", False, False, "mutating"),
    ("DELETE", CONFIGS, False, False, "mutating"),
    ("GET", "/version", False, False, "readOnly"),
)


@pytest.mark.parametrize(("method", "path", "watch", "lasting", "kind"), SORTS)
def test_sorts_of_requests(method: str, path: str, watch: bool, lasting: bool, kind: str) -> None:
    target = parse_target(method, path, watch=watch)
    assert is_lasting(target) is lasting
    if not lasting:
        assert request_kind(target) == kind


def test_readers_and_writers_have_places_of_their_own() -> None:
    flight = InFlight(readers=2, writers=1)
    read, write = parse_target("GET", CONFIGS, watch=False), parse_target("POST", CONFIGS, watch=False)
    labels = request_labels(read)[1:]
    places = [flight.enter(target, BOB, labels) for target in (read, read, write)]
    for target in (read, write):
        with pytest.raises(TooManyRequests) as caught:
            flight.enter(target, BOB, labels)
        assert caught.value.retry_after_seconds == 1
    places.append(flight.enter(read, ADMIN, labels))  # the admin gets through
    places.append(flight.enter(parse_target("GET", CONFIGS, watch=True), BOB, labels))
    assert flight.lasting.total() == 1 and sum(flight.refused.values()) == 2
    for place in places:
        flight.leave(place)
    assert flight.now == {"readOnly": 0, "mutating": 0} and flight.lasting.total() == 0


def test_too_many_at_once_are_asked_to_come_back(tmp_path: Path) -> None:
    """429, a Status with Retry-After; whoever is under way is served, and afterwards there is room again."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("bt,bob,u\n")

    async def run(server: ApiServer, http: Http) -> None:
        gate = asyncio.Event()
        commit = server.store.commit

        async def slow(*operations: Any) -> int:
            await gate.wait()
            return await commit(*operations)

        server.store.commit = slow  # type: ignore[method-assign]
        bob = {"Authorization": "Bearer bt"}
        writes = [asyncio.create_task(http.request("POST", CONFIGS, config_map(f"c{i}"), **bob)) for i in range(5)]
        try:
            async with asyncio.timeout(60):
                while len(refused := [w.result() for w in writes if w.done()]) < 2:
                    await asyncio.sleep(0.01)
            for status, headers, body in refused:
                assert status == 429 and headers["Retry-After"] == "1"
                assert body["kind"] == "Status" and body["reason"] == "TooManyRequests"
                assert body["details"] == {"retryAfterSeconds": 1}
            assert (await http.request("GET", CONFIGS, **bob))[0] == 200
        finally:
            gate.set()  # the end of the server writes, too
        assert sorted([(await w)[0] for w in writes]) == [201, 201, 201, 429, 429]
        assert (await http.request("POST", CONFIGS, config_map("late"), **bob))[0] == 201
        metrics = (await http.request("GET", "/metrics"))[2]
        assert 'apiserver_dropped_requests_total{request_kind="mutating"} 2' in metrics
        assert 'apiserver_current_inflight_requests{request_kind="mutating"} 0' in metrics

    with_http(run, replace(SETTINGS, writers_in_flight=3, token_file=str(tokens)))


# ---------------------------------------------------------------- heads of requests

LONG = b"a" * 70_000
HEADS = (
    ("a long path", b"GET /api?x=" + LONG + b" HTTP/1.1\r\nHost: a\r\n"),
    ("a long header", b"GET /api HTTP/1.1\r\nHost: a\r\nX-A: " + LONG + b"\r\n"),
    ("very many headers", b"GET /api HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(2_000))),
)


@pytest.mark.parametrize(("name", "head"), HEADS, ids=lambda v: v if isinstance(v, str) else "")
def test_heads_are_bounded(name: str, head: bytes) -> None:
    """A Status with the number that Go's server uses, the connection ended, and the next one served."""

    async def run(server: ApiServer, http: Http) -> None:
        reader, writer = await asyncio.open_unix_connection(server.http._paths[0])
        writer.write(head + b"\r\n")
        answer, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
        writer.close()
        assert int(answer.split()[1]) == 431 and b"Connection: close" in answer
        told = json.loads(body)
        assert (told["kind"], told["code"]) == ("Status", 431)
        assert told["message"] == "Request Header Fields Too Large"
        assert (await http.request("GET", "/api"))[0] == 200

    with_http(run)


# ---------------------------------------------------------------- slow watchers


def test_a_watcher_that_does_not_read_is_cut_and_blocks_nobody() -> None:
    """WATCH-18. Its connection ends though the server waits in the middle of a write to it."""

    async def run(server: ApiServer, http: Http) -> None:
        path = server.http._paths[0]
        deaf = socket.socket(socket.AF_UNIX)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(path)
        deaf.sendall(f"GET {CONFIGS}?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        good = asyncio.create_task(http.watch(f"{CONFIGS}?watch=1&resourceVersion={server.cache.revision}", 400))
        async with asyncio.timeout(60):
            while len(server.watches.open) < 2:
                await asyncio.sleep(0.01)
        fat = {**config_map("fat"), "data": {"k": "x" * 20_000}}
        for i in range(400):
            fat["metadata"]["name"] = f"fat-{i}"
            await server.client.create(CONFIG_MAP, fat, "default")
            await asyncio.sleep(0)
        assert len(await good) == 400
        async with asyncio.timeout(60):
            while len(server.watches.open) > 1:
                await asyncio.sleep(0.01)
        deaf.close()

    with_http(run, replace(SETTINGS, watch_buffer_events=100))


# ---------------------------------------------------------------- the end


def test_an_end_finishes_what_is_under_way() -> None:
    """HEALTH-3: readyz fails first, a write in flight is answered and stored, watches end, nobody new gets in."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory) / "api.sock")
            async with running() as server:
                await server.listen_unix(path)
                gate, reached = asyncio.Event(), asyncio.Event()
                commit = server.store.commit

                async def slow(*operations: Any) -> int:
                    if b'"late"' in str(operations).encode():
                        reached.set()
                        await gate.wait()
                    return await commit(*operations)

                server.store.commit = slow  # type: ignore[method-assign]
                async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
                    http = Http(session)
                    watch = await session.get(f"http://api{CONFIGS}?watch=1")
                    write = asyncio.create_task(http.request("POST", CONFIGS, config_map("late")))
                    await asyncio.wait_for(reached.wait(), 60)
                    stopping = asyncio.create_task(server.stop(60))
                    async with asyncio.timeout(60):
                        while any(way_in.is_serving() for way_in in server.http._servers):
                            await asyncio.sleep(0.01)
                    assert server.health.report("readyz", "", (), verbose=False)[0] == 500  # type: ignore[index]
                    with pytest.raises((ConnectionError, FileNotFoundError)):
                        await asyncio.open_unix_connection(path)
                    assert not write.done()
                    gate.set()
                    assert (await write)[0] == 201
                    rest = await asyncio.wait_for(watch.content.read(), 60)
                    assert all(json.loads(line)["type"] == "ADDED" for line in rest.splitlines())
                    await asyncio.wait_for(stopping, 60)
                assert await server.store.get("configmaps/default/late") or server.cache.of(CONFIG_MAP).get(
                    "default", "late"
                )

    asyncio.run(main())


# ---------------------------------------------------------------- metrics


def test_strangers_make_no_metrics() -> None:
    """Labels come from what the API has; anything else would let anybody fill the memory."""
    for path in ("/api/v1/namespaces/x/nonsense/y", "/apis/a.b/v9/things", "/x" * 50, '/api/v1/pods"{}'):
        labels = request_labels(parse_target("FOO", path, watch=False))
        assert set(labels) <= {"", "other"}, labels
    assert request_labels(parse_target("GET", f"{CONFIGS}/a", watch=False)) == (
        "", "", "configmaps", "resource", "", "GET", "v1",
    )  # fmt: skip


def test_histograms_count_up() -> None:
    histogram = Histogram(BUCKETS)
    for seconds in (0.001, 0.005, 0.03, 100.0):
        histogram.observe(seconds, ("x",))
    lines = list(histogram_lines("h", ("verb",), histogram))
    assert lines[0] == 'h_bucket{verb="x",le="0.005"} 2'
    assert lines[2] == 'h_bucket{verb="x",le="0.05"} 3'
    assert lines[-3:] == ['h_bucket{verb="x",le="+Inf"} 4', 'h_sum{verb="x"} 100.036', 'h_count{verb="x"} 4']


def test_metrics_have_upstreams_names() -> None:
    async def run(server: ApiServer, http: Http) -> None:
        await http.request("POST", CONFIGS, config_map("a"))
        await http.request("GET", f"{CONFIGS}/none")
        [(kind, told)] = await http.watch(f"{CONFIGS}?watch=1", 1)
        text = (await http.request("GET", "/metrics"))[2]
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        about = 'dry_run="",group="",resource="configmaps",scope="{}",subresource="",verb="{}",version="v1"'
        post, get = about.format("namespace", "POST"), about.format("resource", "GET")
        assert lines[f'apiserver_request_total{{code="201",component="apiserver",{post}}}'] == "1"
        assert lines[f'apiserver_request_total{{code="404",component="apiserver",{get}}}'] == "1"
        assert lines[f'apiserver_request_duration_seconds_bucket{{{post},le="+Inf"}}'] == "1"
        assert lines[f"apiserver_request_duration_seconds_count{{{post}}}"] == "1"
        await http.request("POST", CONFIGS, config_map("b"))
        await http.request("PUT", f"{CONFIGS}/b", {**config_map("b"), "data": {"other": "x"}})
        await http.request("DELETE", f"{CONFIGS}/b")
        again = (await http.request("GET", "/metrics"))[2]
        stored = {"create": 2, "update": 1, "delete": 1}
        for operation, count in stored.items():
            name = f'etcd_request_duration_seconds_count{{operation="{operation}",group="",resource="configmaps"}}'
            assert f"{name} {count}\n" in again
        assert 'etcd_request_duration_seconds_count{operation="list",group="",resource=""}' in again
        assert lines['apiserver_storage_objects{resource="configmaps"}'] == "1"
        labels = 'group="",version="v1",resource="configmaps"'
        assert lines[f"apiserver_watch_events_total{{{labels}}}"] == "1"
        assert lines[f"apiserver_watch_events_sizes_count{{{labels}}}"] == "1"
        line = json.dumps({"type": kind, "object": told}, separators=(",", ":")) + "\n"
        assert int(lines[f"apiserver_watch_events_sizes_sum{{{labels}}}"]) == len(line)
        assert float(lines["process_resident_memory_bytes"]) > 1e6
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names)), "each name is told once"

    with_http(run)


UPSTREAM_NAMES = {"authentication_attempts"}
"""Names that Prometheus would spell differently and upstream does not."""


def check_metrics(text: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROMTOOL), "check", "metrics"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(not PROMTOOL.exists(), reason=f"{PROMTOOL} is absent: python tools/bootstrap.py fetches it")
def test_prometheus_reads_the_metrics_and_finds_nothing_odd() -> None:
    async def run(server: ApiServer, http: Http) -> None:
        await http.request("POST", CONFIGS, config_map("a"))
        await http.request("GET", "/api", Authorization="Bearer wrong")
        await http.watch(f"{CONFIGS}?watch=1&timeoutSeconds=1", 1)
        await http.request("GET", CONFIGS)
        headers, text = (await http.request("GET", "/metrics"))[1:]
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        checked = await asyncio.to_thread(check_metrics, text)
        said = [line for line in checked.stderr.splitlines() if line.split()[0] not in UPSTREAM_NAMES]
        assert checked.returncode in (0, 3) and not said, checked.stderr
        for line in (
            'apiserver_longrunning_requests{group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",'
            'version="v1",component="apiserver"}',
            'apiserver_dropped_requests_total{request_kind="mutating"} 0',
            'apiserver_resource_objects{group="",resource="configmaps"} 1',
            'apiserver_response_sizes_bucket{group="",resource="configmaps",',
            'authentication_attempts{result="error"} 1',
            'kubernetes_build_info{major="1",minor="36",git_version="v1.36.0+kubesvc",',
        ):
            assert line in text, line

    with_http(run)


def test_answers_do_not_tell_which_library_gave_them() -> None:
    async def run(_: ApiServer, http: Http) -> None:
        for path in ("/api", "/nothing", "/livez", "/metrics", f"{CONFIGS}?watch=1&timeoutSeconds=1"):
            headers = (await http.request("GET", path))[1]
            assert "Server" not in headers and headers["Audit-Id"], path

    with_http(run)


def test_requests_are_logged_with_their_ids_where_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def run(_: ApiServer, http: Http) -> None:
        await http.request("GET", "/api", Audit_Id="quiet")
        with caplog.at_level(logging.DEBUG, "kubesvc.apiserver.requests"):
            await http.request("GET", f"{CONFIGS}?limit=1", Audit_Id="loud", User_Agent='odd"agent')

    with_http(run)
    said = [r.getMessage() for r in caplog.records if r.name == "kubesvc.apiserver.requests"]
    assert len(said) == 1 and 'audit-ID="loud"' in said[0] and 'userAgent="odd\\"agent"' in said[0]
    assert f'verb="LIST" URI="{CONFIGS}?limit=1"' in said[0] and said[0].endswith("resp=200")


# ---------------------------------------------------------------- the audit log


def audited(level: str, test: Any, path: Path, **more: Any) -> list[dict[str, Any]]:
    settings = replace(SETTINGS, audit_log=str(path), audit_level=level, **more)  # type: ignore[arg-type]
    with_http(test, settings)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def some_requests(server: ApiServer, http: Http) -> None:
    await http.request("POST", CONFIGS, config_map("a"))
    await http.request("POST", "/api/v1/namespaces/default/services", {"spec": {"ports": [{"port": 80}]}})
    secret = {"metadata": {"name": "s"}, "stringData": {"password": "hidden"}}
    await http.request("POST", "/api/v1/namespaces/default/secrets", secret)
    await http.request("GET", f"{CONFIGS}/none?pretty=1", Impersonate_User="alice")
    await http.request("POST", CONFIGS, b"{not json\n")
    await http.request("GET", "/livez")
    with suppress(TimeoutError):
        await http.watch(f"{CONFIGS}?watch=1&timeoutSeconds=1", 1)


def test_the_audit_log_tells_who_did_what(tmp_path: Path) -> None:
    events = audited("Metadata", some_requests, tmp_path / "audit.log")
    assert [(e["verb"], e["stage"], e["responseStatus"]["code"]) for e in events][:5] == [
        ("create", "ResponseComplete", 201), ("create", "ResponseComplete", 422), ("create", "ResponseComplete", 201),
        ("get", "ResponseComplete", 404), ("create", "ResponseComplete", 400),
    ]  # fmt: skip
    assert [e["stage"] for e in events[5:]] == ["ResponseStarted", "ResponseComplete"]
    first, _, _, impersonated = events[:4]
    assert first["kind"] == "Event" and first["apiVersion"] == "audit.k8s.io/v1" and first["level"] == "Metadata"
    assert first["user"]["username"] == "system:admin"
    assert first["objectRef"] == {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}
    assert first["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert impersonated["impersonatedUser"]["username"] == "alice"
    assert impersonated["requestURI"] == f"{CONFIGS}/none?pretty=1"
    assert impersonated["responseStatus"]["reason"] == "NotFound"
    assert not any("requestObject" in e for e in events)
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_bodies_are_logged_when_asked_for_but_no_secrets(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    events = audited("Request", some_requests, path)
    assert events[1]["level"] == "Request" and events[1]["requestObject"]["spec"] == {"ports": [{"port": 80}]}
    assert events[2]["level"] == "Metadata" and "hidden" not in path.read_text()


def test_audit_ids_are_those_of_the_answers(tmp_path: Path) -> None:
    ids = []

    async def run(server: ApiServer, http: Http) -> None:
        for path in (CONFIGS, "/api", "/nothing"):
            ids.append((await http.request("GET", path))[1]["Audit-Id"])

    assert [e["auditID"] for e in audited("Metadata", run, tmp_path / "a")] == ids
