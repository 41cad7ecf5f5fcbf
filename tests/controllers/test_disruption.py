"""Disruption budgets: what their status says, and that evictions heed it (SUB-4)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from kubesvc.api.errors import TooManyRequests
from kubesvc.api.kinds import DEPLOYMENT, POD, POD_DISRUPTION_BUDGET, STATEFUL_SET
from kubesvc.api.meta import Object, typed
from kubesvc.api.pod import Pod
from kubesvc.api.poddisruptionbudget import PodDisruptionBudget
from kubesvc.clock import LoopClock, parse_rfc3339
from kubesvc.controllers.disruption_plan import Expected, plan_disrupted, plan_expected, plan_status

from .house import House, in_house
from .kubelet import Kubelet

EVICTED = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(EVICTED)


def budget(disrupted: dict[str, str] | None = None, **spec: Any) -> PodDisruptionBudget:
    meta = {"name": "b", "namespace": "ns", "uid": "u", "generation": 2}
    return typed({"metadata": meta, "spec": spec, "status": {"disruptedPods": disrupted}}, PodDisruptionBudget)


def pod(name: str, *, ready: bool = True, terminating: bool = False) -> Pod:
    meta: dict[str, Any] = {"name": name, "namespace": "ns"}
    if terminating:
        meta["deletionTimestamp"] = EVICTED
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return typed({"metadata": meta, "status": {"conditions": conditions}}, Pod)


PODS = [pod("a"), pod("b"), pod("c", ready=False), pod("d", terminating=True)]


@dataclass(frozen=True)
class Case:
    name: str
    spec: dict[str, Any]
    wanted: int
    expected: tuple[int, int]
    allowed: int


CASES = (
    Case("a least number counts the pods there are", {"minAvailable": 1}, 0, (4, 1), 1),
    Case("more than there are healthy", {"minAvailable": 3}, 0, (4, 3), 0),
    Case("a least share counts what owners want, up", {"minAvailable": "34%"}, 3, (3, 2), 0),
    Case("a most number", {"maxUnavailable": 2}, 3, (3, 1), 1),
    Case("a most share rounds up", {"maxUnavailable": "40%"}, 3, (3, 1), 1),
    Case("more may be missing than there should be", {"maxUnavailable": 9}, 3, (3, 0), 2),
    Case("nobody wants any", {"maxUnavailable": 1}, 0, (0, 0), 0),
    Case("a budget without a number", {}, 0, (4, 0), 2),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numbers(case: Case) -> None:
    found = budget(**case.spec)
    expected = plan_expected(found, PODS, case.wanted)
    assert expected == Expected(*case.expected)
    status = plan_status(found, PODS, expected, plan_disrupted(found, PODS, NOW), NOW)
    assert (status["currentHealthy"], status["disruptionsAllowed"]) == (2, case.allowed)
    assert status["observedGeneration"] == 2
    [condition] = status["conditions"]
    assert condition == {
        "type": "DisruptionAllowed", "status": "True" if case.allowed else "False",
        "reason": "SufficientPods" if case.allowed else "InsufficientPods", "message": "",
        "lastTransitionTime": EVICTED, "observedGeneration": 2,
    }  # fmt: skip


def test_an_evicted_pod_counts_as_gone_for_two_minutes() -> None:
    found = budget({"a": EVICTED, "d": EVICTED, "long-gone": EVICTED}, minAvailable=1)
    early = plan_disrupted(found, PODS, NOW + 100)
    assert (early.pods, early.overdue, early.recheck) == ({"a": EVICTED}, (), 20)
    assert plan_status(found, PODS, Expected(4, 1), early, NOW)["currentHealthy"] == 1
    late = plan_disrupted(found, PODS, NOW + 121)
    assert (late.pods, late.overdue, late.recheck) == ({}, ("a",), None)


def workload(kind: str, replicas: int) -> Object:
    spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 3}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    whole = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"metadata": {"name": "web"}, "spec": whole}


@pytest.mark.parametrize("kind", [DEPLOYMENT, STATEFUL_SET], ids=lambda k: k.name)
def test_evictions_wait_until_others_are_ready(kind: Any) -> None:
    async def story(house: House) -> None:
        house.start(("disruption", "deployment", "replicaset", "statefulset"))
        kubelet = Kubelet(house.client, LoopClock(asyncio.get_running_loop()), start_seconds=5)
        running = asyncio.create_task(kubelet.run())
        await house.client.create(kind, workload(kind.name, 2), "ns")
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        await house.client.create(POD_DISRUPTION_BUDGET, {"metadata": {"name": "b"}, "spec": spec}, "ns")

        async def status() -> Object:
            found: Object = (await house.client.get(POD_DISRUPTION_BUDGET, "b", "ns"))["status"]
            return found

        async def evict(name: str) -> None:
            await house.client.create(POD, {"metadata": {"name": name}}, "ns", name=name, subresource="eviction")

        await house.settle(1)
        now = await status()
        assert (now["expectedPods"], now["desiredHealthy"], now["disruptionsAllowed"]) == (2, 1, 0)
        await house.settle(30)
        assert (await status())["disruptionsAllowed"] == 1
        first, second = [p["metadata"]["name"] for p in await house.every(POD)]
        await evict(first)
        with pytest.raises(TooManyRequests):
            await evict(second)
        await house.settle(1)
        now = await status()
        assert (now["currentHealthy"], now["disruptionsAllowed"]) == (1, 0)
        assert "disruptedPods" not in now
        await house.settle(30)
        assert (await status())["disruptionsAllowed"] == 1
        await evict(second)
        async with house.counting(POD_DISRUPTION_BUDGET) as seen:
            await house.settle(30)
            writes = len(seen["PodDisruptionBudget"])
            await house.settle(600)
        assert len(seen["PodDisruptionBudget"]) == writes
        running.cancel()
        await asyncio.wait([running])

    in_house(story)


def test_what_cannot_be_scaled_allows_nothing() -> None:
    async def story(house: House) -> None:
        house.start(("disruption",))
        await house.pod("a", "10.1.0.1")
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "x", "controller": True}
        await house.client.patch(POD, "a", "ns", {"metadata": {"ownerReferences": [owner]}}, "merge")
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        await house.client.create(POD_DISRUPTION_BUDGET, {"metadata": {"name": "b"}, "spec": spec}, "ns")
        await house.settle(3)
        status = (await house.client.get(POD_DISRUPTION_BUDGET, "b", "ns"))["status"]
        [condition] = status["conditions"]
        assert (status["disruptionsAllowed"], condition["reason"]) == (0, "SyncFailed")
        assert condition["message"] == "DaemonSet ns/d does not implement the scale subresource"

    in_house(story)
