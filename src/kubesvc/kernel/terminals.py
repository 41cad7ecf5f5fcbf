"""Terminals of containers: opened among those of a container's own /dev, so that it can name and open them itself.

Standard library only: the program in `nsexec.py` uses it too.
"""

from __future__ import annotations

import fcntl
import os
import struct

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC


def open_pair(multiplexer: str) -> tuple[int, int]:
    """(near, far): a new terminal of the devpts that this ptmx belongs to. OSError where there is none.

    The far end is asked of the near one and not opened by its path, so whose mounts the caller sees does not matter.
    """
    near = os.open(multiplexer, FLAGS)
    try:
        fcntl.ioctl(near, TIOCSPTLCK, struct.pack("i", 0))
        return near, far_end(near)
    except OSError:
        os.close(near)
        raise


def far_end(near: int) -> int:
    """One more descriptor of a terminal's far end. OSError."""
    return fcntl.ioctl(near, TIOCGPTPEER, FLAGS)


def open_inside(pid: int, owner: int) -> tuple[int, int]:
    """(near, far): a new terminal among those that this process sees, for the user `owner`; one of the caller's own
    where the process has none. OSError."""
    try:
        near, far = open_pair(f"/proc/{pid}/root/dev/pts/ptmx")
    except OSError:
        return os.openpty()
    try:
        os.fchown(far, owner, -1)
    except OSError:
        pass  # it cannot be opened by its name then; nothing else depends on it
    return near, far
