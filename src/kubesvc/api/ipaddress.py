"""IPAddress: one allocated cluster address; that the object exists is the allocation (CIDR-1, VIP-6)."""

from __future__ import annotations

from . import addresses, fields, names, shape
from .fields import Errors, Path
from .kind import Column, Kind, Situation
from .meta import Object, Struct, Typed

FAMILY_LABEL = "ipaddress.kubernetes.io/ip-family"
MANAGED_BY_LABEL = "ipaddress.kubernetes.io/managed-by"
MANAGED_BY = "ipallocator.k8s.io"
PARTS = ("group", "resource", "namespace", "name")


class ParentReference(Struct, frozen=True):
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""


class IPAddressSpec(Struct, frozen=True):
    parent_ref: ParentReference | None = None


class IPAddress(Typed, frozen=True):
    spec: IPAddressSpec = IPAddressSpec()

    @property
    def managed(self) -> bool:
        """Whether the allocator made it; others are their makers' own business (REPAIR-1)."""
        return self.metadata.label(MANAGED_BY_LABEL) == MANAGED_BY


def address_object(address: str, namespace: str, service: str) -> Object:
    """The plain IPAddress that holds `address` (canonical text) for a Service (CIDR-1)."""
    return {
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address,
            "labels": {FAMILY_LABEL: addresses.family_of(address) or "", MANAGED_BY_LABEL: MANAGED_BY},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": service}},
    }


def default(obj: Object) -> None:
    shape.normalize(obj, IPAddress)


def validate(obj: Object, _: Situation) -> Errors:
    """The object it belongs to is named (CIDR-2)."""
    path = Path("spec") / "parentRef"
    parent = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return [fields.required(path)]
    errors: Errors = []
    if group := parent.get("group"):
        errors += [fields.invalid(path / "group", group, text) for text in names.dns_subdomain(group)]
    for part in ("resource", "name", "namespace"):
        value = parent.get(part) or ""
        if not value and part != "namespace":
            errors.append(fields.required(path / part))
        errors += [fields.invalid(path / part, value, text) for text in names.path_segment(value)]
    return errors


def validate_update(new: Object, old: Object, _: Situation) -> Errors:
    """The owner is for life; the value printed has its internal field names (ERR-3)."""
    parent = (new.get("spec") or {}).get("parentRef")
    if parent == (old.get("spec") or {}).get("parentRef"):
        return []
    printed = {part.capitalize(): parent.get(part) or "" for part in PARTS} if parent is not None else None
    return [fields.invalid("spec.parentRef", printed, "field is immutable")]


def parent_text(address: IPAddress) -> str:
    """`services/<namespace>/<name>`, `<resource>.<group>/...` (KCTL-58)."""
    parent = address.spec.parent_ref
    if parent is None:
        return "<none>"
    text = f"{parent.resource}.{parent.group}" if parent.group else parent.resource
    return "/".join(part for part in (text, parent.namespace, parent.name) if part)


IP_ADDRESS = Kind(
    group="networking.k8s.io",
    version="v1",
    name="IPAddress",
    plural="ipaddresses",
    short_names=("ip",),
    namespaced=False,
    type=IPAddress,
    schema="io.k8s.api.networking.v1.IPAddress",
    default=default,
    name_errors=addresses.canonical_errors,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda a: a.name, format="name"),
        Column("ParentRef", parent_text),
    ),
)
