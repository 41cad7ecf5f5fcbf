"""What the host's own network namespace holds: an instance must leave it as it was found.

Only what belongs to this namespace is looked at. Named namespaces, and what is in them, come and go with whoever else
tests on this machine, and so do lifetimes and counters with time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "net/ipv4/conf/*/*",
    "net/ipv6/conf/*/*",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_*",
)
"""Settings that a proxy, a router or a resolver might be tempted to change; all are of this namespace but the room for
connections, which has one value for the whole machine."""
PASSING_KEYS = ("valid_life_time", "preferred_life_time", "link_netnsid", "link_netns", "used", "expires", "error")
"""What the kernel itself changes, or what names a namespace of somebody else's."""
PASSING_SYSCTLS = ("stable_secret",)


def host_network() -> dict[str, str]:
    """Interfaces, addresses, routes, rules and settings, by where they were read."""
    found: dict[str, str] = {}
    for words in (("link",), ("address",), ("route",), ("-6", "route"), ("rule",), ("-6", "rule")):
        said = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=False).stdout
        entries = sorted(json.dumps(lasting(entry), sort_keys=True) for entry in json.loads(said or "[]"))
        found |= {f"ip {' '.join(words)}: {entry}": "" for entry in entries}
    if shutil.which("nft"):
        command = ["nft", "--stateless", "list", "ruleset"]  # without counters
        found["nft list ruleset"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for pattern in SYSCTLS:
        for path in sorted(Path("/proc/sys").glob(pattern)):
            if path.name not in PASSING_SYSCTLS:
                found[str(path)] = reading(path)
    return found


def lasting(entry: Any) -> Any:
    """An answer of ip without what changes by itself."""
    if isinstance(entry, list):
        return [lasting(e) for e in entry]
    if isinstance(entry, dict):
        return {key: lasting(value) for key, value in entry.items() if key not in PASSING_KEYS}
    return entry


def reading(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        return f"not readable: {error.strerror}"


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What changed, in words. Settings that were not there before are the doing of a module that was loaded."""
    found = []
    for where in sorted({*before, *after}):
        was, now = before.get(where), after.get(where)
        if was is None and now is not None and not where.startswith("/proc"):
            found.append(f"new: {where}")
        elif was is not None and now is None:
            found.append(f"gone: {where}")
        elif was is not None and was != now:
            found.append(f"{where}: was {was!r}, is {now!r}")
    return found
