"""Protobuf bodies over HTTP: the same objects, owners, options and refusals as with JSON (WRITE-11)."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.decode import Target
from kubesvc.api.protobuf import MEDIA_TYPE
from kubesvc.apiserver.apiserver import ApiServer
from tests.api.protobuf_writing import body, body_of, number, sized
from tests.apiserver.running import Http, config_map, with_http

CORE = "io.k8s.api.core.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CONFIGS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAP = Target("", "v1", "ConfigMap", CORE + "ConfigMap")
POD = Target("", "v1", "Pod", CORE + "Pod")
DEPLOYMENT = Target("apps", "v1", "Deployment", "io.k8s.api.apps.v1.Deployment")
SCALE = Target("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale")
EVICTION = Target("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction")
BINDING = Target("", "v1", "Binding", CORE + "Binding")
OPTIONS = Target("", "v1", "DeleteOptions", META + "DeleteOptions")

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SPEC = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}


async def send(http: Http, method: str, path: str, obj: Any, target: Target, **headers: str) -> tuple[int, Any]:
    """Status and body of the answer to an object in protobuf."""
    headers = {"Content_Type": MEDIA_TYPE, "Accept": f"{MEDIA_TYPE},application/json", **headers}
    status, found, answer = await http.request(method, path, body_of(obj, target), **headers)
    assert found["Content-Type"] == "application/json"
    return status, answer


def without_chosen(obj: Any) -> Any:
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("name", "uid", "resourceVersion")}
    for entry in metadata.get("managedFields", ()):
        entry.pop("time")
    metadata.pop("creationTimestamp")
    return {**obj, "metadata": metadata}


def test_created_replaced_and_scaled_like_json() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        by_json = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "j"}, "spec": SPEC}
        status, one = await send(http, "POST", DEPLOYMENTS, {"metadata": {"name": "p"}, "spec": SPEC}, DEPLOYMENT)
        _, _, two = await http.request("POST", DEPLOYMENTS, by_json)
        assert status == 201 and without_chosen(one) == without_chosen(two)
        changed = {"metadata": {"name": "p", "annotations": {"x": "y"}}, "spec": {**SPEC, "paused": True}}
        status, one = await send(http, "PUT", f"{DEPLOYMENTS}/p", changed, DEPLOYMENT)
        by_json["metadata"], by_json["spec"] = {"name": "j", "annotations": {"x": "y"}}, {**SPEC, "paused": True}
        _, _, two = await http.request("PUT", f"{DEPLOYMENTS}/j", by_json)
        assert status == 200 and without_chosen(one) == without_chosen(two)
        status, scaled = await send(
            http, "PUT", f"{DEPLOYMENTS}/p/scale", {"metadata": {"name": "p"}, "spec": {"replicas": 4}}, SCALE
        )
        assert status == 200 and scaled["spec"] == {"replicas": 4}

    with_http(run)


def test_fields_nobody_knows_are_no_warning_even_if_strict() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        raw = body("v1", "ConfigMap", sized(1, sized(1, "a") + sized(900, "x")) + number(901, 1))
        for query in ("Strict", "Warn"):
            path = f"{CONFIGS}?dryRun=All&fieldValidation={query}"
            status, headers, _ = await http.request("POST", path, raw, Content_Type=MEDIA_TYPE)
            assert status == 201 and "Warning" not in headers

    with_http(run)


DELETIONS: tuple[tuple[str, str, dict[str, Any], int, str], ...] = (
    ("DEL-2: another uid", "v1", {"preconditions": {"uid": "x"}}, 409, "the UID in the precondition (x)"),
    ("DEL-2: another revision", "v1", {"preconditions": {"resourceVersion": "1"}}, 409, "the ResourceVersion in the"),
    ("DEL-1: no such policy", "v1", {"propagationPolicy": "Never"}, 422, "propagationPolicy: Unsupported value"),
    ("DEL-1: in meta's version", "meta.k8s.io/v1", {"dryRun": ["All"]}, 200, ""),
    ("DEL-1: of another kind", "v1", {}, 400, "cannot be handled as a DeleteOptions"),
    ("really", "v1", {"gracePeriodSeconds": 0}, 200, ""),
)  # fmt: skip


def test_options_of_deletions() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await http.request("POST", CONFIGS, config_map("a"))
        for name, version, options, code, text in DELETIONS:
            kind = "ConfigMap" if "another kind" in name else "DeleteOptions"
            group, _, short = version.rpartition("/")
            target = OPTIONS._replace(group=group, version=short, name=kind)
            status, answer = await send(http, "DELETE", f"{CONFIGS}/a", options, target)
            assert status == code and text in answer.get("message", ""), (name, answer)
        assert (await http.request("GET", f"{CONFIGS}/a"))[0] == 404

    with_http(run)


def test_options_of_deletions_in_the_version_of_the_group() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await send(http, "POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": SPEC}, DEPLOYMENT)
        target = OPTIONS._replace(group="apps")
        status, _ = await send(http, "DELETE", f"{DEPLOYMENTS}/d", {"propagationPolicy": "Background"}, target)
        assert status == 200

    with_http(run)


def test_pods_are_bound_and_evicted() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, pod = await send(http, "POST", PODS, {"metadata": {"name": "p"}, "spec": TEMPLATE["spec"]}, POD)
        assert status == 201 and pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
        status, _ = await send(
            http, "POST", f"{PODS}/p/binding", {"metadata": {"name": "p"}, "target": {"name": "n1"}}, BINDING
        )
        assert status == 201
        eviction = {"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}}
        status, _ = await send(http, "POST", f"{PODS}/p/eviction", eviction, EVICTION)
        assert status == 201
        assert (await http.request("GET", f"{PODS}/p"))[0] == 404

    with_http(run)


@pytest.mark.parametrize(
    ("method", "accept", "code"),
    [("PATCH", "application/json", 415), ("GET", MEDIA_TYPE, 406), ("GET", f"{MEDIA_TYPE},*/*;q=0.1", 200)],
    ids=["no patch is protobuf", "TABLE-8: nor an answer", "which clients that take others do not mind"],
)
def test_where_protobuf_is_not_spoken(method: str, accept: str, code: int) -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await http.request("POST", CONFIGS, config_map("a"))
        raw = body_of({}, CONFIG_MAP) if method == "PATCH" else None
        status, _, _ = await http.request(method, f"{CONFIGS}/a", raw, Content_Type=MEDIA_TYPE, Accept=accept)
        assert status == code

    with_http(run)
