"""A Job's policies: which failures count, which end an index or the Job, what is success."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubesvc.api.kinds import JOB, POD
from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import Pod
from kubesvc.controllers.job_plan import FINALIZER, INDEX
from kubesvc.controllers.job_policies import (
    FAILURE_COUNT,
    IGNORED_COUNT,
    Judgement,
    judge_pod,
    match_success,
    replacement_counts,
)

from .house import House
from .kubelet import Kubelet
from .test_job import STARTED, job
from .test_statefulset import with_kubelet


def failed(code: int = 1, *, container: str = "c", condition: str = "", status: str = "True", **counts: str) -> Pod:
    names = {"failures": FAILURE_COUNT, "ignored": IGNORED_COUNT}
    meta = {"name": "p", "namespace": "ns", "uid": "u", "finalizers": [FINALIZER],
            "annotations": {INDEX: "0", **{names[n]: v for n, v in counts.items()}}}  # fmt: skip
    ended = {"terminated": {"exitCode": code, "finishedAt": STARTED}}
    whole: Object = {"phase": "Failed", "containerStatuses": [{"name": container, "state": ended}]}
    if condition:
        whole["conditions"] = [{"type": condition, "status": status}]
    return typed({"metadata": meta, "status": whole}, Pod)


def policy(*rules: Object) -> Object:
    return {"rules": list(rules)}


def codes(action: str, operator: str, *values: int, **more: Any) -> Object:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values), **more}}


def disrupted(action: str, **more: str) -> Object:
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", **more}]}


JUDGED: tuple[tuple[str, Object, Pod, Judgement], ...] = (
    ("no rule matches", policy(codes("FailJob", "In", 42)), failed(1), Judgement()),
    ("a code in the list", policy(codes("FailJob", "In", 42)), failed(42), Judgement(
        "FailJob", "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 0")),
    ("a code not in the list", policy(codes("Ignore", "NotIn", 42)), failed(1), Judgement("Ignore")),
    ("success is no failure", policy(codes("FailJob", "NotIn", 42)), failed(0), Judgement()),
    ("another container's code", policy(codes("FailJob", "In", 1, containerName="x")), failed(1), Judgement()),
    ("a condition", policy(disrupted("Ignore")), failed(condition="DisruptionTarget"), Judgement("Ignore")),
    ("a condition that is not true", policy(disrupted("Ignore")), failed(condition="DisruptionTarget", status="False"),
     Judgement()),
    ("a condition asked to be false", policy(disrupted("Count", status="False")),
     failed(condition="DisruptionTarget", status="False"), Judgement("Count")),
    ("a condition that fails the job", policy(disrupted("FailJob")), failed(condition="DisruptionTarget"), Judgement(
        "FailJob", "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0")),
    ("the first rule that matches", policy(codes("Ignore", "In", 1), codes("FailJob", "In", 1)), failed(1),
     Judgement("Ignore")),
    ("an action of the future", policy(codes("Dance", "In", 1)), failed(1), Judgement()),
)  # fmt: skip


@pytest.mark.parametrize(("name", "rules", "pod", "expected"), JUDGED, ids=[j[0] for j in JUDGED])
def test_judged(name: str, rules: Object, pod: Pod, expected: Judgement) -> None:
    assert judge_pod(rules, pod) == expected


SUCCESS: tuple[tuple[str, list[Object], set[int], str | None], ...] = (
    ("all of the listed", [{"succeededIndexes": "0,2-3"}], {0, 2, 3}, "Matched rules at index 0"),
    ("not all of the listed", [{"succeededIndexes": "0,2-3"}], {0, 2}, None),
    ("so many", [{"succeededCount": 2}], {1, 4}, "Matched rules at index 0"),
    ("so many of the listed", [{"succeededIndexes": "0-2", "succeededCount": 1}], {1}, "Matched rules at index 0"),
    ("others do not count", [{"succeededIndexes": "0-2", "succeededCount": 1}], {4}, None),
    ("the first that matches", [{"succeededIndexes": "0"}, {"succeededCount": 1}], {3}, "Matched rules at index 1"),
)


@pytest.mark.parametrize(("name", "rules", "done", "expected"), SUCCESS, ids=[s[0] for s in SUCCESS])
def test_success(name: str, rules: list[Object], done: set[int], expected: str | None) -> None:
    of = job(completions=5, completionMode="Indexed", successPolicy={"rules": rules})
    assert match_success(of, done) == expected


def test_the_next_pod_of_an_index_knows_how_many_failed_before() -> None:
    of = job(completions=2, completionMode="Indexed", backoffLimitPerIndex=2)
    assert replacement_counts(of, None) == {FAILURE_COUNT: "0"}
    assert replacement_counts(of, failed(failures="1")) == {FAILURE_COUNT: "2"}
    ignoring = job(
        completions=2,
        completionMode="Indexed",
        backoffLimitPerIndex=2,
        podFailurePolicy=policy(codes("Ignore", "In", 1)),
    )
    assert replacement_counts(ignoring, failed(failures="1")) == {FAILURE_COUNT: "1", IGNORED_COUNT: "1"}


# -------------------------------------------------------------------- on a real server


async def make(house: House, **spec: Any) -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never",
                         "terminationGracePeriodSeconds": 1}}  # fmt: skip
    await house.client.create(JOB, {"metadata": {"name": "j"}, "spec": {"template": template, **spec}}, "ns")


async def end(house: House, kubelet: Kubelet, *indexes: int, phase: str = "Failed", code: int = 1) -> int:
    """End the running pods of these indexes, of all without; how many there were."""
    ended = 0
    for pod in await house.every(POD):
        meta = pod["metadata"]
        index = int((meta.get("annotations") or {}).get(INDEX, "-1"))
        if pod["status"]["phase"] != "Running" or meta.get("deletionTimestamp") or (indexes and index not in indexes):
            continue
        ended += 1
        state = {"terminated": {"exitCode": code, "startedAt": STARTED, "finishedAt": STARTED}}
        statuses = [{"name": "c", "state": state, "ready": False, "restartCount": 0, "image": "i", "imageID": ""}]
        patch = {"metadata": {"uid": meta["uid"]}, "status": {"containerStatuses": statuses}}
        await house.client.patch(POD, meta["name"], "ns", patch, "merge", subresource="status")
        await kubelet.report(meta, phase, ready=False)
    return ended


async def status(house: House) -> Object:
    found: Object = (await house.client.get(JOB, "j", "ns"))["status"]
    return found


def ends(now: Object) -> list[tuple[str, str]]:
    return [(c["type"], c["reason"]) for c in now.get("conditions") or ()]


def test_a_fatal_code_ends_the_job_at_once() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, completions=3, parallelism=2, podFailurePolicy=policy(codes("FailJob", "In", 42)))
        await house.settle(5)
        pods = await house.every(POD)
        kubelet.node = "n1"
        first = pods[0]["metadata"]["name"]
        state = {"terminated": {"exitCode": 42, "startedAt": STARTED, "finishedAt": STARTED}}
        statuses = [{"name": "c", "state": state, "ready": False, "restartCount": 0, "image": "i", "imageID": ""}]
        await house.client.patch(
            POD, first, "ns", {"status": {"containerStatuses": statuses}}, "merge", subresource="status"
        )
        await kubelet.report(pods[0]["metadata"], "Failed", ready=False)
        await house.settle(20)
        now = await status(house)
        assert ends(now) == [("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")]
        assert f"Container c for pod ns/{first} failed with exit code 42" in now["conditions"][0]["message"]
        assert now["failed"] == 2 and "active" not in now

    with_kubelet(story, ("job",))


def test_ignored_failures_do_not_count() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, backoffLimit=0, podFailurePolicy=policy(codes("Ignore", "In", 1)))
        for _ in range(3):
            await house.settle(30)
            assert await end(house, kubelet) == 1
        await house.settle(60)
        assert "failed" not in await status(house)
        await end(house, kubelet, code=2)
        await house.settle(30)
        now = await status(house)
        assert now["failed"] == 1 and ends(now)[-1] == ("Failed", "BackoffLimitExceeded")

    with_kubelet(story, ("job",))


def test_each_index_has_a_limit_of_its_own() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
        await house.settle(5)
        await end(house, kubelet, 0)
        await house.settle(15)
        again = [p for p in await house.every(POD) if p["metadata"]["annotations"].get(FAILURE_COUNT) == "1"]
        assert [p["metadata"]["annotations"][INDEX] for p in again] == ["0"]
        now = await status(house)
        assert (now["failed"], now["failedIndexes"]) == (1, "")
        await end(house, kubelet, 0)
        await house.settle(15)
        now = await status(house)
        assert (now["failed"], now["failedIndexes"], now["active"]) == (2, "0", 2)
        await end(house, kubelet, phase="Succeeded", code=0)
        await house.settle(15)
        now = await status(house)
        assert ends(now) == [("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")]
        assert (now["completedIndexes"], now["succeeded"], now["failed"]) == ("1,2", 2, 2)
        assert not any(p["metadata"].get("finalizers") for p in await house.every(POD))

    with_kubelet(story, ("job",))


def test_too_many_failed_indexes_end_the_job() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        limits = {"backoffLimitPerIndex": 0, "maxFailedIndexes": 1}
        await make(house, completions=4, parallelism=4, completionMode="Indexed", **limits)
        await house.settle(5)
        await end(house, kubelet, 0)
        await house.settle(5)
        assert (await status(house))["active"] == 3
        await end(house, kubelet, 2)
        await house.settle(20)
        now = await status(house)
        assert ends(now)[-1] == ("Failed", "MaxFailedIndexesExceeded")
        assert now["failedIndexes"] == "0-3"  # the two that still ran were deleted, which is a failure too

    with_kubelet(story, ("job",))


def test_success_of_the_leader_is_enough() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        rules = {"rules": [{"succeededIndexes": "0"}]}
        await make(house, completions=3, parallelism=3, completionMode="Indexed", successPolicy=rules)
        await house.settle(5)
        await end(house, kubelet, 0, phase="Succeeded", code=0)
        await house.settle(20)
        now = await status(house)
        assert ends(now) == [("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]
        assert now["completedIndexes"] == "0" and "active" not in now

    with_kubelet(story, ("job",))


@pytest.mark.parametrize(("policy_name", "there"), [("TerminatingOrFailed", 2), ("Failed", 1)])
def test_when_a_deleted_pod_is_replaced(policy_name: str, there: int) -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        kubelet.stop_seconds = 60
        await make(house, podReplacementPolicy=policy_name)
        await house.settle(5)
        [pod] = await house.every(POD)
        await house.client.delete(POD, pod["metadata"]["name"], "ns", grace_seconds=100)
        await house.settle(15)
        assert len([p for p in await house.every(POD) if p["status"]["phase"] == "Running"]) == there
        await asyncio.sleep(120)
        assert (await status(house))["failed"] == 1
        assert (await status(house))["active"] == 1

    with_kubelet(story, ("job",))


def test_what_a_suspension_deletes_has_not_failed() -> None:
    async def story(house: House, kubelet: Kubelet) -> None:
        await make(house, backoffLimit=0, completions=2, parallelism=2)
        for suspend in (True, False, True, False):
            await house.settle(10)
            await house.client.patch(JOB, "j", "ns", {"spec": {"suspend": suspend}}, "merge")
        await house.settle(10)
        now = await status(house)
        assert "failed" not in now and now["active"] == 2 and ends(now) == [("Suspended", "JobResumed")]

    with_kubelet(story, ("job",))
