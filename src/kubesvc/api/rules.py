"""`x-kubernetes-validations`: rules of custom objects as expressions, which of them hold, and what is said if not.

A `Ruled` is one place of a schema with rules at it or below. Rules are compiled when they are first asked; what a rule
reads of the object before is only there where old and new correspond: fields, keys of maps, and items of lists of
`x-kubernetes-list-type: map`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from . import fields
from .fields import Errors, FieldError, Path
from .meta import Object
from .valuecheck import ABSENT, by_keys, key_of

if TYPE_CHECKING:
    from .cel.program import Program
    from .cel.schematypes import Shape

NOWHERE = "<nil>"
MOST_MESSAGE_BYTES = 5 << 10
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
BLOCKING = frozenset(("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"))
"""Errors after which no rule is asked."""
BLOCKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
OVER_CALL = "operation cancelled: actual cost limit exceeded"
OVER_TOTAL = "validation failed due to running out of cost budget, no further validation rules will be run"
FIELD_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]")


class Exhausted(Exception):
    """The rules of one object may cost no more."""


class TooDear(Exception):
    """Expressions that were given less than they may cost could have used more."""


@dataclass(slots=True)
class Compiled:
    """A rule ready to be asked. `error`: why it cannot be, "" if it can."""

    program: Program | None = None
    message: Program | None = None
    error: str = ""
    message_error: str = ""

    @property
    def uses_old(self) -> bool:
        return self.program is not None and "oldSelf" in self.program.words


class Rule:
    """One rule as its author wrote it."""

    def __init__(self, raw: Object, shape: Shape, schema: Object) -> None:
        self.raw = raw
        self.shape = shape
        self.text = str(raw.get("rule") or "").strip()
        self.fixed = str(raw.get("message") or "").strip()
        self.optional_old = bool(raw.get("optionalOldSelf"))
        self.reason: str = raw.get("reason") or "FieldValueInvalid"
        self.field_path = field_path(str(raw.get("fieldPath") or ""), schema) or ""

    @property
    def shown(self) -> str:
        """The rule in texts of failed evaluations."""
        return self.fixed or self.text

    @property
    def message(self) -> str:
        """What is said if the rule does not hold, unless an expression says it."""
        return self.fixed or f"failed rule: {self.text}"

    @cached_property
    def compiled(self) -> Compiled:
        from .cel.program import CelProblem, WrongResult, compiled
        from .cel.types import optional_type

        own = self.shape.type
        out = Compiled()
        if own is None:
            out.error = "rule compile error: the schema of self is not known"
            return out
        variables = {"self": own, "oldSelf": optional_type(own) if self.optional_old else own}
        try:
            out.program = compiled(self.text, variables, ("bool",))
        except WrongResult:
            out.error = "cel expression must evaluate to a bool"
            return out
        except CelProblem as e:
            out.error = f"compilation failed: {e}"
            return out
        if text := str(self.raw.get("messageExpression") or "").strip():
            try:
                out.message = compiled(text, variables, ("string",))
            except WrongResult:
                out.message_error = "messageExpression must evaluate to a string"
            except CelProblem as e:
                out.message_error = f"messageExpression compilation failed: {e}"
        return out


def field_path(text: str, schema: Object) -> str | None:
    """A rule's `fieldPath` as errors print it: `.spec['a-b']` as `spec.a-b`; None if it names nothing in the schema.
    Items of lists cannot be named."""
    place: Any = schema
    out = ""
    at = 0
    while at < len(text):
        found = FIELD_STEP.match(text, at)
        if found is None:
            return None
        name = re.sub(r"\\(.)", r"\1", next(g for g in found.groups() if g is not None))
        inside = place.get("properties")
        if isinstance(inside, dict) and inside:
            if name not in inside:
                return None
            place = inside[name]
            out += f".{name}" if out else name
        elif isinstance(place.get("additionalProperties"), dict):
            place = place["additionalProperties"]
            out += f"[{name}]"
        else:
            return None
        at = found.end()
    return out


class Evaluation:
    """One look at one object: what is wrong, what is only said, and how much may still be spent."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.exhausted = False
        """Whether something ended because it may cost no more."""
        self.errors: Errors = []
        self.warnings: list[str] = []

    def spend(self, cost: int) -> None:
        self.left -= cost


class Ruled:
    """One place of a schema, as rules see it."""

    __slots__ = ("additional", "items", "keys", "properties", "rules", "shape", "type")

    def __init__(self, schema: Object, *, root: bool = False, shape: Shape | None = None) -> None:
        from .cel.schematypes import Shape

        self.shape = shape if shape is not None else Shape(schema, root=root)
        self.type: str = schema.get("type") or ""
        given = schema.get("x-kubernetes-validations") or ()
        self.rules = [
            Rule(r, self.shape, schema) for r in given if isinstance(r, dict) and str(r.get("rule") or "").strip()
        ]
        given_fields = schema.get("properties")
        inside: Object = given_fields if isinstance(given_fields, dict) else {}
        self.properties: dict[str, Ruled] = {}
        for key in sorted(inside):
            if has_rules(inside[key]):
                self.properties[key] = Ruled(
                    inside[key],
                    root=bool(inside[key].get("x-kubernetes-embedded-resource")),
                    shape=self.shape.fields.get(key),
                )
        more = schema.get("additionalProperties")
        self.additional = Ruled(more, shape=self.shape.additional) if has_rules(more) else None
        inner = schema.get("items")
        self.items = Ruled(inner, shape=self.shape.items) if has_rules(inner) else None
        keyed = schema.get("x-kubernetes-list-type") == "map"
        self.keys: tuple[str, ...] = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if keyed else ()

    # ------------------------------------------------------------------ walking

    def look(self, value: Any, old: Any, path: Path, run: Evaluation) -> None:
        """Ask all rules at and below a place. Raises Exhausted."""
        if value is None:
            return
        if self.rules:
            self.ask(value, old, path, run)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            if self.additional is not None:
                for key in sorted(value):
                    self.additional.look(value[key], before.get(key, ABSENT), path.key(key), run)
            for key, below in self.properties.items():
                if key in value:
                    below.look(value[key], before.get(key, ABSENT), path / key, run)
        elif isinstance(value, list) and self.items is not None:
            known = by_keys(old, self.keys) if self.keys and isinstance(old, list) else {}
            for i, item in enumerate(value):
                self.items.look(item, known.get(key_of(item, self.keys), ABSENT) if known else ABSENT, path @ i, run)

    def ask(self, value: Any, old: Any, path: Path, run: Evaluation) -> None:
        """Ask the rules of one place."""
        variables: dict[str, Any] = {"self": self.shape.value(value)}
        before: Any = ABSENT
        unchanged: bool | None = None
        for rule in self.rules:
            compiled = rule.compiled
            if compiled.program is None:
                run.errors.append(fields.invalid(shown(path), self.type, f"rule compile error: {compiled.error}"))
                continue
            if compiled.uses_old:
                if old is ABSENT and not rule.optional_old:
                    continue
                if before is ABSENT and old is not ABSENT:
                    before = self.shape.value(old)
                variables["oldSelf"] = old_value(before, optional=rule.optional_old)
            error = self.outcome(rule, compiled, variables, path, run)
            if error is None:
                continue
            if not compiled.uses_old and old is not ABSENT:
                if unchanged is None:
                    unchanged = value == old
                if unchanged:
                    run.warnings.append(str(error))
                    continue
            run.errors.append(error)

    def outcome(
        self, rule: Rule, compiled: Compiled, variables: Mapping[str, Any], path: Path, run: Evaluation
    ) -> FieldError | None:
        """What is wrong by one rule; None if it holds."""
        from .cel.program import CALL_BUDGET, CelError, OutOfBudget

        assert compiled.program is not None
        here = shown(path)
        try:
            found = compiled.program.evaluate(variables, min(CALL_BUDGET, run.left))
        except OutOfBudget:
            run.exhausted = True
            if run.left < CALL_BUDGET:
                run.errors.append(fields.invalid(here, self.type, OVER_TOTAL))
            else:
                why = (
                    f"'{OVER_CALL}': no further validation rules will be run due to call cost exceeds limit for rule: "
                )
                run.errors.append(fields.invalid(here, self.type, why + rule.shown))
            raise Exhausted from None
        except CelError as e:
            text = str(e)
            run.spend(1)
            if text.startswith("no such overload"):
                why = "call arguments did not match a supported operator, function or macro signature for rule"
                return fields.invalid(here, self.type, f"'{text}': {why}: {rule.shown}")
            return fields.invalid(here, self.type, f"{text} evaluating rule: {rule.shown}")
        run.spend(found.cost)
        if found.value is True:
            return None
        if rule.field_path:
            here = str(path / rule.field_path)
        return self.refusal(rule, self.words(rule, compiled, variables, run), here)

    def words(self, rule: Rule, compiled: Compiled, variables: Mapping[str, Any], run: Evaluation) -> str:
        """What is said about a rule that does not hold."""
        from .cel.program import CALL_BUDGET, CelError, OutOfBudget

        if compiled.message is None:
            return rule.message
        try:
            found = compiled.message.evaluate(variables, min(CALL_BUDGET, run.left))
        except CelError:
            return rule.message
        except OutOfBudget:
            run.exhausted = True
            return rule.message
        run.spend(found.cost)
        text = found.value.strip() if isinstance(found.value, str) else ""
        if not text or "\n" in text or len(text.encode()) > MOST_MESSAGE_BYTES:
            return rule.message
        return text

    def refusal(self, rule: Rule, message: str, here: str) -> FieldError:
        if rule.reason == "FieldValueForbidden":
            return fields.forbidden(here, message)
        if rule.reason == "FieldValueRequired":
            return fields.required(here, message)
        if rule.reason == "FieldValueDuplicate":
            return fields.duplicate(here, self.type)
        return fields.invalid(here, self.type, message)


def old_value(before: Any, *, optional: bool) -> Any:
    from .cel.values import NONE, Optional

    if not optional:
        return before
    return NONE if before is ABSENT else Optional(before)


def shown(path: Path) -> str:
    return str(path) or NOWHERE


def has_rules(schema: Any) -> TypeGuard[Object]:
    """Whether a structural schema has rules anywhere."""
    if not isinstance(schema, dict):
        return False
    if schema.get("x-kubernetes-validations"):
        return True
    inside = schema.get("properties")
    below = list(inside.values()) if isinstance(inside, dict) else []
    return any(has_rules(s) for s in (*below, schema.get("additionalProperties"), schema.get("items")))


def evaluate(root: Ruled, obj: Object, old: Any = ABSENT, budget: int = 0) -> Evaluation:
    """Ask all rules about an object.

    old:    what it was before, of an update
    budget: what that may cost; 0 for upstream's limit
    """
    from .cel.program import TOTAL_BUDGET

    run = Evaluation(budget or TOTAL_BUDGET)
    try:
        root.look(obj, old, Path(), run)
    except Exhausted:
        pass
    return run


def blocked(errors: Errors) -> bool:
    """Whether rules are not asked, for what is wrong already."""
    return any(e.type in BLOCKING for e in errors)
