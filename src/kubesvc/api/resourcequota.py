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
from .quantity import NANO

SPEC = Path("spec")
SCOPES = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip

WITHOUT_VALUES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity")
EXISTS_TEXT = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
OBJECTS = frozenset({
    "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
})  # fmt: skip
COMPUTE = frozenset({
    "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory",
})  # fmt: skip
"""What pods use, of which a scope says whose."""


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
    errors = validate_amounts(part(spec, "hard"), SPEC / "hard")
    return errors + validate_scopes(spec) + validate_selector(spec)


def validate_amounts(amounts: Object, path: Path) -> Errors:
    """Names of what can be counted, and how much of each."""
    errors: Errors = []
    for name, amount in sorted(amounts.items()):
        here = path.key(name)
        wrong = texts(here, name, names.qualified_name(name))
        if "/" not in name:
            if not wrong and name not in STANDARD_RESOURCES and not is_huge_pages(name):
                wrong = [fields.invalid(here, name, "must be a standard resource type or fully qualified")]
            if not counted(name):
                wrong.append(fields.invalid(here, name, "must be a standard resource for quota"))
        errors += wrong
        value = amount_of(amount)
        if value is not None and value.nanos < 0:
            errors.append(fields.invalid(here, str(value), checks.NONNEGATIVE))
        if value is not None and value.nanos % NANO and comes_whole(name):
            errors.append(fields.invalid(here, str(value), "must be an integer"))
    return errors


def is_huge_pages(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-"))


def counted(name: str) -> bool:
    """Whether a name without a domain is one that quotas know."""
    return (name in STANDARD_RESOURCES and name != "storage") or is_huge_pages(name)


def comes_whole(name: str) -> bool:
    """Whether there is no half of it: objects, and what nodes offer beyond the usual."""
    if "/" not in name:
        return name in OBJECTS
    foreign = not name.startswith("requests.") and "kubernetes.io/" not in name
    return foreign and not names.qualified_name(f"requests.{name}")


def fits(scope: str, name: str) -> bool:
    """Whether a scope says something of a resource."""
    if scope == "BestEffort":
        return name == "pods"
    if scope == "VolumeAttributesClass":
        return name in ("persistentvolumeclaims", "requests.storage")
    return scope in SCOPES and (name == "pods" or name in COMPUTE)


def misapplied(scope: str, spec: Object, shown: Any, path: Path) -> Errors:
    """An error for each resource of the quota that a scope says nothing of. shown: the scopes, as they are told"""
    return [
        fields.invalid(path, shown, "unsupported scope applied to resource")
        for name in part(spec, "hard")
        if counted(name) and not fits(scope, name)
    ]


def validate_scopes(spec: Object) -> Errors:
    scopes, here = items(spec, "scopes"), SPEC / "scopes"
    errors: Errors = []
    for scope in scopes:
        if scope not in SCOPES:
            errors.append(fields.invalid(here, scopes, "unsupported scope"))
        errors += misapplied(scope, spec, scopes, here)
    return errors + contradictions(scopes, scopes, here)


def validate_selector(spec: Object) -> Errors:
    """The other way to say scopes, by which priority classes can be told apart."""
    if (selector := spec.get("scopeSelector")) is None:
        return []
    here = SPEC / "scopeSelector" / "matchExpressions"
    errors: Errors = []
    found: list[str] = []
    for requirement in items(selector, "matchExpressions"):
        scope, operator = requirement.get("scopeName") or "", requirement.get("operator") or ""
        values = items(requirement, "values")
        if scope not in SCOPES:
            errors.append(fields.invalid(here / "scopeName", scope, "unsupported scope"))
        errors += misapplied(scope, spec, fields.Spelled(spelled_selector(selector)), here)
        if scope in WITHOUT_VALUES and operator != "Exists":
            errors.append(fields.invalid(here / "operator", operator, EXISTS_TEXT))
        if operator in ("In", "NotIn"):
            if not values:
                text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(fields.required(here / "values", text))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(fields.invalid(here / "values", values, text))
        else:
            errors.append(fields.invalid(here / "operator", operator, "not a valid selector operator"))
        found.append(scope)
    return errors + contradictions(found, spec.get("scopes"), here)


def contradictions(scopes: list[str], shown: list[str] | None, path: Path) -> Errors:
    return [
        fields.invalid(path, shown, "conflicting scopes")
        for pair in (("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating"))
        if set(pair) <= set(scopes)
    ]


def spelled_selector(selector: Object) -> str:
    """Under Go's names (ERR-3)."""
    requirements = [
        {"ScopeName": r.get("scopeName") or "", "Operator": r.get("operator") or "", "Values": r.get("values")}
        for r in items(selector, "matchExpressions")
    ]
    return fields.spell({"MatchExpressions": requirements or None})


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    errors = validate(new, situation)
    if sorted(items(part(new, "spec"), "scopes")) != sorted(items(part(old, "spec"), "scopes")):
        errors.append(fields.invalid(SPEC / "scopes", items(part(new, "spec"), "scopes"), checks.IMMUTABLE))
    return errors


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    status = part(new, "status")
    errors = validate_amounts(part(status, "hard"), Path("status") / "hard")
    return errors + validate_amounts(part(status, "used"), Path("status") / "used")


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
    validate_status=validate_status,
    columns=(
        Column("Name", lambda q: q.name, format="name"),
        Column("Request", lambda q: used(q, limits=False)),
        Column("Limit", lambda q: used(q, limits=True)),
        Column("Age", lambda q: Since(q.metadata.creation_timestamp)),
    ),
    has_status=True,
    delete_returns_object=True,
)
