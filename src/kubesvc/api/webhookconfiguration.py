"""What both kinds of webhook configurations share: whom to ask before a write is accepted. Stored and checked here,
called by admission.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from . import fields, names, shape
from .checks import items, one_of, part, texts
from .fields import Errors, Path
from .kind import Column, Since, Situation
from .meta import Object, Struct, Typed
from .pod import LabelSelector

GROUP = "admissionregistration.k8s.io"
WEBHOOKS = Path("webhooks")


class WebhookService(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("namespace", "name")

    namespace: str = ""
    name: str = ""
    path: str | None = None
    port: int | None = None


class WebhookClientConfig(Struct, frozen=True):
    url: str | None = None
    service: WebhookService | None = None
    ca_bundle: str = field(default="", name="caBundle")


class RuleWithOperations(Struct, frozen=True):
    operations: list[str] | None = None
    api_groups: list[str] | None = None
    api_versions: list[str] | None = None
    resources: list[str] | None = None
    scope: str | None = None


class Webhook(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    client_config: WebhookClientConfig = WebhookClientConfig()
    rules: list[RuleWithOperations] | None = None
    failure_policy: str | None = None
    match_policy: str | None = None
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    side_effects: str | None = None
    timeout_seconds: int | None = None
    admission_review_versions: list[str] | None = None
    reinvocation_policy: str | None = None
    match_conditions: list[dict[str, Any]] | None = None


class WebhookConfiguration(Typed, frozen=True):
    """Mutating or validating."""

    webhooks: list[Webhook] | None = None


def default(obj: Object) -> None:
    """Failing closed within ten seconds, for every object."""
    shape.normalize(obj, WebhookConfiguration)
    for webhook in items(obj, "webhooks"):
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("matchPolicy", "Equivalent")
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        webhook.setdefault("timeoutSeconds", 10)
        for rule in items(webhook, "rules"):
            rule.setdefault("scope", "*")
        if service := part(part(webhook, "clientConfig"), "service"):
            service.setdefault("port", 443)


def validate(obj: Object, _: Situation) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for i, webhook in enumerate(items(obj, "webhooks")):
        here, name = WEBHOOKS @ i, webhook.get("name") or ""
        errors += validate_name(name, here / "name")
        if name in seen:
            errors.append(fields.duplicate(here / "name", name))
        seen.add(name)
        for j, rule in enumerate(items(webhook, "rules")):
            errors += validate_rule(rule, here / "rules" @ j)
        errors += one_of(webhook.get("failurePolicy"), ("Fail", "Ignore"), here / "failurePolicy")
        errors += one_of(webhook.get("matchPolicy"), ("Equivalent", "Exact"), here / "matchPolicy")
        errors += one_of(webhook.get("sideEffects"), ("None", "NoneOnDryRun"), here / "sideEffects")
        seconds = webhook.get("timeoutSeconds")
        if seconds is not None and not 1 <= seconds <= 30:
            errors.append(
                fields.invalid(here / "timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds")
            )
        config = part(webhook, "clientConfig")
        if (config.get("url") is None) == (config.get("service") is None):
            errors.append(fields.required(here / "clientConfig", "exactly one of url or service is required"))
        if not items(webhook, "admissionReviewVersions"):
            errors.append(fields.required(here / "admissionReviewVersions", "must specify one of v1, v1beta1"))
        if conditions := items(webhook, "matchConditions"):
            from .policyexpressions import condition_errors, environment

            errors += condition_errors(conditions, here / "matchConditions", environment(policy=False))
    return errors


def validate_rule(rule: Object, path: Path) -> Errors:
    """What is asked about says all of operations and kinds."""
    needed = ("operations", "apiGroups", "apiVersions", "resources")
    return [fields.required(path / f) for f in needed if not items(rule, f)]


def validate_name(name: str, path: Path) -> Errors:
    """A full domain of three parts at least."""
    if not name:
        return [fields.required(path)]
    if found := names.dns_subdomain(name):
        return texts(path, name, found)
    if name.count(".") < 2:
        return [fields.invalid(path, name, "should be a domain with at least three segments separated by dots")]
    return []


def validate_update(new: Object, _: Object, situation: Situation) -> Errors:
    return validate(new, situation)


COLUMNS = (
    Column("Name", lambda w: w.name, format="name"),
    Column("Webhooks", lambda w: len(w.webhooks or ()), type="integer"),
    Column("Age", lambda w: Since(w.metadata.creation_timestamp)),
)


def webhooks_changed(new: Object, old: Object) -> bool:
    """Whether an update counts as a new generation."""
    return new.get("webhooks") != old.get("webhooks")
