"""Role based access control: roles and bindings from the cache, judged without a copy (AUTH-3, AUTH-4).

The four kinds are decoded when first needed after a change; a request then costs a walk over the bindings of its
namespace and of the cluster. `system:masters` never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import msgspec

from kubesvc.api.clusterrole import CLUSTER_ROLE
from kubesvc.api.clusterrolebinding import CLUSTER_ROLE_BINDING
from kubesvc.api.errors import NotFound
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.rbac import PolicyRule, Subject
from kubesvc.api.role import ROLE
from kubesvc.api.rolebinding import ROLE_BINDING

from . import refusals
from .authentication import User
from .authorization import Attributes, Rules
from .cache import Cache, Event
from .routing import path_matches

API_GROUP = "rbac.authorization.k8s.io"
ACCOUNT_PREFIX = "system:serviceaccount:"
FULL_AUTHORITY = (
    PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"]),
    PolicyRule(verbs=["*"], non_resource_urls=["*"]),
)


class RbacAuthorizer:
    """Allows what some binding's role allows to the user, one of the user's groups, or the account."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.decoded: dict[Kind, dict[str, Any]] = {}
        for kind in (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING):
            cache.of(kind).sinks.append(self._forget(kind))

    def _forget(self, kind: Kind) -> Any:
        def sink(_: list[Event]) -> None:
            self.decoded.pop(kind, None)

        return sink

    def _all(self, kind: Kind) -> dict[str, Any]:
        found = self.decoded.get(kind)
        if found is None:
            found = self.decoded[kind] = {i.key: i.typed() for i in self.cache.of(kind).select()}
        return found

    def allows(self, access: Attributes) -> tuple[bool, str]:
        """Whether any rule allows it, and which binding that was; if none does, which bindings lead nowhere."""
        missing: list[str] = []
        for rule, why in self._granted(access.user, access.namespace, missing):
            if rule_allows(rule, access):
                return True, why
        if not missing:
            return False, ""
        return False, "RBAC: " + (missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]")

    def _granted(
        self, user: User, namespace: str, missing: list[str] | None = None
    ) -> Iterator[tuple[PolicyRule, str]]:
        """The user's rules: those of the cluster, then those of the namespace, with the reason to give.

        missing: gets the words for each role that is bound and does not exist
        """
        for binding in self._all(CLUSTER_ROLE_BINDING).values():
            subject = applies(binding.subjects or (), user, "")
            if subject:
                role = self._all(CLUSTER_ROLE).get(binding.role_ref.name)
                if role is None:
                    note(missing, CLUSTER_ROLE, binding.role_ref.name)
                    continue
                ref = f"ClusterRole {quote(binding.role_ref.name)}"
                why = f"RBAC: allowed by ClusterRoleBinding {quote(binding.name)} of {ref} to {subject}"
                yield from ((rule, why) for rule in role.rules or ())
        if not namespace:
            return
        for key, binding in self._all(ROLE_BINDING).items():
            if not key.startswith(namespace + "/"):
                continue
            subject = applies(binding.subjects or (), user, namespace)
            if subject:
                name = binding.role_ref.name
                clustered = binding.role_ref.kind == "ClusterRole"
                role = self._all(CLUSTER_ROLE).get(name) if clustered else self._all(ROLE).get(f"{namespace}/{name}")
                if role is None:
                    note(missing, CLUSTER_ROLE if clustered else ROLE, name)
                    continue
                ref = f"{binding.role_ref.kind} {quote(name)}"
                why = f"RBAC: allowed by RoleBinding {quote(f'{binding.name}/{namespace}')} of {ref} to {subject}"
                yield from ((rule, why) for rule in role.rules or ())

    def rules_of(self, user: User, namespace: str) -> Rules:
        """All rules of a user in a namespace."""
        resources: list[dict[str, list[str]]] = []
        paths: list[dict[str, list[str]]] = []
        for rule, _ in self._granted(user, namespace):
            plain = msgspec.to_builtins(rule)
            if rule.resources:
                resources.append({k: v for k, v in plain.items() if k != "nonResourceURLs" and v})
            if rule.non_resource_urls:
                paths.append({"verbs": rule.verbs or [], "nonResourceURLs": rule.non_resource_urls})
        return Rules(tuple(resources), tuple(paths))

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
        """Forbidden when a role or binding would give away rights that its writer does not hold, unless the writer may
        `escalate` the role or `bind` it; NotFound for a binding to no role. Only `system:masters` and those who hold
        everything may let a role gather the rules of others."""
        if kind not in (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING) or user.may_everything:
            return
        if old is not None and only_for_collection(obj, old):
            return
        name = (obj.get("metadata") or {}).get("name") or ""
        if kind is ROLE or kind is CLUSTER_ROLE:
            if self.allows(Attributes(user, "escalate", API_GROUP, "v1", kind.plural, "", namespace, name))[0]:
                return
            self._refuse_missing(user, kind, namespace, name, rules_in(obj))
            if kind is CLUSTER_ROLE and (gathers(obj) or (old is not None and gathers(old))):
                held = [rule for rule, _ in self._granted(user, namespace)]
                if any(missing_rights(r, held) for r in FULL_AUTHORITY):
                    why = "must have cluster-admin privileges to use the aggregationRule"
                    raise refusals.forbidden(kind, name, why)
            return
        ref = obj.get("roleRef") or {}
        role_kind = CLUSTER_ROLE if ref.get("kind") == "ClusterRole" else ROLE
        role_name = ref.get("name") or ""
        if self.allows(Attributes(user, "bind", API_GROUP, "v1", role_kind.plural, "", namespace, role_name))[0]:
            return
        key = role_name if role_kind is CLUSTER_ROLE else f"{namespace}/{role_name}"
        role = self._all(role_kind).get(key)
        if role is None:
            details = {"name": role_name, "group": API_GROUP, "kind": role_kind.singular_name}
            raise NotFound(no_role(role_kind, role_name), details=details)
        self._refuse_missing(user, kind, namespace, name, list(role.rules or ()))

    def _refuse_missing(self, user: User, kind: Kind, namespace: str, name: str, rules: list[PolicyRule]) -> None:
        absent: list[str] = []
        held = [rule for rule, _ in self._granted(user, namespace, absent)]
        missing = [right for r in rules for right in missing_rights(r, held)]
        if missing:
            groups = " ".join(quote(g) for g in user.groups)
            listed = "".join("\n" + text for text in sorted({spelled(r) for r in compacted(missing)}))
            problems = f"; resolution errors: [{', '.join(absent)}]" if absent else ""
            raise refusals.forbidden(
                kind,
                name,
                f"user {quote(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently "
                f"held:{listed}{problems}",
            )


def note(missing: list[str] | None, kind: Kind, name: str) -> None:
    if missing is not None:
        missing.append(no_role(kind, name))


def no_role(kind: Kind, name: str) -> str:
    return f"{kind.singular_name}.{API_GROUP} {quote(name)} not found"


def rules_in(role: Object) -> list[PolicyRule]:
    return msgspec.convert(role.get("rules") or [], list[PolicyRule])


def gathers(role: Object) -> bool:
    """Whether a role's rules come from others."""
    return bool((role.get("aggregationRule") or {}).get("clusterRoleSelectors"))


def only_for_collection(new: Object, old: Object) -> bool:
    """Whether an update changes nothing but what garbage collection needs: owners and finalizers."""

    def rest(obj: Object) -> Object:
        skipped = ("ownerReferences", "finalizers", "managedFields")
        meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in skipped}
        return {**obj, "metadata": meta}

    return rest(new) == rest(old)


def covered(wanted: PolicyRule, held: Iterable[PolicyRule]) -> bool:
    """Whether every single right of a rule is among those held."""
    return not missing_rights(wanted, list(held))


def missing_rights(wanted: PolicyRule, held: list[PolicyRule]) -> list[PolicyRule]:
    """The single rights of a rule that none of the rules held gives."""
    return [right for right in single_rights(wanted) if not any(gives(h, right) for h in held)]


def single_rights(wanted: PolicyRule) -> Iterator[PolicyRule]:
    """A rule as rules of one verb on one resource or path each."""
    names: Iterable[list[str] | None] = ([n] for n in wanted.resource_names) if wanted.resource_names else (None,)
    parts = product(wanted.api_groups or (), wanted.resources or (), wanted.verbs or (), list(names))
    for group, resource, verb, only in parts:
        yield PolicyRule(verbs=[verb], api_groups=[group], resources=[resource], resource_names=only)
    for url, verb in product(wanted.non_resource_urls or (), wanted.verbs or ()):
        yield PolicyRule(verbs=[verb], non_resource_urls=[url])


def gives(held: PolicyRule, right: PolicyRule) -> bool:
    """Whether a rule gives a single right."""
    if not matches(held.verbs, (right.verbs or [""])[0]):
        return False
    if right.non_resource_urls:
        return any(path_matches(h, right.non_resource_urls[0]) for h in held.non_resource_urls or ())
    resource = (right.resources or [""])[0]
    if not matches(held.api_groups, (right.api_groups or [""])[0]):
        return False
    _, slash, sub = resource.partition("/")
    if not any(h in ("*", resource) or (slash and h == f"*/{sub}") for h in held.resources or ()):
        return False
    return not held.resource_names or bool(right.resource_names and right.resource_names[0] in held.resource_names)


def compacted(rights: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Single rights on resources gathered into rules with all verbs of one resource; paths stay alone."""
    gathered: dict[tuple[str, str, str], PolicyRule] = {}
    others: list[PolicyRule] = []
    for right in rights:
        if right.non_resource_urls:
            others.append(right)
            continue
        only = (right.resource_names or [""])[0]
        key = ((right.api_groups or [""])[0], (right.resources or [""])[0], only)
        if key not in gathered:
            gathered[key] = msgspec.structs.replace(right, verbs=[])
        verbs = gathered[key].verbs
        assert verbs is not None
        verbs += [v for v in right.verbs or () if v not in verbs]
    return [*others, *gathered.values()]


def spelled(rule: PolicyRule) -> str:
    """A rule as refusals show it."""
    parts = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.non_resource_urls),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    listed = (f"{name}:[{' '.join(quote(v) for v in values)}]" for name, values in parts if values)
    return "{" + ", ".join(listed) + "}"


def applies(subjects: Iterable[Subject], user: User, namespace: str) -> str:
    """The words for the first subject that is this user, "" if none is."""
    for s in subjects:
        if s.kind == "User" and s.name == user.name:
            return f"User {quote(s.name)}"
        if s.kind == "Group" and s.name in user.groups:
            return f"Group {quote(s.name)}"
        if s.kind == "ServiceAccount" and user.name.endswith(s.name):  # most are of others: seen at a glance
            account = f"{s.namespace or namespace}:{s.name}"
            if user.name == ACCOUNT_PREFIX + account:
                return f"ServiceAccount {quote(f'{s.name}/{s.namespace or namespace}')}"
    return ""


def rule_allows(rule: PolicyRule, access: Attributes) -> bool:
    """Whether one rule covers an access."""
    if not matches(rule.verbs, access.verb):
        return False
    if not access.resource:
        return any(path_matches(url, access.path) for url in rule.non_resource_urls or ())
    if not matches(rule.api_groups, access.group):
        return False
    if rule.resource_names and access.name not in rule.resource_names:
        return False
    whole = f"{access.resource}/{access.subresource}" if access.subresource else access.resource
    return any(
        r in ("*", whole) or (access.subresource and r == f"*/{access.subresource}") for r in rule.resources or ()
    )


def matches(listed: Iterable[str] | None, value: str) -> bool:
    return any(v in ("*", value) for v in listed or ())
