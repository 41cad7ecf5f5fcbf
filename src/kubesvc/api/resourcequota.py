"""ResourceQuota: how much a namespace may use."""

from __future__ import annotations

from typing import Any

from . import checks, fields, names, shape
from .checks import items, part, texts
from .container import ResourceList
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, Struct, Typed
from .podcheck import STANDARD_RESOURCES, amount_of

SPEC = Path("spec")
SCOPES = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip


class ResourceQuotaSpec(Struct, frozen=True):
    hard: ResourceList | None = None
    scopes: list[str] | None = None
    scope_selector: dict[str, Any] | None = None


class ResourceQuotaStatus(Struct, frozen=True):
    hard: ResourceList | None = None
    used: ResourceList | None = None


class ResourceQuota(Typed, frozen=True):
    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, ResourceQuota)


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors: Errors = []
    for name, amount in sorted(part(spec, "hard").items()):
        here = (SPEC / "hard").key(name)
        errors += texts(here, name, names.qualified_name(name))
        known = name in STANDARD_RESOURCES or name.startswith(("count/", "hugepages-", "requests."))
        if "/" not in name and not known:
            errors.append(fields.invalid(here, name, "must be a standard resource for quota"))
        value = amount_of(amount)
        if value is not None and value.nanos < 0:
            errors.append(fields.invalid(here, str(value), checks.NONNEGATIVE))
    for scope in items(spec, "scopes"):
        if scope not in SCOPES:
            errors.append(fields.invalid(SPEC / "scopes", items(spec, "scopes"), "unsupported scope"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    errors = validate(new, situation)
    if sorted(items(part(new, "spec"), "scopes")) != sorted(items(part(old, "spec"), "scopes")):
        errors.append(fields.invalid(SPEC / "scopes", items(part(new, "spec"), "scopes"), checks.IMMUTABLE))
    return errors


def used(quota: ResourceQuota, *, limits: bool) -> str:
    """`cpu: 1/2, …` of the requests, or of the limits."""
    spent = quota.status.used or {}
    return ", ".join(
        f"{name}: {spent.get(name, 0)}/{hard}"
        for name, hard in sorted((quota.status.hard or {}).items())
        if name.startswith("limits.") == limits
    )


RESOURCE_QUOTA = Kind(
    group="",
    version="v1",
    name="ResourceQuota",
    plural="resourcequotas",
    namespaced=True,
    type=ResourceQuota,
    schema="io.k8s.api.core.v1.ResourceQuota",
    short_names=("quota",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    columns=(
        Column("Name", lambda q: q.name, format="name"),
        Column("Request", lambda q: used(q, limits=False)),
        Column("Limit", lambda q: used(q, limits=True)),
        Column("Age", lambda q: Since(q.metadata.creation_timestamp)),
    ),
    has_status=True,
    delete_returns_object=True,
)
