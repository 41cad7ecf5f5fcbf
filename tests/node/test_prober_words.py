"""What the timeline is told of a probe."""

from __future__ import annotations

import pytest

from kubesvc.node.probe_plan import ProbeState
from kubesvc.node.prober import MOST_DETAIL, said
from kubesvc.node.probes import Outcome

WORDS = (
    # sentence, row, outcome, words
    ("a page that was answered is left out", 1, Outcome("success", "<html>" * 1000), "succeeded"),
    ("a warning is told", 1, Outcome("warning", "redirected"), "succeeded: redirected"),
    ("failures are counted", 3, Outcome("failure", "statuscode: 500"), "failed 3 times: statuscode: 500"),
    ("how long the last try took is told", 3, Outcome("failure", "statuscode: 500", 0.0123),
     "failed 3 times, now after 12 ms: statuscode: 500"),
    ("and of one that is the first", 1, Outcome("success", "ok", 0.002), "succeeded after 2 ms"),
    ("and cut short", 1, Outcome("failure", "x" * 10_000), "failed: " + "x" * MOST_DETAIL),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "row", "outcome", "words"), WORDS, ids=[w[0] for w in WORDS])
def test_what_is_said(sentence: str, row: int, outcome: Outcome, words: str) -> None:
    assert said(ProbeState("readiness", "unknown", row=row), outcome) == words
