"""A diagnosis as text for people and as JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubesvc.clock import rfc3339

from .causes import BY_CODE
from .commands import addressed, count
from .diagnosis import Diagnosis, Finding
from .snapshot import Snapshot

SCHEMA = "kubesvc.why/v1"
"""Grows by new fields only; what changes otherwise gets another number."""
MARKS = {"ok": "✓", "broken": "✗", "unknown": "?"}
MOST_PODS = 10
EXIT = {"healthy": 0, "degraded": 0, "broken": 1, "unknown": 2}


def exit_status(found: Sequence[Diagnosis]) -> int:
    """0 healthy, 1 something is broken, 2 cannot tell."""
    statuses = {EXIT[d.status] for d in found}
    return 1 if 1 in statuses else 2 if 2 in statuses else 0


def render_text(d: Diagnosis, *, brief: bool = False, kubectl: str = "kubectl", planned: bool = False) -> str:
    """The verdict first; then the chain, the Pods that are out, what to do and what was seen.

    kubectl: how it has to be called to ask the same cluster
    planned: whether this is about manifests that are not applied, which are mended by hand
    """
    lines = [headline(d)]
    if brief:
        return lines[0]
    if d.chain:
        width = max(len(link.name) for link in d.chain)
        lines += ["", *(f"  {MARKS[link.state]} {link.name:<{width}}  {link.text}" for link in d.chain)]
    if d.pods:
        lines += ["", "Pods", *pod_lines(d)]
    main = d.findings[0] if d.command and (not planned or d.findings[0].repairs) else None
    if main is not None:
        heading = "To repair it, change the manifest as this would" if planned else "To repair it"
        if main.severity == "note":  # nothing is broken
            heading = "If it should be otherwise"
        lines += ["", heading if main.repairs else "To see more", f"  {addressed(main.command, kubectl)}"]
    if d.findings:
        first = d.findings[0]
        lines += ["", f"{first.code}  {BY_CODE[first.code].title}"]
        if first.text not in d.verdict:  # nothing that is wrong, and so not in the first line
            lines.append(f"  {first.text}")
        lines.append(f"  {BY_CODE[first.code].remedy}")
        lines += [f"  seen: {fact}" for fact in first.seen]
    others = d.findings[1:]
    if others:
        lines += ["", "Besides", *(line for f in others for line in other_lines(f, kubectl))]
    if d.gaps:
        lines += ["", "Not seen", *(f"  {gap}" for gap in d.gaps)]
    return "\n".join(lines)


def headline(d: Diagnosis) -> str:
    return d.verdict + (f"  [{d.code}]" if d.findings and d.findings[0].severity != "note" else "")


def pod_lines(d: Diagnosis) -> list[str]:
    ordered = sorted(d.pods, key=lambda p: (p.takes_traffic, p.name))
    shown = ordered[:MOST_PODS]
    width = max(len(p.name) for p in shown)
    lines = []
    for p in shown:
        why = f"[{p.finding.code}] {short(p.finding, p.name)}" if p.finding else "takes traffic"
        lines.append(
            f"  {MARKS['ok' if p.takes_traffic else 'broken']} {p.name:<{width}}  {p.address or 'no address':<15}  "
            f"{p.node or 'no node'}  {why}"
        )
    if len(ordered) > len(shown):
        rest = ordered[len(shown) :]
        lines.append(f"  and {len(rest)} more, {sum(p.takes_traffic for p in rest)} of them take traffic")
    return lines


def short(finding: Finding, name: str) -> str:
    return finding.text.removeprefix(f"pod/{name} ")


def other_lines(finding: Finding, kubectl: str) -> list[str]:
    lines = [f"  {finding.code}  {finding.text}"]
    if finding.command:
        lines.append(f"         {addressed(finding.command, kubectl)}")
    return lines


def render_all(found: Sequence[Diagnosis]) -> str:
    """One line for each Service."""
    counts = {s: sum(d.status == s for d in found) for s in ("broken", "unknown", "degraded", "healthy")}
    total = f"{count(len(found), 'Service')}: " + ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    if not found:
        return "there are no Services"
    places = [place(d.subject) for d in found]
    width = max(map(len, places))
    lines = [total, ""]
    for d, where in zip(found, places, strict=True):
        lines.append(f"{d.status:<9} {where:<{width}}  {d.code or '-':<5}  {d.verdict}")
    gaps = found[0].gaps
    if gaps:
        lines += ["", "Not seen", *(f"  {gap}" for gap in gaps)]
    return "\n".join(lines)


def place(subject: str) -> str:
    """`namespace/name` of `svc/NAME in namespace NAMESPACE`; any other subject as it is."""
    name, found, namespace = subject.removeprefix("svc/").partition(" in namespace ")
    return f"{namespace}/{name}" if found else subject


def render_json(found: Sequence[Diagnosis], snapshot: Snapshot, now: float = 0.0) -> dict[str, Any]:
    """The whole answer. now: of what tells no time itself, as manifests do not"""
    return {
        "schema": SCHEMA,
        "source": snapshot.source,
        "at": rfc3339(snapshot.now or now),
        "exitStatus": exit_status(found),
        "results": [plain_diagnosis(d) for d in found],
        "gaps": [{"kind": g.kind.resource, "reason": g.reason} for g in snapshot.gaps],
        "skipped": [{"where": s.where, "reason": s.reason} for s in snapshot.skipped],
    }


def plain_diagnosis(d: Diagnosis) -> dict[str, Any]:
    return {
        "subject": d.subject,
        "status": d.status,
        "verdict": d.verdict,
        "code": d.code,
        "command": d.command,
        "findings": [plain_finding(f) for f in d.findings],
        "chain": [{"name": link.name, "state": link.state, "text": link.text} for link in d.chain],
        "pods": [
            {
                "namespace": p.namespace,
                "name": p.name,
                "address": p.address,
                "node": p.node,
                "takesTraffic": p.takes_traffic,
                "code": p.finding.code if p.finding else "",
                "reason": p.finding.text if p.finding else "",
            }
            for p in d.pods
        ],
        "gaps": list(d.gaps),
    }


def plain_finding(f: Finding) -> dict[str, Any]:
    return {
        "code": f.code,
        "title": BY_CODE[f.code].title,
        "severity": f.severity,
        "text": f.text,
        "command": f.command,
        "repairs": f.repairs,
        "seen": list(f.seen),
    }
