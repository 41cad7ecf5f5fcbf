"""What a node's process writes down about its proxy, for `kubesvc status` and `kubesvc doctor`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .wholefile import replace_file

PROXY_REPORT = "proxy.json"
SERVICE_PORTS = "service-ports.json"
"""In userspace mode: which loopback port stands for which address of a Service."""


class ProxyReport(msgspec.Struct, frozen=True):
    """How the node steers packets, and why so; mode "": not at all.

    refused: Services whose rules the kernel will not have, by `family namespace/name`, with what it said
    crowded: that the node's table of connections is full, or nearly; "" if it has room
    """

    mode: str
    why: str
    refused: dict[str, str] = {}
    crowded: str = ""


def write_report(path: Path, report: ProxyReport) -> None:
    """Replace the file whole."""
    replace_file(path, msgspec.json.encode(report))


def read_report(node: Path) -> ProxyReport | None:
    """What the node in this state directory says; None if it has said nothing yet."""
    try:
        return msgspec.json.decode((node / PROXY_REPORT).read_bytes(), type=ProxyReport)
    except (OSError, msgspec.DecodeError):
        return None


def read_ports(node: Path) -> list[dict[str, str]]:
    """The loopback ports of userspace mode, as the file lists them; none in the other modes."""
    try:
        found = msgspec.json.decode((node / SERVICE_PORTS).read_bytes())
        return [f for f in found["fronts"] if isinstance(f, dict)]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return []
