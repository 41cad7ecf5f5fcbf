"""`python -m kubesvc.cli.faults WORDS`, run inside a node: faults that only a kernel can have, for scenarios.

  flow FRONT PORT TARGET PORT     a UDP client that holds on to a target which the Service's rules do not lead to
  end-flow                        end that client
  mute-dns ADDRESS                drop every question to the node's DNS server
  unmute-dns                      let them through again

All of it is in the node's own namespaces, and gone with the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence

from kubesvc.clock import Clock, RealClock
from kubesvc.kernel.nft import (
    AddChain,
    AddRule,
    AddTable,
    Base,
    ChainSpec,
    DeleteTable,
    KernelNft,
    NoSuchObject,
    Transaction,
)
from kubesvc.kernel.nft import expressions as x

FLOW_TABLE, DNS_TABLE = "kubesvc-scenario-flow", "kubesvc-scenario-dns"
INPUT, OUTPUT = 1, 3
FIRST = -150
"""Before the rules of a proxy, and behind the kernel's look at its connections, which translating needs."""
HOME_PORT = 47_615
"""Where the client sends from, so that it can be told to end."""
FAREWELL = b"end"
MOST_SECONDS = 3600.0
"""A client that nobody ends does so itself."""
SECONDS_BETWEEN = 1.0


def is_udp_to(address: str, port: int) -> x.Rule:
    """Match packets of UDP to this IPv4 address and port."""
    return (
        x.Payload(x.NETWORK, 16, 4, x.R1), x.Cmp(x.EQ, socket.inet_aton(address)),
        x.Meta(x.META_L4PROTO, x.R1), x.Cmp(x.EQ, bytes((socket.IPPROTO_UDP,))),
        x.Payload(x.TRANSPORT, 2, 2, x.R1), x.Cmp(x.EQ, port.to_bytes(2, "big")),
    )  # fmt: skip


def led_astray(front: str, port: int, target: str, target_port: int) -> Transaction:
    """The rule of a former time: what is sent to the front goes to the target."""
    translate: x.Rule = (
        x.Immediate(socket.inet_aton(target), x.R1),
        x.Immediate(target_port.to_bytes(2, "big"), x.piece(1)),
        x.Nat(x.DNAT, x.AF_INET, x.R1, x.piece(1)),
    )
    chain = ChainSpec("output", Base("nat", OUTPUT, FIRST))
    return Transaction(
        x.AF_INET, FLOW_TABLE, (AddTable(), AddChain(chain), AddRule("output", (*is_udp_to(front, port), *translate)))
    )


def muted(address: str) -> Transaction:
    """A rule that drops questions to a DNS server before it hears them."""
    drop: x.Rule = (*is_udp_to(address, 53), x.Immediate(x.Verdict(x.DROP)))
    chain = ChainSpec("input", Base("filter", INPUT, FIRST))
    return Transaction(x.AF_INET, DNS_TABLE, (AddTable(), AddChain(chain), AddRule("input", drop)))


async def change(transaction: Transaction) -> None:
    nft = KernelNft()
    try:
        await nft.run(transaction)
    finally:
        nft.close()


async def remove_table(name: str) -> None:
    with contextlib.suppress(NoSuchObject):
        await change(Transaction(x.AF_INET, name, (DeleteTable(),)))


async def hold_flow(front: str, port: int, target: str, target_port: int, clock: Clock) -> None:
    """Send the first datagram by a rule that is taken away at once, and go on: the kernel remembers where to."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind(("", HOME_PORT))
        await change(led_astray(front, port, target, target_port))
        try:
            await loop.sock_sendto(client, b"hostname", (front, port))
        finally:
            await remove_table(FLOW_TABLE)
        until = clock.monotonic() + MOST_SECONDS
        while clock.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_BETWEEN):
                    while True:
                        with contextlib.suppress(ConnectionRefusedError):  # a target that is gone says so
                            said, _ = await loop.sock_recvfrom(client, 1024)
                            if said == FAREWELL:
                                return
            with contextlib.suppress(OSError):
                await loop.sock_sendto(client, b"hostname", (front, port))


def end_flow() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(FAREWELL, ("127.0.0.1", HOME_PORT))


def main(argv: Sequence[str]) -> int:
    """Do as the words say; 64 if they mean nothing."""
    match list(argv):
        case ["flow", front, port, target, target_port]:
            asyncio.run(hold_flow(front, int(port), target, int(target_port), RealClock()))
        case ["end-flow"]:
            end_flow()
        case ["mute-dns", address]:
            asyncio.run(change(muted(address)))
        case ["unmute-dns"]:
            asyncio.run(remove_table(DNS_TABLE))
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
