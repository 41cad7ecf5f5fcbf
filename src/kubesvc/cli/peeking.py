"""Asking inside a node of an instance: starts `kubesvc.cli.peek` there."""

from __future__ import annotations

import msgspec

from kubesvc.api.pod import Pod
from kubesvc.instance.paths import InstancePaths
from kubesvc.instance.record import InstanceRecord
from kubesvc.node.records import read_record

from . import Failure
from .asking import ask_inside
from .inside import ground_of_node
from .peek import Reply, Request

PATIENCE_SECONDS = 15.0


async def ask_node(paths: InstancePaths, record: InstanceRecord, node: str, request: Request) -> Reply:
    """One request inside a node's namespaces. Failure (status 2) if nobody answers there."""
    where = ground_of_node(record, node)
    question = msgspec.json.encode(request)
    try:
        said, errors = await ask_inside(paths, record, where, "kubesvc.cli.peek", question, PATIENCE_SECONDS)
        return msgspec.json.decode(said, type=Reply)
    except TimeoutError:
        raise Failure(f"node {node} did not answer within {PATIENCE_SECONDS:.0f} s", status=2) from None
    except msgspec.MsgspecError:
        said_last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was said"]
        raise Failure(f"node {node} cannot be looked into: {said_last[0]}", status=2) from None


def pause_of(paths: InstancePaths, node: str, pod: Pod) -> int:
    """The process, as its node numbers it, that holds a Pod's network. Failure if the Pod does not run there."""
    record = read_record(paths.node(node) / "pods" / pod.metadata.uid)
    if record is not None and record.pause_pid:
        return record.pause_pid
    raise Failure(f"pod/{pod.name} does not run on node {node}, so nothing can connect from it", status=2)
