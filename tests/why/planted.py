"""Small clusters with something wrong in them, in a few words each, and with what controllers would have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import by_kind
from kubesvc.api.meta import Object, Typed
from kubesvc.clock import parse_rfc3339
from kubesvc.controllers.pod_endpoints import selects
from kubesvc.why.listing import list_service
from kubesvc.why.snapshot import Snapshot, snapshot_of

EARLIER, CHANGED, NOW = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T01:05:00Z"
SHOP = "shop"


def meta(name: str, namespace: str = SHOP, **more: Any) -> Object:
    found = {"name": name, "uid": f"uid-{namespace}-{name}", "creationTimestamp": EARLIER, **more}
    return {**found, "namespace": namespace} if namespace else found


def service(name: str = "web", selector: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """Port 80 to 8080 of app=NAME, at 10.96.0.7, unless said otherwise; selector={} for none."""
    more = spec.pop("meta", {})
    whole: Object = {
        "type": "ClusterIP",
        "clusterIP": "10.96.0.7",
        "ipFamilies": ["IPv4"],
        "selector": {"app": name} if selector is None else dict(selector),
        "ports": [{"port": 80, "targetPort": 8080}],
        **spec,
    }
    whole.setdefault("clusterIPs", [whole["clusterIP"]] if whole["clusterIP"] else None)
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, **more), "spec": whole}


def pod(
    name: str = "web-1",
    labels: Mapping[str, str] | None = None,
    *,
    namespace: str = SHOP,
    node: str = "n1",
    ip: str = "10.244.1.2",
    ready: bool = True,
    phase: str = "Running",
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "containerPort": 8080},),
    container: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    conditions: Sequence[Mapping[str, Any]] = (),
    owner: str = "",
    metadata: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Object:
    """A Pod with one container `c`, ready unless said otherwise."""
    word = "True" if ready else "False"
    more: Object = dict(metadata or {})
    if owner:
        kind, _, who = owner.partition("/")
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": who, "uid": f"uid-{namespace}-{who}"}
        more["ownerReferences"] = [{**reference, "controller": True}]
    reported = {
        "phase": phase,
        "podIP": ip,
        "podIPs": [{"ip": ip}] if ip else [],
        "conditions": [
            {"type": "Ready", "status": word, "lastTransitionTime": CHANGED},
            {"type": "ContainersReady", "status": word, "lastTransitionTime": CHANGED},
            *conditions,
        ],
        "containerStatuses": [
            {"name": "c", "ready": ready, "started": True, "restartCount": 0, "image": "i", "imageID": "",
             "state": dict(state or {"running": {"startedAt": EARLIER}})}
        ],
        **(status or {}),
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, namespace, labels=dict(labels if labels is not None else {"app": "web"}), **more),
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "web:1", "ports": list(ports), **(container or {})}],
            **spec,
        },
        "status": reported,
    }


def workload(
    name: str = "web",
    kind: str = "Deployment",
    *,
    labels: Mapping[str, str] | None = None,
    template: Mapping[str, str] | None = None,
    replicas: int | None = 2,
    status: Mapping[str, Any] | None = None,
    image: str = "web:1",
    owner: str = "",
    **spec: Any,
) -> Object:
    """A Deployment, or another workload, whose template is labelled app=NAME."""
    given = dict(template if template is not None else {"app": name})
    more: Object = {"labels": dict(labels or {})}
    if owner:
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": f"uid-{SHOP}-{owner}"}
        more["ownerReferences"] = [{**reference, "controller": True}]
    whole: Object = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": given}, "spec": {"containers": [{"name": "c", "image": image}]}},
        **spec,
    }
    if replicas is not None:
        whole["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta(name, **more),
        "spec": whole,
        "status": {"observedGeneration": 1, **(status or {})},
    }


def node(name: str = "n1", zone: str = "", *, ready: bool = True, ours: bool = False, **spec: Any) -> Object:
    number = name.removeprefix("n")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(name, "", labels={"topology.kubernetes.io/zone": zone} if zone else {}),
        "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"172.30.0.1{number}"}],
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "Unknown", "message": "the node stopped reporting",
                 "lastTransitionTime": CHANGED}
            ],
            "nodeInfo": {"containerRuntimeVersion": "kubesvc://0.1.0" if ours else "containerd://2.0"},
        },
    }  # fmt: skip


def event(about: str, reason: str, message: str, *, count: int = 1, namespace: str = SHOP) -> Object:
    """An event about `Kind/name`."""
    kind, _, name = about.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": meta(f"{name}.{reason}.{len(message)}", namespace),
        "involvedObject": {"kind": kind, "namespace": namespace, "name": name},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "count": count,
        "firstTimestamp": EARLIER,
        "lastTimestamp": "2026-01-01T01:04:59Z",
    }


def endpoints(name: str = "web", *ips: str, not_ready: Sequence[str] = (), port: str = "", **more: Any) -> Object:
    subset: Object = {"ports": [{"port": 8080, "protocol": "TCP", **({"name": port} if port else {})}]}
    if ips:
        subset["addresses"] = [{"ip": i} for i in ips]
    if not_ready:
        subset["notReadyAddresses"] = [{"ip": i} for i in not_ready]
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta(name, **more), "subsets": [subset]}


def endpoint_slice(
    name: str,
    service: str,
    *entries: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]] = ({"name": "", "port": 8080},),
    labels: Mapping[str, str] | None = None,
    namespace: str = SHOP,
) -> Object:
    """A slice by hand; entries as the API has them."""
    named = {"kubernetes.io/service-name": service} if service else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta(name, namespace, labels={**named, **(labels or {})}),
        "addressType": "IPv4",
        "endpoints": [dict(e) for e in entries],
        "ports": [{"protocol": "TCP", **p} for p in ports],
    }


def at(ip: str, **more: Any) -> Object:
    ready = more.pop("ready", True)
    return {"addresses": [ip], "conditions": {"ready": ready}, **more}


DNS: tuple[Object, ...] = (
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta("kube-dns", "kube-system"),
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 53, "protocol": "UDP"}]},
    },
    endpoint_slice(
        "kube-dns-1", "kube-dns", at("10.244.0.5"), ports=({"name": "", "port": 53, "protocol": "UDP"},),
        namespace="kube-system",
    ),
)  # fmt: skip


def typed(obj: Object) -> tuple[Kind, Typed]:
    kind = by_kind(obj["apiVersion"], obj["kind"])
    assert kind is not None, obj
    return kind, msgspec.convert(obj, kind.type)


def cluster(*objects: Object, written: bool = True, dns: bool = True, nodes: bool = True, **more: Any) -> Snapshot:
    """These objects, two nodes and cluster DNS, with the slices that controllers would have written by now.

    written: False: nobody wrote slices
    """
    whole = [*objects, *(DNS if dns else ())]
    if nodes and not any(o["kind"] == "Node" for o in objects):
        whole += [node("n1"), node("n2")]
    pairs = [typed(o) for o in whole]
    now = parse_rfc3339(NOW)
    if written:
        bare = snapshot_of(pairs, now)
        for found in bare.services.values():
            if selects(found):
                for number, s in enumerate(list_service(found, bare).planned):
                    named = msgspec.structs.replace(s.metadata, name=f"{found.name}-{number}", generate_name="")
                    pairs.append((ENDPOINT_SLICE, msgspec.structs.replace(s, metadata=named)))
    return snapshot_of(pairs, now, **more)
