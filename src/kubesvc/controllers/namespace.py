"""Namespace controller: empties a namespace that is being deleted, pods first, then lets it go (NS-2 to NS-5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.errors import ApiError, Conflict, MethodNotAllowed, NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import KINDS, NAMESPACE, POD
from kubesvc.api.meta import Condition, Object, Typed
from kubesvc.api.namespace import Namespace
from kubesvc.client.interface import Unreachable
from kubesvc.client.workqueue import Key, RetryPolicy
from kubesvc.clock import rfc3339

from .customkinds import CustomKinds
from .runner import Controller, ControllerContext, ExpectedFailure, key_of
from .versioned import put_change

META = msgspec.json.Decoder(Typed)


@dataclass(slots=True)
class Remains:
    """What is still in a namespace: objects by resource, finalizers by name, and failures to empty it."""

    objects: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.objects and not self.failures


class NamespaceController(Controller):
    """Deletes the contents of terminating namespaces and takes the finalizer `kubernetes` away at the end."""

    name = "namespace-controller"
    policy = RetryPolicy(base_seconds=0.05, cap_seconds=10.0, most=0)

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.namespaces = ctx.informers.of(NAMESPACE)
        self.namespaces.on_change(
            lambda _, new: self.queue.add(key_of(new)) if new and new.metadata.deletion_timestamp else None
        )
        self.kinds = [k for k in KINDS if k.namespaced and "deletecollection" in k.verbs and "list" in k.verbs]
        self.custom = CustomKinds(ctx.informers)
        self.unserved: set[Kind] = set()

    async def reconcile(self, key: Key) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return
        if not (namespace.spec.finalizers or []):
            return
        remains = await self.empty(namespace.name)
        await self.report(namespace, remains)
        if not remains.empty:
            left = ", ".join(f"{n} {resource}" for resource, n in sorted(remains.objects.items()))
            raise ExpectedFailure(f"namespace {namespace.name} still holds {left or '; '.join(remains.failures)}")
        await self.finalize(namespace)

    async def empty(self, namespace: str) -> Remains:
        """Delete everything in it; pods alone while any is left (NS-3)."""
        remains = Remains()
        await self.empty_kind(POD, namespace, remains)
        if remains.empty:
            for kind in (*self.kinds, *(k for k in self.custom.by_resource.values() if k.namespaced)):
                if kind is not POD and kind not in self.unserved:
                    await self.empty_kind(kind, namespace, remains)
        return remains

    async def empty_kind(self, kind: Kind, namespace: str, remains: Remains) -> None:
        try:
            found = await self.client.list_raw(kind, namespace)
            if not found.items:
                return
            await self.client.delete_collection(kind, namespace)
            left = (await self.client.list_raw(kind, namespace)).items
        except (NotFound, MethodNotAllowed):
            self.unserved.add(kind)  # this server does not have the kind
            return
        except (ApiError, Unreachable) as error:
            remains.failures.append(f"{kind.resource}: {error}")
            return
        if left:
            remains.objects[f"{kind.plural}.{kind.group}"] = len(left)
            for raw in left:
                for finalizer in META.decode(raw).metadata.finalizers or ():
                    remains.finalizers[finalizer] = remains.finalizers.get(finalizer, 0) + 1

    async def report(self, namespace: Namespace, remains: Remains) -> None:
        """Write the five conditions of NS-3 where they changed."""
        now = rfc3339(self.ctx.clock.now())
        current = {c.type: c for c in namespace.status.conditions or ()}
        wanted = [plan_condition(current, type, *says, now) for type, says in plan_conditions(remains).items()]
        if wanted == list(current.values()):
            return
        status: Object = {"phase": "Terminating", "conditions": [msgspec.to_builtins(c) for c in wanted]}
        try:
            await put_change(self.client, NAMESPACE, namespace, {"status": status}, subresource="status")
        except NotFound:
            return

    async def finalize(self, namespace: Namespace) -> None:
        try:
            live = await self.client.get(NAMESPACE, namespace.name)
            if live["metadata"].get("uid") != namespace.metadata.uid:
                return
            spec = live.setdefault("spec", {})
            spec["finalizers"] = [f for f in spec.get("finalizers") or [] if f != "kubernetes"]
            await self.client.update(NAMESPACE, live, subresource="finalize")
        except (NotFound, Conflict):
            return


def plan_conditions(remains: Remains) -> Mapping[str, tuple[str, str, str]]:
    """Type to (status, reason, message), in upstream's order."""
    failed = "; ".join(remains.failures)
    objects = ", ".join(f"{r} has {n} resource instances" for r, n in sorted(remains.objects.items()))
    finalizers = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(remains.finalizers.items()))
    found = "All resources successfully discovered"
    parsed = "All legacy kube types successfully parsed"
    deleted = "All content successfully deleted, may be waiting on finalization"
    return {
        "NamespaceDeletionDiscoveryFailure": ("False", "ResourcesDiscovered", found),
        "NamespaceDeletionGroupVersionParsingFailure": ("False", "ParsedGroupVersions", parsed),
        "NamespaceDeletionContentFailure": ("True", "ContentDeletionFailed", failed)
        if failed
        else ("False", "ContentDeleted", deleted),
        "NamespaceContentRemaining": ("True", "SomeResourcesRemain", f"Some resources are remaining: {objects}")
        if objects
        else ("False", "ContentRemoved", "All content successfully removed"),
        "NamespaceFinalizersRemaining": (
            "True",
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {finalizers}",
        )
        if finalizers
        else ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    }


def plan_condition(
    current: Mapping[str, Condition], type: str, status: str, reason: str, message: str, now: str
) -> Condition:
    before = current.get(type)
    same = before is not None and before.status == status
    moved = before.last_transition_time if before is not None and same else now
    return Condition(type=type, status=status, reason=reason, message=message, last_transition_time=moved)
