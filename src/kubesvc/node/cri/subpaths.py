"""Parts of volumes, bound to places of their own so that a runtime can mount them (subPath).

A runtime mounts what a path leads to when it gets there, and by then a container may have put a link in the way. So
the part is opened here, its links held inside the volume, and what was opened is bound to a place that no container
sees. The places are in a directory of their own, from which only mounts and empty directories are ever removed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kubesvc.kernel import syscalls
from kubesvc.kernel.mounts import Mount
from kubesvc.kernel.rootfs import Root


def bind_part(mount: Mount, place: Path) -> None:
    """Bind `mount.below` of the volume `mount.source` at `place`. OSError if there is nothing and none may be made."""
    source = Root(mount.source).part(mount.below, make=mount.make)
    try:
        opened = f"/proc/self/fd/{source}"
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        free(place)
        if os.path.isdir(opened):
            place.mkdir()
        else:
            place.touch()
        syscalls.mount(opened, str(place), "", syscalls.MS_BIND | syscalls.MS_REC)
    finally:
        os.close(source)


def free(place: Path) -> None:
    """Take what is bound at a place away, and the place."""
    with contextlib.suppress(OSError):
        while True:
            syscalls.umount(str(place), syscalls.MNT_DETACH)
    with contextlib.suppress(OSError):
        place.rmdir() if place.is_dir() else place.unlink()


def free_all(directory: Path) -> None:
    """Take everything away that is bound in a directory, and the directory."""
    for container in sorted(directory.iterdir()) if directory.is_dir() else ():
        for place in sorted(container.iterdir()):
            free(place)
        with contextlib.suppress(OSError):
            container.rmdir()
    with contextlib.suppress(OSError):
        directory.rmdir()
