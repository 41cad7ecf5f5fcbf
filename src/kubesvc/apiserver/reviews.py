"""Questions asked by POST: who am I, may I, is this token good (AUTH-4); and the old way to bind a pod (SUB-5).

Nothing here is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from kubesvc.api import fields
from kubesvc.api.decode import Target as BodyTarget
from kubesvc.api.kinds import POD
from kubesvc.api.meta import Object
from kubesvc.clock import Clock, rfc3339

from .authentication import Authenticator, BadToken, User, user_info
from .authorization import AlwaysAllow, Attributes, Authorizer, selected_fields
from .bodies import read_body
from .calls import Call
from .discovery import CreateOnly
from .negotiation import negotiate
from .options import write_options
from .routing import not_allowed, not_served
from .subresources import Subresources

SCHEMAS = {
    "authentication.k8s.io": "io.k8s.api.authentication.v1.",
    "authorization.k8s.io": "io.k8s.api.authorization.v1.",
    "": "io.k8s.api.core.v1.",
}


class Reviews:
    """Answers the create-only resources."""

    def __init__(
        self, authenticator: Authenticator, authorizer: Authorizer, subresources: Subresources, clock: Clock
    ) -> None:
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.subresources = subresources
        self.clock = clock

    async def handle(self, call: Call, resource: CreateOnly) -> web.Response:
        target = call.target
        if target.name or target.subresource or (resource.namespaced != target.in_namespace and target.in_namespace):
            raise not_served()
        if call.request.method != "POST" or (resource.namespaced and not target.in_namespace):
            raise not_allowed()
        call.form = negotiate(call.accept, transforms=False)
        options = write_options(call.query, call.user_agent, "CreateOptions")
        body_target = BodyTarget(
            resource.group, resource.version, resource.kind, SCHEMAS[resource.group] + resource.kind
        )
        obj = await read_body(call, body_target, options.validation)
        if resource.plural == "bindings":
            name = str((obj.get("metadata") or {}).get("name") or "")
            done = await self.subresources.bind(POD, target.namespace, name, obj, options, call.warnings)
            return call.object(done, 201)
        obj.setdefault("metadata", {})
        return call.object(self.answer(call, resource, obj), 201)

    def answer(self, call: Call, resource: CreateOnly, obj: Object) -> Object:
        """The review with its status."""
        spec: Object = obj.get("spec") or {}
        match resource.kind:
            case "SelfSubjectReview":
                obj["metadata"] = {"creationTimestamp": rfc3339(self.clock.now())}
                obj.pop("spec", None)
                obj["status"] = {"userInfo": user_info(call.user)}
            case "TokenReview":
                obj["status"] = self.token_status(spec)
            case "SelfSubjectAccessReview":
                refuse(resource, attribute_errors(spec))
                obj["status"] = self.access_status(call.user, spec)
            case "SelfSubjectRulesReview":
                if not spec.get("namespace"):
                    refuse(
                        resource,
                        [fields.required("namespace", "namespace can not be empty for SubjectAccessRulesReview")],
                    )
                rules = self.authorizer.rules_of(call.user, spec["namespace"])
                if call.user.may_everything:
                    rules = AlwaysAllow().rules_of(call.user, spec["namespace"])
                obj["spec"] = {}
                obj["status"] = {
                    "resourceRules": list(rules.resource_rules),
                    "nonResourceRules": list(rules.non_resource_rules),
                    "incomplete": rules.incomplete,
                }
                if rules.error:
                    obj["status"]["evaluationError"] = rules.error
            case _:
                errors = attribute_errors(spec) + subject_errors(spec)
                if resource.namespaced:
                    errors += local_errors(spec, call.target.namespace)
                    obj["metadata"].setdefault("namespace", call.target.namespace)
                refuse(resource, errors)
                extra = {k: tuple(v or ()) for k, v in (spec.get("extra") or {}).items()}
                groups = tuple(spec.get("groups") or ())
                user = User(str(spec.get("user") or ""), str(spec.get("uid") or ""), groups, extra)
                obj["status"] = self.access_status(user, spec)
        return obj

    def token_status(self, spec: Object) -> Object:
        token, why = str(spec.get("token") or ""), ""
        try:
            user = self.authenticator.user_of_token(token, spec.get("audiences") or ()) if token else None
        except BadToken as e:
            user, why = None, e.why
        if user is None:
            return {"user": {}, "error": f"[invalid bearer token, {why}]" if why else "invalid bearer token"}
        tokens = self.subresources.tokens
        asked = spec.get("audiences") or tokens.audiences
        meant_for = tokens.audiences_of(token) or tokens.audiences
        status: Object = {"authenticated": True, "user": user_info(user)}
        status["audiences"] = [a for a in asked if a in meant_for]
        return status

    def access_status(self, user: User, spec: Object) -> Object:
        access = access_of(user, spec)
        allowed, reason = (True, "") if user.may_everything else self.authorizer.allows(access)
        status: Object = {"allowed": allowed}
        if reason:
            status["reason"] = reason
        return status


def access_of(user: User, spec: Mapping[str, Any]) -> Attributes:
    """The access that a review asks about."""
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return Attributes(user, path.get("verb") or "", path=path.get("path") or "")
    asked = spec.get("resourceAttributes") or {}
    return Attributes(
        user,
        asked.get("verb") or "",
        asked.get("group") or "",
        asked.get("version") or "",
        asked.get("resource") or "",
        asked.get("subresource") or "",
        asked.get("namespace") or "",
        asked.get("name") or "",
        "",
        asked_fields(asked.get("fieldSelector") or {}),
    )


def asked_fields(selector: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a review's field selector wants to be equal, written as a text or as requirements."""
    if raw := selector.get("rawSelector"):
        return selected_fields(raw)
    found: list[tuple[str, str]] = []
    for requirement in selector.get("requirements") or ():
        values: list[str] = requirement.get("values") or []
        if requirement.get("operator") == "In" and len(values) == 1:
            found.append((requirement.get("key") or "", values[0]))
    return tuple(found)


def attribute_errors(spec: Mapping[str, Any]) -> fields.Errors:
    """Exactly one sort of attributes."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        shown = fields.Spelled(
            f'{{"Path":{fields.quote(path.get("path") or "")},"Verb":{fields.quote(path.get("verb") or "")}}}'
        )
        return [
            fields.invalid(
                "spec.nonResourceAttributes", shown, "cannot be specified in combination with resourceAttributes"
            )
        ]
    if resource is None and path is None:
        return [
            fields.invalid(
                "spec.resourceAttributes",
                None,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
        ]
    return []


def subject_errors(spec: Mapping[str, Any]) -> fields.Errors:
    if not spec.get("user") and not spec.get("groups"):
        return [fields.invalid("spec.user", "", "at least one of user or group must be specified")]
    return []


def local_errors(spec: Mapping[str, Any], namespace: str) -> fields.Errors:
    """A local review asks about its own namespace."""
    if spec.get("nonResourceAttributes") is not None:
        return [
            fields.invalid(
                "spec.nonResourceAttributes",
                spec["nonResourceAttributes"],
                "disallowed on this kind of request",
            )
        ]
    asked = (spec.get("resourceAttributes") or {}).get("namespace") or ""
    if asked != namespace:
        return [fields.invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace")]
    return []


def refuse(resource: CreateOnly, errors: Sequence[fields.FieldError]) -> None:
    """The 422 of a review, which names no kind."""
    if errors:
        raise fields.invalid_object(resource.group, "", "", errors)
