"""Hints: TOPO-1 to TOPO-10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpointslice import Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone
from kubesvc.api.node import Node
from kubesvc.controllers.slice_plan import SlicePlan
from kubesvc.controllers.topology import (
    ENABLED,
    INSUFFICIENT_NODES,
    NO_ZONE,
    Allocation,
    Hinted,
    Note,
    allocations,
    auto_mode,
    milli_cpus,
    overloaded,
    transfers,
    with_allocation,
    with_distribution,
    zone_shares,
)

from .builders import endpoint, node, service, stored


def at(zone: str, number: int, *, ready: bool = True, on: str = "n1", hint: str = "") -> Endpoint:
    hints = EndpointHints(for_zones=[ForZone(name=hint)]) if hint else None
    return msgspec.structs.replace(endpoint(number, ready=ready), zone=zone or None, node_name=on or None, hints=hints)


def zones_of(slices: Sequence[EndpointSlice]) -> list[str]:
    """Hinted zones of all endpoints, in order; "-" for none."""
    return [
        "+".join(z.name for z in e.hints.for_zones or ()) if e.hints else "-" for s in slices for e in s.endpoints or ()
    ]


@pytest.mark.parametrize(
    ("annotations", "on"),
    [
        ({}, False),
        ({"service.kubernetes.io/topology-mode": "Auto"}, True),
        ({"service.kubernetes.io/topology-mode": "auto"}, True),
        ({"service.kubernetes.io/topology-mode": "aUto"}, False),
        ({"service.kubernetes.io/topology-aware-hints": "auto"}, True),
        (
            {
                "service.kubernetes.io/topology-aware-hints": "Disabled",
                "service.kubernetes.io/topology-mode": "Auto",
            },
            False,
        ),
    ],
)
def test_auto_mode(annotations: Mapping[str, str], on: bool) -> None:
    """TOPO-1."""
    assert auto_mode(service(annotations=annotations)) is on


DISTRIBUTIONS: tuple[tuple[str | None, list[str], list[list[str]]], ...] = (
    ("PreferSameZone", ["a", "-", "-"], [[], [], []]),
    ("PreferClose", ["a", "-", "-"], [[], [], []]),
    ("PreferSameNode", ["a", "-", ""], [["n1"], [], ["n3"]]),
    (None, ["-", "-", "-"], [[], [], []]),
)


@pytest.mark.parametrize(("distribution", "zones", "nodes"), DISTRIBUTIONS)
def test_distribution(distribution: str | None, zones: list[str], nodes: list[list[str]]) -> None:
    """TOPO-2 to TOPO-4: ready with a zone, not ready, ready without a zone."""
    content = [at("a", 1, on="n1"), at("b", 2, ready=False, on="n2", hint="b"), at("", 3, on="n3")]
    plan = with_distribution(SlicePlan(create=[stored("s", content)]), distribution)
    assert zones_of(plan.create) == zones
    found = [[n.name for n in (e.hints.for_nodes if e.hints else None) or ()] for e in plan.create[0].endpoints or ()]
    assert found == nodes


def test_unchanged_slices_are_touched_only_if_hints_are_wrong() -> None:
    """TOPO-5."""
    right, wrong = stored("right", [at("a", 1, hint="a")]), stored("wrong", [at("a", 2)])
    plan = with_distribution(SlicePlan(unchanged=[right, wrong]), "PreferSameZone")
    assert ([s.name for s in plan.unchanged], [s.name for s in plan.update]) == (["right"], ["wrong"])
    off = with_distribution(SlicePlan(unchanged=[right, wrong]), None)
    assert ([s.name for s in off.unchanged], [s.name for s in off.update]) == (["wrong"], ["right"])
    assert zones_of(off.update) == ["-"]


SHARES: tuple[tuple[str, list[Node], dict[str, float]], ...] = (
    ("two zones by CPU", [node("1", "a", cpu="1"), node("2", "b", cpu="3")], {"a": 0.25, "b": 0.75}),
    ("one zone", [node("1", "a"), node("2", "a")], {}),
    ("a node without a zone", [node("1", "a"), node("2", "b"), node("3")], {}),
    ("a node without CPU", [node("1", "a"), node("2", "b", cpu="0")], {}),
    ("nodes not ready do not count", [node("1", "a"), node("2", "b"), node("3", ready=False)], {"a": 0.5, "b": 0.5}),
    (
        "control plane nodes do not count",
        [node("1", "a"), node("2", "b"), node("3", labels={"node-role.kubernetes.io/control-plane": ""})],
        {"a": 0.5, "b": 0.5},
    ),
    ("no nodes", [], {}),
)


@pytest.mark.parametrize(("name", "nodes", "shares"), SHARES, ids=[s[0] for s in SHARES])
def test_zone_shares(name: str, nodes: list[Node], shares: dict[str, float]) -> None:
    """TOPO-6."""
    assert zone_shares(nodes) == shares


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("4", 4000),
        ("250m", 250),
        ("1.5", 1500),
        ("0.1m", 1),
        ("2k", 2_000_000),
        (3, 3000),
        (None, 0),
        ("x", 0),
        ("", 0),
    ],
)
def test_milli_cpus(text: str | int | None, millis: int) -> None:
    assert milli_cpus(text) == millis


def test_allocations() -> None:
    """TOPO-7: minimum = ceil(desired / 1.2), maximum = minimum + what is spare."""
    found = allocations({"a": 0.5, "b": 0.5}, 6)
    assert not isinstance(found, Note)
    assert [(found[z].minimum, found[z].maximum, found[z].desired) for z in "ab"] == [(3, 3, 3.0), (3, 3, 3.0)]
    few = allocations({"a": 0.5, "b": 0.25, "c": 0.25}, 2)
    assert isinstance(few, Note)
    assert few.message == "Insufficient number of endpoints (2 endpoints, 3 zones)"
    uneven = allocations({"a": 0.9, "b": 0.05, "c": 0.05}, 3)
    assert isinstance(uneven, Note) and "exceeding overload threshold (3 endpoints, 3 zones)" in uneven.message
    none = allocations({}, 5)
    assert isinstance(none, Note) and none.message == INSUFFICIENT_NODES


def test_endpoints_move_from_zones_with_too_many() -> None:
    """TOPO-8: four in a, none in b, equal shares: two are meant for b; those not ready for nobody."""
    content = [at("a", i) for i in range(4)] + [at("a", 9, ready=False, hint="a")]
    plan, given = with_allocation(SlicePlan(create=[stored("s", content)]), {"a": 0.5, "b": 0.5})
    assert given == {"a": 2, "b": 2}
    assert sorted(zones_of(plan.create)) == ["-", "a", "a", "b", "b"]
    assert zones_of(plan.create)[4] == "-"


def test_fitting_slices_stay() -> None:
    """TOPO-8: an unchanged slice with good hints is left alone, one without is written."""
    good = stored("good", [at("a", 1, hint="a"), at("b", 2, hint="b")])
    bare = stored("bare", [at("a", 3), at("b", 4)])
    plan, given = with_allocation(SlicePlan(unchanged=[good, bare]), {"a": 0.5, "b": 0.5})
    assert ([s.name for s in plan.unchanged], [s.name for s in plan.update]) == (["good"], ["bare"])
    assert given == {"a": 2, "b": 2}
    strange = stored("strange", [at("a", 5, hint="gone"), at("b", 6, hint="b")])
    plan, _ = with_allocation(SlicePlan(unchanged=[strange]), {"a": 0.5, "b": 0.5})
    assert zones_of(plan.update) == ["a", "b"]


def wanting(**desired: float) -> dict[str, Allocation]:
    return {zone: Allocation(0, 99, count) for zone, count in desired.items()}


TRANSFERS: tuple[tuple[str, dict[str, Allocation], dict[str, int], dict[str, int], dict[str, int]], ...] = (
    ("even", wanting(a=2, b=2), {"a": 2, "b": 2}, {}, {}),
    ("one too many here, one too few there", wanting(a=2, b=2), {"a": 3, "b": 1}, {"a": 1}, {"b": 1}),
    ("half a one on both sides stays", wanting(a=2.5, b=2.5), {"a": 3, "b": 2}, {}, {}),
    (
        "over by 1.2, needs of 0.6: one moves",
        wanting(a=1.8, b=1.6, c=1.6),
        {"a": 3, "b": 1, "c": 1},
        {"a": 1},
        {"b": 1},
    ),
    ("a need below one half stays", wanting(a=1.6, b=1.4, c=1.4), {"a": 3, "b": 1, "c": 1}, {}, {}),
    ("largest need first", wanting(a=1, b=2, c=4), {"a": 5, "b": 0, "c": 2}, {"a": 4}, {"b": 2, "c": 2}),
    ("a zone without any", wanting(a=1, b=1), {"a": 2}, {"a": 1}, {"b": 1}),
)


@pytest.mark.parametrize(("name", "wanted", "given", "gifts", "needs"), TRANSFERS, ids=[t[0] for t in TRANSFERS])
def test_transfers(
    name: str, wanted: dict[str, Allocation], given: dict[str, int], gifts: dict[str, int], needs: dict[str, int]
) -> None:
    """TOPO-8: zones above give to zones below, from half an endpoint on if the other side has a whole one."""
    assert transfers(wanted, given) == (gifts, needs)


def test_slice_with_too_many_hints_of_a_zone_is_written() -> None:
    """TOPO-7, TOPO-8: beyond the zone's maximum, counted over slices, hints fit no more."""
    slices = [stored(f"s{i}", [at("a", 2 * i, hint="a"), at("b", 2 * i + 1, hint="a")]) for i in range(3)]
    plan, given = with_allocation(SlicePlan(unchanged=slices), {"a": 0.5, "b": 0.5})
    assert ([s.name for s in plan.unchanged], [s.name for s in plan.update]) == (["s0"], ["s1", "s2"])
    assert given == {"a": 3, "b": 3}


def test_no_zone_no_hints() -> None:
    """TOPO-8, TOPO-9."""
    plan, note = with_allocation(
        SlicePlan(create=[stored("s", [at("a", 1, hint="a"), at("", 2)])]), {"a": 0.5, "b": 0.5}
    )
    assert isinstance(note, Note) and note.message == NO_ZONE
    assert zones_of(plan.create) == ["-", "-"]


def test_notes_are_told_once_when_switched_on() -> None:
    """TOPO-9, TOPO-10."""
    hinted = Hinted()
    key = ("ns", "web")
    on = hinted.learn(key, "IPv4", {"a": 1})
    assert on == Note("Normal", ENABLED, "Topology Aware Hints has been enabled, addressType: IPv4")
    assert hinted.learn(key, "IPv4", {"a": 2}) is None
    off = hinted.learn(key, "IPv4", Note("Warning", "R", "why"))
    assert off == Note("Warning", "R", "why, addressType: IPv4")
    assert hinted.overloaded({"a": 0.5, "b": 0.5}) == []


def test_overload_after_nodes_changed() -> None:
    """SLICE-1: Services are looked at again when a zone has less than it must."""
    hinted = Hinted()
    hinted.learn(("ns", "web"), "IPv4", {"a": 3, "b": 3})
    assert hinted.overloaded({"a": 0.5, "b": 0.5}) == []
    assert hinted.overloaded({"a": 0.9, "b": 0.1}) == [("ns", "web")]
    assert hinted.overloaded({"a": 0.4, "b": 0.4, "c": 0.2}) == [("ns", "web")]
    assert hinted.overloaded({}) == []
    assert not overloaded({"a": 1}, {})


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(["", "a", "b", "c", "z"])), max_size=30),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 10), min_size=2),
    st.integers(1, 5),
)
@settings(max_examples=200, deadline=None)
def test_allocation_is_whole_and_settles(pods: list[tuple[str, bool, str]], cpus: dict[str, int], slices: int) -> None:
    """Every ready endpoint has exactly one zone or none has any; laying hints over the result changes nothing."""
    shares = {z: c / sum(cpus.values()) for z, c in sorted(cpus.items())}
    content = [at(zone, i, ready=ready, hint=hint) for i, (zone, ready, hint) in enumerate(pods)]
    unchanged = [stored(f"s{i}", content[i::slices]) for i in range(slices)]
    plan, given = with_allocation(SlicePlan(unchanged=unchanged), shares)
    result = [*plan.unchanged, *plan.update]
    hints = [
        (e.ready, [z.name for z in (e.hints.for_zones if e.hints else None) or ()])
        for s in result
        for e in s.endpoints or ()
    ]
    if isinstance(given, Note):
        assert all(not zones for _, zones in hints)
    else:
        assert all(len(zones) == (1 if ready else 0) for ready, zones in hints)
        assert sum(given.values()) == sum(ready for ready, _ in hints)
    again, same = with_allocation(SlicePlan(unchanged=result), shares)
    if isinstance(given, Note):
        assert again.writes == 0
        assert same == given


def test_node_hints_alone() -> None:
    """TOPO-3: without a zone forNodes stands alone."""
    plan = with_distribution(SlicePlan(create=[stored("s", [at("", 1, on="n7")])]), "PreferSameNode")
    [e] = plan.create[0].endpoints or []
    assert e.hints == EndpointHints(for_nodes=[ForNode(name="n7")])
