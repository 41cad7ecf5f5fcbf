"""The decision about each Pod, written on slices where that is asked for; upstream has nothing like it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from kubesvc.api.endpointslice import ENDPOINT_SLICE, EndpointSlice
from kubesvc.api.node import Node
from kubesvc.api.pod import POD, Pod
from kubesvc.api.service import Service
from kubesvc.controllers import ControllerSettings
from kubesvc.controllers.endpoint_cache import slice_candidates
from kubesvc.controllers.endpointslice import desired
from kubesvc.controllers.slice_decisions import DECISIONS, MOST, decided, explained, unexplained
from kubesvc.controllers.slice_plan import SlicePlan, plan_slices, service_frame

from .builders import address, node, pod, service
from .house import House, in_house

BY_NAME = ({"name": "web", "port": 80, "targetPort": "http"}, {"name": "more", "port": 81, "targetPort": "none"})
WEB, NODE = service(), node()
DYING: dict[str, Any] = {"terminating": True}


@dataclass(frozen=True)
class Decision:
    """One row: a Pod, and what is said of it."""

    sentence: str
    pod: Pod
    said: str
    service: Service = WEB
    node: Node | None = NODE
    address_type: str = "IPv4"


DECISIONS_OF = (
    Decision("SLICE-14: ready", pod(), "in: ready"),
    Decision("SLICE-14: not ready", pod(ready=False), "out: not ready"),
    Decision("SLICE-14: no condition yet", pod(ready=None), "out: not ready"),
    Decision("SLICE-14: terminating, still ready", pod(**DYING), "last resort: terminating, and still ready"),
    Decision("SLICE-14: terminating, not ready", pod(ready=False, **DYING), "out: terminating"),
    Decision("SLICE-11: ended", pod(phase="Failed"), "out: ended (Failed)"),
    Decision("SLICE-11: no address", pod(ips=()), "out: no address yet"),
    Decision("SLICE-10: an address of the other family", pod(), "out: no IPv6 address", address_type="IPv6"),
    Decision("SLICE-12: its node is gone", pod(), "out: node n1 does not exist", node=None),
    Decision(
        "publishNotReadyAddresses", pod(ready=False), "in: not ready, but published all the same",
        service(publishNotReadyAddresses=True),
    ),
    Decision(
        "SLICE-15: a port by a name that it has not", pod(), "in: ready, but 1 of 2 ports are none of its own",
        service(ports=BY_NAME),
    ),
)  # fmt: skip


@pytest.mark.parametrize("row", DECISIONS_OF, ids=lambda row: row.sentence)
def test_what_is_said_of_a_pod(row: Decision) -> None:
    [candidate] = slice_candidates(row.service).refresh([row.pod], [row.node])
    assert decided(row.service, row.pod, candidate, row.address_type) == row.said


def plan_of(pods: Sequence[Pod], existing: Sequence[EndpointSlice] = (), limit: int = 100) -> SlicePlan:
    web = service()
    candidates = slice_candidates(web).refresh(pods, [node()] * len(pods))
    plan = plan_slices(service_frame(web, "IPv4"), desired(candidates, "IPv4"), existing, limit)
    return explained(plan, web, pods, candidates, "IPv4")


def told(s: EndpointSlice) -> dict[str, str]:
    found: dict[str, str] = json.loads((s.metadata.annotations or {})[DECISIONS])
    return found


def carried_out(plan: SlicePlan) -> list[EndpointSlice]:
    made = [
        msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, name=f"web-{i}"))
        for i, s in enumerate(plan.create)
    ]
    return [*made, *plan.update, *plan.unchanged]


def test_a_slice_tells_of_its_own_and_the_first_of_those_left_out() -> None:
    """And what is told already is not written again (SLICE-24)."""
    pods = [pod(f"p{i}", ips=(address(i),)) for i in range(4)] + [pod("q", ips=())]
    plan = plan_of(pods, limit=2)
    first, second = plan.create
    assert told(first) == {"p0": "in: ready", "p1": "in: ready", "q": "out: no address yet"}
    assert told(second) == {"p2": "in: ready", "p3": "in: ready"}
    again = plan_of(pods, carried_out(plan), limit=2)
    assert again.writes == 0 and len(again.unchanged) == 2


def test_a_decision_that_moves_no_endpoint_is_written_all_the_same() -> None:
    before = plan_of([pod("p", ips=(address(1),)), pod("q", ips=())])
    after = plan_of([pod("p", ips=(address(1),)), pod("q", ips=(), phase="Failed")], carried_out(before))
    assert [told(s)["q"] for s in after.update] == ["out: ended (Failed)"]


def test_the_annotation_is_bounded_and_tells_first_of_those_left_out() -> None:
    """Names of full length, many more than fit: still far below the 256 KiB that annotations may have together."""
    pods = [pod(f"{'x' * 247}-{i:05}", ips=(address(i),), ready=i != 999) for i in range(1000)]
    [s] = plan_of(pods, limit=1000).create
    found = told(s)
    assert found["…"] == f"and {1000 - MOST} more" and len(found) == MOST + 1
    assert found[pods[999].name] == "out: not ready"
    assert len((s.metadata.annotations or {})[DECISIONS].encode()) < 80_000


def test_switched_off_it_is_taken_away() -> None:
    slices = carried_out(plan_of([pod("p")]))
    bare = unexplained(SlicePlan(unchanged=slices))
    assert [s.metadata.annotations for s in bare.update] == [None] and not bare.unchanged
    same = SlicePlan(unchanged=bare.update)
    assert unexplained(same) is same


def test_over_a_server() -> None:
    """With the setting slices are annotated, without it they are not; and when all is still nothing is written."""

    async def story(house: House) -> None:
        house.start(settings=ControllerSettings(explain_slices=True))
        await house.service()
        await house.pod("a", "10.1.0.1")
        await house.pod("b", "10.1.0.2", ready=False)
        await house.settle()
        [s] = await house.slices()
        assert json.loads(s["metadata"]["annotations"][DECISIONS]) == {"a": "in: ready", "b": "out: not ready"}
        await house.client.delete(POD, "b", "ns")
        await house.settle()
        [s] = await house.slices()
        assert json.loads(s["metadata"]["annotations"][DECISIONS]) == {"a": "in: ready"}
        async with house.counting(ENDPOINT_SLICE) as seen:
            await house.settle(3600)
        assert not any(seen.values())
        await house.stop()
        house.start()
        await house.settle(60)
        [s] = await house.slices()
        assert DECISIONS not in (s["metadata"].get("annotations") or {})

    in_house(story)
