"""ReplicaSet and ReplicationController: keep as many pods of a template as asked for (RS-1 to RS-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from kubesvc.api.kinds import REPLICA_SET, REPLICATION_CONTROLLER
from kubesvc.api.meta import Condition, Typed
from kubesvc.api.pod import Pod
from kubesvc.api.replicaset import ReplicaSet
from kubesvc.api.replicationcontroller import ReplicationController
from kubesvc.api.selectors import LabelSelector
from kubesvc.client.workqueue import Key
from kubesvc.clock import rfc3339

from .ownership import controller_uid, matcher_of
from .podowner import PodOwnerController, pod_from_template
from .replicaset_plan import (
    PodPlan,
    as_replica_set,
    is_active,
    plan_pods,
    plan_status,
    seconds_to_next_availability,
)  # fmt: skip
from .runner import ControllerContext

OwnerT = TypeVar("OwnerT", bound=Typed)


class ReplicasController(PodOwnerController[OwnerT]):
    """Makes and deletes the pods of each owner, and counts them in its status. Kinds differ in `as_set` alone."""

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.owners_by_controller = self.owners.index("controller", lambda s: [controller_uid(s)])

    def as_set(self, owner: OwnerT) -> ReplicaSet:
        """The owner as the plans take it."""
        raise NotImplementedError

    def selector_of(self, owner: OwnerT) -> LabelSelector:
        return selector_of(self.as_set(owner))

    async def reconcile(self, key: Key) -> None:
        owner = self.owners.get(key)
        if owner is None:
            return
        replica_set = self.as_set(owner)
        pods = await self.claim(owner)
        failure: Condition | None = None
        error: Exception | None = None
        clock = self.ctx.clock
        if self.seen(key) and owner.metadata.deletion_timestamp is None:
            plan = plan_pods(replica_set, [p for p in pods if is_active(p)], self.siblings_pods(owner))
            try:
                await self.carry_out(key, owner, plan)
            except Exception as found:
                error = found
                reason = "FailedCreate" if plan.create else "FailedDelete"
                failure = Condition(
                    type="ReplicaFailure",
                    status="True",
                    reason=reason,
                    message=str(found),
                    last_transition_time=rfc3339(clock.now()),
                )
        await self.write_status(owner, replica_set, pods, failure)
        wait = seconds_to_next_availability(pods, replica_set.spec.min_ready_seconds, clock.now())
        if wait is not None and replica_set.spec.min_ready_seconds:
            self.queue.add_after(key, wait + 0.05)
        if error is not None:
            raise error

    def siblings_pods(self, owner: OwnerT) -> list[Pod]:
        """Pods of all sets of the same owner (RS-4: spread over nodes)."""
        uid = controller_uid(owner)
        family: Sequence[Typed] = self.owners_by_controller.get(uid) if uid else [owner]
        return [p for s in family for p in self.pods_by_controller.get(s.metadata.uid)]

    async def carry_out(self, key: Key, owner: OwnerT, plan: PodPlan) -> None:
        if plan.create:
            self.expect(key, creations=plan.create)
            try:
                template = (await self.live(owner))["spec"]["template"]
            except BaseException:
                self.expectations.forget(key)
                raise
            body = pod_from_template(template, owner, self.kind.api_version, self.kind.name)
            await self.create_pods(key, owner, [body] * plan.create)
        elif plan.delete:
            self.expect(key, deletions=plan.delete)
            await self.delete_pods(key, owner, plan.delete)

    async def write_status(
        self, owner: OwnerT, replica_set: ReplicaSet, pods: Sequence[Pod], failure: Condition | None
    ) -> None:
        """Write the status if it is not what the cache shows; nothing happens if the set is gone."""
        status = plan_status(replica_set, pods, self.ctx.clock.now(), failure)
        if self.kind is REPLICATION_CONTROLLER:
            del status["terminatingReplicas"]  # a field that this kind does not have
        if msgspec.convert(status, type(replica_set.status)) != replica_set.status:
            await self.change_status(owner, status_patch(status))


class ReplicaSetController(ReplicasController[ReplicaSet]):
    """Keys are ReplicaSets."""

    name = "replicaset-controller"
    kind = REPLICA_SET

    def as_set(self, owner: ReplicaSet) -> ReplicaSet:
        return owner


class ReplicationControllerController(ReplicasController[ReplicationController]):
    """Keys are ReplicationControllers (RS-6)."""

    name = "replicationcontroller-controller"
    component = "replication-controller"
    kind = REPLICATION_CONTROLLER

    def as_set(self, owner: ReplicationController) -> ReplicaSet:
        return as_replica_set(owner)


COUNTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas", "conditions")


def status_patch(status: dict[str, Any]) -> dict[str, Any]:
    """A merge patch that leaves exactly this status: counts that fell to 0 are taken away."""
    return {name: status.get(name) for name in COUNTS} | status


def selector_of(replica_set: ReplicaSet) -> LabelSelector:
    return matcher_of(replica_set.spec.selector)
