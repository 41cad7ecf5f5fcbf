"""What a CustomResourceDefinition's schema must be: structural, with nothing that upstream forbids, defaults included.

Paths are upstream's: `spec.validation.openAPIV3Schema.properties[spec].type`. Two walks, as there: over all of the
schema with what is never allowed, then over its structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import fields
from . import schema as schema_table
from .exact import Walk, word
from .fields import Errors, FieldError, Path
from .meta import Object
from .patterns import BadPattern, Unspoken, compiled
from .rulecheck import form_errors, rule_errors
from .rules import Ruled, evaluate, has_rules
from .structural import Structural, deeper_than, prune
from .valuecheck import NOWHERE, Check

PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
ROOT, ITEM, FIELD = "root", "item", "field"
WHERE = {
    ROOT: "must not be empty at the root",
    ITEM: "must not be empty for specified array items",
    FIELD: "must not be empty for specified object fields",
}
MOST_DEPTH = 100
"""Schemas that nest deeper are refused: upstream's own limit is the size of a request."""
SUPPORTED_TYPES = ("array", "boolean", "integer", "number", "object", "string")
ROOT_FIELDS = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum",
    "MaxLength", "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items",
    "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip
"""What the root may hold beside a status subresource, in Go's names."""
UNSUPPORTED = (
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
)
NOT_NESTED = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
    ("externalDocs", "must be undefined to be structural"),
)
JUNCTORS = ("allOf", "anyOf", "oneOf")
INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def schema_errors(schema: Object, path: Path, *, status: bool) -> Errors:
    """All that is wrong with a version's openAPIV3Schema. status: whether the status subresource is on."""
    if problem := conform(schema):
        return [fields.invalid(path, "", problem)]
    if too_deep(schema):
        return [fields.invalid(path, "", f"must not nest deeper than {MOST_DEPTH} levels")]
    out: Errors = []
    if status:
        out += root_errors(schema, path)
    if schema.get("nullable"):
        out.append(fields.forbidden(path / "nullable", "nullable cannot be true at the root"))
    out += forbidden_errors(schema, path)
    out += sorted(structural_errors(schema, ROOT, path), key=str)
    if not out:
        out += default_errors(schema, path)
    if not out and has_rules(schema):
        out += rule_errors(schema, path)
    if not out and has_rules(schema):
        out += spoiled_defaults(schema, path)
    return out


def conform(schema: Object) -> str:
    """Read as schemas, in place, what stands where the API takes a schema or something else (items,
    additionalProperties); what was wrong, "" if nothing. The rest has been read as part of the body."""
    return "" if too_deep(schema) else conform_below(schema)  # `schema_errors` tells the former


def conform_below(schema: Object) -> str:
    """`conform`, of a schema that does not nest too deeply."""
    for name in ("items", "additionalProperties", "additionalItems"):
        inner = schema.get(name)
        if isinstance(inner, dict):
            walk = Walk()
            try:
                schema[name] = walk.struct(inner, schema_table.definition(PROPS), "", name, {})
            except ValueError as e:
                return str(e)
            if walk.error:
                return walk.error
        elif inner is not None and not (isinstance(inner, bool) and name != "items") and not isinstance(inner, list):
            return f"json: cannot unmarshal {word(inner)} into Go struct field JSONSchemaProps.{name}"
    return next((text for inner, _, _ in parts(schema, Path()) if (text := conform_below(inner))), "")


def too_deep(schema: Object) -> bool:
    """Every schema below another stands in an object or a list of its own."""
    return deeper_than(schema, 2 * MOST_DEPTH)


def go_name(keyword: str) -> str:
    """The Go field of a keyword."""
    if keyword.startswith("x-kubernetes-"):
        return "X" + "".join(p.capitalize() for p in keyword.removeprefix("x-kubernetes-").split("-"))
    return {"$ref": "Ref", "$schema": "Schema", "id": "ID"}.get(keyword, keyword[:1].upper() + keyword[1:])


def root_errors(schema: Object, path: Path) -> Iterator[FieldError]:
    for keyword, value in schema.items():
        if not value:
            continue
        if keyword == "type":
            if value != "object":
                text = 'only "object" is allowed as the type at the root of the schema if the status subresource is '
                yield fields.invalid(path / "type", value, text + "enabled")
                return
        elif go_name(keyword) not in ROOT_FIELDS:
            listed = " ".join(ROOT_FIELDS)
            text = f"only [{listed}] fields are allowed at the root of the schema if the status subresource is enabled"
            yield fields.invalid(path, fields.Spelled(fields.spell(schema)), text)
            return


# ---------------------------------------------------------------- what is never allowed


def forbidden_errors(schema: Object, path: Path) -> Iterator[FieldError]:
    """Keywords that are not supported, and values of keywords that are none."""
    for name, text in UNSUPPORTED:
        if schema.get(name):
            yield fields.forbidden(path / name, text)
    if schema.get("uniqueItems"):
        yield fields.forbidden(
            path / "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )
    type_ = schema.get("type") or ""
    if type_ == "null":
        yield fields.forbidden(path / "type", "type cannot be set to null, use nullable as an alternative")
    elif type_ and type_ not in SUPPORTED_TYPES:
        yield fields.not_supported(path / "type", type_, SUPPORTED_TYPES)
    if isinstance(schema.get("items"), list):
        yield fields.forbidden(path / "items", "items must be a schema object and not an array")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield fields.invalid(path / "x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None:
        if type_ != "object":
            error = fields.required if not type_ else None
            text = "must be object if x-kubernetes-map-type is specified"
            yield error(path / "type", text) if error else fields.invalid(path / "type", type_, text)
        if map_type not in ("atomic", "granular"):
            yield fields.not_supported(path / "x-kubernetes-map-type", map_type, ("atomic", "granular"))
    yield from list_errors(schema, path)
    found = schema.get("properties")
    more = schema.get("additionalProperties")
    if found and more is False:
        yield fields.forbidden(path / "additionalProperties", "additionalProperties cannot be set to false")
    if found and more is not None:
        yield fields.forbidden(
            path / "additionalProperties", "additionalProperties and properties are mutual exclusive"
        )
    for i, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        yield from form_errors(rule if isinstance(rule, dict) else {}, schema, path / "x-kubernetes-validations" @ i)
    for inner, here, _ in parts(schema, path):
        yield from forbidden_errors(inner, here)


def pattern_errors(schema: Object, path: Path) -> Iterator[FieldError]:
    """A pattern that is none."""
    if pattern := schema.get("pattern"):
        try:
            compiled(pattern)
        except Unspoken:
            pass
        except BadPattern as e:
            yield fields.invalid(path / "pattern", pattern, f"must be a valid regular expression, but isn't: {e}")


def parts(schema: Object, path: Path) -> Iterator[tuple[Object, Path, bool]]:
    """All schemas right below one; the last value tells whether it stands in a combination."""
    found = schema.get("properties")
    inside: Object = found if isinstance(found, dict) else {}
    for key in sorted(inside):
        if isinstance(inside[key], dict):
            yield inside[key], (path / "properties").key(key), False
    for name in ("additionalProperties", "items"):
        if isinstance(schema.get(name), dict):
            yield schema[name], path / name, False
    for name in JUNCTORS:
        for i, inner in enumerate(schema.get(name) or ()):
            if isinstance(inner, dict):
                yield inner, path / name @ i, True
    if isinstance(schema.get("not"), dict):
        yield schema["not"], path / "not", True


def list_errors(schema: Object, path: Path) -> Iterator[FieldError]:
    """x-kubernetes-list-type and its keys."""
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    type_, items = schema.get("type") or "", schema.get("items")
    if list_type is not None:
        if not type_:
            yield fields.required(path / "type", "must be array if x-kubernetes-list-type is specified")
        elif type_ != "array":
            yield fields.invalid(path / "type", type_, "must be array if x-kubernetes-list-type is specified")
        if list_type not in ("atomic", "map", "set"):
            yield fields.not_supported(path / "x-kubernetes-list-type", list_type, ("atomic", "map", "set"))
    if keys and list_type is None:
        yield fields.required(path / "x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty")
    elif keys and list_type != "map":
        yield fields.invalid(
            path / "x-kubernetes-list-type", list_type, "must be map if x-kubernetes-list-map-keys is non-empty"
        )
    if list_type == "set" and isinstance(items, dict):
        inner = items.get("type") or ""
        at = path / "items"
        if items.get("nullable"):
            yield fields.forbidden(at / "nullable", 'cannot be nullable when x-kubernetes-list-type is "set"')
        if inner == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
            yield fields.invalid(
                at / "x-kubernetes-list-type", items.get("x-kubernetes-list-type"),
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            )  # fmt: skip
        if inner == "object" and items.get("x-kubernetes-map-type") != "atomic":
            yield fields.invalid(
                at / "x-kubernetes-map-type", items.get("x-kubernetes-list-type"),
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            )  # fmt: skip
    if list_type != "map":
        return
    if not keys:
        yield fields.required(path / "x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    if not isinstance(items, dict):
        yield fields.required(path / "items", "must have a schema if x-kubernetes-list-type is map")
        return
    if items.get("type") != "object":
        yield fields.invalid(
            path / "items" / "type", items.get("type") or "",
            "must be object if parent array's x-kubernetes-list-type is map",
        )  # fmt: skip
        return
    seen: set[str] = set()
    inside = items.get("properties") or {}
    here = path / "x-kubernetes-list-map-keys"
    for key in keys:
        if key not in inside:
            yield fields.invalid(here, keys, "entries must all be names of item properties")
        if key in seen:
            yield fields.invalid(here, keys, "must not contain duplicate entries")
        seen.add(key)
        if key not in inside:
            continue
        known = inside[key]
        if known.get("type") in ("array", "object"):
            yield fields.invalid(
                (path / "items" / "properties").key(key) / "type", items["type"],
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            )  # fmt: skip
        if known.get("nullable"):
            yield fields.forbidden(
                (path / "items" / "properties").key(key) / "nullable",
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            )
        if known.get("default") is None and key not in (items.get("required") or ()):
            yield fields.required(
                (path / "items" / "properties").key(key) / "default",
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            )


# ---------------------------------------------------------------- structure


def structural_errors(schema: Object, level: str, path: Path) -> Iterator[FieldError]:
    """Every place says its type, and combinations only narrow what stands beside them."""
    if isinstance(schema.get("items"), dict):
        yield from structural_errors(schema["items"], ITEM, path / "items")
    found = schema.get("properties")
    properties = found if isinstance(found, dict) else {}
    for key in sorted(properties):
        yield from structural_errors(properties[key], FIELD, (path / "properties").key(key))
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        yield from structural_errors(more, FIELD, path / "additionalProperties")
    type_ = schema.get("type") or ""
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    either = bool(schema.get("x-kubernetes-int-or-string"))
    preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    yield from pattern_errors(schema, path)
    if more is not None and level == ROOT:
        yield fields.forbidden(path / "additionalProperties", "must not be used at the root")
    if either:
        if type_:
            yield fields.invalid(path / "type", type_, "must be empty if x-kubernetes-int-or-string is true")
        if preserve:
            yield fields.invalid(
                path / "x-kubernetes-preserve-unknown-fields", True,
                "must be false if x-kubernetes-int-or-string is true",
            )  # fmt: skip
        if embedded:
            yield fields.invalid(
                path / "x-kubernetes-embedded-resource", True, "must be false if x-kubernetes-int-or-string is true"
            )
    for name in JUNCTORS:
        if is_int_or_string(schema, name):
            continue
        for i, inner in enumerate(schema.get(name) or ()):
            first = name == "allOf" and i == 0 and is_int_or_string(inner, "anyOf")
            yield from nested_errors(inner, schema, path / name @ i, path, skip_any_of=first)
    if isinstance(schema.get("not"), dict):
        yield from nested_errors(schema["not"], schema, path / "not", path)
    if embedded and type_ != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        yield fields.invalid(path / "type", type_, text) if type_ else fields.required(path / "type", text)
    elif not type_ and not either and not preserve:
        yield fields.required(path / "type", WHERE[level])
    if embedded and more is not None:
        yield fields.forbidden(
            path / "additionalProperties", "must not be used if x-kubernetes-embedded-resource is set"
        )
    if embedded and not properties and not preserve:
        yield fields.required(
            path / "properties",
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        )
    if level == ROOT and type_ and type_ != "object":
        yield fields.invalid(path / "type", type_, "must be object at the root")
    if type_ == "array" and not isinstance(schema.get("items"), dict):
        yield fields.required(path / "items", "must be specified")
    if level == ROOT or embedded:
        yield from metadata_errors(properties, path, level)


def is_int_or_string(schema: Object, name: str) -> bool:
    """Whether a combination is the one that x-kubernetes-int-or-string stands for."""
    return name == "anyOf" and schema.get("anyOf") == INT_OR_STRING


def metadata_errors(properties: Object, path: Path, level: str) -> Iterator[FieldError]:
    """What a schema may say of apiVersion, kind and metadata."""
    at = path / "properties"
    for key in ("kind", "apiVersion"):
        if key in properties and (found := properties[key].get("type") or "") != "string":
            yield fields.invalid(at.key(key) / "type", found, "must be string")
    if "metadata" not in properties:
        return
    meta = properties["metadata"]
    if (found := meta.get("type") or "") != "object":
        yield fields.invalid(at.key("metadata") / "type", found, "must be object")
    inside = meta.get("properties") or {}
    left_over = {k: v for k, v in meta.items() if k not in ("type", "default", "properties") and v}
    if level == ROOT and (left_over or set(inside) - {"name", "generateName"}):
        yield fields.forbidden(
            at.key("metadata"),
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        )


def nested_errors(
    schema: Object, beside: Object | None, path: Path, core: Path, *, skip_any_of: bool = False
) -> Iterator[FieldError]:
    """A schema of a combination: it may only narrow what the core schema describes.

    beside: the core schema for the same place, which is at `core`; None: there is none, which was told already
    """
    for name, text in NOT_NESTED:
        found = schema.get(name)
        if found or (found is not None and name in ("additionalProperties", "default")):
            yield fields.forbidden(path / name, text)
    yield from pattern_errors(schema, path)
    given = schema.get("properties")
    inside: Object = given if isinstance(given, dict) else {}
    known = (beside or {}).get("properties") or {}
    for key in sorted(inside):
        here, there = (path / "properties").key(key), (core / "properties").key(key)
        if key == "metadata":
            yield fields.forbidden(here, "must not be specified in a nested context")
        if beside is not None and key not in known:
            yield fields.required(there, f"because it is defined in {here}")
        yield from nested_errors(inside[key], known.get(key), here, there)
    items = schema.get("items")
    if isinstance(items, dict):
        below = (beside or {}).get("items")
        if beside is not None and not isinstance(below, dict):
            yield fields.required(core / "items", f"because it is defined in {path / 'items'}")
        yield from nested_errors(items, below if isinstance(below, dict) else None, path / "items", core / "items")
    for name in JUNCTORS:
        for i, one in enumerate(schema.get(name) or ()):
            if not (name == "anyOf" and skip_any_of):
                yield from nested_errors(one, beside, path / name @ i, core)
    if isinstance(schema.get("not"), dict):
        yield from nested_errors(schema["not"], beside, path / "not", core)


# ---------------------------------------------------------------- defaults


def default_errors(schema: Object, path: Path) -> Iterator[FieldError]:
    """Defaults that their own schema would refuse."""
    if schema.get("default") is not None:
        here = path / "default"
        for error in Check(schema).errors(schema["default"]):
            place = here if error.path == NOWHERE else here / error.path
            yield FieldError(str(place), error.type, error.value, error.detail)
        structure = Structural(schema)
        if isinstance(schema["default"], (dict, list)):
            unknown: list[str] = []
            prune(structure.fresh_default(), structure, "", unknown, root=structure.embedded)
            if unknown:
                yield fields.invalid(here, schema["default"], f"must not have unknown fields: {', '.join(unknown)}")
    for inner, below, nested in parts(schema, path):
        if not nested:
            yield from default_errors(inner, below)


def spoiled_defaults(schema: Object, path: Path) -> Iterator[FieldError]:
    """Defaults for which the rules at and below their own place do not hold."""
    if schema.get("default") is not None and has_rules(schema):
        run = evaluate(Ruled(schema, root=bool(schema.get("x-kubernetes-embedded-resource"))), schema["default"])
        for error in run.errors:
            place = path / "default" if error.path == NOWHERE else path / "default" / error.path
            yield FieldError(str(place), error.type, error.value, error.detail)
    for inner, below, nested in parts(schema, path):
        if not nested:
            yield from spoiled_defaults(inner, below)


def unchecked_patterns(schema: Any) -> list[str]:
    """Patterns that Go understands and we do not, and that are therefore not enforced."""
    found: list[str] = []
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str) and pattern:
            try:
                compiled(pattern)
            except BadPattern:
                found.append(pattern)
        for inner, _, _ in parts(schema, Path()):
            found += unchecked_patterns(inner)
    return found
