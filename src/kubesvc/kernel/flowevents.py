"""New connections as the kernel tells of them: counted by where they were sent and where they were led.

The kernel's table of connections sends a message for each new entry to whoever listens, and does nothing where nobody
does. Only translated connections are counted: those whose answers come from elsewhere than where they were sent to.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from .conntrack import CT_GET, CTNETLINK, GENERIC, TUPLE_ORIG, TUPLE_REPLY, decode_tuple
from .netlink import NETLINK_NETFILTER, Malformed, NetlinkSocket, attribute_map, strict

GROUP_NEW = 1
MOST_KEYS = 20_000
"""Pairs of front and endpoint that are counted; further ones are left out, and `partial` says so."""

FlowKey = tuple[int, str, int, str, int]
"""Protocol number, address and port that a connection was sent to, address and port that answer."""


@strict
def decode_key(payload: bytes) -> FlowKey | None:
    """What a message about a connection is counted under; None if the connection is not translated."""
    found = attribute_map(payload, GENERIC.size)
    _, _, front, front_port, protocol = decode_tuple(found[TUPLE_ORIG])
    endpoint, endpoint_port, *_ = decode_tuple(found[TUPLE_REPLY])
    return None if (front, front_port) == (endpoint, endpoint_port) else (
        protocol, front, front_port, endpoint, endpoint_port
    )  # fmt: skip


class FlowCounter:
    """Counts the connections of the network namespace it is made in: those in the table, and each new one.

    Raises OSError where the kernel does not let us listen.
    """

    def __init__(self) -> None:
        self.totals: dict[FlowKey, int] = {}
        self.partial = False
        """Whether some connections were not counted, since more came than could be heard."""
        self._changed: dict[FlowKey, int] = {}
        self._events = NetlinkSocket(NETLINK_NETFILTER, groups=(GROUP_NEW,), buffer_bytes=4 << 20)
        try:
            with NetlinkSocket(NETLINK_NETFILTER, buffer_bytes=4 << 20) as lister:
                for family in (socket.AF_INET, socket.AF_INET6):
                    head = GENERIC.pack(family, 0, 0)
                    for message in lister.dump(CTNETLINK << 8 | CT_GET, head).messages:
                        self.count(message.payload)
        except BaseException:
            self._events.close()
            raise

    def count(self, payload: bytes) -> None:
        """Count one connection; a message that is none is passed over."""
        try:
            key = decode_key(payload)
        except (Malformed, ValueError):
            return
        if key is None:
            return
        if key not in self.totals and len(self.totals) >= MOST_KEYS:
            self.partial = True
            return
        self._changed[key] = self.totals[key] = self.totals.get(key, 0) + 1

    def take(self, most: int) -> Mapping[FlowKey, int]:
        """Hear at most so many new connections; returns the totals that have changed since the last call."""
        for _ in range(most):
            try:
                messages = self._events.receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.partial = True
                continue
            if not messages:
                break
            for message in messages:
                self.count(message.payload)
        changed, self._changed = self._changed, {}
        return changed

    def close(self) -> None:
        self._events.close()
