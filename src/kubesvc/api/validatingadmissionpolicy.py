"""ValidatingAdmissionPolicy: rules of writes as CEL expressions. Stored, checked for their form, and never evaluated;
whoever writes one is told so.
"""

from __future__ import annotations

from typing import Any, ClassVar

from . import fields, shape, workload
from .admissionpolicy import SPEC, UNEVALUATED, MatchResources, ParamKind, default_match, kind_text, validate_match
from .checks import items, one_of, part
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
    spec = part(obj, "spec")
    if spec:
        spec.setdefault("failurePolicy", "Fail")
    if isinstance(match := spec.get("matchConstraints"), dict):
        default_match(match)


def prepare_create(obj: Object) -> None:
    obj["status"] = {}


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = one_of(spec.get("failurePolicy"), ("Fail", "Ignore"), SPEC / "failurePolicy")
    if (kind := spec.get("paramKind")) is not None:
        errors += [fields.required(SPEC / "paramKind" / f) for f in ("apiVersion", "kind") if not kind.get(f)]
    match = spec.get("matchConstraints")
    if match is None:
        errors.append(fields.required(SPEC / "matchConstraints"))
    else:
        errors += validate_match(match, SPEC / "matchConstraints")
        if not items(match, "resourceRules"):
            errors.append(fields.required(SPEC / "matchConstraints" / "resourceRules"))
    if not items(spec, "validations") and not items(spec, "auditAnnotations"):
        text = "validations or auditAnnotations must contain at least one item"
        errors += [fields.required(SPEC / f, text) for f in ("validations", "auditAnnotations")]
    errors += [
        fields.required(SPEC / "validations" @ i / "expression", "expression is not specified")
        for i, validation in enumerate(items(spec, "validations"))
        if not (validation.get("expression") or "").strip()
    ]
    return errors


def warn(_: Object, __: Object | None) -> list[str]:
    return [UNEVALUATED.format("ValidatingAdmissionPolicy")]


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
    warn=warn,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Validations", lambda p: len(p.spec.validations or ()), type="integer"),
        Column("ParamKind", lambda p: kind_text(p.spec.param_kind)),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
    has_status=True,
)
