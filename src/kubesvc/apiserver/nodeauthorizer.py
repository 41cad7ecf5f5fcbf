"""The authorization mode `Node`: a node reaches itself, its pods, and what those pods name; nothing else.

A node is the user `system:node:NAME` in group `system:nodes`. What depends on the content of a write (which pod, which
labels) is `noderestriction`'s to judge. Which pods a node has is read from the cache at each request: nothing is kept
that could go stale.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import PERSISTENT_VOLUME, POD
from kubesvc.api.meta import Object
from kubesvc.api.rbac import PolicyRule

from .authentication import User
from .authorization import Attributes, Rules
from .cache import Cache
from .podreferences import SECRET_REFERENCES, is_mirror, references_of
from .rbac import rule_allows

PREFIX = "system:node:"
GROUP = "system:nodes"
LEASES = "kube-node-lease"
READ_VERBS = ("get", "list", "watch")
LEASE_VERBS = ("get", "create", "update", "patch", "delete")


def rule(verbs: str, groups: str, resources: str) -> PolicyRule:
    """A rule from words; the core group is written `core`."""
    return PolicyRule(
        verbs=verbs.split(),
        api_groups=["" if g == "core" else g for g in groups.split()],
        resources=resources.split(),
    )


RULES = (
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
    rule("get list watch", "core", "services"),
    rule("get", "core", "endpoints"),
    rule("create update patch", "core events.k8s.io", "events"),
    rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    rule("get list watch", "storage.k8s.io", "csidrivers"),
    rule("get list watch", "node.k8s.io", "runtimeclasses"),
)
"""What every node may do, whichever it is."""

EPHEMERAL = b'"ephemeral":'
_objects = msgspec.json.Decoder(dict)


def node_of(user: User) -> str | None:
    """The name of the node that a user is, "" for one without a name; None for users that are no nodes."""
    if not user.name.startswith(PREFIX) or GROUP not in user.groups:
        return None
    return user.name[len(PREFIX) :]


class NodeAuthorizer:
    """Judges nodes; has no opinion on anybody else."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def allows(self, access: Attributes) -> tuple[bool, str]:
        """Whether a node may, or upstream's words why not."""
        node = node_of(access.user)
        if node is None:
            return False, ""
        if not node:
            return False, f"unknown node for user {quote(access.user.name)}"
        why = self.objection(node, access)
        return why is None, why or ""

    def objection(self, node: str, access: Attributes) -> str | None:
        """Why a node may not, "" for no reason to give; None if it may."""
        match (access.group, access.resource):
            case ("", "secrets" | "configmaps"):
                return self._read_namespaced(node, access)
            case ("", "persistentvolumeclaims"):
                return self._claim(node, access)
            case ("", "persistentvolumes"):
                return self._get(node, access)
            case ("", "serviceaccounts"):
                return self._token(node, access)
            case ("", "nodes"):
                return own_node(node, access)
            case ("", "pods"):
                return self._pod(node, access)
            case ("coordination.k8s.io", "leases"):
                return own_lease(node, access)
            case ("storage.k8s.io", "csinodes"):
                return own_csi_node(node, access)
        return None if any(rule_allows(r, access) for r in RULES) else ""

    def _read_namespaced(self, node: str, access: Attributes) -> str | None:
        if access.verb not in READ_VERBS:
            return "can only read resources of this type"
        if access.subresource:
            return "cannot read subresource"
        if not access.namespace:
            return "can only read namespaced object of this type"
        return self._related(node, access)

    def _claim(self, node: str, access: Attributes) -> str | None:
        if access.subresource == "status":
            if access.verb not in ("update", "patch"):
                return "can only get/update/patch this type"
            return self._related(node, access)
        return self._get(node, access)

    def _get(self, node: str, access: Attributes) -> str | None:
        if access.verb != "get":
            return "can only get individual resources of this type"
        if access.subresource:
            return "cannot get subresource"
        return self._related(node, access)

    def _token(self, node: str, access: Attributes) -> str | None:
        if access.verb != "create" or not access.name:
            return "can only create tokens for individual service accounts"
        if access.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._related(node, access)

    def _pod(self, node: str, access: Attributes) -> str | None:
        match access.subresource, access.verb:
            case "", "get":
                return self._get(node, access)
            case "", "list" | "watch":
                if ("spec.nodeName", node) in access.fields:
                    return None
                if access.name:
                    return self._related(node, access)
                return "can only list/watch pods with spec.nodeName field selector"
            case "", "create" | "delete":
                return None
            case ("status", "update" | "patch") | ("eviction", "create"):
                return None
        return ""

    def _related(self, node: str, access: Attributes) -> str | None:
        if not access.name:
            return "No Object name found"
        if self.reaches(node, access.resource, access.namespace, access.name):
            return None
        return f"no relationship found between node '{node}' and this object"

    def reaches(self, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether a way leads from one of the node's pods to an object."""
        if resource == "pods":
            item = self.cache.of(POD).get(namespace, name)
            return item is not None and item.field("spec.nodeName") == node
        if resource == "persistentvolumes":
            item = self.cache.of(PERSISTENT_VOLUME).get("", name)
            claim = ((_objects.decode(item.value).get("spec") or {}).get("claimRef") or {}) if item else {}
            return bool(claim) and self.reaches(
                node, "persistentvolumeclaims", claim.get("namespace") or "", claim.get("name") or ""
            )
        wanted = (resource, name)
        if any(wanted in references_of(pod) for pod in self._pods(node, namespace, name) if not is_mirror(pod)):
            return True
        return resource == "secrets" and self._secret_of_volume(node, namespace, name)

    def _secret_of_volume(self, node: str, namespace: str, name: str) -> bool:
        """Whether a secret belongs to a volume that a claim of the node's pods is bound to."""
        quoted = msgspec.json.encode(name)
        for item in self.cache.of(PERSISTENT_VOLUME).select():
            if quoted not in item.value:
                continue
            spec = _objects.decode(item.value).get("spec") or {}
            claim = spec.get("claimRef") or {}
            if (namespace, name) in volume_secrets(spec, claim.get("namespace") or "") and self.reaches(
                node, "persistentvolumeclaims", claim.get("namespace") or "", claim.get("name") or ""
            ):
                return True
        return False

    def _pods(self, node: str, namespace: str, mentioned: str) -> Iterator[Object]:
        """The node's pods in which a name stands somewhere, or may: a claim of an ephemeral volume has a name of two
        parts."""
        quoted = msgspec.json.encode(mentioned)
        for item in self.cache.of(POD).select(namespace):
            if item.field("spec.nodeName") == node and (quoted in item.value or EPHEMERAL in item.value):
                yield _objects.decode(item.value)

    def rules_of(self, user: User, namespace: str) -> Rules:
        """Nodes' rights depend on their pods and cannot be listed."""
        if node_of(user) is None:
            return Rules((), ())
        return Rules((), (), incomplete=True, error="node authorizer does not support user rule resolution")

    def refuse_escalation(self, user: User, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
        """Nodes write no roles."""


def volume_secrets(spec: Object, claim_namespace: str) -> set[tuple[str, str]]:
    """(namespace, name) of the secrets that a PersistentVolume names, in its claim's namespace unless it says so."""
    found = set()
    csi = spec.get("csi") or {}
    named = [csi.get(f"{step}SecretRef") for step in ("nodePublish", "nodeStage", "nodeExpand", "controllerPublish")]
    named += [(spec.get(sort) or {}).get("secretRef") for sort in SECRET_REFERENCES]
    azure = spec.get("azureFile") or {}
    named.append({"name": azure.get("secretName"), "namespace": azure.get("secretNamespace")})
    for reference in named:
        if reference and reference.get("name"):
            found.add((reference.get("namespace") or claim_namespace, reference["name"]))
    return found


def own_node(node: str, access: Attributes) -> str | None:
    """A node reads and writes its own Node; that it writes no other's is NodeRestriction's to see."""
    if not access.subresource:
        if access.verb in ("create", "update", "patch"):
            return None
        if access.verb in READ_VERBS:
            if access.name == node:
                return None
            if not access.name:
                return f"node '{node}' cannot read all nodes, only its own Node object"
            return f"node '{node}' cannot read '{access.name}', only its own Node object"
    if access.subresource == "status" and access.verb in ("update", "patch"):
        return None
    return ""


def own_lease(node: str, access: Attributes) -> str | None:
    if access.verb not in LEASE_VERBS:
        return "can only get, create, update, patch, or delete a node lease"
    if access.namespace != LEASES:
        return f"can only access leases in the {quote(LEASES)} system namespace"
    if access.verb != "create" and access.name != node:
        return "can only access node lease with the same name as the requesting node"
    return None


def own_csi_node(node: str, access: Attributes) -> str | None:
    if access.verb not in LEASE_VERBS:
        return "can only get, create, update, patch, or delete a CSINode"
    if access.subresource:
        return "cannot authorize CSINode subresources"
    if access.verb != "create" and access.name != node:
        return "can only access CSINode with the same name as the requesting node"
    return None
