"""What a Job does about its pods, and what its status says. Pure.

Every pod carries a finalizer until its end is counted, so that a pod deleted early is counted all the same: first its
uid goes into `status.uncountedTerminatedPods`, then the finalizer goes, then the uid becomes part of a count. Success
policies, pod failure policies and limits per index are not followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.job import Job, JobCondition
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.clock import parse_rfc3339, rfc3339

from .podowner import pod_from_template
from .replicaset_plan import BURST, deletion_rank

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
BACK_OFF_SECONDS = 10.0
BACK_OFF_CAP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a Job ends. type: Complete or Failed."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class JobPlan:
    """What to do now, in this order: delete, write the status, take finalizers away, make.

    create: the index of each pod to make, None where the Job counts without indexes
    settle: ended pods whose finalizer goes once the status is written
    again:  seconds until there may be more to do; None if something will wake us
    """

    status: Object
    create: list[int | None] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    settle: list[Pod] = field(default_factory=list)
    verdict: Verdict | None = None
    again: float | None = None


def finished(job: Job) -> bool:
    return job.has("Complete") or job.has("Failed")


def ended(pod: Pod) -> bool:
    """Ran to its end, or was deleted and will never run again."""
    gone = pod.terminating and (not pod.spec.node_name or pod.metadata.deletion_grace_period_seconds == 0)
    return pod.terminal or gone


def index_of(pod: Pod) -> int | None:
    text = pod.metadata.annotation(INDEX)
    return int(text) if text.isascii() and text.isdigit() else None


def parse_indexes(text: str) -> set[int]:
    """`1,3-5` as a set; what cannot be read is left out."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def indexes_text(indexes: Iterable[int]) -> str:
    """The shortest such text: two in a row stay apart as `1,2`, three are `1-3`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a},{b}" if b == a + 1 else f"{a}-{b}" for a, b in runs)


def plan_job(job: Job, pods: Sequence[Pod], now: float, *, seen: bool = True) -> JobPlan:
    """The next step of a Job that has not finished.

    pods: all it manages, ended and terminating ones included
    now:  seconds since 1970
    seen: whether the cache shows all that was asked for; if not, no pod is made or deleted
    """
    spec, status = job.spec, job.status
    tracked = [p for p in pods if FINALIZER in (p.metadata.finalizers or ())]
    over = [p for p in tracked if ended(p)]
    uncounted = status.uncounted_terminated_pods
    waiting = {p.metadata.uid for p in tracked}
    before = {"succeeded": (uncounted.succeeded if uncounted else None) or [],
              "failed": (uncounted.failed if uncounted else None) or []}  # fmt: skip
    known = {*before["succeeded"], *before["failed"]}
    succeeded = status.succeeded + sum(uid not in waiting for uid in before["succeeded"])
    failed = status.failed + sum(uid not in waiting for uid in before["failed"])
    left = {name: [uid for uid in uids if uid in waiting] for name, uids in before.items()}
    indexed = spec.completion_mode == "Indexed"
    done = parse_indexes(status.completed_indexes) if indexed else set()
    for pod in over:
        won = pod.status.phase == "Succeeded"
        if indexed and won and (index := index_of(pod)) is not None and index < (spec.completions or 0):
            done.add(index)
        if pod.metadata.uid not in known:
            left["succeeded" if won else "failed"].append(pod.metadata.uid)
    won_in_all = len(done) if indexed else succeeded + len(left["succeeded"])
    lost_in_all = failed + len(left["failed"])
    running = [p for p in pods if not ended(p)]
    active = [p for p in running if not p.terminating]
    terminating = [p for p in running if p.terminating]
    plan = JobPlan(status={}, settle=over)
    start = parse_rfc3339(status.start_time) if status.start_time else now
    plan.verdict = judge(job, active, won_in_all, lost_in_all, now - start)
    deadline = spec.active_deadline_seconds
    if deadline is not None and not plan.verdict and not spec.suspend:
        plan.again = max(start + deadline - now, 0.0)
    if seen and job.metadata.deletion_timestamp is None:
        if plan.verdict or spec.suspend:
            plan.delete = active[:BURST]
        else:
            size(job, plan, active, terminating, won_in_all, done, over_since(pods, lost_in_all), now)
    deleted = {id(p) for p in plan.delete}
    still = [p for p in active if id(p) not in deleted]
    plan.status = {
        "active": len(still) or None,
        "ready": sum(p.ready for p in still),
        "terminating": len(terminating) + len(deleted),
        "succeeded": (len(done) if indexed else succeeded) or None,
        "failed": failed or None,
        "uncountedTerminatedPods": {name: uids or None for name, uids in left.items()},
        "startTime": None if spec.suspend else status.start_time or rfc3339(now),
    }
    if indexed:
        plan.status["completedIndexes"] = indexes_text(done) or None
    settled = not any(left.values()) and not over
    gone = settled and not still and not terminating and not deleted
    conditions = list(status.conditions or ())
    if plan.verdict is not None:
        early = "SuccessCriteriaMet" if plan.verdict.type == "Complete" else "FailureTarget"
        set_condition(conditions, early, "True", plan.verdict.reason, plan.verdict.message, now)
        if gone:
            set_condition(conditions, plan.verdict.type, "True", plan.verdict.reason, plan.verdict.message, now)
            if plan.verdict.type == "Complete":
                plan.status["completionTime"] = rfc3339(now)
    elif spec.suspend:
        set_condition(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now)
    elif job.has("Suspended"):
        set_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
    plan.status["conditions"] = [msgspec.to_builtins(c) for c in conditions] or None
    return plan


def judge(job: Job, active: Sequence[Pod], succeeded: int, failed: int, age: float) -> Verdict | None:
    """Whether the Job is over, and how; what was said before stays said."""
    spec = job.spec
    for early, type_ in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        found = next((c for c in job.status.conditions or () if c.type == early and c.status == "True"), None)
        if found is not None:
            return Verdict(type_, found.reason, found.message)
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    restarts = 0
    if spec.template.spec.restart_policy == "OnFailure":
        statuses = [s for p in active for s in (*(p.status.container_statuses or ()),
                                                *(p.status.init_container_statuses or ()))]  # fmt: skip
        restarts = sum(s.restart_count for s in statuses)
    if failed > limit or (restarts and restarts >= limit):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.active_deadline_seconds
    if deadline is not None and not spec.suspend and age >= deadline:
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    enough = succeeded > 0 and not active if spec.completions is None else succeeded >= spec.completions
    if enough:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def over_since(pods: Sequence[Pod], failed: int) -> tuple[int, float]:
    """How many pods failed, and when the last one did, seconds since 1970; 0 if none is known."""
    times = [
        parse_rfc3339(s.state.terminated.finished_at)
        for p in pods
        if p.status.phase == "Failed"
        for s in p.status.container_statuses or ()
        if s.state and s.state.terminated and s.state.terminated.finished_at
    ]
    return failed, max(times, default=0.0)


def size(
    job: Job,
    plan: JobPlan,
    active: Sequence[Pod],
    terminating: Sequence[Pod],
    succeeded: int,
    done: set[int],
    failures: tuple[int, float],
    now: float,
) -> None:
    """Plan the pods to make, or those too many."""
    spec = job.spec
    most = 1 if spec.parallelism is None else spec.parallelism
    if spec.completions is None:
        wanted = min(len(active), most) if succeeded else most
    else:
        wanted = min(most, spec.completions - succeeded)
    if len(active) > wanted:
        crowd = Counter(p.spec.node_name for p in active if p.spec.node_name)
        plan.delete = sorted(active, key=deletion_rank(crowd))[: min(len(active) - wanted, BURST)]
        return
    there = len(active) + (len(terminating) if spec.pod_replacement_policy == "Failed" else 0)
    missing = min(wanted - there, BURST)
    if missing <= 0:
        return
    failed, last = failures
    if failed:
        delay = min(BACK_OFF_SECONDS * 2.0 ** min(failed - 1, 20), BACK_OFF_CAP_SECONDS)
        if (wait := (last or now) + delay - now) > 0 and last:
            plan.again = min(wait, plan.again) if plan.again is not None else wait
            return
    if spec.completion_mode == "Indexed":
        taken = done | {index for p in active if (index := index_of(p)) is not None}
        plan.create += [i for i in range(spec.completions or 0) if i not in taken][:missing]
    else:
        plan.create = [None] * missing


def set_condition(
    conditions: list[JobCondition], type_: str, status: str, reason: str, message: str, now: float
) -> None:
    """Put a condition into the list; nothing if it says that already."""
    at = rfc3339(now)
    fresh = JobCondition(
        type=type_, status=status, reason=reason, message=message, last_probe_time=at, last_transition_time=at
    )
    for i, old in enumerate(conditions):
        if old.type == type_:
            if (old.status, old.reason, old.message) != (status, reason, message):
                conditions[i] = fresh
            return
    conditions.append(fresh)


def render_pod(job: Job, template: Object, index: int | None, suffix: str) -> Object:
    """The plain pod, of an index if it has one. suffix: five random letters for the name of an indexed pod."""
    pod = pod_from_template(template, job, "batch/v1", "Job")
    meta, spec = pod["metadata"], dict(pod["spec"])
    meta["finalizers"] = [*(f for f in meta.get("finalizers") or () if f != FINALIZER), FINALIZER]
    if index is not None:
        meta["annotations"] = {**meta.get("annotations", {}), INDEX: str(index)}
        meta["labels"] = {**meta.get("labels", {}), INDEX: str(index)}
        meta["name"] = f"{job.name}-{index}-{suffix}"
        meta["generateName"] = f"{job.name}-{index}-"
        spec["hostname"] = f"{job.name}-{index}"
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        told = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
        for part in ("initContainers", "containers"):
            if spec.get(part):
                spec[part] = [
                    c
                    if any(e.get("name") == "JOB_COMPLETION_INDEX" for e in c.get("env") or ())
                    else {**c, "env": [*(c.get("env") or ()), told]}
                    for c in spec[part]
                ]
    pod["spec"] = spec
    return pod


def seconds_to_live(job: Job, now: float) -> float | None:
    """How long a finished Job is kept by ttlSecondsAfterFinished; None: for ever, or it has not finished."""
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None or not finished(job) or job.metadata.deletion_timestamp is not None:
        return None
    times = [c.last_transition_time for c in job.status.conditions or ()
             if c.type in ("Complete", "Failed") and c.status == "True" and c.last_transition_time]  # fmt: skip
    return max(parse_rfc3339(times[0]) + ttl - now, 0.0) if times else None
