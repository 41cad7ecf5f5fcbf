"""ValidatingWebhookConfiguration: whom to ask whether a write is accepted."""

from __future__ import annotations

from .kind import Kind
from .webhookconfiguration import (
    COLUMNS,
    GROUP,
    WebhookConfiguration,
    default,
    validate,
    validate_update,
    webhooks_changed,
)

VALIDATING_WEBHOOK_CONFIGURATION = Kind(
    group=GROUP,
    version="v1",
    name="ValidatingWebhookConfiguration",
    plural="validatingwebhookconfigurations",
    namespaced=False,
    type=WebhookConfiguration,
    schema="io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    categories=("api-extensions",),
    default=default,
    validate=validate,
    validate_update=validate_update,
    generation=webhooks_changed,
    columns=COLUMNS,
)
