"""ValidatingAdmissionPolicies at work: which are asked about a write, with which parameters, and what follows.

Servers without policies pay one comparison per write; expressions are compiled when they are first asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec

from kubesvc.api.errors import ApiError
from kubesvc.api.fields import quote
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import NAMESPACE, VALIDATING_ADMISSION_POLICY, VALIDATING_ADMISSION_POLICY_BINDING
from kubesvc.api.meta import Object
from kubesvc.api.selectors import label_selector_of

from . import refusals
from .authentication import User, account_user, audit_notes, requester
from .authorization import Attributes
from .cache import Cache, Event
from .kindset import KindSet
from .patience import patiently, where_served
from .policymatching import matched
from .storage import decode, seen
from .webhooks import Asked, review_of

if TYPE_CHECKING:
    from kubesvc.api.cel.kubernetes import Judge
    from kubesvc.api.policyexpressions import Decision, PolicyPrograms, Subject, Verdict

MOST_ANNOTATION = 10 * 1024
FAILURE_ANNOTATION = "validation.policy.admission.k8s.io/validation_failure"
ASKED_FIELDS = ("verb", "group", "resource", "subresource", "namespace", "name", "path")
NO_PARAMS = "no params found for policy binding with `Deny` parameterNotFoundAction"


class BadConfiguration(Exception):
    """A policy or a binding that cannot be followed. The text is upstream's."""


class Denial(NamedTuple):
    policy: str
    binding: str
    message: str
    reason: str


Programs = TypeVar("Programs")


class BoundPolicies(Generic[Programs]):
    """All policies of a server of one sort, with their bindings. Programs: the compiled expressions of one.

    kinds: where kinds of parameters are looked up. judge: whether somebody may do something, and why
    """

    policy_kind: Kind
    binding_kind: Kind

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.kinds: KindSet | None = None
        self.judge: Callable[[Attributes], tuple[bool, str]] = lambda _: (True, "")
        self.known: list[tuple[Object, list[Object]]] | None = None
        self.programs: dict[str, tuple[Object, Programs]] = {}
        for kind in (self.policy_kind, self.binding_kind):
            cache.of(kind).sinks.append(self.forget)

    def forget(self, _: list[Event]) -> None:
        self.known = None

    def active(self) -> list[tuple[Object, list[Object]]]:
        """Policies with bindings, and these, each in order of their names."""
        if self.known is None:
            bindings: dict[str, list[Object]] = {}
            for item in self.cache.of(self.binding_kind).select():
                binding = decode(item.value, item.revision)
                bindings.setdefault(binding["spec"].get("policyName") or "", []).append(binding)
            policies = [decode(i.value, i.revision) for i in self.cache.of(self.policy_kind).select()]
            self.known = [(p, bindings[p["metadata"]["name"]]) for p in policies if p["metadata"]["name"] in bindings]
            names = {p["metadata"]["name"] for p, _ in self.known}
            self.programs = {n: f for n, f in self.programs.items() if n in names}
        return self.known

    @property
    def idle(self) -> bool:
        """Whether there is nothing to ask."""
        return not self.active()

    def compile(self, spec: Object) -> Programs:
        raise NotImplementedError

    def compiled(self, policy: Object) -> Programs:
        """A policy's expressions, compiled when they are first asked for."""
        name, spec = policy["metadata"]["name"], policy["spec"]
        found = self.programs.get(name)
        if found is None or found[0] != spec:
            found = self.programs[name] = (spec, self.compile(spec))
        return found[1]

    def surroundings(self, asked: Asked) -> tuple[Mapping[str, str] | None, Object | None]:
        """(labels of the write's namespace, None outside; the namespace, None outside and for namespaces)."""
        if asked.kind is NAMESPACE:
            obj = asked.new if asked.new is not None else asked.old
            return ((obj or {}).get("metadata") or {}).get("labels") or {}, None
        if not asked.kind.namespaced:
            return None, None
        item = self.cache.of(NAMESPACE).get("", asked.namespace)
        if item is None:
            return {}, None
        return dict(item.labels), decode(item.value, item.revision)

    def subject(self, asked: Asked, namespace: Object | None) -> Subject:
        return subject_of(asked, self.judged, namespace)

    def judged(self, user: Any, attributes: dict[str, str]) -> tuple[bool, str]:
        """What the authorizer says to a question of an expression."""
        somebody = user if isinstance(user, User) else account_user(*user)
        if somebody.may_everything:
            return True, ""
        access = Attributes(user=somebody, fields=(), **{f: attributes.get(f, "") for f in ASKED_FIELDS})
        return where_served(lambda: self.judge(access))

    # ------------------------------------------------------------------ parameters

    def param_kind(self, given: Object | None) -> Kind | None:
        """The kind of a policy's parameters; None if it has none."""
        if given is None:
            return None
        assert self.kinds is not None
        api_version, name = given.get("apiVersion") or "", given.get("kind") or ""
        found = next((k for k in self.kinds.all if k.name == name and k.api_version == api_version), None)
        if found is None:
            group, _, version = api_version.rpartition("/")
            raise BadConfiguration(f"failed to find resource referenced by paramKind: '{group}/{version}, Kind={name}'")
        return found

    def params(self, kind: Kind | None, reference: Object | None, namespace: str) -> list[Object | None]:
        """The parameters that a binding gives, one evaluation each. Raises BadConfiguration."""
        if kind is None or reference is None:
            return [None]
        place = ""
        if kind.namespaced:
            place = reference.get("namespace") or namespace
            if not place:
                raise BadConfiguration(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif reference.get("namespace"):
            raise BadConfiguration("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        cache = self.cache.of(kind.stored or kind)
        if name := reference.get("name"):
            item = cache.get(place, name)
            found = [item] if item is not None else []
        else:
            selector = label_selector_of(reference.get("selector") or {})
            found = [i for i in cache.select(place) if selector.matches(i.labels)]
        if not found and reference.get("parameterNotFoundAction") != "Allow":
            raise BadConfiguration(NO_PARAMS)
        typed = {"apiVersion": kind.api_version, "kind": kind.name}
        return [{**typed, **seen(kind, i.value, i.revision)} for i in found]


class Policies(BoundPolicies["PolicyPrograms"]):
    """All ValidatingAdmissionPolicies of a server."""

    policy_kind = VALIDATING_ADMISSION_POLICY
    binding_kind = VALIDATING_ADMISSION_POLICY_BINDING

    def compile(self, spec: Object) -> PolicyPrograms:
        from kubesvc.api.policyexpressions import PolicyPrograms

        return PolicyPrograms(spec)

    async def validate(
        self, asked: Asked, warnings: list[str], seen_as: Callable[[Asked, Kind], Awaitable[Asked]]
    ) -> None:
        """Ask the policies about a write. Raises what the first refuses with.

        seen_as: a write as one of another version of its kind
        """
        denials: list[Denial] = []
        told: dict[str, str] = {}
        labels, namespace = self.surroundings(asked)
        for policy, bindings in self.active():
            kind = matched(policy["spec"].get("matchConstraints"), asked, labels)
            if kind is None:
                continue
            mine = [b for b in bindings if matched(b["spec"].get("matchResources"), asked, labels) is not None]
            if mine:
                subject = self.subject(await seen_as(asked, kind), namespace)
                denials += await self.follow(policy, mine, asked, subject, warnings, told)
        if (listening := audit_notes.get()) is not None:
            listening.update(told)
        if denials:
            raise refusal(asked, denials[0])

    async def follow(
        self,
        policy: Object,
        bindings: list[Object],
        asked: Asked,
        subject: Subject,
        warnings: list[str],
        told: dict[str, str],
    ) -> list[Denial]:
        """What one policy has against a write, binding by binding."""
        from kubesvc.api.cel.program import TOTAL_BUDGET
        from kubesvc.api.policyexpressions import judge_write

        name, spec = policy["metadata"]["name"], policy["spec"]
        fail = spec.get("failurePolicy") != "Ignore"
        denials: list[Denial] = []
        try:
            param_kind = self.param_kind(spec.get("paramKind"))
        except BadConfiguration as e:
            return [Denial(name, "", f"failed to configure policy: {e}", "")] if fail else []
        collected: dict[str, list[str]] = {}
        for binding in bindings:
            try:
                found = self.params(param_kind, binding["spec"].get("paramRef"), asked.namespace)
            except BadConfiguration as e:
                if fail:
                    denials.append(Denial(name, binding["metadata"]["name"], f"failed to configure binding: {e}", ""))
                continue
            for one in found:
                run = partial(judge_write, self.compiled(policy), subject, one, fail=fail)
                verdict = await patiently(run, TOTAL_BUDGET)
                denials += self.carry_out(policy, binding, verdict, warnings, told)
                for key, value in verdict.annotations:
                    values = collected.setdefault(key, [])
                    if value[:MOST_ANNOTATION] not in values:
                        values.append(value[:MOST_ANNOTATION])
        told.update({f"{name}/{key}": ", ".join(values) for key, values in collected.items()})
        return denials

    def carry_out(
        self, policy: Object, binding: Object, verdict: Verdict, warnings: list[str], told: dict[str, str]
    ) -> list[Denial]:
        """Do with a verdict what the binding wants: refuse, warn, tell the audit log."""
        name, bound = policy["metadata"]["name"], binding["metadata"]["name"]
        actions = binding["spec"].get("validationActions") or ()
        denials: list[Denial] = []
        for decision in verdict.denials:
            if "Deny" in actions:
                denials.append(Denial(name, bound, decision.message, decision.reason))
            if "Warn" in actions:
                text = f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}'"
                text = f"{text}: {decision.message}"
                if text not in warnings:
                    warnings.append(text)
            if "Audit" in actions:
                told[FAILURE_ANNOTATION] = failure_annotation(name, bound, actions, decision)
        return denials + [Denial(name, bound, text, "") for text in verdict.failures]


def subject_of(asked: Asked, judge: Judge | None, namespace: Object | None = None) -> Subject:
    """A write as expressions see it."""
    from kubesvc.api.policyexpressions import Subject, namespace_value

    user = requester.get()
    request = dict(review_of(asked, "", user)["request"])
    new, old = request.pop("object"), request.pop("oldObject")
    request.pop("uid")
    return Subject(new, old, request, namespace_value(namespace), judge, user)


def failure_annotation(policy: str, binding: str, actions: Any, decision: Decision) -> str:
    told = {
        "message": decision.message,
        "policy": policy,
        "binding": binding,
        "expressionIndex": decision.place,
        "validationActions": list(actions),
    }
    return msgspec.json.encode([told]).decode()


def refusal(asked: Asked, denial: Denial) -> ApiError:
    """The error of a write that a policy denies."""
    from kubesvc.api.policyexpressions import REASON_CODES

    bound = f" with binding '{denial.binding}'" if denial.binding else ""
    message = f"ValidatingAdmissionPolicy '{denial.policy}'{bound} denied request: {denial.message}"
    reason = denial.reason or "Invalid"
    subject = f"{asked.kind.resource} {quote(asked.name)}" if asked.name else asked.kind.resource
    return ApiError(
        f"{subject} is forbidden: {message}",
        code=REASON_CODES.get(reason, 422),
        reason=reason,
        details=refusals.details_of(asked.kind, asked.name),
        causes=[{"message": message}],
    )
