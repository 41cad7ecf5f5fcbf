"""Ending an instance from outside, whatever state it is in, and choosing where it answers."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from kubesvc.kernel.cgroups import remove_recorded
from kubesvc.kernel.namespaces import nsexec_command
from kubesvc.kernel.trees import remove_tree

from . import ground
from .paths import InstancePaths, all_instances
from .record import InstanceRecord, ProcessId, end_processes, read_record, write_record

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
SWEEP_SECONDS = 60.0
RUNTIME_RECORD = "runtime"
"""The file in a node's directory that names the socket of the container runtime which may hold its containers."""
REMOVAL = "import sys, pathlib; from kubesvc.kernel.trees import remove_tree; remove_tree(pathlib.Path(sys.argv[1]))"


def end_instance(paths: InstancePaths) -> list[ProcessId]:
    """End everything of an instance: politely its control process, then by force whatever is left; never the process
    that asks for it, which may be the control process itself.

    Returns what would not end (nothing, unless the kernel holds it). The store and the certificates stay.
    """
    record = read_record(paths.record) or InstanceRecord()
    control, me = record.control, os.getpid()
    if control is not None and control.pid != me and control.alive():
        control.kill(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while control.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
    left = end_processes([p for p in record.processes() if p.pid != me and p.alive()])
    left += end_processes(ground.marked_processes(paths.root))  # hosts outside, and what no record names
    remove_containers(paths)
    remove_groups(paths)
    paths.outside.unlink(missing_ok=True)
    for socket in (*paths.root.glob("*.sock"), *paths.root.glob("nodes/*/*.sock")):
        socket.unlink(missing_ok=True)
    if paths.record.exists():
        ended = InstanceRecord(loopback=record.loopback, store=record.store)
        try:
            write_record(paths.record, ended)
        except OSError:  # a file system that wants more room even for less
            paths.record.unlink()
            with contextlib.suppress(OSError):
                write_record(paths.record, ended)
    return [p for p in left if p.alive()]


def remove_containers(paths: InstancePaths, node: str = "*") -> None:
    """Have the container runtime remove what the instance's nodes, or one of them, had made; their agents have ended.
    What a runtime that is away keeps, the next agent of the node removes, or the next `down`."""
    for record in paths.root.glob(f"nodes/{node}/{RUNTIME_RECORD}"):
        command = [sys.executable, "-m", "kubesvc.node.cri.sweep", record.read_text(), str(record.parent)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SWEEP_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            log.warning("containers of %s: the runtime does not answer", record.parent.name)
            continue
        if done.returncode == 0:
            record.unlink(missing_ok=True)
        else:
            log.warning("containers of %s: %s", record.parent.name, done.stderr.decode(errors="replace").strip())


def remove_files(root: Path) -> None:
    """Remove a directory of the instance with all that its Pods left there. OSError if some of it will not go.

    As an ordinary user some files may be those of users that only a user namespace makes ours.
    """
    remove_tree(root)
    if root.exists() and not ground.is_root():
        program = [sys.executable, "-c", REMOVAL, str(root)]
        command = nsexec_command("--new-user", "--new-mnt", program=program)
        subprocess.run(command, capture_output=True, timeout=SWEEP_SECONDS, check=False)
    if root.exists():
        shutil.rmtree(root)  # says what is in the way


def forget_volumes(paths: InstancePaths) -> None:
    """Remove the directories of volumes that no object tells of any more; what will not go stays."""
    for place in paths.root.glob(str(paths.volumes("*").relative_to(paths.root))):
        try:
            remove_files(place)
        except OSError as error:
            log.warning("volumes of before: %s", error)


def remove_groups(paths: InstancePaths, node: str = "*") -> None:
    """Remove the control groups that the instance's nodes, or one of them, have made; their processes have ended."""
    for record in paths.root.glob(f"nodes/{node}/cgroups"):
        remove_recorded(record)


def choose_loopback(paths: InstancePaths) -> str:
    """The instance's own loopback address: 127.0.0.1, or the first of 127/8 that no running instance has.

    An instance keeps the address it had if it is still free.
    """
    taken = set()
    for other in all_instances():
        if other.root == paths.root:
            continue
        try:
            record = read_record(other.record)
        except ValueError:
            continue
        if record and record.control and record.control.alive() and record.loopback:
            taken.add(record.loopback)
    try:
        own = read_record(paths.record)
    except ValueError:
        own = None
    if own and own.loopback and own.loopback not in taken and "127.0.0.1" in taken:
        return own.loopback
    return next(a for n in range(1, 255) if (a := f"127.0.0.{n}") not in taken)
