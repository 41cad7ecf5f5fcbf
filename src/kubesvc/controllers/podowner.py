"""What all controllers that own pods share: which owner a pod's change concerns, who belongs to whom, and making and
deleting pods while keeping count of what was asked for (RS-1 to RS-3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import POD
from kubesvc.api.meta import Object, Typed, controller_reference
from kubesvc.api.pod import Pod
from kubesvc.api.selectors import LabelSelector
from kubesvc.client.informer import Informer
from kubesvc.client.workqueue import Key

from .expectations import Expectations
from .ownership import adopt, controller_uid, matcher_of, plan_claim, release
from .runner import Controller, ControllerContext, closing, key_of
from .slimpod import pods_of
from .versioned import put_change

OwnerT = TypeVar("OwnerT", bound=Typed)


class PodOwnerController(Controller, Generic[OwnerT]):
    """Base of controllers whose keys are owners of pods; a subclass names `kind` and writes `reconcile`."""

    kind: ClassVar[Kind]

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.owners: Informer[OwnerT] = ctx.informers.of(self.kind)
        self.pods: Informer[Pod] = pods_of(ctx.informers)
        self.pods_by_controller = self.pods.index("controller", lambda p: [controller_uid(p)])
        self.orphans = self.pods.index("orphans", lambda p: [p.namespace] if p.metadata.controller is None else [])
        self.owners_by_uid = self.owners.index("uid", lambda o: [o.metadata.uid])
        self.expectations = Expectations()
        self.owners.on_change(self.owner_moved)
        self.pods.on_change(self.pod_moved)

    # ---------------------------------------------------------------- what wakes a key

    def owner_moved(self, old: OwnerT | None, new: OwnerT | None) -> None:
        key = key_of(new, old)
        if new is None:
            self.expectations.forget(key)
        self.queue.add(key)

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        if old is None and new is not None and (owner := self.owner_of(new)):
            self.expectations.created(key_of(owner))
        gone = old if new is None else new if new.metadata.deletion_timestamp is not None else None
        if gone is not None and (owner := self.owner_of(gone)):
            self.expectations.deleted(key_of(owner), gone.metadata.uid)
        for pod in (old, new):
            if pod is None:
                continue
            if pod.metadata.controller is not None:
                if owner := self.owner_of(pod):
                    self.queue.add(key_of(owner))
            else:
                for candidate in self.owners.in_namespace(pod.namespace):
                    if self.selector_of(candidate).matches(pod.metadata.labels):
                        self.queue.add(key_of(candidate))

    def owner_of(self, pod: Pod) -> OwnerT | None:
        uid = controller_uid(pod)
        return next(iter(self.owners_by_uid.get(uid)), None) if uid else None

    # ---------------------------------------------------------------- who belongs to whom

    def selector_of(self, owner: OwnerT) -> LabelSelector:
        """The owner's selector; of an owner without one, a selector that selects nothing."""
        selector = owner.spec.selector  # type: ignore[attr-defined]
        return matcher_of(selector)

    async def claim(self, owner: OwnerT, belongs: Callable[[Pod], bool] = lambda _: True) -> list[Pod]:
        """The pods this owner manages, after adopting and releasing (RS-2).

        belongs: of pods without owner, whether the selector alone decides about this one
        """
        claim = plan_claim(
            owner,
            self.selector_of(owner),
            self.pods_by_controller.get(owner.metadata.uid),
            [p for p in self.orphans.get(owner.namespace) if not p.terminal and belongs(p)],
        )
        for pod in claim.adopt:
            await adopt(self.client, POD, pod, owner, self.kind)
        for pod in claim.release:
            await release(self.client, POD, pod, owner)
        return claim.kept + claim.adopt

    # ---------------------------------------------------------------- pods

    async def live(self, owner: OwnerT) -> Object:
        """The owner as the server has it: the cache's form may lack fields of newer servers.

        NotFound if it is gone, or another one bears its name.
        """
        plain = await self.client.get(self.kind, owner.name, owner.namespace)
        if plain["metadata"]["uid"] != owner.metadata.uid:
            raise NotFound(f'{self.kind.resource} "{owner.name}" not found')
        return plain

    async def create_pods(self, key: Key, owner: OwnerT, bodies: Sequence[Object]) -> None:
        """In batches of 1, 2, 4 …, so that what cannot work is found out by one request (RS-3)."""
        made, batch = 0, 1
        while made < len(bodies):
            now = bodies[made : made + batch]
            results = await asyncio.gather(*(self.create_pod(owner, body) for body in now), return_exceptions=True)
            failures = [r for r in results if isinstance(r, BaseException)]
            made += len(now)
            if failures:
                for _ in range(len(failures) + len(bodies) - made):  # these will never be seen
                    self.expectations.created(key)
                raise failures[0]
            batch *= 2

    async def create_pod(self, owner: OwnerT, body: Object) -> None:
        try:
            made = await self.client.create(POD, body, owner.namespace)
        except Exception as error:
            if not closing(error):
                text = f"Error creating: {error}"
                self.events.event(self.kind, owner, "Warning", "FailedCreate", text)
            raise
        text = f"Created pod: {made['metadata']['name']}"
        self.events.event(self.kind, owner, "Normal", "SuccessfulCreate", text)

    async def delete_pods(self, key: Key, owner: OwnerT, pods: Iterable[Pod]) -> None:
        """All at once; the first failure is raised after the others are through."""
        results = await asyncio.gather(*(self.delete_pod(key, owner, p) for p in pods), return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    async def delete_pod(self, key: Key, owner: OwnerT, pod: Pod) -> None:
        try:
            await self.client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except Exception as error:
            self.expectations.deleted(key, pod.metadata.uid)
            if isinstance(error, NotFound):
                return
            text = f"Error deleting: {error}"
            self.events.event(self.kind, owner, "Warning", "FailedDelete", text)
            raise
        self.events.event(self.kind, owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

    def expect(self, key: Key, *, creations: int = 0, deletions: Iterable[Pod] = ()) -> None:
        """Note what is about to be asked for; if it is never seen the key comes back when it counts as lost (RS-3)."""
        now = self.ctx.clock.monotonic()
        uids = tuple(p.metadata.uid for p in deletions)
        self.expectations.expect(key, now, creations=creations, deletions=uids)
        self.seen(key)

    def seen(self, key: Key) -> bool:
        """Whether the cache shows all that was asked for, or it counts as lost; else the key comes back when it does.

        Asked at each turn: a key that was to come back for older expectations comes too early for newer ones.
        """
        left = self.expectations.seconds_left(key, self.ctx.clock.monotonic())
        if left:
            self.queue.add_after(key, left + 1.0)
        return not left

    async def change_status(self, owner: OwnerT, status: Object) -> None:
        """Change these fields of the status of this very object; nothing happens if it is gone."""
        try:
            await put_change(self.client, self.kind, owner, {"status": status}, subresource="status")
        except NotFound:
            return


def pod_from_template(template: Object, owner: Typed, owner_api_version: str, owner_kind: str) -> Object:
    """A pod body: the template's labels, annotations, finalizers and spec, named and owned by `owner` (RS-1).

    Labels and annotations are copies; the spec is the template's own and must not be mutated.
    """
    source = template.get("metadata") or {}
    meta: Object = {"generateName": f"{owner.name}-"}
    for part in ("labels", "annotations"):
        if source.get(part):
            meta[part] = dict(source[part])
    if source.get("finalizers"):
        meta["finalizers"] = list(source["finalizers"])
    meta["ownerReferences"] = [controller_reference(owner, owner_api_version, owner_kind)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template.get("spec") or {}}
