"""Custom kinds as controllers know them: by name, place and metadata, from the definitions of whatever cluster it is.

Controllers that treat objects of every kind alike (garbage collection, emptying namespaces) ask here which kinds there
are besides the built-in ones. A definition counts while it is established.
"""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api.customkind import VERBS, version_key
from kubesvc.api.customresourcedefinition import CustomResourceDefinition
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import CUSTOM_RESOURCE_DEFINITION
from kubesvc.api.meta import Typed
from kubesvc.client.informer import Informer, InformerFactory

Told = Callable[[str, "Kind | None"], None]
"""Told a resource (`foos.example.com`) and its kind, None when it is gone."""


def kind_of(definition: CustomResourceDefinition) -> Kind | None:
    """The kind a definition stands for, in the version that is preferred; None if it is not served."""
    served = sorted((v.name for v in definition.spec.versions or () if v.served), key=version_key)
    names = definition.status.accepted_names
    if not definition.established or not served or not names.plural:
        return None
    return Kind(
        group=definition.spec.group,
        version=served[0],
        name=names.kind,
        plural=names.plural,
        namespaced=definition.spec.scope == "Namespaced",
        type=Typed,
        schema="",
        verbs=VERBS,
    )


class CustomKinds:
    """The custom kinds of a cluster, kept up by an informer; `told` hears of those that come, change and go."""

    def __init__(self, informers: InformerFactory, told: Told | None = None) -> None:
        self.by_resource: dict[str, Kind] = {}
        self.told = told
        self.definitions: Informer[CustomResourceDefinition] = informers.of(CUSTOM_RESOURCE_DEFINITION)
        self.definitions.on_change(self.changed)

    def changed(self, old: CustomResourceDefinition | None, new: CustomResourceDefinition | None) -> None:
        name = (new or old).name  # type: ignore[union-attr]
        kind = kind_of(new) if new is not None else None
        before = self.by_resource.get(name)
        if kind is None:
            if self.by_resource.pop(name, None) is not None and self.told is not None:
                self.told(name, None)
            return
        if before is not None and (before.version, before.name, before.namespaced) == (
            kind.version,
            kind.name,
            kind.namespaced,
        ):
            return
        self.by_resource[name] = kind
        if self.told is not None:
            self.told(name, kind)

    def by_kind(self, api_version: str, name: str) -> Kind | None:
        """The kind that an object's own words name, in any version of its group."""
        group = api_version.rpartition("/")[0]
        return next((k for k in self.by_resource.values() if (k.group, k.name) == (group, name)), None)
