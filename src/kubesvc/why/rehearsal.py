"""What a rollout under load has shown: in which gap each lost request fell, and which settings would close it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kubesvc.api.deployment import Deployment

from . import commands

Gap = Literal["before ready", "rule lag", "after terminating", "other"]
GAPS: dict[Gap, str] = {
    "before ready": "a new Pod was listed before it answered",
    "rule lag": "the rules still led to a Pod that was ending",
    "after terminating": "a Pod ended while it had requests under way",
    "other": "no Pod came or went just then",
}
NEW_SECONDS = 10.0
"""How long after it was listed a Pod counts as new."""
SLACK_SECONDS = 0.05
"""Clocks of one machine agree; this is for what happens between a look and its note."""
MARGIN_SECONDS = 2.0
"""What a preStop wait is given beyond the longest lag seen: other nodes, busier ones, load balancers."""


@dataclass(frozen=True, slots=True)
class PodLife:
    """What was seen of one Pod, Unix seconds; 0 for what did not happen or was not seen.

    listed, unlisted: when the slices listed it as ready, and no more
    terminating, gone: when it was being deleted, and when it was no more
    programmed_out:   when the last node's rules did not lead to it any more
    """

    name: str
    listed: float = 0.0
    terminating: float = 0.0
    unlisted: float = 0.0
    programmed_out: float = 0.0
    gone: float = 0.0

    def first(self, what: str, at: float) -> PodLife:
        """With the first moment of something; later ones do not count."""
        return self if getattr(self, what) else replace(self, **{what: at})  # type: ignore[arg-type]

    @property
    def out(self) -> float:
        """When the last rule was gone, as far as is known."""
        return self.programmed_out or self.unlisted


@dataclass(frozen=True, slots=True)
class LostRequest:
    """began, ended: Unix seconds; met: refused, reset, silent, cut, or `status 503`."""

    began: float
    ended: float
    met: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A setting that would close a gap, and the command that sets it."""

    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The result. lag_seconds: the longest time from a Pod's deletion to the last rule without it."""

    sent: int
    lost: int
    gaps: dict[Gap, int]
    met: dict[str, int]
    seconds: float
    pods: tuple[PodLife, ...]
    lag_seconds: float
    suggestions: tuple[Suggestion, ...]


def classify(lost: LostRequest, pods: Iterable[PodLife]) -> Gap:
    """The gap that a lost request fell into. Where several fit, the ending Pod is blamed before the new one if the
    connection was refused or cut while its rules stood."""
    lives = list(pods)
    for p in lives:
        if p.terminating and p.terminating - SLACK_SECONDS <= lost.ended:
            out = p.out or p.gone or math.inf
            if lost.began <= out + SLACK_SECONDS and lost.met in ("refused", "reset", "silent"):
                return "rule lag"
    for p in lives:
        new = p.listed and p.listed - SLACK_SECONDS <= lost.ended and lost.began <= p.listed + NEW_SECONDS
        if new and (lost.met in ("refused", "silent") or lost.met.startswith("status")):
            return "before ready"
    for p in lives:
        ending = p.terminating and p.terminating - SLACK_SECONDS <= lost.ended
        if ending and lost.began <= (p.gone or math.inf) + SLACK_SECONDS:
            return "after terminating"
    return "other"


def lag_of(pods: Iterable[PodLife]) -> float:
    return max((p.out - p.terminating for p in pods if p.terminating and p.out), default=0.0)


def conclude(
    deployment: Deployment, sent: int, lost: Sequence[LostRequest], lost_in_all: int, pods: Sequence[PodLife],
    seconds: float,
) -> Rehearsal:  # fmt: skip
    """Count and suggest."""
    gaps = Counter(classify(x, pods) for x in lost)
    lag = lag_of(pods)
    counted = {gap: gaps[gap] for gap in GAPS if gaps[gap]}
    return Rehearsal(
        sent, lost_in_all, counted, dict(Counter(x.met for x in lost)), seconds, tuple(pods), lag,
        tuple(suggest(deployment, counted, lag)),
    )  # fmt: skip


def suggest(deployment: Deployment, gaps: dict[Gap, int], lag_seconds: float) -> list[Suggestion]:
    """Settings that would have lost none, for the first container of the template.

    preStop keeps the Pod serving until no rule leads there and what is under way has ended; a readiness probe keeps a
    Pod off the list until it answers; maxUnavailable 0 keeps the old Pods until then.
    """
    containers = deployment.spec.template.spec.containers or []
    if not containers:
        return []
    container, found = containers[0], []
    if gaps.get("rule lag") or gaps.get("after terminating"):
        wait = math.ceil(lag_seconds + MARGIN_SECONDS)
        grace = deployment.spec.template.spec.termination_grace_period_seconds
        needed = max(wait + 10, 30 if grace is None else grace)
        change: dict[str, Any] = {
            "terminationGracePeriodSeconds": needed,
            "containers": [{"name": container.name, "lifecycle": {"preStop": {"sleep": {"seconds": wait}}}}],
        }
        text = (
            f"wait {wait} s in preStop (the longest lag seen was {lag_seconds * 1000:.0f} ms), and give the Pod "
            f"{needed} s to end"
        )
        found.append(Suggestion(text, patch(deployment, change)))
    if gaps.get("before ready"):
        ports = container.ports or []
        port: int | str = ports[0].container_port if ports else 80
        probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "failureThreshold": 3}
        if container.readiness_probe is None:
            text = f"give container {container.name} a readiness probe, so that it is not listed before it answers"
            change = {"containers": [{"name": container.name, "readinessProbe": probe}]}
            found.append(Suggestion(text, patch(deployment, change)))
        else:
            wanted = {"minReadySeconds": 5}
            text = (
                f"the readiness probe of container {container.name} succeeds before the container serves: let it ask "
                "what clients ask; until then wait before the next old Pod goes"
            )
            found.append(
                Suggestion(
                    text,
                    commands.merge(deployment.namespace, "deployment", deployment.name, {"spec": wanted}),
                )
            )
    return found


def patch(deployment: Deployment, spec: dict[str, Any]) -> str:
    """A strategic merge patch of the Pods' template."""
    change = {"spec": {"template": {"spec": spec}}}
    return commands.kubectl(
        deployment.namespace, "patch", "deployment", deployment.name, "--type", "strategic", "-p",
        commands.compact(change),
    )  # fmt: skip


def render(result: Rehearsal, kubectl: str = "kubectl") -> str:
    """For people; `kubectl`: how it has to be called to ask the same cluster."""
    share = 100 * result.lost / result.sent if result.sent else 0.0
    lines = [
        f"{result.lost} of {result.sent} requests were lost ({share:.2f} %) while "
        f"{commands.count(sum(1 for p in result.pods if p.terminating), 'Pod')} went and "
        f"{sum(1 for p in result.pods if p.listed)} came, in {result.seconds:.1f} s"
    ]
    for gap, number in result.gaps.items():
        lines.append(f"  {number:>6}  {gap}: {GAPS[gap]}")
    if result.met:
        lines.append("  met: " + ", ".join(f"{n} {what}" for what, n in sorted(result.met.items())))
    if result.lag_seconds:
        lines.append(f"  the rules followed a deletion within {result.lag_seconds * 1000:.0f} ms")
    for s in result.suggestions:
        lines += ["", f"To lose none: {s.text}", f"  {commands.addressed(s.command, kubectl)}"]
    return "\n".join(lines)


def plain(result: Rehearsal) -> dict[str, Any]:
    """For programs."""
    return {
        "schema": "kubesvc.rehearse/v1",
        "sent": result.sent,
        "lost": result.lost,
        "gaps": result.gaps,
        "met": result.met,
        "seconds": round(result.seconds, 3),
        "lagMs": round(result.lag_seconds * 1000, 3),
        "pods": [
            {"name": p.name, "listed": p.listed, "terminating": p.terminating, "unlisted": p.unlisted,
             "programmedOut": p.programmed_out, "gone": p.gone}
            for p in result.pods
        ],
        "suggestions": [{"text": s.text, "command": s.command} for s in result.suggestions],
    }  # fmt: skip
