"""Probe tries against servers on loopback: each kind by success, failure, timeout and garbage (NODE-47 to NODE-53)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest

from kubesvc.api.container import Container, ContainerPort, Probe
from kubesvc.api.meta import typed
from kubesvc.node.probes import Outcome, frame, port_number, request_head, try_probe

AGENT = "kube-probe/1.36"


async def no_exec(command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
    raise AssertionError("not asked")


async def try_against(reply: bytes | None, probe: dict[str, object], *, hang: bool = False) -> tuple[Outcome, bytes]:
    """(outcome of one try, what the server was sent); `reply` None: nobody listens."""
    asked = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.extend(await reader.read(65536))
        if reply:
            writer.write(reply.replace(b"PORT", str(port).encode()))
        if hang:
            await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    if reply is None:
        server.close()
        await server.wait_closed()
    name = next(iter(probe))
    action = dict(probe[name], port=port)  # type: ignore[call-overload]
    container = Container(ports=[ContainerPort(name="http", container_port=port)])
    seconds = 0.2 if hang else 60.0
    outcome = await try_probe(typed({name: action}, Probe), container, "127.0.0.1", no_exec, seconds, AGENT)
    server.close()
    return outcome, bytes(asked)


def http(code: int, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} X", *headers, "", body]).encode()


GRPC_SERVING = frame(4, 0, 0) + frame(0, 0, 1, b"\0" + struct.pack(">I", 2) + b"\x08\x01") + frame(1, 5, 1, b"")
GRPC_NOT = GRPC_SERVING.replace(b"\x08\x01", b"\x08\x02")
GRPC_NONE = frame(4, 0, 0) + frame(1, 5, 1, b"")
GET: dict[str, object] = {"httpGet": {"path": "/x?y=1"}}
CALL: dict[str, object] = {"grpc": {"service": "s"}}


@pytest.mark.parametrize(
    ("what", "probe", "reply", "result", "words"),
    [
        ("HTTP 200", GET, http(200, "Content-Length: 2", body="ok"), "success", "ok"),
        ("HTTP 399", GET, http(399), "success", ""),
        ("HTTP 400", GET, http(400), "failure", "HTTP probe failed with statuscode: 400"),
        ("HTTP 500", GET, http(500), "failure", "HTTP probe failed with statuscode: 500"),
        ("HTTP: interim answers are passed over", GET, http(100) + http(204), "success", ""),
        ("HTTP: nobody listens", GET, None, "failure", "connect: connection refused"),
        ("HTTP: garbage", GET, b"\x00\x01garbage\r\n\r\n", "failure", "malformed HTTP response"),
        ("HTTP: closed at once", GET, b"", "failure", "EOF"),
        ("HTTP: endless headers", GET, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000, "failure", "headers exceeded"),
        ("HTTP: 20 MB of body are not read", GET, http(200, body="x" * (20 << 20)), "success", "xxx"),
        (
            "NODE-49: elsewhere is a warning",
            GET,
            http(302, "Location: http://other/"),
            "warning",
            "terminated redirects",
        ),
        ("NODE-49: in a circle", GET, http(302, "Location: http://127.0.0.1:PORT/"), "failure", "stopped after 10"),
        ("TCP", {"tcpSocket": {}}, b"", "success", ""),
        ("TCP: nobody listens", {"tcpSocket": {}}, None, "failure", "connect: connection refused"),
        ("gRPC serving", CALL, GRPC_SERVING, "success", ""),
        ("gRPC not serving", CALL, GRPC_NOT, "failure", 'service unhealthy (responded with "NOT_SERVING")'),
        ("gRPC unimplemented", CALL, GRPC_NONE, "failure", "does not implement"),
        ("gRPC: nobody listens", CALL, None, "failure", "failed to connect"),
        ("gRPC: garbage", CALL, b"HTTP/1.1 400 Bad\r\n\r\n", "failure", "error"),
    ],
)
def test_tries(what: str, probe: dict[str, object], reply: bytes | None, result: str, words: str) -> None:
    outcome, _ = asyncio.run(try_against(reply, probe))
    assert outcome.result == result, (what, outcome)
    assert words in outcome.detail, (what, outcome)


@pytest.mark.parametrize("probe", [GET, CALL])
def test_a_server_that_never_answers_is_a_failure(probe: dict[str, object]) -> None:
    """NODE-33."""
    outcome, _ = asyncio.run(try_against(b"", probe, hang=True))
    assert outcome.result == "failure" and "deadline exceeded" in outcome.detail


def test_what_is_asked() -> None:
    """NODE-50."""
    _, asked = asyncio.run(try_against(http(200), GET))
    lines = asked.decode().split("\r\n")
    assert lines[0] == "GET /x?y=1 HTTP/1.1"
    assert {"User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close"} <= set(lines)
    over = request_head("h:1", "/", [("Host", "other"), ("Accept", ""), ("user-agent", "me\r\nX: y")], AGENT).decode()
    assert "Host: other" in over and "Host: h:1" not in over
    assert "Accept" not in over and AGENT not in over and "\r\nX: y" not in over


async def slow(command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
    return None, b""


@pytest.mark.parametrize(
    ("answer", "result"), [((0, b"fine"), "success"), ((3, b"bad"), "failure"), ((None, b""), "failure")]
)
def test_exec(answer: tuple[int | None, bytes], result: str) -> None:
    """NODE-52; one that cannot be started is an error (NODE-40)."""

    async def execute(command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        return answer

    async def broken(command: Sequence[str], timeout_seconds: float) -> tuple[int | None, bytes]:
        raise OSError("no such file")

    probe = typed({"exec": {"command": ["x"]}}, Probe)
    assert asyncio.run(try_probe(probe, Container(), "h", execute, 1, AGENT)).result == result
    assert asyncio.run(try_probe(probe, Container(), "h", broken, 1, AGENT)) == Outcome("error", "no such file")


def test_ports() -> None:
    """NODE-47."""
    container = Container(ports=[ContainerPort(name="http", container_port=8080)])
    cases: dict[int | str, int | None] = {80: 80, "http": 8080, "81": 81, "none": None, 0: None, "70000": None}
    assert {port: port_number(port, container) for port in cases} == cases
