"""What a diagnosis is made of: findings, links of the chain, a line for each Pod, and the whole. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["broken", "suspect", "warning", "note"]
"""Certainly the cause; possibly it, but objects cannot tell; harms some traffic; worth knowing."""
Status = Literal["healthy", "degraded", "broken", "unknown"]
LinkState = Literal["ok", "broken", "unknown"]

ORDER: dict[str, int] = {"broken": 0, "suspect": 1, "warning": 2, "note": 3}
WORST: dict[str, int] = {"broken": 0, "unknown": 1, "degraded": 2, "healthy": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause that was found.

    code:    of the catalogue
    text:    what is so, in one clause, fit to stand behind "svc/web does not route: "
    command: a shell command, "" if none can be given; `repairs` says whether it mends or only shows more
    seen:    the facts that this rests on, one each
    """

    code: str
    severity: Severity
    text: str
    command: str = ""
    repairs: bool = False
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain Service, selector, Pods, readiness, slices, rules, name."""

    name: str
    state: LinkState
    text: str


@dataclass(frozen=True, slots=True)
class PodReport:
    """One Pod of the Service: whether it takes traffic and, if not, the one finding that says why."""

    namespace: str
    name: str
    address: str
    node: str
    takes_traffic: bool
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer about one subject."""

    subject: str
    status: Status
    verdict: str
    findings: tuple[Finding, ...] = ()
    chain: tuple[Link, ...] = ()
    pods: tuple[PodReport, ...] = ()
    gaps: tuple[str, ...] = field(default=())
    """What could not be looked at, and what that leaves open."""

    @property
    def code(self) -> str:
        """Of the first finding; "" without any."""
        return self.findings[0].code if self.findings else ""

    @property
    def command(self) -> str:
        """Of the first finding: a command about something else would not help with what the verdict says."""
        return self.findings[0].command if self.findings else ""


def sorted_findings(findings: list[Finding]) -> list[Finding]:
    """The worst first, otherwise as found; each code and text once."""
    unique = list({(f.code, f.text): f for f in reversed(findings)}.values())[::-1]
    return sorted(unique, key=lambda f: ORDER[f.severity])
