"""Jobs: how many pods run, when a Job ends and how, and that every end is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import NotFound
from kubesvc.api.job import Job
from kubesvc.api.kinds import JOB, POD
from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import Pod
from kubesvc.clock import parse_rfc3339, rfc3339
from kubesvc.controllers.job_backoff import NONE, Record, finished_at
from kubesvc.controllers.job_plan import FINALIZER, INDEX, plan_job
from kubesvc.controllers.job_policies import indexes_text, parse_indexes

from .house import House
from .kubelet import Kubelet
from .test_statefulset import with_kubelet

STARTED = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(STARTED) + 60


def job(status: Object | None = None, **spec: Any) -> Job:
    meta = {"name": "j", "namespace": "ns", "uid": "u"}
    return typed({"metadata": meta, "spec": spec, "status": {"startTime": STARTED, **(status or {})}}, Job)


def pods(*words: str) -> list[Pod]:
    """`Running`, `Succeeded`, `Failed/2` with its index; `Failed-` is without the finalizer, its end counted."""
    found = []
    for number, word in enumerate(words):
        phase, _, index = word.partition("/")
        meta: dict[str, Any] = {"name": f"p{number}", "uid": f"u{number}", "finalizers": [FINALIZER]}
        if index:
            meta["annotations"] = {INDEX: index}
        if phase.endswith("-"):
            meta["finalizers"] = []
        found.append(typed({"metadata": meta, "status": {"phase": phase.rstrip("-")}}, Pod))
    return found


INDEXED: dict[str, Any] = {"completions": 4, "parallelism": 2, "completionMode": "Indexed"}
CASES: tuple[tuple[str, Job, Sequence[str], str], ...] = (
    ("as many at a time as told", job(completions=5, parallelism=2), (), "make 2"),
    ("no more than are missing", job({"succeeded": 4}, completions=5, parallelism=2), (), "make 1"),
    ("ends not counted yet count", job(completions=2, parallelism=2), ("Succeeded", "Running"), ""),
    ("too many go", job(completions=5, parallelism=1), ("Running", "Running"), "drop 1"),
    ("all done", job(completions=2, parallelism=2), ("Succeeded", "Succeeded"), "Complete CompletionsReached"),
    ("more than enough", job({"succeeded": 1}, completions=1), ("Running",), "delete 1 Complete CompletionsReached"),
    ("no count: one success stops new ones", job(parallelism=3), ("Succeeded", "Running"), ""),
    ("no count: over when the rest is", job(parallelism=3), ("Succeeded", "Succeeded"), "Complete CompletionsReached"),
    ("one failure is made good after its back-off", job(completions=1, backoffLimit=1), ("Failed",), "again 10"),
    ("a failure counted long ago is made good at once", job({"failed": 1}, completions=1, backoffLimit=1), ("Failed-",),
     "make 1"),
    ("too many failures", job(completions=2, backoffLimit=1, parallelism=2), ("Failed", "Failed", "Running"),
     "delete 1 Failed BackoffLimitExceeded"),
    ("too late", job(completions=1, activeDeadlineSeconds=60), ("Running",), "delete 1 Failed DeadlineExceeded"),
    ("not too late yet", job(completions=1, activeDeadlineSeconds=61), ("Running",), "again 1"),
    ("suspended", job(completions=1, suspend=True), ("Running",), "drop 1"),
    ("indexes in turn", job(**INDEXED), (), "make #0 #1"),
    ("an index that is done or runs is left alone", job({"completedIndexes": "0"}, **INDEXED), ("Running/2",),
     "make #1"),
    ("an index that failed comes again", job(**INDEXED), ("Failed-/0", "Running/1"), "make #0"),
    ("an index that nobody asks for any more goes", job(**{**INDEXED, "completions": 2}), ("Running/0", "Running/2"),
     "drop 1"),
    ("of two with one index one goes, and only then others come", job(**{**INDEXED, "parallelism": 4}),
     ("Running/1", "Running/1", "Running/0"), "drop 1"),
    ("a pod that says no index goes", job(**INDEXED), ("Running/0", "Running/x"), "drop 1"),
    ("fewer completions than were reached: what is done beyond them counts no more",
     job({"completedIndexes": "0,2,3"}, **{**INDEXED, "completions": 2}), (), "make #1"),
    ("fewer completions, all done", job({"completedIndexes": "0-3"}, **{**INDEXED, "completions": 2}), (),
     "Complete CompletionsReached"),
    ("all indexes done", job({"completedIndexes": "0-2", "succeeded": 3}, **INDEXED), ("Succeeded/3",),
     "Complete CompletionsReached"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "of", "there", "expected"), CASES, ids=[c[0] for c in CASES])
def test_steps(name: str, of: Job, there: Sequence[str], expected: str) -> None:
    plan = plan_job(of, pods(*there), NOW)
    words = [f"delete {len(plan.delete)}"] if plan.delete else []
    words += [f"drop {len(plan.drop)}"] if plan.drop else []
    if plan.create:
        indexes = [f"#{i}" for i in plan.create if i is not None]
        words.append(f"make {' '.join(indexes) or len(plan.create)}")
    if plan.again is not None:
        words.append(f"again {plan.again:.0f}")
    if plan.verdict:
        words.append(f"{plan.verdict.type} {plan.verdict.reason}")
    assert " ".join(words) == expected


def test_an_end_is_noted_then_let_go_then_counted() -> None:
    first = plan_job(job(completions=2), pods("Succeeded"), NOW)
    assert first.status["succeeded"] is None
    assert first.status["uncountedTerminatedPods"] == {"succeeded": ["u0"], "failed": None}
    assert [p.name for p in first.settle] == ["p0"]
    noted = job({"uncountedTerminatedPods": {"succeeded": ["u0"]}}, completions=2)
    second = plan_job(noted, pods("Succeeded-"), NOW)
    assert second.status["succeeded"] == 1
    assert second.status["uncountedTerminatedPods"] == {"succeeded": None, "failed": None}
    assert second.settle == []


@pytest.mark.parametrize("text", ["", "0", "0,1", "0-2", "0,1,3-5,9"])
def test_indexes_are_read_as_written(text: str) -> None:
    assert indexes_text(parse_indexes(text)) == text


@given(st.sets(st.integers(0, 60)))
def test_indexes_come_back(indexes: set[int]) -> None:
    assert parse_indexes(indexes_text(indexes)) == indexes


async def make(house: House, **spec: Any) -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never",
                         "terminationGracePeriodSeconds": 1}}  # fmt: skip
    await house.client.create(JOB, {"metadata": {"name": "j"}, "spec": {"template": template, **spec}}, "ns")


async def finish(house: House, kubelet: Kubelet, phase: str = "Succeeded") -> int:
    """End all running pods; how many there were."""
    running = [p for p in await house.every(POD) if p["status"]["phase"] == "Running"]
    for pod in running:
        await kubelet.report(pod["metadata"], phase, ready=False)
    return len(running)


async def status(house: House) -> Object:
    found: Object = (await house.client.get(JOB, "j", "ns"))["status"]
    return found


def test_a_job_runs_to_its_end_and_is_removed_after_its_time() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, completions=3, parallelism=2, ttlSecondsAfterFinished=100)
        await house.settle(5)
        assert await finish(house, kubelet) == 2
        await house.settle(5)
        now = await status(house)
        assert (now["active"], now["succeeded"], now["uncountedTerminatedPods"]) == (1, 2, {})
        assert await finish(house, kubelet) == 1
        await house.settle(5)
        now = await status(house)
        assert [(c["type"], c["status"]) for c in now["conditions"]] == [
            ("SuccessCriteriaMet", "True"), ("Complete", "True"),
        ]  # fmt: skip
        assert now["succeeded"] == 3 and now["completionTime"] >= now["startTime"] and "active" not in now
        assert not any(p["metadata"].get("finalizers") for p in await house.every(POD))
        async with house.counting(JOB, POD) as seen:
            await house.settle(80)
        assert seen == {"Job": [], "Pod": []}
        await house.settle(60)
        with pytest.raises(NotFound):
            await status(house)
        assert await house.every(POD) == []

    with_kubelet(story, ("job", "ttl-after-finished", "garbage-collector"))


def test_a_job_fails_when_its_pods_do() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, backoffLimit=2)
        failures = 0
        for _ in range(60):
            await house.settle(5)
            failures += await finish(house, kubelet, "Failed")
        now = await status(house)
        assert (failures, now["failed"]) == (3, 3)
        assert now["conditions"][-1]["type"] == "Failed"
        assert now["conditions"][-1]["reason"] == "BackoffLimitExceeded"

    with_kubelet(story, ("job",))


def test_pods_deleted_early_are_counted_and_leave() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, backoffLimit=5)
        await house.settle(5)
        [pod] = await house.every(POD)
        await house.client.delete(POD, pod["metadata"]["name"], "ns")
        await house.settle(20)
        assert (await status(house))["failed"] == 1
        [again] = await house.every(POD)
        assert again["metadata"]["uid"] != pod["metadata"]["uid"]
        await house.client.delete(JOB, "j", "ns", propagation="Background")
        await house.settle(20)
        assert await house.every(POD) == []

    with_kubelet(story, ("job", "garbage-collector"))


def test_suspending_and_resuming() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, completions=2)
        await house.settle(5)
        await house.client.patch(JOB, "j", "ns", {"spec": {"suspend": True}}, "merge")
        await house.settle(5)
        now = await status(house)
        assert "active" not in now and "startTime" not in now
        assert now["conditions"][0]["reason"] == "JobSuspended"
        await house.client.patch(JOB, "j", "ns", {"spec": {"suspend": False}}, "merge")
        await house.settle(15)
        now = await status(house)
        assert (now["active"], now["conditions"][0]["reason"]) == (1, "JobResumed")

    with_kubelet(story, ("job",))


def test_trouble_is_got_over() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        house.trouble.odds = 0.3
        await make(house, completions=6, parallelism=3)
        ended = 0
        for turn in range(40):
            if turn == 20:
                house.trouble.odds = 0.0
            await house.settle(30)
            ended += await finish(house, kubelet)
        now = await status(house)
        assert now["succeeded"] == 6 <= ended
        assert now["conditions"][-1]["type"] == "Complete"

    with_kubelet(story, ("job",))


# ---------------------------------------------------------------- back-off


def ended(phase: str, *seconds: float | None, ready: float | None = None, deleted: float | None = None) -> Pod:
    """A pod whose containers ended so many seconds after the start (None: still running), or that says otherwise."""
    states = [{"terminated": {"finishedAt": at(s), "exitCode": 1}} if s is not None else {} for s in seconds]
    ready_since = [{"type": "Ready", "status": "False", "lastTransitionTime": at(ready)}] if ready is not None else []
    meta = {"deletionTimestamp": at(deleted), "deletionGracePeriodSeconds": 30} if deleted is not None else {}
    said = {"phase": phase, "conditions": ready_since, "containerStatuses": [{"name": "c", "state": s} for s in states]}
    return typed({"metadata": {"name": "p", **meta}, "status": said}, Pod)


def at(seconds: float) -> str:
    return rfc3339(parse_rfc3339(STARTED) + seconds)


ENDS: tuple[tuple[str, Pod, float], ...] = (
    ("the last of its containers", ended("Failed", 5, 7, ready=1), 7),
    ("one container tells nothing yet: since it was not ready", ended("Failed", 5, None, ready=6), 6),
    ("nothing but its deletion, whose time is the end of its grace", ended("Running", deleted=40), 10),
    ("nothing at all: now", ended("Failed"), 60),
)


@pytest.mark.parametrize(("name", "pod", "expected"), ENDS, ids=[c[0] for c in ENDS])
def test_when_a_pod_ended(name: str, pod: Pod, expected: float) -> None:
    assert finished_at(pod, NOW) - parse_rfc3339(STARTED) == expected, name


START = parse_rfc3339(STARTED)
RECORDS: tuple[tuple[str, Record, tuple[float, ...], tuple[float, ...], Record], ...] = (
    ("nothing new", Record(2, START), (), (), Record(2, START)),
    ("failures add up, the latest counts", Record(2, START), (), (9, 5), Record(4, START + 9)),
    ("a success ends the count", Record(5, START), (7,), (), NONE),
    ("failures before the success are forgiven", Record(5, START), (7,), (3, 7), NONE),
    ("failures after it are the first ones", Record(5, START), (7,), (3, 8, 9), Record(2, START + 9)),
    ("by a clock an hour fast: now", Record(2, START), (), (9, 3600), Record(4, NOW)),
    ("by it the success was an hour from now, too", NONE, (3600,), (3601,), Record(1, NOW)),
)


@pytest.mark.parametrize(("name", "before", "won", "lost", "after"), RECORDS, ids=[c[0] for c in RECORDS])
def test_failures_count_since_the_last_success(
    name: str, before: Record, won: Sequence[float], lost: Sequence[float], after: Record
) -> None:
    found = before.after([ended("Succeeded", s) for s in won], [ended("Failed", s) for s in lost], NOW)
    assert found == after, name


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (10_000, 600)]
)
def test_each_failure_doubles_the_wait(failures: int, wait: float) -> None:
    assert Record(failures, NOW).seconds_left(NOW) == wait
    assert Record(failures, NOW).seconds_left(NOW + wait) == 0 == Record(failures, NOW).seconds_left(NOW + wait + 99)


def test_a_success_between_failures_shortens_the_wait() -> None:
    """Three failures, then a success: what fails next waits ten seconds and not eighty."""

    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, completions=2, backoffLimit=9)
        for wait in (10, 20, 40):
            await house.settle(2)
            assert await finish(house, kubelet, "Failed") == 1
            await house.settle(wait - 3)
            assert not await finish(house, kubelet), "before its back-off is over"
            await house.settle(4)
        await house.settle(2)
        assert await finish(house, kubelet) == 1
        await house.settle(5)
        assert await finish(house, kubelet, "Failed") == 1
        await house.settle(14)
        assert await finish(house, kubelet) == 1
        await house.settle(5)
        assert (await status(house))["conditions"][-1]["type"] == "Complete"

    with_kubelet(story, ("job",))
