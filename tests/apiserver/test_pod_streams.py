"""Logs, exec, attach, port forwarding and proxies through a real server, with nodes that are played."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.nodedoors import FakeDoors, Stream
from kubesvc.apiserver.nodeproxy import join
from kubesvc.apiserver.nodestreams import NodeStreams
from kubesvc.apiserver.spdy import Data
from kubesvc.instance.pki import ensure_pki
from tests.apiserver.running import Http, pod, with_http
from tests.apiserver.spdypeer import SpdyPeer

POD = "/api/v1/namespaces/default/pods/p"
EXEC = POD + "/exec?command=run&stdout=true&stderr=true"
FRAME = struct.Struct(">BI")
OK = b'{"ok": true}\n'
Test = Callable[[Http, FakeDoors], Awaitable[None]]


def frame(channel: int, data: bytes) -> bytes:
    return FRAME.pack(channel, len(data)) + data


async def read_frame(stream: Stream) -> tuple[int, bytes]:
    channel, size = FRAME.unpack(await stream.reader.readexactly(FRAME.size))
    return channel, await stream.reader.readexactly(size)


async def refuse(rest: str, stream: Stream) -> None:
    stream.writer.write(b'{"error": "container not found (\\"c\\")", "code": 500}\n')


def played(test: Test, **serve: Callable[[str, Stream], Awaitable[None]]) -> None:
    """Run a test against a server with a pod `p` on node n1, whose door answers as `serve` says."""

    async def main(server: ApiServer, http: Http) -> None:
        doors = FakeDoors(serve)
        server.serve_backends(NodeStreams(server.registry, doors))
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
        assert (await http.request("POST", "/api/v1/nodes", node))[0] == 201
        body = pod("p", nodeName="n1")
        assert (await http.request("POST", "/api/v1/namespaces/default/pods", body))[0] == 201
        status = {"status": {"podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}], "phase": "Running"}}
        patch = json.dumps(status).encode()
        done = await http.request("PATCH", POD + "/status", patch, Content_Type="application/merge-patch+json")
        assert done[0] == 200, done
        async with asyncio.timeout(60):
            await test(http, doors)

    with_http(main)


async def left(doors: FakeDoors) -> None:
    """Wait until every stream to the node has ended, which may have happened already."""
    async with asyncio.timeout(60):
        while doors.tasks:
            await asyncio.sleep(0.01)


def socket(http: Http, path: str, *protocols: str) -> Any:
    return http.session.ws_connect("http://api" + path, protocols=protocols)


async def messages(ws: aiohttp.ClientWebSocketResponse) -> list[Any]:
    """All messages until the server closes."""
    return [m.data async for m in ws]


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_is_plain_text() -> None:
    """NODE-95, NODE-98."""

    async def log(rest: str, stream: Stream) -> None:
        stream.writer.write(OK + b"one\ntwo\n")

    async def test(http: Http, doors: FakeDoors) -> None:
        status, headers, body = await http.request("GET", POD + "/log?tailLines=2&container=c")
        assert (status, headers["content-type"], body) == (200, "text/plain", "one\ntwo\n")
        node, line = doors.requests[0]
        assert (node, line.split(" ", 3)[:3]) == ("n1", ["log", "default", "p"])
        assert json.loads(line.split(" ", 4)[4])["tail_lines"] == 2

    played(test, log=log)


def test_headers_come_before_the_first_line_and_lines_as_they_are_written() -> None:
    """NODE-98."""
    gate = asyncio.Event()

    async def log(rest: str, stream: Stream) -> None:
        stream.writer.write(OK)
        await gate.wait()
        stream.writer.write(b"late\n")
        await stream.reader.read()  # held open until the reader leaves

    async def test(http: Http, doors: FakeDoors) -> None:
        async with http.session.get("http://api" + POD + "/log?follow=true") as response:
            assert response.status == 200
            gate.set()
            assert await response.content.readline() == b"late\n"
        await left(doors)  # the node is told when the reader leaves

    played(test, log=log)


def test_words_of_the_node_are_the_answer() -> None:
    """NODE-97."""

    async def log(rest: str, stream: Stream) -> None:
        words = 'container "c" in pod "p" is waiting to start: ContainerCreating'
        stream.writer.write(json.dumps({"error": words, "code": 400}).encode() + b"\n")

    async def test(http: Http, doors: FakeDoors) -> None:
        status, _, body = await http.request("GET", POD + "/log")
        assert (status, body["reason"]) == (400, "BadRequest")
        assert body["message"] == 'container "c" in pod "p" is waiting to start: ContainerCreating'

    played(test, log=log)


@pytest.mark.parametrize("subresource", ["log", "exec?command=a&stdout=1", "attach?stdout=1", "portforward"])
def test_a_node_that_cannot_be_reached_is_said(subresource: str) -> None:
    async def test(http: Http, doors: FakeDoors) -> None:
        doors.nodes = ()
        if subresource == "log":
            status, _, body = await http.request("GET", f"{POD}/{subresource}")
            assert status >= 500 and "node n1 cannot be reached" in body["message"]
            return
        protocol = "v4.channel.k8s.io"
        path = f"{POD}/{subresource}" + ("?ports=80" if subresource == "portforward" else "")
        async with socket(http, path, protocol) as ws:
            assert b"node n1 cannot be reached" in b"".join(await messages(ws))

    played(test)


# -- exec and attach --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
def test_all_output_comes_before_the_status(protocol: str) -> None:
    """NODE-104, NODE-106."""

    async def execute(rest: str, stream: Stream) -> None:
        assert json.loads(rest)["command"] == ["run"] and json.loads(rest)["container"] == "c"
        stream.writer.write(OK + b"".join(frame(1 + n % 2, b"%d\n" % n) for n in range(500)))
        stream.writer.write(frame(3, b'{"exitCode": 7}'))

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC, protocol) as ws:
            assert ws.protocol == protocol
            empty, *output, status = await messages(ws)
            assert empty == b"\x01"
            assert [m[1:] for m in output] == [b"%d\n" % n for n in range(500)]
            assert status[0] == 3
            assert json.loads(status[1:])["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}
            assert ws.close_code == 1000

    played(test, exec=execute)


def test_input_its_end_and_sizes_reach_the_process() -> None:
    """NODE-103, NODE-105."""
    seen: list[tuple[int, bytes]] = []

    async def execute(rest: str, stream: Stream) -> None:
        stream.writer.write(OK)
        while not seen or seen[-1][0] != 255:
            seen.append(await read_frame(stream))
        stream.writer.write(frame(3, b'{"exitCode": 0}'))

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC + "&stdin=true&tty=true", "v5.channel.k8s.io") as ws:
            await ws.send_bytes(b'\x04{"Width":90,"Height":30}')
            await ws.send_bytes(b"\x00hello")
            await ws.send_bytes(b"\xff\x00")
            *_, status = await messages(ws)
            assert json.loads(status[1:]) == {"metadata": {}, "status": "Success"}
        assert seen == [(4, b'{"Width": 90, "Height": 30}'), (0, b"hello"), (255, b"\0")]

    played(test, exec=execute)


def test_messages_larger_than_the_door_takes_are_cut() -> None:
    """NODE-107."""
    sizes: list[int] = []

    async def execute(rest: str, stream: Stream) -> None:
        stream.writer.write(OK)
        while sum(sizes) < 3 << 20:
            sizes.append(len((await read_frame(stream))[1]))
        stream.writer.write(frame(3, b'{"exitCode": 0}'))

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC + "&stdin=true", "v5.channel.k8s.io") as ws:
            await ws.send_bytes(b"\x00" + bytes(3 << 20))
            await messages(ws)
        assert sum(sizes) == 3 << 20 and max(sizes) <= 1 << 20

    played(test, exec=execute)


def test_a_client_that_leaves_ends_the_session_at_the_node() -> None:
    async def execute(rest: str, stream: Stream) -> None:
        stream.writer.write(OK + frame(1, b"x"))
        assert await stream.reader.read() == b""

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC, "v5.channel.k8s.io") as ws:
            await ws.receive_bytes()
        await left(doors)

    played(test, exec=execute)


def test_a_process_that_ends_before_its_input_has_its_status_told() -> None:
    """What the client still sends is dropped, and the exit code is not lost."""

    async def execute(rest: str, stream: Stream) -> None:
        stream.writer.write(OK + frame(1, b"enough") + frame(3, b'{"exitCode": 2}'))
        await stream.writer.drain()
        stream.writer.transport.abort()

    async def test(http: Http, doors: FakeDoors) -> None:
        for _ in range(20):
            async with socket(http, EXEC + "&stdin=true", "v5.channel.k8s.io") as ws:

                async def flood(ws: aiohttp.ClientWebSocketResponse = ws) -> None:
                    with contextlib.suppress(ConnectionError):
                        for _ in range(64):
                            await ws.send_bytes(bytes(1 << 16))

                flooding = asyncio.create_task(flood())
                *_, output, status = await messages(ws)
                assert output == b"\x01enough"
                assert json.loads(status[1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "2"}]
                await flooding

    played(test, exec=execute)


def test_a_stopping_server_ends_its_streams() -> None:
    async def log(rest: str, stream: Stream) -> None:
        stream.writer.write(OK)
        await stream.reader.read()

    async def main(server: ApiServer, http: Http) -> None:
        doors = FakeDoors({"log": log})
        streams = NodeStreams(server.registry, doors)
        server.serve_backends(streams)
        await http.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        await http.request("POST", "/api/v1/namespaces/default/pods", pod("p", nodeName="n1"))
        async with http.session.get("http://api" + POD + "/log?follow=true") as response, asyncio.timeout(60):
            assert response.status == 200 and streams.open
            streams.stop()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert not streams.open

    with_http(main)


async def web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nsecret")
    writer.close()


def test_backends_behind_tls(tmp_path: Path) -> None:
    """CONF-6: `https:NAME:PORT`; whose certificate it is cannot be known."""
    files = ensure_pki(tmp_path, ("127.0.0.1",), ("somebody",), 1_700_000_000.0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server_cert, files.server_key)
    ports: list[int] = []

    async def tcp(rest: str, stream: Stream) -> None:
        far = Stream(*await asyncio.open_connection("127.0.0.1", ports[0]))
        stream.writer.write(OK)
        await join(stream, far)
        far.writer.close()

    async def test(http: Http, doors: FakeDoors) -> None:
        server = await asyncio.start_server(web_server, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        async with server:
            path = "/api/v1/namespaces/default/pods/https:p:443/proxy/"
            assert (await http.request("GET", path))[::2] == (200, "secret")

    played(test, tcp=tcp)


FORMS = (
    ("base64.channel.k8s.io", ["1", "1aGk=", "3Y29tbWFuZCB0ZXJtaW5hdGVk"]),
    ("channel.k8s.io", [b"\x01", b"\x01hi", b"\x03command terminated"]),
    ("", [b"\x01", b"\x01hi", b"\x03command terminated"]),
)


@pytest.mark.parametrize(("protocol", "expected"), FORMS, ids=[f[0] or "none" for f in FORMS])
def test_older_forms_say_the_end_in_words(protocol: str, expected: list[Any]) -> None:
    async def execute(rest: str, stream: Stream) -> None:
        stream.writer.write(OK + frame(1, b"hi") + frame(3, b'{"exitCode": 1}'))

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC, *([protocol] if protocol else [])) as ws:
            first, second, third = await messages(ws)
            assert [first, second, third[: len(expected[2])]] == expected

    played(test, exec=execute)


def test_a_container_that_is_not_running_is_told_as_a_status() -> None:
    """NODE-114."""

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, EXEC, "v5.channel.k8s.io") as ws:
            status = json.loads((await messages(ws))[-1][1:])
            assert status["status"] == "Failure" and 'container not found ("c")' in status["message"]

    played(test, exec=refuse)


def test_what_is_no_upgrade_is_refused() -> None:
    """NODE-101: kubectl then tries SPDY."""

    async def test(http: Http, doors: FakeDoors) -> None:
        status, _, body = await http.request("GET", EXEC)
        assert (status, body["message"]) == (400, "Upgrade request required")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await socket(http, EXEC, "v9.channel.k8s.io")
        assert refused.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await socket(http, POD + "/portforward", "v9.channel.k8s.io")
        assert refused.value.status == 400  # NODE-109
        assert doors.requests == []

    played(test)


# -- port forwarding --------------------------------------------------------------------------------------------------


async def echo(rest: str, stream: Stream) -> None:
    """A pod that gives back what it gets in upper case on port 80, and refuses every other."""
    if rest.split()[-1] != "80":
        stream.writer.write(b'{"error": "connect: connection refused", "code": 502}\n')
        return
    stream.writer.write(OK)
    while data := await stream.reader.read(1 << 16):
        stream.writer.write(data.upper())
        await stream.writer.drain()


def test_connections_of_a_tunnel_stand_each_for_itself() -> None:
    """NODE-109, NODE-110, NODE-112."""

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, POD + "/portforward", "SPDY/3.1+portforward.k8s.io") as ws:
            peer = SpdyPeer(ws.send_bytes)

            async def read() -> None:
                async for message in ws:
                    peer.feed(message.data)

            reading = asyncio.create_task(read())

            async def connect(request: int, port: str) -> tuple[int, int]:
                error = await peer.open(fin=True, streamtype="error", port=port, requestid=str(request))
                data = await peer.open(streamtype="data", port=port, requestid=str(request))
                await peer.until(lambda: peer.replied(error) and peer.replied(data))
                return error, data

            _, first = await connect(1, "80")
            error, failing = await connect(2, "81")
            await peer.until(lambda: peer.ended(error) and peer.ended(failing))
            assert b"error forwarding port 81 to pod p_default" in peer.data(error)
            second_error, second = await connect(3, "80")
            await peer.send(Data(second, b"two" * 50_000, fin=True))
            await peer.send(Data(first, b"one"))
            await peer.until(lambda: peer.ended(second) and peer.ended(second_error) and peer.data(first) == b"ONE")
            assert peer.data(second) == b"TWO" * 50_000 and not peer.ended(first)
            bad = await peer.open(streamtype="data", port="none", requestid="9")
            await peer.until(lambda: peer.was_reset(bad))
            reading.cancel()
        await left(doors)  # what the client left open ends with it

    played(test, podtcp=echo)


def test_channels_of_older_clients() -> None:
    """NODE-111."""

    async def test(http: Http, doors: FakeDoors) -> None:
        async with socket(http, POD + "/portforward?ports=80&ports=81", "v4.channel.k8s.io") as ws:
            first = [await ws.receive_bytes() for _ in range(4)]
            assert first == [bytes((c, p, 0)) for c, p in ((0, 80), (1, 80), (2, 81), (3, 81))]
            refused = await ws.receive_bytes()
            assert refused[0] == 3 and b"connection refused" in refused
            await ws.send_bytes(b"\x00hello")
            assert await ws.receive_bytes() == b"\x00HELLO"

    played(test, podtcp=echo)


# -- proxies ----------------------------------------------------------------------------------------------------------


async def backend(rest: str, stream: Stream) -> None:
    """A web server that tells what it was asked."""
    if rest.split()[-1] == "81":
        stream.writer.write(b'{"error": "dial tcp 10.244.0.5:81: connect: connection refused", "code": 502}\n')
        return
    stream.writer.write(OK)
    head = (await stream.reader.readuntil(b"\r\n\r\n")).decode()
    lines = {n.lower(): v for n, _, v in (line.partition(": ") for line in head.split("\r\n")[1:] if line)}
    first = head.split("\r\n")[0]
    if lines.get("upgrade") == "echo":
        stream.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while data := await stream.reader.read(100):
            stream.writer.write(data.upper())
        return
    body = await stream.reader.readexactly(int(lines.get("content-length", 0)))
    if "/page" in first:
        answer = b'<a href="/rewriteme">x</a>'
        kind = "text/html; charset=utf-8"
    else:
        answer, kind = (
            json.dumps({"first": first, "headers": lines, "body": body.decode()}).encode(),
            "application/json",
        )
    stream.writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\nX-Mine: yes\r\n\r\n".encode()
        + answer
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_verb_goes_through(method: str) -> None:
    """SVCX-8, CONF-6."""

    async def test(http: Http, doors: FakeDoors) -> None:
        path = "/api/v1/namespaces/default/pods/p:8080/proxy/a%20b/?q=1%202&q=3"
        body = {"k": "v"} if method != "GET" else None
        status, headers, said = await http.request(method, path, body, X_Own="1")
        assert (status, headers["x-mine"]) == (200, "yes"), said
        assert said["first"] == f"{method} /a%20b/?q=1%202&q=3 HTTP/1.1"
        assert said["body"] == ("" if method == "GET" else '{"k": "v"}')
        assert said["headers"]["x-own"] == "1"
        assert said["headers"]["x-forwarded-uri"] == "/api/v1/namespaces/default/pods/p:8080/proxy/a%20b/"
        assert doors.requests == [("n1", "tcp 10.244.0.5 8080")]

    played(test, tcp=backend)


@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/vnd.own"])
def test_what_the_client_accepts_is_the_backends_affair(accept: str) -> None:
    async def test(http: Http, doors: FakeDoors) -> None:
        path = "/api/v1/namespaces/default/pods/p/proxy/"
        status, _, said = await http.request("GET", path, Accept=accept)
        assert (status, said["headers"]["accept"]) == (200, accept)

    played(test, tcp=backend)


def test_a_log_is_text_whatever_the_client_accepts() -> None:
    async def log(rest: str, stream: Stream) -> None:
        stream.writer.write(OK + b"one\n")

    async def test(http: Http, doors: FakeDoors) -> None:
        assert (await http.request("GET", POD + "/log", Accept="text/plain"))[::2] == (200, "one\n")

    played(test, log=log)


def test_links_of_pages_work_below_the_proxy() -> None:
    async def test(http: Http, doors: FakeDoors) -> None:
        path = "/api/v1/namespaces/default/pods/p/proxy"
        assert (await http.request("GET", path + "/page"))[2] == f'<a href="{path}/rewriteme">x</a>'

    played(test, tcp=backend)


def test_a_backend_that_refuses_is_a_503() -> None:
    async def test(http: Http, doors: FakeDoors) -> None:
        status, _, body = await http.request("GET", "/api/v1/namespaces/default/pods/p:81/proxy/")
        assert (status, body["reason"], body["message"]) == (
            503, "ServiceUnavailable",
            "error trying to reach service: dial tcp 10.244.0.5:81: connect: connection refused",
        )  # fmt: skip

    played(test, tcp=backend)


def test_upgrades_pass_both_ways() -> None:
    async def test(http: Http, doors: FakeDoors) -> None:
        path = http.session.connector.path  # type: ignore[union-attr]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(
            b"GET /api/v1/namespaces/default/pods/p:8080/proxy/ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\n"
            b"Upgrade: echo\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()
        await left(doors)

    played(test, tcp=backend)
