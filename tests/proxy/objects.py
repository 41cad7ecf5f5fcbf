"""Services, slices and addresses of the tests, in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.service import Service
from kubesvc.proxy.traffic import Family, Place

A, B, C, HERE, OUTSIDE = "a", "b", "c", "node", "outside"
"""Pods a and b run on this node, pod c on another; then the node itself and a host outside the cluster."""
ALSO_HERE: dict[Family, str] = {"IPv4": "172.30.1.1", "IPv6": "fd00:172:31::1"}
"""Another address of this node, on another interface."""
LOOPBACK: dict[Family, str] = {"IPv4": "127.0.0.1", "IPv6": "::1"}

ADDRESSES: dict[Family, dict[str, str]] = {
    "IPv4": {A: "10.244.1.2", B: "10.244.1.3", C: "10.244.2.2", HERE: "172.30.0.11", OUTSIDE: "172.30.0.100"},
    "IPv6": {
        A: "fd00:244:1::2",
        B: "fd00:244:1::3",
        C: "fd00:244:2::2",
        HERE: "fd00:172:30::11",
        OUTSIDE: "fd00:172:30::100",
    },
}
NODES = {A: "n1", B: "n1", C: "n2", HERE: "n1"}
POD_CIDRS: dict[Family, str] = {"IPv4": "10.244.0.0/16", "IPv6": "fd00:244::/32"}
SERVICE_CIDRS: dict[Family, str] = {"IPv4": "10.96.0.0/16", "IPv6": "fd00:96::/112"}
VIPS: dict[Family, str] = {"IPv4": "10.96.0.", "IPv6": "fd00:96::"}
BALANCERS: dict[Family, str] = {"IPv4": "192.0.2.10", "IPv6": "fd00:192::10"}
EXTERNALS: dict[Family, str] = {"IPv4": "192.0.2.20", "IPv6": "fd00:192::20"}


def place(zone: str = "") -> Place:
    """This node, n1."""
    return Place("n1", zone, tuple(ADDRESSES[f][HERE] for f in ("IPv4", "IPv6")))


def vip(family: Family, number: int = 1) -> str:
    """The ClusterIP of the number-th Service."""
    return f"{VIPS[family]}{number}"


@dataclass(frozen=True)
class At:
    """An endpoint: who it is and in what state."""

    who: str
    ready: bool | None = True
    serving: bool | None = None
    terminating: bool | None = None
    zones: Sequence[str] = ()
    nodes: Sequence[str] = ()
    node: str | None = None
    address: str = ""

    def plain(self, family: Family) -> dict[str, Any]:
        conditions = {"ready": self.ready, "serving": self.serving, "terminating": self.terminating}
        hints: dict[str, Any] = {}
        if self.zones:
            hints["forZones"] = [{"name": z} for z in self.zones]
        if self.nodes:
            hints["forNodes"] = [{"name": n} for n in self.nodes]
        return {
            "addresses": [self.address or ADDRESSES[family][self.who]],
            "conditions": {k: v for k, v in conditions.items() if v is not None},
            "nodeName": self.node or NODES[self.who],
            **({"hints": hints} if hints else {}),
        }


READY_SERVING = {"ready": True, "serving": True, "terminating": False}


def ready(*who: str) -> tuple[At, ...]:
    return tuple(At(w) for w in who)


def draining(who: str) -> At:
    """Serving while it terminates: the last resort."""
    return At(who, ready=False, serving=True, terminating=True)


def gone(who: str) -> At:
    """Terminating and no longer serving."""
    return At(who, ready=False, serving=False, terminating=True)


def service(
    name: str = "web",
    *,
    number: int = 1,
    family: Family = "IPv4",
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "port": 80},),
    labels: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    namespace: str = "shop",
    **spec: Any,
) -> Service:
    """A Service of one family, spec fields by their wire names; `number` chooses its ClusterIP."""
    plain = {
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "clusterIP": vip(family, number),
            "clusterIPs": [vip(family, number)],
            "ipFamilies": [family],
            "ports": [dict(p) for p in ports],
            **spec,
        },
        "status": dict(status or {}),
    }
    return typed(plain, Service)


def balanced(family: Family, **ingress: Any) -> dict[str, Any]:
    """Status of a Service whose balancer has its address."""
    return {"loadBalancer": {"ingress": [{"ip": BALANCERS[family], **ingress}]}}


def slice_of(
    name: str = "web",
    endpoints: Sequence[At] = (),
    *,
    suffix: str = "x",
    family: Family = "IPv4",
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "port": 8080, "protocol": "TCP"},),
    namespace: str = "shop",
) -> EndpointSlice:
    plain = {
        "metadata": {
            "name": f"{name}-{suffix}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "endpoints": [e.plain(family) for e in endpoints],
        "ports": [dict(p) for p in ports],
    }
    return typed(plain, EndpointSlice)
