"""Who gets in without being asked for, and what known weaknesses of the API are held shut by."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kubesvc.api.errors import Forbidden
from kubesvc.api.kinds import SERVICE
from kubesvc.api.rolebinding import ROLE_BINDING
from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.defaultroles import GATHERING, default_cluster_roles
from kubesvc.apiserver.server import is_open

from .running import SETTINGS, Http, running, with_http, with_server

Ask = Callable[[str, dict[str, str]], Awaitable[int]]


def over_tls(test: Callable[[ApiServer, Ask], Awaitable[None]], settings: ApiServerSettings) -> None:
    """Run a test with a way to ask over TLS without client certificate: path and headers to status."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = make_certificate(Path(directory), "127.0.0.1")
            async with running(settings) as server, aiohttp.ClientSession() as session:
                port = await server.listen_tls("127.0.0.1", 0, certificate, key)

                async def ask(path: str, headers: dict[str, str]) -> int:
                    url = f"https://127.0.0.1:{port}{path}"
                    async with session.get(url, headers=headers, ssl=False) as response:
                        if response.status in (401, 403):
                            assert (await response.json())["kind"] == "Status"
                        return response.status

                await test(server, ask)

    asyncio.run(main())


ANONYMOUS = (
    # path, status without --anonymous-auth, with it under AlwaysAllow, with it under RBAC
    ("/livez", 200, 200, 200),
    ("/readyz?verbose", 200, 200, 200),
    ("/healthz/ping", 200, 200, 403),
    ("/version", 200, 200, 200),
    ("/api", 401, 200, 403),
    ("/apis", 401, 200, 403),
    ("/api/v1/namespaces/default/secrets", 401, 200, 403),
    ("/metrics", 401, 200, 403),
    ("/openapi/v2", 401, 200, 403),
    ("/", 401, 200, 403),
    ("/nothing", 401, 404, 403),
    ("/versions", 401, 404, 403),
    ("/api/v1/watch/secrets?timeoutSeconds=1", 401, 200, 403),
)


@pytest.mark.parametrize("at", (1, 2, 3), ids=("by default", "--anonymous-auth", "--anonymous-auth and RBAC"))
def test_what_nobody_in_particular_may_see(at: int) -> None:
    """AUTH-1, HEALTH-1, HEALTH-2."""

    async def test(_: ApiServer, ask: Ask) -> None:
        found = {row[0]: await ask(row[0], {}) for row in ANONYMOUS}
        assert found == {row[0]: row[at] for row in ANONYMOUS}

    settings = replace(SETTINGS, authorization="RBAC") if at == 3 else SETTINGS
    over_tls(test, replace(settings, anonymous_auth=at > 1))


def test_only_whole_segments_open_a_path() -> None:
    opened = [p for p in ("/livez", "/livez/x", "/livezx", "/version", "/version/", "/versions", "/api") if is_open(p)]
    assert opened == ["/livez", "/livez/x", "/version", "/version/"]


def test_a_bad_token_is_refused_wherever_it_is_shown() -> None:
    """AUTH-1, HEALTH-2: not taken for anonymous."""

    async def test(_: ApiServer, ask: Ask) -> None:
        for path in ("/version", "/livez", "/api"):
            assert await ask(path, {"Authorization": "Bearer wrong"}) == 401
        assert await ask("/api", {"Authorization": "Bearer right"}) == 200
        assert await ask("/api", {"Authorization": "Basic cmlnaHQ6cmlnaHQ="}) == 200  # another scheme is none

    over_tls(test, replace(SETTINGS, anonymous_auth=True, admin_token="right"))


def test_headers_of_front_proxies_say_nothing() -> None:
    async def test(_: ApiServer, ask: Ask) -> None:
        headers = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters", "Impersonate-User": "admin"}
        assert await ask("/api/v1/secrets", headers) == 401

    over_tls(test, SETTINGS)


def test_old_tls_is_not_spoken() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = make_certificate(Path(directory), "127.0.0.1")
            async with running() as server:
                port = await server.listen_tls("127.0.0.1", 0, certificate, key)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.set_ciphers("DEFAULT:@SECLEVEL=0")
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await asyncio.open_connection("127.0.0.1", port, ssl=context)

    with pytest.warns(DeprecationWarning):
        asyncio.run(main())


# ---------------------------------------------------------------- CVE-2020-8554: external IPs


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}


def test_external_ips_are_allowed_unless_denied() -> None:
    async def test(server: ApiServer) -> None:
        made = await server.client.create(SERVICE, service(externalIPs=["198.51.100.7"]), "default")
        assert made["spec"]["externalIPs"] == ["198.51.100.7"]

    with_server(test)


def test_denied_external_ips_can_be_kept_and_taken_away_but_not_added() -> None:
    """CVE-2020-8554, by the admission switch DenyServiceExternalIPs."""
    said = "Use of external IPs is denied by admission control"

    async def test(server: ApiServer) -> None:
        client = server.client
        for wanted in (service(externalIPs=["198.51.100.7"]), service(type="NodePort", externalIPs=["8.8.8.8"])):
            with pytest.raises(Forbidden, match=said):
                await client.create(SERVICE, wanted, "default")
        server.registry.admission.asked_for = frozenset()
        made = await client.create(SERVICE, service(externalIPs=["198.51.100.7", "198.51.100.8"]), "default")
        server.registry.admission.asked_for = frozenset({"DenyServiceExternalIPs"})
        made["metadata"]["labels"] = {"a": "b"}
        made = await client.update(SERVICE, made)
        made["spec"]["externalIPs"] = ["198.51.100.8", "198.51.100.9"]
        with pytest.raises(Forbidden, match=said):
            await client.update(SERVICE, made)
        with pytest.raises(Forbidden, match=said):
            await client.patch(SERVICE, "s", "default", {"spec": {"externalIPs": ["8.8.8.8"]}}, type="merge")
        made["spec"]["externalIPs"] = ["198.51.100.8"]
        assert (await client.update(SERVICE, made))["spec"]["externalIPs"] == ["198.51.100.8"]
        made = await client.patch(SERVICE, "s", "default", {"spec": {"externalIPs": None}}, type="merge")
        assert "externalIPs" not in made["spec"]

    with_server(test, replace(SETTINGS, enabled_admission=frozenset({"DenyServiceExternalIPs"})))


# ---------------------------------------------------------------- CVE-2021-25740: who writes endpoints

WRITES = {"create", "update", "patch", "delete", "deletecollection", "*"}


@pytest.mark.parametrize("name", GATHERING)
def test_default_roles_do_not_write_endpoints(name: str) -> None:
    """CVE-2021-25740."""
    rules = next(r["rules"] for r in default_cluster_roles() if r["metadata"]["name"] == name)
    for rule in rules:
        named = {"endpoints", "endpointslices", "*"} & set(rule["resources"])
        assert not (named and WRITES & set(rule["verbs"])), f"{name}: {rule}"
    read = {r for rule in rules if "get" in rule["verbs"] for r in rule["resources"]}
    assert {"endpoints", "endpointslices"} <= read


def test_an_editor_cannot_lead_a_service_elsewhere(tmp_path: Path) -> None:
    """CVE-2021-25740, over HTTP: neither Endpoints nor EndpointSlices, by any verb."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("at,alice,u1\n")

    async def run(server: ApiServer, http: Http) -> None:
        binding = {
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
        }
        await server.client.create(ROLE_BINDING, binding, "default")
        core, slices = "/api/v1/namespaces/default", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        alice = {"Authorization": "Bearer at"}
        assert (await http.request("POST", f"{core}/services", service(), **alice))[0] == 201
        endpoints = {
            "metadata": {"name": "s"},
            "subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 1}]}],
        }
        slice_ = {"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.9.9.9"]}]}
        for path, body in ((f"{core}/endpoints", endpoints), (slices, slice_)):
            assert (await http.request("GET", path, **alice))[0] == 200
            assert (await http.request("POST", path, body, **alice))[0] == 403
            one = f"{path}/{body['metadata']['name']}"  # type: ignore[index]
            assert (await http.request("PUT", one, body, **alice))[0] == 403
            assert (await http.request("PATCH", one, {}, Content_Type="application/merge-patch+json", **alice))[
                0
            ] == 403
            assert (await http.request("DELETE", one, **alice))[0] == 403
            assert (await http.request("DELETE", path, **alice))[0] == 403

    with_http(run, replace(SETTINGS, authorization="RBAC", token_file=str(tokens)))
