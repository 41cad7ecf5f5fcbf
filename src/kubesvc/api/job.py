"""Job: pods that run to their end."""

from __future__ import annotations

from typing import Any, ClassVar

from . import checks, fields, jobcheck, names, podwarnings, shape, workload
from .checks import items, part
from .fields import Errors, Path
from .kind import Cell, Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .pod import LabelSelector, PodTemplateSpec

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
OLD_CONTROLLER_UID, OLD_JOB_NAME = "controller-uid", "job-name"
UNLIMITED = 2**31 - 1


class JobSpec(Struct, frozen=True):
    parallelism: int | None = None
    completions: int | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: dict[str, Any] | None = None
    success_policy: dict[str, Any] | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    selector: LabelSelector | None = None
    manual_selector: bool | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    ttl_seconds_after_finished: int | None = None
    completion_mode: str | None = None
    suspend: bool | None = None
    pod_replacement_policy: str | None = None
    managed_by: str | None = None


class JobTemplateSpec(Struct, frozen=True):
    metadata: dict[str, Any] | None = None
    spec: JobSpec = JobSpec()


class JobCondition(Condition, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_probe_time", "last_transition_time")


class UncountedTerminatedPods(Struct, frozen=True):
    succeeded: list[str] | None = None
    failed: list[str] | None = None


class JobStatus(Struct, frozen=True):
    conditions: list[JobCondition] | None = None
    start_time: str | None = None
    completion_time: str | None = None
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None
    ready: int | None = None


class Job(Typed, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    def has(self, condition: str) -> bool:
        return any(c.type == condition and c.status == "True" for c in self.status.conditions or ())


def default_spec(spec: Object) -> None:
    """One completion, six failures, not suspended."""
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else UNLIMITED)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    for rule in items(part(spec, "podFailurePolicy"), "rules"):
        for pattern in items(rule, "onPodConditions"):
            pattern.setdefault("status", "True")


def default(obj: Object) -> None:
    shape.normalize(obj, Job)
    default_spec(part(obj, "spec"))
    workload.default_template(obj)
    labels = part(part(part(obj, "spec"), "template"), "metadata").get("labels")
    if labels and not part(obj, "metadata").get("labels"):
        obj.setdefault("metadata", {})["labels"] = dict(labels)


def prepare_create(obj: Object) -> None:
    """The pods are told apart by the job's uid, unless a selector was made by hand."""
    obj["status"] = {}
    spec = part(obj, "spec")
    if spec.get("manualSelector"):
        return
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for key, value in generated_labels(obj):
        labels.setdefault(key, value)  # what contradicts is refused
    uid = part(obj, "metadata").get("uid", "")
    spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, uid)


def generated_labels(obj: Object) -> tuple[tuple[str, str], ...]:
    """The labels of a Job's Pods that nobody else's have."""
    meta = part(obj, "metadata")
    uid, name = meta.get("uid", ""), meta.get("name", "")
    return (OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name), (CONTROLLER_UID, uid), (JOB_NAME, name)


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = jobcheck.validate_generated_selector(obj, generated_labels(obj))
    errors += jobcheck.validate_job_spec(spec, workload.SPEC)
    if (selector := spec.get("selector")) is None:
        errors.append(fields.required(workload.SPEC / "selector"))
    else:
        errors += checks.label_selector(selector, workload.SPEC / "selector")
    labels = part(part(spec, "template"), "metadata").get("labels")
    if not workload.selects(selector, labels):
        here = workload.TEMPLATE / "metadata" / "labels"
        errors.append(fields.invalid(here, labels, "`selector` does not match template `labels`"))
    if spec.get("completionMode") == "Indexed" and (wanted := spec.get("completions") or 0) > 0:
        name = part(obj, "metadata").get("name") or ""
        longest = f"{name}-{wanted - 1}"
        if names.dns_label(longest):
            text = f"will not able to create pod with invalid DNS label: {longest}"
            errors.append(fields.invalid(Path("metadata") / "name", name, text))
    return errors


STAYING = (
    "selector", "template", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy",
)  # fmt: skip
PLACING = ("nodeSelector", "tolerations", "schedulingGates", "affinity")
"""What of a template's spec a Job that has not begun may still change: where its Pods will run."""


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    """What was asked for stays; how many at a time may change."""
    errors = validate(new, situation)
    now, before = part(new, "spec"), part(old, "spec")
    errors += validate_completions(now, before)
    waits = before.get("suspend") and not part(old, "status").get("startTime")
    for field in STAYING:
        if field == "template" and waits and unplaced(part(now, field)) == unplaced(part(before, field)):
            continue
        errors += checks.immutable(now, before, field, workload.SPEC)
    return errors


def validate_completions(now: Object, before: Object) -> Errors:
    """The goal stays, but where Pods are numbered, it grows and shrinks with how many run at a time."""
    if now.get("completionMode") != "Indexed":
        return checks.immutable(now, before, "completions", workload.SPEC)
    wanted = now.get("completions")
    if wanted in (None, before.get("completions"), now.get("parallelism")):
        return []
    text = "can only be modified in tandem with spec.parallelism"
    return [fields.invalid(workload.SPEC / "completions", wanted, text)]


def unplaced(template: Object) -> Object:
    """A template without what may change before the Job begins: labels, annotations, where Pods run, what they get."""
    spec = {k: v for k, v in part(template, "spec").items() if k not in PLACING}
    for name in ("containers", "initContainers"):
        if name in spec:
            spec[name] = [{k: v for k, v in c.items() if k != "resources"} for c in items(spec, name)]
    affinity = {k: v for k, v in part(part(template, "spec"), "affinity").items() if k != "nodeAffinity"}
    meta = {k: v for k, v in part(template, "metadata").items() if k not in ("labels", "annotations")}
    return {"metadata": meta, "spec": spec, "affinity": affinity}


def status_text(job: Job) -> str:
    for condition, text in (("Complete", "Complete"), ("Failed", "Failed")):
        if job.has(condition):
            return text
    if job.metadata.deletion_timestamp is not None:
        return "Terminating"
    return next((c for c in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if job.has(c)), "Running")


def completions(job: Job) -> str:
    done, wanted, parallel = job.status.succeeded, job.spec.completions, job.spec.parallelism or 0
    if wanted is not None:
        return f"{done}/{wanted}"
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def duration(job: Job) -> Cell | Since:
    if job.status.start_time is None:
        return ""
    return Since(job.status.start_time, until=job.status.completion_time)


JOB = Kind(
    group="batch",
    version="v1",
    name="Job",
    plural="jobs",
    namespaced=True,
    type=Job,
    schema="io.k8s.api.batch.v1.Job",
    categories=("all",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    warn=podwarnings.template_warnings,
    generation=workload.spec_changed,
    columns=(  # KCTL-29
        Column("Name", lambda j: j.name, format="name"),
        Column("Status", status_text),
        Column("Completions", completions),
        Column("Duration", duration),
        Column("Age", lambda j: Since(j.metadata.creation_timestamp)),
        workload.CONTAINERS,
        workload.IMAGES,
        workload.SELECTOR,
    ),
    fields={"status.successful": lambda j: str(j.status.succeeded)},
    has_status=True,
)
