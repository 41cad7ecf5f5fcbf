"""The agent with real processes in real namespaces: each scenario alone, as root."""

from __future__ import annotations

import os

import pytest

from .world import run_inside

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
    "a_pod_serves_until_it_has_stopped",
    "what_happened_is_told",
    "floods_of_events_are_bounded",
    "probes_are_counted_and_leave_no_connections",
    "the_node_shows_itself",
    "without_a_network_only_the_nodes_own_runs",
)


@pytest.mark.e2e
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_node(scenario: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a network namespace with forwarding of its own")
    run_inside(scenario)
