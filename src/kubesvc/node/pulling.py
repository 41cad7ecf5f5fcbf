"""Pulling for nodes that have no way out: a unix socket in the host's namespace, behind which images are fetched.

A node sends one line of JSON (`Wanted`) and is answered by lines of JSON (`Told`): how far it is, and at last what
came of it. Two nodes that want the same image share one pull. The image appears in the store that they share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from kubesvc.clock import Clock
from kubesvc.kernel.trees import remove_tree

from .images import ImageProblem
from .imagestore import ImageStore
from .registry import Credentials, Progress, PullFailed, RegistryClient, parse_reference
from .tarstream import BadArchive

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 20
ASK_SECONDS = 10.0
TELL_SECONDS = 1.0


class Login(msgspec.Struct, frozen=True):
    """What to say to a registry."""

    registry: str
    user: str
    password: str


class Wanted(msgspec.Struct, frozen=True):
    """An image by its name as the Pod writes it, and what its Pod's pull secrets say."""

    image: str
    logins: tuple[Login, ...] = ()


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a pull goes: bytes so far of a whole; at the end what it gave, or why it failed."""

    here: int = 0
    whole: int = 0
    identity: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    error: str = ""

    @property
    def last(self) -> bool:
        return bool(self.identity or self.error)


class Puller:
    """Pulls images into a store, one at a time."""

    def __init__(self, store: ImageStore, clock: Clock, mirrors: Mapping[str, str] | None = None) -> None:
        self.store = store
        self.clock = clock
        self.mirrors = mirrors or {}
        self.turn = asyncio.Lock()

    async def pull(self, wanted: Wanted, progress: Progress) -> Told:
        """Have the image in the store, as the registry has it now. Raises PullFailed."""
        began = self.clock.monotonic()
        async with self.turn:  # one at a time, as a kubelet does
            started = self.clock.monotonic()
            try:
                identity, size = await self.fetch(wanted, progress)
            except ImageProblem as error:
                raise PullFailed(str(error)) from None
            except (BadArchive, OSError) as error:
                name = parse_reference(wanted.image).name
                raise PullFailed(f'failed to pull and unpack image "{name}": {error}') from None
            now = self.clock.monotonic()
        return Told(identity=identity, size_bytes=size, seconds=now - started, waited_seconds=now - began)

    async def fetch(self, wanted: Wanted, progress: Progress) -> tuple[str, int]:
        """(identity, bytes) of the image."""
        reference = parse_reference(wanted.image)
        logins = {login.registry: Credentials(login.user, login.password) for login in wanted.logins}
        directory = self.store.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        registry = RegistryClient(directory / "downloads", mirrors=self.mirrors, credentials=logins)
        layout = Path(tempfile.mkdtemp(prefix="layout-", dir=directory))
        try:
            digest, manifest = await registry.resolve(reference)
            held = self.store.pulled(reference.name, digest)
            if held is None:
                await registry.fetch(reference, manifest, layout, progress)
                origin = f"{reference.registry}/{reference.repository}@{digest}"
                await asyncio.to_thread(self.store.load, layout, (reference.name,), origin)
                held = self.store.pulled(reference.name, digest)
            if held is None:
                raise PullFailed(f'failed to pull and unpack image "{reference.name}": it was removed meanwhile')
            return held.id, held.size_bytes
        finally:
            remove_tree(layout)
            await registry.close()


async def serve_pulls(path: Path, puller: Puller) -> None:
    """Answer nodes on a socket at `path` until cancelled."""
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(lambda r, w: answer(puller, r, w), path, limit=MOST_BYTES)
    os.chmod(path, 0o600)
    try:
        await server.serve_forever()
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def answer(puller: Puller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One node's wish."""
    latest = Told()

    def progress(here: int, whole: int) -> None:
        nonlocal latest
        latest = Told(here=here, whole=whole)

    try:
        async with asyncio.timeout(ASK_SECONDS):
            wanted = msgspec.json.decode(await reader.readuntil(b"\n"), type=Wanted)
        task = asyncio.create_task(puller.pull(wanted, progress))
        try:
            while not (await asyncio.wait({task}, timeout=TELL_SECONDS))[0]:
                writer.write(msgspec.json.encode(latest) + b"\n")
                await writer.drain()
            told = task.result()
        finally:
            task.cancel()
    except PullFailed as error:
        told = Told(error=str(error))
    except (msgspec.DecodeError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        told = Told(error="a wish is one line of JSON")
    except OSError:
        writer.close()
        return
    with contextlib.suppress(OSError):
        writer.write(msgspec.json.encode(told) + b"\n")
        await writer.drain()
    writer.close()


async def ask_pull(path: Path, wanted: Wanted, progress: Callable[[Told], None] = lambda told: None) -> Told:
    """Have an image pulled; the last thing told. PullFailed if it failed or nobody is there to ask."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MOST_BYTES)
        try:
            writer.write(msgspec.json.encode(wanted) + b"\n")
            await writer.drain()
            while line := await reader.readline():
                told = msgspec.json.decode(line, type=Told)
                if told.error:
                    raise PullFailed(told.error)
                if told.last:
                    return told
                progress(told)
        finally:
            writer.close()
    except (OSError, msgspec.DecodeError) as error:
        raise PullFailed(f"failed to pull image {wanted.image!r}: nobody pulls here: {error}") from None
    raise PullFailed(f"failed to pull image {wanted.image!r}: whoever pulls here has gone")
