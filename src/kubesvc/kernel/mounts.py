"""The files that a container sees, as a plan: which steps make its root directory. Pure but for reading the mounts.

`rootfs.build` follows the plan inside the container's new mount namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import syscalls as sc
from .rootfs import Root, Step

NOT_CARRIED = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp")
"""Mounts at or below these are made anew or hidden, never taken over from the machine."""
SCRATCH = (("/tmp", "1777"), ("/var/tmp", "1777"), ("/run", "0755"))


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of the machine at a place in the container.

    below:  a path inside `source` to mount instead of it, its links held inside (subPath)
    make:   whether a directory is made for `below` if there is nothing
    """

    source: str
    target: str
    read_only: bool = False
    below: str = ""
    make: bool = True


@dataclass(frozen=True, kw_only=True)
class RootPlan:
    """What a container's root is made of.

    base:           "/" for the machine's own files, else a directory with a root in it
    overlay:        whether a writable layer can be laid over the base; without, only scratch places are writable
    layer_bytes:    size of the writable layer, and of each scratch place
    carried:        further mounts of the machine to be seen, read-only
    hidden:         directories seen empty
    fresh:          directories that start empty and writable
    files, links:   what is put there: path to (text, mode), path to target
    kept:           paths of the machine that must be seen even where hidden
    mounts:         volumes and files of the Pod
    read_only:      the root itself takes no writes
    workdir:        a directory that is made if it is missing
    """

    base: str = "/"
    overlay: bool = True
    layer_bytes: int = 256 << 20
    carried: Sequence[str] = ()
    hidden: Sequence[str] = ()
    fresh: Sequence[str] = ()
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    read_only: bool = False
    overlay_options: str = ""
    workdir: str = ""


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or inside it, by their names alone."""
    return path == directory.rstrip("/") or path.startswith(directory.rstrip("/") + "/")


def plan_steps(plan: RootPlan) -> list[Step]:
    """The steps of `rootfs.build`, in the order in which they must happen."""
    # A root of its own brings these places along, and with a layer over it they can be written.
    scratch = SCRATCH if plan.base == "/" or not plan.overlay else ()
    empty = [*(path for path, _ in scratch), *plan.hidden, *plan.fresh]
    mounts = sorted(plan.mounts, key=lambda m: (m.target.rstrip("/").count("/"), m.target))
    steps: list[Step] = []
    if plan.overlay:
        steps.append(("overlay", plan.base, plan.layer_bytes, plan.overlay_options))
    else:
        places = [*plan.fresh, *(os.path.dirname(p) for p in (*plan.files, *plan.links)), *(m.target for m in mounts)]
        places.append(plan.workdir)
        steps.append(("mirror", plan.base, plan.layer_bytes, sorted({p for p in places if p.strip("/")})))
    steps += [("bind", path, path, True, True) for path in sorted(plan.carried)]
    size = f"size={plan.layer_bytes}"
    steps += [("tmpfs", path, "mode=0755,size=4k") for path in sorted(plan.hidden)]
    steps += [("tmpfs", path, f"mode={mode},{size}") for path, mode in scratch]
    steps += [("tmpfs", path, f"mode=0755,{size}") for path in sorted(plan.fresh)]
    if plan.base == "/":
        kept = [path for path in plan.kept if any(is_below(path, directory) for directory in empty)]
    else:
        kept = list(plan.kept)
    steps += [("bind", path, path, True, True) for path in sorted(kept)]
    steps += [("text", path, text, mode) for path, (text, mode) in sorted(plan.files.items())]
    steps += [("link", path, target) for path, target in sorted(plan.links.items())]
    in_mount = any(is_below(plan.workdir, m.target) for m in mounts)
    workdir: list[Step] = [("directory_at", plan.workdir)] if plan.workdir.strip("/") else []
    steps += [] if in_mount else workdir
    steps += [("proc",), ("sys",), ("devices",)]
    if plan.read_only:
        for mount in mounts:  # the places must be made while the root can still be written
            steps.append(("place_for", mount.target, mount.source))
        steps.append(("seal",))
    for mount in mounts:
        if mount.below:
            steps.append(("bind_below", mount.source, mount.below, mount.target, mount.read_only, mount.make))
        else:
            steps.append(("bind", mount.source, mount.target, mount.read_only, False))
    return [*steps, *workdir] if in_mount else steps


def carried_mounts(mountinfo: Iterable[str], hidden: Sequence[str]) -> list[str]:
    """The machine's mounts that a container takes over, from the lines of /proc/self/mountinfo: the outermost below
    the root, without those made anew, hidden ones, and files. Each comes with what is mounted below it."""
    points = []
    for line in mountinfo:
        point = line.split()[4].encode().decode("unicode_escape")
        if point == "/" or any(is_below(point, d) or is_below(d, point) for d in (*NOT_CARRIED, *hidden)):
            continue
        points.append(point)
    found: list[str] = []
    for point in sorted(set(points)):
        if not any(is_below(point, other) for other in found):
            found.append(point)
    return found


def read_carried_mounts(hidden: Sequence[str]) -> list[str]:
    """`carried_mounts` of this process."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [point for point in carried_mounts(file, hidden) if os.path.isdir(point)]


def overlay_options(place: str) -> str | None:
    """Which options let an overlay be laid over this machine's root; None if the kernel refuses it altogether.

    Runs in a thread that is alone in a new mount namespace; `place` is a directory to try at.
    """
    sc.mount("none", "/", "", sc.MS_REC | sc.MS_PRIVATE)
    for options in ("", ",userxattr"):
        with contextlib.suppress(OSError):
            root = Root(place)
            root.apply(("overlay", "/", 1 << 20, options))
            os.mkdir(f"{root.path}/kubesvc-trial")
            return options
    return None
