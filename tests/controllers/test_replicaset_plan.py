"""What a ReplicaSet does about its pods (RS-1 to RS-5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.container import ContainerStatus
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.pod import Pod, PodCondition, PodSpec, PodStatus
from kubesvc.api.replicaset import ReplicaSet, ReplicaSetSpec
from kubesvc.controllers.expectations import TIMEOUT_SECONDS, Expectations
from kubesvc.controllers.replicaset_plan import (
    BURST,
    DELETION_COST,
    is_active,
    is_available,
    plan_pods,
    plan_status,
    seconds_to_next_availability,
)

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def pod(
    name: str,
    *,
    node: str = "n1",
    phase: str = "Running",
    ready: str | None = "2025-12-31T23:00:00Z",
    cost: str = "",
    restarts: int = 0,
    created: str = "2025-12-31T00:00:00Z",
    deleted: bool = False,
) -> Pod:
    conditions = [PodCondition(type="Ready", status="True", last_transition_time=ready)] if ready else None
    return Pod(
        metadata=ObjectMeta(
            name=name,
            uid=name,
            creation_timestamp=created,
            annotations={DELETION_COST: cost} if cost else None,
            deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None,
        ),
        spec=PodSpec(node_name=node),
        status=PodStatus(
            phase=phase, conditions=conditions, container_statuses=[ContainerStatus(restart_count=restarts)]
        ),
    )


def replica_set(replicas: int, min_ready: int = 0) -> ReplicaSet:
    return ReplicaSet(
        metadata=ObjectMeta(name="web", generation=2),
        spec=ReplicaSetSpec(replicas=replicas, min_ready_seconds=min_ready),
    )


def test_deletion_order() -> None:
    """RS-4, from the first to go to the last."""
    order = [
        pod("unscheduled", node="", phase="Pending", ready=None),
        pod("pending", phase="Pending", ready=None),
        pod("unready", ready=None),
        pod("cheap", cost="-5"),
        pod("crowded", node="full"),
        pod("ready-for-shorter", ready="2025-12-31T23:30:00Z"),
        pod("restarted", restarts=3),
        pod("younger", created="2025-12-31T12:00:00Z"),
        pod("oldest"),
    ]
    related = [*order, pod("x1", node="full"), *(pod(f"y{i}", node="full") for i in range(9))]
    gone = plan_pods(replica_set(0), list(reversed(order)), related).delete
    assert [p.name for p in gone] == [p.name for p in order]


@given(target=st.integers(0, 700), have=st.integers(0, 700))
def test_makes_and_deletes_just_what_is_missing(target: int, have: int) -> None:
    """RS-3: at most 500 at a time, never both."""
    plan = plan_pods(replica_set(target), [pod(f"p{i}") for i in range(have)], [])
    assert plan.create == min(max(target - have, 0), BURST)
    assert len(plan.delete) == min(max(have - target, 0), BURST)


def test_active_and_available() -> None:
    """RS-5."""
    assert not is_active(pod("a", phase="Failed")) and not is_active(pod("a", deleted=True)) and is_active(pod("a"))
    fresh = pod("a", ready="2025-12-31T23:59:55Z")
    assert is_available(fresh, 0, NOW) and not is_available(fresh, 10, NOW) and is_available(fresh, 10, NOW + 5)
    assert seconds_to_next_availability([fresh, pod("b")], 10, NOW) == 5


def test_status_counts() -> None:
    """DEPLOY-6: `replicas` and `terminatingReplicas` are printed even when 0."""
    pods = [pod("a"), pod("b", ready=None), pod("c", deleted=True), pod("d", phase="Succeeded")]
    assert plan_status(replica_set(2), pods, NOW, None) == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "terminatingReplicas": 1,
        "observedGeneration": 2,
    }
    assert plan_status(replica_set(0), [], NOW, None) == {
        "replicas": 0,
        "terminatingReplicas": 0,
        "observedGeneration": 2,
    }


def test_expectations() -> None:
    """RS-3: no decision until everything asked for was seen, or five minutes have passed."""
    expectations, key = Expectations(), ("d", "web")
    assert expectations.met(key, 0)
    expectations.expect(key, 0, creations=2)
    expectations.created(key)
    assert not expectations.met(key, 1)
    expectations.created(key)
    assert expectations.met(key, 1)
    expectations.expect(key, 0, deletions=("a", "b"))
    expectations.deleted(key, "a")
    expectations.deleted(key, "a")
    assert not expectations.met(key, TIMEOUT_SECONDS) and expectations.met(key, TIMEOUT_SECONDS + 1)
