"""Probe tries: HTTP, TCP, exec and gRPC, made from the node's namespace (NODE-47 to NODE-54)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from kubesvc.api.container import Container, HTTPGetAction, IntOrString, Probe

from .probe_plan import Result

BODY_BYTES = 10 << 10
HEAD_BYTES = 64 << 10
REDIRECTS = 10
INTERIM_ANSWERS = 5
"""How many answers of 1xx may come before the real one."""
TCP_LINGER2 = 8


class Outcome(NamedTuple):
    """What one try gave, the words for its event, and how long it took; 0 if nobody was asked."""

    result: Result
    detail: str = ""
    seconds: float = 0.0


class Answer(NamedTuple):
    """Of an HTTP answer: status code, the Location header, the first bytes of the body."""

    code: int
    location: str
    body: bytes


class NoAnswer(Exception):
    """No usable HTTP answer came; the words say why."""


def port_number(port: IntOrString, container: Container) -> int | None:
    """The number that a probe's port stands for: itself, a number in a string, or a name of the container's ports."""
    if isinstance(port, int):
        return port if 0 < port < 65536 else None
    for declared in container.ports or ():
        if declared.name == port:
            return declared.container_port
    return int(port) if port.isdigit() and 0 < int(port) < 65536 else None


def join_host(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that leaves nothing behind when closed (NODE-54). NoAnswer in Go's words if it is refused."""
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, limit=HEAD_BYTES, server_hostname="" if context else None
        )
    except ssl.SSLError as error:
        raise NoAnswer(f"tls: {error.reason or error}") from None
    except OSError as error:
        words = dial_words(error)
        raise NoAnswer(f"dial tcp {join_host(host, port)}: {words}") from None
    raw = writer.get_extra_info("socket")
    if raw is not None:
        # The kernel forgets the connection once its end is acknowledged, instead of waiting for a minute.
        raw.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    return reader, writer


def dial_words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(error, socket.gaierror):
        return "lookup: no such host"
    # asyncio writes its own sentence into strerror, users know the kernel's.
    return f"connect: {os.strerror(error.errno).lower() if error.errno else error}"


# -- TCP --------------------------------------------------------------------------------------------------------------


async def probe_tcp(host: str, port: int) -> Outcome:
    """Success when a connection is accepted; it is closed at once (NODE-51)."""
    try:
        _, writer = await connect(host, port)
    except NoAnswer as error:
        return Outcome("failure", str(error))
    writer.close()
    return Outcome("success")


# -- HTTP -------------------------------------------------------------------------------------------------------------


def request_head(host: str, path: str, given: Sequence[tuple[str, str]], agent: str) -> bytes:
    """The bytes of a GET: our headers unless overridden, an empty Accept removes it (NODE-50)."""
    names = {name.lower() for name, _ in given}
    headers = [("Host", host)] if "host" not in names else []
    if "user-agent" not in names:
        headers.append(("User-Agent", agent))
    if "accept" not in names:
        headers.append(("Accept", "*/*"))
    headers += [(n, v) for n, v in given if not (n.lower() == "accept" and not v)]
    if "connection" not in names:
        headers.append(("Connection", "close"))
    lines = [f"GET {path} HTTP/1.1", *(f"{clean(n)}: {clean(v)}" for n, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def clean(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


async def get(url: str, given: Sequence[tuple[str, str]], agent: str) -> Answer:
    """One GET without redirects. NoAnswer when none comes or it is not HTTP."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await connect(host, port, context)
    try:
        writer.write(request_head(join_host(host, port), path, given, agent))
        return await read_answer(reader)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise NoAnswer("read: connection reset by peer" if isinstance(error, ConnectionError) else "EOF") from None
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Status, location and the first bytes of the body of what comes."""
    for _ in range(INTERIM_ANSWERS + 1):
        code, headers = await read_head(reader)
        if not 100 <= code < 200 or code == 101:
            break
    else:
        raise NoAnswer("net/http: too many 1xx informational responses")
    length = headers.get("content-length", "")
    most = min(BODY_BYTES, int(length)) if length.isdecimal() and len(length) < 20 else BODY_BYTES
    body = b""
    while len(body) < most:
        piece = await reader.read(most - len(body))
        if not piece:
            break
        body += piece
    return Answer(code, headers.get("location", ""), body)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers, their names in lower case. NoAnswer for what is none, or too long."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise NoAnswer("net/http: server response headers exceeded the limit") from None
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise NoAnswer("EOF") from None
        raise NoAnswer(f"malformed HTTP response {first_line(error.partial)}") from None
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/") or not (rest[:3].isascii() and rest[:3].isdigit()):
        raise NoAnswer(f"malformed HTTP response {first_line(head)}")
    headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
    return int(rest[:3]), headers


def first_line(data: bytes) -> str:
    text = data.split(b"\n")[0][:100].decode("latin-1").rstrip("\r")
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


async def probe_http(url: str, given: Sequence[tuple[str, str]], agent: str) -> Outcome:
    """Success for 200 to 399; redirects followed while the host name stays the same (NODE-48, NODE-49)."""
    first = urlsplit(url).hostname
    here = url
    try:
        for _ in range(REDIRECTS + 1):
            answer = await get(here, given, agent)
            if answer.code in (301, 302, 303, 307, 308) and answer.location:
                try:
                    there = urljoin(here, answer.location)
                    parts = urlsplit(there)
                    elsewhere = parts.hostname != first or (parts.port or 1) < 1
                except ValueError as error:
                    raise NoAnswer(f"failed to parse Location header {answer.location[:100]!r}: {error}") from None
                if parts.scheme not in ("http", "https"):
                    raise NoAnswer(f'unsupported protocol scheme "{parts.scheme}"')
                if elsewhere:
                    body = answer.body.decode(errors="replace")
                    return Outcome("warning", f"Probe terminated redirects, Response body: {body}")
                here = there
                continue
            if 200 <= answer.code < 400:
                return Outcome("success", answer.body.decode(errors="replace"))
            return Outcome("failure", f"HTTP probe failed with statuscode: {answer.code}")
    except NoAnswer as error:
        return Outcome("failure", f'Get "{here}": {error}')
    return Outcome("failure", f'Get "{here}": stopped after {REDIRECTS} redirects')


def http_url(action: HTTPGetAction, container: Container, host: str) -> str | None:
    """The address an HTTP action asks; None if its port has no number."""
    port = port_number(action.port, container)
    if port is None:
        return None
    path = action.path or "/"
    path = path if path.startswith("/") else f"/{path}"
    return f"{(action.scheme or 'HTTP').lower()}://{join_host(action.host or host, port)}{path}"


def http_headers(action: HTTPGetAction) -> list[tuple[str, str]]:
    return [(h.name, h.value) for h in action.http_headers or ()]


# -- gRPC -------------------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field spelled out, short enough for one length byte each."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def check_request(authority: str, service: str) -> bytes:
    """A whole call of grpc.health.v1.Health/Check, as frames."""
    fields = (
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority), ("content-type", "application/grpc"), ("te", "trailers"),
        ("user-agent", "kube-probe"),
    )  # fmt: skip
    name = service.encode()
    size = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    body = b"\x0a" + size + name if name else b""
    data = b"\x00" + struct.pack(">I", len(body)) + body
    headers = b"".join(literal(n, v) for n, v in fields)
    return PREFACE + frame(4, 0, 0) + frame(1, 0x4, 1, headers) + frame(0, 0x1, 1, data)


async def probe_grpc(host: str, port: int, service: str) -> Outcome:
    """Success when the health service answers SERVING (NODE-53)."""
    no_rpc = "error: health rpc probe failed: rpc error: code = Unavailable desc = connection error: "
    try:
        reader, writer = await connect(host, port)
    except NoAnswer as error:
        return Outcome("failure", f'error: failed to connect to service at "{join_host(host, port)}": {error}')
    body, begun = b"", False
    try:
        writer.write(check_request(join_host(host, port), service))
        while True:
            head = await reader.readexactly(9)
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            if not begun and kind != 4:  # whoever speaks HTTP/2 begins with SETTINGS
                return Outcome("failure", f"{no_rpc}error reading server preface: http2: not a SETTINGS frame")
            if size > HEAD_BYTES:
                return Outcome("failure", f"{no_rpc}error reading server preface: http2: frame too large")
            begun = True
            stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            payload = await reader.readexactly(size)
            if kind == 4 and not flags & 1:
                writer.write(frame(4, 1, 0))
            elif kind == 6 and not flags & 1:
                writer.write(frame(6, 1, 0, payload))
            elif kind == 0 and stream == 1:
                body += payload
            elif kind in (3, 7):
                break
            if kind in (0, 1) and stream == 1 and flags & 1:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
    if len(body) < 5:
        return Outcome("failure", "error: this server does not implement the grpc health protocol")
    message = body[5:]
    status = message[1] if len(message) >= 2 and message[0] == 8 else 0
    if status == 1:
        return Outcome("success")
    return Outcome("failure", f'service unhealthy (responded with "{STATUSES.get(status, status)}")')


# -- any --------------------------------------------------------------------------------------------------------------

Exec = Callable[[Sequence[str], float], Awaitable[tuple[int | None, bytes]]]
"""Runs a command in the container for at most so many seconds: (exit code, or None for a timeout; output).
OSError when it cannot be started."""


async def try_probe(
    probe: Probe, container: Container, host: str, execute: Exec, timeout_seconds: float, agent: str
) -> Outcome:
    """One try of a probe, whatever its kind; a timeout is a failure (NODE-33)."""
    try:
        async with asyncio.timeout(timeout_seconds + (1.0 if probe.exec is not None else 0.0)):
            if probe.http_get is not None:
                url = http_url(probe.http_get, container, host)
                if url is None:
                    return Outcome("error", f"couldn't find port: {probe.http_get.port}")
                return await probe_http(url, http_headers(probe.http_get), agent)
            if probe.tcp_socket is not None:
                port = port_number(probe.tcp_socket.port, container)
                if port is None:
                    return Outcome("error", f"couldn't find port: {probe.tcp_socket.port}")
                return await probe_tcp(probe.tcp_socket.host or host, port)
            if probe.grpc is not None:
                return await probe_grpc(host, probe.grpc.port, probe.grpc.service or "")
            if probe.exec is not None:
                return await probe_exec(probe.exec.command or (), execute, timeout_seconds)
    except TimeoutError:
        return Outcome("failure", timeout_words(probe, container, host, timeout_seconds))
    except ValueError as error:  # what came, or what the probe says, is nothing that can be read
        return Outcome("failure", str(error))
    return Outcome("error", "missing probe handler")


async def probe_exec(command: Sequence[str], execute: Exec, timeout_seconds: float) -> Outcome:
    """Success for exit code 0 (NODE-52)."""
    try:
        code, output = await execute(command, timeout_seconds)
    except OSError as error:
        return Outcome("error", str(error))
    text = output[:BODY_BYTES].decode(errors="replace")
    if code is None:
        return Outcome("failure", f'command "{" ".join(command)}" timed out')
    return Outcome("success" if code == 0 else "failure", text)


def timeout_words(probe: Probe, container: Container, host: str, seconds: float) -> str:
    if probe.http_get is not None:
        url = http_url(probe.http_get, container, host)
        return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    if probe.tcp_socket is not None:
        port = port_number(probe.tcp_socket.port, container) or 0
        return f"dial tcp {join_host(probe.tcp_socket.host or host, port)}: i/o timeout"
    if probe.grpc is not None:
        at = join_host(host, probe.grpc.port)
        return f'timeout: failed to connect service "{at}" within {seconds:.0f}s: context deadline exceeded'
    return f"timed out after {seconds:.0f}s"
