"""The grounds of an instance: one process that holds the network between the nodes, one that holds each node.

A ground is `sleep infinity` as PID 1 of namespaces of its own; the kernel reaps its orphans, and when it is killed the
kernel ends everything that lives in its process namespace. So a node, with all that ever ran in it, goes by ending one
process, and nothing is mounted or named anywhere that could stay behind.

As an ordinary user all of it lives in one user namespace, the fabric's; as root there is none.

Every process started here carries the mark KUBESVC_INSTANCE=<state directory> in its environment, by which `down` also
finds one that a crash left out of the record.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from kubesvc.kernel.namespaces import nsexec_command

from .record import ProcessId, start_ticks
from .wiring import Wiring

MARK = "KUBESVC_INSTANCE"
PATIENCE_SECONDS = 60.0


class GroundFailed(RuntimeError):
    """A namespace or its wiring could not be made; the text says which step and what the kernel said."""


def is_root() -> bool:
    return os.geteuid() == 0


def environment(root: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process of the instance: our own, marked."""
    return {**os.environ, MARK: str(root), **(more or {})}


def spawn(root: Path, command: Sequence[str], log: IO[bytes] | None = None) -> ProcessId:
    """Start an `nsexec` command and wait until it reports the program's process id, as seen from here.

    `--report FD` is added. Raises GroundFailed with what it printed.
    """
    read, write = os.pipe()
    try:
        flags = [str(write) if word == REPORT else word for word in command]
        process = subprocess.Popen(
            flags,
            env=environment(root),
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=log or subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        os.close(read)
        raise GroundFailed(f"{command[0]}: {error.strerror}") from error
    finally:
        os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], PATIENCE_SECONDS)
        text = os.read(read, 64) if ready else b""
    finally:
        os.close(read)
    pid = int(text) if text.strip().isdigit() else 0
    if DETACH in command or not pid:
        if not ready:
            process.kill()
            raise GroundFailed(f"no answer within {PATIENCE_SECONDS:.0f} s")
        status = process.wait()  # it has closed its report, or sent it, and has nothing left to do but end
        if status or not pid:
            said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
            raise GroundFailed(said.removeprefix("nsexec: ") or f"no process was made ({status})")
    ticks = start_ticks(pid)
    if ticks is None:
        raise GroundFailed("the process ended as soon as it was made")
    if process.stderr:
        process.stderr.close()
    return ProcessId(pid, ticks)


REPORT = "@report"
DETACH = "--detach"


def sleep_program() -> list[str]:
    found = shutil.which("sleep")
    if found is None:
        raise GroundFailed("the program `sleep` is not on the PATH")
    return [found, "infinity"]


def spawn_fabric(root: Path) -> ProcessId:
    """The holder of the network between the nodes; as an ordinary user also of the user namespace of all nodes."""
    flags = ["--new-net", "--new-pid", "--new-mnt", "--mount-proc", "--ignore-sigchld"]
    if not is_root():
        flags.insert(0, "--new-user")
    return spawn(root, nsexec_command(*flags, DETACH, "--report", REPORT, program=sleep_program()))


def inside_user(fabric: ProcessId) -> list[str]:
    """Flags that enter the user namespace of the instance, if it has one."""
    return [] if is_root() else ["--user", str(fabric.pid)]


def spawn_host(root: Path, fabric: ProcessId, hostname: str) -> ProcessId:
    """The ground of a node or of a host outside: namespaces of every kind."""
    flags = [*inside_user(fabric), "--new-net", "--new-pid", "--new-mnt", "--new-uts", "--new-ipc", "--mount-proc"]
    flags += ["--ignore-sigchld", "--hostname", hostname, DETACH, "--report", REPORT]
    return spawn(root, nsexec_command(*flags, program=sleep_program()))


def enter_command(fabric: ProcessId, ground: ProcessId, program: Sequence[str], *flags: str) -> list[str]:
    """The command that runs a program inside a node (or host outside): all of its namespaces."""
    where = str(ground.pid)
    joined = [*inside_user(fabric), "--net", where, "--uts", where, "--ipc", where, "--pid", where, "--mnt", where]
    return nsexec_command(*joined, *flags, program=program)


def spawn_inside(root: Path, fabric: ProcessId, ground: ProcessId, program: Sequence[str], log: Path) -> ProcessId:
    """Start a program inside a node's namespaces and leave it running; its output goes to `log`."""
    with log.open("ab") as output:
        return spawn(root, enter_command(fabric, ground, program, DETACH, "--report", REPORT), output)


def spawn_beside(root: Path, ground: ProcessId, program: Sequence[str], log: Path) -> ProcessId:
    """Start a program that has a node's network and otherwise is of the host: one that must see a container runtime's
    processes and mounts. As root only."""
    with log.open("ab") as output:
        return spawn(root, nsexec_command("--net", str(ground.pid), "--report", REPORT, program=program), output)


def wire(root: Path, fabric: ProcessId, wiring: Wiring) -> None:
    """Carry out a wiring inside the fabric. Raises GroundFailed."""
    program = [sys.executable, "-m", "kubesvc.instance.wiring"]
    command = nsexec_command(*inside_user(fabric), "--net", str(fabric.pid), program=program)
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(wiring),
            env=environment(root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
            check=False,
            start_new_session=True,  # Ctrl-C is for the control process, which ends everything in order
        )
    except subprocess.TimeoutExpired:
        raise GroundFailed(f"no end within {PATIENCE_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise GroundFailed(done.stdout.decode(errors="replace").strip() or f"exit status {done.returncode}")


def marked_processes(root: Path) -> list[ProcessId]:
    """Processes of this user that carry the instance's mark, but for this very one."""
    wanted = f"{MARK}={root}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            marked = wanted in Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone meanwhile, or another user's
        if marked and (process := ProcessId.of(int(entry.name))):
            found.append(process)
    return found
