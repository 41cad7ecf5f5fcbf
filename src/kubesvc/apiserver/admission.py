"""Admission: what the server adds to objects on their way in, and whom it turns away (WRITE-12, POD-1, NODE-2, AUTH-9).

Each plugin keeps the name by which upstream's flag disables it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from kubesvc.api.certificatesigningrequest import CERTIFICATE_SIGNING_REQUEST
from kubesvc.api.errors import Forbidden
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import (
    LIMIT_RANGE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PRIORITY_CLASS,
    RUNTIME_CLASS,
    SERVICE,
)
from kubesvc.api.meta import Object
from kubesvc.api.runtimeclass import complete_pod
from kubesvc.clock import Clock, Random

from . import limits, refusals
from .cache import Cache
from .certificateadmission import CertificateAdmission
from .mutatingpolicies import MutatingPolicies
from .noderestriction import NodeRestriction
from .options import WriteOptions
from .policies import Policies
from .quotas import Quotas, Release, nothing_held
from .serviceaccounts import admit_service_account, await_default_account
from .settings import ApiServerSettings
from .storage import decode
from .storageadmission import CLAIM_PROTECTION, VOLUME_PROTECTION, StorageAdmission, protect
from .webhookcalls import Webhooks
from .webhooks import Asked, Operation

OPTIONS_KINDS: Mapping[Operation, str] = {
    "CREATE": "CreateOptions",
    "UPDATE": "UpdateOptions",
    "DELETE": "DeleteOptions",
}
OFF_BY_DEFAULT = frozenset({"DenyServiceExternalIPs"})
PROTECTED = frozenset({"default", "kube-system", "kube-public"})
NAMESPACE_WAIT_SECONDS = 0.05
TOLERATION_SECONDS = 300
UNAVAILABLE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
NOT_READY = "node.kubernetes.io/not-ready"
TOPOLOGY_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
PRIORITY_CLASSES: Mapping[str, int] = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


class Admission:
    """The admission plugins of one server. Reads the cache, never writes."""

    def __init__(self, settings: ApiServerSettings, cache: Cache, clock: Clock, random: Random) -> None:
        self.disabled = settings.disabled_admission
        self.asked_for = settings.enabled_admission
        self.cache = cache
        self.quotas = Quotas(cache)
        self.nodes = NodeRestriction(cache)
        self.storage = StorageAdmission(cache)
        self.certificates = CertificateAdmission(clock, self.enabled)
        self.webhooks = Webhooks(cache, random)
        self.policies = Policies(cache)
        self.changes = MutatingPolicies(cache)
        self.webhooks.authority = self.policies.judged
        self.clock = clock
        self.random = random

    def enabled(self, plugin: str) -> bool:
        """Whether a plugin is on; those of OFF_BY_DEFAULT must have been asked for."""
        if plugin in OFF_BY_DEFAULT and plugin not in self.asked_for:
            return False
        return plugin not in self.disabled

    async def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> None:
        """Admit a new object and complete it, in place. Raises NotFound, Forbidden."""
        if kind.namespaced and self.enabled("NamespaceLifecycle"):
            await self.check_namespace(kind, namespace, obj["metadata"].get("name") or "")
        if self.enabled("NodeRestriction"):
            self.nodes.create(kind, namespace, obj)
        if kind is POD:
            if self.enabled("ServiceAccount") and isinstance(obj.get("spec"), dict):
                await await_default_account(self.cache, namespace, obj, self.random)
            self.admit_pod(namespace, obj)
        elif kind is PRIORITY_CLASS and self.enabled("Priority"):
            self.check_one_default(obj, None)
        elif kind is NODE and self.enabled("TaintNodesByCondition"):
            taint_new_node(obj)
        elif kind is PERSISTENT_VOLUME_CLAIM:
            if self.enabled("DefaultStorageClass"):
                self.storage.default_class(obj)
            if self.enabled("StorageObjectInUseProtection"):
                protect(obj, CLAIM_PROTECTION)
        elif kind is PERSISTENT_VOLUME and self.enabled("StorageObjectInUseProtection"):
            protect(obj, VOLUME_PROTECTION)
        elif kind is CERTIFICATE_SIGNING_REQUEST:
            self.certificates.create(obj)

    def validate_create(self, kind: Kind, namespace: str, obj: Object) -> None:
        """Validating admission, after the kind's validation. Raises Forbidden."""
        if kind is SERVICE and self.enabled("DenyServiceExternalIPs"):
            deny_external_ips(obj, None)
        if kind is CERTIFICATE_SIGNING_REQUEST:
            self.certificates.validate_create(obj)
        self.check_limits(kind, namespace, obj)

    # ------------------------------------------------------------------ webhooks

    async def mutate(self, asked: Asked, warnings: list[str]) -> Object | None:
        """The last of the plugins that change objects: the object as policies and webhooks want it, None if they leave
        it alone. Policies that want it are asked again after webhooks that changed something."""
        policies = not self.changes.idle and self.enabled("MutatingAdmissionPolicy")
        current = asked
        if policies:
            new = await self.changes.mutate(current, self.webhooks.seen_as, self.webhooks.convert)
            current = current._replace(new=new) if new is not None else current
        if not self.webhooks.idle and self.enabled("MutatingAdmissionWebhook"):
            new = await self.webhooks.mutate(current, warnings)
            if new is not None:
                current = current._replace(new=new)
                if policies:
                    new = await self.changes.mutate(current, self.webhooks.seen_as, self.webhooks.convert, again=True)
                    current = current._replace(new=new) if new is not None else current
        return current.new if current is not asked else None

    @property
    def idle(self) -> bool:
        """Whether there is nobody to ask about a write: neither webhooks nor policies."""
        return self.webhooks.idle and self.policies.idle and self.changes.idle

    async def ask(self, asked: Asked, warnings: list[str]) -> None:
        """Ask the validating policies, then the validating webhooks. Raises what they refuse with."""
        if not self.policies.idle and self.enabled("ValidatingAdmissionPolicy"):
            await self.policies.validate(asked, warnings, self.webhooks.seen_as)
        if not self.webhooks.idle and self.enabled("ValidatingAdmissionWebhook"):
            await self.webhooks.validate(asked, warnings)

    def hold(self, kind: Kind, namespace: str, new: Object, old: Object | None, *, dry_run: bool) -> Release:
        """The last plugin: judge a write by the namespace's quotas. What it returns is to be called once the write is
        done or has failed. Raises Forbidden."""
        if not kind.namespaced or not self.enabled("ResourceQuota"):
            return nothing_held
        return self.quotas.hold(kind, namespace, new, old, dry_run=dry_run)

    def limits_in(self, namespace: str) -> list[Object]:
        return [decode(i.value, i.revision) for i in self.cache.of(LIMIT_RANGE).select(namespace)]

    def check_limits(self, kind: Kind, namespace: str, obj: Object) -> None:
        """Refuse what a LimitRange does not allow."""
        if (kind is not POD and kind is not PERSISTENT_VOLUME_CLAIM) or not self.enabled("LimitRanger"):
            return
        if ranges := self.limits_in(namespace):
            problems = (limits.problems_of_pod if kind is POD else limits.problems_of_claim)(obj, ranges)
            if problems:
                raise refusals.forbidden(kind, obj["metadata"].get("name") or "", limits.aggregate(problems))

    def check_one_default(self, new: Object, old: Object | None) -> None:
        """Only one PriorityClass is the default."""
        if not new.get("globalDefault") or (old or {}).get("globalDefault"):
            return
        found = self.default_class()
        if found is not None and found["metadata"]["name"] != new["metadata"].get("name"):
            raise refusals.forbidden(
                PRIORITY_CLASS,
                new["metadata"].get("name") or "",
                f"PriorityClass {found['metadata']['name']} is already marked as default. Only one default can exist",
            )

    def default_class(self) -> Object | None:
        """The PriorityClass of pods that name none; of several the lowest."""
        items = (i for i in self.cache.of(PRIORITY_CLASS).select() if b'"globalDefault":true' in i.value)
        found = [decode(i.value, i.revision) for i in items]
        return min((c for c in found if c.get("globalDefault")), key=lambda c: c.get("value") or 0, default=None)

    def class_of(self, name: str) -> Object | None:
        """The PriorityClass of a name; those of the system are known even before they are stored."""
        item = self.cache.of(PRIORITY_CLASS).get("", name)
        if item is not None:
            return decode(item.value, item.revision)
        return {"metadata": {"name": name}, "value": PRIORITY_CLASSES[name]} if name in PRIORITY_CLASSES else None

    def validate_update(self, kind: Kind, new: Object, old: Object, subresource: str) -> None:
        """Validating admission of a change, after the kind's validation. Raises Forbidden."""
        if kind is SERVICE and not subresource and self.enabled("DenyServiceExternalIPs"):
            deny_external_ips(new, old)
        if kind is PERSISTENT_VOLUME_CLAIM and not subresource and self.enabled("PersistentVolumeClaimResize"):
            self.storage.check_growth(new, old)

    async def update(
        self, kind: Kind, namespace: str, new: Object, old: Object, subresource: str, options: WriteOptions
    ) -> None:
        """Admit a change. Raises Forbidden."""
        if self.enabled("NodeRestriction"):
            self.nodes.update(kind, namespace, new, old, subresource)
        if kind is PRIORITY_CLASS and self.enabled("Priority"):
            self.check_one_default(new, old)
        elif kind is CERTIFICATE_SIGNING_REQUEST:
            self.certificates.update(new, old, subresource)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Admit a deletion (KSVC-7)."""
        if kind is NAMESPACE and name in PROTECTED and self.enabled("NamespaceLifecycle"):
            raise refusals.forbidden(kind, name, "this namespace may not be deleted")
        if self.enabled("NodeRestriction"):
            self.nodes.delete(kind, namespace, name)

    def evict(self, namespace: str, name: str) -> None:
        """Admit an eviction. Raises Forbidden, NotFound."""
        if self.enabled("NodeRestriction"):
            self.nodes.evict(namespace, name)

    def token(self, namespace: str, account: str, spec: Object) -> None:
        """Admit a request for a token of a service account. Raises Forbidden, NotFound."""
        if self.enabled("NodeRestriction"):
            self.nodes.token(namespace, account, spec)

    async def check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        """WRITE-12: the namespace exists, perhaps only just, and is not being deleted."""
        namespaces = self.cache.of(NAMESPACE)
        found = namespaces.get("", namespace)
        if found is None:
            await asyncio.sleep(NAMESPACE_WAIT_SECONDS)
            found = namespaces.get("", namespace)
            if found is None:
                raise refusals.not_found(NAMESPACE, namespace)
        if found.terminating:
            message = f"namespace {namespace} is being terminated"
            raise refusals.forbidden(
                kind,
                name,
                f"unable to create new content in namespace {namespace} because it is being terminated",
                causes=[{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}],
            )

    def admit_pod(self, namespace: str, pod: Object) -> None:
        """Tolerations, priority, topology labels and the service account of a new pod."""
        spec = pod.get("spec")
        if not isinstance(spec, dict):
            return
        if self.enabled("ServiceAccount"):
            admit_service_account(self.cache, namespace, pod, self.random)
        if self.enabled("DefaultTolerationSeconds"):
            tolerate_unavailable_nodes(spec)
        if self.enabled("Priority"):
            name = spec.get("priorityClassName") or ""
            set_priority(pod, name, self.class_of(name) if name else self.default_class())
        if self.enabled("RuntimeClass"):
            self.follow_runtime_class(pod, spec.get("runtimeClassName") or "")
        if self.enabled("LimitRanger") and (ranges := self.limits_in(namespace)):
            limits.fill_in(pod, ranges)
        if spec.get("nodeName") and self.enabled("PodTopologyLabels"):
            self.copy_topology(pod, spec["nodeName"])

    def follow_runtime_class(self, pod: Object, name: str) -> None:
        """What a new pod's class says of its cost and its place. Raises Forbidden."""
        chosen = pod["metadata"].get("name") or ""
        item = self.cache.of(RUNTIME_CLASS).get("", name) if name else None
        if name and item is None:
            raise refusals.forbidden(POD, chosen, f"pod rejected: RuntimeClass {quote(name)} not found")
        if problem := complete_pod(pod, decode(item.value, item.revision) if item is not None else {}):
            raise refusals.forbidden(POD, chosen, problem)

    def copy_topology(self, pod: Object, node_name: str) -> None:
        """The node's zone and region as labels of the pod that is bound to it (SUB-5)."""
        node = self.cache.of(NODE).get("", node_name)
        if node is None:
            return
        found = {k: node.labels[k] for k in TOPOLOGY_LABELS if k in node.labels}
        if found:
            meta = pod["metadata"]
            meta["labels"] = {**(meta.get("labels") or {}), **found}


def asked_of(
    operation: Operation,
    kind: Kind,
    namespace: str,
    new: Object | None,
    old: Object | None,
    *,
    subresource: str = "",
    name: str = "",
    dry_run: bool = False,
) -> Asked:
    """A write as webhooks see it."""
    obj = new if new is not None else old
    found = name or ((obj or {}).get("metadata") or {}).get("name") or ""
    options: Object = {"kind": OPTIONS_KINDS[operation], "apiVersion": "meta.k8s.io/v1"}
    if dry_run:
        options["dryRun"] = ["All"]
    return Asked(operation, kind, subresource, namespace, found, new, old, dry_run, options)


def deny_external_ips(new: Object, old: Object | None) -> None:
    """A Service gets no external IPs that it did not have: they would let its owner take traffic to any address in the
    cluster (CVE-2020-8554)."""
    had = set((old or {}).get("spec", {}).get("externalIPs") or ())
    if not had.issuperset((new.get("spec") or {}).get("externalIPs") or ()):
        raise refusals.forbidden(
            SERVICE, new["metadata"].get("name") or "", "Use of external IPs is denied by admission control."
        )


def tolerate_unavailable_nodes(spec: Object) -> None:
    """The two 300 s tolerations (POD-1), unless the pod says something of its own about those taints."""
    tolerations = list(spec.get("tolerations") or ())
    for key in UNAVAILABLE_TAINTS:
        if not any(
            (t.get("key") == key or (not t.get("key") and t.get("operator") == "Exists"))
            and t.get("effect") in (None, "", "NoExecute")
            for t in tolerations
        ):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}
            )
    spec["tolerations"] = tolerations


def set_priority(pod: Object, name: str, found: Object | None) -> None:
    """Priority and preemption of the pod's class, or 0 without one (POD-1).

    name: the class that the pod names, "" for none. found: that class, or the default one; None if there is none
    """
    spec = pod["spec"]
    pod_name = pod["metadata"].get("name") or ""
    if name and found is None:
        raise refusals.forbidden(POD, pod_name, f"no PriorityClass with name {name} was found")
    priority = (found.get("value") or 0) if found else 0
    if spec.get("priority") is not None and spec["priority"] != priority:
        raise Forbidden(
            f"pods {quote(pod_name)} is forbidden: the integer value of priority ({spec['priority']}) must not be "
            f"provided in pod spec; priority admission controller computed {priority} from the given PriorityClass "
            "name",
            details=refusals.details_of(POD, pod_name),
        )
    spec["priority"] = priority
    if found is not None:
        spec["priorityClassName"] = found["metadata"]["name"]
    if not spec.get("preemptionPolicy"):
        spec["preemptionPolicy"] = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"


def taint_new_node(node: Object) -> None:
    """A new node takes no pods until somebody says that it is ready (NODE-2)."""
    spec = node.get("spec")
    if not isinstance(spec, dict):
        spec = node["spec"] = {}
    taints = list(spec.get("taints") or ())
    if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
        taints.append({"key": NOT_READY, "effect": "NoSchedule"})
    spec["taints"] = taints
