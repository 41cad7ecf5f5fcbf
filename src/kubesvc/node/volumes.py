"""Volumes of a Pod: what they hold (pure), and making them on disk without following anybody's links.

Files of ConfigMaps, Secrets and the downward API change all at once: the directory `..data` is a link that is moved
from one full set of files to the next, as programs that watch such volumes expect.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubesvc.api.container import Container, VolumeMount
from kubesvc.api.pod import Pod
from kubesvc.api.quantity import canonical, parse
from kubesvc.api.volume import DownwardAPIVolumeFile, KeyToPath, Volume
from kubesvc.kernel import syscalls
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.trees import remove_tree, used_bytes, walk_tree

from .environment import MissingSource, Sources, expand, field_value, resource_value
from .limits import pod_limits

DEFAULT_MODE = 0o644
HOST_PATH_DIRECTORY_MODE = 0o755
HOST_PATH_WORDS = {
    "Directory": "directory", "DirectoryOrCreate": "directory", "File": "file", "FileOrCreate": "file",
    "Socket": "socket file", "CharDevice": "character device", "BlockDevice": "block device",
}  # fmt: skip


class VolumeProblem(Exception):
    """A volume cannot be made (yet); the words go into a FailedMount event."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume: its bytes and its mode."""

    data: bytes
    mode: int


Files = dict[str, File]
"""Path inside the volume to file."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What volumes are filled with: ConfigMaps and Secrets of the namespace as bytes, tokens by (audience, seconds),
    and what the downward API needs."""

    config_maps: Mapping[str, Mapping[str, bytes]]
    secrets: Mapping[str, Mapping[str, bytes]]
    tokens: Mapping[tuple[str, int], str]
    sources: Sources


def safe_path(path: str) -> str:
    """A path that stays inside the volume; VolumeProblem for one that does not."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeProblem(f"invalid path {path!r} in a volume")
    return os.path.normpath(path)


def keyed_files(
    held: Mapping[str, bytes] | None, items: list[KeyToPath] | None, mode: int, optional: bool, what: str
) -> Files:
    """The files of one ConfigMap or Secret; VolumeProblem if it or a wanted key is missing and not optional."""
    if held is None:
        if optional:
            return {}
        raise VolumeProblem(f"{what} not found")
    if items is None:
        return {safe_path(key): File(data, mode) for key, data in sorted(held.items())}
    files: Files = {}
    for item in items:
        if item.key not in held:
            if optional:
                continue
            raise VolumeProblem(f"references non-existent config key: {item.key}")
        files[safe_path(item.path)] = File(held[item.key], mode if item.mode is None else item.mode)
    return files


def downward_files(items: list[DownwardAPIVolumeFile] | None, mode: int, pod: Pod, sources: Sources) -> Files:
    files: Files = {}
    for item in items or ():
        if item.field_ref is not None:
            try:
                text = field_value(item.field_ref, pod, sources)
            except KeyError:
                raise VolumeProblem(f"unsupported fieldPath: {item.field_ref.field_path}") from None
        elif item.resource_field_ref is not None:
            first = next(iter(pod.spec.containers or ()), Container())
            text = resource_value(item.resource_field_ref, pod, first, sources)
        else:
            continue
        files[safe_path(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return files


def made_of_objects(volume: Volume) -> bool:
    """Whether its files are what objects of the API say, so that no container may change them."""
    storage = (volume.empty_dir, volume.host_path, volume.persistent_volume_claim, volume.ephemeral)
    return all(source is None for source in storage)


def plan_files(volume: Volume, pod: Pod, material: Material) -> Files | None:
    """The files of a volume that is made of objects; None for one that is not."""
    if (config := volume.config_map) is not None:
        mode = DEFAULT_MODE if config.default_mode is None else config.default_mode
        held = material.config_maps.get(config.name)
        return keyed_files(held, config.items, mode, bool(config.optional), f'configmap "{config.name}"')
    if (secret := volume.secret) is not None:
        mode = DEFAULT_MODE if secret.default_mode is None else secret.default_mode
        held = material.secrets.get(secret.secret_name)
        return keyed_files(held, secret.items, mode, bool(secret.optional), f'secret "{secret.secret_name}"')
    if (down := volume.downward_api) is not None:
        mode = DEFAULT_MODE if down.default_mode is None else down.default_mode
        return downward_files(down.items, mode, pod, material.sources)
    if (projected := volume.projected) is not None:
        mode = DEFAULT_MODE if projected.default_mode is None else projected.default_mode
        files: Files = {}
        for source in projected.sources or ():
            if source.config_map is not None:
                ref = source.config_map
                held = material.config_maps.get(ref.name)
                files |= keyed_files(held, ref.items, mode, bool(ref.optional), f'configmap "{ref.name}"')
            if source.secret is not None:
                wanted = source.secret
                held = material.secrets.get(wanted.name)
                files |= keyed_files(held, wanted.items, mode, bool(wanted.optional), f'secret "{wanted.name}"')
            if source.downward_api is not None:
                files |= downward_files(source.downward_api.items, mode, pod, material.sources)
            if (token := source.service_account_token) is not None:
                text = material.tokens.get((token.audience, token.expiration_seconds or 3600))
                if text is not None:
                    files[safe_path(token.path)] = File(text.encode(), mode)
        return files
    return None


def needed_objects(pod: Pod) -> tuple[set[str], set[str], set[tuple[str, int]]]:
    """Names of the ConfigMaps and Secrets, and the tokens, that the Pod's volumes are made of."""
    maps: set[str] = set()
    secrets: set[str] = set()
    tokens: set[tuple[str, int]] = set()
    for volume in pod.spec.volumes or ():
        if volume.config_map is not None:
            maps.add(volume.config_map.name)
        if volume.secret is not None:
            secrets.add(volume.secret.secret_name)
        for source in (volume.projected.sources or ()) if volume.projected is not None else ():
            if source.config_map is not None:
                maps.add(source.config_map.name)
            if source.secret is not None:
                secrets.add(source.secret.name)
            if (token := source.service_account_token) is not None:
                tokens.add((token.audience, token.expiration_seconds or 3600))
    return maps, secrets, tokens


def bytes_of_config_map(data: Mapping[str, str] | None, binary: Mapping[str, str] | None) -> dict[str, bytes]:
    found = {key: text.encode() for key, text in (data or {}).items()}
    return found | bytes_of_secret(binary)


def bytes_of_secret(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in (data or {}).items()}


# -- on disk ----------------------------------------------------------------------------------------------------------


def write_files(directory: Path, files: Files) -> bool:
    """Make the directory hold exactly these files, all at once; whether anything had to change."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    current = directory / "..data"
    if current.is_symlink() and read_files(directory, set(files)) == files:
        return False
    old = os.readlink(current) if current.is_symlink() else ""
    version = f"..{int(old.removeprefix('..') or 0) + 1}"
    room = directory / version
    shutil.rmtree(room, ignore_errors=True)  # left by a crash in the middle
    room.mkdir(mode=0o755)
    for path, file in files.items():
        place = room / path
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.write_bytes(file.data)
        place.chmod(file.mode)
    draft = directory / "..data_new"
    draft.unlink(missing_ok=True)
    draft.symlink_to(version)
    os.replace(draft, current)
    wanted = {path.split("/")[0] for path in files}
    for name in sorted(wanted):
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    for entry in os.scandir(directory):
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in wanted:
            os.unlink(entry.path)
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def read_files(directory: Path, names: set[str]) -> Files | None:
    """The files that a volume holds now; None if they are not exactly those named."""
    found: Files = {}
    room = (directory / "..data").resolve()
    for place, _, files in os.walk(room):
        for name in files:
            path = Path(place) / name
            found[str(path.relative_to(room))] = File(path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    return found if set(found) == names else None


def make_volume(volume: Volume, pod: Pod, material: Material, directory: Path) -> Path:
    """Make one volume, by default at `directory`; where it is. VolumeProblem if that cannot be."""
    files = plan_files(volume, pod, material)
    if files is not None:
        write_files(directory, readable(files, fs_group(pod)))
        return directory
    if volume.empty_dir is not None:
        directory.mkdir(parents=True, exist_ok=True)
        if volume.empty_dir.medium == "Memory" and not directory.is_mount():
            mount_memory(directory, memory_bytes(volume, pod))
        if stat.S_IMODE(directory.stat().st_mode) & 0o777 != 0o777:
            directory.chmod(0o777)
        return directory
    if volume.host_path is not None:
        return host_path(Path(volume.host_path.path), volume.host_path.type or "")
    raise VolumeProblem(f'volume "{volume.name}": this node knows no volumes of its kind')


def memory_bytes(volume: Volume, pod: Pod) -> int | None:
    """How large a volume in memory may grow: its limit, or the Pod's memory if that is less. None: half the machine's,
    as the kernel has it."""
    assert volume.empty_dir is not None
    known = [pod_limits(pod, None).memory_bytes]
    if volume.empty_dir.size_limit:
        known.append(parse(volume.empty_dir.size_limit).value)
    return min((n for n in known if n), default=None)


def mount_memory(directory: Path, size_bytes: int | None) -> None:
    size = f",size={size_bytes}" if size_bytes else ""
    syscalls.mount("tmpfs", str(directory), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"mode=0777{size}")


def drop_volumes(directory: Path) -> None:
    """Remove a Pod's volumes with all that they hold; volumes in memory are unmounted first."""
    for place in directory.iterdir() if directory.is_dir() else ():
        if place.is_mount():
            syscalls.umount(str(place), syscalls.MNT_DETACH)
    remove_tree(directory)


def fs_group(pod: Pod) -> int | None:
    """The group that owns the Pod's volumes."""
    context = pod.spec.security_context
    return context.fs_group if context is not None else None


def readable(files: Files, group: int | None) -> Files:
    """The files as the group that owns their volume may read them."""
    return files if group is None else {path: File(f.data, f.mode | 0o440) for path, f in files.items()}


def own_by_group(directory: Path, group: int, *, read_only: bool) -> None:
    """Give all of a volume to a group that may read it, and write it unless it is read-only; what is made in its
    directories later belongs to the group too. Links are changed themselves, never followed."""
    for holder, entries in walk_tree(directory):
        give(holder, os.fstat(holder), group, (0o550 if read_only else 0o770) | stat.S_ISGID)
        for entry in entries:
            try:
                fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holder)
            except OSError:  # a link, a socket, or gone
                with contextlib.suppress(FileNotFoundError):
                    os.chown(entry.name, -1, group, dir_fd=holder, follow_symlinks=False)
                continue
            try:
                give(fd, os.fstat(fd), group, 0o440 if read_only else 0o660)
            finally:
                os.close(fd)


def give(fd: int, held: os.stat_result, group: int, mode: int) -> None:
    if held.st_gid != group:
        os.fchown(fd, -1, group)
    if held.st_mode & mode != mode:
        os.fchmod(fd, stat.S_IMODE(held.st_mode) | mode)


def overfull(volumes: Sequence[Volume], places: Mapping[str, Path]) -> str:
    """Words for the first volume that has outgrown its limit; "" if none has."""
    for volume in volumes:
        limit = volume.empty_dir.size_limit if volume.empty_dir is not None else None
        place = places.get(volume.name)
        if limit and place is not None and used_bytes(place) > parse(limit).value:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{canonical(limit)}". '
    return ""


def host_path(path: Path, kind: str) -> Path:
    """The machine's own path, made or checked as its type says."""
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=HOST_PATH_DIRECTORY_MODE, parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "Directory": path.is_dir, "DirectoryOrCreate": path.is_dir, "File": path.is_file, "FileOrCreate": path.is_file,
        "Socket": path.is_socket, "CharDevice": path.is_char_device, "BlockDevice": path.is_block_device,
    }  # fmt: skip
    if kind in checks and not checks[kind]():
        raise VolumeProblem(f"hostPath type check failed: {path} is not a {HOST_PATH_WORDS[kind]}")
    if not kind and not path.exists():
        path.mkdir(mode=HOST_PATH_DIRECTORY_MODE, parents=True)
    return path


def plan_mounts(
    container: Container, places: Mapping[str, Path], volumes: Mapping[str, Volume], environment: Mapping[str, str]
) -> list[Mount]:
    """The mounts of one container; VolumeProblem for a mount whose volume is not there or whose path leaves it."""
    found = []
    for mount in container.volume_mounts or ():
        place = places.get(mount.name)
        if place is None:
            raise VolumeProblem(f'volume "{mount.name}" of container "{container.name}" is not there')
        below = sub_path(mount, environment)
        volume = volumes[mount.name]
        claim, fixed = volume.persistent_volume_claim, made_of_objects(volume)
        found.append(
            Mount(
                str(place),
                os.path.normpath("/" + mount.mount_path.lstrip("/")),
                read_only=mount.read_only or fixed or (claim is not None and claim.read_only),
                below=below,
                make=not fixed,
            )
        )
    return found


def sub_path(mount: VolumeMount, environment: Mapping[str, str]) -> str:
    """The path inside the volume that is mounted; "" for all of it."""
    path = mount.sub_path or expand(mount.sub_path_expr, environment)
    return safe_path(path) if path else ""


__all__ = [
    "File", "Files", "Material", "MissingSource", "VolumeProblem", "drop_volumes", "fs_group", "make_volume",
    "needed_objects", "overfull", "own_by_group", "plan_files", "plan_mounts", "readable",
]  # fmt: skip
