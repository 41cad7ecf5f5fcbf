"""A kernel without room for connections: rules are right and nobody gets through, so it must be said."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import subprocess

import pytest

from kubesvc.clock import LoopClock, run_virtual
from kubesvc.kernel import conntrack as c
from kubesvc.kernel.conntrack import FakeConntrack, Flow
from kubesvc.kernel.netlink import NETLINK_NETFILTER, NLM_F_REQUEST, NetlinkSocket, be16, be32, message, nested, u8
from kubesvc.kernel.netlink import attribute as raw
from kubesvc.kernel.nft import FakeNft
from kubesvc.kernel.room import Room, read_room
from kubesvc.proxy import NftBackends, Proxy, ProxySettings
from kubesvc.proxy.nftables import Ruleset

from .lab import Lab
from .objects import ADDRESSES, HERE, OUTSIDE, A, ready, vip
from .packets import Case, plain, planned, web
from .test_backends import Recorder
from .test_kernel import Kernel, ask
from .test_packets import options
from .test_sync import NODE_OBJECT, running

FLOW = Flow("10.0.0.9", 40000, "10.96.0.1", 53, "10.244.1.2", 53)


def test_it_is_said_once_and_taken_back() -> None:
    """An Event on the Node, as it fills, when it is full, and nothing while that stays so; all packets that were lost
    before it was looked at count for nothing."""

    async def main() -> None:
        cluster, conntrack, told = Recorder(), FakeConntrack(), list[str]()
        cluster.objects["nodes"]["", "n1"] = NODE_OBJECT
        conntrack.most, conntrack.lost = 100, 7
        clock, settings = LoopClock(asyncio.get_running_loop()), ProxySettings(families=("IPv4",), health_port=0)
        proxy = Proxy(
            cluster,  # type: ignore[arg-type]
            "n1",
            NftBackends(FakeNft()),
            clock,
            random.Random(1),
            settings,
            conntrack=conntrack,
            crowded=told.append,
        )
        async with running(proxy):
            for count, lost in ((10, 7), (95, 7), (95, 7), (99, 9), (99, 12), (20, 12)):
                conntrack.flows, conntrack.lost = [FLOW] * count, lost
                await asyncio.sleep(10)
        assert [text.partition(":")[0].rpartition("connections is ")[2] for text in told] == ["nearly full", "full", ""]
        assert "99 of 100" in told[1] and "9 packets" in told[1]
        events = [(name, reason) for name, reason, _ in cluster.events]
        assert events == [("n1", "Starting"), ("n1", "ConntrackNearlyFull"), ("n1", "ConntrackFull")]

    run_virtual(main())


def fill(count: int) -> None:
    """Put so many connections into the table of this namespace, all of them answered, so that none is given up."""
    network = int.from_bytes(socket.inet_aton("198.18.0.0"), "big")
    front = raw(c.IP_V4_DST, socket.inet_aton("203.0.113.1"))
    back = raw(c.IP_V4_SRC, socket.inet_aton("203.0.113.1"))
    assured = be32(3, 0b1110) + be32(7, 600)  # confirmed, answered, assured; for ten minutes
    head = struct.pack(">BBH", socket.AF_INET, 0, 0)
    with NetlinkSocket(NETLINK_NETFILTER, buffer_bytes=4 << 20) as door:
        parts: list[bytes] = []
        for number in range(count):
            client = struct.pack(">I", network + (number >> 8))
            ports = be16(c.PROTO_SRC_PORT, 1000 + (number & 255)), be16(c.PROTO_DST_PORT, 9)
            there = nested(c.TUPLE_IP, raw(c.IP_V4_SRC, client), front) + nested(
                c.TUPLE_PROTO, u8(c.PROTO_NUM, 17), *ports
            )
            again = be16(c.PROTO_SRC_PORT, 9), be16(c.PROTO_DST_PORT, 1000 + (number & 255))
            reply = nested(c.TUPLE_IP, back, raw(c.IP_V4_DST, client)) + nested(
                c.TUPLE_PROTO, u8(c.PROTO_NUM, 17), *again
            )
            body = head + nested(c.TUPLE_ORIG, there) + nested(c.TUPLE_REPLY, reply) + assured
            parts.append(message(c.CTNETLINK << 8, NLM_F_REQUEST | 0x400, number + 1, body))
            if len(parts) == 5000 or number + 1 == count:
                door.send(b"".join(parts))
                parts = []
                while door.receive():  # refusals, once it is full
                    pass


@pytest.mark.e2e
@pytest.mark.soak
def test_a_full_table_of_the_kernel(lab: Lab) -> None:
    """As many connections as this machine lets a namespace have: new ones are dropped without an answer while the rules
    stay right; it is seen, and once there is room again all is well."""
    before = lab.inside(HERE, read_room)
    assert before is not None and before.crowding() == ""
    if before.most > 600_000:
        pytest.skip(f"{before.most} connections are too many to make")
    kernel = Kernel(lab)
    ruleset = Ruleset(options("IPv4"), (ADDRESSES["IPv4"][HERE],))
    ruleset.change(planned(Case("", plain(ready(A)), A, web, 80, frozenset()), "IPv4"))
    kernel.apply(ruleset)
    assert ask(lab, OUTSIDE, "IPv4", vip("IPv4"), 80).startswith(A)
    lab.inside(HERE, lambda: fill(before.most - before.connections + 10))
    assert ask(lab, OUTSIDE, "IPv4", vip("IPv4"), 80, seconds=2) == "dropped"
    after = lab.inside(HERE, kernel.conntrack.room)
    assert isinstance(after, Room) and after.crowding(before) == "full" and after.lost > before.lost
    assert f"{after.most:,} of {after.most:,} connections" in after.sentence(before)
    assert not ruleset.repair(kernel.table(ruleset)), "the rules are right all the while"
    subprocess.run(["ip", "netns", "exec", f"{lab.prefix}{HERE}", "conntrack", "-F"], check=True, capture_output=True)
    assert ask(lab, OUTSIDE, "IPv4", vip("IPv4"), 80).startswith(A)
