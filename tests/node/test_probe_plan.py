"""Probe thresholds: each kind by success, failure, flap, warning and error; and what holds for any row of results."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.container import Container, Probe, TCPSocketAction
from kubesvc.node.probe_plan import (
    ProbeKind,
    ProbeState,
    Result,
    after,
    first_state,
    first_wait,
    is_ready,
    is_started,
    period,
    timeout,
)

LETTERS: dict[str, Result] = {"s": "success", "f": "failure", "w": "warning", "e": "error"}


class Case(NamedTuple):
    name: str
    kind: ProbeKind
    results: str
    verdict: str
    held: bool = False
    done: bool = False
    failures: int = 3
    successes: int = 1


CASES = (
    Case("NODE-37: readiness begins as failure", "readiness", "", "failure"),
    Case("NODE-37: liveness begins as success", "liveness", "", "success"),
    Case("NODE-37: startup begins unknown", "startup", "", "unknown"),
    Case("readiness: one success makes ready", "readiness", "s", "success"),
    Case("readiness: two failures of three change nothing", "readiness", "sff", "success"),
    Case("readiness: the third failure in a row makes unready", "readiness", "sfff", "failure"),
    Case("readiness: a flap starts the count anew (NODE-39)", "readiness", "sffsff", "success"),
    Case("readiness: never held, it comes back", "readiness", "sfffs", "success"),
    Case("readiness: successThreshold wants them in a row", "readiness", "ssfs", "failure", successes=3),
    Case("readiness: successThreshold reached", "readiness", "sfsss", "success", successes=3),
    Case("readiness: a warning counts as success (NODE-49)", "readiness", "w", "success"),
    Case("NODE-40: errors count for nothing, not even as a break", "readiness", "sfefef", "failure"),
    Case("liveness: failures below the threshold", "liveness", "ff", "success"),
    Case("NODE-41: liveness failed, held", "liveness", "fff", "failure", held=True),
    Case("NODE-41: once held, a success changes nothing", "liveness", "fffs", "failure", held=True),
    Case("liveness: a flap saves it", "liveness", "ffsff", "success"),
    Case("startup: a success ends it for good (NODE-38)", "startup", "ffs", "success", done=True),
    Case("startup: nothing after the success counts", "startup", "sfff", "success", done=True),
    Case("startup: failed, held", "startup", "fff", "failure", held=True),
    Case("failureThreshold 1: the first failure decides", "liveness", "f", "failure", held=True, failures=1),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results(case: Case) -> None:
    probe = Probe(failure_threshold=case.failures, success_threshold=case.successes)
    state = first_state(case.kind)
    for letter in case.results:
        state = after(state, LETTERS[letter], probe)
    assert (state.verdict, state.held, state.done) == (case.verdict, case.held, case.done)


@given(
    st.sampled_from(["readiness", "liveness", "startup"]),
    st.lists(st.sampled_from("sfwe"), max_size=40),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_a_verdict_needs_its_row(kind: ProbeKind, letters: list[str], failures: int, successes: int) -> None:
    """A verdict changes only after threshold-many equal results with nothing but errors between them."""
    probe = Probe(failure_threshold=failures, success_threshold=successes)
    state, row = first_state(kind), ""
    for letter in letters:
        before, state = state, after(state, LETTERS[letter], probe)
        if letter != "e":
            row += "s" if letter in "sw" else "f"
        if state.verdict != before.verdict:
            needed = "s" * successes if state.verdict == "success" else "f" * failures
            assert row.endswith(needed)
        if before.held or before.done:
            assert state == before
        assert not (state.held and kind == "readiness")


def test_defaults_and_waits() -> None:
    """NODE-31 to NODE-33: without numbers the defaults; the initial delay counts from the container's start."""
    assert (period(Probe()), timeout(Probe())) == (10.0, 1.0)
    assert first_wait(Probe(initial_delay_seconds=5), 2.0) == 3.0
    assert first_wait(Probe(initial_delay_seconds=5), 9.0) == 0.0
    assert first_wait(Probe(), 0.0) == 0.0


def test_started_and_ready() -> None:
    """NODE-22."""
    tcp = Probe(tcp_socket=TCPSocketAction(port=1))
    plain, ready, both = Container(), Container(readiness_probe=tcp), Container(readiness_probe=tcp, startup_probe=tcp)
    good = ProbeState("readiness", "success")
    assert is_started(plain, None) and is_ready(plain, True, None)
    assert not is_ready(ready, True, first_state("readiness")) and is_ready(ready, True, good)
    assert not is_started(both, first_state("startup")) and not is_ready(both, False, good)
