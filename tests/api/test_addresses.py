"""Strict reading of addresses and ranges, canonical forms and categories (SVC-40, EPAPI-5)."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api import addresses


class Case(NamedTuple):
    about: str
    text: str
    texts: tuple[str, ...] = ()


ZEROS = "must not have leading 0s"
MAPPED = "must not be an IPv4-mapped IPv6 address"
CIDR_ZEROS = "must not have leading 0s in IP or prefix length"

ADDRESSES = (
    Case("plain IPv4", "10.96.0.1"),
    Case("canonical IPv6", "fd00::1"),
    Case("long IPv6 is accepted", "fd00:0:0:0:0:0:0:1"),
    Case("upper-case IPv6 is accepted", "FD00::1"),
    Case("zero itself is no leading zero", "0.0.0.0"),
    Case("leading zeros", "010.0.0.1", (ZEROS,)),
    Case("IPv4 mapped into IPv6", "::ffff:1.2.3.4", (MAPPED,)),
    Case("mapped, written in hexadecimal", "::ffff:102:304", (MAPPED,)),
    Case("mapped with leading zeros: the zeros are told", "::ffff:01.2.3.4", (ZEROS,)),
    Case("a name", "myhost.mydomain", (addresses.NOT_AN_ADDRESS,)),
    Case("nothing", "", (addresses.NOT_AN_ADDRESS,)),
    Case("None is no address", "None", (addresses.NOT_AN_ADDRESS,)),
    Case("a zone", "fe80::1%eth0", (addresses.NOT_AN_ADDRESS,)),
    Case("blanks around", " 10.0.0.1", (addresses.NOT_AN_ADDRESS,)),
    Case("three parts", "10.0.1", (addresses.NOT_AN_ADDRESS,)),
    Case("256", "10.0.0.256", (addresses.NOT_AN_ADDRESS,)),
)
CIDRS = (
    Case("IPv4", "10.0.0.0/8"),
    Case("IPv6, not canonical", "FD00::/8"),
    Case("one address", "10.0.0.1/32"),
    Case("everything", "0.0.0.0/0"),
    Case("no prefix", "1.2.3.4", (addresses.NOT_A_CIDR,)),
    Case("no number", "10.0.0.0/x", (addresses.NOT_A_CIDR,)),
    Case("too long a prefix", "10.0.0.0/33", (addresses.NOT_A_CIDR,)),
    Case("a mask", "10.0.0.0/255.0.0.0", (addresses.NOT_A_CIDR,)),
    Case("host bits", "10.1.2.3/8", ("must not have bits set beyond the prefix length",)),
    Case("zeros in the address", "010.0.0.0/8", (CIDR_ZEROS,)),
    Case("zeros in the prefix", "10.0.0.0/08", (CIDR_ZEROS,)),
    Case("mapped", "::ffff:10.0.0.0/104", ("must not have an IPv4-mapped IPv6 address",)),
)
RESERVED = (
    Case("an ordinary one", "10.0.0.1"),
    Case("global multicast passes", "230.0.0.1"),
    Case("unspecified", "0.0.0.0", ("may not be unspecified (0.0.0.0)",)),
    Case("unspecified IPv6", "::", ("may not be unspecified (::)",)),
    Case("loopback", "127.9.9.9", ("may not be in the loopback range (127.0.0.0/8, ::1/128)",)),
    Case("IPv6 loopback", "::1", ("may not be in the loopback range (127.0.0.0/8, ::1/128)",)),
    Case("link-local", "169.254.1.1", ("may not be in the link-local range (169.254.0.0/16, fe80::/10)",)),
    Case("IPv6 link-local", "febf::1", ("may not be in the link-local range (169.254.0.0/16, fe80::/10)",)),
    Case(
        "link-local multicast",
        "224.0.0.1",
        ("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",),
    ),
    Case("no address at all", "x", ("must be a valid IP address",)),
)


@pytest.mark.parametrize("case", ADDRESSES, ids=lambda case: case.about)
def test_address_is_judged(case: Case) -> None:
    assert tuple(addresses.errors(case.text)) == case.texts
    assert (addresses.parse(case.text) is None) == bool(case.texts)


@pytest.mark.parametrize("case", CIDRS, ids=lambda case: case.about)
def test_range_is_judged(case: Case) -> None:
    assert tuple(addresses.cidr_errors(case.text)) == case.texts
    assert (addresses.parse_cidr(case.text) is None) == bool(case.texts)


@pytest.mark.parametrize("case", RESERVED, ids=lambda case: case.about)
def test_category_is_told(case: Case) -> None:
    assert tuple(addresses.reserved(case.text)) == case.texts


def test_canonical_form_is_asked_for_where_it_must_be() -> None:
    assert addresses.canonical_errors("FD00:0::1") == ['must be in canonical form ("fd00::1")']
    assert addresses.canonical_errors("01.2.3.4") == [ZEROS]
    assert addresses.canonical_cidr_errors("FD00::/8") == ['must be in canonical form ("fd00::/8")']


def test_other_forms_of_ipv6_are_warned_about() -> None:
    text = 'spec.clusterIPs[0]: IPv6 address "2001:DB8::0:1" should be in RFC 5952 canonical format ("2001:db8::1")'
    assert addresses.warning("spec.clusterIPs[0]", "2001:DB8::0:1") == text
    assert addresses.warning("spec.clusterIPs[0]", "2001:db8::1") == ""
    assert addresses.warning("spec.clusterIPs[0]", "10.0.0.1") == ""


@given(st.ip_addresses())
def test_canonical_text_is_its_own_canonical_form(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    text = str(address)
    if addresses.errors(text) == []:
        assert addresses.canonical(text) == text == addresses.canonical(address.exploded.upper())
        assert addresses.canonical_errors(text) == []
        assert addresses.family_of(text) == f"IPv{address.version}"


@given(st.text(alphabet="0123456789abcdef:./%", max_size=20))
def test_no_text_makes_reading_fail(text: str) -> None:
    for judge in (addresses.errors, addresses.cidr_errors, addresses.reserved, addresses.canonical_errors):
        assert all(isinstance(found, str) for found in judge(text))
    if addresses.errors(text) == []:
        assert addresses.parse(text) == ipaddress.ip_address(text)
    if addresses.cidr_errors(text) == []:
        assert addresses.parse_cidr(text) == ipaddress.ip_network(text)
