"""Name lookups for processes that have no way out: a unix socket on which questions are passed to a forwarder.

Node processes live in network namespaces of their own; sockets in the file system reach across. The asking side is a
`forward.UpstreamForwarder` whose upstream is the path of this socket.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from . import wire
from .listeners import TcpListener
from .responder import Answered, Forwarder, Overloaded, Unanswered
from .wire import FormatError, Message


class RelayResponder:
    """Passes every whole query on. Answers SERVFAIL or REFUSED where there is nothing to pass back."""

    def __init__(self, forwarder: Forwarder) -> None:
        self.forwarder = forwarder

    def answer(self, query: bytes, tcp: bool = False) -> Answered:
        try:
            message = wire.decode(query)
        except FormatError:
            return None
        if message.response or len(message.questions) != 1:
            return None

        async def later() -> bytes:
            try:
                return await self.forwarder.exchange(query, True)
            except Unanswered:
                rcode = wire.SERVFAIL
            except Overloaded:
                rcode = wire.REFUSED
            return wire.encode(Message(id=message.id, response=True, rcode=rcode, questions=message.questions))

        return later


def relay_listener(path: Path, forwarder: Forwarder, *, connections: int = 1024) -> TcpListener:
    """A listener at `path` (0600; what was there before is replaced), to be started and closed by the caller."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(os.fspath(path))
    path.chmod(0o600)
    sock.listen(256)
    return TcpListener(sock, RelayResponder(forwarder), connections=connections)
