"""Pulling by the OCI distribution protocol: names, challenges, manifests, broken and hostile registries."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.clock import RealClock
from kubesvc.node.imagestore import ImageStore
from kubesvc.node.imagewait import logins_of
from kubesvc.node.pulling import Login, Puller, Told, Wanted, ask_pull, serve_pulls
from kubesvc.node.registry import PullFailed, base_address, parse_challenge, parse_reference
from kubesvc.node.restart_plan import go_duration
from kubesvc.node.tarstream import BadArchive

from .imagemaking import MACHINE, configuration, entry, layer, sha

LAYERS = [layer(entry("etc/passwd", "file", "root:x:0:0::/:\n")), layer(entry("motto", "file", "pulled" * 50_000))]


@dataclass
class FakeRegistry:
    """A registry with one image, which may misbehave as told.

    cut:    blobs break off after so many bytes, as often as `cuts`
    wrong:  digests whose content is replaced
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    token: str = ""
    login: str = ""
    cut: int = 0
    cuts: int = 0
    wrong: set[str] = field(default_factory=set)
    elsewhere: str = ""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    address: str = ""

    def put(self, data: bytes) -> dict[str, Any]:
        self.blobs[sha(data)] = data
        return {"digest": sha(data), "size": len(data)}

    def put_image(self, tag: str, layers: list[bytes], **config: Any) -> str:
        stored = [self.put(gzip.compress(data, mtime=0)) for data in layers]
        manifest = {"schemaVersion": 2, "config": self.put(configuration(layers, **config)), "layers": stored}
        own = {**self.put(json.dumps(manifest).encode()), "platform": {"os": "linux", "architecture": MACHINE}}
        other = {"digest": sha(b"windows"), "size": 1, "platform": {"os": "windows", "architecture": MACHINE}}
        index = {"schemaVersion": 2, "manifests": [other, own]}
        self.tags[tag] = str(self.put(json.dumps(index).encode())["digest"])
        return self.tags[tag]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append(dict(request.headers))
        given = request.headers.get("Authorization", "")
        if request.path == "/token":
            if self.login and given != "Basic " + base64.b64encode(self.login.encode()).decode():
                return web.Response(status=401)
            assert request.query["scope"] == "repository:shop/web:pull" and request.query["service"] == "here"
            return web.json_response({"token": self.token})
        if self.token and given != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.address}/token",service="here",scope="repository:shop/web:pull"'
            return web.json_response({"errors": []}, status=401, headers={"WWW-Authenticate": challenge})
        version = request.path.rpartition("/")[2]
        if "/manifests/" in request.path:
            digest = self.tags.get(version, version)
            if digest not in self.blobs or not request.path.startswith("/v2/shop/web/"):
                return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
            return web.Response(body=self.blobs[digest], content_type="application/vnd.oci.image.index.v1+json")
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(f"{self.elsewhere}{request.path}")
        data = self.blobs.get(version)
        if data is None:
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN", "message": "gone"}]}, status=404)
        data = b"x" * len(data) if version in self.wrong else data
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in request.headers else 0
        answer = web.StreamResponse(status=206 if start else 200)
        answer.content_length = len(data) - start
        await answer.prepare(request)
        if self.cuts and self.cut and len(data) - start > self.cut:
            self.cuts -= 1
            await answer.write(data[start : start + self.cut])
            assert request.transport is not None
            request.transport.abort()
            return answer
        await answer.write(data[start:])
        return answer


@asynccontextmanager
async def served(registry: FakeRegistry) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(registry.handle))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    registry.address = f"http://{host}:{port}"
    try:
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


def pulled(
    registry: FakeRegistry, tmp_path: Path, *logins: Login, image: str = "shop/web:1"
) -> tuple[Told, ImageStore]:
    """Pull from a registry on loopback into a store below `tmp_path`."""
    store = ImageStore(tmp_path / "images")

    async def scenario() -> Told:
        async with served(registry) as host:
            own = tuple(Login(login.registry or host, login.user, login.password) for login in logins)
            return await Puller(store, RealClock()).pull(Wanted(f"{host}/shop/web:1", own), lambda here, whole: None)

    return asyncio.run(scenario()), store


def test_an_image_is_pulled_once(tmp_path: Path) -> None:
    registry = FakeRegistry()
    digest = registry.put_image("1", LAYERS, Entrypoint=["/bin/web"])
    store = ImageStore(tmp_path / "images")

    async def scenario() -> None:
        async with served(registry) as host:
            puller, seen = Puller(store, RealClock()), []
            told = await puller.pull(Wanted(f"{host}/shop/web:1"), lambda here, whole: seen.append((here, whole)))
            image = store.find(f"{host}/shop/web:1")
            assert image is not None and image.identity == told.identity and image.entrypoint == ("/bin/web",)
            assert image.origin == f"{host}/shop/web@{digest}"
            assert (Path(image.directory) / "motto").read_text().startswith("pulled")
            assert seen[-1][0] == seen[-1][1] > 0
            registry.asked.clear()
            again = await puller.pull(Wanted(f"{host}/shop/web:1"), lambda here, whole: None)
            assert again.identity == told.identity and not [a for a in registry.asked if "/blobs/" in a]
            by_digest = await puller.pull(Wanted(f"{host}/shop/web@{digest}"), lambda here, whole: None)
            assert by_digest.identity == told.identity
        assert not list(store.directory.glob("layout-*")) and not list((store.directory / "downloads").iterdir())

    asyncio.run(scenario())


def test_a_token_is_asked_for_where_the_registry_says(tmp_path: Path) -> None:
    registry = FakeRegistry(token="abc")
    registry.put_image("1", LAYERS)
    told, _ = pulled(registry, tmp_path)
    assert told.identity and registry.asked.count("/token") == 1


def test_a_password_goes_to_the_token_service(tmp_path: Path) -> None:
    registry = FakeRegistry(token="abc", login="me:secret")
    registry.put_image("1", LAYERS)
    told, _ = pulled(registry, tmp_path, Login("", "me", "secret"))
    assert told.identity
    with pytest.raises(PullFailed, match=r"pull access denied, repository does not exist or may require authorization"):
        pulled(registry, tmp_path / "other", Login("", "me", "wrong"))


def test_a_token_stays_with_its_registry(tmp_path: Path) -> None:
    """Blobs are often kept elsewhere; whoever keeps them must not learn the token."""
    store, registry = FakeRegistry(), FakeRegistry(token="abc")
    registry.put_image("1", LAYERS)
    store.blobs = registry.blobs

    async def scenario() -> None:
        async with served(store) as there, served(registry) as host:
            registry.elsewhere = f"http://{there}"
            await Puller(ImageStore(tmp_path), RealClock()).pull(Wanted(f"{host}/shop/web:1"), lambda here, whole: None)
        assert store.asked and not any("Authorization" in headers for headers in store.headers)

    asyncio.run(scenario())


def test_what_breaks_off_is_taken_up_again(tmp_path: Path) -> None:
    registry = FakeRegistry(cut=300, cuts=2)
    registry.put_image("1", LAYERS)
    told, _ = pulled(registry, tmp_path)
    assert told.identity and any("Range" in headers for headers in registry.headers)


def wrong_blob(registry: FakeRegistry) -> None:
    registry.wrong = {digest for digest, data in registry.blobs.items() if data.startswith(b"\x1f\x8b")}


def wrong_manifest(registry: FakeRegistry) -> None:
    index = json.loads(registry.blobs[registry.tags["1"]])
    registry.blobs[index["manifests"][1]["digest"]] = b"{}"


def without_blob(registry: FakeRegistry) -> None:
    del registry.blobs[next(d for d, data in registry.blobs.items() if data.startswith(b"\x1f\x8b"))]


def for_others(registry: FakeRegistry) -> None:
    index = json.loads(registry.blobs[registry.tags["1"]])
    registry.tags["1"] = registry.put(json.dumps({"manifests": index["manifests"][:1]}).encode())["digest"]


def huge(registry: FakeRegistry) -> None:
    manifest = {"config": {"digest": sha(b""), "size": 1 << 50}, "layers": []}
    registry.tags["1"] = registry.put(json.dumps(manifest).encode())["digest"]


def no_json(registry: FakeRegistry) -> None:
    registry.tags["1"] = registry.put(b"\xff\xfe")["digest"]


def without_end(registry: FakeRegistry) -> None:
    registry.tags["1"] = registry.put(b" " * (5 << 20))["digest"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda registry: registry.tags.clear(), r"shop/web:1: not found$"),
        (wrong_blob, "its content is another"),
        (wrong_manifest, "the manifest's content is another"),
        (without_blob, "not found"),
        (for_others, "no match for platform in manifest: not found"),
        (huge, "a size of"),
        (no_json, "a manifest that cannot be read"),
        (without_end, "a manifest of more than"),
    ],
)
def test_what_cannot_be_pulled_changes_nothing(
    spoil: Callable[[FakeRegistry], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubesvc.node.registry.TRIES", 1)
    registry = FakeRegistry()
    registry.put_image("1", LAYERS)
    spoil(registry)
    with pytest.raises((PullFailed, BadArchive), match=words) as caught:
        pulled(registry, tmp_path)
    assert str(caught.value).startswith('failed to pull and unpack image "127.0.0.1:')
    assert not ImageStore(tmp_path / "images").names()


def test_nobody_there(tmp_path: Path) -> None:
    puller = Puller(ImageStore(tmp_path), RealClock())
    with pytest.raises(PullFailed, match=r'failed to do request: Get "http://127\.0\.0\.1:1/v2/a/manifests/latest"'):
        asyncio.run(puller.pull(Wanted("127.0.0.1:1/a"), lambda here, whole: None))


def test_nodes_ask_through_a_socket(tmp_path: Path) -> None:
    registry = FakeRegistry()
    registry.put_image("1", LAYERS)
    socket = tmp_path / "pull.sock"

    async def scenario() -> None:
        async with served(registry) as host:
            serving = asyncio.create_task(serve_pulls(socket, Puller(ImageStore(tmp_path / "images"), RealClock())))
            while not socket.exists():
                await asyncio.sleep(0.005)
            both = await asyncio.gather(*(ask_pull(socket, Wanted(f"{host}/shop/web:1")) for _ in range(2)))
            assert both[0].identity == both[1].identity
            assert sum("/blobs/" in path for path in registry.asked) == 3, "two nodes, one pull"
            with pytest.raises(PullFailed, match="not found"):
                await ask_pull(socket, Wanted(f"{host}/shop/none:1"))
            with pytest.raises(PullFailed, match="invalid reference format"):
                await ask_pull(socket, Wanted("NOT A NAME"))
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"nonsense\n")
            assert b"one line of JSON" in await reader.read()
            writer.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        with pytest.raises(PullFailed, match="nobody pulls here"):
            await ask_pull(socket, Wanted("a"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "registry", "repository", "version", "address"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", "https://registry-1.docker.io"),
        ("me/app:2", "docker.io", "me/app", "2", "https://registry-1.docker.io"),
        ("ghcr.io/a/b/c:v1", "ghcr.io", "a/b/c", "v1", "https://ghcr.io"),
        ("localhost:5000/x", "localhost:5000", "x", "latest", "http://localhost:5000"),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000", "x", "1", "http://127.0.0.1:5000"),
        ("quay.io/x@sha256:" + "0" * 64, "quay.io", "x", "sha256:" + "0" * 64, "https://quay.io"),
    ],
)
def test_names_say_where(name: str, registry: str, repository: str, version: str, address: str) -> None:
    reference = parse_reference(name)
    assert (reference.registry, reference.repository, reference.version) == (registry, repository, version)
    assert base_address(registry, {}) == address
    assert base_address(registry, {registry: "http://mirror:5000/"}) == "http://mirror:5000"


@given(st.text(max_size=80))
def test_any_challenge_is_read(text: str) -> None:
    scheme, told = parse_challenge(text)
    assert scheme == scheme.lower() and all(isinstance(v, str) for v in told.values())


@pytest.mark.parametrize(
    ("secret", "logins"),
    [
        (
            {".dockerconfigjson": {"auths": {"https://index.docker.io/v1/": {"username": "a", "password": "b"}}}},
            [Login("docker.io", "a", "b")],
        ),
        (
            {".dockerconfigjson": {"auths": {"ghcr.io": {"auth": base64.b64encode(b"a:b:c").decode()}}}},
            [Login("ghcr.io", "a", "b:c")],
        ),
        ({".dockercfg": {"r:5000": {"username": "a", "password": "b"}}}, [Login("r:5000", "a", "b")]),
        ({".dockerconfigjson": {"auths": {"x": {"auth": "!"}, "y": 3}}}, []),
        ({".dockerconfigjson": []}, []),
        ({}, []),
    ],
)
def test_pull_secrets(secret: dict[str, Any], logins: list[Login]) -> None:
    assert list(logins_of({key: json.dumps(value).encode() for key, value in secret.items()})) == logins


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.85, "850ms"), (1.25, "1.25s"), (2, "2s"), (62.5, "1m2.5s"), (0, "0s")]
)
def test_spans_are_printed_as_upstream_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
