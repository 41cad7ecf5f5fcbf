"""Host ports: what reaches the node's addresses at a port goes to a container of a Pod (NODE-61).

A table of our own holds one rule per host port and is written anew as a whole whenever a Pod with host ports comes or
goes; the proxy's rules know nothing of it. A connection to the node's loopback address is not passed on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubesvc.api.pod import Pod
from kubesvc.kernel.nft import AddChain, AddRule, AddTable, Base, ChainSpec, Command, DeleteTable, Nft, Transaction
from kubesvc.kernel.nft import expressions as x
from kubesvc.kernel.nft.expressions import Rule
from kubesvc.kernel.nft.table import NFPROTO_IPV4, NFPROTO_IPV6, OUTPUT, POSTROUTING, PREROUTING

TABLE = "kubesvc-hostports"
COMMENT = "Host ports of this node's Pods, written by kubesvc"
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
DSTNAT, SRCNAT = -101, 99  # before the proxy's: a node port may not take a host port's traffic
UNBOUND = ("", "0.0.0.0", "::")


@dataclass(frozen=True, order=True, slots=True)
class HostPort:
    """One way in: (host address or "" for all, port, protocol) to a Pod's address and port."""

    host_ip: str
    port: int
    protocol: str
    pod_ip: str
    pod_port: int


def plan_host_ports(pod: Pod, ips: Sequence[str]) -> list[HostPort]:
    """The host ports of a Pod with these addresses; none with the node's own network, where they are its own ports."""
    if pod.spec.host_network:
        return []
    containers = [*(pod.spec.containers or ()), *(c for c in pod.spec.init_containers or () if c.sidecar)]
    ports = [p for c in containers for p in c.ports or () if p.host_port]
    return sorted(
        HostPort("" if p.host_ip in UNBOUND else p.host_ip, p.host_port, p.protocol or "TCP", ip, p.container_port)
        for p in ports
        for ip in ips
        if not p.host_ip or p.host_ip == "0.0.0.0" or (":" in p.host_ip) == (":" in ip)
    )


def u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def render(ports: Iterable[HostPort], ip6: bool) -> tuple[Command, ...]:
    """The commands that replace the table of one family; none needed but its removal where there are no host ports."""
    family = [p for p in sorted(ports) if (":" in p.pod_ip) == ip6]
    start: tuple[Command, ...] = (AddTable(COMMENT), DeleteTable())
    if not family:
        return start
    translate = [translation(p, ip6) for p in sorted(family, key=lambda p: (not p.host_ip, p))]
    back = [hairpin(ip, ip6) for ip in sorted({p.pod_ip for p in family})]
    chains = (
        (ChainSpec("arriving", Base("nat", PREROUTING, DSTNAT)), translate),
        (ChainSpec("leaving", Base("nat", OUTPUT, DSTNAT)), translate),
        (ChainSpec("returning", Base("nat", POSTROUTING, SRCNAT)), back),
    )
    commands: list[Command] = [*start, AddTable(COMMENT)]
    for chain, rules in chains:
        commands += [AddChain(chain), *(AddRule(chain.name, rule) for rule in rules)]
    return tuple(commands)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def translation(port: HostPort, ip6: bool) -> Rule:
    """To this host port: to the Pod. An address that was named comes before all addresses."""
    if port.host_ip:
        where: Rule = (destination(ip6), x.Cmp(x.EQ, packed(port.host_ip)))
    else:
        loopback = packed("::1") if ip6 else b"\x7f"
        there = destination(ip6) if ip6 else x.Payload(x.NETWORK, 16, 1, x.R1)
        where = (x.Fib(x.FIB_DADDR), x.Cmp(x.EQ, u32(x.RTN_LOCAL)), there, x.Cmp(x.NEQ, loopback))
    return (
        *where,
        x.Meta(x.META_L4PROTO, x.R1),
        x.Cmp(x.EQ, bytes((PROTOCOLS[port.protocol],))),
        x.Payload(x.TRANSPORT, 2, 2, x.R1),
        x.Cmp(x.EQ, port.port.to_bytes(2, "big")),
        x.Immediate(packed(port.pod_ip), x.R1),
        x.Immediate(port.pod_port.to_bytes(2, "big"), x.piece(4)),
        x.Nat(x.DNAT, socket.AF_INET6 if ip6 else socket.AF_INET, x.R1, x.piece(4)),
    )


def destination(ip6: bool) -> x.Expression:
    return x.Payload(x.NETWORK, 24 if ip6 else 16, 16 if ip6 else 4, x.R1)


def hairpin(ip: str, ip6: bool) -> Rule:
    """A Pod that reached itself by a host port must see another's address, or it would answer itself past us."""
    source = x.Payload(x.NETWORK, 8 if ip6 else 12, 16 if ip6 else 4, x.R1)
    return (source, x.Cmp(x.EQ, packed(ip)), destination(ip6), x.Cmp(x.EQ, packed(ip)), x.Masquerade())


class HostPorts:
    """The node's table, kept to the Pods that are told.

    What an earlier agent wrote stands until `begin`: by then the Pods that go on running have been told again, and
    whoever reaches them by a host port notices nothing of the agent's restart.
    """

    def __init__(self, nft: Nft) -> None:
        self.nft = nft
        self.pods: dict[str, list[HostPort]] = {}
        self.begun = False
        self.written: dict[bool, tuple[Command, ...]] = {}
        self.turn = asyncio.Lock()

    async def begin(self) -> None:
        """The table is from now on what is told, and what an earlier agent wrote of other Pods goes."""
        self.begun = True
        await self.write()

    async def clear(self) -> None:
        """Remove what an agent left that is no more."""
        for ip6 in (False, True):
            await self.nft.run(Transaction(NFPROTO_IPV6 if ip6 else NFPROTO_IPV4, TABLE, render((), ip6)))

    async def keep(self, uid: str, ports: list[HostPort]) -> None:
        """A Pod has these host ports from now on."""
        if self.pods.get(uid, []) != ports:
            self.pods[uid] = ports
            await self.write()

    async def drop(self, uid: str) -> None:
        if self.pods.pop(uid, None):
            await self.write()

    async def write(self) -> None:
        """Bring the kernel's table to what is told now. One at a time: who was told later must not be overtaken, and
        who is cancelled halfway has noted what is written by then."""
        if not self.begun:
            return
        async with self.turn:
            every = [p for ports in self.pods.values() for p in ports]
            for ip6 in (False, True):
                commands = render(every, ip6)
                if self.written.get(ip6) != commands:
                    self.written.pop(ip6, None)
                    await self.nft.run(Transaction(NFPROTO_IPV6 if ip6 else NFPROTO_IPV4, TABLE, commands))
                    self.written[ip6] = commands
