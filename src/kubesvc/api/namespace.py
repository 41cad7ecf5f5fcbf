"""Namespace: a room of names."""

from __future__ import annotations

from . import names
from .kind import Column, Kind, Since, Subresource
from .meta import Condition, Object, Struct, Typed, metadata

NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceSpec(Struct, frozen=True):
    finalizers: list[str] | None = None


class NamespaceStatus(Struct, frozen=True):
    phase: str = ""
    conditions: list[Condition] | None = None


class Namespace(Typed, frozen=True):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None


def default(obj: Object) -> None:
    """The label that carries the name, for selectors (NS-1)."""
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
