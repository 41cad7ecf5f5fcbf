"""Objects that no server should have let in: what cannot be steered is left out, and everything else is as ever."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.kinds import ENDPOINT_SLICE, SERVICE
from kubesvc.api.meta import typed
from kubesvc.api.service import Service
from kubesvc.proxy.frame import FrameOptions
from kubesvc.proxy.health import plan_health
from kubesvc.proxy.iptables import IptablesRuleset
from kubesvc.proxy.nftables import Ruleset
from kubesvc.proxy.traffic import Family, PortTraffic, ServicePortName, Target, plan_service

from .objects import A, At, B, C, place, ready, service, slice_of, vip
from .test_packets import options
from .test_sync import House, in_house, targets

NUMBERS = st.one_of(st.none(), st.sampled_from((-1, 0, 1, 80, 8080, 65535, 65536, 1 << 40)), st.integers())
ADDRESSES = st.one_of(
    st.sampled_from(
        ("10.244.1.2", "10.244.2.2", "fd00::2", "010.1.1.1", "10.0.0.300", "web.example.com", "", "::ffff:1.2.3.4")
    ),
    st.text(max_size=8),
)
NAMES = st.sampled_from(("http", "", "dns", None))
PROTOCOLS = st.sampled_from(("TCP", "UDP", "SCTP", "FOO", None))
FAMILIES = st.sampled_from(("IPv4", "IPv6", "FQDN", ""))
SLICES = st.builds(
    lambda family, ports, endpoints: typed(
        {
            "metadata": {"name": "web-z", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family,
            "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
            "endpoints": [{"addresses": listed, "conditions": {"ready": True}} for listed in endpoints],
        },
        EndpointSlice,
    ),
    FAMILIES,
    st.lists(st.tuples(NAMES, PROTOCOLS, NUMBERS), max_size=4),
    st.lists(st.lists(ADDRESSES, max_size=2), max_size=6),
)
SPECS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Odd")),
        "clusterIP": ADDRESSES,
        "ipFamilies": st.lists(FAMILIES, max_size=2),
        "externalIPs": st.lists(ADDRESSES, max_size=3),
        "loadBalancerSourceRanges": st.lists(
            st.sampled_from(("10.0.0.0/8", "10.0.0.0/99", "x", "::/0", "")), max_size=3
        ),
        "healthCheckNodePort": NUMBERS.map(lambda n: n or 0),
        "externalTrafficPolicy": st.sampled_from(("Local", "Cluster", "")),
        "sessionAffinity": st.sampled_from(("None", "ClientIP")),
        "sessionAffinityConfig": st.builds(lambda n: {"clientIP": {"timeoutSeconds": n}}, NUMBERS),
    }
)
PORTS = st.lists(st.tuples(NAMES, PROTOCOLS, NUMBERS, NUMBERS), max_size=3)


@given(SPECS, PORTS, st.lists(ADDRESSES, max_size=2), st.lists(SLICES, max_size=3))
def test_rules_are_made_of_whatever_comes(
    spec: dict[str, Any], ports: list[tuple[Any, ...]], balancers: list[str], slices: list[EndpointSlice]
) -> None:
    """By both renderers, and in both families; the Service beside it keeps its rules."""
    listed = [
        {"name": n or "", "protocol": p or "TCP", "port": number or 0, "nodePort": other or 0}
        for n, p, number, other in ports
    ]
    plain = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {**spec, "clusterIPs": [spec["clusterIP"]], "ports": listed},
        "status": {"loadBalancer": {"ingress": [{"ip": b} for b in balancers]}},
    }
    odd = typed(plain, Service)
    families: tuple[Family, ...] = ("IPv4", "IPv6")
    for family in families:
        fine = service("fine", number=9, family=family)
        good = {("shop", "fine"): plan_service(fine, [slice_of("fine", ready(B), family=family)], place(), family)}
        planned = plan_service(odd, slices, place(), family)
        health = plan_health(odd, planned)
        assert health is None or 0 < health.port < 65536
        made: FrameOptions = options(family)
        nft = Ruleset(made, ("172.30.0.11",) if family == "IPv4" else ("fd00:172:30::11",))
        nft.transactions(nft.change(good | {("shop", "web"): planned}))
        assert ("shop", "fine") in nft.shares
        chains = IptablesRuleset(made, None)
        chains.change(good | {("shop", "web"): planned})


P = {"name": "http", "protocol": "TCP"}


@pytest.mark.parametrize(
    ("sentence", "odd"),
    [
        *(
            (f"a port {n}", slice_of(endpoints=ready(B), suffix="y", ports=[P | {"port": n}]))
            for n in (-5, 0, None, 65536)
        ),
        (
            "a protocol there is not",
            slice_of(endpoints=ready(B), suffix="y", ports=[P | {"port": 1, "protocol": "FOO"}]),
        ),
        ("a foreign family", slice_of(endpoints=ready(C), suffix="y", family="IPv6")),
        (
            "addresses that are none, or of another family",
            slice_of(endpoints=[At(B, address=a) for a in ("10.0.0.300", "fd00::1", "web.example.com")], suffix="y"),
        ),
        ("no name for its port", slice_of(endpoints=ready(B), suffix="y", ports=[{"port": 8080}])),
    ],
)
def test_slices_that_lead_nowhere(sentence: str, odd: EndpointSlice) -> None:
    """PROXY-11 to 14: beside a good one, and in the same burst as another Service's change."""

    async def test(house: House) -> None:
        house.cluster.put(SERVICE, service())
        house.cluster.put(ENDPOINT_SLICE, slice_of(endpoints=ready(A)))
        await asyncio.sleep(1)
        house.cluster.put(ENDPOINT_SLICE, odd)
        house.cluster.put(SERVICE, service("fine", number=9))
        house.cluster.put(ENDPOINT_SLICE, slice_of("fine", ready(B)))
        await asyncio.sleep(0.1)
        assert house.fates() == targets(A) and house.fates(vip("IPv4", 9)) == targets(B), sentence
        assert house.proxy.families[0].counters.failures == 0

    in_house(test)


def test_thousands_of_duplicates_are_one_endpoint() -> None:
    """PROXY-14: and cost no more than reading them."""
    many = [slice_of(endpoints=[At(A)] * 1000 + [At(B)], suffix=f"y{n}") for n in range(20)]
    began = time.process_time()
    (port,) = plan_service(service(), many, place(), "IPv4")
    assert [t.address for t in port.cluster] == ["10.244.1.2", "10.244.1.3"]
    assert time.process_time() - began < 2


def test_a_service_that_cannot_be_rendered_harms_no_other() -> None:
    """Whatever bug that is: the others of its burst are taken in, and it keeps what it had."""
    names = [ServicePortName("shop", n, "http", "TCP") for n in ("a", "b", "c")]
    ports = {
        n[:2]: (PortTraffic(n, 80, vip("IPv4", i), cluster=(Target("10.244.1.2", 8080),), usable=True),)
        for i, n in enumerate(names, 1)
    }
    ruleset = Ruleset(options("IPv4"))
    ruleset.change({names[1][:2]: ports[names[1][:2]]})
    before = ruleset.shares[names[1][:2]]
    bad = msgspec.structs.replace(ports[names[1][:2]][0], cluster=(Target("10.244.1.2", 70_000),))
    with pytest.raises(struct.error) as failed:
        ruleset.change({**ports, names[1][:2]: (bad,)})
    assert failed.value.__notes__ == ["Service shop/b: its rules stay as they were"]
    assert list(ruleset.shares) == [names[1][:2], names[0][:2], names[2][:2]]
    assert ruleset.shares[names[1][:2]] == before
