"""Laying the layers of an image over each other in one directory, whatever is in them.

Every path is resolved inside the directory by the kernel (openat2 with RESOLVE_IN_ROOT), so that no name and no link,
in whatever order, leads out of it; the last part of a path is never followed. What is removed is removed without
following links, by descriptors.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from kubesvc.kernel.rootfs import Root
from kubesvc.kernel.trees import remove_tree

from .tarstream import BadArchive, Body, Entry, Source, read_tar

PATH_BYTES = 4096
NAME_BYTES = 255
DEPTH = 256
LATEST = 1 << 33
"""The latest time that every file system can hold, in seconds since 1970."""
MOST_ID = (1 << 32) - 2
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(kw_only=True)
class Budget:
    """What one image may take altogether; counted down as it is unpacked."""

    size_bytes: int = 8 << 30
    entries: int = 500_000

    def take(self, size_bytes: int = 0, entries: int = 0) -> None:
        self.size_bytes -= size_bytes
        self.entries -= entries
        if self.size_bytes < 0:
            raise BadArchive("the image is larger than allowed when unpacked")
        if self.entries < 0:
            raise BadArchive("the image has more files than allowed")


def safe_parts(name: str) -> list[str]:
    """The parts of an entry's path; empty for the root itself. BadArchive for one that tries to leave it."""
    if len(os.fsencode(name)) > PATH_BYTES:
        raise BadArchive(f"{name[:60]!r}…: a path of more than {PATH_BYTES} bytes")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f"{name!r}: a path that leads out of the image")
    if len(parts) > DEPTH or any(len(os.fsencode(part)) > NAME_BYTES for part in parts):
        raise BadArchive(f"{name[:60]!r}…: a path that is too deep or has too long a name")
    return parts


@dataclass
class Layers:
    """Unpacks layers into `root`, an existing directory.

    owners:  give files to the users that the layers name; else all stay the caller's
    skipped: device files, which are never made: containers get the few they need
    """

    root: Path
    owners: bool
    budget: Budget = field(default_factory=Budget)
    skipped: int = 0

    def __post_init__(self) -> None:
        self.tree = Root(str(self.root))

    def unpack(self, source: Source) -> None:
        """Lay one uncompressed layer over what is there. BadArchive if it is unsafe, or more than the budget allows."""
        made: dict[str, set[str]] = {}
        """What this very layer has put into each directory, which its whiteouts leave alone."""
        for entry, body in read_tar(source):
            self.budget.take(entries=1)
            if max(entry.user, entry.group) > MOST_ID:
                raise BadArchive(f"{entry.name!r}: belongs to nobody that can be")
            parts = safe_parts(entry.name)
            try:
                if not parts:
                    self.settle_root(entry)
                    continue
                parent, name = "/" + "/".join(parts[:-1]), parts[-1]
                holder = self.directory(parent)
                try:
                    where = os.readlink(f"/proc/self/fd/{holder}")
                    if name == OPAQUE:
                        self.empty(holder, made.get(where, set()))
                    elif name.startswith(WHITEOUT):
                        self.white_out(holder, name, made.get(where, set()))
                    else:
                        self.place(holder, name, entry, body)
                        made.setdefault(where, set()).add(name)
                finally:
                    os.close(holder)
            except OSError as error:
                raise BadArchive(f"{entry.name!r}: {error.strerror or error}") from None

    def settle_root(self, entry: Entry) -> None:
        if entry.kind == "directory":
            os.chmod(self.root, entry.mode & 0o777 | 0o700)

    def directory(self, path: str) -> int:
        """A descriptor of the directory, made where missing; what stands in its way is a fault of the archive."""
        fd = self.tree.directory(path)
        real = os.readlink(f"/proc/self/fd/{fd}")
        base = os.path.realpath(self.root)
        out = real != base and not real.startswith(base + "/")  # cannot be: the kernel holds it
        if out or real.count("/") - base.count("/") > DEPTH:  # links make paths deeper than they are written
            os.close(fd)
            raise BadArchive(f"{path[:60]!r}: a path that leads out of the image, or too deep into it")
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(fd)
        return readable

    def place(self, holder: int, name: str, entry: Entry, body: Body) -> None:
        """Put one entry there, in place of what has the name, unless both are directories."""
        try:
            held = os.stat(name, dir_fd=holder, follow_symlinks=False)
        except FileNotFoundError:
            held = None
        both = held is not None and stat.S_ISDIR(held.st_mode) and entry.kind == "directory"
        if entry.kind == "device":
            self.skipped += 1
            return
        if entry.kind == "link":
            self.link(holder, name, entry)
            return
        if held is not None and not both:
            remove(holder, name)
        if entry.kind == "directory":
            if not both:
                os.mkdir(name, 0o700, dir_fd=holder)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
            self.finish(fd, entry, entry.mode | (0 if self.owners else 0o700))
        elif entry.kind == "symlink":
            if not entry.target or len(os.fsencode(entry.target)) > PATH_BYTES:
                raise BadArchive(f"{entry.name!r}: a link to nothing, or to too long a path")
            os.symlink(entry.target, name, dir_fd=holder)
            if self.owners:
                os.chown(name, entry.user, entry.group, dir_fd=holder, follow_symlinks=False)
        elif entry.kind == "fifo":
            os.mkfifo(name, 0o600, dir_fd=holder)
        else:
            self.write(holder, name, entry, body)

    def write(self, holder: int, name: str, entry: Entry, body: Body) -> None:
        if entry.size > self.budget.size_bytes:  # what is really read is counted where it is read
            raise BadArchive("the image is larger than allowed when unpacked")
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=holder)
        try:
            while data := body.read():
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
        except BaseException:
            os.close(fd)
            raise
        self.finish(fd, entry, entry.mode | (0 if self.owners else 0o600))

    def finish(self, fd: int, entry: Entry, mode: int) -> None:
        """Owner first: a change of owner takes set-user-id bits away."""
        try:
            if self.owners:
                os.fchown(fd, entry.user, entry.group)
            os.fchmod(fd, mode)
            moment = min(entry.modified, LATEST)
            os.utime(fd, (moment, moment))
        finally:
            os.close(fd)

    def link(self, holder: int, name: str, entry: Entry) -> None:
        """A further name of a file that is in the image already."""
        parts = safe_parts(entry.target)
        if not parts:
            raise BadArchive(f"{entry.name!r}: a link to nothing")
        there = self.directory("/" + "/".join(parts[:-1]))
        try:
            held = os.stat(parts[-1], dir_fd=there, follow_symlinks=False)
            if stat.S_ISDIR(held.st_mode):
                raise BadArchive(f"{entry.name!r}: a hard link to a directory")
            try:
                if os.path.samestat(held, os.stat(name, dir_fd=holder, follow_symlinks=False)):
                    return
                remove(holder, name)
            except FileNotFoundError:
                pass
            os.link(parts[-1], name, src_dir_fd=there, dst_dir_fd=holder, follow_symlinks=False)
        finally:
            os.close(there)

    def white_out(self, holder: int, name: str, made: set[str]) -> None:
        """Remove what a lower layer has put there under the name behind the mark."""
        victim = name[len(WHITEOUT) :]
        if victim in ("", ".", ".."):
            raise BadArchive(f"{name!r}: a whiteout of nothing")
        if victim not in made:
            try:
                remove(holder, victim)
            except FileNotFoundError:
                pass

    def empty(self, holder: int, made: set[str]) -> None:
        for name in os.listdir(holder):
            if name not in made:
                remove(holder, name)


def remove(holder: int, name: str) -> None:
    """Remove whatever has this name in a directory, never through a link."""
    held = os.stat(name, dir_fd=holder, follow_symlinks=False)
    if stat.S_ISDIR(held.st_mode):
        remove_tree(Path(f"/proc/self/fd/{holder}/{name}"))
    else:
        os.unlink(name, dir_fd=holder)
