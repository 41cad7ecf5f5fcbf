"""What the kinds of roles share, and those of their bindings: who may do what (AUTH)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec import field

from . import fields, names, shape
from .checks import items, part, texts
from .fields import Errors, Path
from .kind import Column, Since
from .meta import Object, Struct, Typed

GROUP = "rbac.authorization.k8s.io"
RULES = Path("rules")
ROLE_REF = Path("roleRef")


class PolicyRule(Struct, frozen=True):
    verbs: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None
    non_resource_urls: list[str] | None = field(default=None, name="nonResourceURLs")


class RoleRef(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("api_group", "kind", "name")

    api_group: str = ""
    kind: str = ""
    name: str = ""


class Subject(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: str = ""
    api_group: str = ""
    name: str = ""
    namespace: str = ""


class Binding(Typed, frozen=True):
    """Of a role in a namespace, or of a cluster role."""

    subjects: list[Subject] | None = None
    role_ref: RoleRef = RoleRef()


def name_errors(name: str) -> Sequence[str]:
    """Names only have to fit in a path, so that `system:node` is one."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in name]


def default_binding(obj: Object) -> None:
    """Roles, users and groups are of this API group, accounts of the core."""
    shape.normalize(obj, Binding)
    ref = part(obj, "roleRef")
    ref["apiGroup"] = ref.get("apiGroup") or GROUP
    for subject in items(obj, "subjects"):
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", GROUP)


def validate_rules(obj: Object, *, namespaced: bool) -> Errors:
    """Those of a role."""
    errors: Errors = []
    for i, rule in enumerate(items(obj, "rules")):
        errors += validate_rule(rule, RULES @ i, namespaced=namespaced)
    return errors


def validate_rule(rule: Object, path: Path, *, namespaced: bool) -> Errors:
    """A rule is about resources or, in the whole cluster only, about paths."""
    errors: Errors = []
    if not items(rule, "verbs"):
        errors.append(fields.required(path / "verbs", "verbs must contain at least one value"))
    if urls := items(rule, "nonResourceURLs"):
        if namespaced:
            errors.append(
                fields.invalid(path / "nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
            )
        if items(rule, "apiGroups") or items(rule, "resources") or items(rule, "resourceNames"):
            errors.append(
                fields.invalid(
                    path / "nonResourceURLs", urls, "rules cannot apply to both regular resources and non-resource URLs"
                )
            )
        return errors
    if not items(rule, "apiGroups"):
        errors.append(fields.required(path / "apiGroups", "resource rules must supply at least one api group"))
    if not items(rule, "resources"):
        errors.append(fields.required(path / "resources", "resource rules must supply at least one resource"))
    return errors


def validate_binding(obj: Object, *, namespaced: bool) -> Errors:
    ref = part(obj, "roleRef")
    errors: Errors = []
    if (group := ref.get("apiGroup") or "") != GROUP:
        errors.append(fields.not_supported(ROLE_REF / "apiGroup", group, (GROUP,)))
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if (kind := ref.get("kind") or "") not in kinds:
        errors.append(fields.not_supported(ROLE_REF / "kind", kind, kinds, in_order=True))
    if not (name := ref.get("name") or ""):
        errors.append(fields.required(ROLE_REF / "name"))
    else:
        errors += texts(ROLE_REF / "name", name, name_errors(name))
    for i, subject in enumerate(items(obj, "subjects")):
        errors += validate_subject(subject, Path("subjects") @ i, namespaced=namespaced)
    return errors


def validate_subject(subject: Object, path: Path, *, namespaced: bool) -> Errors:
    errors: Errors = []
    name, kind, group = subject.get("name") or "", subject.get("kind") or "", subject.get("apiGroup") or ""
    if not name:
        errors.append(fields.required(path / "name"))
    if kind == "ServiceAccount":
        if name:
            errors += texts(path / "name", name, names.dns_subdomain(name))
        if group:
            errors.append(fields.not_supported(path / "apiGroup", group, ("",)))
        if not subject.get("namespace") and not namespaced:
            errors.append(fields.required(path / "namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            errors.append(fields.not_supported(path / "apiGroup", group, (GROUP,)))
    else:
        errors.append(fields.not_supported(path / "kind", kind, ("ServiceAccount", "User", "Group"), in_order=True))
    return errors


def fixed_role(new: Object, old: Object) -> Errors:
    """What a binding grants is for ever; whom it grants it to is not."""
    now, before = part(new, "roleRef"), part(old, "roleRef")
    if now == before:
        return []
    go = {"APIGroup": now.get("apiGroup", ""), "Kind": now.get("kind", ""), "Name": now.get("name", "")}
    return [fields.invalid("roleRef", go, "cannot change roleRef")]


def subjects(binding: Binding, kind: str) -> str:
    return ", ".join(
        f"{s.namespace}/{s.name}" if kind == "ServiceAccount" else s.name
        for s in binding.subjects or ()
        if s.kind == kind
    )


BINDING_COLUMNS = (
    Column("Name", lambda b: b.name, format="name"),
    Column("Role", lambda b: f"{b.role_ref.kind}/{b.role_ref.name}"),
    Column("Age", lambda b: Since(b.metadata.creation_timestamp)),
    Column("Users", lambda b: subjects(b, "User"), wide=True),
    Column("Groups", lambda b: subjects(b, "Group"), wide=True),
    Column("ServiceAccounts", lambda b: subjects(b, "ServiceAccount"), wide=True),
)
