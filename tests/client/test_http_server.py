"""The HTTP client against our own API server: TLS by kubeconfig, a unix socket, and informers over both."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kubesvc.api.configmap import CONFIG_MAP, ConfigMap
from kubesvc.api.errors import NotFound, Unauthorized
from kubesvc.apiserver.__main__ import make_certificate
from kubesvc.apiserver.apiserver import ApiServer
from kubesvc.apiserver.settings import ApiServerSettings
from kubesvc.client.http import HttpClient, tls_context
from kubesvc.client.informer import Informer
from kubesvc.client.interface import Unreachable
from kubesvc.client.kubeconfig import Access, KubeconfigError
from kubesvc.clock import RealClock
from kubesvc.store.memory import MemoryStore

Story = Callable[[ApiServer, int, Path], Awaitable[None]]


def with_server(directory: Path, story: Story) -> None:
    """A server with a certificate for 127.0.0.1 and the token `secret`."""

    async def main() -> None:
        store = MemoryStore()
        await store.start()
        settings = ApiServerSettings(admin_token="secret", anonymous_auth=False)
        server = ApiServer(store, settings, RealClock(), random.Random(1))
        port = await server.listen_tls("127.0.0.1", 0, *make_certificate(directory, "127.0.0.1"))
        await server.start()
        try:
            async with asyncio.timeout(120):
                await story(server, port, directory)
        finally:
            await server.stop()
            await store.close()

    asyncio.run(main())


def kubeconfig(directory: Path, port: int, *, token: str = "secret", ca: bytes | None = None) -> Path:
    data = base64.b64encode(ca if ca is not None else (directory / "tls.crt").read_bytes()).decode()
    path = directory / "kubeconfig"
    path.write_text(
        f"""
        current-context: c
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
        clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority-data: {data}}}}}]
        users: [{{name: u, user: {{token: "{token}"}}}}]
        """
    )
    return path


def test_tls_by_kubeconfig(tmp_path: Path) -> None:
    """Write, read, patch, list, delete, and what a wrong token or another authority gives."""

    async def story(server: ApiServer, port: int, directory: Path) -> None:
        client = HttpClient.from_kubeconfig(kubeconfig(directory, port), manager="tester")
        made = await client.create(CONFIG_MAP, {"metadata": {"name": "a"}, "data": {"k": "1"}}, "default")
        assert made["metadata"]["uid"]
        patched = await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "2"}}, "merge")
        assert (await client.get(CONFIG_MAP, "a", "default"))["data"] == patched["data"] == {"k": "2"}
        assert len((await client.list_raw(CONFIG_MAP, "default", field_selector="metadata.name=a")).items) == 1
        await client.delete(CONFIG_MAP, "a", "default", uid=made["metadata"]["uid"])
        with pytest.raises(NotFound, match='configmaps "a" not found'):
            await client.get(CONFIG_MAP, "a", "default")
        await client.close()
        wrong = HttpClient.from_kubeconfig(kubeconfig(directory, port, token="guess"))
        with pytest.raises(Unauthorized):
            await wrong.get(CONFIG_MAP, "a", "default")
        await wrong.close()
        (directory / "other").mkdir()
        other = Path(make_certificate(directory / "other", "127.0.0.1")[0]).read_bytes()
        strange = HttpClient.from_kubeconfig(kubeconfig(directory, port, ca=other))
        with pytest.raises(Unreachable, match="certificate"):
            await strange.get(CONFIG_MAP, "a", "default")
        await strange.close()
        trusting = HttpClient.from_access(Access(server=f"https://127.0.0.1:{port}", insecure=True, token="secret"))
        with pytest.raises(NotFound):
            await trusting.get(CONFIG_MAP, "a", "default")
        await trusting.close()

    with_server(tmp_path, story)


def test_informer_over_a_unix_socket(tmp_path: Path) -> None:
    async def story(server: ApiServer, port: int, directory: Path) -> None:
        await server.listen_unix(str(directory / "api.sock"))
        client = HttpClient.unix(directory / "api.sock")
        informer: Informer[ConfigMap] = Informer(
            client, CONFIG_MAP, "default", clock=RealClock(), random=random.Random(1)
        )
        told: list[str] = []

        def handler(old: ConfigMap | None, new: ConfigMap | None) -> None:
            told.append(" ".join(state.name if state else "-" for state in (old, new)))

        informer.on_change(handler)
        task = asyncio.create_task(informer.run())
        await informer.synced.wait()
        before = list(told)
        await client.create(CONFIG_MAP, {"metadata": {"name": "a"}}, "default")
        await client.patch(CONFIG_MAP, "a", "default", {"data": {"k": "1"}}, "merge")
        await client.delete(CONFIG_MAP, "a", "default")
        while len(told) < len(before) + 3:
            await asyncio.sleep(0.005)
        assert told[len(before) :] == ["- a", "a a", "a -"]
        task.cancel()
        await asyncio.wait([task])
        await client.close()

    with_server(tmp_path, story)


def test_certificates_of_a_context(tmp_path: Path) -> None:
    """Client certificates are loaded, and nothing of them is left on disk; what is no use says so."""
    certificate, key = (Path(p).read_bytes() for p in make_certificate(tmp_path, "127.0.0.1"))
    access = Access(server="https://x", ca=certificate, client_certificate=certificate, client_key=key)
    context = tls_context(access)
    assert context is not None and context.verify_mode == ssl.CERT_REQUIRED
    assert tls_context(Access(server="http://x")) is None
    with pytest.raises(KubeconfigError, match="not usable together"):
        tls_context(Access(server="https://x", client_certificate=certificate, client_key=certificate))
    with pytest.raises(KubeconfigError, match="certificate-authority: not usable"):
        tls_context(Access(server="https://x", ca=b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"))
