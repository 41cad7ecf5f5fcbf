"""A small web server that stands in for images: files, an echo, fixed text, or nothing at all. Standard library only.

    web.py files --port 80 --root DIR [--server NAME]     serve files, as a web server image does
    web.py echo --port 80                                 say what was asked, and by whom
    web.py text -text=hello -listen=:5678                 always the same answer
    web.py netexec --http-port=8080 --udp-port=8081       /hostname /clientip /echo?msg= /healthz /shell?cmd=
                                                          /exit?code= /shutdown
    web.py serve-hostname --port=9376                     the Pod's name, by TCP connection or HTTP
    web.py connect HOST:PORT --timeout=1s --protocol=tcp  whether it answers: 0, or REFUSED, TIMEOUT, DNS, OTHER and 1
    web.py pause                                          wait to be ended

It listens on all addresses of both families, answers each connection in a thread, and ends at SIGTERM after the
answers it is giving.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType
from urllib.parse import parse_qs, unquote

TYPES = {
    ".html": "text/html", ".htm": "text/html", ".css": "text/css", ".js": "application/javascript",
    ".json": "application/json", ".txt": "text/plain", ".png": "image/png", ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}  # fmt: skip
REASONS = {200: "OK", 301: "Moved Permanently", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
           405: "Method Not Allowed", 503: "Service Unavailable"}  # fmt: skip
HEAD_BYTES = 65536
IDLE_SECONDS = 65.0

Answer = tuple[int, str, bytes]
"""Status code, content type, body."""


class Request:
    """One HTTP request: method, path with query, headers by lower-case name, body, and who asks."""

    def __init__(self, head: bytes, body: bytes, peer: str) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = [*lines[0].split(" "), "", ""][:3]
        self.headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:]) if n}
        self.body = body
        self.peer = peer
        self.path, _, query = self.target.partition("?")
        self.query = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


class Server:
    """Listens, reads requests, and lets `answer` of the mode say what comes back."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.hostname = socket.gethostname()
        self.name = options.get("server", "kubesvc")
        self.healthy = True
        self.stopping = False

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def serve(self, port: int) -> None:
        listener = listen(port)
        say(f"listening on port {port}")
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=self.talk, args=(connection, str(peer[0]), int(peer[1])), daemon=True).start()

    def talk(self, connection: socket.socket, peer: str, peer_port: int) -> None:
        peer = peer.removeprefix("::ffff:")
        connection.settimeout(IDLE_SECONDS)
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    more = connection.recv(HEAD_BYTES)
                    if not more or len(rest) > HEAD_BYTES:
                        return
                    rest += more
                head, _, rest = rest.partition(b"\r\n\r\n")
                request = Request(head, b"", f"{peer}:{peer_port}")
                length = int(request.headers.get("content-length") or 0)
                while len(rest) < length:
                    more = connection.recv(HEAD_BYTES)
                    if not more:
                        return
                    rest += more
                request.body, rest = rest[:length], rest[length:]
                code, kind, body = self.answer(request)
                keep = request.version == "HTTP/1.1" and request.headers.get("connection", "").lower() != "close"
                keep = keep and not self.stopping
                headers = (
                    f"HTTP/1.1 {code} {REASONS.get(code, 'Status')}\r\nServer: {self.name}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
                )
                connection.sendall(headers.encode("latin-1") + (b"" if request.method == "HEAD" else body))
                say(f'{peer} "{request.method} {request.target} {request.version}" {code} {len(body)}')
                if not keep:
                    return
        except (OSError, ValueError):
            return
        finally:
            connection.close()


class Files(Server):
    def answer(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return 405, "text/html", b"405 Method Not Allowed\n"
        root = os.path.realpath(self.options.get("root", "."))
        path = os.path.realpath(root + "/" + unquote(request.path).lstrip("/"))
        if path != root and not path.startswith(root + os.sep):
            return 404, "text/html", b"404 Not Found\n"
        if os.path.isdir(path):
            path = os.path.join(path, "index.html")
        try:
            with open(path, "rb") as file:
                return 200, TYPES.get(os.path.splitext(path)[1], "application/octet-stream"), file.read()
        except PermissionError:
            return 403, "text/html", b"403 Forbidden\n"
        except OSError:
            return 404, "text/html", b"404 Not Found\n"


class Echo(Server):
    def answer(self, request: Request) -> Answer:
        lines = [f"Hostname: {self.hostname}", f"RemoteAddr: {request.peer}", f"{request.method} {request.target}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        return 200, "text/plain", "\n".join([*lines, "", ""]).encode() + request.body


class Text(Server):
    def answer(self, request: Request) -> Answer:
        return 200, "text/plain", (self.options.get("text", "hello-world") + "\n").encode()


class Hostname(Server):
    def answer(self, request: Request) -> Answer:
        return 200, "text/plain", self.hostname.encode()


class NetExec(Server):
    """The part of the test image's server that network tests use."""

    def answer(self, request: Request) -> Answer:
        query = request.query
        if request.path in ("/", "/hostname", "/hostName"):
            text = f"NOW: {self.hostname}" if request.path == "/" else self.hostname
        elif request.path == "/clientip":
            text = request.peer
        elif request.path == "/echo":
            return int(query.get("code") or 200), "text/plain", query.get("msg", "").encode()
        elif request.path == "/healthz":
            return (200, "text/plain", b"") if self.healthy else (503, "text/plain", b"")
        elif request.path == "/header":
            text = request.headers.get(query.get("key", "").lower(), "")
        elif request.path == "/shell":
            return self.run_shell(query.get("cmd") or query.get("shellCommand") or "")
        elif request.path == "/exit":
            threading.Timer(0.05, os._exit, [int(query.get("code") or 0)]).start()
            text = ""
        elif request.path == "/shutdown":
            threading.Timer(0.05, os._exit, [0]).start()
            text = ""
        else:
            return 404, "text/plain", b"404 page not found\n"
        return 200, "text/plain", text.encode()

    def run_shell(self, command: str) -> Answer:
        """Run a command of the caller's, as the image does: what it wrote, and its error if it failed, as JSON."""
        import json
        import subprocess

        done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        said = {"output": done.stdout.decode(errors="replace")}
        if done.returncode != 0:
            said["error"] = f"exit status {done.returncode}"
        return 200, "text/plain", json.dumps(said).encode()

    def serve_udp(self, udp: socket.socket) -> None:
        """Datagrams `hostname`, `clientip` and `echo TEXT` are answered; anything else is not."""
        with udp:
            while True:
                data, peer = udp.recvfrom(65536)
                word, _, tail = data.decode(errors="replace").strip().partition(" ")
                if word.lower() == "hostname":
                    answer = self.hostname
                elif word.lower() == "clientip":
                    answer = f"{peer[0].removeprefix('::ffff:')}:{peer[1]}"
                elif word.lower() == "echo":
                    answer = tail
                else:
                    continue
                udp.sendto(answer.encode(), peer)


def bound_udp(port: int) -> socket.socket:
    """A socket that takes datagrams at every address, of IPv4 alone on a machine without the other. OSError if the port
    is taken."""
    udp, address = any_address(socket.SOCK_DGRAM, port)
    udp.bind(address)
    return udp


def say(text: str) -> None:
    try:
        os.write(1, text.encode() + b"\n")
    except OSError:
        pass


def any_address(kind: int, port: int) -> tuple[socket.socket, tuple[str, int]]:
    """A socket that can be bound to every address of this machine, and what that is called."""
    try:
        both = socket.socket(socket.AF_INET6, kind)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return both, ("::", port)
    except OSError:
        return socket.socket(socket.AF_INET, kind), ("0.0.0.0", port)


def listen(port: int) -> socket.socket:
    """A listener for both families, or for IPv4 alone on a machine without the other."""
    listener, address = any_address(socket.SOCK_STREAM, port)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(1024)
    return listener


def parse(words: list[str]) -> dict[str, str]:
    """Options in any of the forms `--name value`, `--name=value`, `-name=value`."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        options[name] = value
    return options


def port_of(options: dict[str, str], default: int) -> int:
    text = options.get("http-port") or options.get("port") or options.get("listen", "").rpartition(":")[2]
    return int(text or default)


def wait() -> None:
    threading.Event().wait()


def seconds_of(text: str) -> float | None:
    """A span as Go writes it, in one unit; None for none, which is no bound."""
    units = {"ms": 0.001, "us": 0.000001, "s": 1.0, "m": 60.0, "h": 3600.0}
    number = text.rstrip("mush")
    return float(number) * units[text[len(number) :] or "s"] or None if number else None


def connect(options: dict[str, str]) -> str:
    """Whether somebody answers there: "" if so, else the one word that tells why not, with details for some."""
    target = next((name for name in options if ":" in name), "")
    host, _, port = target.rpartition(":")
    protocol = options.get("protocol") or "tcp"
    if protocol not in ("tcp", "udp"):
        return f"OTHER: unsupported protocol: {protocol}"
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=kind)[0]
    except OSError as error:
        return f"DNS: {error}"
    try:
        with socket.socket(family, kind) as there:
            there.settimeout(seconds_of(options.get("timeout", "")))
            there.connect(address)
            if protocol == "udp":
                there.send(b"hostname")
                there.recv(HEAD_BYTES)
    except TimeoutError:
        return "TIMEOUT"
    except ConnectionRefusedError:
        return "REFUSED"
    except OSError as error:
        return f"OTHER: {error}"
    return ""


def main(words: list[str]) -> None:
    mode = words[0] if words else "pause"
    options = parse(words[1:])
    modes: dict[str, tuple[type[Server], int]] = {
        "files": (Files, 80),
        "echo": (Echo, 8080),
        "text": (Text, 5678),
        "netexec": (NetExec, 8080),
        "serve-hostname": (Hostname, 9376),
    }

    def stop(number: int, frame: FrameType | None) -> None:
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH):
        signal.signal(number, stop)
    if mode == "pause":
        wait()
    if mode == "connect":
        if refusal := connect(options):
            os.write(2, f"{refusal}\n".encode())
        sys.exit(bool(refusal))
    if mode not in modes:
        os.write(2, f"unknown mode {mode}: one of pause connect {' '.join(modes)}\n".encode())
        sys.exit(1)
    kind, default = modes[mode]
    server, port = kind(options), port_of(options, default)
    try:
        if isinstance(server, NetExec) and (udp_port := int(options.get("udp-port") or 8081)) > 0:
            port = udp_port  # bound first: who finds the other port open may send datagrams at once
            threading.Thread(target=server.serve_udp, args=(bound_udp(port),), daemon=True).start()
        port = port_of(options, default)
        server.serve(port)
    except OSError as error:
        os.write(2, f"port {port}: {error.strerror}\n".encode())
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
