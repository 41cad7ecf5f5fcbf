"""When each address joined and left a Service, by which change, and how long each hop took. Pure.

The journal of `service-events` says who came and went; each node's journal says when its probes turned and when its
rules and its DNS followed. All stamps are of one machine's clock, so they may be compared; where a hop is not known it
is left out, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from kubesvc.clock import rfc3339_micro
from kubesvc.controllers.service_events_plan import Moved as Moved

T = TypeVar("T")

EARLY_SECONDS = 0.05
"""A node may hear of a slice so much earlier than the control process notes it: that one tells those who watch in the
order in which their watches began, and may be held up in between."""
PROBE_SECONDS = 3.0
"""A probe that turned longer before than this is not what moved the address."""
SUCCEEDED = re.compile(r"(: succeeded(?: \d+ times)?(?:(?:, now)? after \d+ ms)?)\b.*", re.DOTALL)
"""What a probe that succeeded was answered besides is of no interest to people."""
DELETED = "is being deleted"
"""In a cause: the Pod went for a reason that no probe has."""
LONGEST_CAUSE = 120
"""Characters of a cause, or of a probe's words, that people are shown; programs get all."""
FOLLOW_SECONDS = 30.0
"""A node that followed later than this followed another change."""


class Hop(msgspec.Struct, frozen=True):
    """A line of a node's journal; `hop` is probe, rules or names."""

    at: float
    hop: str
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One address that joined or left, with its hops.

    probe:     what the Pod's probe met, "" if none is known to have turned
    probe_at:  when, 0 if unknown
    rules, names: by node, when the kernel's rules and the node's DNS had followed
    """

    moved: Moved
    probe: str = ""
    probe_at: float = 0.0
    rules: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, float] = field(default_factory=dict)

    @property
    def status_ms(self) -> float | None:
        """From the probe's turn to the Pod's status being seen."""
        known = self.probe_at and self.moved.status_at
        return (self.moved.status_at - self.probe_at) * 1000 if known else None

    @property
    def slice_ms(self) -> float | None:
        """From the Pod's status to the slice being seen."""
        return (self.moved.at - self.moved.status_at) * 1000 if self.moved.status_at else None

    @property
    def total_ms(self) -> float | None:
        """From the first moment known to the last node's rules."""
        if not self.rules:
            return None
        began = self.probe_at or self.moved.status_at or self.moved.at
        return max(0.0, max(self.rules.values()) - began) * 1000


def decoded(lines: Iterable[bytes], kind: type[T]) -> Iterator[T]:
    """The entries of a journal; lines that are none are left out."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines:
        try:
            entry = decoder.decode(line)
        except msgspec.MsgspecError:
            continue
        yield entry


def decode_moved(lines: Iterable[bytes], namespace: str, service: str) -> list[Moved]:
    """The entries of one Service in a journal."""
    return [m for m in decoded(lines, Moved) if (m.namespace, m.service) == (namespace, service)]


def decode_hops(lines: Iterable[bytes], keys: frozenset[str]) -> list[Hop]:
    """The hops about these Services and Pods (NAMESPACE/NAME)."""
    return [h for h in decoded(lines, Hop) if h.key in keys]


def keys_of(moves: Sequence[Moved]) -> frozenset[str]:
    """What hops are about that concern these moves."""
    services = {f"{m.namespace}/{m.service}" for m in moves}
    return frozenset(services | {f"{m.namespace}/{m.pod}" for m in moves if m.pod})


def plan_entries(moves: Sequence[Moved], hops: Mapping[str, Sequence[Hop]]) -> list[Entry]:
    """Join moves with the hops of each node, which are in order of time."""
    return [plan_entry(m, hops) for m in sorted(moves, key=lambda m: (m.at, m.what, m.address))]


def plan_entry(moved: Moved, hops: Mapping[str, Sequence[Hop]]) -> Entry:
    service, pod = f"{moved.namespace}/{moved.service}", f"{moved.namespace}/{moved.pod}"
    probe: Hop | None = None
    until = moved.status_at or moved.at
    for hop in hops.get(moved.node, ()):
        if (
            hop.hop == "probe"
            and hop.key == pod
            and until - PROBE_SECONDS <= hop.at <= until
            and brought_by(hop, moved)
        ):
            probe = hop
    followed: dict[str, dict[str, float]] = {"rules": {}, "names": {}}
    for node in sorted(hops):
        for hop in hops[node]:
            late = hop.at - moved.at
            if hop.key != service or hop.hop not in followed or not -EARLY_SECONDS <= late <= FOLLOW_SECONDS:
                continue
            known = followed[hop.hop].get(node)
            if known is None or (known < moved.at and abs(late) <= moved.at - known):
                followed[hop.hop][node] = hop.at  # the first afterwards, unless one a moment before is nearer
    return Entry(moved, probe.text if probe else "", probe.at if probe else 0.0, followed["rules"], followed["names"])


def brought_by(probe: Hop, moved: Moved) -> bool:
    """Whether a probe's turn is one that such a move follows from: success brings an address, failure takes it, and a
    deletion takes it whatever probes say."""
    succeeded = SUCCEEDED.search(probe.text) is not None
    return succeeded if moved.what == "joined" else not succeeded and DELETED not in moved.cause


def render_entry(entry: Entry) -> str:
    """One or two lines for people."""
    m = entry.moved
    sign = "+" if m.what == "joined" else "-"
    clock = rfc3339_micro(m.at)[11:23]
    probe = SUCCEEDED.sub(r"\1", entry.probe)
    cause = one_line(m.cause) + (f"; {one_line(probe)}" if probe else "")
    line = f"{clock}  {sign} {m.address:<15}  {m.what}: {cause}"
    hops = []
    if entry.status_ms is not None:
        hops.append(f"probe to status {entry.status_ms:.1f} ms")
    if entry.slice_ms is not None:
        hops.append(f"to slice {entry.slice_ms:.1f} ms")
    for word, followed in (("rules", entry.rules), ("names", entry.names)):
        if followed:
            each = ", ".join(f"{node} {max(0.0, at - m.at) * 1000:.1f} ms" for node, at in followed.items())
            hops.append(f"to {word} {each}")
    if entry.total_ms is not None and len(hops) > 1:
        hops.append(f"in all {entry.total_ms:.1f} ms")
    return line + (f"\n{'':16}{', '.join(hops)}" if hops else "")


def day_of(entry: Entry) -> str:
    """Such as 2026-11-23, in UTC as all times here."""
    return rfc3339_micro(entry.moved.at)[:10]


def one_line(text: str) -> str:
    """Without line ends, and no longer than a reader bears: a probe's words may be a whole page."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_CAUSE else f"{flat[: LONGEST_CAUSE - 1]}…"


def plain_entry(entry: Entry) -> dict[str, Any]:
    """One line for programs; hops in milliseconds, absent where unknown."""
    m = entry.moved
    found: dict[str, Any] = {
        "schema": "kubesvc.timeline/v1", "at": rfc3339_micro(m.at), "namespace": m.namespace, "service": m.service,
        "what": m.what, "address": m.address, "pod": m.pod, "node": m.node, "cause": m.cause, "probe": entry.probe,
        "revision": m.revision,
    }  # fmt: skip
    hops: dict[str, Any] = {}
    for name, value in (("statusMs", entry.status_ms), ("sliceMs", entry.slice_ms), ("totalMs", entry.total_ms)):
        if value is not None:
            hops[name] = round(value, 3)
    for name, followed in (("rulesMs", entry.rules), ("namesMs", entry.names)):
        if followed:
            hops[name] = {node: round(max(0.0, at - m.at) * 1000, 3) for node, at in followed.items()}
    return {**found, "hops": hops}
