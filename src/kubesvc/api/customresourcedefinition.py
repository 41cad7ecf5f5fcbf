"""CustomResourceDefinition: a kind that a user adds (`kubesvc.api.customkind` makes it from the definition)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from . import fields, names, workload
from .checks import items, one_of, part
from .fields import Errors, Path
from .jsonpath import BadPath, steps_of
from .kind import Column, Kind, Situation, Subresource
from .meta import Condition, Object, Struct, Typed
from .schemacheck import conform, schema_errors, unchecked_patterns

SPEC = Path("spec")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that holds a definition until its objects are gone."""
APPROVAL = "api-approved.kubernetes.io"
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
MOST_SELECTABLE = 8
WARNING_BYTES = 256
IMMUTABLE = "field is immutable"


class CustomResourceNames(Struct, frozen=True):
    plural: str = ""
    singular: str = ""
    short_names: list[str] | None = None
    kind: str = ""
    list_kind: str = ""
    categories: list[str] | None = None


class CustomResourceVersion(Struct, frozen=True):
    name: str = ""
    served: bool = False
    storage: bool = False
    deprecated: bool = False
    deprecation_warning: str | None = None
    schema: dict[str, Any] | None = None
    subresources: dict[str, Any] | None = None
    additional_printer_columns: list[dict[str, Any]] | None = None
    selectable_fields: list[dict[str, Any]] | None = None


class CustomResourceDefinitionSpec(Struct, frozen=True):
    group: str = ""
    names: CustomResourceNames = CustomResourceNames()
    scope: str = ""
    versions: list[CustomResourceVersion] | None = None
    conversion: dict[str, Any] | None = None
    preserve_unknown_fields: bool = False


class CustomResourceDefinitionStatus(Struct, frozen=True):
    conditions: list[Condition] | None = None
    accepted_names: CustomResourceNames = CustomResourceNames()
    stored_versions: list[str] | None = None


class CustomResourceDefinition(Typed, frozen=True):
    spec: CustomResourceDefinitionSpec = CustomResourceDefinitionSpec()
    status: CustomResourceDefinitionStatus = CustomResourceDefinitionStatus()

    @property
    def established(self) -> bool:
        return any(c.type == "Established" and c.status == "True" for c in self.status.conditions or ())


def default(obj: Object) -> None:
    """Names follow from the kind; versions are not converted."""
    for version in items(part(obj, "spec"), "versions"):
        for flag in ("served", "storage"):
            version.setdefault(flag, False)
    spec = part(obj, "spec")
    found = part(spec, "names")
    if kind := found.get("kind"):
        if not found.get("singular"):
            found["singular"] = kind.lower()
        if not found.get("listKind"):
            found["listKind"] = f"{kind}List"
    conversion = spec.get("conversion")
    if conversion is None and spec:
        spec["conversion"] = {"strategy": "None"}
    elif isinstance(conversion, dict):
        service = part(part(part(conversion, "webhook"), "clientConfig"), "service")
        if service:
            service.setdefault("port", 443)


def conform_schemas(obj: Object) -> None:
    """Read nested schemas as such, in place; what is none is refused by `validate`."""
    for version in items(part(obj, "spec"), "versions"):
        schema = part(version, "schema").get("openAPIV3Schema")
        if isinstance(schema, dict):
            conform(schema)


def prepare_create(obj: Object) -> None:
    conform_schemas(obj)
    stored = [v.get("name") for v in items(part(obj, "spec"), "versions") if v.get("storage")]
    obj["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored or None,
    }


def prepare_update(new: Object, _: Object) -> None:
    """Whatever becomes the stored version is one that objects may be stored in from now on."""
    conform_schemas(new)
    status = new.setdefault("status", {})
    known = list(status.get("storedVersions") or ())
    known += [n for v in items(part(new, "spec"), "versions") if v.get("storage") and (n := v.get("name")) not in known]
    status["storedVersions"] = known or None


# ---------------------------------------------------------------- validation


def label(value: str) -> str:
    """What is wrong with a DNS-1035 label, "" if it is one."""
    wrong = ["must be no more than 63 bytes"] if len(value.encode()) > 63 else []
    if not LABEL.fullmatch(value):
        wrong.append(LABEL_TEXT)
    return ",".join(wrong)


def validate(obj: Object, _: Situation) -> Errors:
    spec, meta = part(obj, "spec"), part(obj, "metadata")
    errors: Errors = []
    name = meta.get("name") or ""
    if name != f"{part(spec, 'names').get('plural') or ''}.{spec.get('group') or ''}":
        errors.append(fields.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    errors += spec_errors(spec)
    errors += stored_version_errors(obj)
    errors += approval_errors(obj)
    if spec.get("preserveUnknownFields"):
        errors.append(
            fields.invalid(
                SPEC / "preserveUnknownFields", True,
                "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
                "spec.versions[*].schema instead",
            )
        )  # fmt: skip
    return errors


def spec_errors(spec: Object) -> Errors:
    group = spec.get("group") or ""
    errors: Errors = []
    if not group:
        errors.append(fields.required(SPEC / "group"))
    elif wrong := names.dns_subdomain(group):
        errors.append(fields.invalid(SPEC / "group", group, ",".join(wrong)))
    elif "." not in group:
        errors.append(fields.invalid(SPEC / "group", group, "should be a domain with at least one dot"))
    errors += one_of(spec.get("scope"), ("Cluster", "Namespaced"), SPEC / "scope")
    versions = [v if isinstance(v, dict) else {} for v in items(spec, "versions")]
    shared = {p: hoisted(versions, p) for p in ("schema", "subresources", "additionalPrinterColumns")}
    for i, version in enumerate(versions):
        if part(version, "schema").get("openAPIV3Schema") is None:
            here = SPEC / "versions" @ i / "schema" / "openAPIV3Schema"
            errors.append(fields.required(here, "schemas are required"))
    seen: set[str] = set()
    unique = True
    for i, version in enumerate(versions):
        found = version.get("name") or ""
        unique = unique and found not in seen
        seen.add(found)
        at = SPEC / "versions" @ i
        if bad := label(found):
            errors.append(fields.invalid(at / "name", found, bad))
        errors += deprecation_errors(version, at)
        errors += version_errors(version, at, shared)
    listed = fields.Spelled(fields.spell(versions))
    if not unique:
        errors.append(fields.invalid(SPEC / "versions", listed, "must contain unique version names"))
    if sum(bool(v.get("storage")) for v in versions) != 1:
        errors.append(
            fields.invalid(SPEC / "versions", listed, "must have exactly one version marked as storage version")
        )
    errors += name_errors(part(spec, "names"))
    if versions:
        errors += version_errors({p: versions[0][p] for p, same in shared.items() if same}, SPEC, {}, hoist=versions)
    return errors + conversion_errors(spec)


def hoisted(versions: Sequence[Object], name: str) -> bool:
    """Whether all versions agree in a field: upstream then reports it once, above them."""
    return (
        bool(versions) and versions[0].get(name) is not None and all(v.get(name) == versions[0][name] for v in versions)
    )


def version_errors(version: Object, at: Path, shared: Any, hoist: Sequence[Object] = ()) -> Errors:
    """What is wrong with a version's schema, subresources and columns, but for what is reported above."""
    errors: Errors = []
    schema = part(version, "schema").get("openAPIV3Schema")
    if isinstance(schema, dict) and not shared.get("schema"):
        status = any("status" in part(v, "subresources") for v in hoist or (version,))
        errors += schema_errors(schema, at / ("validation" if hoist else "schema") / "openAPIV3Schema", status=status)
    if not shared.get("subresources"):
        errors += subresource_errors(part(version, "subresources"), at / "subresources")
    if not shared.get("additionalPrinterColumns"):
        for i, column in enumerate(items(version, "additionalPrinterColumns")):
            errors += column_errors(column, at / "additionalPrinterColumns" @ i)
    if not hoist:
        errors += selectable_errors(version, at / "selectableFields")
    return errors


def deprecation_errors(version: Object, at: Path) -> Errors:
    text = version.get("deprecationWarning")
    if text is None:
        return []
    here = at / "deprecationWarning"
    errors: Errors = []
    if not version.get("deprecated"):
        errors.append(fields.invalid(here, text, "can only be set for deprecated versions"))
    for i, c in enumerate(text):
        if not c.isprintable():
            why = f"must only contain printable UTF-8 characters; non-printable character found at index {i}"
            errors.append(fields.invalid(here, text, why))
            break
    if len(text.encode()) > WARNING_BYTES:
        errors.append(fields.invalid(here, text, f"must be <= {WARNING_BYTES} characters long"))
    return errors


def simple_path(text: str, at: Path) -> Errors:
    """A JSON path in dot notation."""
    if not text.startswith("."):
        return [fields.invalid(at, text, "must be a simple json path starting with .")]
    try:
        steps_of(text)
    except BadPath as e:
        return [fields.invalid(at, text, f"is an invalid path: {e}")]
    return []


def subresource_errors(below: Object, at: Path) -> Errors:
    scale = below.get("scale")
    if not isinstance(scale, dict):
        return []
    errors: Errors = []
    for name, under in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        path = scale.get(name) or ""
        here = at / "scale" / name
        if not path:
            errors.append(fields.required(here))
        elif wrong := simple_path(path, here):
            errors += wrong
        elif not path.startswith(under):
            errors.append(fields.invalid(here, path, f"should be a json path under {under[:-1]}"))
    if path := scale.get("labelSelectorPath"):
        here = at / "scale" / "labelSelectorPath"
        if wrong := simple_path(path, here):
            errors += wrong
        elif not path.startswith((".spec.", ".status.")):
            errors.append(fields.invalid(here, path, "should be a json path under either .status or .spec"))
    return errors


def column_errors(column: Object, at: Path) -> Errors:
    errors: Errors = []
    if not column.get("name"):
        errors.append(fields.required(at / "name"))
    type_, format_, path = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    must = f"must be one of {','.join(COLUMN_TYPES)}"
    if not type_:
        errors.append(fields.required(at / "type", must))
    elif type_ not in COLUMN_TYPES:
        errors.append(fields.invalid(at / "type", type_, must))
    if format_ and format_ not in COLUMN_FORMATS:
        errors.append(fields.invalid(at / "format", format_, f"must be one of {','.join(COLUMN_FORMATS)}"))
    if not path:
        errors.append(fields.required(at / "JSONPath"))
    else:
        errors += simple_path(path, at / "JSONPath")
    return errors


def selectable_errors(version: Object, at: Path) -> Errors:
    """Fields to select by: simple paths to texts, numbers and booleans that the schema names, each once."""
    errors: Errors = []
    found = items(version, "selectableFields")
    if len(found) > MOST_SELECTABLE:
        errors.append(fields.too_many(at, len(found), MOST_SELECTABLE))
    seen: set[str] = set()
    schema = part(version, "schema").get("openAPIV3Schema") or {}
    for i, one in enumerate(found):
        path, here = one.get("jsonPath") or "", at @ i / "jsonPath"
        if not path:
            errors.append(fields.required(here))
            continue
        if wrong := simple_path(path, here):
            errors += wrong
            continue
        if path in seen:
            errors.append(fields.duplicate(here, path))
        seen.add(path)
        steps = path[1:].split(".")
        place: Any = schema
        for step in steps:
            place = part(part(place, "properties"), step)
        if steps[0] == "metadata":
            errors.append(fields.invalid(here, path, "must not point to fields in metadata"))
        elif not place:
            errors.append(fields.invalid(here, path, "does not refer to a valid field"))
        elif place.get("type") not in ("string", "integer", "boolean"):
            text = "must point to a field of type string, boolean or integer. Enum string fields and strings with "
            errors.append(fields.invalid(here, path, text + "formats are allowed."))
    return errors


def name_errors(found: Object) -> Errors:
    at = SPEC / "names"
    errors: Errors = [fields.required(at / n) for n in ("plural", "singular", "kind", "listKind") if not found.get(n)]
    for n in ("plural", "singular"):
        if (value := found.get(n) or "") and (wrong := label(value)):
            errors.append(fields.invalid(at / n, value, wrong))
    for n in ("kind", "listKind"):
        if (value := found.get(n) or "") and (wrong := label(value.lower())):
            text = f"may have mixed case, but should otherwise match: {wrong}"
            errors.append(fields.invalid(at / n, value, text))
    for i, short in enumerate(items(found, "shortNames")):
        if wrong := label(short):
            errors.append(fields.invalid(at / "shortNames" @ i, short, wrong))
    if found.get("kind") and found.get("kind") == found.get("listKind"):
        errors.append(fields.invalid(at / "listKind", found["listKind"], "kind and listKind may not be the same"))
    for i, category in enumerate(items(found, "categories")):
        if wrong := label(category):
            errors.append(fields.invalid(at / "categories" @ i, category, wrong))
    return errors


def conversion_errors(spec: Object) -> Errors:
    conversion = part(spec, "conversion")
    at = SPEC / "conversion"
    if not conversion:
        return []
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook")
    errors = one_of(strategy, ("None", "Webhook"), at / "strategy")
    if strategy == "Webhook":
        config = part(webhook, "clientConfig")
        if not config:
            must = "required when strategy is set to Webhook"
            errors.append(fields.required(at / "webhookClientConfig", must))
        elif bool(config.get("url")) == bool(config.get("service")):
            must = "exactly one of url or service is required"
            errors.append(fields.required(at / "webhookClientConfig", must))
        if not items(webhook, "conversionReviewVersions"):
            errors.append(fields.required(at / "conversionReviewVersions"))
        elif not {"v1", "v1beta1"} & set(items(webhook, "conversionReviewVersions")):
            listed = items(webhook, "conversionReviewVersions")
            must = "must include at least one of v1, v1beta1"
            errors.append(fields.invalid(at / "conversionReviewVersions", listed, must))
    elif webhook is not None:
        must = "should not be set when strategy is not set to Webhook"
        errors.append(fields.forbidden(at / "webhookClientConfig", must))
    return errors


def stored_version_errors(obj: Object) -> Errors:
    known = {v.get("name") for v in items(part(obj, "spec"), "versions")}
    at = Path("status") / "storedVersions"
    if not items(part(obj, "status"), "storedVersions"):
        return [fields.invalid(at, [], "must have at least one stored version")]
    return [
        fields.invalid(
            at @ i, v,
            f"missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until "
            f"a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions",
        )
        for i, v in enumerate(items(part(obj, "status"), "storedVersions"))
        if v not in known
    ]  # fmt: skip


def protected(group: str) -> bool:
    """Whether a group is the community's own."""
    return any(group == g or group.endswith(f".{g}") for g in ("k8s.io", "kubernetes.io"))


def approval_of(obj: Object) -> tuple[str, str, str] | None:
    """The condition KubernetesAPIApprovalPolicyConformant as (status, reason, message); None for other groups."""
    if not protected(part(obj, "spec").get("group") or ""):
        return None
    found = part(part(obj, "metadata"), "annotations").get(APPROVAL) or ""
    if not found:
        why = f'protected groups must have approval annotation "{APPROVAL}", see '
        return "False", "MissingAnnotation", why + "https://github.com/kubernetes/enhancements/pull/1111"
    if found.startswith("unapproved"):
        return "False", "UnapprovedAnnotation", f"not approved: {fields.quote(found)}"
    if found.startswith("https://"):
        return "True", "ApprovedAnnotation", f"approved in {found}"
    why = f'protected groups must have approval annotation "{APPROVAL}" with either a URL or a reason starting with '
    why += '"unapproved", see https://github.com/kubernetes/enhancements/pull/1111'
    return "False", "InvalidAnnotation", why


def approval_errors(obj: Object) -> Errors:
    found = approval_of(obj)
    here = (Path("metadata") / "annotations").key(APPROVAL)
    if found is None or found[1] not in ("MissingAnnotation", "InvalidAnnotation"):
        return []
    if found[1] == "MissingAnnotation":
        return [fields.required(here, found[2])]
    return [fields.invalid(here, part(part(obj, "metadata"), "annotations").get(APPROVAL), found[2])]


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    known = {str(e) for e in validate(old, situation)}
    errors = [e for e in validate(new, situation) if str(e) not in known]
    now, before = part(new, "spec"), part(old, "spec")
    if condition_of(old, "Established", "True"):  # both decide how objects are stored
        if now.get("scope") != before.get("scope"):
            errors.append(fields.invalid(SPEC / "scope", now.get("scope"), IMMUTABLE))
        if part(now, "names").get("kind") != part(before, "names").get("kind"):
            errors.append(fields.invalid(SPEC / "names" / "kind", part(now, "names").get("kind"), IMMUTABLE))
    if now.get("group") != before.get("group"):
        errors.append(fields.invalid(SPEC / "group", now.get("group"), IMMUTABLE))
    if part(now, "names").get("plural") != part(before, "names").get("plural"):
        errors.append(fields.invalid(SPEC / "names" / "plural", part(now, "names").get("plural"), IMMUTABLE))
    return errors


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    return stored_version_errors(new)


def warn(new: Object, _: Object | None) -> Sequence[str]:
    """What is accepted and not done."""
    spec = part(new, "spec")
    texts: list[str] = []
    schemas = [part(v, "schema").get("openAPIV3Schema") for v in items(spec, "versions")]
    for pattern in dict.fromkeys(p for s in schemas for p in unchecked_patterns(s)):
        texts.append(f"pattern {fields.quote(pattern)} is not understood and not enforced by this server")
    return texts


# ---------------------------------------------------------------- status


def condition_of(obj: Object, type_: str, status: str) -> bool:
    """Whether a condition is there and has this status."""
    return any(c.get("type") == type_ and c.get("status") == status for c in items(part(obj, "status"), "conditions"))


def set_condition(obj: Object, now: str, type_: str, status: str, reason: str, message: str) -> None:
    """Put a condition into the status, in place; its time moves when its status does."""
    found = obj.setdefault("status", {})
    listed = list(found.get("conditions") or ())
    new = {"type": type_, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}
    for i, condition in enumerate(listed):
        if condition.get("type") == type_:
            if condition.get("status") == status:
                new["lastTransitionTime"] = condition.get("lastTransitionTime") or now
            listed[i] = {**condition, **new}
            break
    else:
        listed.append(new)
    found["conditions"] = listed


NAMES = ("plural", "singular", "shortNames", "kind", "listKind")


def plan_status(obj: Object, others: Sequence[Object], now: str) -> Object | None:
    """The status that a definition should have; None if it has it.

    others: all other definitions, whose accepted names of the same group are taken
    """
    spec, before = part(obj, "spec"), part(obj, "status")
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if part(other, "spec").get("group") == spec.get("group"):
            taken = part(part(other, "status"), "acceptedNames")
            resources |= {n for n in (taken.get("plural"), taken.get("singular"), *items(taken, "shortNames")) if n}
            kinds |= {n for n in (taken.get("kind"), taken.get("listKind")) if n}
    wanted = part(spec, "names")
    accepted = dict(part(before, "acceptedNames"))
    conflict: tuple[str, str] | None = None
    for name in NAMES:
        values = items(wanted, name) if name == "shortNames" else [wanted.get(name) or ""]
        pool = kinds if name in ("kind", "listKind") else resources
        clashes = [v for v in values if v in pool]
        if clashes:
            reason = f"{name[0].upper()}{name[1:]}Conflict"
            texts = [f"{fields.quote(v)} is already in use" for v in clashes]
            conflict = (reason, texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
        elif name in wanted:
            accepted[name] = wanted[name]
        else:
            accepted.pop(name, None)
    if "categories" in wanted:
        accepted["categories"] = wanted["categories"]
    else:
        accepted.pop("categories", None)
    accepted.setdefault("plural", "")
    accepted.setdefault("kind", "")
    draft: Object = {"status": {**before, "acceptedNames": accepted}}
    if conflict:
        set_condition(draft, now, "NamesAccepted", "False", *conflict)
    else:
        set_condition(draft, now, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
    if not condition_of(obj, "Established", "True"):
        if conflict:
            set_condition(draft, now, "Established", "False", "NotAccepted", "not all names are accepted")
        else:
            text = "the initial names have been accepted"
            if condition_of(obj, "NamesAccepted", "True"):
                set_condition(draft, now, "Established", "True", "InitialNamesAccepted", text)
            else:  # names come first, and are seen to be accepted before anything is served under them
                set_condition(draft, now, "Established", "False", "Installing", text)
    approval = approval_of(obj)
    if approval is not None:
        set_condition(draft, now, "KubernetesAPIApprovalPolicyConformant", *approval)
    found: Object = draft["status"]
    return None if found == before else found


CUSTOM_RESOURCE_DEFINITION = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    name="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
    type=CustomResourceDefinition,
    schema="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    subresources=(Subresource(name="status"),),
    columns=(
        Column("Name", lambda o: o.name, format="name"),
        Column("Created At", lambda o: o.metadata.creation_timestamp, type="date"),
    ),
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    validate=validate,
    validate_update=validate_update,
    validate_status=validate_status,
    warn=warn,
    generation=workload.spec_changed,
    has_status=True,
)
