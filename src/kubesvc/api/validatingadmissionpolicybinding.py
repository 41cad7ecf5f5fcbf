"""ValidatingAdmissionPolicyBinding: where a policy is to hold, with which parameters, and what follows."""

from __future__ import annotations

from . import fields, shape, workload
from .admissionpolicy import (
    SPEC,
    MatchResources,
    ParamRef,
    default_binding,
    reference_text,
    validate_binding,
)
from .checks import items, part
from .fields import Errors
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed
from .webhookconfiguration import GROUP

ACTIONS = ("Audit", "Deny", "Warn")


class BindingSpec(Struct, frozen=True):
    policy_name: str = ""
    param_ref: ParamRef | None = None
    match_resources: MatchResources | None = None
    validation_actions: list[str] | None = None


class Binding(Typed, frozen=True):
    spec: BindingSpec = BindingSpec()


def default(obj: Object) -> None:
    shape.normalize(obj, Binding)
    default_binding(obj)


def validate(obj: Object, _: Situation) -> Errors:
    spec = part(obj, "spec")
    errors = validate_binding(spec)
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


VALIDATING_ADMISSION_POLICY_BINDING = Kind(
    group=GROUP,
    version="v1",
    name="ValidatingAdmissionPolicyBinding",
    plural="validatingadmissionpolicybindings",
    namespaced=False,
    type=Binding,
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    default=default,
    validate=validate,
    validate_update=lambda new, _, situation: validate(new, situation),
    generation=workload.spec_changed,
    columns=(
        Column("Name", lambda b: b.name, format="name"),
        Column("PolicyName", lambda b: b.spec.policy_name),
        Column("ParamRef", lambda b: reference_text(b.spec.param_ref)),
        Column("Age", lambda b: Since(b.metadata.creation_timestamp)),
    ),
)
