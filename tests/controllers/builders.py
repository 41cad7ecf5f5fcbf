"""Services, pods, nodes and slices for tests, in a few words each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubesvc.api.endpointslice import Endpoint, EndpointSlice
from kubesvc.api.meta import ObjectMeta, OwnerReference, typed
from kubesvc.api.node import Node
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.controllers.endpoint_cache import make_endpoint
from kubesvc.controllers.pod_endpoints import Port, Ports, facts_of
from kubesvc.controllers.slice_plan import Identity, identity, service_frame, slice_ports

CREATED = "2026-01-01T00:00:00Z"


def service(
    name: str = "web",
    *,
    ports: Sequence[Mapping[str, Any]] = ({"port": 80, "targetPort": 8080},),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    uid: str = "service-uid",
    **spec: Any,
) -> Service:
    whole = {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "ports": list(ports), **spec}
    meta: dict[str, Any] = {"name": name, "namespace": "ns", "uid": uid, "creationTimestamp": CREATED}
    meta |= {"labels": dict(labels)} if labels else {}
    meta |= {"annotations": dict(annotations)} if annotations else {}
    return typed({"metadata": meta, "spec": whole}, Service)


def pod(
    name: str = "p",
    *,
    ips: Sequence[str] = ("10.1.0.1",),
    ready: bool | None = True,
    terminating: bool = False,
    phase: str = "Running",
    node: str = "n1",
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "containerPort": 8080},),
    sidecar_ports: Sequence[Mapping[str, Any]] = (),
    init_ports: Sequence[Mapping[str, Any]] = (),
    labels: Mapping[str, str] | None = None,
    version: str = "1",
    changed: str = "2026-01-01T00:01:00Z",
    uid: str = "",
    **spec: Any,
) -> Pod:
    meta: dict[str, Any] = {
        "name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": version,
        "labels": dict(labels if labels is not None else {"app": "web"}),
    }  # fmt: skip
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    inits = [{"name": "side", "restartPolicy": "Always", "ports": list(sidecar_ports)}] if sidecar_ports else []
    inits += [{"name": "init", "ports": list(init_ports)}] if init_ports else []
    status: dict[str, Any] = {"phase": phase, "podIPs": [{"ip": ip} for ip in ips], "podIP": ips[0] if ips else ""}
    if ready is not None:
        word = "True" if ready else "False"
        status["conditions"] = [{"type": "Ready", "status": word, "lastTransitionTime": changed}]
    whole = {"nodeName": node, "containers": [{"name": "c", "ports": list(ports)}], "initContainers": inits, **spec}
    return typed({"metadata": meta, "spec": whole, "status": status}, Pod)


def node(
    name: str = "n1", zone: str = "", *, cpu: str = "4", ready: bool = True, labels: Mapping[str, str] | None = None
) -> Node:
    every = dict(labels or {})
    every |= {"topology.kubernetes.io/zone": zone} if zone else {}
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return typed(
        {
            "metadata": {"name": name, "labels": every},
            "status": {"allocatable": {"cpu": cpu}, "conditions": [condition]},
        },
        Node,
    )


HTTP: Ports = (Port("", 8080, "TCP", ""),)


def address(number: int) -> str:
    return f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def endpoint(number: int, of: Service | None = None, **pod_words: Any) -> Endpoint:
    """The endpoint of pod number such-and-such."""
    made_of = pod(f"p{number:05}", ips=(address(number),), **pod_words)
    made = make_endpoint(of or service(), made_of, facts_of(made_of), None, "IPv4")
    assert made is not None
    return made


def desired(numbers: Sequence[int], ports: Ports = HTTP) -> dict[Ports, dict[Identity, Endpoint]]:
    return {ports: {identity(e): e for e in map(endpoint, numbers)}} if numbers else {}


def stored(
    name: str, endpoints: Sequence[Endpoint], *, of: Service | None = None, ports: Ports = HTTP, owner: str = ""
) -> EndpointSlice:
    """A slice as the controller would have written it, under this name."""
    frame = service_frame(of or service(), "IPv4")
    reference = frame.owner if not owner else OwnerReference(api_version="v1", kind="Service", name="web", uid=owner)
    meta = ObjectMeta(
        name=name, namespace="ns", uid=f"uid-{name}", resource_version="7", generation=1,
        generate_name=frame.generate_name, labels=dict(frame.labels), owner_references=[reference],
    )  # fmt: skip
    return EndpointSlice(
        metadata=meta, address_type="IPv4", endpoints=list(endpoints) or None, ports=slice_ports(ports) or None
    )
