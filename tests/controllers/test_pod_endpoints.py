"""What a pod contributes, which Services a pod concerns, when a change was seen, whose write a slice event is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import ObjectMeta, plain
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client.workqueue import WorkQueue
from kubesvc.clock import run_virtual
from kubesvc.controllers import endpoint_cache
from kubesvc.controllers.endpoint_cache import Candidate, Kept, KeptRecently, make_endpoint, slice_candidates
from kubesvc.controllers.pod_endpoints import (
    address_types,
    conditions,
    facts_of,
    resolved_ports,
    selects,
)
from kubesvc.controllers.service_of_pod import ServiceIndex, affected_services
from kubesvc.controllers.slice_tracker import SliceTracker, SliceWatch
from kubesvc.controllers.trigger_time import TriggerTimes, moment

from .builders import node, pod, service

CONDITIONS = (
    (True, False, False, (True, True, False)),
    (False, False, False, (False, False, False)),
    (True, True, False, (False, True, True)),
    (False, True, False, (False, False, True)),
    (True, False, True, (True, True, False)),
    (False, False, True, (True, False, False)),
    (True, True, True, (True, True, True)),
    (False, True, True, (True, False, True)),
)


@pytest.mark.parametrize(("ready", "terminating", "publish", "expected"), CONDITIONS)
def test_conditions(ready: bool, terminating: bool, publish: bool, expected: tuple[bool, bool, bool]) -> None:
    """The table of SLICE-14: ready, serving, terminating."""
    found = conditions(facts_of(pod(ready=ready, terminating=terminating)), publish)
    assert (found.ready, found.serving, found.terminating) == expected


def test_endpoint_of_a_pod() -> None:
    """SLICE-13; a pod without an address of the type, or run to its end, has none (SLICE-11)."""
    dual = pod("a", ips=["10.1.0.1", "FD00::0:1"], hostname="h", subdomain="web")
    four = make_endpoint(service(), dual, facts_of(dual), node("n1", "z1"), "IPv4")
    assert four is not None
    assert plain(four) == {
        "addresses": ["10.1.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "hostname": "h",
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "ns", "name": "a", "uid": "uid-a"},
        "zone": "z1",
    }
    six = make_endpoint(service(), dual, facts_of(dual), node("n1"), "IPv6")
    assert six is not None and six.addresses == ["fd00::1"] and six.zone is None
    lone = pod(ips=["10.1.0.1"])
    assert make_endpoint(service(), lone, facts_of(lone), None, "IPv6") is None
    for phase in ("Succeeded", "Failed"):
        over = pod(phase=phase)
        assert make_endpoint(service(publishNotReadyAddresses=True), over, facts_of(over), None, "IPv4") is None


def test_ports_of_several_services_on_one_pod() -> None:
    """EP-11, SLICE-15: name and protocol must both fit; the first container wins; absent ones are left out."""
    ports = (
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns", "appProtocol": "x"},
        {"name": "dns-tcp", "port": 53, "targetPort": "dns"},
        {"name": "none", "port": 1, "targetPort": "nowhere"},
        {"name": "number", "port": 2, "targetPort": 99},
    )
    many = pod(
        ports=(
            {"name": "dns", "containerPort": 5353, "protocol": "TCP"},
            {"name": "dns", "containerPort": 5454, "protocol": "UDP"},
        ),
        sidecar_ports=({"name": "dns", "containerPort": 1, "protocol": "UDP"},),
    )
    found = resolved_ports(service(ports=ports), many)
    assert found == (
        ("dns", 5454, "UDP", "x"),
        ("dns-tcp", 5353, "TCP", ""),
        ("number", 99, "TCP", ""),
    )


@pytest.mark.parametrize(
    ("web", "types"),
    [
        (service(), ("IPv4",)),
        (service(ipFamilies=["IPv6", "IPv4"]), ("IPv6", "IPv4")),
        (service(ipFamilies=None, clusterIP="fd00::9"), ("IPv6",)),
        (service(ipFamilies=None, clusterIP="None"), ("IPv4", "IPv6")),
    ],
)
def test_address_types(web: Service, types: tuple[str, ...]) -> None:
    """SLICE-10."""
    assert address_types(web) == types


@pytest.mark.parametrize(
    ("web", "expected"),
    [
        (service(), True),
        (service(selector={}), False),
        (service(selector=None), False),
        (service(type="ExternalName"), False),
    ],
)
def test_selects(web: Service, expected: bool) -> None:
    """EP-6, SLICE-8, SVC-12."""
    assert selects(web) is expected


def test_kept_values_follow_the_pod_and_its_node() -> None:
    kept = slice_candidates(service())
    here, there = node("n1", "a"), node("n1", "b")
    first, other = pod("a"), pod("b")
    made = kept.refresh([first, other], [here, here])
    assert kept.changed == [("a", "2026-01-01T00:01:00Z"), ("b", "2026-01-01T00:01:00Z")]
    assert kept.refresh([first, other], [here, here])[0] is made[0]
    assert (kept.changed, kept.gone) == ([], [])
    moved = kept.refresh([first, other], [there, here])
    assert moved[1] is made[1]
    assert (made[0].endpoints["IPv4"][1].zone, moved[0].endpoints["IPv4"][1].zone) == ("a", "b")
    [changed] = kept.refresh([pod("a", ready=False, version="2", changed="2026-01-01T00:02:00Z")], [there])
    assert not changed.endpoints["IPv4"][1].ready
    assert (kept.changed, kept.gone) == ([("a", "2026-01-01T00:02:00Z")], ["b"])
    [lost] = kept.refresh([pod("a", version="3")], [None])
    assert (lost.missing_node, lost.endpoints) == ("n1", {})
    successor = slice_candidates(service(labels={"x": "y"}), ["a"])
    successor.refresh([other], [here])
    assert (successor.changed, successor.gone) == ([("b", "2026-01-01T00:01:00Z")], ["a"])
    [published] = slice_candidates(service(publishNotReadyAddresses=True)).refresh([first], [None])
    assert published.endpoints["IPv4"][1].zone is None


def test_what_is_kept_is_bounded_and_comes_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service that was put aside for others is worked out anew, and nothing differs but the work."""
    monkeypatch.setattr(endpoint_cache, "MOST_KEPT", 3)
    recently: KeptRecently[Candidate] = KeptRecently()
    web, api, here = service("web"), service("api"), node("n1", "a")

    def look(which: Service, *pods: Pod, before: Sequence[str] = ()) -> tuple[Kept[Candidate], list[Candidate]]:
        key = (which.namespace, which.name)
        kept = recently.of(key, which, lambda: slice_candidates(which, before))
        found = kept.refresh(pods, [here] * len(pods))
        recently.keep(key, kept)
        return kept, found

    first, second, third = pod("a"), pod("b"), pod("c")
    kept, made = look(web, first, second)
    again, same = look(web, first, second)
    assert again is kept and same[0] is made[0] and kept.changed == []
    assert look(service("web"), first)[0] is not kept  # the Service is another object
    kept, made = look(web, first, second)
    look(api, first, second, third)
    other, new = look(web, first, before=("a", "b"))  # put aside, since three pods more were too many
    assert other is not kept and new[0].endpoints == made[0].endpoints and other.gone == ["b"]
    for key in (("ns", "web"), ("ns", "api"), ("ns", "never")):
        recently.forget(key)
    assert (recently._pods, len(recently._kept)) == (0, 0)


# ---------------------------------------------------------------- EP-3


def index_of(**selectors: dict[str, str]) -> ServiceIndex:
    index = ServiceIndex()
    for name, selector in selectors.items():
        index.move(None, service(name, selector=selector))
    return index


BOTH = index_of(web={"app": "web"}, api={"app": "api"}, tier={"tier": "x"}, none={})
WEB, API = {"app": "web"}, {"app": "api"}

RELEVANCE: tuple[tuple[str, Pod | None, Pod | None, list[str]], ...] = (
    ("added", None, pod(), ["web"]),
    ("deleted", pod(), None, ["web"]),
    ("same version: a resync", pod(), pod(), []),
    ("nothing of interest", pod(), pod(version="2"), []),
    ("readiness", pod(), pod(version="2", ready=False), ["web"]),
    ("address", pod(ips=[]), pod(version="2"), ["web"]),
    ("begins to terminate", pod(), pod(version="2", terminating=True), ["web"]),
    ("any update while terminating", pod(terminating=True), pod(version="2", terminating=True), ["web"]),
    ("phase alone (EP-4)", pod(), pod(version="2", phase="Failed"), []),
    ("moves to another Service", pod(), pod(version="2", labels=API), ["api", "web"]),
    ("labels that no selector asks for", pod(), pod(version="2", labels={**WEB, "x": "y"}), []),
    ("one more Service", pod(), pod(version="2", labels={**WEB, "tier": "x"}), ["tier"]),
    ("relabelled and not ready", pod(), pod(version="2", ready=False, labels={**WEB, "tier": "x"}), ["tier", "web"]),
    ("no labels", None, pod(labels={}), []),
)


@pytest.mark.parametrize(("name", "old", "new", "expected"), RELEVANCE, ids=[r[0] for r in RELEVANCE])
def test_relevance(name: str, old: Pod | None, new: Pod | None, expected: list[str]) -> None:
    """EP-3."""
    assert affected_services(old, new, BOTH) == [("ns", n) for n in expected]


LABELS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"]))


@given(st.lists(st.tuples(st.sampled_from("wxyz"), st.one_of(st.none(), LABELS)), max_size=20), LABELS)
@settings(max_examples=200, deadline=None)
def test_index_finds_what_asking_each_service_would(
    moves: list[tuple[str, dict[str, str] | None]], labels: dict[str, str]
) -> None:
    index = ServiceIndex()
    services: dict[str, Service] = {}
    for name, selector in moves:
        old = services.pop(name, None)
        new = None if selector is None else service(name, selector=selector)
        index.move(old, new)
        if new is not None:
            services[name] = new
    expected = [
        ("ns", n) for n, s in sorted(services.items()) if s.spec.selector and s.spec.selector.items() <= labels.items()
    ]
    assert index.matching("ns", labels) == expected
    assert index.matching("other", labels) == []


# ---------------------------------------------------------------- EP-21


def test_trigger_times() -> None:
    """EP-21: creation first, then the earliest input newer than remembered, then nothing."""
    times = TriggerTimes()
    key = ("ns", "web")
    created, t1, t2, t3 = (f"2026-01-01T00:00:0{i}Z" for i in range(4))
    assert times.trigger_time(key, created, [("a", t2)]) == created
    assert times.trigger_time(key, created, [("a", t2)]) == ""
    assert times.trigger_time(key, created, [("a", t3), ("b", t1)]) == t1
    assert times.trigger_time(key, created, [("a", t1)]) == ""
    assert times.trigger_time(key, created, [("a", t3), ("c", "")]) == t3
    assert times.trigger_time(key, created, []) == ""
    assert times.trigger_time(key, created, [("a", t1)]) == ""
    assert times.trigger_time(key, created, [("a", t1)], ["a"]) == t1, "gone and there again"
    times.forget(key)
    assert times.trigger_time(key, created, []) == created


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("", ""),
        ("nonsense", ""),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.9Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_moment(text: str | None, expected: str) -> None:
    assert moment(text) == expected


# ---------------------------------------------------------------- SLICE-2, SLICE-4, SLICE-5

KEY = ("ns", "web")
MINE = "me"


def piece(name: str = "s", generation: int = 1, *, by: str = MINE, of: str = "web") -> EndpointSlice:
    labels = {"kubernetes.io/service-name": of, "endpointslice.kubernetes.io/managed-by": by}
    return EndpointSlice(
        metadata=ObjectMeta(name=name, namespace="ns", uid=f"u-{name}", generation=generation, labels=labels)
    )


def test_stale_cache_is_noticed() -> None:
    """SLICE-5: an older one, a missing one, one that we deleted."""
    tracker = SliceTracker()
    assert not tracker.is_stale(KEY, [])
    tracker.wrote(KEY, "u-s", 2)
    assert tracker.is_stale(KEY, [piece(generation=1)])
    assert tracker.is_stale(KEY, [])
    assert not tracker.is_stale(KEY, [piece(generation=2), piece("other")])
    tracker.deletes(KEY, "u-s")
    assert tracker.is_stale(KEY, [piece(generation=2)])
    assert not tracker.is_stale(KEY, [])
    assert tracker.gone(KEY, piece())
    assert not tracker.gone(KEY, piece())
    tracker.wrote(KEY, "u-s", 2)
    tracker.forget(KEY)
    assert not tracker.is_stale(KEY, [])


WATCHED: tuple[tuple[str, EndpointSlice | None, EndpointSlice | None, list[str]], ...] = (
    ("added by nobody we know", None, piece("new"), ["web"]),
    ("our own write", None, piece(generation=2), []),
    ("an older state of it", None, piece(generation=1), []),
    ("changed by others", piece(generation=2), piece(generation=3), ["web"]),
    ("given to another Service", piece(generation=2), piece(generation=2, of="api"), ["api", "web"]),
    ("taken from us", piece(generation=2), piece(generation=2, by="you"), ["web"]),
    ("given to us", piece("n", by="you"), piece("n"), ["web"]),
    ("never ours", piece("n", by="you"), piece("n", 2, by="you"), []),
    ("deleted by others", piece(generation=2), None, ["web"]),
    ("deleted by us", piece("d", 5), None, []),
    ("deleted, unknown after a restart", piece("q"), None, ["web"]),
)


@pytest.mark.parametrize("during_write", [False, True])
@pytest.mark.parametrize(("name", "old", "new", "expected"), WATCHED, ids=[w[0] for w in WATCHED])
def test_whose_doing_it_was(
    name: str, old: EndpointSlice | None, new: EndpointSlice | None, expected: list[str], during_write: bool
) -> None:
    """SLICE-2; the same when the event comes before the answer of the write."""

    async def main() -> None:
        tracker, queue = SliceTracker(), WorkQueue()
        watch = SliceWatch(tracker, queue, MINE, 1.0)

        def answered() -> None:
            tracker.wrote(KEY, "u-s", 2)
            tracker.deletes(KEY, "u-d")

        if during_write:
            with watch.writing(KEY), watch.writing(("ns", "api")):
                watch.changed(old, new)
                assert queue.delayed == 0
                answered()
        else:
            answered()
            watch.changed(old, new)
        assert len(queue) == 0 and queue.delayed == len(expected)
        await asyncio.sleep(1.1)
        assert sorted([await queue.get() for _ in expected]) == [("ns", n) for n in expected]

    run_virtual(main())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 3)), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_tracker_is_never_stale_once_the_cache_caught_up(writes: list[tuple[str, int]], chance: random.Random) -> None:
    """Whatever was written, a cache that shows the last answers is not stale."""
    tracker = SliceTracker()
    world: dict[str, EndpointSlice] = {}
    for name, generation in writes:
        if generation < 0 and name in world:
            tracker.deletes(KEY, f"u-{name}")
            tracker.gone(KEY, world.pop(name))
        elif generation >= 0:
            last = world[name].metadata.generation if name in world else 0
            world[name] = piece(name, last + 1)
            tracker.wrote(KEY, f"u-{name}", last + 1)
    cached = chance.sample(sorted(world.values(), key=lambda s: s.name), len(world))
    assert not tracker.is_stale(KEY, cached)
    if cached:
        old = msgspec.structs.replace(cached[0], metadata=msgspec.structs.replace(cached[0].metadata, generation=0))
        assert tracker.is_stale(KEY, [old, *cached[1:]])
