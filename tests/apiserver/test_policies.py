"""ValidatingAdmissionPolicies and webhooks' match conditions at work, over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.errors import ApiError, Forbidden
from kubesvc.api.kinds import CONFIG_MAP, VALIDATING_WEBHOOK_CONFIGURATION
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.client.interface import Client

from .running import SETTINGS, Http, with_http
from .test_custom_kinds import MERGE
from .test_webhooks import Hook, configure, rule, with_hook

GROUP = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{GROUP}/validatingadmissionpolicies", f"{GROUP}/validatingadmissionpolicybindings"
MAPS = "/api/v1/namespaces/default/configmaps"
RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]


def holding(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap with these data."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **({"data": data} if data else {})}


def policy(name: str, *validations: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": RULES}, "validations": list(validations), **spec},
    }


def binding(name: str, policy: str, *actions: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": policy, "validationActions": list(actions or ("Deny",)), **spec},
    }


async def enact(http: Http, given: dict[str, Any], *bindings: dict[str, Any]) -> None:
    for path, body in ((POLICIES, given), *((BINDINGS, b) for b in bindings)):
        status, headers, made = await http.request("POST", path, body)
        assert status == 201 and "Warning" not in headers, made


async def tried(http: Http, name: str, path: str = MAPS, **data: str) -> tuple[int, dict[str, Any], Any]:
    return await http.request("POST", path, holding(name, **data))


def test_a_policy_denies_what_it_does_not_allow() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        small = {"expression": "object.data.size() <= 1", "messageExpression": "'has ' + string(object.data.size())"}
        named = {"expression": "object.metadata.name.startsWith('team-')", "reason": "Forbidden"}
        await enact(http, policy("small", small, named), binding("small-here", "small"))
        status, _, told = await tried(http, "team-a", a="1", b="2")
        message = "ValidatingAdmissionPolicy 'small' with binding 'small-here' denied request: has 2"
        assert (status, told["reason"], told["code"]) == (422, "Invalid", 422)
        assert told["message"] == f'configmaps "team-a" is forbidden: {message}'
        assert told["details"] == {"name": "team-a", "kind": "configmaps", "causes": [{"message": message}]}
        status, _, told = await tried(http, "a", a="1")
        assert (status, told["reason"]) == (403, "Forbidden")
        assert told["message"].endswith("denied request: failed expression: object.metadata.name.startsWith('team-')")
        assert (await tried(http, "team-a", a="1"))[0] == 201
        status, _, _ = await http.request("PATCH", f"{MAPS}/team-a?dryRun=All", {"data": {"b": "2"}}, **MERGE)
        assert status == 422
        assert (await http.request("DELETE", f"{POLICIES}/small"))[0] == 200
        assert (await tried(http, "b", a="1", b="2"))[0] == 201

    with_http(run)


def test_warnings_parameters_variables_and_conditions() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await enact(
            http,
            policy(
                "most",
                {"expression": "variables.size <= variables.most", "message": "too many"},
                paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
                matchConditions=[{"name": "a", "expression": "!object.metadata.name.startsWith('kube-') && "
                                  "object.metadata.name != 'limits' && request.userInfo.username != ''"}],
                variables=[{"name": "size", "expression": "has(object.data) ? object.data.size() : 0"},
                           {"name": "most", "expression": "int(params.data.most)"}],
            ),
            binding("w", "most", "Warn", paramRef={"name": "limits", "parameterNotFoundAction": "Deny"}),
        )  # fmt: skip
        status, _, told = await tried(http, "a")
        assert status == 422 and told["message"].endswith(
            "with binding 'w' denied request: failed to configure binding: no params found for policy binding with "
            "`Deny` parameterNotFoundAction"
        )
        # The limits are a ConfigMap, too, and none of their own business.
        await http.request("DELETE", f"{BINDINGS}/w")
        assert (await tried(http, "limits", most="1"))[0] == 201
        await http.request(
            "POST",
            BINDINGS,
            binding("w", "most", "Warn", paramRef={"name": "limits", "parameterNotFoundAction": "Deny"}),
        )
        status, headers, _ = await tried(http, "a", a="1", b="2")
        assert status == 201
        assert "Validation failed for ValidatingAdmissionPolicy 'most' with binding 'w': too many" in headers["Warning"]
        status, headers, _ = await tried(http, "b", a="1")
        assert status == 201 and "Warning" not in headers
        # What cannot be evaluated is against a write, unless the policy is to be passed by.
        assert (await http.request("PATCH", f"{MAPS}/limits", {"data": {"most": "x"}}, **MERGE))[0] == 200
        status, headers, _ = await tried(http, "c", a="1")
        assert status == 201 and "strconv.ParseInt" in headers["Warning"]
        spec = {"spec": {"failurePolicy": "Ignore"}}
        assert (await http.request("PATCH", f"{POLICIES}/most", spec, **MERGE))[0] == 200
        status, headers, _ = await tried(http, "d", a="1")
        assert status == 201 and "Warning" not in headers

    with_http(run)


def test_what_expressions_know_of_a_write() -> None:
    """Whoever deletes, what was there before, the namespace, and what somebody else may do."""

    async def run(s: ApiServer, http: Http) -> None:
        await http.request("POST", "/api/v1/namespaces", {"metadata": {"name": "n", "labels": {"keep": "yes"}}})
        path = "/api/v1/namespaces/n/configmaps"
        await tried(http, "a", path)
        kept = {"expression": "!(request.operation == 'DELETE' && oldObject.metadata.name == 'a' && object == null && "
                "namespaceObject.metadata.labels[?'keep'].orValue('') == 'yes')", "message": "is kept"}  # fmt: skip
        may = {"expression": "authorizer.requestResource.check('update').allowed() && !authorizer.serviceAccount("
               "'n', 'nobody').group('').resource('pods').namespace('n').check('create').allowed()"}  # fmt: skip
        await enact(http, policy("kept", kept, may), binding("kept", "kept"))
        status, _, told = await http.request("DELETE", f"{path}/a")
        assert status == 422 and told["message"].endswith("denied request: is kept")
        assert (await tried(http, "b", path))[0] == 201
        assert (await http.request("DELETE", f"{path}/b"))[0] == 200

    with_http(run, replace(SETTINGS, authorization="RBAC"))


def test_the_audit_log_is_told(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"

    async def run(s: ApiServer, http: Http) -> None:
        noted = {"key": "size", "valueExpression": "'has ' + string(object.data.size())"}
        silent = {"key": "silent", "valueExpression": "null"}
        wrong = {"expression": "false", "message": "no"}
        await enact(
            http, policy("told", wrong, auditAnnotations=[noted, silent]), binding("told", "told", "Audit", "Warn")
        )
        status, headers, _ = await tried(http, "a", a="1")
        assert status == 201 and "Validation failed for" in headers["Warning"]

    with_http(run, replace(SETTINGS, audit_log=str(log)))
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    [event] = [e for e in events if (e["stage"] == "ResponseComplete" and e.get("objectRef", {}).get("name") == "a")
               or (e["requestURI"] == MAPS and e["stage"] == "ResponseComplete")]  # fmt: skip
    notes = {k: v for k, v in event["annotations"].items() if not k.startswith("authorization")}
    assert notes.pop("told/size") == "has 1"
    [failure] = json.loads(notes.pop("validation.policy.admission.k8s.io/validation_failure"))
    assert failure == {
        "message": "no", "policy": "told", "binding": "told", "expressionIndex": 0, "validationActions": ["Audit",
        "Warn"],
    }  # fmt: skip
    assert not notes


def test_dear_expressions_are_evaluated_beside() -> None:
    """What costs more than requests wait for each other goes to a thread, and asks about rights all the same."""

    async def run(s: ApiServer, http: Http) -> None:
        dear = "lists.range(40000).all(x, x >= 0 && x < 100000 && x != -1)"
        nobody = "authorizer.serviceAccount('default', 'nobody').group('').resource('pods')"
        rights = f"!{nobody}.check('create').allowed()"
        await enact(
            http,
            policy("dear", {"expression": f"{dear} && {rights}"}, {"expression": f"!({rights})", "message": "may not"}),
            binding("dear", "dear"),
        )
        status, _, told = await tried(http, "a")
        assert status == 422 and told["message"].endswith("denied request: may not")
        await http.request("DELETE", f"{POLICIES}/dear")
        # Beyond upstream's limit it ends.
        much = {"expression": "lists.range(100000).all(x, lists.range(100).all(y, x + y >= 0))"}
        await enact(http, policy("much", much), binding("much", "much"))
        status, _, told = await tried(http, "a")
        assert status == 422 and told["message"].endswith(
            f"expression '{much['expression']}' resulted in error: operation cancelled: actual cost limit exceeded"
        )

    with_http(run, replace(SETTINGS, authorization="RBAC"))


def test_expressions_that_do_not_compile_are_refused() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, _, told = await http.request("POST", POLICIES, policy("x", {"expression": "object.x == params.y"}))
        assert status == 422 and [c["field"] for c in told["details"]["causes"]] == ["spec.validations[0].expression"]
        assert told["details"]["causes"][0]["message"] == (
            'Invalid value: "object.x == params.y": compilation failed: ERROR: <input>:1:13: undeclared reference to '
            "'params' (in container '')\n | object.x == params.y\n | ............^"
        )
        status, _, told = await http.request("POST", POLICIES, policy("x", {"expression": "1 + 1"}))
        assert told["details"]["causes"][0]["message"] == 'Invalid value: "1 + 1": must evaluate to bool'
        webhook = {
            "name": "w.example.com", "clientConfig": {"url": "https://x"}, "sideEffects": "None", "rules": [],
            "admissionReviewVersions": ["v1"], "matchConditions": [{"name": "a", "expression": "variables.x"}],
        }  # fmt: skip
        body = {"metadata": {"name": "w"}, "webhooks": [webhook]}
        status, _, told = await http.request("POST", f"{GROUP}/validatingwebhookconfigurations", body)
        assert status == 422
        assert told["details"]["causes"][0]["field"] == "webhooks[0].matchConditions[0].expression"

    with_http(run)


def test_match_conditions_of_webhooks() -> None:
    def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
        return {"allowed": False, "status": {"message": "no"}}

    async def run(s: ApiServer, client: Client, hook: Hook) -> None:
        conditions = [{"name": "big", "expression": "object.data.size() > 1"}]
        config = hook.config(matchConditions=conditions, rules=[rule("CREATE", "configmaps")])
        await configure(client, VALIDATING_WEBHOOK_CONFIGURATION, config)
        await client.create(CONFIG_MAP, placed(holding("small", a="1")))
        assert not hook.asked
        with pytest.raises(ApiError, match="denied the request: no"):
            await client.create(CONFIG_MAP, placed(holding("big", a="1", b="2")))
        with pytest.raises(Forbidden) as refused:
            await client.create(CONFIG_MAP, placed(holding("odd")))
        why = "expression 'object.data.size() > 1' resulted in error: no such key: data"
        assert refused.value.message == f'configmaps "odd" is forbidden: {why}'
        assert len(hook.asked) == 1

    with_hook(answer, run)


def placed(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "namespace": "default"}}
