"""Ports for servers that tests start, and end and start again, by number."""

from __future__ import annotations

import functools
import itertools
import os
import socket

FIRST, SHARES, SHARE = 10_000, 500, 40
"""Each process claims a share of ports of its own, and all lie below those that the kernel gives to clients and to
servers of any port: one of these could be taken between its choice and its use, and a client that asks for a server
which is not there yet could even be connected to itself."""

_turns = itertools.count()


@functools.cache
def claim(process: int) -> tuple[int, socket.socket]:
    """The share of this process, and what holds it until the process ends: a name that only one can have."""
    for turn in range(SHARES):
        share = (process + turn) % SHARES
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0kubesvc-test-ports-{share}")
            return share, held
        except OSError:
            held.close()
    raise AssertionError(f"all {SHARES} shares of ports are taken")


def free_port() -> int:
    """A port on which nobody listens, and which nobody else will choose."""
    share, _ = claim(os.getpid())
    for turn in itertools.islice(_turns, SHARE):
        port = FIRST + share * SHARE + turn % SHARE
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has ended there is no matter
            try:
                probe.bind(("", port))
                return port
            except OSError:
                continue
    raise AssertionError(f"all {SHARE} ports of this process are taken")
