"""The netlink codec, and the socket against the kernel that runs the tests (reading needs no privilege)."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.kernel import netlink as n

pairs = st.lists(st.tuples(st.integers(1, 100), st.binary(max_size=40)), max_size=8)


@given(pairs)
def test_attributes_come_back(given_: list[tuple[int, bytes]]) -> None:
    data = b"".join(n.attribute(type, value) for type, value in given_)
    assert len(data) % 4 == 0
    assert list(n.attributes(data)) == given_


@given(st.lists(st.tuples(st.integers(16, 60), st.integers(0, 0xFFFF), st.binary(max_size=30)), max_size=5))
def test_messages_come_back(given_: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(n.message(type, flags, 7, payload) for type, flags, payload in given_)
    assert [(m.type, m.flags, m.payload) for m in n.messages(data)] == given_


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read_but_never_crashes(data: bytes) -> None:
    for read in (n.attributes, n.messages):
        try:
            list(read(data))
        except ValueError as error:
            assert "left" in str(error)


def test_an_attribute_has_a_longest_length() -> None:
    with pytest.raises(ValueError, match="at most 65531"):
        n.attribute(1, bytes(65532))


def test_nested_attributes() -> None:
    data = n.nested(3, n.be16(1, 80), n.text(2, "web"))
    ((type, inner),) = n.attributes(data)
    assert type == 3
    found = n.attribute_map(inner)
    assert found[1] == b"\0\x50" and n.name_of(found[2]) == "web"


def refusal(flags: int, tail: bytes, request: bytes = b"") -> n.Message:
    head = struct.pack("=i", -errno.ENOENT) + n.HEADER.pack(n.HEADER.size + len(request), 20, 0, 9, 0)
    return n.Message(n.NLMSG_ERROR, flags, 9, head + request + tail)


@pytest.mark.parametrize(
    ("sentence", "reply", "text"),
    [
        ("no sentence", refusal(n.NLM_F_CAPPED, b""), ""),
        (
            "a sentence after the header",
            refusal(n.NLM_F_CAPPED | n.NLM_F_ACK_TLVS, n.text(n.NLMSGERR_ATTR_MSG, "No such chain")),
            "No such chain",
        ),
        (
            "a sentence after the whole request",
            refusal(n.NLM_F_ACK_TLVS, n.text(n.NLMSGERR_ATTR_MSG, "No such set"), b"12345678"),
            "No such set",
        ),
    ],
)
def test_the_kernels_own_words(sentence: str, reply: n.Message, text: str) -> None:
    error = n.error_of(reply)
    assert error and (error.errno, error.text, error.sequence) == (errno.ENOENT, text, 9), sentence
    assert "No such file" in str(error.about("rule")) and str(error.about("rule")).startswith("[Errno 2] rule")


def test_an_acknowledgement_is_no_error() -> None:
    assert n.error_of(n.Message(n.NLMSG_ERROR, 0, 1, struct.pack("=i", 0) + bytes(16))) is None


def test_dump_of_links_lists_the_loopback() -> None:
    RTM_GETLINK, IFLA_IFNAME = 18, 3
    header = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    with n.NetlinkSocket(n.NETLINK_ROUTE) as s:
        found = s.dump(RTM_GETLINK, header)
        names = [n.name_of(n.attribute_map(m.payload, len(header))[IFLA_IFNAME]) for m in found.messages]
        assert "lo" in names
        with pytest.raises(n.NetlinkError) as refused:
            s.request(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 2**31 - 1, 0, 0))
        assert refused.value.errno == errno.ENODEV
        assert s.dump(RTM_GETLINK, header).messages, "the socket is good after a refusal"
