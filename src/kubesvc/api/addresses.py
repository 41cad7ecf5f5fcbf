"""IP addresses and ranges as texts: which the API accepts, how it refuses the rest, and their canonical form (SVC-40).

Parsing is strict: no leading zeros, no IPv4-mapped IPv6, no zone. `ipaddress` does the arithmetic.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Literal, TypeVar

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Family = Literal["IPv4", "IPv6"]

NOT_AN_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
NOT_A_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"

LEADING_ZEROS = re.compile(r"[0-9]+(\.[0-9]+){3}")
LINK_LOCAL_MULTICAST_4 = ipaddress.ip_network("224.0.0.0/24")
LINK_LOCAL_MULTICAST_6 = ipaddress.ip_network("ff02::/16")
LINK_LOCAL_4 = ipaddress.ip_network("169.254.0.0/16")
LINK_LOCAL_6 = ipaddress.ip_network("fe80::/10")

KEPT = 16_384
"""Address texts whose reading is remembered: every write of an Endpoints object reads all of its addresses again."""
LONGEST_KEPT = 64
"""Longer texts are no addresses, and come from people who should not fill memory with them."""

Read = TypeVar("Read")


def remembered(read: Callable[[str], Read]) -> Callable[[str], Read]:
    """A function of an address text, with a bounded memory."""
    kept = functools.lru_cache(KEPT)(read)

    @functools.wraps(read)
    def look(text: str) -> Read:
        return kept(text) if len(text) <= LONGEST_KEPT else read(text)

    return look


def parse(text: object) -> Address | None:
    """The address that a strictly written text is, else None."""
    return parse_text(text) if isinstance(text, str) else None


@remembered
def parse_text(text: str) -> Address | None:
    """`parse` of what is known to be a text."""
    if "%" in text:
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if mapped(found) else found


@remembered
def parse_leniently(text: str) -> Address | None:
    """As `parse`, but with leading zeros dropped and IPv4-mapped addresses turned into IPv4: for what was stored
    before addresses were checked strictly."""
    if "%" in text:
        return None
    try:
        found = ipaddress.ip_address(without_zeros(text))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def without_zeros(text: str) -> str:
    """IPv4 text with the zeros dropped that a strict reader would refuse."""
    head, _, tail = text.rpartition(":")
    if not LEADING_ZEROS.fullmatch(tail):
        return text
    plain = ".".join(part.lstrip("0") or "0" for part in tail.split("."))
    return f"{head}:{plain}" if head or text.startswith(":") else plain


def mapped(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def family_of(text: str) -> Family | None:
    """The family of an address text, read leniently; None if it is no address."""
    found = parse_leniently(text)
    if found is None:
        return None
    return "IPv4" if found.version == 4 else "IPv6"


def canonical(text: str) -> str:
    """RFC 5952 form of a valid address; the text itself if it is none."""
    found = parse(text)
    return str(found) if found is not None else text


def errors(text: str) -> list[str]:
    """What is wrong with an address (SVC-40)."""
    return list(faults(text))


@remembered
def faults(text: str) -> tuple[str, ...]:
    """`errors`, remembered."""
    found = parse_leniently(text)
    if found is None:
        return (NOT_AN_ADDRESS,)
    if without_zeros(text) != text:
        return ("must not have leading 0s",)
    if ":" in text and found.version == 4:
        return ("must not be an IPv4-mapped IPv6 address",)
    return ()


def canonical_errors(text: str) -> list[str]:
    """What is wrong with an address that must stand in canonical form (SLAPI-5, CIDR-2)."""
    return list(canonical_faults(text))


@remembered
def canonical_faults(text: str) -> tuple[str, ...]:
    """`canonical_errors`, remembered."""
    if texts := faults(text):
        return texts
    form = canonical(text)
    return () if form == text else (f'must be in canonical form ("{form}")',)


def reserved_errors(address: Address) -> list[str]:
    """Why this address can be no endpoint or external address: the categories of EPAPI-5."""
    texts = []
    if address.is_unspecified:
        texts.append(f"may not be unspecified ({address})")
    if address.is_loopback:
        texts.append("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address in (LINK_LOCAL_4 if address.version == 4 else LINK_LOCAL_6):
        texts.append("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if address in (LINK_LOCAL_MULTICAST_4 if address.version == 4 else LINK_LOCAL_MULTICAST_6):
        texts.append("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    return texts


def reserved(text: str) -> list[str]:
    """`reserved_errors` of a text; one that is no address gets the words of that check (EPAPI-5)."""
    return list(reserved_faults(text))


@remembered
def reserved_faults(text: str) -> tuple[str, ...]:
    """`reserved`, remembered."""
    found = parse_leniently(text)
    return ("must be a valid IP address",) if found is None else tuple(reserved_errors(found))


def parse_cidr(text: str) -> Network | None:
    """The range that a strictly written CIDR text is, else None."""
    return None if cidr_errors(text) else ipaddress.ip_network(text)


def cidr_errors(text: str) -> list[str]:
    """What is wrong with a CIDR (SVC-40)."""
    base, slash, prefix = text.partition("/")
    found = parse_leniently(base)
    if found is None or not slash or not prefix.isascii() or not prefix.isdigit() or len(prefix) > 4:
        return [NOT_A_CIDR]
    width = 128 if ":" in base else 32
    if int(prefix) > width:
        return [NOT_A_CIDR]
    if without_zeros(base) != base or (len(prefix) > 1 and prefix.startswith("0")):
        return ["must not have leading 0s in IP or prefix length"]
    if ":" in base and found.version == 4:
        return ["must not have an IPv4-mapped IPv6 address"]
    if int(found) & ((1 << (width - int(prefix))) - 1):
        return ["must not have bits set beyond the prefix length"]
    return []


def canonical_cidr_errors(text: str) -> list[str]:
    """What is wrong with a CIDR that must stand in canonical form (CIDR-3)."""
    if texts := cidr_errors(text):
        return texts
    form = str(ipaddress.ip_network(text))
    return [] if form == text else [f'must be in canonical form ("{form}")']


def warning(path: str, text: str) -> str:
    """The warning for a valid IPv6 text that is not canonical; "" if there is none (SVC-45)."""
    found = parse(text)
    if found is None or found.version == 4 or str(found) == text:
        return ""
    return f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{found}")'


def endpoint_text(address: str, port: int) -> str:
    """`address:port`, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def cidr_warning(path: str, text: str) -> str:
    """As `warning`, for a range."""
    found = parse_cidr(text)
    if found is None or found.version == 4 or str(found) == text:
        return ""
    return f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{found}")'
