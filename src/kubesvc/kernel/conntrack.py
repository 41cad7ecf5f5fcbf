"""The kernel's table of connections: list UDP flows and forget some, and see how full it is. TCP and SCTP flows are not
touched."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Protocol

import msgspec

from .netlink import (
    BE16,
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    Dump,
    NetlinkError,
    NetlinkSocket,
    attribute,
    attribute_map,
    be16,
    nested,
    strict,
    u8,
    u32,
)
from .room import Room, read_room

CTNETLINK = 1
CT_GET, CT_DELETE = 1, 2
TUPLE_ORIG, TUPLE_REPLY, ID, ZONE, FILTER = 1, 2, 12, 18, 25
TUPLE_IP, TUPLE_PROTO = 1, 2
IP_V4_SRC, IP_V4_DST, IP_V6_SRC, IP_V6_DST = 1, 2, 3, 4
PROTO_NUM, PROTO_SRC_PORT, PROTO_DST_PORT = 1, 2, 3
FILTER_ORIG_FLAGS, FILTER_REPLY_FLAGS = 1, 2
BY_PROTO_NUM = 1 << 3
UDP = 17
GENERIC = struct.Struct(">BBH")  # family, version, resource


class Flow(msgspec.Struct, frozen=True):
    """One flow: what its first packet said, and where replies come from; they differ where it was translated.

    handle: what the kernel knows it by
    """

    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int
    handle: bytes = b""


class Conntrack(Protocol):
    """The connections of one network namespace."""

    def room(self) -> Room | None:
        """How full it is; None if that cannot be known."""

    async def udp_flows(self, family: int) -> list[Flow]:
        """All UDP flows of AF_INET or AF_INET6; some may be missing if many came or went meanwhile (PROXY-78)."""

    async def forget(self, family: int, flows: Iterable[Flow]) -> int:
        """Remove flows; those already gone are no error. Returns how many were removed."""


class KernelConntrack:
    """The connections of the network namespace in which this object was made. Needs CAP_NET_ADMIN there."""

    def __init__(self) -> None:
        self.socket = NetlinkSocket(NETLINK_NETFILTER, buffer_bytes=4 << 20)
        self.filters = True
        """Whether the kernel selects by protocol (5.8 or newer); found out at the first list."""

    def close(self) -> None:
        self.socket.close()

    def room(self) -> Room | None:
        return read_room()

    async def udp_flows(self, family: int) -> list[Flow]:
        flows = []
        for number, reply in enumerate(self._dump(family).messages):
            if (flow := decode_flow(reply.payload)) is not None:
                flows.append(flow)
            if number % 1000 == 999:
                await asyncio.sleep(0)
        return flows

    def _dump(self, family: int) -> Dump:
        head = GENERIC.pack(family, 0, 0)
        if self.filters:
            only_udp = nested(TUPLE_ORIG, nested(TUPLE_IP), nested(TUPLE_PROTO, u8(PROTO_NUM, UDP))) + nested(
                FILTER, u32(FILTER_ORIG_FLAGS, BY_PROTO_NUM), u32(FILTER_REPLY_FLAGS, 0)
            )
            try:
                return self.socket.dump(CTNETLINK << 8 | CT_GET, head + only_udp)
            except NetlinkError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self.filters = False
        return self.socket.dump(CTNETLINK << 8 | CT_GET, head)

    def find(
        self, protocol: int, source: str, source_port: int, destination: str, destination_port: int
    ) -> Flow | None:
        """The flow of any protocol with ports whose first packet said this; None if the kernel knows none."""
        six = ":" in source
        family = socket.AF_INET6 if six else socket.AF_INET
        types = (IP_V6_SRC, IP_V6_DST) if six else (IP_V4_SRC, IP_V4_DST)
        ends = [attribute(t, socket.inet_pton(family, a)) for t, a in zip(types, (source, destination), strict=True)]
        ports = (be16(PROTO_SRC_PORT, source_port), be16(PROTO_DST_PORT, destination_port))
        tuple_ = nested(TUPLE_ORIG, nested(TUPLE_IP, *ends), nested(TUPLE_PROTO, u8(PROTO_NUM, protocol), *ports))
        try:
            found = self.socket.request(CTNETLINK << 8 | CT_GET, GENERIC.pack(family, 0, 0) + tuple_)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return decode_flow(found[0].payload, protocol) if found else None

    async def forget(self, family: int, flows: Iterable[Flow]) -> int:
        removed = 0
        for number, flow in enumerate(flows):
            try:
                self.socket.request(CTNETLINK << 8 | CT_DELETE, GENERIC.pack(family, 0, 0) + flow.handle)
                removed += 1
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            if number % 100 == 99:
                await asyncio.sleep(0)
        return removed


@strict
def decode_flow(payload: bytes, wanted: int = UDP) -> Flow | None:
    """The flow in a message; None if it is not of the wanted protocol."""
    found = attribute_map(payload, GENERIC.size)
    source, source_port, destination, destination_port, protocol = decode_tuple(found[TUPLE_ORIG])
    if protocol != wanted:
        return None
    reply_source, reply_source_port, *_ = decode_tuple(found[TUPLE_REPLY])
    handle = attribute(TUPLE_ORIG | NLA_F_NESTED, found[TUPLE_ORIG])
    for type in (ZONE, ID):
        if type in found:
            handle += attribute(type, found[type])
    return Flow(source, source_port, destination, destination_port, reply_source, reply_source_port, handle)


def decode_tuple(data: bytes) -> tuple[str, int, str, int, int]:
    """source, source port, destination, destination port, protocol number."""
    parts = attribute_map(data)
    address, protocol = attribute_map(parts[TUPLE_IP]), attribute_map(parts[TUPLE_PROTO])
    if IP_V4_SRC in address:
        ends = [socket.inet_ntop(socket.AF_INET, address[t]) for t in (IP_V4_SRC, IP_V4_DST)]
    else:
        ends = [socket.inet_ntop(socket.AF_INET6, address[t]) for t in (IP_V6_SRC, IP_V6_DST)]
    ports = [BE16.unpack(protocol[t])[0] if t in protocol else 0 for t in (PROTO_SRC_PORT, PROTO_DST_PORT)]
    return ends[0], ports[0], ends[1], ports[1], protocol[PROTO_NUM][0]


class FakeConntrack:
    """Flows in a list, open to inspection. `most`: how many fit; `lost`: raise it to tell of dropped packets."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self.flows = list(flows)
        self.forgotten: list[Flow] = []
        self.most = 262_144
        self.lost = 0

    def room(self) -> Room | None:
        return Room(len(self.flows), self.most, self.lost)

    async def udp_flows(self, family: int) -> list[Flow]:
        await asyncio.sleep(0)
        version = 6 if family == socket.AF_INET6 else 4
        return [f for f in self.flows if ipaddress.ip_address(f.source).version == version]

    async def forget(self, family: int, flows: Iterable[Flow]) -> int:
        await asyncio.sleep(0)
        gone = [f for f in flows if f in self.flows]
        self.forgotten += gone
        self.flows = [f for f in self.flows if f not in gone]
        return len(gone)
