"""What a Job's policies make of ended pods: which failures count, which end an index or the Job, what is success. Pure.

Policies are read as plain objects and leniently: a rule that cannot be read matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubesvc.api.container import ContainerStatus
from kubesvc.api.job import Job
from kubesvc.api.pod import Pod

FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
IGNORED_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"
FAIL_JOB, FAIL_INDEX, IGNORE, COUNT = "FailJob", "FailIndex", "Ignore", "Count"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a failed pod means. action: of the rule that matched, "" for none; message: of FailJob alone."""

    action: str = ""
    message: str = ""

    @property
    def counts(self) -> bool:
        """Whether the failure counts towards the limits."""
        return self.action != IGNORE


def judge_pod(policy: Mapping[str, Any] | None, pod: Pod) -> Judgement:
    """The first rule of spec.podFailurePolicy that matches a failed pod."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        action = str(rule.get("action") or "")
        found = ""
        if codes := rule.get("onExitCodes"):
            status = exited(pod, codes)
            if status is not None and status.state is not None and status.state.terminated is not None:
                code = status.state.terminated.exit_code
                found = f"Container {status.name} for pod {pod.namespace}/{pod.name} failed with exit code {code}"
        elif (condition := matching_condition(pod, rule.get("onPodConditions") or ())) is not None:
            found = f"Pod {pod.namespace}/{pod.name} has condition {condition}"
        if found and action in (FAIL_JOB, FAIL_INDEX, IGNORE, COUNT):
            return Judgement(action, f"{found} matching {action} rule at index {index}" if action == FAIL_JOB else "")
    return Judgement()


def exited(pod: Pod, wanted: Mapping[str, Any]) -> ContainerStatus | None:
    """The first container whose exit code, never 0, is as asked for."""
    values, operator, name = wanted.get("values") or (), wanted.get("operator"), wanted.get("containerName")
    statuses: list[ContainerStatus] = [*(pod.status.container_statuses or ())]
    statuses += pod.status.init_container_statuses or ()
    for status in statuses:
        if (name is not None and name != status.name) or status.state is None or status.state.terminated is None:
            continue
        code = status.state.terminated.exit_code
        if code and ((operator == "In" and code in values) or (operator == "NotIn" and code not in values)):
            return status
    return None


def matching_condition(pod: Pod, patterns: Iterable[Mapping[str, Any]]) -> str | None:
    """The type of the first condition that one of the patterns describes."""
    wanted = {(p.get("type"), p.get("status") or "True") for p in patterns}
    return next((c.type for c in pod.status.conditions or () if (c.type, c.status) in wanted), None)


def match_success(job: Job, done: set[int]) -> str | None:
    """The message of the first rule of spec.successPolicy that the indexes done so far fulfil."""
    for index, rule in enumerate((job.spec.success_policy or {}).get("rules") or ()):
        needed, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if indexes is None and needed is None:
            continue
        wanted = done if indexes is None else parse_indexes(indexes, job.spec.completions)
        have = len(wanted & done)
        if have >= (len(wanted) if needed is None else needed):
            return f"Matched rules at index {index}"
    return None


def per_index(job: Job) -> bool:
    """Whether each index has a limit of its own."""
    return job.spec.backoff_limit_per_index is not None and job.spec.completion_mode == "Indexed"


def annotated_count(pod: Pod, name: str) -> int:
    text = pod.metadata.annotation(name)
    return int(text) if text.isascii() and text.isdigit() else 0


def failures_before(pod: Pod) -> int:
    """How many pods of this one's index failed before it, those ignored included."""
    return annotated_count(pod, FAILURE_COUNT) + annotated_count(pod, IGNORED_COUNT)


def ends_index(job: Job, pod: Pod, judgement: Judgement) -> bool:
    """Whether this failure is its index's last."""
    limit = job.spec.backoff_limit_per_index or 0
    return judgement.action == FAIL_INDEX or (judgement.counts and annotated_count(pod, FAILURE_COUNT) >= limit)


def replacement_counts(job: Job, replaced: Pod | None) -> dict[str, str]:
    """The annotations of an index's next pod; `replaced` is the one that failed last, None for the first."""
    if replaced is None:
        return {FAILURE_COUNT: "0"}
    counted, ignored = annotated_count(replaced, FAILURE_COUNT), annotated_count(replaced, IGNORED_COUNT)
    if judge_pod(job.spec.pod_failure_policy, replaced).counts:
        counted += 1
    else:
        ignored += 1
    return {FAILURE_COUNT: str(counted)} | ({IGNORED_COUNT: str(ignored)} if ignored else {})


def parse_indexes(text: str, most: int | None = None) -> set[int]:
    """`1,3-5` as a set, of indexes under `most` if that is given; what cannot be read is left out."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isascii() and first.isdigit() and (last or first).isascii() and (last or first).isdigit():
            end = int(last or first) + 1
            found.update(range(int(first), end if most is None else min(end, most)))
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


def last_failures(pods: Sequence[tuple[int, Pod]]) -> dict[int, Pod]:
    """By index, the failed pod that failed last: the one before which most had failed."""
    last: dict[int, Pod] = {}
    for index, pod in pods:
        if index not in last or failures_before(pod) > failures_before(last[index]):
            last[index] = pod
    return last
