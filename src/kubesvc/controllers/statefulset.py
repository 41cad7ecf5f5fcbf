"""StatefulSet controller: pods with names, host names and storage of their own, made and replaced in order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.controllerrevision import ControllerRevision
from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.kinds import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.api.statefulset import StatefulSet
from kubesvc.client.workqueue import Key

from . import statefulset_plan as plan
from .history import RevisedController
from .ownership import patch_owners
from .replicaset_plan import seconds_to_next_availability
from .revisions import template_of
from .runner import ControllerContext, ExpectedFailure, closing


class StatefulSetController(RevisedController[StatefulSet]):
    """Keys are StatefulSets. Names are stable, so a cache that is behind asks for what exists, and is refused."""

    name = "statefulset-controller"
    kind = STATEFUL_SET

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.claims = ctx.informers.of(PERSISTENT_VOLUME_CLAIM)

    async def reconcile(self, key: Key) -> None:
        stateful_set = self.owners.get(key)
        if stateful_set is None:
            return
        pods = await self.claim(stateful_set, lambda p: plan.ordinal_of(stateful_set.name, p.name) is not None)
        history = await self.history(stateful_set)
        status = stateful_set.status
        update = await self.current_revision(stateful_set, stateful_set.spec.template, history, status.collision_count)
        if update is None:
            return
        current = next((r for r in history if r.name == status.current_revision), update)
        now = self.ctx.clock.now()
        error: Exception | None = None
        if stateful_set.metadata.deletion_timestamp is None:
            steps = plan.plan_pods(stateful_set, pods, current.name, update.name, now)
            try:
                await self.keep_claims(stateful_set, pods)
                await self.carry_out(key, stateful_set, steps, {r.name: r for r in (current, update)})
            except Exception as found:
                error = found
        await self.write_status(stateful_set, plan.plan_status(stateful_set, pods, current.name, update.name, now))
        in_use = [current.name, update.name, *(plan.revision_of(p) for p in pods)]
        await self.truncate(history, in_use, stateful_set.spec.revision_history_limit)
        wait = seconds_to_next_availability(pods, stateful_set.spec.min_ready_seconds, now)
        if wait is not None:
            self.queue.add_after(key, wait + 0.05)
        if error is not None:
            raise error

    async def carry_out(
        self, key: Key, stateful_set: StatefulSet, steps: plan.StatefulSetPlan, revisions: dict[str, ControllerRevision]
    ) -> None:
        for ordinal, pod in steps.mend:
            await self.mend(stateful_set, ordinal, pod)
        for make in steps.make:
            await self.make(stateful_set, make, template_of(revisions[make.revision]))
        for remove in steps.remove:
            await self.remove(stateful_set, remove)

    async def make(self, stateful_set: StatefulSet, step: plan.Make, template: Object) -> None:
        """The pod of an ordinal, its claims first. One that exists already is either ours or in the way."""
        name = f"{stateful_set.name}-{step.ordinal}"
        body = plan.render_pod(stateful_set, template, step.ordinal, step.revision)
        try:
            await self.make_claims(stateful_set, step.ordinal)
            await self.client.create(POD, body, stateful_set.namespace)
        except AlreadyExists:
            taken = await self.client.get(POD, name, stateful_set.namespace)
            owners = taken["metadata"].get("ownerReferences") or ()
            if any(o.get("uid") == stateful_set.metadata.uid for o in owners):
                return  # made by ourselves; the cache will show it
            self.tell(
                stateful_set,
                "Warning",
                "FailedCreate",
                f"create Pod {name} in StatefulSet",
                "failed: its name is taken",
            )
            raise
        except Exception as error:
            if not closing(error):
                self.tell(
                    stateful_set, "Warning", "FailedCreate", f"create Pod {name} in StatefulSet",
                    f"failed error: {error}",
                )  # fmt: skip
            raise
        self.tell(stateful_set, "Normal", "SuccessfulCreate", f"create Pod {name} in StatefulSet", "successful")

    async def make_claims(self, stateful_set: StatefulSet, ordinal: int) -> None:
        """The claims of an ordinal that are not there. ExpectedFailure for one that is about to go."""
        namespace = stateful_set.namespace
        for claim in plan.render_claims(stateful_set, ordinal):
            name = claim["metadata"]["name"]
            found = self.claims.get((namespace, name))
            if found is not None and found.metadata.deletion_timestamp is not None:
                raise ExpectedFailure(f"pvc {name} is being deleted")
            if found is not None:
                continue
            what = f"create Claim {name} Pod {stateful_set.name}-{ordinal} in StatefulSet"
            try:
                await self.client.create(PERSISTENT_VOLUME_CLAIM, claim, namespace)
            except AlreadyExists:
                continue
            except Exception as error:
                if not closing(error):
                    self.tell(stateful_set, "Warning", "FailedCreate", what, f"failed error: {error}")
                raise
            self.tell(stateful_set, "Normal", "SuccessfulCreate", what, "success")

    async def keep_claims(self, stateful_set: StatefulSet, pods: Sequence[Pod]) -> None:
        """Make what pods wait for that somebody removed, and let claims go with those they are to go with."""
        if not plan.claim_templates(stateful_set):
            return
        for pod in pods:
            ordinal = plan.ordinal_of(stateful_set.name, pod.name)
            if ordinal is None:
                continue
            if pod.status.phase == "Pending" and not pod.terminating and plan.in_range(stateful_set, ordinal):
                await self.make_claims(stateful_set, ordinal)
            for template in plan.claim_templates(stateful_set):
                claim = self.claims.get((pod.namespace, plan.claim_name(stateful_set, template, ordinal)))
                if claim is None or claim.metadata.deletion_timestamp is not None:
                    continue
                wanted = plan.claim_owners(stateful_set, pod, ordinal, claim)
                if wanted != [msgspec.to_builtins(r) for r in claim.metadata.owner_references or ()]:
                    await patch_owners(self.client, PERSISTENT_VOLUME_CLAIM, claim, wanted, put=True)

    async def remove(self, stateful_set: StatefulSet, step: plan.Remove) -> None:
        pod = step.pod
        if step.failed:
            text = f"StatefulSet {stateful_set.namespace}/{stateful_set.name} is recreating"
            reason = "RecreatingFailedPod" if pod.status.phase == "Failed" else "RecreatingTerminatedPod"
            state = "failed" if pod.status.phase == "Failed" else "terminated"
            self.events.event(STATEFUL_SET, stateful_set, "Warning", reason, f"{text} {state} Pod {pod.name}")
        what = f"delete Pod {pod.name} in StatefulSet"
        try:
            await self.client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        except NotFound:
            return
        except Exception as error:
            self.tell(stateful_set, "Warning", "FailedDelete", what, f"failed error: {error}")
            raise
        self.tell(stateful_set, "Normal", "SuccessfulDelete", what, "successful")

    async def mend(self, stateful_set: StatefulSet, ordinal: int, pod: Pod) -> None:
        """Give a pod back the labels that somebody took."""
        labels = plan.identity_labels(stateful_set.name, ordinal)
        patch = {"metadata": {"uid": pod.metadata.uid, "labels": labels}}
        try:
            await self.client.patch(POD, pod.name, pod.namespace, patch, "merge")
        except NotFound:
            return

    def tell(self, stateful_set: StatefulSet, severity: str, reason: str, what: str, outcome: str) -> None:
        text = f"{what} {stateful_set.name} {outcome}"
        self.events.event(STATEFUL_SET, stateful_set, "Warning" if severity == "Warning" else "Normal", reason, text)

    async def write_status(self, stateful_set: StatefulSet, status: Object) -> None:
        """Write the status if it is not what the cache shows; zeros that are not printed are taken away."""
        before = stateful_set.status
        if before.conditions:
            status["conditions"] = [msgspec.to_builtins(c) for c in before.conditions]
        if msgspec.convert(status, type(before)) == before:
            return
        counts = ("readyReplicas", "currentReplicas", "updatedReplicas")
        await self.change_status(stateful_set, status | {c: None for c in counts if not status[c]})
