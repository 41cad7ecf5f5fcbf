"""The agent with real processes in real namespaces: each scenario alone, as root and as an ordinary user.

They mostly wait, so they are no `e2e` tests, which run beside those that compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from .mother import Mother
from .world import Mode

SCENARIOS = (
    "web_server_becomes_ready_and_goes",
    "readiness_follows_the_probe",
    "liveness_failure_restarts",
    "exits_and_phases",
    "init_containers_and_sidecars",
    "volumes_environment_and_names",
    "missing_things_wait",
    "deletion_takes_the_grace_it_has",
    "agent_comes_back",
    "door_lets_in",
    "floods_and_forks_are_bounded",
    "simulated_pods_follow_their_script",
    "limits_hold",
    "limits_without_groups_are_said",
    "containers_share_what_they_say",
    "volumes_have_owners_and_sizes",
    "host_ports_lead_to_pods",
    "ends_of_adopted_containers_are_known",
    "loaded_images_run",
    "odd_probes",
    "bombs_and_floods",
    "links_lead_nowhere_else",
    "hooks_run_and_fail",
    "hooks_end_with_their_container",
    "a_pod_serves_until_it_has_stopped",
    "what_happened_is_told",
    "floods_of_events_are_bounded",
    "probes_are_counted_and_leave_no_connections",
    "the_node_shows_itself",
    "without_a_network_only_the_nodes_own_runs",
    "what_cannot_start_says_so",
    "a_lost_sandbox_is_made_anew",
    "what_joined_a_container_does_not_hold_up_its_end",
    "gates_of_others_are_kept",
    "terminals_are_the_pods_own",
)


REFUSALS: dict[tuple[str, str], str] = {
    ("limits_hold", "one id"): "no_control_groups",
    ("limits_hold", "subordinate ids"): "no_control_groups",
    ("volumes_have_owners_and_sizes", "one id"): "no_other_groups",
    ("loaded_images_run", "one id"): "no_users_of_images",
    ("bombs_and_floods", "one id"): "processes_are_bounded_by_user",
    ("bombs_and_floods", "subordinate ids"): "processes_are_bounded_by_user",
}
"""What cannot hold for an ordinary user, and the scenario that shows how it is refused there instead."""

MODES: tuple[Mode, ...] = ("root", "one id", "subordinate ids")
PATH = Path(__file__)
AT_ONCE = 6
"""Scenarios mostly wait: so many run beside each other, the next while the one before is looked at."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[tuple[Mode, str], Future[None]]]:
    """All cases that are wanted, begun in their order."""
    params = [i.callspec.params for i in request.session.items if isinstance(i, pytest.Function) and i.path == PATH]
    wanted: list[tuple[Mode, str]] = [(p["mode"], p["scenario"]) for p in params]  # type: ignore[misc]
    with ExitStack() as stack:
        mothers = {mode: stack.enter_context(closing(Mother(mode))) for mode in dict(wanted)}
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        yield {
            (mode, scenario): pool.submit(mothers[mode].run, REFUSALS.get((scenario, mode), scenario))
            for mode, scenario in wanted
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: networks of their own, and other users to become")
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mode", MODES)
def test_node(runs: dict[tuple[Mode, str], Future[None]], mode: Mode, scenario: str) -> None:
    runs[mode, scenario].result()
