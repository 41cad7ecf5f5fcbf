"""SCTP without an SCTP stack: the first packet of an association by raw sockets, and who gets to see it.

Connection tracking and translation know SCTP where the kernel was built so, whether or not it has sockets for it.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
from types import TracebackType
from typing import Self

from kubesvc.proxy.traffic import Family

from .lab import Lab
from .objects import ADDRESSES, HERE, A, B, C

IPPROTO_SCTP = 132
INIT = 1


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (Castagnoli)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def init_packet(source_port: int, port: int, tag: int) -> bytes:
    """An INIT, which begins an association."""
    chunk = struct.pack(">BBHIIHHI", INIT, 0, 20, tag, 65535, 1, 1, 1)
    header = struct.pack(">HHI", source_port, port, 0)
    checksum = struct.pack("<I", crc32c(header + bytes(4) + chunk))
    return header + checksum + chunk


class Ears:
    """Raw sockets at every endpoint; a context manager."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self.family = family
        self.sockets: dict[str, socket.socket] = {}
        for who in (A, B, C, HERE):
            kind = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
            home = "far" if who == C else who
            s = lab.inside(home, lambda kind=kind: socket.socket(kind, socket.SOCK_RAW, IPPROTO_SCTP))  # type: ignore[misc]
            s.bind((ADDRESSES[family][who], 0))
            self.sockets[who] = s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for s in self.sockets.values():
            s.close()

    def hear(self, tag: int, seconds: float, sender: socket.socket) -> tuple[str, str, int] | None:
        """Who got the INIT with this tag, from which address, at which port. ConnectionRefusedError if its sender is
        told so."""
        names = {s: who for who, s in self.sockets.items()}
        while ready := select.select([*names, sender], [], [], seconds)[0]:
            for s in ready:
                if s is sender:
                    with contextlib.suppress(BlockingIOError):
                        s.recv(2000)
                    continue
                data, address = s.recvfrom(2000)
                if self.family == "IPv4":
                    data = data[(data[0] & 15) * 4 :]
                if struct.unpack(">I", data[16:20])[0] == tag:
                    return names[s], address[0], struct.unpack(">H", data[2:4])[0]
        return None


def ask_sctp(lab: Lab, sender: str, family: Family, to: str, port: int, *, seconds: float = 0.3) -> str:
    """What becomes of an INIT: `who address-they-saw`, "refused", or "dropped"."""
    chance = random.Random()
    tag, source_port = chance.randrange(1, 1 << 32), chance.randrange(20000, 60000)
    kind = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
    with Ears(lab, family) as ears:
        s = lab.inside(sender, lambda: socket.socket(kind, socket.SOCK_RAW, IPPROTO_SCTP))
        with s:
            s.connect((to, 0))
            s.setblocking(False)
            s.send(init_packet(source_port, port, tag))
            try:
                heard = ears.hear(tag, seconds, s)
            except ConnectionRefusedError:
                return "refused"
            if heard is None:
                return "dropped"
            assert heard[2] == 8080
            return f"{heard[0]} {heard[1]}"
