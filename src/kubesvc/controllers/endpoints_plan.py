"""What the Endpoints of a Service should be, and whether that is worth a write (EP-7 to EP-21). Pure.

`desired_subsets` puts pods into subsets, `repacked` is also what mirroring starts from (MIRROR-5), `truncated` holds
the capacity, `plan_endpoints` puts it all together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kubesvc.api.endpoints import EndpointAddress, EndpointPort, Endpoints, EndpointSubset
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.pod import Pod
from kubesvc.api.service import HEADLESS, Service

from .pod_endpoints import (
    PodFacts,
    Port,
    Ports,
    fixed_ports,
    hostname,
    needs_headless_label,
    pod_reference,
    primary_family,
    resolved_ports,
)
from .trigger_time import LAST_CHANGE_TRIGGER_TIME

CAPACITY = 1000
"""Addresses in one Endpoints, ready or not (EP-18)."""
MANAGED_BY_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGED_BY = "endpoint-controller"
HEADLESS_LABEL = "service.kubernetes.io/headless"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True)
class Place:
    """One address as it goes into Endpoints, and whether it is ready."""

    address: EndpointAddress
    ready: bool


AddressKey = tuple[str, str]
"""IP and uid of the target: what makes two addresses the same (EP-13)."""
Readiness = dict[AddressKey, bool]


def address_key(address: EndpointAddress) -> AddressKey:
    return (address.ip, address.target_ref.uid if address.target_ref else "")


def place_of(service: Service, pod: Pod, facts: PodFacts) -> Place | None:
    """Where and how a pod stands in the Endpoints of a Service; None if it does not (EP-7 to EP-10)."""
    publish = service.spec.publish_not_ready_addresses
    if facts.terminating and not publish:
        return None
    family = primary_family(service, facts)
    ip = next((ip for f, ip in facts.addresses if f == family), "")
    if not ip:
        return None
    address = EndpointAddress(
        ip=ip,
        hostname=hostname(pod, service),
        node_name=pod.spec.node_name or None,
        target_ref=pod_reference(pod),
    )
    return Place(address, publish or facts.ready)


def desired_subsets(service: Service, pods: Iterable[tuple[Pod, Place | None]]) -> list[EndpointSubset]:
    """The subsets of a Service, repacked, over its pods with their places (EP-11 to EP-14)."""
    portless = not service.spec.ports
    if portless and service.spec.cluster_ip != HEADLESS:
        return []
    fixed = fixed_ports(service)
    groups: dict[Ports, list[Place]] = {}
    for pod, place in pods:
        if place is None:
            continue
        ports = fixed if fixed is not None else resolved_ports(service, pod)
        if ports or portless:
            groups.setdefault(ports, []).append(place)
    return pack((port, place) for ports, places in groups.items() for port in ports or (None,) for place in places)


def pack(pairs: Iterable[tuple[Port | None, Place]]) -> list[EndpointSubset]:
    """Subsets out of (port, address) pairs: ports with the same addresses in the same readiness share one (EP-13).

    A port of None stands for "no ports". An address that is not ready in one of the pairs of a port is not ready there.
    """
    addresses: dict[AddressKey, EndpointAddress] = {}
    by_port: dict[Port | None, Readiness] = {}
    for port, place in pairs:
        key = address_key(place.address)
        addresses.setdefault(key, place.address)
        readiness = by_port.setdefault(port, {})
        readiness[key] = readiness.get(key, True) and place.ready
    ports_of: dict[tuple[tuple[AddressKey, bool], ...], list[Port | None]] = {}
    for port in sorted(by_port, key=lambda p: p or ("", -1, "", "")):
        ports_of.setdefault(tuple(sorted(by_port[port].items())), []).append(port)
    return [
        EndpointSubset(
            addresses=[addresses[key] for key, ready in readiness if ready] or None,
            not_ready_addresses=[addresses[key] for key, ready in readiness if not ready] or None,
            ports=[endpoint_port(p) for p in ports if p is not None] or None,
        )
        for readiness, ports in ports_of.items()
    ]


def endpoint_port(port: Port) -> EndpointPort:
    return EndpointPort(name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol or None)


def repacked(subsets: Sequence[EndpointSubset]) -> list[EndpointSubset]:
    """Any subsets in the form that `pack` gives; subsets without an address vanish."""
    return pack(
        (port, Place(address, ready))
        for subset in subsets
        for port in ports_in(subset)
        for ready, listed in ((True, subset.addresses), (False, subset.not_ready_addresses))
        for address in listed or ()
    )


def ports_in(subset: EndpointSubset) -> Sequence[Port | None]:
    found = [Port(p.name, p.port, p.protocol or "TCP", p.app_protocol or "") for p in subset.ports or ()]
    return found or (None,)


def address_count(subsets: Sequence[EndpointSubset] | None) -> int:
    return sum(len(s.addresses or ()) + len(s.not_ready_addresses or ()) for s in subsets or ())


def truncated(subsets: Sequence[EndpointSubset], capacity: int = CAPACITY) -> list[EndpointSubset]:
    """At most `capacity` addresses: ready ones before others, each subset its share, rounded up (EP-18, EP-19)."""
    if address_count(subsets) <= capacity:
        return list(subsets)
    ready_total = sum(len(s.addresses or ()) for s in subsets)
    if ready_total > capacity:
        shares = share([len(s.addresses or ()) for s in subsets], capacity)
        cut = [
            msgspec.structs.replace(s, addresses=(s.addresses or [])[:most] or None, not_ready_addresses=None)
            for s, most in zip(subsets, shares, strict=True)
        ]
    else:
        shares = share([len(s.not_ready_addresses or ()) for s in subsets], capacity - ready_total)
        cut = [
            msgspec.structs.replace(s, not_ready_addresses=(s.not_ready_addresses or [])[:most] or None)
            for s, most in zip(subsets, shares, strict=True)
        ]
    return [s for s in cut if s.addresses or s.not_ready_addresses]


def share(counts: Sequence[int], room: int) -> list[int]:
    """`room` split in proportion to `counts`, each part rounded up while room is left."""
    total = sum(counts)
    left = room
    shares = []
    for count in counts:
        part = min(left, math.ceil(count / total * room)) if total else 0
        shares.append(part)
        left -= part
    return shares


def desired_labels(service: Service) -> dict[str, str]:
    """EP-15."""
    labels = {k: v for k, v in (service.metadata.labels or {}).items() if k != HEADLESS_LABEL}
    labels[MANAGED_BY_LABEL] = MANAGED_BY
    if needs_headless_label(service):
        labels[HEADLESS_LABEL] = ""
    return labels


def plan_endpoints(
    service: Service,
    subsets: Sequence[EndpointSubset],
    existing: Endpoints | None,
    trigger_time: str,
) -> Endpoints | None:
    """The Endpoints to write, or None if the existing one will do (EP-15 to EP-21).

    subsets:      as `desired_subsets` gives them, before truncation
    existing:     the object in the cache; with its resourceVersion the result is an update, without one a create
    trigger_time: for the annotation; "" removes it
    """
    labels = desired_labels(service)
    if existing is not None and is_right(existing, subsets, labels):
        return None
    annotations = dict((existing.metadata.annotations if existing else None) or {})
    annotations.pop(LAST_CHANGE_TRIGGER_TIME, None)
    annotations.pop(OVER_CAPACITY, None)
    if trigger_time:
        annotations[LAST_CHANGE_TRIGGER_TIME] = trigger_time
    if address_count(subsets) > CAPACITY:
        annotations[OVER_CAPACITY] = TRUNCATED
    meta = existing.metadata if existing else ObjectMeta(name=service.name, namespace=service.namespace)
    return Endpoints(
        metadata=msgspec.structs.replace(meta, labels=labels, annotations=annotations or None),
        subsets=truncated(subsets) or None,
    )


def is_right(existing: Endpoints, subsets: Sequence[EndpointSubset], labels: Mapping[str, str]) -> bool:
    """Whether a write would bring nothing (EP-17)."""
    return (
        without(existing.metadata.labels, HEADLESS_LABEL) == without(labels, HEADLESS_LABEL)
        and capacity_annotation_is_right(existing)
        and same_subsets(existing.subsets or (), subsets)
    )


def capacity_annotation_is_right(existing: Endpoints) -> bool:
    annotated = existing.metadata.annotation(OVER_CAPACITY) == TRUNCATED
    if address_count(existing.subsets) > CAPACITY:
        return annotated
    return OVER_CAPACITY not in (existing.metadata.annotations or {})


def same_subsets(stored: Sequence[EndpointSubset], wanted: Sequence[EndpointSubset]) -> bool:
    """Whether both say the same, leaving aside order and the resourceVersion of targets."""
    if list(stored) == list(wanted):
        return True
    if differ_at_sight(stored, wanted):
        return False
    return summary(repacked(stored)) == summary(repacked(wanted))


def differ_at_sight(stored: Sequence[EndpointSubset], wanted: Sequence[EndpointSubset]) -> bool:
    """Whether subsets of the same ports hold other addresses, which packing anew could not make equal.

    The common case of one pod's change, told without packing. `wanted` is packed; of `stored` each list must be free
    of repeats for the answer to be certain.
    """
    if [s.ports for s in stored] != [s.ports for s in wanted]:
        return False
    for s, w in zip(stored, wanted, strict=True):
        have = [address_key(a) for a in (*(s.addresses or ()), *(s.not_ready_addresses or ()))]
        if len(set(have)) == len(have) and (
            len(s.addresses or ()) != len(w.addresses or ())
            or set(have) != {address_key(a) for a in (*(w.addresses or ()), *(w.not_ready_addresses or ()))}
        ):
            return True
    return False


def summary(subsets: Sequence[EndpointSubset]) -> dict[Ports, dict[tuple[object, ...], None]]:
    """Subsets as values whose order does not matter."""
    return {
        tuple(p for p in ports_in(s) if p is not None): dict.fromkeys(
            sorted(
                (ready, a.ip, a.hostname, a.node_name or "", *target(a))
                for ready, listed in ((True, s.addresses), (False, s.not_ready_addresses))
                for a in listed or ()
            )
        )
        for s in subsets
    }


def target(address: EndpointAddress) -> tuple[str, str, str, str]:
    ref = address.target_ref
    return (ref.kind, ref.namespace, ref.name, ref.uid) if ref else ("", "", "", "")


def without(labels: Mapping[str, str] | None, key: str) -> dict[str, str]:
    return {k: v for k, v in (labels or {}).items() if k != key}
