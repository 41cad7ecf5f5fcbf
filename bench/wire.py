"""A load generator's connections: HTTP over TLS with as little work of its own as can be, for it shares the cores with
the server. Only what the benches ask for: answers with a length or in chunks, one request at a time."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import NamedTuple, cast

from .figures import percentile


class Request(NamedTuple):
    """One request of a load."""

    method: str
    path: str
    body: bytes = b""
    media_type: str = "application/json"


class Connection(asyncio.Protocol):
    """One connection; ask the next thing when the last was answered."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.buffer = b""
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError(f"the server hung up: {error}"))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            if not self.buffer.endswith(b"\r\n0\r\n\r\n"):
                return
            size = len(self.buffer) - end - 4
        else:
            size = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + size:
            return
        body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
        answer, self.answer = self.answer, None
        answer.set_result((int(head[9:12]), body))

    async def ask(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(self.spelled(request))
        return await self.answer

    def spelled(self, request: Request) -> bytes:
        head = (
            f"{request.method} {request.path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\n"
            f"Accept: application/json\r\nUser-Agent: bench/1\r\nContent-Type: {request.media_type}\r\n"
            f"Content-Length: {len(request.body)}\r\n\r\n"
        )
        return head.encode() + request.body


class Stream(Connection):
    """A watch: counts the events that come, and when the last one came."""

    events = 0
    last = 0.0

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b'{"type":"')
        self.last = time.perf_counter()


async def connections(kind: type[Connection], count: int, host: str, port: int, token: str) -> list[Connection]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: kind(token), host, port, ssl=context) for _ in range(count)]
    return [connection for _, connection in pairs]


class Done(NamedTuple):
    """How a load went."""

    answered: int
    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    def ms(self, part: float) -> float:
        """The latency that so many (0..1) stayed below."""
        return percentile(self.latencies, part) * 1e3


async def load(clients: Iterable[Connection], requests: Iterable[Request]) -> Done:
    """Every request once, each client asking the next one when it is free. RuntimeError at the first refusal."""
    todo = iter(requests)
    latencies: list[float] = []

    async def work(client: Connection) -> None:
        for request in todo:
            began = time.perf_counter()
            status, body = await client.ask(request)
            latencies.append(time.perf_counter() - began)
            if status >= 300:
                raise RuntimeError(f"{request.method} {request.path}: {status} {body[:300]!r}")

    began = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    return Done(len(latencies), time.perf_counter() - began, latencies)
