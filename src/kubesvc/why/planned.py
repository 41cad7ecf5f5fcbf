"""Manifests as if they were applied: every template makes its Pods, and all of them become ready. Pure.

So the same diagnosis answers "would this Service have endpoints?"; what only shows when programs run is assumed good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import msgspec

from kubesvc.api.kind import Kind
from kubesvc.api.meta import ObjectMeta, OwnerReference, Typed
from kubesvc.api.pod import POD, Pod, PodCondition, PodIP, PodSpec, PodStatus
from kubesvc.api.service import SERVICE, Service
from kubesvc.api.statefulset import StatefulSet

from .snapshot import Snapshot, Workload, snapshot_of

STAND_INS = ("0.0.0.0", "::")
"""The ClusterIP of a Service that has none yet, by family."""
FIRST_ADDRESS = "192.0.2."
ANYWHERE = "any"
"""The node of a Pod where there is none, or nobody knows them."""
SAMPLE = 3
"""The most Pods that stand for a workload: more would say the same."""


def plan_manifests(given: Snapshot, base: Snapshot | None) -> Snapshot:
    """The snapshot after applying `given` over `base` (nothing, if None). Of Services only those of `given` remain
    those to ask about; a Pod that a template makes is named after its workload."""
    objects: dict[Kind, list[Typed]] = {}
    for snapshot in (base, given):
        for kind, listed in (snapshot.objects if snapshot else {}).items():
            kept = {(o.namespace, o.name): o for o in (*objects.get(kind, ()), *listed)}
            objects[kind] = list(kept.values())
    laid = snapshot_of(((kind, o) for kind, listed in objects.items() for o in listed), base.now if base else 0.0)
    mine = {(w.kind, w.obj.namespace, w.obj.name) for ns in given.namespaces_named for w in given.workloads(ns)}
    node = next(iter(sorted(base.nodes)), ANYWHERE) if base is not None else ANYWHERE
    pods: list[Pod] = [ready_pod(p, n, node) for n, p in enumerate(given.pods.values())]
    gone = {(p.namespace, p.name) for p in pods}
    if base is not None:
        for p in base.pods.values():
            above = base.owner(p)
            replaced = above is not None and (above[0], p.namespace, above[1].name) in mine
            if not replaced and (p.namespace, p.name) not in gone:
                pods.append(p)
    for ns in sorted(given.namespaces_named):
        for w in given.workloads(ns):
            pods += made_pods(w, len(pods), node)
    asked = set(given.services)
    services: Sequence[Typed] = [ready_service(s) for k, s in laid.services.items() if base is None or k in asked]
    return dataclasses.replace(
        laid,
        objects={**laid.objects, POD: pods, SERVICE: services},
        source="manifests",
        standing=frozenset(laid.services) - asked,
        skipped=given.skipped,
        gaps=base.gaps if base else (),
    )


def ready_service(service: Service) -> Service:
    """With a family, and a stand-in address unless it is headless, so that proxies and DNS have something to plan
    with."""
    spec = service.spec
    if (spec.cluster_ips and spec.ip_families) or spec.type == "ExternalName":
        return service
    families = spec.ip_families or ["IPv4"]
    if given := spec.cluster_ip:
        own = ["IPv6" if ":" in given else "IPv4"]
        families = (spec.ip_families or own) if service.headless else own
        addresses = spec.cluster_ips or [given]
        return msgspec.structs.replace(
            service, spec=msgspec.structs.replace(spec, cluster_ips=addresses, ip_families=families)
        )
    address = STAND_INS[0 if families[0] == "IPv4" else 1]
    return msgspec.structs.replace(
        service,
        spec=msgspec.structs.replace(spec, cluster_ip=address, cluster_ips=[address], ip_families=families[:1]),
    )


def made_pods(workload: Workload, number: int, node: str) -> Iterator[Pod]:
    """The Pods of a workload's template, some of them if they are many."""
    template = getattr(workload.obj, "spec").template  # noqa: B009 - every workload has one, of its own type
    controller = OwnerReference(kind=workload.kind.name, name=workload.obj.name, controller=True)
    for i in range(min(SAMPLE, 1 if workload.replicas is None else workload.replicas)):
        meta = ObjectMeta(
            name=f"{workload.obj.name}-{i}",
            namespace=workload.obj.namespace,
            labels=dict(workload.template_labels),
            owner_references=[controller],
        )
        spec = template.spec if template is not None else PodSpec()
        if isinstance(workload.obj, StatefulSet):
            governor = workload.obj.spec.service_name
            spec = msgspec.structs.replace(spec, hostname=meta.name, subdomain=governor)
        yield ready_pod(Pod(metadata=meta, spec=spec), number + i, node)


def ready_pod(pod: Pod, number: int, node: str) -> Pod:
    """As it will be once it runs, on this node unless it names one, at an address for documentation."""
    address = f"{FIRST_ADDRESS}{number % 254 + 1}"
    conditions = [PodCondition(type="Ready", status="True")]
    conditions += [PodCondition(type=g.condition_type, status="True") for g in pod.spec.readiness_gates or ()]
    return msgspec.structs.replace(
        pod,
        spec=msgspec.structs.replace(pod.spec, node_name=pod.spec.node_name or node),
        status=PodStatus(phase="Running", conditions=conditions, pod_ip=address, pod_ips=[PodIP(ip=address)]),
    )
