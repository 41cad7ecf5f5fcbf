"""Lease: who leads, and until when; also a node's sign of life (NODE-83)."""

from __future__ import annotations

from . import checks, fields, shape
from .checks import part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed


class LeaseSpec(Struct, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None
    strategy: str | None = None
    preferred_holder: str | None = None


class Lease(Typed, frozen=True):
    spec: LeaseSpec = LeaseSpec()


SPEC = Path("spec")


def default(obj: Object) -> None:
    shape.normalize(obj, Lease)


def validate(obj: Object, _: Situation) -> Errors:
    """A lease lasts, and changed hands no less than never."""
    spec = part(obj, "spec")
    errors = checks.positive(spec, "leaseDurationSeconds", SPEC)
    errors += checks.nonnegative(spec, "leaseTransitions", SPEC)
    if spec.get("preferredHolder") and not spec.get("strategy"):
        errors.append(fields.forbidden(SPEC / "preferredHolder", "may only be specified when `strategy` is defined"))
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    name="Lease",
    plural="leases",
    namespaced=True,
    type=Lease,
    schema="io.k8s.api.coordination.v1.Lease",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda x: x.name, format="name"),
        Column("Holder", lambda x: x.spec.holder_identity),
        Column("Age", lambda x: Since(x.metadata.creation_timestamp)),
    ),
    create_on_put=True,
    unversioned_update=False,
)
