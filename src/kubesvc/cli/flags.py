"""What the values of options may be: parsers for argparse, whose errors say what was found and what is allowed."""

from __future__ import annotations

import argparse
import ipaddress
import re


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 0 or more")
    return int(text)


def mirror(text: str) -> tuple[str, str]:
    """A registry, and the base address to ask instead of it."""
    registry, _, url = text.partition("=")
    if not registry or "/" in registry or not re.fullmatch(r"https?://[^/\s]+/?", url):
        raise argparse.ArgumentTypeError(f"{text!r}: must be REGISTRY=URL, such as docker.io=http://127.0.0.1:5000")
    return registry, url


def duration(text: str) -> float:
    """Seconds of a duration as upstream's flags have them: 50s, 1m30s, 500ms."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a duration such as 50s or 1m30s")
    return sum(float(number) * units[unit] for number, unit in parts)


def seconds(text: str) -> float:
    """Seconds, as a number or as a duration: 2.5, 15s, 1m."""
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else duration(text)


def issuer(text: str) -> str:
    """A name for tokens, as upstream takes it: a text, or with a colon a URL."""
    if not text or (":" in text and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f]+", text)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a URL such as https://kubernetes.default.svc")
    return text


def token_life(text: str) -> int:
    """Seconds that a token may live at most."""
    seconds = duration(text) if text != "0" else 0.0
    if seconds and not 3600 <= seconds <= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r}: must be from 1h to 2^32 seconds")
    return int(seconds)


MODES = ("AlwaysAllow", "Node", "RBAC")


def modes(text: str) -> str:
    """Authorization modes; an unknown one must never mean that everybody may do everything."""
    unknown = [mode for mode in comma(text) if mode not in MODES]
    if unknown or not set(comma(text)) - {"Node"}:
        raise argparse.ArgumentTypeError(f"{text!r}: must be of {', '.join(MODES)}, and not Node alone")
    return text


def port(text: str) -> int:
    number = count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be from 0 to 65535")
    return number


def address(text: str) -> str:
    """An IP address; none stays none."""
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def bind_address(text: str) -> str:
    """One address of this machine; a wildcard would name no place to join."""
    found = address(text)
    if found and ipaddress.ip_address(found).is_unspecified:
        raise argparse.ArgumentTypeError(f"{text}: must be one address of this machine, which others reach")
    return found


def networks(text: str) -> tuple[str, ...]:
    """One or two networks, of different families."""
    found = comma(text)
    try:
        families = [ipaddress.ip_network(part).version for part in found]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not 1 <= len(found) <= 2 or len(set(families)) != len(families):
        raise argparse.ArgumentTypeError(f"{text!r}: must be one network, or one of each family")
    return found


def pool(text: str) -> tuple[str, ...]:
    """Networks whose addresses are given to load balancers, one or two of different families. On the host each of them
    has a loopback network of 16 bits."""
    if text == "none":
        return ()
    found = networks(text)
    for part in found:
        network = ipaddress.ip_network(part)
        if network.max_prefixlen - network.prefixlen > 16:
            most = network.max_prefixlen - 16
            raise argparse.ArgumentTypeError(f"{part!r}: must be a /{most} or smaller")
    return found


def comma(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be true or false")
    return text == "true"


def port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not dash or not first.isdigit() or not last.isdigit() or not 1 <= int(first) <= int(last) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: must be FIRST-LAST, ports from 1 to 65535")
    return int(first), int(last)
