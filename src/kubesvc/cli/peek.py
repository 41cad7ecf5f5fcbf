"""What `trace --live` and `rules` ask inside a node: `python -m kubesvc.cli.peek` there reads one `Request` as JSON
from standard input and writes one `Reply`. It changes nothing but the flow of the one connection it makes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading
from typing import Any

import msgspec

from kubesvc.kernel.conntrack import KernelConntrack
from kubesvc.kernel.namespaces import Namespaces
from kubesvc.kernel.room import read_room

DIAL_SECONDS = 3.0
PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP}


class Dial(msgspec.Struct, frozen=True):
    """Connect from here, or from the network of process `pid` (as this node numbers it); 0 for here."""

    address: str
    port: int
    protocol: str = "TCP"
    pid: int = 0


class Find(msgspec.Struct, frozen=True):
    """Where did this flow go?"""

    protocol: str
    source: str
    source_port: int
    address: str
    port: int


class Request(msgspec.Struct, frozen=True):
    """One of these. rules: fronts as (address, port, protocol), whose rules to show."""

    dial: Dial | None = None
    find: Find | None = None
    rules: list[tuple[str, int, str]] | None = None


class Reply(msgspec.Struct, frozen=True):
    """result: "connected", "refused", "timeout", "unreachable" or "sent" (UDP without any answer); endpoint: where the
    kernel's table of connections says that the flow went, "" if it was not translated or nobody knows it; crowded: that
    this table is full, or nearly."""

    result: str = ""
    source: str = ""
    source_port: int = 0
    endpoint: str = ""
    endpoint_port: int = 0
    error: str = ""
    rules: list[dict[str, Any]] = []
    crowded: str = ""


def main() -> int:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    try:
        reply = answer(request)
    except (OSError, ValueError) as error:
        reply = Reply(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(reply))
    return 0


def answer(request: Request) -> Reply:
    if request.dial is not None:
        return dial(request.dial)
    if request.find is not None:
        f = request.find
        return where(f.protocol, f.source, f.source_port, f.address, f.port, Reply())
    from kubesvc.proxy.rules import lines_of, lines_of_chains, read_chains, read_tables

    fronts = request.rules or []
    tables = asyncio.run(read_tables())
    lines = lines_of(tables, fronts) if tables else lines_of_chains(asyncio.run(read_chains()), fronts)
    return Reply(rules=[msgspec.to_builtins(line) for line in lines])


def open_socket(dial: Dial) -> socket.socket:
    """A socket in the network it shall connect from: a socket stays where it was made, whatever thread uses it."""
    family = socket.AF_INET6 if ":" in dial.address else socket.AF_INET
    kind = socket.SOCK_STREAM if dial.protocol == "TCP" else socket.SOCK_DGRAM
    if not dial.pid:
        return socket.socket(family, kind)
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            with Namespaces.of(dial.pid, ("net",)) as there:
                there.join()
                made.append(socket.socket(family, kind))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make)  # ends with the thread: joining a namespace cannot be taken back
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def dial(request: Dial) -> Reply:
    """Make the connection, and see where it went while it still stands."""
    with open_socket(request) as here:
        here.settimeout(DIAL_SECONDS if request.protocol == "TCP" else 1.0)
        result = "connected"
        try:
            here.connect((request.address, request.port))
            if request.protocol == "UDP":
                here.send(b"kubesvc trace\n")
                here.recv(2048)
        except TimeoutError:
            result = "timeout" if request.protocol == "TCP" else "sent"
        except OSError as error:
            refused = error.errno == errno.ECONNREFUSED
            result = "refused" if refused else "unreachable"
        source, port = here.getsockname()[:2]
        room = read_room()
        reply = Reply(result=result, source=source, source_port=port, crowded=room.sentence() if room else "")
        return where(request.protocol, source, port, request.address, request.port, reply)


def where(protocol: str, source: str, source_port: int, address: str, port: int, reply: Reply) -> Reply:
    """Add what this node's table of connections knows of the flow."""
    conntrack = KernelConntrack()
    try:
        flow = conntrack.find(PROTOCOLS[protocol], source, source_port, address, port)
    finally:
        conntrack.close()
    if flow is None or (flow.reply_source, flow.reply_source_port) == (address, port):
        return reply
    return msgspec.structs.replace(reply, endpoint=flow.reply_source, endpoint_port=flow.reply_source_port)


if __name__ == "__main__":
    sys.exit(main())
