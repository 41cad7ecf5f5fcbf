"""CronJob controller: Jobs by the calendar (`cronjob_plan`, `api.cronschedule`)."""

from __future__ import annotations

import msgspec

from kubesvc.api.cronjob import CronJob
from kubesvc.api.cronschedule import Schedule, parse_schedule, zone_of
from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.job import Job
from kubesvc.api.kinds import CRON_JOB, JOB
from kubesvc.api.meta import Object, ObjectReference, typed
from kubesvc.client.events import EventSeverity
from kubesvc.client.workqueue import Key
from kubesvc.clock import parse_rfc3339, rfc3339

from . import cronjob_plan as plan
from .job_plan import finished
from .ownership import controller_uid
from .runner import Controller, ControllerContext, ExpectedFailure, closing, key_of
from .versioned import put_version

LONGEST_WAIT_SECONDS = 600.0
"""A CronJob is looked at now and then before its time: the wall clock may have been set, which no wait notices."""


class CronJobController(Controller):
    """Keys are CronJobs. Lists running Jobs in the status, starts the one that is due, and removes old ones."""

    name = "cronjob-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.cron_jobs = ctx.informers.of(CRON_JOB)
        self.jobs = ctx.informers.of(JOB)
        self.jobs_by_controller = self.jobs.index("controller", lambda j: [controller_uid(j)])
        self.by_uid = self.cron_jobs.index("uid", lambda c: [c.metadata.uid])
        self.cron_jobs.on_change(self.cron_job_moved)
        self.jobs.on_change(self.job_moved)

    def cron_job_moved(self, old: CronJob | None, new: CronJob | None) -> None:
        """A new schedule starts with its next time: nothing it would have started before counts as missed."""
        if new is not None and old is not None:
            before, after = old.spec, new.spec
            if (before.schedule, before.time_zone) != (after.schedule, after.time_zone):
                try:
                    schedule = parse_schedule(after.schedule, after.time_zone or "")
                except ValueError:
                    self.queue.add(key_of(new))  # says so in an event
                    return
                self.wait(key_of(new), new, schedule)
                return
        self.queue.add(key_of(new, old))

    def job_moved(self, old: Job | None, new: Job | None) -> None:
        for job in (old, new):
            for cron_job in self.by_uid.get(controller_uid(job)) if job is not None else ():
                self.queue.add(key_of(cron_job))

    def wait(self, key: Key, cron_job: CronJob, schedule: Schedule) -> None:
        left = plan.seconds_to_next(cron_job, schedule, self.ctx.clock.now())
        if left is not None:
            self.queue.add_after(key, min(max(left, plan.LATE_SECONDS), LONGEST_WAIT_SECONDS))

    # ---------------------------------------------------------------- one key

    async def reconcile(self, key: Key) -> None:
        cron_job = self.cron_jobs.get(key)
        if cron_job is None:
            return
        jobs = self.jobs_by_controller.get(cron_job.metadata.uid)
        active = {a.uid: a for a in cron_job.status.active or ()}
        for job in plan.plan_history(cron_job, jobs):
            if await self.remove(cron_job, job):
                active.pop(job.metadata.uid, None)
        await self.note_ends(cron_job, jobs, active)
        status = msgspec.structs.replace(cron_job.status, last_successful_time=plan.latest_success(cron_job, jobs))
        error: Exception | None = None
        try:
            started = await self.start_due(key, cron_job, active)
            if started is not None:
                status = msgspec.structs.replace(status, last_schedule_time=started)
        except Exception as found:
            error = found
        await self.write_status(cron_job, msgspec.structs.replace(status, active=list(active.values()) or None))
        if error is not None:
            raise error

    async def note_ends(self, cron_job: CronJob, jobs: list[Job], active: dict[str, ObjectReference]) -> None:
        """Take Jobs that ended, or are gone, off the list of running ones."""
        for job in jobs:
            uid = job.metadata.uid
            if uid in active and finished(job):
                del active[uid]
                how = "Complete" if job.has("Complete") else "Failed"
                self.tell(cron_job, "Normal", "SawCompletedJob", f"Saw completed job: {job.name}, condition: {how}")
            elif uid not in active and not finished(job):
                live = typed(await self.client.get(CRON_JOB, cron_job.name, cron_job.namespace), CronJob)
                if live.metadata.uid != cron_job.metadata.uid or any(a.uid == uid for a in live.status.active or ()):
                    continue
                text = f"Saw a job that the controller did not create or forgot: {job.name}"
                self.tell(cron_job, "Warning", "UnexpectedJob", text)
        here = {j.metadata.uid for j in jobs}
        for uid, reference in list(active.items()):
            if uid in here:
                continue
            try:
                await self.client.get(JOB, reference.name, cron_job.namespace)
            except NotFound:
                self.tell(cron_job, "Normal", "MissingJob", f"Active job went missing: {reference.name}")
                del active[uid]

    async def start_due(self, key: Key, cron_job: CronJob, active: dict[str, ObjectReference]) -> str | None:
        """Start the Job whose time has come, and note it in `active`; the scheduled time if one was started."""
        spec, now = cron_job.spec, self.ctx.clock.now()
        if cron_job.metadata.deletion_timestamp is not None:
            return None
        if spec.time_zone is not None:
            try:
                zone_of(spec.time_zone)
            except ValueError as error:
                self.tell(cron_job, "Warning", "UnknownTimeZone", f'invalid timeZone: "{spec.time_zone}": {error}')
                return None
        if spec.suspend:
            return None
        if "TZ" in spec.schedule:
            text = f'CRON_TZ or TZ used in schedule "{spec.schedule}" is not officially supported, see {DOCS}'
            self.tell(cron_job, "Warning", "UnsupportedSchedule", f"{text} for more details")
        try:
            schedule = parse_schedule(spec.schedule, spec.time_zone or "")
        except ValueError as error:
            text = f'unparseable schedule: "{spec.schedule}" : {error}'
            self.tell(cron_job, "Warning", "UnparseableSchedule", text)
            return None
        try:
            due = plan.plan_due(cron_job, schedule, now, deadline=True)
        except ValueError as error:
            self.tell(cron_job, "Warning", "InvalidSchedule", f"invalid schedule: {spec.schedule} : {error}")
            return None
        if due.latest is not None and due.missed > plan.MANY:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.tell(cron_job, "Warning", "TooManyMissedTimes", text)
        self.wait(key, cron_job, schedule)
        if due.latest is None or not await self.may_start(cron_job, due.latest, now, active):
            return None
        return await self.start(cron_job, due.latest, active)

    async def may_start(
        self, cron_job: CronJob, scheduled: float, now: float, active: dict[str, ObjectReference]
    ) -> bool:
        """Whether the Job of this time is to be started: in time, not started yet, and not beside others."""
        limit, name = cron_job.spec.starting_deadline_seconds, plan.job_name(cron_job, scheduled)
        if limit is not None and scheduled + limit < now:
            text = f"Missed scheduled time to start a job: {plan.rfc1123(scheduled)}"
            self.tell(cron_job, "Warning", "MissSchedule", text)
            return False
        last = cron_job.status.last_schedule_time
        if any(a.name == name for a in active.values()) or (last and parse_rfc3339(last) == scheduled):
            return False
        if cron_job.spec.concurrency_policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.tell(cron_job, "Normal", "JobAlreadyActive", text)
            return False
        if cron_job.spec.concurrency_policy == "Replace":
            for uid, reference in list(active.items()):
                try:
                    live = await self.client.get(JOB, reference.name, cron_job.namespace)
                except Exception as error:
                    self.tell(cron_job, "Warning", "FailedGet", f"Get job: {error}")
                    raise
                if not await self.remove(cron_job, typed(live, Job)):
                    raise ExpectedFailure(f"could not replace job {cron_job.namespace}/{reference.name}")
                del active[uid]
        return True

    async def start(self, cron_job: CronJob, scheduled: float, active: dict[str, ObjectReference]) -> str | None:
        live = await self.client.get(CRON_JOB, cron_job.name, cron_job.namespace)
        if live["metadata"]["uid"] != cron_job.metadata.uid:
            return None
        body = plan.render_job(live, cron_job, scheduled)
        name = body["metadata"]["name"]
        try:
            made = await self.client.create(JOB, body, cron_job.namespace)
        except AlreadyExists:
            made = await self.client.get(JOB, name, cron_job.namespace)
            if controller_uid(typed(made, Job)) != cron_job.metadata.uid:
                return None  # somebody else's, who looks after it
        except Exception as error:
            if not closing(error):
                self.tell(cron_job, "Warning", "FailedCreate", f"Error creating job: {error}")
            raise
        else:
            self.tell(cron_job, "Normal", "SuccessfulCreate", f"Created job {name}")
        if not finished(typed(made, Job)):
            active[made["metadata"]["uid"]] = reference_to(made)
        return rfc3339(scheduled)

    async def remove(self, cron_job: CronJob, job: Job) -> bool:
        """Delete a Job with its pods; False if that failed, which an event tells."""
        try:
            await self.client.delete(JOB, job.name, job.namespace, uid=job.metadata.uid, propagation="Background")
        except NotFound:
            return True
        except Exception as error:
            self.tell(cron_job, "Warning", "FailedDelete", f"Deleted job: {error}")
            return False
        self.tell(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {job.name}")
        return True

    async def write_status(self, cron_job: CronJob, status: msgspec.Struct) -> None:
        """Write the status if it is not what the cache shows. Conflict if somebody else wrote it meanwhile."""
        if status == cron_job.status:
            return
        plain: Object = {"active": None, **msgspec.to_builtins(status)}
        try:
            await put_version(self.client, CRON_JOB, cron_job, {"status": plain}, subresource="status")
        except NotFound:
            return

    def tell(self, cron_job: CronJob, severity: EventSeverity, reason: str, text: str) -> None:
        self.events.event(CRON_JOB, cron_job, severity, reason, text)


DOCS = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/"


def reference_to(job: Object) -> ObjectReference:
    meta = job["metadata"]
    return ObjectReference(
        kind="Job",
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        api_version="batch/v1",
        resource_version=meta["resourceVersion"],
    )
