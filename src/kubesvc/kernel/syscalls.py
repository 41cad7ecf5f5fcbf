"""System calls that Python 3.11 has no name for: namespaces, mounts, capabilities. Standard library only.

This file, `nsexec.py` and `rootfs.py` are also imported, without the package around them, by the small program that
stands between a spawn and the exec inside new namespaces; so they import nothing of kubesvc, and little else.
All functions raise OSError with the kernel's errno and the words "call(what)".
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # not imported: `typing` takes longer to load than the programs here that start others
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY = 0x1

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 41)
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The result of a call, or the OSError it left in errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind `fd`; `kind` is a CLONE_NEW flag, 0 for any."""
    check(libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (CLONE_NEW flags) or its own root and working directory (CLONE_FS)."""
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    check(result, f"mount({source} on {target})")


def umount(target: str, flags: int = 0) -> None:
    check(libc.umount2(os.fsencode(target), flags), f"umount({target})")


def pivot_root(new: str, old: str) -> None:
    check(libc.syscall(SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), f"pivot_root({new})")


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def mount_setattr(path: str, attributes: int, *, recursive: bool = False) -> None:
    """Add MOUNT_ATTR flags to the mount at `path`, with all below it if `recursive` (Linux 5.12)."""
    wanted = MountAttributes(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    result = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags), ctypes.byref(wanted), ctypes.c_size_t(32)
    )
    check(result, f"mount_setattr({path})")


class OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below the directory descriptor, its links resolved as `resolve` allows (Linux 5.6)."""
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    result = libc.syscall(SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(24))
    return check(result, f"openat2({path})")


def prctl(option: int, *arguments: int) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return check(libc.prctl(option, *(ctypes.c_ulong(a) for a in padded)), f"prctl({option})")


class CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


CAPABILITY_VERSION_3 = 0x20080522
LAST_CAPABILITY = 63


def limit_capabilities(keep: int) -> None:
    """Drop every capability outside the bit mask `keep` from the bounding set and from the calling thread."""
    for capability in range(LAST_CAPABILITY + 1):
        if not keep >> capability & 1:
            try:
                prctl(PR_CAPBSET_DROP, capability)
            except OSError:
                break  # past the last one that this kernel knows
    sets: Any = (ctypes.c_uint32 * 6)()
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    check(libc.capget(ctypes.byref(header), sets), "capget")
    for half in (0, 1):
        for position in range(3):  # effective, permitted, inheritable
            sets[half * 3 + position] &= keep >> (32 * half) & 0xFFFFFFFF
    check(libc.capset(ctypes.byref(header), sets), "capset")
