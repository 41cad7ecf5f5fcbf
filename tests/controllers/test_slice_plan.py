"""Packing endpoints into slices: SLICE-16 to SLICE-34, and the worked vectors of C.1."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpointslice import Endpoint, EndpointHints, EndpointSlice, ForZone
from kubesvc.controllers.pod_endpoints import Port, Ports
from kubesvc.controllers.slice_plan import (
    Identity,
    SlicePlan,
    group_of,
    identity,
    name_prefix,
    plan_slices,
    recycled,
    service_frame,
    stamped,
)

from .builders import HTTP, desired, endpoint, service, stored

WEB = service()
FRAME = service_frame(WEB, "IPv4")


def planned(
    wanted: dict[Ports, dict[Identity, Endpoint]], existing: Sequence[EndpointSlice], limit: int = 100
) -> SlicePlan:
    return recycled(plan_slices(FRAME, wanted, existing, limit), WEB.metadata.uid)


def after(plan: SlicePlan) -> list[EndpointSlice]:
    """The slices that exist once the plan is carried out, with names for new ones."""
    created = [
        msgspec.structs.replace(
            s, metadata=msgspec.structs.replace(s.metadata, name=f"new-{i:04}", uid=f"u-new-{i}", generation=1)
        )
        for i, s in enumerate(plan.create)
    ]
    updated = [
        s if s.metadata.uid else msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, uid=s.name))
        for s in plan.update
    ]
    return [*plan.unchanged, *updated, *created]


def sizes(slices: Sequence[EndpointSlice]) -> list[int]:
    return sorted((len(s.endpoints or ()) for s in slices), reverse=True)


def filled(*counts: int, unready: bool = False) -> list[EndpointSlice]:
    """Slices of so many endpoints, numbered through; `unready`: their first endpoint is not as it is desired."""
    slices, number = [], 0
    for i, count in enumerate(counts):
        content = [endpoint(n) for n in range(number, number + count)]
        if unready:
            content[0] = endpoint(number, ready=False)
        slices.append(stored(f"s{i}", content))
        number += count
    return slices


@dataclass(frozen=True)
class Vector:
    """A row of C.1: slices before, the numbers of desired pods, sizes after, and (creates, updates, deletes)."""

    name: str
    before: Callable[[], list[EndpointSlice]]
    pods: Sequence[int]
    sizes: list[int]
    writes: tuple[int, int, int]
    limit: int = 100


VECTORS = (
    Vector("none, no pods: one placeholder", list, [], [0], (1, 0, 0)),
    Vector("placeholder, first pod: recycled", lambda: [stored("s0", [], ports=())], [0], [1], (0, 1, 0)),
    Vector("one endpoint, pod goes: emptied under its name", lambda: filled(1), [], [0], (0, 1, 0)),
    Vector("none, 250 pods, at most 80", list, range(250), [80, 80, 80, 10], (4, 0, 0), 80),
    Vector("none, 250 pods, at most 150", list, range(250), [150, 100], (2, 0, 0), 150),
    Vector("62 and 61, 10 more: the fuller that holds all", lambda: filled(62, 61), range(133), [72, 61], (0, 1, 0)),
    Vector("80 and 61, 30 more: the one that holds all", lambda: filled(80, 61), range(171), [91, 80], (0, 1, 0)),
    Vector("80 and 80, 30 more: fit in neither", lambda: filled(80, 80), range(190), [80, 80, 30], (1, 0, 0)),
    Vector(
        "62 and 61, each changed, 100 more: filled up, the rest new",
        lambda: filled(62, 61, unready=True),
        range(223),
        [100, 100, 23],
        (1, 2, 0),
    ),
    Vector("80 and 20, both changed, 15 more", lambda: filled(80, 20, unready=True), range(115), [95, 20], (0, 2, 0)),
    Vector("100, 100, 3: the 3 go", lambda: filled(100, 100, 3), range(200), [100, 100], (0, 0, 1)),
    Vector(
        "20 and 80, both changed, 15 more: the fullest first",
        lambda: filled(20, 80, unready=True),
        range(115),
        [95, 20],
        (0, 2, 0),
    ),
    Vector(
        "five of 100, one pod replaced: the gap is refilled in the same slice",
        lambda: filled(100, 100, 100, 100, 100),
        [*range(250), *range(251, 500), 900],
        [100] * 5,
        (0, 1, 0),
    ),
    Vector(
        "as many left as fit into a slice: a new slice (SLICE-23)", lambda: filled(50), range(150), [100, 50], (1, 0, 0)
    ),
    Vector(
        "slice of another owner: deleted, never reused (SLICE-19)",
        lambda: [stored("s0", [endpoint(0), endpoint(1)], owner="other")],
        [0, 1],
        [2],
        (1, 0, 1),
    ),
    Vector(
        "placeholder of another owner: replaced",
        lambda: [stored("s0", [], ports=(), owner="other")],
        [],
        [0],
        (1, 0, 1),
    ),
    Vector("placeholder, still no pods: no write (SLICE-25)", lambda: [stored("s0", [], ports=())], [], [0], (0, 0, 0)),
    Vector(
        "an endpoint in two slices: taken by the first",
        lambda: [*filled(2), stored("t", [endpoint(1)])],
        [0, 1],
        [2],
        (0, 0, 1),
    ),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_worked_vector(vector: Vector) -> None:
    plan = planned(desired(vector.pods), vector.before(), vector.limit)
    assert sizes(after(plan)) == vector.sizes
    assert (len(plan.create), len(plan.update), len(plan.delete)) == vector.writes


def test_five_port_numbers_make_five_slices() -> None:
    """C.1, SLICE-16: 300 pods whose named port has five different numbers."""
    wanted: dict[Ports, dict[Identity, Endpoint]] = {}
    for i in range(5):
        wanted |= desired(range(i * 60, i * 60 + 60), (Port("http", 8080 + i, "TCP", ""),))
    plan = planned(wanted, [])
    assert sizes(plan.create) == [60] * 5
    assert {group_of(s)[0].port for s in plan.create} == set(range(8080, 8085))


def test_changed_service_label_rewrites_each_slice_once() -> None:
    """C.1: same endpoints, new labels; a placeholder is rewritten too (SLICE-21, SLICE-25, SLICE-32)."""
    relabelled = service(labels={"team": "a"})
    frame = service_frame(relabelled, "IPv4")
    before = filled(3, 2)
    plan = recycled(plan_slices(frame, desired(range(5)), before, 100), "service-uid")
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 2, 0)
    assert all(s.metadata.label("team") == "a" for s in plan.update)
    placeholder = recycled(plan_slices(frame, {}, [stored("s0", [], ports=())], 100), "service-uid")
    assert (len(placeholder.create), len(placeholder.update), len(placeholder.delete)) == (0, 1, 0)


def test_flip_is_written_in_place() -> None:
    """SLICE-18, SLICE-21: readiness, node, zone or uid change an endpoint where it stands."""
    before = filled(3)
    flipped = endpoint(1, ready=False)
    wanted = desired([0, 2])
    wanted[HTTP][identity(flipped)] = flipped
    plan = planned(wanted, before)
    assert [e.address for e in plan.update[0].endpoints or ()] == [e.address for e in before[0].endpoints or ()]
    assert [e.ready for e in plan.update[0].endpoints or ()] == [True, False, True]
    assert plan.update[0].metadata.resource_version == "7"  # SLICE-29


def test_hints_are_not_compared() -> None:
    """SLICE-18: an endpoint that differs in hints only is unchanged for packing."""
    hinted = msgspec.structs.replace(endpoint(0), hints=EndpointHints(for_zones=[ForZone(name="z")]))
    plan = planned(desired([0]), [stored("s0", [hinted])])
    assert plan.writes == 0


def test_recycled_slice_takes_only_the_name() -> None:
    """SLICE-26: no resourceVersion, no annotations of the old one."""
    old = stored("s0", [endpoint(0)])
    old = msgspec.structs.replace(old, metadata=msgspec.structs.replace(old.metadata, annotations={"a": "b"}))
    [update] = planned({}, [old]).update
    assert (update.name, update.metadata.resource_version, update.metadata.annotations) == ("s0", "", None)
    assert update.endpoints is None and update.ports is None


def test_ports_are_compared_as_sets() -> None:
    """SLICE-16, SLICE-17: order does not matter, and no ports are the same absent, null or empty."""
    two = (Port("a", 1, "TCP", ""), Port("b", 2, "UDP", ""))
    before = stored("s0", [endpoint(0)], ports=two)
    before = msgspec.structs.replace(before, ports=list(reversed(before.ports or [])))
    assert planned(desired([0], two), [before]).writes == 0
    empty = msgspec.structs.replace(stored("s1", [endpoint(0)], ports=()), ports=[])
    assert planned(desired([0], ()), [empty]).writes == 0


def test_labels_and_prefix() -> None:
    """SLICE-30, SLICE-32: reserved labels of the Service count for nothing; headless is marked."""
    frame = service_frame(
        service(
            labels={"a": "b", "kubernetes.io/service-name": "evil", "service.kubernetes.io/headless": "x"},
            clusterIP="None",
        ),
        "IPv4",
    )
    assert frame.labels == {
        "a": "b",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }
    assert frame.generate_name == "web-"
    assert name_prefix("w" * 300) == "w" * 300


def test_whole_slice_of_newcomers_does_not_go_into_an_empty_one() -> None:
    """SLICE-23: only fewer than the maximum look for an unchanged slice; in the portless group one may be empty."""
    empty = stored("s0", [], ports=())
    fewer, as_many = planned(desired(range(2), ()), [empty], 3), planned(desired(range(3), ()), [empty], 3)
    assert ([s.name for s in fewer.update], len(fewer.create)) == (["s0"], 0)
    assert ([s.name for s in as_many.unchanged], len(as_many.create)) == (["s0"], 1)


def test_trigger_time_is_set_and_removed() -> None:
    """SLICE-33: other annotations stay."""
    s = stored("s0", [])
    s = msgspec.structs.replace(s, metadata=msgspec.structs.replace(s.metadata, annotations={"a": "b"}))
    set_ = stamped(s, "2026-01-01T00:00:00Z")
    key = "endpoints.kubernetes.io/last-change-trigger-time"
    assert set_.metadata.annotations == {"a": "b", key: "2026-01-01T00:00:00Z"}
    assert stamped(set_, "").metadata.annotations == {"a": "b"}


@pytest.mark.parametrize("limit", [0, 1001])
def test_limit_out_of_range(limit: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 1000"):
        plan_slices(FRAME, {}, [], limit)


# ---------------------------------------------------------------- properties

GROUPS = (HTTP, (Port("", 9090, "TCP", ""),), ())


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[Ports, dict[Identity, Endpoint]], list[EndpointSlice], int]:
    """Desired pods in some port groups, and any slices: stale, foreign, duplicated, overfull."""
    limit = draw(st.integers(1, 6))
    wanted: dict[Ports, dict[Identity, Endpoint]] = {}
    for number in draw(st.lists(st.integers(0, 25), unique=True)):
        e = endpoint(number, ready=draw(st.booleans()))
        wanted.setdefault(draw(st.sampled_from(GROUPS)), {})[identity(e)] = e
    slices = [
        stored(
            f"s{i}",
            [endpoint(n, ready=draw(st.booleans())) for n in draw(st.lists(st.integers(0, 25), max_size=8))],
            ports=draw(st.sampled_from(GROUPS)),
            owner=draw(st.sampled_from(["", "", "", "other"])),
        )
        for i in range(draw(st.integers(0, 5)))
    ]
    return wanted, slices, limit


@given(situations())
@settings(max_examples=300, deadline=None)
def test_each_desired_endpoint_exactly_once(
    situation: tuple[dict[Ports, dict[Identity, Endpoint]], list[EndpointSlice], int],
) -> None:
    wanted, slices, limit = situation
    result = after(planned(wanted, slices, limit))
    for ports in GROUPS:
        found = [e for s in result if group_of(s) == ports for e in s.endpoints or ()]
        assert sorted(map(identity, found)) == sorted(wanted.get(ports, {}))
        assert all(e.conditions == wanted[ports][identity(e)].conditions for e in found)
    assert len(result) >= 1  # SLICE-34
    untouched = {s.name for s in slices}
    assert all(len(s.endpoints or ()) <= limit for s in result if s.name not in untouched)


@given(situations())
@settings(max_examples=300, deadline=None)
def test_planning_again_writes_nothing(
    situation: tuple[dict[Ports, dict[Identity, Endpoint]], list[EndpointSlice], int],
) -> None:
    wanted, slices, limit = situation
    result = after(planned(wanted, slices, limit))
    again = planned(wanted, result, limit)
    assert again.writes == 0
    assert len(again.unchanged) == len(result)


@given(situations(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_of_slices_and_pods_does_not_matter(
    situation: tuple[dict[Ports, dict[Identity, Endpoint]], list[EndpointSlice], int], chance: random.Random
) -> None:
    """The same set of endpoints whatever the order; the same plan whatever the order of slices."""
    wanted, slices, limit = situation
    shuffled = list(slices)
    chance.shuffle(shuffled)
    assert planned(wanted, shuffled, limit) == planned(wanted, slices, limit)
    mixed = {}
    for ports in chance.sample(sorted(wanted), len(wanted)):
        mixed[ports] = dict(chance.sample(sorted(wanted[ports].items(), key=lambda i: i[0]), len(wanted[ports])))
    one, other = after(planned(wanted, slices, limit)), after(planned(mixed, slices, limit))
    assert sizes(one) == sizes(other)
    everything = [sorted((group_of(s), identity(e)) for s in r for e in s.endpoints or ()) for r in (one, other)]
    assert everything[0] == everything[1]


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_one_pod_touches_one_slice(count: int, data: st.DataObject) -> None:
    """SLICE-24: a pod that comes, goes or flips costs one write, and full slices elsewhere stay untouched."""
    before = after(planned(desired(range(count)), []))
    number = data.draw(st.integers(0, count - 1))
    gone = planned(desired([n for n in range(count) if n != number]), before)
    assert gone.writes == 1
    come = planned(desired(range(count + 1)), before)
    assert come.writes == 1
    wanted = desired(range(count))
    flipped = endpoint(number, ready=False)
    wanted[HTTP][identity(flipped)] = flipped
    flip = planned(wanted, before)
    assert (len(flip.create), len(flip.update), len(flip.delete)) == (0, 1, 0)
