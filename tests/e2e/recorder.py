"""A relay between a client and an instance's API that keeps the requests as they were made."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .harness import UnixConnection

HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request and the kind of its answer. `headers` by their lower-case names."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    text: str
    status: int

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Recorder:
    """`url` answers as the API does. `refusals` are answers (status, headers) to be given once each instead."""

    socket: Path
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def take(self) -> list[Asked]:
        """What was asked since the last time, discovery left out."""
        found, self.asked = self.asked, []
        return [a for a in found if a.path not in ("/api", "/apis") and not a.path.startswith("/openapi")]


@contextlib.contextmanager
def recording(socket: Path) -> Iterator[Recorder]:
    """A relay on loopback to the API behind a unix socket, for the block."""
    recorder = Recorder(socket)

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size) if size else b""
            headers = {k.lower(): v for k, v in self.headers.items()}
            there = UnixConnection(recorder.socket)
            try:
                if recorder.refusals:
                    status, more = recorder.refusals.pop(0)
                    self.keep(headers, body, status)
                    self.send_response(status)
                    for name, value in {**more, "Content-Length": "0"}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                there.request(self.command, self.path, body or None, {k: v for k, v in headers.items() if k not in HOP})
                answer = there.getresponse()
                self.keep(headers, body, answer.status)
                self.pass_on(answer)
            except OSError:
                self.close_connection = True  # the client has seen enough
            finally:
                there.close()

        def keep(self, headers: dict[str, str], body: bytes, status: int) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            text = body.decode(errors="replace")
            asked = Asked(
                method=self.command, path=parts.path, query=query, headers=headers, text=text, status=status
            )  # fmt: skip
            recorder.asked.append(asked)

        def pass_on(self, answer: http.client.HTTPResponse) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            bodiless = answer.status in (204, 304)
            if not bodiless:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while not bodiless and (piece := answer.read1(1 << 16)):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if not bodiless:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay

        def log_message(self, format: str, *args: Any) -> None:
            """What was asked is kept; nothing else is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = True
    recorder.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
