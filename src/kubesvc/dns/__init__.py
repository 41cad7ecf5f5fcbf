"""Cluster DNS: names of Services, endpoints and Pods, answered from caches over UDP and TCP."""

from .forward import ForwardSettings, UpstreamForwarder, upstreams_of
from .records import Answer, Zone, answer_for
from .server import DnsServer, DnsSettings
from .snapshot import Snapshot

__all__ = [
    "Answer", "DnsServer", "DnsSettings", "ForwardSettings", "Snapshot", "UpstreamForwarder", "Zone", "answer_for",
    "upstreams_of",
]  # fmt: skip
