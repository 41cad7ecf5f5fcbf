"""What names are made of: Services, slices and namespaces, indexed for looking up and kept up change by change.

A change costs as much as the object it concerns is large. What a Service publishes is worked out when it is first
asked for after a change, and kept.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from kubesvc.api.endpointslice import Endpoint, EndpointSlice
from kubesvc.api.namespace import Namespace
from kubesvc.api.pod import Pod
from kubesvc.api.service import Service

Key = tuple[str, str]
"""Namespace and name."""

SERVICE_NAME = "kubernetes.io/service-name"
"""The label that joins a slice to its Service (DNS-4)."""

LONGEST_LABEL = 63
MOST_STAMPS = 20_000
"""Services whose last change is remembered one by one."""


class Port(NamedTuple):
    """A port as SRV names show it: name and protocol in lower case."""

    name: str
    protocol: str
    number: int


class Published(NamedTuple):
    """One address of one ready endpoint.

    label:   what stands left of the Service's name (DNS-18), in the slice's spelling
    address: 4 or 16 bytes
    """

    label: str
    address: bytes
    ports: tuple[Port, ...]


def packed(text: str) -> bytes:
    """The address as bytes; b"" if it is none. IPv4-mapped ones count as the IPv4 address they mean."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return b""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return b""
        mapped = address.ipv4_mapped
        return mapped.packed if mapped else address.packed
    return address.packed


def ready(endpoint: Endpoint) -> bool:
    """Ready, or nothing said about it; serving and terminating are not looked at (DNS-2)."""
    return endpoint.conditions is None or endpoint.conditions.ready is not False


def label_of(endpoint: Endpoint, address: str, pod_names: bool) -> str:
    """The endpoint's label (DNS-18): its hostname, its Pod's name where that is wanted and fits, or its address."""
    if endpoint.hostname:
        return endpoint.hostname
    if pod_names and endpoint.target_ref and 0 < len(endpoint.target_ref.name) <= LONGEST_LABEL:
        return endpoint.target_ref.name
    if ":" not in address:
        return address.replace(".", "-")
    dashed = address.replace(":", "-")
    return dashed + "0" if dashed.endswith("-") else dashed


def published(slices: Iterable[EndpointSlice], pod_names: bool) -> tuple[Published, ...]:
    """Every address of every ready endpoint, each label and address once, in order of the slices (DNS-4, DNS-5).

    An address listed again, in another slice perhaps, adds its ports to the first mention.
    """
    found: dict[tuple[str, bytes], dict[Port, None]] = {}
    for s in slices:
        if s.address_type == "FQDN":
            continue
        ports = [Port((p.name or "").lower(), (p.protocol or "TCP").lower(), p.port) for p in s.ports or () if p.port]
        for endpoint in s.endpoints or ():
            if not ready(endpoint):
                continue
            for address in endpoint.addresses or ():
                if raw := packed(address):
                    known = found.setdefault((label_of(endpoint, address, pod_names), raw), {})
                    known.update(dict.fromkeys(ports))
    return tuple(Published(label, address, tuple(ports)) for (label, address), ports in found.items())


class Snapshot:
    """The state that answers are made from. `records.answer_for` only reads it; the server's handlers feed it.

    version: grows with every change that could change an answer
    serial:  Unix seconds of the last such change, for the SOA record (DNS-36)
    synced:  whether all lists are in; before that, nothing is known not to exist (DNS-42)
    """

    def __init__(self, *, pod_names: bool = False) -> None:
        """pod_names: label endpoints by their Pod's name instead of the dashed address"""
        self.pod_names = pod_names
        self.version = 0
        self.general = 0
        """Version of the last change that concerned more than one Service's own names."""
        self.stamps: dict[Key, int] = {}
        """Version of the last change of each Service and its slices; one that is missing did not change since
        `general`."""
        self.serial = 0
        self.synced = False
        self.namespaces: set[str] = set()
        self.services: dict[Key, Service] = {}
        self.slices: dict[Key, dict[str, EndpointSlice]] = {}
        """Slices by namespace and Service name, then by their own name."""
        self.cluster_addresses: dict[bytes, dict[Key, None]] = {}
        self.endpoint_addresses: dict[bytes, dict[Key, int]] = {}
        """Services that list an address, ready or not, and how many times."""
        self.pods: dict[Key, dict[str, None]] = {}
        """Names of running Pods by namespace and address."""
        self._published: dict[Key, tuple[Published, ...]] = {}

    def mark_synced(self, now: float) -> None:
        self.synced = True
        self._changed(now)

    def _changed(self, now: float, *services: Key) -> None:
        """Note a change of the names of `services` only; without any, of everything."""
        self.version += 1
        self.serial = int(now)
        for key in services:
            self.stamps[key] = self.version
        if not services or len(self.stamps) > MOST_STAMPS:
            self.general = self.version
            self.stamps.clear()

    def holds(self, key: Key, version: int) -> bool:
        """Whether what was true of a Service's names at `version` still is."""
        return self.general <= version and self.stamps.get(key, 0) <= version

    # Feeding: (old, new) as informers tell them, and the time in Unix seconds

    def namespace_changed(self, old: Namespace | None, new: Namespace | None, now: float) -> None:
        if new is None and old is not None:
            self.namespaces.discard(old.name)
        elif new is not None and new.name not in self.namespaces:
            self.namespaces.add(new.name)
        else:
            return
        self._changed(now)

    def service_changed(self, old: Service | None, new: Service | None, now: float) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        if old is not None:
            key = (old.namespace, old.name)
            self.services.pop(key, None)
            for address in map(packed, old.addresses):
                owners = self.cluster_addresses.get(address, {})
                owners.pop(key, None)
                if not owners:
                    self.cluster_addresses.pop(address, None)
        if new is not None:
            key = (new.namespace, new.name)
            self.services[key] = new
            for address in map(packed, new.addresses):
                if address:
                    self.cluster_addresses.setdefault(address, {})[key] = None
        self._changed(now, *((s.namespace, s.name) for s in (old or new,) if s is not None))

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None, now: float) -> None:
        if old is not None and new is not None and self._same(old, new):
            return
        concerned: dict[Key, None] = {}
        for s, step in ((old, -1), (new, 1)):
            service = s.metadata.label(SERVICE_NAME) if s is not None else ""
            if s is None or not service:
                continue
            key = (s.namespace, service)
            concerned[key] = None
            self._published.pop(key, None)
            slices = self.slices.setdefault(key, {})
            if step > 0:
                slices[s.name] = s
            else:
                slices.pop(s.name, None)
                if not slices:
                    del self.slices[key]
            for endpoint in s.endpoints or ():
                for address in map(packed, endpoint.addresses or ()):
                    self._count(address, key, step)
        if concerned:
            self._changed(now, *concerned)

    @staticmethod
    def _same(old: EndpointSlice, new: EndpointSlice) -> bool:
        return (
            old.endpoints == new.endpoints
            and old.ports == new.ports
            and old.metadata.label(SERVICE_NAME) == new.metadata.label(SERVICE_NAME)
        )

    def _count(self, address: bytes, key: Key, step: int) -> None:
        if not address:
            return
        listing = self.endpoint_addresses.setdefault(address, {})
        listing[key] = listing.get(key, 0) + step
        if listing[key] <= 0:
            del listing[key]
        if not listing:
            del self.endpoint_addresses[address]

    def pod_changed(self, old: Pod | None, new: Pod | None, now: float) -> None:
        """Only fed where Pod names are verified (DNS-30)."""
        before, after = self._pod_keys(old), self._pod_keys(new)
        if before == after:
            return
        for key in before:
            names = self.pods.get(key, {})
            names.pop(old.name if old else "", None)
            if not names:
                self.pods.pop(key, None)
        for key in after:
            self.pods.setdefault(key, {})[new.name if new else ""] = None
        self._changed(now)

    @staticmethod
    def _pod_keys(pod: Pod | None) -> list[Key]:
        if pod is None or pod.status.phase in ("Succeeded", "Failed"):
            return []
        addresses = [a.ip for a in pod.status.pod_ips or ()] or [pod.status.pod_ip]
        return [(pod.namespace, raw.hex()) for raw in map(packed, addresses) if raw]

    # Reading

    def published(self, key: Key) -> tuple[Published, ...]:
        """What the slices of a Service publish, ordered by slice name so that it does not depend on arrival."""
        found = self._published.get(key)
        if found is None:
            slices = self.slices.get(key, {})
            found = published((slices[name] for name in sorted(slices)), self.pod_names)
            self._published[key] = found
        return found

    def has_namespace(self, namespace: str) -> bool:
        return namespace in self.namespaces

    def has_pod(self, namespace: str, address: bytes) -> bool:
        return (namespace, address.hex()) in self.pods
