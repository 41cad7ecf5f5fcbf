"""The netlink decoders against messages that are none: 1,000,000 of them in the soak tier.

The kernel sends no nonsense; but what is read wrong must fail as a ValueError that says so, and never hang, take memory
without end, or be taken for something else.
"""

from __future__ import annotations

import socket
import struct

import pytest

from kubesvc.kernel import conntrack, links, netlink
from kubesvc.kernel.nft import expressions as x
from kubesvc.kernel.nft import kernel as nft
from kubesvc.kernel.nft.expressions import decode_rule, encode_rule
from kubesvc.kernel.nft.table import NFPROTO_IPV4
from kubesvc.proxy.frame import FrameOptions, Words, frame, sets

from ..mutations import QUICK, SOAK, mutated


def flow() -> bytes:
    def tuple_(type: int, source: str, destination: str, port: int) -> bytes:
        ends = [netlink.attribute(t, socket.inet_aton(a)) for t, a in ((1, source), (2, destination))]
        ports = (netlink.u8(1, 17), netlink.be16(2, 4000), netlink.be16(3, port))
        return netlink.nested(type, netlink.nested(1, *ends), netlink.nested(2, *ports))

    head = conntrack.GENERIC.pack(socket.AF_INET, 0, 0)
    return head + tuple_(1, "10.0.0.1", "10.96.0.7", 53) + tuple_(2, "10.0.0.9", "10.0.0.1", 4000) + netlink.be32(12, 7)


def link() -> bytes:
    head = links.IFINFO.pack(0, 1, 3, 1, 0)
    info = netlink.nested(links.IFLA_LINKINFO, netlink.text(links.IFLA_INFO_KIND, "veth"))
    return head + netlink.text(links.IFLA_IFNAME, "eth0") + netlink.u32(links.IFLA_MTU, 1500) + info


RULES = [rule for rules in frame(FrameOptions()).rules.values() for rule in rules[:2]][:40]
SETS = [netlink.attribute(3, b"")[:0] + spec.encode("kubesvc", 1) for spec in sets(Words("IPv4"))]


def check(count: int) -> None:
    """Each decoder, on inputs that begin as what it decodes."""
    framed = [netlink.message(20, 2, 7, flow()) + netlink.message(3, 0, 7, bytes(4))]
    framed.append(netlink.message(2, 0x200, 7, struct.pack("=i", -2) + netlink.message(20, 0, 7, b"")))
    decoders = (
        (framed, lambda d: [netlink.error_of(m) for m in netlink.messages(d) if m.type == netlink.NLMSG_ERROR]),
        ([flow()], conntrack.decode_flow),
        ([link()], links.decode_link),
        ([encode_rule(r) for r in RULES], decode_rule),
        (SETS, lambda d: nft._set(netlink.attribute_map(d))),
    )
    for number, (seeds, decode) in enumerate(decoders):
        understood = 0
        for data in mutated(seeds, count // len(decoders), number):
            try:
                decode(data)  # type: ignore[operator]
                understood += 1
            except ValueError:
                pass
            except Exception as error:
                raise AssertionError(f"{decode}: {type(error).__name__} {error}: {data.hex()}") from error
        assert understood, f"decoder {number} understood nothing: the seeds are no messages"


def test_a_few_thousand() -> None:
    check(QUICK)


@pytest.mark.soak
def test_a_million() -> None:
    check(SOAK)


def test_rules_come_back_as_they_were_written() -> None:
    for rule in RULES:
        assert decode_rule(encode_rule(rule)) == rule
    assert NFPROTO_IPV4 == 2
    assert x.DROP == 0
