"""Standing inside a node: how `curl`, `shell` and `outside exec` run a program where ClusterIPs answer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import NoReturn

from kubesvc.instance import ground
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord, ProcessId

from . import Failure


def ground_of_node(record: InstanceRecord, node: str | None) -> ProcessId:
    """The ground of the named node, of the first real one if none is named."""
    real = [n for n in record.nodes if not n.simulated]
    if not real:
        raise Failure("this instance has no real node\nnext: kubesvc up --nodes 1")
    found = next((n for n in real if n.name == node), None) if node else real[0]
    if found is None:
        raise Failure(f"no node {node!r}; there are {', '.join(n.name for n in real)}")
    if found.ground is None or not found.ground.alive():
        raise Failure(f"node {found.name} is not running\nnext: kubesvc status")
    return found.ground


def exec_inside(paths: InstancePaths, record: InstanceRecord, where: ProcessId, program: Sequence[str]) -> NoReturn:
    """Become a program inside these namespaces, whose files are the host's. Failure if there is no such program."""
    assert record.fabric is not None
    if shutil.which(program[0]) is None:
        raise Failure(f"{program[0]}: no such program", status=127)
    command = ground.enter_command(record.fabric, where, program)
    os.execve(command[0], command, ground.environment(paths.root))
