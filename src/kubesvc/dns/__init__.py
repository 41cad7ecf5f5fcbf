"""Cluster DNS: names of Services, endpoints and Pods, answered from caches over UDP and TCP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .forward import ForwardSettings, UpstreamForwarder, upstreams_of
    from .records import Answer, Zone, answer_for
    from .server import DnsServer, DnsSettings
    from .snapshot import Snapshot

HOMES = {
    "ForwardSettings": "forward",
    "UpstreamForwarder": "forward",
    "upstreams_of": "forward",
    "Answer": "records",
    "Zone": "records",
    "answer_for": "records",
    "DnsServer": "server",
    "DnsSettings": "server",
    "Snapshot": "snapshot",
}
"""The module of each name, loaded when it is first asked for: who wants one plan needs no kernel and no sockets."""

__all__ = [
    "Answer", "DnsServer", "DnsSettings", "ForwardSettings", "Snapshot", "UpstreamForwarder", "Zone", "answer_for",
    "upstreams_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
