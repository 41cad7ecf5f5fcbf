"""MutatingWebhookConfiguration: whom to ask what to change in a write before it is accepted."""

from __future__ import annotations

from . import webhookconfiguration
from .checks import items
from .kind import Kind
from .meta import Object
from .webhookconfiguration import COLUMNS, GROUP, WebhookConfiguration, validate, validate_update, webhooks_changed


def default(obj: Object) -> None:
    """As all webhooks are, and asked once unless it says otherwise."""
    webhookconfiguration.default(obj)
    for webhook in items(obj, "webhooks"):
        webhook.setdefault("reinvocationPolicy", "Never")


MUTATING_WEBHOOK_CONFIGURATION = Kind(
    group=GROUP,
    version="v1",
    name="MutatingWebhookConfiguration",
    plural="mutatingwebhookconfigurations",
    namespaced=False,
    type=WebhookConfiguration,
    schema="io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    categories=("api-extensions",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=webhooks_changed,
    columns=COLUMNS,
)
