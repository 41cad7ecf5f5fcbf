"""What becomes of a node that falls silent, and of its pods (NODE-2, NODE-85), on a real server in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubesvc.api.errors import NotFound
from kubesvc.api.kinds import EVENT, LEASE, NODE, POD
from kubesvc.api.meta import Object, typed
from kubesvc.api.node import Node
from kubesvc.clock import LoopClock, rfc3339
from kubesvc.controllers.nodelifecycle import plan_taints, plan_unknown

from .house import MINE, House, in_house

NOW, BEFORE = "2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z"
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def node(ready: str | None, *taints: tuple[str, str], **spec: Any) -> Node:
    """A node whose Ready condition has this status; None: it never said anything."""
    conditions = [{"type": "Ready", "status": ready}] if ready is not None else []
    held = [{"key": k, "effect": e, "timeAdded": BEFORE} for k, e in taints]
    return typed(
        {"metadata": {"name": "n"}, "spec": {"taints": held, **spec}, "status": {"conditions": conditions}}, Node
    )


TAINTS: tuple[tuple[str, Node, list[tuple[str, str, str]]], ...] = (
    ("ready: none of ours stays", node("True", (NOT_READY, "NoSchedule"), (UNREACHABLE, "NoExecute")), []),
    ("new, says nothing: no pods yet, none is driven away", node(None), [(NOT_READY, "NoSchedule", NOW)]),
    ("not ready: both effects, from now", node("False"), [
        (NOT_READY, "NoSchedule", NOW), (NOT_READY, "NoExecute", NOW)]),
    ("silent: the other pair takes the place of the first", node("Unknown", (NOT_READY, "NoExecute")), [
        (UNREACHABLE, "NoSchedule", NOW), (UNREACHABLE, "NoExecute", NOW)]),
    ("still silent: the time stays, evictions count from it", node(
        "Unknown", (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")), [
        (UNREACHABLE, "NoSchedule", BEFORE), (UNREACHABLE, "NoExecute", BEFORE)]),
    ("cordoned", node("True", unschedulable=True), [("node.kubernetes.io/unschedulable", "NoSchedule", NOW)]),
    ("others' taints stay", node("True", ("gpu", "NoSchedule")), [("gpu", "NoSchedule", BEFORE)]),
)  # fmt: skip


@pytest.mark.parametrize(("what", "of", "wanted"), TAINTS, ids=[row[0] for row in TAINTS])
def test_taints(what: str, of: Node, wanted: list[tuple[str, str, str]]) -> None:
    assert [(t.key, t.effect, t.time_added) for t in plan_taints(of, NOW)] == wanted


def test_a_silent_node_says_unknown_of_all_it_used_to_say() -> None:
    """NODE-85: what it said keeps its heartbeat; what it never said has upstream's other words."""
    said = {"type": "Ready", "status": "True", "lastHeartbeatTime": BEFORE, "reason": "KubeletReady"}
    silent = typed({"metadata": {"name": "n"}, "status": {"conditions": [said]}}, Node)
    found = {c.type: c for c in plan_unknown(silent, NOW)}
    assert {c.status for c in found.values()} == {"Unknown"}
    ready, disk = found["Ready"], found["DiskPressure"]
    assert (ready.reason, ready.message) == ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    assert (ready.last_heartbeat_time, ready.last_transition_time) == (BEFORE, NOW)
    assert (disk.reason, disk.message) == ("NodeStatusNeverUpdated", "Kubelet never posted node status.")


async def beat(house: House, name: str) -> None:
    """The node says once that all is well."""
    now = rfc3339(LoopClock(asyncio.get_running_loop()).now())
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now}
    await house.client.patch(NODE, name, "", {"status": {"conditions": [ready]}}, "merge", subresource="status")


async def renewed(house: House, name: str, seconds: int) -> None:
    """Its Lease is renewed every 10 s for so long, and nothing else."""
    for turn in range(seconds // 10):
        spec = {"holderIdentity": name, "renewTime": f"2026-01-01T00:00:00.{turn:06}Z"}
        try:
            await house.client.patch(LEASE, name, "kube-node-lease", {"spec": spec}, "merge")
        except NotFound:
            meta = {"name": name, "namespace": "kube-node-lease"}
            await house.client.create(LEASE, {"metadata": meta, "spec": spec}, "kube-node-lease")
        await house.settle(10)


async def ready_of(house: House, kind: Any, name: str, namespace: str = "") -> str:
    found: Object = await house.client.get(kind, name, namespace)
    return str(next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"))


def test_a_silent_node_loses_its_endpoints_and_then_its_pods() -> None:
    """NODE-85: 50 s of silence and it is unreachable, its pods are not ready and leave the lists; 300 s later they are
    evicted, but not who tolerates it for ever. A Lease that is renewed is a sign of life enough."""

    async def story(house: House) -> None:
        house.start((*MINE, "node-lifecycle", "taint-eviction"))
        await house.service()
        await house.node("n2")
        await beat(house, "n1")
        await beat(house, "n2")
        await house.pod("here", "10.1.0.1", node="n1")
        await house.pod("there", "10.1.0.2", node="n2")
        for_ever = [{"key": k, "operator": "Exists", "effect": "NoExecute"} for k in (NOT_READY, UNREACHABLE)]
        spec = {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}], "tolerations": for_ever}
        await house.client.create(POD, {"metadata": {"name": "stays"}, "spec": spec}, "ns")
        await house.settle(2)
        assert await house.shown() == [["10.1.0.1", "10.1.0.2"]]
        await renewed(house, "n1", 40)  # n2 says nothing
        assert await ready_of(house, NODE, "n2") == "True"
        await renewed(house, "n1", 20)
        assert (await ready_of(house, NODE, "n1"), await ready_of(house, NODE, "n2")) == ("True", "Unknown")
        silent: Object = await house.client.get(NODE, "n2")
        assert {(t["key"], t["effect"]) for t in silent["spec"]["taints"]} == {
            (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute"),
        }  # fmt: skip
        assert await ready_of(house, POD, "there", "ns") == "False"
        assert await house.shown() == [["10.1.0.1", "10.1.0.2!"]]
        assert await house.endpoints() == [(["10.1.0.1"], ["10.1.0.2"])]
        events = {(e["involvedObject"]["kind"], e["involvedObject"]["name"], e["reason"], e["message"])
                  for e in await house.every(EVENT, "")}  # fmt: skip
        assert ("Node", "n2", "NodeNotReady", "Node n2 status is now: NodeNotReady") in events
        assert ("Pod", "there", "NodeNotReady", "Node is not ready") in events
        await renewed(house, "n1", 270)
        assert [p["metadata"]["name"] for p in await house.every(POD)] == ["here", "stays", "there"]
        await renewed(house, "n1", 50)
        assert [p["metadata"]["name"] for p in await house.every(POD)] == ["here", "stays"]
        assert await house.shown() == [["10.1.0.1"]]

    in_house(story)


def test_a_node_that_speaks_again_is_as_before() -> None:
    """Its taints go with its first word; its pods' readiness is its agent's to say."""

    async def story(house: House) -> None:
        house.start((*MINE, "node-lifecycle", "taint-eviction"))
        await house.service()
        await beat(house, "n1")
        await house.pod("p", "10.1.0.1")
        await house.settle(70)
        assert await ready_of(house, NODE, "n1") == "Unknown" and await house.shown() == [["10.1.0.1!"]]
        await beat(house, "n1")
        await house.status("p", ready=True)
        await house.settle(3)
        found: Object = await house.client.get(NODE, "n1")
        assert not found["spec"].get("taints")
        assert await house.shown() == [["10.1.0.1"]]
        await renewed(house, "n1", 400)
        assert [p["metadata"]["name"] for p in await house.every(POD)] == ["p"]

    in_house(story)
