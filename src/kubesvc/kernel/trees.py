"""Walking and removing directories that others have filled: of any depth, with names of any length, and full of links.

What the standard library has for this recurses, or joins paths, and so fails at a thousand levels or four thousand
bytes; a container makes those with one line of shell. Here one descriptor is held at a time and no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeMoved(OSError):
    """A directory was moved elsewhere while it was being walked."""


def walk_tree(top: Path) -> Iterator[tuple[int, list[os.DirEntry[str]]]]:
    """Every directory below `top` and itself, each as a descriptor, open until the next is asked for, and its entries
    that are no directories (links among them).

    Directories that cannot be opened are left out. TreeMoved when somebody moves a directory that is being walked.
    """
    here = os.open(top, DIRECTORY)
    above: list[tuple[tuple[int, int], list[str]]] = []
    """Of each directory on the way up: what it is, and its directories that are still to be visited."""
    try:
        others, waiting = listing(here)
        yield here, others
        while True:
            if waiting:
                name = waiting.pop()
                try:
                    below = os.open(name, DIRECTORY, dir_fd=here)
                except OSError:
                    continue
                above.append((identity(here), waiting))
                os.close(here)
                here = below
                others, waiting = listing(here)
                yield here, others
            elif above:
                known, waiting = above.pop()
                up = os.open("..", DIRECTORY, dir_fd=here)
                os.close(here)
                here = up
                if identity(here) != known:
                    raise TreeMoved(f"{top}: a directory below it was moved while it was walked")
            else:
                return
    finally:
        os.close(here)


def listing(fd: int) -> tuple[list[os.DirEntry[str]], list[str]]:
    """(entries that are no directories, names of those that are)."""
    others, directories = [], []
    with contextlib.suppress(PermissionError), os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                others.append(entry)
    return others, sorted(directories, reverse=True)


def identity(fd: int) -> tuple[int, int]:
    held = os.fstat(fd)
    return held.st_dev, held.st_ino


def used_bytes(top: Path) -> int:
    """What the files below a directory take on disk; those with several names count once.

    A tree that is moved about meanwhile counts as far as it was seen.
    """
    total, seen = 0, set()
    with contextlib.suppress(OSError):
        for fd, entries in walk_tree(top):
            total += os.fstat(fd).st_blocks * 512
            for entry in entries:
                try:
                    held = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                if held.st_nlink > 1:
                    if (held.st_dev, held.st_ino) in seen:
                        continue
                    seen.add((held.st_dev, held.st_ino))
                total += held.st_blocks * 512
    return total


def remove_tree(top: Path) -> None:
    """Remove a directory with all that it holds; what cannot be removed stays, and nothing is raised.

    Directories are moved up into `top` one by one, so that none is ever deep when it is emptied.
    """
    try:
        root = os.open(top, DIRECTORY)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(top)
        return
    try:
        stuck: set[str] = set()
        moved = 0
        while waiting := [name for name in cleared(root) if name not in stuck]:
            for name in waiting:
                moved = empty(root, name, moved)
                try:
                    os.rmdir(name, dir_fd=root)
                except OSError:
                    stuck.add(name)
    finally:
        os.close(root)
    with contextlib.suppress(OSError):
        os.rmdir(top)


def empty(root: int, name: str, moved: int) -> int:
    """Remove the files of one directory below `root` and move its directories up; how many were moved by now."""
    try:
        here = open_for_removal(root, name)
    except OSError:
        return moved
    try:
        for inner in cleared(here):
            while True:
                moved += 1
                try:
                    os.rename(inner, f".removed-{moved}", src_dir_fd=here, dst_dir_fd=root)
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        continue  # somebody has a directory of that name
                break
    finally:
        os.close(here)
    return moved


def open_for_removal(root: int, name: str) -> int:
    """A directory's descriptor; rights to it are taken where they are missing."""
    try:
        return os.open(name, DIRECTORY, dir_fd=root)
    except PermissionError:
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
        finally:
            os.close(place)
        return os.open(name, DIRECTORY, dir_fd=root)


def cleared(fd: int) -> list[str]:
    """Remove everything in a directory but its directories; the names of those."""
    found = []
    with contextlib.suppress(OSError), os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.name, dir_fd=fd)
    return found
