"""Which of root's capabilities a container keeps."""

from __future__ import annotations

from kubesvc.api.container import Container

DEFAULT_CAPABILITIES = 0xA80425FB
"""What container engines leave to root: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap."""
CAPABILITY_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


def capability_mask(container: Container) -> int | None:
    """Which capabilities a container keeps; None for all."""
    context = container.security_context
    if context is not None and context.privileged:
        return None
    mask, every = DEFAULT_CAPABILITIES, (1 << len(CAPABILITY_NAMES)) - 1
    wanted = context.capabilities if context is not None else None
    if wanted is None:
        return mask
    for name in wanted.drop or ():
        mask &= 0 if name.upper() == "ALL" else ~capability_bit(name)
    for name in wanted.add or ():
        mask |= every if name.upper() == "ALL" else capability_bit(name)
    return mask


def capability_bit(name: str) -> int:
    short = name.upper().removeprefix("CAP_")
    return 1 << CAPABILITY_NAMES.index(short) if short in CAPABILITY_NAMES else 0
