"""ValidatingAdmissionPolicy: rules of writes as CEL expressions, which admission evaluates."""

from __future__ import annotations

from typing import Any, ClassVar

from . import fields, shape, workload
from .admissionpolicy import SPEC, MatchResources, ParamKind, default_policy, kind_text, validate_policy
from .checks import items, part
from .fields import Errors
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, StandardCondition, Struct, Typed
from .webhookconfiguration import GROUP


class Validation(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("expression",)

    expression: str = ""
    message: str = ""
    reason: str | None = None
    message_expression: str = ""


class PolicySpec(Struct, frozen=True):
    param_kind: ParamKind | None = None
    match_constraints: MatchResources | None = None
    validations: list[Validation] | None = None
    failure_policy: str | None = None
    audit_annotations: list[dict[str, Any]] | None = None
    match_conditions: list[dict[str, Any]] | None = None
    variables: list[dict[str, Any]] | None = None


class PolicyStatus(Struct, frozen=True):
    observed_generation: int = 0
    type_checking: dict[str, Any] | None = None
    conditions: list[StandardCondition] | None = None


class Policy(Typed, frozen=True):
    spec: PolicySpec = PolicySpec()
    status: PolicyStatus = PolicyStatus()


def default(obj: Object) -> None:
    shape.normalize(obj, Policy)
    default_policy(obj)


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_policy(spec)
    if not items(spec, "validations") and not items(spec, "auditAnnotations"):
        text = "validations or auditAnnotations must contain at least one item"
        errors += [fields.required(SPEC / f, text) for f in ("validations", "auditAnnotations")]
    errors += [
        fields.required(SPEC / "validations" @ i / "expression", "expression is not specified")
        for i, validation in enumerate(items(spec, "validations"))
        if not (validation.get("expression") or "").strip()
    ]
    from .policyexpressions import policy_errors

    return errors + policy_errors(spec, SPEC)


VALIDATING_ADMISSION_POLICY = Kind(
    group=GROUP,
    version="v1",
    name="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    namespaced=False,
    type=Policy,
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    categories=("api-extensions",),
    subresources=(Subresource(name="status"),),
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=lambda new, _, situation: validate(new, situation),
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Validations", lambda p: len(p.spec.validations or ()), type="integer"),
        Column("ParamKind", lambda p: kind_text(p.spec.param_kind)),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
    has_status=True,
)
