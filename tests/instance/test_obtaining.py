"""A machine gets a node's identity from a real API server with its controllers, and renews it."""

from __future__ import annotations

import asyncio
import base64
import copy
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.certificatesigningrequest import CERTIFICATE_SIGNING_REQUEST
from kubesvc.api.errors import Forbidden, Unauthorized
from kubesvc.api.kinds import CLUSTER_ROLE_BINDING, SECRET, SERVICE
from kubesvc.api.meta import Object
from kubesvc.apiserver import ApiServerSettings
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.app import right_of
from kubesvc.cli.token import BINDINGS, GROUP, make_rights
from kubesvc.client.http import HttpClient
from kubesvc.client.kubeconfig import Access
from kubesvc.clock import RealClock
from kubesvc.controllers import ControllerSettings, run_controllers
from kubesvc.instance.joining import Identity, JoinFailed, obtain_identity
from kubesvc.instance.pki import ensure_pki
from kubesvc.store.memory import MemoryStore

CONTROLLERS = ("certificatesigningrequest-approving-controller", "certificatesigningrequest-signing-controller")
TOKEN = "abcdef.0123456789abcdef"


@dataclass
class Cluster:
    """A server with TLS, the rights that `token create` makes, and one token."""

    server: ApiServer
    url: str
    ca: bytes

    def client(self, *, token: str = "", identity: Identity | None = None) -> HttpClient:
        return HttpClient.from_access(self.access(token=token, identity=identity), "kubelet")

    def access(self, *, token: str = "", identity: Identity | None = None) -> Access:
        held = identity or Identity(b"", b"")
        return Access(self.url, ca=self.ca, token=token, client_certificate=held.certificate, client_key=held.key)


@asynccontextmanager
async def cluster(directory: Path, longest: float = 86400.0) -> AsyncIterator[Cluster]:
    """longest: how long signed certificates live, in seconds"""
    clock, chance = RealClock(), random.Random(1)
    pki = ensure_pki(directory / "pki", ["127.0.0.1"], ["kubernetes"], clock.now())
    store = MemoryStore()
    await store.start()
    settings = ApiServerSettings(authorization="Node,RBAC", disabled_admission=frozenset({"ServiceAccount"}))
    server = ApiServer(store, settings, clock, chance)
    port = await server.listen_tls("127.0.0.1", 0, str(pki.server_cert), str(pki.server_key), str(pki.ca_cert))
    await server.start()
    await make_rights(server.client)
    data = {"token-id": TOKEN[:6], "token-secret": TOKEN[7:], "usage-bootstrap-authentication": "true",
            "auth-extra-groups": GROUP}  # fmt: skip
    values = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
    body: Object = {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
                    "data": values}  # fmt: skip
    await server.client.create(SECRET, body, "kube-system")
    signing = ControllerSettings(
        may=right_of(server),
        signing_certificate=pki.ca_cert.read_bytes(),
        signing_key=pki.ca_key.read_bytes(),
        cluster_signing_duration=longest,
    )
    running = asyncio.create_task(run_controllers(server.client, CONTROLLERS, clock=clock, random=chance,
                                                  settings=signing))  # fmt: skip
    try:
        yield Cluster(server, f"https://127.0.0.1:{port}", pki.ca_cert.read_bytes())
    finally:
        running.cancel()
        await asyncio.wait([running])
        await server.stop(0.1)
        await store.close()


class Restart(Exception):
    """The end of a process that waits."""


class Looks:
    """Ends whoever looks often enough whether its certificate is there."""

    left = 0

    def on(self, client: Any) -> Any:
        watched = copy.copy(client)

        async def get(*words: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Restart
            return await client.get(*words, **more)

        watched.get = get
        return watched


async def every(found: Cluster) -> list[Any]:
    import msgspec

    listed = await found.server.client.list_raw(CERTIFICATE_SIGNING_REQUEST)
    return [msgspec.json.decode(raw) for raw in listed.items]


def test_a_token_becomes_a_node_and_renews_itself(tmp_path: Path) -> None:
    """The bearer of a token may ask and nothing else; the node reads what its proxy needs; a renewal is approved for
    itself, and open streams go on meanwhile."""

    async def story() -> None:
        said: list[str] = []
        async with cluster(tmp_path) as found, asyncio.timeout(120):
            bearer = found.client(token=TOKEN)
            out = tmp_path / "node" / "kubeconfig"
            first = await obtain_identity(bearer, "n1", out, RealClock(), said.append)
            with pytest.raises(Forbidden):
                await bearer.list_raw(SERVICE)
            await bearer.close()
            client = found.client(identity=first)
            await client.list_raw(SERVICE)
            with pytest.raises(Forbidden):
                await client.list_raw(SECRET, "default")
            async with aclosing(client.watch(SERVICE)) as watch:
                second = await obtain_identity(client, "n1", out, RealClock(), said.append)
                assert second.key != first.key
                await client.use(found.access(identity=second))
                await client.list_raw(SERVICE)
                service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
                await found.server.client.create(SERVICE, service, "default")
                async for event in watch:
                    if b'"name":"s"' in event.object:
                        break
            await client.close()
            askers = {r["spec"]["username"]: r["status"]["conditions"][0]["message"] for r in await every(found)}
            assert askers == {
                "system:bootstrap:abcdef": "Auto approving kubelet client certificate after SubjectAccessReview.",
                "system:node:n1": "Auto approving self kubelet client certificate after SubjectAccessReview.",
            }
            assert said == [] and not out.with_name("kubeconfig.key").exists()

    asyncio.run(story())


def test_what_nobody_approves_waits_and_what_is_denied_ends(tmp_path: Path) -> None:
    """A restart asks for the same certificate again, not for another."""

    async def story() -> None:
        said: list[str] = []
        async with cluster(tmp_path) as found, asyncio.timeout(120):
            name = next(n for n in BINDINGS if "autoapprove-bootstrap" in n)
            await found.server.client.delete(CLUSTER_ROLE_BINDING, name)
            bearer = found.client(token=TOKEN)
            out = tmp_path / "node" / "kubeconfig"
            looks = Looks()
            for _ in range(2):
                looks.left = 2
                with pytest.raises(Restart):
                    await obtain_identity(looks.on(bearer), "n1", out, RealClock(), said.append)
            (request,) = await every(found)
            request["status"] = {"conditions": [{"type": "Denied", "status": "True", "message": "not you"}]}
            await found.server.client.update(CERTIFICATE_SIGNING_REQUEST, request, subresource="approval")
            with pytest.raises(JoinFailed, match="was denied: not you"):
                await obtain_identity(bearer, "n1", out, RealClock(), said.append)
            await bearer.close()
            wrong = found.client(token=TOKEN[:-1] + "0")
            with pytest.raises(Unauthorized):
                await obtain_identity(wrong, "n1", out, RealClock(), said.append)
            await wrong.close()

    asyncio.run(story())
