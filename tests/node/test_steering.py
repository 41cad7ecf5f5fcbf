"""Readiness steered by hand: what the probe sees, and how long it takes to count."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.meta import typed
from kubesvc.api.pod import Pod
from kubesvc.cli.ready import explain
from kubesvc.node.steering import ANNOTATION, steered, steered_outcome


def pod(value: str | None = None, probe: dict[str, Any] | None = None) -> Pod:
    container = {"name": "c", "image": "x", "readinessProbe": probe}
    annotations = {} if value is None else {ANNOTATION: value}
    return typed({"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [container]}}, Pod)


CASES: tuple[tuple[str, str | None, str, str | None], ...] = (
    ("nothing said: the container is asked", None, "", None),
    ("off: a failure", "off", "off", "failure"),
    ("on: a success", "on", "on", "success"),
    ("a word that is not known says nothing", "maybe", "", None),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_what_the_probe_sees(case: tuple[str, str | None, str, str | None]) -> None:
    _, value, meaning, result = case
    outcome = steered_outcome(pod(value))
    assert steered(pod(value)) == meaning
    assert (outcome.result if outcome is not None else None) == result
    assert outcome is None or outcome.result == "success" or ANNOTATION in outcome.detail


TEXTS = (
    ("off", {"periodSeconds": 5, "failureThreshold": 2}, "fails from now on; Ready follows within 10 s"),
    ("on", {"periodSeconds": 5, "successThreshold": 3}, "succeeds from now on; Ready follows within 15 s"),
    ("off", None, "no readiness probe; its containers are unready at once"),
    ("on", None, "no readiness probe; its containers are ready while it runs"),
    ("auto", {"periodSeconds": 5}, "asks the container again"),
)


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: case[2])
def test_what_the_command_says(case: tuple[str, dict[str, Any] | None, str]) -> None:
    state, probe, words = case
    assert explain(pod(probe=probe), state).endswith(words)
