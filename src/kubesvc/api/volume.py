"""Volumes as typed objects: those a node agent can make itself in full, the rest by name only."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from .container import ObjectFieldSelector, ResourceFieldSelector
from .meta import Struct


class KeyToPath(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("key", "path")

    key: str = ""
    path: str = ""
    mode: int | None = None


class ConfigMapVolumeSource(Struct, frozen=True):
    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class SecretVolumeSource(Struct, frozen=True):
    secret_name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class EmptyDirVolumeSource(Struct, frozen=True):
    medium: str = ""
    size_limit: str | int | float | None = None


class HostPathVolumeSource(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("path",)

    path: str = ""
    type: str | None = None


class DownwardAPIVolumeFile(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("path",)

    path: str = ""
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(Struct, frozen=True):
    items: list[DownwardAPIVolumeFile] | None = None
    default_mode: int | None = None


class DownwardAPIProjection(Struct, frozen=True):
    items: list[DownwardAPIVolumeFile] | None = None


class ConfigMapProjection(Struct, frozen=True):
    name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool | None = None


class SecretProjection(Struct, frozen=True):
    name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool | None = None


class ServiceAccountTokenProjection(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("path",)

    audience: str = ""
    expiration_seconds: int | None = None
    path: str = ""


class VolumeProjection(Struct, frozen=True):
    config_map: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardAPIProjection | None = field(default=None, name="downwardAPI")
    service_account_token: ServiceAccountTokenProjection | None = None
    cluster_trust_bundle: dict[str, Any] | None = None
    pod_certificate: dict[str, Any] | None = None


class ProjectedVolumeSource(Struct, frozen=True):
    sources: list[VolumeProjection] | None = None
    default_mode: int | None = None


class PersistentVolumeClaimVolumeSource(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("claim_name",)

    claim_name: str = ""
    read_only: bool = False


class Volume(Struct, frozen=True):
    always: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = field(default=None, name="downwardAPI")
    projected: ProjectedVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    nfs: dict[str, Any] | None = None
    csi: dict[str, Any] | None = None
    iscsi: dict[str, Any] | None = None
