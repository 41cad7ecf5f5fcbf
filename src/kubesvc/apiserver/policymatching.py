"""About which writes an admission policy or one of its bindings is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

from .webhooks import GROUP, Asked, rule_matches, selects


def matched(match: Object | None, asked: Asked, namespace_labels: Mapping[str, str] | None) -> Kind | None:
    """The kind as which a write is looked at; None if it is not. That is the kind of the write if a rule names it, else
    another version of it that a rule names, unless matchPolicy is Exact.

    match:            `matchConstraints` or `matchResources`; None matches everything
    namespace_labels: of the write's namespace; None for objects that are in none
    """
    if asked.kind.group == GROUP:
        return None  # nobody may lock everybody out
    if not match:
        return asked.kind
    if namespace_labels is not None and not selects(match.get("namespaceSelector"), namespace_labels):
        return None
    selector = match.get("objectSelector")
    objects = [o for o in (asked.new, asked.old) if o is not None]
    if not any(selects(selector, (o.get("metadata") or {}).get("labels") or {}) for o in objects):
        return None
    kinds = [asked.kind]
    if asked.kind.custom is not None and match.get("matchPolicy") != "Exact":
        kinds += asked.kind.custom.siblings
    if any(names(rule, asked, kind) for rule in match.get("excludeResourceRules") or () for kind in kinds):
        return None
    rules = match.get("resourceRules") or ()
    if not rules:
        return asked.kind
    return next((k for k in kinds if any(names(rule, asked, k) for rule in rules)), None)


def names(rule: Object, asked: Asked, kind: Kind) -> bool:
    """Whether a rule is about a write, were it one of `kind`."""
    listed = rule.get("resourceNames") or ()
    return (not listed or asked.name in listed) and rule_matches(rule, asked, kind)
