"""What Endpoints should be: EP-6 to EP-21, and the worked vectors of C.2."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpoints import EndpointAddress, EndpointPort, Endpoints, EndpointSubset
from kubesvc.api.meta import ObjectMeta, ObjectReference, plain
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.controllers.endpoints_plan import (
    OVER_CAPACITY,
    address_count,
    desired_subsets,
    place_of,
    plan_endpoints,
    repacked,
    truncated,
)
from kubesvc.controllers.pod_endpoints import facts_of

from .builders import address, pod, service


def subsets_of(web: Service, pods: Sequence[Pod]) -> list[EndpointSubset]:
    return desired_subsets(web, [(p, place_of(web, p, facts_of(p))) for p in pods])


def short(subsets: Sequence[EndpointSubset]) -> list[tuple[str, str, str]]:
    """Subsets in a line each: ready, not ready, ports."""
    return sorted(
        (
            " ".join(a.ip for a in s.addresses or ()),
            " ".join(a.ip for a in s.not_ready_addresses or ()),
            " ".join(f"{p.name or '-'}:{p.port}/{p.protocol}" for p in s.ports or ()),
        )
        for s in subsets
    )


ONE, TWO, SIX = "10.1.0.1", "10.1.0.2", "fd00::1"
NAMED = ({"name": "web", "port": 80, "targetPort": "http"},)
TCP8080 = "-:8080/TCP"

CASES: tuple[tuple[str, Service, list[Pod], list[tuple[str, str, str]]], ...] = (
    ("ready: in addresses (EP-10)", service(), [pod(ips=[ONE])], [(ONE, "", TCP8080)]),
    ("not ready: in notReadyAddresses (EP-10)", service(), [pod(ips=[ONE], ready=False)], [("", ONE, TCP8080)]),
    ("no Ready condition: not ready", service(), [pod(ips=[ONE], ready=None)], [("", ONE, TCP8080)]),
    (
        "not ready but published: in addresses",
        service(publishNotReadyAddresses=True),
        [pod(ips=[ONE], ready=False)],
        [(ONE, "", TCP8080)],
    ),
    ("terminating: absent though ready (EP-7)", service(), [pod(ips=[ONE], terminating=True)], []),
    (
        "terminating, published: in addresses",
        service(publishNotReadyAddresses=True),
        [pod(ips=[ONE], terminating=True)],
        [(ONE, "", TCP8080)],
    ),
    (
        "phase Succeeded: absent though published",
        service(publishNotReadyAddresses=True),
        [pod(ips=[ONE], phase="Succeeded")],
        [],
    ),
    ("phase Failed: absent", service(), [pod(ips=[ONE], phase="Failed")], []),
    ("no address yet: absent", service(), [pod(ips=[])], []),
    ("no address of the primary family: skipped (EP-8)", service(ipFamilies=["IPv6", "IPv4"]), [pod(ips=[ONE])], []),
    (
        "dual stack: the primary family only",
        service(ipFamilies=["IPv6", "IPv4"]),
        [pod(ips=[ONE, SIX])],
        [(SIX, "", TCP8080)],
    ),
    ("no families: that of clusterIP", service(ipFamilies=None), [pod(ips=[SIX, ONE])], [(ONE, "", TCP8080)]),
    (
        "headless without families: that of the pod",
        service(ipFamilies=None, clusterIP="None"),
        [pod(ips=[SIX, ONE])],
        [(SIX, "", TCP8080)],
    ),
    (
        "address written anew in its canonical form",
        service(ipFamilies=["IPv6"]),
        [pod(ips=["FD00:0:0::1"])],
        [(SIX, "", TCP8080)],
    ),
    (
        "named port by the pod's own number (EP-11)",
        service(ports=NAMED),
        [pod(ports=({"name": "http", "containerPort": 81},))],
        [(ONE, "", "web:81/TCP")],
    ),
    (
        "named port of another protocol: not found",
        service(ports=NAMED),
        [pod(ports=({"name": "http", "containerPort": 81, "protocol": "UDP"},))],
        [],
    ),
    (
        "named port of a sidecar is found, of an init container not",
        service(ports=NAMED),
        [
            pod("a", ips=[ONE], ports=(), sidecar_ports=({"name": "http", "containerPort": 82},)),
            pod("b", ips=[TWO], ports=(), init_ports=({"name": "http", "containerPort": 83},)),
        ],
        [(ONE, "", "web:82/TCP")],
    ),
    (
        "pods with different numbers: different subsets (EP-13)",
        service(ports=NAMED),
        [pod("a", ips=[ONE]), pod("b", ips=[TWO], ports=({"name": "http", "containerPort": 81},))],
        [(ONE, "", "web:8080/TCP"), (TWO, "", "web:81/TCP")],
    ),
    (
        "an unresolved port is left out, the others stay (EP-11, EP-14)",
        service(
            ports=({"name": "web", "port": 80, "targetPort": "http"}, {"name": "m", "port": 90, "targetPort": 9000})
        ),
        [pod("a", ips=[ONE]), pod("b", ips=[TWO], ports=())],
        [(f"{ONE} {TWO}", "", "m:9000/TCP"), (ONE, "", "web:8080/TCP")],
    ),
    (
        "ports with the same addresses share a subset",
        service(ports=({"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"})),
        [pod("a", ips=[ONE]), pod("b", ips=[TWO], ready=False)],
        [(ONE, TWO, "a:1/TCP b:2/UDP")],
    ),
    (
        "headless without ports: addresses alone (EP-12)",
        service(ports=(), clusterIP="None"),
        [pod(ips=[ONE])],
        [(ONE, "", "")],
    ),
    (
        "sorted by IP as text",
        service(),
        [pod("a", ips=["10.1.0.9"]), pod("b", ips=["10.1.0.10"])],
        [("10.1.0.10 10.1.0.9", "", TCP8080)],
    ),
    (
        "two pods with one IP are two entries (EP-13)",
        service(),
        [pod("a", ips=[ONE]), pod("b", ips=[ONE])],
        [(f"{ONE} {ONE}", "", TCP8080)],
    ),
)


@pytest.mark.parametrize(("name", "web", "pods", "expected"), CASES, ids=[c[0] for c in CASES])
def test_subsets(name: str, web: Service, pods: list[Pod], expected: list[tuple[str, str, str]]) -> None:
    assert short(subsets_of(web, pods)) == sorted(expected)


def test_address_says_pod_and_node_and_hostname() -> None:
    """EP-9: hostname only with the Service's name as subdomain; targetRef without resourceVersion."""
    [subset] = subsets_of(
        service(),
        [pod("a", hostname="h", subdomain="web"), pod("b", ips=[TWO], hostname="h", subdomain="other", node="")],
    )
    a, b = (plain(x) for x in subset.addresses or ())
    reference = {"kind": "Pod", "namespace": "ns", "name": "a", "uid": "uid-a"}
    assert a == {"ip": ONE, "hostname": "h", "nodeName": "n1", "targetRef": reference}
    assert b == {"ip": TWO, "targetRef": {**reference, "name": "b", "uid": "uid-b"}}


def listed(count: int, start: int = 0) -> list[EndpointAddress] | None:
    return [EndpointAddress(ip=address(start + i)) for i in range(count)] or None


def subset_of(ready: int, not_ready: int, port: int = 80) -> EndpointSubset:
    return EndpointSubset(
        addresses=listed(ready), not_ready_addresses=listed(not_ready, 5000), ports=[EndpointPort(port=port)]
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([(1000, 1)], [(1000, 0)]),
        ([(999, 2)], [(999, 1)]),
        ([(1001, 500)], [(1000, 0)]),
        ([(800, 0), (800, 0)], [(500, 0), (500, 0)]),
        ([(600, 0), (1400, 0)], [(300, 0), (700, 0)]),
        ([(500, 500)], [(500, 500)]),
        ([(1200, 0), (0, 50)], [(1000, 0)]),
        ([(334, 0), (333, 0), (1000, 0)], [(201, 0), (200, 0), (599, 0)]),
    ],
)
def test_truncation(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    """C.2, EP-19: shares are rounded up while room is left, and a subset left without addresses goes."""
    subsets = [subset_of(*counts, port=80 + i) for i, counts in enumerate(before)]
    cut = truncated(subsets)
    assert [(len(s.addresses or ()), len(s.not_ready_addresses or ())) for s in cut] == after
    written = plan_endpoints(service(), subsets, None, "")
    assert written is not None
    assert (written.metadata.annotation(OVER_CAPACITY) == "truncated") == (before != after)


def existing(web: Service, subsets: Sequence[EndpointSubset], **meta: Any) -> Endpoints:
    wanted = plan_endpoints(web, subsets, None, "")
    assert wanted is not None
    return msgspec.structs.replace(
        wanted, metadata=msgspec.structs.replace(wanted.metadata, resource_version="5", uid="u", **meta)
    )


def test_right_object_is_not_written() -> None:
    """EP-17, also in another order of subsets, ports and addresses, and with a targetRef of another version."""
    web = service(ports=({"name": "a", "port": 1}, {"name": "b", "port": 2}))
    wanted = subsets_of(web, [pod("a", ips=[ONE]), pod("b", ips=[TWO])])
    have = existing(web, wanted)
    assert plan_endpoints(web, wanted, have, "now") is None
    [s] = have.subsets or []
    reference = ObjectReference(kind="Pod", namespace="ns", name="a", uid="uid-a", resource_version="99")
    turned = EndpointSubset(
        addresses=[
            msgspec.structs.replace(a, target_ref=reference) if a.ip == ONE else a for a in reversed(s.addresses or [])
        ],
        ports=list(reversed(s.ports or [])),
    )
    assert plan_endpoints(web, wanted, msgspec.structs.replace(have, subsets=[turned]), "now") is None


def test_labels_annotations_and_version() -> None:
    """EP-15, EP-16, EP-21, EP-24."""
    web = service(labels={"l": "1", "service.kubernetes.io/headless": "no", "kubernetes.io/service-name": "x"})
    have = Endpoints(
        metadata=ObjectMeta(
            name="web", namespace="ns", resource_version="5", labels={"old": "x"},
            annotations={"mine": "y", "endpoints.kubernetes.io/last-change-trigger-time": "2020-01-01T00:00:00Z"},
        )
    )  # fmt: skip
    written = plan_endpoints(web, [], have, "")
    assert written is not None
    assert written.metadata.labels == {
        "l": "1",
        "kubernetes.io/service-name": "x",
        "endpoints.kubernetes.io/managed-by": "endpoint-controller",
    }
    assert written.metadata.annotations == {"mine": "y"}
    assert written.metadata.resource_version == "5"
    headless = plan_endpoints(service(clusterIP="None"), [], None, "2026-01-01T00:00:00Z")
    assert headless is not None and headless.metadata.label("service.kubernetes.io/headless") == ""
    assert "service.kubernetes.io/headless" in (headless.metadata.labels or {})
    assert headless.metadata.annotations == {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}


def test_over_capacity_is_written_every_time_and_marked_until_it_fits() -> None:
    """EP-18, EP-20."""
    big = [subset_of(1001, 0)]
    have = existing(service(), big)
    again = plan_endpoints(service(), big, have, "")
    assert again is not None and again.subsets == have.subsets
    small = plan_endpoints(service(), [subset_of(10, 0)], have, "")
    assert small is not None and OVER_CAPACITY not in (small.metadata.annotations or {})


PODS = st.lists(
    st.builds(
        pod,
        st.sampled_from([f"p{i}" for i in range(12)]),
        ips=st.sampled_from([(ONE,), (TWO,), (ONE, SIX), ("10.1.0.3",), ()]),
        ready=st.booleans(),
        terminating=st.booleans(),
        ports=st.sampled_from([(), ({"name": "http", "containerPort": 80},), ({"name": "http", "containerPort": 81},)]),
    ),
    unique_by=lambda p: p.name,
    max_size=10,
)
PORTS = st.sampled_from([NAMED, ({"port": 80},), (*NAMED, {"name": "b", "port": 2, "targetPort": 99})])


@given(PODS, PORTS, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_order_of_pods_gives_the_same_subsets(
    pods: list[Pod], ports: Any, publish: bool, chance: random.Random
) -> None:
    web = service(ports=ports, publishNotReadyAddresses=publish)
    shuffled = chance.sample(pods, len(pods))
    subsets = subsets_of(web, pods)
    assert subsets_of(web, shuffled) == subsets
    assert repacked(subsets) == subsets
    assert plan_endpoints(web, subsets, existing(web, subsets), "now") is None
    assert all(s.addresses or s.not_ready_addresses for s in subsets)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_truncation_never_exceeds_and_keeps_ready_first(counts: list[tuple[int, int]], capacity: int) -> None:
    subsets = [subset_of(*c, port=80 + i) for i, c in enumerate(counts) if any(c)]
    cut = truncated(subsets, capacity)
    ready = sum(len(s.addresses or ()) for s in subsets)
    assert address_count(cut) == min(capacity, address_count(subsets))
    assert sum(len(s.addresses or ()) for s in cut) == min(capacity, ready)
    assert all(s.addresses or s.not_ready_addresses for s in cut)
