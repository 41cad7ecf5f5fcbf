"""Role based access control: roles and bindings from the cache, judged without a copy (AUTH-3, AUTH-4).

The four kinds are decoded when first needed after a change; a request then costs a walk over the bindings of its
namespace and of the cluster. `system:masters` never comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kubesvc.api.errors import AlreadyExists
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.rbac import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    PolicyRule,
    Subject,
)
from kubesvc.client.interface import Client

from . import refusals
from .authentication import User
from .authorization import Attributes, Rules
from .cache import Cache, Event

API_GROUP = "rbac.authorization.k8s.io"
ACCOUNT_PREFIX = "system:serviceaccount:"


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
        """Whether any rule allows it, and which binding that was."""
        for rule, why in self._granted(access.user, access.namespace):
            if rule_allows(rule, access):
                return True, why
        return False, ""

    def _granted(self, user: User, namespace: str) -> Iterator[tuple[PolicyRule, str]]:
        """The user's rules: those of the cluster, then those of the namespace, with the reason to give."""
        for binding in self._all(CLUSTER_ROLE_BINDING).values():
            subject = applies(binding.subjects or (), user, "")
            if subject:
                role = self._all(CLUSTER_ROLE).get(binding.role_ref.name)
                ref = f"ClusterRole {quote(binding.role_ref.name)}"
                why = f"RBAC: allowed by ClusterRoleBinding {quote(binding.name)} of {ref} to {subject}"
                yield from ((rule, why) for rule in (role.rules or () if role else ()))
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
                ref = f"{binding.role_ref.kind} {quote(name)}"
                why = f"RBAC: allowed by RoleBinding {quote(f'{binding.name}/{namespace}')} of {ref} to {subject}"
                yield from ((rule, why) for rule in (role.rules or () if role else ()))

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

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object) -> None:
        """Forbidden when a role or binding would give away rights that its writer does not hold, unless the writer may
        `escalate` the role or `bind` it."""
        name = (obj.get("metadata") or {}).get("name") or ""
        if kind is ROLE or kind is CLUSTER_ROLE:
            asked = Attributes(user, "escalate", API_GROUP, "v1", kind.plural, "", namespace, name)
            rules = msgspec.convert(obj.get("rules") or [], list[PolicyRule])
        elif kind is ROLE_BINDING or kind is CLUSTER_ROLE_BINDING:
            ref = obj.get("roleRef") or {}
            role_kind = CLUSTER_ROLE if ref.get("kind") == "ClusterRole" else ROLE
            role_name = ref.get("name") or ""
            asked = Attributes(user, "bind", API_GROUP, "v1", role_kind.plural, "", namespace, role_name)
            key = role_name if role_kind is CLUSTER_ROLE else f"{namespace}/{role_name}"
            role = self._all(role_kind).get(key)
            rules = list(role.rules or ()) if role else []
        else:
            return
        if user.may_everything or self.allows(asked)[0]:
            return
        held = [rule for rule, _ in self._granted(user, namespace)]
        missing = [r for r in rules if not covered(r, held)]
        if missing:
            groups = " ".join(quote(g) for g in user.groups)
            listed = "".join("\n" + spelled(r) for r in missing)
            raise refusals.forbidden(
                kind,
                name,
                f"user {quote(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently "
                f"held:{listed}",
            )


def covered(wanted: PolicyRule, held: Iterable[PolicyRule]) -> bool:
    """Whether every single right of a rule is among those held."""
    rules = list(held)
    for verb in wanted.verbs or ():
        for url in wanted.non_resource_urls or ():
            if not any(matches(h.verbs, verb) and matches(h.non_resource_urls, url) for h in rules):
                return False
        for group in wanted.api_groups or ():
            for resource in wanted.resources or ():
                for name in wanted.resource_names or ("",):
                    if not any(
                        matches(h.verbs, verb)
                        and matches(h.api_groups, group)
                        and matches(h.resources, resource)
                        and (not h.resource_names or name in h.resource_names)
                        for h in rules
                    ):
                        return False
    return True


def spelled(rule: PolicyRule) -> str:
    """A rule as refusals show it."""
    parts = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.resource_names),
        ("NonResourceURLs", rule.non_resource_urls),
        ("Verbs", rule.verbs),
    )
    listed = (f"{name}:[{', '.join(quote(v) for v in values)}]" for name, values in parts if values)
    return "{" + ", ".join(listed) + "}"


def applies(subjects: Iterable[Subject], user: User, namespace: str) -> str:
    """The words for the first subject that is this user, "" if none is."""
    for s in subjects:
        if s.kind == "User" and s.name == user.name:
            return f"User {quote(s.name)}"
        if s.kind == "Group" and s.name in user.groups:
            return f"Group {quote(s.name)}"
        if s.kind == "ServiceAccount":
            account = f"{s.namespace or namespace}:{s.name}"
            if user.name == ACCOUNT_PREFIX + account:
                return f"ServiceAccount {quote(f'{s.name}/{s.namespace or namespace}')}"
    return ""


def rule_allows(rule: PolicyRule, access: Attributes) -> bool:
    """Whether one rule covers an access."""
    if not matches(rule.verbs, access.verb):
        return False
    if not access.resource:
        return any(
            url in ("*", access.path) or (url.endswith("*") and access.path.startswith(url[:-1]))
            for url in rule.non_resource_urls or ()
        )
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


def rule(verbs: str, groups: str, resources: str) -> Object:
    """A rule from words; the core group is written `core`."""
    return {
        "verbs": verbs.split(),
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }


def paths(*urls: str) -> Object:
    return {"verbs": ["get"], "nonResourceURLs": list(urls)}


READ = "get list watch"
WRITE = "create delete deletecollection patch update"
VIEWED = (
    ("core", "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims "
     "persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale "
     "replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status"),
    ("discovery.k8s.io", "endpointslices"),
    ("apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
     "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
)  # fmt: skip
EDITED = (
    ("core", "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy "
     "replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"),
    ("apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
     "statefulsets/scale"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("networking.k8s.io", "ingresses networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("coordination.k8s.io", "leases"),
)  # fmt: skip
"""What editors write. Neither Endpoints nor EndpointSlices: who writes them makes a Service of one namespace lead into
another, past its network policies (CVE-2021-25740)."""
VIEW = [rule(READ, g, r) for g, r in VIEWED]
EDIT = [
    *VIEW,
    rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule(READ, "coordination.k8s.io", "leases"),
    *(rule(WRITE, g, r) for g, r in EDITED),
    rule("create", "core", "pods/eviction serviceaccounts/token"),
    rule("impersonate", "core", "serviceaccounts"),
]
ADMIN = [
    *EDIT,
    rule(f"{READ} {WRITE}", API_GROUP, "roles rolebindings"),
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
]
DISCOVERY = paths(
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
    "/version/",
)  # fmt: skip
PUBLIC = paths("/healthz", "/livez", "/readyz", "/version", "/version/")
SELF_REVIEWS = [
    rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
    rule("create", "authentication.k8s.io", "selfsubjectreviews"),
]
EVERYTHING = [rule("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}]
CLUSTER_ROLES: dict[str, list[Object]] = {
    "cluster-admin": EVERYTHING,
    "admin": ADMIN,
    "edit": EDIT,
    "view": VIEW,
    "system:discovery": [DISCOVERY],
    "system:public-info-viewer": [PUBLIC],
    "system:basic-user": SELF_REVIEWS,
    "system:service-account-issuer-discovery": [paths("/.well-known/openid-configuration", "/openid/v1/jwks")],
}
CLUSTER_ROLE_BINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cluster-admin": ("cluster-admin", ("system:masters",)),
    "system:discovery": ("system:discovery", ("system:authenticated",)),
    "system:basic-user": ("system:basic-user", ("system:authenticated",)),
    "system:public-info-viewer": ("system:public-info-viewer", ("system:authenticated", "system:unauthenticated")),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        ("system:serviceaccounts",),
    ),
}
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}


async def make_default_roles(client: Client) -> None:
    """The roles every cluster begins with; existing ones are left alone."""

    async def make(kind: Kind, name: str, content: Object) -> None:
        try:
            await client.create(kind, {"metadata": {"name": name, "labels": dict(LABELS)}, **content})
        except AlreadyExists:
            pass

    wanted = [make(CLUSTER_ROLE, name, {"rules": rules}) for name, rules in CLUSTER_ROLES.items()]
    for name, (role, groups) in CLUSTER_ROLE_BINDINGS.items():
        reference = {"apiGroup": API_GROUP, "kind": "ClusterRole", "name": role}
        subjects = [{"kind": "Group", "apiGroup": API_GROUP, "name": g} for g in groups]
        wanted.append(make(CLUSTER_ROLE_BINDING, name, {"roleRef": reference, "subjects": subjects}))
    await asyncio.gather(*wanted)  # together, so that they share the store's fsync
