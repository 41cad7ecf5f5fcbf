"""ReplicaSet controller: keeps as many pods of a template as asked for (RS-1 to RS-5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.kinds import POD, REPLICA_SET
from kubesvc.api.meta import Condition, Object, Typed, controller_reference
from kubesvc.api.pod import Pod
from kubesvc.api.replicaset import ReplicaSet
from kubesvc.api.selectors import LabelSelector, label_selector_of
from kubesvc.client.workqueue import Key
from kubesvc.clock import rfc3339

from .expectations import Expectations
from .ownership import adopt, controller_uid, plan_claim, release
from .replicaset_plan import PodPlan, is_active, plan_pods, plan_status, seconds_to_next_availability
from .runner import Controller, ControllerContext, key_of


class ReplicaSetController(Controller):
    """Makes and deletes the pods of each ReplicaSet, and counts them in its status."""

    name = "replicaset-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.sets = ctx.informers.of(REPLICA_SET)
        self.pods = ctx.informers.of(POD)
        self.pods_by_controller = self.pods.index("controller", lambda p: [controller_uid(p)])
        self.orphans = self.pods.index("orphans", lambda p: [p.namespace] if p.metadata.controller is None else [])
        self.sets_by_uid = self.sets.index("uid", lambda s: [s.metadata.uid])
        self.sets_by_owner = self.sets.index("controller", lambda s: [controller_uid(s)])
        self.expectations = Expectations()
        self.sets.on_change(self.set_moved)
        self.pods.on_change(self.pod_moved)

    # ---------------------------------------------------------------- what wakes a key

    def set_moved(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        moved = new or old
        assert moved is not None
        if new is None:
            self.expectations.forget(key_of(moved))
        self.queue.add(key_of(moved))

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
                for candidate in self.sets.in_namespace(pod.namespace):
                    if selector_of(candidate).matches(pod.metadata.labels):
                        self.queue.add(key_of(candidate))

    def owner_of(self, pod: Pod) -> ReplicaSet | None:
        uid = controller_uid(pod)
        return next(iter(self.sets_by_uid.get(uid)), None) if uid else None

    # ---------------------------------------------------------------- one key

    async def reconcile(self, key: Key) -> None:
        replica_set = self.sets.get(key)
        if replica_set is None:
            return
        pods = await self.claim(replica_set)
        failure: Condition | None = None
        error: ApiError | None = None
        clock = self.ctx.clock
        if self.expectations.met(key, clock.monotonic()) and replica_set.metadata.deletion_timestamp is None:
            plan = plan_pods(replica_set, [p for p in pods if is_active(p)], self.siblings_pods(replica_set))
            try:
                await self.carry_out(key, replica_set, plan)
            except ApiError as found:
                error = found
                reason = "FailedCreate" if plan.create else "FailedDelete"
                failure = Condition(
                    type="ReplicaFailure",
                    status="True",
                    reason=reason,
                    message=found.message,
                    last_transition_time=rfc3339(clock.now()),
                )
        await self.write_status(replica_set, pods, failure)
        wait = seconds_to_next_availability(pods, replica_set.spec.min_ready_seconds, clock.now())
        if wait is not None and replica_set.spec.min_ready_seconds:
            self.queue.add_after(key, wait + 0.05)
        if error is not None and not error.has_cause("NamespaceTerminating"):
            raise error

    async def claim(self, replica_set: ReplicaSet) -> list[Pod]:
        """The pods this set manages, after adopting and releasing (RS-2)."""
        claim = plan_claim(
            replica_set,
            selector_of(replica_set),
            self.pods_by_controller.get(replica_set.metadata.uid),
            [p for p in self.orphans.get(replica_set.namespace) if not p.terminal],
        )
        for pod in claim.adopt:
            await adopt(self.client, POD, pod, replica_set, REPLICA_SET)
        for pod in claim.release:
            await release(self.client, POD, pod, replica_set)
        return claim.kept + claim.adopt

    def siblings_pods(self, replica_set: ReplicaSet) -> list[Pod]:
        """Pods of all ReplicaSets of the same owner (RS-4: spread over nodes)."""
        owner = controller_uid(replica_set)
        family: Sequence[Typed] = self.sets_by_owner.get(owner) if owner else [replica_set]
        return [p for s in family for p in self.pods_by_controller.get(s.metadata.uid)]

    async def carry_out(self, key: Key, replica_set: ReplicaSet, plan: PodPlan) -> None:
        now = self.ctx.clock.monotonic()
        if plan.create:
            self.expectations.expect(key, now, creations=plan.create)
            await self.create_pods(key, replica_set, plan.create)
        elif plan.delete:
            self.expectations.expect(key, now, deletions=tuple(p.metadata.uid for p in plan.delete))
            await asyncio.gather(*(self.delete_pod(key, replica_set, p) for p in plan.delete))

    async def create_pods(self, key: Key, replica_set: ReplicaSet, number: int) -> None:
        """In batches of 1, 2, 4 …, so that what cannot work is found out by one request (RS-3)."""
        body = await self.pod_body(replica_set)
        made, batch = 0, 1
        while made < number:
            size = min(batch, number - made)
            results = await asyncio.gather(
                *(self.create_pod(replica_set, body) for _ in range(size)), return_exceptions=True
            )
            failures = [r for r in results if isinstance(r, BaseException)]
            made += size
            if failures:
                for _ in range(len(failures) + number - made):  # these will never be seen
                    self.expectations.created(key)
                raise failures[0]
            batch *= 2

    async def pod_body(self, replica_set: ReplicaSet) -> Object:
        """The pod of RS-1, from the set as the server has it: the cache's form may lack fields of newer servers."""
        plain = await self.client.get(REPLICA_SET, replica_set.name, replica_set.namespace)
        if plain["metadata"]["uid"] != replica_set.metadata.uid:
            raise NotFound(f'replicasets.apps "{replica_set.name}" not found')
        return pod_from_template(plain["spec"]["template"], replica_set, REPLICA_SET.api_version, REPLICA_SET.name)

    async def create_pod(self, replica_set: ReplicaSet, body: Object) -> None:
        try:
            made = await self.client.create(POD, body, replica_set.namespace)
        except ApiError as error:
            if not error.has_cause("NamespaceTerminating"):
                text = f"Error creating: {error.message}"
                self.events.event(REPLICA_SET, replica_set, "Warning", "FailedCreate", text)
            raise
        text = f"Created pod: {made['metadata']['name']}"
        self.events.event(REPLICA_SET, replica_set, "Normal", "SuccessfulCreate", text)

    async def delete_pod(self, key: Key, replica_set: ReplicaSet, pod: Pod) -> None:
        try:
            await self.client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except ApiError as error:
            self.expectations.deleted(key, pod.metadata.uid)
            if isinstance(error, NotFound):
                return
            text = f"Error deleting: {error.message}"
            self.events.event(REPLICA_SET, replica_set, "Warning", "FailedDelete", text)
            raise
        self.events.event(REPLICA_SET, replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

    async def write_status(self, replica_set: ReplicaSet, pods: Sequence[Pod], failure: Condition | None) -> None:
        """Write the status if it is not what the cache shows; nothing happens if the set is gone."""
        status = plan_status(replica_set, pods, self.ctx.clock.now(), failure)
        if msgspec.convert(status, type(replica_set.status)) == replica_set.status:
            return
        patch = {"metadata": {"uid": replica_set.metadata.uid}, "status": status_patch(status)}
        try:
            await self.client.patch(
                REPLICA_SET, replica_set.name, replica_set.namespace, patch, "merge", subresource="status"
            )
        except NotFound:
            return


COUNTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas", "conditions")


def status_patch(status: dict[str, object]) -> dict[str, object]:
    """A merge patch that leaves exactly this status: counts that fell to 0 are taken away."""
    return {name: status.get(name) for name in COUNTS} | status


def selector_of(replica_set: ReplicaSet) -> LabelSelector:
    return label_selector_of(msgspec.to_builtins(replica_set.spec.selector) if replica_set.spec.selector else None)


def pod_from_template(template: Object, owner: Typed, owner_api_version: str, owner_kind: str) -> Object:
    """A pod body: the template's labels, annotations, finalizers and spec, named and owned by `owner`."""
    source = template.get("metadata") or {}
    meta: Object = {"generateName": f"{owner.name}-"}
    for part in ("labels", "annotations", "finalizers"):
        if source.get(part):
            meta[part] = source[part]
    meta["ownerReferences"] = [controller_reference(owner, owner_api_version, owner_kind)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template.get("spec") or {}}
