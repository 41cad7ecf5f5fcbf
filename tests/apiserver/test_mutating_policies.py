"""MutatingAdmissionPolicies at work, over HTTP: configurations, operations, the order of both, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.cel.values import StructMap
from kubesvc.api.policyexpressions import Failed
from kubesvc.apiserver.apiserver import ApiServer

from .running import Http, pod, with_http
from .test_custom_kinds import MERGE
from .test_policies import GROUP, MAPS, RULES, holding

POLICIES, BINDINGS = f"{GROUP}/mutatingadmissionpolicies", f"{GROUP}/mutatingadmissionpolicybindings"
PODS = "/api/v1/namespaces/default/pods"
POD_RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


def applying(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patching(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def policy(name: str, *mutations: dict[str, Any], rules: Any = RULES, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": rules}, "mutations": list(mutations), "reinvocationPolicy": "Never",
            **spec,
        },
    }  # fmt: skip


async def enact(http: Http, given: dict[str, Any], **spec: Any) -> None:
    name = given["metadata"]["name"]
    binding = {"metadata": {"name": f"{name}-here"}, "spec": {"policyName": name, **spec}}
    for path, body in ((POLICIES, given), (BINDINGS, binding)):
        status, headers, made = await http.request("POST", path, body)
        assert status == 201 and "Warning" not in headers, made


def test_objects_become_what_policies_want() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        labelled = applying("Object{metadata: Object.metadata{labels: {'size': string(variables.size)}}}")
        await enact(
            http,
            policy("a", labelled, variables=[{"name": "size", "expression": "object.data.size()"}],
                   matchConditions=[{"name": "data", "expression": "has(object.data)"}]),
        )  # fmt: skip
        # Later ones see what earlier ones left; a test that fails leaves everything as it is.
        doubled = patching(
            "[JSONPatch{op: 'test', path: '/metadata/labels/size', value: '1'}, JSONPatch{op: 'add', path: '/data/' + "
            "jsonpatch.escapeKey('a.b'), value: object.metadata.labels['size'] + 'x'}]"
        )
        await enact(http, policy("b", doubled, failurePolicy="Ignore"))
        status, _, made = await http.request("POST", MAPS, holding("one", k="v"))
        assert status == 201 and made["metadata"]["labels"] == {"size": "1"} and made["data"] == {"k": "v", "a.b": "1x"}
        status, _, made = await http.request("POST", MAPS, holding("two", k="v", l="w"))
        assert status == 201 and made["metadata"]["labels"] == {"size": "2"} and made["data"] == {"k": "v", "l": "w"}
        status, _, made = await http.request("POST", MAPS, holding("none"))
        assert status == 201 and "labels" not in made["metadata"]
        status, _, made = await http.request("PATCH", f"{MAPS}/two", {"data": {"m": "x"}}, **MERGE)
        assert status == 200 and made["metadata"]["labels"] == {"size": "3"}

    with_http(run)


def test_configurations_are_merged_by_the_schema() -> None:
    """Containers are known by their names, and what is replaced as a whole cannot be changed in part."""

    async def run(s: ApiServer, http: Http) -> None:
        image = "object.spec.containers.map(c, Object.spec.containers{name: c.name, imagePullPolicy: 'Never'})"
        env = "[Object.spec.initContainers.env{name: 'A'}]"
        extra = f"[Object.spec.initContainers{{name: 'first', image: 'x', env: {env}}}]"
        body = policy(
            "pods", applying(f"Object{{spec: Object.spec{{containers: {image}, initContainers: {extra}}}}}"),
            rules=POD_RULES,
        )  # fmt: skip
        await enact(http, body)
        status, _, made = await http.request("POST", PODS, pod("p"))
        assert status == 201, made
        [container] = made["spec"]["containers"]
        assert (container["imagePullPolicy"], container["image"]) == ("Never", "registry.example/app:1")
        assert made["spec"]["initContainers"][0]["terminationMessagePath"] == "/dev/termination-log"  # defaults follow
        await http.request("DELETE", f"{POLICIES}/pods")
        atomic = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}"
        await enact(http, policy("atomic", applying(atomic), rules=POD_RULES))
        status, _, told = await http.request("POST", PODS, pod("q"))
        assert (status, told["reason"]) == (422, "Invalid")
        assert told["message"].startswith(
            "policy 'atomic' with binding 'atomic-here' denied request: error applying patch: invalid "
            "ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
        )

    with_http(run)


def test_what_cannot_be_evaluated() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        wrong = patching("[JSONPatch{op: 'add', path: '/data/x', value: object.data.missing}]")
        await enact(http, policy("w", wrong))
        status, _, told = await http.request("POST", MAPS, holding("a", k="v"))
        assert status == 422 and told["message"].startswith(
            "policy 'w' with binding 'w-here' denied request: expression '"
        )
        assert told["message"].endswith("resulted in error: no such key: missing")
        assert [c["message"] for c in told["details"]["causes"]] == [told["message"]]
        lax = {"spec": {"failurePolicy": "Ignore"}}
        assert (await http.request("PATCH", f"{POLICIES}/w", lax, **MERGE))[0] == 200
        assert (await http.request("POST", MAPS, holding("a", k="v")))[0] == 201
        for mutation, text in (
            (applying("1"), "must evaluate to Object"),
            (patching("[1]"), "must evaluate to list(JSONPatch)"),
            (
                patching("[JSONPatch{op: 1, path: ''}]"),
                "expected type of field 'op' is 'string' but provided type is 'int'",
            ),
            (applying("Thing{}"), "undeclared reference to 'Thing' (in container '')"),
        ):
            status, _, told = await http.request("POST", POLICIES, policy("x", mutation))
            assert status == 422 and text in told["message"], told
            assert ".expression" in told["details"]["causes"][0]["field"]

    with_http(run)


def test_who_wants_it_is_asked_again() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        count = patching("[JSONPatch{op: 'add', path: '/data/n', value: string(object.data.size())}]")
        await enact(http, policy("a", count, reinvocationPolicy="IfNeeded"))
        await enact(http, policy("b", applying("Object{data: {'late': 'x'}}")))
        status, _, made = await http.request("POST", MAPS, holding("a", k="v"))
        assert status == 201 and made["data"] == {"k": "v", "late": "x", "n": "3"}

    with_http(run)


def test_names_of_objects_follow_their_places() -> None:
    from kubesvc.api.mutationexpressions import check_names

    inner, outer = StructMap("Object.other"), StructMap("Object")
    outer["spec"] = inner
    with pytest.raises(Failed, match="unexpected type name"):
        check_names(outer, "Object")
    outer["spec"] = [StructMap("Object.spec")]
    check_names(outer, "Object")
