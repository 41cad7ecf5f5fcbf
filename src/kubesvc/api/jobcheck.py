"""What is refused in a Job's spec, whether the Job stands alone or in a CronJob's template.

Plain objects in, field errors out, in the order in which the API finds them. Defaults were applied before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from . import checks, fields, names, podcheck, workload
from .checks import items, nonnegative, part, texts
from .fields import Errors, Path, quote
from .meta import Object

COMPLETION_MODES = ("NonIndexed", "Indexed")
ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
CONDITION_STATUSES = ("False", "True", "Unknown")
EXIT_OPERATORS = ("In", "NotIn")
REPLACEMENT_POLICIES = ("Failed", "TerminatingOrFailed")
RESTART_POLICIES = ("OnFailure", "Never")

MOST_PARALLEL = MOST_FAILED_INDEXES = MANY_COMPLETIONS = 100_000
MOST_OF_MANY = 10_000
"""Most Pods at once, and most failed indexes, where there are more than MANY_COMPLETIONS and retries by index."""
MOST_RULES = MOST_PATTERNS = 20
MOST_EXIT_CODES = 255
MOST_INDEXES_BYTES = 64 * 1024
MOST_MANAGER_BYTES = 63
NOT_INDEXED = "requires indexed completion mode"


def validate_job_spec(spec: Object, path: Path) -> Errors:
    """All that a Job and a CronJob's template share; selectors are the caller's."""
    errors: Errors = []
    for field in (
        "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
        "backoffLimitPerIndex", "maxFailedIndexes",
    ):  # fmt: skip
        errors += nonnegative(spec, field, path)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(fields.required(path / "backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if (manager := spec.get("managedBy")) is not None:
        errors += checks.domain_prefixed_path(manager, path / "managedBy")
        if len(manager.encode()) > MOST_MANAGER_BYTES:
            errors.append(fields.too_long(path / "managedBy", MOST_MANAGER_BYTES))
    errors += validate_mode(spec, path)
    if (policy := spec.get("podFailurePolicy")) is not None:
        errors += validate_failure_policy(policy, spec, path / "podFailurePolicy")
    if (policy := spec.get("successPolicy")) is not None:
        if spec.get("completionMode") != "Indexed":
            value = fields.Spelled(spelled_success_policy(policy))
            errors.append(fields.invalid(path / "successPolicy", value, NOT_INDEXED))
        else:
            errors += validate_success_policy(policy, spec.get("completions") or 0, path / "successPolicy")
    errors += validate_replacement(spec, path / "podReplacementPolicy")
    errors += podcheck.validate_template(part(spec, "template"), path / "template")
    return errors + validate_restart(spec, path / "template" / "spec" / "restartPolicy")


def validate_mode(spec: Object, path: Path) -> Errors:
    """Whether the Pods are numbered, and what follows from it."""
    mode = spec.get("completionMode")
    errors: Errors = []
    if mode is not None and mode not in COMPLETION_MODES:
        errors.append(fields.not_supported(path / "completionMode", mode, COMPLETION_MODES, in_order=True))
    if mode == "Indexed":
        return errors + validate_indexed(spec, path)
    if mode in (None, "NonIndexed"):
        errors += [
            fields.invalid(path / field, spec[field], NOT_INDEXED)
            for field in ("backoffLimitPerIndex", "maxFailedIndexes")
            if spec.get(field) is not None
        ]
    return errors


def validate_indexed(spec: Object, path: Path) -> Errors:
    """How many indexes there are and may fail."""
    errors: Errors = []
    wanted, parallel, failed = (spec.get(f) for f in ("completions", "parallelism", "maxFailedIndexes"))
    if wanted is None:
        errors.append(fields.required(path / "completions", "when completion mode is Indexed"))
    if parallel is not None and parallel > MOST_PARALLEL:
        text = f"must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed"
        errors.append(fields.invalid(path / "parallelism", parallel, text))
    if wanted is not None and failed is not None and failed > wanted:
        text = "must be less than or equal to completions"
        errors.append(fields.invalid(path / "maxFailedIndexes", failed, text))
    if failed is not None and failed > MOST_FAILED_INDEXES:
        text = f"must be less than or equal to {MOST_FAILED_INDEXES}"
        errors.append(fields.invalid(path / "maxFailedIndexes", failed, text))
    if wanted is None or wanted <= MANY_COMPLETIONS or spec.get("backoffLimitPerIndex") is None:
        return errors
    if failed is None:
        text = f"must be specified when completions is above {MANY_COMPLETIONS}"
        errors.append(fields.required(path / "maxFailedIndexes", text))
    for field, value in (("parallelism", parallel), ("maxFailedIndexes", failed)):
        if value is not None and value > MOST_OF_MANY:
            text = f"must be less than or equal to {MOST_OF_MANY} when completions are above {MANY_COMPLETIONS}"
            errors.append(fields.invalid(path / field, value, f"{text} and used with backoff limit per index"))
    return errors


def validate_restart(spec: Object, path: Path) -> Errors:
    """Pods of a Job end: they are not always started anew."""
    policy = part(part(spec, "template"), "spec").get("restartPolicy") or ""
    if policy in ("", "Always"):
        return [fields.required(path, "valid values: " + ", ".join(map(quote, RESTART_POLICIES)))]
    if policy not in RESTART_POLICIES:
        return [fields.not_supported(path, policy, RESTART_POLICIES, in_order=True)]
    if spec.get("podFailurePolicy") is not None and policy != "Never":
        return [fields.invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def validate_replacement(spec: Object, path: Path) -> Errors:
    policy = spec.get("podReplacementPolicy")
    allowed = REPLACEMENT_POLICIES if spec.get("podFailurePolicy") is None else ("Failed",)
    return [] if policy is None or policy in allowed else [fields.not_supported(path, policy, allowed)]


def listed(values: Sequence[str]) -> str:
    """A list of words as Go prints it."""
    return f"valid values: [{' '.join(map(quote, values))}]"


def known_word(value: Any, supported: Sequence[str], path: Path) -> Errors:
    """A required word of a closed set, which is told when it is missing."""
    if not value:
        return [fields.required(path, listed(supported))]
    return [] if value in supported else [fields.not_supported(path, value, supported)]


# ---------------------------------------------------------------- which failures count


def validate_failure_policy(policy: Object, spec: Object, path: Path) -> Errors:
    rules, here = items(policy, "rules"), path / "rules"
    errors: Errors = []
    if len(rules) > MOST_RULES:
        errors.append(fields.too_many(here, len(rules), MOST_RULES))
    pod = part(part(spec, "template"), "spec")
    containers = {c.get("name") for c in (*items(pod, "containers"), *items(pod, "initContainers"))}
    for i, rule in enumerate(rules):
        errors += validate_failure_rule(rule, spec, containers, here @ i)
    return errors


def validate_failure_rule(rule: Object, spec: Object, containers: set[Any], path: Path) -> Errors:
    action = rule.get("action") or ""
    if action == "FailIndex":
        errors: Errors = []
        if spec.get("backoffLimitPerIndex") is None:
            errors.append(fields.invalid(path / "action", action, "requires the backoffLimitPerIndex to be set"))
    else:
        errors = known_word(action, ACTIONS, path / "action")
    codes, conditions = rule.get("onExitCodes"), items(rule, "onPodConditions")
    if codes is not None:
        errors += validate_exit_codes(codes, containers, path / "onExitCodes")
    if len(conditions) > MOST_PATTERNS:
        errors.append(fields.too_many(path / "onPodConditions", len(conditions), MOST_PATTERNS))
    for j, pattern in enumerate(conditions):
        here = path / "onPodConditions" @ j
        type_ = pattern.get("type") or ""
        errors += texts(here / "type", type_, names.qualified_name(type_))
        errors += known_word(pattern.get("status"), CONDITION_STATUSES, here / "status")
    if codes is not None and conditions:
        text = "specifying both OnExitCodes and OnPodConditions is not supported"
        errors.append(fields.invalid(path, fields.OMITTED, text))
    if codes is None and not conditions:
        text = "specifying one of OnExitCodes and OnPodConditions is required"
        errors.append(fields.invalid(path, fields.OMITTED, text))
    return errors


def validate_exit_codes(codes: Object, containers: set[Any], path: Path) -> Errors:
    operator, name, values = codes.get("operator"), codes.get("containerName"), items(codes, "values")
    errors = known_word(operator, EXIT_OPERATORS, path / "operator")
    if name is not None and name not in containers:
        text = "must be one of the container or initContainer names in the pod template"
        errors.append(fields.invalid(path / "containerName", name, text))
    here = path / "values"
    if not values:
        errors.append(fields.invalid(here, codes.get("values"), "at least one value is required"))
    elif len(values) > MOST_EXIT_CODES:
        errors.append(fields.too_many(here, len(values), MOST_EXIT_CODES))
    seen: set[int] = set()
    for j, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(fields.invalid(here @ j, value, "must not be 0 for the In operator"))
        if value in seen:
            errors.append(fields.duplicate(here @ j, value))
        seen.add(value)
    if values != sorted(values):
        errors.append(fields.invalid(here, values, "must be ordered"))
    return errors


# ---------------------------------------------------------------- when it is done already


def validate_success_policy(policy: Object, completions: int, path: Path) -> Errors:
    rules, here = items(policy, "rules"), path / "rules"
    errors: Errors = []
    if not rules:
        text = "at least one rules must be specified when the successPolicy is specified"
        errors.append(fields.required(here, text))
    if len(rules) > MOST_RULES:
        errors.append(fields.too_many(here, len(rules), MOST_RULES))
    for i, rule in enumerate(rules):
        errors += validate_success_rule(rule, completions, here @ i)
    return errors


def validate_success_rule(rule: Object, completions: int, path: Path) -> Errors:
    count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
    errors: Errors = []
    if count is None and indexes is None:
        text = "at least one of succeededCount or succeededIndexes must be specified"
        errors.append(fields.required(path, text))
    total = 0
    if indexes is not None:
        here = path / "succeededIndexes"
        if len(indexes.encode()) > MOST_INDEXES_BYTES:
            errors.append(fields.too_long(here, MOST_INDEXES_BYTES))
            indexes = None  # megabytes of it would keep all others waiting
        else:
            try:
                total = count_indexes(indexes, completions)
            except ValueError as error:
                errors.append(fields.invalid(here, indexes, f"error parsing succeededIndexes: {error}"))
    if count is not None:
        here = path / "succeededCount"
        errors += nonnegative(rule, "succeededCount", path)
        if count > completions:
            text = f"must be less than or equal to {completions} (the number of specified completions)"
            errors.append(fields.invalid(here, count, text))
        if indexes is not None and count > total:
            text = f"must be less than or equal to {total} (the number of indexes in the specified"
            errors.append(fields.invalid(here, count, f"{text} succeededIndexes field)"))
    return errors


def count_indexes(text: str, completions: int) -> int:
    """How many indexes `0,3-5` names, each below `completions`; ValueError says what is wrong with it."""
    total, last = 0, -1
    for interval in text.split(",") if text else ():
        ends = interval.split("-")
        if len(ends) > 2:
            what = "violates the requirement that an index interval can have at most two parts separated by '-'"
            raise ValueError(f"the fragment {quote(interval)} {what}")
        numbers = []
        for end in ends:
            spelled = re.fullmatch(r"([+-]?)0*([0-9]{1,19})", end)
            if spelled is None or not -(2**63) <= (index := int(spelled[1] + spelled[2])) < 2**63:
                raise ValueError(f"cannot convert string to integer for index: {quote(end)}")
            if index >= completions:
                raise ValueError(f"too large index: {quote(end)}")
            numbers.append(index)
        first, final = numbers[0], numbers[-1]
        if len(numbers) == 2 and first >= final:
            raise ValueError(f"non-increasing order, previous: {first}, current: {final}")
        if last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + final - first + 1, final
    return total


def spelled_success_policy(policy: Object) -> str:
    """Under Go's names (ERR-3)."""
    rules = [
        {"SucceededIndexes": r.get("succeededIndexes"), "SucceededCount": r.get("succeededCount")}
        for r in items(policy, "rules")
    ]
    return fields.spell({"Rules": rules or None})


# ---------------------------------------------------------------- labels and selectors


def validate_generated_selector(obj: Object, labels: Sequence[tuple[str, str]]) -> Errors:
    """A selector that was not made by hand selects exactly this Job's Pods.

    labels: what the template must have, keys and values
    """
    spec = part(obj, "spec")
    selector = spec.get("selector")
    if spec.get("manualSelector") or selector is None:
        return []
    path = Path("spec") / "template" / "metadata" / "labels"
    found = part(part(spec, "template"), "metadata").get("labels") or {}
    errors: Errors = []
    for key, value in labels:
        if key not in found:
            errors.append(fields.required(path.key(key), f"must be '{value}'"))
        elif found[key] != value:
            errors.append(fields.invalid(path.key(key), found, f"must be '{value}'"))
    if not workload.selects(selector, dict(labels)):
        errors.append(fields.invalid(Path("spec") / "selector", selector, "`selector` not auto-generated"))
    return errors
