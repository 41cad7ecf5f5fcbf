"""ClusterRoleBinding: who has the rights of a cluster role everywhere (AUTH)."""

from __future__ import annotations

from .fields import Errors
from .kind import Kind, Situation
from .meta import Object
from .rbac import BINDING_COLUMNS, GROUP, Binding, default_binding, fixed_role, name_errors, validate_binding


class ClusterRoleBinding(Binding, frozen=True):
    pass


def validate(obj: Object, _: Situation) -> Errors:
    return validate_binding(obj, namespaced=False)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return validate(new, situation) + fixed_role(new, old)


CLUSTER_ROLE_BINDING = Kind(
    group=GROUP,
    version="v1",
    name="ClusterRoleBinding",
    plural="clusterrolebindings",
    namespaced=False,
    type=ClusterRoleBinding,
    schema="io.k8s.api.rbac.v1.ClusterRoleBinding",
    default=default_binding,
    validate=validate,
    validate_update=validate_update,
    name_errors=name_errors,
    columns=BINDING_COLUMNS,
    create_on_put=True,
)
