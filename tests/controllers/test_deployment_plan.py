"""What a Deployment wants of its ReplicaSets (DEPLOY-1 to DEPLOY-9)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.deployment import (
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    DeploymentStrategy,
    RollingUpdateDeployment,
)
from kubesvc.api.meta import Condition, ObjectMeta
from kubesvc.api.pod import PodSpec, PodTemplateSpec
from kubesvc.api.replicaset import ReplicaSet, ReplicaSetSpec, ReplicaSetStatus
from kubesvc.controllers import deployment_plan as plan

NOW = 1_767_225_600.0


def deployment(
    replicas: int = 10,
    surge: int | str = "25%",
    unavailable: int | str = "25%",
    *,
    status: DeploymentStatus | None = None,
    deadline: int | None = 600,
) -> Deployment:
    rolling = RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable)
    return Deployment(
        metadata=ObjectMeta(name="web", namespace="d", uid="u", generation=3),
        spec=DeploymentSpec(
            replicas=replicas,
            strategy=DeploymentStrategy(type="RollingUpdate", rolling_update=rolling),
            template=template("web:2"),
            revision_history_limit=2,
            progress_deadline_seconds=deadline,
        ),
        status=status or DeploymentStatus(),
    )


def template(marker: str, digest: str = "") -> PodTemplateSpec:
    labels = {"app": "web"} | ({plan.HASH_LABEL: digest} if digest else {})
    return PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=PodSpec(hostname=marker))


def replica_set(
    name: str, wanted: int, available: int | None = None, *, of: str = "web:1", **annotations: str
) -> ReplicaSet:
    there = wanted if available is None else available
    return ReplicaSet(
        metadata=ObjectMeta(
            name=name,
            creation_timestamp=f"2026-01-01T00:00:{len(name):02d}Z",
            annotations={f"deployment.kubernetes.io/{k.replace('_', '-')}": v for k, v in annotations.items()},
        ),
        spec=ReplicaSetSpec(replicas=wanted, template=template(of, name)),
        status=ReplicaSetStatus(replicas=wanted, ready_replicas=there, available_replicas=there),
    )


SIZES = (
    # sentence, replicas, surge, unavailable, (surge, unavailable) resolved
    ("a percentage of surge rounds up, of unavailability down", 10, "25%", "25%", (3, 2)),
    ("numbers stand as they are", 10, 4, 1, (4, 1)),
    ("both zero after rounding: one may be missing", 1, "0%", "25%", (0, 1)),
    ("no replicas: nothing to spread", 0, "25%", "25%", (0, 0)),
    ("more may not be missing than there are", 2, 0, 5, (0, 2)),
)


@pytest.mark.parametrize(("sentence", "replicas", "surge", "unavailable", "found"), SIZES, ids=[s[0] for s in SIZES])
def test_surge_and_unavailable(
    sentence: str, replicas: int, surge: int | str, unavailable: int | str, found: tuple[int, int]
) -> None:
    """DEPLOY-3."""
    assert plan.surge_and_unavailable(deployment(replicas, surge, unavailable)) == found


@dataclass(frozen=True)
class Step:
    """A state of a rollout with 10 replicas, surge 3, unavailable 2, and what happens next."""

    sentence: str
    old: tuple[tuple[int, int], ...]
    new: tuple[int, int]
    grows_to: int
    shrinks_to: tuple[int, ...] | None


STEPS = (
    Step("the new set starts with the surge", ((10, 10),), (0, 0), 3, (8,)),
    Step("old pods go as far as availability allows", ((10, 10),), (3, 0), 3, (8,)),
    Step("as new ones become available, more old ones go", ((8, 8),), (5, 3), 5, (5,)),
    Step("unhealthy old pods go first", ((4, 4), (4, 0)), (5, 4), 5, (4, 0)),
    Step("nothing moves while too few are available", ((8, 8),), (5, 0), 5, None),
    Step("at the end the last old ones go", ((2, 2),), (10, 8), 10, (0,)),
    Step("finished", (), (10, 10), 10, None),
    Step("the new set was sized by who knew an older Deployment", (), (14, 13), 10, None),
    Step("and there are old ones", ((2, 2),), (12, 12), 10, (0,)),
)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.sentence)
def test_rolling_step(step: Step) -> None:
    """DEPLOY-3."""
    d = deployment()
    old = [replica_set("o" * (i + 1), w, a) for i, (w, a) in enumerate(step.old)]
    new = replica_set("newest", *step.new, of="web:2")
    assert plan.plan_new_replicas(d, [*old, new], new) == step.grows_to
    shrink = plan.plan_old_scale_down(d, old, new)
    assert ({s.replica_set.name: s.replicas for s in shrink} or None) == (
        None
        if step.shrinks_to is None
        else {r.name: size for r, size in zip(old, step.shrinks_to, strict=True) if size != plan.wanted(r)}
    )


@given(
    replicas=st.integers(1, 50),
    surge=st.integers(0, 10),
    unavailable=st.integers(0, 10),
    old=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4),
    new=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_a_step_never_goes_below_what_must_be_available(
    replicas: int, surge: int, unavailable: int, old: list[tuple[int, int]], new: tuple[int, int]
) -> None:
    """DEPLOY-3: what a scale-down takes away was unavailable or above the least that must be available."""
    d = deployment(replicas, surge, unavailable)
    least = replicas - plan.surge_and_unavailable(d)[1]
    sets = [replica_set("o" * (i + 1), w, min(a, w)) for i, (w, a) in enumerate(old)]
    fresh = replica_set("newest", new[0], min(new[1], new[0]), of="web:2")
    available = sum(r.status.available_replicas for r in [*sets, fresh])
    steps = plan.plan_old_scale_down(d, sets, fresh)
    lost = sum(max(s.replica_set.status.available_replicas - s.replicas, 0) for s in steps)
    assert lost == 0 or available - lost >= least
    assert all(0 <= s.replicas < plan.wanted(s.replica_set) for s in steps)


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    """DEPLOY-5: 10 to 20 with surge 25 % on sets of 8 and 5: all 25 are given out, by size."""
    d = deployment(20)
    old = replica_set("o", 8, desired_replicas="10", max_replicas="13")
    new = replica_set("newest", 5, of="web:2", desired_replicas="10", max_replicas="13")
    assert plan.was_rescaled(d, [old, new])
    steps = {s.replica_set.name: s.replicas for s in plan.plan_proportional(d, [old, new])}
    assert steps == {"o": 15, "newest": 10}


def test_same_template_ignores_the_hash_label() -> None:
    """DEPLOY-2."""
    assert plan.same_template(template("web:2"), template("web:2", "abc"))
    assert not plan.same_template(template("web:2"), template("web:1", "abc"))


def test_find_new_takes_the_oldest_of_several() -> None:
    sets = [replica_set("bbb", 1, of="web:2"), replica_set("a", 1, of="web:2"), replica_set("c", 1)]
    found = plan.find_new(deployment(), sets)
    assert found is not None and found.name == "a"


def test_hash_is_of_safe_letters_and_changes_with_the_collision_count() -> None:
    """DEPLOY-2."""
    first = plan.template_hash(template("web:2"), None)
    assert first == plan.template_hash(template("web:2"), None)
    assert first != plan.template_hash(template("web:2"), 1)
    assert set(first) <= set(plan.SAFE_LETTERS) and 5 <= len(first) <= 10


def test_an_old_set_in_use_again_remembers_its_former_revisions() -> None:
    """DEPLOY-2: rolling back gives the set a new revision number and keeps the old one as history."""
    found = plan.plan_annotations(deployment(), replica_set("o", 0, revision="1"), 3)
    assert found[plan.REVISION] == "3" and found[plan.REVISION_HISTORY] == "1"


def test_cleanup_spares_the_newest_and_those_with_pods() -> None:
    old = [replica_set("o" * (i + 1), 0, revision=str(i + 1)) for i in range(4)] + [
        replica_set("busy", 1, revision="9")
    ]
    assert [r.name for r in plan.plan_cleanup(deployment(), old)] == ["o", "oo", "ooo"]


def conditions(status: dict[str, object]) -> dict[str, tuple[str, str]]:
    listed = status["conditions"]
    assert isinstance(listed, list)
    return {c["type"]: (c["status"], c["reason"]) for c in listed}


def test_status_of_a_finished_rollout() -> None:
    """DEPLOY-6, DEPLOY-7: zeros are left out but terminatingReplicas."""
    status = plan.plan_status(deployment(2), [replica_set("n", 2, of="web:2")], replica_set("n", 2, of="web:2"), NOW)
    assert status["observedGeneration"] == 3 and status["terminatingReplicas"] == 0
    assert "unavailableReplicas" not in status and status["availableReplicas"] == 2
    assert conditions(status) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }


def test_a_paused_deployment_says_nothing_about_progress() -> None:
    """DEPLOY-5: paused with no replicas is not "successfully progressed"."""
    paused = Condition(type="Progressing", status="Unknown", reason="DeploymentPaused")
    d = deployment(0, status=DeploymentStatus(conditions=[paused]))
    found = conditions(plan.plan_status(d, [], None, NOW, rolling=False))
    assert list(found) == ["Progressing", "Available"] and found["Progressing"] == ("Unknown", "DeploymentPaused")


def test_status_without_progress_times_out() -> None:
    """DEPLOY-7: ProgressDeadlineExceeded."""
    stuck = Condition(
        type="Progressing",
        status="True",
        reason="ReplicaSetUpdated",
        last_update_time="2025-12-31T23:00:00Z",
        last_transition_time="2025-12-31T23:00:00Z",
    )
    before = DeploymentStatus(replicas=2, updated_replicas=2, conditions=[stuck])
    new = replica_set("n", 2, 0, of="web:2")
    found = conditions(plan.plan_status(deployment(2, status=before), [new], new, NOW))
    assert found["Progressing"] == ("False", "ProgressDeadlineExceeded")
    assert found["Available"] == ("False", "MinimumReplicasUnavailable")


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    before = {"Available": Condition(type="Available", status="True", reason="A", last_transition_time="t0")}
    plan.set_condition(before, "Available", "True", "B", "", NOW)
    assert before["Available"].last_transition_time == "t0"
    plan.set_condition(before, "Available", "False", "C", "", NOW)
    assert before["Available"].last_transition_time == "2026-01-01T00:00:00Z"
