"""Which address a Pod gets: the next free one of the node's range. Pure but for its memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


class Exhausted(Exception):
    """Every address of the range is in use."""


class AddressPool:
    """Addresses of one range. The network and broadcast addresses and the first host are never given."""

    def __init__(self, cidr: str, used: Iterable[str] = ()) -> None:
        self.network = ipaddress.ip_network(cidr)
        self.first = 2
        size = self.network.num_addresses
        self.last = min(size - 2 if self.network.version == 4 else size - 1, 1 << 16)
        self.used: set[int] = set()
        self.next = self.first
        for address in used:
            self.take(address)

    def offset(self, address: str) -> int | None:
        """Its place in the range; None if it is of another range."""
        parsed = ipaddress.ip_address(address)
        if parsed not in self.network:
            return None
        return int(parsed) - int(self.network.network_address)

    def take(self, address: str) -> None:
        """Note an address as used, whoever gave it."""
        offset = self.offset(address)
        if offset is not None:
            self.used.add(offset)
            self.next = max(self.next, offset + 1)

    def allocate(self) -> str:
        """The next free address, beginning after the one given last. Exhausted when there is none."""
        count = self.last - self.first + 1
        for step in range(count):
            offset = self.first + (self.next - self.first + step) % count
            if offset not in self.used:
                self.used.add(offset)
                self.next = offset + 1
                return str(self.network.network_address + offset)
        raise Exhausted(f"no free address in {self.network}: all {count} are in use")

    def release(self, address: str) -> None:
        """Give an address back; one of another range is ignored."""
        offset = self.offset(address)
        if offset is not None:
            self.used.discard(offset)
