"""Who may be reached: rows that packets alone do not show."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.proxy.traffic import Target, canonical, plan_service, service_of

from .objects import A, At, B, C, draining, gone, place, ready, service, slice_of


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("010.000.0.01", "10.0.0.1"),
        ("FD00:0:0::0001", "fd00::1"),
        ("example.com", ""),
        ("10.0.0", ""),
        ("10.0.0.256", ""),
    ],
)
def test_addresses_have_one_spelling(given: str, wanted: str) -> None:
    """PROXY-13."""
    assert canonical(given) == wanted


def planned(*endpoints: At, **spec: object) -> tuple[Target, ...]:
    (port,) = plan_service(service(**spec), [slice_of(endpoints=endpoints)], place(), "IPv4")  # type: ignore[arg-type]
    return port.cluster


def test_endpoints_are_in_order_of_their_text() -> None:
    """PROXY-16."""
    found = planned(At(A, address="10.0.0.9"), At(A, address="10.0.0.10"), At(A, address="10.0.0.1"))
    assert [t.address for t in found] == ["10.0.0.10", "10.0.0.1", "10.0.0.9"]


def test_only_the_first_address_counts() -> None:
    """PROXY-13; an endpoint without address is nothing."""
    s = slice_of(endpoints=[At(A), At(B)])
    assert s.endpoints
    import msgspec

    two = msgspec.structs.replace(s.endpoints[0], addresses=["10.244.1.2", "10.244.1.99"])
    none = msgspec.structs.replace(s.endpoints[1], addresses=None)
    s = msgspec.structs.replace(s, endpoints=[two, none])
    (port,) = plan_service(service(), [s], place(), "IPv4")
    assert port.cluster == (Target("10.244.1.2", 8080),)


@pytest.mark.parametrize(
    ("sentence", "ports"),
    [
        ("a port without name field is ignored", [{"port": 80}]),
        ("a port without number is ignored", [{"name": "http"}]),
        ("port 0 is ignored", [{"name": "http", "port": 0}]),
        ("another protocol is another port", [{"name": "http", "port": 80, "protocol": "UDP"}]),
    ],
)
def test_slice_ports_that_do_not_count(sentence: str, ports: list[dict[str, object]]) -> None:
    """PROXY-11."""
    (port,) = plan_service(service(), [slice_of(endpoints=ready(A), ports=ports)], place(), "IPv4")
    assert port.cluster == () and not port.usable, sentence


@pytest.mark.parametrize(
    ("sentence", "spec"),
    [
        ("PROXY-6: headless", {"clusterIP": "None", "clusterIPs": ["None"]}),
        ("PROXY-6: not yet allocated", {"clusterIP": "", "clusterIPs": []}),
        ("PROXY-6: ExternalName, even with an old address", {"type": "ExternalName"}),
        ("PROXY-7: of the other family only", {"ipFamilies": ["IPv6"], "clusterIPs": ["fd00:96::1"]}),
    ],
)
def test_services_that_are_not_for_the_proxy(sentence: str, spec: dict[str, object]) -> None:
    assert plan_service(service(**spec), [slice_of(endpoints=ready(A))], place(), "IPv4") == (), sentence  # type: ignore[arg-type]


def test_another_proxy_may_be_named() -> None:
    """PROXY-2: even by an empty value."""
    labelled = service(labels={"service.kubernetes.io/service-proxy-name": ""})
    assert plan_service(labelled, [], place(), "IPv4") == ()


def test_both_families_find_their_address() -> None:
    """PROXY-7: by the index of the family, not by the first address."""
    both = service(clusterIP="fd00:96::7", clusterIPs=["fd00:96::7", "10.96.0.7"], ipFamilies=["IPv6", "IPv4"])
    assert [plan_service(both, [], place(), f)[0].cluster_ip for f in ("IPv4", "IPv6")] == ["10.96.0.7", "fd00:96::7"]


def test_slices_of_other_families_are_ignored() -> None:
    """PROXY-8."""
    slices = [slice_of(endpoints=ready(A)), slice_of(endpoints=ready(B), suffix="6", family="IPv6")]
    (port,) = plan_service(service(), slices, place(), "IPv4")
    assert [t.address for t in port.cluster] == ["10.244.1.2"]


def test_a_slice_that_names_no_service() -> None:
    """PROXY-9."""
    assert service_of(slice_of("")) is None
    assert service_of(slice_of("web")) == ("shop", "web")


def test_health_counts_ready_addresses_here() -> None:
    """PROXY-82, 83: not the draining ones, not those elsewhere, each address once."""
    (port,) = plan_service(
        service(type="LoadBalancer", externalTrafficPolicy="Local"),
        [slice_of(endpoints=[At(A), draining(B), At(C), gone(B)])],
        place(),
        "IPv4",
    )
    assert port.local_ready == ("10.244.1.2",)


def test_serving_ignores_policy() -> None:
    """PROXY-74: those that may keep UDP flows."""
    (port,) = plan_service(
        service(internalTrafficPolicy="Local"), [slice_of(endpoints=[draining(C), gone(A)])], place(), "IPv4"
    )
    assert [t.address for t in port.serving] == ["10.244.2.2"]


def test_balancers_that_proxy_are_left_alone() -> None:
    """PROXY-44: ipMode Proxy and hostnames make no front."""
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"hostname": "lb.example"}]}}
    (port,) = plan_service(service(type="LoadBalancer", status=status), [], place(), "IPv4")
    assert port.load_balancer_ips == ()


def test_external_ips_may_be_switched_off() -> None:
    """PROXY-45."""
    (port,) = plan_service(service(externalIPs=["192.0.2.9"]), [], place(), "IPv4", external_ips=False)
    assert port.external_ips == ()


@pytest.mark.parametrize(("config", "seconds"), [({}, 10800), ({"clientIP": {"timeoutSeconds": 125}}, 125)])
def test_affinity_timeout(config: dict[str, object], seconds: int) -> None:
    """PROXY-60."""
    sticky = service(sessionAffinity="ClientIP", sessionAffinityConfig=config)
    (port,) = plan_service(sticky, [], place(), "IPv4")
    assert port.affinity_seconds == seconds


LOCAL: dict[str, Any] = {"externalTrafficPolicy": "Local"}
INTERNAL: dict[str, Any] = {"internalTrafficPolicy": "Local"}
NODE_PORT: dict[str, Any] = {"type": "NodePort", "ports": ({"name": "http", "port": 80, "nodePort": 30080},)}


@pytest.mark.parametrize(
    ("sentence", "spec", "lists"),
    [
        ("PROXY-22: the Cluster list is the usual one", {}, (True, False)),
        ("PROXY-22, 23: under an internal Local policy only the Local list", INTERNAL, (False, True)),
        ("PROXY-22: but both where it is reached from outside", {**INTERNAL, **NODE_PORT}, (True, True)),
        ("PROXY-23: an external Local policy needs both", {**LOCAL, **NODE_PORT}, (True, True)),
        ("PROXY-24: and counts for nothing where nothing is external", LOCAL, (True, False)),
        ("PROXY-24: external IPs count", {**LOCAL, "externalIPs": ["192.0.2.20"]}, (True, True)),
        ("PROXY-34: trafficDistribution is the slices' affair", {"trafficDistribution": "PreferClose"}, (True, False)),
    ],
)
def test_which_lists_there_are(sentence: str, spec: dict[str, Any], lists: tuple[bool, bool]) -> None:
    (port,) = plan_service(service(**spec), [slice_of(endpoints=ready(A, C))], place("z1"), "IPv4")
    assert (bool(port.cluster), bool(port.local)) == lists, sentence
    assert len(port.cluster) in (0, 2), "PROXY-34: without hints nobody is left out"


@pytest.mark.parametrize(
    ("sentence", "endpoints", "usable"),
    [
        ("PROXY-29, BUG-4: ready elsewhere, and hinted for elsewhere", [At(C, zones=["z9"])], True),
        ("PROXY-29: draining elsewhere", [draining(C)], True),
        ("PROXY-28, 29: neither ready nor serving", [At(A, ready=False), gone(C)], False),
        ("PROXY-29: serving, but neither ready nor terminating", [At(A, ready=False, serving=True)], False),
        ("PROXY-30: unready Pods are published as ready ones", [At(A, ready=True, serving=False)], True),
        ("PROXY-30: terminating ones as well", [At(A, ready=True, serving=True, terminating=True)], True),
    ],
)
def test_whether_anything_is_usable_anywhere(sentence: str, endpoints: list[At], usable: bool) -> None:
    (port,) = plan_service(service(**INTERNAL), [slice_of(endpoints=endpoints)], place("z1"), "IPv4")
    assert port.usable == usable, sentence


def test_the_nodes_name_counts_to_the_letter() -> None:
    """PROXY-124: under another spelling every endpoint is elsewhere."""
    slices = [slice_of(endpoints=ready(A))]
    for name, local in (("n1", 1), ("N1", 0), ("n1.example", 0)):
        (port,) = plan_service(service(**INTERNAL), slices, place()._replace(node=name), "IPv4")
        assert len(port.local) == local
