"""FlowSchema: which requests are of one sort. Stored and checked, and never followed: how many requests go on at once
is limited for readers and writers as they are; whoever writes one is told so.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from . import checks, fields, names, shape, workload
from .checks import items, part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, Struct, Typed

GROUP = "flowcontrol.apiserver.k8s.io"
SPEC = Path("spec")
HIGHEST = 10_000
METHODS = ("ByNamespace", "ByUser")
SUBJECTS = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}
UNFOLLOWED = "{}: stored, but requests are not scheduled by it"


class Named(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""


class AccountSubject(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("namespace", "name")

    namespace: str = ""
    name: str = ""


class FlowSubject(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("kind",)

    kind: str = ""
    user: Named | None = None
    group: Named | None = None
    service_account: AccountSubject | None = None


class ResourceRule(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("verbs", "api_groups", "resources", "namespaces")

    verbs: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    cluster_scope: bool = False
    namespaces: list[str] | None = None


class NonResourceRule(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("verbs", "non_resource_urls")

    verbs: list[str] | None = None
    non_resource_urls: list[str] | None = field(default=None, name="nonResourceURLs")


class Rule(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("subjects",)

    subjects: list[FlowSubject] | None = None
    resource_rules: list[ResourceRule] | None = None
    non_resource_rules: list[NonResourceRule] | None = None


class Method(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type",)

    type: str = ""


class FlowSchemaSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("priority_level_configuration", "matching_precedence")

    priority_level_configuration: Named = Named()
    matching_precedence: int = 0
    distinguisher_method: Method | None = None
    rules: list[Rule] | None = None


class FlowCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class FlowStatus(Struct, frozen=True):
    conditions: list[FlowCondition] | None = None


class FlowSchema(Typed, frozen=True):
    spec: FlowSchemaSpec = FlowSchemaSpec()
    status: FlowStatus = FlowStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, FlowSchema)
    if (spec := part(obj, "spec")) and not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors: Errors = []
    precedence, here = spec.get("matchingPrecedence") or 0, SPEC / "matchingPrecedence"
    if precedence <= 0:
        errors.append(fields.invalid(here, precedence, "must be a positive value"))
    if precedence > HIGHEST:
        errors.append(fields.invalid(here, precedence, f"must not be greater than {HIGHEST}"))
    if precedence == 1 and (obj.get("metadata") or {}).get("name") != "exempt":
        errors.append(fields.invalid(here, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    if (method := spec.get("distinguisherMethod")) is not None:
        errors += checks.one_of(method.get("type") or "", METHODS, SPEC / "distinguisherMethod" / "type", in_order=True)
    level, here = (
        part(spec, "priorityLevelConfiguration").get("name") or "",
        SPEC / "priorityLevelConfiguration" / "name",
    )
    errors += texts(here, level, names.dns_subdomain(level)) if level else [
        fields.required(here, "must reference a priority level by name")
    ]  # fmt: skip
    for i, rule in enumerate(items(spec, "rules")):
        errors += validate_rule(rule, SPEC / "rules" @ i)
    return errors


def validate_rule(rule: Object, path: Path) -> Errors:
    """Whose requests to what."""
    errors: Errors = []
    subjects = items(rule, "subjects")
    if not subjects:
        errors.append(fields.required(path / "subjects", "subjects must contain at least one value"))
    for i, subject in enumerate(subjects):
        errors += validate_subject(subject, path / "subjects" @ i)
    if not items(rule, "resourceRules") and not items(rule, "nonResourceRules"):
        errors.append(fields.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for i, one in enumerate(items(rule, "resourceRules")):
        here = path / "resourceRules" @ i
        errors += [fields.required(here / name) for name in ("verbs", "apiGroups", "resources") if not items(one, name)]
        if not items(one, "namespaces") and not one.get("clusterScope"):
            text = "resource rules that are not cluster scoped must supply at least one namespace"
            errors.append(fields.required(here / "namespaces", text))
    for i, one in enumerate(items(rule, "nonResourceRules")):
        here = path / "nonResourceRules" @ i
        errors += [fields.required(here / name) for name in ("verbs", "nonResourceURLs") if not items(one, name)]
    return errors


def validate_subject(subject: Object, path: Path) -> Errors:
    """One user, group or service account, told in the field of its kind alone."""
    kind = subject.get("kind") or ""
    if kind not in SUBJECTS:
        return [fields.not_supported(path / "kind", kind, tuple(SUBJECTS))]
    errors: Errors = []
    for other, name in SUBJECTS.items():
        found = subject.get(name)
        if other == kind and found is None:
            errors.append(fields.required(path / name, f"{name} is required when subject kind is '{kind}'"))
        elif other == kind:
            wanted = ("namespace", "name") if kind == "ServiceAccount" else ("name",)
            errors += [fields.required(path / name / f) for f in wanted if not part(subject, name).get(f)]
        elif found is not None:
            errors.append(fields.forbidden(path / name, f"{name} is forbidden when subject kind is not '{other}'"))
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    return validate_conditions(items(part(new, "status"), "conditions"), Path("status") / "conditions")


def validate_conditions(conditions: list[Object], path: Path) -> Errors:
    """Each sort once, and named."""
    errors: Errors = []
    for i, one in enumerate(conditions):
        if one.get("type") in [c.get("type") for c in conditions[:i]]:
            errors.append(fields.duplicate(path @ i / "type", one.get("type")))
        if not one.get("type"):
            errors.append(fields.required(path @ i / "type"))
    return errors


def warn(_: Object, __: Object | None) -> list[str]:
    return [UNFOLLOWED.format("FlowSchema")]


def missing_level(schema: FlowSchema) -> str:
    for one in schema.status.conditions or ():
        if one.type == "Dangling":
            return one.status
    return "?"


FLOW_SCHEMA = Kind(
    group=GROUP,
    version="v1",
    name="FlowSchema",
    plural="flowschemas",
    namespaced=False,
    type=FlowSchema,
    schema="io.k8s.api.flowcontrol.v1.FlowSchema",
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    warn=warn,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda f: f.name, format="name"),
        Column("PriorityLevel", lambda f: f.spec.priority_level_configuration.name),
        Column("MatchingPrecedence", lambda f: f.spec.matching_precedence, type="integer"),
        Column(
            "DistinguisherMethod",
            lambda f: f.spec.distinguisher_method.type if f.spec.distinguisher_method else "<none>",
        ),
        Column("Age", lambda f: Since(f.metadata.creation_timestamp)),
        Column("MissingPL", missing_level),
    ),
    has_status=True,
)
