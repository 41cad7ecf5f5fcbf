"""What an update makes of a stored Service (FAM, TYPE, and the worked vectors), and that nothing ever leaks."""

from __future__ import annotations

import copy
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.errors import ApiError
from kubesvc.api.ipaddress import IP_ADDRESS
from kubesvc.api.meta import Object
from kubesvc.api.service import SERVICE

from .pure_server import NAMESPACE, PureServer, merge_patch, shown

SINGLE = ("10.0.0.0/16",)
DUAL = ("10.0.0.0/16", "fd00::/112")
PORT = [{"name": "a", "port": 80}]


class Case(NamedTuple):
    """`change` is a merge patch of the stored spec, or with `put` the whole spec; the result are the values of the
    spec's fields that matter (ANY: some value; absent: ABSENT), or the beginning of the one refusal."""

    about: str
    stored: dict[str, Any]
    change: dict[str, Any]
    result: dict[str, Any] | str
    put: bool = False
    cluster: tuple[str, ...] = SINGLE


class SomeValue:
    def __eq__(self, other: object) -> bool:
        return other not in (None, "", 0, [])

    def __repr__(self) -> str:
        return "some value"


ANY, ABSENT = SomeValue(), None


def node_port(name: str, number: int = 0, port: int = 80) -> Object:
    return {"name": name, "port": port} | ({"nodePort": number} if number else {})


BALANCED = {"type": "LoadBalancer", "ports": PORT, "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}
DUAL_STORED = {"ports": PORT, "clusterIP": "10.0.0.5", "ipFamilyPolicy": "PreferDualStack"}
REQUIRED_STORED = {**DUAL_STORED, "ipFamilyPolicy": "RequireDualStack"}
FIXED = {"ports": PORT, "clusterIP": "10.0.0.5"}
HEADLESS = {"ports": PORT, "clusterIP": "None", "selector": {"a": "b"}}
EXTERNAL = {"type": "ExternalName", "externalName": "x.y"}
ONE_PORT = {"type": "NodePort", "ports": [node_port("a", 30100)]}

CASES = (
    # Appendix C.3
    Case("a PUT without addresses keeps them", FIXED, {"ports": PORT}, {"clusterIPs": ["10.0.0.5"]}, put=True),
    Case(
        "another address is refused",
        FIXED,
        {"ports": PORT, "clusterIP": "10.0.0.6"},
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.6"]: may not change once set',
        put=True,
    ),
    Case(
        "an address cannot become None",
        FIXED,
        {"clusterIP": "None"},
        'spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set',
    ),
    Case("None stays None", HEADLESS, {"ports": PORT, "selector": {"a": "b"}}, {"clusterIP": "None"}, put=True),
    Case(
        "None cannot become an address",
        HEADLESS,
        {"clusterIP": "10.0.0.5"},
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.5"]: may not change once set',
    ),
    Case("node ports go with the type", ONE_PORT, {"type": "ClusterIP"}, {"ports.0.nodePort": ABSENT}),
    Case(
        "unless another one was asked for",
        ONE_PORT,
        {"type": "ClusterIP", "ports": [node_port("a", 30200)]},
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    ),
    Case(
        "left out node ports are kept by name",
        {"type": "NodePort", "ports": [node_port("a", 30100), node_port("b", 30200, 81)]},
        {"ports": [node_port("b", port=81), node_port("a")]},
        {"ports.0.nodePort": 30200, "ports.1.nodePort": 30100},
    ),
    Case("a renamed port loses its number", ONE_PORT, {"ports": [node_port("b")]}, {"ports.0.nodePort": ANY}),
    Case(
        "a number can move to another port",
        ONE_PORT,
        {"ports": [node_port("a"), node_port("b", 30100, 81)]},
        {"ports.0.nodePort": ANY, "ports.1.nodePort": 30100},
    ),
    Case("leaving ExternalName needs ports", EXTERNAL, {"type": "ClusterIP"}, "spec.ports: Required value"),
    Case(
        "ExternalName has no address, but ports and selector",
        {**FIXED, "selector": {"a": "b"}},
        EXTERNAL,
        {
            "clusterIP": ABSENT,
            "clusterIPs": ABSENT,
            "ipFamilies": ABSENT,
            "ipFamilyPolicy": ABSENT,
            "internalTrafficPolicy": ABSENT,
            "selector": {"a": "b"},
            "ports.0.port": 80,
        },
    ),
    Case("ExternalName needs a name", FIXED, {"type": "ExternalName"}, "spec.externalName: Required value"),
    Case(
        "the class is for life",
        {"type": "LoadBalancer", "ports": PORT, "loadBalancerClass": "a/b"},
        {"loadBalancerClass": "a/c"},
        'spec.loadBalancerClass: Invalid value: "a/c": may not change once set',
    ),
    Case(
        "so is the health check port",
        BALANCED,
        {"healthCheckNodePort": 31001},
        "spec.healthCheckNodePort: Forbidden: field is immutable",
    ),
    Case(
        "switching affinity off drops its config",
        {"ports": PORT, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100}}},
        {"sessionAffinity": "None"},
        {"sessionAffinityConfig": ABSENT},
    ),
    Case(
        "switching it on fills it in",
        FIXED,
        {"sessionAffinity": "ClientIP"},
        {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
    ),
    Case(
        "SingleStack with the lists as they were releases the second address",
        DUAL_STORED,
        {"ipFamilyPolicy": "SingleStack"},
        {"clusterIPs": ["10.0.0.5"], "ipFamilies": ["IPv4"]},
        cluster=DUAL,
    ),
    Case(
        "a cut list needs SingleStack",
        REQUIRED_STORED,
        {"clusterIPs": ["10.0.0.5"]},
        'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
        "must be 'SingleStack' to release the secondary cluster IP",
        cluster=DUAL,
    ),
    Case(
        "PreferDualStack adds the second address",
        FIXED,
        {"ipFamilyPolicy": "PreferDualStack"},
        {"clusterIPs.0": "10.0.0.5", "clusterIPs.1": ANY, "ipFamilies": ["IPv4", "IPv6"]},
        cluster=DUAL,
    ),
    # TYPE
    Case(
        "NodePort gives every port a number and the policy (TYPE-4)",
        FIXED,
        {"type": "NodePort"},
        {"clusterIP": "10.0.0.5", "ports.0.nodePort": ANY, "externalTrafficPolicy": "Cluster"},
    ),
    Case(
        "back to ClusterIP the policy goes (TYPE-5)", ONE_PORT, {"type": "ClusterIP"}, {"externalTrafficPolicy": ABSENT}
    ),
    Case(
        "but stays with external addresses (TYPE-5)",
        {**ONE_PORT, "externalIPs": ["192.0.2.1"]},
        {"type": "ClusterIP"},
        {"externalTrafficPolicy": "Cluster"},
    ),
    Case(
        "leaving LoadBalancer clears what is its own (TYPE-6)",
        {**BALANCED, "loadBalancerClass": "a/b"},
        {"type": "NodePort"},
        {"allocateLoadBalancerNodePorts": ABSENT, "loadBalancerClass": ABSENT, "healthCheckNodePort": ABSENT},
    ),
    Case(
        "but not the source ranges (TYPE-6)",
        {"type": "LoadBalancer", "ports": PORT, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        {"type": "NodePort"},
        "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ),
    Case(
        "Local to Cluster frees the health check port (TYPE-7)",
        BALANCED,
        {"externalTrafficPolicy": "Cluster"},
        {"healthCheckNodePort": ABSENT},
    ),
    Case(
        "Cluster to Local gets one (TYPE-7)",
        {"type": "LoadBalancer", "ports": PORT},
        {"externalTrafficPolicy": "Local"},
        {"healthCheckNodePort": ANY},
    ),
    Case(
        "ExternalName to LoadBalancer gets all (TYPE-3)",
        {**EXTERNAL, "ports": PORT},
        {"type": "LoadBalancer"},
        {"clusterIP": ANY, "ports.0.nodePort": ANY, "allocateLoadBalancerNodePorts": True, "externalName": "x.y"},
    ),
    Case(
        "headless to NodePort is refused (TYPE-8)",
        HEADLESS,
        {"type": "NodePort"},
        "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
    ),
    Case("headless to ExternalName is not (TYPE-8)", HEADLESS, EXTERNAL, {"clusterIP": ABSENT, "ipFamilies": ABSENT}),
    Case("the selector may go (TYPE-9)", {**FIXED, "selector": {"a": "b"}}, {"selector": None}, {"selector": ABSENT}),
    Case("an empty selector is none (SVC-12)", FIXED, {"selector": {}}, {"selector": ABSENT}),
    # Node ports without allocation
    Case(
        "switching allocation off removes nothing (NP-8)",
        {"type": "LoadBalancer", "ports": [node_port("a", 30100)]},
        {"allocateLoadBalancerNodePorts": False},
        {"ports.0.nodePort": 30100},
    ),
    Case(
        "but lets the client do it (NP-8)",
        {"type": "LoadBalancer", "ports": [node_port("a", 30100)]},
        {"allocateLoadBalancerNodePorts": False, "ports": PORT},
        {"ports.0.nodePort": ABSENT},
    ),
    Case(
        "switching it on allocates (NP-8)",
        {"type": "LoadBalancer", "ports": PORT, "allocateLoadBalancerNodePorts": False},
        {"allocateLoadBalancerNodePorts": True},
        {"ports.0.nodePort": ANY},
    ),
    # Families
    Case(
        "clusterIP changed alone stands for the list (FAM-2)",
        FIXED,
        {"clusterIP": "10.0.0.6"},
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.6"]: may not change once set',
    ),
    Case("clusterIPs cleared alone come back (FAM-2)", FIXED, {"clusterIPs": None}, {"clusterIPs": ["10.0.0.5"]}),
    Case(
        "families that contradict the addresses (FAM-10)",
        FIXED,
        {"ipFamilies": ["IPv6"]},
        'spec.clusterIPs[0]: Invalid value: "10.0.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`',
        cluster=DUAL,
    ),
    Case(
        "a second address of one's own choice (FAM-12)",
        FIXED,
        {"clusterIPs": ["10.0.0.5", "fd00::9"], "ipFamilyPolicy": "RequireDualStack"},
        {"clusterIPs": ["10.0.0.5", "fd00::9"], "ipFamilies": ["IPv4", "IPv6"]},
        cluster=DUAL,
    ),
    Case(
        "the second address is fixed (FAM-12)",
        REQUIRED_STORED,
        {"clusterIPs": ["10.0.0.5", "fd00::9"]},
        'spec.clusterIPs[1]: Invalid value: ["10.0.0.5","fd00::9"]: may not change once set',
        cluster=DUAL,
    ),
    Case(
        "both lists cut with a dual policy (FAM-13)",
        REQUIRED_STORED,
        {"clusterIPs": ["10.0.0.5"], "ipFamilies": ["IPv4"]},
        '[spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
        "must be 'SingleStack' to release the secondary cluster IP, spec.ipFamilyPolicy: Invalid value: "
        "\"RequireDualStack\": must be 'SingleStack' to release the secondary IP family]",
        cluster=DUAL,
    ),
    Case(
        "headless Services change their families freely (FAM-11)",
        {**HEADLESS, "ipFamilies": ["IPv4"]},
        {"ipFamilies": ["IPv6"]},
        {"ipFamilies": ["IPv6"], "clusterIPs": ["None"]},
        cluster=DUAL,
    ),
    Case(
        "without a selector a headless Service has both families (FAM-5)",
        {"clusterIP": "None", "ports": PORT},
        {"ports": [{"port": 81}]},
        {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"},
    ),
    Case(
        "a family that the cluster lacks (FAM-9)",
        FIXED,
        {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"},
        'spec.ipFamilies[1]: Invalid value: "IPv6": not configured on this cluster',
    ),
)


def at(spec: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(spec, list):
            spec = spec[int(part)] if int(part) < len(spec) else None
        else:
            spec = (spec or {}).get(part)
    return spec


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.about)
def test_update(case: Case) -> None:
    server = PureServer(*case.cluster)
    old = server.run("POST", SERVICE, "", {"metadata": {"name": "web"}, "spec": case.stored})
    before = server.snapshot()
    spec = case.change if case.put else merge_patch(old["spec"], case.change)
    try:
        new = server.run("PUT", SERVICE, "web", {"metadata": {"name": "web"}, "spec": copy.deepcopy(spec)})
    except ApiError as refusal:
        assert refusal.message == f'Service "web" is invalid: {case.result}'
        assert server.objects == before
        return
    assert isinstance(case.result, dict), f"accepted: {new['spec']}"
    assert {path: at(new["spec"], path) for path in case.result} == case.result
    assert_consistent(server)


def test_a_preference_is_left_alone_when_the_cluster_becomes_dual() -> None:
    """FAM-14."""
    server = PureServer(*SINGLE)
    old = server.run("POST", SERVICE, "", {"metadata": {"name": "web"}, "spec": {**DUAL_STORED}})
    assert old["spec"]["clusterIPs"] == ["10.0.0.5"]
    grown = PureServer(*DUAL)
    for (kind, _, _), obj in server.objects.items():
        grown.put(kind, obj, None)
    labelled = grown.run("PATCH", SERVICE, "web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["spec"]["clusterIPs"] == ["10.0.0.5"]
    asked = grown.run("PATCH", SERVICE, "web", {"spec": {"ipFamilyPolicy": "RequireDualStack"}})
    assert len(asked["spec"]["clusterIPs"]) == 2


def test_status_of_a_former_load_balancer_keeps_its_conditions() -> None:
    """TYPE-6, SVCX-2 to SVCX-4."""
    server = PureServer(*SINGLE)
    spec = {"type": "LoadBalancer", "ports": PORT}
    made = server.run("POST", SERVICE, "", {"metadata": {"name": "web"}, "spec": spec, "status": {"conditions": []}})
    assert made["status"] == {"loadBalancer": {}}
    condition = {"type": "Odd", "status": "Maybe", "lastTransitionTime": None}
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": [condition]}
    server.run("PATCH", SERVICE, "web", {"status": status}, "status")
    assert server.get(SERVICE, "web")["status"]["loadBalancer"] == {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}
    server.run("PATCH", SERVICE, "web", {"status": {"loadBalancer": {"ingress": None}}})
    assert "ingress" in server.get(SERVICE, "web")["status"]["loadBalancer"]
    after = server.run("PATCH", SERVICE, "web", {"spec": {"type": "NodePort"}})
    kept = {"type": "Odd", "status": "Maybe", "lastTransitionTime": None, "reason": "", "message": ""}
    assert after["status"] == {"loadBalancer": {}, "conditions": [kept]}


def test_what_goes_with_a_service() -> None:
    """SVCX-5, VIP-10."""
    server = PureServer(*SINGLE)
    server.run("POST", SERVICE, "", {"metadata": {"name": "web"}, "spec": {**FIXED}})
    server.run("POST", ENDPOINTS, "", {"metadata": {"name": "web"}})
    server.run("POST", ENDPOINTS, "", {"metadata": {"name": "other"}})
    reservation = server.hooks.before_delete(server.get(SERVICE, "web"), True)
    assert reservation.companions == []  # a dry run
    server.run("DELETE", SERVICE, "web", None)
    assert [key[2] for key in server.objects] == ["other"]
    again = server.run("POST", SERVICE, "", {"metadata": {"name": "next"}, "spec": {**FIXED}})
    assert again["spec"]["clusterIP"] == "10.0.0.5"


def assert_consistent(server: PureServer) -> None:
    """Every address of a living Service has its object and no other object is left; no port serves two Services;
    nothing stays reserved."""
    wanted: dict[str, str] = {}
    ports: dict[int, str] = {}
    for (kind, _, name), obj in server.objects.items():
        if kind is not SERVICE:
            continue
        spec = obj["spec"]
        if spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
            assert len(spec["clusterIPs"]) == len(spec["ipFamilies"])
            for address in spec["clusterIPs"]:
                assert wanted.setdefault(address, name) == name
        if spec["type"] == "ExternalName":
            continue  # a nodePort it states is stored and means nothing (NP-9 is about types that have node ports)
        numbers = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
        for number in numbers | ({spec["healthCheckNodePort"]} if spec.get("healthCheckNodePort") else set()):
            assert ports.setdefault(number, name) == name
    held = {n: o["spec"]["parentRef"]["name"] for (k, _, n), o in server.objects.items() if k is IP_ADDRESS}
    assert held == wanted
    allocations = server.allocations
    assert {p for p, users in allocations.port_users.items() if users} == set(ports)
    assert set(allocations.holders) == set(wanted)
    assert not allocations.reserved_addresses and not allocations.reserved_ports


PORT_SETS = ((("a", 1),), (("a", 1), ("b", 2)), (("a", 1), ("b", 1)))
NODE_PORTS = st.sampled_from((0, 0, 0, 30001, 30002, 30003))


@st.composite
def specs(draw: st.DrawFn) -> Object:
    """A spec that is mostly right, with up to two fields that may be wrong in any way."""
    kind = draw(st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")))
    spec: Object = {"type": kind, "ports": []}
    for name, number in draw(st.sampled_from(PORT_SETS)):
        protocol = "UDP" if name == "b" else "TCP"
        port = {"name": name, "port": number, "protocol": protocol}
        spec["ports"].append(port | ({"nodePort": draw(NODE_PORTS)} if kind in ("NodePort", "LoadBalancer") else {}))
    if kind == "ExternalName":
        spec["externalName"] = "a.b"
    elif kind == "ClusterIP" and draw(st.booleans()):
        spec |= {"clusterIP": "None"} | draw(st.sampled_from(({}, {"selector": {"a": "b"}})))
    if kind == "LoadBalancer":
        spec["externalTrafficPolicy"] = draw(st.sampled_from(("Local", "Cluster")))
        spec["allocateLoadBalancerNodePorts"] = draw(st.booleans())
    if kind != "ExternalName":
        policy = draw(st.sampled_from((None, None, "SingleStack", "PreferDualStack", "RequireDualStack")))
        spec |= {"ipFamilyPolicy": policy} if policy else {}
    for name in draw(st.lists(st.sampled_from(sorted(NOISE)), max_size=2, unique=True)):
        spec[name] = draw(st.sampled_from(NOISE[name]))
    return spec


NOISE: dict[str, tuple[Any, ...]] = {
    "type": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Odd"),
    "clusterIP": ("", "None", "10.0.0.1", "10.0.0.2", "fd00::2", "9.9.9.9", "bad"),
    "clusterIPs": ([], ["10.0.0.1"], ["10.0.0.1", "fd00::2"], None),
    "ipFamilies": (["IPv4"], ["IPv6"], ["IPv4", "IPv6"], ["IPv6", "IPv4"], None),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack", None),
    "externalTrafficPolicy": ("Local", "Cluster", None),
    "allocateLoadBalancerNodePorts": (True, False, None),
    "healthCheckNodePort": (0, 30003, 30004),
    "ports": ([], [{"port": 9, "nodePort": 30001}], [{"port": 9}]),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("POST", "PUT", "PUT", "PATCH", "PATCH", "DELETE")),
        st.sampled_from("xyz"),
        specs(),
        st.sampled_from((False, False, False, True)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from((SINGLE, DUAL, ("fd00::/112", "10.0.0.0/28"))), st.integers(0, 1000))
def test_nothing_is_given_twice_or_lost(
    steps: list[tuple[str, str, Object, bool]], cluster: tuple[str, ...], seed: int
) -> None:
    """VIP-7, VIP-8, NP-9: whatever is asked, in whatever order, refused or not, wet or dry."""
    server = PureServer(*cluster, node_ports=(30001, 30020), seed=random.Random(seed).randrange(1 << 30))
    for method, name, spec, dry_run in steps:
        body = {"metadata": {"name": name}, "spec": copy.deepcopy(spec)}
        before = server.snapshot()
        try:
            server.run(method, SERVICE, name, body, dry_run=dry_run)
        except ApiError:
            assert server.objects == before
        else:
            assert method == "DELETE" or not dry_run or server.objects == before
        assert_consistent(server)
    for kind, _, name in list(server.objects):
        if kind is SERVICE:
            server.run("DELETE", SERVICE, name, None)
    assert not server.objects and not server.allocations.port_users and not server.allocations.address_users


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from((SINGLE, DUAL)))
def test_sending_back_what_was_stored_changes_nothing(
    steps: list[tuple[str, str, Object, bool]], cluster: tuple[str, ...]
) -> None:
    """META-8: a Service that went through the server once comes back the same."""
    server = PureServer(*cluster, node_ports=(30001, 30020))
    for method, name, spec, _ in steps:
        try:
            server.run(method, SERVICE, name, {"metadata": {"name": name}, "spec": copy.deepcopy(spec)})
        except ApiError:
            continue
    revision = server.revision
    for (kind, namespace, name), obj in list(server.objects.items()):
        if kind is SERVICE:
            assert namespace == NAMESPACE
            assert server.run("PUT", SERVICE, name, obj)["spec"] == shown(SERVICE, obj)["spec"]
    assert server.revision == revision
