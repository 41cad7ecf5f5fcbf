"""Bands, choices and what a Service gets: pure plans over known allocations (VIP, NP)."""

from __future__ import annotations

import random
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.errors import ApiError, InternalError, Invalid
from kubesvc.api.ipaddress import address_object
from kubesvc.api.meta import Object
from kubesvc.api.service import SERVICE
from kubesvc.apiserver.allocators import (
    Allocations,
    Bands,
    address_bands,
    plan_create,
    plan_release,
    plan_update,
    port_bands,
)


class BandCase(NamedTuple):
    network: str
    first: str
    automatic_from: str
    last: str


BAND_CASES = (
    BandCase("10.0.0.0/24", "10.0.0.1", "10.0.0.17", "10.0.0.254"),
    BandCase("10.0.0.0/22", "10.0.0.1", "10.0.0.65", "10.0.3.254"),
    BandCase("10.0.0.0/20", "10.0.0.1", "10.0.1.1", "10.0.15.254"),
    BandCase("10.96.0.0/16", "10.96.0.1", "10.96.1.1", "10.96.255.254"),
    BandCase("10.0.0.0/27", "10.0.0.1", "10.0.0.17", "10.0.0.30"),
    BandCase("10.0.0.0/28", "10.0.0.1", "10.0.0.1", "10.0.0.14"),
    BandCase("fd00::/112", "fd00::1", "fd00::101", "fd00::ffff"),
    BandCase("fd00::/64", "fd00::1", "fd00::101", "fd00::ffff:ffff:ffff:ffff"),
)


@pytest.mark.parametrize("case", BAND_CASES, ids=lambda case: case.network)
def test_bands_of_a_range(case: BandCase) -> None:
    """VIP-1 to VIP-3."""
    network = ip_network(case.network)
    kind = type(network.network_address)
    assert [str(kind(n)) for n in address_bands(network)] == [case.first, case.automatic_from, case.last]


def test_bands_of_node_ports() -> None:
    """NP-1."""
    assert port_bands(30000, 32767) == Bands(30000, 30086, 32767)
    assert port_bands(30000, 30015) == Bands(30000, 30000, 30015)
    assert port_bands(30000, 30016) == Bands(30000, 30016, 30016)
    assert port_bands(1, 65535) == Bands(1, 129, 65535)


@given(st.integers(0, 40), st.integers(0, 40), st.sets(st.integers(0, 80)), st.integers())
def test_choice_is_free_and_prefers_the_upper_band(low: int, more: int, taken: set[int], seed: int) -> None:
    bands = Bands(5, 5 + low, 5 + low + more)
    found = bands.choose(taken.__contains__, random.Random(seed))
    free = [n for n in range(bands.first, bands.last + 1) if n not in taken]
    if found is None:
        assert not free
    else:
        assert found in free
        assert found >= bands.upper or all(n < bands.upper for n in free)


def test_a_wide_range_is_chosen_from_at_once() -> None:
    bands = address_bands(ip_network("fd00::/64"))
    assert bands.upper <= (bands.choose(lambda _: False, random.Random(1)) or 0) <= bands.last


def service(name: str = "web", **spec: Any) -> Object:
    obj: Object = {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 80}], **spec}}
    SERVICE.default(obj)
    SERVICE.prepare_create(obj)
    return obj


def changed(old: Object, **spec: Any) -> Object:
    """`old` with other fields in its spec; None takes one out."""
    fields = {**old["spec"], **spec}
    new: Object = {
        "metadata": dict(old["metadata"]),
        "spec": {k: v for k, v in fields.items() if v is not None},
        "status": old["status"],
    }
    SERVICE.default(new)
    SERVICE.prepare_update(new, old)
    return new


def single(*taken: str, ports: tuple[int, int] = (30000, 32767), network: str = "10.96.0.0/16") -> Allocations:
    allocations = Allocations([network], ports)
    for address in taken:
        allocations.observe_address(None, address_object(address, "shop", "other"))
    return allocations


def refusal(obj: Object, allocations: Allocations, *, dry_run: bool = False) -> str:
    with pytest.raises(ApiError) as found:
        plan_create(obj, allocations, random.Random(1), dry_run=dry_run)
    return found.value.message


REFUSALS = (
    (
        "an address in use (VIP-4)",
        {"clusterIP": "10.96.0.9"},
        'spec.clusterIPs: Invalid value: ["10.96.0.9"]: failed to allocate IP 10.96.0.9: provided IP is already',
    ),
    (
        "an address outside (VIP-4)",
        {"clusterIP": "1.2.3.4"},
        "failed to allocate IP 1.2.3.4: the provided network does not match the current range",
    ),
    ("the base address (VIP-4)", {"clusterIP": "10.96.0.0"}, "the provided network does not match the current range"),
    ("the broadcast address", {"clusterIP": "10.96.255.255"}, "the provided network does not match the current range"),
    (
        "a node port out of range (NP-5)",
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. "
        "The range of valid ports is 30000-32767",
    ),
    (
        "one node port for two port numbers (NP-3)",
        {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}, {"port": 2, "nodePort": 30001}]},
        "spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated",
    ),
    (
        "a health check port that is a node port (NP-10)",
        {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30001,
            "ports": [{"port": 1, "nodePort": 30001}],
        },
        "Internal error occurred: failed to allocate requested HealthCheck NodePort 30001: "
        "provided port is already allocated",
    ),
    (
        "a second family on a single-stack cluster (FAM-7)",
        {"ipFamilyPolicy": "RequireDualStack"},
        "this cluster is not configured for dual-stack services",
    ),
    (
        "an address of a family the cluster lacks (FAM-9)",
        {"clusterIP": "fd00::1"},
        'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster',
    ),
    (
        "two families without a policy (FAM-4, FAM-8)",
        {"ipFamilies": ["IPv4", "IPv6"]},
        "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
    ),
)


@pytest.mark.parametrize(("about", "spec", "text"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_what_cannot_be_had_is_refused_and_holds_nothing(about: str, spec: dict[str, Any], text: str) -> None:
    allocations = single("10.96.0.9")
    assert text in refusal(service(**spec), allocations)
    assert not allocations.reserved_addresses and not allocations.reserved_ports, about


def test_a_full_range_is_an_internal_error() -> None:
    """VIP-5, NP-5."""
    full = single(*(f"10.0.0.{n}" for n in range(1, 7)), network="10.0.0.0/29")
    with pytest.raises(InternalError) as found:
        plan_create(service(), full, random.Random(1))
    text = 'failed to allocate a serviceIP for Service "web": range is full'
    assert found.value.message == f"Internal error occurred: {text}"
    assert found.value.causes == [{"message": text}]
    few = single(ports=(30000, 30000))
    two = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    assert refusal(service(type="NodePort", ports=two), few).endswith("failed to allocate a nodePort: range is full")


def test_the_lower_band_is_used_when_the_upper_is_full() -> None:
    """VIP-2."""
    allocations = single(*(f"10.0.0.{n}" for n in range(17, 31)), network="10.0.0.0/27")
    obj = service()
    plan = plan_create(obj, allocations, random.Random(1))
    assert plan.addresses == (obj["spec"]["clusterIP"],)
    assert int(obj["spec"]["clusterIP"].rpartition(".")[2]) <= 16


def test_a_service_without_a_name_is_refused_at_its_address() -> None:
    """META-5."""
    text = refusal(service(name=""), single())
    assert text.startswith(
        'Service "" is invalid: spec.clusterIPs: Invalid value: [""]: failed to allocate IP: '
        'IPAddress.networking.k8s.io "10.96.'
    )
    assert text.endswith('" is invalid: spec.parentRef.name: Required value')


def node_ports(obj: Object) -> list[int]:
    return [p.get("nodePort", 0) for p in obj["spec"].get("ports") or ()]


class TestNodePortsOfNewServices:
    def of(self, *ports: Object, **spec: Any) -> list[int]:
        obj = service(**{"type": "NodePort", "ports": list(ports), **spec})
        plan = plan_create(obj, single(), random.Random(1))
        assert sorted(set(node_ports(obj)) - {0}) == sorted(plan.ports)
        return node_ports(obj)

    def test_automatic_ones_come_from_the_upper_band(self) -> None:
        assert all(port >= 30086 for port in self.of(*({"name": f"p{i}", "port": i} for i in range(1, 50))))

    def test_one_number_in_two_protocols_shares_its_node_port(self) -> None:
        """NP-3."""
        tcp, udp = self.of({"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"})
        assert tcp == udp

    def test_also_with_one_that_is_named_later(self) -> None:
        """NP-3."""
        udp = {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}
        assert self.of({"name": "t", "port": 53}, udp) == [30053, 30053]

    def test_two_that_are_named_stay_as_they_are(self) -> None:
        udp = {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}
        assert self.of({"name": "t", "port": 53, "nodePort": 30054}, udp) == [30054, 30053]

    def test_a_load_balancer_may_do_without(self) -> None:
        """NP-2."""
        assert self.of({"port": 80}, type="LoadBalancer", allocateLoadBalancerNodePorts=False) == [0]

    def test_but_what_it_names_it_gets(self) -> None:
        ports = ({"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 80, "protocol": "UDP"})
        assert self.of(*ports, type="LoadBalancer", allocateLoadBalancerNodePorts=False) == [30080, 0]

    def test_others_have_none(self) -> None:
        assert self.of({"port": 80}, type="ClusterIP") == [0]

    def test_external_names_keep_what_was_sent(self) -> None:
        """SVC-32."""
        obj = service(type="ExternalName", externalName="a.b", ports=[{"port": 80, "nodePort": 1}])
        assert plan_create(obj, single(), random.Random(1)).ports == ()
        assert node_ports(obj) == [1]


def stored(allocations: Allocations, obj: Object) -> Object:
    """Plan, and observe what a store would hold then."""
    plan = plan_create(obj, allocations, random.Random(1))
    for address in plan.addresses:
        allocations.observe_address(None, address_object(address, "shop", obj["metadata"]["name"]))
    allocations.observe_service(None, obj)
    return obj


class TestNodePortsOfChangedServices:
    def test_naming_one_twice_for_one_protocol_is_no_field_error(self) -> None:
        """SVC-11."""
        allocations = single()
        old = stored(allocations, service(type="NodePort"))
        twice = [{"name": n, "port": p, "nodePort": 30100} for n, p in (("a", 1), ("b", 2))]
        with pytest.raises(ApiError) as found:
            plan_update(changed(old, ports=twice), old, allocations, random.Random(1))
        assert (found.value.status_code, found.value.status_reason) == (500, "")
        assert found.value.message == "duplicate nodePort: {TCP 30100}"

    def test_for_two_protocols_it_is_allowed(self) -> None:
        """NP-4."""
        allocations = single()
        old = stored(allocations, service(type="NodePort"))
        ports = [
            {"name": "a", "port": 1, "nodePort": 30100},
            {"name": "b", "port": 2, "protocol": "UDP", "nodePort": 30100},
        ]
        assert plan_update(changed(old, ports=ports), old, allocations, random.Random(1)).ports == (30100,)

    def test_new_ports_share_nothing(self) -> None:
        """NP-4."""
        allocations = single()
        old = stored(allocations, service(type="NodePort"))
        ports = [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]
        new = changed(old, ports=ports)
        plan_update(new, old, allocations, random.Random(1))
        assert len(set(node_ports(new))) == 2

    def test_another_services_port_is_taken_whatever_its_protocol(self) -> None:
        """NP-7."""
        allocations = single()
        stored(allocations, service("other", type="NodePort", ports=[{"port": 1, "nodePort": 30100}]))
        old = stored(allocations, service(type="NodePort"))
        new = changed(old, ports=[{"port": 1, "protocol": "UDP", "nodePort": 30100}])
        with pytest.raises(Invalid) as found:
            plan_update(new, old, allocations, random.Random(1))
        assert "spec.ports[0].nodePort: Invalid value: 30100: provided port is already allocated" in found.value.message


class TestDryRun:
    def test_shows_the_base_address_and_holds_nothing(self) -> None:
        """VIP-9."""
        obj = service(type="NodePort", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        plan = plan_create(obj, single(), random.Random(1), dry_run=True)
        assert (plan.addresses, plan.ports) == ((), ())
        assert obj["spec"]["clusterIP"] == "10.96.0.0"
        assert node_ports(obj) == [32769, 32770]

    def test_asks_of_an_address_only_for_its_range(self) -> None:
        """VIP-9."""
        plan_create(service(clusterIP="10.96.0.9"), single("10.96.0.9"), random.Random(1), dry_run=True)
        assert "does not match the current range" in refusal(service(clusterIP="1.1.1.1"), single(), dry_run=True)


class TestRanges:
    def cidr(self, name: str, *cidrs: str, **more: Any) -> Object:
        return {"metadata": {"name": name, **more.pop("metadata", {})}, "spec": {"cidrs": list(cidrs)}, **more}

    def test_addresses_come_from_every_ready_range_and_never_from_a_going_one(self) -> None:
        """CIDR-6."""
        allocations = single()
        allocations.observe_range(None, self.cidr("a", "10.1.0.0/28", metadata={"deletionTimestamp": "2026-01-01"}))
        going = self.cidr("b", "10.2.0.0/28", status={"conditions": [{"type": "Ready", "status": "False"}]})
        allocations.observe_range(None, going)
        allocations.observe_range(None, self.cidr("c", "10.3.0.0/28"))
        obj = service()
        plan_create(obj, allocations, random.Random(1))
        assert obj["spec"]["clusterIP"].startswith("10.3.0.")
        assert "does not match" in refusal(service(clusterIP="10.1.0.3"), allocations)

    def test_the_next_range_serves_when_one_is_full(self) -> None:
        allocations = single(*(f"10.1.0.{n}" for n in range(1, 7)))
        allocations.observe_range(None, self.cidr("a", "10.1.0.0/29"))
        allocations.observe_range(None, self.cidr("b", "10.2.0.0/29"))
        obj = service()
        plan_create(obj, allocations, random.Random(1))
        assert obj["spec"]["clusterIP"].startswith("10.2.0.")

    def test_the_configured_ranges_serve_while_there_is_no_object(self) -> None:
        allocations = single()
        object_ = self.cidr("a", "10.1.0.0/28")
        allocations.observe_range(None, object_)
        allocations.observe_range(object_, None)
        assert [str(n) for n in allocations.ranges("IPv4")] == ["10.96.0.0/16"]


def test_only_its_own_addresses_go_with_a_service() -> None:
    allocations = single()
    mine = stored(allocations, service(clusterIP="10.96.0.9"))
    assert plan_release(mine, allocations).freed == ("10.96.0.9",)
    held = address_object("10.96.0.9", "shop", "web")
    allocations.observe_address(held, address_object("10.96.0.9", "shop", "other"))
    assert plan_release(mine, allocations).freed == ()


def test_an_address_whose_object_is_gone_is_still_its_services() -> None:
    """REPAIR-3."""
    allocations = single()
    stored(allocations, service(clusterIP="10.96.0.9"))
    allocations.observe_address(address_object("10.96.0.9", "shop", "web"), None)
    assert "already allocated" in refusal(service("b", clusterIP="10.96.0.9"), allocations)


def test_an_odd_spelling_is_the_same_address() -> None:
    allocations = Allocations(["fd00::/112"], (30000, 32767))
    stored(allocations, service(clusterIP="FD00:0::9"))
    assert "already allocated" in refusal(service("b", clusterIP="fd00::9"), allocations)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_what_is_under_way_is_never_given_out_twice(seed: int, count: int) -> None:
    allocations = single(network="10.0.0.0/27", ports=(30000, 30019))
    chance = random.Random(seed)
    plans = []
    for i in range(count):
        plan = plan_create(service(f"s{i}", type="NodePort"), allocations, chance)
        allocations.reserve(plan)
        plans.append(plan)
    addresses = [a for plan in plans for a in plan.addresses]
    ports = [p for plan in plans for p in plan.ports]
    assert len(addresses) == len(set(addresses)) == count and len(ports) == len(set(ports)) == count
    for plan in plans:
        allocations.release(plan)
    assert not allocations.reserved_addresses and not allocations.reserved_ports
