"""Discovery: which groups, versions and resources there are, in the legacy and the aggregated form (DISC-1, DISC-2).

Documents are made once from the kinds and a list of resources that are answered without being stored.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from kubesvc.api.customkind import version_key
from kubesvc.api.kind import Kind
from kubesvc.api.meta import Object

GROUP_ORDER = (
    "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
    "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "coordination.k8s.io",
    "discovery.k8s.io",
)  # fmt: skip
"""Groups in the order in which upstream lists them."""

_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class CreateOnly:
    """A resource that only answers POSTs, and stores nothing."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False

    @property
    def singular(self) -> str:
        return self.kind.lower()


CREATE_ONLY = (
    CreateOnly("", "v1", "bindings", "Binding", namespaced=True),
    CreateOnly("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"),
    CreateOnly("authentication.k8s.io", "v1", "tokenreviews", "TokenReview"),
    CreateOnly("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", namespaced=True),
    CreateOnly("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    CreateOnly("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    CreateOnly("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview"),
)


def storage_version_hash(kind: Kind) -> str:
    """DISC-1: of the form that is stored; Events of both groups are stored as core ones."""
    stored = kind.stored or kind
    version = stored.version if stored.custom is None else stored.custom.stored_api_version.rpartition("/")[2]
    digest = hashlib.sha256(f"{stored.group}/{version}/{stored.name}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


class Discovery:
    """The documents of one set of kinds."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(kinds)
        found: dict[tuple[str, str], list[Kind | CreateOnly]] = {}
        everything: tuple[Kind | CreateOnly, ...] = (*self.kinds, *CREATE_ONLY)
        for resource in everything:
            found.setdefault((resource.group, resource.version), []).append(resource)
        self.resources = {gv: sorted(rs, key=lambda r: r.plural) for gv, rs in found.items()}
        groups = {g for g, _ in found if g}
        known = [g for g in GROUP_ORDER if g in groups]
        builtin = {r.group for r in everything if isinstance(r, CreateOnly) or r.custom is None}
        self.groups = known + sorted(groups & builtin - set(known)) + sorted(groups - builtin)
        self.custom = groups - builtin
        """Groups that definitions made: their versions go by preference."""
        self.core_aggregated = self.tagged(self.aggregated([""]))
        self.groups_aggregated = self.tagged(self.aggregated(self.groups))

    def tagged(self, document: Object) -> tuple[bytes, str]:
        """A document's bytes and its ETag."""
        body = _json.encode(document)
        return body, '"' + hashlib.sha512(body).hexdigest().upper() + '"'

    def has_group(self, group: str) -> bool:
        return group in self.groups

    def core_versions(self, address: str) -> Object:
        """`/api`."""
        clients = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": clients}

    def versions_of(self, group: str) -> list[str]:
        """Its versions, the preferred one first."""
        return sorted((v for g, v in self.resources if g == group), key=version_key)

    def group(self, name: str) -> Object:
        """One group as APIGroupList holds it."""
        versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in self.versions_of(name)]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def group_list(self) -> Object:
        """`/apis`."""
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self.group(g) for g in self.groups]}

    def group_document(self, name: str) -> Object:
        """`/apis/<group>`."""
        return {"kind": "APIGroup", "apiVersion": "v1", **self.group(name)}

    def resource_list(self, group: str, version: str) -> Object | None:
        """`/api/v1` and `/apis/<group>/<version>`; None if there is no such version."""
        found = self.resources.get((group, version))
        if found is None:
            return None
        resources: list[Object] = []
        for resource in found:
            resources.append(legacy_resource(resource))
            if isinstance(resource, Kind):
                resources += legacy_subresources(resource)
        document: Object = {"kind": "APIResourceList"}
        if group:
            document["apiVersion"] = "v1"
        document["groupVersion"] = f"{group}/{version}" if group else version
        document["resources"] = resources
        return document

    def aggregated(self, groups: Iterable[str]) -> Object:
        """An APIGroupDiscoveryList of these groups (DISC-2)."""
        items = []
        for group in groups:
            versions = [
                {
                    "version": version,
                    "resources": [aggregated_resource(r) for r in self.resources.get((group, version), ())],
                    "freshness": "Current",
                }
                for version in self.versions_of(group)
            ]
            items.append({"metadata": {"name": group} if group else {}, "versions": versions})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }


def legacy_resource(resource: Kind | CreateOnly) -> Object:
    if isinstance(resource, CreateOnly):
        return {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": ["create"],
        }
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.singular_name,
        "namespaced": resource.namespaced,
        "kind": resource.name,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entry["storageVersionHash"] = storage_version_hash(resource)
    return entry


def legacy_subresources(kind: Kind) -> list[Object]:
    entries = []
    for sub in sorted(kind.subresources, key=lambda s: s.name):
        entry: Object = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
        if sub.group or sub.version:
            entry["group"], entry["version"] = sub.group, sub.version
        entry["kind"] = sub.kind or kind.name
        entry["verbs"] = list(sub.verbs)
        entries.append(entry)
    return entries


def aggregated_resource(resource: Kind | CreateOnly) -> Object:
    def response(kind: str, group: str = "", version: str = "") -> Object:
        return {"group": group, "version": version, "kind": kind}

    entry: Object = {
        "resource": resource.plural,
        "responseKind": response(resource.name if isinstance(resource, Kind) else resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular_name if isinstance(resource, Kind) else resource.singular,
    }
    if isinstance(resource, CreateOnly):
        return {**entry, "verbs": ["create"]}
    entry["verbs"] = list(resource.verbs)
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources: list[Any] = [
        {
            "subresource": sub.name,
            "responseKind": response(sub.kind or resource.name, sub.group, sub.version),
            "verbs": list(sub.verbs),
        }
        for sub in sorted(resource.subresources, key=lambda s: s.name)
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry
