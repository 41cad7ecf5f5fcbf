"""Deployment controller: one ReplicaSet per template, moved from old to new (DEPLOY-1 to DEPLOY-9)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.deployment import Deployment
from kubesvc.api.errors import AlreadyExists, Conflict, NotFound
from kubesvc.api.kinds import DEPLOYMENT, REPLICA_SET
from kubesvc.api.meta import Condition, Object, controller_reference
from kubesvc.api.pod import Pod, PodTemplateSpec
from kubesvc.api.replicaset import ReplicaSet
from kubesvc.api.selectors import LabelSelector
from kubesvc.client.workqueue import Key

from . import deployment_plan as plan
from .ownership import adopt, controller_uid, matcher_of, plan_claim, release
from .runner import Controller, ControllerContext, closing, key_of
from .slimpod import pods_of
from .versioned import patch_version, put_change


class DeploymentController(Controller):
    """Makes, sizes and removes the ReplicaSets of each Deployment, and tells in its status how far it got."""

    name = "deployment-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.deployments = ctx.informers.of(DEPLOYMENT)
        self.sets = ctx.informers.of(REPLICA_SET)
        self.pods = pods_of(ctx.informers)
        self.sets_by_controller = self.sets.index("controller", lambda s: [controller_uid(s)])
        self.orphans = self.sets.index("orphans", lambda s: [s.namespace] if s.metadata.controller is None else [])
        self.pods_by_controller = self.pods.index("controller", lambda p: [controller_uid(p)])
        self.by_uid = self.deployments.index("uid", lambda d: [d.metadata.uid])
        self.set_by_uid = self.sets.index("uid", lambda s: [s.metadata.uid])
        self.deployments.on_change(self.deployment_moved)
        self.sets.on_change(self.set_moved)
        self.pods.on_change(self.pod_moved)

    def deployment_moved(self, old: Deployment | None, new: Deployment | None) -> None:
        moved = new or old
        assert moved is not None
        self.queue.add(key_of(moved))

    def set_moved(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for moved in (old, new):
            if moved is None:
                continue
            if uid := controller_uid(moved):
                for deployment in self.by_uid.get(uid):
                    self.queue.add(key_of(deployment))
            else:
                for deployment in self.deployments.in_namespace(moved.namespace):
                    if selector_of(deployment).matches(moved.metadata.labels):
                        self.queue.add(key_of(deployment))

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        """A Recreate rollout goes on when the last old pod is gone (DEPLOY-4)."""
        if old is None or (new is not None and not new.terminal):
            return
        for replica_set in self.set_by_uid.get(controller_uid(old)):
            for deployment in self.by_uid.get(controller_uid(replica_set)):
                if deployment.spec.strategy.type == "Recreate":
                    self.queue.add(key_of(deployment))

    # ---------------------------------------------------------------- one key

    async def reconcile(self, key: Key) -> None:
        deployment = self.deployments.get(key)
        if deployment is None:
            return
        if selector_of(deployment).empty:
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self.events.event(DEPLOYMENT, deployment, "Warning", "SelectingAll", text)
            return
        every = await self.claim(deployment)
        if deployment.metadata.deletion_timestamp is not None:
            await self.write_status(deployment, every, plan.find_new(deployment, every), rolling=False)
            return
        if await self.note_pause(deployment):
            return  # the status write brings the key back
        if deployment.spec.paused or plan.was_rescaled(deployment, every):
            await self.sync_sizes(deployment, every)
            return
        if deployment.spec.strategy.type == "Recreate":
            await self.recreate(deployment, every)
        else:
            await self.roll(deployment, every)

    async def claim(self, deployment: Deployment) -> list[ReplicaSet]:
        """The ReplicaSets this Deployment manages, after adopting and releasing."""
        owned = self.sets_by_controller.get(deployment.metadata.uid)
        orphans = self.orphans.get(deployment.namespace)
        claim = plan_claim(deployment, selector_of(deployment), owned, orphans)
        for replica_set in claim.adopt:
            await adopt(self.client, REPLICA_SET, replica_set, deployment, DEPLOYMENT)
        for replica_set in claim.release:
            await release(self.client, REPLICA_SET, replica_set, deployment)
        return claim.kept + claim.adopt

    async def roll(self, deployment: Deployment, every: list[ReplicaSet]) -> None:
        """RollingUpdate: grow the new set, shrink the old ones, one kind of step at a time."""
        new = await self.ensure_new(deployment, every)
        if new is None:
            return
        old = [r for r in every if r.name != new.name]
        every = [*old, new]
        size = plan.plan_new_replicas(deployment, every, new)
        if size != plan.wanted(new):
            await self.scale(deployment, plan.Scale(new, size))
        elif shrink := plan.plan_old_scale_down(deployment, old, new):
            for step in shrink:
                await self.scale(deployment, step)
        await self.finish(deployment, every, old, new)

    async def recreate(self, deployment: Deployment, every: list[ReplicaSet]) -> None:
        """Recreate: everything old goes first (DEPLOY-4)."""
        new = plan.find_new(deployment, every)
        old = [r for r in every if new is None or r.name != new.name]
        shrink = [plan.Scale(r, 0) for r in old if plan.wanted(r) > 0]
        for step in shrink:
            await self.scale(deployment, step)
        if shrink or any(not p.terminal for r in old for p in self.pods_by_controller.get(r.metadata.uid)):
            await self.write_status(deployment, every, new)
            return
        new = await self.ensure_new(deployment, every)
        if new is None:
            return
        if plan.wanted(new) != plan.replicas_of(deployment):
            await self.scale(deployment, plan.Scale(new, plan.replicas_of(deployment)))
        await self.finish(deployment, [*old, new], old, new)

    async def finish(
        self, deployment: Deployment, every: Sequence[ReplicaSet], old: Sequence[ReplicaSet], new: ReplicaSet
    ) -> None:
        """Clean up after a finished rollout, and write the status."""
        if plan.complete(deployment, plan.count(every, new)):
            await self.clean_up(deployment, old)
        await self.write_status(deployment, every, new)

    async def sync_sizes(self, deployment: Deployment, every: list[ReplicaSet]) -> None:
        """A change of size, or a paused Deployment: scale what there is and start nothing (DEPLOY-5)."""
        new = plan.find_new(deployment, every)
        old = [r for r in every if new is None or r.name != new.name]
        active = [r for r in every if plan.wanted(r) > 0]
        if len(active) == 1 or (not active and new is not None):
            only = active[0] if active else new
            assert only is not None
            if plan.wanted(only) != plan.replicas_of(deployment):
                await self.scale(deployment, plan.Scale(only, plan.replicas_of(deployment)))
            else:
                await self.note_sizes(deployment, only)
        else:
            steps = plan.plan_proportional(deployment, every)
            for step in steps:
                await self.scale(deployment, step)
            for replica_set in active:
                if all(s.replica_set is not replica_set for s in steps):
                    await self.note_sizes(deployment, replica_set)
        if deployment.spec.paused:
            await self.clean_up(deployment, old)
        await self.write_status(deployment, every, new, rolling=False)

    # ---------------------------------------------------------------- steps

    async def ensure_new(self, deployment: Deployment, every: list[ReplicaSet]) -> ReplicaSet | None:
        """The new ReplicaSet with the right annotations; made if missing. None: wait for the cache to show it."""
        new = plan.find_new(deployment, every)
        old = [r for r in every if new is None or r.name != new.name]
        revision = plan.highest_revision(old) + 1
        if new is None:
            await self.make_new(deployment, every, revision)
            return None
        annotations = plan.plan_annotations(deployment, new, revision)
        changed = {k: v for k, v in annotations.items() if new.metadata.annotation(k) != v}
        if changed or new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
            patch = {
                "metadata": {"uid": new.metadata.uid, "annotations": changed},
                "spec": {"minReadySeconds": deployment.spec.min_ready_seconds or None},
            }
            await self.client.patch(REPLICA_SET, new.name, new.namespace, patch, "merge")
        await self.note_revision(deployment, annotations[plan.REVISION])
        if not any(c.type == "Progressing" for c in deployment.status.conditions or ()):
            await self.note_progress(deployment, "FoundNewReplicaSet", f'Found new replica set "{new.name}"')
        return new

    async def make_new(self, deployment: Deployment, every: Sequence[ReplicaSet], revision: int) -> None:
        """Create the ReplicaSet of the current template (DEPLOY-2)."""
        live = await self.client.get(DEPLOYMENT, deployment.name, deployment.namespace)
        if live["metadata"]["uid"] != deployment.metadata.uid:
            return
        typed_template = msgspec.convert(live["spec"]["template"], PodTemplateSpec)
        if typed_template != deployment.spec.template:
            return  # the cache is behind; the change will wake this key
        digest = plan.template_hash(typed_template, deployment.status.collision_count)
        annotations = plan.plan_annotations(deployment, None, revision, is_new=True)
        size = plan.plan_new_replicas(deployment, every, None)
        body = render_replica_set(live, deployment, digest, annotations, size)
        try:
            made = await self.client.create(REPLICA_SET, body, deployment.namespace)
        except AlreadyExists:
            await self.after_collision(deployment, body["metadata"]["name"], typed_template)
            return
        except Exception as error:
            if closing(error):
                return
            text = f'Failed to create new replica set "{body["metadata"]["name"]}": {error}'
            self.events.event(DEPLOYMENT, deployment, "Warning", "ReplicaSetCreateError", text)
            await self.note_progress(deployment, "ReplicaSetCreateError", text, status="False")
            raise
        name = made["metadata"]["name"]
        if size > 0:
            text = f"Scaled up replica set {name} from 0 to {size}"
            self.events.event(DEPLOYMENT, deployment, "Normal", "ScalingReplicaSet", text)
        await self.note_revision(deployment, annotations[plan.REVISION])
        await self.note_progress(deployment, "NewReplicaSetCreated", f'Created new replica set "{name}"')

    async def after_collision(self, deployment: Deployment, name: str, template: PodTemplateSpec) -> None:
        """The name is taken: by our own set, which the cache will show, or by another template (DEPLOY-2)."""
        taken = await self.client.get(REPLICA_SET, name, deployment.namespace)
        found = msgspec.convert(taken, ReplicaSet)
        if controller_uid(found) == deployment.metadata.uid and plan.same_template(template, found.spec.template):
            return
        count = (deployment.status.collision_count or 0) + 1
        await self.change_status(deployment, {"collisionCount": count})

    async def scale(self, deployment: Deployment, step: plan.Scale) -> None:
        """Set a ReplicaSet's size, and let it remember the Deployment's."""
        replica_set = step.replica_set
        patch: Object = {
            "metadata": {"annotations": plan.plan_sizes(deployment)},
            "spec": {"replicas": step.replicas},
        }
        await patch_version(self.client, REPLICA_SET, replica_set, patch)
        if step.replicas != plan.wanted(replica_set):
            self.events.event(DEPLOYMENT, deployment, "Normal", "ScalingReplicaSet", step.event_message)

    async def note_sizes(self, deployment: Deployment, replica_set: ReplicaSet) -> None:
        sizes = plan.plan_sizes(deployment)
        if any(replica_set.metadata.annotation(k) != v for k, v in sizes.items()):
            patch = {"metadata": {"uid": replica_set.metadata.uid, "annotations": sizes}}
            await self.client.patch(REPLICA_SET, replica_set.name, replica_set.namespace, patch, "merge")

    async def clean_up(self, deployment: Deployment, old: Sequence[ReplicaSet]) -> None:
        for replica_set in plan.plan_cleanup(deployment, old):
            try:
                await self.client.delete(
                    REPLICA_SET, replica_set.name, replica_set.namespace, uid=replica_set.metadata.uid
                )
            except (NotFound, Conflict):
                continue

    async def note_revision(self, deployment: Deployment, revision: str) -> None:
        if deployment.metadata.annotation(plan.REVISION) != revision:
            change = {"metadata": {"annotations": {plan.REVISION: revision}}}
            # through /status, which raises no generation (META-7)
            await put_change(self.client, DEPLOYMENT, deployment, change, subresource="status")

    async def note_pause(self, deployment: Deployment) -> bool:
        """Show in the condition Progressing that the rollout was paused or resumed; whether it was written."""
        current = next((c for c in deployment.status.conditions or () if c.type == "Progressing"), None)
        if current is not None and current.reason == "ProgressDeadlineExceeded":
            return False
        shown = current is not None and current.reason == "DeploymentPaused"
        if deployment.spec.paused and not shown:
            await self.note_progress(deployment, "DeploymentPaused", "Deployment is paused", status="Unknown")
            return True
        if not deployment.spec.paused and shown:
            await self.note_progress(deployment, "DeploymentResumed", "Deployment is resumed", status="Unknown")
            return True
        return False

    async def note_progress(self, deployment: Deployment, reason: str, message: str, *, status: str = "True") -> None:
        if deployment.spec.progress_deadline_seconds is None:
            return
        conditions: dict[str, Condition] = {c.type: c for c in deployment.status.conditions or ()}
        plan.set_condition(conditions, "Progressing", status, reason, message, self.ctx.clock.now())
        await self.change_status(deployment, {"conditions": [msgspec.to_builtins(c) for c in conditions.values()]})

    async def write_status(
        self, deployment: Deployment, every: Sequence[ReplicaSet], new: ReplicaSet | None, *, rolling: bool = True
    ) -> None:
        """Write the status if it is not what the cache shows, and come back when the progress deadline is due."""
        now = self.ctx.clock.now()
        status = plan.plan_status(deployment, every, new, now, rolling=rolling)
        if msgspec.convert(status, type(deployment.status)) != deployment.status:
            await self.change_status(deployment, {name: status.get(name) for name in COUNTS} | status)
        deadline = deployment.spec.progress_deadline_seconds
        if rolling and deadline and deadline != 2**31 - 1 and not plan.complete(deployment, plan.count(every, new)):
            left = plan.seconds_to_deadline(status, deadline, now)
            if left is not None:
                self.queue.add_after(key_of(deployment), left + 1)

    async def change_status(self, deployment: Deployment, status: Object) -> None:
        try:
            await put_change(self.client, DEPLOYMENT, deployment, {"status": status}, subresource="status")
        except NotFound:
            return


COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")


def selector_of(deployment: Deployment) -> LabelSelector:
    return matcher_of(deployment.spec.selector)


def render_replica_set(
    live: Object, deployment: Deployment, digest: str, annotations: dict[str, str], size: int
) -> Object:
    """The new ReplicaSet of DEPLOY-2, its template taken from the live Deployment as it is."""
    template = dict(live["spec"]["template"])
    meta = dict(template.get("metadata") or {})
    labels = {**(meta.get("labels") or {}), plan.HASH_LABEL: digest}
    template["metadata"] = {**meta, "labels": labels}
    selector = dict(live["spec"]["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), plan.HASH_LABEL: digest}
    spec: Object = {"replicas": size, "selector": selector, "template": template}
    if deployment.spec.min_ready_seconds:
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds
    return {
        "apiVersion": REPLICA_SET.api_version,
        "kind": REPLICA_SET.name,
        "metadata": {
            "name": f"{deployment.name}-{digest}",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment, DEPLOYMENT.api_version, DEPLOYMENT.name)],
        },
        "spec": spec,
    }
