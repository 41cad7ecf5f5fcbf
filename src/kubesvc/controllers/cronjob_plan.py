"""What is due for a CronJob: which time was missed, which Jobs are history, what the next Job looks like. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate

from kubesvc.api.cronjob import CronJob
from kubesvc.api.cronschedule import Schedule, zone_of
from kubesvc.api.job import Job
from kubesvc.api.meta import Object, controller_reference
from kubesvc.clock import parse_rfc3339

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
LATE_SECONDS = 0.1
"""A CronJob is looked at this much after its time, so that a coarse clock does not see it too early."""
MANY = 100
"""Missed times beyond this are worth a warning."""


@dataclass(frozen=True, slots=True)
class Due:
    """Where a schedule stands.

    since:  the time from which starts were looked for
    latest: the latest time that has come since then, None for none
    missed: how many have come, roughly; 0 for none or one
    """

    since: float
    latest: float | None
    missed: int = 0


def plan_due(cron_job: CronJob, schedule: Schedule, now: float, *, deadline: bool) -> Due:
    """The latest start that is due. ValueError for a schedule whose times do not come one after the other.

    deadline: whether starts older than spec.startingDeadlineSeconds are left out
    """
    since = parse_rfc3339(cron_job.status.last_schedule_time or cron_job.metadata.creation_timestamp or "")
    limit = cron_job.spec.starting_deadline_seconds
    if deadline and limit is not None:
        since = max(since, now - limit)
    first = schedule.next(since)
    if first is None or now < first:
        return Due(since, None)
    second = schedule.next(first)
    if second is None or now < second:
        return Due(since, first)
    between = round(second - first)
    if between < 1:
        raise ValueError("time difference between two schedules is less than 1 second")
    missed = int(now - first) // between + 1
    latest: float | None = None
    at = schedule.next(first + (missed - 2) * between)
    while at is not None and at <= now:
        latest, at = at, schedule.next(at)
    return Due(since, latest, missed)


def seconds_to_next(cron_job: CronJob, schedule: Schedule, now: float) -> float | None:
    """How long until the CronJob is to be looked at again; None for never."""
    try:
        due = plan_due(cron_job, schedule, now, deadline=False)
        start = due.latest if due.latest is not None else (now if due.missed else due.since)
    except ValueError:
        start = now
    after = schedule.next(start)
    return None if after is None else after + LATE_SECONDS - now


def job_name(cron_job: CronJob, scheduled: float) -> str:
    """One name for one minute, so that a start is never made twice."""
    return f"{cron_job.name}-{int(scheduled) // 60}"


def render_job(live: Object, cron_job: CronJob, scheduled: float) -> Object:
    """The Job of a scheduled time; `live` is the CronJob as the server has it."""
    template = live["spec"].get("jobTemplate") or {}
    meta = template.get("metadata") or {}
    at = datetime.fromtimestamp(scheduled, zone_of(cron_job.spec.time_zone or ""))
    text = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(cron_job, scheduled),
            **({"labels": dict(meta["labels"])} if meta.get("labels") else {}),
            "annotations": {**(meta.get("annotations") or {}), SCHEDULED_AT: text},
            "ownerReferences": [controller_reference(cron_job, "batch/v1", "CronJob")],
        },
        "spec": template.get("spec") or {},
    }


def plan_history(cron_job: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """The finished Jobs that are too many, oldest first, those that succeeded and those that failed on their own."""
    spec, surplus = cron_job.spec, []
    for condition, limit in (
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ):
        if limit is not None:
            found = sorted((j for j in jobs if j.has(condition)), key=by_start)
            surplus += found[: max(0, len(found) - limit)]
    return surplus


def by_start(job: Job) -> tuple[float, str]:
    """Jobs that never started come last."""
    return (parse_rfc3339(job.status.start_time) if job.status.start_time else math.inf, job.name)


def latest_success(cron_job: CronJob, jobs: Sequence[Job]) -> str | None:
    """The time the CronJob last succeeded: the latest completion among those noted and those there are."""
    times = [j.status.completion_time for j in jobs if j.has("Complete") and j.status.completion_time]
    times += [cron_job.status.last_successful_time] if cron_job.status.last_successful_time else []
    return max(times, key=parse_rfc3339, default=None)


def rfc1123(seconds: float) -> str:
    """`Mon, 02 Jan 2006 15:04:05 UTC`, as events print a missed time."""
    return formatdate(seconds, usegmt=True).replace("GMT", "UTC")
