"""Restart policies and back-off (NODE-24 to NODE-28)."""

from __future__ import annotations

import pytest

from kubesvc.api.container import Container, ContainerRestartRule, ExitCodeRequirement
from kubesvc.node.restart_plan import advance, back_off_message, go_duration, restarts, wait_seconds

RULE = ContainerRestartRule(action="Restart", exit_codes=ExitCodeRequirement(operator="In", values=[42]))
NOT_RULE = ContainerRestartRule(action="Restart", exit_codes=ExitCodeRequirement(operator="NotIn", values=[1]))


@pytest.mark.parametrize(
    ("what", "policy", "container", "code", "init", "expected"),
    [
        ("Always, after success", "Always", Container(), 0, False, True),
        ("Always, after failure", "Always", Container(), 1, False, True),
        ("OnFailure, after success", "OnFailure", Container(), 0, False, False),
        ("OnFailure, after failure", "OnFailure", Container(), 1, False, True),
        ("Never", "Never", Container(), 1, False, False),
        ("no policy counts as Always", "", Container(), 0, False, True),
        ("init container under Always is done after success", "Always", Container(), 0, True, False),
        ("init container under Always tries again after failure", "Always", Container(), 1, True, True),
        ("the container's own policy wins", "Never", Container(restart_policy="Always"), 0, False, True),
        ("a rule for this exit code", "Never", Container(restart_policy_rules=[RULE]), 42, False, True),
        ("a rule for another exit code", "Never", Container(restart_policy_rules=[RULE]), 1, False, False),
        ("a rule for all but one", "Never", Container(restart_policy_rules=[NOT_RULE]), 2, False, True),
    ],
)
def test_restarts(what: str, policy: str, container: Container, code: int, init: bool, expected: bool) -> None:
    assert restarts(policy, container, code, init=init) is expected, what


def test_waits_double_and_are_forgotten() -> None:
    """NODE-25: at once, then 10, 20, 40, 80, 160, 300, 300 s after the last end; ten quiet minutes forget it."""
    now, back_off, waits = 0.0, None, []
    for _ in range(8):
        wait = wait_seconds(back_off, now, now)
        waits.append(wait)
        now += wait
        back_off = advance(back_off, now)
        now += 1
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert back_off is not None
    assert wait_seconds(back_off, now, now + 100) == 200
    assert wait_seconds(back_off, now + 700, now + 700) == 0
    assert advance(back_off, now + 700).seconds == 10
    assert advance(None, 0, 1.0).seconds == 1.0  # NODE-26


def test_words() -> None:
    """NODE-27."""
    assert [go_duration(s) for s in (10, 80, 300, 3600)] == ["10s", "1m20s", "5m0s", "1h0m0s"]
    text = back_off_message(20, "c", "p", "ns", "u")
    assert text == "back-off 20s restarting failed container=c pod=p_ns(u)"
