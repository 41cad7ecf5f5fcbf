"""Endpoints, EndpointSlice, IPAddress and ServiceCIDR as kinds: defaults, refusals, cells."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import msgspec
import pytest

from kubesvc.api.endpoints import ENDPOINTS, Endpoints
from kubesvc.api.endpointslice import ENDPOINT_SLICE, Endpoint, EndpointConditions, EndpointSlice
from kubesvc.api.ipaddress import IP_ADDRESS, IPAddress, address_object
from kubesvc.api.kind import Kind, Situation
from kubesvc.api.meta import Object, typed
from kubesvc.api.servicecidr import SERVICE_CIDR, ServiceCIDR

HERE = Situation()


def made(kind: Kind, **fields: Any) -> Object:
    obj: Object = {"metadata": {"name": "a"}, **copy.deepcopy(fields)}
    kind.default(obj)
    kind.prepare_create(obj)
    return obj


class Case(NamedTuple):
    about: str
    fields: dict[str, Any]
    errors: tuple[str, ...] = ()
    """Beginnings of the errors, in order; all of them."""


def assert_errors(found: list[Any], wanted: tuple[str, ...]) -> None:
    texts = [str(e) for e in found]
    assert len(texts) == len(wanted), texts
    assert [text[: len(start)] for text, start in zip(texts, wanted, strict=True)] == list(wanted)


def subset(*ips: str, ports: tuple[Object, ...] = (), **more: Any) -> Object:
    return {"addresses": [{"ip": ip} for ip in ips], "ports": list(ports), **more}


AT = "subsets[0].addresses[0]"
ENDPOINTS_CASES = (
    Case("no subsets (EPAPI-2)", {}),
    Case("no addresses (EPAPI-3)", {"subsets": [subset(ports=({"port": 1},))]}, (
        "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",)),
    Case("only unready ones, no ports (EPAPI-3)", {"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}),
    Case("the same address and port twice (EPAPI-4)", {"subsets": [
        subset("10.0.0.1", "10.0.0.1", ports=({"name": "a", "port": 1}, {"name": "a", "port": 1}))]}),
    Case("names of several ports (EPAPI-4)", {"subsets": [subset("10.0.0.1", ports=({"port": 1}, {"port": 2}))]}, (
        "subsets[0].ports[0].name: Required value", "subsets[0].ports[1].name: Required value")),
    Case("ports (EPAPI-4)", {"subsets": [subset("10.0.0.1", ports=(
        {"name": "A", "port": 0, "protocol": "x", "appProtocol": "-"},))]}, (
        'subsets[0].ports[0].name: Invalid value: "A": a lowercase RFC 1123 label',
        "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        'subsets[0].ports[0].protocol: Unsupported value: "x": supported values: "SCTP", "TCP", "UDP"',
        'subsets[0].ports[0].appProtocol: Invalid value: "-": name part')),
    Case("no address is told twice (EPAPI-5)", {"subsets": [subset("x")]}, (
        f'{AT}.ip: Invalid value: "x": must be a valid IP address, (e.g.',
        f'{AT}.ip: Invalid value: "x": must be a valid IP address')),
    Case("unready addresses too (EPAPI-5)", {"subsets": [{"notReadyAddresses": [{"ip": "127.0.0.1"}]}]}, (
        'subsets[0].notReadyAddresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range',)),
    Case("hostname and node (EPAPI-6)", {"subsets": [
        {"addresses": [{"ip": "10.0.0.1", "hostname": "A", "nodeName": "B_"}]}]}, (
        f'{AT}.hostname: Invalid value: "A": a lowercase RFC 1123 label',
        f'{AT}.nodeName: Invalid value: "B_": a lowercase RFC 1123 subdomain')),
)  # fmt: skip


@pytest.mark.parametrize("case", ENDPOINTS_CASES, ids=lambda case: case.about)
def test_endpoints(case: Case) -> None:
    obj = made(ENDPOINTS, **case.fields)
    assert_errors(ENDPOINTS.validate(obj, HERE), case.errors)
    assert ENDPOINTS.validate_update(copy.deepcopy(obj), obj, HERE) == []  # EPAPI-7


def test_endpoints_are_stored_as_given_but_for_empty_lists() -> None:
    """EPAPI-2."""
    assert "subsets" not in made(ENDPOINTS, subsets=[])
    obj = made(ENDPOINTS, subsets=[subset("10.0.0.2", "10.0.0.1", ports=({"port": 1},), notReadyAddresses=[])])
    ips = [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}]
    assert obj["subsets"] == [{"addresses": ips, "ports": [{"port": 1, "protocol": "TCP"}]}]


PORTS = ({"name": "a", "port": 80}, {"name": "b", "port": 81})


@pytest.mark.parametrize(
    ("subsets", "cell"),
    (
        (None, "<none>"),
        ([{"notReadyAddresses": [{"ip": "10.0.0.1"}]}], ""),
        ([subset("10.0.0.1")], "10.0.0.1"),
        ([subset("fd00::1", ports=PORTS[:1])], "[fd00::1]:80"),
        ([subset("10.0.0.1", "10.0.0.2", ports=PORTS)], "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more..."),
    ),
)
def test_endpoints_cell(subsets: Any, cell: str) -> None:
    """KCTL-49."""
    found = typed({"metadata": {"name": "a"}, "subsets": subsets}, Endpoints)
    assert ENDPOINTS.columns[1].cell(found) == cell


def at(*addresses: str, **more: Any) -> Object:
    return {"addresses": list(addresses), **more}


ADDRESS = "endpoints[0].addresses"
SLICE_CASES = (
    Case("empty (SLAPI-3)", {"addressType": "IPv4"}),
    Case("no type (SLAPI-2)", {}, ("addressType: Required value",)),
    Case("another type (SLAPI-2)", {"addressType": "IP"}, (
        'addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"',)),
    Case("too many endpoints (SLAPI-3)", {"addressType": "IPv4", "endpoints": [at("10.0.0.1")] * 1001}, (
        "endpoints: Too many: 1001: must have at most 1000 items",)),
    Case("no address (SLAPI-4)", {"addressType": "IPv4", "endpoints": [at()]}, (
        f"{ADDRESS}: Required value: must contain at least 1 address",)),
    Case("too many addresses (SLAPI-4)", {"addressType": "IPv4", "endpoints": [at(*["10.0.0.1"] * 101)]}, (
        f"{ADDRESS}: Too many: 101: must have at most 100 items",)),
    Case("the same endpoint twice (SLAPI-4)", {"addressType": "IPv4", "endpoints": [at("10.0.0.1")] * 2}),
    Case("the other family (SLAPI-5)", {"addressType": "IPv4", "endpoints": [at("10.0.0.1", "fd00::1")]}, (
        f'{ADDRESS}: Invalid value: "fd00::1": must be an IPv4 address',)),
    Case("IPv6 in another form (SLAPI-5)", {"addressType": "IPv6", "endpoints": [at("FD00::1")]}, (
        f'{ADDRESS}[0]: Invalid value: "FD00::1": must be in canonical form ("fd00::1")',)),
    Case("a loopback address (SLAPI-5)", {"addressType": "IPv6", "endpoints": [at("::1")]}, (
        f'{ADDRESS}[0]: Invalid value: "::1": may not be in the loopback range',)),
    Case("no address at all (SLAPI-5)", {"addressType": "IPv4", "endpoints": [at("x")]}, (
        f'{ADDRESS}[0]: Invalid value: "x": must be a valid IP address, (e.g.',)),
    Case("digits as a name (SLAPI-5)", {"addressType": "FQDN", "endpoints": [at("1.2.3.4")]}),
    Case("hostname and node (SLAPI-7)", {"addressType": "IPv4", "endpoints": [
        at("10.0.0.1", hostname="A", nodeName="B_", zone="any thing")]}, (
        'endpoints[0].nodeName: Invalid value: "B_"', 'endpoints[0].hostname: Invalid value: "A"')),
    Case("hints (SLAPI-8)", {"addressType": "IPv4", "endpoints": [at("10.0.0.1", hints={
        "forZones": [{"name": "a"}, {"name": "a"}], "forNodes": [{"name": "A"}]})]}, (
        'endpoints[0].hints.forZones[1].name: Duplicate value: "a"',
        'endpoints[0].hints.forNodes[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain')),
    Case("too many hints (SLAPI-8)", {"addressType": "IPv4", "endpoints": [at("10.0.0.1", hints={
        "forZones": [{"name": f"z{i}"} for i in range(9)]})]}, (
        "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items",)),
    Case("ports: no number or any (SLAPI-9)", {"addressType": "IPv4", "ports": [{"port": 70000}, {"name": "b"}]}),
    Case("ports (SLAPI-9)", {"addressType": "IPv4", "ports": [{}, {"name": "", "protocol": "x", "appProtocol": "-"}]}, (
        'ports[1].name: Duplicate value: ""', 'ports[1].protocol: Unsupported value: "x"',
        'ports[1].appProtocol: Invalid value: "-": name part')),
)  # fmt: skip


@pytest.mark.parametrize("case", SLICE_CASES, ids=lambda case: case.about)
def test_slice(case: Case) -> None:
    assert_errors(ENDPOINT_SLICE.validate(made(ENDPOINT_SLICE, **case.fields), HERE), case.errors)


def test_slice_lists_are_printed_as_null_when_empty() -> None:
    """SLAPI-3, SLAPI-6, SLAPI-9."""
    empties: tuple[Object, ...] = ({}, {"endpoints": [], "ports": []}, {"endpoints": None, "ports": None})
    for empty in empties:
        obj = made(ENDPOINT_SLICE, addressType="IPv4", **empty)
        assert (obj["endpoints"], obj["ports"]) == (None, None)
    obj = made(
        ENDPOINT_SLICE,
        addressType="IPv4",
        endpoints=[at("10.0.0.1", conditions=None, deprecatedTopology={"a": "b"})],
        ports=[{}],
    )
    assert obj["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {}}]
    assert obj["ports"] == [{"name": "", "protocol": "TCP"}]


def test_slice_update() -> None:
    """SLAPI-2, SLAPI-10."""
    old = made(ENDPOINT_SLICE, addressType="IPv4", endpoints=[at("127.0.0.1"), at("10.0.0.2")])
    new = copy.deepcopy(old)
    new["endpoints"][1]["addresses"] = ["127.0.0.2"]
    new["addressType"] = "FQDN"
    wanted = (
        'addressType: Invalid value: "FQDN": field is immutable',
        'endpoints[1].addresses[0]: Invalid value: "127.0.0.2": may not be in the loopback range',
    )
    found = sorted(map(str, ENDPOINT_SLICE.validate_update({**new, "addressType": "IPv4"}, old, HERE)))
    assert [f[:60] for f in found] == [wanted[1][:60]]
    assert str(ENDPOINT_SLICE.validate_update(new, old, HERE)[-1]) == wanted[0]


@pytest.mark.parametrize(
    ("about", "change", "grows"),
    (
        ("labels count", {"metadata": {"name": "a", "labels": {"x": "y"}}}, True),
        ("annotations do not", {"metadata": {"name": "a", "annotations": {"x": "y"}}}, False),
        ("endpoints count", {"endpoints": [at("10.0.0.1")]}, True),
        ("nothing is nothing", {}, False),
    ),
)
def test_generation_of_a_slice(about: str, change: Object, grows: bool) -> None:
    """META-7."""
    old = made(ENDPOINT_SLICE, addressType="IPv4")
    assert ENDPOINT_SLICE.generation is not None
    assert ENDPOINT_SLICE.generation({**old, **change}, old) is grows, about


@pytest.mark.parametrize(
    ("ports", "endpoints", "cells"),
    (
        (None, None, ("<unset>", "<unset>")),
        ([{"port": None, "name": "x"}, {"port": None, "name": ""}], [at("10.0.0.1")], ("x,*", "10.0.0.1")),
        (
            [{"port": n} for n in (1, 2, 3, 4)],
            [at("10.0.0.1", "10.0.0.2", conditions={"ready": False}), at("10.0.0.3"), at("10.0.0.4")],
            ("1,2,3 + 1 more...", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more..."),
        ),
    ),
)
def test_slice_cells(ports: Any, endpoints: Any, cells: tuple[str, str]) -> None:
    """KCTL-50, KCTL-51."""
    plain = {"metadata": {"name": "a"}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}
    found = typed(plain, EndpointSlice)
    assert tuple(c.cell(found) for c in ENDPOINT_SLICE.columns[2:4]) == cells


@pytest.mark.parametrize(
    ("conditions", "meaning"),
    (
        (None, (True, True, False)),
        (EndpointConditions(), (True, True, False)),
        (EndpointConditions(ready=False), (False, False, False)),
        (EndpointConditions(ready=False, serving=True, terminating=True), (False, True, True)),
    ),
)
def test_absent_conditions_have_a_meaning(
    conditions: EndpointConditions | None, meaning: tuple[bool, bool, bool]
) -> None:
    """SLAPI-6."""
    endpoint = Endpoint(addresses=["10.0.0.1"], conditions=conditions)
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == meaning


def test_names_are_told_of_fqdn_and_warned_about() -> None:
    """WARN-3."""
    assert ENDPOINT_SLICE.warn({"addressType": "FQDN"}, None) == ["spec.addressType: FQDN endpoints are deprecated"]
    assert ENDPOINT_SLICE.warn({"addressType": "IPv4"}, None) == []


PARENT = {"resource": "services", "namespace": "shop", "name": "web"}


def test_ip_address() -> None:
    """CIDR-1, CIDR-2, KCTL-58."""
    obj = address_object("fd00::1", "shop", "web")
    IP_ADDRESS.default(obj)
    assert IP_ADDRESS.validate(obj, HERE) == []
    assert obj["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv6",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    found = typed(obj, IPAddress)
    assert found.managed and IP_ADDRESS.columns[1].cell(found) == "services/shop/web"
    assert IP_ADDRESS.name_errors is not None
    assert IP_ADDRESS.name_errors("FD00::1") == ['must be in canonical form ("fd00::1")']
    assert IP_ADDRESS.name_errors("web") == ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    assert_errors(IP_ADDRESS.validate({"spec": {}}, HERE), ("spec.parentRef: Required value",))
    assert_errors(
        IP_ADDRESS.validate({"spec": {"parentRef": {}}}, HERE),
        ("spec.parentRef.resource: Required value", "spec.parentRef.name: Required value"),
    )
    other = {**obj, "spec": {"parentRef": {**PARENT, "name": "other"}}}
    printed = '{"Group":"","Resource":"services","Namespace":"shop","Name":"other"}'
    assert_errors(
        IP_ADDRESS.validate_update(other, obj, HERE),
        (f"spec.parentRef: Invalid value: {printed}: field is immutable",),
    )
    assert IP_ADDRESS.validate_update(copy.deepcopy(obj), obj, HERE) == []


@pytest.mark.parametrize(
    ("parent", "cell"),
    (
        (None, "<none>"),
        ({"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "a"},
         "gateways.gateway.networking.k8s.io/a"),
    ),
)  # fmt: skip
def test_ip_address_cell(parent: Object | None, cell: str) -> None:
    found = typed({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}, IPAddress)
    assert IP_ADDRESS.columns[1].cell(found) == cell


CIDR_CASES = (
    Case("one", {"spec": {"cidrs": ["10.0.0.0/24"]}}),
    Case("two families", {"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}}),
    Case("none", {"spec": {"cidrs": []}}, ("spec.cidrs: Required value: at least one CIDR required",)),
    Case("three", {"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64", "10.1.0.0/24"]}}, (
        'spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","fd00::/64","10.1.0.0/24"]}: may only hold up to 2',)),
    Case("one family twice", {"spec": {"cidrs": ["10.0.0.0/24", "10.1.0.0/24"]}}, (
        'spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","10.1.0.0/24"]}: may specify no more than one IP for each '
        "IP family, i.e 192.168.0.0/24 and 2001:db8::/64",)),
    Case("not canonical", {"spec": {"cidrs": ["FD00::/64"]}}, (
        'spec.cidrs[0]: Invalid value: "FD00::/64": must be in canonical form ("fd00::/64")',)),
    Case("host bits", {"spec": {"cidrs": ["10.0.0.1/24"]}}, (
        'spec.cidrs[0]: Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length',)),
)  # fmt: skip


@pytest.mark.parametrize("case", CIDR_CASES, ids=lambda case: case.about)
def test_service_cidr(case: Case) -> None:
    """CIDR-3."""
    obj = made(SERVICE_CIDR, **case.fields, status={"conditions": [{"type": "Ready"}]})
    assert obj["status"] == {}
    assert_errors(SERVICE_CIDR.validate(obj, HERE), case.errors)


def test_service_cidr_ranges_stay_but_a_family_may_come() -> None:
    """CIDR-3."""
    old = made(SERVICE_CIDR, spec={"cidrs": ["10.0.0.0/24"]})
    for cidrs, accepted in (
        (["10.0.0.0/24"], True),
        (["10.0.0.0/24", "fd00::/64"], True),
        (["10.1.0.0/24"], False),
        (["fd00::/64", "10.0.0.0/24"], False),
        ([], False),
    ):
        new = made(SERVICE_CIDR, spec={"cidrs": cidrs})
        assert (SERVICE_CIDR.validate_update(new, old, HERE) == []) is accepted, cidrs


def test_nulls_of_other_servers_decode() -> None:
    """META-13, SLAPI-3."""
    for type_, text in (
        (EndpointSlice, b'{"metadata":{"creationTimestamp":null},"addressType":"IPv4","endpoints":null,"ports":null}'),
        (EndpointSlice, b'{"endpoints":[{"addresses":null,"conditions":null,"hints":null,"targetRef":null}]}'),
        (Endpoints, b'{"subsets":[{"addresses":null,"notReadyAddresses":null,"ports":null}]}'),
        (ServiceCIDR, b'{"spec":{"cidrs":null},"status":{"conditions":[{"lastTransitionTime":null}]}}'),
        (IPAddress, b'{"spec":{"parentRef":null}}'),
    ):
        msgspec.json.decode(text, type=type_)
