"""What DNS says to a Service's name, and traps of names (EP701 to EP705). Pure; `dns.explain` gives the answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubesvc.api.endpointslice import ENDPOINT_SLICE, EndpointSlice
from kubesvc.api.meta import typed
from kubesvc.api.namespace import Namespace
from kubesvc.api.service import SERVICE, Service
from kubesvc.dns import wire
from kubesvc.dns.explain import CLUSTER_NDOTS, Step, explain_name
from kubesvc.dns.records import Zone
from kubesvc.dns.snapshot import Snapshot as Names

from . import commands
from .diagnosis import Diagnosis, Finding, Link
from .nearest import nearest
from .planned import STAND_INS
from .reach import Rules
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

ZONE = Zone()
SYSTEM, DNS_SERVICE = "kube-system", "kube-dns"


def names_of(
    namespaces: Iterable[str], services: Iterable[Service], slices: Iterable[EndpointSlice], now: float
) -> Names:
    """The DNS server's own snapshot of these objects."""
    names = Names()
    for namespace in namespaces:
        names.namespace_changed(None, typed({"metadata": {"name": namespace}}, Namespace), now)
    for service in services:
        names.service_changed(None, service, now)
    for s in slices:
        names.slice_changed(None, s, now)
    names.mark_synced(now)
    return names


def searches(namespace: str) -> list[str]:
    """The search list of a Pod with cluster settings."""
    return [f"{namespace}.svc.{ZONE.text}", f"svc.{ZONE.text}", ZONE.text]


def ask(name: str, namespace: str, names: Names, type_: int = wire.A) -> list[Step]:
    """What the resolver of a Pod in `namespace` does with a name; ValueError if it is no name."""
    return explain_name(name, type_, searches(namespace), CLUSTER_NDOTS, names, ZONE)


def look(service: Service, slices: Sequence[EndpointSlice], snapshot: Snapshot) -> Rules:
    """The last link: the name, and whether anybody answers it."""
    names = names_of([service.namespace], [service], slices, snapshot.now)
    full = f"{service.name}.{service.namespace}.svc.{ZONE.text}."
    families = service.spec.ip_families or []
    type_ = wire.AAAA if families and families[0] == "IPv6" else wire.A
    step = ask(full, service.namespace, names, type_)[-1]
    text = f"{full[:-1]}: {', '.join(step.records[:3]) or step.outcome} ({step.reason})"
    findings = server(snapshot)
    if findings:
        return Rules(Link("name", "broken", "cluster DNS does not answer"), findings)
    known = (SYSTEM, DNS_SERVICE) in snapshot.services
    if snapshot.source == "manifests" and not known and step.records:
        given = service.spec.cluster_ip in STAND_INS
        return Rules(Link("name", "ok", f"{full[:-1]} would lead to its address" if given else text))
    if not step.records:
        return Rules(Link("name", "broken", text))
    return Rules(Link("name", "ok" if known else "unknown", text + ("" if known else "; who answers DNS is not known")))


def server(snapshot: Snapshot) -> list[Finding]:
    """EP703: the Service of cluster DNS is there, and nothing ready behind it."""
    service = snapshot.services.get((SYSTEM, DNS_SERVICE))
    if service is None or snapshot.source == "manifests":
        return []
    slices = snapshot.slices.get((SYSTEM, DNS_SERVICE), ())
    if any(e.ready for s in slices for e in s.endpoints or ()) or not snapshot.knows(ENDPOINT_SLICE):
        return []
    if not slices and any(g.kind is SERVICE for g in snapshot.gaps):
        return []
    return [
        Finding(
            "EP703",
            "broken",
            f"cluster DNS has no ready endpoint (svc/{DNS_SERVICE} in {SYSTEM}), so no Pod can resolve names",
            commands.kubectl(SYSTEM, "get", "pods", "-l", "k8s-app=kube-dns", "-o", "wide"),
            False,
            (f"ready endpoints of svc/{DNS_SERVICE}: 0",),
        )
    ]


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip(".").strip("[]"))
    except ValueError:
        return False
    return True


def diagnose_external(service: Service, snapshot: Snapshot) -> Diagnosis:
    """A Service of type ExternalName: nothing but an alias."""
    ref, target = f"svc/{service.name}", service.spec.external_name
    findings = [f for f in (as_address(service), to_nowhere(service, snapshot)) if f is not None] + server(snapshot)
    broken = any(f.severity == "broken" for f in findings)
    chain = (
        Link("service", "ok", f"ExternalName {target}: an alias in DNS, no selector, no endpoints, no rules"),
        Link(
            "name", "broken" if broken else "ok", f"{service.name}.{service.namespace}.svc.{ZONE.text}: CNAME {target}"
        ),
    )
    if broken:
        verdict = f"{ref} does not resolve: {findings[0].text}"
    else:
        verdict = f"{ref} is an alias of {target}; whether that answers cannot be seen from here"
    return Diagnosis(
        f"{ref} in namespace {service.namespace}", "broken" if broken else "healthy", verdict, tuple(findings), chain,
        (), tuple(map(str, snapshot.gaps)),
    )  # fmt: skip


def as_address(service: Service) -> Finding | None:
    """EP702."""
    target = service.spec.external_name
    if not is_address(target):
        return None
    address = ipaddress.ip_address(target.strip(".").strip("[]"))
    family = f"IPv{address.version}"
    ports = [
        {"port": p.port, "protocol": p.protocol or "TCP", **({"name": p.name} if p.name else {})}
        for p in service.spec.ports or ()
    ]
    command = ""
    if ports:
        made = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service.name}-by-hand",
                "namespace": service.namespace,
                "labels": {"kubernetes.io/service-name": service.name},
            },
            "addressType": family,
            "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}}],
            "ports": [{"name": "", **p} for p in ports],
        }
        patch = {"spec": {"type": "ClusterIP", "externalName": None, "selector": None}}
        command = commands.both(commands.merge(service.namespace, "service", service.name, patch), commands.apply(made))
    return Finding(
        "EP702",
        "broken",
        f"its externalName {target} is an IP address, and DNS knows no alias to an address",
        command,
        bool(command),
        (f"spec.externalName: {target}",),
    )


def named_service(service: Service) -> tuple[str, str] | None:
    """Namespace and name of the Service of this cluster that an external name names, None if it names none."""
    target = service.spec.external_name.rstrip(".")
    labels = target.removesuffix(f".svc.{ZONE.text}").split(".")
    if not target.endswith(f".svc.{ZONE.text}") or len(labels) < 2:
        return None
    return labels[-1], labels[-2]


def to_nowhere(service: Service, snapshot: Snapshot) -> Finding | None:
    """EP705: an alias to a Service of this cluster that is not there."""
    target = service.spec.external_name.rstrip(".")
    key = named_service(service)
    if key is None or not snapshot.knows(SERVICE):
        return None
    if snapshot.has_service(key) or (key[0] != service.namespace and key[0] not in snapshot.namespaces_read):
        return None
    meant = nearest(key[1], [n for ns, n in snapshot.services if ns == key[0]])
    right = f"{meant}.{key[0]}.svc.{ZONE.text}"
    return Finding(
        "EP705",
        "broken",
        f"its externalName {target} names a Service that does not exist"
        + (f"; did you mean {right}?" if meant else ""),
        commands.merge(service.namespace, "service", service.name, {"spec": {"externalName": right}}) if meant else "",
        bool(meant),
        (f"spec.externalName: {service.spec.external_name}",),
    )
