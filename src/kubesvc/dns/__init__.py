"""Cluster DNS: names of Services, endpoints and Pods, answered from caches over UDP and TCP."""

from .records import Answer, Zone, answer_for
from .server import DnsServer, DnsSettings
from .snapshot import Snapshot

__all__ = ["Answer", "DnsServer", "DnsSettings", "Snapshot", "Zone", "answer_for"]
