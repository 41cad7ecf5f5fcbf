"""Admission webhooks: who is asked, what they are told, and what becomes of what they say. Real ones, over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.errors import ApiError, InternalError
from kubesvc.api.kinds import (
    CONFIG_MAP,
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    POD,
    SERVICE,
    VALIDATING_WEBHOOK_CONFIGURATION,
)
from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.admission import asked_of
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.options import WriteOptions
from kubesvc.apiserver.webhooks import BadAnswer, aim, resource_matches, verdict_of
from kubesvc.client.interface import Client

from .running import SETTINGS, Http, config_map, pod, running, with_http

# ---------------------------------------------------------------- who is asked


def rule(operations: str = "*", resources: str = "*", groups: str = "*", **more: Any) -> dict[str, Any]:
    return {
        "operations": operations.split(),
        "apiGroups": [g.replace("core", "") for g in groups.split()],
        "apiVersions": ["*"],
        "resources": resources.split(),
        **more,
    }


CREATED = asked_of("CREATE", POD, "shop", pod("p"), None)
MATCHES: tuple[Any, ...] = (
    ("everything", {"rules": [rule()]}, CREATED, True),
    ("no rules", {}, CREATED, False),
    ("another operation", {"rules": [rule("UPDATE DELETE")]}, CREATED, False),
    ("another group", {"rules": [rule(groups="apps")]}, CREATED, False),
    ("the core group by its empty name", {"rules": [rule(groups="core")]}, CREATED, True),
    ("any of the rules", {"rules": [rule("DELETE"), rule("CREATE", "pods")]}, CREATED, True),
    ("only what has no namespace", {"rules": [rule(scope="Cluster")]}, CREATED, False),
    ("labels of the object", {"rules": [rule()], "objectSelector": {"matchLabels": {"app": "web"}}}, CREATED, True),
    ("other labels", {"rules": [rule()], "objectSelector": {"matchLabels": {"app": "x"}}}, CREATED, False),
    ("labels of the namespace", {"rules": [rule()], "namespaceSelector": {"matchLabels": {"a": "b"}}}, CREATED, True),
    ("other ones of it", {"rules": [rule()], "namespaceSelector": {"matchLabels": {"a": "c"}}}, CREATED, False),
    (
        "never the configurations themselves", {"rules": [rule()]},
        asked_of("CREATE", VALIDATING_WEBHOOK_CONFIGURATION, "", {"metadata": {"name": "x"}}, None), False,
    ),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "webhook", "asked", "wanted"), MATCHES, ids=[m[0] for m in MATCHES])
def test_who_is_asked(sentence: str, webhook: Any, asked: Any, wanted: bool) -> None:
    assert (aim(webhook, asked, {"a": "b"}) is asked.kind) is wanted


@pytest.mark.parametrize(
    ("pattern", "asked", "wanted"),
    (
        ("pods", "pods", True), ("pods", "pods/status", False), ("pods/*", "pods/status", True),
        ("pods/*", "pods", True),
        ("*", "pods/status", False), ("*/*", "pods/status", True), ("*/status", "pods/status", True),
        ("*/status", "pods", False), ("services", "pods", False),
    ),
)  # fmt: skip
def test_patterns_of_resources(pattern: str, asked: str, wanted: bool) -> None:
    plural, _, sub = asked.partition("/")
    assert resource_matches(pattern, plural, sub) is wanted


@pytest.mark.parametrize(
    "answer",
    (
        b"", b"null", b"[]", b"{}", b'{"kind":"AdmissionReview"}', b'{"kind":"AdmissionReview","response":null}',
        b'{"kind":"AdmissionReview","response":{"uid":"other","allowed":true}}', b"\xff",
        b'{"kind":"AdmissionReview","response":{"uid":"u","allowed":true,"patch":"!"}}',
        b'{"kind":"AdmissionReview","response":{"uid":"u","allowed":true,"patch":"W10=","patchType":"x"}}',
        b'{"kind":"AdmissionReview","response":{"uid":"u","allowed":true,"patch":"e30=","patchType":"JSONPatch"}}',
    ),
)  # fmt: skip
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(BadAnswer):
        verdict_of(answer, "u", mutating=True)


# ---------------------------------------------------------------- real ones

Answer = Callable[[str, dict[str, Any]], Any]
"""From a path and the review's request to the response without uid; bytes are sent as they are."""


class Hook:
    """A webhook server. `asked` has the paths and requests it has seen."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.port = 0
        self.ca = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        length = next(int(x.split(":")[1]) for x in head.lower().splitlines() if x.startswith("content-length:"))
        request = json.loads(await reader.readexactly(length))["request"]
        self.asked.append((path, request))
        response = self.answer(path, request)
        if isinstance(response, Awaitable):
            response = await response
        if not isinstance(response, bytes):
            review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}
            response = json.dumps({**review, "response": {"uid": request["uid"], **response}}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(response) + response)
        writer.close()

    def config(self, name: str = "w.example.com", path: str = "/", **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "clientConfig": {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.ca},
            "rules": [rule("*", "configmaps")],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }


@asynccontextmanager
async def hooked(answer: Answer) -> AsyncIterator[Hook]:
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = make_certificate(Path(directory), "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        hook = Hook(answer)
        hook.ca = base64.b64encode(Path(certificate).read_bytes()).decode()
        server = await asyncio.start_server(hook.serve, "127.0.0.1", 0, ssl=context)
        hook.port = server.sockets[0].getsockname()[1]
        try:
            yield hook
        finally:
            server.close()


def with_hook(answer: Answer, test: Callable[[ApiServer, Client, Hook], Awaitable[None]]) -> None:
    async def main() -> None:
        async with hooked(answer) as hook, running() as server:
            await test(server, server.client, hook)

    asyncio.run(main())


def allow(path: str, request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def patching(*operations: dict[str, Any]) -> dict[str, Any]:
    raw = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": raw}


async def configure(client: Client, kind: Any, *webhooks: dict[str, Any], name: str = "c") -> None:
    await client.create(kind, {"metadata": {"name": name}, "webhooks": list(webhooks)})


def test_a_validating_webhook_refuses_in_its_own_words() -> None:
    def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
        if request["operation"] == "DELETE":
            return {"allowed": False, "status": {"message": "kept for good", "code": 403, "reason": "Forbidden"}}
        return {"allowed": request["object"]["data"].get("k") != "bad", "warnings": ["mind the gap"]}

    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        await configure(client, VALIDATING_WEBHOOK_CONFIGURATION, hook.config())
        warnings: list[str] = []
        await server.registry.create(CONFIG_MAP, "default", config_map("a"), WriteOptions(), warnings)
        assert warnings == ["mind the gap"]
        bad = {**config_map("b"), "data": {"k": "bad"}}
        with pytest.raises(ApiError) as refused:
            await client.create(CONFIG_MAP, bad, "default")
        assert refused.value.status_code == 400
        assert refused.value.message == 'admission webhook "w.example.com" denied the request without explanation'
        with pytest.raises(ApiError, match=r'"w\.example\.com" denied the request: kept for good') as kept:
            await client.delete(CONFIG_MAP, "a", "default")
        assert (kept.value.status_code, kept.value.status_reason) == (403, "Forbidden")
        with pytest.raises(ApiError, match="without explanation"):
            await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "bad"}}, "merge")
        assert (await client.get(CONFIG_MAP, "a", "default"))["data"] == {"k": "v"}
        await client.create(SERVICE, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}, "default")
        _, first = hook.asked[0]
        assert first["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
        assert first["operation"] == "CREATE" and first["oldObject"] is None and first["dryRun"] is False
        assert first["options"]["kind"] == "CreateOptions" and first["object"]["kind"] == "ConfigMap"
        assert {r["operation"] for _, r in hook.asked} == {"CREATE", "UPDATE", "DELETE"}
        assert {r["resource"]["resource"] for _, r in hook.asked} == {"configmaps"}

    with_hook(answer, test)


def test_mutating_webhooks_change_one_after_the_other() -> None:
    """And one that was asked first is asked again where another changed the object after it (IfNeeded)."""

    def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
        labels = request["object"]["metadata"].get("labels") or {}
        if path == "/first?timeout=10s":
            return (
                {"allowed": True}
                if "first" in labels and "second" not in labels
                else patching({"op": "add", "path": "/metadata/labels", "value": {**labels, "first": str(len(labels))}})
            )
        return patching({"op": "add", "path": "/metadata/labels/second", "value": "yes"})

    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        first = hook.config("first.example.com", "/first", reinvocationPolicy="IfNeeded")
        await configure(client, MUTATING_WEBHOOK_CONFIGURATION, first, hook.config("second.example.com", "/second"))
        made = await client.create(CONFIG_MAP, config_map("a"), "default")
        assert made["metadata"]["labels"] == {"first": "2", "second": "yes"}
        assert [path.partition("?")[0] for path, _ in hook.asked] == ["/first", "/second", "/first"]
        stored = await client.get(CONFIG_MAP, "a", "default")
        assert stored["metadata"]["labels"] == made["metadata"]["labels"]

    with_hook(answer, test)


def test_what_webhooks_write_is_checked_like_anything_else() -> None:
    def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
        return patching({"op": "add", "path": "/metadata/labels", "value": {"no spaces": "here"}})

    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        await configure(client, MUTATING_WEBHOOK_CONFIGURATION, hook.config())
        with pytest.raises(ApiError, match=r"metadata\.labels: Invalid value"):
            await client.create(CONFIG_MAP, config_map("a"), "default")

    with_hook(answer, test)


FAILURES: tuple[Any, ...] = (
    ("an answer that is none", lambda path, request: b"nonsense", {}, "not an AdmissionReview"),
    ("no answer in time", lambda path, request: asyncio.sleep(5, {}), {"timeoutSeconds": 1}, "deadline exceeded"),
    (
        "a patch that does not fit", lambda path, request: patching({"op": "remove", "path": "/none"}), {},
        "cannot be applied",
    ),
    ("a patch of the wrong type", lambda path, request: patching({"op": "replace", "path": "/data", "value": 3}), {},
     "cannot be applied"),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "answer", "more", "said"), FAILURES, ids=[f[0] for f in FAILURES])
def test_what_fails_closes_the_door(sentence: str, answer: Answer, more: dict[str, Any], said: str) -> None:
    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        await configure(client, MUTATING_WEBHOOK_CONFIGURATION, hook.config(**more))
        with pytest.raises(InternalError, match=said) as failed:
            await client.create(CONFIG_MAP, config_map("a"), "default")
        assert failed.value.message.startswith('Internal error occurred: failed calling webhook "w.example.com": ')

    with_hook(answer, test)


def test_a_webhook_that_may_fail_is_passed_over() -> None:
    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        closed = hook.config("closed.example.com", failurePolicy="Ignore")
        closed["clientConfig"]["url"] = "https://127.0.0.1:1/"
        stranger = hook.config("stranger.example.com", failurePolicy="Ignore")
        stranger["clientConfig"]["caBundle"] = ""  # nobody vouches for it
        absent = hook.config("absent.example.com", failurePolicy="Ignore")
        absent["clientConfig"] = {"service": {"namespace": "default", "name": "none"}, "caBundle": hook.ca}
        await configure(client, VALIDATING_WEBHOOK_CONFIGURATION, closed, stranger, absent)
        await client.create(CONFIG_MAP, config_map("a"), "default")
        assert hook.asked == []

    with_hook(allow, test)


def test_dry_runs_ask_only_those_without_side_effects() -> None:
    async def test(server: ApiServer, client: Client, hook: Hook) -> None:
        await configure(client, VALIDATING_WEBHOOK_CONFIGURATION, hook.config(sideEffects="NoneOnDryRun"))
        dry = WriteOptions(dry_run=True)
        await server.registry.create(CONFIG_MAP, "default", config_map("a"), dry, [])
        assert hook.asked[0][1]["dryRun"] is True and hook.asked[0][1]["options"]["dryRun"] == ["All"]

    with_hook(allow, test)


def test_namespaces_are_chosen_by_their_labels_and_users_named(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text('at,alice,u1,"devs"\n')

    async def run(server: ApiServer, http: Http) -> None:
        async with hooked(allow) as hook:
            selector = {"matchLabels": {"checked": "yes"}}
            webhook = hook.config(namespaceSelector=selector)
            await configure(server.client, VALIDATING_WEBHOOK_CONFIGURATION, webhook)
            await server.client.create(NAMESPACE, {"metadata": {"name": "shop", "labels": {"checked": "yes"}}})
            for namespace in ("default", "shop"):
                path = f"/api/v1/namespaces/{namespace}/configmaps"
                body = config_map("a", namespace)
                assert (await http.request("POST", path, body, Authorization="Bearer at"))[0] == 201
            assert [r["namespace"] for _, r in hook.asked] == ["shop"]
            assert hook.asked[0][1]["userInfo"] == {
                "username": "alice", "uid": "u1", "groups": ["devs", "system:authenticated"],
            }  # fmt: skip
            await server.client.delete(VALIDATING_WEBHOOK_CONFIGURATION, "c")
            assert server.registry.admission.webhooks.idle

    with_http(run, replace(SETTINGS, token_file=str(tokens)))
