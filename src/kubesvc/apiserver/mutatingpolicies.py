"""MutatingAdmissionPolicies at work: which are asked about a write, and what becomes of the object.

Policies are asked in the order of their names, each of their changes sees what the ones before it left, and those that
want it (`reinvocationPolicy: IfNeeded`) are asked once more where anything changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kubesvc.api.decode import decode_plain
from kubesvc.api.errors import ApiError
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import MUTATING_ADMISSION_POLICY, MUTATING_ADMISSION_POLICY_BINDING
from kubesvc.api.meta import Object

from . import jsonpatch, refusals
from .patience import patiently
from .policies import BadConfiguration, BoundPolicies
from .policymatching import matched
from .structure import Shape, errors_in, merge, shape_of_kind
from .webhooks import Asked

if TYPE_CHECKING:
    from kubesvc.api.mutationexpressions import MutationPrograms

Convert = Callable[[Kind, Kind, Object], Awaitable[Object]]


class Refused(Exception):
    """A policy that cannot be followed and must not be passed by. The text is upstream's."""


class MutatingPolicies(BoundPolicies["MutationPrograms"]):
    """All mutating policies of a server."""

    policy_kind = MUTATING_ADMISSION_POLICY
    binding_kind = MUTATING_ADMISSION_POLICY_BINDING

    def compile(self, spec: Object) -> MutationPrograms:
        from kubesvc.api.mutationexpressions import MutationPrograms

        return MutationPrograms(spec)

    async def mutate(self, asked: Asked, seen_as: Any, convert: Convert, *, again: bool = False) -> Object | None:
        """The new object as the policies want it; None if they leave it alone. Raises what they refuse with.

        seen_as: a write as one of another version of its kind; convert: an object as one of it
        again:   ask only those that want to be asked a second time
        """
        if asked.new is None:
            return None
        current, reasons = asked, []
        for policy, bindings in self.active():
            if again and policy["spec"].get("reinvocationPolicy") != "IfNeeded":
                continue
            labels, namespace = self.surroundings(current)
            kind = matched(policy["spec"].get("matchConstraints"), current, labels)
            if kind is None:
                continue
            for binding in bindings:
                if matched(binding["spec"].get("matchResources"), current, labels) is None:
                    continue
                try:
                    new = await self.carried(policy, binding, kind, current, seen_as, convert, namespace)
                except Refused as e:
                    reasons.append(str(e))
                    continue
                if new is not None:
                    current = current._replace(new=new)
        if reasons:
            raise ApiError(
                reasons[0],
                code=422,
                reason="Invalid",
                details=refusals.details_of(asked.kind, asked.name),
                causes=[{"message": r} for r in reasons],
            )
        changed = current is not asked
        if changed and not again:
            more = await self.mutate(current, seen_as, convert, again=True)
            return more if more is not None else current.new
        return current.new if changed else None

    async def carried(
        self, policy: Object, binding: Object, kind: Kind, asked: Asked, seen_as: Any, convert: Convert, namespace: Any
    ) -> Object | None:
        """What one binding of a policy makes of an object; None if nothing. Raises Refused."""
        from kubesvc.api.cel.program import TOTAL_BUDGET
        from kubesvc.api.mutationexpressions import asked_at_all, wanted
        from kubesvc.api.policyexpressions import CONDITIONS_BUDGET, Failed

        name, bound = policy["metadata"]["name"], binding["metadata"]["name"]
        fail = policy["spec"].get("failurePolicy") != "Ignore"
        programs, current = self.compiled(policy), asked

        def refuse(why: str, *, whole: bool = False) -> None:
            if not fail:
                return
            if whole:
                raise Refused(f'policy "{name}" denied request: {why}')
            raise Refused(f"policy '{name}' with binding '{bound}' denied request: {why}")

        try:
            param_kind = self.param_kind(policy["spec"].get("paramKind"))
        except BadConfiguration as e:
            refuse(f"failed to configure policy: {e}", whole=True)
            return None
        try:
            found = self.params(param_kind, binding["spec"].get("paramRef"), asked.namespace)
        except BadConfiguration as e:
            refuse(f"failed to configure binding: {e}")
            return None
        for params in found:
            subject = self.subject(await seen_as(current, kind), namespace)
            holds = await patiently(partial(asked_at_all, programs, subject, params), CONDITIONS_BUDGET)
            if holds.error:
                refuse(holds.error)
            if not holds.matches:
                continue
            for i in range(len(programs.mutations)):
                try:
                    change = await patiently(partial(wanted, programs, i, subject, params), TOTAL_BUDGET)
                    new = changed_by(kind, subject.new or {}, change.operations, change.configuration)
                except (Failed, jsonpatch.PatchFailed) as e:
                    refuse(str(e))
                    continue
                if new is None:
                    continue
                if kind is not asked.kind:
                    new = await convert(kind, asked.kind, new)
                try:
                    obj = decode_plain(new, asked.kind, "Ignore").obj
                except (ApiError, RecursionError) as e:
                    refuse(str(e))
                    continue
                asked.kind.default(obj)
                if obj != current.new:
                    current = current._replace(new=obj)
                    subject = self.subject(await seen_as(current, kind), namespace)
        return current.new if current is not asked else None


def changed_by(kind: Kind, obj: Object, operations: list[Object] | None, configuration: Object | None) -> Object | None:
    """An object (with apiVersion and kind) after a change; None if that does not apply. Raises PatchFailed."""
    if operations is not None:
        try:
            patched: Object = jsonpatch.apply(obj, operations)
        except jsonpatch.PatchFailed as e:
            if str(e).startswith("testing value"):
                return None  # a failing test leaves everything as it is
            raise jsonpatch.PatchFailed(f"JSONPath: {e}") from None
        return patched
    shape = shape_of_kind(kind)
    config = configuration or {}
    problems: list[str] = []
    errors_in(shape, config, "", problems)
    if problems:
        raise jsonpatch.PatchFailed(
            f"error applying patch: failed to convert patch object to typed object: {'; '.join(problems)}"
        )
    if atomics := list(atomics_in(shape, config, "")):
        raise jsonpatch.PatchFailed(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(atomics)
        )
    merged: Object = merge(shape, obj, config)
    return merged


def atomics_in(shape: Shape, value: Any, path: str) -> list[str]:
    """Places of a configuration that would be replaced as a whole, with all that it does not say of them."""
    found: list[str] = []
    if isinstance(value, dict) and shape.kind in ("struct", "map", "free"):
        if shape.atomic and shape.kind != "free":
            found.append(path)
        for key, inner in value.items():
            if shape.kind == "map" or key in shape.fields:
                found += atomics_in(shape.below(key), inner, f"{path}.{key}")
    elif isinstance(value, list) and shape.kind == "list":
        if shape.atomic:
            found.append(path)
        for i, inner in enumerate(value):
            found += atomics_in(shape.item, inner, f"{path}[{i}]")
    return found
