"""ValidatingAdmissionPolicy and its bindings: rules of writes as CEL expressions. Stored, checked for their form, and
never evaluated; whoever writes one is told so.
"""

from __future__ import annotations

from typing import Any, ClassVar

from . import fields, shape, workload
from .checks import items, one_of, part
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Object, StandardCondition, Struct, Typed
from .pod import LabelSelector
from .webhookconfiguration import GROUP, validate_rule

SPEC = Path("spec")
ACTIONS = ("Audit", "Deny", "Warn")
UNEVALUATED = "{}: expressions are stored but not evaluated by this server"


class ParamKind(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""


class NamedRule(Struct, frozen=True):
    resource_names: list[str] | None = None
    operations: list[str] | None = None
    api_groups: list[str] | None = None
    api_versions: list[str] | None = None
    resources: list[str] | None = None
    scope: str | None = None


class MatchResources(Struct, frozen=True):
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    resource_rules: list[NamedRule] | None = None
    exclude_resource_rules: list[NamedRule] | None = None
    match_policy: str | None = None


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


class ParamRef(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    selector: LabelSelector | None = None
    parameter_not_found_action: str | None = None


class BindingSpec(Struct, frozen=True):
    policy_name: str = ""
    param_ref: ParamRef | None = None
    match_resources: MatchResources | None = None
    validation_actions: list[str] | None = None


class Binding(Typed, frozen=True):
    spec: BindingSpec = BindingSpec()


def default_match(match: Object) -> None:
    """Every object, in whatever version it is written."""
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in items(match, field):
            rule.setdefault("scope", "*")


def default_policy(obj: Object) -> None:
    shape.normalize(obj, Policy)
    spec = part(obj, "spec")
    if spec:
        spec.setdefault("failurePolicy", "Fail")
    if isinstance(match := spec.get("matchConstraints"), dict):
        default_match(match)


def default_binding(obj: Object) -> None:
    shape.normalize(obj, Binding)
    if isinstance(match := part(obj, "spec").get("matchResources"), dict):
        default_match(match)


def prepare_policy(obj: Object) -> None:
    obj["status"] = {}


def validate_policy(obj: Object, _: Situation) -> Errors:
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


def validate_match(match: Object, path: Path) -> Errors:
    """What a policy is asked about."""
    errors = one_of(match.get("matchPolicy"), ("Equivalent", "Exact"), path / "matchPolicy")
    for name in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(items(match, name)):
            errors += validate_rule(rule, path / name @ i)
    return errors


def validate_binding(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors: Errors = [] if spec.get("policyName") else [fields.required(SPEC / "policyName")]
    if (match := spec.get("matchResources")) is not None:
        errors += validate_match(match, SPEC / "matchResources")
    actions, here = items(spec, "validationActions"), SPEC / "validationActions"
    if not actions:
        errors.append(fields.required(here))
    for i, action in enumerate(actions):
        if action not in ACTIONS:
            errors.append(fields.not_supported(here @ i, action, ACTIONS))
        if action in actions[:i]:
            errors.append(fields.duplicate(here @ i, action))
    if "Deny" in actions and "Warn" in actions:
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        errors.append(fields.invalid(here, actions, text))
    return errors


def warn_policy(_: Object, __: Object | None) -> list[str]:
    return [UNEVALUATED.format("ValidatingAdmissionPolicy")]


def warn_binding(_: Object, __: Object | None) -> list[str]:
    return [UNEVALUATED.format("ValidatingAdmissionPolicyBinding")]


def kind_text(policy: Policy) -> str:
    kind = policy.spec.param_kind
    return "<unset>" if kind is None else f"{kind.api_version}/{kind.kind}"


def reference_text(binding: Binding) -> str:
    found = binding.spec.param_ref
    if found is None:
        return "<unset>"
    return f"{found.namespace}/{found.name}" if found.namespace else found.name


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
    default=default_policy,
    prepare_create=prepare_policy,
    validate=validate_policy,
    validate_update=lambda new, _, situation: validate_policy(new, situation),
    warn=warn_policy,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda p: p.name, format="name"),
        Column("Validations", lambda p: len(p.spec.validations or ()), type="integer"),
        Column("ParamKind", kind_text),
        Column("Age", lambda p: Since(p.metadata.creation_timestamp)),
    ),
    has_status=True,
)

VALIDATING_ADMISSION_POLICY_BINDING = Kind(
    group=GROUP,
    version="v1",
    name="ValidatingAdmissionPolicyBinding",
    plural="validatingadmissionpolicybindings",
    namespaced=False,
    type=Binding,
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    default=default_binding,
    validate=validate_binding,
    validate_update=lambda new, _, situation: validate_binding(new, situation),
    warn=warn_binding,
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda b: b.name, format="name"),
        Column("PolicyName", lambda b: b.spec.policy_name),
        Column("ParamRef", reference_text),
        Column("Age", lambda b: Since(b.metadata.creation_timestamp)),
    ),
)
