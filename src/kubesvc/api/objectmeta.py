"""What every object's metadata must be, on create and on update (META-5, META-9 to META-12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import fields, names
from .fields import Errors, Path
from .kind import Kind
from .meta import Object

ANNOTATIONS_BYTES = 262144
IMMUTABLE = "field is immutable"
FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
METADATA = Path("metadata")


def validate_metadata(obj: Object, kind: Kind) -> Errors:
    """All errors of the metadata of a new object, after its name was generated, in the order of checking."""
    meta: Object = obj.get("metadata") or {}
    errors: Errors = []
    name_errors = kind.name_errors or names.dns_subdomain
    if base := meta.get("generateName"):
        text = base[:-1] + "a" if base.endswith("-") else base
        errors += [fields.invalid(METADATA / "generateName", base, detail) for detail in name_errors(text)]
    name = meta.get("name") or ""
    if not name:
        errors.append(fields.required(METADATA / "name", "name or generateName is required"))
    else:
        errors += [fields.invalid(METADATA / "name", name, detail) for detail in name_errors(name)]
    namespace = meta.get("namespace") or ""
    if kind.namespaced:
        if not namespace:
            errors.append(fields.required(METADATA / "namespace"))
        else:
            errors += [fields.invalid(METADATA / "namespace", namespace, d) for d in names.dns_label(namespace)]
    elif namespace:
        errors.append(fields.forbidden(METADATA / "namespace", "not allowed on this type"))
    if (meta.get("generation") or 0) < 0:
        errors.append(fields.invalid(METADATA / "generation", meta["generation"], "must be greater than or equal to 0"))
    errors += validate_labels(meta.get("labels"), METADATA / "labels")
    errors += validate_annotations(meta.get("annotations"), METADATA / "annotations")
    errors += validate_owner_references(meta.get("ownerReferences"), METADATA / "ownerReferences")
    errors += validate_finalizers(meta.get("finalizers"), METADATA / "finalizers")
    errors += validate_managed_fields(meta.get("managedFields"), METADATA / "managedFields")
    if lenient(kind):
        return errors
    return errors + validate_finalizer_names(meta.get("finalizers"), METADATA / "finalizers")


def lenient(kind: Kind | None) -> bool:
    """Whether finalizers of a kind may be called anything: of custom kinds, and of what defines them."""
    return kind is not None and (kind.custom is not None or kind.group == "apiextensions.k8s.io")


def validate_metadata_update(new: Object, old: Object, kind: Kind | None = None) -> Errors:
    """All errors of changed metadata, in the order of checking.

    `new` has been given the stored resourceVersion if it came without one and its kind allows that (WRITE-5); an
    empty one is refused here.
    """
    now: Object = new.get("metadata") or {}
    before: Object = old.get("metadata") or {}
    errors: Errors = []
    if before.get("deletionTimestamp"):
        known = before.get("finalizers") or []
        if extra := sorted({f for f in now.get("finalizers") or [] if f not in known}):
            listed = ", ".join(fields.quote(f) for f in extra)
            errors.append(
                fields.forbidden(
                    METADATA / "finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{listed}}}",
                )
            )
    if not now.get("resourceVersion"):
        errors.append(
            fields.invalid(
                METADATA / "resourceVersion", now.get("resourceVersion") or "", "must be specified for an update"
            )
        )
    if (now.get("generation") or 0) < (before.get("generation") or 0):
        errors.append(fields.invalid(METADATA / "generation", now.get("generation") or 0, "must not be decremented"))
    errors += [
        fields.invalid(METADATA / field, now.get(field), IMMUTABLE)
        for field in FIXED
        if (now.get(field) or None) != (before.get(field) or None)
    ]
    errors += validate_labels(now.get("labels"), METADATA / "labels")
    errors += validate_annotations(now.get("annotations"), METADATA / "annotations")
    errors += validate_owner_references(now.get("ownerReferences"), METADATA / "ownerReferences")
    errors += validate_managed_fields(now.get("managedFields"), METADATA / "managedFields")
    if lenient(kind):
        return errors
    return errors + validate_finalizer_names(now.get("finalizers"), METADATA / "finalizers")


def validate_labels(labels: Mapping[str, str] | None, path: Path) -> Errors:
    """Keys and values of labels (META-11); the path never names the key, the printed value does."""
    errors: Errors = []
    for key, value in (labels or {}).items():
        if names.is_label(key, value):
            continue
        errors += [fields.invalid(path, key, text) for text in names.label_key(key)]
        errors += [fields.invalid(path, value, text) for text in names.label_value(value)]
    return errors


def validate_annotations(annotations: Mapping[str, str] | None, path: Path) -> Errors:
    """Keys of annotations in any case, and the size of all together (META-11)."""
    found = annotations or {}
    odd = [key for key in found if not names.is_label(key.lower(), "")]
    errors = [fields.invalid(path, key, text) for key in odd for text in names.label_key(key.lower())]
    if sum(len(k.encode()) + len(v.encode()) for k, v in found.items()) > ANNOTATIONS_BYTES:
        errors.append(fields.too_long(path, ANNOTATIONS_BYTES))
    return errors


def validate_owner_references(references: Sequence[Object] | None, path: Path) -> Errors:
    """Each owner has its four words, and one at most is the controller (META-10)."""
    errors: Errors = []
    controller = ""
    for reference in references or ():
        version = (reference.get("apiVersion") or "").rpartition("/")[2]
        if not version:
            errors.append(
                fields.invalid(path / "apiVersion", reference.get("apiVersion") or "", "version must not be empty")
            )
        errors += [
            fields.invalid(path / field, "", "must not be empty")
            for field in ("kind", "name", "uid")
            if not reference.get(field)
        ]
        if (reference.get("apiVersion"), reference.get("kind")) == ("v1", "Event"):
            errors.append(
                fields.invalid(path, spelled_owner(reference), "/v1, Kind=Event is disallowed from being an owner")
            )
        if reference.get("controller"):
            name = f"{reference.get('kind', '')}/{reference.get('name', '')}"
            if controller:
                errors.append(
                    fields.invalid(
                        path,
                        [spelled_owner(r) for r in references or ()],
                        'Only one reference can have Controller set to true. Found "true" in references for '
                        f"{controller} and {name}",
                    )
                )
            else:
                controller = name
    return errors


def spelled_owner(reference: Object) -> Object:
    """With all that Go would print, in its order (ERR-3)."""
    more = {k: reference[k] for k in ("controller", "blockOwnerDeletion") if reference.get(k) is not None}
    return {k: reference.get(k) or "" for k in ("apiVersion", "kind", "name", "uid")} | more


def validate_finalizers(finalizers: Sequence[str] | None, path: Path) -> Errors:
    """The form of each, and that the two ways of treating dependents are not both asked for."""
    found = finalizers or ()
    errors = [fields.invalid(path, f, text) for f in found for text in names.qualified_name(f)]
    if "orphan" in found and "foregroundDeletion" in found:
        errors.append(fields.invalid(path, list(found), "finalizer orphan and foregroundDeletion cannot be both set"))
    return errors


def validate_finalizer_names(finalizers: Sequence[str] | None, path: Path) -> Errors:
    """A finalizer without a prefix must be one of the standard ones (META-11)."""
    return [
        fields.invalid(path @ i, f, "name is neither a standard finalizer name nor is it fully qualified")
        for i, f in enumerate(finalizers or ())
        if "/" not in f and f not in names.STANDARD_FINALIZERS
    ]


def validate_managed_fields(entries: Sequence[Any] | None, path: Path) -> Errors:
    errors: Errors = []
    for i, entry in enumerate(entries or ()):
        if not isinstance(entry, Mapping) or not entry:
            continue  # an empty entry asks for a reset (APPLY-6)
        if entry.get("operation") not in ("Apply", "Update"):
            errors.append(
                fields.invalid(path @ i / "operation", entry.get("operation") or "", "must be `Apply` or `Update`")
            )
        if entry.get("fieldsType") not in (None, "", "FieldsV1"):
            errors.append(fields.invalid(path @ i / "fieldsType", entry["fieldsType"], "must be `FieldsV1`"))
    return errors


def validate_template_metadata(meta: Object | None, path: Path) -> Errors:
    """Labels, annotations and finalizers of a template's metadata; `path` is the template's own."""
    found = meta or {}
    return [
        *validate_labels(found.get("labels"), path / "labels"),
        *validate_annotations(found.get("annotations"), path / "annotations"),
    ]
