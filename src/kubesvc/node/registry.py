"""Images from registries, by the OCI distribution protocol, into an OCI layout that `imagestore` can load.

Everything that arrives is checked against its digest before it counts. A blob that broke off is taken up again where
it ended, also by a later pull. Nothing is unpacked here.

Registries are asked over TLS, but for those on this machine (localhost, 127.0.0.0/8, ::1), which are asked in plain
HTTP, as other engines do. A mirror is a base address to ask instead of a registry.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from .images import full_name
from .imagestore import DIGEST, MOST_LAYERS, fits, items
from .tarstream import BadArchive

if TYPE_CHECKING:
    import aiohttp

HUB, HUB_HOST = "docker.io", "registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
FOREIGN = ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "nondistributable")
MANIFEST_BYTES = 4 << 20
MOST_BYTES = 16 << 30
AT_ONCE = 3
REDIRECTS = 5
CONNECT_SECONDS, SILENT_SECONDS = 10.0, 30.0
TRIES = 4
PARAMETER = re.compile(r'([a-zA-Z]+)="((?:[^"\\]|\\.)*)"')

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are there."""


class PullFailed(Exception):
    """An image cannot be had. The text is what the container's status says, in the words of common runtimes."""


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str


@dataclass(frozen=True)
class Reference:
    """An image name taken apart: `registry/repository:tag` or `registry/repository@digest`."""

    name: str
    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def version(self) -> str:
        """What its manifest is asked by."""
        return self.digest or self.tag


def parse_reference(name: str) -> Reference:
    """The parts of an image name as Pods write it. ImageProblem if it is none."""
    full = full_name(name)
    rest, _, digest = full.partition("@")
    registry, _, path = rest.partition("/")
    repository, _, tag = path.partition(":")
    return Reference(full, registry, repository, tag, digest)


def base_address(registry: str, mirrors: Mapping[str, str]) -> str:
    """Where a registry is asked: scheme and host, without a path at its end."""
    if registry in mirrors:
        return mirrors[registry].rstrip("/")
    host = registry.rpartition(":")[0] if re.search(r":\d+$", registry) else registry
    return f"{'http' if is_local(host) else 'https'}://{HUB_HOST if registry == HUB else registry}"


def is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """(scheme in lower case, parameters) of a WWW-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {key.lower(): re.sub(r"\\(.)", r"\1", value) for key, value in PARAMETER.findall(rest)}


def choose_manifest(index: Any) -> str:
    """The digest of the manifest for this machine in an index. PullFailed if there is none."""
    for found in items(index.get("manifests"), dict, "index: manifests"):
        wanted, digest = found.get("platform"), found.get("digest")
        if isinstance(wanted, dict) and not fits(wanted):
            continue
        if isinstance(digest, str) and DIGEST.fullmatch(digest):
            return digest
    raise PullFailed("no match for platform in manifest: not found")


@dataclass(frozen=True)
class Blob:
    digest: str
    size: int


def blobs_of(manifest: Any) -> list[Blob]:
    """The configuration and the layers of a manifest, each once. BadArchive where it says nothing sensible."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise BadArchive("a manifest without a configuration")
    layers = items(manifest.get("layers"), dict, "manifest: layers", MOST_LAYERS)
    found: dict[str, Blob] = {}
    for described in (manifest["config"], *layers):
        digest, size = described.get("digest"), described.get("size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise BadArchive(f"{digest!r}: only sha256 digests are understood")
        if not isinstance(size, int) or not 0 <= size <= MOST_BYTES:
            raise BadArchive(f"{digest}: a size of {size!r}")
        if any(word in str(described.get("mediaType")) for word in FOREIGN):
            raise BadArchive(f"{digest}: a layer that registries do not keep")
        found[digest] = Blob(digest, size)
    if sum(blob.size for blob in found.values()) > MOST_BYTES:
        raise BadArchive(f"the image is larger than {MOST_BYTES >> 30} GiB")
    return list(found.values())


class RegistryClient:
    """Fetches images. Close it after use.

    mirrors:     base address by registry, asked instead of it
    credentials: by registry
    downloads:   directory where blobs are kept while they come in
    """

    def __init__(
        self,
        downloads: Path,
        *,
        mirrors: Mapping[str, str] | None = None,
        credentials: Mapping[str, Credentials] | None = None,
    ) -> None:
        self.downloads = downloads
        self.mirrors = mirrors or {}
        self.credentials = credentials or {}
        self.tokens: dict[tuple[str, str], str] = {}
        self.session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()

    def http(self) -> aiohttp.ClientSession:
        import aiohttp

        if self.session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            self.session = aiohttp.ClientSession(
                timeout=timeout, trust_env=True, auto_decompress=False, headers={"User-Agent": "kubesvc"}
            )
        return self.session

    async def resolve(self, reference: Reference) -> tuple[str, bytes]:
        """(digest, manifest) of what the name stands for on this machine now. PullFailed."""
        digest, data = await self.manifest(reference, reference.version)
        top = digest
        for _ in range(3):
            manifest = parsed(data, reference)
            if "manifests" not in manifest:
                return top, data
            try:
                chosen = choose_manifest(manifest)
            except PullFailed as error:
                raise unresolved(reference, str(error)) from None
            _, data = await self.manifest(reference, chosen)
        raise unresolved(reference, "indexes within indexes")

    async def manifest(self, reference: Reference, version: str) -> tuple[str, bytes]:
        """(digest, bytes) of one manifest, checked."""
        path = f"/v2/{reference.repository}/manifests/{version}"
        async with await self.get(reference, path, {"Accept": ", ".join(MANIFESTS)}) as answer:
            if answer.status != 200:
                raise unresolved(reference, await refusal(reference, answer))
            data = await answer.content.read(-1) if answer.content_length is None else await bounded(answer)
            if len(data) > MANIFEST_BYTES:
                raise unresolved(reference, f"a manifest of more than {MANIFEST_BYTES} bytes")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if version.startswith("sha256:") and digest != version:
            raise unresolved(reference, f"{version}: the manifest's content is another")
        return digest, data

    async def fetch(self, reference: Reference, manifest: bytes, layout: Path, progress: Progress) -> None:
        """The whole image as an OCI layout at `layout`, an empty directory. PullFailed."""
        blobs = blobs_of(parsed(manifest, reference))
        self.downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = layout / "blobs" / "sha256"
        place.mkdir(parents=True)
        total, there = sum(blob.size for blob in blobs), dict.fromkeys((blob.digest for blob in blobs), 0)

        def on_bytes(digest: str, size: int) -> None:
            there[digest] = size
            progress(sum(there.values()), total)

        turns = asyncio.Semaphore(AT_ONCE)

        async def one(blob: Blob) -> None:
            async with turns:
                kept = await self.blob(reference, blob, lambda size: on_bytes(blob.digest, size))
                kept.rename(place / blob.digest.removeprefix("sha256:"))

        try:
            async with asyncio.TaskGroup() as group:
                for blob in blobs:
                    group.create_task(one(blob))
        except* PullFailed as failures:
            raise failures.exceptions[0] from None
        digest = hashlib.sha256(manifest).hexdigest()
        (place / digest).write_bytes(manifest)
        index = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{digest}", "size": len(manifest)}]}
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    async def blob(self, reference: Reference, blob: Blob, progress: Callable[[int], None]) -> Path:
        """One blob as a checked file below `downloads`; taken up where it broke off, at most TRIES times."""
        import aiohttp

        part = self.downloads / f"{blob.digest.removeprefix('sha256:')}.part"
        words = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(0.25 * 2**attempt)
            try:
                await self.more(reference, blob, part, progress)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                words = str(error) or type(error).__name__
                continue
            held = part.stat().st_size
            if held < blob.size:
                words = f"it ended after {held} of {blob.size} bytes"
                continue
            if held == blob.size and await asyncio.to_thread(digest_of, part) == blob.digest:
                return part
            part.unlink()
            words = "its content is another"
        raise failed(reference, f"failed to copy {blob.digest}: {words}")

    async def more(self, reference: Reference, blob: Blob, part: Path, progress: Callable[[int], None]) -> None:
        """Append what is missing of a blob."""
        held = part.stat().st_size if part.exists() else 0
        if held > blob.size:
            part.unlink()
            held = 0
        if held == blob.size and held:
            return
        headers = {"Range": f"bytes={held}-"} if held else {}
        async with await self.get(reference, f"/v2/{reference.repository}/blobs/{blob.digest}", headers) as answer:
            if answer.status not in (200, 206):
                raise failed(reference, await refusal(reference, answer))
            if answer.status == 200:
                held = 0  # the whole of it, whatever was asked
            with part.open("r+b" if held else "wb") as file:
                file.seek(held)
                async for data in answer.content.iter_chunked(1 << 18):
                    held += len(data)
                    if held > blob.size:
                        raise failed(reference, f"{blob.digest}: more than the {blob.size} bytes it should have")
                    file.write(data)
                    progress(held)

    async def get(self, reference: Reference, path: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """GET, with a token if the registry wants one, following redirects; credentials never leave the registry."""
        import aiohttp

        url = base_address(reference.registry, self.mirrors) + path
        host = urlsplit(url).netloc
        key = (reference.registry, reference.repository)
        try:
            for _ in range(REDIRECTS + 2):
                own = dict(headers)
                if key in self.tokens and urlsplit(url).netloc == host:
                    own["Authorization"] = self.tokens[key]
                answer = await self.http().get(url, headers=own, allow_redirects=False)
                if answer.status in (301, 302, 303, 307, 308) and (where := answer.headers.get("Location")):
                    answer.release()
                    url = urljoin(url, where)
                    continue
                if answer.status == 401 and "Authorization" not in own and urlsplit(url).netloc == host:
                    challenge = answer.headers.get("WWW-Authenticate", "")
                    await answer.read()
                    self.tokens[key] = await self.authorize(reference, challenge)
                    continue
                return answer
        except (aiohttp.ClientError, ssl.SSLError, TimeoutError, OSError) as error:
            if path.find("/manifests/") < 0:
                raise
            words = str(error) or type(error).__name__
            raise unresolved(reference, f'failed to do request: Get "{url}": {words}') from None
        raise unresolved(reference, "too many redirects")

    async def authorize(self, reference: Reference, challenge: str) -> str:
        """The Authorization header that a challenge asks for."""
        scheme, told = parse_challenge(challenge)
        known = self.credentials.get(reference.registry)
        basic = ""
        if known is not None:
            basic = "Basic " + base64.b64encode(f"{known.user}:{known.password}".encode()).decode()
        if scheme == "basic":
            if not basic:
                raise unresolved(reference, denied("no basic auth credentials"))
            return basic
        realm = told.get("realm", "")
        if scheme != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            raise unresolved(reference, denied(f"authentication that is not understood: {challenge[:80]!r}"))
        local = is_local(urlsplit(realm).hostname or "")
        if basic and urlsplit(realm).scheme == "http" and not local:
            raise unresolved(reference, denied(f"the password would go to {realm} unencrypted"))
        asked = {"scope": told.get("scope") or f"repository:{reference.repository}:pull"}
        if "service" in told:
            asked["service"] = told["service"]
        headers = {"Authorization": basic} if basic else {}
        joint = "&" if "?" in realm else "?"
        async with self.http().get(realm + joint + urlencode(asked), headers=headers) as answer:
            if answer.status != 200:
                raise unresolved(reference, denied(f"failed to fetch oauth token: {answer.status}"))
            try:
                given = msgspec.json.decode(await bounded(answer))
            except msgspec.MsgspecError:
                given = None
        token = given.get("token") or given.get("access_token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not token.isprintable():
            raise unresolved(reference, denied("no token in the answer"))
        return f"Bearer {token}"


def digest_of(file: Path) -> str:
    with file.open("rb") as source:
        return f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"


async def bounded(answer: aiohttp.ClientResponse) -> bytes:
    """A small body, whole; one byte more than allowed where it is larger."""
    parts, left = [], MANIFEST_BYTES + 1
    while left and (data := await answer.content.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def parsed(data: bytes, reference: Reference) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except msgspec.MsgspecError as error:
        raise unresolved(reference, f"a manifest that cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise unresolved(reference, "a manifest that cannot be read")
    return found


async def refusal(reference: Reference, answer: aiohttp.ClientResponse) -> str:
    """What a registry's refusal means."""
    if answer.status == 404:
        return f"{reference.name}: not found"
    body = await bounded(answer)
    said = body[:200].decode(errors="replace").strip()
    try:
        found = msgspec.json.decode(body)
        said = "; ".join(str(e.get("message") or e.get("code")) for e in found["errors"] if isinstance(e, dict))
    except (msgspec.MsgspecError, KeyError, TypeError):
        pass
    if answer.status in (401, 403):
        return denied(said)
    return f"unexpected status from GET request: {answer.status} {answer.reason}: {said}"


def denied(words: str) -> str:
    return f"pull access denied, repository does not exist or may require authorization: {words}"


def unresolved(reference: Reference, words: str) -> PullFailed:
    return failed(reference, f'failed to resolve reference "{reference.name}": {words}')


def failed(reference: Reference, words: str) -> PullFailed:
    return PullFailed(f'failed to pull and unpack image "{reference.name}": {words}')
