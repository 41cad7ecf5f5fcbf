"""CronJob: jobs made by the calendar."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, podspec, shape, workload
from .checks import part
from .cronschedule import parse_schedule, zone_of
from .fields import Errors, Path
from .job import JobTemplateSpec, default_spec
from .job import validate_spec as validate_job
from .kind import Cell, Column, Kind, Since, Situation, Subresource
from .meta import Object, ObjectReference, Struct, Typed

SPEC = workload.SPEC
LONGEST_NAME = 52
"""Eleven characters are added for the names of Jobs, which are labels' values of at most 63."""


class CronJobSpec(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("schedule",)

    schedule: str = ""
    time_zone: str | None = None
    starting_deadline_seconds: int | None = None
    concurrency_policy: str = ""
    suspend: bool | None = None
    job_template: JobTemplateSpec = JobTemplateSpec()
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJobStatus(Struct, frozen=True):
    active: list[ObjectReference] | None = None
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(Typed, frozen=True):
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, CronJob)
    spec = part(obj, "spec")
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = part(part(spec, "jobTemplate"), "spec")
    if pod := part(part(job, "template"), "spec"):
        podspec.default_pod_spec(pod)


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, situation: Situation) -> Errors:
    errors = validate_spec(obj, allow_zone=False)
    name = part(obj, "metadata").get("name") or ""
    if len(name) > LONGEST_NAME:
        text = f"must be no more than {LONGEST_NAME} characters"
        errors.append(fields.invalid(Path("metadata") / "name", name, text))
    return errors


def validate_schedule(spec: Object, *, allow_zone: bool) -> Errors:
    """The schedule can be read, and its zone is named in the field for it; old objects may name it in the schedule."""
    schedule, zone, errors = spec.get("schedule") or "", spec.get("timeZone"), Errors()
    if not schedule:
        errors.append(fields.required(SPEC / "schedule"))
    else:
        try:
            parse_schedule(schedule)
        except ValueError as error:
            errors.append(fields.invalid(SPEC / "schedule", schedule, str(error)))
        if "TZ" in schedule and not allow_zone:
            text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            errors.append(fields.invalid(SPEC / "schedule", schedule, text))
        elif "TZ" in schedule and zone is not None:
            text = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            errors.append(fields.invalid(SPEC / "schedule", schedule, text))
    if zone == "":
        errors.append(fields.invalid(SPEC / "timeZone", zone, "timeZone must be nil or non-empty string"))
    elif zone is not None and zone.lower() == "local":
        text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        errors.append(fields.invalid(SPEC / "timeZone", zone, text))
    elif zone is not None:
        try:
            zone_of(zone)
        except ValueError as error:
            errors.append(fields.invalid(SPEC / "timeZone", zone, str(error)))
    return errors


def validate_spec(obj: Object, *, allow_zone: bool) -> Errors:
    spec = part(obj, "spec")
    errors = validate_schedule(spec, allow_zone=allow_zone)
    errors += checks.nonnegative(spec, "startingDeadlineSeconds", SPEC)
    policy = spec.get("concurrencyPolicy")
    errors += checks.one_of(policy, ("Allow", "Forbid", "Replace"), SPEC / "concurrencyPolicy")
    job = dict(part(part(spec, "jobTemplate"), "spec"))
    default_spec(job)
    errors += validate_job(job, SPEC / "jobTemplate" / "spec", template_only=True)
    errors += checks.nonnegative(spec, "successfulJobsHistoryLimit", SPEC)
    return errors + checks.nonnegative(spec, "failedJobsHistoryLimit", SPEC)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return validate_spec(new, allow_zone="TZ" in (part(old, "spec").get("schedule") or ""))


def last_schedule(job: CronJob) -> Cell | Since:
    return Since(job.status.last_schedule_time) if job.status.last_schedule_time else "<none>"


CRON_JOB = Kind(
    group="batch",
    version="v1",
    name="CronJob",
    plural="cronjobs",
    namespaced=True,
    type=CronJob,
    schema="io.k8s.api.batch.v1.CronJob",
    short_names=("cj",),
    categories=("all",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda c: c.name, format="name"),
        Column("Schedule", lambda c: c.spec.schedule),
        Column("Timezone", lambda c: c.spec.time_zone or "<none>"),
        Column("Suspend", lambda c: "<unset>" if c.spec.suspend is None else str(c.spec.suspend)),
        Column("Active", lambda c: len(c.status.active or ()), type="integer"),
        Column("Last Schedule", last_schedule),
        Column("Age", lambda c: Since(c.metadata.creation_timestamp)),
        Column("Containers", lambda c: workload.containers(c.spec.job_template.spec.template), wide=True),
        Column("Images", lambda c: workload.images(c.spec.job_template.spec.template), wide=True),
        Column("Selector", lambda c: workload.selector_text(c.spec.job_template.spec.selector), wide=True),
    ),
    has_status=True,
)
