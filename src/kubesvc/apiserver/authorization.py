"""Who may do what: the question, its answers, and the modes that answer it (AUTH-3, AUTH-4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kubesvc.api.errors import Forbidden
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.selectors import parse_field_selector

from .authentication import User
from .options import Query, first
from .routing import Target


@dataclass(frozen=True, slots=True)
class Attributes:
    """One access to be judged. Either `resource` or `path` is set.

    fields: what a field selector wants to be equal
    """

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a user may do in a namespace, as a SelfSubjectRulesReview tells it."""

    resource_rules: tuple[dict[str, list[str]], ...]
    non_resource_rules: tuple[dict[str, list[str]], ...]
    incomplete: bool = False
    error: str = ""


class Authorizer(Protocol):
    """Judges accesses. Pure but for reading the rules."""

    def allows(self, access: Attributes) -> tuple[bool, str]:
        """Whether it is allowed, and why ("" for no reason to give)."""
        ...

    def rules_of(self, user: User, namespace: str) -> Rules: ...

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
        """Forbidden if writing this object gives away rights that the user does not hold.

        old: the object before an update, as far as it is known
        """
        ...


class AlwaysAllow:
    """Everybody who is authenticated may do everything."""

    def allows(self, access: Attributes) -> tuple[bool, str]:
        return True, ""

    def rules_of(self, user: User, namespace: str) -> Rules:
        everything: tuple[dict[str, list[str]], ...] = ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},)
        return Rules(everything, ({"verbs": ["*"], "nonResourceURLs": ["*"]},))

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
        """Nobody holds less than everything."""


class AnyOf:
    """Allows what any of several authorizers allows; a refusal gives the reasons of all."""

    def __init__(self, parts: Sequence[Authorizer]) -> None:
        self.parts = tuple(parts)

    def allows(self, access: Attributes) -> tuple[bool, str]:
        reasons = []
        for part in self.parts:
            allowed, reason = part.allows(access)
            if allowed:
                return True, reason
            if reason:
                reasons.append(reason)
        return False, "\n".join(reasons)

    def rules_of(self, user: User, namespace: str) -> Rules:
        found = [part.rules_of(user, namespace) for part in self.parts]
        return Rules(
            tuple(rule for rules in found for rule in rules.resource_rules),
            tuple(rule for rules in found for rule in rules.non_resource_rules),
            any(rules.incomplete for rules in found),
            ", ".join(rules.error for rules in found if rules.error),
        )

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
        for part in self.parts:
            part.refuse_escalation(user, kind, namespace, obj, old)


SELECTING = ("list", "watch", "deletecollection")


def attributes_of(target: Target, user: User, query: Query | None = None) -> Attributes:
    """The access that a request is. Who selects one object by its name asks for that object."""
    if not target.is_resource:
        return Attributes(user, target.verb, path=target.path)
    name = target.name
    selected: tuple[tuple[str, str], ...] = ()
    if query and target.verb in SELECTING and (text := first(query, "fieldSelector")):
        selected = selected_fields(text)
        name = name or dict(selected).get("metadata.name", "")
    return Attributes(
        user, target.verb, target.group, target.version, target.resource, target.subresource, target.namespace,
        name, "", selected,
    )  # fmt: skip


def selected_fields(text: str) -> tuple[tuple[str, str], ...]:
    """What a field selector wants to be equal; nothing for one that cannot be read, which is refused later."""
    try:
        found = parse_field_selector(text).requirements
    except ValueError:
        return ()
    return tuple((r.field, r.value) for r in found if r.operator == "=")


STREAM_SUBRESOURCES = ("attach", "exec", "portforward")


def further_access(access: Attributes) -> Attributes | None:
    """What a request must be allowed besides: whoever opens a stream into a pod by GET, as WebSockets do, must also be
    allowed to create it (NODE-113)."""
    streams = access.resource == "pods" and not access.group and access.subresource in STREAM_SUBRESOURCES
    return replace(access, verb="create") if streams and access.verb == "get" else None


def refusal(access: Attributes, reason: str = "") -> Forbidden:
    """The 403 for an access, in AUTH-3's words."""
    why = f": {reason}" if reason else ""
    if not access.resource:
        return Forbidden(
            f"forbidden: User {quote(access.user.name)} cannot {access.verb} path {quote(access.path)}{why}", details={}
        )
    resource = f"{access.resource}/{access.subresource}" if access.subresource else access.resource
    where = f"in the namespace {quote(access.namespace)}" if access.namespace else "at the cluster scope"
    qualified = f"{access.resource}.{access.group}" if access.group else access.resource
    subject = f"{qualified} {quote(access.name)}" if access.name else qualified
    details = {"name": access.name} if access.name else {}
    if access.group:
        details["group"] = access.group
    details["kind"] = access.resource
    return Forbidden(
        f"{subject} is forbidden: User {quote(access.user.name)} cannot {access.verb} resource {quote(resource)} in "
        f"API group {quote(access.group)} {where}{why}",
        details=details,
    )
