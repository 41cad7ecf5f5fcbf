"""What is wrong with the rules (`x-kubernetes-validations`) of a CustomResourceDefinition's schema: that they do not
compile, do not fit the schema, or compare with what cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import fields
from .fields import FieldError, Path
from .meta import Object
from .rules import REASONS, Rule, field_path, has_rules

KEYWORD = "x-kubernetes-validations"
HTML = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def form_errors(rule: Object, schema: Object, at: Path) -> Iterator[FieldError]:
    """What a rule must look like, whatever it says."""
    text, message = str(rule.get("rule") or "").strip(), str(rule.get("message") or "")
    if not text:
        yield fields.required(at / "rule", "rule is not specified")
    elif message and not message.strip():
        yield fields.invalid(at / "message", message, "message must be non-empty if specified")
    elif "\n" in message.strip():
        yield fields.invalid(at / "message", message, "message must not contain line breaks")
    elif "\n" in text and not message.strip():
        yield fields.required(at / "message", "message must be specified if rule contains line breaks")
    expression = str(rule.get("messageExpression") or "")
    if expression and not expression.strip():
        yield fields.required(at / "messageExpression", "messageExpression must be non-empty if specified")
    reason = rule.get("reason")
    if reason is not None and reason not in REASONS:
        yield fields.not_supported(at / "reason", reason, REASONS)
    path = str(rule.get("fieldPath") or "")
    if not path:
        return
    if not path.strip():
        yield fields.invalid(at / "fieldPath", path, "fieldPath must be non-empty if specified")
    elif "\n" in path:
        yield fields.invalid(at / "fieldPath", path, "fieldPath must not contain line breaks")
    if not field_path(path, schema):
        yield fields.invalid(at / "fieldPath", path, "fieldPath must be a valid path")


def rule_errors(schema: Object, path: Path, *, root: bool = True) -> Iterator[FieldError]:
    """All rules of a schema in which nothing else is wrong."""
    from .cel.schematypes import Shape

    yield from below(schema, Shape(schema, root=root, name="selfType"), path, None)


def below(schema: Object, shape: Any, path: Path, uncorrelated: Path | None) -> Iterator[FieldError]:
    """uncorrelated: the list above whose items cannot be found again; None: there is none."""
    from .cel.schematypes import Shape

    def shape_of(known: Any, inner: Object) -> Any:
        return known if known is not None else Shape(inner, root=bool(inner.get("x-kubernetes-embedded-resource")))

    given = schema.get("properties")
    inside: Object = given if isinstance(given, dict) else {}
    for key in sorted(inside):
        if has_rules(inside[key]):
            one = shape_of(shape.fields.get(key), inside[key])
            yield from below(inside[key], one, (path / "properties").key(key), uncorrelated)
    more = schema.get("additionalProperties")
    if has_rules(more):
        yield from below(more, shape_of(shape.additional, more), path / "additionalProperties", uncorrelated)
    items = schema.get("items")
    if has_rules(items):
        lost = uncorrelated
        if lost is None and schema.get("x-kubernetes-list-type") != "map":
            lost = path
        yield from below(items, shape_of(shape.items, items), path / "items", lost)
    for i, raw in enumerate(schema.get(KEYWORD) or ()):
        yield from compile_errors(Rule(raw, shape, schema), path / KEYWORD @ i, uncorrelated)


def compile_errors(rule: Rule, at: Path, uncorrelated: Path | None) -> Iterator[FieldError]:
    compiled = rule.compiled
    if compiled.error:
        yield fields.invalid(at / "rule", spelled(rule.raw), compiled.error)
    if compiled.message_error:
        yield fields.invalid(at / "messageExpression", spelled(rule.raw), compiled.message_error)
    if compiled.uses_old:
        if uncorrelated is not None:
            text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
            yield fields.invalid(at / "rule", rule.raw.get("rule"), text)
    elif compiled.program is not None and rule.raw.get("optionalOldSelf") is not None:
        text = "may not be set if oldSelf is not used in rule"
        yield fields.invalid(at / "optionalOldSelf", rule.raw["optionalOldSelf"], text)


def spelled(raw: Object) -> fields.Spelled:
    """A rule as errors print it: JSON as Go writes it, under the names that the rule has inside the server."""
    names = ("rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf")
    missing = {"reason": None, "optionalOldSelf": None}
    text = fields.spell({n[0].upper() + n[1:]: raw.get(n, missing.get(n, "")) for n in names})
    return fields.Spelled(text.translate(HTML))
