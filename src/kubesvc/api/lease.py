"""Lease: who leads, and until when; also a node's sign of life (NODE-83)."""

from __future__ import annotations

from .kind import Column, Kind, Since
from .meta import Struct, Typed


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


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    name="Lease",
    plural="leases",
    namespaced=True,
    type=Lease,
    schema="io.k8s.api.coordination.v1.Lease",
    columns=(
        Column("Name", lambda x: x.name, format="name"),
        Column("Holder", lambda x: x.spec.holder_identity),
        Column("Age", lambda x: Since(x.metadata.creation_timestamp)),
    ),
    create_on_put=True,
    unversioned_update=False,
)
