"""Cases that play one kind's life: Services, Endpoints, Pods, ConfigMaps, Secrets, Events, quotas, budgets and more."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Case
from .player import Object, Player, named, rv

NS = "/api/v1/namespaces/{ns}"
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def pod(name: str, *, image: str = "registry.example/pause:1", **meta: Any) -> Object:
    spec = {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"name": name, **meta}, "spec": spec}


# ---------------------------------------------------------------- sig-network


@case
async def secure_master_service(p: Player) -> None:
    assert (await p.get("/api/v1/namespaces/default/services/kubernetes"))["spec"]["ports"][0]["port"] == 443


@case
async def endpoints_and_slices_pointing_to_the_api_server(p: Player) -> None:
    subsets = (await p.get("/api/v1/namespaces/default/endpoints/kubernetes"))["subsets"]
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    slices = (await p.get(f"{path}?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"))["items"]
    assert {a["ip"] for s in subsets for a in s["addresses"]} == {
        a for s in slices for e in s["endpoints"] for a in e["addresses"]
    }
    assert {x["port"] for s in subsets for x in s["ports"]} == {x["port"] for s in slices for x in s["ports"]}


@case
async def find_a_service_from_listing_all_namespaces(p: Player) -> None:
    found = await p.get("/api/v1/services")
    assert ("default", "kubernetes") in [(s["metadata"]["namespace"], s["metadata"]["name"]) for s in found["items"]]


@case
async def complete_a_service_status_lifecycle(p: Player) -> None:
    labels, label = {"test-service-static": "true"}, "?labelSelector=test-service-static%3Dtrue"
    early = rv(await p.get(f"{NS}/services{label}"))
    service = {
        **named("test-service", labels=labels),
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
        },
    }  # fmt: skip
    await p.post(f"{NS}/services", service)
    one = f"{NS}/services/test-service"
    await p.sees(f"{NS}/services{label}&resourceVersion={early}", "ADDED")
    assert any(s["metadata"]["name"] == "test-service" for s in (await p.get(f"/api/v1/services{label}"))["items"])
    assert (await p.get(f"{one}/status"))["status"] == {"loadBalancer": {}}
    ingress = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    sent = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": ingress}
    patched = await p.patch(f"{one}/status", sent)
    assert patched["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
    current = await p.get(one)
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
                 "lastTransitionTime": None}  # fmt: skip
    current["status"]["conditions"] = [condition]
    updated = await p.put(f"{one}/status", current)
    assert updated["status"]["conditions"][0]["type"] == "StatusUpdate"
    sent = {"metadata": {"labels": {"test-service": "patched"}}, "spec": {}, "status": {"loadBalancer": {}}}
    await p.patch(one, sent, "strategic")
    await p.delete(one)
    seen = await p.watch(f"{NS}/services{label}&resourceVersion={early}", lambda events: events[-1][0] == "DELETED")
    assert [t for t, _ in seen] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert seen[1][1]["metadata"]["annotations"] == {"patchedstatus": "true"}
    assert seen[3][1]["metadata"]["labels"]["test-service"] == "patched"


@case
async def delete_a_collection_of_services(p: Player) -> None:
    for name, group in (("one", "e2e"), ("two", "e2e"), ("three", "other")):
        labels = {"e2e-test-service": group}
        ports = [{"port": 80, "targetPort": 80}]
        await p.post(f"{NS}/services", {**named(name, labels=labels), "spec": {"ports": ports}})
    assert len((await p.get(f"{NS}/services"))["items"]) == 3
    await p.delete(f"{NS}/services?labelSelector=e2e-test-service%3De2e")
    assert [s["metadata"]["name"] for s in (await p.get(f"{NS}/services"))["items"]] == ["three"]


@case
async def change_the_type_of_a_service(p: Player) -> None:
    """ExternalName to ClusterIP and NodePort, and back: what is allocated comes and goes."""
    path = f"{NS}/services/web"
    made = await p.post(
        f"{NS}/services", {**named("web"), "spec": {"type": "ExternalName", "externalName": "foo.example"}}
    )
    assert not made["spec"].get("clusterIP")
    for type in ("ClusterIP", "NodePort"):
        obj = await p.get(path)
        obj["spec"].update(type=type, ports=[{"name": "http", "port": 80, "protocol": "TCP"}])
        obj["spec"].pop("externalName")
        spec = (await p.put(path, obj))["spec"]
        assert spec["clusterIP"] and bool(spec["ports"][0].get("nodePort")) is (type == "NodePort")
        obj = await p.get(path)
        obj["spec"].update(type="ExternalName", externalName="foo.example", clusterIP="")
        spec = (await p.put(path, obj))["spec"]
        assert not spec.get("clusterIP") and not any(x.get("nodePort") for x in spec.get("ports") or ())
        obj = await p.get(path)


@case
async def switch_session_affinity(p: Player) -> None:
    await p.post(f"{NS}/services", {**named("web"), "spec": {"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}})
    for affinity in ("None", "ClientIP"):
        obj = await p.get(f"{NS}/services/web")
        obj["spec"]["sessionAffinity"] = affinity
        assert (await p.put(f"{NS}/services/web", obj))["spec"]["sessionAffinity"] == affinity


@case
async def same_port_and_different_protocols(p: Player) -> None:
    both = [{"name": n.lower(), "port": 80, "protocol": n} for n in ("TCP", "UDP")]
    await p.post(f"{NS}/services", {**named("multi"), "spec": {"selector": {"app": "x"}, "ports": both}})
    for ports in (both[:1], both[1:], both):
        obj = await p.get(f"{NS}/services/multi")
        obj["spec"]["ports"] = ports
        assert [x["protocol"] for x in (await p.put(f"{NS}/services/multi", obj))["spec"]["ports"]] == [
            x["protocol"] for x in ports
        ]


@case
async def the_lifecycle_of_an_endpoint(p: Player) -> None:
    label = "?labelSelector=test-endpoint-static%3Dtrue"
    early = rv(await p.get(f"{NS}/endpoints{label}"))
    subsets = [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]
    obj = {**named("testservice", labels={"test-endpoint-static": "true"}), "subsets": subsets}
    await p.post(f"{NS}/endpoints", obj)
    assert [e["metadata"]["namespace"] for e in (await p.get(f"/api/v1/endpoints{label}"))["items"]] == [p.namespace]
    current = await p.get(f"{NS}/endpoints/testservice")
    current["metadata"]["labels"]["test-service"] = "updated"
    await p.put(f"{NS}/endpoints/testservice", current)
    assert (await p.get(f"{NS}/endpoints/testservice"))["metadata"]["labels"]["test-service"] == "updated"
    other = [{"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}]
    sent = {"metadata": {"labels": {"test-service": "patched"}}, "subsets": other}
    await p.patch(f"{NS}/endpoints/testservice", sent, "strategic")
    found = await p.get(f"{NS}/endpoints/testservice")
    assert found["subsets"] == other
    await p.delete(f"{NS}/endpoints{label}")
    await p.gone(f"{NS}/endpoints/testservice")
    seen = await p.sees(f"{NS}/endpoints{label}&resourceVersion={early}", "ADDED", "MODIFIED", "MODIFIED", "DELETED")
    assert [o["metadata"]["labels"].get("test-service") for o in seen] == [None, "updated", "patched", "patched"]


@case
async def create_and_delete_endpoints_and_slices_for_a_service_without_pods(p: Player) -> None:
    spec = {"selector": {"does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created"},
            "ports": [{"name": "example", "port": 80, "protocol": "TCP"}]}  # fmt: skip
    await p.post(f"{NS}/services", {**named("example-empty-selector"), "spec": spec})
    slices = "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices"
    label = "?labelSelector=kubernetes.io%2Fservice-name%3Dexample-empty-selector"
    await p.settled(f"{NS}/endpoints", lambda found: found["items"])
    found = await p.settled(slices + label, lambda found: len(found["items"]) == 1)
    (slice,) = found["items"]
    assert slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    assert not slice["endpoints"]
    await p.delete(f"{NS}/services/example-empty-selector")
    await p.gone(f"{NS}/endpoints/example-empty-selector")
    await p.gone(slices + label)


@case
async def create_endpoints_and_slices_for_pods(p: Player) -> None:
    """Two Pods whose port of one name has different numbers: two subsets, two slices, which come back."""
    await p.post("/api/v1/nodes", named(p.namespace))
    for name, number in (("pod1", 3000), ("pod2", 3001)):
        obj = pod(name, labels={"foo": "bar"})
        obj["spec"]["nodeName"] = p.namespace
        obj["spec"]["containers"][0]["ports"] = [{"name": "example-name", "containerPort": number}]
        await p.post(f"{NS}/pods", obj)
        address = f"10.244.9.{number - 2999}"
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                  "conditions": [{"type": "Ready", "status": "True"}]}  # fmt: skip
        await p.patch(f"{NS}/pods/{name}/status", {"status": status}, "strategic")
    ports = [{"name": "example", "port": 80, "targetPort": "example-name"}]
    await p.post(f"{NS}/services", {**named("example"), "spec": {"selector": {"foo": "bar"}, "ports": ports}})
    slices = (
        "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dexample"
    )

    def whole(found: Any) -> bool:
        full = [s for s in found["items"] if s["endpoints"]]
        return sorted(s["ports"][0]["port"] for s in full) == [3000, 3001]

    found = await p.settled(slices, whole)
    for slice in found["items"]:
        for endpoint in slice["endpoints"]:
            assert endpoint["targetRef"].keys() >= {"kind", "namespace", "name", "uid"}
    endpoints = f"{NS}/endpoints/example"
    await p.settled(endpoints, lambda e: len(e.get("subsets") or ()) == 2)
    await p.delete(endpoints)
    await p.delete(slices)
    await p.settled(slices, whole)
    await p.settled(f"{NS}/endpoints", lambda e: any(len(i.get("subsets") or ()) == 2 for i in e["items"]))
    await p.delete(f"/api/v1/nodes/{p.namespace}")


@case
async def mirror_a_custom_endpoints(p: Player) -> None:
    await p.post(f"{NS}/services", {**named("custom"), "spec": {"ports": [{"name": "example", "port": 80}]}})
    subsets = [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]
    obj = {**named("custom"), "subsets": subsets}
    await p.post(f"{NS}/endpoints", obj)
    slices = (
        "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcustom"
    )

    def of(address: str) -> Callable[[Any], bool]:
        return lambda found: [e["addresses"] for s in found["items"] for e in s["endpoints"]] == [[address]]

    await p.settled(slices, of("10.1.2.3"))
    subsets[0]["addresses"] = [{"ip": "10.2.3.4"}]
    await p.put(f"{NS}/endpoints/custom", obj)
    await p.settled(slices, of("10.2.3.4"))
    await p.delete(f"{NS}/endpoints/custom")
    await p.gone(slices)


# ---------------------------------------------------------------- sig-node


@case
async def a_pods_lifecycle(p: Player) -> None:
    label = "?labelSelector=test-pod-static%3Dtrue"
    early = rv(await p.get(f"{NS}/pods{label}"))
    await p.post(f"{NS}/pods", pod("pod-test", labels={"test-pod-static": "true"}))
    sent = {
        "metadata": {"labels": {"test-pod": "patched"}},
        "spec": {"containers": [{"name": "c", "image": "other:2"}]},
    }
    await p.patch(f"{NS}/pods/pod-test", sent, "strategic")
    found = await p.get(f"{NS}/pods/pod-test/status")
    assert found["metadata"]["labels"]["test-pod"] == "patched" and found["spec"]["containers"][0]["image"] == "other:2"
    found["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "lastTransitionTime": None, "lastProbeTime": None}
    ]
    updated = await p.put(f"{NS}/pods/pod-test/status", found)
    assert [c["status"] for c in updated["status"]["conditions"] if c["type"] == "Ready"] == ["False"]
    await p.delete(f"{NS}/pods{label}", {"gracePeriodSeconds": 0})
    await p.gone(f"{NS}/pods/pod-test")
    types = ("ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED")  # the fourth is that it shall go
    seen = await p.sees(f"{NS}/pods{label}&resourceVersion={early}", *types)
    assert seen[-1]["metadata"]["labels"]["test-pod"] == "patched"


@case
async def patch_a_pods_status(p: Player) -> None:
    await p.post(f"{NS}/pods", pod("pod-x"))
    sent = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"message": "Patched by e2e test",
            "reason": "E2E", "phase": "Running"}}  # fmt: skip
    patched = await p.patch(f"{NS}/pods/pod-x/status", sent)
    assert patched["status"]["message"] == "Patched by e2e test" and patched["status"]["reason"] == "E2E"
    assert patched["status"]["phase"] == "Running"


@case
async def delete_a_collection_of_pods(p: Player) -> None:
    for n in range(3):
        await p.post(f"{NS}/pods", pod(f"test-pod-{n}", labels={"type": "Testing"}))
    await p.delete(f"{NS}/pods?labelSelector=type%3DTesting", {"gracePeriodSeconds": 0})
    await p.gone(f"{NS}/pods?labelSelector=type%3DTesting")


@case
async def ephemeral_containers_of_a_pod(p: Player) -> None:
    await p.post(f"{NS}/pods", pod("ephemeral"))
    sent = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox", "stdin": True}]}}
    await p.patch(f"{NS}/pods/ephemeral/ephemeralcontainers", sent, "strategic")
    found = await p.get(f"{NS}/pods/ephemeral/ephemeralcontainers")
    assert [c["name"] for c in found["spec"]["ephemeralContainers"]] == ["debugger"]
    found["spec"]["ephemeralContainers"].append({"name": "debugger2", "image": "busybox"})
    updated = await p.put(f"{NS}/pods/ephemeral/ephemeralcontainers", found)
    assert len(updated["spec"]["ephemeralContainers"]) == 2


@case
async def config_maps_lifecycle(p: Player) -> None:
    label = "?labelSelector=test-configmap-static%3Dtrue"
    early = rv(await p.get(f"{NS}/configmaps{label}"))
    obj = {**named("test-configmap", labels={"test-configmap-static": "true"}), "data": {"valueName": "value"}}
    await p.post(f"{NS}/configmaps", obj)
    sent = {"metadata": {"labels": {"test-configmap": "patched"}}, "data": {"valueName": "value1"}}
    await p.patch(f"{NS}/configmaps/test-configmap", sent, "strategic")
    found = await p.get(f"{NS}/configmaps/test-configmap")
    assert found["data"] == {"valueName": "value1"} and found["metadata"]["labels"]["test-configmap"] == "patched"
    everywhere = await p.get(f"/api/v1/configmaps{label}")
    assert [c["data"] for c in everywhere["items"] if c["metadata"]["namespace"] == p.namespace] == [found["data"]]
    await p.delete(f"{NS}/configmaps{label}")
    await p.sees(f"{NS}/configmaps{label}&resourceVersion={early}", "ADDED", "MODIFIED", "DELETED")
    await p.post(f"{NS}/configmaps", {**named("empty-key"), "data": {"": "value"}}, status=422)


@case
async def immutable_config_maps_and_secrets(p: Player) -> None:
    for plural, one, other in (("configmaps", "v1", "v2"), ("secrets", b64("v1"), b64("v2"))):
        path = f"{NS}/{plural}/immutable"
        obj = await p.post(f"{NS}/{plural}", {**named("immutable"), "data": {"k": one}})
        obj["data"]["k"] = other
        obj = await p.put(path, obj)
        obj["immutable"] = True
        obj = await p.put(path, obj)
        await p.put(path, {**obj, "data": {"k": one}}, status=422)
        await p.put(path, {**obj, "immutable": False}, status=422)
        obj["metadata"]["labels"] = {"label1": "value1"}
        await p.put(path, obj)
        await p.delete(path)


@case
async def patch_a_secret(p: Player) -> None:
    label = "?labelSelector=testsecret-constant%3Dtrue"
    obj = {**named("test-secret", labels={"testsecret-constant": "true"}), "data": {"key": b64("value")},
           "type": "Opaque"}  # fmt: skip
    await p.post(f"{NS}/secrets", obj)
    assert [
        s["type"]
        for s in (await p.get(f"/api/v1/secrets{label}"))["items"]
        if s["metadata"]["namespace"] == p.namespace
    ]
    sent = {"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": b64("value1")}}
    await p.patch(f"{NS}/secrets/test-secret", sent, "strategic")
    found = (await p.get("/api/v1/secrets?labelSelector=testsecret%3Dtrue"))["items"]
    assert [s["data"]["key"] for s in found if s["metadata"]["namespace"] == p.namespace] == [b64("value1")]
    await p.delete(f"{NS}/secrets{label}")
    assert (await p.get(f"{NS}/secrets{label}"))["items"] == []
    await p.post(f"{NS}/secrets", {**named("empty-key"), "data": {"": b64("value")}}, status=422)


@case
async def lease_api_is_available(p: Player) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
    await p.post(path, {**named("lease"), "spec": {"holderIdentity": "a", "leaseDurationSeconds": 30}})
    lease = await p.get(f"{path}/lease")
    lease["spec"] = {"holderIdentity": "b", "leaseDurationSeconds": 60, "leaseTransitions": 1,
                     "renewTime": "2026-01-01T00:00:00.000000Z"}  # fmt: skip
    assert (await p.put(f"{path}/lease", lease))["spec"] == lease["spec"]
    patched = await p.patch(f"{path}/lease", {"spec": {"holderIdentity": "c"}}, "strategic")
    assert patched["spec"] == {**lease["spec"], "holderIdentity": "c"}


@case
async def pods_of_a_runtime_class(p: Player) -> None:
    obj = pod("classy")
    obj["spec"]["runtimeClassName"] = p.namespace
    refused = await p.post(f"{NS}/pods", obj, status=403)
    assert f'pod rejected: RuntimeClass "{p.namespace}" not found' in refused["message"]
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    overhead = {"podFixed": {"cpu": "10m", "memory": "1Mi"}}
    await p.post(classes, {**named(p.namespace), "handler": "runc", "overhead": overhead})
    assert (await p.post(f"{NS}/pods", obj))["spec"]["overhead"] == overhead["podFixed"]
    await p.delete(f"{classes}/{p.namespace}")


# ---------------------------------------------------------------- sig-instrumentation


@case
async def core_events(p: Player) -> None:
    def event(name: str) -> Object:
        about = {"kind": "Pod", "name": "pod-1", "namespace": p.namespace}
        return {**named(name, labels={"testevent-constant": "true"}), "message": "This is a test event",
                "reason": "Test", "type": "Normal", "count": 1, "involvedObject": about}  # fmt: skip

    label = "?labelSelector=testevent-constant%3Dtrue"
    await p.post(f"{NS}/events", event("event-test"))
    assert any(e["metadata"]["namespace"] == p.namespace for e in (await p.get(f"/api/v1/events{label}"))["items"])
    await p.patch(f"{NS}/events/event-test", {"message": "This is a test event - patched"}, "strategic")
    found = await p.get(f"{NS}/events/event-test")
    assert found["message"] == "This is a test event - patched"
    found["series"] = {"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}
    assert (await p.put(f"{NS}/events/event-test", found))["series"]["count"] == 100
    await p.delete(f"{NS}/events/event-test")
    for n in range(3):
        await p.post(f"{NS}/events", event(f"event-{n}"))
    await p.delete(f"{NS}/events{label}")
    assert (await p.get(f"{NS}/events{label}"))["items"] == []


@case
async def events_of_the_new_group(p: Player) -> None:
    path = "/apis/events.k8s.io/v1/namespaces/{ns}/events"

    def event(name: str) -> Object:
        return {**named(name, labels={"testevent-constant": "true"}), "eventTime": "2026-01-01T00:00:00.000000Z",
                "reportingController": "test-controller", "reportingInstance": "test-node", "action": "Do",
                "reason": "Test", "type": "Normal", "note": "This is event",
                "regarding": {"kind": "Pod", "name": "p", "namespace": p.namespace}}  # fmt: skip

    await p.post(path, event("event-test"))
    for where, field in ((path, "reportingController"), (f"{NS}/events", "source")):
        listed = await p.get(f"{where}?fieldSelector={field}%3Dtest-controller")
        assert [e["metadata"]["name"] for e in listed["items"]] == ["event-test"]
        assert (await p.get(f"{where}?fieldSelector={field}%3Dother"))["items"] == []
    await p.sees(f"{path}?fieldSelector=regarding.kind%3DPod,reportingController!%3Dother", "ADDED")
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}}
    assert (await p.patch(f"{path}/event-test", series, "strategic"))["series"]["count"] == 2
    found = await p.get(f"{path}/event-test")
    found["series"] = {"count": 100, "lastObservedTime": "2026-01-02T00:00:05.000000Z"}
    assert (await p.put(f"{path}/event-test", found))["series"]["count"] == 100
    assert (await p.get(f"{NS}/events/event-test"))["message"] == "This is event"
    await p.delete(f"{path}/event-test")
    await p.post(path, event("one"))
    await p.delete(f"{path}?labelSelector=testevent-constant%3Dtrue")
    assert (await p.get(path))["items"] == []


# ---------------------------------------------------------------- sig-api-machinery: quotas


@case
async def quota_of_services_and_pods(p: Player) -> None:
    hard = {"services": "2", "services.nodeports": "1", "services.loadbalancers": "0", "pods": "1",
            "requests.cpu": "1", "count/configmaps": "3", "secrets": "1"}  # fmt: skip
    await p.post(f"{NS}/resourcequotas", {**named("test-quota"), "spec": {"hard": hard}})
    quota = f"{NS}/resourcequotas/test-quota"

    async def used(**wanted: str) -> None:
        """The names with 0 for each dot."""
        wanted = {name.replace("0", "."): amount for name, amount in wanted.items()}
        await p.settled(quota, lambda q: wanted.items() <= q.get("status", {}).get("used", {}).items())

    await used(services="0", pods="0")
    ports = [{"port": 80}]
    await p.post(f"{NS}/services", {**named("cluster"), "spec": {"ports": ports}})
    await p.post(f"{NS}/services", {**named("node"), "spec": {"type": "NodePort", "ports": ports}})
    await used(services="2", services0nodeports="1")
    refused = await p.post(f"{NS}/services", {**named("more"), "spec": {"ports": ports}}, status=403)
    assert (
        "exceeded quota: test-quota, requested: services=1, used: services=2, limited: services=2" in refused["message"]
    )
    await p.delete(f"{NS}/services/cluster")
    balanced = {**named("lb"), "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": ports}}
    await p.post(f"{NS}/services", balanced, status=403)
    await p.delete(f"{NS}/services/node")
    await used(services="0", services0nodeports="0")
    await p.post(f"{NS}/pods", pod("greedy"), status=403)  # says no cpu
    small = pod("small")
    small["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "500m"}}
    await p.post(f"{NS}/pods", small)
    await used(pods="1", requests0cpu="500m")
    await p.post(f"{NS}/pods", {**small, **named("second")}, status=403)
    await p.delete(f"{NS}/pods/small", {"gracePeriodSeconds": 0})
    await used(pods="0", requests0cpu="0")


@case
async def quota_lifecycle_and_status(p: Player) -> None:
    label = f"?labelSelector=quota%3D{p.namespace}"
    spec = {"hard": {"memory": "500Mi", "cpu": "500m"}}
    await p.post(f"{NS}/resourcequotas", {**named("e2e-quota", labels={"quota": p.namespace}), "spec": spec})
    one = f"{NS}/resourcequotas/e2e-quota"
    found = await p.settled(one, lambda q: q.get("status", {}).get("hard") == spec["hard"])
    assert [q["metadata"]["name"] for q in (await p.get(f"/api/v1/resourcequotas{label}"))["items"]] == ["e2e-quota"]
    sent = {"metadata": {"labels": {"e2e": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}
    patched = await p.patch(one, sent, "strategic")
    assert patched["spec"]["hard"] == {"memory": "750Mi", "cpu": "500m"}
    await p.settled(one, lambda q: q["status"]["hard"]["memory"] == "750Mi")
    await p.delete(f"{NS}/resourcequotas{label}")
    await p.gone(one)
    assert found["status"]["used"] == {"memory": "0", "cpu": "0"}


@case
async def quota_with_scopes(p: Player) -> None:
    for name, scope in (("best", "BestEffort"), ("other", "NotBestEffort"), ("ending", "Terminating")):
        await p.post(f"{NS}/resourcequotas", {**named(name), "spec": {"hard": {"pods": "5"}, "scopes": [scope]}})
    await p.post(f"{NS}/pods", pod("effort"))
    dated = pod("dated")
    dated["spec"]["activeDeadlineSeconds"] = 3600
    dated["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    await p.post(f"{NS}/pods", dated)
    for name in ("best", "other", "ending"):
        await p.settled(f"{NS}/resourcequotas/{name}", lambda q: q.get("status", {}).get("used") == {"pods": "1"})
    wrong = {**named("wrong"), "spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}}
    await p.post(f"{NS}/resourcequotas", wrong, status=422)


# ---------------------------------------------------------------- sig-apps


@case
async def budgets(p: Player) -> None:
    path = "/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"foo": "bar"}}}
    await p.post(path, {**named("foo"), "spec": spec})
    await p.settled(f"{path}/foo", lambda b: b.get("status", {}).get("observedGeneration") == 1)
    await p.post(f"{NS}/pods", pod("guarded", labels={"foo": "bar"}))
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await p.patch(f"{NS}/pods/guarded/status", {"status": status}, "strategic")
    await p.settled(f"{path}/foo", lambda b: b["status"]["currentHealthy"] == 1)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "guarded", "namespace": p.namespace},
    }
    refused = await p.post(f"{NS}/pods/guarded/eviction", eviction, status=429)
    assert refused["details"]["causes"][0]["reason"] == "DisruptionBudget"
    changed = await p.get(f"{path}/foo")
    changed["status"]["disruptedPods"] = {"other": "2026-01-01T00:00:00Z"}
    assert (await p.put(f"{path}/foo/status", changed))["status"]["disruptedPods"]
    await p.patch(f"{path}/foo", {"spec": {"minAvailable": 0}}, "strategic")
    await p.settled(f"{path}/foo", lambda b: b["status"]["disruptionsAllowed"] == 1)
    await p.post(f"{NS}/pods/guarded/eviction", eviction)
    await p.delete(path)
    assert (await p.get(path))["items"] == []


@case
async def the_scale_of_workloads(p: Player) -> None:
    """Deployments, ReplicaSets, StatefulSets and ReplicationControllers: read, put and patch of scale."""
    template = {"metadata": {"labels": {"name": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    for root, plural, more in (
        ("/apis/apps/v1", "deployments", {}), ("/apis/apps/v1", "replicasets", {}),
        ("/apis/apps/v1", "statefulsets", {"serviceName": "x"}), ("/api/v1", "replicationcontrollers", {}),
    ):  # fmt: skip
        path = f"{root}/namespaces/{{ns}}/{plural}"
        selector: Any = {"name": "x"} if root == "/api/v1" else {"matchLabels": {"name": "x"}}
        spec = {"replicas": 0, "selector": selector, "template": template, **more}
        await p.post(path, {**named("test"), "spec": spec})
        scale = await p.get(f"{path}/test/scale")
        assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
        scale["metadata"].pop("resourceVersion")
        scale["spec"] = {"replicas": 1}
        assert (await p.put(f"{path}/test/scale", scale))["spec"] == {"replicas": 1}
        assert (await p.patch(f"{path}/test/scale", {"spec": {"replicas": 2}}))["spec"] == {"replicas": 2}
        assert (await p.get(f"{path}/test"))["spec"]["replicas"] == 2
        await p.delete(f"{path}/test", {"propagationPolicy": "Background"})


@case
async def controller_revisions(p: Player) -> None:
    """Those of a DaemonSet: listed by label, patched, made, updated and deleted, as the case of upstream has it."""
    path = "/apis/apps/v1/namespaces/{ns}"
    template = {"metadata": {"labels": {"daemon": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"daemon": "d"}}, "template": template}
    await p.post(f"{path}/daemonsets", {**named("d", labels={"daemon": "d"}), "spec": spec})
    revisions = f"{path}/controllerrevisions"
    found = await p.settled(f"{revisions}?labelSelector=daemon%3Dd", lambda r: len(r["items"]) == 1)
    (first,) = found["items"]
    assert first["revision"] == 1
    sent = {"metadata": {"labels": {first["metadata"]["name"]: "patched"}}}
    patched = await p.patch(f"{revisions}/{first['metadata']['name']}", sent, "strategic")
    assert patched["metadata"]["labels"][first["metadata"]["name"]] == "patched"
    second = {"metadata": {"name": "second", "labels": patched["metadata"]["labels"], "ownerReferences":
              first["metadata"]["ownerReferences"]}, "data": first["data"], "revision": 2}  # fmt: skip
    await p.post(revisions, second)
    await p.delete(f"{revisions}/{first['metadata']['name']}")
    await p.delete(f"{revisions}?labelSelector=nobody%3Dx")
    await p.delete(f"{path}/daemonsets/d", {"propagationPolicy": "Background"})
    await p.gone(f"{revisions}?labelSelector=daemon%3Dd")


# ---------------------------------------------------------------- sig-storage, sig-scheduling


@case
async def limit_ranges(p: Player) -> None:
    limits = {"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"}, "default": {"cpu": "500m"},
              "defaultRequest": {"cpu": "100m"}}  # fmt: skip
    await p.post(f"{NS}/limitranges", {**named("limit-range"), "spec": {"limits": [limits]}})
    made = await p.post(f"{NS}/pods", pod("plain"))
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    for amount in ("10m", "600m"):
        obj = pod("wrong")
        obj["spec"]["containers"][0]["resources"] = {"requests": {"cpu": amount}, "limits": {"cpu": amount}}
        await p.post(f"{NS}/pods", obj, status=403)
    changed = await p.get(f"{NS}/limitranges/limit-range")
    changed["spec"]["limits"][0]["min"] = {"cpu": "5m"}
    await p.put(f"{NS}/limitranges/limit-range", changed)
    obj = pod("small")
    obj["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    await p.post(f"{NS}/pods", obj)


@case
async def priority_classes_by_every_method(p: Player) -> None:
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    name = f"p1-{p.namespace}"
    made = await p.post(path, {**named(name), "value": 1})
    await p.patch(f"{path}/{name}", {"value": 2}, status=422)
    assert (await p.patch(f"{path}/{name}", {"description": "patched"}, "json", status=400))["code"] == 400
    made["description"] = "updated"
    assert (await p.put(f"{path}/{name}", made))["description"] == "updated"
    await p.put(f"{path}/{name}", {**made, "value": 3, "metadata": {"name": name}}, status=422)
    await p.delete(f"{path}/{name}")


@case
async def volumes_and_claims(p: Player) -> None:
    label = f"?labelSelector=e2e%3D{p.namespace}"
    name = f"pv-{p.namespace}"
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": p.namespace,
            "csi": {"driver": "e2e", "volumeHandle": "h"}, "persistentVolumeReclaimPolicy": "Retain"}  # fmt: skip
    volumes = "/api/v1/persistentvolumes"
    await p.post(volumes, {**named(name, labels={"e2e": p.namespace}), "spec": spec})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
             "storageClassName": p.namespace + "-none"}  # fmt: skip
    await p.post(f"{NS}/persistentvolumeclaims", {**named("pvc", labels={"e2e": p.namespace}), "spec": claim})
    for path in (f"{volumes}/{name}", f"{NS}/persistentvolumeclaims/pvc"):
        sent = {"metadata": {"labels": {"e2e-patched": "yes"}}}
        assert (await p.patch(path, sent, "strategic"))["metadata"]["labels"]["e2e-patched"] == "yes"
        conditions = [{"type": "StatusPatched", "status": "True"}]
        status: Object = {"message": "StatusPatched", "reason": "E2E"}
        if "claims" in path:
            status = {"conditions": conditions}
        patched = await p.patch(f"{path}/status", {"status": status}, "strategic")
        assert all(patched["status"][k] for k in status)
        updated = {**await p.get(path)}
        updated["metadata"]["labels"]["updated"] = "yes"
        updated["metadata"].pop("resourceVersion")
        await p.put(path, updated)
    assert (
        len((await p.get(volumes + label))["items"])
        == len((await p.get(f"/api/v1/persistentvolumeclaims{label}"))["items"])
        == 1
    )
    await p.delete(f"{NS}/persistentvolumeclaims{label}")
    await p.gone(f"{NS}/persistentvolumeclaims{label}")
    await p.delete(volumes + label)
    await p.gone(volumes + label)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_lifecycle(play: Callable[[Case], None], case: Case) -> None:
    play(case)
