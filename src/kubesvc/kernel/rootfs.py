"""Makes a root directory from a list of steps and moves the process into it. Runs in a fresh mount namespace.

Steps are tuples of plain values (`kubesvc.kernel.mounts` plans them); they pass to the program in `nsexec.py` by
`marshal`. Every target is a path inside the new root, and is resolved there: a symbolic link in a volume or an image
leads nowhere else (openat2 with RESOLVE_IN_ROOT), even while another container rewrites it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # see syscalls
if __package__:
    from . import syscalls as sc
else:  # pragma: no cover - in the spawned program this directory is on sys.path, the package is not
    import syscalls as sc  # type: ignore[import-not-found,no-redef]

if TYPE_CHECKING:
    from typing import Any

    Step = tuple[Any, ...]
else:
    Step = tuple

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class Root:
    """The root being made at `path`, a directory outside itself."""

    def __init__(self, path: str) -> None:
        self.path = path

    # -- places inside the new root ---------------------------------------------------------------------------------

    def open(self, target: str, flags: int = os.O_PATH) -> int:
        directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return sc.openat2(directory, target.lstrip("/") or ".", flags, sc.RESOLVE_IN_ROOT)
        finally:
            os.close(directory)

    def directory(self, target: str) -> int:
        """A descriptor of the directory `target`, made with its parents where missing."""
        try:
            return self.open(target, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        parent, name = os.path.split(target.rstrip("/"))
        holder = self.directory(parent)
        try:
            try:
                os.mkdir(name, 0o755, dir_fd=holder)
            except FileExistsError:
                pass  # a dangling link is refused below
        finally:
            os.close(holder)
        return self.open(target, os.O_PATH | os.O_DIRECTORY)

    def file(self, target: str) -> int:
        """A descriptor of the file `target`, made empty where missing; a dangling link is replaced."""
        try:
            return self.open(target)
        except FileNotFoundError:
            pass
        parent, name = os.path.split(target)
        holder = self.directory(parent)
        try:
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=holder))
            except FileExistsError:
                os.unlink(name, dir_fd=holder)
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=holder))
        finally:
            os.close(holder)
        return self.open(target)

    def part(self, target: str, *, make: bool) -> int:
        """A descriptor of part of a volume, which this directory is. Where there is nothing and `make` is set, a
        directory is made; what is made on the way to it is as open as the volume."""
        try:
            return self.open(target)
        except FileNotFoundError:
            if not make:
                raise
        mode = os.stat(self.path).st_mode & 0o7777
        names = [name for name in target.split("/") if name not in ("", ".")]
        for depth in range(1, len(names) + 1):
            step = "/".join(names[:depth])
            try:
                os.close(self.open(step))
            except FileNotFoundError:
                made = self.directory(step)
                os.chmod(f"/proc/self/fd/{made}", mode)
                os.close(made)
        return self.directory(target)

    def place(self, target: str, *, like: str) -> int:
        """A place for a bind mount of the thing at `like`: a directory for a directory, else a file."""
        return self.directory(target) if os.path.isdir(like) else self.file(target)

    # -- steps ------------------------------------------------------------------------------------------------------

    def apply(self, step: Step) -> None:
        getattr(self, f"do_{step[0]}")(*step[1:])

    def do_overlay(self, lower: str, size_bytes: int, options: str) -> None:
        """The new root: `lower` seen through a layer in memory of at most `size_bytes`."""
        room = f"{self.path}"
        sc.mount("tmpfs", room, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, f"size={size_bytes},mode=0755")
        for name in ("upper", "work", "root"):
            os.mkdir(f"{room}/{name}", 0o755)
        data = f"lowerdir={lower},upperdir={room}/upper,workdir={room}/work{options}"
        sc.mount("overlay", f"{room}/root", "overlay", 0, data)
        self.path = f"{room}/root"

    def do_mirror(self, lower: str, size_bytes: int, places: list[str]) -> None:
        """The new root without overlayfs: a tmpfs with a read-only bind of each entry of `lower`; directories on
        the way to a place that does not exist are mirrored in the same way, so that the place can be made."""
        sc.mount("tmpfs", self.path, "tmpfs", sc.MS_NOSUID, f"size={size_bytes},mode=0755")
        wanted: dict[str, Any] = {}
        for place in places:
            node = wanted
            for part in place.strip("/").split("/"):
                node = node.setdefault(part, {})
        self.mirror(lower, self.path, wanted)

    def mirror(self, source: str, target: str, wanted: dict[str, Any]) -> None:
        for entry in os.scandir(source):
            there = f"{target}/{entry.name}"
            below = wanted.get(entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), there)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(there, 0o755)
                if below and any(not os.path.lexists(f"{entry.path}/{name}") or below[name] for name in below):
                    self.mirror(entry.path, there, below)
                else:
                    self.bind_readonly(entry.path, there)
            else:
                os.close(os.open(there, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
                self.bind_readonly(entry.path, there)

    def bind_readonly(self, source: str, target: str) -> None:
        sc.mount(source, target, "", sc.MS_BIND | sc.MS_REC)
        sc.mount_setattr(target, sc.MOUNT_ATTR_RDONLY, recursive=True)

    def do_tmpfs(self, target: str, options: str) -> None:
        fd = self.directory(target)
        sc.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, options)
        os.close(fd)

    def do_bind(self, source: str, target: str, read_only: bool, optional: bool) -> None:
        if optional and not os.path.exists(source):
            return
        fd = self.place(target, like=source)
        sc.mount(source, f"/proc/self/fd/{fd}", "", sc.MS_BIND | sc.MS_REC)
        os.close(fd)
        if read_only:
            self.make_readonly(target)

    def do_bind_below(self, directory: str, path: str, target: str, read_only: bool, make: bool) -> None:
        """Bind `path` of the volume `directory`, its links held inside the volume (subPath)."""
        source = Root(directory).part(path, make=make)
        place = f"/proc/self/fd/{source}"
        fd = self.place(target, like=place)
        sc.mount(place, f"/proc/self/fd/{fd}", "", sc.MS_BIND | sc.MS_REC)
        os.close(fd)
        os.close(source)
        if read_only:
            self.make_readonly(target)

    def make_readonly(self, target: str) -> None:
        fd = self.open(target)
        try:
            sc.mount_setattr(f"/proc/self/fd/{fd}", sc.MOUNT_ATTR_RDONLY, recursive=True)
        finally:
            os.close(fd)

    def do_text(self, target: str, text: str, mode: int) -> None:
        """A file with this text, in place of what is there."""
        parent, name = os.path.split(target)
        holder = self.directory(parent)
        try:
            try:
                os.unlink(name, dir_fd=holder)
            except FileNotFoundError:
                pass
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=holder)
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode())
        finally:
            os.close(holder)

    def do_link(self, target: str, to: str) -> None:
        parent, name = os.path.split(target)
        holder = self.directory(parent)
        try:
            try:
                os.unlink(name, dir_fd=holder)
            except FileNotFoundError:
                pass
            os.symlink(to, name, dir_fd=holder)
        finally:
            os.close(holder)

    def do_place_for(self, target: str, like: str) -> None:
        os.close(self.place(target, like=like))

    def do_seal(self) -> None:
        """No writes to the root from now on; what is mounted on it stays as it is."""
        sc.mount_setattr(self.path, sc.MOUNT_ATTR_RDONLY)

    def do_directory_at(self, target: str) -> None:
        """A directory that ought to exist, such as a working directory. Who needs one that cannot be made says so."""
        try:
            os.close(self.directory(target))
        except OSError:
            pass

    def do_proc(self) -> None:
        fd = self.directory("/proc")
        sc.mount("proc", f"/proc/self/fd/{fd}", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
        os.close(fd)

    def do_sys(self) -> None:
        fd = self.directory("/sys")
        place = f"/proc/self/fd/{fd}"
        try:
            sc.mount("sysfs", place, "sysfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC | sc.MS_RDONLY)
        except OSError:  # the network namespace belongs to another user namespace
            sc.mount("/sys", place, "", sc.MS_BIND | sc.MS_REC)
            self.make_readonly("/sys")
        os.close(fd)

    def do_devices(self) -> None:
        """/dev with the few devices that every container has, terminals of its own and shared memory."""
        self.do_tmpfs("/dev", "mode=0755,size=65536k")
        for name in DEVICES:
            if os.path.exists(f"/dev/{name}"):
                fd = self.file(f"/dev/{name}")
                sc.mount(f"/dev/{name}", f"/proc/self/fd/{fd}", "", sc.MS_BIND)
                os.close(fd)
        fd = self.directory("/dev")
        for link, to in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink(to, link, dir_fd=fd)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=fd)
        terminals = self.open("/dev/pts")
        try:
            options = "newinstance,ptmxmode=0666,mode=0620"
            sc.mount("devpts", f"/proc/self/fd/{terminals}", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, options)
            os.symlink("pts/ptmx", "ptmx", dir_fd=fd)
        except OSError:
            pass  # no terminals then; nothing else depends on them
        os.close(terminals)
        os.close(fd)
        self.do_tmpfs("/dev/shm", "mode=1777,size=65536k")


def build(steps: list[Step], place: str) -> None:
    """Make the root that `steps` describe at the existing directory `place`, then make it the process's root.

    The caller is alone in a new mount namespace. OSError (with the step in its words) when a step fails; what was
    mounted by then ends with the namespace.
    """
    sc.mount("none", "/", "", sc.MS_REC | sc.MS_PRIVATE)
    root = Root(place)
    for step in steps:
        try:
            root.apply(step)
        except OSError as error:
            raise OSError(error.errno, f"{step[0]} {step[1] if len(step) > 1 else ''}: {error.strerror}") from None
    os.chdir(root.path)
    sc.pivot_root(".", ".")
    sc.umount(".", sc.MNT_DETACH)
    os.chdir("/")
