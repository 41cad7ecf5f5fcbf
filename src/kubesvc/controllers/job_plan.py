"""What a Job does about its pods, and what its status says. Pure.

Every pod carries a finalizer until its end is counted, so that a pod deleted early is counted all the same: first its
uid goes into `status.uncountedTerminatedPods`, then the finalizer goes, then the uid becomes part of a count. What the
policies make of an end is told in `job_policies`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from kubesvc.api.job import Job, JobCondition
from kubesvc.api.meta import Object
from kubesvc.api.pod import Pod
from kubesvc.clock import parse_rfc3339, rfc3339

from .job_backoff import NONE, Record, finished_at, left_after
from .job_policies import (
    ends_index,
    failures_before,
    indexes_text,
    judge_pod,
    last_failures,
    match_success,
    parse_indexes,
    per_index,
    replacement_counts,
)
from .podowner import pod_from_template
from .replicaset_plan import BURST, deletion_rank

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
COMPLETIONS_REACHED = "CompletionsReached"


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
    drop:   pods to delete that shall not count as failed, so their finalizer goes first
    replaced: by index, the failed pods whose places the new ones take
    settle: ended pods whose finalizer goes once the status is written
    surplus: whether more succeeded than were asked for
    record: what the next replacement waits by, to be remembered once the status is written
    again:  seconds until there may be more to do; None if something will wake us
    """

    status: Object
    create: list[int | None] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    drop: list[Pod] = field(default_factory=list)
    settle: list[Pod] = field(default_factory=list)
    replaced: dict[int, Pod] = field(default_factory=dict)
    verdict: Verdict | None = None
    surplus: bool = False
    record: Record = NONE
    again: float | None = None


def finished(job: Job) -> bool:
    return job.has("Complete") or job.has("Failed")


def ended(job: Job, pod: Pod) -> bool:
    """Ran to its end, or will not be waited for: a deleted pod has failed unless only failed ones are replaced."""
    if pod.terminal:
        return True
    if job.spec.pod_replacement_policy == "Failed" or job.spec.pod_failure_policy is not None:
        never_ran = not pod.spec.node_name or pod.metadata.deletion_grace_period_seconds == 0
        return pod.terminating and never_ran  # nobody will ever give it a phase
    return pod.terminating


def index_of(pod: Pod) -> int | None:
    text = pod.metadata.annotation(INDEX)
    return int(text) if text.isascii() and text.isdigit() else None


@dataclass(slots=True)
class Tally:
    """What the ended pods come to, with what was counted before.

    left:      uids by outcome that the status notes as not counted yet
    settle:    ended pods whose finalizer may go once the status is written
    replaced:  by index, the failed pod whose place the next one takes; it keeps its finalizer till then
    fatal:     why the Job fails at once, "" for no reason
    won, lately: pods whose success, or failure, was not seen before
    """

    succeeded: int
    failed: int
    left: dict[str, list[str]]
    done: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    settle: list[Pod] = field(default_factory=list)
    replaced: dict[int, Pod] = field(default_factory=dict)
    waiting_failures: int = 0
    fatal: str = ""
    won: list[Pod] = field(default_factory=list)
    lately: list[Pod] = field(default_factory=list)

    @property
    def won_in_all(self) -> int:
        return self.succeeded + len(self.left["succeeded"])

    @property
    def lost_in_all(self) -> int:
        return self.failed + len(self.left["failed"]) + self.waiting_failures


def tally(job: Job, pods: Sequence[Pod]) -> Tally:
    """Count the ends of pods, each once, by the Job's policies."""
    status, indexed = job.status, job.spec.completion_mode == "Indexed"
    tracked = {p.metadata.uid: p for p in pods if FINALIZER in (p.metadata.finalizers or ())}
    noted = status.uncounted_terminated_pods
    before = {
        "succeeded": (noted.succeeded if noted else None) or [],
        "failed": (noted.failed if noted else None) or [],
    }
    found = Tally(
        succeeded=status.succeeded + sum(uid not in tracked for uid in before["succeeded"]),
        failed=status.failed + sum(uid not in tracked for uid in before["failed"]),
        left={name: [uid for uid in uids if uid in tracked] for name, uids in before.items()},
    )
    known = {*before["succeeded"], *before["failed"]}
    if indexed:
        found.done = parse_indexes(status.completed_indexes, completions_of(job))
        found.lost = parse_indexes(status.failed_indexes or "", completions_of(job))
    failed: list[tuple[int, Pod]] = []
    uncounted: dict[str, None] = {}
    for pod in tracked.values():
        if not ended(job, pod):
            continue
        found.settle.append(pod)
        index, new = index_of(pod), pod.metadata.uid not in known
        if indexed and (index is None or index >= completions_of(job)):
            continue  # nobody asked for it
        if pod.status.phase == "Succeeded":
            if index is not None and indexed:
                found.done.add(index)
            if new:
                found.left["succeeded"].append(pod.metadata.uid)
                found.won.append(pod)
            continue
        if new:
            found.lately.append(pod)
        judgement = judge_pod(job.spec.pod_failure_policy, pod)
        found.fatal = found.fatal or judgement.message
        if judgement.counts and new:
            found.left["failed"].append(pod.metadata.uid)
            uncounted[pod.metadata.uid] = None
        if index is not None and per_index(job):
            failed.append((index, pod))
            if ends_index(job, pod, judgement):
                found.lost.add(index)
    running = {index_of(p) for p in pods if not p.terminal and not p.terminating}
    for index, pod in last_failures(failed).items():
        if index not in found.done and index not in found.lost and index not in running:
            found.replaced[index] = pod
            found.settle.remove(pod)
            if pod.metadata.uid in uncounted:
                found.left["failed"].remove(pod.metadata.uid)
                found.waiting_failures += 1
    return found


def plan_job(job: Job, pods: Sequence[Pod], now: float, *, seen: bool = True, record: Record = NONE) -> JobPlan:
    """The next step of a Job that has not finished.

    pods: all it manages, ended and terminating ones included
    now:  seconds since 1970
    seen: whether the cache shows all that was asked for; if not, no pod is made or deleted
    record: of the failures seen before
    """
    spec, status = job.spec, job.status
    indexed = spec.completion_mode == "Indexed"
    found = tally(job, pods)
    running = [p for p in pods if not p.terminal and not (ended(job, p) and not p.terminating)]
    active = [p for p in running if not p.terminating]
    terminating = [p for p in running if p.terminating]
    plan = JobPlan(status={}, settle=found.settle, record=record.after(found.won, found.lately, now))
    start = parse_rfc3339(status.start_time) if status.start_time else now
    plan.verdict = judge(job, active, running, found, now - start)
    if plan.verdict and plan.verdict.reason == COMPLETIONS_REACHED and spec.completions is not None:
        plan.surplus = not indexed and found.won_in_all > spec.completions
    deadline = spec.active_deadline_seconds
    if deadline is not None and not plan.verdict and not spec.suspend:
        plan.again = max(start + deadline - now, 0.0)
    if seen and job.metadata.deletion_timestamp is None:
        if plan.verdict:
            plan.delete = active[:BURST]
        elif spec.suspend:
            plan.drop = active[:BURST]
        else:
            size(job, plan, active, terminating, found, now)
    if plan.verdict:  # nobody takes their place any more
        plan.settle += found.replaced.values()
        for pod in found.replaced.values():
            if judge_pod(spec.pod_failure_policy, pod).counts:
                found.left["failed"].append(pod.metadata.uid)
    deleted = {id(p) for p in (*plan.delete, *plan.drop)}
    still = [p for p in active if id(p) not in deleted]
    plan.status = {
        "active": len(still) or None,
        "ready": sum(p.ready for p in still),
        "terminating": len(terminating) + len(deleted),
        "succeeded": (len(found.done) if indexed else found.succeeded) or None,
        "failed": found.failed or None,
        "uncountedTerminatedPods": {name: uids or None for name, uids in found.left.items()},
        "startTime": None if spec.suspend and not plan.verdict else status.start_time or rfc3339(now),
    }
    if indexed:
        plan.status["completedIndexes"] = indexes_text(found.done) or None
        if per_index(job):
            plan.status["failedIndexes"] = indexes_text(found.lost)
    settled = not any(found.left.values()) and not plan.settle
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
    elif any(c.type == "Suspended" for c in conditions):
        set_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed", now)
    plan.status["conditions"] = [msgspec.to_builtins(c) for c in conditions] or None
    return plan


def judge(job: Job, active: Sequence[Pod], running: Sequence[Pod], found: Tally, age: float) -> Verdict | None:
    """Whether the Job is over, and how; what was said before stays said."""
    spec = job.spec
    for early, type_ in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        said = next((c for c in job.status.conditions or () if c.type == early and c.status == "True"), None)
        if said is not None:
            return Verdict(type_, said.reason, said.message)
    if found.fatal:
        return Verdict("Failed", "PodFailurePolicy", found.fatal)
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    restarts = 0
    if spec.template.spec.restart_policy == "OnFailure":
        statuses = [s for p in running for s in (*(p.status.container_statuses or ()),
                                                *(p.status.init_container_statuses or ()))]  # fmt: skip
        restarts = sum(s.restart_count for s in statuses)
    if found.lost_in_all > limit or (restarts and restarts >= limit):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.active_deadline_seconds
    if deadline is not None and not spec.suspend and age >= deadline:
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if per_index(job) and found.lost:
        if spec.max_failed_indexes is not None and len(found.lost) > spec.max_failed_indexes:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return Verdict("Failed", "MaxFailedIndexesExceeded", text)
        if len(found.lost) + len(found.done) >= completions_of(job):
            return Verdict("Failed", "FailedIndexes", "Job has failed indexes")
    succeeded = found.won_in_all
    if spec.completion_mode == "Indexed":
        succeeded = len(found.done)
        if (message := match_success(job, found.done)) is not None:
            return Verdict("Complete", "SuccessPolicy", message)
    enough = succeeded > 0 and not active if spec.completions is None else succeeded >= spec.completions
    if enough:
        return Verdict("Complete", COMPLETIONS_REACHED, "Reached expected number of succeeded pods")
    return None


def size(
    job: Job,
    plan: JobPlan,
    active: Sequence[Pod],
    terminating: Sequence[Pod],
    found: Tally,
    now: float,
) -> None:
    """Plan the pods to make, or those too many."""
    spec = job.spec
    succeeded = len(found.done) if spec.completion_mode == "Indexed" else found.won_in_all
    most = 1 if spec.parallelism is None else spec.parallelism
    if spec.completions is None:
        wanted = min(len(active), most) if succeeded else most
    else:
        wanted = min(most, spec.completions - succeeded - len(found.lost))
    if len(active) > wanted or spec.completion_mode == "Indexed":
        crowd = Counter(p.spec.node_name for p in active if p.spec.node_name)
        superfluous, left = superfluous_indexes(job, sorted(active, key=deletion_rank(crowd)))
        superfluous += left[: max(0, len(active) - wanted - len(superfluous))]
        if superfluous:  # what is missing is made once these are gone
            plan.drop = superfluous[:BURST]
            return
    there = len(active) + (len(terminating) if spec.pod_replacement_policy == "Failed" else 0)
    missing = min(wanted - there, BURST)
    if missing <= 0:
        return
    if per_index(job):
        taken = found.done | found.lost | {index for p in active if (index := index_of(p)) is not None}
        if spec.pod_replacement_policy == "Failed" or spec.pod_failure_policy is not None:
            taken |= {index for p in terminating if (index := index_of(p)) is not None}
        free = [i for i in range(completions_of(job)) if i not in taken]
        delays = {i: index_delay(found.replaced.get(i), now) for i in free}
        plan.create += [i for i in free if delays[i] <= 0][:missing]
        plan.replaced = found.replaced
        later = [d for d in delays.values() if d > 0]
        if later and len(plan.create) < missing:
            plan.again = min(*later, plan.again) if plan.again is not None else min(later)
        return
    if (wait := plan.record.seconds_left(now)) > 0:
        plan.again = min(wait, plan.again) if plan.again is not None else wait
        return
    if spec.completion_mode == "Indexed":
        taken = found.done | {index for p in active if (index := index_of(p)) is not None}
        plan.create += [i for i in range(completions_of(job)) if i not in taken][:missing]
    else:
        plan.create = [None] * missing


def superfluous_indexes(job: Job, ranked: Sequence[Pod]) -> tuple[list[Pod], list[Pod]]:
    """Pods whose index nobody asks for, since completions became fewer, or that another pod has too; and the others.

    ranked: the active pods, those first that would be given up first; of one index the last stays
    """
    if job.spec.completion_mode != "Indexed":
        return [], list(ranked)
    keeper = {index: pod for pod in ranked if (index := index_of(pod)) is not None and index < completions_of(job)}
    kept = {id(pod) for pod in keeper.values()}
    return [p for p in ranked if id(p) not in kept], [p for p in ranked if id(p) in kept]


def completions_of(job: Job) -> int:
    return job.spec.completions or 0


def index_delay(replaced: Pod | None, now: float) -> float:
    """How long an index's next pod waits: 10 s after its first failure, doubling."""
    if replaced is None:
        return 0.0
    return left_after(failures_before(replaced) + 1, finished_at(replaced, now), now)


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


def render_pod(job: Job, template: Object, index: int | None, suffix: str, replaced: Pod | None = None) -> Object:
    """The plain pod, of an index if it has one.

    suffix:   five random letters for the name of an indexed pod
    replaced: the failed pod of the index whose place it takes
    """
    pod = pod_from_template(template, job, "batch/v1", "Job")
    meta, spec = pod["metadata"], dict(pod["spec"])
    meta["finalizers"] = [*(f for f in meta.get("finalizers") or () if f != FINALIZER), FINALIZER]
    if index is not None:
        meta["annotations"] = {**meta.get("annotations", {}), INDEX: str(index)}
        if per_index(job):
            meta["annotations"] |= replacement_counts(job, replaced)
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
