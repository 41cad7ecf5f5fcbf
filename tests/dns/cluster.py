"""A small cluster for the tests of names, and a client that lists and watches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from kubesvc.api.endpointslice import EndpointSlice
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, Typed, plain, typed
from kubesvc.api.namespace import Namespace
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service
from kubesvc.client import RawList, WatchEvent
from kubesvc.dns.snapshot import Snapshot

SERIAL = 1_700_000_000


def namespace(name: str) -> Namespace:
    return typed({"metadata": {"name": name}}, Namespace)


def service(name: str, namespace: str = "shop", *, ips: Sequence[str] = (), **spec: Any) -> Service:
    """A Service; `ports` as (name, protocol, number)."""
    if "ports" in spec:
        spec["ports"] = [{"name": n, "protocol": p, "port": number} for n, p, number in spec["ports"]]
    if ips:
        spec |= {"clusterIP": ips[0], "clusterIPs": list(ips)}
    return typed({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, Service)


def headless(name: str, namespace: str = "shop", **spec: Any) -> Service:
    return service(name, namespace, ips=("None",), **spec)


def endpoint(*addresses: str, ready: bool | None = True, hostname: str = "", pod: str = "", **more: Any) -> Object:
    made: Object = {"addresses": list(addresses), "conditions": {} if ready is None else {"ready": ready}, **more}
    if hostname:
        made["hostname"] = hostname
    if pod:
        made["targetRef"] = {"kind": "Pod", "name": pod}
    return made


def endpoint_slice(
    name: str,
    service: str,
    *endpoints: Object,
    namespace: str = "shop",
    ports: Sequence[tuple[str, str, int]] = (),
    family: str = "IPv4",
) -> EndpointSlice:
    return typed(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": service} if service else {},
            },
            "addressType": family,
            "endpoints": list(endpoints),
            "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
        },
        EndpointSlice,
    )


def pod(name: str, ip: str, namespace: str = "shop", phase: str = "Running") -> Pod:
    return typed(
        {"metadata": {"name": name, "namespace": namespace}, "status": {"phase": phase, "podIPs": [{"ip": ip}]}}, Pod
    )


def feed(snapshot: Snapshot, *objects: Typed, gone: bool = False) -> None:
    for obj in objects:
        old, new = (obj, None) if gone else (None, obj)
        match obj:
            case Namespace():
                snapshot.namespace_changed(old, new, SERIAL)  # type: ignore[arg-type]
            case Service():
                snapshot.service_changed(old, new, SERIAL)  # type: ignore[arg-type]
            case EndpointSlice():
                snapshot.slice_changed(old, new, SERIAL)  # type: ignore[arg-type]
            case Pod():
                snapshot.pod_changed(old, new, SERIAL)  # type: ignore[arg-type]


def snapshot_of(*objects: Typed, pod_names: bool = False) -> Snapshot:
    snapshot = Snapshot(pod_names=pod_names)
    feed(snapshot, *objects)
    snapshot.mark_synced(SERIAL)
    return snapshot


HTTP = ("http", "TCP", 80)

SHOP = (
    namespace("shop"),
    namespace("empty"),
    namespace("kube-system"),
    service("kube-dns", "kube-system", ips=("10.96.0.10",), ports=(("dns", "UDP", 53), ("dns-tcp", "TCP", 53))),
    service("web", ips=("10.96.1.2",), ports=(HTTP, ("dns", "UDP", 53), ("", "TCP", 9))),
    service("dual", ips=("10.96.1.3", "fd00:96::3"), ports=(HTTP,)),
    service("six", ips=("fd00:96::6",), ports=(HTTP,)),
    service("idle", ips=("10.96.1.4",)),
    headless("db", ports=(("pg", "TCP", 5432), ("", "TCP", 1))),
    headless("cold", ports=(HTTP,)),
    headless("bare"),
    headless("v4only", ports=(HTTP,)),
    service("out", type="ExternalName", externalName="www.example.com", ports=(HTTP,)),
    service("dotted", type="ExternalName", externalName="www.example.com."),
    service("textual", type="ExternalName", externalName="192.0.2.1"),
    service("inner", type="ExternalName", externalName="web.shop.svc.cluster.local"),
    service("twice", type="ExternalName", externalName="inner.shop.svc.cluster.local"),
    service("lost", type="ExternalName", externalName="nosuch.shop.svc.cluster.local"),
    service("loop-a", type="ExternalName", externalName="loop-b.shop.svc.cluster.local"),
    service("loop-b", type="ExternalName", externalName="loop-a.shop.svc.cluster.local"),
    endpoint_slice("web-1", "web", endpoint("10.244.0.5"), endpoint("10.244.0.6", hostname="one"), ports=(HTTP,)),
    endpoint_slice(
        "db-1",
        "db",
        endpoint("10.244.0.7", pod="db-0", hostname="db-0"),
        endpoint("10.244.0.8", pod="db-1", ready=None),
        endpoint("10.244.0.9", ready=False),
        ports=(("pg", "TCP", 15432), ("", "TCP", 1)),
    ),
    endpoint_slice("db-2", "db", endpoint("10.244.0.7", hostname="db-0"), ports=(("pg", "TCP", 15432),)),
    endpoint_slice(
        "db-3", "db", endpoint("fd00:244::7", hostname="db-0"), ports=(("pg", "TCP", 15432),), family="IPv6"
    ),
    endpoint_slice("db-4", "db", endpoint("fd00:244::", "fd00:244::8"), ports=(("pg", "TCP", 25432),), family="IPv6"),
    endpoint_slice("db-5", "db", endpoint("db.example.com"), ports=(("pg", "TCP", 1),), family="FQDN"),
    endpoint_slice("cold-1", "cold", endpoint("10.244.0.20", ready=False, serving=True), ports=(HTTP,)),
    endpoint_slice("bare-1", "bare", endpoint("10.244.0.21")),
    endpoint_slice("v4only-1", "v4only", endpoint("10.244.0.22"), ports=(("http", "TCP", 8080),)),
    endpoint_slice("stray", "", endpoint("10.244.0.23")),
    endpoint_slice("elsewhere", "db", endpoint("10.244.9.9"), namespace="empty"),
)
"""Every kind of Service that names tell apart."""


class ListWatchClient:
    """As much of a `Client` as informers use, over objects given to it."""

    def __init__(self, *objects: Typed) -> None:
        self.objects: dict[str, dict[tuple[str, str], bytes]] = {}
        self.watches: dict[str, list[asyncio.Queue[WatchEvent]]] = {}
        self.version = 1
        self.gate = asyncio.Event()
        """Lists are answered once this is set."""
        self.gate.set()
        for obj in objects:
            self.put(obj)

    def _raw(self, obj: Typed) -> bytes:
        self.version += 1
        form = plain(obj)
        form["metadata"] |= {"resourceVersion": str(self.version), "uid": f"{obj.namespace}/{obj.name}"}
        return msgspec.json.encode(form)

    def put(self, obj: Typed) -> None:
        of_kind = self.objects.setdefault(type(obj).__name__, {})
        key = (obj.namespace, obj.name)
        known = key in of_kind
        of_kind[key] = self._raw(obj)
        self._tell(obj, WatchEvent("MODIFIED" if known else "ADDED", of_kind[key]))

    def remove(self, obj: Typed) -> None:
        del self.objects[type(obj).__name__][obj.namespace, obj.name]
        self._tell(obj, WatchEvent("DELETED", self._raw(obj)))

    def _tell(self, obj: Typed, event: WatchEvent) -> None:
        for queue in self.watches.get(type(obj).__name__, ()):
            queue.put_nowait(event)

    async def list_raw(self, kind: Kind, namespace: str = "", **_: Any) -> RawList:
        await self.gate.wait()
        return RawList(str(self.version), list(self.objects.get(kind.name, {}).values()))

    async def watch(self, kind: Kind, namespace: str = "", **_: Any) -> AsyncIterator[WatchEvent]:
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        self.watches.setdefault(kind.name, []).append(queue)
        while True:
            yield await queue.get()
