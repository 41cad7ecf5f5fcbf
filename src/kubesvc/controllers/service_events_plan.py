"""What happened to the list of a Service's endpoints, and why: who joined, who left, by which change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.pod import Pod
from kubesvc.api.selectors import equality_selector
from kubesvc.api.service import Service
from kubesvc.client.events import EventSeverity

NAMED = 3
"""So many addresses are named in one Event; more are counted."""


Change = Literal["readiness", "labels", "made", "selector", "ports", "unready"]
"""What may make an address join: of its Pod the first two, of the Service the others."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One address that takes new traffic; `pod` and `node` are "" where the slice does not say."""

    address: str
    pod: str = ""
    node: str = ""


class Moved(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address that joined or left, as the journal keeps it.

    at:        when the slice that says so was seen, Unix seconds
    status_at: when the change of the Pod, or of the Service, was seen that led to it, 0 if none was
    revision:  of that slice
    """

    at: float
    namespace: str
    service: str
    what: str
    address: str
    cause: str
    pod: str = ""
    node: str = ""
    status_at: float = 0.0
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """One Event about the Service."""

    severity: EventSeverity
    reason: str
    message: str


def listed_in(slices: Iterable[EndpointSlice]) -> dict[str, Listed]:
    """The ready addresses of a Service by address; one that several slices list counts once."""
    found: dict[str, Listed] = {}
    for s in sorted(slices, key=lambda s: s.name):
        for e in s.endpoints or ():
            if e.ready and e.address:
                pod = e.target_ref.name if e.target_ref and e.target_ref.kind == "Pod" else ""
                found[e.address] = Listed(e.address, pod, e.node_name or "")
    return dict(sorted(found.items()))


def moves(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> tuple[list[Listed], list[Listed]]:
    """(joined, left). An address that went from one Pod to another has left and joined."""
    joined = [x for a, x in after.items() if a not in before or before[a].pod != x.pod]
    left = [x for a, x in before.items() if a not in after or after[a].pod != x.pod]
    return joined, left


def change_of_service(old: Service | None, new: Service) -> Change | None:
    """What a new version of a Service changes for its endpoints, if anything."""
    if old is None:
        return "made"
    if old.spec.selector != new.spec.selector:
        return "selector"
    if old.spec.ports != new.spec.ports:
        return "ports"
    return "unready" if old.spec.publish_not_ready_addresses != new.spec.publish_not_ready_addresses else None


def why_joined(entry: Listed, pod: Pod | None, service: Service, change: Change = "readiness") -> str:
    """The cause, from the last change that was seen of the Service or the Pod."""
    if not entry.pod:
        return "listed by hand"
    name, who = f"pod/{entry.pod}", f"svc/{service.name}"
    if pod is not None and not pod.ready:
        return f"{name} is listed though it is not Ready"
    if change == "made":
        return f"{who} was made and selects {name}"
    if change == "selector":
        return f"{who} has another selector, which {name} matches"
    if change == "ports":
        return f"{who} has other ports, which {name} serves"
    if change == "labels":
        return f"{name} has other labels, which the selector matches"
    return f"{name} is Ready"


def why_left(entry: Listed, pod: Pod | None, service: Service) -> str:
    """The cause, from what the Pod is now; it is at least as new as the slice."""
    name = f"pod/{entry.pod}"
    if not entry.pod:
        return "taken off the list"
    if pod is None:
        return f"{name} is gone"
    if pod.terminating:
        return f"{name} is being deleted"
    if pod.terminal:
        return f"{name} has run to its end ({pod.status.phase})"
    selector = service.spec.selector or {}
    if selector and not equality_selector(selector).matches(pod.metadata.labels):
        return f"{name} does not match the selector any more"
    if not pod.ready:
        condition = pod.status.condition("Ready")
        said = (condition.message or condition.reason) if condition else ""
        return f"{name} is not Ready" + (f": {said}" if said else "")
    if entry.address not in pod.ips:
        return f"{name} has another address now"
    return f"{name} is not listed for the Service's ports any more"


def plan_events(
    before: Mapping[str, Listed],
    after: Mapping[str, Listed],
    joined: Sequence[tuple[Listed, str]],
    left: Sequence[tuple[Listed, str]],
) -> list[Told]:
    """The Events for one change: whether the list became empty or is empty no more, else who joined and left."""
    told = []
    if left and not after:
        told.append(Told("Warning", "NoEndpoints", f"No endpoint is left: {render(left)}"))
    elif left:
        told.append(Told("Normal", "EndpointLeft", f"{render(left)}; {count(len(after))} left"))
    if joined and not before:
        told.append(Told("Normal", "EndpointsFilled", f"There are endpoints now: {render(joined)}"))
    elif joined:
        told.append(Told("Normal", "EndpointJoined", f"{render(joined)}; {count(len(after))} now"))
    return told


def render(entries: Sequence[tuple[Listed, str]]) -> str:
    """`10.244.1.2 (pod/web-1 is Ready), … and 4 more`."""
    shown = ", ".join(f"{e.address} ({why})" for e, why in entries[:NAMED])
    return shown + (f" and {len(entries) - NAMED} more" if len(entries) > NAMED else "")


def count(number: int) -> str:
    return f"{number} endpoint" + ("" if number == 1 else "s")
