"""ClusterRole: what one may do in the whole cluster, or in the namespaces where it is bound (AUTH)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from . import fields, shape
from .checks import items, label_selector
from .fields import Errors, Path
from .kind import Kind, Situation
from .meta import Object, Struct, Typed
from .pod import LabelSelector
from .rbac import GROUP, PolicyRule, name_errors, validate_rules
from .selectors import label_selector_of

SELECTORS = Path("aggregationRule") / "clusterRoleSelectors"


class AggregationRule(Struct, frozen=True):
    cluster_role_selectors: list[LabelSelector] | None = None


class ClusterRole(Typed, frozen=True):
    rules: list[PolicyRule] | None = None
    aggregation_rule: AggregationRule | None = None


AGGREGATED_BY = "rbac.authorization.k8s.io/aggregate-to-"
"""Labels of roles whose rules the default roles gather: the role's name follows, and the value is `true`."""


def aggregated_rules(role: ClusterRole, roles: Iterable[ClusterRole]) -> list[PolicyRule] | None:
    """The rules that a role with an aggregation rule has: those of all others that it selects, each rule once, by
    selector and then by name; None for a role without one.

    roles: all there are, any order, perhaps with the role itself
    """
    if role.aggregation_rule is None:
        return None
    found: list[PolicyRule] = []
    others = sorted((r for r in roles if r.name != role.name), key=lambda r: r.name)
    for wanted in role.aggregation_rule.cluster_role_selectors or ():
        selector = label_selector_of(msgspec.to_builtins(wanted))
        for other in others:
            if selector.matches(other.metadata.labels or {}):
                found += [rule for rule in other.rules or () if rule not in found]
    return found


def default(obj: Object) -> None:
    shape.normalize(obj, ClusterRole)
    obj.setdefault("rules", None)


def validate(obj: Object, _: Situation) -> Errors:
    errors = validate_rules(obj, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None and not items(aggregation, "clusterRoleSelectors"):
        errors.append(
            fields.required(
                "aggregationRule.clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            )
        )
    for i, selector in enumerate(items(aggregation or {}, "clusterRoleSelectors")):
        errors += label_selector(selector, SELECTORS @ i)
    return errors


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


CLUSTER_ROLE = Kind(
    group=GROUP,
    version="v1",
    name="ClusterRole",
    plural="clusterroles",
    namespaced=False,
    type=ClusterRole,
    schema="io.k8s.api.rbac.v1.ClusterRole",
    default=default,
    validate=validate,
    validate_update=validate_update,
    name_errors=name_errors,
    create_on_put=True,
)
