"""What an API server can be told, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_BODY_BYTES = 3 * 1024 * 1024
"""Largest request body (WRITE-11)."""


DEFAULT_ISSUERS = ("https://kubernetes.default.svc",)


@dataclass(frozen=True, slots=True)
class ApiServerSettings:
    """Every knob of the API server; the defaults serve one instance on one machine.

    service_ranges:       one or two CIDRs, the primary family first
    node_ports:           first and last node port, inclusive
    advertise_address:    the address written into Endpoints and slice `kubernetes` (KSVC-3)
    advertise_port:       its port; 0 means the port of the first TLS listener
    authorization:        modes that are asked in turn, separated by commas: AlwaysAllow, Node, RBAC
    token_file:           path of a `token,user,uid,"group1,group2"` file, "" for none
    anonymous_auth:       whether requests without credentials get past authentication everywhere; without it only
                          health and version paths are open to them (HEALTH-1, HEALTH-2)
    admin_token:          one more token that acts as `system:masters`, "" for none
    enabled_admission:    names of admission plugins that are off by default, e.g. "DenyServiceExternalIPs"
    disabled_admission:   names of admission plugins left out, e.g. "ServiceAccount"
    history_seconds:      how long old revisions stay readable before they are compacted (LIST-6, WATCH-10)
    history_events:       most events kept per kind for watches that resume
    watch_buffer_events:  most events waiting for one watcher before it is cut off (WATCH-18)
    readers_in_flight:    most reading requests under way at once, 0 for no limit
    writers_in_flight:    most writing requests under way at once, 0 for no limit
    audit_log:            path of the audit log, "" for none
    audit_level:          how much is told of a request, where no policy says so
    audit_policy:         path of an audit policy, "" for none
    audit_log_max_size, audit_log_max_backup, audit_log_max_age:
                          mebibytes of an audit log that is put aside for a new one (0: 100), how many of these are kept
                          (0: all), and for how many days (0: for ever)
    service_account_issuers:
                          whose name service account tokens carry, and further ones whose tokens are taken
    most_token_seconds:   the longest life of a token that is asked for, 0 for what the protocol can say
    event_ttl_seconds:    age at which Events vanish (EVENT-2)
    """

    service_ranges: tuple[str, ...] = ("10.96.0.0/16",)
    node_ports: tuple[int, int] = (30000, 32767)
    advertise_address: str = "172.30.0.1"
    advertise_port: int = 0
    authorization: str = "AlwaysAllow"
    token_file: str = ""
    admin_token: str = ""
    anonymous_auth: bool = False
    enabled_admission: frozenset[str] = frozenset()
    disabled_admission: frozenset[str] = frozenset()
    history_seconds: float = 300.0
    history_events: int = 50_000
    watch_buffer_events: int = 20_000
    bookmark_seconds: float = 60.0
    readers_in_flight: int = 400
    writers_in_flight: int = 200
    audit_log: str = ""
    audit_level: Literal["Metadata", "Request", "RequestResponse"] = "Metadata"
    audit_policy: str = ""
    audit_log_max_size: int = 0
    audit_log_max_backup: int = 0
    audit_log_max_age: int = 0
    event_ttl_seconds: float = 3600.0
    bootstrap: bool = True
    """Whether to make the system namespaces, the default ServiceCIDR and Service `kubernetes`."""
    service_account_issuers: tuple[str, ...] = DEFAULT_ISSUERS
    most_token_seconds: int = 0

    @property
    def authorization_modes(self) -> tuple[str, ...]:
        return tuple(mode for mode in self.authorization.split(",") if mode)

    @property
    def families(self) -> tuple[str, ...]:
        """Address families of the service ranges, the primary first."""
        return tuple("IPv6" if ":" in r else "IPv4" for r in self.service_ranges)
