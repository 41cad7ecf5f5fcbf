"""The formats that schemas of custom kinds may ask texts for; any other word means nothing, as upstream."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from urllib.parse import urlsplit

HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?)*\.?"
)
EMAIL = re.compile(r"[^\s@<>\",;:\\()\[\]]+@[^\s@<>\",;:\\()\[\]]+")
UUID = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")
UUID3 = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?3[0-9a-fA-F]{3}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")
UUID4 = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?4[0-9a-fA-F]{3}-?[89abAB][0-9a-fA-F]{3}-?[0-9a-fA-F]{12}")
UUID5 = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?5[0-9a-fA-F]{3}-?[89abAB][0-9a-fA-F]{3}-?[0-9a-fA-F]{12}")
MAC = re.compile(r"([0-9a-fA-F]{2}([:-]))(?:[0-9a-fA-F]{2}\2){4}(?:[0-9a-fA-F]{2}\2[0-9a-fA-F]{2}\2)?[0-9a-fA-F]{2}")
DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")
LONG_DURATION = re.compile(
    r"(?:\d+\s*(?:ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|sec|secs|seconds?|"
    r"m|min|mins|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*)+"
)
DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[-+]\d{2}:?\d{2})?")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def is_cidr(text: str) -> bool:
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit():
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "%" not in address


def is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == 10


def is_date_time(text: str) -> bool:
    if not DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19].upper())
    except ValueError:
        return False
    return True


def is_uri(text: str) -> bool:
    if not text or any(c.isspace() or not c.isprintable() for c in text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def digits_of(text: str) -> str:
    return re.sub(r"[\s-]", "", text)


def is_isbn10(text: str) -> bool:
    found = digits_of(text)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", found):
        return False
    return sum((i + 1) * (10 if c == "X" else int(c)) for i, c in enumerate(found)) % 11 == 0


def is_isbn13(text: str) -> bool:
    found = digits_of(text)
    if not re.fullmatch(r"[0-9]{13}", found):
        return False
    return sum((3 if i % 2 else 1) * int(c) for i, c in enumerate(found)) % 10 == 0


def is_credit_card(text: str) -> bool:
    found = re.sub(r"[^0-9]", "", text)
    if not 12 <= len(found) <= 19:
        return False
    total = 0
    for i, c in enumerate(reversed(found)):
        n = int(c) * (2 if i % 2 else 1)
        total += n - 9 if n > 9 else n
    return total % 10 == 0


def by(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "bsonobjectid": by(re.compile(r"[0-9a-fA-F]{24}")),
    "byte": is_base64,
    "cidr": is_cidr,
    "creditcard": is_credit_card,
    "date": is_date,
    "date-time": is_date_time,
    "datetime": is_date_time,
    "duration": lambda text: bool(DURATION.fullmatch(text) or LONG_DURATION.fullmatch(text)),
    "email": by(EMAIL),
    "hexcolor": by(re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")),
    "hostname": by(HOSTNAME),
    "ipv4": lambda text: is_ip(text, 4),
    "ipv6": lambda text: is_ip(text, 6),
    "isbn": lambda text: is_isbn10(text) or is_isbn13(text),
    "isbn10": is_isbn10,
    "isbn13": is_isbn13,
    "k8s-long-name": lambda text: len(text) <= 253 and all(LABEL.fullmatch(p) for p in text.split(".")),
    "k8s-short-name": by(LABEL),
    "mac": by(MAC),
    "password": lambda _: True,
    "rgbcolor": by(re.compile(r"rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)")),
    "ssn": by(re.compile(r"\d{3}[- ]?\d{2}[- ]?\d{4}")),
    "uri": is_uri,
    "uuid": by(UUID),
    "uuid3": by(UUID3),
    "uuid4": by(UUID4),
    "uuid5": by(UUID5),
}
"""By name: whether a text is of the format."""
