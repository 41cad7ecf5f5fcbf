"""Probes as a state machine: what a row of results makes of the verdict (NODE-31 to NODE-41). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kubesvc.api.container import Container, Probe

ProbeKind = Literal["readiness", "liveness", "startup"]
Verdict = Literal["success", "failure", "unknown"]
Result = Literal["success", "warning", "failure", "error"]
"""What one try gave. A warning counts as success and is reported (NODE-49); an error counts for nothing (NODE-40)."""

FIRST: dict[ProbeKind, Verdict] = {"readiness": "failure", "liveness": "success", "startup": "unknown"}
"""NODE-37."""
TITLES: dict[ProbeKind, str] = {"readiness": "Readiness", "liveness": "Liveness", "startup": "Startup"}
TRIES = 3
"""How often a try that ends in an error is made anew at once (NODE-40)."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """Where one probe of one container run stands.

    verdict: what counts now;  last: the latest countable result;  row: how many of it came one after another
    held:    a liveness or startup failure was given: nothing runs until there is a new container (NODE-41)
    done:    a startup probe has succeeded and never runs again (NODE-38)
    """

    kind: ProbeKind
    verdict: Verdict
    last: Verdict = "unknown"
    row: int = 0
    held: bool = False
    done: bool = False


def first_state(kind: ProbeKind) -> ProbeState:
    """The state for a container that has just started."""
    return ProbeState(kind, FIRST[kind])


def after(state: ProbeState, result: Result, probe: Probe) -> ProbeState:
    """The state after one more result (NODE-39 to NODE-41). Never raises; a held or done probe stays as it is."""
    if result == "error" or state.held or state.done:
        return state
    found: Verdict = "success" if result in ("success", "warning") else "failure"
    row = state.row + 1 if found == state.last else 1
    state = replace(state, last=found, row=row)
    needed = max(1, probe.success_threshold or 1) if found == "success" else (probe.failure_threshold or 3)
    if row < needed:
        return state
    return replace(
        state,
        verdict=found,
        held=found == "failure" and state.kind != "readiness",
        done=found == "success" and state.kind == "startup",
    )


def probe_of(container: Container, kind: ProbeKind) -> Probe | None:
    return {
        "readiness": container.readiness_probe,
        "liveness": container.liveness_probe,
        "startup": container.startup_probe,
    }[kind]


def kinds_of(container: Container) -> list[ProbeKind]:
    """The probes a container has, the startup probe first."""
    order: tuple[ProbeKind, ...] = ("startup", "readiness", "liveness")
    return [kind for kind in order if probe_of(container, kind) is not None]


def first_wait(probe: Probe, started_seconds_ago: float) -> float:
    """Seconds until the first try: initialDelaySeconds from the container's start (NODE-31, NODE-32)."""
    return max(0.0, (probe.initial_delay_seconds or 0) - started_seconds_ago)


def period(probe: Probe) -> float:
    return float(probe.period_seconds or 10)


def timeout(probe: Probe) -> float:
    return float(probe.timeout_seconds or 1)


def is_started(container: Container, startup: ProbeState | None) -> bool:
    """`started` of a running container (NODE-22)."""
    return container.startup_probe is None or (startup is not None and startup.done)


def is_ready(container: Container, started: bool, readiness: ProbeState | None) -> bool:
    """`ready` of a running container (NODE-22)."""
    if not started:
        return False
    return container.readiness_probe is None or (readiness is not None and readiness.verdict == "success")
