"""The CNI plugin that container runtimes call for the network of a Pod: it passes the call on to the node's agent.

A runtime runs it in the host's namespaces with its wishes in the environment and the network's configuration on
standard input (CNI 0.4). For ADD it goes into the Pod's network namespace, from where it connects to the agent: the
kernel tells the agent who it is, and so which namespace is to be wired. The agent is found in the directory `agents`
of the configuration by the Pod's uid, so that agents of several nodes may share one runtime.

It runs alone, with nothing but Python's standard library, since a runtime waits for it. Called as the type `loopback`,
which containerd needs besides, it sets up the namespace's `lo`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
from typing import Any, NoReturn

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0")
AGENT_SECONDS = 60.0
MOST_BYTES = 1 << 20
CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 0x1000, 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
TRY_LATER, BAD_ARGUMENT, FAILED = 11, 4, 100
"""Codes of CNI's errors; those from 100 on are a plugin's own."""

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The call cannot be met; `code` is CNI's."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def must(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Refused(f"{what}: {os.strerror(number)}")


def enter(path: str) -> None:
    """Go into a network namespace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"network namespace {path}: {error.strerror}", BAD_ARGUMENT) from None
    must(libc.setns(fd, CLONE_NEWNET), f"entering the network namespace {path}")
    os.close(fd)


def loopback_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `A=1;B=2`."""
    return dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)


def add(configuration: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Have the agent wire the namespace; the result as CNI has it."""
    netns, interface = environment.get("CNI_NETNS", ""), environment.get("CNI_IFNAME", "eth0")
    uid = arguments(environment.get("CNI_ARGS", "")).get("K8S_POD_UID", "")
    if not uid or "/" in uid or uid.startswith("."):
        raise Refused("the runtime names no Pod (K8S_POD_UID in CNI_ARGS)", BAD_ARGUMENT)
    if interface != "eth0":
        raise Refused(f"the interface must be eth0, not {interface!r}", BAD_ARGUMENT)
    place = os.path.join(configuration.get("agents") or "/run/kubesvc/cni", uid)
    enter(netns)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(AGENT_SECONDS)
        try:
            agent.connect(place)
        except OSError as error:
            raise Refused(
                f"no kubesvc node waits for Pod {uid} at {place} ({error.strerror}): this runtime's network is for "
                "Pods of `kubesvc node --runtime` and `kubesvc up --runtime`"
            ) from None
        agent.sendall(json.dumps({"uid": uid}).encode() + b"\n")
        with agent.makefile("rb") as lines:
            told = json.loads(lines.readline(MOST_BYTES) or b'{"error": "the node left the call unanswered"}')
        if told.get("error"):
            raise Refused(told["error"], TRY_LATER)
        if told.get("share"):  # the Pod has the node's own network: the runtime shall join it under this path
            owner = struct.unpack("3i", agent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            source = f"/proc/{owner}/ns/net"
            must(libc.mount(source.encode(), netns.encode(), None, MS_BIND, None), f"sharing {source} as {netns}")
    ips = []
    for ip in told["ips"]:
        six = ":" in ip
        ips.append({"version": "6" if six else "4", "address": f"{ip}/{128 if six else 32}", "interface": 0})
    return {"interfaces": [{"name": interface, "sandbox": netns}], "ips": ips, "dns": {}}


def delete(environment: dict[str, str]) -> None:
    """Undo what this program itself has done to the namespace's path; the agent looks after all else."""
    netns = environment.get("CNI_NETNS", "")
    if netns and mounts_at(netns) > 1:
        libc.umount2(netns.encode(), MNT_DETACH)


def mounts_at(path: str) -> int:
    """How many mounts lie at a path."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return sum(line.split(" ")[4] == os.path.realpath(path) for line in file)


def run(environment: dict[str, str], text: str) -> dict[str, Any]:
    """One call; what is to be answered, {} for nothing."""
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}
    try:
        configuration = json.loads(text or "{}")
    except ValueError as error:
        raise Refused(f"the configuration is no JSON: {error}", 6) from None
    version = configuration.get("cniVersion") or VERSIONS[0]
    if version not in VERSIONS:
        raise Refused(f"CNI version {version!r} is none of {', '.join(VERSIONS)}", 1)
    if command == "ADD":
        if configuration.get("type") == "loopback":
            enter(environment.get("CNI_NETNS", ""))
            loopback_up()
            lo = {"name": "lo", "sandbox": environment.get("CNI_NETNS", "")}
            return {"cniVersion": version, "interfaces": [lo], "ips": [], "dns": {}}
        return {"cniVersion": version, **add(configuration, environment)}
    if command == "DEL":
        if configuration.get("type") != "loopback":
            delete(environment)
        return {}
    if command in ("CHECK", "STATUS", "GC"):
        return {}
    raise Refused(f"CNI_COMMAND {command!r} is none of ADD, DEL, CHECK, VERSION", BAD_ARGUMENT)


def main() -> NoReturn:
    try:
        answer = run(dict(os.environ), sys.stdin.read())
        if answer:
            sys.stdout.write(json.dumps(answer))
        code = 0
    except Refused as error:
        sys.stdout.write(json.dumps({"cniVersion": "0.4.0", "code": error.code, "msg": str(error)}))
        code = 1
    except (OSError, ValueError, KeyError) as error:
        words = f"{type(error).__name__}: {error}"
        sys.stdout.write(json.dumps({"cniVersion": "0.4.0", "code": FAILED, "msg": words}))
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
