"""The picture of one Service: who leads to whom, and why an edge is grey. Pure.

A picture is a flat collection of items by id, so that two of them can be compared item by item and only what has
changed need be told. Its knowledge is that of `why`: the same plans, the same words.

    service ── slice/NAME ── pod/NAME ── rule/NAME ── traffic/NAME

A Pod that no slice lists hangs directly on the Service. Where nothing is listed at all, a `gap` stands in its place and
says why. Every edge is live, grey (nothing passes, and `reason` says why) or unknown (nobody can tell, and why).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from kubesvc.api.endpointslice import Endpoint, EndpointSlice
from kubesvc.api.service import Service
from kubesvc.why import reach
from kubesvc.why.commands import addressed
from kubesvc.why.diagnose import about, diagnose_service
from kubesvc.why.diagnosis import Diagnosis, Finding, PodReport
from kubesvc.why.ports import port_text
from kubesvc.why.snapshot import Snapshot

MOST_ROWS = 1000
"""Pods in one picture: those that are out first."""
MOST_PLACES = 20
"""Nodes whose own view is worked out where views differ; of further ones the picture says nothing."""
LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

EdgeState = Literal["live", "grey", "unknown"]
FlowKey = tuple[int, str, int, str, int]
"""Protocol number, address and port that a connection was sent to, address and port that answer."""


class Item(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", tag_field="kind"):
    """One thing of a picture."""


class FindingItem(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A cause, in the words of `why`."""

    code: str
    severity: str
    text: str
    command: str = ""
    repairs: bool = False
    seen: tuple[str, ...] = ()


class LinkItem(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One link of the chain."""

    name: str
    state: str
    text: str


class ServiceItem(Item, frozen=True, tag="service"):
    """The Service itself and the verdict about it."""

    name: str
    namespace: str
    type: str
    about: str
    address: str
    ports: tuple[str, ...]
    selector: tuple[str, ...]
    status: str
    verdict: str
    findings: tuple[FindingItem, ...] = ()
    chain: tuple[LinkItem, ...] = ()
    gaps: tuple[str, ...] = ()
    taking: int = 0
    pods: int = 0
    rules_on: tuple[str, ...] = ()
    """Nodes whose proxy has the rules, where that is known from the nodes themselves."""


class SliceItem(Item, frozen=True, tag="slice"):
    """One EndpointSlice."""

    name: str
    family: str
    ports: tuple[str, ...]
    ready: int
    total: int


class PodItem(Item, frozen=True, tag="pod"):
    """One Pod, or an endpoint that is none. state: ready, leaving (terminating, but may serve) or out."""

    name: str
    addresses: tuple[str, ...]
    node: str
    state: Literal["ready", "leaving", "out"]
    listed: bool = False
    finding: FindingItem | None = None


class RuleItem(Item, frozen=True, tag="rule"):
    """What the proxies make of one Pod: `80/TCP → 8080` for each port that leads to it.

    share: how many endpoints the first of these ports chooses from; 0 without rules
    only:  the nodes that choose it, where not all do
    """

    fronts: tuple[str, ...] = ()
    share: int = 0
    only: tuple[str, ...] = ()


class TrafficItem(Item, frozen=True, tag="traffic"):
    """Connections led to one Pod, or with the id `traffic` to the Service: so far, and per second now."""

    counted: bool
    total: int = 0
    rate: float = 0.0
    partial: bool = False
    """Whether there were more than could be counted."""


class GapItem(Item, frozen=True, tag="gap"):
    """Stands where Pods or slices should be."""

    text: str
    finding: FindingItem | None = None


class EdgeItem(Item, frozen=True, tag="edge"):
    """From one item to another. reason: why it is not live, with the code of the cause where there is one."""

    source: str
    target: str
    state: EdgeState
    reason: str = ""
    code: str = ""


class Summary(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One Service in the list of all."""

    name: str
    namespace: str
    type: str
    status: str
    verdict: str
    code: str = ""
    taking: int = 0
    pods: int = 0


Items = Mapping[str, Item]


@dataclass(frozen=True)
class Picture:
    """Items in order of display, and how connections are to be counted.

    fronts:  protocol number, address and port at which the Service is reached
    targets: address and port of an endpoint to the name of its row
    """

    items: Items
    fronts: frozenset[tuple[int, str, int]] = frozenset()
    targets: Mapping[tuple[str, int], str] = field(default_factory=dict)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that puts web-10 behind web-9."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


SINCE = re.compile(r" since \S+ \(\w+\)")


def brief(name: str, text: str) -> str:
    """A cause as it stands beside the Pod it is about: without its name, and without what changes every second."""
    return SINCE.sub("", text.removeprefix(f"pod/{name} "), count=1)


def finding_item(finding: Finding) -> FindingItem:
    f = finding
    return FindingItem(f.code, f.severity, f.text, f.command, f.repairs, f.seen)


def summary_of(service: Service, diagnosis: Diagnosis, snapshot: Snapshot) -> Summary:
    """The Service's line in the list of all."""
    d = diagnosis
    if not d.pods:
        listed = snapshot.slices.get((service.namespace, service.name), ())
        ready = {e.address: e.ready for s in listed for e in s.endpoints or ()}
        return Summary(
            service.name, service.namespace, service.spec.type, d.status, d.verdict, d.code, sum(ready.values()),
            len(ready),
        )  # fmt: skip
    return Summary(
        service.name, service.namespace, service.spec.type, d.status, d.verdict, d.code,
        sum(p.takes_traffic for p in d.pods), len(d.pods),
    )  # fmt: skip


# ---------------------------------------------------------------- rows


@dataclass
class Row:
    """A Pod, or an endpoint that is none, with everything that is known of it."""

    name: str
    addresses: list[str]
    node: str
    report: PodReport | None = None
    listed: list[tuple[EndpointSlice, Endpoint]] = field(default_factory=list)

    @property
    def taken(self) -> bool:
        return any(e.ready for _, e in self.listed)

    @property
    def reason(self) -> tuple[str, str]:
        """Why it takes no traffic, and the code of the cause; what the slices say where nothing more is known."""
        if self.report is not None and self.report.finding is not None:
            return brief(self.name, self.report.finding.text), self.report.finding.code
        if any(e.terminating for _, e in self.listed):
            return f"{self.name} is terminating", "EP306"
        if self.listed and not self.taken:
            return f"{self.name} is listed as not ready", ""
        return "", ""


def rows_of(service: Service, slices: Sequence[EndpointSlice], diagnosis: Diagnosis) -> list[Row]:
    """A row for each Pod that the selector matches and for each further endpoint of the slices."""
    rows = {r.name: Row(r.name, [r.address] if r.address else [], r.node, r) for r in diagnosis.pods}
    for s in slices:
        for e in s.endpoints or ():
            ref = e.target_ref
            name = ref.name if ref is not None and ref.kind == "Pod" and ref.name else e.address
            row = rows.get(name)
            if row is None:
                row = rows[name] = Row(name, [], e.node_name or "")
            row.listed.append((s, e))
            if e.address not in row.addresses:
                row.addresses.append(e.address)
    return sorted(rows.values(), key=lambda r: natural(r.name))


# ---------------------------------------------------------------- rules


class Target(Protocol):
    """An endpoint as the proxy's plan has it."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...


@dataclass
class Rules:
    """Which fronts lead to which address, from where, and out of how many endpoints."""

    fronts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By address: `80/TCP → 8080` to the number of endpoints it is chosen from."""
    places: dict[str, set[str]] = field(default_factory=dict)
    targets: list[tuple[str, int]] = field(default_factory=list)
    asked: tuple[str, ...] = ()


def rules_of(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> Rules:
    """The proxy's own plan for the Service: from one place where all see the same, else from every node."""
    rules = Rules()
    if service.headless or LABEL_PROXY_NAME in (service.metadata.labels or {}):
        return rules
    differ = "Local" in (service.spec.internal_traffic_policy, service.spec.external_traffic_policy) or any(
        e.hints for s in slices for e in s.endpoints or ()
    )
    names = tuple(sorted(snapshot.nodes, key=natural))[:MOST_PLACES] if differ else ()
    rules.asked = names
    targets: dict[tuple[str, int], None] = {}
    for name in names or ("",):
        for port in reach.planned_ports(service, slices, reach.place_of(snapshot.nodes.get(name))):
            chosen = port.internal_targets if not differ or port.internal_local else port.cluster
            listed: Iterable[Target] = dict.fromkeys((*chosen, *(port.local if port.external_local else ())))
            for t in listed:
                text = f"{port.port}/{port.name.protocol} → {t.port}"
                fronts = rules.fronts.setdefault(t.address, {})
                fronts[text] = max(fronts.get(text, 0), len(chosen) or 1)
                rules.places.setdefault(t.address, set()).add(name)
                targets[(t.address, t.port)] = None
    rules.targets = list(targets)
    return rules


def fronts_of(service: Service, snapshot: Snapshot) -> frozenset[tuple[int, str, int]]:
    """Where the Service is reached: its addresses and ports, and its node ports on every node."""
    spec = service.spec
    ingress = service.status.load_balancer.ingress or ()
    addresses = [a for a in (spec.cluster_ip, *(spec.cluster_ips or ()), *(spec.external_ips or ())) if a]
    addresses += [i.ip for i in ingress if i.ip]
    found = set()
    for port in spec.ports or ():
        number = PROTOCOLS.get(port.protocol or "TCP", 0)
        found |= {(number, a, port.port) for a in addresses if a != "None"}
        if port.node_port:
            for node in snapshot.nodes.values():
                found |= {(number, a.address, port.node_port) for a in node.status.addresses or ()}
    return frozenset(found)


# ---------------------------------------------------------------- the picture


def led_there(diagnosis: Diagnosis, kubectl: str) -> Diagnosis:
    """The diagnosis with commands that ask the right cluster wherever they are pasted."""
    if kubectl == "kubectl":
        return diagnosis

    def led(finding: Finding) -> Finding:
        return dataclasses.replace(finding, command=addressed(finding.command, kubectl))

    pods = [dataclasses.replace(p, finding=led(p.finding)) if p.finding else p for p in diagnosis.pods]
    return dataclasses.replace(diagnosis, findings=tuple(map(led, diagnosis.findings)), pods=tuple(pods))


def picture_of(
    service: Service, snapshot: Snapshot, *, counted: str = "", rules_on: Sequence[str] = (), kubectl: str = "kubectl"
) -> tuple[Picture, Diagnosis]:
    """The picture of a Service, without numbers of connections (`with_traffic` adds them), and the diagnosis it shows.

    counted:  "" if connections are counted, else why they are not
    rules_on: nodes that are known to have the rules
    kubectl:  how it is called to ask this cluster, for commands that are pasted
    """
    diagnosis = led_there(diagnose_service(service, snapshot), kubectl)
    slices = sorted(
        snapshot.slices.get((service.namespace, service.name), ()), key=lambda s: (s.address_type, natural(s.name))
    )
    every = rows_of(service, slices, diagnosis)
    rows = every if len(every) <= MOST_ROWS else sorted(every, key=lambda r: r.taken)[:MOST_ROWS]
    rules = rules_of(service, slices, snapshot)
    items: dict[str, Item] = {"service": service_item(service, diagnosis, every, len(rows), rules_on)}
    if (gap := gap_of(service, diagnosis, slices, rows)) is not None:
        items["gap"] = gap
        code = gap.finding.code if gap.finding else ""
        add_edge(items, "service", "gap", "grey", gap.text, code)
    for s in slices:
        add_slice(items, s, rows, rules, diagnosis)
    targets: dict[tuple[str, int], str] = {}
    for row in rows:
        add_row(items, row, rules, service, counted, diagnosis)
        targets |= {t: row.name for t in rules.targets if t[0] in row.addresses}
    return Picture(items, fronts_of(service, snapshot), targets), diagnosis


def service_item(
    service: Service, d: Diagnosis, rows: Sequence[Row], drawn: int, rules_on: Sequence[str]
) -> ServiceItem:
    spec = service.spec
    address = spec.external_name if spec.type == "ExternalName" else spec.cluster_ip
    return ServiceItem(
        service.name, service.namespace, spec.type, about(service),
        "headless" if service.headless else address or "no address",
        tuple(port_text(p) for p in spec.ports or ()),
        tuple(f"{k}={v}" for k, v in sorted((spec.selector or {}).items())),
        d.status, d.verdict,
        tuple(finding_item(f) for f in d.findings),
        tuple(LinkItem(link.name, link.state, link.text) for link in d.chain),
        (*d.gaps, *((f"{len(rows) - drawn} further Pods are not drawn",) if drawn < len(rows) else ())),
        sum(r.takes_traffic for r in d.pods) if d.pods else sum(r.taken for r in rows),
        len(rows), tuple(rules_on),
    )  # fmt: skip


def gap_of(
    service: Service, diagnosis: Diagnosis, slices: Sequence[EndpointSlice], rows: Sequence[Row]
) -> GapItem | None:
    """What stands in the place of Pods, if there are none at all."""
    if rows:
        return None
    first = finding_item(diagnosis.findings[0]) if diagnosis.findings else None
    if service.spec.type == "ExternalName":
        return GapItem(f"a name only: clients are told {service.spec.external_name} and go there by themselves", first)
    text = first.text if first is not None else "no endpoint" + (" in any slice" if slices else ", no slice")
    return GapItem(text, first)


def add_edge(items: dict[str, Item], source: str, target: str, state: EdgeState, reason: str, code: str = "") -> None:
    """An edge; one that is live needs no reason."""
    if state == "live":
        reason = code = ""
    items[f"edge/{source}>{target}"] = EdgeItem(source, target, state, reason, code)


def add_slice(
    items: dict[str, Item], s: EndpointSlice, rows: Sequence[Row], rules: Rules, diagnosis: Diagnosis
) -> None:
    """A slice and the edge to it: live if anything in it is used."""
    entries = s.endpoints or ()
    ports = tuple(f"{p.name + ' ' if p.name else ''}{p.port or 'any'}/{p.protocol or 'TCP'}" for p in s.ports or ())
    ready = sum(e.ready for e in entries)
    items[f"slice/{s.name}"] = SliceItem(s.name, s.address_type, ports, ready, len(entries))
    used = ready or any(e.address in rules.fronts for e in entries)
    reason, code = "", ""
    if not used:
        reason = f"none of its {len(entries)} endpoints is ready" if entries else "it lists no endpoint"
        code = diagnosis.code
    add_edge(items, "service", f"slice/{s.name}", "live" if used else "grey", reason, code)


def add_row(
    items: dict[str, Item], row: Row, rules: Rules, service: Service, counted: str, diagnosis: Diagnosis
) -> None:
    """A Pod, its rule, its counter, and the edges between."""
    pod, rule, traffic = f"pod/{row.name}", f"rule/{row.name}", f"traffic/{row.name}"
    fronts: dict[str, int] = {}
    for a in row.addresses:
        fronts |= rules.fronts.get(a, {})
    takes = row.taken if row.report is None else row.report.takes_traffic
    finding = row.report.finding if row.report is not None else None
    items[pod] = PodItem(
        row.name, tuple(row.addresses), row.node,
        "ready" if takes else "leaving" if fronts else "out",
        bool(row.listed), finding_item(finding) if finding is not None else None,
    )  # fmt: skip
    reason, code = row.reason
    if not row.listed:
        add_edge(items, "service", pod, "grey", reason or f"no EndpointSlice lists {row.name} yet", code)
    for s, e in row.listed:
        passes = e.ready or e.address in rules.fronts
        add_edge(items, f"slice/{s.name}", pod, "live" if passes else "grey", reason or "listed as not ready", code)
    places = {p for a in row.addresses for p in rules.places.get(a, ())} - {""}
    only = tuple(sorted(places, key=natural)) if places and len(places) < len(rules.asked) else ()
    items[rule] = RuleItem(tuple(sorted(fronts)), next(iter(fronts.values()), 0), only)
    state, why_not, cause = rule_edge(service, fronts, row, diagnosis)
    add_edge(items, pod, rule, state, why_not, cause)
    if fronts and counted:
        add_edge(items, rule, traffic, "unknown", counted)
    elif fronts:
        add_edge(items, rule, traffic, "live", "")
    else:
        add_edge(items, rule, traffic, state if state != "live" else "grey", why_not, cause)
    items[traffic] = TrafficItem(not counted)


def rule_edge(
    service: Service, fronts: Mapping[str, int], row: Row, diagnosis: Diagnosis
) -> tuple[EdgeState, str, str]:
    """Whether rules lead to the Pod, and if not why."""
    if fronts:
        return "live", "", ""
    if service.headless:
        return "unknown", "headless: clients go to the Pod's own address, past all rules, where nobody counts", "EP701"
    if row.reason[0]:
        return "grey", *row.reason
    if not row.listed:
        return "grey", "no slice lists it", ""
    broken = next((f for f in diagnosis.findings if f.code.startswith("EP6") and f.severity == "broken"), None)
    if broken is not None:
        return "grey", broken.text, broken.code
    return "grey", "the proxy's plan leads no port of the Service to it", ""


# ---------------------------------------------------------------- numbers


def totals_of(picture: Picture, counts: Iterable[Mapping[FlowKey, int]]) -> dict[str, int]:
    """Connections by row, over all nodes."""
    found = dict.fromkeys(picture.targets.values(), 0)
    for counted in counts:
        for (protocol, front, front_port, endpoint, port), number in counted.items():
            row = picture.targets.get((endpoint, port))
            if row is not None and (protocol, front, front_port) in picture.fronts:
                found[row] += number
    return found


def with_traffic(
    picture: Picture, totals: Mapping[str, int], rates: Mapping[str, float], *, partial: bool = False
) -> dict[str, Item]:
    """The picture's items with numbers of connections."""
    items = dict(picture.items)
    counted = False
    for id_, item in picture.items.items():
        if isinstance(item, TrafficItem):
            name = id_.removeprefix("traffic/")
            counted |= item.counted
            if item.counted and (totals.get(name) or rates.get(name)):
                items[id_] = TrafficItem(True, totals.get(name, 0), round(rates.get(name, 0.0), 1))
    items["traffic"] = TrafficItem(counted, sum(totals.values()), round(sum(rates.values()), 1), partial)
    return items


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What must be set and what dropped to make the one the other."""
    changed = {k: v for k, v in after.items() if (old := before.get(k)) is not v and old != v}
    return changed, [k for k in before if k not in after]
