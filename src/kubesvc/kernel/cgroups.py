"""Control groups, version 1 and 2: where groups of ours can be made, what limits are written, and removing them.

A group is named by a path such as "n1/POD/CONTAINER" and exists once in every hierarchy that holds a controller it
needs. Nothing here ends processes. The directories that a crash may leave are written to a file before the first one
is made, so that `remove_recorded` finds them without knowing anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("cpu", "memory", "pids")
PERIOD_MICROSECONDS = 100_000
LEAST_QUOTA_MICROSECONDS = 1000
TRIES, TRY_SECONDS = 1000, 0.01
PREFIX = "kubesvc-"
"""How the names of our outermost groups begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a group is held to; None: not at all.

    memory_bytes: at most;  cpus: at most, in processors;  cpu_shares: weight when they are short, 1024 for one
    processor asked for;  pids: processes and threads at most
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    pids: int | None = None

    def controllers(self) -> tuple[str, ...]:
        """Those that hold these limits."""
        wanted = {
            "cpu": self.cpus is not None or self.cpu_shares is not None,
            "memory": self.memory_bytes is not None,
            "pids": self.pids is not None,
        }
        return tuple(name for name in CONTROLLERS if wanted[name])


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: its version, which of our controllers it gives, the group below which ours are made."""

    version: int
    controllers: tuple[str, ...]
    parent: Path


# -- which there are --------------------------------------------------------------------------------------------------


def mounted(mountinfo: Iterable[str]) -> list[tuple[int, str, Path, tuple[str, ...]]]:
    """(version, root, mount point, options) of the mounted hierarchies, from lines of /proc/self/mountinfo."""
    found = []
    for line in mountinfo:
        left, _, right = line.partition(" - ")
        kind, _, rest = right.partition(" ")
        if kind in ("cgroup", "cgroup2"):
            root, point = (p.encode().decode("unicode_escape") for p in left.split()[3:5])
            options = tuple(rest.split()[-1].split(","))
            found.append((2 if kind == "cgroup2" else 1, root, Path(point), options))
    return found


def own_groups(text: str) -> dict[str, str]:
    """The caller's group by controller, "" for version 2, from /proc/self/cgroup."""
    found = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def inside(path: str, root: str, point: Path) -> Path:
    """Where a group is seen in a mount of the hierarchy whose root is the group `root`."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    elif root != "/" or path.startswith("/.."):
        path = "/"
    found = point / path.lstrip("/")
    return found if found.is_dir() else point


def find_hierarchies(
    mountinfo: Path = Path("/proc/self/mountinfo"), cgroup: Path = Path("/proc/self/cgroup")
) -> list[Hierarchy]:
    """The hierarchies in which this process may make groups and move its children into them. Changes nothing."""
    try:
        mounts = mounted(mountinfo.read_text().splitlines())
        own = own_groups(cgroup.read_text())
    except (OSError, ValueError):
        return []
    found: list[Hierarchy] = []
    for version, root, point, options in mounts:
        if version == 2:
            hierarchy = unified(inside(own.get("", "/"), root, point), point)
            if hierarchy is not None:
                found.append(hierarchy)
            continue
        names = tuple(name for name in CONTROLLERS if name in options)
        if not names:
            continue
        parent = inside(own.get(names[0], "/"), root, point)
        if may_make_groups(parent):
            found.append(Hierarchy(1, names, parent))
    return found


def unified(own: Path, point: Path) -> Hierarchy | None:
    """The nearest group, from our own up to the root of the mount, whose children get controllers. A group that holds
    processes cannot give any to its children, unless it is the root; so it is seldom our own."""
    for parent in (own, *own.parents):
        if parent != point and point not in parent.parents:
            break
        given = set(words(parent / "cgroup.subtree_control"))
        could = given
        if not words(parent / "cgroup.procs") or not (parent / "cgroup.type").exists():  # empty, or the real root
            could = given | set(words(parent / "cgroup.controllers"))
            if not os.access(parent / "cgroup.subtree_control", os.W_OK):
                could = given
        names = tuple(name for name in CONTROLLERS if name in could)
        if names and may_make_groups(parent):
            return Hierarchy(2, names, parent)
    return None


def may_make_groups(parent: Path) -> bool:
    return os.access(parent, os.W_OK | os.X_OK) and os.access(parent / "cgroup.procs", os.W_OK)


def words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def held(hierarchies: Iterable[Hierarchy]) -> tuple[str, ...]:
    """The controllers that some hierarchy gives."""
    given = {name for h in hierarchies for name in h.controllers}
    return tuple(name for name in CONTROLLERS if name in given)


STAND_INS = {
    "cpu": "cpu limits do not hold",
    "memory": "memory limits hold for each process alone (RLIMIT_DATA)",
    "pids": "process counts hold for each user as a whole (RLIMIT_NPROC)",
}


def explain_limits(held: Sequence[str]) -> str:
    """What becomes of limits here, in words for an Event and for `doctor`; "" where control groups hold them all."""
    missing = [name for name in CONTROLLERS if name not in held]
    if not missing:
        return ""
    start = f"control groups hold {' and '.join(held)}" if held else "no control group can be made here"
    return f"{start}: " + ", ".join(STAND_INS[name] for name in missing)


# -- what is written --------------------------------------------------------------------------------------------------


def plan_writes(version: int, limits: Limits, controllers: Sequence[str]) -> list[tuple[str, str]]:
    """(file, text) in the order in which they are written into a new group. Pure."""
    writes: list[tuple[str, str]] = []
    if "memory" in controllers and limits.memory_bytes is not None:
        amount = str(limits.memory_bytes)
        if version == 2:
            writes += [("memory.max", amount), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        else:
            writes += [("memory.limit_in_bytes", amount), ("memory.memsw.limit_in_bytes", amount)]
    if "cpu" in controllers:
        if limits.cpu_shares is not None:
            shares = min(262144, max(2, limits.cpu_shares))
            weight = 1 + (shares - 2) * 9999 // 262142
            writes.append(("cpu.weight", str(weight)) if version == 2 else ("cpu.shares", str(shares)))
        if limits.cpus is not None:
            quota = max(LEAST_QUOTA_MICROSECONDS, int(limits.cpus * PERIOD_MICROSECONDS))
            if version == 2:
                writes.append(("cpu.max", f"{quota} {PERIOD_MICROSECONDS}"))
            else:
                writes += [("cpu.cfs_period_us", str(PERIOD_MICROSECONDS)), ("cpu.cfs_quota_us", str(quota))]
    if "pids" in controllers and limits.pids is not None:
        writes.append(("pids.max", str(limits.pids)))
    return writes


OPTIONAL = ("memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group")
"""Absent where the kernel was built, or started, without them."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group that exists: its directories, one per hierarchy."""

    directories: tuple[Path, ...] = ()

    @property
    def entrances(self) -> tuple[str, ...]:
        """The files that move a process into the group when its number is written there."""
        return tuple(str(d / "cgroup.procs") for d in self.directories)

    def add(self, pid: int) -> None:
        """Move a process in; what it forks from now on is in it too."""
        for entrance in self.entrances:
            Path(entrance).write_text(f"{pid}\n")

    def out_of_memory_kills(self) -> int:
        """How many processes of the group the kernel has ended because its memory ran out."""
        count = 0
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                for line in text_of(directory / name).splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        count += int(value)
        return count

    def processes(self) -> list[int]:
        """Who is in it, as numbers of the caller's process namespace; 0 for those it cannot see."""
        return sorted({int(n) for d in self.directories for n in words(d / "cgroup.procs")})


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Cgroups:
    """Makes and removes the groups of one owner, all below the group `name`.

    name:    path of at least one part, such as "kubesvc-default-1f0a/n1"
    record:  the file that gets the directories of that group before they are made
    """

    def __init__(self, hierarchies: Sequence[Hierarchy], name: str, record: Path) -> None:
        self.hierarchies = tuple(hierarchies)
        self.name = name
        self.record = record

    @property
    def controllers(self) -> tuple[str, ...]:
        return held(self.hierarchies)

    def prepare(self) -> None:
        """Write the record, then make the owner's own group. A hierarchy that refuses is used no more."""
        if not self.hierarchies:
            return
        self.record.write_text("".join(f"{h.parent / self.name}\n" for h in self.hierarchies))
        good = []
        for hierarchy in self.hierarchies:
            try:
                self.make_directory(hierarchy, "")
            except OSError:
                continue
            good.append(hierarchy)
        self.hierarchies = tuple(good)

    def make_directory(self, hierarchy: Hierarchy, path: str) -> Path:
        """The directory of one group with its parents, each of which hands on the controllers (version 2)."""
        at = hierarchy.parent
        for part in Path(self.name, path).parts:
            if hierarchy.version == 2:
                hand_on(at, hierarchy.controllers)
            at = at / part
            at.mkdir(exist_ok=True)
        return at

    def make(self, path: str, limits: Limits, also: Sequence[str] = ()) -> Group:
        """A group held to these limits, in each hierarchy that holds one of them or one of the controllers `also`.
        OSError if it cannot be made."""
        made = []
        wanted = {*limits.controllers(), *also}
        for hierarchy in self.hierarchies:
            if not wanted & set(hierarchy.controllers):
                continue
            directory = self.make_directory(hierarchy, path)
            made.append(directory)
            for name, text in plan_writes(hierarchy.version, limits, hierarchy.controllers):
                try:
                    (directory / name).write_text(text)
                except FileNotFoundError:
                    if name not in OPTIONAL:
                        raise
        return Group(tuple(made))

    def find(self, path: str) -> Group:
        """The group as it is, made earlier."""
        places = [h.parent / self.name / path for h in self.hierarchies]
        return Group(tuple(p for p in places if p.is_dir()))

    def names(self) -> list[str]:
        """The groups right below the owner's own."""
        found = set()
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                found |= {e.name for e in os.scandir(hierarchy.parent / self.name) if e.is_dir()}
        return sorted(found)

    def close(self) -> None:
        """Remove the owner's own group if nothing is left in it."""
        for hierarchy in self.hierarchies:
            own = hierarchy.parent / self.name
            with contextlib.suppress(OSError):
                own.rmdir()
                if own.parent != hierarchy.parent:
                    own.parent.rmdir()

    def remove(self, path: str) -> list[Path]:
        """Remove a group with all below it; the directories that stayed because somebody is in them."""
        return remove_trees([h.parent / self.name / path for h in self.hierarchies])


def hand_on(directory: Path, controllers: Sequence[str]) -> None:
    missing = [name for name in controllers if name not in words(directory / "cgroup.subtree_control")]
    if missing:
        (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))


def remove_trees(directories: Iterable[Path]) -> list[Path]:
    """Remove groups with all below them, waiting a little for processes that are ending; those that stayed."""
    left = []
    tries = TRIES
    for top in directories:
        for place, _, _ in os.walk(top, topdown=False):
            while not removed(place):
                tries -= 1
                if tries <= 0:
                    left.append(Path(place))
                    break
                time.sleep(TRY_SECONDS)
    return left


def removed(place: str) -> bool:
    """Try to remove one group; False if somebody is still in it."""
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def remove_recorded(record: Path) -> list[Path]:
    """Remove what the owner of this record left, and the groups above it of his that are empty; those that stayed."""
    directories = [Path(line) for line in text_of(record).splitlines() if line.startswith("/")]
    left = remove_trees(directories)
    for directory in directories:
        with contextlib.suppress(OSError):
            if directory.parent.name.startswith(PREFIX):
                directory.parent.rmdir()
    if not left:
        record.unlink(missing_ok=True)
    return left
