"""The registry: every kind that is stored and served, by constant, by resource and by name."""

from __future__ import annotations

from .configmap import CONFIG_MAP
from .deployment import DEPLOYMENT
from .endpoints import ENDPOINTS
from .endpointslice import ENDPOINT_SLICE
from .event import EVENT, EVENTS_EVENT
from .ipaddress import IP_ADDRESS
from .kind import Kind
from .lease import LEASE
from .namespace import NAMESPACE
from .node import NODE
from .pod import POD
from .replicaset import REPLICA_SET
from .secret import SECRET
from .service import SERVICE
from .serviceaccount import SERVICE_ACCOUNT
from .servicecidr import SERVICE_CIDR

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "EVENTS_EVENT",
    "IP_ADDRESS",
    "KINDS",
    "LEASE",
    "NAMESPACE",
    "NODE",
    "POD",
    "REPLICA_SET",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "SERVICE_CIDR",
    "by_kind",
    "by_resource",
]

KINDS: tuple[Kind, ...] = (
    CONFIG_MAP,
    ENDPOINTS,
    EVENT,
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    DEPLOYMENT,
    REPLICA_SET,
    LEASE,
    ENDPOINT_SLICE,
    EVENTS_EVENT,
    IP_ADDRESS,
    SERVICE_CIDR,
)
"""Every kind, core first."""

BY_RESOURCE = {(k.group, k.version, k.plural): k for k in KINDS}
BY_KIND = {(k.api_version, k.name): k for k in KINDS}


def by_resource(group: str, version: str, plural: str) -> Kind | None:
    """The kind at `/apis/<group>/<version>/<plural>`; the core group is ""."""
    return BY_RESOURCE.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Kind | None:
    """The kind that an object's own words name, such as ("apps/v1", "Deployment")."""
    return BY_KIND.get((api_version, kind))
