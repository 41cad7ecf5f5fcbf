"""Custom kinds over HTTP: definitions and their conditions, objects, versions, schema changes, restarts, the end."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubesvc.api.kinds import CUSTOM_RESOURCE_DEFINITION, MUTATING_WEBHOOK_CONFIGURATION
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import RealClock
from kubesvc.store.memory import MemoryStore

from .running import SETTINGS, Http, config_map, until, with_http
from .test_webhooks import configure, hooked, patching, rule

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GADGETS = "/apis/factory.example.com/v1/namespaces/default/gadgets"
OLDER = GADGETS.replace("/v1/", "/v1beta1/")
NAME = "gadgets.factory.example.com"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
META = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"
MERGE = {"Content_Type": "application/merge-patch+json"}
APPLY = {"Content_Type": "application/apply-patch+yaml"}
DEFINITION: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "e2e/definitions/gadgets.yaml").read_text(encoding="utf-8")
)


def definition() -> Any:
    return copy.deepcopy(DEFINITION)


def gadget(name: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
    found = {"colour": "red", **spec}
    return {"apiVersion": f"factory.example.com/{version}", "kind": "Gadget", "metadata": {"name": name}, "spec": found}


async def established(http: Http, name: str = NAME) -> Any:
    """The definition, once its kind is served."""
    async with asyncio.timeout(60):
        while True:
            found = (await http.request("GET", f"{CRDS}/{name}"))[2]
            conditions = {c["type"]: c for c in found.get("status", {}).get("conditions") or ()}
            if conditions.get("Established", {}).get("status") == "True":
                return found
            await asyncio.sleep(0.01)


async def serve(http: Http, body: Any = None) -> Any:
    status, _, made = await http.request("POST", CRDS, body or definition())
    assert status == 201, made
    return await established(http, made["metadata"]["name"])


async def change(http: Http, edit: Any) -> Any:
    """Change the definition by a function, as PUT does."""
    found = (await http.request("GET", f"{CRDS}/{NAME}"))[2]
    edit(found)
    status, _, done = await http.request("PUT", f"{CRDS}/{NAME}", found)
    assert status == 200, done
    return done


# ---------------------------------------------------------------- definitions


def test_a_definition_becomes_established() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, _, made = await http.request("POST", CRDS, definition())
        assert status == 201
        assert made["status"] == {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None,
                                  "storedVersions": ["v1"]}  # fmt: skip
        version = made["metadata"]["resourceVersion"]
        changes = await http.watch(f"{CRDS}?watch=true&resourceVersion={version}", 2)
        reasons = [[c["reason"] for c in told["status"]["conditions"]] for _, told in changes]
        assert reasons == [["NoConflicts", "Installing"], ["NoConflicts", "InitialNamesAccepted"]]
        found = changes[-1][1]
        conditions = [(c["type"], c["status"], c["reason"], c["message"]) for c in found["status"]["conditions"]]
        assert conditions == [
            ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
        ]
        assert found["status"]["storedVersions"] == ["v1"] and found["metadata"]["generation"] == 1
        assert found["status"]["acceptedNames"]["listKind"] == "GadgetList"
        assert found["spec"]["conversion"] == {"strategy": "None"}

    with_http(run)


def spoiled(**changes: Any) -> Any:
    """The definition with these paths (dots as double underscores) set to other values; None takes them away."""
    body = definition()
    for path, value in changes.items():
        place: Any = body
        *above, last = [int(p) if p.isdigit() else p for p in path.split("__")]
        for step in above:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return body


V = "spec__versions__0__"
REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("a name of its own", {"metadata__name": "x.example.com"},
     'metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group'),
    ("no scope", {"spec__scope": None}, "spec.scope: Required value"),
    ("another scope", {"spec__scope": "x"}, 'spec.scope: Unsupported value: "x": supported values: "Cluster", '),
    ("no schema", {V + "schema": None},
     "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
    ("two storage versions", {"spec__versions__1__storage": True},
     "must have exactly one version marked as storage version"),
    ("versions of one name", {"spec__versions__1__name": "v1"}, "must contain unique version names"),
    ("a version's name", {V + "name": "V1"}, 'spec.versions[0].name: Invalid value: "V1": a DNS-1035 label must'),
    ("an unstructural schema", {V + "schema__openAPIV3Schema__properties__spec__type": None},
     "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified "
     "object fields"),
    ("a scale path elsewhere", {V + "subresources__scale__specReplicasPath": ".status.replicas"},
     'specReplicasPath: Invalid value: ".status.replicas": should be a json path under .spec'),
    ("a column's type", {V + "additionalPrinterColumns__0__type": "text"},
     'additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string'),
    ("a column's path", {V + "additionalPrinterColumns__0__jsonPath": "spec.x"},
     "must be a simple json path starting with ."),
    ("an unknown field to select by", {V + "selectableFields__0__jsonPath": ".spec.nothing"},
     'spec.versions[0].selectableFields[0].jsonPath: Invalid value: ".spec.nothing": does not refer to a valid field'),
    ("a kind that is its own list", {"spec__names__listKind": "Gadget"}, "kind and listKind may not be the same"),
    ("a short name", {"spec__names__shortNames": ["A b"]}, 'spec.names.shortNames[0]: Invalid value: "A b"'),
    ("a warning without deprecation", {V + "deprecationWarning": "x"},
     "can only be set for deprecated versions"),
    ("the community's own group", {"spec__group": "x.k8s.io", "metadata__name": "gadgets.x.k8s.io"},
     'metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval'),
    ("a webhook that nobody calls", {"spec__conversion": {"strategy": "Webhook"}},
     "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
)  # fmt: skip


def test_what_may_not_change() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        for changes, text in (
            ({"spec__scope": "Cluster"}, 'spec.scope: Invalid value: "Cluster": field is immutable'),
            ({"spec__names__kind": "Other"}, 'spec.names.kind: Invalid value: "Other": field is immutable'),
        ):
            found = (await http.request("GET", f"{CRDS}/{NAME}"))[2]
            wanted = {**spoiled(**changes), "metadata": found["metadata"]}
            status, _, answer = await http.request("PUT", f"{CRDS}/{NAME}", wanted)
            assert status == 422 and text in answer["message"], answer

    with_http(run)


def test_definitions_that_are_refused() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        for name, changes, text in REFUSED:
            status, _, answer = await http.request("POST", CRDS, spoiled(**changes))
            assert status == 422 and text in answer["message"], (name, answer["message"])

    with_http(run)


def test_names_that_are_taken() -> None:
    """The second to ask for a short name is not served, until the first has gone."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        text = json.dumps(definition()).replace("gadget", "widget").replace("Gadget", "Widget")
        assert (await http.request("POST", CRDS, json.loads(text)))[0] == 201
        found: Any = {}
        async with asyncio.timeout(60):
            while not found.get("status", {}).get("conditions"):
                found = (await http.request("GET", f"{CRDS}/widgets.factory.example.com"))[2]
        conditions = [(c["type"], c["status"], c["reason"], c["message"]) for c in found["status"]["conditions"]]
        assert conditions == [
            ("NamesAccepted", "False", "ShortNamesConflict", '"gd" is already in use'),
            ("Established", "False", "NotAccepted", "not all names are accepted"),
        ]
        widgets = "/apis/factory.example.com/v1/widgets"
        assert (await http.request("GET", widgets))[0] == 404
        await http.request("DELETE", f"{CRDS}/{NAME}")
        await established(http, "widgets.factory.example.com")
        assert (await http.request("GET", widgets))[0] == 200

    with_http(run)


# ---------------------------------------------------------------- objects


def test_bodies() -> None:
    """Unknown and repeated fields by fieldValidation, YAML, other kinds and versions, numbers, protobuf."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        odd = b'{"apiVersion":"factory.example.com/v1","kind":"Gadget","metadata":{"name":"a","nope":1},"spec":'
        odd += b'{"colour":"red","colour":"blue","size":1}}'
        message = (
            'Gadget in version "v1" cannot be handled as a Gadget: strict decoding error: duplicate field '
            '"spec.colour", unknown field "metadata.nope", unknown field "spec.size"'
        )
        status, _, answer = await http.request("POST", f"{GADGETS}?fieldValidation=Strict", odd)
        assert (status, answer["message"]) == (400, message)
        status, headers, made = await http.request("POST", GADGETS, odd)
        assert status == 201 and made["spec"] == {"colour": "blue", "replicas": 1} and "nope" not in made["metadata"]
        for text in ('duplicate field \\"spec.colour\\"', 'unknown field \\"spec.size\\"'):
            assert text in headers["Warning"]
        status, headers, _ = await http.request(
            "POST", f"{GADGETS}?fieldValidation=Ignore", odd.replace(b'"a"', b'"b"')
        )
        assert status == 201 and "Warning" not in headers
        written = yaml.safe_dump(gadget("c", replicas=2)).encode()
        status, _, made = await http.request("POST", GADGETS, written, Content_Type="application/yaml")
        assert status == 201 and made["spec"]["replicas"] == 2
        raw = json.dumps(gadget("d")).replace('"red"', '"red","replicas":3.0').encode()
        assert (await http.request("POST", GADGETS, raw))[2]["spec"]["replicas"] == 3
        status, _, answer = await http.request("POST", GADGETS, {**gadget("e"), "kind": "Other"})
        assert status == 422 and 'kind: Invalid value: "Other": must be Gadget' in answer["message"]
        status, _, answer = await http.request("POST", GADGETS, gadget("e", "v1beta1"))
        assert status == 400 and "does not match the expected API version (factory.example.com/v1)" in answer["message"]
        status, _, answer = await http.request("POST", GADGETS, {"metadata": {"name": "e"}})
        assert status == 400 and "Object 'Kind' is missing in" in answer["message"]
        for body in (b"{", b"[]", b"1", b'"x"', b"null", b"{" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000):
            assert (await http.request("POST", GADGETS, body))[0] in (400, 422)
        kind = "application/vnd.kubernetes.protobuf"
        assert (await http.request("POST", GADGETS, b"k8s\0", Content_Type=kind))[0] == 415

    with_http(run)


def test_status_and_generation() -> None:
    """/status writes status alone, not even labels; the main resource leaves it; generation counts the rest."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        body = {**gadget("a"), "status": {"replicas": 7}}
        made = (await http.request("POST", GADGETS, body))[2]
        assert "status" not in made and made["metadata"]["generation"] == 1
        patch = {"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 5}, "status": {"replicas": 2, "odd": 1}}
        done = (await http.request("PATCH", f"{GADGETS}/a/status", patch, **MERGE))[2]
        assert done["status"] == {"replicas": 2} and done["spec"]["replicas"] == 1
        assert "labels" not in done["metadata"] and done["metadata"]["generation"] == 1
        done = (await http.request("PATCH", f"{GADGETS}/a", {**patch, "metadata": {"labels": {"x": "y"}}}, **MERGE))[2]
        assert done["status"] == {"replicas": 2} and done["metadata"]["generation"] == 2
        done = (await http.request("PATCH", f"{GADGETS}/a", {"metadata": {"labels": {"x": "z"}}}, **MERGE))[2]
        assert done["metadata"]["generation"] == 2
        version = done["metadata"]["resourceVersion"]
        again = (await http.request("PATCH", f"{GADGETS}/a", {"metadata": {"labels": {"x": "z"}}}, **MERGE))[2]
        assert again["metadata"]["resourceVersion"] == version  # META-8
        del done["metadata"]["resourceVersion"]
        status, _, answer = await http.request("PUT", f"{GADGETS}/a", done)
        assert status == 422 and "metadata.resourceVersion" in answer["message"]

    with_http(run)


def test_scale() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        await http.request("POST", GADGETS, gadget("a"))
        scale = (await http.request("GET", f"{GADGETS}/a/scale"))[2]
        assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 1} and scale["status"] == {"replicas": 0}
        patch = {"status": {"replicas": 1, "selector": "a=b"}}
        await http.request("PATCH", f"{GADGETS}/a/status", patch, **MERGE)
        scale["spec"]["replicas"] = 4
        del scale["metadata"]["resourceVersion"]
        scale = (await http.request("PUT", f"{GADGETS}/a/scale", scale))[2]
        assert scale["spec"] == {"replicas": 4} and scale["status"] == {"replicas": 1, "selector": "a=b"}
        found = (await http.request("GET", f"{GADGETS}/a"))[2]
        assert found["metadata"]["generation"] == 2 and found["spec"]["replicas"] == 4
        status, _, answer = await http.request("PATCH", f"{GADGETS}/a/scale", {"spec": {"replicas": 11}}, **MERGE)
        assert status == 422 and "should be less than or equal to 10" in answer["message"]
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 2}}
        status, _, _ = await http.request("PATCH", f"{GADGETS}/a/scale?fieldManager=me&force=true", body, **APPLY)
        found = (await http.request("GET", f"{GADGETS}/a"))[2]
        mine = [m for m in found["metadata"]["managedFields"] if m["manager"] == "me"]
        assert status == 200 and found["spec"]["replicas"] == 2
        assert mine[0]["subresource"] == "scale" and mine[0]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}

    with_http(run)


def test_apply_by_the_schema() -> None:
    """Lists with keys are shared item by item, free content field by field, other lists whole."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)

        async def apply(manager: str, *, force: bool = False, **spec: Any) -> tuple[int, Any]:
            body = {**gadget("a"), "spec": spec}
            query = f"?fieldManager={manager}" + ("&force=true" if force else "")
            status, _, answer = await http.request("PATCH", f"{GADGETS}/a{query}", body, **APPLY)
            return status, answer

        one: dict[str, Any] = {"colour": "red", "ports": [{"name": "a", "port": 1}], "extra": {"x": {"y": 1}, "l": [1]}}
        assert (await apply("one", **one))[0] == 201
        status, found = await apply("two", ports=[{"name": "b", "port": "x"}], extra={"x": {"z": 2}})
        assert status == 200 and [p["name"] for p in found["spec"]["ports"]] == ["a", "b"]
        assert found["spec"]["extra"] == {"x": {"y": 1, "z": 2}, "l": [1]}
        status, answer = await apply("two", ports=[{"name": "a", "port": 9}], extra={"l": [2]})
        assert status == 409 and {c["field"] for c in answer["details"]["causes"]} == {
            '.spec.ports[name="a"].port', ".spec.extra.l",
        }  # fmt: skip
        status, found = await apply("two", force=True, ports=[{"name": "a", "port": 9}])
        assert status == 200 and found["spec"]["ports"] == [{"name": "a", "port": 9, "protocol": "TCP"}]
        assert found["spec"]["extra"] == {"x": {"y": 1}, "l": [1]}
        status, answer = await apply("one", **one, nope=1)
        assert status == 500 and ".spec.nope: field not declared in schema" in answer["message"]

    with_http(run)


def test_tables_metadata_and_watches() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        await http.request("POST", GADGETS, gadget("a", ports=[{"name": "w", "port": 1}]))
        found = (await http.request("GET", GADGETS, Accept=TABLE))[2]
        assert [c["name"] for c in found["columnDefinitions"]] == [
            "Name",
            "Colour",
            "Replicas",
            "Ready",
            "Age",
            "Ports",
        ]
        assert found["columnDefinitions"][1]["description"] == "What it looks like."
        cells = found["rows"][0]["cells"]
        assert cells[:4] == ["a", "red", 1, None] and cells[5] == "w"
        older = (await http.request("GET", OLDER, Accept=TABLE))[2]
        assert [c["name"] for c in older["columnDefinitions"]] == ["Name", "Age"]
        listed = (await http.request("GET", GADGETS, Accept=META.format("List")))[2]
        assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]
        everything = (await http.request("GET", "/apis/factory.example.com/v1/gadgets?limit=1"))[2]
        assert everything["kind"] == "GadgetList" and everything["items"][0]["kind"] == "Gadget"
        for path, version in ((GADGETS, "v1"), (OLDER, "v1beta1")):
            seen: list[Any] = []
            watching = asyncio.create_task(http.watch(f"{path}?watch=1&resourceVersion=0", 2, seen=seen))
            await until(lambda seen=seen: seen)  # type: ignore[misc]
            await http.request("PATCH", f"{GADGETS}/a", {"spec": {"notes": {"v": version}}}, **MERGE)
            events = await watching
            assert [(e, o["apiVersion"]) for e, o in events] == [
                ("ADDED", f"factory.example.com/{version}"), ("MODIFIED", f"factory.example.com/{version}"),
            ]  # fmt: skip
            assert ("notes" in events[1][1]["spec"]) is (version == "v1")
        gone = (await http.request("DELETE", f"{GADGETS}?labelSelector=x%3Dy"))[2]
        assert gone["items"] == []
        gone = (await http.request("DELETE", GADGETS))[2]
        assert len(gone["items"]) == 1 and (await http.request("GET", GADGETS))[2]["items"] == []

    with_http(run)


# ---------------------------------------------------------------- versions and changes


def test_two_versions_of_one_object() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        status, headers, made = await http.request("POST", OLDER, gadget("a", "v1beta1", colour="any"))
        assert status == 201 and made["apiVersion"] == "factory.example.com/v1beta1"
        text = "factory.example.com/v1beta1 Gadget is deprecated; use factory.example.com/v1 Gadget"
        assert text in headers["Warning"]
        found = (await http.request("GET", f"{GADGETS}/a"))[2]
        assert found["apiVersion"] == "factory.example.com/v1" and found["spec"]["colour"] == "any"
        await http.request("PATCH", f"{GADGETS}/a", {"spec": {"notes": {"a": "b"}}}, **MERGE)
        found = (await http.request("GET", f"{OLDER}/a"))[2]
        assert found["spec"] == {"colour": "any"}
        managers = {m["apiVersion"] for m in found["metadata"]["managedFields"]}
        assert managers == {"factory.example.com/v1", "factory.example.com/v1beta1"}

    with_http(run)


def test_a_changed_definition() -> None:
    """New defaults show on read, what is no longer known is hidden, streams end, and another version may be stored."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        await http.request("POST", GADGETS, gadget("a", notes={"k": "v"}))
        seen: list[Any] = []
        watching = asyncio.create_task(http.watch(f"{GADGETS}?watch=1", 5, seen=seen))
        await until(lambda: seen)

        def edit(found: Any) -> None:
            fields = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            del fields["notes"]
            fields["level"] = {"type": "integer", "default": 3}
            fields["colour"]["enum"] = ["blue"]

        assert (await change(http, edit))["metadata"]["generation"] == 2
        assert len(await watching) == 1  # the stream ended, in order
        found = (await http.request("GET", f"{GADGETS}/a"))[2]
        assert found["spec"] == {"colour": "red", "replicas": 1, "level": 3}
        listed = (await http.request("GET", GADGETS))[2]["items"][0]
        assert listed["spec"] == found["spec"]
        # red is refused now, but nobody is refused for what was red before
        status, _, done = await http.request("PATCH", f"{GADGETS}/a", {"spec": {"replicas": 2}}, **MERGE)
        assert status == 200 and done["spec"] == {"colour": "red", "replicas": 2, "level": 3}
        assert (await http.request("PATCH", f"{GADGETS}/a", {"spec": {"colour": "green"}}, **MERGE))[0] == 422
        assert (await http.request("POST", GADGETS, gadget("b")))[0] == 422

        def swap(found: Any) -> None:
            first, second = found["spec"]["versions"]
            first["storage"], second["storage"] = False, True
            second["schema"] = first["schema"]

        assert (await change(http, swap))["status"]["storedVersions"] == ["v1", "v1beta1"]
        found = (await http.request("GET", f"{OLDER}/a"))[2]
        assert found["apiVersion"] == "factory.example.com/v1beta1" and found["spec"]["level"] == 3
        version = found["metadata"]["resourceVersion"]
        status, _, done = await http.request("PUT", f"{OLDER}/a", found)
        assert status == 200 and done["metadata"]["resourceVersion"] != version  # stored anew, in the new version

        def drop(found: Any) -> None:
            del found["spec"]["versions"][0]

        found = (await http.request("GET", f"{CRDS}/{NAME}"))[2]
        drop(found)
        status, _, answer = await http.request("PUT", f"{CRDS}/{NAME}", found)
        assert status == 422 and "status.storedVersions[0]" in answer["message"]
        await http.request("PATCH", f"{CRDS}/{NAME}/status", {"status": {"storedVersions": ["v1beta1"]}}, **MERGE)
        await change(http, drop)
        assert (await http.request("GET", f"{GADGETS}/a"))[0] == 404
        assert (await http.request("GET", f"{OLDER}/a"))[0] == 200

    with_http(run)


def test_a_version_that_is_served_no_more() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        etag = (await http.request("GET", "/apis", Accept=AGGREGATED))[1]["ETag"]

        def edit(found: Any) -> None:
            found["spec"]["versions"][1]["served"] = False

        await change(http, edit)
        assert (await http.request("GET", OLDER))[0] == 404
        assert (await http.request("GET", "/apis", Accept=AGGREGATED))[1]["ETag"] != etag

    with_http(run)


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def test_discovery_and_openapi_follow() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        groups = [g["name"] for g in (await http.request("GET", "/apis"))[2]["groups"]]
        index = json.loads((await http.request("GET", "/openapi/v3"))[2])["paths"]
        await serve(http)
        now = (await http.request("GET", "/apis"))[2]["groups"]
        assert [g["name"] for g in now] == [*groups, "factory.example.com"]
        assert [v["version"] for v in now[-1]["versions"]] == ["v1", "v1beta1"]
        assert now[-1]["preferredVersion"]["version"] == "v1"
        found = (await http.request("GET", "/apis", Accept=AGGREGATED))[2]["items"][-1]
        resource = found["versions"][0]["resources"][0]
        assert resource["resource"] == "gadgets" and resource["shortNames"] == ["gd"]
        assert [r["subresource"] for r in resource["subresources"]] == ["scale", "status"]
        paths = json.loads((await http.request("GET", "/openapi/v3"))[2])["paths"]
        path = "apis/factory.example.com/v1"
        assert paths["api/v1"] == index["api/v1"] and path in paths
        url = paths[path]["serverRelativeURL"]
        document = (await http.request("GET", url))[2]
        schema = document["components"]["schemas"]["com.example.factory.v1.Gadget"]
        assert schema["properties"]["spec"]["properties"]["colour"]["enum"] == ["red", "green", "blue"]
        assert schema["x-kubernetes-group-version-kind"] == [
            {"group": "factory.example.com", "kind": "Gadget", "version": "v1"}
        ]
        assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in document["components"]["schemas"]
        patch = document["paths"]["/apis/factory.example.com/v1/namespaces/{namespace}/gadgets/{name}"]["patch"]
        assert len(patch["requestBody"]["content"]) == 3
        second = (await http.request("GET", "/openapi/v2"))[2]["definitions"]
        port = second["com.example.factory.v1.Gadget"]["properties"]["spec"]["properties"]["ports"]["items"]
        assert "type" not in port["properties"]["port"]

        def edit(found: Any) -> None:
            found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Other words."

        await change(http, edit)
        after = json.loads((await http.request("GET", "/openapi/v3"))[2])["paths"]
        assert (
            after[path] != paths[path]
            and after["apis/factory.example.com/v1beta1"] == paths["apis/factory.example.com/v1beta1"]
        )
        assert (await http.request("GET", url))[0] == 301

    with_http(run)


# ---------------------------------------------------------------- ends


def test_the_end_deletes_the_objects() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        held = gadget("held")
        held["metadata"]["finalizers"] = ["example.com/wait"]
        await http.request("POST", GADGETS, held)
        await http.request("POST", GADGETS, gadget("free"))
        seen: list[Any] = []
        watching = asyncio.create_task(http.watch(f"{GADGETS}?watch=1", 9, seen=seen))
        await until(lambda: len(seen) == 2)
        status, _, marked = await http.request("DELETE", f"{CRDS}/{NAME}")
        assert marked["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        terminating = next(c for c in marked["status"]["conditions"] if c["type"] == "Terminating")
        assert terminating["reason"] == "InstanceDeletionPending"
        names: list[str] = []
        async with asyncio.timeout(60):
            while names != ["held"]:
                names = [g["metadata"]["name"] for g in (await http.request("GET", GADGETS))[2]["items"]]
        status, _, answer = await http.request("POST", GADGETS, gadget("late"))
        assert status == 405
        assert answer["message"] == "create not allowed while custom resource definition is terminating"
        await http.request("PATCH", f"{GADGETS}/held", {"metadata": {"finalizers": None}}, **MERGE)
        async with asyncio.timeout(60):
            while (await http.request("GET", f"{CRDS}/{NAME}"))[0] != 404:
                await asyncio.sleep(0.01)
        assert (await http.request("GET", GADGETS))[0] == 404
        assert [e for e, _ in await watching][-1] == "DELETED"  # and then the stream ended
        assert s.kinds.custom == {} and not [p for p in s.cache.by_prefix if "factory" in p]
        await serve(http)
        assert (await http.request("GET", GADGETS))[2]["items"] == []

    with_http(run)


def test_another_server_of_the_same_store() -> None:
    """Kinds survive a restart, and a server serves what another one was given."""

    async def main() -> None:
        store = MemoryStore()
        await store.start()
        first = ApiServer(store, SETTINGS, RealClock(), random.Random(1))
        await first.start()
        second = ApiServer(store, SETTINGS, RealClock(), random.Random(2))
        await second.start()
        try:
            await first.client.create(CUSTOM_RESOURCE_DEFINITION, definition())
            async with asyncio.timeout(60):
                while second.kinds.by_resource("factory.example.com", "v1", "gadgets") is None:
                    await asyncio.sleep(0.01)
            kind = second.kinds.by_resource("factory.example.com", "v1", "gadgets")
            assert kind is not None
            await second.client.create(kind, gadget("a"), "default")
            mine = first.kinds.by_resource("factory.example.com", "v1", "gadgets")
            assert mine is not None and mine is not kind
            async with asyncio.timeout(60):
                while len(first.cache.of(mine).items) < 1:
                    await asyncio.sleep(0.01)
            third = ApiServer(store, SETTINGS, RealClock(), random.Random(3))
            await third.start()
            try:
                again = third.kinds.by_resource("factory.example.com", "v1", "gadgets")
                assert again is not None
                found = await third.client.get(again, "a", "default")
                assert found["spec"]["replicas"] == 1
            finally:
                await third.stop(0.1)
        finally:
            await second.stop(0.1)
            await first.stop(0.1)
            await store.close()

    asyncio.run(main())


def test_what_is_not_there() -> None:
    """As upstream tells of an unknown resource of a custom group, and of a subresource that is not switched on."""

    async def run(s: ApiServer, http: Http) -> None:
        body = definition()
        del body["spec"]["versions"][0]["subresources"]
        await serve(http, body)
        status, _, answer = await http.request("GET", GADGETS.replace("gadgets", "nothings"))
        assert (status, answer) == (404, "404 page not found\n")
        await http.request("POST", GADGETS, gadget("a"))
        status, _, answer = await http.request("PATCH", f"{GADGETS}/a/status", {"status": {}}, **MERGE)
        assert status == 404 and answer["message"] == 'gadgets.factory.example.com "a" not found'
        # without the subresource, status is a field like others
        done = (await http.request("PATCH", f"{GADGETS}/a", {"status": {"replicas": 2}}, **MERGE))[2]
        assert done["status"] == {"replicas": 2} and done["metadata"]["generation"] == 2

    with_http(run)


VALUES: tuple[Any, ...] = (
    None, True, -1, 1.5, 2**63, 2**70, 1e308, "x", "", [], {}, [None], {"a": None}, [[]], "\x00", {"": 1},
)  # fmt: skip
FIELDS = (
    "apiVersion", "kind", "metadata", "spec", "status", "colour", "replicas", "ports", "name", "port", "notes", "extra",
    "labels", "annotations", "finalizers", "ownerReferences", "managedFields", "generateName", "namespace", "uid",
    "generation",
)  # fmt: skip
TYPES = {"merge": "merge-patch+json", "apply": "apply-patch+yaml"}


def spots(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(s for v in value.values() for s in spots(v))]
    return [s for v in value for s in spots(v)] if isinstance(value, list) else []


def test_hostile_bodies() -> None:
    """Wrong values at every path, by every way in: never a bug's 500, and the object stays readable."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        chance = random.Random(5)
        base = gadget("a", ports=[{"name": "a", "port": 1}], extra={"x": [1]})
        assert (await http.request("POST", GADGETS, base))[0] == 201
        for turn in range(300):
            body = copy.deepcopy(base)
            for _ in range(chance.randint(1, 3)):
                chance.choice(spots(body))[chance.choice(FIELDS)] = copy.deepcopy(chance.choice(VALUES))
            way = ("POST", "PUT", "merge", "apply", "status")[turn % 5]
            raw = json.dumps(body).encode()
            if way == "POST":
                answer = await http.request("POST", f"{GADGETS}?dryRun=All", raw)
            elif way == "PUT":
                answer = await http.request("PUT", f"{GADGETS}/a", raw)
            else:
                path = f"{GADGETS}/a/status" if way == "status" else f"{GADGETS}/a?fieldManager=me"
                kind = f"application/{TYPES.get(way, 'merge-patch+json')}"
                answer = await http.request("PATCH", path, raw, Content_Type=kind)
            assert answer[0] < 500 or "see the server's log" not in answer[2]["message"], (way, body)
        assert (await http.request("GET", f"{GADGETS}/a"))[0] == 200
        assert (await http.request("GET", GADGETS, Accept=TABLE))[0] == 200

    with_http(run)


@pytest.mark.parametrize("scope", ["Cluster", "Namespaced"])
def test_scopes(scope: str) -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await serve(http, spoiled(spec__scope=scope))
        everywhere = "/apis/factory.example.com/v1/gadgets"
        path = everywhere if scope == "Cluster" else GADGETS
        assert (await http.request("POST", path, gadget("a")))[0] == 201
        assert (await http.request("GET", f"{path}/a"))[0] == 200
        assert (await http.request("GET", everywhere))[2]["items"][0]["metadata"]["name"] == "a"
        wrong = GADGETS if scope == "Cluster" else everywhere
        assert (await http.request("POST", wrong, gadget("b")))[0] in (404, 405)
        assert (await http.request("POST", "/api/v1/namespaces/default/configmaps", config_map("a")))[0] == 201

    with_http(run)


# ---------------------------------------------------------------- those who stand by


def test_webhooks_and_roles_know_custom_kinds() -> None:
    """A webhook changes and refuses custom objects, and what it writes is pruned and checked; RBAC names their
    resources like any others."""

    def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
        spec = request["object"]["spec"]
        if spec["colour"] == "green":
            return {"allowed": False, "status": {"message": "no green here"}}
        if spec["colour"] == "blue":
            return patching({"op": "add", "path": "/spec/replicas", "value": 99})
        return patching(
            {"op": "add", "path": "/spec/notes", "value": {"seen": request["resource"]["resource"]}},
            {"op": "add", "path": "/spec/nonsense", "value": 1},
        )

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        async with hooked(answer) as hook:
            config = hook.config(rules=[rule("CREATE", "gadgets", "factory.example.com")])
            await configure(s.client, MUTATING_WEBHOOK_CONFIGURATION, config)
            status, _, made = await http.request("POST", GADGETS, gadget("a"))
            assert status == 201 and made["spec"] == {"colour": "red", "replicas": 1, "notes": {"seen": "gadgets"}}
            status, _, answered = await http.request("POST", GADGETS, gadget("b", colour="green"))
            assert status == 400 and answered["message"].endswith("denied the request: no green here")
            status, _, answered = await http.request("POST", GADGETS, gadget("c", colour="blue"))
            assert status == 422 and "less than or equal to 10" in answered["message"]
        role = {
            "metadata": {"name": "painter"},
            "rules": [{"apiGroups": ["factory.example.com"], "resources": ["gadgets/status"], "verbs": ["get"]}],
        }
        await http.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        binding = {
            "metadata": {"name": "painter"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "painter"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
        }
        await http.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        for path, wanted in ((f"{GADGETS}/a/status", 200), (f"{GADGETS}/a", 403), (GADGETS, 403)):
            status, _, answered = await http.request("GET", path, Impersonate_User="ann")
            assert status == wanted, answered
        assert 'cannot list resource "gadgets" in API group "factory.example.com"' in answered["message"]

    with_http(run, replace(SETTINGS, authorization="RBAC"))


def test_webhooks_see_the_version_their_rules_name() -> None:
    """matchPolicy Equivalent: a write of another version reaches a webhook as one of the version that it asks for."""
    paint = patching({"op": "replace", "path": "/spec/colour", "value": "grey"})

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        async with hooked(lambda path, request: paint) as hook:
            rules = [rule("CREATE UPDATE DELETE", "gadgets", "factory.example.com", apiVersions=["v1"])]
            exact = hook.config("exact.example.com", "/exact", rules=rules, matchPolicy="Exact")
            any_version = hook.config("any.example.com", "/any", rules=rules)
            await configure(s.client, MUTATING_WEBHOOK_CONFIGURATION, exact, any_version)
            status, _, made = await http.request("POST", OLDER, gadget("a", "v1beta1"))
            assert status == 201 and made["apiVersion"].endswith("/v1beta1") and made["spec"]["colour"] == "grey", made
            assert await http.request("DELETE", f"{OLDER}/a") and len(hook.asked) == 2
            for (path, request), (new, old) in zip(hook.asked, (("object", None), (None, "oldObject")), strict=True):
                assert path.startswith("/any")
                assert (request["kind"]["version"], request["requestKind"]["version"]) == ("v1", "v1beta1")
                assert (request["resource"]["version"], request["requestResource"]["version"]) == ("v1", "v1beta1")
                given = {side: request[side] and request[side]["apiVersion"] for side in ("object", "oldObject")}
                assert given == {s: "factory.example.com/v1" if s in (new, old) else None for s in given}
            await http.request("POST", GADGETS, gadget("b"))
            assert [path.partition("?")[0] for path, _ in hook.asked[2:]] == ["/exact", "/any"]

    with_http(run)


def test_a_webhook_converts_between_versions() -> None:
    """v1beta1 says `color`, v1 `colour`: reads, lists, watches, Tables and writes of both; a webhook that fails."""
    broken = False

    def convert(path: str, request: dict[str, Any]) -> bytes:
        out = []
        for obj in request["objects"]:
            spec = dict(obj["spec"])
            old, new = ("color", "colour") if request["desiredAPIVersion"].endswith("/v1") else ("colour", "color")
            if old in spec:
                spec[new] = spec.pop(old)
            meta = {**obj["metadata"], "uid": "forged", "labels": {"converted": "yes"}}
            out.append({**obj, "apiVersion": request["desiredAPIVersion"], "spec": spec, "metadata": meta})
        result = {"status": "Failure", "message": "out of paint"} if broken else {"status": "Success"}
        review = {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1"}
        response = {"uid": request["uid"], "result": result, "convertedObjects": out}
        return json.dumps({**review, "response": response}).encode()

    async def run(s: ApiServer, http: Http) -> None:
        nonlocal broken
        async with hooked(convert) as hook:
            body = definition()
            config = hook.config()["clientConfig"]
            body["spec"]["conversion"] = {
                "strategy": "Webhook",
                "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1"]},
            }
            older = body["spec"]["versions"][1]
            fields = older["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            fields["color"] = fields.pop("colour")
            older["additionalPrinterColumns"] = [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]
            await serve(http, body)
            wanted = {**gadget("a", "v1beta1"), "spec": {"color": "red"}}
            status, _, made = await http.request("POST", OLDER, wanted)
            assert status == 201 and made["spec"] == {"color": "red"}, made
            found = (await http.request("GET", f"{GADGETS}/a"))[2]
            assert found["spec"]["colour"] == "red" and found["metadata"]["uid"] == made["metadata"]["uid"]
            assert found["metadata"]["labels"] == {"converted": "yes"}
            await http.request("POST", GADGETS, gadget("b", colour="blue"))
            listed = (await http.request("GET", OLDER))[2]["items"]
            assert [i["spec"] for i in listed] == [{"color": "red"}, {"color": "blue"}]
            rows = (await http.request("GET", OLDER, Accept=TABLE))[2]["rows"]
            assert [r["cells"][1] for r in rows] == ["red", "blue"]
            seen: list[Any] = []
            watching = asyncio.create_task(http.watch(f"{OLDER}?watch=1&resourceVersion=0", 3, seen=seen))
            await until(lambda: len(seen) == 2)
            patch = {"spec": {"color": "green"}}
            status, _, done = await http.request("PATCH", f"{OLDER}/b", patch, **MERGE)
            assert status == 200 and done["spec"] == {"color": "green"}, done
            assert [o["spec"]["color"] for _, o in await watching] == ["red", "blue", "green"]
            assert (await http.request("GET", f"{GADGETS}/b"))[2]["spec"]["colour"] == "green"
            broken = True
            await http.request("PATCH", f"{GADGETS}/b", {"spec": {"replicas": 5}}, **MERGE)
            status, _, answer = await http.request("GET", f"{OLDER}/b")
            text = "conversion webhook for factory.example.com/v1, Kind=Gadget failed: out of paint"
            assert (status, answer["message"]) == (500, text)
            broken = False
            assert (await http.request("DELETE", f"{OLDER}/b"))[0] == 200
            assert (await http.request("DELETE", f"{CRDS}/{NAME}"))[0] == 200

    with_http(run)


def test_fields_are_sent_in_the_order_of_their_names() -> None:
    """READ-3 for what has no type: items of lists say what they are, and lists always tell how they go on."""

    async def run(s: ApiServer, http: Http) -> None:
        await serve(http)
        for name in ("a", "b"):
            await http.request("POST", GADGETS, gadget(name, ports=[{"name": "w", "port": 1}]))

        def in_order(value: Any) -> Any:
            if isinstance(value, dict):
                assert list(value) == sorted(value)
                return {k: in_order(v) for k, v in value.items()}
            return [in_order(v) for v in value] if isinstance(value, list) else value

        for path in (f"{GADGETS}/a", GADGETS, f"{GADGETS}?limit=1", f"{GADGETS}?limit=1&pretty=true"):
            found = (await http.request("GET", path))[2]
            assert in_order(found) == found and next(iter(found)) == "apiVersion"
            if "items" in found:
                assert {(i["apiVersion"], i["kind"]) for i in found["items"]} == {(found["apiVersion"], "Gadget")}
                assert bool(found["metadata"]["continue"]) is ("limit" in path)
        for event in await http.watch(f"{GADGETS}?watch=true&resourceVersion=0&timeoutSeconds=1", 2):
            in_order(event[1])

    with_http(run)
