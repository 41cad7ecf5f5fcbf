"""Job controller, and the one that removes finished Jobs after their time (`job_plan`)."""

from __future__ import annotations

import msgspec

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.job import Job
from kubesvc.api.kinds import JOB, POD
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.client.workqueue import Key

from . import job_plan as plan
from .deployment_plan import SAFE_LETTERS
from .job_backoff import NONE, Record
from .ownership import controller_uid
from .podowner import PodOwnerController
from .runner import Controller, ControllerContext, key_of
from .versioned import put_version, set_finalizers


class JobController(PodOwnerController[Job]):
    """Keys are Jobs; and, in the namespace POD_KEYS, pods whose Job is gone while they bear its finalizer."""

    name = "job-controller"
    kind = JOB

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.records: dict[Key, Record] = {}
        """By Job, the failures since its last success."""

    def pod_moved(self, old: Pod | None, new: Pod | None) -> None:
        super().pod_moved(old, new)
        reference = new.metadata.controller if new is not None else None
        if new is None or plan.FINALIZER not in (new.metadata.finalizers or ()):
            return
        if reference is None or (reference.kind == JOB.name and self.owner_of(new) is None):
            self.queue.add((POD_KEYS, f"{new.namespace}/{new.name}"))

    def owner_moved(self, old: Job | None, new: Job | None) -> None:
        super().owner_moved(old, new)
        if new is None and old is not None:
            for key in self.pods_by_controller.keys(old.metadata.uid):
                self.queue.add((POD_KEYS, "/".join(key)))

    async def reconcile(self, key: Key) -> None:
        if key[0] == POD_KEYS:
            namespace, _, name = key[1].partition("/")
            await self.let_go((namespace, name))
            return
        job = self.owners.get(key)
        if job is None or plan.finished(job):
            self.records.pop(key, None)
        if job is None or job.spec.managed_by not in (None, "kubernetes.io/job-controller"):
            return
        pods = await self.claim(job)
        if plan.finished(job):
            for pod in pods:
                await self.settle(pod)
            return
        now = self.ctx.clock.now()
        seen, record = self.seen(key), self.records.get(key, NONE)
        steps = plan.plan_job(job, pods, now, seen=seen, record=record)
        if unwanted := [*steps.delete, *steps.drop]:
            for pod in steps.drop:
                await self.settle(pod)
            self.expect(key, deletions=unwanted)
            await self.delete_pods(key, job, unwanted)
        await self.write_status(job, steps)
        if steps.record.failures:
            self.records[key] = steps.record
        else:
            self.records.pop(key, None)
        for pod in steps.settle:
            await self.settle(pod)
        if steps.again is not None:
            self.queue.add_after(key, steps.again + 0.05)
        if steps.create:
            await self.make(key, job, steps)

    async def make(self, key: Key, job: Job, steps: plan.JobPlan) -> None:
        template = (await self.live(job))["spec"]["template"]
        chance = self.ctx.random
        bodies = [
            plan.render_pod(
                job,
                template,
                index,
                "".join(chance.choices(SAFE_LETTERS, k=5)),
                steps.replaced.get(index) if index is not None else None,
            )
            for index in steps.create
        ]
        self.expect(key, creations=len(bodies))
        await self.create_pods(key, job, bodies)

    async def write_status(self, job: Job, steps: plan.JobPlan) -> None:
        """Write the status if it is not what the cache shows, and tell of the end. Conflict if others wrote it."""
        bare: Object = {k: v for k, v in steps.status.items() if v is not None}
        typed = msgspec.convert(bare, type(job.status))
        same = msgspec.structs.replace(typed, completion_time=typed.completion_time or job.status.completion_time)
        if same == job.status:
            return
        try:
            await put_version(self.client, JOB, job, {"status": steps.status}, subresource="status")
        except NotFound:
            return
        suspended = {c["status"]: c for c in steps.status["conditions"] or () if c["type"] == "Suspended"}
        before = next((c.status for c in job.status.conditions or () if c.type == "Suspended"), "")
        if "True" in suspended and before != "True":
            self.events.event(JOB, job, "Normal", "Suspended", "Job suspended")
        if "False" in suspended and before != "False":
            self.events.event(JOB, job, "Normal", "Resumed", "Job resumed")
        if steps.surplus and not any(c.type == "SuccessCriteriaMet" for c in job.status.conditions or ()):
            text = "Too many succeeded pods running after completion count reached"
            self.events.event(JOB, job, "Warning", "TooManySucceededPods", text)
        ended = {c["type"] for c in steps.status["conditions"] or ()} & {"Complete", "Failed"}
        if ended and steps.verdict is not None:
            if steps.verdict.type == "Complete":
                self.events.event(JOB, job, "Normal", "Completed", "Job completed")
            else:
                self.events.event(JOB, job, "Warning", steps.verdict.reason, steps.verdict.message)

    async def settle(self, pod: Pod) -> None:
        """Take the finalizer off a pod whose end is in the status."""
        finalizers = pod.metadata.finalizers or []
        if plan.FINALIZER not in finalizers:
            return
        await set_finalizers(self.client, POD, pod, [f for f in finalizers if f != plan.FINALIZER])

    async def let_go(self, key: Key) -> None:
        """Free a pod that no Job counts any more; a live look makes sure that the Job is gone."""
        pod = self.pods.get(key)
        if pod is None or self.owner_of(pod) is not None:
            return
        reference = pod.metadata.controller
        if reference is not None:
            try:
                live = await self.client.get(JOB, reference.name, pod.namespace)
                if live["metadata"]["uid"] == controller_uid(pod):
                    return
            except NotFound:
                pass
        await self.settle(pod)


POD_KEYS = "pod:"
"""Stands in a key where a namespace stands otherwise; no namespace bears such a name."""


class TtlAfterFinishedController(Controller):
    """Keys are Jobs. Deletes finished ones when their ttlSecondsAfterFinished are over."""

    name = "ttl-after-finished-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.jobs = ctx.informers.of(JOB)
        self.jobs.on_change(lambda old, new: self.queue.add(key_of(new, old)))

    async def reconcile(self, key: Key) -> None:
        job = self.jobs.get(key)
        left = plan.seconds_to_live(job, self.ctx.clock.now()) if job is not None else None
        if job is None or left is None:
            return
        if left > 0:
            self.queue.add_after(key, left + 0.05)
            return
        try:
            await self.client.delete(
                JOB,
                job.name,
                job.namespace,
                uid=job.metadata.uid,
                resource_version=job.metadata.resource_version,
                propagation="Foreground",
            )
        except (NotFound, Conflict):
            return
