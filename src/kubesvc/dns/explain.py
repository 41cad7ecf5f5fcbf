"""Why a name resolves to what it does: each step a Pod's resolver takes, and what the zone says to it in plain words.

Pure. The answers are `answer_for`'s own; only the reasons are found here, from the same snapshot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from . import wire
from .records import Answer, Zone, answer_for, reverse_address
from .snapshot import Snapshot, ready
from .wire import Question, Record, Soa, Srv, name_of, name_text

CLUSTER_NDOTS = 5
"""What a Pod with cluster settings has; 1 is a resolver's own default."""


@dataclass(frozen=True, slots=True)
class Step:
    """One name that is asked for.

    name:    with a dot at the end
    origin:  how it came about: "as given" or the search entry that was appended
    outcome: the response code, with "NODATA" for a name that exists without records of the type, and "ELSEWHERE" for
             a name that other resolvers are asked for
    records: the answer, as zone files write it without owner, class and TTL
    reason:  what in the cluster made it so
    """

    name: str
    origin: str
    outcome: str
    records: tuple[str, ...]
    reason: str


def candidates(name: str, searches: Sequence[str], ndots: int) -> list[tuple[str, str]]:
    """The names a resolver tries in turn, and where each comes from.

    With a dot at the end only the name itself; with at least `ndots` dots itself first and then with each search
    entry appended, else itself last (DNS-67).
    """
    itself = (name if name.endswith(".") else f"{name}.", "as given")
    if name.endswith("."):
        return [itself]
    searched = [(f"{name}.{entry.rstrip('.')}.", f"search entry {entry}") for entry in searches if entry != "."]
    return [itself, *searched] if name.count(".") >= ndots else [*searched, itself]


def explain_name(
    name: str, type_: int, searches: Sequence[str], ndots: int, snapshot: Snapshot, zone: Zone
) -> list[Step]:
    """The steps up to the first that finds something or leaves the cluster; ValueError if `name` is no name."""
    steps: list[Step] = []
    for text, origin in candidates(name, searches, ndots):
        try:
            question = Question(name_of(text), type_)
        except wire.FormatError as error:
            if origin == "as given":
                raise
            steps.append(Step(text, origin, "NOT ASKED", (), str(error)))
            continue
        answer = answer_for(question, snapshot, zone)
        records = tuple(record_text(record) for record in answer.answers) if answer else ()
        steps.append(Step(text, origin, outcome_of(answer), records, reason_for(question, answer, snapshot, zone)))
        if answer is None or answer.answers or answer.rcode not in (wire.NOERROR, wire.NXDOMAIN):
            break
    return steps


def outcome_of(answer: Answer | None) -> str:
    if answer is None:
        return "ELSEWHERE"
    if answer.rcode == wire.NOERROR and not answer.answers:
        return "NODATA"
    return wire.RCODES[answer.rcode]


def record_text(record: Record) -> str:
    """Type and data as zone files write them."""
    kind, data = wire.TYPES.get(record.type, f"TYPE{record.type}"), record.data
    if isinstance(data, Srv):
        return f"{kind} {data.priority} {data.weight} {data.port} {name_text(data.target)}"
    if isinstance(data, Soa):
        return f"{kind} {name_text(data.mname)} {name_text(data.rname)} {' '.join(map(str, data[2:]))}"
    if isinstance(data, bytes):
        return (
            f"{kind} {ipaddress.ip_address(data)}" if len(data) in (4, 16) else f"{kind} \\# {len(data)} {data.hex()}"
        )
    if record.type == wire.TXT:
        return " ".join((kind, *map(quoted, data)))
    return f"{kind} {name_text(data)}"


def quoted(string: bytes) -> str:
    """A text as zone files quote it."""
    return '"' + "".join(f"\\{c:03d}" if c in b'"\\' or not 0x20 <= c <= 0x7E else chr(c) for c in string) + '"'


def reason_for(question: Question, answer: Answer | None, snapshot: Snapshot, zone: Zone) -> str:
    """The cluster's reason for an answer that `answer_for` gave, in one sentence."""
    name = wire.lower(question.name)
    if answer is None:
        return "not a cluster name: other resolvers are asked"
    if answer.rcode == wire.SERVFAIL:
        return "the server has not read the cluster's state yet"
    if answer.rcode == wire.REFUSED:
        return "neither zone transfers nor classes other than IN are served"
    if reverse_address(name):
        return "an address of a Service or of a ready endpoint"
    labels = [label.decode("ascii", "backslashreplace") for label in name[: len(name) - len(zone.name)]]
    return forward_reason(labels, question, answer, snapshot, zone)


def forward_reason(labels: list[str], question: Question, answer: Answer, snapshot: Snapshot, zone: Zone) -> str:
    """The same for a name below the zone; `labels` stand left of the zone."""
    match labels:
        case [] | ["svc" | "pod" | "dns" | "dns-version"] | ["ns", "dns"]:
            return "a name of the zone itself"
        case [*_, namespace, "pod"]:
            if not snapshot.has_namespace(namespace):
                return f"there is no namespace {namespace}"
            if answer.rcode == wire.NXDOMAIN:
                return f"no address of a Pod (Pod names are {zone.pods})"
            return "a Pod's address, written with dashes" if len(labels) == 3 else f"namespace {namespace}"
        case [namespace, "svc"]:
            found = snapshot.has_namespace(namespace)
            return f"a namespace has no records of its own: {namespace}" if found else no_namespace(namespace)
        case [*below, service, namespace, "svc"]:
            return service_reason(below, service, namespace, question, answer, snapshot)
    return f"below {zone.text} there are names under svc and pod only"


def no_namespace(namespace: str) -> str:
    return f"there is no namespace {namespace}"


def service_reason(
    below: list[str], name: str, namespace: str, question: Question, answer: Answer, snapshot: Snapshot
) -> str:
    """The same for a Service's name and the names below it."""
    key, shown = (namespace, name), f"Service {namespace}/{name}"
    service = snapshot.services.get(key)
    if service is None:
        return f"there is no {shown}" if snapshot.has_namespace(namespace) else no_namespace(namespace)
    if service.spec.type == "ExternalName":
        return f"{shown} is of type ExternalName: {service.spec.external_name}"
    entries = [e for s in snapshot.slices.get(key, {}).values() for e in s.endpoints or ()]
    count = f"{sum(map(ready, entries))} of {len(entries)} endpoints ready"
    if below and answer.rcode == wire.NXDOMAIN:
        what = "port" if below[0].startswith("_") else "ready endpoint"
        return f"{shown} has no {what} {'.'.join(below)} ({count})"
    if service.headless:
        if answer.rcode == wire.NXDOMAIN:
            return f"{shown} is headless and has no ready endpoint ({count})"
        return f"{shown} is headless ({count})"
    if not answer.answers:
        kind = wire.TYPES.get(question.type, f"TYPE{question.type}")
        return f"{shown} has no {kind} record: its addresses are {', '.join(service.addresses) or 'not allocated'}"
    return f"{shown} has the cluster address {', '.join(service.addresses)}"
