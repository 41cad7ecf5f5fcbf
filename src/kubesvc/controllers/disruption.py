"""Disruption controller: keeps each PodDisruptionBudget's status true, so that evictions know what they may do (SUB-4).

Which pods there should be is asked of their owners: a Deployment speaks for its ReplicaSets, a ReplicaSet,
StatefulSet or ReplicationController for itself.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.errors import NotFound
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import (
    DEPLOYMENT,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    REPLICATION_CONTROLLER,
    STATEFUL_SET,
)
from kubesvc.api.meta import Object, OwnerReference, Typed
from kubesvc.api.pod import Pod
from kubesvc.api.poddisruptionbudget import PodDisruptionBudget, PodDisruptionBudgetStatus
from kubesvc.api.selectors import LabelSelector
from kubesvc.client.workqueue import Key

from . import disruption_plan as plan
from .ownership import matcher_of
from .runner import Controller, ControllerContext, ExpectedFailure, key_of
from .slimpod import pods_of
from .versioned import put_version

SIZED: tuple[Kind, ...] = (DEPLOYMENT, REPLICA_SET, STATEFUL_SET, REPLICATION_CONTROLLER)


class UnknownSize(ExpectedFailure):
    """How many pods an owner wants cannot be told."""


class DisruptionController(Controller):
    """Keys are PodDisruptionBudgets."""

    name = "disruption-controller"
    component = "controllermanager"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.budgets = ctx.informers.of(POD_DISRUPTION_BUDGET)
        self.pods = pods_of(ctx.informers)
        self.owners = {(k.api_version, k.name): ctx.informers.of(k) for k in SIZED}
        self.budgets.on_change(lambda old, new: self.queue.add(key_of(new, old)))
        self.pods.on_change(self.pod_moved)
        for informer in self.owners.values():
            informer.on_change(self.owner_moved)

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            for budget in self.budgets.in_namespace(pod.namespace) if pod is not None else ():
                if pod is not None and selector_of(budget).matches(pod.metadata.labels):
                    self.queue.add(key_of(budget))

    def owner_moved(self, old: Typed | None, new: Typed | None) -> None:
        """A size that changes concerns the budgets of that namespace that are shares."""
        if old is not None and new is not None and size_of(old) == size_of(new):
            return
        for budget in self.budgets.in_namespace(key_of(new, old)[0]):
            if plan.needs_scale(budget):
                self.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> None:
        budget = self.budgets.get(key)
        if budget is None:
            return
        selector, now = selector_of(budget), self.ctx.clock.now()
        pods = [p for p in self.pods.in_namespace(budget.namespace) if selector.matches(p.metadata.labels)]
        if not pods:
            self.events.event(POD_DISRUPTION_BUDGET, budget, "Normal", "NoPods", "No matching pods found")
        try:
            wanted = await self.wanted(pods) if plan.needs_scale(budget) else 0
        except UnknownSize as failure:
            text = f"Failed to calculate the number of expected pods: {failure}"
            self.events.event(POD_DISRUPTION_BUDGET, budget, "Warning", "CalculateExpectedPodCountFailed", text)
            before = msgspec.to_builtins(budget.status)
            await self.write_status(budget, {**before, **plan.plan_failure(budget, str(failure), now)})
            raise
        expected = plan.plan_expected(budget, pods, wanted)
        disrupted = plan.plan_disrupted(budget, pods, now)
        for pod in (p for p in pods if p.name in disrupted.overdue):
            text = f"Pod was expected by PDB {budget.namespace}/{budget.name} to be deleted but it wasn't"
            self.events.event(POD, pod, "Warning", "NotDeleted", text)
        if disrupted.recheck is not None:
            self.queue.add_after(key, disrupted.recheck + 0.05)
        await self.write_status(budget, plan.plan_status(budget, pods, expected, disrupted, now))

    async def wanted(self, pods: list[Pod]) -> int:
        """How many pods the owners of these ask for, each owner counted once; pods without owner count nothing."""
        sizes: dict[str, int] = {}
        for pod in pods:
            reference = pod.metadata.controller
            if reference is None or reference.uid in sizes:
                continue
            owner = await self.owner(reference, pod.namespace)
            above = owner.metadata.controller
            if above is not None and (above.api_version, above.kind) == (DEPLOYMENT.api_version, DEPLOYMENT.name):
                owner = await self.owner(above, pod.namespace)
            sizes[reference.uid] = 0 if owner.metadata.uid in sizes else size_of(owner)
            if owner.metadata.uid != reference.uid:
                sizes.setdefault(owner.metadata.uid, 0)
        return sum(sizes.values())

    async def owner(self, reference: OwnerReference, namespace: str) -> Typed:
        """The owner that is named. The cache may be behind a fresh pod's, so a miss asks the server."""
        informer = self.owners.get((reference.api_version, reference.kind))
        if informer is None:
            raise UnknownSize(f"{reference.kind} {namespace}/{reference.name} does not implement the scale subresource")
        found: Typed | None = informer.get((namespace, reference.name))
        if found is None or found.metadata.uid != reference.uid:
            try:
                live = await self.client.get(informer.kind, reference.name, namespace)
                found = msgspec.convert(live, informer.kind.type)
            except NotFound:
                found = None
        if found is None or found.metadata.uid != reference.uid:
            raise UnknownSize(f"{reference.kind} {namespace}/{reference.name} is gone")
        return found

    async def write_status(self, budget: PodDisruptionBudget, status: Object) -> None:
        """Write it if it differs. Bound to the state it was planned from: an eviction meanwhile is a Conflict."""
        if msgspec.convert(status, PodDisruptionBudgetStatus) == budget.status:
            return
        before = dict.fromkeys(msgspec.to_builtins(budget.status).get("disruptedPods") or {})
        pods = {**before, **(status.get("disruptedPods") or {})}
        patch = {"status": {**status, "disruptedPods": pods if status.get("disruptedPods") else None}}
        try:
            await put_version(self.client, POD_DISRUPTION_BUDGET, budget, patch, subresource="status")
        except NotFound:
            return


def size_of(owner: Typed) -> int:
    """spec.replicas, which defaults to 1."""
    replicas = owner.spec.replicas  # type: ignore[attr-defined]
    return 1 if replicas is None else int(replicas)


def selector_of(budget: PodDisruptionBudget) -> LabelSelector:
    """What the budget is about: no selector selects nothing, an empty one every pod of the namespace."""
    return matcher_of(budget.spec.selector)
