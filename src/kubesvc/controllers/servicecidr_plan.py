"""When a ServiceCIDR may go: once every address in it is covered by another one (CIDR-5). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubesvc.api import addresses
from kubesvc.api.addresses import Network
from kubesvc.api.ipaddress import IPAddress
from kubesvc.api.servicecidr import FINALIZER, ServiceCIDR

READY = "Ready"
READY_MESSAGE = "Kubernetes Service CIDR is ready"
TERMINATING_MESSAGE = (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)
GRACE_SECONDS = 10.0
"""How long a deleted range is kept: API servers that have not seen the deletion may still allocate from it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: add or drop the finalizer, set Ready to a status, look again after so many seconds."""

    hold: bool = False
    release: bool = False
    ready: str = ""
    reason: str = ""
    message: str = ""
    again_seconds: float | None = None


def networks_of(cidr: ServiceCIDR) -> list[Network]:
    """Its ranges; unreadable texts are left out."""
    return [n for n in map(addresses.parse_cidr, cidr.spec.cidrs or ()) if n is not None]


def covers(cidr: ServiceCIDR, address: IPAddress) -> bool:
    """Whether the address lies in one of the ranges."""
    parsed = addresses.parse_leniently(address.name)
    return parsed is not None and any(parsed.version == n.version and parsed in n for n in networks_of(cidr))


def overlaps(cidr: ServiceCIDR, other: ServiceCIDR) -> bool:
    """Whether an address may lie in both."""
    return any(a.version == b.version and a.overlaps(b) for a in networks_of(cidr) for b in networks_of(other))


def uncovered(cidr: ServiceCIDR, others: Sequence[ServiceCIDR], held: Iterable[IPAddress]) -> list[IPAddress]:
    """The addresses of this range that no other living range covers."""
    living = [c for c in others if c.name != cidr.name and c.metadata.deletion_timestamp is None]
    return [a for a in held if covers(cidr, a) and not any(covers(c, a) for c in living)]


def plan_step(
    cidr: ServiceCIDR, others: Sequence[ServiceCIDR], held: Iterable[IPAddress], since_deletion: float
) -> Step:
    """The next step for one range.

    others:         all ServiceCIDRs, this one perhaps among them
    since_deletion: seconds since its deletionTimestamp; looked at only if it has one
    """
    finalizers = cidr.metadata.finalizers or []
    ready = next((c for c in cidr.status.conditions or () if c.type == READY), None)
    if cidr.metadata.deletion_timestamp is None:
        good = ready is not None and ready.status == "True"
        return Step(
            hold=FINALIZER not in finalizers, ready="" if good else "True", message="" if good else READY_MESSAGE
        )
    if FINALIZER not in finalizers:
        return Step()
    if uncovered(cidr, others, held):
        if ready is not None and (ready.status, ready.reason) == ("False", "Terminating"):
            return Step()
        return Step(ready="False", reason="Terminating", message=TERMINATING_MESSAGE)
    if since_deletion < GRACE_SECONDS:
        return Step(again_seconds=GRACE_SECONDS - since_deletion)
    return Step(release=True)
