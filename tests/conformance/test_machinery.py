"""Cases about what all kinds have in common: discovery, watches, lists, validation, collection, definitions, access."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Case
from .player import Object, Player, named, rv

NS = "/api/v1/namespaces/{ns}"
APPS = "/apis/apps/v1/namespaces/{ns}"
CASES: list[Case] = []
POD_SPEC: Object = {"containers": [{"name": "nginx", "image": "nginx"}]}
TEMPLATE: Object = {"metadata": {"labels": {"app": "nginx"}}, "spec": POD_SPEC}


def case(function: Case) -> Case:
    CASES.append(function)
    return function


# ---------------------------------------------------------------- discovery

RESOURCES = (
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
)


@case
async def locate_the_group_version_and_a_resource_within_each_group(p: Player) -> None:
    groups = {g["name"]: g for g in (await p.get("/apis"))["groups"]}
    for group, version, resource in RESOURCES:
        assert version in [v["version"] for v in groups[group]["versions"]]
        document = await p.get(f"/apis/{group}")
        assert document["preferredVersion"] == groups[group]["preferredVersion"]
        found = await p.get(f"/apis/{group}/{version}")
        assert resource in [r["name"] for r in found["resources"]]


@case
async def validate_the_preferred_version_of_each_group(p: Player) -> None:
    for group in (await p.get("/apis"))["groups"]:
        document = await p.get(f"/apis/{group['name']}")
        assert document["preferredVersion"]["groupVersion"] == group["preferredVersion"]["groupVersion"]
        assert document["preferredVersion"] in document["versions"]


@case
async def aggregated_discovery_by_accept_headers(p: Player) -> None:
    form = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    for path in ("/api", "/apis"):
        assert (await p.get(path, Accept=form))["kind"] == "APIGroupDiscoveryList"
    found = await p.get("/apis", Accept=form)
    groups = {g["metadata"]["name"]: {v["version"]: v for v in g["versions"]} for g in found["items"]}
    for group, version, resource in RESOURCES:
        assert resource in [r["resource"] for r in groups[group][version]["resources"]]


@case
async def find_the_server_version(p: Player) -> None:
    found = await p.get("/version")
    assert found["major"] == "1" and found["minor"].rstrip("+").isdigit()


# ---------------------------------------------------------------- watches


def labelled(name: str, label: str, **data: str) -> Object:
    return {**named(name, labels={"watch-this-configmap": label}), "data": data}


@case
async def observe_add_update_and_delete(p: Player) -> None:
    """Watchers on A, on B, and on either: each sees what concerns it."""
    configs, label = f"{NS}/configmaps", "?labelSelector=watch-this-configmap"
    start = rv(await p.get(configs))
    one = await p.post(configs, labelled("a", "A"))
    for mutation in ("1", "2"):
        one["data"] = {"mutation": mutation}
        one = await p.put(f"{configs}/a", one)
    await p.delete(f"{configs}/a")
    await p.post(configs, labelled("b", "B"))
    await p.delete(f"{configs}/b")
    since = f"&resourceVersion={start}"
    life = ("ADDED", "MODIFIED", "MODIFIED", "DELETED")
    seen = await p.sees(f"{configs}{label}%3DA{since}", *life)
    assert seen[-1]["data"] == {"mutation": "2"} and rv(seen[-1]) > rv(seen[-2])
    await p.sees(f"{configs}{label}%3DB{since}", "ADDED", "DELETED")
    await p.sees(f"{configs}{label}%20in%20(A,B){since}", *life, "ADDED", "DELETED")


@case
async def start_watching_from_a_specific_version(p: Player) -> None:
    configs = f"{NS}/configmaps"
    one = await p.post(configs, labelled("a", "from"))
    one["data"] = {"mutation": "1"}
    first = await p.put(f"{configs}/a", one)
    await p.put(f"{configs}/a", {**first, "data": {"mutation": "2"}})
    await p.delete(f"{configs}/a")
    seen = await p.sees(
        f"{configs}?labelSelector=watch-this-configmap%3Dfrom&resourceVersion={rv(first)}", "MODIFIED", "DELETED"
    )
    assert [o["data"] for o in seen] == [{"mutation": "2"}] * 2


@case
async def restart_watching_from_the_last_version_seen(p: Player) -> None:
    configs = f"{NS}/configmaps"
    start = rv(await p.get(configs))
    one = await p.post(configs, labelled("a", "again"))
    one = await p.put(f"{configs}/a", {**one, "data": {"mutation": "1"}})
    query = f"{configs}?labelSelector=watch-this-configmap%3Dagain&resourceVersion="
    seen = await p.sees(f"{query}{start}", "ADDED", "MODIFIED")
    await p.put(f"{configs}/a", {**one, "data": {"mutation": "2"}})
    await p.delete(f"{configs}/a")
    await p.sees(f"{query}{rv(seen[-1])}", "MODIFIED", "DELETED")


@case
async def observe_a_deletion_when_the_label_changes_and_an_addition_when_it_comes_back(p: Player) -> None:
    configs = f"{NS}/configmaps"
    start = rv(await p.get(configs))
    one = await p.post(configs, labelled("a", "and"))
    one = await p.put(f"{configs}/a", {**one, "data": {"mutation": "1"}})
    for label, mutation in (("wrong", "2"), ("and", "3")):
        one["metadata"]["labels"]["watch-this-configmap"] = label
        one = await p.put(f"{configs}/a", {**one, "data": {"mutation": mutation}})
    one = await p.put(f"{configs}/a", {**one, "data": {"mutation": "4"}})
    await p.delete(f"{configs}/a")
    seen = await p.sees(
        f"{configs}?labelSelector=watch-this-configmap%3Dand&resourceVersion={start}",
        "ADDED", "MODIFIED", "DELETED", "ADDED", "MODIFIED", "DELETED",
    )  # fmt: skip
    assert [(o.get("data") or {}).get("mutation") for o in seen] == [None, "1", "1", "3", "4", "4"]


@case
async def all_concurrent_watches_see_one_order(p: Player) -> None:
    configs = f"{NS}/configmaps"
    start = rv(await p.get(configs))
    versions, types = [], ("ADDED", "MODIFIED") * 10
    for n in range(10):
        versions.append(rv(await p.post(configs, named(f"c{n}"))))
        versions.append(rv(await p.patch(f"{configs}/c{n // 2}", {"data": {"n": str(n)}})))
    for at in range(0, 20, 3):
        begin, due = versions[at - 1] if at else start, len(versions) - at
        seen = await p.sees(f"{configs}?resourceVersion={begin}", *types[-due:])
        assert [rv(o) for o in seen] == versions[at:]


# ---------------------------------------------------------------- lists


@case
async def return_chunks_of_results_for_list_calls(p: Player) -> None:
    path, total = f"{NS}/podtemplates", 60
    for n in range(total):
        await p.post(path, {**named(f"template-{n:04d}"), "template": TEMPLATE})
    token, found, version = "", 0, 0
    while True:
        page = await p.get(f"{path}?limit=17&continue={token}")
        assert version in (0, rv(page))
        version, found = rv(page), found + len(page["items"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        left = page["metadata"]["remainingItemCount"]
        assert left + found == total, (left, found)
    assert found == total
    assert len((await p.get(f"{path}?limit={total}"))["items"]) == total


@case
async def a_406_for_a_backend_that_does_not_implement_metadata(p: Player) -> None:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}  # fmt: skip
    form = "application/json;as=Table;v=v1;g=meta.k8s.io"
    refused = await p.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, status=406, Accept=form)
    assert refused["reason"] == "NotAcceptable"


@case
async def tables_of_pods_and_chunks_of_tables(p: Player) -> None:
    form = "application/json;as=Table;v=v1;g=meta.k8s.io"
    await p.post(f"{NS}/pods", {**named("pod-1"), "spec": POD_SPEC})
    table = await p.get(f"{NS}/pods/pod-1", Accept=form)
    assert table["kind"] == "Table" and len(table["columnDefinitions"]) > 2 and len(table["rows"]) == 1
    assert table["columnDefinitions"][0]["name"] == "Name" and table["rows"][0]["cells"][0] == "pod-1"
    for n in range(5):
        await p.post(f"{NS}/podtemplates", {**named(f"template-{n}"), "template": TEMPLATE})
    first = await p.get(f"{NS}/podtemplates?limit=2", Accept=form)
    assert len(first["rows"]) == 2 and first["metadata"]["remainingItemCount"] == 3
    rest = await p.get(f"{NS}/podtemplates?continue={first['metadata']['continue']}", Accept=form)
    assert len(rest["rows"]) == 3
    await p.get("/apis/apps/v1/deployments", Accept="application/json;as=Table;v=v2;g=meta.k8s.io", status=406)


# ---------------------------------------------------------------- field validation


@case
async def unknown_and_duplicate_fields_of_a_typed_object(p: Player) -> None:
    """In create, update and patch: in JSON and in YAML all of them are told at once."""
    text = (
        '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s","labels":{"app":"nginx"}},"spec":'
        '{"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,"selector":'
        '{"matchLabels":{"app":"nginx"}},"template":{"metadata":{"labels":{"app":"nginx"}},"spec":{"containers":[{'
        '"name":"nginx","image":"nginx:latest","unknownNested":"val1","imagePullPolicy":"Always","imagePullPolicy":'
        '"Never"}]}}}}'
    )
    path = f"{APPS}/deployments"
    refused = await p.post(f"{path}?fieldValidation=Strict", text % "strict", status=400)
    for said in (
        'strict decoding error: unknown field "spec.template.spec.containers[0].unknownNested"',
        'duplicate field "spec.template.spec.containers[0].imagePullPolicy"', 'unknown field "spec.unknown1"',
        'unknown field "spec.unknownDupe"', 'duplicate field "spec.paused"',
    ):  # fmt: skip
        assert said in refused["message"] or said.partition(": ")[2] in refused["message"], refused["message"]
    await p.post(f"{path}?fieldValidation=Ignore", text % "ignore")
    await p.post(f"{path}?fieldValidation=Warn", text % "warn")
    sent = '{"spec":{"unknown1":"val1","paused":true,"paused":false}}'
    refused = await p.patch(f"{path}/warn?fieldValidation=Strict", sent, status=422)
    assert 'duplicate field "spec.paused"' in refused["message"] and 'field "spec.unknown1"' in refused["message"]
    assert refused["details"]["causes"][0]["field"] == "patch"
    yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: warn}\nspec:\n  replicas: 1\n  replicas: 2\n"
    query = "fieldValidation=Strict&fieldManager=m&force=true"
    refused = await p.patch(f"{path}/warn?{query}", yaml, "apply", status=400)
    assert refused["message"].startswith("error strict decoding YAML: ") and '"replicas"' in refused["message"]


def definition(group: str, **more: Any) -> Object:
    schema = more.pop("schema", {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"foo": {"type": "string"}, "cronSpec": {"type": "string"},
                                                  "knownField1": {"type": "string"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}})  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}}, **more}  # fmt: skip
    names = {"plural": "noxus", "singular": "noxu", "kind": "WishIHadChosenNoxu", "listKind": "NoxuList",
             "shortNames": ["nx"]}  # fmt: skip
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    return {**named(f"noxus.{group}", labels={"e2e": group}), "spec": spec}


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def defined(p: Player, **more: Any) -> str:
    """Makes a definition in a group of the namespace's name; the path of its objects once it is established."""
    group = f"{p.namespace}.example.com"
    await p.post(DEFINITIONS, definition(group, **more))
    one = f"{DEFINITIONS}/noxus.{group}"

    def established(found: Any) -> bool:
        conditions = found.get("status", {}).get("conditions", ())
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await p.settled(one, established)
    path = f"/apis/{group}/v1/namespaces/{{ns}}/noxus"

    async def served() -> bool:
        async with p.session.get(p.base + path.replace("{ns}", p.namespace)) as response:
            return response.status == 200

    await p.until(served, f"{path} is not served")
    return path


def noxu(p: Player, name: str, **content: Any) -> Object:
    return {"apiVersion": f"{p.namespace}.example.com/v1", "kind": "WishIHadChosenNoxu", **named(name), **content}


@case
async def unknown_and_duplicate_fields_of_a_custom_object(p: Player) -> None:
    path = await defined(p)
    text = json.dumps(noxu(p, "a", spec={"foo": "x"}))[:-1]
    await p.post(f"{path}?fieldValidation=Strict", text + "}")
    wrong = text.replace('"a"', '"b"').replace('"foo": "x"', '"foo": "x", "unknown": "y", "foo": "z"') + ', "extra": 1}'
    refused = await p.post(f"{path}?fieldValidation=Strict", wrong, status=400)
    for said in ('unknown field "extra"', 'unknown field "spec.unknown"', 'duplicate field "spec.foo"'):
        assert said in refused["message"], refused["message"]
    made = await p.post(f"{path}?fieldValidation=Ignore", wrong)
    assert made["spec"] == {"foo": "z"} and "extra" not in made
    await p.delete(f"{DEFINITIONS}/noxus.{p.namespace}.example.com")


# ---------------------------------------------------------------- definitions


@case
async def definitions_listed_and_deleted_as_a_collection(p: Player) -> None:
    for n in range(3):
        made = definition(f"g{n}.{p.namespace}.example.com")
        made["metadata"]["labels"] = {"e2e-list": p.namespace}
        await p.post(DEFINITIONS, made)
    label = f"{DEFINITIONS}?labelSelector=e2e-list%3D{p.namespace}"
    assert len((await p.get(label))["items"]) == 3
    await p.delete(label)
    await p.gone(label)


@case
async def the_status_of_a_definition(p: Player) -> None:
    await defined(p)
    one = f"{DEFINITIONS}/noxus.{p.namespace}.example.com"
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "updated status"}
    found = await p.get(f"{one}/status")
    found["status"]["conditions"].append(condition)
    updated = await p.put(f"{one}/status", found)
    assert condition["message"] in [c.get("message") for c in updated["status"]["conditions"]]
    sent = [{"op": "add", "path": "/status/conditions/-", "value": {**condition, "type": "Patched"}}]
    patched = await p.patch(f"{one}/status", sent, "json")
    assert "Patched" in [c["type"] for c in patched["status"]["conditions"]]
    await p.delete(one)
    await p.gone(one)


@case
async def custom_objects_are_defaulted_for_requests_and_from_the_store(p: Player) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {
        "a": {"type": "string", "default": "A"}, "b": {"type": "string"}}}  # fmt: skip
    path = await defined(p, schema=schema)
    made = await p.post(path, noxu(p, "one"))
    assert made["a"] == "A" and "b" not in made
    one = f"{DEFINITIONS}/noxus.{p.namespace}.example.com"
    sent = [{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/b/default", "value": "B"}]
    await p.patch(one, sent, "json")
    await p.settled(f"{path}/one", lambda found: (found["a"], found.get("b")) == ("A", "B"))
    await p.delete(one)


@case
async def watch_on_custom_objects_and_their_selectable_fields(p: Player) -> None:
    path = await defined(p, selectableFields=[{"jsonPath": ".spec.foo"}])
    start = rv(await p.get(path))
    await p.post(path, noxu(p, "name1", spec={"foo": "x"}))
    await p.post(path, noxu(p, "name2", spec={"foo": "y"}))
    await p.patch(f"{path}/name1", {"spec": {"foo": "y"}})
    await p.delete(f"{path}/name1")
    await p.sees(f"{path}?resourceVersion={start}", "ADDED", "ADDED", "MODIFIED", "DELETED")
    assert [o["metadata"]["name"] for o in (await p.get(f"{path}?fieldSelector=spec.foo%3Dy"))["items"]] == ["name2"]
    await p.sees(f"{path}?fieldSelector=spec.foo%3Dx&resourceVersion={start}", "ADDED", "DELETED")
    one = f"{DEFINITIONS}/noxus.{p.namespace}.example.com"
    await p.delete(one)
    await p.gone(one)


@case
async def a_definition_is_published_in_openapi_and_in_discovery(p: Player) -> None:
    await defined(p)
    group = f"{p.namespace}.example.com"
    assert group in [g["name"] for g in (await p.get("/apis"))["groups"]]
    document = await p.settled(f"/openapi/v3/apis/{group}/v1", lambda d: d["components"]["schemas"])
    schema = next(s for n, s in document["components"]["schemas"].items() if n.endswith("WishIHadChosenNoxu"))
    assert schema["properties"]["spec"]["properties"]["foo"] == {"type": "string"}
    found = await p.get("/openapi/v2")
    assert any(name.endswith("WishIHadChosenNoxu") for name in found["definitions"])
    await p.delete(f"{DEFINITIONS}/noxus.{group}")
    await p.gone(f"{DEFINITIONS}/noxus.{group}")


# ---------------------------------------------------------------- webhook configurations


@case
async def webhook_configurations_are_patched_updated_and_deleted_as_a_collection(p: Player) -> None:
    for plural, kind in (
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    ):
        path = f"/apis/admissionregistration.k8s.io/v1/{plural}"
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        hook = {"name": "deny.k8s.io", "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://192.0.2.1/deny"}, "failurePolicy": "Ignore", "timeoutSeconds": 1,
                "namespaceSelector": {"matchLabels": {"nobody": "x"}}}  # fmt: skip
        name = f"hooks-{p.namespace}"
        made = await p.post(path, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                                   **named(name, labels={"e2e": p.namespace}), "webhooks": [hook]})  # fmt: skip
        made["webhooks"][0]["rules"][0]["operations"] = ["UPDATE"]
        made = await p.put(f"{path}/{name}", made)
        sent = [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]
        patched = await p.patch(f"{path}/{name}", sent, "json")
        assert patched["webhooks"][0]["rules"][0]["operations"] == ["CREATE"]
        made = await p.get(f"{path}/{name}")
        made["webhooks"][0]["matchConditions"] = [{"name": "expression-1", "expression": "object.metadata.name == 'a'"}]
        assert (await p.put(f"{path}/{name}", made))["webhooks"][0]["matchConditions"]
        await p.delete(f"{path}?labelSelector=e2e%3D{p.namespace}")
        await p.gone(f"{path}/{name}")


# ---------------------------------------------------------------- collection of garbage, namespaces


@case
async def garbage_in_the_background_orphaned_and_in_the_foreground(p: Player) -> None:
    path = f"{APPS}/replicasets"
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "nginx"}}, "template": TEMPLATE}
    for policy in ("Background", "Orphan", "Foreground"):
        await p.post(path, {**named("set"), "spec": spec})
        await p.settled(f"{NS}/pods", lambda found: len(found["items"]) == 2)
        await p.delete(f"{path}/set", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy})
        if policy == "Orphan":
            await p.gone(f"{path}/set")
            left = (await p.get(f"{NS}/pods"))["items"]
            assert len(left) == 2 and not any(o["metadata"].get("ownerReferences") for o in left)
            await p.delete(f"{NS}/pods", {"gracePeriodSeconds": 0})
        await p.gone(f"{NS}/pods")
        await p.gone(f"{path}/set")


@case
async def garbage_with_two_owners_and_in_circles(p: Player) -> None:
    configs = f"{NS}/configmaps"

    def owner(obj: Object) -> Object:
        meta = obj["metadata"]
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}

    first, second = await p.post(configs, named("first")), await p.post(configs, named("second"))
    await p.post(configs, named("both", ownerReferences=[owner(first), owner(second)]))
    await p.delete(f"{configs}/first", {"propagationPolicy": "Foreground"})
    await p.gone(f"{configs}/first")
    await p.settled(f"{configs}/both", lambda o: [r["name"] for r in o["metadata"]["ownerReferences"]] == ["second"])
    names = ("circle-1", "circle-2", "circle-3")
    made = [await p.post(configs, named(name)) for name in names]
    for at, name in enumerate(names):
        await p.patch(f"{configs}/{name}", {"metadata": {"ownerReferences": [owner(made[at - 1])]}})
    await p.delete(f"{configs}/circle-1", {"propagationPolicy": "Foreground"})
    for name in names:
        await p.gone(f"{configs}/{name}")


@case
async def namespaces_are_patched_finalized_and_removed_with_everything(p: Player) -> None:
    name = f"{p.namespace}-other"
    path = f"/api/v1/namespaces/{name}"
    await p.post("/api/v1/namespaces", named(name))
    patched = await p.patch(path, {"metadata": {"labels": {"testLabel": "testValue"}}}, "strategic")
    assert patched["metadata"]["labels"]["testLabel"] == "testValue"
    assert patched["metadata"]["labels"]["kubernetes.io/metadata.name"] == name
    condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}
    sent = {"metadata": {"annotations": {"e2e-patched": "yes"}}, "status": {"conditions": [condition]}}
    patched = await p.patch(f"{path}/status", sent)
    assert patched["status"]["conditions"][0]["message"] == condition["message"]
    current = await p.get(f"{path}/status")
    current["status"]["conditions"].append({**condition, "type": "StatusUpdate"})
    assert len((await p.put(f"{path}/status", current))["status"]["conditions"]) == 2
    current = await p.get(path)
    current["spec"]["finalizers"].append("e2e.example.com/fake")
    updated = await p.put(f"{path}/finalize", current)
    assert updated["spec"]["finalizers"] == ["kubernetes", "e2e.example.com/fake"]
    await p.post(f"{path}/pods", {**named("pod"), "spec": POD_SPEC})
    await p.post(f"{path}/services", {**named("service"), "spec": {"ports": [{"port": 80}]}})
    await p.delete(path)
    for plural in ("pods", "services"):
        await p.gone(f"{path}/{plural}")
    refused = await p.post(f"{path}/configmaps", named("late"), status=403)
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    left = await p.settled(path, lambda n: n["spec"]["finalizers"] == ["e2e.example.com/fake"])
    left["spec"]["finalizers"] = []
    await p.put(f"{path}/finalize", left)
    await p.gone(path)


# ---------------------------------------------------------------- access


@case
async def subject_reviews(p: Player) -> None:
    root = "/apis/authorization.k8s.io/v1"
    attributes = {"verb": "list", "resource": "configmaps", "namespace": p.namespace, "version": "v1"}
    account = f"system:serviceaccount:{p.namespace}:e2e"
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
              "spec": {"user": account, "resourceAttributes": attributes}}  # fmt: skip
    await p.post(f"{NS}/serviceaccounts", named("e2e"))
    assert (await p.post(f"{root}/subjectaccessreviews", review))["status"]["allowed"] is False
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    await p.post(f"{rbac}/roles", {**named("reader"), "rules": rules})
    subjects = [{"kind": "ServiceAccount", "name": "e2e", "namespace": p.namespace}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    await p.post(f"{rbac}/rolebindings", {**named("readers"), "roleRef": reference, "subjects": subjects})
    assert (await p.post(f"{root}/subjectaccessreviews", review))["status"]["allowed"] is True
    local = {**review, "kind": "LocalSubjectAccessReview", "metadata": {"namespace": p.namespace}}
    found = await p.post(f"{root}/namespaces/{{ns}}/localsubjectaccessreviews", local)
    assert found["status"]["allowed"] is True
    itself = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = await p.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", itself, Impersonate_User=account)
    assert found["status"]["userInfo"]["username"] == account
    assert "system:authenticated" in found["status"]["userInfo"]["groups"]


@case
async def service_accounts_their_tokens_and_the_discovery_of_their_issuer(p: Player) -> None:
    path = f"{NS}/serviceaccounts"
    await p.settled(f"{NS}/configmaps/kube-root-ca.crt", lambda c: "ca.crt" in c["data"])
    await p.post(path, named("testserviceaccount", labels={"static": "true"}))
    sent = {"automountServiceAccountToken": False}
    assert (await p.patch(f"{path}/testserviceaccount", sent, "strategic"))["automountServiceAccountToken"] is False
    account = await p.get(f"{path}/testserviceaccount")
    account["automountServiceAccountToken"] = True
    await p.put(f"{path}/testserviceaccount", account)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    made = await p.post(f"{path}/testserviceaccount/token", request)
    token = made["status"]["token"]
    padded = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(padded + "=" * (-len(padded) % 4)))
    assert claims["sub"] == f"system:serviceaccount:{p.namespace}:testserviceaccount"
    issuer = await p.get("/.well-known/openid-configuration")
    assert issuer["issuer"] == claims["iss"]
    assert {k["alg"] for k in (await p.get("/openid/v1/jwks"))["keys"]} <= set(
        issuer["id_token_signing_alg_values_supported"]
    )
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    assert (await p.post("/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]["authenticated"] is True
    await p.delete(f"{path}?labelSelector=static%3Dtrue")
    await p.gone(f"{path}?labelSelector=static%3Dtrue")
    assert not (await p.post("/apis/authentication.k8s.io/v1/tokenreviews", review))["status"].get("authenticated")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_case(play: Callable[[Case], None], case: Case) -> None:
    play(case)
