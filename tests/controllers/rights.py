"""What each controller may do where every controller has an account of its own: no more than upstream's role for it.

The caches are filled by the process that all controllers live in, so listing and watching is the manager's right.
"""

from __future__ import annotations

from functools import cache

from kubesvc.api.kind import Kind
from kubesvc.api.rbac import PolicyRule
from kubesvc.apiserver.authentication import User
from kubesvc.apiserver.authorization import Attributes
from kubesvc.apiserver.defaultroles import CLUSTER_ROLES, ROLES, rule
from kubesvc.apiserver.rbac import rule_allows, rules_in

MANAGER = "system:kube-controller-manager"
SOMEBODY = User("system:serviceaccount:kube-system:a-controller", "", ())
ROLES_OF = {
    "cidrAllocator": ("system:controller:node-controller",),
    "certificatesigningrequest-approving-controller": ("system:controller:certificate-controller",),
    "certificatesigningrequest-cleaner-controller": ("system:controller:certificate-controller",),
    "certificatesigningrequest-signing-controller": ("system:controller:certificate-controller",),
    "controllermanager": ("system:controller:disruption-controller",),
    "daemonset-controller": ("system:controller:daemon-set-controller",),
    "default-scheduler": ("system:kube-scheduler", "system:volume-scheduler"),
    "endpoint-slice-controller": ("system:controller:endpointslice-controller",),
    "endpoint-slice-mirroring-controller": ("system:controller:endpointslicemirroring-controller",),
    "ephemeral_volume": ("system:controller:ephemeral-volume-controller",),
    "persistentvolume-controller": ("system:controller:persistent-volume-binder",),
    "rancher.io/local-path": ("system:persistent-volume-provisioner",),
    "service-cidr-controller": ("system:controller:service-cidrs-controller",),
    "taint-eviction-controller": ("system:controller:node-controller",),
    "token-cleaner-controller": ("kube-system/system:controller:token-cleaner",),
    "tokens-controller": (MANAGER,),
    MANAGER: (MANAGER,),
}
"""By the name a controller writes under, where the role's is not `system:controller:` and that name."""
OURS = {
    "cluster-dns": (rule("create", "core", "services"), rule("create update", "discovery.k8s.io", "endpointslices")),
    "rancher.io/local-path": (rule("create", "storage.k8s.io", "storageclasses"),),
    "service-events": (rule("create patch update", "core events.k8s.io", "events"),),
}
"""What no controller of upstream does, since add-ons and people do it there."""


def role_names(component: str) -> tuple[str, ...]:
    """The default roles of whoever writes under this name; a Role as NAMESPACE/NAME."""
    return ROLES_OF.get(component, () if component in OURS else (f"system:controller:{component}",))


@cache
def rules_of(component: str) -> list[tuple[str, PolicyRule]]:
    """(the namespace it holds in, "" for all; the rule)"""
    found: list[tuple[str, PolicyRule]] = [("", r) for r in rules_in({"rules": list(OURS.get(component, ()))})]
    for name in role_names(component):
        namespace, _, role = name.rpartition("/")
        rules = ROLES[namespace, role] if namespace else CLUSTER_ROLES[role]
        found += [(namespace, r) for r in rules_in({"rules": rules})]
    return found


@cache
def may(component: str, verb: str, kind: Kind, subresource: str, namespace: str, name: str = "") -> bool:
    """Whether a controller may do this by its roles, or by the manager's for all."""
    access = Attributes(SOMEBODY, verb, kind.group, kind.version, kind.plural, subresource, namespace, name)
    rules = [*rules_of(component), *rules_of(MANAGER)] if verb in ("list", "watch") else rules_of(component)
    return any(rule_allows(r, access) for where, r in rules if where in ("", namespace))
