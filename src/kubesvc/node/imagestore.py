"""Images that were loaded from files: OCI layouts and what `docker save` and `podman save` write.

    images/index.json          full image name to identity
    images/<hex>/rootfs        all layers of one image, laid over each other
    images/<hex>/image.json    what of its configuration runs

The identity is the digest of the image's configuration, which names the digests of all layers; both are checked, so an
image that is there is the one that was asked for. A load appears whole or not at all.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import re
import signal
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from kubesvc.kernel.rootfs import Root
from kubesvc.kernel.trees import remove_tree

from .images import SYSTEM_PATH, Image, ImageProblem, full_name
from .layers import Budget, Layers
from .tarstream import BadArchive, Source, read_tar

JSON_BYTES = 4 << 20
MOST_LAYERS = 256
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""The first is a whole name, the second often no more than a tag."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What of an image's configuration runs."""

    id: str
    entrypoint: list[str] = []
    command: list[str] = []
    env: dict[str, str] = {}
    workdir: str = "/"
    stop_signal: int = signal.SIGTERM
    user: int | None = None
    group: int | None = None
    username: str = ""
    """The user as the configuration has it, where that is no number."""
    user_trouble: str = ""
    """Why no container can be made with the configuration's user."""
    size_bytes: int = 0
    created: str = ""
    origins: list[str] = []
    """Where it was pulled from, `registry/repository@digest`; none for one that was loaded from a file."""


# -- what is in an archive --------------------------------------------------------------------------------------------


class Archive:
    """The files of an image archive by name: a directory, or a tar file that is looked through once."""

    def __init__(self, path: Path, room: Path, budget: Budget) -> None:
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}
        self.links: dict[str, str] = {}
        self.file: IO[bytes] | None = None
        if not path.is_dir():
            self.file = plain_file(path, room, budget)
            for entry, _ in read_tar(self.file):
                budget.take(entries=1)
                name = os.path.normpath(entry.name.lstrip("/"))
                if entry.kind == "file":
                    self.places[name] = (entry.offset, entry.size)
                elif entry.kind in ("symlink", "link"):  # older docker writes equal layers once
                    base = os.path.dirname(name) if entry.kind == "symlink" else ""
                    self.links[name] = os.path.normpath(os.path.join(base, entry.target))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def has(self, name: str) -> bool:
        if self.file is None:
            return (self.path / name).is_file()
        return self.links.get(name, name) in self.places

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Source]:
        """One file. BadArchive if there is none."""
        name = os.path.normpath(name)
        if name.startswith(("/", "..")):
            raise BadArchive(f"{name!r}: a path that leads out of the archive")
        if self.file is None:
            try:
                fd = Root(str(self.path)).open(name, os.O_RDONLY)
            except OSError as error:
                raise BadArchive(f"{name!r}: {error.strerror}") from None
            with os.fdopen(fd, "rb") as file:
                yield file
            return
        place = self.places.get(self.links.get(name, name))
        if place is None:
            raise BadArchive(f"{name!r} is missing in the archive")
        self.file.seek(place[0])
        yield Part(self.file, place[1])

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        with self.open(name) as file:
            parts, left = [], JSON_BYTES + 1
            while left and (data := file.read(left)):
                parts.append(data)
                left -= len(data)
        if not left:
            raise BadArchive(f"{name!r}: more than {JSON_BYTES} bytes")
        return b"".join(parts)

    def blob(self, digest: Any) -> str:
        """The name of the file that holds a blob."""
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise BadArchive(f"{digest!r}: only sha256 digests are understood")
        return f"blobs/sha256/{digest.removeprefix('sha256:')}"


class Part:
    """Some bytes of a file from its present position."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.left = size

    def read(self, size: int, /) -> bytes:
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data


class Checked:
    """A source whose bytes are counted and hashed on the way."""

    def __init__(self, source: Source, budget: Budget | None = None) -> None:
        self.source = source
        self.hash = hashlib.sha256()
        self.budget = budget

    def read(self, size: int, /) -> bytes:
        data = self.source.read(size)
        if self.budget is not None:
            self.budget.take(size_bytes=len(data))
        self.hash.update(data)
        return data

    def drain(self) -> str:
        """Read to the end; the digest of everything."""
        while self.read(1 << 16):
            pass
        return f"sha256:{self.hash.hexdigest()}"


OPENERS: tuple[tuple[bytes, Callable[[Any], Source]], ...] = (
    (b"\x1f\x8b", lambda source: gzip.GzipFile(fileobj=source)),
    (b"BZh", lambda source: bz2.BZ2File(source)),
    (b"\xfd7zXZ\0", lambda source: lzma.LZMAFile(source)),  # noqa: SIM115
)
ZSTANDARD = b"\x28\xb5\x2f\xfd"
ZSTANDARD_WINDOW = 128 << 20
"""The most memory that a layer may ask for to be decompressed."""


class Peeked:
    """A source whose first bytes have been looked at."""

    def __init__(self, source: Source, size: int = 6) -> None:
        self.source = source
        self.start = b""
        while len(self.start) < size and (data := source.read(size - len(self.start))):
            self.start += data

    def read(self, size: int = -1, /) -> bytes:
        if self.start:
            size = len(self.start) if size < 0 else size
            data, self.start = self.start[:size], self.start[size:]
            return data
        return self.source.read(1 << 16 if size < 0 else size)

    def seekable(self) -> bool:
        return False

    def readable(self) -> bool:
        return True


@contextlib.contextmanager
def decompressed(source: Source) -> Iterator[Source]:
    """The bytes without their compression, whichever it is. BadArchive, also later, where it cannot be undone."""
    peeked = Peeked(source)
    if peeked.start.startswith(ZSTANDARD):
        with zstandard_stream(peeked) as plain:
            yield plain
        return
    try:
        for magic, opened in OPENERS:
            if peeked.start.startswith(magic):
                yield opened(peeked)
                return
        yield peeked
    except (zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise BadArchive(f"a layer that cannot be decompressed: {error}") from None


@contextlib.contextmanager
def zstandard_stream(source: Source) -> Iterator[Source]:
    """A stream compressed by zstd, for which Python before 3.14 needs a package."""
    try:
        import zstandard
    except ImportError:
        raise BadArchive(
            "a layer compressed by zstd, for which the package zstandard is missing: pip install 'kubesvc[zstd]', or "
            "save the image with gzip layers"
        ) from None
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTANDARD_WINDOW).stream_reader(
        cast(IO[bytes], source),
        read_across_frames=True,
        closefd=False,  # it only reads
    )
    try:
        yield reader
    except zstandard.ZstdError as error:
        raise BadArchive(f"a layer that cannot be decompressed: {error}") from None


def plain_file(path: Path, room: Path, budget: Budget) -> IO[bytes]:
    """The archive as a file that can be read anywhere: itself, or a decompressed copy."""
    try:
        file: IO[bytes] = path.open("rb")
    except OSError as error:
        raise BadArchive(f"{path}: {error.strerror}") from None
    start = file.read(6)
    file.seek(0)
    if not any(start.startswith(magic) for magic, _ in OPENERS) and not start.startswith(ZSTANDARD):
        return file
    with file, decompressed(file) as source:
        copy = tempfile.TemporaryFile(dir=room)  # noqa: SIM115 - the caller's to close
        counted = Checked(source, budget)
        while data := counted.read(1 << 16):
            copy.write(data)
    copy.seek(0)
    return copy


@dataclass(frozen=True, kw_only=True)
class Described:
    """One image of an archive: its names, where its configuration is, where its layers are, and their digests as they
    are stored, if the archive says."""

    names: tuple[str, ...]
    config: str
    config_digest: str
    layers: tuple[tuple[str, str], ...]


def parse_json(data: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError as error:
        raise BadArchive(f"{what}: {error}") from None


def items(value: Any, kind: type, what: str, most: int = 4096) -> list[Any]:
    """A list of things of one kind; nothing counts as an empty one."""
    found = value if value is not None else []
    if not isinstance(found, list) or len(found) > most or not all(isinstance(v, kind) for v in found):
        raise BadArchive(f"{what}: must be a list")
    return found


def describe(archive: Archive) -> list[Described]:
    """The images of an archive that run on this machine."""
    if archive.has("manifest.json"):
        return [describe_saved(entry) for entry in saved_entries(archive)]
    if archive.has("index.json"):
        return list(describe_layout(archive, parse_json(archive.read("index.json"), "index.json"), 0, ()))
    raise BadArchive("neither manifest.json nor index.json is in it: not an image that was saved")


def saved_entries(archive: Archive) -> list[Any]:
    return items(parse_json(archive.read("manifest.json"), "manifest.json"), dict, "manifest.json")


def describe_saved(entry: dict[str, Any]) -> Described:
    config = entry.get("Config")
    if not isinstance(config, str):
        raise BadArchive("manifest.json: an image without a configuration")
    layers = items(entry.get("Layers"), str, "manifest.json: Layers", MOST_LAYERS)
    names = items(entry.get("RepoTags"), str, "manifest.json: RepoTags")
    return Described(names=tuple(names), config=config, config_digest="", layers=tuple((name, "") for name in layers))


def describe_layout(archive: Archive, index: Any, depth: int, names: tuple[str, ...]) -> Iterator[Described]:
    """The images of an OCI index, those for other machines left out."""
    if not isinstance(index, dict) or depth > 3:
        raise BadArchive("an index that cannot be read")
    for found in items(index.get("manifests"), dict, "index: manifests"):
        wanted = found.get("platform")
        if isinstance(wanted, dict) and not fits(wanted):
            continue
        notes = found.get("annotations")
        notes = notes if isinstance(notes, dict) else {}
        own = tuple(v for key in MANIFEST_NAMES if isinstance(v := notes.get(key), str))[:1] or names
        data = checked_blob(archive, found.get("digest"))
        manifest = parse_json(data, "manifest")
        if not isinstance(manifest, dict):
            raise BadArchive("a manifest that cannot be read")
        if "manifests" in manifest:
            yield from describe_layout(archive, manifest, depth + 1, own)
            continue
        config = manifest.get("config")
        layers = items(manifest.get("layers"), dict, "manifest: layers", MOST_LAYERS)
        if not isinstance(config, dict):
            raise BadArchive("a manifest without a configuration")
        yield Described(
            names=own,
            config=archive.blob(config.get("digest")),
            config_digest=str(config.get("digest")),
            layers=tuple((archive.blob(layer.get("digest")), str(layer.get("digest"))) for layer in layers),
        )


def fits(wanted: dict[str, Any]) -> bool:
    machine = MACHINES.get(platform.machine(), platform.machine())
    return wanted.get("os") in ("linux", None) and wanted.get("architecture") in (machine, None)


def checked_blob(archive: Archive, digest: Any) -> bytes:
    data = archive.read(archive.blob(digest))
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise BadArchive(f"{digest}: the blob's content is another")
    return data


# -- the store --------------------------------------------------------------------------------------------------------


class ImageStore:
    """Images below one directory, shared by the nodes of an instance. Changes are made by one process at a time."""

    def __init__(self, directory: Path, budget: Callable[[], Budget] = Budget) -> None:
        self.directory = directory
        self.budget = budget

    def names(self) -> dict[str, str]:
        """Full name to identity of every image."""
        try:
            return msgspec.json.decode((self.directory / "index.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError:
            return {}

    def find(self, name: str) -> Image | None:
        """What an image name stands for here; None if it was not loaded."""
        identity = self.names().get(full_name(name))
        loaded = self.loaded(identity) if identity else None
        if loaded is None:
            return None
        return Image(
            name=name,
            entrypoint=tuple(loaded.entrypoint),
            command=tuple(loaded.command),
            env=loaded.env,
            workdir=loaded.workdir,
            directory=str(self.room(loaded.id) / "rootfs"),
            stop_signal=loaded.stop_signal,
            user=loaded.user,
            group=loaded.group,
            username=loaded.username,
            user_trouble=loaded.user_trouble,
            identity=loaded.id,
            origin=next((o for o in reversed(loaded.origins) if full_name(name).startswith(o.partition("@")[0])), ""),
            said="",
        )

    def pulled(self, name: str, digest: str) -> Loaded | None:
        """The image of this name if it is what a registry has under the digest of its manifest."""
        loaded = self.loaded(self.names().get(full_name(name), ""))
        if loaded is None or not any(origin.endswith(f"@{digest}") for origin in loaded.origins):
            return None
        return loaded

    def loaded(self, identity: str) -> Loaded | None:
        try:
            return msgspec.json.decode((self.room(identity) / "image.json").read_bytes(), type=Loaded)
        except (OSError, msgspec.MsgspecError):
            return None

    def room(self, identity: str) -> Path:
        return self.directory / identity.removeprefix("sha256:")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self, path: Path, tags: tuple[str, ...] = (), origin: str = "") -> list[tuple[str, str]]:
        """Load every image of an archive or layout: (name, identity) of what is there now. `tags` name the image
        instead of the names that it brings; `origin` says where it was pulled from. BadArchive if it cannot be, and
        then nothing has changed."""
        with self.locked():
            for old in self.directory.glob("draft-*"):  # of a load that was cut off
                remove_tree(old)
            room = Path(tempfile.mkdtemp(prefix="draft-", dir=self.directory))
            budget = self.budget()
            try:
                archive = Archive(path, room, budget)
                try:
                    return self.load_all(archive, room, budget, tags, origin)
                finally:
                    archive.close()
            finally:
                remove_tree(room)

    def load_all(
        self, archive: Archive, room: Path, budget: Budget, tags: tuple[str, ...], origin: str
    ) -> list[tuple[str, str]]:
        images = describe(archive)
        if not images:
            raise BadArchive("no image for this machine is in it")
        if tags and len(images) > 1:
            raise BadArchive(f"{len(images)} images are in it: they cannot all be given one name")
        named = self.names()
        done = []
        for n, described in enumerate(images):
            names = tags or described.names
            if not names:
                raise BadArchive("the image has no name in it: give it one with --tag")
            try:
                full = [full_name(name) for name in names]
            except ImageProblem as error:
                raise BadArchive(str(error)) from None
            identity = self.unpack(archive, described, room / str(n), budget)
            if origin:
                self.note_origin(identity, origin)
            for name in full:
                named[name] = identity
                done.append((name, identity))
        self.write_index(named)
        return done

    def unpack(self, archive: Archive, described: Described, room: Path, budget: Budget) -> str:
        """One image into its place; its identity."""
        raw = archive.read(described.config)
        identity = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if described.config_digest not in ("", identity):
            raise BadArchive(f"{described.config_digest}: the configuration's content is another")
        if self.loaded(identity) is not None:
            return identity
        config = parse_json(raw, "configuration")
        if not isinstance(config, dict) or not fits(config):
            raise BadArchive("the image is not for this machine")
        rootfs = config.get("rootfs")
        digests = items(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, str, "configuration: diff_ids")
        if len(digests) != len(described.layers):
            raise BadArchive(f"{len(described.layers)} layers, but the configuration names {len(digests)}")
        root = room / "rootfs"
        root.mkdir(parents=True)
        root.chmod(0o755)
        before = budget.size_bytes
        layers = Layers(root, owners=os.geteuid() == 0, budget=budget)
        for (name, stored), digest in zip(described.layers, digests, strict=True):
            with archive.open(name) as source:
                outer = Checked(source)
                with decompressed(outer) as plain:
                    inner = Checked(plain, budget)
                    layers.unpack(inner)
                    if inner.drain() != digest:
                        raise BadArchive(f"{name}: the layer's content is another than the configuration says")
                if stored and outer.drain() != stored:
                    raise BadArchive(f"{stored}: the blob's content is another")
        loaded = read_config(config, identity, root, before - budget.size_bytes)
        (room / "image.json").write_bytes(msgspec.json.encode(loaded))
        place = self.room(identity)
        remove_tree(place)
        room.rename(place)
        return identity

    def note_origin(self, identity: str, origin: str) -> None:
        """Keep where an image was pulled from."""
        loaded = self.loaded(identity)
        if loaded is None or origin in loaded.origins:
            return
        draft = self.room(identity) / "image.json.new"
        draft.write_bytes(msgspec.json.encode(msgspec.structs.replace(loaded, origins=[*loaded.origins, origin])))
        draft.replace(self.room(identity) / "image.json")

    def write_index(self, named: dict[str, str]) -> None:
        draft = self.directory / "index.json.new"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(named.items())))))
        draft.replace(self.directory / "index.json")

    def remove(self, name: str) -> str:
        """Forget a name, and the image when it was its last one; its identity. KeyError if there is no such name."""
        with self.locked():
            named = self.names()
            identity = named.pop(full_name(name))
            self.write_index(named)
            if identity not in named.values():
                remove_tree(self.room(identity))
            return identity


def read_config(config: dict[str, Any], identity: str, root: Path, size_bytes: int) -> Loaded:
    """What runs of a configuration. BadArchive where it is not as it should be."""
    found = config.get("config")
    inner: dict[str, Any] = found if isinstance(found, dict) else {}
    env = {"PATH": SYSTEM_PATH}
    for pair in items(inner.get("Env"), str, "configuration: Env"):
        key, _, value = pair.partition("=")
        if not key or "\0" in pair:
            raise BadArchive(f"configuration: Env: {pair[:60]!r}")
        env[key] = value
    wanted = inner.get("StopSignal")
    named, trouble = str(inner.get("User") or ""), ""
    user, group = None, None
    try:
        user, group = find_user(named, root)
    except NoSuchUser as error:
        trouble = str(error)
    username = named.partition(":")[0]
    workdir = inner.get("WorkingDir") or "/"
    if not isinstance(workdir, str) or not workdir.startswith("/"):
        raise BadArchive(f"configuration: WorkingDir: {workdir!r}: must be an absolute path")
    return Loaded(
        id=identity,
        entrypoint=items(inner.get("Entrypoint"), str, "configuration: Entrypoint"),
        command=items(inner.get("Cmd"), str, "configuration: Cmd"),
        env=env,
        workdir=workdir,
        stop_signal=stop_signal(wanted if isinstance(wanted, str) else ""),
        user=user,
        group=group,
        username="" if username.isdigit() else username,
        user_trouble=trouble,
        size_bytes=size_bytes,
        created=str(config.get("created") or ""),
    )


def stop_signal(text: str) -> int:
    """A signal by its name, with or without SIG, or its number; SIGTERM for none."""
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else int(signal.SIGTERM)


class NoSuchUser(Exception):
    """An image's user or group is none of those in its files."""


def find_user(text: str, root: Path) -> tuple[int | None, int | None]:
    """(user, group) of `USER` or `USER:GROUP`, names looked up in the image's own files. (None, None) for "".
    NoSuchUser."""
    if not text:
        return None, None
    user_text, colon, group_text = text.partition(":")
    users, groups = read_table(root, "/etc/passwd"), read_table(root, "/etc/group")
    row = next((r for r in users if r[0] == user_text and len(r) > 3), None)
    user = int(user_text) if user_text.isdigit() else int(row[2]) if row and row[2].isdigit() else None
    if user is None or user >= 1 << 31:
        raise NoSuchUser(f"unable to find user {user_text}: no matching entries in passwd file")
    if not colon:
        own = next((r for r in users if len(r) > 3 and r[2] == str(user) and r[3].isdigit()), None)
        return user, int(own[3]) if own else None
    held = next((r for r in groups if r[0] == group_text and len(r) > 2), None)
    group = int(group_text) if group_text.isdigit() else int(held[2]) if held and held[2].isdigit() else None
    if group is None or group >= 1 << 31:
        raise NoSuchUser(f"unable to find group {group_text}: no matching entries in group file")
    return user, group


def read_table(root: Path, path: str) -> list[list[str]]:
    """The rows of /etc/passwd or /etc/group of an image; none if it is not there."""
    try:
        fd = Root(str(root)).open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return [line.split(":") for line in file.read(JSON_BYTES).decode(errors="replace").splitlines()]
    except OSError:
        return []
