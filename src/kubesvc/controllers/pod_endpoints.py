"""What a pod contributes to a Service: addresses, ports, conditions, host name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from kubesvc.api import addresses, fields
from kubesvc.api.endpointslice import EndpointConditions
from kubesvc.api.meta import ObjectReference
from kubesvc.api.pod import Pod
from kubesvc.api.service import HEADLESS, Service, ServicePort
from kubesvc.client.informer import Index, Informer

from .trigger_time import moment


class Port(NamedTuple):
    """One port as a pod resolves it; `app_protocol` is "" when the Service names none."""

    name: str
    port: int
    protocol: str
    app_protocol: str


Ports = tuple[Port, ...]
"""A port set: sorted, so that equal sets are equal values (SLICE-16, SLICE-17)."""

IPV4, IPV6 = "IPv4", "IPv6"


class PodFacts(NamedTuple):
    """What the plans ask of a pod, worked out once for each of its states."""

    ready: bool
    terminating: bool
    addresses: tuple[tuple[str, str], ...]
    """(family, canonical address) in the pod's order; empty if it has none or has run to its end (EP-7, SLICE-11)."""
    trigger: str
    """When Ready last changed, "" if it does not say (EP-21)."""
    odd: tuple[str, ...] = ()
    """Its addresses that are none, each with its field."""


def facts_of(pod: Pod) -> PodFacts:
    """Read a pod once."""
    condition = pod.status.condition("Ready")
    given = () if pod.terminal else pod.ips
    found = tuple(f for ip in given if (f := canonical_address(ip)) is not None)
    return PodFacts(
        ready=condition is not None and condition.status == "True",
        terminating=pod.terminating,
        addresses=found,
        trigger=moment(condition.last_transition_time) if condition is not None else "",
        odd=odd_addresses(pod) if len(found) < len(given) else (),
    )


def odd_addresses(pod: Pod) -> tuple[str, ...]:
    """`status.podIPs[1].ip: "300.1.1.1"` for each address of a pod that is none."""
    listed = [(f"status.podIPs[{i}].ip", p.ip) for i, p in enumerate(pod.status.pod_ips or ()) if p.ip]
    listed = listed or [("status.podIP", pod.status.pod_ip)]
    return tuple(f"{field}: {fields.quote(ip)}" for field, ip in listed if canonical_address(ip) is None)


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> tuple[str, str] | None:
    """(family, address as the API prints it); None for a text that is no address."""
    found = addresses.parse_leniently(text)
    if found is None:
        return None
    canonical = str(found)
    return IPV4 if found.version == 4 else IPV6, text if text == canonical else canonical  # keep one text of the two


def selects(service: Service) -> bool:
    """Whether the endpoints of this Service are the controllers' to write (EP-6, SLICE-8)."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def needs_headless_label(service: Service) -> bool:
    """clusterIP None or empty (EP-15, SLICE-32)."""
    return service.spec.cluster_ip in ("", HEADLESS)


def conditions(facts: PodFacts, publish_not_ready: bool) -> EndpointConditions:
    """Always all three (SLICE-14)."""
    return CONDITIONS[(publish_not_ready or (facts.ready and not facts.terminating), facts.ready, facts.terminating)]


CONDITIONS = {
    (r, s, t): EndpointConditions(ready=r, serving=s, terminating=t)
    for r in (False, True)
    for s in (False, True)
    for t in (False, True)
}


def hostname(pod: Pod, service: Service) -> str:
    """The pod's name within this Service's domain, "" if it asked for none (EP-9)."""
    return pod.spec.hostname if pod.spec.hostname and pod.spec.subdomain == service.name else ""


def pod_reference(pod: Pod) -> ObjectReference:
    """targetRef of the pod's endpoints, without resourceVersion (EP-9, SLICE-13)."""
    return ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid)


def fixed_ports(service: Service) -> Ports | None:
    """The port set that every pod resolves alike; None if some port goes by name and each pod decides."""
    if any(isinstance(p.target_port, str) for p in service.spec.ports or ()):
        return None
    return port_set(_port(p, _number(p)) for p in service.spec.ports or ())


def resolved_ports(service: Service, pod: Pod) -> Ports:
    """The Service's ports on this pod; those that the pod does not have are left out (EP-11, SLICE-15)."""
    found = []
    for port in service.spec.ports or ():
        number = resolved_number(port, pod)
        if number is not None:
            found.append(_port(port, number))
    return port_set(found)


def resolved_number(port: ServicePort, pod: Pod) -> int | None:
    """A number as it is; a name by the first container port of that name and protocol, sidecars last (EP-11)."""
    if not isinstance(port.target_port, str):
        return _number(port)
    for container in (*(pod.spec.containers or ()), *pod.spec.sidecars):
        for candidate in container.ports or ():
            if candidate.name == port.target_port and (candidate.protocol or "TCP") == (port.protocol or "TCP"):
                number: int = candidate.container_port
                return number
    return None


def port_set(ports: Iterable[Port]) -> Ports:
    return tuple(sorted(set(ports)))


def _number(port: ServicePort) -> int:
    assert not isinstance(port.target_port, str)
    return port.target_port or port.port


def _port(port: ServicePort, number: int) -> Port:
    return Port(port.name, number, port.protocol or "TCP", port.app_protocol or "")


def primary_family(service: Service, facts: PodFacts) -> str:
    """The family whose addresses Endpoints shows (EP-8); "" if nothing tells."""
    if service.spec.ip_families:
        return service.spec.ip_families[0]
    if (found := canonical_address(service.spec.cluster_ip)) is not None:
        return found[0]
    return facts.addresses[0][0] if facts.addresses else ""


def address_types(service: Service) -> tuple[str, ...]:
    """The families that get slices (SLICE-10)."""
    if service.spec.ip_families:
        return tuple(service.spec.ip_families)
    if (found := canonical_address(service.spec.cluster_ip)) is not None:
        return (found[0],)
    return (IPV4, IPV6)


class PodLookup:
    """The pods of a Service, by an index over labels: the rarest pair of the selector is asked first."""

    def __init__(self, pods: Informer[Pod]) -> None:
        self._index: Index[Pod] = pods.index("label", pod_labels)

    def matching(self, service: Service) -> Sequence[Pod]:
        """In order of names."""
        selector = service.spec.selector or {}
        pairs = [label_value(service.namespace, k, v) for k, v in sorted(selector.items())]
        if not pairs:
            return ()
        rarest = min(pairs, key=self._index.count)
        found = self._index.get(rarest)
        if len(pairs) == 1:
            return found
        for key, value in selector.items():
            if label_value(service.namespace, key, value) != rarest:
                found = [pod for pod in found if pod.metadata.labels and pod.metadata.labels.get(key) == value]
        return found


def pod_labels(pod: Pod) -> list[str]:
    """Values of the label index."""
    return [label_value(pod.namespace, k, v) for k, v in (pod.metadata.labels or {}).items()]


def label_value(namespace: str, key: str, value: str) -> str:
    return f"{namespace}\0{key}\0{value}"
