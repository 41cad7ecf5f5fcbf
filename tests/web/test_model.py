"""The picture: which items and edges a situation has, and why each edge that is not live is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.web import model
from kubesvc.web.model import EdgeItem, GapItem, PodItem, RuleItem, ServiceItem, TrafficItem
from tests.why import planted as p

PROBE = {"readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5}}


def picture(objects: Sequence[Any], name: str = "web", **more: Any) -> model.Picture:
    snapshot = p.cluster(*objects, **more)
    return model.picture_of(snapshot.services[(p.SHOP, name)], snapshot)[0]


def edges(found: model.Picture) -> dict[str, EdgeItem]:
    return {f"{e.source}>{e.target}": e for e in found.items.values() if isinstance(e, EdgeItem)}


@dataclass
class Case:
    """What there is, and the edges: `source>target` to the state and a piece of the reason."""

    name: str
    objects: Sequence[Any]
    edges: Mapping[str, tuple[str, str]]
    more: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case(
        "a Pod that is ready is reached all the way",
        [p.service(), p.pod()],
        {
            "service>slice/web-0": ("live", ""),
            "slice/web-0>pod/web-1": ("live", ""),
            "pod/web-1>rule/web-1": ("live", ""),
            "rule/web-1>traffic/web-1": ("live", ""),
        },
    ),
    Case(
        "a Pod whose probe fails is listed and not reached, for the probe's reason",
        [p.service(), p.pod(), p.pod("web-2", ip="10.244.1.3", ready=False, container=PROBE)],
        {
            "service>slice/web-0": ("live", ""),
            "slice/web-0>pod/web-2": ("grey", "readiness probe"),
            "pod/web-2>rule/web-2": ("grey", "readiness probe"),
            "rule/web-2>traffic/web-2": ("grey", "readiness probe"),
        },
    ),
    Case(
        "a Pod that no slice lists hangs on the Service",
        [p.service(), p.pod(), p.pod("web-2", ip="", phase="Pending", ready=False, node="")],
        {"service>pod/web-2": ("grey", "cannot be scheduled")},
    ),
    Case(
        "a selector that matches nobody has a gap with the likely spelling",
        [p.service(selector={"app": "wbe"}), p.pod()],
        {"service>gap": ("grey", "did you mean app=web"), "service>slice/web-0": ("grey", "no endpoint")},
    ),
    Case(
        "an ExternalName has a gap that is no fault",
        [p.service(type="ExternalName", externalName="example.org", clusterIP="", selector={})],
        {"service>gap": ("grey", "go there by themselves")},
        {"written": False},
    ),
    Case(
        "headless: listed, and past all rules",
        [p.service(clusterIP="None"), p.pod()],
        {"slice/web-0>pod/web-1": ("live", ""), "pod/web-1>rule/web-1": ("unknown", "own address")},
    ),
    Case(
        "left to another proxy: listed, without rules",
        [p.service(meta={"labels": {"service.kubernetes.io/service-proxy-name": "mine"}}), p.pod()],
        {"slice/web-0>pod/web-1": ("live", ""), "pod/web-1>rule/web-1": ("grey", "left to the proxy")},
    ),
    Case(
        "no slice yet: the Pod hangs on the Service",
        [p.service(), p.pod()],
        {"service>pod/web-1": ("grey", "no EndpointSlice lists")},
        {"written": False},
    ),
    Case(
        "without a selector: endpoints by hand are rows of their own",
        [p.service(selector={}), p.endpoint_slice("hand", "web", p.at("192.0.2.7"), p.at("192.0.2.8", ready=False))],
        {
            "slice/hand>pod/192.0.2.7": ("live", ""),
            "pod/192.0.2.7>rule/192.0.2.7": ("live", ""),
            "slice/hand>pod/192.0.2.8": ("grey", "not ready"),
        },
    ),
    Case(
        "only one that is terminating and serves: it is still reached",
        [
            p.service(selector={}),
            p.endpoint_slice(
                "hand",
                "web",
                {"addresses": ["192.0.2.7"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            ),
        ],
        {"service>slice/hand": ("live", ""), "slice/hand>pod/192.0.2.7": ("live", "")},
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_edges(case: Case) -> None:
    found = edges(picture(case.objects, **case.more))
    for name, (state, reason) in case.edges.items():
        assert name in found, sorted(found)
        assert found[name].state == state, found[name]
        assert reason in found[name].reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_edge_that_is_not_live_says_why_and_a_live_one_has_no_excuse(case: Case) -> None:
    found = picture(case.objects, **case.more)
    for edge in edges(found).values():
        assert bool(edge.reason) == (edge.state != "live"), edge
        assert edge.source in found.items and edge.target in found.items, edge


def test_rules_say_what_leads_where_and_out_of_how_many() -> None:
    found = picture([p.service(), p.pod(), p.pod("web-2", ip="10.244.1.3")]).items
    assert found["rule/web-1"] == RuleItem(("80/TCP → 8080",), 2)


def test_policy_local_names_the_nodes_that_choose_a_pod() -> None:
    found = picture(
        [p.service(internalTrafficPolicy="Local"), p.pod(), p.pod("web-2", ip="10.244.2.3", node="n2")]
    ).items
    rule = found["rule/web-2"]
    assert isinstance(rule, RuleItem)
    assert (rule.only, rule.share) == (("n2",), 1)


def test_the_reason_beside_a_pod_leaves_out_what_is_plain_or_changes_every_second() -> None:
    found = edges(picture([p.service(), p.pod(), p.pod("web-2", ip="10.244.1.3", ready=False, container=PROBE)]))
    reason = found["slice/web-0>pod/web-2"].reason
    assert "web-2" not in reason and "2026" not in reason, reason


def test_the_service_carries_the_verdict_of_why_and_its_repair() -> None:
    service = picture([p.service(selector={"app": "wbe"}), p.pod()]).items["service"]
    assert isinstance(service, ServiceItem)
    assert service.status == "broken" and service.findings[0].code == "EP101" and service.findings[0].repairs


def test_a_gap_where_pods_are_is_never_shown() -> None:
    assert not any(isinstance(i, GapItem) for i in picture([p.service(), p.pod()]).items.values())


def test_one_pod_in_two_families_is_one_row_with_both_addresses() -> None:
    both = {"podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]}
    dual = p.service(ipFamilies=["IPv4", "IPv6"], clusterIPs=["10.96.0.7", "fd00:96::7"])
    found = picture([dual, p.pod(status=both)])
    pod = found.items["pod/web-1"]
    assert isinstance(pod, PodItem)
    assert set(pod.addresses) == {"10.244.1.2", "fd00::2"}
    assert sum(e.target == "pod/web-1" for e in edges(found).values()) == 2


# ---------------------------------------------------------------- numbers


def test_connections_count_for_the_service_they_were_sent_to() -> None:
    found = picture([p.service(), p.pod(), p.pod("web-2", ip="10.244.1.3")])
    n1 = {(6, "10.96.0.7", 80, "10.244.1.2", 8080): 3, (6, "10.96.0.9", 80, "10.244.1.2", 8080): 50}
    n2 = {(6, "10.96.0.7", 80, "10.244.1.2", 8080): 4, (17, "10.96.0.7", 80, "10.244.1.3", 8080): 9}
    assert model.totals_of(found, (n1, n2)) == {"web-1": 7, "web-2": 0}
    items = model.with_traffic(found, {"web-1": 7, "web-2": 0}, {"web-1": 1.25})
    assert items["traffic/web-1"] == TrafficItem(True, 7, 1.2)
    assert items["traffic"] == TrafficItem(True, 7, 1.2)


def test_node_ports_count_on_every_node() -> None:
    found = picture([p.service(type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}]), p.pod()])
    assert model.totals_of(found, [{(6, "172.30.0.12", 30080, "10.244.1.2", 8080): 5}]) == {"web-1": 5}


VALUES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3))


@given(VALUES, VALUES)
@settings(max_examples=60)
def test_a_difference_makes_the_one_the_other(before: dict[str, int], after: dict[str, int]) -> None:
    changed, dropped = model.difference(before, after)
    made = {k: v for k, v in (before | changed).items() if k not in dropped}
    assert made == after
    assert all(before.get(k) != v for k, v in changed.items())


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["web-10", "web-9", "web-1"], ["web-1", "web-9", "web-10"]),
        (["10.244.1.10", "10.244.1.9"], ["10.244.1.9", "10.244.1.10"]),
        (["b", "a1", ""], ["", "a1", "b"]),
    ],
)
def test_names_are_ordered_as_people_count(names: list[str], wanted: list[str]) -> None:
    assert sorted(names, key=model.natural) == wanted
