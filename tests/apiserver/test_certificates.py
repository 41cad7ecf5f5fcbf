"""Certificate signing requests and bootstrap tokens at a running server: who asked, who may judge, who may sign."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubesvc.api.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, SECRET
from kubesvc.api.meta import Object
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.clock import rfc3339

from .running import SETTINGS, Http, with_http

RBAC = replace(SETTINGS, authorization="Node,RBAC")
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client"
MERGE = "application/merge-patch+json"


def request_of(name: str, groups: tuple[str, ...] = (), signer: str = CLIENT, **spec: Any) -> Object:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, "somebody"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    request = base64.b64encode(pem).decode()
    return {"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": ["client auth"],
            **spec}}  # fmt: skip


async def allow(server: ApiServer, user: str, **rule: list[str]) -> None:
    """Give a user one right."""
    name = f"may-{user}"
    body: Object = {"metadata": {"name": name}, "rules": [{"apiGroups": ["certificates.k8s.io"], **rule}]}
    await server.client.create(CLUSTER_ROLE, body)
    group = "rbac.authorization.k8s.io"
    await server.client.create(CLUSTER_ROLE_BINDING, {
        "metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    })  # fmt: skip


def approved(obj: Object, kind: str = "Approved") -> Object:
    return {**obj, "status": {"conditions": [{"type": kind, "status": "True", "reason": "Seen", "message": "m"}]}}


def test_who_asks_is_written_by_the_server() -> None:
    """Whatever the client claims; and what was asked for stays as it is."""

    async def story(server: ApiServer, http: Http) -> None:
        claimed = request_of("a", username="system:admin", uid="1", extra={"x": ["y"]})
        claimed["spec"]["groups"] = ["system:masters"]
        who = {"Impersonate_User": "ann", "Impersonate_Group": "staff", "Impersonate_Extra_team": "red"}
        status, _, made = await http.request("POST", REQUESTS, claimed, **who)
        assert status == 201, made["message"]
        spec = made["spec"]
        assert (spec["username"], spec.get("uid")) == ("ann", None)
        assert spec["groups"] == ["staff", "system:authenticated"] and spec["extra"]["team"] == ["red"]
        assert made["status"] == {}
        changed = {**made, "spec": {**spec, "username": "eve", "signerName": "example.com/other"}}
        status, _, after = await http.request("PUT", f"{REQUESTS}/a", changed)
        assert (status, after["spec"]) == (200, spec)

    with_http(story)


def test_judging_and_signing_take_rights_on_the_signer() -> None:
    """Rights on the resource alone are not enough; a right on the domain is."""

    async def story(server: ApiServer, http: Http) -> None:
        parts = ["certificatesigningrequests", "certificatesigningrequests/approval",
                 "certificatesigningrequests/status"]  # fmt: skip
        for user in ("clerk", "judge", "signer"):
            rights = {"verbs": ["get", "update", "patch"], "resources": parts}
            await allow(server, user, **rights)
        own = {"verbs": ["approve"], "resources": ["signers"], "resourceNames": ["example.com/*"]}
        await allow(server, "judge-too", **own)
        group = "rbac.authorization.k8s.io"
        for name, verb, names in (("j", "approve", ["example.com/*"]), ("s", "sign", ["example.com/mine"])):
            rule = {"apiGroups": ["certificates.k8s.io"], "verbs": [verb], "resources": ["signers"],
                    "resourceNames": names}  # fmt: skip
            await server.client.create(CLUSTER_ROLE, {"metadata": {"name": name}, "rules": [rule]})
            user = {"j": "judge", "s": "signer"}[name]
            await server.client.create(CLUSTER_ROLE_BINDING, {
                "metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            })  # fmt: skip
        _, _, made = await http.request("POST", REQUESTS, request_of("r", signer="example.com/mine"))
        approval, state = f"{REQUESTS}/r/approval", f"{REQUESTS}/r/status"
        status, _, said = await http.request("PUT", approval, approved(made), Impersonate_User="clerk")
        why = 'user not permitted to approve requests with signerName "example.com/mine"'
        assert status == 403
        assert said["message"] == f'certificatesigningrequests.certificates.k8s.io "r" is forbidden: {why}'
        status, _, made = await http.request("PUT", approval, approved(made), Impersonate_User="judge")
        assert status == 200
        (condition,) = made["status"]["conditions"]
        assert condition["lastUpdateTime"] and condition["lastTransitionTime"]
        failed = {"status": {"conditions": [condition, {"type": "Failed", "status": "True"}]}}
        for user, code in (("judge", 403), ("signer", 200)):
            headers = {"Impersonate_User": user, "Content_Type": MERGE}
            status, _, said = await http.request("PATCH", state, failed, **headers)
            assert status == code, said
            if code == 403:
                assert "user not permitted to sign requests with signerName" in said["message"]

    with_http(story, RBAC)


def test_nobody_asks_to_be_a_master() -> None:
    async def story(server: ApiServer, http: Http) -> None:
        status, _, said = await http.request("POST", REQUESTS, request_of("m", ("system:masters",)))
        assert status == 403
        assert f"use of {CLIENT} signer with system:masters group is not allowed" in said["message"]
        status, _, _ = await http.request("POST", REQUESTS, request_of("m", ("system:masters",), "example.com/x"))
        assert status == 201  # which may mean what it likes

    with_http(story)


def test_it_is_found_by_signer_and_shown_in_a_row() -> None:
    async def story(server: ApiServer, http: Http) -> None:
        for name, signer in (("a", "example.com/a"), ("b", "example.com/b")):
            await http.request("POST", REQUESTS, request_of(name, signer=signer))
        table = "application/json;as=Table;v=v1;g=meta.k8s.io"
        _, _, found = await http.request("GET", f"{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com/b",
                                         Accept=table)  # fmt: skip
        (row,) = found["rows"]
        assert [row["cells"][i] for i in (0, 2, 3, 4, 5)] == ["b", "example.com/b", "system:admin", "<none>", "Pending"]
        _, _, group = await http.request("GET", "/apis/certificates.k8s.io/v1")
        listed = {r["name"]: (r["kind"], r.get("shortNames")) for r in group["resources"]}
        assert listed["certificatesigningrequests"] == ("CertificateSigningRequest", ["csr"])
        assert {"certificatesigningrequests/approval", "certificatesigningrequests/status"} <= listed.keys()

    with_http(story)


GOOD = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:here"}  # fmt: skip
TOKENS: tuple[tuple[str, dict[str, str], str, bool], ...] = (
    ("its bearer is known", {}, "abcdef.0123456789abcdef", True),
    ("not with another secret", {}, "abcdef.0123456789abcdee", False),
    ("nor under another id", {}, "abcdee.0123456789abcdef", False),
    ("the Secret's name counts", {"token-id": "abcdee"}, "abcdef.0123456789abcdef", False),
    ("its time may come", {"expiration": rfc3339(0)}, "abcdef.0123456789abcdef", False),
    ("or be unreadable", {"expiration": "tomorrow"}, "abcdef.0123456789abcdef", False),
    ("or lie ahead", {"expiration": "2126-01-01T00:00:00Z"}, "abcdef.0123456789abcdef", True),
    ("it must be meant for it", {"usage-bootstrap-authentication": "false"}, "abcdef.0123456789abcdef", False),
    ("no groups of others", {"auth-extra-groups": "system:masters"}, "abcdef.0123456789abcdef", False),
)


@pytest.mark.parametrize(("name", "data", "token", "known"), TOKENS, ids=[t[0] for t in TOKENS])
def test_bootstrap_tokens(name: str, data: dict[str, str], token: str, known: bool) -> None:
    async def story(server: ApiServer, http: Http) -> None:
        values = {k: base64.b64encode(v.encode()).decode() for k, v in {**GOOD, **data}.items()}
        secret = {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
                  "data": values}  # fmt: skip
        await server.client.create(SECRET, secret, "kube-system")
        review = {"spec": {"token": token}}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        _, _, found = await http.request("POST", path, review)
        assert bool(found["status"].get("authenticated")) is known, name
        if known:
            user = found["status"]["user"]
            assert user["username"] == "system:bootstrap:abcdef"
            assert user["groups"] == ["system:bootstrappers", "system:bootstrappers:here", "system:authenticated"]
            await server.client.delete(SECRET, "bootstrap-token-abcdef", "kube-system")
            _, _, found = await http.request("POST", path, review)
            assert not found["status"].get("authenticated"), "it ends with its Secret"

    with_http(story)
