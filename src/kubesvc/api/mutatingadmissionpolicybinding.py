"""MutatingAdmissionPolicyBinding: where a policy is to hold, and with which parameters."""

from __future__ import annotations

from . import shape, workload
from .admissionpolicy import MatchResources, ParamRef, default_binding, reference_text, validate_binding
from .checks import part
from .fields import Errors
from .kind import Column, Kind, Since, Situation
from .meta import Object, Struct, Typed
from .webhookconfiguration import GROUP


class BindingSpec(Struct, frozen=True):
    policy_name: str = ""
    param_ref: ParamRef | None = None
    match_resources: MatchResources | None = None


class Binding(Typed, frozen=True):
    spec: BindingSpec = BindingSpec()


def default(obj: Object) -> None:
    shape.normalize(obj, Binding)
    default_binding(obj)


def validate(obj: Object, _: Situation) -> Errors:
    return validate_binding(part(obj, "spec"))


MUTATING_ADMISSION_POLICY_BINDING = Kind(
    group=GROUP,
    version="v1",
    name="MutatingAdmissionPolicyBinding",
    plural="mutatingadmissionpolicybindings",
    namespaced=False,
    type=Binding,
    schema="io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
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
