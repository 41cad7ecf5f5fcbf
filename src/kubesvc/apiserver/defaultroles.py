"""The roles every cluster begins with, and how they are kept: what is missing of them is added at each start.

`admin`, `edit` and `view` hold no rules of their own but gather those of roles with a label, so that whoever adds a
kind adds a labelled role. A role whose annotation says so is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from kubesvc.api.clusterrole import AGGREGATED_BY, CLUSTER_ROLE, ClusterRole, aggregated_rules
from kubesvc.api.clusterrolebinding import CLUSTER_ROLE_BINDING
from kubesvc.api.errors import AlreadyExists, Conflict, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object, typed
from kubesvc.api.rbac import PolicyRule
from kubesvc.api.role import ROLE
from kubesvc.api.rolebinding import ROLE_BINDING
from kubesvc.client.interface import Client

from .controllerroles import CONTROLLER_ROLES, MANAGER, NAMESPACED_ROLES
from .rbac import API_GROUP, covered, rules_in

LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTO_UPDATE = "rbac.authorization.kubernetes.io/autoupdate"


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Object:
    """A rule from words; the core group is written `core`."""
    found: Object = {
        "verbs": verbs.split(),
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        found["resourceNames"] = names.split()
    return found


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
    rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule(READ, "coordination.k8s.io", "leases"),
    *(rule(WRITE, g, r) for g, r in EDITED),
    rule("create", "core", "pods/eviction serviceaccounts/token"),
    rule("impersonate", "core", "serviceaccounts"),
]
ADMIN = [
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
REVIEWS = [
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
]
CONTROLLER = "system:controller:"
"""What the names of controllers' roles begin with; each is bound to the account of the rest of its name."""
EVENTS = rule("create patch update", "core events.k8s.io", "events")
LEADING = [rule("create", "coordination.k8s.io", "leases")]
CLUSTER_ROLES: dict[str, list[Object]] = {
    "cluster-admin": EVERYTHING,
    "system:aggregate-to-admin": ADMIN,
    "system:aggregate-to-edit": EDIT,
    "system:aggregate-to-view": VIEW,
    "system:discovery": [DISCOVERY],
    "system:public-info-viewer": [PUBLIC],
    "system:basic-user": SELF_REVIEWS,
    "system:service-account-issuer-discovery": [
        paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks",
              "/openid/v1/jwks/")
    ],
    "system:monitoring": [
        paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*")
    ],
    "system:auth-delegator": REVIEWS,
    "system:kube-dns": [rule("list watch", "core", "endpoints services")],
    "system:node-proxier": [
        rule("list watch", "core", "services endpoints"),
        rule(READ, "core", "nodes"),
        EVENTS,
        rule("list watch", "discovery.k8s.io", "endpointslices"),
        rule("list watch", "networking.k8s.io", "servicecidrs"),
    ],
    "system:kube-scheduler": [
        EVENTS,
        *LEADING,
        rule("get update", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule(READ, "core", "nodes"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers services"),
        rule(READ, "apps", "replicasets statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims persistentvolumes namespaces"),
        *REVIEWS,
    ],
    "system:node": [
        *REVIEWS,
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ, "core", "services"),
        rule("create get list watch", "core", "nodes"),
        rule("patch update", "core", "nodes/status nodes"),
        EVENTS,
        rule(READ, "core", "pods"),
        rule("create delete", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps secrets"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes endpoints"),
        rule("get patch update", "core", "persistentvolumeclaims/status"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("create", "core", "serviceaccounts/token"),
    ],
    "system:node-bootstrapper": [rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": [
        rule("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")
    ],
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": [
        rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")
    ],
    "system:certificates.k8s.io:legacy-unknown-approver": [
        rule("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown")
    ],
    "system:certificates.k8s.io:kubelet-serving-approver": [
        rule("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving")
    ],
    "system:certificates.k8s.io:kube-apiserver-client-approver": [
        rule("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client")
    ],
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": [
        rule("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet")
    ],
    "system:persistent-volume-provisioner": [
        rule("create delete get list watch", "core", "persistentvolumes"),
        rule("get list update watch", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("watch", "core", "events"),
        EVENTS,
    ],
    "system:volume-scheduler": [
        rule("get list patch update watch", "core", "persistentvolumes"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("get list patch update watch", "core", "persistentvolumeclaims"),
    ],
    "system:kube-controller-manager": [rule(*row) for row in MANAGER],
    **{CONTROLLER + name: [rule(*row) for row in rows] for name, rows in CONTROLLER_ROLES.items()},
}  # fmt: skip
GATHERING = {"admin": "edit", "edit": "view", "view": ""}
"""The roles that gather rules, each with the one that is part of it."""
CLUSTER_ROLE_BINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cluster-admin": ("cluster-admin", ("Group system:masters",)),
    "system:monitoring": ("system:monitoring", ("Group system:monitoring",)),
    "system:discovery": ("system:discovery", ("Group system:authenticated",)),
    "system:basic-user": ("system:basic-user", ("Group system:authenticated",)),
    "system:public-info-viewer": (
        "system:public-info-viewer",
        ("Group system:authenticated", "Group system:unauthenticated"),
    ),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        ("Group system:serviceaccounts",),
    ),
    "system:kube-controller-manager": ("system:kube-controller-manager", ("User system:kube-controller-manager",)),
    "system:node-proxier": ("system:node-proxier", ("User system:kube-proxy",)),
    "system:kube-scheduler": ("system:kube-scheduler", ("User system:kube-scheduler",)),
    "system:volume-scheduler": ("system:volume-scheduler", ("User system:kube-scheduler",)),
    "system:kube-dns": ("system:kube-dns", ("ServiceAccount kube-system/kube-dns",)),
    "system:node": ("system:node", ()),
    **{
        role: (role, (f"ServiceAccount kube-system/{role.removeprefix(CONTROLLER)}",))
        for role in CLUSTER_ROLES
        if role.startswith(CONTROLLER)
    },
}
AUTHENTICATION_READER = "extension-apiserver-authentication-reader"
ROLES: dict[tuple[str, str], list[Object]] = {
    ("kube-system", AUTHENTICATION_READER): [rule(READ, "core", "configmaps", "extension-apiserver-authentication")],
    ("kube-system", "system::leader-locking-kube-scheduler"): [
        rule("watch", "core", "configmaps"),
        rule("get update", "core", "configmaps", "kube-scheduler"),
    ],
    **{(ns, CONTROLLER + name): [rule(*row) for row in rows] for (ns, name), rows in NAMESPACED_ROLES.items()},
}
ROLE_BINDINGS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("kube-system", "system::extension-apiserver-authentication-reader"): (
        AUTHENTICATION_READER,
        ("User system:kube-controller-manager", "User system:kube-scheduler"),
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        "system::leader-locking-kube-scheduler",
        ("User system:kube-scheduler",),
    ),
    **{
        (ns, CONTROLLER + name): (CONTROLLER + name, (f"ServiceAccount kube-system/{name}",))
        for ns, name in NAMESPACED_ROLES
    },
}


def default_cluster_roles() -> list[Object]:
    """All default ClusterRoles, as they are created; gathering ones hold what they gather."""
    found = []
    for name, rules in CLUSTER_ROLES.items():
        meta = meta_of(name)
        target = name.removeprefix("system:aggregate-to-")
        if target != name:
            meta["labels"][AGGREGATED_BY + target] = "true"
        found.append({"metadata": meta, "rules": rules})
    gathering: list[Object] = []
    for name in GATHERING:
        meta = meta_of(name)
        for whole, part in GATHERING.items():
            if part == name:
                meta["labels"][AGGREGATED_BY + whole] = "true"
        selectors = [{"matchLabels": {AGGREGATED_BY + name: "true"}}]
        gathering.append({"metadata": meta, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []})
    for role in reversed(gathering):  # a part before its whole
        role["rules"] = gathered_rules(role, [*found, *gathering])
    return [*found, *gathering]


def gathered_rules(role: Object, roles: Iterable[Object]) -> list[Object]:
    rules = aggregated_rules(typed(role, ClusterRole), [typed(r, ClusterRole) for r in roles])
    return [plain_rule(r) for r in rules or ()]


def plain_rule(rule: PolicyRule) -> Object:
    return {k: v for k, v in msgspec.to_builtins(rule).items() if v is not None}


def meta_of(name: str, namespace: str = "") -> Object:
    meta: Object = {"name": name, "labels": dict(LABELS), "annotations": {AUTO_UPDATE: "true"}}
    return {**meta, "namespace": namespace} if namespace else meta


def binding(name: str, namespace: str, role_kind: str, role: str, subjects: Iterable[str]) -> Object:
    """A binding; subjects are written as kind and name."""
    found = []
    for text in subjects:
        kind, _, who = text.partition(" ")
        if kind == "ServiceAccount":
            where, _, account = who.partition("/")
            found.append({"kind": kind, "name": account, "namespace": where})
        else:
            found.append({"kind": kind, "apiGroup": API_GROUP, "name": who})
    reference = {"apiGroup": API_GROUP, "kind": role_kind, "name": role}
    made: Object = {"metadata": meta_of(name, namespace), "roleRef": reference}
    return {**made, "subjects": found} if found else made


def defaults() -> list[tuple[Kind, Object]]:
    """Every default object with its kind, roles before the bindings to them."""
    found: list[tuple[Kind, Object]] = [(CLUSTER_ROLE, r) for r in default_cluster_roles()]
    found += [(ROLE, {"metadata": meta_of(name, ns), "rules": rules}) for (ns, name), rules in ROLES.items()]
    for name, (role, subjects) in CLUSTER_ROLE_BINDINGS.items():
        found.append((CLUSTER_ROLE_BINDING, binding(name, "", "ClusterRole", role, subjects)))
    for (namespace, name), (role, subjects) in ROLE_BINDINGS.items():
        found.append((ROLE_BINDING, binding(name, namespace, "Role", role, subjects)))
    return found


def repaired(wanted: Object, live: Object) -> Object | None:
    """The stored default with what it lacks; None if nothing does, or if its annotation says to leave it alone.

    Rules and subjects that somebody added stay; those of gathering roles are the aggregation controller's.
    """
    meta = live["metadata"]
    annotations, labels = dict(meta.get("annotations") or {}), dict(meta.get("labels") or {})
    if annotations.get(AUTO_UPDATE) == "false":
        return None
    new: Any = {**live, "metadata": {**meta, "annotations": {**wanted["metadata"]["annotations"], **annotations},
                "labels": {**labels, **wanted["metadata"]["labels"]}}}  # fmt: skip
    if "aggregationRule" in wanted:
        if not (live.get("aggregationRule") or {}).get("clusterRoleSelectors"):
            new["aggregationRule"] = wanted["aggregationRule"]
    elif "rules" in wanted:
        held = rules_in(live)
        lacking = [r for r in wanted["rules"] if not covered(rules_in({"rules": [r]})[0], held)]
        if lacking:
            new["rules"] = [*(live.get("rules") or ()), *lacking]
    else:
        present = live.get("subjects") or []
        lacking = [s for s in wanted.get("subjects") or () if s not in present]
        if lacking:
            new["subjects"] = [*present, *lacking]
    return new if new != live else None


async def make_default_roles(client: Client) -> None:
    """Make the default roles and bindings, and mend those there are."""

    async def make(kind: Kind, wanted: Object) -> None:
        meta = wanted["metadata"]
        namespace = meta.get("namespace") or ""
        try:
            await client.create(kind, wanted, namespace)
        except AlreadyExists:
            mended = repaired(wanted, await client.get(kind, meta["name"], namespace))
            if mended is not None:
                await client.update(kind, mended)

    async def tried(kind: Kind, wanted: Object) -> None:
        try:
            await make(kind, wanted)
        except (Conflict, NotFound):  # somebody else starts at the same moment, or removed it just now
            await make(kind, wanted)

    await asyncio.gather(*(tried(kind, wanted) for kind, wanted in defaults()))  # together: they share the fsync
