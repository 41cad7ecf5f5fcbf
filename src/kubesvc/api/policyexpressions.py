"""Expressions of admission policies and of webhooks' match conditions: what they see, what is wrong with them, and what
they say about one write. Pure.

    object, oldObject, params     plain content, whatever its kind (null where there is none)
    request                       the write: kind, resource, namespace, operation, userInfo, …
    namespaceObject               the namespace of the write; null outside
    variables                     the policy's own expressions, evaluated when first asked for
    authorizer                    who may do what (`authorizer.requestResource`: the resource that is written)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import fields, names
from .cel.kubernetes import Authorizer, Judge, ResourceCheck
from .cel.program import CALL_BUDGET, TOTAL_BUDGET, CelError, CelProblem, OutOfBudget, Program, WrongResult, compiled
from .cel.syntax import names_in, parse
from .cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, Type, list_type, map_type, read_type
from .cel.values import ObjectMap, timestamp_of
from .checks import items, part
from .fields import Errors, Path
from .meta import Object
from .rules import TooDear

CONDITIONS_BUDGET = TOTAL_BUDGET // 4
"""What all match conditions of one policy or webhook may cost together."""
MOST_MESSAGE_BYTES = 5 << 10
MOST_CONDITIONS = 64
OVER_TOTAL = "validation failed due to running out of cost budget, no further validation rules will be run"
OVER_CALL = "operation cancelled: actual cost limit exceeded"
REASON_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}

STRINGS = map_type(STRING, STRING)
KIND = Type("kubernetes.GroupVersionKind", fields={"group": STRING, "version": STRING, "kind": STRING})
RESOURCE = Type("kubernetes.GroupVersionResource", fields={"group": STRING, "version": STRING, "resource": STRING})
USER = Type(
    "kubernetes.UserInfo",
    fields={
        "username": STRING, "uid": STRING, "groups": list_type(STRING),
        "extra": map_type(STRING, list_type(STRING)),
    },
)  # fmt: skip
REQUEST = Type(
    "kubernetes.AdmissionRequest",
    fields={
        "kind": KIND, "resource": RESOURCE, "subResource": STRING, "requestKind": KIND, "requestResource": RESOURCE,
        "requestSubResource": STRING, "name": STRING, "namespace": STRING, "operation": STRING, "userInfo": USER,
        "dryRun": BOOL, "options": DYN,
    },
)  # fmt: skip
NAMESPACE_FIELDS: Mapping[str, Mapping[str, Type]] = {
    "metadata": {
        "name": STRING, "generateName": STRING, "namespace": STRING, "labels": STRINGS, "annotations": STRINGS,
        "UID": STRING, "creationTimestamp": TIMESTAMP, "deletionGracePeriodSeconds": INT,
        "deletionTimestamp": TIMESTAMP, "generation": INT, "resourceVersion": STRING,
        "finalizers": list_type(STRING),
    },
    "spec": {"finalizers": list_type(STRING)},
    "status": {"conditions": list_type(map_type(STRING, DYN)), "phase": STRING},
}  # fmt: skip
NAMESPACE = Type(
    "kubernetes.Namespace",
    fields={n: Type(f"kubernetes.Namespace{n.capitalize()}", fields=f) for n, f in NAMESPACE_FIELDS.items()},
)
AUTHORIZER, RESOURCE_CHECK = read_type(Authorizer.type_name), read_type(ResourceCheck.type_name)
WITH_AUTHORIZER = {"authorizer": AUTHORIZER, "authorizer.requestResource": RESOURCE_CHECK}


def environment(*, params: bool = False, policy: bool = True, authorizer: bool = True) -> dict[str, Type]:
    """The variables of an expression. policy: of a policy, not of a webhook."""
    found = {"object": DYN, "oldObject": DYN, "request": REQUEST}
    if policy:
        found["namespaceObject"] = NAMESPACE
    if params:
        found["params"] = DYN
    return {**found, **WITH_AUTHORIZER} if authorizer else found


def namespace_value(namespace: Object | None) -> Any:
    """A namespace as expressions see it: the fields that they may know of."""
    if namespace is None:
        return None
    out = ObjectMap()
    for section, known in NAMESPACE_FIELDS.items():
        given = part(namespace, section)
        inner = ObjectMap()
        for name, type_ in known.items():
            value = given.get("uid" if name == "UID" else name)
            if value is not None:
                inner[name] = timestamp_of(value) if type_ is TIMESTAMP else value
        out[section] = inner
    return out


# ---------------------------------------------------------------- compiling


class Compiled(NamedTuple):
    """One expression. `error`: why there is no program."""

    source: str
    program: Program | None
    error: str = ""


def compile_one(source: str, variables: Mapping[str, Type], results: tuple[str, ...] = ()) -> Compiled:
    """An expression that must give one of these types; none: any."""
    try:
        return Compiled(source, compiled(source, variables, results))
    except WrongResult:
        shown = {"null": "null_type"}
        wanted = [shown.get(r, r) for r in results]
        text = wanted[0] if len(wanted) == 1 else f"one of [{' '.join(wanted)}]"
        return Compiled(source, None, f"must evaluate to {text}")
    except CelProblem as e:
        return Compiled(source, None, f"compilation failed: {e}")


class Validation(NamedTuple):
    raw: Object
    test: Compiled
    message: Compiled | None


class PolicyPrograms:
    """All expressions of a ValidatingAdmissionPolicy."""

    def __init__(self, spec: Object) -> None:
        with_params = spec.get("paramKind") is not None
        usual = environment(params=with_params, authorizer=False)
        self.conditions = conditions_of(items(spec, "matchConditions"), environment(params=with_params))
        self.variables, known = variables_of(spec, usual)
        usual["variables"] = Type("kubernetes.variables", fields=known)
        self.validations = [self.validation(v, usual) for v in items(spec, "validations")]
        self.annotations = [
            (str(a.get("key") or ""), compile_one(str(a.get("valueExpression") or ""), usual, ("string", "null")))
            for a in items(spec, "auditAnnotations")
        ]

    def validation(self, raw: Object, usual: Mapping[str, Type]) -> Validation:
        test = compile_one(str(raw.get("expression") or ""), {**usual, **WITH_AUTHORIZER}, ("bool",))
        text = str(raw.get("messageExpression") or "")
        return Validation(raw, test, compile_one(text, usual, ("string",)) if text.strip() else None)


def variables_of(spec: Object, usual: Mapping[str, Type]) -> tuple[list[tuple[str, Compiled]], dict[str, Type]]:
    """(a policy's variables, their types). Each may use those before it."""
    found: list[tuple[str, Compiled]] = []
    known: dict[str, Type] = {}
    for variable in items(spec, "variables"):
        own = Type("kubernetes.variables", fields=dict(known))
        one = compile_one(str(variable.get("expression") or ""), {**usual, **WITH_AUTHORIZER, "variables": own})
        name = str(variable.get("name") or "")
        found.append((name, one))
        known[name] = one.program.result if one.program is not None else DYN
    return found, known


def conditions_of(conditions: Sequence[Object], variables: Mapping[str, Type]) -> list[tuple[str, Compiled]]:
    return [
        (str(c.get("name") or ""), compile_one(str(c.get("expression") or ""), variables, ("bool",)))
        for c in conditions
    ]


# ---------------------------------------------------------------- what is wrong with expressions


def expression_error(one: Compiled, at: Path) -> Errors:
    return [fields.invalid(at, one.source, one.error)] if one.error else []


def condition_errors(conditions: Sequence[Object], at: Path, variables: Mapping[str, Type]) -> Errors:
    """What is wrong with match conditions: their number, names, and expressions."""
    errors: Errors = []
    if len(conditions) > MOST_CONDITIONS:
        errors.append(fields.too_many(at, len(conditions), MOST_CONDITIONS))
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        here = at @ i
        name, text = str(condition.get("name") or ""), str(condition.get("expression") or "")
        if not text.strip():
            errors.append(fields.required(here / "expression"))
        else:
            errors += expression_error(compile_one(text, variables, ("bool",)), here / "expression")
        if not name:
            errors.append(fields.required(here / "name"))
        else:
            errors += [fields.invalid(here / "name", name, t) for t in names.qualified_name(name)]
            if name in seen:
                errors.append(fields.duplicate(here / "name", name))
            seen.add(name)
    return errors


def variable_errors(variables: Sequence[tuple[str, Compiled]], at: Path) -> Errors:
    """What is wrong with a policy's variables."""
    errors: Errors = []
    seen: set[str] = set()
    for i, (name, one) in enumerate(variables):
        here = at @ i
        if not name.strip():
            errors.append(fields.required(here / "name", "name is not specified"))
        elif not is_word(name):
            errors.append(fields.invalid(here / "name", name, "name is not a valid CEL identifier"))
        elif name in seen:
            errors.append(fields.duplicate(here / "name", name))
        seen.add(name)
        if not one.source.strip():
            errors.append(fields.required(here / "expression", "expression is not specified"))
        else:
            errors += expression_error(one, here / "expression")
    return errors


def shared_errors(spec: Object, variables: Sequence[tuple[str, Compiled]], at: Path) -> Errors:
    """What is wrong with the conditions and variables of a policy of either sort."""
    usual = environment(params=spec.get("paramKind") is not None)
    errors = condition_errors(items(spec, "matchConditions"), at / "matchConditions", usual)
    return errors + variable_errors(variables, at / "variables")


def policy_errors(spec: Object, at: Path) -> Errors:
    """What is wrong with a policy's expressions; that they are there at all is for others to say."""
    programs = PolicyPrograms(spec)
    errors = shared_errors(spec, programs.variables, at)
    for i, validation in enumerate(programs.validations):
        here = at / "validations" @ i
        if validation.test.source.strip():
            errors += expression_error(validation.test, here / "expression")
        if validation.message is not None:
            errors += expression_error(validation.message, here / "messageExpression")
        reason = validation.raw.get("reason")
        if reason is not None and reason not in REASON_CODES:
            errors.append(fields.not_supported(here / "reason", reason, REASON_CODES))
    for i, (key, one) in enumerate(programs.annotations):
        here = at / "auditAnnotations" @ i
        if not key:
            errors.append(fields.required(here / "key"))
        if not one.source.strip():
            errors.append(fields.required(here / "valueExpression"))
        else:
            errors += expression_error(one, here / "valueExpression")
    return errors


def is_word(name: str) -> bool:
    try:
        return names_in(parse(name)) == {name}
    except CelProblem:
        return False


# ---------------------------------------------------------------- evaluating


class Exhausted(Exception):
    """The expressions of one write may cost no more. The text is upstream's."""


class Failed(Exception):
    """An expression came to nothing. The text is upstream's."""


class Run:
    """One evaluation of several expressions that share a budget."""

    def __init__(self, variables: Mapping[str, Any], budget: int) -> None:
        self.variables = dict(variables)
        self.left = budget
        self.exhausted = False
        """Whether something ended because it may cost no more."""

    def value(self, one: Compiled) -> Any:
        """Raises Failed, Exhausted."""
        if one.program is None:
            raise Failed(f"compilation error: {one.error}")
        limit = min(CALL_BUDGET, self.left)
        before = self.left
        try:
            found = one.program.evaluate(self.variables, limit)
        except OutOfBudget:
            self.exhausted = True
            if limit < CALL_BUDGET:
                raise Exhausted(OVER_TOTAL) from None
            self.left -= CALL_BUDGET
            raise Failed(f"expression '{one.source}' resulted in error: {OVER_CALL}") from None
        except CelError as e:
            self.left -= 1
            raise Failed(f"expression '{one.source}' resulted in error: {e}") from None
        self.left -= found.cost
        if self.left < 0:
            self.left = before
            self.exhausted = True
            raise Exhausted(OVER_TOTAL)
        return found.value


class Lazy(Mapping[str, Any]):
    """A policy's variables: each is evaluated once, when it is first read."""

    def __init__(self, run: Run, variables: Sequence[tuple[str, Compiled]]) -> None:
        self.run = run
        self.compiled = dict(variables)
        self.known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        found = self.known.get(name)
        if found is None:
            try:
                found = self.known[name] = (self.run.value(self.compiled[name]), "")
            except (Failed, Exhausted) as e:
                text = str(e).partition(" resulted in error: ")
                found = self.known[name] = (
                    None,
                    f'composited variable "{name}" fails to evaluate: {text[2] or text[0]}',
                )
        if found[1]:
            raise CelError(found[1])
        return found[0]

    def __contains__(self, name: object) -> bool:
        return name in self.compiled

    def __iter__(self) -> Iterator[str]:
        return iter(self.compiled)

    def __len__(self) -> int:
        return len(self.compiled)


class Subject(NamedTuple):
    """A write as expressions see it."""

    new: Object | None
    old: Object | None
    request: Object
    namespace: Any = None
    judge: Judge | None = None
    user: Any = None

    def variables(self, params: Object | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "object": self.new,
            "oldObject": self.old,
            "request": self.request,
            "namespaceObject": self.namespace,
            "params": params,
        }
        if self.judge is not None:
            authorizer = Authorizer(self.judge, self.user)
            resource = self.request["requestResource"]
            asked = {"group": resource["group"], "resource": resource["resource"]}
            for field, name in (("subresource", "requestSubResource"), ("namespace", "namespace"), ("name", "name")):
                if self.request.get(name):
                    asked[field] = self.request[name]
            found["authorizer"] = authorizer
            found["authorizer.requestResource"] = ResourceCheck(authorizer, asked)
        return found


class Matched(NamedTuple):
    """What match conditions say. `error`: why they say nothing, "" if they do."""

    matches: bool
    error: str = ""


def match(
    conditions: Sequence[tuple[str, Compiled]], variables: Mapping[str, Any], budget: int = CONDITIONS_BUDGET
) -> Matched:
    """Whether all conditions hold. One that does not outweighs others that fail. TooDear."""
    run = Run(variables, min(budget, CONDITIONS_BUDGET))
    found = matched(conditions, run)
    if run.exhausted and budget < CONDITIONS_BUDGET:
        raise TooDear
    return found


def matched(conditions: Sequence[tuple[str, Compiled]], run: Run) -> Matched:
    failures: list[str] = []
    for _, one in conditions:
        try:
            found = run.value(one)
        except Failed as e:
            failures.append(str(e))
            continue
        except Exhausted as e:
            return Matched(False, str(e))
        if found is False:
            return Matched(False)
    if not failures:
        return Matched(True)
    listed = list(dict.fromkeys(failures))
    return Matched(False, listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]")


class Decision(NamedTuple):
    """What one validation says against a write. place: where it stands in the policy, from 0."""

    place: int
    message: str
    reason: str = ""


class Verdict(NamedTuple):
    """What a policy says: what is against a write, and what the audit log is told: (key, value, error)."""

    denials: list[Decision]
    annotations: list[tuple[str, str]]
    failures: list[str]
    """Audit annotations that failed where the policy must not fail."""


def judge_write(
    programs: PolicyPrograms, subject: Subject, params: Object | None, budget: int = TOTAL_BUDGET, *, fail: bool
) -> Verdict:
    """Evaluate a policy with one set of parameters. fail: whether what cannot be evaluated is against the write.
    TooDear if the budget is too small and not upstream's."""
    variables = subject.variables(params)
    if programs.conditions:
        found = match(programs.conditions, variables, budget)
        if found.error:
            return Verdict([Decision(0, found.error)] if fail else [], [], [])
        if not found.matches:
            return Verdict([], [], [])
    run = Run(variables, budget)
    run.variables["variables"] = Lazy(run, programs.variables)
    verdict = judged(programs, run, fail=fail)
    if run.exhausted and budget < TOTAL_BUDGET:
        raise TooDear
    return verdict


def judged(programs: PolicyPrograms, run: Run, *, fail: bool) -> Verdict:
    denials: list[Decision] = []
    try:
        for i, validation in enumerate(programs.validations):
            denials += judge_one(i, validation, run, fail=fail)
    except Exhausted as e:
        return Verdict([Decision(0, str(e))] if fail else [], [], [])
    annotations, failures = told(programs, run)
    return Verdict(denials, annotations, failures if fail else [])


def judge_one(place: int, validation: Validation, run: Run, *, fail: bool) -> list[Decision]:
    try:
        found = run.value(validation.test)
    except Failed as e:
        return [Decision(place, str(e))] if fail else []
    if found is True:
        return []
    message = message_of(validation, run)
    return [Decision(place, message, validation.raw.get("reason") or "Invalid")]


def message_of(validation: Validation, run: Run) -> str:
    """What is said of a validation that does not hold: by its expression, its text, or by naming itself."""
    text = ""
    if validation.message is not None:
        try:
            found = run.value(validation.message)
        except (Failed, Exhausted):
            found = None
        text = found.strip() if isinstance(found, str) else ""
        if "\n" in text or len(text.encode()) > MOST_MESSAGE_BYTES:
            text = ""
    text = text or str(validation.raw.get("message") or "").strip()
    return text or f"failed expression: {validation.test.source.strip()}"


def told(programs: PolicyPrograms, run: Run) -> tuple[list[tuple[str, str]], list[str]]:
    """What the audit log is told, and what failed."""
    annotations: list[tuple[str, str]] = []
    failures: list[str] = []
    for key, one in programs.annotations:
        try:
            found = run.value(one)
        except (Failed, Exhausted) as e:
            failures.append(str(e))
            continue
        if isinstance(found, str):
            if found.strip():
                annotations.append((key, found.strip()))
        elif found is not None:
            failures.append(
                f"valueExpression '{one.source}' resulted in unsupported return type: Return type must be either "
                "string or null."
            )
    return annotations, failures
