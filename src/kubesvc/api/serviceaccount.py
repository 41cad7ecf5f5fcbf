"""ServiceAccount: who a pod is."""

from __future__ import annotations

from . import shape
from .kind import Column, Kind, Since, Subresource
from .meta import Object, ObjectReference, Typed
from .pod import LocalObjectReference


class ServiceAccount(Typed, frozen=True):
    secrets: list[ObjectReference] | None = None
    image_pull_secrets: list[LocalObjectReference] | None = None
    automount_service_account_token: bool | None = None


def default(obj: Object) -> None:
    shape.normalize(obj, ServiceAccount)


SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    name="ServiceAccount",
    plural="serviceaccounts",
    namespaced=True,
    type=ServiceAccount,
    schema="io.k8s.api.core.v1.ServiceAccount",
    short_names=("sa",),
    subresources=(
        Subresource(name="token", verbs=("create",), kind="TokenRequest", group="authentication.k8s.io", version="v1"),
    ),
    default=default,
    columns=(
        Column("Name", lambda s: s.name, format="name"),
        Column("Age", lambda s: Since(s.metadata.creation_timestamp)),  # KCTL-23
    ),
    delete_returns_object=True,
)
