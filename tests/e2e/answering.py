"""Answers probes of every kind as a file says, inside a Pod. Standard library only.

    answering.py DIRECTORY CERTIFICATE

For each kind of probe, the word in DIRECTORY/KIND decides: `ok` succeeds, `fail` fails, `slow` takes longer than any
probe waits, `flap` succeeds and fails in turn. `http` is asked at port 8000 (GET /start with certain headers, which
redirects), `https` at 8001, `tcp` at 8002, `grpc` at 8003; `exec` runs the shell script EXEC. Each question that is not
answered well adds a line to DIRECTORY/KIND.asked, but for `tcp`, where nobody hears it.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import signal
import socket
import ssl
import sys
import threading
import time

SLOW_SECONDS = 30.0
HOST = "probed.example"


class Words:
    """What each kind is to answer now."""

    def __init__(self, directory: str) -> None:
        self.directory = pathlib.Path(directory)
        self.turn: dict[str, bool] = {}

    def of(self, kind: str) -> str:
        """`ok`, `fail` or `slow`; a flap turns with every question."""
        word = (self.directory / kind).read_text().strip()
        if word == "flap":
            self.turn[kind] = not self.turn.get(kind, False)
            word = "ok" if self.turn[kind] else "fail"
        if word != "ok":
            with (self.directory / f"{kind}.asked").open("a") as file:
                file.write(".\n")
        return word


def handler(words: Words, kind: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if kind == "http" and self.path == "/start":
                self.send_response(302)
                self.send_header("Location", "/end")
                self.end_headers()
                return
            word = words.of(kind)
            if word == "slow":
                time.sleep(SLOW_SECONDS)
            as_told = kind != "http" or (self.headers["Host"] == HOST and self.headers["X-Probe"] == "yes")
            self.send_response(200 if word == "ok" and as_told else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Answer


def serve_http(words: Words, kind: str, port: int, certificate: str = "") -> None:
    server = http.server.ThreadingHTTPServer(("", port), handler(words, kind))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # shaken hands with by the thread of the connection: one client that stands still keeps no other waiting
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


def refusals() -> int:
    """How many connections to this Pod were refused, or broken off."""
    lines = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"]
    return int(dict(zip(*lines, strict=True))["OutRsts"])


def serve_tcp(words: Words, port: int) -> None:
    """A listener that is there, is not, or has no room for one more connection. In a flap it is away until one
    connection was refused."""
    word_now = (words.directory / "tcp").read_text
    while True:
        word = word_now().strip()
        if word == "fail":
            time.sleep(0.02)
            continue
        with socket.socket() as listener, contextlib.ExitStack() as stuck:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen(0 if word == "slow" else 16)
            listener.settimeout(0.02)
            if word == "slow":
                for _ in range(4):  # what more than these asks is not answered at all
                    waiting = stuck.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(("127.0.0.1", port))
            while word_now().strip() == word:
                if word == "slow":
                    time.sleep(0.02)
                    continue
                with contextlib.suppress(TimeoutError):
                    listener.accept()[0].close()
                    if word == "flap":
                        break
        refused = refusals()
        while word == "flap" and refusals() == refused and word_now().strip() == word:
            time.sleep(0.005)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def serve_grpc(words: Words, port: int) -> None:
    """The health service, as far as a probe asks it."""
    listener = socket.create_server(("", port))

    def answer(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.recv(4096)
            word = words.of("grpc")
            if word == "slow":
                time.sleep(SLOW_SECONDS)
            status = b"\x08\x01" if word == "ok" else b"\x08\x02"
            data = b"\0" + len(status).to_bytes(4, "big") + status
            peer.sendall(frame(4, 0, 0) + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, data) + frame(1, 5, 1))

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


EXEC = """
case $(cat /answering/exec) in
ok) exit 0;;
slow) echo . >> /answering/exec.asked; sleep 30;;
flap) if ! rm /tmp/turn 2>/dev/null; then touch /tmp/turn; exit 0; fi;;
esac
echo . >> /answering/exec.asked
exit 1
"""


def main() -> None:
    words = Words(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads: one of them might be given it
    for serve in (
        lambda: serve_http(words, "http", 8000),
        lambda: serve_http(words, "https", 8001, sys.argv[2]),
        lambda: serve_tcp(words, 8002),
        lambda: serve_grpc(words, 8003),
    ):
        threading.Thread(target=serve, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    os._exit(0)


if __name__ == "__main__":
    main()
