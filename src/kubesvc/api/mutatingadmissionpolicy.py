"""MutatingAdmissionPolicy: changes of writes as CEL expressions, which admission evaluates."""

from __future__ import annotations

from typing import Any, ClassVar

from . import fields, shape, workload
from .admissionpolicy import SPEC, MatchResources, ParamKind, default_policy, kind_text, validate_policy
from .checks import items, one_of, part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed
from .webhookconfiguration import GROUP

PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
"""Sorts of patches, and where the expression of each stands."""


class Expression(Struct, frozen=True):
    expression: str = ""


class Mutation(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("patch_type",)

    patch_type: str = ""
    apply_configuration: Expression | None = None
    json_patch: Expression | None = None


class PolicySpec(Struct, frozen=True):
    param_kind: ParamKind | None = None
    match_constraints: MatchResources | None = None
    variables: list[dict[str, Any]] | None = None
    mutations: list[Mutation] | None = None
    failure_policy: str | None = None
    match_conditions: list[dict[str, Any]] | None = None
    reinvocation_policy: str = ""


class Policy(Typed, frozen=True):
    spec: PolicySpec = PolicySpec()


def default(obj: Object) -> None:
    shape.normalize(obj, Policy)
    default_policy(obj)


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_policy(spec)
    mutations = items(spec, "mutations")
    if not mutations:
        errors.append(fields.required(SPEC / "mutations", "mutations must contain at least one item"))
    for i, mutation in enumerate(mutations):
        errors += validate_mutation(mutation, SPEC / "mutations" @ i)
    from .mutationexpressions import mutation_errors

    errors += mutation_errors(spec, SPEC)
    reinvocation, here = spec.get("reinvocationPolicy"), SPEC / "reinvocationPolicy"
    if not reinvocation:
        return [*errors, fields.required(here)]
    return errors + one_of(reinvocation, ("IfNeeded", "Never"), here)


def validate_mutation(mutation: Object, path: Path) -> Errors:
    """One sort of patch, and the expression of that sort alone."""
    type = mutation.get("patchType") or ""
    if not type:
        return [fields.required(path / "patchType")]
    if type not in PATCHES:
        return [fields.not_supported(path / "patchType", type, tuple(PATCHES))]
    errors: Errors = []
    for other, name in PATCHES.items():
        found = mutation.get(name)
        if other != type and found is not None:
            errors.append(fields.invalid(path / name, found, f"must not be specified when patchType is {type}"))
        elif other == type and found is None:
            errors.append(fields.required(path / name, f"must be specified when patchType is {type}"))
        elif other == type and not (part(mutation, name).get("expression") or "").strip():
            errors.append(fields.required(path / name / "expression", "expression is not specified"))
    return errors


MUTATING_ADMISSION_POLICY = Kind(
    group=GROUP,
    version="v1",
    name="MutatingAdmissionPolicy",
    plural="mutatingadmissionpolicies",
    namespaced=False,
    type=Policy,
    schema="io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    categories=("api-extensions",),
    default=default,
    validate=validate,
    validate_update=lambda new, _, situation: validate(new, situation),
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Mutations", lambda p: len(p.spec.mutations or ()), type="integer"),
        Column("ParamKind", lambda p: kind_text(p.spec.param_kind)),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
)
