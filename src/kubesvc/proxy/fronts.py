"""Who keeps an address and port that several service ports want. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from kubesvc.kernel.nft.fields import pack_address, pack_port, pack_protocol

from .traffic import PortTraffic, ServiceKey, ServicePortName

Front = bytes
"""Address, protocol and port as the keys of maps begin."""

# The lowest rank keeps a front, then the first by name.
CLUSTER_IP, BALANCER_IP, EXTERNAL_IP, NODE_PORT = range(4)


def front_of(address: str, protocol: str, port: int) -> Front:
    return pack_address(address) + pack_protocol(protocol) + pack_port(port)


class Claim(msgspec.Struct, frozen=True):
    """A service port's wish to be reached at a front."""

    front: Front
    rank: int
    address: str
    port: int


def claims_of(port: PortTraffic, node_addresses: Sequence[str]) -> list[Claim]:
    """The fronts of a service port, in order; each once (PROXY-44, 49, 67)."""
    protocol = port.name.protocol
    found: dict[Front, Claim] = {}

    def claim(address: str, number: int, rank: int) -> None:
        front = front_of(address, protocol, number)
        found.setdefault(front, Claim(front, rank, address, number))

    claim(port.cluster_ip, port.port, CLUSTER_IP)
    for address in port.load_balancer_ips:
        claim(address, port.port, BALANCER_IP)
    for address in port.external_ips:
        claim(address, port.port, EXTERNAL_IP)
    if port.node_port:
        for address in node_addresses:
            claim(address, port.node_port, NODE_PORT)
    return list(found.values())


class Fronts:
    """The claims of all service ports, and the one owner of each front.

    node_addresses: where node ports are reached; a family's unspecified address stands for everywhere
    """

    def __init__(self, node_addresses: Sequence[str] = ()) -> None:
        self.node_addresses = tuple(node_addresses)
        self.claims: dict[Front, dict[ServicePortName, int]] = {}
        self.contested: dict[Front, None] = {}
        """Those that more than one wants: few, so that they can be looked at after every change."""

    def of(self, port: PortTraffic) -> list[Claim]:
        """All a service port claims, whether it gets it or not."""
        return claims_of(port, self.node_addresses)

    def owned(self, port: PortTraffic) -> Iterator[Claim]:
        """What it gets."""
        return (claim for claim in self.of(port) if self.owner(claim.front) == port.name)

    def move(self, old: Sequence[PortTraffic], new: Sequence[PortTraffic]) -> Iterator[ServiceKey]:
        """Move the claims of one Service; yields the other Services that won or lost a front by it."""
        for port in old:
            for claim in self.of(port):
                claimants = self.claims[claim.front]
                claimants.pop(port.name, None)
                if len(claimants) < 2:
                    self.contested.pop(claim.front, None)
                if claimants:
                    yield from (name[:2] for name in claimants)
                else:
                    del self.claims[claim.front]
        for port in new:
            for claim in self.of(port):
                claimants = self.claims.setdefault(claim.front, {})
                yield from (name[:2] for name in claimants)
                claimants[port.name] = claim.rank
                if len(claimants) > 1:
                    self.contested[claim.front] = None

    def owner(self, front: Front) -> ServicePortName:
        """The service port that a front belongs to."""
        claimants = self.claims[front]
        if len(claimants) == 1:
            return next(iter(claimants))
        return min(claimants, key=lambda name: (claimants[name], name))

    def conflicts(self) -> list[tuple[ServicePortName, ServicePortName]]:
        """Pairs of (who keeps a front, who does not get it), in order, each once; for a warning."""
        found = set()
        for front in self.contested:
            owner = self.owner(front)
            found |= {(owner, name) for name in self.claims[front] if name != owner}
        return sorted(found)


def move_all(
    fronts: Fronts,
    ports: dict[ServiceKey, tuple[PortTraffic, ...]],
    changes: Mapping[ServiceKey, Sequence[PortTraffic]],
) -> list[ServiceKey]:
    """Take changes into `ports` and `fronts`; the Services whose rules may differ afterwards, in order."""
    affected = dict.fromkeys(changes)
    for key, new in changes.items():
        affected |= dict.fromkeys(fronts.move(ports.get(key, ()), new))
        if new:
            ports[key] = tuple(new)
        else:
            ports.pop(key, None)
    return sorted(affected)
