"""Flows: the codec on bytes laid out by hand, the plan by rows, the fake. (Real flows: tests/proxy/test_kernel.py.)"""

from __future__ import annotations

import asyncio
import socket

import pytest

from kubesvc.kernel import conntrack as c
from kubesvc.kernel.conntrack import FakeConntrack, Flow, decode_flow
from kubesvc.kernel.netlink import attribute, be16, nested, u8


def side(source: str, source_port: int, destination: str, destination_port: int, protocol: int = 17) -> bytes:
    six = ":" in source
    family = socket.AF_INET6 if six else socket.AF_INET
    types = (c.IP_V6_SRC, c.IP_V6_DST) if six else (c.IP_V4_SRC, c.IP_V4_DST)
    ends = [
        attribute(type, socket.inet_pton(family, address))
        for type, address in zip(types, (source, destination), strict=True)
    ]
    ports = [be16(c.PROTO_SRC_PORT, source_port), be16(c.PROTO_DST_PORT, destination_port)]
    return nested(c.TUPLE_IP, *ends) + nested(c.TUPLE_PROTO, u8(c.PROTO_NUM, protocol), *ports)


@pytest.mark.parametrize(
    ("client", "front", "pod"), [("10.0.0.9", "10.96.0.1", "10.244.1.2"), ("fd00::9", "fd00:96::1", "fd00:244::2")]
)
def test_a_translated_flow(client: str, front: str, pod: str) -> None:
    original, reply = side(client, 4000, front, 53), side(pod, 8080, client, 4000)
    payload = bytes(4) + nested(c.TUPLE_ORIG, original) + nested(c.TUPLE_REPLY, reply)
    flow = decode_flow(payload)
    assert flow and flow.handle == nested(c.TUPLE_ORIG, original)
    assert flow == Flow(client, 4000, front, 53, pod, 8080, flow.handle)


def test_other_protocols_are_not_flows_of_ours() -> None:
    """PROXY-76."""
    tcp = side("10.0.0.9", 4000, "10.96.0.1", 53, protocol=6)
    assert decode_flow(bytes(4) + nested(c.TUPLE_ORIG, tcp) + nested(c.TUPLE_REPLY, tcp)) is None


def test_the_fake_forgets_what_is_there() -> None:
    async def main() -> None:
        flow = Flow("10.0.0.9", 1, "10.96.0.1", 53, "10.244.1.2", 8080)
        six = Flow("fd00::9", 1, "fd00:96::1", 53, "fd00:244::2", 8080)
        conntrack = FakeConntrack([flow, six])
        assert await conntrack.udp_flows(socket.AF_INET) == [flow]
        assert await conntrack.udp_flows(socket.AF_INET6) == [six]
        assert await conntrack.forget(socket.AF_INET, [flow]) == 1
        assert await conntrack.forget(socket.AF_INET, [flow]) == 0

    asyncio.run(main())
