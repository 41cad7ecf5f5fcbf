"""Rules of custom kinds (`x-kubernetes-validations`) over HTTP: at creation, by every kind of write, and of status."""

from __future__ import annotations

import copy
from typing import Any

from kubesvc.apiserver.apiserver import ApiServer

from .running import Http, with_http
from .test_custom_kinds import APPLY, CRDS, MERGE, established

GATES = "/apis/net.example.com/v1/namespaces/default/gates"
LISTENERS = {
    "type": "array",
    "maxItems": 64,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "x-kubernetes-validations": [
        {
            "message": "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
            "rule": "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
        },
        {
            "message": "Combination of port, protocol and hostname must be unique for each listener",
            "rule": "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && "
            "(has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : "
            "!has(l1.hostname) && !has(l2.hostname))))",
        },
    ],
    "items": {
        "type": "object",
        "required": ["name", "port"],
        "properties": {
            "name": {"type": "string"},
            "port": {
                "type": "integer",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "a port stays what it is"}],
            },
            "protocol": {"type": "string", "default": "HTTP"},
            "hostname": {"type": "string"},
            "tls": {"type": "object", "properties": {"mode": {"type": "string"}}},
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "x-kubernetes-validations": [
        {"rule": "self.metadata.name.size() < 10", "messageExpression": "'name ' + self.metadata.name + ' is too long'"}
    ],
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "listeners": LISTENERS,
                "timeouts": {
                    "type": "object",
                    "properties": {"request": {"type": "string"}, "back-end": {"type": "string"}},
                    "x-kubernetes-validations": [
                        {
                            "rule": "!(has(self.request) && has(self.back__dash__end)) || "
                            "duration(self.back__dash__end) <= duration(self.request)",
                            "reason": "FieldValueForbidden",
                            "fieldPath": "['back-end']",
                            "message": "must not be longer than the whole",
                        }
                    ],
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {"ready": {"type": "integer"}, "wanted": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.ready <= self.wanted"}],
        },
    },
}


def definition(schema: Any = SCHEMA) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gates.net.example.com"},
        "spec": {
            "group": "net.example.com",
            "scope": "Namespaced",
            "names": {"plural": "gates", "kind": "Gate"},
            "versions": [{**version, "schema": {"openAPIV3Schema": copy.deepcopy(schema)}}],
        },
    }


def gate(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "net.example.com/v1", "kind": "Gate", "metadata": {"name": name}, "spec": spec}


def listener(name: str, port: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, **more}


def test_rules_hold_for_every_write() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        status, headers, made = await http.request("POST", CRDS, definition())
        assert status == 201 and "Warning" not in headers, made
        await established(http, "gates.net.example.com")
        bad = gate("a", listeners=[listener("x", 80, tls={}), listener("y", 80)])
        for path in (GATES, f"{GATES}?dryRun=All"):
            status, _, told = await http.request("POST", path, bad)
            assert (status, told["reason"]) == (422, "Invalid")
            assert told["message"] == (
                'Gate.net.example.com "a" is invalid: [spec.listeners: Invalid value: "array": tls must not be '
                "specified for protocols ['HTTP', 'TCP', 'UDP'], "
                'spec.listeners: Invalid value: "array": Combination of '
                "port, protocol and hostname must be unique for each listener]"
            )
        assert [c["reason"] for c in told["details"]["causes"]] == ["FieldValueInvalid"] * 2
        status, _, told = await http.request("POST", GATES, gate("much-too-long"))
        assert told["message"] == (
            'Gate.net.example.com "much-too-long" is invalid: <nil>: Invalid value: "object": name much-too-long is '
            "too long"
        )
        status, _, told = await http.request("POST", GATES, gate("t", timeouts={"request": "1s", "back-end": "2s"}))
        cause = {
            "reason": "FieldValueForbidden", "field": "spec.timeouts.back-end",
            "message": "Forbidden: must not be longer than the whole",
        }  # fmt: skip
        assert (status, told["details"]["causes"]) == (422, [cause])
        good = gate("a", listeners=[listener("x", 80), listener("y", 443)])
        assert (await http.request("POST", GATES, good))[0] == 201
        # A port is known by its listener's name, wherever that stands in the list.
        turned = {"spec": {"listeners": [listener("y", 443), listener("x", 80), listener("z", 8080)]}}
        assert (await http.request("PATCH", f"{GATES}/a", turned, **MERGE))[0] == 200
        moved = {"spec": {"listeners": [listener("y", 444)]}}
        words = 'Invalid value: "integer": a port stays what it is'
        status, _, told = await http.request("PATCH", f"{GATES}/a", moved, **MERGE)
        assert (status, told["details"]["causes"][0]["field"]) == (422, "spec.listeners[0].port")
        status, _, told = await http.request(
            "PATCH", f"{GATES}/a?fieldManager=me&force=true", gate("a", listeners=[listener("y", 444)]), **APPLY
        )
        assert status == 422 and words in told["message"]
        found = (await http.request("GET", f"{GATES}/a"))[2]
        status, _, told = await http.request("PUT", f"{GATES}/a/status", {**found, "status": {"ready": 2, "wanted": 1}})
        assert told["message"] == (
            'Gate.net.example.com "a" is invalid: status: Invalid value: "object": failed rule: '
            "self.ready <= self.wanted"
        )
        assert (await http.request("PATCH", f"{GATES}/a/status", {"status": {"ready": 1, "wanted": 1}}, **MERGE))[
            0
        ] == 200

    with_http(run)


def test_what_was_wrong_before_stays_with_a_warning() -> None:
    """A rule that came later is not held against what a write leaves as it was."""

    async def run(s: ApiServer, http: Http) -> None:
        lax = copy.deepcopy(SCHEMA)
        lax["properties"]["spec"]["properties"]["listeners"].pop("x-kubernetes-validations")
        await http.request("POST", CRDS, definition(lax))
        await established(http, "gates.net.example.com")
        assert (await http.request("POST", GATES, gate("a", listeners=[listener("x", 80, tls={})])))[0] == 201
        found = (await http.request("GET", f"{CRDS}/gates.net.example.com"))[2]
        found["spec"]["versions"] = definition()["spec"]["versions"]
        assert (await http.request("PUT", f"{CRDS}/gates.net.example.com", found))[0] == 200
        status, headers, _ = await http.request("PATCH", f"{GATES}/a", {"metadata": {"labels": {"a": "b"}}}, **MERGE)
        assert status == 200 and "tls must not be specified" in headers["Warning"]
        body = {"spec": {"listeners": [listener("x", 80, tls={"mode": "Terminate"})]}}
        assert (await http.request("PATCH", f"{GATES}/a", body, **MERGE))[0] == 422

    with_http(run)


def test_rules_that_do_not_compile_are_refused() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        schema = copy.deepcopy(SCHEMA)
        schema["properties"]["spec"]["x-kubernetes-validations"] = [{"rule": "self.lsteners.size() > 0"}]
        status, _, told = await http.request("POST", CRDS, definition(schema))
        assert status == 422
        [cause] = told["details"]["causes"]
        assert cause["field"] == "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"
        assert cause["message"] == (
            'Invalid value: {"Rule":"self.lsteners.size() \\u003e 0","Message":"","MessageExpression":"","Reason":null,'
            '"FieldPath":"","OptionalOldSelf":null}: compilation failed: ERROR: <input>:1:5: undefined field '
            "'lsteners'\n | self.lsteners.size() > 0\n | ....^"
        )

    with_http(run)
