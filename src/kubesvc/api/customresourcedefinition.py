"""CustomResourceDefinition: a kind that a user adds. Stored and checked; its objects are not served yet."""

from __future__ import annotations

from typing import Any

from . import fields, names, workload
from .checks import items, one_of, part, texts
from .fields import Errors, Path
from .kind import Kind, Situation, Subresource
from .meta import Condition, Object, Struct, Typed

SPEC = Path("spec")


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


def default(obj: Object) -> None:
    """Names follow from the kind; versions are not converted."""
    for version in items(part(obj, "spec"), "versions"):
        for flag in ("served", "storage"):
            version.setdefault(flag, False)
    spec = part(obj, "spec")
    found = part(spec, "names")
    if kind := found.get("kind"):
        found.setdefault("singular", kind.lower())
        found.setdefault("listKind", f"{kind}List")
    if spec.get("conversion") is None and spec:
        spec["conversion"] = {"strategy": "None"}


def prepare_create(obj: Object) -> None:
    stored = [v.get("name") for v in items(part(obj, "spec"), "versions") if v.get("storage")]
    obj["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored or None,
    }


def validate(obj: Object, _: Situation) -> Errors:
    spec, meta = part(obj, "spec"), part(obj, "metadata")
    found = part(spec, "names")
    group, plural = spec.get("group") or "", found.get("plural") or ""
    errors: Errors = []
    if (name := meta.get("name") or "") != f"{plural}.{group}":
        errors.append(fields.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        errors.append(fields.required(SPEC / "group"))
    elif wrong := names.dns_subdomain(group):
        errors.append(fields.invalid(SPEC / "group", group, ",".join(wrong)))
    elif "." not in group:
        errors.append(fields.invalid(SPEC / "group", group, "should be a domain with at least one dot"))
    errors += one_of(spec.get("scope"), ("Cluster", "Namespaced"), SPEC / "scope")
    versions = items(spec, "versions")
    if sum(bool(v.get("storage")) for v in versions) != 1:
        errors.append(
            fields.invalid(
                SPEC / "versions",
                fields.Spelled(fields.spell(versions)),
                "must have exactly one version marked as storage version",
            )
        )
    for i, version in enumerate(versions):
        version_name = version.get("name") or ""
        errors += texts(SPEC / "versions" @ i / "name", version_name, names.dns_label(version_name))
        if part(version, "schema").get("openAPIV3Schema") is None:
            errors.append(fields.required(SPEC / "versions" @ i / "schema" / "openAPIV3Schema", "schemas are required"))
    if not plural:
        errors.append(fields.required(SPEC / "names" / "plural"))
    if not found.get("kind"):
        errors.append(fields.required(SPEC / "names" / "kind"))
    return errors


def validate_update(new: Object, old: Object, situation: Situation) -> Errors:
    errors = validate(new, situation)
    now, before = part(new, "spec"), part(old, "spec")
    for name in ("group", "scope"):
        if now.get(name) != before.get(name):
            errors.append(fields.invalid(SPEC / name, now.get(name), "field is immutable"))
    return errors


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
    default=default,
    prepare_create=prepare_create,
    validate=validate,
    validate_update=validate_update,
    generation=workload.spec_changed,
    has_status=True,
)
