"""Steering a Pod's readiness by hand: an annotation says what its readiness probes see. Pure.

Everything else stays real: the processes, the other probes, and the thresholds and periods by which a result becomes
the Ready condition. A container without a readiness probe becomes unready at once.
"""

from __future__ import annotations

from typing import Literal

from kubesvc.api.container import Container
from kubesvc.api.pod import Pod

from .probe_plan import period
from .probes import Outcome

ANNOTATION = "kubesvc.dev/ready"
Steered = Literal["on", "off", ""]


def steered(pod: Pod) -> Steered:
    """What the annotation says; "" where it says nothing that is known, so that the probes see what is."""
    value = (pod.metadata.annotations or {}).get(ANNOTATION)
    return "on" if value == "on" else "off" if value == "off" else ""


def steered_outcome(pod: Pod) -> Outcome | None:
    """The result of a readiness probe that is steered; None for one that must really be asked."""
    value = steered(pod)
    if value == "off":
        return Outcome("failure", f"steered: the annotation {ANNOTATION} is off")
    return Outcome("success") if value == "on" else None


def seconds_until(container: Container, value: Steered) -> float:
    """How long a steered result takes to become the container's readiness, at most."""
    probe = container.readiness_probe
    if probe is None:
        return 0.0
    times = probe.success_threshold or 1 if value == "on" else probe.failure_threshold or 3
    return period(probe) * times
