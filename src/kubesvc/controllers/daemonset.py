"""DaemonSet controller: one pod on every node that is eligible, renewed node by node (`daemonset_plan`)."""

from __future__ import annotations

import msgspec

from kubesvc.api.controllerrevision import ControllerRevision
from kubesvc.api.daemonset import DaemonSet
from kubesvc.api.kinds import DAEMON_SET, NODE
from kubesvc.api.meta import Object
from kubesvc.api.node import Node
from kubesvc.client.workqueue import Key

from . import daemonset_plan as plan
from .history import RevisedController
from .replicaset_plan import seconds_to_next_availability
from .revisions import POD_REVISION, template_of
from .runner import ControllerContext, key_of

FAILURE_BASE_SECONDS = 1.0
FAILURE_CAP_SECONDS = 900.0


class FailurePace:
    """Holds back the replacement of pods that fail again and again on one node: 1 s, doubling, to 15 minutes."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], tuple[float, float]] = {}
        """By uid of the set and node: when a failed pod was last replaced, and the wait before the next."""

    def seconds(self, where: tuple[str, str], now: float) -> float:
        """How long to wait still; 0 counts as a replacement now. now: monotonic seconds"""
        when, wait = self.last.get(where, (now - 2 * FAILURE_CAP_SECONDS, 0.0))
        if (left := when + wait - now) > 0:
            return left
        calm = now - when > 2 * FAILURE_CAP_SECONDS
        self.last[where] = (now, FAILURE_BASE_SECONDS if calm or not wait else min(wait * 2, FAILURE_CAP_SECONDS))
        if len(self.last) > 10_000:
            del self.last[next(iter(self.last))]
        return 0.0


class DaemonSetController(RevisedController[DaemonSet]):
    """Keys are DaemonSets."""

    name = "daemonset-controller"
    kind = DAEMON_SET
    hash_label = POD_REVISION

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.nodes = ctx.informers.of(NODE)
        self.pace = FailurePace()
        self.nodes.on_change(self.node_moved)

    def node_moved(self, old: Node | None, new: Node | None) -> None:
        """Wake the sets for which the node now is something else."""
        if old is not None and new is not None and relevant(old) == relevant(new):
            return
        for daemon_set in self.owners.values():
            before = plan.plan_fit(daemon_set, old) if old is not None else None
            after = plan.plan_fit(daemon_set, new) if new is not None else None
            if before != after:
                self.queue.add(key_of(daemon_set))

    async def reconcile(self, key: Key) -> None:
        daemon_set = self.owners.get(key)
        if daemon_set is None:
            return
        if self.selector_of(daemon_set).empty:
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self.events.event(DAEMON_SET, daemon_set, "Warning", "SelectingAll", text)
            return
        if daemon_set.metadata.deletion_timestamp is not None:
            return
        pods = await self.claim(daemon_set)
        history = await self.history(daemon_set)
        status = daemon_set.status
        revision = await self.current_revision(daemon_set, daemon_set.spec.template, history, status.collision_count)
        if revision is None:
            return
        digest = revision.metadata.label(POD_REVISION)
        now = self.ctx.clock.now()
        places, strays = plan.plan_places(daemon_set, self.nodes.values(), pods)
        error: Exception | None = None
        if self.seen(key):
            steps = plan.plan_pods(daemon_set, places, strays, digest, now)
            self.hold_back(key, daemon_set, steps)
            try:
                await self.carry_out(key, daemon_set, steps, revision)
            except Exception as found:
                error = found
        await self.write_status(daemon_set, plan.plan_status(daemon_set, places, digest, now))
        used = {p.metadata.label(POD_REVISION): None for p in pods}
        in_use = [revision.name, *(r.name for r in history if r.metadata.label(POD_REVISION) in used)]
        await self.truncate(history, in_use, daemon_set.spec.revision_history_limit)
        wait = seconds_to_next_availability(pods, daemon_set.spec.min_ready_seconds, now)
        if wait is not None and daemon_set.spec.min_ready_seconds:
            self.queue.add_after(key, wait + 0.05)
        if error is not None:
            raise error

    def hold_back(self, key: Key, daemon_set: DaemonSet, steps: plan.DaemonSetPlan) -> None:
        """Leave failed pods where they are until their time comes."""
        for pod in [p for p in steps.ended if p.status.phase == "Failed"]:
            where = (daemon_set.metadata.uid, plan.node_of(pod))
            if wait := self.pace.seconds(where, self.ctx.clock.monotonic()):
                self.queue.add_after(key, wait + 0.05)
                steps.ended.remove(pod)
                steps.delete.remove(pod)

    async def carry_out(
        self, key: Key, daemon_set: DaemonSet, steps: plan.DaemonSetPlan, revision: ControllerRevision
    ) -> None:
        if not steps.create and not steps.delete:
            return
        for pod in steps.ended:
            failed = pod.status.phase == "Failed"
            text = f"Found {'failed' if failed else 'succeeded'} daemon pod {pod.namespace}/{pod.name} on node"
            self.events.event(
                DAEMON_SET,
                daemon_set,
                "Warning" if failed else "Normal",
                "FailedDaemonPod" if failed else "SucceededDaemonPod",
                f"{text} {plan.node_of(pod)}, will try to {'kill' if failed else 'delete'} it",
            )
        self.expect(key, creations=len(steps.create), deletions=steps.delete)
        digest = revision.metadata.label(POD_REVISION)
        generation = daemon_set.metadata.annotation(plan.GENERATION_ANNOTATION) or str(revision.revision)
        template = template_of(revision)
        bodies = [plan.render_pod(daemon_set, template, node, digest, generation) for node in steps.create]
        try:
            await self.create_pods(key, daemon_set, bodies)
        finally:
            await self.delete_pods(key, daemon_set, steps.delete)

    async def write_status(self, daemon_set: DaemonSet, status: Object) -> None:
        """Write the status if it is not what the cache shows; zeros that are not printed are taken away."""
        before = daemon_set.status
        kept: Object = {}
        if before.collision_count is not None:
            kept["collisionCount"] = before.collision_count
        if before.conditions:
            kept["conditions"] = [msgspec.to_builtins(c) for c in before.conditions]
        if msgspec.convert({**status, **kept}, type(before)) == before:
            return
        counts = ("updatedNumberScheduled", "numberAvailable", "numberUnavailable")
        await self.change_status(daemon_set, status | {c: None for c in counts if not status[c]})


def relevant(node: Node) -> tuple[object, ...]:
    """What of a node decides about daemons."""
    return (node.metadata.labels, node.spec.taints)
