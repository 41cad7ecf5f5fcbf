"""Pods that no node will end, and pods that must leave their node: gone, and the reason said first (NODE-4)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import NODE, POD
from kubesvc.api.meta import Object

from .house import House, in_house

HELD = "example.com/held"


async def held_pod(house: House, node: str, *tolerations: Object) -> None:
    """A pod that a finalizer keeps, so that its last state can be read."""
    spec: Object = {"nodeName": node, "containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
    spec["tolerations"] = list(tolerations)
    await house.client.create(POD, {"metadata": {"name": "p", "finalizers": [HELD]}, "spec": spec}, "ns")
    await house.status("p", ready=True)


async def said(house: House) -> tuple[str, list[tuple[str, str]]]:
    pod: Object = await house.client.get(POD, "p", "ns")
    conditions = pod["status"]["conditions"]
    return pod["status"]["phase"], [(c["reason"], c["message"]) for c in conditions if c["type"] == "DisruptionTarget"]


def test_pods_of_a_node_that_is_gone() -> None:
    async def story(house: House) -> None:
        house.start(("podgc",))
        await house.node("n2")
        await held_pod(house, "n2")
        await house.settle(30)
        assert await said(house) == ("Running", [])
        await house.client.delete(NODE, "n2")
        await house.settle(30)
        assert await said(house) == ("Running", [])  # the node may be made anew
        await house.settle(60)
        assert await said(house) == ("Failed", [("DeletionByPodGC", "PodGC: node no longer exists")])
        await house.client.patch(POD, "p", "ns", {"metadata": {"finalizers": None}}, "merge")
        await house.settle(1)
        with pytest.raises(NotFound):
            await house.client.get(POD, "p", "ns")

    in_house(story)


def test_a_server_that_is_away_is_no_failure_of_the_collector(caplog: pytest.LogCaptureFixture) -> None:
    """A deleted pod without a node is collected in the next turn; no traceback is logged for that."""

    async def story(house: House) -> None:
        house.start(("podgc",))
        spec = {"containers": [{"name": "c", "image": "i"}]}
        await house.client.create(POD, {"metadata": {"name": "p", "finalizers": [HELD]}, "spec": spec}, "ns")
        await house.client.delete(POD, "p", "ns")
        await house.settle(5)
        house.trouble.odds = 1.0
        before = house.trouble.writes
        await house.settle(200)  # ten turns: half of the failures are conflicts, which are none
        assert house.trouble.writes > before
        house.trouble.odds = 0.0
        await house.settle(25)
        assert (await house.client.get(POD, "p", "ns"))["status"]["phase"] == "Failed"

    in_house(story)
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(("tolerated", "after"), [(None, 0), (100, 100)])
def test_pods_that_do_not_tolerate_their_node(tolerated: int | None, after: int) -> None:
    async def story(house: House) -> None:
        house.start(("taint-eviction",))
        toleration = {"key": "out", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": tolerated}
        await held_pod(house, "n1", *([toleration] if tolerated is not None else []))
        await house.settle(1)
        taint: dict[str, Any] = {"key": "out", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:01Z"}
        await house.client.patch(NODE, "n1", "", {"spec": {"taints": [taint]}}, "merge")
        if after:
            await house.settle(after - 10)
            assert await said(house) == ("Running", [])
            await house.settle(15)
        await house.settle(2)
        why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
        assert await said(house) == ("Running", [why])
        assert "deletionTimestamp" in (await house.client.get(POD, "p", "ns"))["metadata"]

    in_house(story)
