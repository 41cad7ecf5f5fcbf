"""What the audit log tells, by policy."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.audit import AuditLog, Rotation
from kubesvc.apiserver.auditpolicy import STAGES, BadPolicy, Policy, parse_policy, read_policy, simple_policy
from kubesvc.apiserver.authentication import User
from kubesvc.apiserver.calls import Call
from kubesvc.apiserver.routing import parse_target
from kubesvc.clock import RealClock

from .running import SETTINGS, Http, config_map, running, with_http

ALICE = User("alice", groups=("devs", "system:authenticated"))
CONFIGS = "/api/v1/namespaces/default/configmaps"


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    problems: list[str] = []
    document = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}
    parsed = parse_policy(document, problems)
    assert not problems, problems
    return parsed


def of(**rule: Any) -> dict[str, Any]:
    return {"level": "Metadata", **rule}


PODS, ONE = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/p"
FITTING = (
    # a rule, a request of alice of the group devs, whether it fits
    ("everything", of(), "GET", PODS, True),
    ("the user", of(users=["bob", "alice"]), "GET", PODS, True),
    ("another user", of(users=["bob"]), "GET", PODS, False),
    ("a group", of(userGroups=["devs"]), "GET", PODS, True),
    ("another group", of(userGroups=["ops"]), "GET", PODS, False),
    ("the verb", of(verbs=["list"]), "GET", PODS, True),
    ("another verb", of(verbs=["get", "watch"]), "GET", PODS, False),
    ("a watch", of(verbs=["watch"]), "WATCH", PODS, True),
    ("the namespace", of(namespaces=["default"]), "GET", PODS, True),
    ("another namespace", of(namespaces=["kube-system"]), "GET", PODS, False),
    ("no namespace", of(namespaces=[""]), "GET", "/api/v1/nodes", True),
    ("no namespace, but there is one", of(namespaces=[""]), "GET", PODS, False),
    ("a namespace is not a path's", of(namespaces=["default"]), "GET", "/healthz", False),
    ("the resource", of(resources=[{"group": "", "resources": ["pods"]}]), "GET", PODS, True),
    ("another resource", of(resources=[{"group": "", "resources": ["services"]}]), "GET", PODS, False),
    ("the group's resources", of(resources=[{"group": ""}]), "GET", PODS, True),
    ("another group's", of(resources=[{"group": "apps"}]), "GET", PODS, False),
    ("one of several", of(resources=[{"group": "apps"}, {"resources": ["pods"]}]), "GET", PODS, True),
    ("all resources", of(resources=[{"group": "", "resources": ["*"]}]), "GET", f"{ONE}/status", True),
    ("a resource is not its subresource", of(resources=[{"resources": ["pods"]}]), "GET", f"{ONE}/log", False),
    ("the subresource", of(resources=[{"resources": ["pods/log"]}]), "GET", f"{ONE}/log", True),
    ("any subresource", of(resources=[{"resources": ["pods/*"]}]), "GET", f"{ONE}/log", True),
    ("any subresource is not the resource", of(resources=[{"resources": ["pods/*"]}]), "GET", ONE, False),
    ("a subresource of any", of(resources=[{"resources": ["*/log"]}]), "GET", f"{ONE}/log", True),
    ("a name", of(resources=[{"resources": ["pods"], "resourceNames": ["p"]}]), "GET", ONE, True),
    ("another name", of(resources=[{"resources": ["pods"], "resourceNames": ["q"]}]), "GET", ONE, False),
    ("a path", of(nonResourceURLs=["/healthz"]), "GET", "/healthz", True),
    ("a longer path", of(nonResourceURLs=["/healthz"]), "GET", "/healthz/ping", False),
    ("a path with a star", of(nonResourceURLs=["/healthz*"]), "GET", "/healthz/ping", True),
    ("any path", of(nonResourceURLs=["*"]), "GET", "/anything", True),
    ("a path is no resource", of(nonResourceURLs=["/api*"]), "GET", PODS, False),
    ("all of it together", of(users=["alice"], verbs=["get"], namespaces=["default"]), "GET", PODS, False),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rule", "method", "path", "fits"), FITTING, ids=lambda v: v if isinstance(v, str) else ""
)
def test_which_requests_a_rule_is_about(name: str, rule: dict[str, Any], method: str, path: str, fits: bool) -> None:
    target = parse_target("GET", path, watch=True) if method == "WATCH" else parse_target(method, path, watch=False)
    found = policy(rule).rule_for(ALICE, target)
    assert (found.level == "Metadata") is fits
    if not fits:
        assert found.omitted == set(STAGES)


def test_the_first_rule_that_fits_decides() -> None:
    found = policy(of(level="None", verbs=["list"]), of(level="Request"), of(level="RequestResponse"))
    assert found.rule_for(ALICE, parse_target("GET", PODS, watch=False)).level == "None"
    assert found.rule_for(ALICE, parse_target("GET", ONE, watch=False)).level == "Request"


def test_stages_and_managed_fields_are_left_out_by_policy_or_by_rule() -> None:
    found = policy(
        of(omitStages=["Panic"], omitManagedFields=False), of(), omitStages=["RequestReceived"], omitManagedFields=True
    )
    assert found.rules[0].omitted == {"RequestReceived", "Panic"} and not found.rules[0].without_managed_fields
    assert found.rules[1].omitted == {"RequestReceived"} and found.rules[1].without_managed_fields


HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
BAD = (
    ("not YAML", "rules: [", "not YAML"),
    ("a text", "hello", "must be a Policy"),
    ("another kind", "apiVersion: v1\nkind: Pod\n", "apiVersion v1, kind Pod: must be apiVersion audit.k8s.io/v1"),
    ("an old version", "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "must be apiVersion"),
    ("no rules", HEAD, "rules: Required value"),
    ("empty rules", HEAD + "rules: []", "rules: Required value"),
    ("a rule that is none", HEAD + "rules: [x]", "rules[0]: must be a mapping"),
    ("no level", HEAD + "rules: [{users: [a]}]", "rules[0].level: Required value"),
    ("an unknown level", HEAD + "rules: [{level: None}, {level: All}]",
     'rules[1].level: Unsupported value: "All": supported values: "None", "Metadata", "Request", "RequestResponse"'),
    ("an unknown field", HEAD + "rules: [{level: None, user: [a]}]", 'unknown field "rules[0].user"'),
    ("an unknown field of a resource", HEAD + "rules: [{level: None, resources: [{groups: [a]}]}]",
     'unknown field "rules[0].resources[0].groups"'),
    ("an unknown field of the policy", HEAD + "rule: []\nrules: [{level: None}]", 'unknown field "rule"'),
    ("a stage nobody knows", HEAD + "rules: [{level: None, omitStages: [Late]}]",
     'rules[0].omitStages[0]: Invalid value: "Late": allowed stages are RequestReceived,ResponseStarted,'),
    ("users that are no list", HEAD + "rules: [{level: None, users: alice}]",
     "rules[0].users: must be a list of texts"),
    ("a path without a slash", HEAD + "rules: [{level: None, nonResourceURLs: [api]}]",
     'rules[0].nonResourceURLs[0]: Invalid value: "api": non-resource URL rules must begin with a \'/\' character'),
    ("a star in the middle", HEAD + "rules: [{level: None, nonResourceURLs: ['/a*b']}]", "must be the final character"),
    ("both sorts", HEAD + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
     "rules[0].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"),
    ("a group with a version", HEAD + "rules: [{level: None, resources: [{group: apps/v1}]}]",
     'rules[0].resources[0].group: Invalid value: "apps/v1"'),
    ("names of nothing", HEAD + "rules: [{level: None, resources: [{resourceNames: [a]}]}]",
     "using resourceNames requires at least one resource"),
    ("all of it is told", HEAD + "rules: [{level: x}, {level: y}]", "rules[1].level"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "text", "says"), BAD, ids=lambda v: v if isinstance(v, str) and len(v) < 40 else "")
def test_a_policy_that_cannot_be_used_says_where(name: str, text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(BadPolicy) as caught:
        read_policy(str(path))
    assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)


def test_without_a_policy_secrets_are_told_without_bodies() -> None:
    def level(method: str, path: str) -> str:
        return simple_policy("RequestResponse").rule_for(ALICE, parse_target(method, path, watch=False)).level

    assert level("POST", PODS) == "RequestResponse"
    assert level("POST", "/api/v1/namespaces/default/serviceaccounts/a/token") == "Metadata"
    for quiet in ("/livez", "/readyz/ping", "/healthz", "/version", "/metrics"):
        assert level("GET", quiet) == "None"
    for resource in ("/api/v1/secrets", CONFIGS, "/apis/authentication.k8s.io/v1/tokenreviews"):
        assert level("GET", resource) == "Metadata"


def audited(
    tmp_path: Path, test: Callable[[ApiServer, Http], Awaitable[None]], *rules: dict[str, Any], **more: Any
) -> list[dict[str, Any]]:
    """The events that a test makes under a policy."""
    log, file = tmp_path / "audit.log", tmp_path / "policy.json"
    file.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}))
    with_http(test, replace(SETTINGS, audit_log=str(log), audit_policy=str(file)))
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_levels_and_stages(tmp_path: Path) -> None:
    async def run(_: ApiServer, http: Http) -> None:
        for namespace in ("default", "kube-public", "kube-system"):
            path = f"/api/v1/namespaces/{namespace}/configmaps"
            assert (await http.request("POST", path, config_map("c", namespace)))[0] == 201
        assert (await http.request("GET", f"{CONFIGS}/none"))[0] == 404

    events = audited(
        tmp_path, run, of(level="RequestResponse", namespaces=["default"]),
        of(level="Request", namespaces=["kube-public"]), of(level="None"),
    )  # fmt: skip
    assert [(e["stage"], e["level"], e["objectRef"]["namespace"]) for e in events] == [
        ("RequestReceived", "RequestResponse", "default"), ("ResponseComplete", "RequestResponse", "default"),
        ("RequestReceived", "Request", "kube-public"), ("ResponseComplete", "Request", "kube-public"),
        ("RequestReceived", "RequestResponse", "default"), ("ResponseComplete", "RequestResponse", "default"),
    ]  # fmt: skip
    received, complete, _, request_only, _, failed = events
    assert "responseStatus" not in received and "requestObject" not in received and "annotations" not in received
    assert received["auditID"] == complete["auditID"] and uuid.UUID(complete["auditID"]).version == 4
    assert complete["requestObject"] == config_map("c")
    assert complete["responseObject"]["metadata"]["uid"] and complete["responseObject"]["metadata"]["managedFields"]
    assert "responseObject" not in request_only and request_only["requestObject"]["metadata"]["name"] == "c"
    assert failed["responseStatus"]["code"] == failed["responseObject"]["code"] == 404
    assert failed["responseObject"]["kind"] == "Status" and failed["responseStatus"]["reason"] == "NotFound"


def test_managed_fields_can_be_left_out_and_yaml_is_told_as_json(tmp_path: Path) -> None:
    async def run(_: ApiServer, http: Http) -> None:
        body = b"metadata:\n  name: yaml\n  managedFields: []\ndata:\n  k: v\n"
        done = await http.request("POST", CONFIGS, body, Content_Type="application/yaml", Accept="application/yaml")
        assert done[0] == 201, done
        await http.request("GET", CONFIGS)

    events = audited(tmp_path, run, of(level="RequestResponse"), omitManagedFields=True, omitStages=["RequestReceived"])
    assert [e["verb"] for e in events] == ["create", "list"]
    assert events[0]["requestObject"] == {"metadata": {"name": "yaml"}, "data": {"k": "v"}}
    assert "managedFields" not in events[0]["responseObject"]["metadata"]
    assert events[1]["responseObject"]["items"] and "managedFields" not in str(events[1]["responseObject"])


def test_who_acts_as_whom_and_who_is_nobody(tmp_path: Path) -> None:
    async def run(_: ApiServer, http: Http) -> None:
        await http.request("GET", CONFIGS, Impersonate_User="bob")
        await http.request("GET", CONFIGS, Authorization="Bearer wrong")
        await http.request("GET", CONFIGS, Impersonate_Group="x")

    events = audited(tmp_path, run, of(), omitStages=["RequestReceived"])
    acting, nobody, refused = events
    assert acting["user"]["username"] == "system:admin" and acting["impersonatedUser"]["username"] == "bob"
    assert acting["authenticationMetadata"] == {"impersonationConstraint": "impersonate:user-info"}
    assert nobody["stage"] == "ResponseStarted" and nobody["user"] == {}
    assert nobody["responseStatus"]["code"] == 401
    assert nobody["responseStatus"]["message"] == "Authentication failed, attempted: bearer"
    assert refused["responseStatus"]["code"] == 400


def test_an_id_of_the_senders_own_is_kept_if_it_is_decent(tmp_path: Path) -> None:
    answered: list[str] = []

    async def run(_: ApiServer, http: Http) -> None:
        for wanted in ("my-id", "x" * 65, "\xe9"):
            answered.append((await http.request("GET", "/api", Audit_Id=wanted))[1]["Audit-Id"])

    events = audited(tmp_path, run, of(), omitStages=["RequestReceived"])
    assert [e["auditID"] for e in events] == answered
    assert answered[0] == "my-id" and all(uuid.UUID(a) for a in answered[1:])


class SetClock(RealClock):
    """A clock that is set by hand."""

    seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds


def test_a_full_log_is_put_aside_and_old_ones_go(tmp_path: Path) -> None:
    clock, path = SetClock(), tmp_path / "audit.log"
    bystander = tmp_path / "audit-of-the-books.log"
    bystander.write_text("kept")
    log = AuditLog(str(path), Policy(()), clock, Rotation(most_bytes=1000, most_files=2, most_seconds=50))
    for number in range(40):
        log.write({"number": number, "filled": "x" * 80})
        clock.seconds += 1
        kept = log.aside()
        assert len(kept) <= 2 and all(f.stat().st_size <= 1000 for f in (path, *kept))
    lines = [json.loads(line) for f in (*log.aside(), path) for line in f.read_text().splitlines()]
    assert [e["number"] for e in lines] == list(range(lines[0]["number"], 40))  # none lost, in their order
    assert [f.name for f in log.aside()] == ["audit-2027-01-15T08-00-27.000.log", "audit-2027-01-15T08-00-36.000.log"]
    clock.seconds += 1000
    while len(log.aside()) != 1:  # the others are too old by now
        log.write({"filled": "x" * 80})
    log.close()
    again = AuditLog(str(path), Policy(()), clock, Rotation(most_bytes=1000))
    again.write({"filled": "x" * 990})
    assert len(again.aside()) == 2 and bystander.read_text() == "kept"
    again.close()


def test_a_disk_that_takes_little_at_a_time_or_nothing_more_spoils_no_other_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, room, written = tmp_path / "audit.log", [10_000], os.write

    def reluctant(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = written(file, bytes(data[: min(7, room[0])]))
        room[0] -= count
        return count

    log = AuditLog(str(path), Policy(()), RealClock())
    monkeypatch.setattr(os, "write", reluctant)
    for number in range(6):
        room[0] = 12 if number in (2, 3) else 10_000
        log.write({"number": number, "filled": "x" * 80})
    log.close()
    whole, torn = [], 0
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line)["number"])
        except ValueError:
            torn += 1
    assert (whole, torn) == ([0, 1, 4, 5], 2)
    assert (log.told, log.failed) == (4, 2) and log.size == path.stat().st_size


def test_the_log_is_closed_however_the_end_ends(tmp_path: Path) -> None:
    async def main() -> None:
        settings = replace(SETTINGS, audit_log=str(tmp_path / "audit.log"), audit_level="Metadata")
        async with running(settings) as server:
            assert server.audit is not None
            ending = asyncio.create_task(server.stop(30))
            await asyncio.sleep(0)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            assert server.audit.file == -1

    asyncio.run(main())


def test_a_request_that_is_broken_off_is_complete_in_the_log_too(tmp_path: Path) -> None:
    """One waits for the rest of its body, one for events, and one for nobody knows what, when the server ends."""
    log = tmp_path / "audit.log"

    async def run(server: ApiServer, _: Http) -> None:
        path, dispatch = server.http._paths[0], server.http.dispatch

        async def wait_for_ever(call: Call) -> web.StreamResponse:
            if call.target.path == "/version":
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.05)  # as one that has something to give back
            return await dispatch(call)

        server.http.dispatch = wait_for_ever  # type: ignore[method-assign]
        _reader, waiter = await asyncio.open_unix_connection(path)
        waiter.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        _reader, writer = await asyncio.open_unix_connection(path)
        head = f"POST {CONFIGS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"metadata"')
        watching, watcher = await asyncio.open_unix_connection(path)
        watcher.write(f"GET {CONFIGS}?watch=true HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(30):
            await watching.readuntil(b"\r\n\r\n")
            while not ('"create"' in (text := log.read_text()) and "/version" in text):
                await asyncio.sleep(0.01)
        await server.stop(0.1)
        for one in (writer, watcher, waiter):
            one.close()

    events = audited(tmp_path, run, of())
    stages = ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    assert [e["stage"] for e in events if e["verb"] == "watch"] == stages
    created = [e for e in events if e["verb"] == "create"]
    assert [e["stage"] for e in created] == [stages[0], stages[2]]
    early = {"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}
    assert created[1]["responseStatus"] == early
    waited = [e for e in events if e["requestURI"] == "/version"]
    assert [e["stage"] for e in waited] == [stages[0], stages[2]] and waited[1]["responseStatus"] == early
