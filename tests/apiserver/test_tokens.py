"""Tokens of service accounts: how long they hold, whom they are for, and how others check them (AUTH-5 to AUTH-7)."""

from __future__ import annotations

import asyncio
import base64
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from kubesvc.api.kinds import NODE, POD, SECRET, SERVICE_ACCOUNT
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.tokens import EXTENDED_SECONDS, TokenIssuer
from kubesvc.clock import RealClock
from kubesvc.controllers import run_controllers
from kubesvc.controllers.settings import ControllerSettings

from .running import SETTINGS, Http, pod, with_http

PATH = "/api/v1/namespaces/default/serviceaccounts/robot/token"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ISSUER = "https://kubernetes.default.svc"


class ShiftedClock(RealClock):
    """The real time, some seconds later."""

    def __init__(self) -> None:
        self.later = 0.0

    def now(self) -> float:
        return super().now() + self.later


async def issue(http: Http, **spec: Any) -> str:
    status, _, answer = await http.request("POST", PATH, {"spec": spec})
    assert status == 201, answer
    token: str = answer["status"]["token"]
    return token


async def review(http: Http, token: str, *audiences: str) -> dict[str, Any]:
    spec = {"token": token, "audiences": list(audiences)} if audiences else {"token": token}
    status, _, answer = await http.request("POST", REVIEWS, {"spec": spec})
    assert status == 201
    found: dict[str, Any] = answer["status"]
    return found


def reference(kind: str, obj: dict[str, Any]) -> dict[str, str]:
    meta = obj["metadata"]
    return {"apiVersion": "v1", "kind": kind, "name": meta["name"], "uid": meta["uid"]}


def test_the_published_keys_check_what_is_signed() -> None:
    """Discovery document and keys, read as a stranger would, by way of a library that knows nothing of the server."""

    async def run(s: ApiServer, http: Http) -> None:
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        status, headers, document = await http.request("GET", "/.well-known/openid-configuration")
        assert status == 200 and headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "public, max-age=3600"
        assert document == {
            "issuer": ISSUER,
            "jwks_uri": document["jwks_uri"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        path = "/openid/v1/jwks"
        assert document["jwks_uri"].startswith("https://") and document["jwks_uri"].endswith(path)
        async with http.session.get("http://api" + path) as response:
            assert response.content_type == "application/jwk-set+json"
            keys = jwt.PyJWKSet.from_json(await response.text())
        token = await issue(http, audiences=["vault"], expirationSeconds=700)
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, algorithms=["ES256"], audience="vault", issuer=ISSUER)
        assert claims["sub"] == "system:serviceaccount:default:robot"
        assert claims["exp"] - claims["iat"] == 700 and claims["nbf"] == claims["iat"] and claims["jti"]

    with_http(run)


def test_who_may_read_the_keys(tmp_path: Path) -> None:
    """Accounts may, by role system:service-account-issuer-discovery; others may not."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        robot = await issue(http)
        for path in ("/.well-known/openid-configuration", "/openid/v1/jwks"):
            assert (await http.request("GET", path, Authorization=f"Bearer {robot}"))[0] == 200
            assert (await http.request("GET", path, Authorization="Bearer at"))[0] == 403

    with_http(run, replace(SETTINGS, authorization="Node,RBAC", token_file=str(tokens)))


@pytest.mark.parametrize("kind", ("Pod", "Secret", "Node", "ServiceAccount"))
def test_a_token_goes_with_what_it_is_bound_to(kind: str) -> None:
    """AUTH-6, AUTH-7: also when an object of the same name comes after it."""

    async def run(s: ApiServer, http: Http) -> None:
        client = s.client
        await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        kinds = {"Pod": POD, "Secret": SECRET, "Node": NODE, "ServiceAccount": SERVICE_ACCOUNT}
        bodies = {"Pod": pod("robot"), "ServiceAccount": {"metadata": {"name": "robot"}}}
        body, bound = bodies.get(kind, {"metadata": {"name": "robot"}}), kinds[kind]
        namespace = "" if kind == "Node" else "default"
        spec: dict[str, Any] = {}
        if kind != "ServiceAccount":
            spec["boundObjectRef"] = reference(kind, await client.create(bound, body, namespace))
        token = await issue(http, **spec)
        found = await review(http, token)
        assert found["authenticated"] and found["audiences"] == [ISSUER]
        extra = found["user"]["extra"]
        assert extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")
        if kind in ("Pod", "Node"):
            assert extra[f"authentication.kubernetes.io/{kind.lower()}-name"] == ["robot"]
        await client.delete(bound, "robot", namespace, grace_seconds=0)
        gone = 'serviceaccounts "robot" not found' if kind == "ServiceAccount" else "has been invalidated"
        found = await review(http, token)
        assert "authenticated" not in found and gone in found["error"]
        await client.create(bound, bodies.get(kind, {"metadata": {"name": "robot"}}), namespace)
        assert "does not match" in (await review(http, token))["error"]
        assert (await http.request("GET", "/api", Authorization=f"Bearer {token}"))[0] == 401

    with_http(run)


def test_a_pod_that_is_ending_keeps_its_token_for_a_minute() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        clock = s.tokens.clock = ShiftedClock()
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        await s.client.create(NODE, {"metadata": {"name": "n"}})
        made = await s.client.create(POD, pod("p", nodeName="n"), "default")
        token = await issue(http, boundObjectRef=reference("Pod", made))
        await s.client.delete(POD, "p", "default", grace_seconds=5)
        assert (await review(http, token))["authenticated"]
        clock.later = 50
        assert (await review(http, token))["authenticated"]
        clock.later = 70
        assert "has been invalidated" in (await review(http, token))["error"]

    with_http(run)


def test_how_long_tokens_hold() -> None:
    async def run(s: ApiServer, http: Http) -> None:
        clock = s.tokens.clock = ShiftedClock()
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        made = await s.client.create(POD, pod("p"), "default")
        token = await issue(http, expirationSeconds=600)
        clock.later = 650
        assert (await review(http, token))["authenticated"]  # clocks differ by up to a minute
        clock.later = 670
        assert (await review(http, token))["error"] == "[invalid bearer token, service account token has expired]"
        # what a pod asks for by default only warns after that time
        bound = reference("Pod", made)
        token = await issue(http, expirationSeconds=3607, boundObjectRef=bound)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == EXTENDED_SECONDS
        assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
        for spec in ({"audiences": ["vault"], "boundObjectRef": bound}, {}):
            other = await issue(http, expirationSeconds=3607, **spec)
            claims = jwt.decode(other, options={"verify_signature": False})
            assert claims["exp"] - claims["iat"] == 3607 and "warnafter" not in claims["kubernetes.io"]

    with_http(run)


def test_whom_a_token_is_meant_for(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(s: ApiServer, http: Http) -> None:
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        both = await issue(http, audiences=["vault", ISSUER])
        vault = await issue(http, audiences=["vault"])
        assert (await review(http, both))["audiences"] == [ISSUER]
        assert (await review(http, both, "vault", "x", ISSUER))["audiences"] == ["vault", ISSUER]
        assert (await review(http, vault, "vault"))["audiences"] == ["vault"]
        assert "error" in await review(http, vault)
        assert (await http.request("GET", "/api", Authorization=f"Bearer {both}"))[0] == 200
        assert (await http.request("GET", "/api", Authorization=f"Bearer {vault}"))[0] == 401
        # tokens that say nothing of it are the server's own
        assert (await review(http, "at"))["audiences"] == [ISSUER]
        assert (await review(http, "at", "vault", ISSUER))["audiences"] == [ISSUER]
        assert "authenticated" not in await review(http, "at", "vault")

    with_http(run, replace(SETTINGS, token_file=str(tokens)))


@pytest.mark.parametrize("damage", ("signature", "claims", "another key", "no signature"))
def test_tokens_that_were_not_signed_here(damage: str) -> None:
    async def run(s: ApiServer, http: Http) -> None:
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        token = await issue(http)
        head, body, signature = token.split(".")
        claims = jwt.decode(token, options={"verify_signature": False})
        claims["sub"] = "system:serviceaccount:kube-system:admin"
        if damage == "signature":
            token = f"{head}.{body}.{signature[:-4]}AAAA"
        elif damage == "claims":
            token = f"{head}.{jwt.encode(claims, 'k' * 32).split('.')[1]}.{signature}"
        elif damage == "another key":
            token = jwt.encode(claims, TokenIssuer((ISSUER,), RealClock(), random.Random(1)).key(), algorithm="ES256")
        else:
            token = jwt.encode(claims, "", algorithm="none")
        assert "authenticated" not in await review(http, token)
        assert (await http.request("GET", "/api", Authorization=f"Bearer {token}"))[0] == 401

    with_http(run)


def test_secrets_of_their_own_type_get_a_token_and_go_with_the_account() -> None:
    """Such a token does not expire; it ends with its Secret."""

    async def run(s: ApiServer, http: Http) -> None:
        client = s.client
        settings = ControllerSettings(account_token=s.tokens.legacy_token, root_ca="the certificate")
        running = asyncio.create_task(
            run_controllers(
                client, ("serviceaccount-token",), clock=RealClock(), random=random.Random(1), settings=settings
            )
        )

        async def data(name: str) -> dict[str, str]:
            async with asyncio.timeout(60):
                while True:
                    found = await client.get(SECRET, name, "default")
                    if "token" in (found.get("data") or {}):
                        return {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
                    await asyncio.sleep(0.02)

        try:
            await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
            for name in ("one", "two"):
                meta = {"name": name, "annotations": {"kubernetes.io/service-account.name": "robot"}}
                body = {"metadata": meta, "type": "kubernetes.io/service-account-token"}
                await client.create(SECRET, body, "default")
            one, two = await data("one"), await data("two")
            assert one["namespace"] == "default" and one["ca.crt"] == "the certificate"
            found = await review(http, one["token"])
            assert found["user"]["username"] == "system:serviceaccount:default:robot"
            assert found["audiences"] == [ISSUER] and "extra" not in found["user"]
            assert (await http.request("GET", "/api", Authorization=f"Bearer {one['token']}"))[0] == 200
            await client.delete(SECRET, "one", "default")
            assert (await http.request("GET", "/api", Authorization=f"Bearer {one['token']}"))[0] == 401
            assert (await http.request("GET", "/api", Authorization=f"Bearer {two['token']}"))[0] == 200
            await client.delete(SERVICE_ACCOUNT, "robot", "default")
            assert (await http.request("GET", "/api", Authorization=f"Bearer {two['token']}"))[0] == 401
            async with asyncio.timeout(60):
                while (await http.request("GET", "/api/v1/namespaces/default/secrets/two"))[0] != 404:
                    await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    with_http(run)


OTHER = "https://elsewhere.example"


def test_issuers_and_the_longest_life_are_the_operators_to_say() -> None:
    """AUTH-6: the first issuer signs, tokens of all are taken; what is asked for is shortened, with a warning."""

    async def run(s: ApiServer, http: Http) -> None:
        await s.client.create(SERVICE_ACCOUNT, {"metadata": {"name": "robot"}}, "default")
        status, headers, answer = await http.request("POST", PATH, {"spec": {"expirationSeconds": 90_000}})
        assert status == 201 and answer["spec"]["expirationSeconds"] == 7200
        assert headers["Warning"] == '299 - "requested expiration of 90000 seconds shortened to 7200 seconds"'
        claims = jwt.decode(answer["status"]["token"], options={"verify_signature": False})
        assert claims["iss"] == OTHER and claims["aud"] == [OTHER, ISSUER] and claims["exp"] - claims["iat"] == 7200
        assert (await http.request("GET", "/.well-known/openid-configuration"))[2]["issuer"] == OTHER
        for issuer, taken in ((ISSUER, True), ("https://stranger.example", False)):
            token = jwt.encode({**claims, "iss": issuer, "aud": [ISSUER]}, s.tokens.key(), algorithm="ES256")
            assert ("authenticated" in await review(http, token)) is taken

    with_http(run, replace(SETTINGS, service_account_issuers=(OTHER, ISSUER), most_token_seconds=7200))
