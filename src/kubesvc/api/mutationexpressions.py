"""Expressions of MutatingAdmissionPolicies: what is wrong with them, and the change that they want of an object. Pure.

An `applyConfiguration` gives an object of which only what is to change is said (`Object{spec: Object.spec{…}}`), a
`jsonPatch` a list of operations (`[JSONPatch{op: …}]`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import fields
from .cel.program import TOTAL_BUDGET
from .cel.types import DYN, STRING, Type, type_type
from .cel.values import Duration, Opaque, StructMap, Timestamp, duration_text, timestamp_text, unkey
from .checks import items, part
from .fields import Errors, Path
from .meta import Object
from .policyexpressions import (
    WITH_AUTHORIZER,
    Compiled,
    Exhausted,
    Failed,
    Lazy,
    Matched,
    Run,
    Subject,
    compile_one,
    conditions_of,
    environment,
    expression_error,
    match,
    shared_errors,
    variables_of,
)
from .rules import TooDear

OBJECT = Type("Object")
PATCH = Type("JSONPatch", fields={"op": STRING, "path": STRING, "from": STRING, "value": DYN})
MADE = {"Object": type_type(OBJECT), "JSONPatch": type_type(PATCH)}
"""What expressions of mutations may make."""


class Mutation(NamedTuple):
    """One change. `patch`: by operations, not by a configuration."""

    patch: bool
    expression: Compiled


class MutationPrograms:
    """All expressions of a MutatingAdmissionPolicy."""

    def __init__(self, spec: Object) -> None:
        with_params = spec.get("paramKind") is not None
        usual = environment(params=with_params, authorizer=False)
        self.conditions = conditions_of(items(spec, "matchConditions"), environment(params=with_params))
        self.variables, known = variables_of(spec, {**usual, **MADE})
        env = {**usual, **WITH_AUTHORIZER, **MADE, "variables": Type("kubernetes.variables", fields=known)}
        self.mutations = [self.mutation(m, env) for m in items(spec, "mutations")]

    def mutation(self, raw: Object, env: Mapping[str, Type]) -> Mutation:
        patch = raw.get("patchType") == "JSONPatch"
        source = str(part(raw, "jsonPatch" if patch else "applyConfiguration").get("expression") or "")
        found = compile_one(source, env)
        made = str(found.program.result) if found.program is not None else "dyn"
        wanted = "list(JSONPatch)" if patch else "Object"
        if made not in (wanted, "dyn") and not (patch and made == "list(dyn)"):
            found = Compiled(source, None, f"must evaluate to {wanted}")
        return Mutation(patch, found)


def mutation_errors(spec: Object, at: Path) -> Errors:
    """What is wrong with a policy's expressions; that they are there at all is for others to say."""
    programs = MutationPrograms(spec)
    errors = shared_errors(spec, programs.variables, at)
    for i, mutation in enumerate(programs.mutations):
        one = mutation.expression
        if one.source.strip():
            name = "jsonPatch" if mutation.patch else "applyConfiguration"
            errors += expression_error(one, at / "mutations" @ i / name / "expression")
    return errors


class Wanted(NamedTuple):
    """What one mutation wants: operations, or a configuration to be laid over the object."""

    operations: list[Object] | None
    configuration: Object | None


def asked_at_all(programs: MutationPrograms, subject: Subject, params: Object | None, budget: int) -> Matched:
    """Whether the policy's conditions hold. TooDear."""
    if not programs.conditions:
        return Matched(True)
    return match(programs.conditions, subject.variables(params), budget)


def wanted(
    programs: MutationPrograms, index: int, subject: Subject, params: Object | None, budget: int = TOTAL_BUDGET
) -> Wanted:
    """What a mutation wants of the object as it is now. Raises Failed; TooDear if the budget is too small and not
    upstream's."""
    run = Run(subject.variables(params), budget)
    run.variables["variables"] = Lazy(run, programs.variables)
    mutation = programs.mutations[index]
    try:
        found = run.value(mutation.expression)
    except (Failed, Exhausted) as e:
        if run.exhausted and budget < TOTAL_BUDGET:
            raise TooDear from None
        raise Failed(str(e)) from None
    if mutation.patch:
        if not isinstance(found, list) or not all(isinstance(o, StructMap) and o.name == "JSONPatch" for o in found):
            raise Failed("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
        for operation in found:
            check_names(operation.get("value"), "")
        return Wanted([plain(o) for o in found], None)
    if not isinstance(found, StructMap) or found.name != "Object":
        raise Failed("unsupported return type from ApplyConfiguration expression")
    check_names(found, "Object")
    return Wanted(None, plain(found))


def check_names(value: Any, name: str) -> None:
    """Objects below an object bear the names of their places. Failed."""
    if isinstance(value, StructMap):
        if name and value.name != name:
            raise Failed(
                f"type mismatch: unexpected type name {fields.quote(value.name)}, expected {fields.quote(name)}, which "
                "matches field name path from root Object type"
            )
        for key, inner in value.items():
            check_names(inner, f"{value.name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            check_names(inner, name)


def plain(value: Any) -> Any:
    """A value of an expression as JSON has it."""
    if isinstance(value, Mapping):
        return {str(unkey(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, Timestamp):
        return timestamp_text(value)
    if isinstance(value, Duration):
        return duration_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Opaque):
        raise Failed(f"a value of type {value.type_name} has no form in JSON")
    raise Failed("a value of an expression has no form in JSON")
