"""Namespace: a room of names."""

from __future__ import annotations

from typing import ClassVar

from . import fields, names, shape
from .checks import items, part, texts
from .fields import Errors, Path
from .kind import Column, Kind, Since, Situation, Subresource
from .meta import Condition, Object, Struct, Typed, metadata

NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceSpec(Struct, frozen=True):
    finalizers: list[str] | None = None


class NamespaceCondition(Condition, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("type", "status", "last_transition_time")


class NamespaceStatus(Struct, frozen=True):
    phase: str = ""
    conditions: list[NamespaceCondition] | None = None


class Namespace(Typed, frozen=True):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None


def default(obj: Object) -> None:
    """The label that carries the name, for selectors (NS-1)."""
    shape.normalize(obj, Namespace)
    meta = metadata(obj)
    if meta.get("name"):
        labels = meta.get("labels")
        if not isinstance(labels, dict):
            labels = meta["labels"] = {}
        labels[NAME_LABEL] = meta["name"]


def prepare_create(obj: Object) -> None:
    """Active, and held by the finalizer that empties it on deletion (NS-1)."""
    spec = obj.get("spec") or {}
    finalizers = spec.get("finalizers") or []
    if "kubernetes" not in finalizers:
        finalizers = [*finalizers, "kubernetes"]
    obj["spec"] = {**spec, "finalizers": finalizers}
    obj["status"] = {"phase": "Active"}


def prepare_update(new: Object, old: Object) -> None:
    """Finalizers change through /finalize only."""
    new["spec"] = old.get("spec") or {}


def validate(obj: Object, _: Situation) -> Errors:
    """Its finalizers are names with a prefix, or the standard one."""
    path = Path("spec") / "finalizers"
    errors: Errors = []
    for finalizer in items(part(obj, "spec"), "finalizers"):
        errors += texts(path, finalizer, names.qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in names.STANDARD_FINALIZERS:
            errors.append(
                fields.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")
            )
    return errors


def validate_status(new: Object, _: Object, __: Situation) -> Errors:
    """The phase follows the deletionTimestamp."""
    phase, path = part(new, "status").get("phase") or "", Path("status") / "Phase"
    going = bool(part(new, "metadata").get("deletionTimestamp"))
    if going and phase != "Terminating":
        return [fields.invalid(path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
    if not going and phase != "Active":
        return [fields.invalid(path, phase, "may only be 'Active' if `deletionTimestamp` is empty")]
    return []


NAMESPACE = Kind(
    group="",
    version="v1",
    name="Namespace",
    plural="namespaces",
    namespaced=False,
    type=Namespace,
    schema="io.k8s.api.core.v1.Namespace",
    short_names=("ns",),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    subresources=(
        Subresource(name="finalize", verbs=("update",)),
        Subresource(name="status"),
    ),
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    validate=validate,
    validate_status=validate_status,
    name_errors=names.dns_label,
    columns=(
        Column("Name", lambda n: n.name, format="name"),
        Column("Status", lambda n: n.status.phase),  # KCTL-21, KCTL-57
        Column("Age", lambda n: Since(n.metadata.creation_timestamp)),
    ),
    fields={"status.phase": lambda n: n.status.phase},
    has_status=True,
    graceful=True,
    delete_returns_object=True,
)
