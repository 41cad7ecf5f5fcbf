"""Hints: which zone's, or node's, traffic an endpoint is meant for (TOPO-1 to TOPO-10). Pure but for `Hinted`.

`with_distribution` follows spec.trafficDistribution, `with_allocation` shares endpoints between zones by their CPUs
(topology mode Auto), `without_hints` removes what is left over. Each takes a slice plan and returns one in which
unchanged slices whose hints are wrong have become updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import msgspec

from kubesvc.api.endpointslice import Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone
from kubesvc.api.node import Node
from kubesvc.api.service import Service
from kubesvc.client.events import EventSeverity
from kubesvc.client.workqueue import Key

from .slice_plan import SlicePlan

ZONE_LABEL = "topology.kubernetes.io/zone"
HINTS_ANNOTATION = "service.kubernetes.io/topology-aware-hints"
MODE_ANNOTATION = "service.kubernetes.io/topology-mode"
EXCLUDED_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
OVERLOAD = 1.2
"""How much more than its share an endpoint may get before hints are given up (TOPO-7)."""
PREFER_ZONE = ("PreferSameZone", "PreferClose")
PREFER_NODE = "PreferSameNode"

DISABLED, ENABLED = "TopologyAwareHintsDisabled", "TopologyAwareHintsEnabled"
INSUFFICIENT_NODES = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
INSUFFICIENT_ENDPOINTS = "Insufficient number of endpoints"
MINIMUM_EXCEEDS = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
NO_ZONE = "One or more endpoints do not have a zone specified"
NO_HINTS = "No hints allocated for zones"
SWITCHED_ON = "Topology Aware Hints has been enabled"


@dataclass(frozen=True, slots=True)
class Note:
    """An event to be recorded on the Service."""

    severity: EventSeverity
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """How many ready endpoints a zone should, must and may get."""

    minimum: int
    maximum: int
    desired: float


Counts = dict[str, int]
Change = Callable[[Endpoint], EndpointHints | None]


def auto_mode(service: Service) -> bool:
    """Whether hints are shared out by CPU (TOPO-1)."""
    annotations = service.metadata.annotations or {}
    value = annotations.get(HINTS_ANNOTATION, annotations.get(MODE_ANNOTATION, ""))
    return value in ("Auto", "auto")


# ---------------------------------------------------------------- traffic distribution


def with_distribution(plan: SlicePlan, distribution: str | None) -> SlicePlan:
    """Every ready endpoint is meant for its own zone, or node, or nobody in particular (TOPO-2 to TOPO-5)."""
    if distribution in PREFER_ZONE:
        return hinted(plan, zone_hints)
    if distribution == PREFER_NODE:
        return hinted(plan, node_hints)
    return without_hints(plan)


def zone_hints(endpoint: Endpoint) -> EndpointHints | None:
    return for_zone(endpoint.zone) if endpoint.ready and endpoint.zone else None


def node_hints(endpoint: Endpoint) -> EndpointHints | None:
    if not endpoint.ready or not (endpoint.zone or endpoint.node_name):
        return None
    return EndpointHints(
        for_zones=[ForZone(name=endpoint.zone)] if endpoint.zone else None,
        for_nodes=[ForNode(name=endpoint.node_name)] if endpoint.node_name else None,
    )


@lru_cache(maxsize=1024)
def for_zone(zone: str) -> EndpointHints:
    return EndpointHints(for_zones=[ForZone(name=zone)])


def without_hints(plan: SlicePlan) -> SlicePlan:
    """No endpoint carries a hint (TOPO-5, TOPO-9)."""
    return hinted(plan, lambda _: None)


def hinted(plan: SlicePlan, hints: Change) -> SlicePlan:
    """Lay these hints over all slices of a plan."""
    unchanged, fixed = [], []
    for s in plan.unchanged:
        after = rehinted(s, hints)
        if after is s:
            unchanged.append(s)
        else:
            fixed.append(after)
    create = [rehinted(s, hints) for s in plan.create]
    update = [rehinted(s, hints) for s in plan.update]
    return replace(plan, create=create, update=update + fixed, unchanged=unchanged)


def rehinted(s: EndpointSlice, hints: Change) -> EndpointSlice:
    """The slice with these hints; the very same one if it has them already."""
    before = s.endpoints or ()
    after = [e if e.hints == (wanted := hints(e)) else msgspec.structs.replace(e, hints=wanted) for e in before]
    return s if all(a is b for a, b in zip(after, before, strict=True)) else msgspec.structs.replace(s, endpoints=after)


# ---------------------------------------------------------------- nodes


def zone_shares(nodes: Iterable[Node]) -> dict[str, float]:
    """Each zone's part of the CPUs of counted nodes, sorted by zone; {} if the nodes do not tell enough (TOPO-6)."""
    millis: Counts = {}
    for node in nodes:
        labels = node.metadata.labels or {}
        if any(label in labels for label in EXCLUDED_LABELS) or not node.ready:
            continue
        zone = labels.get(ZONE_LABEL, "")
        cpu = milli_cpus((node.status.allocatable or {}).get("cpu"))
        if not zone or cpu <= 0:
            return {}
        millis[zone] = millis.get(zone, 0) + cpu
    total = sum(millis.values())
    if len(millis) < 2 or total <= 0:
        return {}
    return {zone: millis[zone] / total for zone in sorted(millis)}


SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1024.0, "Mi": 1024.0**2}


def milli_cpus(quantity: str | int | float | None) -> int:
    """A CPU quantity in thousandths, rounded up; 0 for none or what is no quantity."""
    if quantity is None:
        return 0
    text = str(quantity).strip()
    number = text.rstrip("".join(set("".join(SUFFIXES))))
    try:
        return math.ceil(round(float(number) * SUFFIXES[text[len(number) :]] * 1000, 6))
    except (ValueError, KeyError, OverflowError):
        return 0


# ---------------------------------------------------------------- topology mode Auto


def allocations(shares: Mapping[str, float], endpoints: int) -> dict[str, Allocation] | Note:
    """What each zone gets of so many ready endpoints, or why nobody gets any (TOPO-7)."""
    zones = len(shares)
    counted = f"({endpoints} endpoints, {zones} zones)"
    if zones < 2:
        return disabled(INSUFFICIENT_NODES)
    if zones > endpoints:
        return disabled(f"{INSUFFICIENT_ENDPOINTS} {counted}")
    desired = {zone: share * endpoints for zone, share in shares.items()}
    minimum = {zone: math.ceil(count * (1 / OVERLOAD)) for zone, count in desired.items()}
    spare = endpoints - sum(minimum.values())
    if spare < 0:
        return disabled(f"{MINIMUM_EXCEEDS} {counted}")
    return {
        zone: Allocation(minimum[zone], minimum[zone] + spare, max(desired[zone], float(minimum[zone])))
        for zone in shares
    }


def disabled(message: str) -> Note:
    return Note("Warning", DISABLED, message)


def with_allocation(plan: SlicePlan, shares: Mapping[str, float]) -> tuple[SlicePlan, Counts | Note]:
    """Share the ready endpoints between zones (TOPO-8); with the hints per zone, or why there are none (TOPO-9).

    Unchanged slices whose hints still fit stay as they are; the others are written anew.
    """
    slices = (*plan.create, *plan.update, *plan.unchanged)
    ready = sum(e.ready for s in slices for e in s.endpoints or ())
    wanted = allocations(shares, ready)
    if isinstance(wanted, Note):
        return without_hints(plan), wanted
    given: Counts = {}
    fitting: list[EndpointSlice] = []
    stale: list[EndpointSlice] = []
    for s in plan.unchanged:
        counts = fitting_hints(s, given, wanted)
        if counts is None:
            stale.append(s)
        else:
            fitting.append(s)
            for zone, count in counts.items():
                given[zone] = given.get(zone, 0) + count
    open_slices = [*plan.create, *plan.update, *stale]
    open_ready = [e for s in open_slices for e in s.endpoints or () if e.ready]
    if any(not e.zone for e in open_ready):
        return without_hints(plan), disabled(NO_ZONE)
    for e in open_ready:
        given[e.zone or ""] = given.get(e.zone or "", 0) + 1
    gifts, needs = transfers(wanted, given)
    moved = moves(open_ready, gifts, needs)
    for index, zone in moved.items():
        from_zone = open_ready[index].zone or ""
        given[from_zone] -= 1
        given[zone] = given.get(zone, 0) + 1
    if not given:
        return without_hints(plan), disabled(NO_HINTS)
    result = lay_out(plan, fitting, stale, moved)
    return result, given


def fitting_hints(s: EndpointSlice, given: Mapping[str, int], wanted: Mapping[str, Allocation]) -> Counts | None:
    """Hints of an unchanged slice by zone; None if one is missing, names a zone without share, or is too many."""
    counts: Counts = {}
    for e in s.endpoints or ():
        if not e.ready:
            if e.hints is not None:
                return None  # TOPO-4
            continue
        zones = [z.name for z in (e.hints.for_zones if e.hints else None) or ()]
        if not zones or any(zone not in wanted for zone in zones):
            return None
        for zone in zones:
            counts[zone] = counts.get(zone, 0) + 1
    for zone, count in counts.items():
        if zone in given and count + given[zone] > wanted[zone].maximum:
            return None
    return counts


def transfers(wanted: Mapping[str, Allocation], given: Mapping[str, int]) -> tuple[Counts, Counts]:
    """How many endpoints each zone gives away, and how many each one gets, the largest need first."""
    over: dict[str, float] = {}
    under: dict[str, float] = {}
    for zone, allocation in wanted.items():
        have = given.get(zone, 0)
        (over if have > allocation.desired else under)[zone] = abs(have - allocation.desired)
    gifts: Counts = {}
    needs: Counts = {}
    while over and under:
        giver, receiver = most(over), most(under)
        surplus, need = over[giver], under[receiver]
        if surplus < 0.5 or need < 0.5 or (surplus < 1 and need < 1):
            break
        gifts[giver] = gifts.get(giver, 0) + 1
        needs[receiver] = needs.get(receiver, 0) + 1
        over[giver] -= 1
        under[receiver] -= 1
    return gifts, needs


def most(amounts: Mapping[str, float]) -> str:
    """The zone with the largest amount, the first by name among equals."""
    return min(amounts, key=lambda zone: (-amounts[zone], zone))


def moves(ready: Sequence[Endpoint], gifts: Counts, needs: Counts) -> dict[int, str]:
    """Which endpoints, by position, are hinted to which other zone."""
    moved: dict[int, str] = {}
    for index, endpoint in enumerate(ready):
        if not gifts or not needs:
            break
        zone = endpoint.zone or ""
        if not gifts.get(zone):
            continue
        receiver = min(needs)
        moved[index] = receiver
        for counts, name in ((gifts, zone), (needs, receiver)):
            counts[name] -= 1
            if not counts[name]:
                del counts[name]
    return moved


def lay_out(
    plan: SlicePlan, fitting: list[EndpointSlice], stale: list[EndpointSlice], moved: Mapping[int, str]
) -> SlicePlan:
    """The plan with the hints of all open slices set; `moved` counts their ready endpoints through in order."""
    position = -1

    def hint(endpoint: Endpoint) -> EndpointHints | None:
        nonlocal position
        if not endpoint.ready:
            return None
        position += 1
        return for_zone(moved.get(position) or endpoint.zone or "")

    create = [rehinted(s, hint) for s in plan.create]
    update = [rehinted(s, hint) for s in (*plan.update, *stale)]
    return replace(plan, create=create, update=update, unchanged=fitting)


def overloaded(given: Mapping[str, int], shares: Mapping[str, float]) -> bool:
    """Whether these hints leave a zone with fewer endpoints than it must have now that nodes changed."""
    total = sum(given.values())
    return any(given.get(zone, -1) < math.ceil(total * share * (1 / OVERLOAD)) for zone, share in shares.items())


@dataclass(slots=True)
class Hinted:
    """Remembers which Services have hints by allocation, to tell when they begin and when nodes outdate them."""

    counts: dict[Key, dict[str, Counts]] = field(default_factory=dict)

    def learn(self, key: Key, address_type: str, result: Counts | Note) -> Note | None:
        """Take in a result of `with_allocation`; the event to record, if any."""
        text = f", addressType: {address_type}"
        if isinstance(result, Note):
            self.forget(key, address_type)
            return Note(result.severity, result.reason, result.message + text)
        before = any(self.counts.get(key, {}).values())
        self.counts.setdefault(key, {})[address_type] = dict(result)
        return None if before else Note("Normal", ENABLED, SWITCHED_ON + text)

    def forget(self, key: Key, address_type: str = "") -> None:
        """No hints by allocation any more, of one address type or of all."""
        if not address_type:
            self.counts.pop(key, None)
        elif key in self.counts:
            self.counts[key].pop(address_type, None)
            if not self.counts[key]:
                del self.counts[key]

    def overloaded(self, shares: Mapping[str, float]) -> list[Key]:
        """Services to look at again after nodes changed, sorted."""
        if not shares:
            return []
        return sorted(
            key for key, counts in self.counts.items() if any(overloaded(given, shares) for given in counts.values())
        )
