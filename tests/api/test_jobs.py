"""Jobs and CronJobs: what is refused and in which words, what may change, and how their Pods are told apart."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api import kinds
from kubesvc.api.jobcheck import count_indexes
from kubesvc.api.meta import Object
from tests.api.checking import created, defaulted, refusals, starts, update_refusals


def job(**spec: Any) -> Object:
    """A Job whose Pods end; `pod` is what its Pods have besides."""
    pod = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never", **spec.pop("pod", {})}
    return {"metadata": {"name": "j", "namespace": "ns", "uid": "u"}, "spec": {"template": {"spec": pod}, **spec}}


def indexed(completions: int | None = 5, **spec: Any) -> Object:
    return job(completionMode="Indexed", completions=completions, **spec)


def on_failure(*rules: Object, **more: Any) -> Object:
    return job(podFailurePolicy={"rules": list(rules)}, **more)


def on_success(*rules: Object) -> Object:
    return indexed(successPolicy={"rules": list(rules)})


def codes(*values: int, operator: str = "In", **more: Any) -> Object:
    return {"action": "FailJob", "onExitCodes": {"operator": operator, "values": list(values), **more}}


LONG = "j" * 61
RULE = "spec.podFailurePolicy.rules[0]"
DONE = "spec.successPolicy.rules[0]"
FIELDS = "parallelism completions activeDeadlineSeconds backoffLimit ttlSecondsAfterFinished"
CREATES: tuple[tuple[str, Object, list[str]], ...] = (
    ("a job", job(), []),
    ("numbers below 0, in their order", job(**dict.fromkeys(FIELDS.split(), -1)), [
        f"spec.{f}: Invalid value: -1: must be greater than or equal to 0" for f in FIELDS.split()]),
    ("failed indexes without retries by index", indexed(maxFailedIndexes=1), [
        "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"]),
    ("retries by index without indexes", job(backoffLimitPerIndex=1), [
        "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]),
    ("more may fail than there are", indexed(backoffLimitPerIndex=1, maxFailedIndexes=6), [
        "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"]),
    ("too many at once", indexed(parallelism=100_001), [
        "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is"]),
    ("very many indexes", indexed(100_001, backoffLimitPerIndex=1, parallelism=10_001), [
        "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 "
        "and used with backoff limit per index"]),
    ("no goal", indexed(None, parallelism=2), ["spec.completions: Required value: when completion mode is Indexed"]),
    ("odd mode", job(completionMode="X"), [
        'spec.completionMode: Unsupported value: "X": supported values: "NonIndexed", "Indexed"']),
    ("managed by nobody in particular", job(managedBy="me"), [
        'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")']),
    ("managed by another", job(managedBy="example.com/mine"), []),
    ("managed by a host that is none", job(managedBy="ex_ample/a b"), [
        'spec.managedBy: Invalid value: "ex_ample": a lowercase RFC 1123 subdomain',
        'spec.managedBy: Invalid value: "a b": Invalid path (regex used for validation is']),
    ("a failure that counts", on_failure(codes(1, 2)), []),
    ("a failure without action", on_failure({"onPodConditions": [{"type": "DisruptionTarget"}]}), [
        f'{RULE}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]']),
    ("a failed index where there is none", on_failure(codes(1) | {"action": "FailIndex"}), [
        f'{RULE}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set']),
    ("a rule about nothing", on_failure({"action": "Ignore"}), [
        f"{RULE}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"]),
    ("a rule about two things", on_failure(codes(1) | {"onPodConditions": [{"type": "x", "status": "Maybe"}]}), [
        f'{RULE}.onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"',
        f"{RULE}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"]),
    ("exit codes: 0, twice, not in order, of nobody", on_failure(codes(3, 0, 3, containerName="d")), [
        f'{RULE}.onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names',
        f"{RULE}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
        f"{RULE}.onExitCodes.values[2]: Duplicate value: 3",
        f"{RULE}.onExitCodes.values: Invalid value: [3,0,3]: must be ordered"]),
    ("exit codes: none", on_failure(codes(operator="Odd")), [
        f'{RULE}.onExitCodes.operator: Unsupported value: "Odd": supported values: "In", "NotIn"',
        f"{RULE}.onExitCodes.values: Invalid value: "]),
    ("21 rules", on_failure(*[codes(1)] * 21), [
        "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"]),
    ("failures count, and Pods restart", on_failure(codes(1), pod={"restartPolicy": "OnFailure"}), [
        'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailure']),
    ("failures count, and Pods are replaced early", on_failure(codes(1), podReplacementPolicy="TerminatingOrFailed"), [
        'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"']),
    ("a success that is enough", on_success({"succeededIndexes": "0,2-4", "succeededCount": 2}), []),
    ("a success without indexes", job(successPolicy={"rules": [{"succeededCount": 1}]}), [
        'spec.successPolicy: Invalid value: {"Rules":[{"SucceededIndexes":null,"SucceededCount":1}]}: requires']),
    ("a success of nothing", on_success({}), [
        f"{DONE}: Required value: at least one of succeededCount or succeededIndexes must be specified"]),
    ("no rules of success", on_success(), [
        "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is"]),
    ("more successes than there are", on_success({"succeededIndexes": "0-1", "succeededCount": 6}), [
        f"{DONE}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified",
        f"{DONE}.succeededCount: Invalid value: 6: must be less than or equal to 2 (the number of indexes in the"]),
    ("indexes that are none", on_success({"succeededIndexes": "1-x"}), [
        f'{DONE}.succeededIndexes: Invalid value: "1-x": error parsing succeededIndexes: cannot convert string to '
        'integer for index: "x"']),
    ("an index of more than 64 bits", on_success({"succeededIndexes": "9" * 5000}), [
        f'{DONE}.succeededIndexes: Invalid value: "{"9" * 5000}": error parsing succeededIndexes: cannot convert '
        f'string to integer for index: "{"9" * 5000}"']),
    ("indexes with zeros in front", on_success({"succeededIndexes": "0" * 5000 + "-" + "0" * 5000 + "4"}), []),
    ("indexes beyond measure are not even read", on_success({"succeededIndexes": "x" * 70000, "succeededCount": 2}), [
        f"{DONE}.succeededIndexes: Too long: may not be more than 65536 bytes"]),
    ("a policy that nobody knows", job(pod={"restartPolicy": "Odd"}), [
        'spec.template.spec.restartPolicy: Unsupported value: "Odd": supported values: "Always", "OnFailure", "Never"',
        'spec.template.spec.restartPolicy: Unsupported value: "Odd": supported values: "OnFailure", "Never"']),
    ("a name too long for its Pods", indexed(11) | {"metadata": {"name": LONG, "uid": "u"}}, [
        f'metadata.name: Invalid value: "{LONG}": will not able to create pod with invalid DNS label: {LONG}-10']),
)  # fmt: skip


@pytest.mark.parametrize(("name", "obj", "texts"), CREATES, ids=lambda c: c if isinstance(c, str) else "")
def test_jobs_that_are_refused(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(kinds.JOB, obj)
    assert starts(found, texts), found


def test_a_job_made_of_another_ones_manifest_is_refused() -> None:
    """Labels and selectors that were generated for another stay as they were sent, and contradict the new one."""
    old = created(kinds.JOB, job())
    again = {**copy.deepcopy(old), "metadata": {"name": "j", "uid": "v"}}
    labels = "spec.template.metadata.labels"
    assert starts(refusals(kinds.JOB, again), [
        f"{labels}[controller-uid]: Invalid value: ", f"{labels}[batch.kubernetes.io/controller-uid]: Invalid value: ",
        'spec.selector: Invalid value: {"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}}: `selector` not auto',
    ])  # fmt: skip
    by_hand = {**again, "spec": again["spec"] | {"manualSelector": True}}
    assert not refusals(kinds.JOB, by_hand)


SUSPENDED = job(suspend=True)
CHANGES: tuple[tuple[str, Object, Object, list[str]], ...] = (
    ("how many at a time", job(completions=1, parallelism=3), job(), []),
    ("no goal any more", job(parallelism=3), job(), ['spec.completions: Invalid value: "null": field is immutable']),
    ("the goal", job(completions=3), job(), ["spec.completions: Invalid value: 3: field is immutable"]),
    ("an indexed goal alone", indexed(6, parallelism=5), indexed(parallelism=5), [
        "spec.completions: Invalid value: 6: can only be modified in tandem with spec.parallelism"]),
    ("an indexed goal with its Pods", indexed(6, parallelism=6), indexed(parallelism=5), []),
    ("who manages it", job(managedBy="a.b/c"), job(), ['spec.managedBy: Invalid value: "a.b/c": field is immutable']),
    ("where Pods run", job(pod={"nodeSelector": {"a": "b"}}), job(), ["spec.template: Invalid value: "]),
    ("where they will run, once it begins", job(suspend=True, pod={"nodeSelector": {"a": "b"}}), SUSPENDED, []),
    ("what will run", job(suspend=True, pod={"containers": [{"name": "c", "image": "other"}]}), SUSPENDED, [
        "spec.template: Invalid value: "]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "new", "old", "texts"), CHANGES, ids=lambda c: c if isinstance(c, str) else "")
def test_changes_of_jobs(name: str, new: Object, old: Object, texts: list[str]) -> None:
    found = update_refusals(kinds.JOB, new, old)
    assert starts(found, texts), found


INDEXES = (
    ("", 0, ""),
    ("0", 1, ""),
    ("0,2-4,9", 5, ""),
    ("4-2", 0, "non-increasing order, previous: 4, current: 2"),
    ("1,1", 0, "non-increasing order, previous: 1, current: 1"),
    ("3,0-5", 0, "non-increasing order, previous: 3, current: 0"),
    ("10", 0, 'too large index: "10"'),
    ("0-10", 0, 'too large index: "10"'),
    ("a", 0, 'cannot convert string to integer for index: "a"'),
    ("1,", 0, 'cannot convert string to integer for index: ""'),
    ("1-2-3", 0, 'the fragment "1-2-3" violates the requirement that an index interval can have at most two parts'),
)


@pytest.mark.parametrize(("text", "total", "says"), INDEXES)
def test_indexes(text: str, total: int, says: str) -> None:
    if not says:
        assert count_indexes(text, 10) == total
        return
    with pytest.raises(ValueError) as caught:
        count_indexes(text, 10)
    assert str(caught.value).startswith(says)


def cron(template: Object | None = None, **spec: Any) -> Object:
    found = job()["spec"] if template is None else template
    return {"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "jobTemplate": {"spec": found}, **spec}}


CRONS: tuple[tuple[str, Object, list[str]], ...] = (
    ("no Pods at all", cron({}), [
        "spec.jobTemplate.spec.template.spec.containers: Required value",
        'spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
    ("all wrong, in its order", cron(schedule="x", timeZone="", startingDeadlineSeconds=-1, concurrencyPolicy="X"), [
        'spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]',
        "spec.startingDeadlineSeconds: Invalid value: -1", 'spec.timeZone: Invalid value: "": timeZone must be nil or',
        'spec.concurrencyPolicy: Unsupported value: "X": supported values: "Allow", "Forbid", "Replace"']),
    ("a selector of its own", cron({**job()["spec"], "selector": {}, "manualSelector": True}), [
        "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
        'spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"']),
    ("a policy", cron(on_failure({"action": "Ignore"})["spec"]), [
        "spec.jobTemplate.spec.podFailurePolicy.rules[0]: Invalid value: specifying one of"]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "obj", "texts"), CRONS, ids=lambda c: c if isinstance(c, str) else "")
def test_cron_jobs_that_are_refused(name: str, obj: Object, texts: list[str]) -> None:
    found = refusals(kinds.CRON_JOB, obj)
    assert starts(found, texts), found


def test_a_zone_that_was_there_is_not_asked_again() -> None:
    old = cron(timeZone="Atlantis/Old")
    assert not update_refusals(kinds.CRON_JOB, cron(timeZone="Atlantis/Old", suspend=True), old)
    assert update_refusals(kinds.CRON_JOB, cron(timeZone="Atlantis/New"), old)


def test_warnings_of_jobs() -> None:
    """WARN-1: as for other kinds with a template, by the path at which it is."""
    twice = {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": v} for v in "xy"]}]}
    hides = 'containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
    assert kinds.JOB.warn(defaulted(kinds.JOB, job(pod=twice)), None) == [f"spec.template.spec.{hides}"]
    made = defaulted(kinds.CRON_JOB, cron(job(pod=twice)["spec"]))
    assert kinds.CRON_JOB.warn(made, None) == [f"spec.jobTemplate.spec.template.spec.{hides}"]
    assert kinds.CRON_JOB.warn(made, made) == []
