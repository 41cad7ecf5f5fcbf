"""ServiceCIDR: the ranges that cluster addresses come from (CIDR-3 to CIDR-6)."""

from __future__ import annotations

from . import addresses, fields, shape
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, StandardCondition, Struct, Typed

FINALIZER = "networking.k8s.io/service-cidr-finalizer"


class ServiceCIDRSpec(Struct, frozen=True):
    cidrs: list[str] | None = None


class ServiceCIDRStatus(Struct, frozen=True):
    conditions: list[StandardCondition] | None = None


class ServiceCIDR(Typed, frozen=True):
    spec: ServiceCIDRSpec = ServiceCIDRSpec()
    status: ServiceCIDRStatus = ServiceCIDRStatus()

    @property
    def allocating(self) -> bool:
        """Whether new addresses may come from it (CIDR-6)."""
        if self.metadata.deletion_timestamp is not None:
            return False
        return all(c.type != "Ready" or c.status != "False" for c in self.status.conditions or ())


def default(obj: Object) -> None:
    shape.normalize(obj, ServiceCIDR)


def prepare_create(obj: Object) -> None:
    """Status comes by its own endpoint (CIDR-3)."""
    obj["status"] = {}


FAMILIES_TEXT = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"


def validate(obj: Object, _: Situation) -> Errors:
    """One or two canonical ranges, of different families (CIDR-3)."""
    path = Path("spec") / "cidrs"
    cidrs: list[str] = (obj.get("spec") or {}).get("cidrs") or []
    if not cidrs:
        return [fields.required(path, "at least one CIDR required")]
    whole = {"CIDRs": cidrs}  # the value printed is the whole spec under its internal name
    if len(cidrs) > 2:
        return [fields.invalid(path, whole, "may only hold up to 2 values")]
    if len(cidrs) == 2 and {":" in c for c in cidrs} != {True, False}:
        return [fields.invalid(path, whole, FAMILIES_TEXT)]
    errors: Errors = []
    for i, cidr in enumerate(cidrs):
        errors += [fields.invalid(path @ i, cidr, text) for text in addresses.canonical_cidr_errors(cidr)]
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """The ranges stay, but a second family may be appended."""
    path = Path("spec") / "cidrs"
    was: list[str] = (old.get("spec") or {}).get("cidrs") or []
    now: list[str] = (new.get("spec") or {}).get("cidrs") or []
    if len(was) == 1 and len(now) == 2:
        errors: Errors = []
        if now[0] != was[0]:
            errors.append(fields.invalid(path @ 0, now[0], "field is immutable"))
        return errors + validate(new, situation)
    return [] if was == now else [fields.invalid(path, now, "field is immutable")]


SERVICE_CIDR = Kind(
    group="networking.k8s.io",
    version="v1",
    name="ServiceCIDR",
    plural="servicecidrs",
    namespaced=False,
    type=ServiceCIDR,
    schema="io.k8s.api.networking.v1.ServiceCIDR",
    subresources=(Subresource(name="status"),),
    has_status=True,
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda c: c.name, format="name"),
        Column("CIDRs", lambda c: ",".join(c.spec.cidrs or ())),
        Column("Age", lambda c: Since(c.metadata.creation_timestamp)),
    ),
)
