"""A connection explained: what is said agrees with what is decided, and every endpoint has its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.service import Service
from kubesvc.cli.peek import Reply
from kubesvc.cli.trace import compare
from kubesvc.kernel.room import REMEDY, Room
from kubesvc.proxy.decision import NewFlow, Surroundings
from kubesvc.proxy.trace import Source, Trace, as_json, render, trace
from kubesvc.proxy.traffic import Place

N1 = Place("n1", "z1", ("172.30.0.11",))
N2 = Place("n2", "z2", ("172.30.0.12",))
AT = Surroundings(pod_cidr="10.244.0.0/16", service_cidrs=("10.96.0.0/16",))
POD = Source("pod", "pod/client", "10.244.1.9", N1)
NODE = Source("node", "node/n1", "172.30.0.11", N1)
OUTSIDER = Source("outside", "a client outside", "192.0.2.7", N1)


def service(**spec: Any) -> Service:
    status = {"loadBalancer": {"ingress": [{"ip": "172.31.0.1"}]}} if spec.get("type") == "LoadBalancer" else {}
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080 if spec.get("type") else 0}]
    whole = {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "ports": ports, **spec}
    return typed({"metadata": {"name": "web", "namespace": "shop"}, "spec": whole, "status": status}, Service)


def endpoint(number: int, node: str, zones: Sequence[str] = (), **conditions: bool) -> dict[str, Any]:
    hints = {"forZones": [{"name": z} for z in zones]} if zones else None
    return {
        "addresses": [f"10.244.{number}.2"],
        "nodeName": node,
        "targetRef": {"kind": "Pod", "name": f"web-{number}", "namespace": "shop"},
        "conditions": {"ready": True, **conditions},
        **({"hints": hints} if hints else {}),
    }


def slice_of(*endpoints: dict[str, Any]) -> EndpointSlice:
    meta = {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    whole = {"metadata": meta, "addressType": "IPv4", "endpoints": list(endpoints), "ports": ports}
    return typed(whole, EndpointSlice)


def follow(source: Source, address: str, port: int, svc: Service, *endpoints: dict[str, Any]) -> Trace:
    flow = NewFlow(source.address, address, port)
    return trace(source, flow, [svc], lambda _: [slice_of(*endpoints)], (N1, N2), AT)


BOTH = (endpoint(1, "n1"), endpoint(2, "n2"))
VIP, BALANCER = "10.96.0.7", "172.31.0.1"


@dataclass(frozen=True)
class Case:
    sentence: str
    source: Source
    address: str
    port: int
    verdict: str
    words: str
    endpoints: tuple[dict[str, Any], ...] = BOTH
    spec: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


LB = {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}
CASES = (
    Case("any ready endpoint (PROXY-25)", POD, VIP, 80, "endpoint", "one of 2 endpoints", reasons=("ready", "ready")),
    Case("an unready one is out (PROXY-28)", POD, VIP, 80, "endpoint", "goes to 10.244.1.2:8080",
         (endpoint(1, "n1"), endpoint(2, "n2", ready=False)), reasons=("ready", "not ready (PROXY-28)")),
    Case("terminating ones wait for the last resort (PROXY-25)", POD, VIP, 80, "endpoint", "goes to 10.244.1.2:8080",
         (endpoint(1, "n1"), endpoint(2, "n2", ready=False, serving=True, terminating=True)),
         reasons=("ready", "terminating; used only when none is ready (PROXY-25, 26)")),
    Case("the last resort (PROXY-33c)", POD, VIP, 80, "endpoint", "goes to 10.244.2.2:8080",
         (endpoint(2, "n2", ready=False, serving=True, terminating=True),),
         reasons=("terminating and still serving, used because none is ready (PROXY-25, 26)",)),
    Case("refused without any (PROXY-38)", POD, VIP, 80, "refuse", "is refused", ()),
    Case("dropped where Local finds none (PROXY-39)", POD, VIP, 80, "drop", "the client times out",
         (endpoint(2, "n2"),), {"internalTrafficPolicy": "Local"},
         ("on node n2, and the policy Local wants one of n1 (PROXY-26)",)),
    Case("hints lead to a zone (PROXY-35)", POD, VIP, 80, "endpoint", "goes to 10.244.1.2:8080",
         (endpoint(1, "n1", ("z1",)), endpoint(2, "n2", ("z2",))),
         reasons=("ready, and its hints lead here (PROXY-35)",
                  "ready, but hints lead its traffic to zones z2, not z1 (PROXY-35)")),
    Case("no such port (PROXY-42)", POD, VIP, 81, "refuse", "has no port 81/TCP: it has 80/TCP"),
    Case("an unowned address of the range (PROXY-42)", POD, "10.96.9.9", 80, "drop", "no Service owns it"),
    Case("not a Service's address", POD, "203.0.113.9", 80, "pass", "the proxy leaves it alone"),
    Case("source ranges (PROXY-51)", OUTSIDER, BALANCER, 80, "drop", "lies in none of 10.0.0.0/8", BOTH,
         {**LB, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
         ("ready, but this connection is not let through",) * 2),
    Case("an outsider under Local reaches this node's only (PROXY-46)", OUTSIDER, BALANCER, 80, "endpoint",
         "goes to 10.244.1.2:8080", BOTH, {**LB, "externalTrafficPolicy": "Local"},
         ("ready", "on node n2, and the policy Local wants one of n1 (PROXY-26)")),
    Case("the node itself is inside (PROXY-46)", NODE, BALANCER, 80, "endpoint", "one of 2 endpoints", BOTH,
         {**LB, "externalTrafficPolicy": "Local"}, ("ready", "ready")),
    Case("another node's port is that node's affair", POD, "172.30.0.12", 30080, "endpoint", "one of 2 endpoints", BOTH,
         LB, ("ready", "ready")),
    Case("a client that is chosen itself (PROXY-56)", Source("pod", "pod/web-1", "10.244.1.2", N1), VIP, 80, "endpoint",
         "one of 2", BOTH, {}, ("ready; the client itself, so its source is rewritten (PROXY-56)", "ready")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.sentence)
def test_what_is_said(case: Case) -> None:
    found = follow(case.source, case.address, case.port, service(**case.spec), *case.endpoints)
    assert found.last.decision.verdict == case.verdict
    assert case.words in render(found)
    assert tuple(c.reason for c in found.last.candidates) == case.reasons
    assert as_json(found)["verdict"] == case.verdict


def test_the_node_that_decides_is_the_last() -> None:
    found = follow(POD, "172.30.0.12", 30080, service(**LB), *BOTH)
    assert [leg.node for leg in found.legs] == ["n1", "n2"]
    assert found.legs[0].decision.verdict == "pass"


conditions = st.fixed_dictionaries({c: st.booleans() for c in ("ready", "serving", "terminating")})
listed = st.lists(st.tuples(st.sampled_from(("n1", "n2", "")), st.sampled_from(((), ("z1",), ("z2",))), conditions))


@given(
    listed,
    st.sampled_from((POD, NODE, OUTSIDER)),
    st.sampled_from((VIP, BALANCER, "172.30.0.11")),
    st.sampled_from(("Cluster", "Local")),
    st.sampled_from(("Cluster", "Local")),
)
def test_in_is_exactly_what_is_decided(
    states: list[Any], source: Source, address: str, internal: str, external: str
) -> None:
    """Whatever the endpoints and policies: the endpoints that are in are the decision's, equally likely, and no
    endpoint is left out of the account."""
    svc = service(**{**LB, "externalTrafficPolicy": external, "internalTrafficPolicy": internal})
    endpoints = [endpoint(i, node, zones, **c) for i, (node, zones, c) in enumerate(states, 1)]
    port = 30080 if address == "172.30.0.11" else 80
    leg = follow(source, address, port, svc, *endpoints).last
    inside = [c for c in leg.candidates if c.probability]
    assert {c.target for c in inside} == set(leg.decision.targets)
    assert len(leg.candidates) == len(states)
    if inside:
        assert sum(c.probability for c in inside) == pytest.approx(1)
    assert all(c.reason for c in leg.candidates)


@pytest.mark.parametrize(
    ("result", "crowded", "agrees"),
    [("timeout", Room(100, 100, lost=1).sentence(), False), ("connected", Room(95, 100).sentence(), True)],
)
def test_a_kernel_without_room_is_named_beside_the_connection(result: str, crowded: str, agrees: bool) -> None:
    """Where a connection is lost, or soon will be, though the rules are right."""
    endpoint = "10.244.1.2" if agrees else ""
    reply = Reply(result, "10.244.1.9", 40000, endpoint, 8080 if agrees else 0, crowded=crowded)
    found = compare(follow(POD, VIP, 80, service(), *BOTH), reply)
    assert found["agrees"] is agrees and found["crowded"] == crowded
    assert f"\n{crowded}\nnext: {REMEDY}" in found["text"]
