"""EndpointSlice: a part of the endpoints behind a Service, of one address type and port set (SLAPI)."""

from __future__ import annotations

from typing import Any, ClassVar

from . import addresses, fields, names, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, ObjectReference, Struct, Typed

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"


class EndpointConditions(Struct, frozen=True):
    """None means absent; the properties of `Endpoint` say what that means (SLAPI-6)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""


class ForNode(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""


class EndpointHints(Struct, frozen=True):
    for_zones: list[ForZone] | None = None
    for_nodes: list[ForNode] | None = None


class Endpoint(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("addresses",)

    addresses: list[str] | None = None
    conditions: EndpointConditions | None = None
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    deprecated_topology: dict[str, str] | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None

    @property
    def address(self) -> str:
        """The one that consumers use (SLAPI-4); "" if there is none."""
        return self.addresses[0] if self.addresses else ""

    @property
    def ready(self) -> bool:
        return self.conditions is None or self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        if self.conditions is None or self.conditions.serving is None:
            return self.ready
        return self.conditions.serving

    @property
    def terminating(self) -> bool:
        return self.conditions is not None and self.conditions.terminating is True


class EndpointSlicePort(Struct, frozen=True):
    """name and protocol are never absent in what a server stores; port null means "all ports" (SLAPI-9)."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Typed, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("address_type", "endpoints", "ports")

    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointSlicePort] | None = None

    @property
    def service_name(self) -> str:
        """Name of the Service it belongs to; "" if to none (SLAPI-11)."""
        return self.metadata.label(SERVICE_NAME_LABEL)


def default(obj: Object) -> None:
    """Ports are TCP and have a name, even an empty one; empty lists are null (SLAPI-3, SLAPI-9)."""
    shape.normalize(obj, EndpointSlice)
    for port in obj.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if port.get("protocol") is None:
            port["protocol"] = "TCP"
    for part in ("endpoints", "ports"):
        obj[part] = obj.get(part) or None
    for endpoint in obj["endpoints"] or ():
        if endpoint.get("conditions") is None:
            endpoint["conditions"] = {}


def prepare_create(obj: Object) -> None:
    """`deprecatedTopology` cannot be set through v1 (SLAPI-7)."""
    for endpoint in obj.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


def prepare_update(new: Object, old: Object) -> None:
    """An endpoint that stays as it was keeps an old deprecatedTopology; any other loses it."""
    kept = old.get("endpoints") or []
    for i, endpoint in enumerate(new.get("endpoints") or ()):
        if i >= len(kept) or endpoint != kept[i]:
            endpoint.pop("deprecatedTopology", None)


def generation(new: Object, old: Object) -> bool:
    """Any change outside metadata, or of labels (META-7)."""
    new_labels = (new.get("metadata") or {}).get("labels") or {}
    old_labels = (old.get("metadata") or {}).get("labels") or {}
    return new_labels != old_labels or without_metadata(new) != without_metadata(old)


def without_metadata(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k != "metadata"}


ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
PROTOCOLS = ("SCTP", "TCP", "UDP")
MOST_ENDPOINTS = 1000
MOST_ADDRESSES = 100
MOST_PORTS = 20000
MOST_HINTS = 8


def validate(obj: Object, _: Situation) -> Errors:
    """SLAPI-2 to SLAPI-9, in upstream's order."""
    return address_type_errors(obj) + content_errors(obj, ())


def validate_update(new: Object, old: Object, _: Situation) -> Errors:
    """Endpoints that were stored already are not looked at again (SLAPI-10); the address type stays."""
    errors = address_type_errors(new) + content_errors(new, old.get("endpoints") or ())
    if new.get("addressType") != old.get("addressType"):
        errors.append(fields.invalid("addressType", new.get("addressType") or "", "field is immutable"))
    return errors


def address_type_errors(obj: Object) -> Errors:
    address_type = obj.get("addressType") or ""
    if not address_type:
        return [fields.required("addressType")]
    if address_type not in ADDRESS_TYPES:
        return [fields.not_supported("addressType", address_type, ADDRESS_TYPES)]
    return []


def content_errors(obj: Object, kept: Any) -> Errors:
    endpoints, ports = obj.get("endpoints") or [], obj.get("ports") or []
    errors: Errors = []
    if len(endpoints) > MOST_ENDPOINTS:
        errors.append(fields.too_many("endpoints", len(endpoints), MOST_ENDPOINTS))
    else:
        for i, endpoint in enumerate(endpoints):
            if i < len(kept) and kept[i] == endpoint:
                continue
            errors += endpoint_errors(Path("endpoints") @ i, endpoint, obj.get("addressType") or "")
    return errors + ports_errors(ports)


def endpoint_errors(path: Path, endpoint: Object, address_type: str) -> Errors:
    listed = endpoint.get("addresses") or []
    errors: Errors = []
    if not listed:
        errors.append(fields.required(path / "addresses", "must contain at least 1 address"))
    elif len(listed) > MOST_ADDRESSES:
        errors.append(fields.too_many(path / "addresses", len(listed), MOST_ADDRESSES))
    for i, address in enumerate(listed):
        errors += address_errors(path / "addresses", i, address, address_type)
    if (node := endpoint.get("nodeName")) is not None:
        errors += [fields.invalid(path / "nodeName", node, text) for text in names.dns_subdomain(node)]
    if (hostname := endpoint.get("hostname")) is not None:
        errors += [fields.invalid(path / "hostname", hostname, text) for text in names.dns_label(hostname)]
    return errors + hints_errors(path / "hints", endpoint.get("hints") or {})


def address_errors(path: Path, i: int, address: str, address_type: str) -> Errors:
    match address_type:
        case "IPv4" | "IPv6":
            texts = addresses.errors(address)
            if not texts and address_type == "IPv6":
                texts = addresses.canonical_errors(address)
            errors = [fields.invalid(path @ i, address, text) for text in texts]
            if addresses.family_of(address) not in (None, address_type):
                errors.append(fields.invalid(path, address, f"must be an {address_type} address"))
            if not texts:
                errors += [fields.invalid(path @ i, address, text) for text in addresses.reserved(address)]
            return errors
        case "FQDN":
            return [fields.invalid(path @ i, address, text) for text in names.fully_qualified_domain(address)]
    return []


def hints_errors(path: Path, hints: Object) -> Errors:
    errors: Errors = []
    for part, check in (("forZones", names.label_value), ("forNodes", names.dns_subdomain)):
        listed = hints.get(part) or []
        if len(listed) > MOST_HINTS:
            errors.append(fields.too_many(path / part, len(listed), MOST_HINTS))
            continue
        seen: set[str] = set()
        for i, entry in enumerate(listed):
            name = entry.get("name") or ""
            if name in seen:
                errors.append(fields.duplicate(path / part @ i / "name", name))
            seen.add(name)
            errors += [fields.invalid(path / part @ i / "name", name, text) for text in check(name)]
    return errors


def ports_errors(ports: list[Object]) -> Errors:
    if len(ports) > MOST_PORTS:
        return [fields.too_many("ports", len(ports), MOST_PORTS)]
    errors: Errors = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        path = Path("ports") @ i
        name = port.get("name") or ""
        if name:
            errors += [fields.invalid(path / "name", name, text) for text in names.dns_label(name)]
        if name in seen:
            errors.append(fields.duplicate(path / "name", name))
        seen.add(name)
        protocol = port.get("protocol")
        if not protocol:
            errors.append(fields.required(path / "protocol"))
        elif protocol not in PROTOCOLS:
            errors.append(fields.not_supported(path / "protocol", protocol, PROTOCOLS))
        if (app := port.get("appProtocol")) is not None:
            errors += [fields.invalid(path / "appProtocol", app, text) for text in names.qualified_name(app)]
    return errors


def warn(new: Object, _: Object | None) -> list[str]:
    """WARN-3."""
    return ["spec.addressType: FQDN endpoints are deprecated"] if new.get("addressType") == "FQDN" else []


def first_three(found: list[str]) -> str:
    """Up to three texts and how many more there are; `<unset>` for none."""
    if not found:
        return "<unset>"
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")


def ports_text(endpoint_slice: EndpointSlice) -> str:
    """KCTL-50."""
    return first_three([str(p.port) if p.port is not None else p.name or "*" for p in endpoint_slice.ports or ()])


def endpoints_text(endpoint_slice: EndpointSlice) -> str:
    """KCTL-51."""
    return first_three([a for e in endpoint_slice.endpoints or () for a in e.addresses or ()])


ENDPOINT_SLICE = Kind(
    group="discovery.k8s.io",
    version="v1",
    name="EndpointSlice",
    plural="endpointslices",
    namespaced=True,
    type=EndpointSlice,
    schema="io.k8s.api.discovery.v1.EndpointSlice",
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    validate=validate,
    validate_update=validate_update,
    warn=warn,
    generation=generation,
    columns=(
        Column("Name", lambda s: s.name, format="name"),
        Column("AddressType", lambda s: s.address_type),
        Column("Ports", ports_text),
        Column("Endpoints", endpoints_text),
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),
    ),
)
