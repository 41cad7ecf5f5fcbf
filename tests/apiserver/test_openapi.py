"""OpenAPI documents: what kubectl looks for in them is there (DISC-6, DISC-7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubesvc.api.kinds import KINDS
from kubesvc.apiserver.openapi import OpenApi, group_path

API = OpenApi(KINDS)
PATHS = sorted({group_path(k.group, k.version) for k in KINDS})


def document(path: str) -> Any:
    found = API.group(path)
    assert found is not None
    return json.loads(found.body)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_the_index_points_at_documents_by_their_hash() -> None:
    """DISC-6."""
    index = json.loads(API.index().body)["paths"]
    assert set(PATHS) <= set(index)
    for path, entry in index.items():
        found = API.group(path)
        assert found is not None
        assert entry == {"serverRelativeURL": f"/openapi/v3/{path}?hash={found.hash}"}
        assert found.etag == f'"{found.hash}"' and len(found.hash) == 128
    assert API.group("apis/nosuch/v1") is None


def test_hashes_follow_what_is_served() -> None:
    assert OpenApi(KINDS).group("api/v1") == API.group("api/v1")
    assert OpenApi(KINDS[:3]).location("api/v1") != API.location("api/v1")
    assert OpenApi(KINDS, "v1.99.0").location("api/v1") != API.location("api/v1")


@pytest.mark.parametrize("path", PATHS)
def test_every_reference_has_a_schema(path: str) -> None:
    found = document(path)
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= names


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.name}.{k.api_version}")
def test_patch_tells_its_kind_and_options(kind: Any) -> None:
    """DISC-7: kubectl asks here whether a kind knows fieldValidation and dryRun."""
    found = document(group_path(kind.group, kind.version))
    path = kind.path("{namespace}", "{name}")
    patch = found["paths"][path]["patch"]
    wanted = {"group": kind.group, "version": kind.version, "kind": kind.name}
    assert patch["x-kubernetes-group-version-kind"] == wanted
    assert {"dryRun", "fieldValidation", "fieldManager", "force"} <= {p["name"] for p in patch["parameters"]}
    schema = found["components"]["schemas"][kind.schema]
    assert wanted in schema["x-kubernetes-group-version-kind"]


def test_lists_tell_how_they_merge() -> None:
    """DISC-7, 3.3."""
    schemas = document("api/v1")["components"]["schemas"]
    ports = schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["port", "protocol"]
    assert ports["x-kubernetes-list-type"] == "map"
    assert (ports["x-kubernetes-patch-merge-key"], ports["x-kubernetes-patch-strategy"]) == ("port", "merge")
    assert schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["selector"]["x-kubernetes-map-type"] == "atomic"
    protocol = schemas["io.k8s.api.core.v1.ServicePort"]["properties"]["protocol"]
    assert (protocol["default"], protocol["enum"]) == ("TCP", ["SCTP", "TCP", "UDP"])
    assert "null" not in json.dumps(schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["hostname"]["type"])


def test_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for path in document("api/v1")["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    ]
    assert len(names) == len(set(names))
    assert {"readCoreV1NamespacedService", "listCoreV1ServiceForAllNamespaces", "patchCoreV1NodeStatus"} <= set(names)


def test_swagger_is_whole() -> None:
    found = json.loads(API.swagger().body)
    assert found["swagger"] == "2.0"
    assert references(found) <= {f"#/definitions/{name}" for name in found["definitions"]}
    time = found["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.Time"]
    assert (time["type"], time["format"]) == ("string", "date-time")
