"""CronJob: jobs made by the calendar."""

from __future__ import annotations

from typing import ClassVar

from . import checks, fields, podspec, podwarnings, shape, workload
from .checks import part
from .cronschedule import parse_schedule, zone_of
from .fields import Errors, Path
from .job import JobTemplateSpec
from .jobcheck import validate_job_spec
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
    job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    podspec.default_pod_spec(job.setdefault("template", {}).setdefault("spec", {}))


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, situation: Situation) -> Errors:
    errors = validate_spec(part(obj, "spec"), None)
    name = part(obj, "metadata").get("name") or ""
    if len(name) > LONGEST_NAME:
        text = f"must be no more than {LONGEST_NAME} characters"
        errors.append(fields.invalid(Path("metadata") / "name", name, text))
    return errors


def validate_schedule(spec: Object, *, allow_zone: bool) -> Errors:
    """The schedule can be read, and its zone is named in the field for it; old objects may name it in the schedule."""
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    errors: Errors = []
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
    return errors


def validate_zone(zone: str | None) -> Errors:
    """A zone that has a name and is known here."""
    here = SPEC / "timeZone"
    if zone is None:
        return []
    if not zone:
        return [fields.invalid(here, zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [fields.invalid(here, zone, text)]
    try:
        zone_of(zone)
    except ValueError as error:
        return [fields.invalid(here, zone, str(error))]
    return []


def validate_spec(spec: Object, old: Object | None) -> Errors:
    """old: the spec that there was; what it has already is not refused any more"""
    errors = validate_schedule(spec, allow_zone=old is not None and "TZ" in (old.get("schedule") or ""))
    errors += checks.nonnegative(spec, "startingDeadlineSeconds", SPEC)
    if old is None or old.get("timeZone") != spec.get("timeZone"):
        errors += validate_zone(spec.get("timeZone"))
    policy = spec.get("concurrencyPolicy")
    errors += checks.one_of(policy, ("Allow", "Forbid", "Replace"), SPEC / "concurrencyPolicy", in_order=True)
    job, here = part(part(spec, "jobTemplate"), "spec"), SPEC / "jobTemplate" / "spec"
    errors += validate_job_spec(job, here)
    if (selector := job.get("selector")) is not None:
        errors.append(fields.invalid(here / "selector", selector, "`selector` will be auto-generated"))
    if job.get("manualSelector"):
        errors.append(fields.not_supported(here / "manualSelector", True, ("nil", "false"), in_order=True))
    errors += checks.nonnegative(spec, "successfulJobsHistoryLimit", SPEC)
    return errors + checks.nonnegative(spec, "failedJobsHistoryLimit", SPEC)


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    return validate_spec(part(new, "spec"), part(old, "spec"))


def warnings(new: Object, old: Object | None) -> list[str]:
    """Of the pods' template, whenever it is new; of the name when it is made; of a schedule that names a zone."""
    spec, before = part(new, "spec"), part(old, "spec")
    template = part(part(part(spec, "jobTemplate"), "spec"), "template")
    found = podwarnings.name_warnings(new, "Pod names and hostnames") if old is None else []
    if old is None or template != part(part(part(before, "jobTemplate"), "spec"), "template"):
        path = SPEC / "jobTemplate" / "spec" / "template" / "spec"
        found += podwarnings.spec_warnings(part(template, "spec"), path)
    if "TZ" in (spec.get("schedule") or ""):
        about = 'cannot use "TZ" or "CRON_TZ" in schedule; use spec.timeZone instead'
        found.append(f"{SPEC / 'schedule'}: {about}")
    return found


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
    warn=warnings,
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
