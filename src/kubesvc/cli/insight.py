"""`python -m kubesvc.cli.insight`, run inside a node: answers questions about what the node really does.

Questions come as JSON on standard input, answers leave as JSON on standard output. It changes nothing, and ends within
a few seconds whatever it meets.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from kubesvc.clock import Random

if TYPE_CHECKING:
    from kubesvc.kernel.conntrack import Flow

FAMILIES = {socket.AF_INET: 2, socket.AF_INET6: 10}  # as nftables numbers them: NFPROTO_IPV4, NFPROTO_IPV6
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
AT_ONCE = 100
TABLE = "kubesvc"


class Front(msgspec.Struct, frozen=True):
    """A service port: where a packet is sent to."""

    address: str
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol}"


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What to look at.

    own:     the node's address, and own_6 its IPv6 address, from which packets to fronts of that family come
    connect: addresses and ports to open a TCP connection to
    fronts:  service ports whose way through the kernel's rules is wanted
    name:    a full DNS name to ask the server at `own` for, "" for none; type_ its record type
    flows:   UDP service ports whose flows are wanted
    seconds: patience for every connection and for the DNS question
    """

    own: str
    own_6: str
    connect: list[tuple[str, int]] = []
    fronts: list[Front] = []
    name: str = ""
    type_: int = 1
    flows: list[Front] = []
    seconds: float = 0.7


class FlowSeen(msgspec.Struct, frozen=True):
    """One UDP flow of the node's connection table."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen; `rules` None and `flows` empty where the kernel did not let us look."""

    connect: dict[str, str] = {}
    rules: dict[str, list[str]] | None = None
    dns: str = ""
    records: list[str] = []
    flows: list[FlowSeen] = []


async def look(questions: Questions) -> Answers:
    """Answer everything."""
    gate = asyncio.Semaphore(AT_ONCE)
    # One after the other: on a busy machine loading a module takes longer than the patience for a connection.
    replies = await asyncio.gather(*(connect(a, p, questions.seconds, gate) for a, p in questions.connect))
    dns, records = await ask(questions)
    places = [place(a, p) for a, p in questions.connect]
    return Answers(
        connect=dict(zip(places, replies, strict=True)),
        rules=await rules(questions) if questions.fronts else None,
        dns=dns,
        records=records,
        flows=await flows(questions) if questions.flows else [],
    )


def place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def connect(address: str, port: int, seconds: float, gate: asyncio.Semaphore) -> str:
    """open, refused or silent."""
    async with gate:
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            return "refused"
        except (OSError, TimeoutError):
            return "silent"
        writer.transport.abort()
        return "open"


async def ask(questions: Questions) -> tuple[str, list[str]]:
    """What the node's DNS server says to the name: ("", []) if it was not asked or the answer is cut short."""
    from kubesvc.dns import wire
    from kubesvc.dns.explain import record_text

    if not questions.name:
        return "", []
    question = wire.Question(wire.name_of(questions.name), questions.type_)
    number = Random().randrange(1 << 16)
    message = wire.encode(wire.Message(id=number, questions=(question,), edns=wire.Edns(4096)))
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in questions.own else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        try:
            async with asyncio.timeout(questions.seconds):
                await loop.sock_connect(client, (questions.own, 53))
                await loop.sock_sendall(client, message)
                while True:
                    answer = wire.decode(await loop.sock_recv(client, 65535))
                    if answer.id == number:
                        break
        except (OSError, TimeoutError, wire.FormatError):
            return "silent", []
    if answer.truncated:
        return "", []
    return "answers", [record_text(r) for r in answer.answers]


async def rules(questions: Questions) -> dict[str, list[str]] | None:
    """Where the kernel's rules lead a new connection of the node itself to each front."""
    from kubesvc.kernel.nft import KernelNft, NftError
    from kubesvc.kernel.nft.walk import Host, Packet, outcomes

    try:
        nft = KernelNft()
    except OSError:
        return None
    tables = {}
    found: dict[str, list[str]] = {}
    try:
        for front in questions.fronts:
            family = FAMILIES[socket.AF_INET6 if ":" in front.address else socket.AF_INET]
            if family not in tables:
                tables[family] = await nft.read(family, TABLE)
            table, protocol = tables[family], PROTOCOLS.get(front.protocol)
            if protocol is None:
                continue
            if table is None:
                found[str(front)] = []
                continue
            own = questions.own_6 if ":" in front.address else questions.own
            packet = Packet(own, front.address, front.port, protocol, interface="")
            ends = outcomes(table, packet, Host(frozenset((own,))))
            found[str(front)] = [place(o.destination, o.port) for o in ends if translated(o, front)]
    except (NftError, OSError):
        return None
    finally:
        nft.close()
    return found


def translated(outcome: object, front: Front) -> bool:
    """Whether a packet to the front went on to somebody else."""
    verdict, destination = getattr(outcome, "verdict", ""), getattr(outcome, "destination", "")
    return verdict == "accept" and destination != front.address


async def flows(questions: Questions) -> list[FlowSeen]:
    """The UDP flows to any of the fronts, both families."""
    from kubesvc.kernel.conntrack import KernelConntrack

    wanted = {(f.address, f.port) for f in questions.flows}
    try:
        conntrack = KernelConntrack()
    except OSError:
        return []
    try:
        families = {socket.AF_INET6 if ":" in f.address else socket.AF_INET for f in questions.flows}
        listed = [f for family in sorted(families) for f in await conntrack.udp_flows(family)]
    except OSError:
        return []
    finally:
        conntrack.close()
    return [seen_of(f) for f in listed if (f.destination, f.destination_port) in wanted]


def seen_of(f: Flow) -> FlowSeen:
    """A flow of the kernel as it is told of; its handle stays here."""
    return FlowSeen(f.source, f.source_port, f.destination, f.destination_port, f.reply_source, f.reply_source_port)


def main(argv: Sequence[str] = ()) -> int:
    """Read questions, print answers."""
    del argv
    questions = msgspec.json.decode(sys.stdin.buffer.read(), type=Questions)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(look(questions))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
