"""What the kinds of admission policies and of their bindings share: what they are asked about, and with which
parameters.
"""

from __future__ import annotations

from .checks import items, one_of
from .fields import Errors, Path
from .meta import Object, Struct
from .pod import LabelSelector
from .webhookconfiguration import validate_rule

SPEC = Path("spec")
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


class ParamRef(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    selector: LabelSelector | None = None
    parameter_not_found_action: str | None = None


def default_match(match: Object) -> None:
    """Every object, in whatever version it is written."""
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in items(match, field):
            rule.setdefault("scope", "*")


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
