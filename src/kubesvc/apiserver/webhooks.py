"""Which admission webhooks are asked about a write, what they are told, and what their answers mean. Pure.

A webhook's `matchConditions` are looked at when it is about to be asked (`webhookcalls`): they see the object as the
webhook would.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from kubesvc.api.errors import ApiError, InternalError
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object
from kubesvc.api.selectors import label_selector_of

from .authentication import User, user_info

Operation = Literal["CREATE", "UPDATE", "DELETE"]
GROUP = "admissionregistration.k8s.io"
BAD_REQUEST = 400


class Asked(NamedTuple):
    """One write as webhooks see it. new: None when deleting; old: None when creating."""

    operation: Operation
    kind: Kind
    subresource: str
    namespace: str
    name: str
    new: Object | None
    old: Object | None
    dry_run: bool
    options: Object
    seen_as: Kind | None = None
    """The kind whose form `new` and `old` have; None: `kind`, to which the write was sent."""


class BadAnswer(ValueError):
    """A webhook answered something that is no AdmissionReview."""


class Verdict(NamedTuple):
    """What a webhook said. `patch` is a list of JSON patch operations."""

    allowed: bool
    status: Object
    patch: list[Any]
    warnings: tuple[str, ...]


def aim(webhook: Object, asked: Asked, namespace_labels: Mapping[str, str] | None) -> Kind | None:
    """The kind as which a webhook is told of a write; None if it is not asked. That is the kind of the write if a rule
    names it, else another version of it that a rule names, unless the webhook's matchPolicy is Exact.

    namespace_labels: of the write's namespace; None for objects that are in none
    """
    if asked.kind.group == GROUP:
        return None  # nobody may lock everybody out
    kinds = [asked.kind]
    if asked.kind.custom is not None and webhook.get("matchPolicy") != "Exact":
        kinds += asked.kind.custom.siblings
    rules = webhook.get("rules") or ()
    kind = next((k for k in kinds if any(rule_matches(rule, asked, k) for rule in rules)), None)
    if kind is None:
        return None
    if namespace_labels is not None and not selects(webhook.get("namespaceSelector"), namespace_labels):
        return None
    selector = webhook.get("objectSelector")
    selected = any(
        selects(selector, (obj.get("metadata") or {}).get("labels") or {})
        for obj in (asked.new, asked.old)
        if obj is not None
    )
    return kind if selected else None


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    return not selector or label_selector_of(selector).matches(labels)


def rule_matches(rule: Object, asked: Asked, kind: Kind) -> bool:
    """Operations, group, version, resource and scope, were the write one of `kind`."""
    scope = rule.get("scope") or "*"
    if scope != "*" and (scope == "Namespaced") is not kind.namespaced:
        return False
    return (
        listed(rule.get("operations"), asked.operation)
        and listed(rule.get("apiGroups"), kind.group)
        and listed(rule.get("apiVersions"), kind.version)
        and any(resource_matches(r, kind.plural, asked.subresource) for r in rule.get("resources") or ())
    )


def listed(names: Iterable[str] | None, name: str) -> bool:
    return any(n in ("*", name) for n in names or ())


def resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    """`pods`, `pods/status`, `pods/*`, `*/status`, `*` (no subresources), `*/*` (everything)."""
    resource, slash, sub = pattern.partition("/")
    if resource not in ("*", plural):
        return False
    return sub in ("*", subresource) if slash else not subresource


def review_of(asked: Asked, uid: str, user: User, version: str = "v1") -> Object:
    """The AdmissionReview that a webhook is sent."""
    kind = asked.seen_as or asked.kind
    request: Object = {"uid": uid, "kind": kind_named(kind), "resource": resource_named(kind)}
    if asked.subresource:
        request["subResource"] = asked.subresource
    request |= {"requestKind": kind_named(asked.kind), "requestResource": resource_named(asked.kind)}
    if asked.subresource:
        request["requestSubResource"] = asked.subresource
    if asked.name:
        request["name"] = asked.name
    if asked.namespace:
        request["namespace"] = asked.namespace
    typed = {"kind": kind.name, "apiVersion": kind.api_version}
    request |= {
        "operation": asked.operation,
        "userInfo": user_info(user),
        "object": {**typed, **asked.new} if asked.new is not None else None,
        "oldObject": {**typed, **asked.old} if asked.old is not None else None,
        "dryRun": asked.dry_run,
        "options": asked.options,
    }
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}


def kind_named(kind: Kind) -> Object:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def resource_named(kind: Kind) -> Object:
    return {"group": kind.group, "version": kind.version, "resource": kind.plural}


def verdict_of(raw: bytes, uid: str, *, mutating: bool) -> Verdict:
    """What a webhook's answer says; BadAnswer."""
    try:
        review = msgspec.json.decode(raw)
        response = review["response"]
        if review.get("kind") != "AdmissionReview" or response.get("uid") != uid:
            raise BadAnswer(f"expected response.uid={uid!r}, got {str(response.get('uid'))!r}".replace("'", '"'))
        patch: list[Any] = []
        if response.get("patch"):
            if not mutating:
                raise BadAnswer("a validating webhook must not change the object")
            if response.get("patchType") != "JSONPatch":
                raise BadAnswer(f'invalid response.patchType: "{response.get("patchType") or ""}"')
            patch = msgspec.json.decode(base64.b64decode(response["patch"], validate=True), type=list[Any])
        warnings = tuple(str(w) for w in response.get("warnings") or ())
        return Verdict(bool(response.get("allowed")), dict(response.get("status") or {}), patch, warnings)
    except (msgspec.DecodeError, binascii.Error, KeyError, TypeError, AttributeError, UnicodeDecodeError) as e:
        raise BadAnswer(f"not an AdmissionReview: {e}") from None


def denial_of(name: str, status: Object) -> ApiError:
    """The error of a write that a webhook does not allow, in its own words and with its own code."""
    said = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    message = f"{said}: {why}" if why else f"{said} without explanation"
    code = status.get("code")
    code = code if isinstance(code, int) and BAD_REQUEST <= code < 600 else BAD_REQUEST
    return ApiError(message, code=code, reason=str(status.get("reason") or ""), details=status.get("details") or {})


def failure_of(name: str, why: str) -> ApiError:
    """The error of a write whose webhook cannot be asked, where it must be."""
    text = f'failed calling webhook "{name}": {why}'
    return InternalError(f"Internal error occurred: {text}", causes=[{"message": text}])
