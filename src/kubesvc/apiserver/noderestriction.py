"""Admission plugin NodeRestriction: what a node may write of the objects that it may write at all.

The authorizer of mode `Node` sees only names; this looks into the bodies. Messages are upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import NODE, PERSISTENT_VOLUME_CLAIM, POD, SERVICE_ACCOUNT
from kubesvc.api.lease import LEASE
from kubesvc.api.meta import Object

from . import refusals
from .authentication import requester
from .cache import Cache, Item
from .nodeauthorizer import LEASES, node_of
from .podreferences import MIRROR_ANNOTATION, is_mirror, references_of, token_audiences
from .storage import decode

RESTRICTED = "node-restriction.kubernetes.io"
KUBERNETES = ("kubernetes.io", "k8s.io")
KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
KUBELET_LABELS = frozenset({
    "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
})  # fmt: skip
"""Labels of Kubernetes' own domains that a node may give itself."""
CLAIM_STATUS = ("capacity", "conditions", "allocatedResourceStatuses", "allocatedResources")

AudienceCheck = Callable[[str, str, str], bool]
"""Whether the requester may ask for tokens with an audience: audience, namespace and name of the account."""


class NodeRestriction:
    """Judges writes of nodes; anybody else's pass. Reads the cache, never writes."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.audience_allowed: AudienceCheck = lambda audience, namespace, account: False

    def create(self, kind: Kind, namespace: str, obj: Object) -> None:
        """Judge a new object. Raises Forbidden, NotFound."""
        node = node_of(requester.get())
        if node is None:
            return
        name = obj["metadata"].get("name") or ""
        self._named(kind, name, node)
        if kind is POD:
            self._create_pod(node, name, obj)
        elif kind is NODE:
            self._own_node(node, name)
            forbidden = forbidden_labels(obj["metadata"].get("labels") or {}, {})
            if (obj.get("spec") or {}).get("configSource"):
                why = f"node {quote(node)} is not allowed to create pods with a non-nil configSource"
                raise refusals.forbidden(kind, name, why)
            if forbidden:
                why = f"node {quote(node)} is not allowed to set the following labels: {', '.join(forbidden)}"
                raise refusals.forbidden(kind, name, why)
        elif kind is LEASE:
            self._own_lease(node, namespace, name)

    def update(self, kind: Kind, namespace: str, new: Object, old: Object, subresource: str) -> None:
        """Judge a change. Raises Forbidden."""
        node = node_of(requester.get())
        if node is None:
            return
        name = old["metadata"]["name"]
        self._named(kind, name, node)
        if kind is POD:
            self._update_pod(node, name, new, old, subresource)
        elif kind is NODE:
            self._update_node(node, name, new, old)
        elif kind is PERSISTENT_VOLUME_CLAIM:
            self._update_claim(node, name, new, old, subresource)
        elif kind is LEASE:
            self._own_lease(node, namespace, name)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Judge a deletion. Raises Forbidden, NotFound."""
        node = node_of(requester.get())
        if node is None:
            return
        self._named(kind, name, node)
        if kind is POD:
            if self._pod(namespace, name).field("spec.nodeName") != node:
                why = f"node {quote(node)} can only delete pods with spec.nodeName set to itself"
                raise refusals.forbidden(kind, name, why)
        elif kind is NODE:
            self._own_node(node, name)
        elif kind is LEASE:
            self._own_lease(node, namespace, name)

    def evict(self, namespace: str, name: str) -> None:
        """Judge an eviction. Raises Forbidden, NotFound."""
        node = node_of(requester.get())
        if node is not None and self._pod(namespace, name).field("spec.nodeName") != node:
            why = f"node {node} can only evict pods with spec.nodeName set to itself"
            raise refusals.forbidden(POD, name, why)

    def token(self, namespace: str, account: str, spec: Object) -> None:
        """Judge a request for an account's token: it must be bound to a pod of the node. Raises Forbidden, NotFound."""
        node = node_of(requester.get())
        if node is None:
            return

        def refuse(why: str) -> Exception:
            return refusals.forbidden(SERVICE_ACCOUNT, account, why)

        reference = spec.get("boundObjectRef") or {}
        if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
            raise refuse("node requested token not bound to a pod")
        uid = reference.get("uid") or ""
        if not uid:
            raise refuse("node requested token with a pod binding without a uid")
        item = self._pod(namespace, reference["name"])
        pod = decode(item.value, item.revision)
        if pod["metadata"]["uid"] != uid:
            raise refuse(
                f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might "
                "have been deleted and then recreated"
            )
        if (pod.get("spec") or {}).get("nodeName") != node:
            raise refuse("node requested token bound to a pod scheduled on a different node")
        audiences = spec.get("audiences") or [""]
        if len(audiences) > 1:
            raise refuse("node may only request 0 or 1 audiences")
        wanted = audiences[0]
        if wanted and wanted not in token_audiences(pod) and not self.audience_allowed(wanted, namespace, account):
            raise refuse(
                f"audience {quote(wanted)} not found in pod spec volume, {requester.get().name} is not authorized to "
                "request tokens for this audience"
            )

    # ------------------------------------------------------------------ one kind each

    def _named(self, kind: Kind, name: str, node: str) -> None:
        if not node:
            raise refusals.forbidden(kind, name, f"could not determine node from user {quote(requester.get().name)}")

    def _pod(self, namespace: str, name: str) -> Item:
        item = self.cache.of(POD).get(namespace, name)
        if item is None:
            raise refusals.not_found(POD, name)
        return item

    def _create_pod(self, node: str, name: str, pod: Object) -> None:
        """Only mirror pods of its own, which name nothing else."""
        why = self._mirror_problem(node, pod)
        if why:
            raise refusals.forbidden(POD, name, why)

    def _mirror_problem(self, node: str, pod: Object) -> str:
        who, spec = f"node {quote(node)}", pod.get("spec") or {}
        if not is_mirror(pod):
            return f"pod does not have {quote(MIRROR_ANNOTATION)} annotation, {who} can only create mirror pods"
        if spec.get("nodeName") != node:
            return f"{who} can only create pods with spec.nodeName set to itself"
        owners = pod["metadata"].get("ownerReferences") or []
        if len(owners) > 1:
            return f"{who} can only create pods with a single owner reference set to itself"
        if not owners:
            return f"{who} can only create pods with an owner reference set to itself"
        owner = owners[0]
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            return f"{who} can only create pods with an owner reference set to itself"
        if not owner.get("controller"):
            return f"{who} can only create pods with a controller owner reference set to itself"
        if owner.get("blockOwnerDeletion"):
            return f"{who} must not set blockOwnerDeletion on an owner reference"
        item = self.cache.of(NODE).get("", node)
        if item is None:
            raise refusals.not_found(NODE, node)
        uid = item.typed().metadata.uid
        if owner.get("uid") != uid:
            return f"node {node} UID mismatch: expected {owner.get('uid') or ''} got {uid}"
        if spec.get("serviceAccountName"):
            return f"{who} can not create pods that reference a service account"
        named = {resource for resource, _ in references_of(pod)}
        for resource in ("secrets", "configmaps", "persistentvolumeclaims"):
            if resource in named:
                return f"{who} can not create pods that reference {resource}"
        return ""

    def _update_pod(self, node: str, name: str, new: Object, old: Object, subresource: str) -> None:
        who = f"node {quote(node)}"
        if not subresource:
            why = f'unexpected operation "UPDATE", {who} can only create and delete mirror pods'
            raise refusals.forbidden(POD, name, why)
        if subresource != "status":
            why = f"unexpected pod subresource {quote(subresource)}, only 'status' and 'eviction' are allowed"
            raise refusals.forbidden(POD, name, why)
        if (old.get("spec") or {}).get("nodeName") != node:
            why = f"{who} can only update pod status for pods with spec.nodeName set to itself"
            raise refusals.forbidden(POD, name, why)
        if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
            raise refusals.forbidden(POD, name, f"{who} cannot update labels through pod status")

    def _own_node(self, node: str, name: str) -> None:
        if name != node:
            why = f"node {quote(node)} is not allowed to modify node {quote(name)}"
            raise refusals.forbidden(NODE, name, why)

    def _update_node(self, node: str, name: str, new: Object, old: Object) -> None:
        self._own_node(node, name)
        who = f"node {quote(node)}"
        spec, before = new.get("spec") or {}, old.get("spec") or {}
        if spec.get("configSource") and spec["configSource"] != before.get("configSource"):
            why = f"{who} is not allowed to update configSource to a new non-nil configSource"
            raise refusals.forbidden(NODE, name, why)
        if (spec.get("taints") or []) != (before.get("taints") or []):
            raise refusals.forbidden(NODE, name, f"{who} is not allowed to modify taints")
        meta, was = new["metadata"], old["metadata"]
        if (meta.get("ownerReferences") or []) != (was.get("ownerReferences") or []):
            raise refusals.forbidden(NODE, name, f"{who} is not allowed to modify ownerReferences")
        forbidden = forbidden_labels(meta.get("labels") or {}, was.get("labels") or {})
        if forbidden:
            raise refusals.forbidden(NODE, name, f"is not allowed to modify labels: {', '.join(forbidden)}")

    def _update_claim(self, node: str, name: str, new: Object, old: Object, subresource: str) -> None:
        if subresource != "status":
            why = f"unexpected operation, node {quote(node)} may only update PVC status"
            raise refusals.forbidden(PERSISTENT_VOLUME_CLAIM, name, why)
        if without_status(new) != without_status(old):
            why = f"node {quote(node)} is not allowed to update fields other than status.capacity and status.conditions"
            raise refusals.forbidden(PERSISTENT_VOLUME_CLAIM, name, why)

    def _own_lease(self, node: str, namespace: str, name: str) -> None:
        if namespace != LEASES:
            why = f"can only access leases in the {quote(LEASES)} system namespace"
            raise refusals.forbidden(LEASE, name, why)
        if name != node:
            why = "can only access node lease with the same name as the requesting node"
            raise refusals.forbidden(LEASE, name, why)


def without_status(claim: Object) -> Object:
    """A claim but for what its node reports, and for who manages which field."""
    meta = {k: v for k, v in claim["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in CLAIM_STATUS}
    return {**claim, "metadata": meta, "status": status}


def forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Labels that differ and that no node may touch, sorted: they steer pods to nodes."""
    changed: Iterable[str] = (k for k in {**new, **old} if new.get(k) != old.get(k))
    return sorted(k for k in changed if is_restricted(k))


def is_restricted(label: str) -> bool:
    """Whether only others than the node may set a label of it."""
    domain, slash, _ = label.partition("/")
    if not slash:
        return False
    if within(domain, RESTRICTED):
        return True
    if not any(within(domain, d) for d in KUBERNETES):
        return False
    return label not in KUBELET_LABELS and not any(within(domain, d) for d in KUBELET_NAMESPACES)


def within(domain: str, of: str) -> bool:
    return domain == of or domain.endswith("." + of)
