"""Service as a kind: defaults, every refusal, warnings and table cells, without a server."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.kind import Situation
from kubesvc.api.meta import Object, typed
from kubesvc.api.service import SERVICE, Service, shown

HERE = Situation()
DNS = "a lowercase RFC 1123"


def new(annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """A new Service after defaulting, with an address as if allocated; fields given as None are left out."""
    fields = {"ports": [{"port": 80}], "clusterIP": "10.96.1.2", **spec}
    obj: Object = {
        "metadata": {"name": "web", **({"annotations": annotations} if annotations else {})},
        "spec": {k: v for k, v in fields.items() if v is not None},
    }
    SERVICE.default(obj)
    SERVICE.prepare_create(obj)
    return obj


class Default(NamedTuple):
    about: str
    spec: dict[str, Any]
    field: str
    value: Any


DEFAULTS = (
    Default("a port is TCP and leads to itself (SVC-6, SVC-7)", {}, "ports", [
        {"port": 80, "protocol": "TCP", "targetPort": 80}]),
    Default("target port 0 is none (SVC-7)", {"ports": [{"port": 9, "targetPort": 0}]}, "ports", [
        {"port": 9, "protocol": "TCP", "targetPort": 9}]),
    Default("an empty target port is none (SVC-7)", {"ports": [{"port": 9, "targetPort": ""}]}, "ports", [
        {"port": 9, "protocol": "TCP", "targetPort": 9}]),
    Default("a named one stays", {"ports": [{"port": 9, "targetPort": "http"}]}, "ports", [
        {"port": 9, "protocol": "TCP", "targetPort": "http"}]),
    Default("no type means ClusterIP (SVC-2)", {"type": ""}, "type", "ClusterIP"),
    Default("no affinity (SVC-14)", {"sessionAffinity": ""}, "sessionAffinity", "None"),
    Default("its config is dropped (SVC-15)", {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
        "sessionAffinityConfig", None),
    Default("three hours of affinity (SVC-15)", {"sessionAffinity": "ClientIP"}, "sessionAffinityConfig",
        {"clientIP": {"timeoutSeconds": 10800}}),
    Default("whatever level is missing (SVC-15)", {"sessionAffinity": "ClientIP", "sessionAffinityConfig":
        {"clientIP": {}}}, "sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}}),
    Default("a given zero stays, to be refused (SVC-16)", {"sessionAffinity": "ClientIP", "sessionAffinityConfig":
        {"clientIP": {"timeoutSeconds": 0}}}, "sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 0}}),
    Default("no external policy inside (SVC-17)", {}, "externalTrafficPolicy", None),
    Default("Cluster for NodePort (SVC-17)", {"type": "NodePort"}, "externalTrafficPolicy", "Cluster"),
    Default("and with external addresses (SVC-17)", {"externalIPs": ["192.0.2.1"]}, "externalTrafficPolicy", "Cluster"),
    Default("internal policy (SVC-18)", {}, "internalTrafficPolicy", "Cluster"),
    Default("for headless ones too (SVC-18)", {"clusterIP": "None"}, "internalTrafficPolicy", "Cluster"),
    Default("not for ExternalName (SVC-18)", {"type": "ExternalName"}, "internalTrafficPolicy", None),
    Default("a given one is kept, unseen (SVC-33)", {"type": "ExternalName", "internalTrafficPolicy": "Local"},
        "internalTrafficPolicy", "Local"),
    Default("balancers allocate ports (SVC-20)", {"type": "LoadBalancer"}, "allocateLoadBalancerNodePorts", True),
    Default("unless told not to", {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
        "allocateLoadBalancerNodePorts", False),
    Default("an empty selector is none (SVC-12)", {"selector": {}}, "selector", None),
    Default("zero values are left out", {"publishNotReadyAddresses": False, "healthCheckNodePort": 0},
        "publishNotReadyAddresses", None),
    Default("empty lists are left out", {"externalIPs": []}, "externalIPs", None),
    Default("one address is a list of one (FAM-1)", {}, "clusterIPs", ["10.96.1.2"]),
)  # fmt: skip


@pytest.mark.parametrize("case", DEFAULTS, ids=lambda case: case.about)
def test_default(case: Default) -> None:
    obj = new(**case.spec)
    assert obj["spec"].get(case.field) == case.value
    assert obj["status"] == {"loadBalancer": {}}
    again = copy.deepcopy(obj)
    SERVICE.default(again)
    assert again == obj  # defaulting twice is defaulting once


class Refusal(NamedTuple):
    about: str
    spec: dict[str, Any]
    errors: tuple[str, ...]
    """Beginnings of the errors, in order; all of them."""


LB_ONLY = "Forbidden: may only be used when `type` is 'LoadBalancer'"
TWO = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
REFUSALS = (
    Refusal("a plain one is fine", {}, ()),
    Refusal("ports are needed (SVC-3)", {"ports": []}, ("spec.ports: Required value",)),
    Refusal("not by headless ones (SVC-3)", {"ports": [], "clusterIP": "None"}, ()),
    Refusal("one unnamed port may be (SVC-4)", {"ports": [{"port": 1}]}, ()),
    Refusal("of several each needs a name (SVC-4)", {"ports": [{"port": 1}, {"name": "b", "port": 2}]},
        ("spec.ports[0].name: Required value",)),
    Refusal("a name twice (SVC-4)", {"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]},
        ('spec.ports[1].name: Duplicate value: "a"',)),
    Refusal("port 0 (SVC-5)", {"ports": [{"port": 0}]}, (
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive")),
    Refusal("protocol (SVC-6)", {"ports": [{"port": 1, "protocol": "tcp"}]},
        ('spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"',)),
    Refusal("target port as text of digits (SVC-7)", {"ports": [{"port": 1, "targetPort": "80"}]},
        ('spec.ports[0].targetPort: Invalid value: "80": must contain at least one letter (a-z)',)),
    Refusal("node port inside (SVC-8)", {"ports": [{"port": 1, "nodePort": 30000}]},
        ("spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",)),
    Refusal("application protocol (SVC-9)", {"ports": [{"port": 1, "appProtocol": "a b"}]},
        ('spec.ports[0].appProtocol: Invalid value: "a b": name part must consist',)),
    Refusal("application protocols with a prefix (SVC-9)", {"ports": [{"port": 1, "appProtocol": "k8s.io/h2c"}]}, ()),
    Refusal("one port twice (SVC-10)", {"ports": [{"name": "a", "port": 443}, {"name": "b", "port": 443}]},
        ('spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":443,'
         '"TargetPort":0,"NodePort":0}',)),
    Refusal("not in two protocols (SVC-10)", {"ports": [
        {"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}, ()),
    Refusal("one node port twice (SVC-11)", {"type": "ExternalName", "externalName": "a.b", "clusterIP": None, "ports":
        [{**p, "nodePort": 30000} for p in TWO]}, ("spec.ports[1].nodePort: Duplicate value: 30000",)),
    Refusal("selector (SVC-12)", {"selector": {"-a": "b c"}}, (
        'spec.selector: Invalid value: "-a": name part must', 'spec.selector: Invalid value: "b c": a valid label')),
    Refusal("affinity (SVC-14)", {"sessionAffinity": "Cookie"},
        ('spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"',)),
    Refusal("a day of affinity is most (SVC-16)", {"sessionAffinity": "ClientIP", "sessionAffinityConfig":
        {"clientIP": {"timeoutSeconds": 86401}}}, ("spec.sessionAffinityConfig.clientIP.timeoutSeconds: "
        "Invalid value: 86401: must be greater than 0 and less than 86400",)),
    Refusal("external policy inside (SVC-17)", {"externalTrafficPolicy": "Local"}, (
        'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',)),
    Refusal("external policy (SVC-17)", {"type": "NodePort", "externalTrafficPolicy": "Global"}, (
        'spec.externalTrafficPolicy: Unsupported value: "Global": supported values: "Cluster", "Local"',)),
    Refusal("internal policy (SVC-18)", {"internalTrafficPolicy": ""}, (
        'spec.internalTrafficPolicy: Unsupported value: "": supported values: "Cluster", "Local"',)),
    Refusal("an odd internal policy of ExternalName (SVC-18)", {"type": "ExternalName", "externalName": "a.b",
        "clusterIP": None, "internalTrafficPolicy": "x"}, (
        'spec.internalTrafficPolicy: Unsupported value: "x": supported values: "Cluster", "Local"',)),
    Refusal("health port without Local (SVC-19)", {"type": "LoadBalancer", "healthCheckNodePort": 30000}, (
        "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and "
        "`externalTrafficPolicy` is 'Local'",)),
    Refusal("allocation elsewhere (SVC-20)", {"allocateLoadBalancerNodePorts": False},
        (f"spec.allocateLoadBalancerNodePorts: {LB_ONLY}",)),
    Refusal("class elsewhere (SVC-21)", {"loadBalancerClass": "a/b"}, (f"spec.loadBalancerClass: {LB_ONLY}",)),
    Refusal("class (SVC-21)", {"type": "LoadBalancer", "loadBalancerClass": "a b"},
        ('spec.loadBalancerClass: Invalid value: "a b": name part must',)),
    Refusal("any balancer address (SVC-22)", {"type": "LoadBalancer", "loadBalancerIP": "whatever"}, ()),
    Refusal("source ranges elsewhere (SVC-23)", {"loadBalancerSourceRanges": ["x"]}, (
        f"spec.LoadBalancerSourceRanges: {LB_ONLY}", "spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must")),
    Refusal("blanks around source ranges (SVC-23)", {"type": "LoadBalancer", "loadBalancerSourceRanges":
        [" 10.0.0.0/8 "]}, ()),
    Refusal("external addresses (SVC-24)", {"externalIPs": ["x", "127.0.0.1", "192.0.2.1"]}, (
        'spec.externalIPs[0]: Invalid value: "x": must be a valid IP address, (e.g.',
        'spec.externalIPs[1]: Invalid value: "127.0.0.1": may not be in the loopback range')),
    Refusal("external name (SVC-25)", {"type": "ExternalName", "clusterIP": None}, (
        "spec.externalName: Required value",)),
    Refusal("external name in upper case (SVC-25)", {"type": "ExternalName", "externalName": "A.b", "clusterIP": None},
        (f'spec.externalName: Invalid value: "A.b": {DNS} subdomain',)),
    Refusal("one trailing dot (SVC-25)", {"type": "ExternalName", "externalName": "a.b.", "clusterIP": None}, ()),
    Refusal("an address as external name (SVC-25)", {"type": "ExternalName", "externalName": "1.2.3.4",
        "clusterIP": None}, ()),
    Refusal("any external name elsewhere (SVC-25)", {"externalName": "_"}, ()),
    Refusal("distribution (SVC-27)", {"trafficDistribution": ""}, ('spec.trafficDistribution: Unsupported value: "": '
        'supported values: "PreferClose", "PreferSameZone", "PreferSameNode"',)),
    Refusal("headless balancers (SVC-30)", {"type": "LoadBalancer", "clusterIP": "None"}, (
        "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services",)),
    Refusal("ExternalName with all of it (SVC-31)", {"type": "ExternalName", "externalName": "a.b", "clusterIP": "None",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}, (
        "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services")),
    Refusal("a list without its first (FAM-1)", {"clusterIP": None, "clusterIPs": ["10.96.1.2"]}, (
        'spec.clusterIPs: Invalid value: ["10.96.1.2"]: must be empty when `clusterIP` is not specified',)),
    Refusal("another first (FAM-1)", {"clusterIPs": ["10.96.1.3"]}, (
        'spec.clusterIPs: Invalid value: ["10.96.1.3"]: first value must match `clusterIP`',)),
    Refusal("families (FAM-10)", {"ipFamilies": ["IPv4", "IPv5", "IPv4"]}, (
        'spec.ipFamilies[1]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
        'spec.ipFamilies[2]: Duplicate value: "IPv4"')),
    Refusal("policy (FAM-10)", {"ipFamilyPolicy": ""}, ('spec.ipFamilyPolicy: Unsupported value: "": supported '
        'values: "PreferDualStack", "RequireDualStack", "SingleStack"',)),
    Refusal("two addresses of one family (FAM-10)", {"clusterIPs": ["10.96.1.2", "10.96.1.3"]}, (
        'spec.clusterIPs: Invalid value: ["10.96.1.2","10.96.1.3"]: may specify no more than one IP for each',)),
    Refusal("three addresses (FAM-10)", {"clusterIPs": ["10.96.1.2", "fd00::1", "10.96.1.3"]}, (
        'spec.clusterIPs: Invalid value: ["10.96.1.2","fd00::1","10.96.1.3"]: may only hold up to 2 values',)),
    Refusal("None twice (FAM-10)", {"clusterIP": "None", "clusterIPs": ["None", "None"]}, (
        "spec.clusterIPs: Invalid value: [\"None\",\"None\"]: 'None' must be the first and only value",
        'spec.clusterIPs[1]: Invalid value: "None": must be a valid IP address')),
    Refusal("addresses in the other order (FAM-10)", {"ipFamilies": ["IPv6"]}, (
        'spec.clusterIPs[0]: Invalid value: "10.96.1.2": expected an IPv6 value as indicated by `ipFamilies[0]`',)),
    Refusal("the agent's port on a balancer", {"type": "LoadBalancer", "ports": [{"port": 10250}]}, (
        "spec.ports[0].port: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet",)),
    Refusal("type (SVC-2)", {"type": "Odd"}, (
        'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", ',)),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.about)
def test_refusal(case: Refusal) -> None:
    found = [str(e) for e in SERVICE.validate(new(**case.spec), HERE)]
    pairs = zip(found, (*case.errors, *[""] * len(found)), strict=False)
    assert [text[: len(start)] if start else text for text, start in pairs] == list(case.errors)


RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
MODE, HINTS = "service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"


@pytest.mark.parametrize(
    ("about", "annotations", "spec", "errors"),
    (
        (
            "ranges in the annotation (SVC-23)",
            {RANGES: "10.0.0.0/8, x"},
            {"type": "LoadBalancer"},
            [f'metadata.annotations[{RANGES}]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or '],
        ),
        ("for balancers only (SVC-23)", {RANGES: "x"}, {}, [f"metadata.annotations[{RANGES}]: {LB_ONLY}"]),
        (
            "the field goes before it (SVC-23)",
            {RANGES: "x"},
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            [],
        ),
        (
            "two modes (SVC-28)",
            {MODE: "Auto", HINTS: "Disabled"},
            {},
            [f'metadata.annotations[{MODE}]: Invalid value: "Auto": must match annotations[{HINTS}] when both are'],
        ),
        ("one mode twice (SVC-28)", {MODE: "Auto", HINTS: "Auto"}, {}, []),
    ),
)
def test_annotations(about: str, annotations: dict[str, str], spec: dict[str, Any], errors: list[str]) -> None:
    found = [str(e) for e in SERVICE.validate(new(annotations, **spec), HERE)]
    assert [text[: len(start)] for text, start in zip(found, errors, strict=True)] == errors, about


def test_what_was_stored_is_not_judged_again() -> None:
    """SVC-40."""
    old = new(externalIPs=["010.1.1.1"], clusterIP="010.96.1.2")
    again = copy.deepcopy(old)
    assert SERVICE.validate_update(again, old, HERE) == []
    again["spec"]["externalIPs"] = ["010.1.1.1", "011.1.1.1"]
    assert [e.path for e in SERVICE.validate_update(again, old, HERE)] == ["spec.externalIPs[1]"]


INGRESS = "status.loadBalancer.ingress"
STATUSES: tuple[tuple[str, str, list[Object], list[str]], ...] = (
    ("ip and hostname (SVCX-3)", "LoadBalancer", [{"ip": "192.0.2.1"}, {"hostname": "a.b"}, {}], []),
    ("elsewhere (SVCX-3)", "NodePort", [{"ip": "x"}], [f"{INGRESS}: Forbidden: may only be used when `spec.type` is"]),
    ("no address", "LoadBalancer", [{"ip": "x"}], [f'{INGRESS}[0].ip: Invalid value: "x": must be a valid IP']),
    (
        "an address as hostname",
        "LoadBalancer",
        [{"hostname": "1.2.3.4"}],
        [f'{INGRESS}[0].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address'],
    ),
    (
        "a mode without address",
        "LoadBalancer",
        [{"hostname": "a.b", "ipMode": "VIP"}],
        [f"{INGRESS}[0].ipMode: Forbidden: may not be specified when `ip` is not set"],
    ),
    (
        "another mode",
        "LoadBalancer",
        [{"ip": "192.0.2.1", "ipMode": "x"}],
        [f'{INGRESS}[0].ipMode: Unsupported value: "x": supported values: "Proxy", "VIP"'],
    ),
)


@pytest.mark.parametrize(("about", "kind", "ingress", "errors"), STATUSES, ids=[s[0] for s in STATUSES])
def test_status(about: str, kind: str, ingress: list[Object], errors: list[str]) -> None:
    old = new(type=kind)
    changed = {**copy.deepcopy(old), "status": {"loadBalancer": {"ingress": ingress}}}
    SERVICE.default(changed)
    found = [str(e) for e in SERVICE.validate_status(changed, old, HERE)]
    assert [text[: len(start)] for text, start in zip(found, errors, strict=True)] == errors, about


WARNINGS: tuple[tuple[dict[str, Any], dict[str, str] | None, list[str]], ...] = (
    ({}, None, []),
    ({"externalIPs": ["192.0.2.1"]}, None, ["spec.externalIPs is deprecated and may no longer be implemented in some"]),
    (
        {"type": "ExternalName", "clusterIP": None, "externalIPs": ["192.0.2.1"]},
        None,
        ['spec.externalIPs is ignored when spec.type is "ExternalName"'],
    ),
    ({"externalName": "a.b"}, None, ['spec.externalName is ignored when spec.type is not "ExternalName"']),
    (
        {"trafficDistribution": "PreferClose"},
        None,
        ['spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'],
    ),
    ({}, {HINTS: "Auto"}, [f"annotation {HINTS} is deprecated, please use {MODE} instead"]),
    (
        {
            "clusterIP": "None",
            "loadBalancerIP": "10.0.0.1",
            "externalIPs": ["192.0.2.1"],
            "sessionAffinity": "ClientIP",
        },
        None,
        [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
        ],
    ),
    (
        {"clusterIP": "2001:DB8::0:1", "externalIPs": ["FD00::1"]},
        None,
        [
            'spec.clusterIPs[0]: IPv6 address "2001:DB8::0:1" should be in RFC 5952 canonical format ("2001:db8::1")',
            "spec.externalIPs is deprecated",
            'spec.externalIPs[0]: IPv6 address "FD00::1" should be',
        ],
    ),
)


@pytest.mark.parametrize(("spec", "annotations", "texts"), WARNINGS)
def test_warnings(spec: dict[str, Any], annotations: dict[str, str] | None, texts: list[str]) -> None:
    """SVC-45."""
    found = list(SERVICE.warn(new(annotations, **spec), None))
    assert [text[: len(start)] for text, start in zip(found, texts, strict=True)] == texts


CELLS: tuple[tuple[str, dict[str, Any], Object, tuple[str, ...]], ...] = (
    ("headless (KCTL-46)", {"clusterIP": "None"}, {}, ("ClusterIP", "None", "<none>", "80/TCP", "<none>")),
    (
        "no address, a name (KCTL-46, KCTL-47)",
        {"type": "ExternalName", "externalName": "a.b", "clusterIP": None, "ports": []},
        {},
        ("ExternalName", "<none>", "a.b", "<none>", "<none>"),
    ),
    (
        "external addresses (KCTL-47)",
        {"externalIPs": ["192.0.2.2", "192.0.2.1"]},
        {},
        ("ClusterIP", "10.96.1.2", "192.0.2.2,192.0.2.1", "80/TCP", "<none>"),
    ),
    (
        "a balancer that waits (KCTL-47, KCTL-48)",
        {"type": "LoadBalancer", "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]},
        {},
        ("LoadBalancer", "10.96.1.2", "<pending>", "53:30053/UDP", "<none>"),
    ),
    (
        "a balancer that is ready: sorted, once each, then external addresses (KCTL-47)",
        {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"], "selector": {"b": "2", "a": "1"}},
        {"ingress": [{"hostname": "x.y"}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.1"}]},
        ("LoadBalancer", "10.96.1.2", "192.0.2.1,x.y,192.0.2.9", "80/TCP", "a=1,b=2"),
    ),
    (
        "an unknown type (KCTL-47)",
        {"type": "Odd", "ports": TWO},
        {},
        ("Odd", "10.96.1.2", "<unknown>", "1/TCP,2/TCP", "<none>"),
    ),
)


@pytest.mark.parametrize(("about", "spec", "balancer", "cells"), CELLS, ids=[c[0] for c in CELLS])
def test_cells(about: str, spec: dict[str, Any], balancer: Object, cells: tuple[str, ...]) -> None:
    obj = new(**spec)
    obj["status"]["loadBalancer"] = balancer
    service = typed(obj, Service)
    wanted = ["Type", "Cluster-IP", "External-IP", "Port(s)", "Selector"]
    assert tuple(c.cell(service) for c in SERVICE.columns if c.name in wanted) == cells, about


def test_fields_to_select_by() -> None:
    """SEL-3."""
    service = typed(new(), Service)
    read = {label: of(service) for label, of in SERVICE.fields.items()}
    assert read == {"spec.clusterIP": "10.96.1.2", "spec.type": "ClusterIP"}


TYPED_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.none() | st.sampled_from(("", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Odd")),
    "clusterIP": st.none() | st.sampled_from(("", "None", "10.0.0.1", "x")),
    "clusterIPs": st.none() | st.lists(st.sampled_from(("", "None", "10.0.0.1", "fd00::1", "x")), max_size=3),
    "ipFamilies": st.none() | st.lists(st.sampled_from(("", "IPv4", "IPv6", "x")), max_size=3),
    "ipFamilyPolicy": st.none() | st.sampled_from(("", "SingleStack", "PreferDualStack")),
    "selector": st.none()
    | st.dictionaries(st.sampled_from(("", "a", "-")), st.sampled_from(("", "b", " ")), max_size=2),
    "sessionAffinity": st.none() | st.sampled_from(("", "None", "ClientIP", "x")),
    "sessionAffinityConfig": st.sampled_from((None, {}, {"clientIP": None}, {"clientIP": {"timeoutSeconds": -1}})),
    "externalIPs": st.none() | st.lists(st.sampled_from(("", "1.1.1.1", "x")), max_size=2),
    "ports": st.none()
    | st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "port": st.none() | st.integers(-1, 70000),
                "name": st.none() | st.sampled_from(("", "a", "A")),
                "targetPort": st.none() | st.integers(-1, 70000) | st.sampled_from(("", "http", "-")),
                "nodePort": st.none() | st.integers(-1, 70000),
                "protocol": st.none() | st.sampled_from(("", "TCP", "x")),
                "appProtocol": st.none() | st.sampled_from(("", "http")),
            },
        ),
        max_size=3,
    ),
}


@given(
    st.fixed_dictionaries({}, optional=TYPED_FIELDS),
    st.none() | st.fixed_dictionaries({"loadBalancer": st.none() | st.just({})}),
    st.fixed_dictionaries({}, optional=TYPED_FIELDS),
)
def test_strategies_never_raise_and_defaults_settle(spec: Object, status: Object | None, other: Object) -> None:
    """Whatever a decoder lets through (right JSON types, nulls anywhere) is judged, not stumbled over."""
    obj: Object = {"metadata": {"name": "a"}, "spec": copy.deepcopy(spec), "status": status}
    SERVICE.default(obj)
    once = copy.deepcopy(obj)
    SERVICE.default(obj)
    assert obj == once
    SERVICE.prepare_create(obj)
    assert isinstance(SERVICE.validate(obj, HERE), list)
    SERVICE.warn(obj, None)
    changed: Object = {"metadata": {"name": "a"}, "spec": copy.deepcopy(other), "status": {}}
    SERVICE.default(changed)
    SERVICE.prepare_update(changed, obj)
    assert isinstance(SERVICE.validate_update(changed, obj, HERE), list)
    decoded = msgspec.json.decode(msgspec.json.encode(changed), type=Service)
    assert [c.name for c in SERVICE.columns if c.cell(decoded) == ""] in ([], ["External-IP"])


@pytest.mark.parametrize(
    ("about", "spec", "labels", "seen"),
    (
        ("ExternalName shows none (SVC-33)", {"type": "ExternalName", "internalTrafficPolicy": "Local"}, {}, False),
        ("other types do", {"internalTrafficPolicy": "Local"}, {}, True),
        ("whatever their labels say", {"internalTrafficPolicy": "Local"}, {"type": "ExternalName"}, True),
    ),
)
def test_what_is_kept_and_not_shown(about: str, spec: dict[str, Any], labels: dict[str, str], seen: bool) -> None:
    obj = new(**spec)
    obj["metadata"]["labels"] = labels
    sent = msgspec.json.decode(shown(msgspec.json.encode(obj)))
    assert ("internalTrafficPolicy" in sent["spec"]) is seen, about
    assert sent["metadata"] == obj["metadata"] and sent["spec"]["type"] == obj["spec"]["type"]
