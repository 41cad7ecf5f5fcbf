"""Endpoints: the addresses behind a Service in one object, grouped by port set (EPAPI)."""

from __future__ import annotations

from typing import ClassVar

from . import addresses, fields, names, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, ObjectReference, Struct, Typed


class EndpointAddress(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("ip",)

    ip: str = ""
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("port",)

    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSubset(Struct, frozen=True):
    addresses: list[EndpointAddress] | None = None
    not_ready_addresses: list[EndpointAddress] | None = None
    ports: list[EndpointPort] | None = None


class Endpoints(Typed, frozen=True):
    subsets: list[EndpointSubset] | None = None


def default(obj: Object) -> None:
    """Ports are TCP; empty lists vanish (EPAPI-2)."""
    shape.normalize(obj, Endpoints)
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def validate(obj: Object, _: Situation) -> Errors:
    """Every subset has an address, every address can be reached, every port is one (EPAPI-3 to EPAPI-6)."""
    errors: Errors = []
    for i, subset in enumerate(obj.get("subsets") or ()):
        path = Path("subsets") @ i
        ready, not_ready = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
        ports = subset.get("ports") or []
        if not ready and not not_ready:
            errors.append(fields.required(path, "must specify `addresses` or `notReadyAddresses`"))
        for name, listed in (("addresses", ready), ("notReadyAddresses", not_ready)):
            for j, address in enumerate(listed):
                if not is_sound(address):
                    errors += address_errors(path / name @ j, address)
        for j, port in enumerate(ports):
            errors += port_errors(path / "ports" @ j, port, named=len(ports) > 1)
    return errors


def is_sound(address: Object) -> bool:
    """Whether an address is an ordinary one that nothing is wrong with. An Endpoints is always written whole."""
    ip, node = address.get("ip") or "", address.get("nodeName")
    if addresses.faults(ip) or addresses.reserved_faults(ip) or address.get("hostname"):
        return False
    return node is None or names.is_subdomain(node)


def address_errors(path: Path, address: Object) -> Errors:
    ip = address.get("ip") or ""
    errors = [fields.invalid(path / "ip", ip, text) for text in addresses.errors(ip)]
    if hostname := address.get("hostname"):
        errors += [fields.invalid(path / "hostname", hostname, text) for text in names.dns_label(hostname)]
    if (node := address.get("nodeName")) is not None:
        errors += [fields.invalid(path / "nodeName", node, text) for text in names.dns_subdomain(node)]
    return errors + [fields.invalid(path / "ip", ip, text) for text in addresses.reserved(ip)]


PROTOCOLS = ("SCTP", "TCP", "UDP")


def port_errors(path: Path, port: Object, *, named: bool) -> Errors:
    errors: Errors = []
    name, number = port.get("name") or "", port.get("port") or 0
    if name:
        errors += [fields.invalid(path / "name", name, text) for text in names.dns_label(name)]
    elif named:
        errors.append(fields.required(path / "name"))
    errors += [fields.invalid(path / "port", number, text) for text in names.port_number(number)]
    protocol = port.get("protocol") or ""
    if not protocol:
        errors.append(fields.required(path / "protocol"))
    elif protocol not in PROTOCOLS:
        errors.append(fields.not_supported(path / "protocol", protocol, PROTOCOLS))
    if (app := port.get("appProtocol")) is not None:
        errors += [fields.invalid(path / "appProtocol", app, text) for text in names.qualified_name(app)]
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """Subsets that stay as they were are not looked at again (EPAPI-7)."""
    if (new.get("subsets") or []) == (old.get("subsets") or []):
        return []
    return validate(new, situation)


def warn(new: Object, _: Object | None) -> list[str]:
    """Addresses and so on that would be better written otherwise (SVC-40)."""
    found = []
    for i, subset in enumerate(new.get("subsets") or ()):
        for name in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(name) or ()):
                ip = address.get("ip") or ""
                if ":" in ip:  # of IPv4 there is nothing to say
                    found.append(addresses.warning(f"subsets[{i}].{name}[{j}].ip", ip))
    return [text for text in found if text]


def endpoints_text(endpoints: Endpoints) -> str:
    """Up to three `ip:port`, ready ones only, and how many more there are (KCTL-49)."""
    if not endpoints.subsets:
        return "<none>"
    found: list[str] = []
    for subset in endpoints.subsets:
        if not subset.ports:
            found += [a.ip for a in subset.addresses or ()]
        for port in subset.ports or ():
            found += [addresses.endpoint_text(a.ip, port.port) for a in subset.addresses or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more


ENDPOINTS = Kind(
    group="",
    version="v1",
    name="Endpoints",
    plural="endpoints",
    singular="endpoints",
    short_names=("ep",),
    namespaced=True,
    type=Endpoints,
    schema="io.k8s.api.core.v1.Endpoints",
    create_on_put=True,
    default=default,
    validate=validate,
    validate_update=validate_update,
    warn=warn,
    columns=(
        Column("Name", lambda e: e.name, format="name"),
        Column("Endpoints", endpoints_text),
        Column("Age", lambda e: Since(e.metadata.creation_timestamp)),
    ),
)
