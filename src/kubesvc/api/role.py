"""Role: what one may do in a namespace (AUTH)."""

from __future__ import annotations

from . import shape
from .fields import Errors
from .kind import Kind, Situation
from .meta import Object, Typed
from .rbac import GROUP, PolicyRule, name_errors, validate_rules


class Role(Typed, frozen=True):
    rules: list[PolicyRule] | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, Role)
    obj.setdefault("rules", None)


def validate(obj: Object, _: Situation) -> Errors:
    return validate_rules(obj, namespaced=True)


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


ROLE = Kind(
    group=GROUP,
    version="v1",
    name="Role",
    plural="roles",
    namespaced=True,
    type=Role,
    schema="io.k8s.api.rbac.v1.Role",
    default=default,
    validate=validate,
    validate_update=validate_update,
    name_errors=name_errors,
    create_on_put=True,
)
