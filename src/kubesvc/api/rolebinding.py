"""RoleBinding: who has the rights of a role, or of a cluster role, in a namespace (AUTH)."""

from __future__ import annotations

from .fields import Errors
from .kind import Kind, Situation
from .meta import Object
from .rbac import BINDING_COLUMNS, GROUP, Binding, default_binding, fixed_role, name_errors, validate_binding


class RoleBinding(Binding, frozen=True):
    pass


def validate(obj: Object, _: Situation) -> Errors:
    return validate_binding(obj, namespaced=True)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return validate(new, situation) + fixed_role(new, old)


ROLE_BINDING = Kind(
    group=GROUP,
    version="v1",
    name="RoleBinding",
    plural="rolebindings",
    namespaced=True,
    type=RoleBinding,
    schema="io.k8s.api.rbac.v1.RoleBinding",
    default=default_binding,
    validate=validate,
    validate_update=validate_update,
    name_errors=name_errors,
    columns=BINDING_COLUMNS,
    create_on_put=True,
)
