"""What the kinds of admission policies and of their bindings share: what they are asked about, and with which
parameters.
"""

from __future__ import annotations

from . import fields
from .checks import items, one_of, part
from .fields import Errors, Path
from .meta import Object, Struct
from .pod import LabelSelector
from .webhookconfiguration import validate_rule

SPEC = Path("spec")


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


class ParamRef(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    selector: LabelSelector | None = None
    parameter_not_found_action: str | None = None


def default_policy(obj: Object) -> None:
    """A policy that cannot be asked refuses, and holds for every object."""
    spec = part(obj, "spec")
    if spec:
        spec.setdefault("failurePolicy", "Fail")
    if isinstance(match := spec.get("matchConstraints"), dict):
        default_match(match)


def default_binding(obj: Object) -> None:
    """It narrows nothing down that is not said."""
    if isinstance(match := part(obj, "spec").get("matchResources"), dict):
        default_match(match)


def default_match(match: Object) -> None:
    """Every object, in whatever version it is written."""
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in items(match, field):
            rule.setdefault("scope", "*")


def validate_policy(spec: Object) -> Errors:
    """What happens when a policy cannot be asked, of what kind its parameters are, and what it is asked about."""
    errors = one_of(spec.get("failurePolicy"), ("Fail", "Ignore"), SPEC / "failurePolicy")
    if (kind := spec.get("paramKind")) is not None:
        errors += [fields.required(SPEC / "paramKind" / f) for f in ("apiVersion", "kind") if not kind.get(f)]
    match, here = spec.get("matchConstraints"), SPEC / "matchConstraints"
    if match is None:
        return [*errors, fields.required(here)]
    errors += validate_match(match, here)
    return errors if items(match, "resourceRules") else [*errors, fields.required(here / "resourceRules")]


def validate_binding(spec: Object) -> Errors:
    """Of which policy a binding is, and where it is to hold."""
    errors: Errors = [] if spec.get("policyName") else [fields.required(SPEC / "policyName")]
    if (match := spec.get("matchResources")) is not None:
        errors += validate_match(match, SPEC / "matchResources")
    return errors


def validate_match(match: Object, path: Path) -> Errors:
    """What a policy is asked about."""
    errors = one_of(match.get("matchPolicy"), ("Equivalent", "Exact"), path / "matchPolicy")
    for name in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(items(match, name)):
            errors += validate_rule(rule, path / name @ i)
    return errors


def kind_text(kind: ParamKind | None) -> str:
    """Of what kind the parameters of a policy are, as in its table."""
    return "<unset>" if kind is None else f"{kind.api_version}/{kind.kind}"


def reference_text(found: ParamRef | None) -> str:
    """Which parameters a binding gives, as in its table."""
    if found is None:
        return "<unset>"
    return f"{found.namespace}/{found.name}" if found.namespace else found.name
